/* job - bytes of a job record -> values.
 *
 * Happy path: job_decode finds the format and fills a struct job whose text lives in the arena or in the record.
 * Formats: protobuf FetchJob; JSON (proto3 mapping: camelCase or snake_case, int64 as number or string, bytes as base64,
 * enums by name or number; unknown fields are an error that names them); a bare URL (white space around it is cut).
 * Failure modes: -ERR_JOB_* and friends of err.def with a sentence for people in *ret_detail ("field timeouts.total_ms: -5
 * is under 0"). What could be read of job_id, url, attrs and replay_id is still filled in, so the result carries it.
 * Layer 1: pure. */
#ifndef GATHERD_JOB_H
#define GATHERD_JOB_H

#include "arena.h"
#include "base.h"
#include "field.h"
#include "options.h"

#define JOB_BYTES_MAX (1024 * 1024)
#define JOB_HEADERS_MAX 64
#define JOB_HEADERS_BYTES_MAX 16384
#define JOB_ATTRS_MAX 64
#define JOB_ATTRS_BYTES_MAX 16384
#define JOB_ID_BYTES_MAX 1024
#define JOB_NOT_BEFORE_MAX_MS (5 * 60 * 1000)

/* A Kafka record as read; views into somebody's memory. A null key or value has data == NULL. */
struct record_header {
	const char *name;
	struct span value;
};

struct record {
	const char *topic;
	int32_t partition;
	int64_t offset;
	int64_t timestamp_ms;
	struct span key, value;
	const struct record_header *headers;
	size_t n_headers;
};

struct attr {
	const char *key, *value;
};

enum body_mode { BODY_MODE_INLINE = 1, BODY_MODE_HASH_ONLY, BODY_MODE_NONE };

/* 0 and NULL mean "not given" unless said otherwise. All strings are valid UTF-8. */
struct job {
	const char *job_id; /* never NULL: default topic/partition/offset */
	const char *url;    /* as given, "" when there is none */
	const char *method; /* never NULL: default "GET" */
	struct span body;
	const struct header *headers;
	size_t n_headers;
	const char *secret_ref, *proxy_ref, *host_profile;
	int64_t not_before_at_ms, expires_at_ms;
	int64_t connect_ms, total_ms, stall_ms;
	int32_t max_attempts;
	int64_t base_ms, max_ms;
	int32_t max_redirects; /* -1 = not given */
	int64_t max_body_bytes;
	enum body_mode body_mode;
	const char *if_none_match, *if_modified_since;
	struct span prev_digest;
	const int32_t *expect_status;
	size_t n_expect_status;
	const char *const *expect_type;
	size_t n_expect_type;
	const struct attr *attrs;
	size_t n_attrs;
	const char *source_id;
	int64_t period_ms, due_at_ms;
	const char *replay_id;
	const char *traceparent; /* of the record's headers, when valid (W3C Trace Context) */
};

/* The format's name as the first byte or the content-type header tells. */
enum job_format job_sniff(const struct record *rec);

/* rec's key and value must live as long as the job. *ret_detail: in the arena, set on every error. now_epoch_ms for
 * not_before. The URL is not parsed here (url.c), headers and method are checked: RFC 9110 tokens, no CR, LF, NUL. Denied
 * header names (-ERR_HEADER_DENIED): Host, Content-Length, Transfer-Encoding, Connection, Keep-Alive, TE, Trailer, Upgrade,
 * Expect, Proxy-*. */
int job_decode(struct arena *arena, const struct record *rec, enum job_format format, int64_t now_epoch_ms,
	       struct job *ret_job, const char **ret_detail) MUST_CHECK;

#endif
