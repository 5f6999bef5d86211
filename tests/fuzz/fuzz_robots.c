/* Any bytes as a path, a User-Agent and a robots.txt (its first line, its second, and the rest); what is said of the
 * path does not depend on how it is written. And two letters, a slash, '*' and '$' as a rule and a path: the same
 * answer as that of a plain table of which beginning of the one fits which of the other. */
#include "robots.h"
#include "fuzz.h"

#include <ctype.h>
#include <stdio.h>

#define SMALL_MAX 64

/* Its first line, which is taken off data. */
static char *line_take(struct span *data)
{
	const uint8_t *end = data->len ? memchr(data->data, '\n', data->len) : NULL;
	size_t len = end ? (size_t)(end - data->data) : data->len;
	char *line = xstrndup((const char *)data->data, len);

	len = MIN(len + 1, data->len);
	data->data += len;
	data->len -= len;
	return line;
}

/* The path again, with all that is unreserved as %XX and a fragment. A broken %XX could become a whole one: not for
 * those. */
static char *path_encoded(const char *path)
{
	char *out = xmalloc(3 * strlen(path) + 3), *end = out;

	for (; *path && *path != '#'; path++) {
		if (isascii(*path) && (isalnum((unsigned char)*path) || strchr("-._~", *path)))
			end += sprintf(end, "%%%02x", (unsigned)*path);
		else
			*end++ = *path;
	}
	strcpy(end, "#x");
	return out;
}

static void check_file(struct span data)
{
	char *path = line_take(&data), *user_agent = line_take(&data), *encoded = path_encoded(path);
	char token[ROBOTS_TOKEN_MAX];

	robots_token(user_agent, token);
	must(strlen(token) < ROBOTS_TOKEN_MAX && strstr(user_agent, token), "the token is a part", user_agent);
	for (const char *c = token; *c; c++)
		must(isalpha((unsigned char)*c) || *c == '-' || *c == '_', "the token is one", token);
	struct robots *robots = robots_parse(data, token);
	must(robots_bytes(robots) <= 3 * data.len + 64, "memory is bounded", path);
	must(robots_delay_us(robots) >= 0 && robots_delay_us(robots) <= ROBOTS_DELAY_MAX_US, "so is the delay", path);
	must(robots_allows(robots, "/robots.txt"), "/robots.txt is allowed", path);
	must(robots_allows(robots, "/%72obots.%74xt#a"), "however it is written", path);
	bool is_allowed = robots_allows(robots, path);
	if (strlen(encoded) < URL_BYTES_MAX && !strchr(path, '%') && *path == '/')
		must(robots_allows(robots, encoded) == is_allowed, "the same when encoded", path);
	if (!data.len)
		must(is_allowed || strlen(path) > URL_BYTES_MAX / 3, "an empty file allows", path);
	robots_free(robots);
	free(path);
	free(user_agent);
	free(encoded);
}

/* fits[j] = the first i octets of the pattern can stand for the first j of the path. */
static bool table_matches(const char *pattern, size_t n, const char *path, size_t m)
{
	bool fits[SMALL_MAX + 2] = {true}, is_anchored = n > 0 && pattern[n - 1] == '$', is_found = false;

	for (size_t i = 0; i < n - is_anchored; i++) {
		bool next[SMALL_MAX + 2] = {false};
		for (size_t j = 0; j <= m; j++)
			next[j] = pattern[i] == '*' ? fits[j] || (j > 0 && next[j - 1])
						    : j > 0 && fits[j - 1] && pattern[i] == path[j - 1];
		memcpy(fits, next, sizeof(fits));
	}
	for (size_t j = 0; j <= m; j++)
		is_found = is_found || fits[j];
	return is_anchored ? fits[m] : is_found;
}

static void check_rule(const uint8_t *data, size_t size)
{
	char text[2 * SMALL_MAX], pattern[SMALL_MAX + 2] = "/", path[SMALL_MAX + 2] = "/";
	size_t n = 1, m = 1;

	for (size_t i = 0; i < size && i < SMALL_MAX; i++) {
		if (i % 2)
			pattern[n++] = "ab/**$*a"[data[i] % 8];
		else
			path[m++] = "ab/$"[data[i] % 4];
	}
	snprintf(text, sizeof(text), "user-agent: *\ndisallow: %s", pattern);
	struct robots *robots = robots_parse(span_str(text), "x");
	must(robots_allows(robots, path) == !table_matches(pattern, n, path, m), text, path);
	robots_free(robots);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check_file((struct span){data, size});
	check_rule(data, size);
	return 0;
}
