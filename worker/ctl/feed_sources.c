/* The file of sources: URLs, jobs as JSON, and sections, one a source.
 *
 *   every = 10s                         for all that follow
 *   https://example.com/prices
 *   {"url": "https://example.com/x", "schedule": {"source_id": "x", "period_ms": 60000}}
 *   [ecb]
 *   url = https://example.com/ecb
 *   every = 1h
 *   job = {"headers": [...]}
 *
 * All that is wrong is said with file:line, not only the first thing. */
#include "clock.h"
#include "err.h"
#include "feed.h"
#include "job.h"

#include <ctype.h>
#include <errno.h>

#define ERRORS_SAID_MAX 10
#define PERIOD_MIN_MS 100
#define PERIOD_MAX_MS (INT64_C(366) * 86400000)

/* What a section, or the file before the first one, may set. */
struct wishes {
	int64_t every_ms, timeout_ms;
	int attempts;
	int conditional; /* 1 = yes, 0 = no, -1 = not said */
};

struct reader {
	const struct feed_args *args;
	const struct options *settings;
	feed_say_fn say;
	void *ctx;
	const char *path;
	long line;
	int errors;
	struct wishes common;
	struct source *sources;

	/* the section that is being read; its name is NULL outside */
	char *name, *url;
	json_t *job;
	struct wishes own;
	long section_line;
};

static void complain(struct reader *reader, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void complain(struct reader *reader, const char *fmt, ...)
{
	va_list ap;

	if (++reader->errors > ERRORS_SAID_MAX)
		return;
	va_start(ap, fmt);
	char *text = xvasprintf(fmt, ap);
	va_end(ap);
	reader->say(reader->ctx, xasprintf("%s:%ld: %s", reader->path, reader->line, text));
	free(text);
}

void source_free(struct source *source)
{
	if (!source)
		return;
	json_decref(source->job);
	free(source->etag);
	free(source->last_modified);
	free(source->id);
	free(source->url);
	free(source->key);
	free(source);
}

void sources_free(struct source **sources)
{
	struct source *source, *next;

	HASH_ITER(hh, *sources, source, next)
	{
		HASH_DEL(*sources, source);
		source_free(source);
	}
}

/* --- one round's job --- */

char *source_job_id(const struct source *source, int64_t due_ms)
{
	return xasprintf("feed/%s/%lld", source->id, (long long)due_ms);
}

static json_t *object_in(json_t *job, const char *key)
{
	json_t *own = json_object_get(job, key);
	json_t *copy = json_is_object(own) ? json_copy(own) : json_object();

	json_object_set_new(job, key, copy);
	return copy;
}

static void add_validators(json_t *job, const struct source *source)
{
	if (source->etag)
		json_object_set_new(job, "if_none_match", json_string(source->etag));
	if (source->last_modified)
		json_object_set_new(job, "if_modified_since", json_string(source->last_modified));
	if (source->has_digest)
		json_object_set_new(job, "prev_digest", print_json_base64((struct span){source->digest, FEED_DIGEST_BYTES}));
}

static char *text_of(const struct source *source, int64_t due_ms, const char *owner, bool has_validators)
{
	json_t *job = json_copy(source->job);
	char *job_id = source_job_id(source, due_ms);

	json_object_set_new(job, "job_id", json_string(job_id));
	json_object_set_new(job, "expires_at_ms", json_integer(due_ms + source->period_ms));
	json_object_set_new(job, "schedule",
			    json_pack("{s:s,s:I,s:I}", "source_id", source->id, "period_ms", (json_int_t)source->period_ms,
				      "due_at_ms", (json_int_t)due_ms));
	json_t *attrs = object_in(job, "attrs");
	json_object_set_new(attrs, "feed.source", json_string(source->id));
	json_object_set_new(attrs, "feed.owner", json_string(owner));
	if (has_validators)
		add_validators(job, source);
	char *text = json_dumps(job, JSON_COMPACT);
	free(job_id);
	json_decref(job);
	return text;
}

/* What a worker would say to it; NULL = nothing. free. */
static char *fault_of(const char *text, char **ret_key)
{
	struct arena arena;
	struct url url = {0};

	arena_init(&arena, 4096);
	const char *fault = ctl_job_fault(&arena, span_str(text), &url);
	char *copy = fault ? xstrdup(fault) : NULL;
	if (ret_key)
		*ret_key = url.key ? xstrdup(url.key) : NULL;
	arena_done(&arena);
	return copy;
}

char *source_job(const struct source *source, int64_t due_ms, const char *owner)
{
	char *text = text_of(source, due_ms, owner, source->is_conditional);
	char *fault = source->is_conditional ? fault_of(text, NULL) : NULL;

	/* A server may give validators that no job can carry: too long, or not UTF-8. */
	if (fault) {
		free(text);
		text = text_of(source, due_ms, owner, false);
	}
	free(fault);
	return text;
}

/* --- a source from what was read --- */

/* A round must be over before the next one is due: attempts that are repeated, or wait for the worker's own time-out, could outlast it. */
static void bound_attempts(struct reader *reader, json_t *job, const struct wishes *wishes, int64_t period_ms)
{
	bool is_short = period_ms < reader->settings->job_deadline;
	int64_t timeout_ms = wishes->timeout_ms ? wishes->timeout_ms : is_short ? period_ms * 8 / 10 : 0;
	int attempts = wishes->attempts ? wishes->attempts : is_short ? 1 : 0;
	json_t *timeouts = object_in(job, "timeouts"), *retry = object_in(job, "retry");

	if (timeout_ms && !json_object_get(timeouts, "total_ms"))
		json_object_set_new(timeouts, "total_ms", json_integer(timeout_ms));
	if (attempts && !json_object_get(retry, "max_attempts"))
		json_object_set_new(retry, "max_attempts", json_integer(attempts));
}

/* A worker takes both spellings of a field; here they are looked at by one of them. */
static void one_spelling(json_t *object)
{
	static const char *const names[][2] = {
	    {"timeoutMs", "timeout_ms"},	 {"totalMs", "total_ms"},      {"maxAttempts", "max_attempts"},
	    {"sourceId", "source_id"},		 {"periodMs", "period_ms"},    {"ifNoneMatch", "if_none_match"},
	    {"ifModifiedSince", "if_modified_since"}, {"prevDigest", "prev_digest"}, {"expiresAtMs", "expires_at_ms"},
	    {"jobId", "job_id"},
	};

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		json_t *value = json_object_get(object, names[i][0]);

		if (!value)
			continue;
		json_object_set(object, names[i][1], value);
		json_object_del(object, names[i][0]);
	}
}

static int64_t number_of(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	return json_is_string(value) ? strtoll(json_string_value(value), NULL, 10) : json_integer_value(value);
}

static int64_t period_of(const struct reader *reader, const struct wishes *own, const json_t *schedule)
{
	if (own->every_ms)
		return own->every_ms;
	if (json_object_get(schedule, "period_ms"))
		return number_of(schedule, "period_ms");
	return reader->args->every_ms ? reader->args->every_ms : reader->common.every_ms;
}

static void check_period(struct reader *reader, const struct source *source)
{
	if (!source->period_ms)
		complain(reader, "%s has no period: give --every 10s, or a line every = 10s", source->id);
	else if (source->period_ms < PERIOD_MIN_MS || source->period_ms > PERIOD_MAX_MS)
		complain(reader, "%s: a period must be 100ms to 366 days", source->id);
}

/* Takes id and job. */
static void add_source(struct reader *reader, char *id, json_t *job, const struct wishes *own)
{
	struct source *source = xcalloc(1, sizeof(*source)), *other;
	int errors = reader->errors;
	char *text, *fault;

	int conditional = own->conditional >= 0 ? own->conditional : reader->common.conditional;
	*source = (struct source){
	    .id = id, .job = job, .is_conditional = conditional != 0, .is_listed = true, .line = reader->line};
	source->url = xstrdup(json_string_value(json_object_get(job, "url")));
	source->period_ms = period_of(reader, own, json_object_get(job, "schedule"));
	check_period(reader, source);
	HASH_FIND_STR(reader->sources, id, other);
	if (other)
		complain(reader, "%s is there already, in line %ld; a section gives it another name", id, other->line);
	if (strlen(id) > FEED_ID_BYTES_MAX)
		complain(reader, "the name is over %d bytes; a section gives it a shorter one", FEED_ID_BYTES_MAX);
	if (reader->errors == errors) {
		struct wishes wishes = {.timeout_ms = own->timeout_ms ? own->timeout_ms : reader->common.timeout_ms,
					.attempts = own->attempts ? own->attempts : reader->common.attempts};

		bound_attempts(reader, job, &wishes, source->period_ms);
		text = text_of(source, clock_epoch_ms(), "feed", false);
		fault = fault_of(text, &source->key);
		if (fault)
			complain(reader, "%s", fault);
		free(fault);
		free(text);
	}
	if (reader->errors == errors)
		HASH_ADD_KEYPTR(hh, reader->sources, source->id, strlen(source->id), source);
	else
		source_free(source);
}

/* Takes job. NULL id: its own, or the URL. */
static void add_job(struct reader *reader, const char *name, json_t *job, const struct wishes *own)
{
	one_spelling(job);
	json_t *schedule = json_object_get(job, "schedule");
	if (json_is_object(schedule))
		one_spelling(schedule);
	if (json_is_object(json_object_get(job, "timeouts")))
		one_spelling(json_object_get(job, "timeouts"));
	if (json_is_object(json_object_get(job, "retry")))
		one_spelling(json_object_get(job, "retry"));
	const char *url = json_string_value(json_object_get(job, "url"));
	const char *id = name ? name : json_string_value(json_object_get(schedule, "source_id"));

	if (url && *url) {
		add_source(reader, xstrdup(id && *id ? id : url), job, own);
		return;
	}
	complain(reader, "%s has no url", id && *id ? id : "the job");
	json_decref(job);
}

/* --- lines --- */

static char *trim(char *text)
{
	while (isspace((unsigned char)*text))
		text++;
	for (size_t len = strlen(text); len && isspace((unsigned char)text[len - 1]); len--)
		text[len - 1] = '\0';
	return text;
}

static json_t *job_from(struct reader *reader, const char *text)
{
	json_error_t error;
	json_t *job = json_loads(text, JSON_REJECT_DUPLICATES, &error);

	if (json_is_object(job))
		return job;
	complain(reader, "not a JSON object: %s", job ? "it is something else" : error.text);
	json_decref(job);
	return NULL;
}

static void set_wish(struct reader *reader, struct wishes *wishes, const char *key, const char *value)
{
	int64_t *ms = strcmp(key, "every") == 0 ? &wishes->every_ms : &wishes->timeout_ms;

	if (strcmp(key, "attempts") == 0) {
		wishes->attempts = atoi(value);
		if (wishes->attempts < 1 || wishes->attempts > 100)
			complain(reader, "attempts = %s: must be a number from 1 to 100", value);
	} else if (strcmp(key, "conditional") == 0) {
		wishes->conditional = strcmp(value, "yes") == 0;
		if (!wishes->conditional && strcmp(value, "no") != 0)
			complain(reader, "conditional = %s: must be yes or no", value);
	} else if (options_parse_duration(value, ms) || *ms <= 0) {
		complain(reader, "%s = %s: must be a time such as 500ms, 10s or 2m", key, value);
	}
}

/* "every = 10s" -> its key, and *ret_value; NULL = no such line: a URL may have a '=', too, but not behind such a word. */
static const char *setting_of(char *line, char **ret_value)
{
	static const char *const keys[] = {"every", "timeout", "attempts", "conditional", "url", "job"};
	size_t len = strspn(line, "abcdefghijklmnopqrstuvwxyz_");
	char *equals = line + len + strspn(line + len, " \t");

	if (*equals != '=')
		return NULL;
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		if (strlen(keys[i]) != len || strncmp(keys[i], line, len) != 0)
			continue;
		*ret_value = trim(equals + 1);
		return keys[i];
	}
	return NULL;
}

static void end_section(struct reader *reader)
{
	long line = reader->line;
	json_t *job = reader->job ? reader->job : json_object();

	if (!reader->name) {
		json_decref(job);
		return;
	}
	reader->line = reader->section_line;
	if (reader->url)
		json_object_set_new(job, "url", json_string(reader->url));
	add_job(reader, reader->name, job, &reader->own);
	reader->line = line;
	free(reader->name);
	free(reader->url);
	reader->name = reader->url = NULL;
	reader->job = NULL;
}

static void begin_section(struct reader *reader, char *line)
{
	char *end = strchr(line, ']');

	end_section(reader);
	if (!end || end[1] || !*trim(line + 1) || end == line + 1) {
		complain(reader, "%s: a section must be [NAME]", line);
		return;
	}
	*end = '\0';
	reader->name = xstrdup(trim(line + 1));
	reader->own = (struct wishes){.conditional = -1};
	reader->section_line = reader->line;
}

static void read_line(struct reader *reader, char *line)
{
	static const struct wishes none = {.conditional = -1};
	char *value = NULL;
	const char *key;

	if (!*line || *line == '#' || *line == ';')
		return;
	if (*line == '[') {
		begin_section(reader, line);
	} else if (*line == '{') {
		end_section(reader);
		json_t *job = job_from(reader, line);
		if (job)
			add_job(reader, NULL, job, &none);
	} else if (!(key = setting_of(line, &value))) {
		end_section(reader);
		add_job(reader, NULL, json_pack("{s:o}", "url", print_json_text(span_str(line))), &none);
	} else if (strcmp(key, "url") == 0 || strcmp(key, "job") == 0) {
		bool is_url = *key == 'u';
		if (!reader->name)
			complain(reader, "%s = belongs into a section: [NAME]", key);
		else if (is_url ? reader->url != NULL : reader->job != NULL)
			complain(reader, "%s = is there twice", key);
		else if (is_url)
			reader->url = xstrdup(value);
		else
			reader->job = job_from(reader, value);
	} else {
		set_wish(reader, reader->name ? &reader->own : &reader->common, key, value);
	}
}

static void read_all(struct reader *reader, FILE *in)
{
	char *line = NULL;
	size_t size = 0;

	while (!ctl_stopped() && getline(&line, &size, in) >= 0) {
		reader->line++;
		read_line(reader, trim(line));
	}
	if (ferror(in) && !ctl_stopped())
		complain(reader, "cannot be read on: %s", strerror(errno));
	end_section(reader);
	free(line);
}

int sources_read(const char *path, const struct feed_args *args, const struct options *settings, feed_say_fn say, void *ctx,
		 struct source **ret_sources)
{
	bool is_stdin = strcmp(path, "-") == 0;
	struct reader reader = {.path = is_stdin ? "stdin" : path,
				.args = args,
				.settings = settings,
				.say = say,
				.ctx = ctx,
				.common.conditional = -1};
	FILE *in = is_stdin ? stdin : fopen(path, "re");

	if (!in) {
		say(ctx, xasprintf("%s: %s", path, strerror(errno)));
		return -ERR_INVALID;
	}
	read_all(&reader, in);
	if (!is_stdin)
		fclose(in);
	if (reader.errors > ERRORS_SAID_MAX)
		say(ctx, xasprintf("%s: and %d more like these", reader.path, reader.errors - ERRORS_SAID_MAX));
	if (!reader.errors && !reader.sources && !ctl_stopped()) {
		say(ctx, xasprintf("%s: there is no source in it", reader.path));
		reader.errors++;
	}
	if (reader.errors || ctl_stopped()) {
		sources_free(&reader.sources);
		return reader.errors ? -ERR_INVALID : -ERR_CANCELLED;
	}
	*ret_sources = reader.sources;
	return 0;
}
