/* The encoder writes protobuf's wire format itself, straight into the buffer that is produced: building and packing a
 * tree of generated structs was a fifth of a fetch's CPU. The tests read every field back with the generated code. */
#include "result.h"

#include "utf8.h"

#include "gatherd/v1/result.pb-c.h"

#include <ctype.h>
#include <strings.h>

#define URL_TEXT_MAX 8192
#define LOCATION_MAX 8192
#define DETAIL_MAX 1024
#define ETAG_MAX 1024
#define LAST_MODIFIED_MAX 128

#define SAME(ours, theirs) _Static_assert((int)(ours) == GATHERD__V1__##theirs, "the header and result.proto agree")
SAME(OUTCOME_UNSPECIFIED, OUTCOME__OUTCOME_UNSPECIFIED);
SAME(OUTCOME_OK, OUTCOME__OUTCOME_OK);
SAME(OUTCOME_NOT_MODIFIED, OUTCOME__OUTCOME_NOT_MODIFIED);
SAME(OUTCOME_HTTP_ERROR, OUTCOME__OUTCOME_HTTP_ERROR);
SAME(OUTCOME_UNEXPECTED, OUTCOME__OUTCOME_UNEXPECTED);
SAME(OUTCOME_DNS, OUTCOME__OUTCOME_DNS);
SAME(OUTCOME_CONNECT, OUTCOME__OUTCOME_CONNECT);
SAME(OUTCOME_TLS, OUTCOME__OUTCOME_TLS);
SAME(OUTCOME_PROTOCOL, OUTCOME__OUTCOME_PROTOCOL);
SAME(OUTCOME_TIMEOUT, OUTCOME__OUTCOME_TIMEOUT);
SAME(OUTCOME_STALLED, OUTCOME__OUTCOME_STALLED);
SAME(OUTCOME_DISCONNECTED, OUTCOME__OUTCOME_DISCONNECTED);
SAME(OUTCOME_TOO_LARGE, OUTCOME__OUTCOME_TOO_LARGE);
SAME(OUTCOME_TOO_MANY_REDIRECTS, OUTCOME__OUTCOME_TOO_MANY_REDIRECTS);
SAME(OUTCOME_BLOCKED_ADDRESS, OUTCOME__OUTCOME_BLOCKED_ADDRESS);
SAME(OUTCOME_BLOCKED_ROBOTS, OUTCOME__OUTCOME_BLOCKED_ROBOTS);
SAME(OUTCOME_BLOCKED_POLICY, OUTCOME__OUTCOME_BLOCKED_POLICY);
SAME(OUTCOME_EXPIRED, OUTCOME__OUTCOME_EXPIRED);
SAME(OUTCOME_DEADLINE, OUTCOME__OUTCOME_DEADLINE);
SAME(OUTCOME_BAD_JOB, OUTCOME__OUTCOME_BAD_JOB);
SAME(OUTCOME_CANCELLED, OUTCOME__OUTCOME_CANCELLED);
SAME(OUTCOME_INTERNAL, OUTCOME__OUTCOME_INTERNAL);
SAME(TRUNCATED_NONE, TRUNCATED__TRUNCATED_NONE);
SAME(TRUNCATED_LENGTH, TRUNCATED__TRUNCATED_LENGTH);
SAME(TRUNCATED_TIME, TRUNCATED__TRUNCATED_TIME);
SAME(TRUNCATED_DISCONNECT, TRUNCATED__TRUNCATED_DISCONNECT);
SAME(DEAD_LETTER_NONE, DEAD_LETTER__DEAD_LETTER_NONE);
SAME(DEAD_LETTER_SENT, DEAD_LETTER__DEAD_LETTER_SENT);
SAME(DEAD_LETTER_REFUSED, DEAD_LETTER__DEAD_LETTER_REFUSED);

/* ---- the response ---- */

void response_init(struct response *resp, size_t body_max_bytes)
{
	*resp = (struct response){.declared_length = -1, .truncated = TRUNCATED_NONE};
	buf_init(&resp->headers, RESPONSE_HEADER_BYTES_MAX);
	buf_init(&resp->body, body_max_bytes);
}

void response_done(struct response *resp)
{
	buf_done(&resp->headers);
	buf_done(&resp->body);
}

/* One field line "Name: value\r\n"; false at the end. */
static bool next_field(const struct buf *headers, size_t *at, struct span *ret_name, struct span *ret_value)
{
	while (*at < headers->len) {
		const uint8_t *line = headers->data + *at;
		const uint8_t *end = memchr(line, '\n', headers->len - *at);
		size_t len = end ? (size_t)(end - line) : headers->len - *at;
		*at += len + (end ? 1 : 0);
		while (len && (line[len - 1] == '\r' || line[len - 1] == ' ' || line[len - 1] == '\t'))
			len--;
		const uint8_t *colon = memchr(line, ':', len);
		if (!colon || colon == line)
			continue;
		const uint8_t *value = colon + 1;
		while (value < line + len && (*value == ' ' || *value == '\t'))
			value++;
		*ret_name = (struct span){line, (size_t)(colon - line)};
		*ret_value = (struct span){value, (size_t)(line + len - value)};
		return true;
	}
	return false;
}

static bool is_named(struct span field, const char *name)
{
	return field.len == strlen(name) && strncasecmp((const char *)field.data, name, field.len) == 0;
}

bool response_header(const struct response *resp, const char *name, struct span *ret_value)
{
	struct span field, value;
	size_t at = 0;

	while (next_field(&resp->headers, &at, &field, &value)) {
		if (is_named(field, name)) {
			*ret_value = value;
			return true;
		}
	}
	return false;
}

static void media_type(struct span value, char out[static 128])
{
	size_t n = 0;

	while (n < value.len && n < 127 && value.data[n] != ';' && value.data[n] > ' ' && value.data[n] < 0x7f) {
		out[n] = (char)tolower(value.data[n]);
		n++;
	}
	out[n] = '\0';
}

void response_content_type(const struct response *resp, char out[static 128])
{
	struct span value = {0};

	out[0] = '\0';
	if (response_header(resp, "Content-Type", &value))
		media_type(value, out);
}

/* ---- the judgement ---- */

static bool type_matches(const char *pattern, const char *type)
{
	size_t len = strlen(pattern);

	if (strcmp(pattern, "*/*") == 0)
		return true;
	if (len >= 2 && strcmp(pattern + len - 2, "/*") == 0)
		return strncasecmp(pattern, type, len - 1) == 0;
	return strcasecmp(pattern, type) == 0;
}

static bool is_expected_type(const struct job *job, const struct response *resp)
{
	char type[128];

	if (!job->n_expect_type)
		return true;
	response_content_type(resp, type);
	for (size_t i = 0; i < job->n_expect_type; i++)
		if (type_matches(job->expect_type[i], type))
			return true;
	return false;
}

static bool is_expected_status(const struct job *job, int status)
{
	for (size_t i = 0; i < job->n_expect_status; i++)
		if (job->expect_status[i] == status)
			return true;
	return false;
}

static bool has_validators(const struct job *job)
{
	return (job->if_none_match && *job->if_none_match) || (job->if_modified_since && *job->if_modified_since);
}

int result_judge(const struct job *job, const struct response *resp, enum outcome *ret_outcome)
{
	bool is_success = resp->status >= 200 && resp->status < 300;
	bool is_wanted = is_expected_status(job, resp->status);
	int err = 0;

	if (resp->status == 304 && has_validators(job) && !is_wanted) {
		*ret_outcome = OUTCOME_NOT_MODIFIED;
		return 0;
	}
	if (!is_wanted && (job->n_expect_status || !is_success))
		err = is_success ? -ERR_UNEXPECTED_STATUS : -ERR_HTTP_STATUS;
	else if (!is_expected_type(job, resp))
		err = -ERR_UNEXPECTED_TYPE;
	*ret_outcome = err ? err_outcome(err) : OUTCOME_OK;
	return err;
}

/* ---- the wire format: https://protobuf.dev/programming-guides/encoding ---- */

/* The buffer is sized before: nothing here can run over its end (asserted). */
struct writer {
	uint8_t *at, *end;
};

enum { WIRE_VARINT = 0, WIRE_BYTES = 2 };

static void put_raw_varint(struct writer *w, uint64_t v)
{
	assert(w->end - w->at >= 10);
	while (v >= 0x80) {
		*w->at++ = (uint8_t)(v | 0x80);
		v >>= 7;
	}
	*w->at++ = (uint8_t)v;
}

static size_t varint_len(uint64_t v)
{
	size_t n = 1;

	while (v >= 0x80) {
		v >>= 7;
		n++;
	}
	return n;
}

static void put_int(struct writer *w, uint32_t field, int64_t v)
{
	if (!v)
		return;
	put_raw_varint(w, field << 3 | WIRE_VARINT);
	put_raw_varint(w, (uint64_t)v);
}

static void put_bytes(struct writer *w, uint32_t field, struct span bytes)
{
	if (!bytes.len)
		return;
	put_raw_varint(w, field << 3 | WIRE_BYTES);
	put_raw_varint(w, bytes.len);
	assert((size_t)(w->end - w->at) >= bytes.len);
	memcpy(w->at, bytes.data, bytes.len);
	w->at += bytes.len;
}

/* A `string`: bad bytes become U+FFFD. Room for three times its length is in the size. */
static void put_string(struct writer *w, uint32_t field, struct span text)
{
	if (utf8_valid_len(text.data, text.len) == text.len) {
		put_bytes(w, field, text);
		return;
	}
	uint8_t *fixed = xmalloc(text.len * 3);
	put_bytes(w, field, (struct span){fixed, utf8_sanitise(text.data, text.len, fixed)});
	free(fixed);
}

static struct span cut(struct span text, size_t max)
{
	size_t len = max;

	if (text.len <= max)
		return text;
	/* Not inside a character, which has four bytes at most. */
	while (len && max - len < 3 && (text.data[len] & 0xc0) == 0x80)
		len--;
	return (struct span){text.data, len};
}

static void put_text(struct writer *w, uint32_t field, const char *text)
{
	if (text && *text)
		put_string(w, field, span_str(text));
}

/* A message within the message: one byte is kept for its length, which is enough for nearly all; a longer one moves up.
 */
static uint8_t *open_message(struct writer *w, uint32_t field)
{
	put_raw_varint(w, field << 3 | WIRE_BYTES);
	return w->at++;
}

static void close_message(struct writer *w, uint8_t *start)
{
	size_t len = (size_t)(w->at - start - 1), extra = varint_len(len) - 1;

	assert((size_t)(w->end - w->at) >= extra);
	if (extra)
		memmove(start + 1 + extra, start + 1, len);
	struct writer head = {start, start + 10};
	put_raw_varint(&head, len);
	w->at += extra;
}

/* ---- the fields, in the order of result.proto ---- */

static void put_pair(struct writer *w, uint32_t field, struct span name, struct span value)
{
	uint8_t *start = open_message(w, field);

	put_string(w, 1, name);
	put_bytes(w, 2, value);
	close_message(w, start);
}

static void put_source(struct writer *w, const struct record *rec)
{
	uint8_t *start = open_message(w, 3);

	put_text(w, 1, rec->topic);
	put_int(w, 2, rec->partition);
	put_int(w, 3, rec->offset);
	put_int(w, 4, rec->timestamp_ms);
	close_message(w, start);
}

static void put_error(struct writer *w, const struct result *res)
{
	uint8_t *start = open_message(w, 5);

	put_text(w, 1, err_code(res->err));
	put_string(w, 2, cut(span_str(res->detail && *res->detail ? res->detail : err_text(res->err)), DETAIL_MAX));
	put_int(w, 3, res->retryable);
	close_message(w, start);
}

static void put_attempts(struct writer *w, const struct result *res)
{
	size_t first = res->n_attempts > RESULT_ATTEMPTS_MAX ? res->n_attempts - RESULT_ATTEMPTS_MAX : 0;

	for (size_t i = first; i < res->n_attempts; i++) {
		uint8_t *start = open_message(w, 6);
		put_int(w, 1, res->attempts[i].outcome);
		put_int(w, 2, res->attempts[i].status);
		put_int(w, 3, res->attempts[i].ms);
		put_int(w, 4, res->attempts[i].backoff_ms);
		close_message(w, start);
	}
}

static void put_redirects(struct writer *w, const struct result *res)
{
	for (size_t i = 0; i < res->n_redirects; i++) {
		const struct redirect *hop = &res->redirects[i];
		uint8_t *start = open_message(w, 9);
		put_string(w, 1, cut(span_str(hop->url), URL_TEXT_MAX));
		put_int(w, 2, hop->status);
		put_bytes(w, 3, (struct span){hop->location.data, MIN(hop->location.len, (size_t)LOCATION_MAX)});
		put_text(w, 4, hop->ip);
		close_message(w, start);
	}
}

/* Fields that the result has a place of its own for; the first of a name counts, as in response_header. */
struct noted {
	struct span content_type, etag, last_modified;
};

static void note(struct noted *noted, struct span name, struct span value)
{
	struct span *place = is_named(name, "Content-Type")    ? &noted->content_type
			     : is_named(name, "ETag")	       ? &noted->etag
			     : is_named(name, "Last-Modified") ? &noted->last_modified
							       : NULL;

	if (place && !place->data)
		*place = value;
}

/* One pass over the lines. Returns how many were left out. */
static int32_t put_headers(struct writer *w, const struct response *resp, bool leave_out, struct noted *ret_noted)
{
	struct span name, value;
	size_t at = 0, bytes = 0;
	int32_t dropped = resp->headers_dropped;

	while (next_field(&resp->headers, &at, &name, &value)) {
		note(ret_noted, name, value);
		bytes += name.len + value.len;
		if (leave_out || bytes > RESULT_HEADERS_BYTES_MAX)
			dropped++;
		else
			put_pair(w, 12, name, value);
	}
	return dropped;
}

/* One that is cut would never match again: left out, it is still among the headers. */
static void put_validator(struct writer *w, uint32_t field, struct span value, size_t max)
{
	if (value.len <= max)
		put_bytes(w, field, value);
}

static void put_timing(struct writer *w, const struct result *res)
{
	uint8_t *start = open_message(w, 29);

	put_int(w, 1, res->queued_us);
	put_int(w, 2, res->politeness_us);
	put_int(w, 3, res->dns_us);
	if (res->resp) {
		put_int(w, 4, res->resp->connect_us);
		put_int(w, 5, res->resp->tls_us);
		put_int(w, 6, res->resp->first_byte_us);
		put_int(w, 7, res->resp->total_us);
	}
	close_message(w, start);
}

static void put_tls(struct writer *w, const struct response *resp)
{
	if (!resp->tls_version)
		return;
	uint8_t *start = open_message(w, 34);
	put_text(w, 1, resp->tls_version);
	put_text(w, 2, resp->tls_cipher);
	put_int(w, 3, resp->tls_not_after_ms);
	close_message(w, start);
}

static void put_worker(struct writer *w, const struct result *res)
{
	uint8_t *start = open_message(w, 35);

	put_text(w, 1, res->instance);
	put_text(w, 2, res->version);
	close_message(w, start);
}

/* What is given up, in this order, when max_bytes is tight. */
struct cuts {
	size_t body_len;
	bool no_headers, no_redirects, no_attrs;
};

static const char *http_version_text(int version)
{
	switch (version) {
	case 10:
		return "1.0";
	case 11:
		return "1.1";
	case 20:
		return "2";
	default:
		return "";
	}
}

static void put_response(struct writer *w, const struct result *res, const struct cuts *cuts)
{
	const struct response *resp = res->resp;
	bool is_inline = res->job->body_mode != BODY_MODE_HASH_ONLY && res->job->body_mode != BODY_MODE_NONE;
	bool is_cut = is_inline && (cuts->body_len < resp->body.len || (res->strip_body && resp->body_length));
	enum truncated truncated = is_cut ? TRUNCATED_LENGTH : resp->truncated;
	struct noted noted = {0};
	char type[128];

	put_int(w, 10, resp->status);
	put_text(w, 11, http_version_text(resp->http_version));
	put_int(w, 13, put_headers(w, resp, cuts->no_headers, &noted));
	put_text(w, 14, resp->remote_ip);
	put_int(w, 15, resp->remote_port);
	put_bytes(w, 16, (struct span){resp->body.data, cuts->body_len});
	put_int(w, 18, is_inline ? (int64_t)cuts->body_len : resp->body_length);
	put_int(w, 19, resp->wire_length);
	put_int(w, 20, resp->declared_length);
	put_int(w, 21, truncated);
	media_type(noted.content_type, type);
	put_text(w, 22, type);
	if (resp->has_digest)
		put_bytes(w, 23, (struct span){resp->digest, DIGEST_BYTES});
	put_validator(w, 24, noted.etag, ETAG_MAX);
	put_validator(w, 25, noted.last_modified, LAST_MODIFIED_MAX);
	put_int(w, 27, res->is_unchanged && truncated == TRUNCATED_NONE);
	put_tls(w, resp);
}

static void put_result(struct writer *w, const struct result *res, const struct cuts *cuts)
{
	const struct job *job = res->job;

	put_text(w, 1, job->job_id);
	put_text(w, 2, job->replay_id);
	put_source(w, res->rec);
	put_int(w, 4, res->outcome);
	if (res->err)
		put_error(w, res);
	put_attempts(w, res);
	if (job->url)
		put_string(w, 7, cut(span_str(job->url), URL_TEXT_MAX));
	if (res->final_url)
		put_string(w, 8, cut(span_str(res->final_url), URL_TEXT_MAX));
	if (!cuts->no_redirects)
		put_redirects(w, res);
	if (res->resp)
		put_response(w, res, cuts);
	put_int(w, 26, res->retry_after_ms);
	put_int(w, 28, res->dead_letter);
	put_timing(w, res);
	put_int(w, 30, res->rec->timestamp_ms > 0 ? res->rec->timestamp_ms : 0);
	put_int(w, 31, job->due_at_ms);
	put_int(w, 32, res->start_at_ms);
	put_int(w, 33, res->end_at_ms);
	put_worker(w, res);
	for (size_t i = 0; !cuts->no_attrs && i < job->n_attrs; i++) {
		uint8_t *start = open_message(w, 36);
		put_text(w, 1, job->attrs[i].key);
		put_text(w, 2, job->attrs[i].value);
		close_message(w, start);
	}
	if (res->outcome == OUTCOME_BAD_JOB)
		put_bytes(w, 37,
			  (struct span){res->rec->value.data, MIN(res->rec->value.len, (size_t)RESULT_RAW_INPUT_MAX)});
}

/* ---- sizes ---- */

static size_t text_bound(const char *text, size_t max)
{
	return text ? MIN(strlen(text), max) * 3 + 16 : 16;
}

/* At least what put_result writes without the body: strings may grow threefold, each field has at most 16 bytes around
 * it. */
static size_t size_bound(const struct result *res)
{
	const struct job *job = res->job;
	size_t bytes = 2048 + RESULT_RAW_INPUT_MAX + 3 * DETAIL_MAX + res->n_attempts * 64;

	bytes += text_bound(job->job_id, SIZE_MAX) + text_bound(job->replay_id, SIZE_MAX) +
		 text_bound(job->url, URL_TEXT_MAX);
	bytes += text_bound(res->final_url, URL_TEXT_MAX) + text_bound(res->rec->topic, SIZE_MAX);
	bytes += text_bound(res->instance, SIZE_MAX) + text_bound(res->version, SIZE_MAX);
	for (size_t i = 0; i < res->n_redirects; i++)
		bytes += text_bound(res->redirects[i].url, URL_TEXT_MAX) +
			 MIN(res->redirects[i].location.len, (size_t)LOCATION_MAX) + 128;
	for (size_t i = 0; i < job->n_attrs; i++)
		bytes += text_bound(job->attrs[i].key, SIZE_MAX) + text_bound(job->attrs[i].value, SIZE_MAX);
	if (res->resp) /* a name grows threefold, and the shortest line, "a:\n", gets 8 bytes around it */
		bytes += res->resp->headers.len * 6 + 4096;
	return bytes;
}

static size_t encode_once(const struct result *res, const struct cuts *cuts, uint8_t **ret_data)
{
	size_t bound = size_bound(res) + cuts->body_len;
	struct writer w;

	*ret_data = xmalloc(bound);
	w = (struct writer){*ret_data, *ret_data + bound};
	put_result(&w, res, cuts);
	return (size_t)(w.at - *ret_data);
}

/* The bound is generous; a result lives until it is acknowledged, so the rest is given back when it is much. */
static uint8_t *trim(uint8_t *data, size_t len, size_t bound)
{
	return bound - len > 1024 ? xrealloc(data, MAX(len, (size_t)1)) : data;
}

int result_encode(const struct result *res, size_t max_bytes, uint8_t **ret_data, size_t *ret_len)
{
	struct cuts cuts = {.body_len = res->resp && !res->strip_body ? res->resp->body.len : 0};
	uint8_t *data;

	for (;;) {
		size_t bound = size_bound(res) + cuts.body_len, len = encode_once(res, &cuts, &data);
		if (len <= max_bytes) {
			*ret_data = trim(data, len, bound);
			*ret_len = len;
			return 0;
		}
		free(data);
		size_t over = len - max_bytes;
		if (cuts.body_len)
			cuts.body_len -= MIN(cuts.body_len, over + 16);
		else if (!cuts.no_headers)
			cuts.no_headers = true;
		else if (!cuts.no_redirects)
			cuts.no_redirects = true;
		else if (!cuts.no_attrs)
			cuts.no_attrs = true;
		else
			return -ERR_TOO_LARGE;
	}
}
