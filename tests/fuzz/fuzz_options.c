/* The settings: a file, -o and variables out of one input, with a line %% between the three. Whatever they say, there
 * is either a set of settings within its limits or at least one sentence. */
#include "err.h"
#include "fuzz.h"
#include "options_internal.h"

#include <sys/mman.h>
#include <unistd.h>

#define WORDS_MAX 64

/* The lines of a part, cut in place; NULL-terminated. */
static size_t lines_of(char *text, char *words[static WORDS_MAX + 1])
{
	size_t n = 0;

	for (char *save, *line = strtok_r(text, "\n", &save); line && n < WORDS_MAX; line = strtok_r(NULL, "\n", &save))
		words[n++] = line;
	words[n] = NULL;
	return n;
}

/* Cuts text at the next line %% and returns what is behind. */
static char *next_part(char *text)
{
	char *border = strstr(text, "\n%%\n");

	if (!border)
		return text + strlen(text);
	border[1] = '\0';
	return border + 4;
}

static void check_host(const struct host_options *host)
{
	struct host_options copy = *host;

	for (size_t i = 0; i < ROW_COUNT; i++) {
		const struct option_row *row = &option_rows[i];
		if (!row->is_host)
			continue;
		if (row->type == TYPE_INT) {
			int64_t value = *(int64_t *)option_at_host(&copy, row);
			assert(value >= row->min && value <= row->max);
		} else if (row->type == TYPE_FLOAT) {
			double value = *(double *)option_at_host(&copy, row);
			assert(value >= (double)row->min && value <= (double)row->max);
		}
	}
	assert(host->retry_base <= host->retry_max);
}

static void check(struct options *opts)
{
	for (size_t i = 0; i < ROW_COUNT; i++) {
		const struct option_row *row = &option_rows[i];
		if (row->is_host || row->type != TYPE_INT)
			continue;
		int64_t value = *(int64_t *)option_at(opts, row);
		assert(value >= row->min && value <= row->max);
	}
	check_host(&opts->host);
	for (size_t i = 0; i < opts->n_sections; i++) {
		check_host(&opts->sections[i].host);
		assert(options_section_of(opts, opts->sections[i].glob) <= (int)i);
	}
	assert(opts->body_max <= opts->memory_max / 4);
	assert(opts->jobs_topic.n > 0 && *opts->results_topic);
}

/* Over the defaults, as SIGHUP would. */
static void reload(struct options *fresh)
{
	struct options *opts = NULL;
	char *errors, *warnings, *ignored;

	int err = options_load(NULL, NULL, 0, NULL, &opts, &errors, &warnings);
	assert(!err);
	options_reload(opts, fresh, &ignored);
	check(opts);
	options_free(opts);
	free(ignored);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = xcalloc(1, size + 1), *overrides[WORDS_MAX + 1], *variables[WORDS_MAX + 1];
	struct options *opts = NULL;
	char *errors, *warnings, path[64];
	int fd = memfd_create("gatherd.conf", 0);

	assert(fd >= 0);
	memcpy(text, data, size);
	char *second = next_part(text), *third = next_part(second);
	/* All of the input when it has one part, so that NUL bytes get into the file. */
	size_t len = *second ? strlen(text) : size;
	ssize_t n = write(fd, data, len);
	assert(n == (ssize_t)len);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	size_t n_overrides = lines_of(second, overrides);
	lines_of(third, variables);
	int err = options_load(path, overrides, n_overrides, variables, &opts, &errors, &warnings);
	assert(err ? !opts && errors && *errors : opts && !errors);
	if (opts) {
		check(opts);
		reload(opts);
	}
	free(errors);
	free(warnings);
	free(text);
	close(fd);
	return 0;
}
