#include "job.h"

#include "err.h"
#include "job_internal.h"
#include "utf8.h"

#include <ctype.h>
#include <strings.h>

#define EXPECT_MAX 64

static int fail(struct arena *arena, const char **ret_detail, int err, const char *field, const char *what)
{
	*ret_detail = arena_printf(arena, "field %s: %s", field, what);
	return err;
}

/* ---- which format ---- */

static bool starts_with(struct span text, const char *prefix)
{
	size_t len = strlen(prefix);

	return text.len >= len && strncasecmp((const char *)text.data, prefix, len) == 0;
}

enum job_format job_sniff(const struct record *rec)
{
	for (size_t i = 0; i < rec->n_headers; i++) {
		struct span type = rec->headers[i].value;
		if (strcasecmp(rec->headers[i].name, "content-type") != 0)
			continue;
		if (starts_with(type, "application/json"))
			return JOB_FORMAT_JSON;
		if (starts_with(type, "application/x-protobuf") || starts_with(type, "application/protobuf"))
			return JOB_FORMAT_PROTOBUF;
		if (starts_with(type, "text/"))
			return JOB_FORMAT_URL;
	}
	if (!rec->value.len)
		return JOB_FORMAT_URL;
	switch (rec->value.data[0]) {
	case '{':
		return JOB_FORMAT_JSON;
	case 0x0a: /* field 1, job_id */
	case 0x12: /* field 2, url */
		return JOB_FORMAT_PROTOBUF;
	default:
		return JOB_FORMAT_URL;
	}
}

/* ---- a bare URL ---- */

static bool is_space(uint8_t c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static int from_url(struct arena *arena, struct span value, struct job *job, const char **ret_detail)
{
	if (value.data[0] == 0) {
		*ret_detail = "a first byte of 0 is Confluent's framing, which is not read yet";
		return -ERR_JOB_FORMAT;
	}
	while (value.len && is_space(value.data[0])) {
		value.data++;
		value.len--;
	}
	while (value.len && is_space(value.data[value.len - 1]))
		value.len--;
	for (size_t i = 0; i < value.len; i++) {
		if (value.data[i] < 0x20 || value.data[i] == 0x7f) {
			*ret_detail = arena_printf(arena, "taken as a URL, it has a control character at byte %zu", i);
			return -ERR_JOB_FORMAT;
		}
	}
	if (utf8_valid_len(value.data, value.len) != value.len) {
		*ret_detail = "taken as a URL, it is not valid UTF-8";
		return -ERR_JOB_FORMAT;
	}
	job->url = arena_strndup(arena, (const char *)value.data, value.len);
	return 0;
}

/* ---- checks that all formats share ---- */

/* RFC 9110 5.6.2 */
static bool is_token(const char *text)
{
	if (!*text)
		return false;
	for (; *text; text++)
		if (!isalnum((unsigned char)*text) && !strchr("!#$%&'*+-.^_`|~", *text))
			return false;
	return true;
}

static bool is_denied_header(const char *name)
{
	static const char *const denied[] = {"host",	"content-length", "transfer-encoding", "connection", "keep-alive",
					     "te",	"trailer",	  "upgrade",	       "expect"};

	if (strncasecmp(name, "proxy-", 6) == 0)
		return true;
	for (size_t i = 0; i < ARRAY_LEN(denied); i++)
		if (strcasecmp(name, denied[i]) == 0)
			return true;
	return false;
}

static int check_headers(struct arena *arena, const struct job *job, const char **ret_detail)
{
	size_t bytes = 0;

	for (size_t i = 0; i < job->n_headers; i++) {
		const struct header *header = &job->headers[i];
		if (!is_token(header->name))
			return fail(arena, ret_detail, -ERR_HEADER_NAME, "headers", "a name is not an HTTP token");
		if (is_denied_header(header->name))
			return fail(arena, ret_detail, -ERR_HEADER_DENIED, "headers",
				    arena_printf(arena, "%s may not be set by a job", header->name));
		for (size_t j = 0; j < header->value.len; j++)
			if ((header->value.data[j] < 0x20 && header->value.data[j] != '\t') || header->value.data[j] == 0x7f)
				return fail(arena, ret_detail, -ERR_HEADER_VALUE, "headers",
					    arena_printf(arena, "the value of %s has a control character", header->name));
		bytes += strlen(header->name) + header->value.len;
	}
	if (job->n_headers > JOB_HEADERS_MAX || bytes > JOB_HEADERS_BYTES_MAX)
		return fail(arena, ret_detail, -ERR_HEADER_COUNT, "headers", "over 64 headers or 16 KiB of them");
	return 0;
}

static int check_attrs(struct arena *arena, const struct job *job, const char **ret_detail)
{
	size_t bytes = 0;

	for (size_t i = 0; i < job->n_attrs; i++)
		bytes += strlen(job->attrs[i].key) + strlen(job->attrs[i].value);
	if (job->n_attrs > JOB_ATTRS_MAX || bytes > JOB_ATTRS_BYTES_MAX)
		return fail(arena, ret_detail, -ERR_JOB_ATTRS, "attrs", "over 64 entries or 16 KiB");
	return 0;
}

/* protobuf-c does not check its strings. */
static int check_text(struct arena *arena, struct job *job, const char **ret_detail)
{
	const struct {
		const char *name, **text;
		size_t max;
	} fields[] = {
		{"job_id", &job->job_id, JOB_ID_BYTES_MAX},	    {"url", &job->url, JOB_BYTES_MAX},
		{"method", &job->method, 64},			    {"secret_ref", &job->secret_ref, 256},
		{"proxy_ref", &job->proxy_ref, 256},		    {"host_profile", &job->host_profile, 256},
		{"if_none_match", &job->if_none_match, 1024},	    {"if_modified_since", &job->if_modified_since, 128},
		{"schedule.source_id", &job->source_id, 1024}, {"replay_id", &job->replay_id, 256},
	};
	int err = 0;

	for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
		const char *text = *fields[i].text;
		size_t len = text ? strlen(text) : 0;
		bool is_valid = utf8_valid_len(text, len) == len && len <= fields[i].max;
		if (is_valid)
			continue;
		/* The result cannot carry it. */
		*fields[i].text = NULL;
		err = fail(arena, ret_detail, -ERR_JOB_FIELD, fields[i].name, len > fields[i].max ? "too long" : "not valid UTF-8");
	}
	for (size_t i = 0; i < job->n_attrs; i++) {
		size_t n_key = strlen(job->attrs[i].key), n_value = strlen(job->attrs[i].value);
		if (utf8_valid_len(job->attrs[i].key, n_key) != n_key || utf8_valid_len(job->attrs[i].value, n_value) != n_value) {
			job->n_attrs = 0;
			return fail(arena, ret_detail, -ERR_JOB_FIELD, "attrs", "not valid UTF-8");
		}
	}
	return err;
}

static int check_validators(struct arena *arena, const struct job *job, const char **ret_detail)
{
	const char *texts[] = {job->if_none_match, job->if_modified_since};

	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		for (const char *c = texts[i]; c && *c; c++)
			if ((unsigned char)*c < 0x20 || *c == 0x7f)
				return fail(arena, ret_detail, -ERR_HEADER_VALUE, i ? "if_modified_since" : "if_none_match",
					    "has a control character");
	return 0;
}

static int check_numbers(struct arena *arena, const struct job *job, int64_t now_epoch_ms, const char **ret_detail)
{
	const struct {
		const char *name;
		int64_t value;
	} numbers[] = {
		{"not_before_at_ms", job->not_before_at_ms}, {"expires_at_ms", job->expires_at_ms},
		{"timeouts.connect_ms", job->connect_ms},    {"timeouts.total_ms", job->total_ms},
		{"timeouts.stall_ms", job->stall_ms},	     {"retry.max_attempts", job->max_attempts},
		{"retry.base_ms", job->base_ms},	     {"retry.max_ms", job->max_ms},
		{"max_body_bytes", job->max_body_bytes},     {"schedule.period_ms", job->period_ms},
		{"schedule.due_at_ms", job->due_at_ms},	     {"max_redirects", job->max_redirects == -1 ? 0 : job->max_redirects},
	};

	for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
		if (numbers[i].value < 0)
			return fail(arena, ret_detail, -ERR_JOB_FIELD, numbers[i].name,
				    arena_printf(arena, "%lld is under 0", (long long)numbers[i].value));
	if ((int)job->body_mode < 0 || job->body_mode > BODY_MODE_NONE)
		return fail(arena, ret_detail, -ERR_JOB_FIELD, "body_mode", "not one of INLINE, HASH_ONLY, NONE");
	if (job->prev_digest.len && job->prev_digest.len != 32)
		return fail(arena, ret_detail, -ERR_JOB_FIELD, "prev_digest", "a SHA-256 has 32 bytes");
	if (job->n_expect_status > EXPECT_MAX || job->n_expect_type > EXPECT_MAX)
		return fail(arena, ret_detail, -ERR_JOB_FIELD, "expect", "over 64 entries");
	if (job->not_before_at_ms - now_epoch_ms > JOB_NOT_BEFORE_MAX_MS)
		return fail(arena, ret_detail, -ERR_JOB_NOT_BEFORE, "not_before_at_ms", "over 5 minutes ahead: that is a scheduler's work");
	return 0;
}

static int check(struct arena *arena, struct job *job, int64_t now_epoch_ms, const char **ret_detail)
{
	int err = check_text(arena, job, ret_detail);

	if (!err)
		err = check_attrs(arena, job, ret_detail);
	if (!err)
		err = check_headers(arena, job, ret_detail);
	if (!err)
		err = check_validators(arena, job, ret_detail);
	if (!err)
		err = check_numbers(arena, job, now_epoch_ms, ret_detail);
	if (!err && job->method && *job->method && !is_token(job->method))
		err = fail(arena, ret_detail, -ERR_METHOD_SYNTAX, "method", "not an HTTP token");
	return err;
}

/* ---- the rest ---- */

/* W3C Trace Context: version-traceid-parentid-flags, lower-case hex. */
static const char *traceparent_of(struct arena *arena, const struct record *rec)
{
	static const char form[] = "xx-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-xxxxxxxxxxxxxxxx-xx";

	for (size_t i = 0; i < rec->n_headers; i++) {
		struct span value = rec->headers[i].value;
		size_t n = 0;
		if (strcasecmp(rec->headers[i].name, "traceparent") != 0 || value.len != sizeof(form) - 1)
			continue;
		while (n < value.len &&
		       (form[n] == 'x' ? isdigit(value.data[n]) || (value.data[n] >= 'a' && value.data[n] <= 'f') : value.data[n] == '-'))
			n++;
		if (n == value.len)
			return arena_strndup(arena, (const char *)value.data, n);
	}
	return NULL;
}

static int decode(struct arena *arena, const struct record *rec, enum job_format format, struct job *job, const char **ret_detail)
{
	struct span value = rec->value;

	if (!value.len) {
		*ret_detail = value.data ? "the record's value is empty" : "the record's value is null";
		return -ERR_JOB_EMPTY;
	}
	if (value.len > JOB_BYTES_MAX) {
		*ret_detail = arena_printf(arena, "%zu bytes, over %d", value.len, JOB_BYTES_MAX);
		return -ERR_JOB_TOO_LARGE;
	}
	switch (format == JOB_FORMAT_AUTO ? job_sniff(rec) : format) {
	case JOB_FORMAT_JSON:
		return job_from_json(arena, value, job, ret_detail);
	case JOB_FORMAT_PROTOBUF:
		return job_from_protobuf(arena, value, job, ret_detail);
	default:
		return from_url(arena, value, job, ret_detail);
	}
}

int job_decode(struct arena *arena, const struct record *rec, enum job_format format, int64_t now_epoch_ms, struct job *ret_job,
	       const char **ret_detail)
{
	*ret_job = (struct job){.max_redirects = -1};
	int err = decode(arena, rec, format, ret_job, ret_detail);
	int check_err = check(arena, ret_job, now_epoch_ms, err ? &(const char *){NULL} : ret_detail);

	if (!ret_job->job_id || !*ret_job->job_id)
		ret_job->job_id = arena_printf(arena, "%s/%d/%lld", rec->topic, rec->partition, (long long)rec->offset);
	if (!ret_job->url)
		ret_job->url = "";
	if (!ret_job->method || !*ret_job->method)
		ret_job->method = "GET";
	if (!ret_job->body_mode)
		ret_job->body_mode = BODY_MODE_INLINE;
	ret_job->traceparent = traceparent_of(arena, rec);
	return err ? err : check_err;
}
