/* result_fixture - a result with every field filled, and what is read back of its bytes. Include after cmocka.h. */
#ifndef GATHERD_TEST_RESULT_FIXTURE_H
#define GATHERD_TEST_RESULT_FIXTURE_H

#include "result.h"

#include "gatherd/v1/result.pb-c.h"

#define B(text)                                                                                                        \
	{                                                                                                              \
		(const uint8_t *)(text), sizeof(text) - 1                                                              \
	}
#define DIGEST "0123456789abcdef0123456789abcdef"

typedef Gatherd__V1__FetchResult read_result;

struct filled {
	struct job job;
	struct record rec;
	struct response resp;
	struct attempt attempts[2];
	struct redirect redirects[2];
	struct attr attrs[2];
	struct result res;
};

static inline void set_text(struct buf *buf, const char *text)
{
	buf_clear(buf);
	assert_int_equal(buf_add_str(buf, text), 0);
}

static inline void fill_response(struct response *resp)
{
	response_init(resp, 4 * 1024 * 1024);
	set_text(&resp->headers,
		 "Content-Type: Text/HTML; charset=x\r\nETag: \"e\"\r\nLast-Modified: Mon\r\nX: 1\r\nx: 2\r\n");
	set_text(&resp->body, "the body");
	resp->status = 200;
	resp->http_version = 11;
	resp->headers_dropped = 3;
	resp->body_length = 8;
	resp->wire_length = 6;
	resp->declared_length = 7;
	resp->has_digest = true;
	memcpy(resp->digest, DIGEST, DIGEST_BYTES);
	strcpy(resp->remote_ip, "192.0.2.1");
	resp->remote_port = 443;
	resp->connect_us = 104;
	resp->tls_us = 105;
	resp->first_byte_us = 106;
	resp->total_us = 107;
	resp->tls_version = "TLSv1.3";
	resp->tls_cipher = "AES";
	resp->tls_not_after_ms = 108;
}

/* free with filled_free. */
static inline struct filled *filled_new(void)
{
	struct filled *f = xcalloc(1, sizeof(*f));

	fill_response(&f->resp);
	f->rec =
	    (struct record){.topic = "jobs", .partition = 5, .offset = 1234567890123, .timestamp_ms = 1700000000000};
	f->attrs[0] = (struct attr){"k", "v"};
	f->attrs[1] = (struct attr){"", "\xc3\xa9"};
	f->job = (struct job){.job_id = "id",
			      .url = "http://a/",
			      .method = "GET",
			      .body_mode = BODY_MODE_INLINE,
			      .replay_id = "rep",
			      .due_at_ms = 1600000000000,
			      .attrs = f->attrs,
			      .n_attrs = 2};
	f->attempts[0] = (struct attempt){OUTCOME_CONNECT, 0, 30, 40};
	f->attempts[1] = (struct attempt){OUTCOME_OK, 200, 50, 0};
	f->redirects[0] = (struct redirect){"http://a/", 301, B("/b\xff"), "192.0.2.2"};
	f->redirects[1] = (struct redirect){"http://a/b", 302, {NULL, 0}, NULL};
	f->res = (struct result){
	    .job = &f->job,
	    .rec = &f->rec,
	    .err = -ERR_HTTP_STATUS,
	    .outcome = OUTCOME_HTTP_ERROR,
	    .detail = "as it is",
	    .retryable = true,
	    .attempts = f->attempts,
	    .n_attempts = 2,
	    .redirects = f->redirects,
	    .n_redirects = 2,
	    .final_url = "http://a/final",
	    .resp = &f->resp,
	    .retry_after_ms = 120000,
	    .is_unchanged = true,
	    .dead_letter = DEAD_LETTER_SENT,
	    .queued_us = 101,
	    .politeness_us = 102,
	    .dns_us = 103,
	    .start_at_ms = 1700000000001,
	    .end_at_ms = 1700000000002,
	    .instance = "host-1",
	    .version = "0.1.0",
	};
	return f;
}

static inline void filled_free(struct filled *f)
{
	response_done(&f->resp);
	free(f);
}

/* Encodes and reads back with the generated code; every string of it must be UTF-8. Free with read_free. */
static inline read_result *encode_within(const struct result *res, size_t max_bytes, size_t *ret_len)
{
	uint8_t *data = NULL;
	size_t len = 0;

	assert_int_equal(result_encode(res, max_bytes, &data, &len), 0);
	assert_true(len <= max_bytes);
	read_result *read = gatherd__v1__fetch_result__unpack(NULL, len, data);
	assert_non_null(read);
	/* Nothing unknown, nothing written that proto3 leaves out. */
	assert_int_equal(read->base.n_unknown_fields, 0);
	assert_int_equal(gatherd__v1__fetch_result__get_packed_size(read), len);
	free(data);
	if (ret_len)
		*ret_len = len;
	return read;
}

static inline read_result *encode(const struct result *res)
{
	return encode_within(res, SIZE_MAX, NULL);
}

static inline void read_free(read_result *read)
{
	gatherd__v1__fetch_result__free_unpacked(read, NULL);
}

static inline void assert_data(ProtobufCBinaryData data, const char *text)
{
	assert_int_equal(data.len, strlen(text));
	if (data.len)
		assert_memory_equal(data.data, text, data.len);
}

#endif
