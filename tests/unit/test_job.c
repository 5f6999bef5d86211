/* job: which format a record has, what is refused, with which words, and why. */
#include "err.h"
#include "job.h"
#include "job_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#define MINUS_1 "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
/* A valid URL as protobuf's field 2. */
#define URL_FIELD "\x12\x09http://a/"

/* ---- which format ---- */

static const struct {
	const char *type; /* NULL = no header */
	struct span value;
	enum job_format format;
	const char *why;
} sniffs[] = {
    {NULL, B("{\"url\":1}"), JOB_FORMAT_JSON, "a brace"},
    {NULL, B("\x0a\x01x"), JOB_FORMAT_PROTOBUF, "field 1"},
    {NULL, B("\x12\x01x"), JOB_FORMAT_PROTOBUF, "field 2"},
    {NULL, B("http://a/"), JOB_FORMAT_URL, "a URL"},
    {NULL, B(" {"), JOB_FORMAT_URL, "only the first byte counts"},
    {NULL, B("\x1a\x03GET"), JOB_FORMAT_URL, "field 3 is no sign"},
    {NULL, B(""), JOB_FORMAT_URL, "nothing"},
    {"application/json", B("http://a/"), JOB_FORMAT_JSON, "the header wins"},
    {"Application/JSON; charset=utf-8", B("x"), JOB_FORMAT_JSON, "case and parameters"},
    {"application/json ;a", B("x"), JOB_FORMAT_JSON, "a space before the parameters"},
    {"application/x-protobuf", B("{"), JOB_FORMAT_PROTOBUF, "protobuf"},
    {"application/x-protobuf; messageType=gatherd.v1.FetchJob", B("{"), JOB_FORMAT_PROTOBUF, "with its message"},
    {"application/protobuf", B("{"), JOB_FORMAT_PROTOBUF, "its registered name"},
    {"text/uri-list", B("{"), JOB_FORMAT_URL, "a list of URLs"},
    {"text/plain", B("\x0a"), JOB_FORMAT_URL, "text"},
    {"application/jsonlines", B("\x0a"), JOB_FORMAT_PROTOBUF, "begins like JSON"},
    {"text/html", B("{"), JOB_FORMAT_JSON, "not one of ours"},
    {"", B("{"), JOB_FORMAT_JSON, "an empty header"},
};

static void test_sniff(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(sniffs); i++) {
		struct record_header headers[] = {{"other", B("application/x-protobuf")},
						  {"Content-Type", span_str(sniffs[i].type)}};
		struct record rec = {.value = sniffs[i].value, .headers = headers, .n_headers = sniffs[i].type ? 2 : 1};
		if (job_sniff(&rec) != sniffs[i].format)
			fail_msg("%s: taken as %d", sniffs[i].why, (int)job_sniff(&rec));
	}
}

/* ---- a bare URL ---- */

static const struct {
	struct span value;
	const char *url, *why;
} urls[] = {
    {B("http://example.com/"), "http://example.com/", "as it should be"},
    {B(" \t\r\nhttp://a/ \t\r\n"), "http://a/", "white space around"},
    {B("http://a/\n"), "http://a/", "as kcat -P ends it"},
    {B("http://a/b c"), "http://a/b c", "a space is url.c's to judge"},
    {B("http://b\xc3\xbc"
       "cher.de/"),
     "http://b\xc3\xbc"
     "cher.de/",
     "UTF-8"},
    {B("not a url"), "not a url", "what it means is url.c's to judge"},
    {B(" \n "), "", "nothing but white space"},
    {B("a"), "a", "one byte"},
};

static void test_urls(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
		struct decoded *d = decode(JOB_FORMAT_AUTO, urls[i].value);
		if (d->err || strcmp(d->job.url, urls[i].url) != 0)
			fail_msg("%s: %s, \"%s\"", urls[i].why, err_code(d->err), d->job.url);
		assert_string_equal(d->job.job_id, "jobs/3/42");
		assert_string_equal(d->job.method, "GET");
		assert_int_equal(d->job.body_mode, BODY_MODE_INLINE);
		assert_int_equal(d->job.max_redirects, -1);
		done(d);
	}
}

/* ---- what is refused ---- */

static const struct bad {
	enum job_format format;
	struct span value;
	int err;
	const char *detail, *why;
} bad[] = {
    {JOB_FORMAT_AUTO, {NULL, 0}, ERR_JOB_EMPTY, "the record's value is null", "a tombstone"},
    {JOB_FORMAT_AUTO, B(""), ERR_JOB_EMPTY, "the record's value is empty", "nothing"},
    {JOB_FORMAT_AUTO, B("\0\0\0\0\1\0"), ERR_JOB_FORMAT,
     "a first byte of 0 is reserved for Confluent's framing, which is not read yet", "a schema registry's framing"},
    {JOB_FORMAT_PROTOBUF, B("\0\0\0\0\1\0"), ERR_JOB_FORMAT,
     "a first byte of 0 is reserved for Confluent's framing, which is not read yet", "also when protobuf is set"},
    {JOB_FORMAT_AUTO, B("http://a/\nhttp://b/"), ERR_JOB_FORMAT, "taken as a URL, it has a second line at byte 9",
     "two lines"},
    {JOB_FORMAT_AUTO, B(" http://a/\rb"), ERR_JOB_FORMAT, "taken as a URL, it has a second line at byte 10", "CR"},
    {JOB_FORMAT_AUTO, B("http://a/\x01"), ERR_JOB_FORMAT, "taken as a URL, it has a control character at byte 9",
     "a control"},
    {JOB_FORMAT_AUTO, B("http://a/\0"), ERR_JOB_FORMAT, "taken as a URL, it has a control character at byte 9", "NUL"},
    {JOB_FORMAT_AUTO, B("http://a/\x7f"), ERR_JOB_FORMAT, "taken as a URL, it has a control character at byte 9",
     "DEL"},
    {JOB_FORMAT_AUTO, B("http://a/\t/"), ERR_JOB_FORMAT, "taken as a URL, it has a control character at byte 9",
     "a tab within"},
    {JOB_FORMAT_AUTO, B(" http://a/\xff"), ERR_JOB_FORMAT, "taken as a URL, it has what is not UTF-8 at byte 10",
     "random bytes"},
    {JOB_FORMAT_AUTO, B("\x1a\x03GET" URL_FIELD), ERR_JOB_FORMAT,
     "taken as a URL, it has a control character at byte 0", "protobuf that is not known as such"},

    {JOB_FORMAT_AUTO, B("{"), ERR_JOB_JSON, "line 1, column 1: string or '}' expected near end of file", "JSON cut"},
    {JOB_FORMAT_JSON, B("[]"), ERR_JOB_JSON, "not a JSON object", "a list"},
    {JOB_FORMAT_JSON, B("\"http://a/\""), ERR_JOB_JSON, NULL, "a string"},
    {JOB_FORMAT_AUTO, B("{\"url\":\"\xff\"}"), ERR_JOB_JSON, NULL, "not UTF-8"},
    {JOB_FORMAT_AUTO, B("{\"url\":\"a\"} x"), ERR_JOB_JSON, NULL, "more after it"},
    {JOB_FORMAT_AUTO, B("{\"url\":\"a\",\"url\":\"b\"}"), ERR_JOB_JSON, NULL, "a name twice"},
    {JOB_FORMAT_AUTO, B("{\"job_id\":\"a\",\"jobId\":\"b\"}"), ERR_JOB_FIELD, "field job_id: given twice",
     "in both its forms"},
    {JOB_FORMAT_AUTO, B("{\"urll\":\"a\"}"), ERR_JOB_FIELD, "field urll: unknown", "a typing error"},
    {JOB_FORMAT_AUTO, B("{\"job_Id\":\"a\"}"), ERR_JOB_FIELD, "field job_Id: unknown", "half in each form"},
    {JOB_FORMAT_AUTO, B("{\"jobI\":\"a\"}"), ERR_JOB_FIELD, "field jobI: unknown", "a name cut"},
    {JOB_FORMAT_AUTO, B("{\"jobIds\":\"a\"}"), ERR_JOB_FIELD, "field jobIds: unknown", "a name with more"},
    {JOB_FORMAT_AUTO, B("{\"timeouts\":{\"x\":1}}"), ERR_JOB_FIELD, "field timeouts.x: unknown", "an inner name"},
    {JOB_FORMAT_AUTO, B("{\"url\":1}"), ERR_JOB_FIELD, "field url: must be a string", "a number for a string"},
    {JOB_FORMAT_AUTO, B("{\"url\":\"a\\u0000b\"}"), ERR_JOB_FIELD, "field url: has a NUL character", "NUL"},
    {JOB_FORMAT_AUTO, B("{\"timeouts\":1}"), ERR_JOB_FIELD, "field timeouts: must be an object", "not an object"},
    {JOB_FORMAT_AUTO, B("{\"timeouts\":{\"total_ms\":-5}}"), ERR_JOB_FIELD, "field timeouts.total_ms: -5 is under 0",
     "negative"},
    {JOB_FORMAT_AUTO, B("{\"max_redirects\":-1}"), ERR_JOB_FIELD, "field max_redirects: -1 is under 0",
     "not the sign for absent"},
    {JOB_FORMAT_AUTO, B("{\"max_redirects\":2147483648}"), ERR_JOB_FIELD,
     "field max_redirects: 2147483648 is over 2147483647", "over 32 bits"},
    {JOB_FORMAT_AUTO, B("{\"maxBodyBytes\":\"9223372036854775808\"}"), ERR_JOB_FIELD,
     "field max_body_bytes: not a whole number of 64 bits", "over 64 bits"},
    {JOB_FORMAT_AUTO, B("{\"maxBodyBytes\":1.5}"), ERR_JOB_FIELD, "field max_body_bytes: not a whole number of 64 bits",
     "a fraction"},
    {JOB_FORMAT_AUTO, B("{\"maxBodyBytes\":1e300}"), ERR_JOB_FIELD,
     "field max_body_bytes: not a whole number of 64 bits", "a large real"},
    {JOB_FORMAT_AUTO, B("{\"maxBodyBytes\":\" 1\"}"), ERR_JOB_FIELD,
     "field max_body_bytes: not a whole number of 64 bits", "white space"},
    {JOB_FORMAT_AUTO, B("{\"maxBodyBytes\":\"\"}"), ERR_JOB_FIELD,
     "field max_body_bytes: not a whole number of 64 bits", "an empty string"},
    {JOB_FORMAT_AUTO, B("{\"maxBodyBytes\":\"1\\u0000\"}"), ERR_JOB_FIELD,
     "field max_body_bytes: not a whole number of 64 bits", "NUL after the digits"},
    {JOB_FORMAT_AUTO, B("{\"maxBodyBytes\":true}"), ERR_JOB_FIELD,
     "field max_body_bytes: must be a number, or a string of digits", "a boolean"},
    {JOB_FORMAT_AUTO, B("{\"body\":\"a\"}"), ERR_JOB_FIELD, "field body: not base64", "6 bits are no byte"},
    {JOB_FORMAT_AUTO, B("{\"body\":\"aGk====\"}"), ERR_JOB_FIELD, "field body: not base64", "too much padding"},
    {JOB_FORMAT_AUTO, B("{\"body\":\"aGkx=\"}"), ERR_JOB_FIELD, "field body: not base64", "padding out of place"},
    {JOB_FORMAT_AUTO, B("{\"body\":\"a k=\"}"), ERR_JOB_FIELD, "field body: not base64", "a space"},
    {JOB_FORMAT_AUTO, B("{\"body\":1}"), ERR_JOB_FIELD, "field body: must be a base64 string", "a number"},
    {JOB_FORMAT_AUTO, B("{\"body_mode\":\"INLINE\"}"), ERR_JOB_FIELD,
     "field body_mode: must be BODY_MODE_INLINE, BODY_MODE_HASH_ONLY or BODY_MODE_NONE", "without its prefix"},
    {JOB_FORMAT_AUTO, B("{\"body_mode\":4}"), ERR_JOB_FIELD, "field body_mode: 4 is over 3", "out of range"},
    {JOB_FORMAT_AUTO, B("{\"headers\":{}}"), ERR_JOB_FIELD, "field headers: must be a list of objects", "no list"},
    {JOB_FORMAT_AUTO, B("{\"headers\":[1]}"), ERR_JOB_FIELD,
     "field headers: each must be an object with name and value", "a list of numbers"},
    {JOB_FORMAT_AUTO, B("{\"headers\":[{\"name\":\"a\",\"val\":\"\"}]}"), ERR_JOB_FIELD,
     "field headers: only name and value are known", "an unknown part"},
    {JOB_FORMAT_AUTO, B("{\"headers\":[{\"name\":1}]}"), ERR_JOB_FIELD, "field headers.name: must be a string",
     "a number for a name"},
    {JOB_FORMAT_AUTO, B("{\"headers\":[{\"name\":\"a\",\"value\":\"!\"}]}"), ERR_JOB_FIELD,
     "field headers.value: not base64", "a value as text"},
    {JOB_FORMAT_AUTO, B("{\"attrs\":[]}"), ERR_JOB_FIELD, "field attrs: must be an object of strings", "a list"},
    {JOB_FORMAT_AUTO, B("{\"attrs\":{\"a\":1}}"), ERR_JOB_FIELD, "field attrs.a: must be a string", "a number"},
    {JOB_FORMAT_AUTO, B("{\"expect\":{\"status\":200}}"), ERR_JOB_FIELD,
     "field expect.status: must be a list of numbers", "no list"},
    {JOB_FORMAT_AUTO, B("{\"expect\":{\"status\":[\"x\"]}}"), ERR_JOB_FIELD,
     "field expect.status: not a whole number of 64 bits", "not a number"},
    {JOB_FORMAT_AUTO, B("{\"expect\":{\"contentType\":\"a/b\"}}"), ERR_JOB_FIELD,
     "field expect.content_type: must be a list of strings", "no list"},
    {JOB_FORMAT_AUTO, B("{\"expect\":{\"contentType\":[1]}}"), ERR_JOB_FIELD,
     "field expect.content_type: must be a string", "not a string"},

    {JOB_FORMAT_AUTO, B("{\"expect\":{\"status\":[200,99]}}"), ERR_JOB_FIELD,
     "field expect.status: 99 is not 100 to 999", "no status"},
    {JOB_FORMAT_AUTO, B("{\"expect\":{\"status\":[1000]}}"), ERR_JOB_FIELD,
     "field expect.status: 1000 is not 100 to 999", "no status"},
    {JOB_FORMAT_AUTO, B("{\"expect\":{\"contentType\":[\"text/html;a=b\"]}}"), ERR_JOB_FIELD,
     "field expect.content_type: must be as text/html or text/*, without parameters", "parameters never match"},
    {JOB_FORMAT_AUTO, B("{\"expect\":{\"contentType\":[\"html\"]}}"), ERR_JOB_FIELD,
     "field expect.content_type: must be as text/html or text/*, without parameters", "no slash"},
    {JOB_FORMAT_AUTO, B("{\"expect\":{\"contentType\":[\"/html\"]}}"), ERR_JOB_FIELD,
     "field expect.content_type: must be as text/html or text/*, without parameters", "no type"},
    {JOB_FORMAT_AUTO, B("{\"method\":\"G T\"}"), ERR_METHOD_SYNTAX, "field method: not an HTTP token", "a space"},
    {JOB_FORMAT_AUTO, B("{\"method\":\"G\xc3\x89T\"}"), ERR_METHOD_SYNTAX, "field method: not an HTTP token",
     "a letter that is not ASCII"},
    {JOB_FORMAT_AUTO, B("{\"headers\":[{\"value\":\"\"}]}"), ERR_HEADER_NAME, "field headers.name: not an HTTP token",
     "no name"},
    {JOB_FORMAT_AUTO, B("{\"headers\":[{\"name\":\"a:b\"}]}"), ERR_HEADER_NAME, "field headers.name: not an HTTP token",
     "a colon"},
    {JOB_FORMAT_AUTO, B("{\"headers\":[{\"name\":\"a;\"}]}"), ERR_HEADER_NAME, "field headers.name: not an HTTP token",
     "means something to libcurl"},
    {JOB_FORMAT_AUTO, B("{\"headers\":[{\"name\":\"a\",\"value\":\"YQpi\"}]}"), ERR_HEADER_VALUE,
     "field headers.value: that of a has a control character", "a line end"},
    {JOB_FORMAT_AUTO, B("{\"headers\":[{\"name\":\"a\",\"value\":\"fw==\"}]}"), ERR_HEADER_VALUE,
     "field headers.value: that of a has a control character", "DEL"},
    {JOB_FORMAT_AUTO, B("{\"headers\":[{\"name\":\"HOST\",\"value\":\"YQ\"}]}"), ERR_HEADER_DENIED,
     "field headers.name: a job may not set HOST", "denied, in capitals"},
    {JOB_FORMAT_AUTO, B("{\"if_none_match\":\"a\\r\\nb\"}"), ERR_HEADER_VALUE,
     "field if_none_match: has a control character", "a header's end"},
    {JOB_FORMAT_AUTO, B("{\"if_modified_since\":\"a\\nb\"}"), ERR_HEADER_VALUE,
     "field if_modified_since: has a control character", "a header's end"},
    {JOB_FORMAT_AUTO, B("{\"prev_digest\":\"AAAA\"}"), ERR_JOB_FIELD, "field prev_digest: a SHA-256 has 32 bytes",
     "a short digest"},
    {JOB_FORMAT_AUTO, B("{\"not_before_at_ms\":1700000300001}"), ERR_JOB_NOT_BEFORE,
     "field not_before_at_ms: over 5 minutes ahead: that is a scheduler's work", "5 min and 1 ms ahead"},

    {JOB_FORMAT_AUTO, B("\x12\x09http"), ERR_JOB_PROTOBUF,
     "not a gatherd.v1.FetchJob message, or one with far too many fields", "protobuf cut"},
    {JOB_FORMAT_PROTOBUF, B("http://a/"), ERR_JOB_PROTOBUF, NULL, "a URL where protobuf is set"},
    {JOB_FORMAT_AUTO, B("\x12\x03\xff\x61\x62"), ERR_JOB_FIELD, "field url: not valid UTF-8", "a string of bytes"},
    {JOB_FORMAT_AUTO, B("\x12\x04http\x1a\x01\xff"), ERR_JOB_FIELD, "field method: not valid UTF-8", "another one"},
    {JOB_FORMAT_AUTO, B("\x12\x0bhttp://a/\0b"), ERR_JOB_FIELD, "field url: has a NUL character", "a hidden end"},
    {JOB_FORMAT_AUTO, B(URL_FIELD "\x2a\x05\x0a\x03x\0y"), ERR_JOB_FIELD, "field name: has a NUL character",
     "a hidden end of a header's name"},
    {JOB_FORMAT_AUTO, B(URL_FIELD "\xa2\x01\x04\x0a\x02\xff\xff"), ERR_JOB_FIELD, "field attrs: not valid UTF-8",
     "a key of bytes"},
    {JOB_FORMAT_AUTO, B(URL_FIELD "\xa2\x01\x04\x12\x02\xff\xff"), ERR_JOB_FIELD, "field attrs: not valid UTF-8",
     "a value of bytes"},
    {JOB_FORMAT_AUTO, B(URL_FIELD "\x40" MINUS_1), ERR_JOB_FIELD, "field not_before_at_ms: -1 is under 0", "negative"},
    {JOB_FORMAT_AUTO, B(URL_FIELD "\x48" MINUS_1), ERR_JOB_FIELD, "field expires_at_ms: -1 is under 0", "negative"},
    {JOB_FORMAT_AUTO, B(URL_FIELD "\x52\x0b\x08" MINUS_1), ERR_JOB_FIELD, "field timeouts.connect_ms: -1 is under 0",
     "negative"},
    {JOB_FORMAT_AUTO, B(URL_FIELD "\x52\x0b\x10" MINUS_1), ERR_JOB_FIELD, "field timeouts.total_ms: -1 is under 0",
     "negative"},
    {JOB_FORMAT_AUTO, B(URL_FIELD "\x52\x0b\x18" MINUS_1), ERR_JOB_FIELD, "field timeouts.stall_ms: -1 is under 0",
     "negative"},
    {JOB_FORMAT_AUTO, B(URL_FIELD "\x5a\x0b\x08" MINUS_1), ERR_JOB_FIELD, "field retry.max_attempts: -1 is under 0",
     "negative"},
    {JOB_FORMAT_AUTO, B(URL_FIELD "\x5a\x0b\x10" MINUS_1), ERR_JOB_FIELD, "field retry.base_ms: -1 is under 0",
     "negative"},
    {JOB_FORMAT_AUTO, B(URL_FIELD "\x5a\x0b\x18" MINUS_1), ERR_JOB_FIELD, "field retry.max_ms: -1 is under 0",
     "negative"},
    {JOB_FORMAT_AUTO, B(URL_FIELD "\x60" MINUS_1), ERR_JOB_FIELD, "field max_redirects: -1 is under 0",
     "not the sign for absent"},
    {JOB_FORMAT_AUTO, B(URL_FIELD "\x60\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"), ERR_JOB_FIELD,
     "field max_redirects: -2 is under 0", "negative"},
    {JOB_FORMAT_AUTO, B(URL_FIELD "\x68" MINUS_1), ERR_JOB_FIELD, "field max_body_bytes: -1 is under 0", "negative"},
    {JOB_FORMAT_AUTO, B(URL_FIELD "\xaa\x01\x0b\x10" MINUS_1), ERR_JOB_FIELD, "field schedule.period_ms: -1 is under 0",
     "negative"},
    {JOB_FORMAT_AUTO, B(URL_FIELD "\xaa\x01\x0b\x18" MINUS_1), ERR_JOB_FIELD, "field schedule.due_at_ms: -1 is under 0",
     "negative"},
    {JOB_FORMAT_AUTO, B(URL_FIELD "\x70\x04"), ERR_JOB_FIELD, "field body_mode: 4 is not 0 to 3", "out of range"},
    {JOB_FORMAT_AUTO, B(URL_FIELD "\x70" MINUS_1), ERR_JOB_FIELD, "field body_mode: -1 is not 0 to 3", "negative"},
    {JOB_FORMAT_AUTO, B(URL_FIELD "\x92\x01\x05\x12\x03\xff/a"), ERR_JOB_FIELD,
     "field expect.content_type: must be as text/html or text/*, without parameters", "a pattern of bytes"},
};

static void test_bad(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct decoded *d = decode(bad[i].format, bad[i].value);
		if (d->err != -bad[i].err)
			fail_msg("row %zu, %s: %s, not %s", i, bad[i].why, err_code(d->err), err_code(bad[i].err));
		assert_non_null(d->detail);
		if (bad[i].detail && strcmp(d->detail, bad[i].detail) != 0)
			fail_msg("row %zu, %s: \"%s\"", i, bad[i].why, d->detail);
		/* The result is made of these. */
		assert_true(d->job.job_id[0]);
		assert_non_null(d->job.url);
		assert_non_null(d->job.method);
		assert_in_range(d->job.body_mode, BODY_MODE_INLINE, BODY_MODE_NONE);
		done(d);
	}
}

static void test_too_large(void **state)
{
	uint8_t *value = xmalloc(JOB_BYTES_MAX + 1);

	(void)state;
	memset(value, 'a', JOB_BYTES_MAX + 1);
	struct decoded *d = decode(JOB_FORMAT_AUTO, (struct span){value, JOB_BYTES_MAX});
	assert_int_equal(d->err, 0);
	assert_int_equal(strlen(d->job.url), JOB_BYTES_MAX);
	done(d);
	d = decode(JOB_FORMAT_AUTO, (struct span){value, JOB_BYTES_MAX + 1});
	assert_int_equal(d->err, -ERR_JOB_TOO_LARGE);
	assert_string_equal(d->detail, "1048577 bytes, over 1048576");
	done(d);
	free(value);
}

static void test_denied_headers(void **state)
{
	static const char *const names[] = {
	    "Host", "content-length", "Transfer-Encoding", "Connection", "Keep-Alive",
	    "TE",   "Trailer",	      "Upgrade",	   "Expect",	 "Proxy-Authorization"};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		char *json = xasprintf("{\"headers\":[{\"name\":\"%s\",\"value\":\"YQ\"}]}", names[i]);
		struct decoded *d = decode(JOB_FORMAT_AUTO, span_str(json));
		if (d->err != -ERR_HEADER_DENIED)
			fail_msg("%s is let through", names[i]);
		done(d);
		free(json);
	}
}

/* ---- what a bad job still tells ---- */

static const struct {
	struct span value;
	int err;
	const char *job_id, *url, *replay_id, *attr, *why;
} kept[] = {
    {B("{\"job_id\":\"j\",\"nope\":1,\"url\":\"u\",\"attrs\":{\"a\":\"v\",\"b\":2},\"replay_id\":\"r\"}"),
     ERR_JOB_FIELD, "j", "u", "r", "v", "JSON: what stands behind the fault too, and the good attrs"},
    {B("{\"url\":\"u\",\"method\":\" \",\"job_id\":\"j\"}"), ERR_METHOD_SYNTAX, "j", "u", NULL, NULL, "a bad method"},
    {B("{\"url\":\"u"), ERR_JOB_JSON, "jobs/3/42", "", NULL, NULL, "nothing is known of broken JSON"},
    {B("\x0a\x01j" URL_FIELD "\xa2\x01\x06\x0a\x01"
       "a\x12\x01v\xb2\x01\x01r\x70\x09"),
     ERR_JOB_FIELD, "j", "http://a/", "r", "v", "protobuf"},
    {B("\x0a\x01j" URL_FIELD "\xb2\x01\x01r\x1a\x09G"), ERR_JOB_PROTOBUF, "j", "http://a/", "r", NULL,
     "what stands before the break"},
    {B("\x0a\x01j\x40\x01\x11"
       "12345678\x15"
       "1234" URL_FIELD "\x63"),
     ERR_JOB_PROTOBUF, "j", "http://a/", NULL, NULL, "other wire types are stepped over"},
    {B("\x0a\x01\xff\x12\x02u\0\x1a\x09G"), ERR_JOB_PROTOBUF, "jobs/3/42", "", NULL, NULL,
     "no result could carry what is not text"},
    {B("\x0a\x01\xff" URL_FIELD), ERR_JOB_FIELD, "jobs/3/42", "http://a/", NULL, NULL, "a bad id is replaced"},
};

static bool is_same(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static void test_bad_job_keeps_what_it_can(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
		struct decoded *d = decode(JOB_FORMAT_AUTO, kept[i].value);
		const char *attr = d->job.n_attrs ? d->job.attrs[0].value : NULL;
		if (d->err != -kept[i].err || !is_same(d->job.job_id, kept[i].job_id) ||
		    !is_same(d->job.url, kept[i].url) || !is_same(d->job.replay_id, kept[i].replay_id) ||
		    !is_same(attr, kept[i].attr) || d->job.n_attrs > 1)
			fail_msg("%s: %s, job %s, url %s", kept[i].why, err_code(d->err), d->job.job_id, d->job.url);
		done(d);
	}
}

static void test_long_names_are_cut_in_the_detail(void **state)
{
	char *json = xmalloc(200 * 1024), *at = json;

	(void)state;
	at += sprintf(at, "{\"x");
	for (int i = 0; i < 50000; i++)
		at += sprintf(at, "\xc3\xa9");
	sprintf(at, "\":1}");
	struct decoded *d = decode(JOB_FORMAT_AUTO, span_str(json));
	assert_int_equal(d->err, -ERR_JOB_FIELD);
	assert_int_equal(strlen(d->detail), strlen("field ") + 63 + strlen(": unknown"));
	done(d);
	free(json);
}

static void test_text_limits(void **state)
{
	static const struct {
		const char *name;
		int max;
	} texts[] = {{"job_id", 1024},	    {"method", 64},	{"secret_ref", 256},	 {"proxy_ref", 256},
		     {"host_profile", 256}, {"replay_id", 256}, {"if_none_match", 1024}, {"if_modified_since", 128}};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		for (int over = 0; over <= 1; over++) {
			char *json = xasprintf("{\"%s\":\"%0*d\"}", texts[i].name, texts[i].max + over, 0);
			char *detail = xasprintf("field %s: over %d bytes", texts[i].name, texts[i].max);
			struct decoded *d = decode(JOB_FORMAT_AUTO, span_str(json));
			assert_int_equal(d->err, over ? -ERR_JOB_FIELD : 0);
			if (over)
				assert_string_equal(d->detail, detail);
			done(d);
			free(json);
			free(detail);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_sniff),
	    cmocka_unit_test(test_urls),
	    cmocka_unit_test(test_bad),
	    cmocka_unit_test(test_too_large),
	    cmocka_unit_test(test_denied_headers),
	    cmocka_unit_test(test_bad_job_keeps_what_it_can),
	    cmocka_unit_test(test_long_names_are_cut_in_the_detail),
	    cmocka_unit_test(test_text_limits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
