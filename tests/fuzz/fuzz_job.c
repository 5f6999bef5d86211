/* Any bytes as a job record, in every format. What is taken keeps the promises of job.h; what is not has a code and a
 * sentence; either way a result can be made of it, and it costs no more memory than it may. */
#include "err.h"
#include "result.h"
#include "utf8.h"
#include "fuzz.h"

#include "gatherd/v1/result.pb-c.h"

#include <strings.h>

#define NOW_MS INT64_C(1700000000000)
#define TOKEN "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

static void must_be_text(const char *text, size_t max, const char *name)
{
	must(!text || strlen(text) <= max, "bounded", name);
	must(!text || utf8_valid_len(text, strlen(text)) == strlen(text), "valid UTF-8", name);
}

static void check_always(const struct job *job)
{
	size_t bytes = 0;

	must(job->job_id && *job->job_id, "a job id", "");
	must(job->url && job->method && *job->method, "a URL and a method, maybe empty", job->job_id);
	must(job->body_mode >= BODY_MODE_INLINE && job->body_mode <= BODY_MODE_NONE, "a body mode", job->job_id);
	must_be_text(job->job_id, JOB_ID_BYTES_MAX, "job_id");
	must_be_text(job->url, JOB_BYTES_MAX, "url");
	must_be_text(job->replay_id, 256, "replay_id");
	must(job->n_attrs <= JOB_ATTRS_MAX, "few attrs", job->job_id);
	for (size_t i = 0; i < job->n_attrs; i++) {
		must_be_text(job->attrs[i].key, JOB_ATTRS_BYTES_MAX, "a key");
		must_be_text(job->attrs[i].value, JOB_ATTRS_BYTES_MAX, "a value");
		bytes += strlen(job->attrs[i].key) + strlen(job->attrs[i].value);
	}
	must(bytes <= JOB_ATTRS_BYTES_MAX, "small attrs", job->job_id);
}

static void check_headers(const struct job *job)
{
	must(job->n_headers <= JOB_HEADERS_MAX, "few headers", job->job_id);
	for (size_t i = 0; i < job->n_headers; i++) {
		const char *name = job->headers[i].name;
		must(*name && !name[strspn(name, TOKEN)], "a token", name);
		must(strcasecmp(name, "host") != 0 && strcasecmp(name, "content-length") != 0, "allowed", name);
		for (size_t j = 0; j < job->headers[i].value.len; j++) {
			uint8_t c = job->headers[i].value.data[j];
			must(c == '\t' || (c >= 0x20 && c != 0x7f), "no control character", name);
		}
	}
}

static void check_good(const struct job *job)
{
	const int64_t numbers[] = {job->not_before_at_ms, job->expires_at_ms,
				   job->connect_ms,	  job->total_ms,
				   job->stall_ms,	  job->max_attempts,
				   job->base_ms,	  job->max_ms,
				   job->max_body_bytes,	  job->max_redirects + INT64_C(1),
				   job->period_ms,	  job->due_at_ms};

	check_headers(job);
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
		must(numbers[i] >= 0, "no number under 0", job->job_id);
	must(job->not_before_at_ms <= NOW_MS + JOB_NOT_BEFORE_MAX_MS, "not far ahead", job->job_id);
	must(!job->method[strspn(job->method, TOKEN)], "a token", job->method);
	must(!job->prev_digest.len || job->prev_digest.len == DIGEST_BYTES, "a SHA-256", job->job_id);
	for (size_t i = 0; i < job->n_expect_status; i++)
		must(job->expect_status[i] >= 100 && job->expect_status[i] <= 999, "a status", job->job_id);
	for (size_t i = 0; i < job->n_expect_type; i++)
		must(strchr(job->expect_type[i], '/') != NULL, "a media type", job->expect_type[i]);
	must_be_text(job->source_id, 1024, "source_id");
}

/* However bad the job is. */
static void check_result(const struct job *job, const struct record *rec, int err, const char *detail)
{
	struct result res = {.job = job, .rec = rec, .err = err, .outcome = err_outcome(err), .detail = detail};
	uint8_t *data;
	size_t len;

	must(result_encode(&res, (size_t)64 * 1024, &data, &len) == 0, "a result", job->job_id);
	Gatherd__V1__FetchResult *read = gatherd__v1__fetch_result__unpack(NULL, len, data);
	must(read && strcmp(read->job_id, job->job_id) == 0, "a result that can be read", job->job_id);
	gatherd__v1__fetch_result__free_unpacked(read, NULL);
	free(data);
}

static void check(enum job_format format, struct span value)
{
	struct record_header header = {"traceparent", value};
	struct record rec = {.topic = "t", .value = value, .headers = &header, .n_headers = 1};
	const char *detail = NULL;
	struct arena arena;
	struct job job;

	arena_init(&arena, 1024);
	int err = job_decode(&arena, &rec, format, NOW_MS, &job, &detail);
	check_always(&job);
	/* Of a URL format, nothing but text comes through. */
	for (const char *c = job.url; format == JOB_FORMAT_URL && *c; c++)
		must((uint8_t)*c >= ' ' && *c != 0x7f, "no control character", job.url);
	must(!job.traceparent || strlen(job.traceparent) == 55, "a traceparent", job.job_id);
	if (!err) {
		check_good(&job);
	} else {
		must(err_outcome(err) == OUTCOME_BAD_JOB || err == -ERR_HEADER_DENIED, "a known error", err_code(err));
		must(detail && *detail, "a sentence", err_code(err));
	}
	must(arena.bytes <= 4 * value.len + (size_t)256 * 1024, "bounded memory", job.job_id);
	check_result(&job, &rec, err, detail);
	arena_done(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check(JOB_FORMAT_AUTO, (struct span){data, size});
	check(JOB_FORMAT_PROTOBUF, (struct span){data, size});
	check(JOB_FORMAT_JSON, (struct span){data, size});
	check(JOB_FORMAT_URL, (struct span){data, size});
	return 0;
}
