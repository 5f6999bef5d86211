/* job: every field comes out of every format, lists up to their limits, and no record costs more than it may. */
#include "err.h"
#include "job.h"
#include "job_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

/* ---- every field ---- */

#define DIGEST "0123456789abcdef0123456789abcdef"
#define DIGEST_BASE64 "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"

/* camelCase, URL-safe base64 and none of its padding, odd forms of numbers. */
static const char json_camel[] =
    "{\"jobId\":\"id-1\",\"url\":\"https://example.com/\",\"method\":\"HEAD\",\"body\":\"__79\","
    "\"headers\":[{\"name\":\"X-A\",\"value\":\"w6k\"},{\"name\":\"X-B\"},{\"name\":\"X-A\",\"value\":\"CXo\"}],"
    "\"secretRef\":\"s\",\"proxyRef\":\"p\",\"notBeforeAtMs\":1700000300000,\"expiresAtMs\":\"1800000000000\","
    "\"timeouts\":{\"connectMs\":1,\"totalMs\":\"2\",\"stallMs\":3.0},"
    "\"retry\":{\"maxAttempts\":4,\"baseMs\":5e0,\"maxMs\":6},\"maxRedirects\":7,\"maxBodyBytes\":\"8\","
    "\"bodyMode\":\"BODY_MODE_HASH_ONLY\",\"ifNoneMatch\":\"\\\"e\\\"\",\"ifModifiedSince\":\"Mon\","
    "\"prevDigest\":\"" DIGEST_BASE64 "\",\"expect\":{\"status\":[200,\"404\"],\"contentType\":[\"text/*\",\"a/b\"]},"
    "\"hostProfile\":\"h\",\"attrs\":{\"k\":\"v\",\"\":\"\\u00e9\"},"
    "\"schedule\":{\"sourceId\":\"src\",\"periodMs\":9,\"dueAtMs\":10},\"replayId\":\"rep\"}";

/* snake_case, standard base64 with its padding, null for absent. */
static const char json_snake[] =
    "{\"job_id\":\"id-1\",\"url\":\"https://example.com/\",\"method\":\"HEAD\",\"body\":\"//79\","
    "\"headers\":[{\"name\":\"X-A\",\"value\":\"w6k=\"},{\"name\":\"X-B\",\"value\":null},"
    "{\"name\":\"X-A\",\"value\":\"CXo=\"}],"
    "\"secret_ref\":\"s\",\"proxy_ref\":\"p\",\"not_before_at_ms\":1700000300000,\"expires_at_ms\":1800000000000,"
    "\"timeouts\":{\"connect_ms\":1,\"total_ms\":2,\"stall_ms\":3},"
    "\"retry\":{\"max_attempts\":\"4\",\"base_ms\":5,\"max_ms\":6},\"max_redirects\":7,\"max_body_bytes\":8,"
    "\"body_mode\":2,\"if_none_match\":\"\\\"e\\\"\",\"if_modified_since\":\"Mon\","
    "\"prev_digest\":\"" DIGEST_BASE64 "=\",\"expect\":{\"status\":[200,404],\"content_type\":[\"text/*\",\"a/b\"]},"
    "\"host_profile\":\"h\",\"attrs\":{\"k\":\"v\",\"\":\"\xc3\xa9\"},"
    "\"schedule\":{\"source_id\":\"src\",\"period_ms\":9,\"due_at_ms\":10},\"replay_id\":\"rep\"}";

/* Written by hand, so that it does not hang on the code that reads it. */
/* clang-format off */
static const char protobuf[] =
    "\x0a\x04id-1"                                        /* job_id */
    "\x12\x14https://example.com/"                        /* url */
    "\x1a\x04HEAD"                                        /* method */
    "\x22\x03\xff\xfe\xfd"                                /* body */
    "\x2a\x09\x0a\x03X-A\x12\x02\xc3\xa9"                 /* headers */
    "\x2a\x05\x0a\x03X-B"
    "\x2a\x09\x0a\x03X-A\x12\x02\tz"
    "\x32\x01s"                                           /* secret_ref */
    "\x3a\x01p"                                           /* proxy_ref */
    "\x40\xe0\xf7\xa7\xff\xbc\x31"                        /* not_before_at_ms */
    "\x48\x80\xa0\xf1\xc2\xb1\x34"                        /* expires_at_ms */
    "\x52\x06\x08\x01\x10\x02\x18\x03"                    /* timeouts */
    "\x5a\x06\x08\x04\x10\x05\x18\x06"                    /* retry */
    "\x60\x07"                                            /* max_redirects */
    "\x68\x08"                                            /* max_body_bytes */
    "\x70\x02"                                            /* body_mode */
    "\x7a\x03\"e\""                                       /* if_none_match */
    "\x82\x01\x03Mon"                                     /* if_modified_since */
    "\x8a\x01\x20" DIGEST                                 /* prev_digest */
    "\x92\x01\x13\x0a\x04\xc8\x01\x94\x03"             /* expect */
    "\x12\x06text/*\x12\x03" "a/b"
    "\x9a\x01\x01h"                                       /* host_profile */
    "\xa2\x01\x06\x0a\x01k\x12\x01v"                      /* attrs */
    "\xa2\x01\x04\x12\x02\xc3\xa9"
    "\xaa\x01\x09\x0a\x03src\x10\x09\x18\x0a"             /* schedule */
    "\xb2\x01\x03rep"                                     /* replay_id */
    "\xf8\x7f\x01";                                       /* a field of a later schema */
/* clang-format on */

static void assert_bytes(struct span bytes, const char *text)
{
	assert_int_equal(bytes.len, strlen(text));
	if (bytes.len)
		assert_memory_equal(bytes.data, text, bytes.len);
}

static void assert_texts(const struct job *job)
{
	assert_string_equal(job->job_id, "id-1");
	assert_string_equal(job->url, "https://example.com/");
	assert_string_equal(job->method, "HEAD");
	assert_bytes(job->body, "\xff\xfe\xfd");
	assert_string_equal(job->secret_ref, "s");
	assert_string_equal(job->proxy_ref, "p");
	assert_string_equal(job->host_profile, "h");
	assert_string_equal(job->if_none_match, "\"e\"");
	assert_string_equal(job->if_modified_since, "Mon");
	assert_bytes(job->prev_digest, DIGEST);
	assert_string_equal(job->source_id, "src");
	assert_string_equal(job->replay_id, "rep");
	assert_null(job->traceparent);
}

static void assert_numbers(const struct job *job)
{
	assert_int_equal(job->not_before_at_ms, 1700000300000);
	assert_int_equal(job->expires_at_ms, 1800000000000);
	assert_int_equal(job->connect_ms, 1);
	assert_int_equal(job->total_ms, 2);
	assert_int_equal(job->stall_ms, 3);
	assert_int_equal(job->max_attempts, 4);
	assert_int_equal(job->base_ms, 5);
	assert_int_equal(job->max_ms, 6);
	assert_int_equal(job->max_redirects, 7);
	assert_int_equal(job->max_body_bytes, 8);
	assert_int_equal(job->period_ms, 9);
	assert_int_equal(job->due_at_ms, 10);
	assert_int_equal(job->body_mode, BODY_MODE_HASH_ONLY);
}

static void assert_lists(const struct job *job)
{
	assert_int_equal(job->n_headers, 3);
	assert_string_equal(job->headers[0].name, "X-A");
	assert_bytes(job->headers[0].value, "\xc3\xa9");
	assert_string_equal(job->headers[1].name, "X-B");
	assert_bytes(job->headers[1].value, "");
	assert_string_equal(job->headers[2].name, "X-A");
	assert_bytes(job->headers[2].value, "\tz");
	assert_int_equal(job->n_expect_status, 2);
	assert_int_equal(job->expect_status[0], 200);
	assert_int_equal(job->expect_status[1], 404);
	assert_int_equal(job->n_expect_type, 2);
	assert_string_equal(job->expect_type[0], "text/*");
	assert_string_equal(job->expect_type[1], "a/b");
	assert_int_equal(job->n_attrs, 2);
	assert_string_equal(job->attrs[0].key, "k");
	assert_string_equal(job->attrs[0].value, "v");
	assert_string_equal(job->attrs[1].key, "");
	assert_string_equal(job->attrs[1].value, "\xc3\xa9");
}

static void test_every_field(void **state)
{
	struct span records[] = {span_str(json_camel), span_str(json_snake), B(protobuf)};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(records); i++) {
		struct decoded *d = decode(JOB_FORMAT_AUTO, records[i]);
		if (d->err)
			fail_msg("record %zu: %s: %s", i, err_code(d->err), d->detail);
		assert_texts(&d->job);
		assert_numbers(&d->job);
		assert_lists(&d->job);
		done(d);
	}
}

/* ---- absent fields ---- */

static void test_absent(void **state)
{
	struct span records[] = {
	    B("http://a/"),
	    B("\x12\x09http://a/"),
	    B("{\"url\":\"http://a/\"}"),
	    B("{\"url\":\"http://a/"
	      "\",\"job_id\":null,\"headers\":null,\"timeouts\":null,\"expect\":{\"status\":null}}"),
	    /* proto3 cannot tell an empty string from none */
	    B("\x0a\x00\x12\x09http://a/"
	      "\x1a\x00\x32\x00\x3a\x00\x7a\x00\x82\x01\x00\x9a\x01\x00\xaa\x01\x02\x0a\x00\xb2\x01\x00"),
	    B("{\"url\":\"http://a/"
	      "\",\"jobId\":\"\",\"method\":\"\",\"secretRef\":\"\",\"proxyRef\":\"\",\"ifNoneMatch\":\"\","
	      "\"ifModifiedSince\":\"\",\"hostProfile\":\"\",\"replayId\":\"\",\"schedule\":{\"sourceId\":\"\"}}"),
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(records); i++) {
		struct decoded *d = decode(JOB_FORMAT_AUTO, records[i]);
		const struct job *job = &d->job;
		if (d->err)
			fail_msg("record %zu: %s: %s", i, err_code(d->err), d->detail);
		assert_string_equal(job->job_id, "jobs/3/42");
		assert_string_equal(job->url, "http://a/");
		assert_string_equal(job->method, "GET");
		assert_int_equal(job->max_redirects, -1);
		assert_int_equal(job->body_mode, BODY_MODE_INLINE);
		assert_true(!job->secret_ref && !job->proxy_ref && !job->host_profile && !job->replay_id);
		assert_true(!job->if_none_match && !job->if_modified_since && !job->source_id && !job->traceparent);
		assert_true(!job->n_headers && !job->n_attrs && !job->n_expect_status && !job->n_expect_type);
		assert_true(!job->body.len && !job->prev_digest.len && !job->total_ms && !job->max_attempts);
		done(d);
	}
}

static void test_zero_redirects_is_not_absent(void **state)
{
	struct span records[] = {B("\x12\x01u\x60\x00"), B("{\"url\":\"u\",\"max_redirects\":0}")};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(records); i++) {
		struct decoded *d = decode(JOB_FORMAT_AUTO, records[i]);
		assert_int_equal(d->err, 0);
		assert_int_equal(d->job.max_redirects, 0);
		done(d);
	}
}

/* ---- limits of lists ---- */

/* A growing record. */
struct text {
	char *data;
	size_t len;
};

static void add(struct text *text, const void *data, size_t len)
{
	text->data = xrealloc(text->data, text->len + len + 1);
	memcpy(text->data + text->len, data, len);
	text->len += len;
	text->data[text->len] = '\0';
}

static void add_str(struct text *text, const char *s)
{
	add(text, s, strlen(s));
}

static struct decoded *decode_text(struct text *text)
{
	struct decoded *d = decode(JOB_FORMAT_AUTO, (struct span){(const uint8_t *)text->data, text->len});

	free(text->data);
	*text = (struct text){0};
	return d;
}

static const struct {
	const char *list, *before, *entry, *after; /* of JSON */
	struct span field;			   /* the same entry in protobuf */
	int max, err;
	bool is_keyed;
} lists[] = {
    {"headers", "{\"headers\":[", "{\"name\":\"a\"}", "]}",
     B("\x2a\x03\x0a\x01"
       "a"),
     64, ERR_HEADER_COUNT, false},
    {"attrs", "{\"attrs\":{", "\"\"", "}}", B("\xa2\x01\x00"), 64, ERR_JOB_ATTRS, true},
    {"statuses", "{\"expect\":{\"status\":[", "200", "]}}", B("\x92\x01\x03\x08\xc8\x01"), 64, ERR_JOB_FIELD, false},
    {"types", "{\"expect\":{\"content_type\":[", "\"a/b\"", "]}}",
     B("\x92\x01\x05\x12\x03"
       "a/b"),
     64, ERR_JOB_FIELD, false},
};

static void check_count(size_t row, int n)
{
	int wanted = n > lists[row].max ? -lists[row].err : 0;
	struct text json = {0}, proto = {0};

	add_str(&json, lists[row].before);
	add_str(&proto, "\x12\x01u");
	for (int i = 0; i < n; i++) {
		char key[16];
		snprintf(key, sizeof(key), "\"%d\":", i);
		add_str(&json, i ? "," : "");
		add_str(&json, lists[row].is_keyed ? key : "");
		add_str(&json, lists[row].entry);
		add(&proto, lists[row].field.data, lists[row].field.len);
	}
	add_str(&json, lists[row].after);
	struct decoded *of_json = decode_text(&json), *of_proto = decode_text(&proto);
	if (of_json->err != wanted)
		fail_msg("%d %s in JSON: %s", n, lists[row].list, err_code(of_json->err));
	if (of_proto->err != wanted)
		fail_msg("%d %s in protobuf: %s", n, lists[row].list, err_code(of_proto->err));
	/* The result carries them. */
	assert_true(of_json->job.n_attrs <= JOB_ATTRS_MAX && of_proto->job.n_attrs <= JOB_ATTRS_MAX);
	done(of_json);
	done(of_proto);
}

static void test_counts(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
		check_count(i, lists[i].max);
		check_count(i, lists[i].max + 1);
		check_count(i, lists[i].max + 2); /* the reader stops at one over it */
	}
}

static void test_bytes_of_attrs(void **state)
{
	(void)state;
	for (int over = 0; over <= 1; over++) {
		char *json = xasprintf("{\"url\":\"u\",\"attrs\":{\"a\":\"%0*d\",\"b\":\"%0*d\"}}", 10000, 0,
				       JOB_ATTRS_BYTES_MAX - 10002 + over, 0);
		struct decoded *d = decode(JOB_FORMAT_AUTO, span_str(json));
		assert_int_equal(d->err, over ? -ERR_JOB_ATTRS : 0);
		assert_int_equal(d->job.n_attrs, over ? 1 : 2);
		done(d);
		free(json);
	}
}

static void test_bytes_of_headers(void **state)
{
	(void)state;
	for (int over = 0; over <= 1; over++) {
		/* Base64 of 3 n bytes of 'A', and 'Q' 'Q' to 'A' 'A' at the end. */
		struct text json = {0};
		add_str(&json, "{\"headers\":[{\"name\":\"");
		add_str(&json, over ? "ab" : "a");
		add_str(&json, "\",\"value\":\"");
		for (int i = 0; i < (JOB_HEADERS_BYTES_MAX - 1) / 3; i++)
			add_str(&json, "QUFB");
		add_str(&json, "\"}]}");
		struct decoded *d = decode_text(&json);
		assert_int_equal(d->err, over ? -ERR_HEADER_COUNT : 0);
		done(d);
	}
}

static void test_not_before(void **state)
{
	char *json = xasprintf("{\"not_before_at_ms\":%lld}", (long long)NOW_MS + JOB_NOT_BEFORE_MAX_MS);
	struct decoded *d = decode(JOB_FORMAT_AUTO, span_str(json));

	(void)state;
	assert_int_equal(d->err, 0);
	done(d);
	free(json);
}

/* ---- no record costs more than it may ---- */

/* Small entries that grow large: a record of 1 MiB of each. `expect` once took 24 GB, for protobuf-c merges its lists
 * one by one. */
static const struct {
	const char *before;
	struct span entry;
	const char *after, *why;
} hostile[] = {
    {"\x12\x01u", B("\x92\x01\x02\x08\x01"), "", "expect, merged again and again"},
    {"\x12\x01u", B("\x2a\x00"), "", "empty headers"},
    {"\x12\x01u", B("\xa2\x01\x02\x0a\x00"), "", "empty attrs"},
    {"\x12\x01u", B("\xaa\x01\x00"), "", "schedules"},
    {"\x12\x01u", B("\xf8\x7f\x01"), "", "unknown fields"},
    {"\x12\x01u", B("\x40\x01"), "", "one number"},
    {"\x12\x01u", B("\x12\x01u"), "", "one string"},
    {"\x12\x01u\x92\x01\x80\x80\x40", B("\xf8\x7f\x01"), "", "unknown fields within a message, cut"},
    {"{\"attrs\":[", B("[],"), "0]}", "lists"},
    {"{\"attrs\":[", B("{},"), "0]}", "objects"},
    {"{\"attrs\":[", B("0,"), "0]}", "numbers"},
    {"{\"attrs\":", B("["), "", "depth"},
};

static void test_hostile(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(hostile); i++) {
		struct text text = {0};
		add_str(&text, hostile[i].before);
		text.data = xrealloc(text.data, JOB_BYTES_MAX);
		while (text.len + hostile[i].entry.len + strlen(hostile[i].after) <= JOB_BYTES_MAX) {
			memcpy(text.data + text.len, hostile[i].entry.data, hostile[i].entry.len);
			text.len += hostile[i].entry.len;
		}
		add_str(&text, hostile[i].after);
		struct decoded *d = decode_text(&text);
		if (!d->err || d->arena.bytes > 3 * JOB_BYTES_MAX)
			fail_msg("%s: %s, %zu bytes", hostile[i].why, err_code(d->err), d->arena.bytes);
		done(d);
	}
}

/* The other side: what an honest record needs is there. */
static void test_honest(void **state)
{
	struct text text = {0};
	char *half = xasprintf("%0*d", JOB_BYTES_MAX - 100, 0);

	(void)state;
	add_str(&text, "\x12\x01u\x22\x9c\xff\x3f");
	add_str(&text, half);
	for (int i = 0; i < 20; i++)
		add_str(&text, "\x52\x02\x08\x01");
	struct decoded *d = decode_text(&text);
	assert_int_equal(d->err, 0);
	assert_int_equal(d->job.body.len, JOB_BYTES_MAX - 100);
	done(d);
	add_str(&text, "{\"attrs\":{\"a\":\"");
	for (int i = 0; i < 1000; i++)
		add_str(&text, "{[,\\\",]}");
	add_str(&text, "\"}}");
	d = decode_text(&text);
	assert_int_equal(d->err, 0);
	assert_int_equal(strlen(d->job.attrs[0].value), 7000);
	done(d);
	free(half);
}

/* ---- traceparent ---- */

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN "00f067aa0ba902b7"

static const struct {
	const char *name, *value;
	bool is_valid;
	const char *why;
} traces[] = {
    {"traceparent", "00-" TRACE "-" SPAN "-01", true, "as in the standard"},
    {"TraceParent", "00-" TRACE "-" SPAN "-00", true, "case of the name"},
    {"tracestate", "00-" TRACE "-" SPAN "-01", false, "another header"},
    {"traceparent", "01-" TRACE "-" SPAN "-01", false, "another version"},
    {"traceparent", "ff-" TRACE "-" SPAN "-01", false, "no version"},
    {"traceparent", "00-00000000000000000000000000000000-" SPAN "-01", false, "no trace"},
    {"traceparent", "00-" TRACE "-0000000000000000-01", false, "no parent"},
    {"traceparent", "00-4BF92F3577b34da6a3ce929d0e0e4736-" SPAN "-01", false, "capitals"},
    {"traceparent", "00-gbf92f3577b34da6a3ce929d0e0e4736-" SPAN "-01", false, "not hexadecimal"},
    {"traceparent", "00_" TRACE "-" SPAN "-01", false, "no dash"},
    {"traceparent", "00-" TRACE "-" SPAN "-01-x", false, "more after it"},
    {"traceparent", "00-" TRACE "-" SPAN "-0", false, "too short"},
    {"traceparent", "", false, "empty"},
};

static void test_traceparent(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(traces); i++) {
		struct record_header headers[] = {{"traceparent", {NULL, 0}},
						  {traces[i].name, span_str(traces[i].value)}};
		struct decoded *d = decode_with(JOB_FORMAT_AUTO, span_str("http://a/"), headers, 2);
		if (traces[i].is_valid != (d->job.traceparent && strcmp(d->job.traceparent, traces[i].value) == 0))
			fail_msg("%s: %s", traces[i].why, d->job.traceparent ? d->job.traceparent : "none");
		done(d);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_every_field),
	    cmocka_unit_test(test_absent),
	    cmocka_unit_test(test_zero_redirects_is_not_absent),
	    cmocka_unit_test(test_counts),
	    cmocka_unit_test(test_bytes_of_attrs),
	    cmocka_unit_test(test_bytes_of_headers),
	    cmocka_unit_test(test_not_before),
	    cmocka_unit_test(test_hostile),
	    cmocka_unit_test(test_honest),
	    cmocka_unit_test(test_traceparent),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
