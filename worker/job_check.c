/* The rules that all job formats share: text, then headers, then numbers. */
#include "err.h"
#include "job_internal.h"
#include "utf8.h"

#define SHA256_BYTES 32

static bool is_utf8(const char *text)
{
	size_t len = strlen(text);

	return utf8_valid_len(text, len) == len;
}

/* ---- text ---- */

/* proto3 does not tell an empty string from an absent one. What is wrong is taken out: the result could not carry it.
 */
static int check_strings(struct arena *arena, struct job *job, const char **ret_detail)
{
	const struct {
		const char *name, **text;
		size_t max;
	} fields[] = {
	    {"job_id", &job->job_id, JOB_ID_BYTES_MAX},
	    {"url", &job->url, JOB_BYTES_MAX}, /* url.c has the limit */
	    {"method", &job->method, 64},
	    {"secret_ref", &job->secret_ref, 256},
	    {"proxy_ref", &job->proxy_ref, 256},
	    {"if_none_match", &job->if_none_match, 1024},
	    {"if_modified_since", &job->if_modified_since, 128},
	    {"host_profile", &job->host_profile, 256},
	    {"schedule.source_id", &job->source_id, 1024},
	    {"replay_id", &job->replay_id, 256},
	};
	int err = 0;

	for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
		const char *text = *fields[i].text, *what = NULL;
		if (!text)
			continue;
		if (strlen(text) > fields[i].max)
			what = arena_printf(arena, "over %zu bytes", fields[i].max);
		else if (!is_utf8(text))
			what = "not valid UTF-8";
		if (what || !*text)
			*fields[i].text = NULL;
		if (what && !err)
			err = job_fault(arena, ret_detail, -ERR_JOB_FIELD, fields[i].name, what);
	}
	return err;
}

/* As many as the limits let through stay, for the result. */
static int check_attrs(struct arena *arena, struct job *job, const char **ret_detail)
{
	size_t bytes = 0, n = job->n_attrs;

	for (size_t i = 0; i < n; i++) {
		bytes += strlen(job->attrs[i].key) + strlen(job->attrs[i].value);
		if (i == JOB_ATTRS_MAX || bytes > JOB_ATTRS_BYTES_MAX) {
			job->n_attrs = i;
			return job_fault(arena, ret_detail, -ERR_JOB_ATTRS, "attrs", "over 64 entries or 16 KiB");
		}
		if (!is_utf8(job->attrs[i].key) || !is_utf8(job->attrs[i].value)) {
			job->n_attrs = i;
			return job_fault(arena, ret_detail, -ERR_JOB_FIELD, "attrs", "not valid UTF-8");
		}
	}
	return 0;
}

static int check_text(struct arena *arena, struct job *job, const char **ret_detail)
{
	const char *second_detail;
	int err = check_strings(arena, job, ret_detail);
	int attrs_err = check_attrs(arena, job, err ? &second_detail : ret_detail);

	return err ? err : attrs_err;
}

/* ---- what goes into the request ---- */

static int check_header(struct arena *arena, const struct header *header, const char **ret_detail)
{
	if (!field_is_token(header->name))
		return job_fault(arena, ret_detail, -ERR_HEADER_NAME, "headers.name", "not an HTTP token");
	/* A token, so it is ASCII and may be cut anywhere. */
	if (field_is_denied(header->name))
		return job_fault(arena, ret_detail, -ERR_HEADER_DENIED, "headers.name",
				 arena_printf(arena, "a job may not set %.64s", header->name));
	if (!field_is_value(header->value))
		return job_fault(arena, ret_detail, -ERR_HEADER_VALUE, "headers.value",
				 arena_printf(arena, "that of %.64s has a control character", header->name));
	return 0;
}

static int check_headers(struct arena *arena, const struct job *job, const char **ret_detail)
{
	size_t bytes = 0;
	int err = 0;

	for (size_t i = 0; i < job->n_headers; i++)
		bytes += strlen(job->headers[i].name) + job->headers[i].value.len;
	if (job->n_headers > JOB_HEADERS_MAX || bytes > JOB_HEADERS_BYTES_MAX)
		return job_fault(arena, ret_detail, -ERR_HEADER_COUNT, "headers", "over 64 or over 16 KiB");
	for (size_t i = 0; i < job->n_headers && !err; i++)
		err = check_header(arena, &job->headers[i], ret_detail);
	return err;
}

static int check_request(struct arena *arena, const struct job *job, const char **ret_detail)
{
	if (job->method && !field_is_token(job->method))
		return job_fault(arena, ret_detail, -ERR_METHOD_SYNTAX, "method", "not an HTTP token");
	if (!field_is_value(span_str(job->if_none_match)))
		return job_fault(arena, ret_detail, -ERR_HEADER_VALUE, "if_none_match", "has a control character");
	if (!field_is_value(span_str(job->if_modified_since)))
		return job_fault(arena, ret_detail, -ERR_HEADER_VALUE, "if_modified_since", "has a control character");
	return check_headers(arena, job, ret_detail);
}

/* ---- numbers and what the answer is compared with ---- */

/* A pattern that no answer can match would fail every one of them, and late. */
static bool is_media_pattern(const char *text)
{
	size_t len = field_token_len(text);

	return len && text[len] == '/' && field_is_token(text + len + 1);
}

static int check_expect(struct arena *arena, const struct job *job, const char **ret_detail)
{
	if (job->n_expect_status > JOB_EXPECT_MAX)
		return job_fault(arena, ret_detail, -ERR_JOB_FIELD, "expect.status", "over 64 entries");
	if (job->n_expect_type > JOB_EXPECT_MAX)
		return job_fault(arena, ret_detail, -ERR_JOB_FIELD, "expect.content_type", "over 64 entries");
	for (size_t i = 0; i < job->n_expect_status; i++)
		if (job->expect_status[i] < 100 || job->expect_status[i] > 999)
			return job_fault(arena, ret_detail, -ERR_JOB_FIELD, "expect.status",
					 arena_printf(arena, "%d is not 100 to 999", job->expect_status[i]));
	for (size_t i = 0; i < job->n_expect_type; i++)
		if (!is_media_pattern(job->expect_type[i]))
			return job_fault(arena, ret_detail, -ERR_JOB_FIELD, "expect.content_type",
					 "must be as text/html or text/*, without parameters");
	return 0;
}

static int check_numbers(struct arena *arena, const struct job *job, const char **ret_detail)
{
	/* max_redirects has its reader's check: -1 means that it is not given. */
	const struct {
		const char *name;
		int64_t value;
	} numbers[] = {
	    {"not_before_at_ms", job->not_before_at_ms},
	    {"expires_at_ms", job->expires_at_ms},
	    {"timeouts.connect_ms", job->connect_ms},
	    {"timeouts.total_ms", job->total_ms},
	    {"timeouts.stall_ms", job->stall_ms},
	    {"retry.max_attempts", job->max_attempts},
	    {"retry.base_ms", job->base_ms},
	    {"retry.max_ms", job->max_ms},
	    {"max_body_bytes", job->max_body_bytes},
	    {"schedule.period_ms", job->period_ms},
	    {"schedule.due_at_ms", job->due_at_ms},
	};

	for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
		if (numbers[i].value < 0)
			return job_fault(arena, ret_detail, -ERR_JOB_FIELD, numbers[i].name,
					 arena_printf(arena, "%lld is under 0", (long long)numbers[i].value));
	if ((int)job->body_mode < 0 || job->body_mode > BODY_MODE_NONE)
		return job_fault(arena, ret_detail, -ERR_JOB_FIELD, "body_mode",
				 arena_printf(arena, "%d is not 0 to %d", (int)job->body_mode, BODY_MODE_NONE));
	if (job->prev_digest.len && job->prev_digest.len != SHA256_BYTES)
		return job_fault(arena, ret_detail, -ERR_JOB_FIELD, "prev_digest", "a SHA-256 has 32 bytes");
	return 0;
}

int job_check(struct arena *arena, struct job *job, int64_t now_epoch_ms, const char **ret_detail)
{
	int err = check_text(arena, job, ret_detail);

	if (!err)
		err = check_request(arena, job, ret_detail);
	if (!err)
		err = check_numbers(arena, job, ret_detail);
	if (!err)
		err = check_expect(arena, job, ret_detail);
	if (!err && job->not_before_at_ms - now_epoch_ms > JOB_NOT_BEFORE_MAX_MS)
		err = job_fault(arena, ret_detail, -ERR_JOB_NOT_BEFORE, "not_before_at_ms",
				"over 5 minutes ahead: that is a scheduler's work");
	return err;
}
