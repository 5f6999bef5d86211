/* result: what is absent is left out, what is too large is cut, and what is not text is made text. */
#include "err.h"
#include "result.h"
#include "utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "result_fixture.h"

/* n times one character; free. */
static char *times(const char *text, size_t n)
{
	size_t len = strlen(text);
	char *out = xmalloc(n * len + 1);

	for (size_t i = 0; i < n; i++)
		memcpy(out + i * len, text, len);
	out[n * len] = '\0';
	return out;
}

/* ---- what is absent ---- */

static void test_no_answer(void **state)
{
	struct filled *f = filled_new();

	(void)state;
	f->res.resp = NULL;
	f->res.final_url = NULL;
	f->res.detail = NULL;
	f->res.n_attempts = f->res.n_redirects = f->job.n_attrs = 0;
	f->rec.timestamp_ms = -1; /* as librdkafka says that there is none */
	read_result *read = encode(&f->res);
	assert_string_equal(read->error->message, err_text(ERR_HTTP_STATUS));
	assert_string_equal(read->final_url, "");
	assert_true(!read->status && !read->n_headers && !read->headers_dropped && !read->remote_port);
	assert_true(!read->body.len && !read->body_length && !read->wire_length && !read->declared_length);
	assert_true(!read->truncated && !read->digest.len && !read->etag.len && !read->unchanged && !read->tls);
	assert_true(!*read->http_version && !*read->remote_ip && !*read->content_type);
	assert_true(!read->n_attempts && !read->n_redirects && !read->n_attrs);
	assert_int_equal(read->timing_us->queued, 101);
	assert_int_equal(read->timing_us->total, 0);
	assert_int_equal(read->job_at_ms, 0);
	read_free(read);
	filled_free(f);
}

static void test_empty_answer(void **state)
{
	struct filled *f = filled_new();

	(void)state;
	response_done(&f->resp);
	response_init(&f->resp, 0);
	f->res.err = 0;
	f->res.detail = "";
	read_result *read = encode(&f->res);
	assert_null(read->error);
	assert_null(read->tls);
	assert_int_equal(read->digest.len, 0);
	assert_int_equal(read->declared_length, -1);
	assert_int_equal(read->truncated, TRUNCATED_NONE);
	assert_int_equal(read->body_length, 0);
	read_free(read);
	filled_free(f);
}

static void test_http_versions(void **state)
{
	static const struct {
		int version;
		const char *text;
	} rows[] = {{0, ""}, {10, "1.0"}, {11, "1.1"}, {20, "2"}, {99, ""}};
	struct filled *f = filled_new();

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		f->resp.http_version = rows[i].version;
		read_result *read = encode(&f->res);
		assert_string_equal(read->http_version, rows[i].text);
		read_free(read);
	}
	filled_free(f);
}

static void test_raw_input(void **state)
{
	struct filled *f = filled_new();
	uint8_t value[RESULT_RAW_INPUT_MAX + 1];

	(void)state;
	memset(value, 0xff, sizeof(value));
	for (size_t len = 0; len <= sizeof(value); len += RESULT_RAW_INPUT_MAX / 2) {
		f->rec.value = (struct span){len ? value : NULL, len};
		f->res.outcome = OUTCOME_BAD_JOB;
		read_result *read = encode(&f->res);
		assert_int_equal(read->raw_input.len, len);
		read_free(read);
	}
	f->rec.value = (struct span){value, sizeof(value)};
	read_result *read = encode(&f->res);
	assert_int_equal(read->raw_input.len, RESULT_RAW_INPUT_MAX);
	assert_memory_equal(read->raw_input.data, value, RESULT_RAW_INPUT_MAX);
	read_free(read);
	f->res.outcome = OUTCOME_BLOCKED_POLICY;
	read = encode(&f->res);
	assert_int_equal(read->raw_input.len, 0);
	read_free(read);
	filled_free(f);
}

/* ---- the body and what is said of it ---- */

static const struct {
	enum body_mode mode;
	enum truncated truncated; /* by the transfer */
	size_t body_len;	  /* in the buffer */
	int64_t seen;
	bool strip;
	size_t wanted_len;
	int64_t wanted_length;
	enum truncated wanted_truncated;
	bool is_unchanged;
	const char *why;
} bodies[] = {
    {BODY_MODE_INLINE, TRUNCATED_NONE, 8, 8, false, 8, 8, TRUNCATED_NONE, true, "all of it"},
    {BODY_MODE_INLINE, TRUNCATED_NONE, 0, 0, false, 0, 0, TRUNCATED_NONE, true, "an empty one"},
    {BODY_MODE_INLINE, TRUNCATED_LENGTH, 8, 8, false, 8, 8, TRUNCATED_LENGTH, false, "at the limit"},
    {BODY_MODE_INLINE, TRUNCATED_TIME, 8, 8, false, 8, 8, TRUNCATED_TIME, false, "ended by a timeout"},
    {BODY_MODE_INLINE, TRUNCATED_DISCONNECT, 8, 8, false, 8, 8, TRUNCATED_DISCONNECT, false, "the peer went away"},
    {BODY_MODE_HASH_ONLY, TRUNCATED_NONE, 0, 8, false, 0, 8, TRUNCATED_NONE, true, "only its digest"},
    {BODY_MODE_NONE, TRUNCATED_NONE, 0, 8, false, 0, 8, TRUNCATED_NONE, true, "not wanted"},
    {BODY_MODE_INLINE, TRUNCATED_NONE, 8, 8, true, 0, 0, TRUNCATED_LENGTH, false, "refused by the broker"},
    {BODY_MODE_INLINE, TRUNCATED_NONE, 0, 8, true, 0, 0, TRUNCATED_LENGTH, false, "refused, and freed since"},
    {BODY_MODE_INLINE, TRUNCATED_TIME, 8, 8, true, 0, 0, TRUNCATED_LENGTH, false, "refused, and cut before"},
    {BODY_MODE_INLINE, TRUNCATED_NONE, 0, 0, true, 0, 0, TRUNCATED_NONE, true, "refused, but it had none"},
    {BODY_MODE_HASH_ONLY, TRUNCATED_NONE, 0, 8, true, 0, 8, TRUNCATED_NONE, true, "refused, with only a digest"},
};

static void test_body(void **state)
{
	struct filled *f = filled_new();

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
		f->job.body_mode = bodies[i].mode;
		f->resp.truncated = bodies[i].truncated;
		f->resp.body.len = bodies[i].body_len;
		f->resp.body_length = bodies[i].seen;
		f->res.strip_body = bodies[i].strip;
		read_result *read = encode(&f->res);
		if (read->body.len != bodies[i].wanted_len || read->body_length != bodies[i].wanted_length ||
		    (int)read->truncated != (int)bodies[i].wanted_truncated ||
		    read->unchanged != bodies[i].is_unchanged)
			fail_msg("%s: %zu bytes, length %lld, truncated %d", bodies[i].why, read->body.len,
				 (long long)read->body_length, (int)read->truncated);
		assert_int_equal(read->digest.len, DIGEST_BYTES);
		read_free(read);
	}
	filled_free(f);
}

/* ---- caps ---- */

static void test_the_last_attempts(void **state)
{
	struct filled *f = filled_new();
	struct attempt attempts[RESULT_ATTEMPTS_MAX + 2] = {0};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(attempts); i++)
		attempts[i].ms = (int64_t)i;
	f->res.attempts = attempts;
	f->res.n_attempts = ARRAY_LEN(attempts);
	read_result *read = encode(&f->res);
	assert_int_equal(read->n_attempts, RESULT_ATTEMPTS_MAX);
	assert_int_equal(read->attempts[0]->ms, 2);
	assert_int_equal(read->attempts[RESULT_ATTEMPTS_MAX - 1]->ms, RESULT_ATTEMPTS_MAX + 1);
	read_free(read);
	filled_free(f);
}

static void test_long_texts(void **state)
{
	struct filled *f = filled_new();
	/* Two bytes each and one before, so that no cap falls between two. */
	char *pairs = times("\xc3\xa9", 10000), *text = xasprintf("a%s", pairs), *junk = times("\xa9", 20000);

	(void)state;
	f->job.url = f->res.final_url = f->redirects[0].url = f->res.detail = text;
	f->redirects[0].location = span_str(junk);
	read_result *read = encode(&f->res);
	assert_int_equal(strlen(read->url), 8191);
	assert_int_equal(strlen(read->final_url), 8191);
	assert_int_equal(strlen(read->redirects[0]->url), 8191);
	assert_int_equal(read->redirects[0]->location.len, 8192);
	assert_int_equal(strlen(read->error->message), 1023);
	assert_memory_equal(read->url, text, 8191);
	read_free(read);
	text[8193] = '\0';
	f->job.url = text + 1; /* just the cap */
	read = encode(&f->res);
	assert_int_equal(strlen(read->url), 8192);
	read_free(read);
	free(text);
	free(pairs);
	free(junk);
	filled_free(f);
}

static void test_validators_whole_or_not(void **state)
{
	struct filled *f = filled_new();

	(void)state;
	for (int over = 0; over <= 1; over++) {
		char *etag = times("e", (size_t)1024 + over), *date = times("d", (size_t)128 + over);
		buf_clear(&f->resp.headers);
		assert_int_equal(
		    buf_printf(&f->resp.headers, "ETag: %s\r\nLast-Modified: %s\r\nETag: x\r\n", etag, date), 0);
		read_result *read = encode(&f->res);
		assert_data(read->etag, over ? "" : etag);
		assert_data(read->last_modified, over ? "" : date);
		assert_data(read->headers[0]->value, etag);
		read_free(read);
		free(etag);
		free(date);
	}
	filled_free(f);
}

static void test_headers_over_their_cap(void **state)
{
	struct filled *f = filled_new();
	char *value = times("v", 32767);

	(void)state;
	buf_done(&f->resp.headers);
	buf_init(&f->resp.headers, 1024 * 1024);
	for (int i = 0; i < 3; i++)
		assert_int_equal(buf_printf(&f->resp.headers, "%d: %s\r\n", i, value), 0);
	assert_int_equal(buf_add_str(&f->resp.headers, "ETag: late\r\n"), 0);
	read_result *read = encode(&f->res);
	assert_int_equal(read->n_headers, 2); /* 64 KiB to the byte */
	assert_string_equal(read->headers[1]->name, "1");
	assert_int_equal(read->headers_dropped, 3 + 2);
	assert_data(read->etag, "late");
	read_free(read);
	free(value);
	filled_free(f);
}

/* Where the length of a message within grows by a byte, what is in it has to move. */
static void test_lengths_of_messages(void **state)
{
	static const size_t lens[] = {0,   1,	120,   121,   122,   123,   124,   125,	 126,
				      127, 128, 16376, 16377, 16378, 16379, 16380, 16384};
	struct filled *f = filled_new();

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
		char *value = times("v", lens[i]);
		buf_clear(&f->resp.headers);
		assert_int_equal(buf_printf(&f->resp.headers, "n: %s\r\nlast: 1\r\n", value), 0);
		read_result *read = encode(&f->res);
		assert_int_equal(read->n_headers, 2);
		assert_string_equal(read->headers[0]->name, "n");
		assert_data(read->headers[0]->value, value);
		assert_data(read->headers[1]->value, "1");
		read_free(read);
		free(value);
	}
	filled_free(f);
}

/* ---- what is not text ---- */

#define BAD "\xef\xbf\xbd"

static void test_strings_are_text(void **state)
{
	struct filled *f = filled_new();

	(void)state;
	set_text(&f->resp.headers, "X-\xff\xc3: a\xff\r\n");
	f->job.job_id = f->job.replay_id = f->job.url = f->res.final_url = f->res.detail = "\xff!";
	f->res.instance = f->res.version = f->rec.topic = f->redirects[0].url = f->redirects[0].ip = "\xff!";
	f->resp.tls_version = f->resp.tls_cipher = f->attrs[0].key = f->attrs[0].value = "\xff!";
	read_result *read = encode(&f->res);
	const char *texts[] = {read->job_id,	       read->replay_id,	     read->url,
			       read->final_url,	       read->error->message, read->worker->instance,
			       read->worker->version,  read->source->topic,  read->redirects[0]->url,
			       read->redirects[0]->ip, read->tls->version,   read->tls->cipher,
			       read->attrs[0]->key,    read->attrs[0]->value};
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		assert_string_equal(texts[i], BAD "!");
	assert_string_equal(read->headers[0]->name, "X-" BAD BAD);
	assert_data(read->headers[0]->value, "a\xff"); /* bytes stay */
	read_free(read);
	filled_free(f);
}

/* The buffer is sized before it is written: everything at its worst must fit. */
static void test_everything_not_text(void **state)
{
	struct filled *f = filled_new();
	char *junk = times("\xff", 20000);

	(void)state;
	f->job.job_id = f->job.replay_id = f->job.url = f->res.final_url = f->res.detail = junk;
	f->res.instance = f->res.version = f->rec.topic = junk;
	for (int i = 0; i < 2; i++) {
		f->attrs[i] = (struct attr){junk, junk};
		f->redirects[i] = (struct redirect){junk, -1, span_str(junk), "x"};
	}
	buf_clear(&f->resp.headers);
	assert_int_equal(buf_printf(&f->resp.headers, "%s: %s\r\n", junk, junk), 0);
	read_result *read = encode(&f->res);
	assert_int_equal(strlen(read->job_id), 60000);
	assert_int_equal(strlen(read->headers[0]->name), 60000);
	read_free(read);
	buf_clear(&f->resp.headers);
	while (buf_add_str(&f->resp.headers, "\xff:\n") == 0)
		;
	read = encode(&f->res);
	assert_int_equal(read->n_headers, RESPONSE_HEADER_BYTES_MAX / 3);
	read_free(read);
	free(junk);
	filled_free(f);
}

/* ---- to fit the topic ---- */

/* How much was given up: 0 nothing, 1 body, 2 headers, 3 redirects, 4 attrs. Each only when all before it is gone. */
static int given_up(const read_result *read, size_t body_len)
{
	int steps =
	    (read->body.len < body_len) + (read->n_headers == 0) + (read->n_redirects == 0) + (read->n_attrs == 0);
	bool is_in_order = (read->body.len == 0 || steps <= 1) && (read->n_redirects == 0 || steps <= 2) &&
			   (read->n_attrs == 0 || steps <= 3);

	assert_true(is_in_order);
	assert_int_equal(read->truncated, steps ? TRUNCATED_LENGTH : TRUNCATED_NONE);
	assert_int_equal(read->unchanged, !steps);
	assert_int_equal(read->body_length, read->body.len);
	assert_int_equal(read->headers_dropped, steps >= 2 ? 3 + 5 : 3);
	assert_data(read->etag, "\"e\""); /* small, and of use */
	return steps;
}

static void test_cut_to_fit(void **state)
{
	struct filled *f = filled_new();
	char *body = times("b", 1000);
	size_t whole, len;
	int last = 0, seen[5] = {0};

	(void)state;
	set_text(&f->resp.body, body);
	f->resp.body_length = 1000;
	read_free(encode_within(&f->res, SIZE_MAX, &whole));
	for (size_t max = whole; max > 0; max--) {
		uint8_t *data;
		if (result_encode(&f->res, max, &data, &len) == -ERR_TOO_LARGE)
			break;
		free(data);
		read_result *read = encode_within(&f->res, max, &len);
		int steps = given_up(read, 1000);
		assert_true(steps >= last);
		/* No more of a body is cut than must be. */
		if (read->body.len && read->body.len < 1000)
			assert_true(max - len <= 32);
		seen[steps]++;
		last = steps;
		read_free(read);
	}
	assert_true(seen[0] && seen[1] && seen[2] && seen[3] && seen[4]);
	free(body);
	filled_free(f);
}

static void test_nothing_left_to_cut(void **state)
{
	struct filled *f = filled_new();
	uint8_t *data = NULL;
	size_t len = 7;

	(void)state;
	assert_int_equal(result_encode(&f->res, 100, &data, &len), -ERR_TOO_LARGE);
	assert_null(data);
	assert_int_equal(len, 7);
	filled_free(f);
}

/* The contract: 64 KiB are always enough, whatever its parts are within their caps. */
static void test_64_kib_are_enough(void **state)
{
	struct filled *f = filled_new();
	char *text = times("x", 20000), *junk = times("\xff", 20000);
	char *job_id = times("i", JOB_ID_BYTES_MAX), *replay_id = times("r", 256);

	(void)state;
	f->job.job_id = job_id;
	f->job.replay_id = replay_id;
	f->job.url = f->res.final_url = text;
	f->res.detail = junk;
	f->redirects[0] = f->redirects[1] = (struct redirect){text, 301, span_str(text), "192.0.2.1"};
	f->attrs[0] = f->attrs[1] = (struct attr){"k", text};
	f->rec.value = span_str(text);
	f->res.outcome = OUTCOME_BAD_JOB;
	for (int i = 0; i < 3; i++)
		assert_int_equal(buf_printf(&f->resp.headers, "%d: %s\r\n", i, text), 0);
	char *body = times("b", 2 * 1024 * 1024);
	set_text(&f->resp.body, body);
	read_result *read = encode_within(&f->res, 64 * 1024, NULL);
	assert_int_equal(strlen(read->url), 8192);
	read_free(read);
	free(text);
	free(junk);
	free(job_id);
	free(replay_id);
	free(body);
	filled_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_no_answer),
	    cmocka_unit_test(test_empty_answer),
	    cmocka_unit_test(test_http_versions),
	    cmocka_unit_test(test_raw_input),
	    cmocka_unit_test(test_body),
	    cmocka_unit_test(test_the_last_attempts),
	    cmocka_unit_test(test_long_texts),
	    cmocka_unit_test(test_validators_whole_or_not),
	    cmocka_unit_test(test_headers_over_their_cap),
	    cmocka_unit_test(test_lengths_of_messages),
	    cmocka_unit_test(test_strings_are_text),
	    cmocka_unit_test(test_everything_not_text),
	    cmocka_unit_test(test_cut_to_fit),
	    cmocka_unit_test(test_nothing_left_to_cut),
	    cmocka_unit_test(test_64_kib_are_enough),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
