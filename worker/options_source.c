#include "options_internal.h"

#include "err.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Cuts white space off both ends, in place. */
static char *trim(char *text)
{
	size_t n = strlen(text);

	while (n && isspace((unsigned char)text[n - 1]))
		text[--n] = '\0';
	return text + strspn(text, " \t\r\v\f");
}

static void cut_comment(char *line)
{
	for (char *s = line; (s = strchr(s, '#')); s++) {
		if (s == line || isspace((unsigned char)s[-1])) {
			*s = '\0';
			return;
		}
	}
}

/* `[host "GLOB"]` -> SECTION_HOST and GLOB, cut out in place; SECTION_NONE when the head is not of that form. */
static enum section_kind parse_head(char *head, const char **ret_name)
{
	static const char *const kinds[] = {[SECTION_HOST] = "host", [SECTION_SECRET] = "secret", [SECTION_PROXY] = "proxy"};
	size_t n = strlen(head);

	if (n < 2 || head[n - 1] != ']')
		return SECTION_NONE;
	head[n - 1] = '\0';
	head = trim(head + 1);
	for (enum section_kind kind = SECTION_HOST; kind <= SECTION_PROXY; kind++) {
		size_t len = strlen(kinds[kind]);
		if (strncmp(head, kinds[kind], len) != 0)
			continue;
		char *name = trim(head + len);
		n = strlen(name);
		if (n < 3 || name[0] != '"' || name[n - 1] != '"')
			return SECTION_NONE;
		name[n - 1] = '\0';
		*ret_name = name + 1;
		return kind;
	}
	return SECTION_NONE;
}

/* What no host name in a URL can match. */
static const char *glob_mistake(const char *glob)
{
	const char *colon = strchr(glob, ':');

	for (const char *s = glob; *s; s++) {
		if ((unsigned char)*s >= 0x80)
			return "write the name in punycode (xn--...)";
		if (!isalnum((unsigned char)*s) && !strchr("-._*?:[]", *s))
			return "write a host name without scheme and path; '*' and '?' are wild";
	}
	if (colon && !strchr(colon + 1, ':'))
		return "write the host name without its port";
	return NULL;
}

static int add_section(struct draft *draft, const char *source, const char *glob)
{
	struct options *opts = draft->opts;
	size_t n = opts->n_sections;

	if (n == OPTIONS_SECTIONS_MAX) {
		draft_error(draft, source, "over %d sections", OPTIONS_SECTIONS_MAX);
		return (int)n - 1;
	}
	/* Full at every power of two: room doubles. */
	if ((n & (n - 1)) == 0) {
		size_t room = n ? n * 2 : 1;
		opts->sections = xrealloc(opts->sections, room * sizeof(*opts->sections));
		draft->sections = xrealloc(draft->sections, room * sizeof(*draft->sections));
	}
	opts->sections[n] = (struct host_section){.glob = xstrdup(glob)};
	draft->sections[n] = (struct section_draft){.source = xstrdup(source)};
	draft->n_sections = ++opts->n_sections;
	return (int)n;
}

/* Where the rows under a head go. */
struct place {
	enum section_kind kind;
	int section; /* of the host sections; -1 = the general settings */
};

/* Also a bad head opens a section, so that the rows under it are looked at as what they are meant to be. */
static void read_head(struct draft *draft, const char *source, char *line, struct place *place)
{
	char text[SHOWN_MAX];
	const char *mistake, *name = "";

	shown(line, text);
	place->kind = parse_head(line, &name);
	if (place->kind == SECTION_SECRET || place->kind == SECTION_PROXY) {
		draft_add_named(draft, source, place->kind, name);
		return;
	}
	if (place->kind == SECTION_NONE)
		draft_error(draft, source, "%s: a section must be [host \"GLOB\"], [secret \"NAME\"] or [proxy \"NAME\"]", text);
	else if ((mistake = glob_mistake(name)))
		draft_error(draft, source, "%s: %s", text, mistake);
	place->kind = SECTION_HOST;
	place->section = add_section(draft, source, name);
}

static void read_row(struct draft *draft, const char *source, const struct place *place, char *line)
{
	char text[SHOWN_MAX], *equals = strchr(line, '=');
	bool is_named = place->kind == SECTION_SECRET || place->kind == SECTION_PROXY;

	if (!equals) {
		/* Only the first word: the rest may be a password. Of a secret not even that. */
		line[is_named ? 0 : strcspn(line, " \t:")] = '\0';
		draft_error(draft, source, "%s%smust be key = value", shown(line, text), is_named ? "" : ": ");
		return;
	}
	*equals = '\0';
	if (is_named)
		draft_set_named(draft, source, place->kind, trim(line), trim(equals + 1));
	else
		draft_set(draft, source, place->section, trim(line), trim(equals + 1));
}

static const struct place general = {.section = -1};

static void read_lines(struct draft *draft, char *text)
{
	struct place place = general;

	for (int number = 1; text; number++) {
		char *next = strchr(text, '\n');
		if (next)
			*next++ = '\0';
		cut_comment(text);
		char *line = trim(text), *source = xasprintf("%s:%d", draft->path, number);
		if (*line == '[')
			read_head(draft, source, line, &place);
		else if (*line)
			read_row(draft, source, &place, line);
		free(source);
		text = next;
	}
}

int read_whole(const char *path, bool is_regular, struct buf *buf)
{
	char chunk[16384];
	struct stat st;
	ssize_t n;
	int err = 0, fd = open(path, O_RDONLY | O_CLOEXEC | (is_regular ? O_NONBLOCK : 0)); /* opening a pipe would wait */

	if (fd < 0)
		return -ERR_SYSTEM;
	if (is_regular && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))) {
		errno = S_ISDIR(st.st_mode) ? EISDIR : ESPIPE;
		err = -ERR_SYSTEM;
	}
	while (!err && (n = read(fd, chunk, sizeof(chunk))) != 0)
		err = n < 0 ? -ERR_SYSTEM : buf_add(buf, chunk, (size_t)n);
	int error = errno;
	close(fd);
	errno = error;
	return err;
}

int draft_read_file(struct draft *draft)
{
	static const char bom[] = "\xef\xbb\xbf";
	struct buf buf;

	draft->stage = STAGE_FILE;
	buf_init(&buf, OPTIONS_FILE_MAX);
	int err = read_whole(draft->path, false, &buf);
	if (err == -ERR_SYSTEM) {
		draft_error(draft, draft->path, "cannot be read: %s", strerror(errno));
	} else if (err) {
		draft_error(draft, draft->path, "over %d bytes: not a file of settings", OPTIONS_FILE_MAX);
	} else if (buf.len && memchr(buf.data, '\0', buf.len)) {
		draft_error(draft, draft->path, "has a NUL byte: not a file of settings");
	} else if (buf.len) {
		char *text = xstrndup((const char *)buf.data, buf.len);
		read_lines(draft, strncmp(text, bom, 3) == 0 ? text + 3 : text);
		free(text);
	}
	buf_done(&buf);
	return err == -ERR_SYSTEM ? err : 0;
}

void draft_read_overrides(struct draft *draft, char *const overrides[], size_t n)
{
	draft->stage = STAGE_OVERRIDES;
	for (size_t i = 0; i < n; i++) {
		char *copy = xstrdup(overrides[i]);
		read_row(draft, "-o", &general, trim(copy));
		free(copy);
	}
}

static const char env_prefix[] = "GATHERD_";
static const char env_kafka[] = "KAFKA_";

/* PARTITION_INFLIGHT is the name of partition.inflight. */
static bool is_env_name(const char *key, const char *name)
{
	for (; *key; key++, name++)
		if (*name != (*key == '.' ? '_' : toupper((unsigned char)*key)))
			return false;
	return !*name;
}

static const struct option_row *env_row(const char *name)
{
	for (size_t i = 0; i < ROW_COUNT; i++)
		if (is_env_name(option_rows[i].key, name))
			return &option_rows[i];
	return NULL;
}

static bool ends_in(const char *name, const char *end)
{
	size_t n = strlen(name), n_end = strlen(end);

	return n >= n_end && strcmp(name + n - n_end, end) == 0;
}

/* Kubernetes makes GATHERD_KAFKA_SERVICE_HOST, _PORT, _PORT_9092_TCP_ADDR... for a service called gatherd-kafka. */
static bool is_service_link(const char *name)
{
	return ends_in(name, "_SERVICE_HOST") || ends_in(name, "_PORT") || strstr(name, "_PORT_");
}

static void warn_unknown(struct draft *draft, const char *source, const char *name)
{
	const char *nearest = draft->n_warnings < SENTENCES_MAX ? option_nearest(name) : NULL;
	char *meant = nearest ? xstrdup(nearest) : NULL;

	for (char *s = meant; s && *s; s++)
		*s = *s == '.' ? '_' : (char)toupper((unsigned char)*s);
	if (meant)
		draft_warning(draft, source, "unknown, ignored; did you mean %s%s?", env_prefix, meant);
	else
		draft_warning(draft, source, "unknown, ignored");
	free(meant);
}

/* name is without GATHERD_. */
static void read_variable(struct draft *draft, const char *name, const char *value)
{
	char text[SHOWN_MAX];
	char *source = xasprintf("environment %s%s", env_prefix, shown(name, text));
	const struct option_row *row = env_row(name);

	if (row) {
		draft_set(draft, source, -1, row->key, value);
	} else if (strncmp(name, env_kafka, sizeof(env_kafka) - 1) == 0 && !is_service_link(name)) {
		char *key = xstrdup(name);
		for (char *s = key; *s; s++)
			*s = *s == '_' ? '.' : (char)tolower((unsigned char)*s);
		draft_set(draft, source, -1, key, value);
		free(key);
	} else {
		warn_unknown(draft, source, name);
	}
	free(source);
}

void draft_read_environ(struct draft *draft, char *const environ_block[])
{
	draft->stage = STAGE_ENVIRON;
	for (; environ_block && *environ_block; environ_block++) {
		const char *entry = *environ_block, *equals = strchr(entry, '=');
		if (!equals || strncmp(entry, env_prefix, sizeof(env_prefix) - 1) != 0)
			continue;
		entry += sizeof(env_prefix) - 1;
		char *name = xstrndup(entry, equals > entry ? (size_t)(equals - entry) : 0);
		read_variable(draft, name, equals + 1);
		free(name);
	}
}
