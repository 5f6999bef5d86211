#include "options.h"

#include <ctype.h>

#define NAME_BYTES_MAX 256 /* a host name has up to 253 */

static bool is_name(const char *text)
{
	for (; *text; text++)
		if (!isalnum((unsigned char)*text) && !strchr("-._:", *text))
			return false;
	return true;
}

/* Found without being matched: a name, or "*.name". */
static bool is_found(const char *glob)
{
	return is_name(strncmp(glob, "*.", 2) == 0 ? glob + 1 : glob);
}

static int by_glob(const void *a, const void *b, void *sections)
{
	const struct host_section *all = sections;
	size_t i = *(const size_t *)a, j = *(const size_t *)b;
	int order = strcasecmp(all[i].glob, all[j].glob);

	return order ? order : i < j ? -1 : i > j;
}

void options_unindex(struct options *opts)
{
	free(opts->by_glob);
	free(opts->scanned);
	opts->by_glob = opts->scanned = NULL;
	opts->n_scanned = 0;
}

void options_index(struct options *opts)
{
	size_t n = opts->n_sections;

	options_unindex(opts);
	if (!n)
		return;
	opts->by_glob = xcalloc(n, sizeof(*opts->by_glob));
	opts->scanned = xcalloc(n, sizeof(*opts->scanned));
	for (size_t i = 0; i < n; i++) {
		opts->by_glob[i] = i;
		if (!is_found(opts->sections[i].glob))
			opts->scanned[opts->n_scanned++] = i;
	}
	qsort_r(opts->by_glob, n, sizeof(*opts->by_glob), by_glob, opts->sections);
}

int options_section_named(const struct options *opts, const char *glob)
{
	size_t low = 0, high = opts->n_sections;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (strcasecmp(opts->sections[opts->by_glob[middle]].glob, glob) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == opts->n_sections || strcasecmp(opts->sections[opts->by_glob[low]].glob, glob) != 0)
		return -1;
	return (int)opts->by_glob[low];
}

/* The earlier of the two; -1 = none. */
static int earlier(int a, int b)
{
	return a < 0 || (b >= 0 && b < a) ? b : a;
}

int options_section_of(const struct options *opts, const char *host)
{
	char glob[NAME_BYTES_MAX + 2] = "*";

	if (!opts->n_sections)
		return -1;
	int found = options_section_named(opts, host);
	for (const char *dot = strchr(host, '.'); dot && strlen(dot) < NAME_BYTES_MAX; dot = strchr(dot + 1, '.')) {
		memcpy(glob + 1, dot, strlen(dot) + 1);
		found = earlier(found, options_section_named(opts, glob));
	}
	for (size_t i = 0; i < opts->n_scanned && (found < 0 || opts->scanned[i] < (size_t)found); i++)
		if (glob_match(opts->sections[opts->scanned[i]].glob, host))
			return (int)opts->scanned[i];
	return found;
}
