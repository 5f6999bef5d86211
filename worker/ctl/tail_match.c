#include "tail.h"

#include "err.h"
#include "gatherd/v1/result.pb-c.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/sha.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_MAX_BYTES 200
#define VALUE_MAX_BYTES 8192

/* --- statuses --- */

static bool parse_one(const char *word, int *ret_from, int *ret_to)
{
	int n = 0;

	if (sscanf(word, "%3d-%3d%n", ret_from, ret_to, &n) == 2 && !word[n])
		return *ret_from <= *ret_to;
	if (isdigit((unsigned char)word[0]) && strcasecmp(word + 1, "xx") == 0) {
		*ret_from = (word[0] - '0') * 100;
		*ret_to = *ret_from + 99;
		return true;
	}
	if (sscanf(word, "%3d%n", ret_from, &n) != 1 || word[n] || *ret_from < 0)
		return false;
	*ret_to = *ret_from;
	return true;
}

int statuses_parse(const struct ctl *ctl, const char *text, struct statuses *ret_statuses)
{
	char *list = xstrdup(text ? text : ""), *at = list, *word;
	int err = 0;

	while (!err && (word = strsep(&at, ", ")) != NULL) {
		if (!*word)
			continue;
		if (ret_statuses->n == STATUSES_MAX || !parse_one(word, &ret_statuses->v[ret_statuses->n].from, &ret_statuses->v[ret_statuses->n].to)) {
			ctl_say(ctl, "--status %s: must be 404, 5xx or 400-499, at most %d of them", word, STATUSES_MAX);
			err = -ERR_INVALID;
		}
		ret_statuses->n += !err;
	}
	free(list);
	return err;
}

bool statuses_has(const struct statuses *statuses, int status)
{
	for (size_t i = 0; i < statuses->n; i++)
		if (status >= statuses->v[i].from && status <= statuses->v[i].to)
			return true;
	return !statuses->n;
}

/* --- headers --- */

/* A value is bytes; cut at a NUL, as no header has one. */
static bool value_fits(const char *glob, const ProtobufCBinaryData *value)
{
	char text[VALUE_MAX_BYTES];

	snprintf(text, sizeof(text), "%.*s", (int)MIN(value->len, sizeof(text) - 1), (const char *)value->data);
	for (char *at = text; *at; at++)
		*at = (char)tolower((unsigned char)*at);
	char *lower = xstrdup(glob);
	for (char *at = lower; *at; at++)
		*at = (char)tolower((unsigned char)*at);
	bool fits = glob_match(lower, text);
	free(lower);
	return fits;
}

bool result_has_header(const Gatherd__V1__FetchResult *res, const char *wish)
{
	size_t len = strcspn(wish, ":");
	const char *glob = wish[len] ? wish + len + 1 + strspn(wish + len + 1, " ") : NULL;

	for (size_t i = 0; i < res->n_headers; i++) {
		const Gatherd__V1__Header *header = res->headers[i];

		if (strlen(header->name) == len && strncasecmp(header->name, wish, len) == 0 && (!glob || value_fits(glob, &header->value)))
			return true;
	}
	return false;
}

/* --- bodies --- */

static int say_system(const struct ctl *ctl, const char *path)
{
	ctl_say(ctl, "%s: %s", path, strerror(errno));
	return -ERR_SYSTEM;
}

int result_open_bodies(const struct ctl *ctl, const char *dir)
{
	struct stat st;

	if (mkdir(dir, 0777) && errno != EEXIST)
		return say_system(ctl, dir);
	if (stat(dir, &st) == 0 && !S_ISDIR(st.st_mode))
		errno = ENOTDIR;
	else if (access(dir, W_OK | X_OK) == 0)
		return 0;
	return say_system(ctl, dir);
}

/* Never a hidden file, nor one outside; too long a name ends in its digest. free. */
static char *name_of(const char *job_id)
{
	char *name = xmalloc(3 * strlen(job_id) + 2), *to = name;
	unsigned char digest[SHA256_DIGEST_LENGTH];

	for (const char *at = job_id; *at; at++) {
		unsigned char c = (unsigned char)*at;

		if ((isascii(c) && isalnum(c)) || c == '-' || c == '_' || (c == '.' && at > job_id))
			*to++ = (char)c;
		else
			to += sprintf(to, "%%%02X", c);
	}
	*to = '\0';
	if (to == name)
		strcpy(name, "_");
	if (strlen(name) <= NAME_MAX_BYTES)
		return name;
	SHA256((const unsigned char *)job_id, strlen(job_id), digest);
	for (int i = 0; i < 8; i++)
		sprintf(name + NAME_MAX_BYTES - 16 + 2 * i, "%02x", digest[i]);
	return name;
}

int result_save_body(const struct ctl *ctl, const char *dir, const Gatherd__V1__FetchResult *res)
{
	char *name = name_of(res->job_id), *path = xasprintf("%s/%s", dir, name), *part = xasprintf("%s/.%d.part", dir, (int)getpid());
	FILE *file = fopen(part, "we");
	int err = 0;

	if (!file) {
		err = say_system(ctl, part);
		goto out;
	}
	bool is_bad = fwrite(res->body.data, 1, res->body.len, file) != res->body.len;
	is_bad |= fclose(file) != 0;
	if (is_bad || rename(part, path)) {
		err = say_system(ctl, path);
		unlink(part);
	}
out:
	free(name);
	free(path);
	free(part);
	return err;
}
