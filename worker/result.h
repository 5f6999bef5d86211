/* result - a job and what became of it -> the bytes of a FetchResult.
 *
 * Happy path: the pipeline fills struct result (views, nothing is owned), result_encode gives one malloc'd buffer.
 * A result can always be produced: the encoder first keeps headers, URL and attrs under their caps, then cuts the body to what is
 * left under max_bytes (truncated = LENGTH). Every protobuf `string` is made valid UTF-8 (bad bytes become U+FFFD).
 * Layer 1: pure. */
#ifndef GATHERD_RESULT_H
#define GATHERD_RESULT_H

#include "base.h"
#include "buf.h"
#include "err.h"
#include "job.h"

#define RESULT_ATTEMPTS_MAX 10
#define RESULT_RAW_INPUT_MAX 1024
#define RESULT_HEADERS_BYTES_MAX 65536
#define RESPONSE_HEADER_LINES_MAX 200
#define RESPONSE_HEADER_BYTES_MAX 65536
#define DIGEST_BYTES 32

enum truncated { TRUNCATED_NONE = 1, TRUNCATED_LENGTH, TRUNCATED_TIME, TRUNCATED_DISCONNECT };
enum dead_letter { DEAD_LETTER_NONE = 1, DEAD_LETTER_SENT, DEAD_LETTER_REFUSED };

/* What one transfer gave; filled by fetch.c. Times in microseconds, 0 = did not happen. */
struct response {
	int err;            /* 0 or -ERR_*; a final status is never an error here */
	char detail[160];   /* for people, "" = the table's text */
	int status;         /* 0 = no answer */
	int http_version;   /* 10, 11, 20, 0 = none */
	struct buf headers; /* raw field lines of the last answer, each "Name: value\r\n", in order; trailers too */
	int32_t headers_dropped;
	struct buf body;       /* decoded, at most the cap; empty for HASH_ONLY and NONE */
	int64_t body_length;   /* decoded bytes seen, at most the cap */
	int64_t wire_length, declared_length; /* declared: -1 = none */
	enum truncated truncated;
	bool has_digest;
	uint8_t digest[DIGEST_BYTES];
	char remote_ip[46];
	uint16_t remote_port;
	bool is_new_connection;
	int64_t connect_us, tls_us, first_byte_us, total_us;
	const char *tls_version, *tls_cipher; /* static or in tls_text */
	char tls_text[96];
	int64_t tls_not_after_ms;
};

void response_init(struct response *resp, size_t body_max_bytes);
void response_done(struct response *resp);
/* First field of that name, without case; false when there is none. */
bool response_header(const struct response *resp, const char *name, struct span *ret_value);
/* Media type without parameters, lower case, cut to the size; "" when none. */
void response_content_type(const struct response *resp, char out[static 128]);

struct attempt {
	enum outcome outcome;
	int status;
	int64_t ms, backoff_ms;
};

struct redirect {
	const char *url; /* that answered */
	int status;
	struct span location;
	const char *ip;
};

struct result {
	const struct job *job; /* never NULL, even for BAD_JOB */
	const struct record *rec;
	int err;                   /* 0 or -ERR_*; gives code, text and retryable */
	enum outcome outcome;
	const char *detail;        /* NULL = the table's text */
	bool retryable;
	const struct attempt *attempts;
	size_t n_attempts;
	const struct redirect *redirects;
	size_t n_redirects;
	const char *final_url;      /* NULL = none */
	const struct response *resp; /* NULL = there was no answer */
	int64_t retry_after_ms;
	bool is_unchanged;
	enum dead_letter dead_letter;
	int64_t queued_us, politeness_us, dns_us;
	int64_t start_at_ms, end_at_ms;
	const char *instance, *version;
	bool strip_body; /* the broker refused its size: no body, truncated = LENGTH */
};

/* max_bytes: of the value. 0 and *ret_data (free) of *ret_len bytes, at most max_bytes; -ERR_TOO_LARGE only when max_bytes
 * is under 64 KiB and even the body-less result does not fit. */
int result_encode(const struct result *res, size_t max_bytes, uint8_t **ret_data, size_t *ret_len) MUST_CHECK;

/* Outcome of a final answer, given `expect` (RESULT of the outcome table in design.md): 0 for OK and NOT_MODIFIED, else
 * -ERR_HTTP_STATUS, -ERR_UNEXPECTED_STATUS, -ERR_UNEXPECTED_TYPE. *ret_outcome is set in all cases. */
int result_judge(const struct job *job, const struct response *resp, enum outcome *ret_outcome);

#endif
