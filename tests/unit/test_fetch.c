/* fetch: answers, caps, broken and slow peers (fetch_world.h: real loop, real loopback sockets). */
#include "fetch_world.h"

/* ---- answers ---- */

static void gets_an_answer(void **state)
{
	static const uint8_t sha_of_hello[DIGEST_BYTES] = {
	    0x2c, 0xf2, 0x4d, 0xba, 0x5f, 0xb0, 0xa3, 0x0e, 0x26, 0xe8, 0x3b, 0x2a, 0xc5, 0xb9, 0xe2, 0x9e,
	    0x1b, 0x16, 0x1e, 0x5c, 0x1f, 0xa7, 0x42, 0x5e, 0x73, 0x04, 0x33, 0x62, 0x93, 0x8b, 0x98, 0x24};
	struct world *world = world_of(state);
	struct run run = plain(world, "/ok");
	struct response *resp = finish(&run);

	assert_err(resp, 0);
	assert_int_equal(resp->status, 200);
	assert_int_equal(resp->http_version, 11);
	assert_body(resp, "hello");
	assert_headers(resp, "Content-Length: 5\r\n");
	assert_int_equal(resp->body_length, 5);
	assert_int_equal(resp->wire_length, 5);
	assert_int_equal(resp->declared_length, 5);
	assert_int_equal(resp->truncated, TRUNCATED_NONE);
	assert_true(resp->has_digest);
	assert_memory_equal(resp->digest, sha_of_hello, DIGEST_BYTES);
	assert_string_equal(resp->remote_ip, "127.0.0.1");
	assert_int_equal(resp->remote_port, world->server.port);
	assert_true(resp->is_new_connection);
	assert_true(resp->connect_us > 0 && resp->first_byte_us > 0 && resp->total_us >= resp->first_byte_us);
	assert_int_equal(resp->tls_us, 0);
	drop(&run);
	assert_int_equal(fetch_bytes(world->fetch), 0);

	run.req.body_mode = BODY_MODE_HASH_ONLY;
	resp = finish(&run);
	assert_err(resp, 0);
	assert_int_equal(resp->body.len, 0);
	assert_int_equal(resp->body_length, 5);
	assert_memory_equal(resp->digest, sha_of_hello, DIGEST_BYTES);
	assert_false(resp->is_new_connection);
	assert_int_equal(resp->connect_us, 0);
	drop(&run);

	run.req.body_mode = BODY_MODE_NONE;
	resp = finish(&run);
	assert_int_equal(resp->body_length, 5);
	assert_false(resp->has_digest);
	drop(&run);
}

static void chunked_with_early_hints_folding_and_trailer(void **state)
{
	struct run run = plain(world_of(state), "/chunked");
	struct response *resp = finish(&run);

	assert_err(resp, 0);
	assert_body(resp, "abcdefg");
	assert_headers(resp,
		       "Transfer-Encoding: chunked\r\nX-Fold: a b\r\nTrailer: X-Last\r\nX-Last: z\r\nX-Too: y\r\n");
	assert_int_equal(resp->declared_length, -1);
	drop(&run);
}

static void gzip_is_decoded(void **state)
{
	struct run run = plain(world_of(state), "/gzip");
	struct response *resp = finish(&run);

	assert_err(resp, 0);
	assert_body(resp, "hello hello hello hello\n");
	assert_int_equal(resp->wire_length, 29);
	assert_int_equal(resp->body_length, 24);
	drop(&run);
	run = plain(world_of(state), "/badgzip");
	assert_err(finish(&run), -ERR_CONTENT_ENCODING);
	assert_int_equal(run.resp->body.len, 0);
	drop(&run);
}

static void methods(void **state)
{
	struct run run = plain(world_of(state), "/ok");
	struct response *resp;

	run.req.method = "HEAD";
	resp = finish(&run);
	assert_err(resp, 0);
	assert_headers(resp, "Content-Length: 5\r\nETag: \"e\"\r\n");
	assert_int_equal(resp->declared_length, 5);
	assert_int_equal(resp->body_length, 0);
	assert_false(resp->has_digest);
	drop(&run);

	static const struct {
		const char *method, *body, *head, *body_sent;
	} rows[] = {
	    {"POST", "a\0b", "Content-Length: 3\r\n", "\r\n\r\na"},
	    {"POST", NULL, "Content-Length: 0\r\n", "POST /echo HTTP/1.1"},
	    {"PUT", "a\0b", "Content-Length: 3\r\n", "PUT /echo HTTP/1.1"},
	    {"GET", "a\0b", "Content-Length: 3\r\n", "GET /echo HTTP/1.1"},
	    {"DELETE", NULL, "DELETE /echo HTTP/1.1", "Accept: */*"},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		run = plain(world_of(state), "/echo");
		run.req.method = rows[i].method;
		if (rows[i].body)
			run.req.body = (struct span){(const uint8_t *)rows[i].body, 3};
		resp = finish(&run);
		assert_err(resp, 0);
		assert_true(body_has(resp, rows[i].head));
		assert_true(body_has(resp, rows[i].body_sent));
		assert_false(body_has(resp, "Expect"));
		assert_false(body_has(resp, "Content-Type"));
		if (rows[i].body)
			assert_memory_equal(resp->body.data + resp->body.len - 3, "a\0b", 3);
		drop(&run);
	}
}

static void headers_are_sent_and_nothing_leaks_into_the_next_job(void **state)
{
	const struct header headers[] = {{"X-One", span_str("1")},
					 {"X-Empty", span_str("")},
					 {"User-Agent", span_str("mine")},
					 {"X-Space", span_str(" ")}};
	struct run run = plain(world_of(state), "/echo");
	struct response *resp;

	run.req.method = "POST";
	run.req.body = span_str("body");
	run.req.headers = headers;
	run.req.n_headers = ARRAY_LEN(headers);
	run.req.if_none_match = "\"tag\"";
	run.req.if_modified_since = "Sun, 06 Nov 1994 08:49:37 GMT";
	run.req.body_mode = BODY_MODE_INLINE;
	resp = finish(&run);
	assert_err(resp, 0);
	assert_true(body_has(resp, "\r\nX-One: 1\r\n"));
	assert_true(body_has(resp, "\r\nX-Empty:\r\n"));
	assert_true(body_has(resp, "\r\nX-Space:\r\n"));
	assert_true(body_has(resp, "\r\nUser-Agent: mine\r\n"));
	assert_false(body_has(resp, "test/1"));
	assert_true(body_has(resp, "\r\nIf-None-Match: \"tag\"\r\n"));
	assert_true(body_has(resp, "\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n"));
	drop(&run);

	assert_int_equal(world_of(state)->fetch->pool.len, 1);
	run = plain(world_of(state), "/echo");
	resp = finish(&run);
	assert_int_equal(world_of(state)->fetch->pool.len, 1);
	char *expected = arena_printf(
	    &world_of(state)->arena,
	    "GET /echo HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUser-Agent: test/1\r\nAccept: */*\r\nAccept-Encoding: ",
	    world_of(state)->server.port);
	assert_memory_equal(resp->body.data, expected, strlen(expected));
	assert_true(body_has(resp, "Accept-Encoding: deflate, gzip"));
	assert_memory_equal(resp->body.data + resp->body.len - 4, "\r\n\r\n", 4);
	assert_false(body_has(resp, "X-One"));
	drop(&run);
}

/* ---- caps ---- */

static void body_is_cut_at_its_maximum(void **state)
{
	struct run run = plain(world_of(state), "/big");
	struct response *resp;

	run.req.body_max_bytes = 70000;
	resp = finish(&run);
	assert_err(resp, 0);
	assert_int_equal(resp->truncated, TRUNCATED_LENGTH);
	assert_int_equal(resp->body.len, 70000);
	assert_int_equal(resp->body_length, 70000);
	assert_int_equal(resp->declared_length, 100000);
	assert_true(resp->has_digest);
	drop(&run);

	run.req.body_overflow_fails = true;
	resp = finish(&run);
	assert_err(resp, -ERR_BODY_TOO_LARGE);
	assert_int_equal(resp->status, 200);
	assert_int_equal(resp->body.len, 0);
	assert_int_equal(resp->truncated, TRUNCATED_NONE);
	drop(&run);

	run.req.body_max_bytes = 100000; /* exactly */
	resp = finish(&run);
	assert_err(resp, 0);
	assert_int_equal(resp->truncated, TRUNCATED_NONE);
	assert_int_equal(resp->body.len, 100000);
	drop(&run);
}

static size_t body_of(const char *path)
{
	return strstr(path, "small") ? 12000 + ZEROS - 2000 * CUT_BYTES : NOISE + ZEROS;
}

static void bombs_are_told_from_dense_bodies(void **state)
{
	static const struct {
		const char *path;
		size_t max;
		bool fails;
		int err;
		enum truncated truncated;
	} rows[] = {
	    /* over the cap, under it, with and without chunks: libcurl's count lags with them */
	    {"/bomb", 900 * 1024, false, -ERR_BODY_BOMB, TRUNCATED_NONE},
	    {"/bomb", 2 * ZEROS, false, -ERR_BODY_BOMB, TRUNCATED_NONE},
	    {"/bomb-chunked", 900 * 1024, false, -ERR_BODY_BOMB, TRUNCATED_NONE},
	    {"/bomb-chunked", 2 * ZEROS, false, -ERR_BODY_BOMB, TRUNCATED_NONE},
	    {"/bomb-small", 900 * 1024, false, -ERR_BODY_BOMB, TRUNCATED_NONE},
	    {"/bomb-small-chunked", 900 * 1024, false, -ERR_BODY_BOMB, TRUNCATED_NONE},
	    {"/bomb-small-chunked", 2 * ZEROS, true, -ERR_BODY_BOMB, TRUNCATED_NONE},
	    {"/dense-small-chunked", 900 * 1024, false, 0, TRUNCATED_LENGTH},
	    {"/dense-small-chunked", 2 * ZEROS, true, 0, TRUNCATED_NONE},
	    {"/dense", 900 * 1024, false, 0, TRUNCATED_LENGTH},
	    {"/dense", 1000, true, -ERR_BODY_TOO_LARGE, TRUNCATED_NONE},
	    {"/dense", 2 * ZEROS, false, 0, TRUNCATED_NONE},
	    {"/dense-chunked", 900 * 1024, false, 0, TRUNCATED_LENGTH},
	    {"/dense-chunked", 900 * 1024, true, -ERR_BODY_TOO_LARGE, TRUNCATED_NONE},
	    {"/dense-chunked", 2 * ZEROS, false, 0, TRUNCATED_NONE},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct run run = plain(world_of(state), rows[i].path);
		run.req.body_max_bytes = rows[i].max;
		run.req.body_overflow_fails = rows[i].fails;
		struct response *resp = finish(&run);
		assert_err(resp, rows[i].err);
		assert_int_equal(resp->truncated, rows[i].truncated);
		if (!rows[i].err)
			assert_int_equal(resp->body.len, MIN(rows[i].max, body_of(rows[i].path)));
		drop(&run);
	}
	assert_int_equal(fetch_bytes(world_of(state)->fetch), 0);
}

static void headers_have_caps(void **state)
{
	static const char *const paths[] = {"/lines", "/bytes", "/line", "/hints"};

	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		struct run run = plain(world_of(state), paths[i]);
		assert_err(finish(&run), -ERR_HEADERS_TOO_LARGE);
		assert_true(run.resp->headers.len <= RESPONSE_HEADER_BYTES_MAX);
		drop(&run);
	}
}

/* ---- broken and slow peers ---- */

static void broken_answers(void **state)
{
	static const struct {
		const char *path;
		int err, status;
		enum truncated truncated;
	} rows[] = {
	    {"/empty", -ERR_DISCONNECTED, 0, TRUNCATED_NONE},
	    {"/cut", -ERR_DISCONNECTED, 200, TRUNCATED_DISCONNECT},
	    {"/junk", -ERR_HTTP_SYNTAX, 0, TRUNCATED_NONE},
	    {"/badchunk", -ERR_HTTP_SYNTAX, 200, TRUNCATED_NONE},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct run run = plain(world_of(state), rows[i].path);
		struct response *resp = finish(&run);
		assert_err(resp, rows[i].err);
		assert_int_equal(resp->status, rows[i].status);
		assert_int_equal(resp->truncated, rows[i].truncated);
		if (rows[i].truncated == TRUNCATED_DISCONNECT)
			assert_body(resp, "half");
		assert_true(resp->detail[0]);
		drop(&run);
	}
}

static void connect_refused(void **state)
{
	struct world *world = world_of(state);
	uint16_t port = 0;
	int fd = listen_at(INADDR_LOOPBACK, &port, 1);

	close(fd);
	struct run run = request(world, arena_printf(&world->arena, "http://127.0.0.1:%u/", port));
	struct response *resp = finish(&run);
	assert_err(resp, -ERR_CONNECT_REFUSED);
	assert_int_equal(resp->status, 0);
	assert_string_equal(resp->remote_ip, "127.0.0.1");
	assert_true(resp->total_us > 0);
	assert_false(resp->is_new_connection);
	drop(&run);
}

static void connect_timeout(void **state)
{
	struct world *world = world_of(state);
	struct hole hole;

	hole_open(&hole, INADDR_LOOPBACK, 0);
	struct run run = request(world, arena_printf(&world->arena, "http://127.0.0.1:%u/", hole.port));
	run.req.connect_ms = 100;
	assert_err(finish(&run), -ERR_CONNECT_TIMEOUT);
	assert_true(run.resp->total_us >= 100000);
	drop(&run);
	run.req.connect_ms = 20000;
	run.req.total_ms = 50;
	assert_err(finish(&run), -ERR_FETCH_TIMEOUT);
	assert_string_equal(run.resp->detail, "time was up while connecting");
	drop(&run);
	hole_close(&hole);
}

static void total_and_stall_time(void **state)
{
	struct run run = plain(world_of(state), "/silent");
	struct response *resp;

	run.req.total_ms = 60;
	run.req.stall_ms = 20; /* counts from the first byte only */
	resp = finish(&run);
	assert_err(resp, -ERR_FETCH_TIMEOUT);
	assert_true(resp->total_us >= 60000);
	assert_int_equal(resp->truncated, TRUNCATED_NONE);
	drop(&run);

	run = plain(world_of(state), "/stall");
	start(&run);
	while (run.transfer->resp->body.len < 4)
		loop_turn(run.world->loop, 1000);
	run.transfer->end_us = clock_now_us();
	fetch_pause(run.transfer, true); /* so that its time is looked at again */
	fetch_pause(run.transfer, false);
	wait_for(&run);
	resp = run.resp;
	assert_err(resp, -ERR_FETCH_TIMEOUT);
	assert_int_equal(resp->truncated, TRUNCATED_TIME);
	assert_body(resp, "half");
	drop(&run);

	run = plain(world_of(state), "/stall");
	run.req.stall_ms = 40;
	resp = finish(&run);
	assert_err(resp, -ERR_FETCH_STALLED);
	assert_int_equal(resp->status, 200);
	assert_true(resp->total_us >= 40000 && resp->total_us < 20 * US_PER_S);
	assert_int_equal(resp->truncated, TRUNCATED_TIME);
	assert_body(resp, "half");
	drop(&run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(gets_an_answer),
	    TEST(chunked_with_early_hints_folding_and_trailer),
	    TEST(gzip_is_decoded),
	    TEST(methods),
	    TEST(headers_are_sent_and_nothing_leaks_into_the_next_job),
	    TEST(body_is_cut_at_its_maximum),
	    TEST(bombs_are_told_from_dense_bodies),
	    TEST(headers_have_caps),
	    TEST(broken_answers),
	    TEST(connect_refused),
	    TEST(connect_timeout),
	    TEST(total_and_stall_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
