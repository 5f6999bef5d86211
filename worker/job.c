#include "job.h"

#include "err.h"
#include "job_internal.h"
#include "utf8.h"

#include <strings.h>

#define FIELD_NAME_MAX 64

int job_fault(struct arena *arena, const char **ret_detail, int err, const char *field, const char *what)
{
	size_t len = strnlen(field, FIELD_NAME_MAX);

	*ret_detail = arena_printf(arena, "field %.*s: %s", (int)utf8_valid_len(field, len), field, what);
	return err;
}

/* ---- which format ---- */

/* The media type, whatever parameters follow (RFC 9110 8.3.1). */
static bool is_media_type(struct span value, const char *type)
{
	size_t len = strlen(type);

	if (value.len < len || strncasecmp((const char *)value.data, type, len) != 0)
		return false;
	return value.len == len || value.data[len] == ';' || value.data[len] == ' ' || value.data[len] == '\t';
}

enum job_format job_sniff(const struct record *rec)
{
	static const struct {
		const char *type;
		enum job_format format;
	} types[] = {
	    {"application/json", JOB_FORMAT_JSON},
	    {"application/x-protobuf", JOB_FORMAT_PROTOBUF},
	    {"application/protobuf", JOB_FORMAT_PROTOBUF},
	    {"text/uri-list", JOB_FORMAT_URL},
	    {"text/plain", JOB_FORMAT_URL},
	};

	for (size_t i = 0; i < rec->n_headers; i++) {
		if (strcasecmp(rec->headers[i].name, "content-type") != 0)
			continue;
		for (size_t j = 0; j < ARRAY_LEN(types); j++)
			if (is_media_type(rec->headers[i].value, types[j].type))
				return types[j].format;
	}
	switch (rec->value.len ? rec->value.data[0] : '\0') {
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

static int not_a_url(struct arena *arena, const char **ret_detail, const char *what, size_t at)
{
	*ret_detail = arena_printf(arena, "taken as a URL, it has %s at byte %zu", what, at);
	return -ERR_JOB_FORMAT;
}

/* Whatever is not known to be something else comes here, so what cannot be a URL must not pass for one. */
static int from_url(struct arena *arena, struct span value, struct job *job, const char **ret_detail)
{
	size_t start = 0, end = value.len;

	while (start < end && is_space(value.data[start]))
		start++;
	while (end > start && is_space(value.data[end - 1]))
		end--;
	for (size_t i = start; i < end; i++) {
		if (value.data[i] == '\n' || value.data[i] == '\r')
			return not_a_url(arena, ret_detail, "a second line", i);
		if (value.data[i] < 0x20 || value.data[i] == 0x7f)
			return not_a_url(arena, ret_detail, "a control character", i);
	}
	size_t valid = utf8_valid_len(value.data + start, end - start);
	if (valid != end - start)
		return not_a_url(arena, ret_detail, "what is not UTF-8", start + valid);
	job->url = arena_strndup(arena, (const char *)value.data + start, end - start);
	return 0;
}

/* ---- the way of a record ---- */

static int decode(struct arena *arena, const struct record *rec, enum job_format format, struct job *job,
		  const char **ret_detail)
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
	/* No format begins with it, but a schema registry's serialiser does. */
	if (value.data[0] == 0) {
		*ret_detail = "a first byte of 0 is reserved for Confluent's framing, which is not read yet";
		return -ERR_JOB_FORMAT;
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

static bool is_zeros(const uint8_t *hex, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (hex[i] != '0')
			return false;
	return true;
}

/* W3C Trace Context 3.2.2, version 00: trace-id and parent-id in lower-case hex and not all zero. */
static bool is_traceparent(struct span value)
{
	static const char form[] = "00-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-xxxxxxxxxxxxxxxx-xx";

	if (value.len != sizeof(form) - 1)
		return false;
	for (size_t i = 0; i < value.len; i++) {
		uint8_t c = value.data[i];
		bool is_hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
		if (form[i] == 'x' ? !is_hex : c != (uint8_t)form[i])
			return false;
	}
	return !is_zeros(value.data + 3, 32) && !is_zeros(value.data + 36, 16);
}

static const char *traceparent_of(struct arena *arena, const struct record *rec)
{
	for (size_t i = 0; i < rec->n_headers; i++) {
		struct span value = rec->headers[i].value;
		if (strcasecmp(rec->headers[i].name, "traceparent") == 0 && is_traceparent(value))
			return arena_strndup(arena, (const char *)value.data, value.len);
	}
	return NULL;
}

int job_decode(struct arena *arena, const struct record *rec, enum job_format format, int64_t now_epoch_ms,
	       struct job *ret_job, const char **ret_detail)
{
	const char *second_detail;

	*ret_job = (struct job){.max_redirects = -1};
	int err = decode(arena, rec, format, ret_job, ret_detail);
	int check_err = job_check(arena, ret_job, now_epoch_ms, err ? &second_detail : ret_detail);

	if (!ret_job->job_id)
		ret_job->job_id = arena_printf(arena, "%s/%d/%lld", rec->topic, rec->partition, (long long)rec->offset);
	if (!ret_job->url)
		ret_job->url = "";
	if (!ret_job->method)
		ret_job->method = "GET";
	if ((int)ret_job->body_mode <= 0 || ret_job->body_mode > BODY_MODE_NONE)
		ret_job->body_mode = BODY_MODE_INLINE;
	ret_job->traceparent = traceparent_of(arena, rec);
	return err ? err : check_err;
}
