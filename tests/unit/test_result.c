/* result: the judgement of an answer, and every field of a result read back with the generated code. */
#include "err.h"
#include "result.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "result_fixture.h"

/* ---- the response's header lines ---- */

static const struct {
	const char *lines, *name, *value; /* NULL = there is none */
	const char *why;
} fields[] = {
    {"A: 1\r\nB: 2\r\n", "B", "2", "the second line"},
    {"Content-Type: x\r\n", "content-type", "x", "without case"},
    {"A: 1\r\nA: 2\r\n", "A", "1", "the first of two"},
    {"A:1\r\n", "A", "1", "no white space"},
    {"A: \t 1 \t \r\n", "A", "1", "white space around"},
    {"A:\r\n", "A", "", "empty"},
    {"A: b: c\r\n", "A", "b: c", "a colon within"},
    {"A: 1\nB: 2\n", "B", "2", "without CR"},
    {"A: 1", "A", "1", "without an end"},
    {"A\r\nB: 2\r\n", "A", NULL, "no colon"},
    {"A\r\nB: 2\r\n", "B", "2", "after a line without colon"},
    {": 1\r\nB: 2\r\n", "B", "2", "after a line without name"},
    {"AB: 1\r\n", "A", NULL, "a longer name"},
    {"A: 1\r\n", "AB", NULL, "a shorter name"},
    {"", "A", NULL, "no lines"},
    {"\r\n\r\n", "A", NULL, "empty lines"},
};

static void test_response_header(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
		struct span value = {NULL, 0};
		struct response resp;
		response_init(&resp, 0);
		set_text(&resp.headers, fields[i].lines);
		bool is_found = response_header(&resp, fields[i].name, &value);
		if (is_found != (fields[i].value != NULL))
			fail_msg("%s: %s", fields[i].why, is_found ? "found" : "not found");
		if (is_found &&
		    (value.len != strlen(fields[i].value) || memcmp(value.data, fields[i].value, value.len)))
			fail_msg("%s: %.*s", fields[i].why, (int)value.len, (const char *)value.data);
		response_done(&resp);
	}
}

#define X40 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

static const struct {
	const char *lines, *type, *why;
} types[] = {
    {"Content-Type: text/html\r\n", "text/html", "plain"},
    {"Content-Type: Text/HTML;charset=UTF-8\r\n", "text/html", "lower case, no parameters"},
    {"Content-Type: text/html ; a=b\r\n", "text/html", "a space before"},
    {"Content-Type: text/\xc3\xa9\r\n", "text/", "only ASCII"},
    {"Content-Type:\r\n", "", "empty"},
    {"X: y\r\n", "", "none"},
    {"Content-Type: " X40 X40 X40 X40 "\r\n", X40 X40 X40 "xxxxxxx", "cut to 127 bytes"},
};

static void test_content_type(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		struct response resp;
		char type[128];
		response_init(&resp, 0);
		set_text(&resp.headers, types[i].lines);
		response_content_type(&resp, type);
		if (strcmp(type, types[i].type) != 0)
			fail_msg("%s: %s", types[i].why, type);
		response_done(&resp);
	}
}

/* ---- the judgement ---- */

static const struct {
	int status;
	const char *validator;
	int32_t wanted[2]; /* 0 = none */
	const char *wanted_type, *type;
	enum outcome outcome;
	int err;
	const char *why;
} judged[] = {
    {200, NULL, {0}, NULL, NULL, OUTCOME_OK, 0, "2xx"},
    {299, NULL, {0}, NULL, NULL, OUTCOME_OK, 0, "the last 2xx"},
    {204, NULL, {0}, NULL, NULL, OUTCOME_OK, 0, "no content"},
    {300, NULL, {0}, NULL, NULL, OUTCOME_HTTP_ERROR, ERR_HTTP_STATUS, "the first 3xx"},
    {199, NULL, {0}, NULL, NULL, OUTCOME_HTTP_ERROR, ERR_HTTP_STATUS, "no final status"},
    {404, NULL, {0}, NULL, NULL, OUTCOME_HTTP_ERROR, ERR_HTTP_STATUS, "4xx"},
    {503, NULL, {0}, NULL, NULL, OUTCOME_HTTP_ERROR, ERR_HTTP_STATUS, "5xx"},
    {304, "e", {0}, NULL, NULL, OUTCOME_NOT_MODIFIED, 0, "304 to our validator"},
    {304, NULL, {0}, NULL, NULL, OUTCOME_HTTP_ERROR, ERR_HTTP_STATUS, "304 that nobody asked for"},
    {304, "", {0}, NULL, NULL, OUTCOME_HTTP_ERROR, ERR_HTTP_STATUS, "an empty validator is none"},
    {200, "e", {0}, NULL, NULL, OUTCOME_OK, 0, "modified"},
    {304, "e", {200}, NULL, NULL, OUTCOME_NOT_MODIFIED, 0, "304 to our validator, and 200 expected"},
    {304, "e", {200, 304}, NULL, NULL, OUTCOME_OK, 0, "304 expected by name"},
    {304, "e", {0}, "text/html", NULL, OUTCOME_NOT_MODIFIED, 0, "304 carries no type"},
    {200, NULL, {404, 200}, NULL, NULL, OUTCOME_OK, 0, "named"},
    {404, NULL, {404, 200}, NULL, NULL, OUTCOME_OK, 0, "an error that is wanted"},
    {201, NULL, {404, 200}, NULL, NULL, OUTCOME_UNEXPECTED, ERR_UNEXPECTED_STATUS, "a 2xx that is not named"},
    {500, NULL, {404, 200}, NULL, NULL, OUTCOME_HTTP_ERROR, ERR_HTTP_STATUS, "an error that is not named"},
    {200, NULL, {0}, "text/html", "text/html; charset=x", OUTCOME_OK, 0, "its type"},
    {200, NULL, {0}, "Text/HTML", "text/html", OUTCOME_OK, 0, "without case"},
    {200, NULL, {0}, "text/*", "text/plain", OUTCOME_OK, 0, "a pattern"},
    {200, NULL, {0}, "*/*", "a/b", OUTCOME_OK, 0, "anything"},
    {200, NULL, {0}, "text/*", "textual/x", OUTCOME_UNEXPECTED, ERR_UNEXPECTED_TYPE, "only begins like it"},
    {200, NULL, {0}, "text/html", "text/html5", OUTCOME_UNEXPECTED, ERR_UNEXPECTED_TYPE, "a longer type"},
    {200, NULL, {0}, "text/html", NULL, OUTCOME_UNEXPECTED, ERR_UNEXPECTED_TYPE, "no type"},
    {404, NULL, {404}, "text/html", "a/b", OUTCOME_UNEXPECTED, ERR_UNEXPECTED_TYPE, "the type of a wanted error"},
    {404, NULL, {0}, "text/html", "a/b", OUTCOME_HTTP_ERROR, ERR_HTTP_STATUS, "the status comes first"},
    {201, NULL, {200}, "text/html", "a/b", OUTCOME_UNEXPECTED, ERR_UNEXPECTED_STATUS, "the status comes first"},
};

static void test_judge(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(judged); i++) {
		const char *patterns[] = {"no/such", judged[i].wanted_type};
		struct job job = {.expect_status = judged[i].wanted,
				  .n_expect_status = (size_t)(judged[i].wanted[0] != 0) + (judged[i].wanted[1] != 0),
				  .expect_type = patterns,
				  .n_expect_type = judged[i].wanted_type ? 2 : 0};
		struct response resp;
		response_init(&resp, 0);
		resp.status = judged[i].status;
		if (judged[i].type)
			assert_int_equal(buf_printf(&resp.headers, "Content-Type: %s\r\n", judged[i].type), 0);
		for (int is_date = 0; is_date <= 1; is_date++) {
			enum outcome outcome = OUTCOME_UNSPECIFIED;
			job.if_modified_since = is_date ? judged[i].validator : NULL;
			job.if_none_match = is_date ? NULL : judged[i].validator;
			int err = result_judge(&job, &resp, &outcome);
			if (err != -judged[i].err || outcome != judged[i].outcome)
				fail_msg("row %zu, %s: %s, %s", i, judged[i].why, err_code(err), outcome_name(outcome));
		}
		response_done(&resp);
	}
}

/* ---- every field ---- */

static void assert_ends(const read_result *read)
{
	assert_string_equal(read->job_id, "id");
	assert_string_equal(read->replay_id, "rep");
	assert_string_equal(read->source->topic, "jobs");
	assert_int_equal(read->source->partition, 5);
	assert_int_equal(read->source->offset, 1234567890123);
	assert_int_equal(read->source->timestamp_ms, 1700000000000);
	assert_int_equal(read->outcome, OUTCOME_HTTP_ERROR);
	assert_string_equal(read->error->code, "HTTP_STATUS");
	assert_string_equal(read->error->message, "as it is");
	assert_int_equal(read->error->retryable, 1);
	assert_int_equal(read->n_attempts, 2);
	assert_int_equal(read->attempts[0]->outcome, OUTCOME_CONNECT);
	assert_int_equal(read->attempts[0]->status, 0);
	assert_int_equal(read->attempts[0]->ms, 30);
	assert_int_equal(read->attempts[0]->backoff_ms, 40);
	assert_int_equal(read->attempts[1]->outcome, OUTCOME_OK);
	assert_int_equal(read->attempts[1]->status, 200);
	assert_int_equal(read->attempts[1]->ms, 50);
	assert_int_equal(read->attempts[1]->backoff_ms, 0);
	assert_string_equal(read->url, "http://a/");
	assert_string_equal(read->final_url, "http://a/final");
	assert_int_equal(read->n_redirects, 2);
	assert_string_equal(read->redirects[0]->url, "http://a/");
	assert_int_equal(read->redirects[0]->status, 301);
	assert_data(read->redirects[0]->location, "/b\xff");
	assert_string_equal(read->redirects[0]->ip, "192.0.2.2");
	assert_string_equal(read->redirects[1]->url, "http://a/b");
	assert_data(read->redirects[1]->location, "");
	assert_string_equal(read->redirects[1]->ip, "");
	assert_int_equal(read->retry_after_ms, 120000);
	assert_int_equal(read->dead_letter, DEAD_LETTER_SENT);
	assert_string_equal(read->worker->instance, "host-1");
	assert_string_equal(read->worker->version, "0.1.0");
	assert_int_equal(read->n_attrs, 2);
	assert_string_equal(read->attrs[0]->key, "k");
	assert_string_equal(read->attrs[0]->value, "v");
	assert_string_equal(read->attrs[1]->key, "");
	assert_string_equal(read->attrs[1]->value, "\xc3\xa9");
}

static void assert_answer(const read_result *read)
{
	static const char *const headers[][2] = {{"Content-Type", "Text/HTML; charset=x"},
						 {"ETag", "\"e\""},
						 {"Last-Modified", "Mon"},
						 {"X", "1"},
						 {"x", "2"}};

	assert_int_equal(read->status, 200);
	assert_string_equal(read->http_version, "1.1");
	assert_int_equal(read->n_headers, ARRAY_LEN(headers));
	for (size_t i = 0; i < ARRAY_LEN(headers); i++) {
		assert_string_equal(read->headers[i]->name, headers[i][0]);
		assert_data(read->headers[i]->value, headers[i][1]);
	}
	assert_int_equal(read->headers_dropped, 3);
	assert_string_equal(read->remote_ip, "192.0.2.1");
	assert_int_equal(read->remote_port, 443);
	assert_data(read->body, "the body");
	assert_string_equal(read->body_ref, "");
	assert_int_equal(read->body_length, 8);
	assert_int_equal(read->wire_length, 6);
	assert_int_equal(read->declared_length, 7);
	assert_int_equal(read->truncated, TRUNCATED_NONE);
	assert_string_equal(read->content_type, "text/html");
	assert_data(read->digest, DIGEST);
	assert_data(read->etag, "\"e\"");
	assert_data(read->last_modified, "Mon");
	assert_int_equal(read->unchanged, 1);
	assert_string_equal(read->tls->version, "TLSv1.3");
	assert_string_equal(read->tls->cipher, "AES");
	assert_int_equal(read->tls->not_after_ms, 108);
}

static void test_every_field(void **state)
{
	struct filled *f = filled_new();
	read_result *read = encode(&f->res);

	(void)state;
	assert_ends(read);
	assert_answer(read);
	assert_int_equal(read->timing_us->queued, 101);
	assert_int_equal(read->timing_us->politeness, 102);
	assert_int_equal(read->timing_us->dns, 103);
	assert_int_equal(read->timing_us->connect, 104);
	assert_int_equal(read->timing_us->tls, 105);
	assert_int_equal(read->timing_us->first_byte, 106);
	assert_int_equal(read->timing_us->total, 107);
	assert_int_equal(read->job_at_ms, 1700000000000);
	assert_int_equal(read->due_at_ms, 1600000000000);
	assert_int_equal(read->start_at_ms, 1700000000001);
	assert_int_equal(read->end_at_ms, 1700000000002);
	assert_data(read->raw_input, "");
	read_free(read);
	filled_free(f);
}

/* A field of the schema that nobody writes would be a promise broken: all but body_ref and raw_input are set above. */
static void test_no_field_is_forgotten(void **state)
{
	struct filled *f = filled_new();
	const ProtobufCMessageDescriptor *type = &gatherd__v1__fetch_result__descriptor;
	bool seen[64] = {false};
	uint8_t *data;
	size_t len;

	(void)state;
	assert_int_equal(result_encode(&f->res, SIZE_MAX, &data, &len), 0);
	for (size_t at = 0; at < len;) {
		uint64_t varint[2] = {0};
		for (int i = 0; i < 2; i++) { /* tag, then value or length */
			int shift = 0;
			do
				varint[i] |= (uint64_t)(data[at] & 0x7f) << shift;
			while (shift += 7, data[at++] & 0x80);
		}
		seen[varint[0] >> 3] = true;
		at += (varint[0] & 7) == 2 ? varint[1] : 0;
	}
	for (unsigned i = 0; i < type->n_fields; i++) {
		bool is_reserved = strcmp(type->fields[i].name, "body_ref") == 0;
		bool is_other = strcmp(type->fields[i].name, "raw_input") == 0;
		if (seen[type->fields[i].id] == (is_reserved || is_other))
			fail_msg("field %s", type->fields[i].name);
	}
	free(data);
	filled_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_response_header),
	    cmocka_unit_test(test_content_type),
	    cmocka_unit_test(test_judge),
	    cmocka_unit_test(test_every_field),
	    cmocka_unit_test(test_no_field_is_forgotten),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
