/* The metrics server against plain sockets. The client is a thread, so that the loop serves as it does in life. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "clock.h"
#include "err.h"
#include "httpd.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define LONG_US (30 * US_PER_S)
#define BIG (3 * 1000 * 1000)
#define CONNECTIONS_MAX 64

struct fixture {
	struct loop *loop;
	struct httpd *httpd;
	char last_path[64];
};

/* One exchange: what to send, and all that came until the server closed. */
struct exchange {
	struct loop *loop;
	int fd;
	const char *request;
	size_t request_len;
	char *answer;
	size_t len;
	bool is_over;
};

static int on_page(void *ctx, const char *path, struct buf *out, const char **ret_type)
{
	struct fixture *fix = ctx;

	snprintf(fix->last_path, sizeof(fix->last_path), "%s", path);
	if (!strcmp(path, "/metrics")) {
		*ret_type = "text/plain; version=0.0.4";
		assert_int_equal(buf_printf(out, "up %d\n", 1), 0);
		return 200;
	}
	if (!strcmp(path, "/big")) {
		uint8_t *room = buf_reserve(out, BIG);
		assert_non_null(room);
		memset(room, 'b', BIG);
		out->len += BIG;
		return 200;
	}
	if (!strcmp(path, "/sick")) {
		assert_int_equal(buf_add_str(out, "no_broker\n"), 0);
		return 503;
	}
	return 404;
}

static struct httpd *serve(struct fixture *fix, const char *listen, bool fall_back)
{
	struct httpd *httpd = NULL;
	char *error = NULL;

	if (httpd_new(fix->loop, NULL, listen, fall_back, on_page, fix, &httpd, &error) < 0)
		fail_msg("%s", error);
	return httpd;
}

static int n_warnings;

/* libevent warns when an event outlives its descriptor, for example. */
static void on_libevent_log(int severity, const char *text)
{
	print_message("libevent: %s\n", text);
	n_warnings++;
}

static int setup(void **state)
{
	struct fixture *fix = xcalloc(1, sizeof(*fix));

	event_set_log_callback(on_libevent_log);
	fix->loop = loop_new(NULL, NULL);
	fix->httpd = serve(fix, "127.0.0.1:0", false);
	*state = fix;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fix = *state;

	httpd_free(fix->httpd);
	loop_free(fix->loop);
	free(fix);
	assert_int_equal(n_warnings, 0);
	return 0;
}

static int connect_to(uint16_t port)
{
	struct sockaddr_in addr = {
	    .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static void on_over(void *ctx)
{
	struct exchange *ex = ctx;

	ex->is_over = true;
}

static void *client(void *ctx)
{
	struct exchange *ex = ctx;
	size_t cap = BIG * 2;
	ssize_t n;

	ex->answer = xmalloc(cap + 1);
	/* The server may close before it has read all: what it said counts, not our EPIPE. */
	if (send(ex->fd, ex->request, ex->request_len, MSG_NOSIGNAL) < 0)
		ex->len = 0;
	while ((n = recv(ex->fd, ex->answer + ex->len, cap - ex->len, 0)) > 0)
		ex->len += (size_t)n;
	ex->answer[ex->len] = '\0';
	loop_post(ex->loop, on_over, ex);
	return NULL;
}

static char *ask_bytes(struct fixture *fix, const char *request, size_t len)
{
	struct exchange ex = {.loop = fix->loop, .request = request, .request_len = len};
	pthread_t thread;

	ex.fd = connect_to(httpd_port(fix->httpd));
	assert_int_equal(pthread_create(&thread, NULL, client, &ex), 0);
	while (!ex.is_over)
		loop_turn(fix->loop, LONG_US);
	pthread_join(thread, NULL);
	close(ex.fd);
	return ex.answer;
}

static char *ask(struct fixture *fix, const char *request)
{
	return ask_bytes(fix, request, strlen(request));
}

static void assert_has(const char *answer, const char *part)
{
	if (!strcasestr(answer, part))
		fail_msg("no \"%s\" in: %.600s", part, answer);
}

static void assert_status(const char *answer, int status)
{
	char line[32];

	snprintf(line, sizeof(line), "HTTP/1.1 %d ", status);
	if (strncmp(answer, line, strlen(line)) != 0)
		fail_msg("not %s: %.200s", line, answer);
}

/* What may be asked, and what comes back. */
static void answers_by_method_and_path(void **state)
{
	static const struct {
		const char *request;
		int status;
		const char *part, *end;
	} rows[] = {
	    {"GET /metrics HTTP/1.1\r\n", 200, "Content-Type: text/plain; version=0.0.4\r\n", "\r\n\r\nup 1\n"},
	    {"GET /metrics?x=1#y HTTP/1.1\r\n", 200, "Content-Length: 5\r\n", "\r\n\r\nup 1\n"},
	    {"GET http://any.example/metrics HTTP/1.1\r\n", 200, "Cache-Control: no-store", "\r\n\r\nup 1\n"},
	    {"HEAD /metrics HTTP/1.1\r\n", 200, "Content-Length: 5\r\n", "\r\n\r\n"},
	    {"GET /sick HTTP/1.1\r\n", 503, "Content-Type: text/plain; charset=utf-8\r\n", "\r\n\r\nno_broker\n"},
	    {"GET /none HTTP/1.1\r\n", 404, "Content-Length: 4\r\n", "\r\n\r\n404\n"},
	    {"POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n", 405, "Allow: GET, HEAD\r\n", "\r\n\r\n405\n"},
	    {"DELETE /metrics HTTP/1.1\r\n", 405, "Allow: GET, HEAD\r\n", "\r\n\r\n405\n"},
	    {"OPTIONS /metrics HTTP/1.1\r\n", 405, "Allow: GET, HEAD\r\n", "\r\n\r\n405\n"},
	    {"FETCH /metrics HTTP/1.1\r\n", 501, "", ""},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char *request = xasprintf("%sHost: x\r\nConnection: close\r\n\r\n", rows[i].request);
		char *answer = ask(*state, request);
		size_t len = strlen(answer), end_len = strlen(rows[i].end);
		assert_status(answer, rows[i].status);
		assert_has(answer, rows[i].part);
		assert_true(len >= end_len);
		assert_string_equal(answer + len - end_len, rows[i].end);
		free(request);
		free(answer);
	}
}

static void the_path_comes_without_its_query(void **state)
{
	struct fixture *fix = *state;

	free(ask(fix, "GET /a/b?c=d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
	assert_string_equal(fix->last_path, "/a/b");
	free(ask(fix, "GET http://x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
	assert_string_equal(fix->last_path, "/");
}

static void a_connection_serves_several_requests(void **state)
{
	char *answer = ask(*state, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
				   "GET /sick HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");

	assert_has(answer, "up 1\n");
	assert_has(answer, "no_broker\n");
	free(answer);
}

static void a_big_answer_comes_whole(void **state)
{
	char *answer = ask(*state, "GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
	char *body = strstr(answer, "\r\n\r\n");

	assert_non_null(body);
	assert_int_equal(strlen(body + 4), BIG);
	assert_int_equal(strspn(body + 4, "b"), BIG);
	free(answer);
}

static void too_large_requests_are_closed(void **state)
{
	char *head = xmalloc(20001), *body = xmalloc(5001);

	memset(head, 'h', 20000);
	head[20000] = '\0';
	memset(body, 'b', 5000);
	body[5000] = '\0';
	char *with_head = xasprintf("GET /metrics HTTP/1.1\r\nHost: x\r\nLong: %s\r\n\r\n", head);
	char *with_body = xasprintf("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n%s", body);
	char *answer = ask(*state, with_head); /* it comes back at all: closed, although we did not ask for that */
	assert_null(strstr(answer, "up 1"));
	free(answer);
	answer = ask(*state, with_body);
	assert_null(strstr(answer, "HTTP/1.1 405"));
	free(answer);
	free(head);
	free(body);
	free(with_head);
	free(with_body);
}

static void garbage_is_refused(void **state)
{
	static const char *const rows[] = {"\r\n\r\n\r\n", "GET\r\n\r\n", "GET /metrics HTTP/9.9.9\r\n\r\n",
					   "GET /metrics HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
					   "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n"};
	static const char good[] = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct fixture *fix = *state;
		int fd = connect_to(httpd_port(fix->httpd));
		assert_true(send(fd, rows[i], strlen(rows[i]), MSG_NOSIGNAL) > 0);
		loop_turn(fix->loop, 20 * US_PER_MS);
		close(fd);
		char *answer = ask(fix, good); /* and the next one is served */
		assert_has(answer, "up 1");
		free(answer);
	}
}

static bool is_readable(int fd)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

	return poll(&poll_fd, 1, 0) == 1;
}

static void connections_over_the_cap_wait(void **state)
{
	static const char request[] = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
	struct fixture *fix = *state;
	int fds[CONNECTIONS_MAX + 1];
	char answer[512] = "";

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i <= CONNECTIONS_MAX; i++)
			fds[i] = connect_to(httpd_port(fix->httpd));
		assert_int_equal(send(fds[CONNECTIONS_MAX], request, strlen(request), 0), strlen(request));
		for (int i = 0; i < 20; i++)
			loop_turn(fix->loop, 10 * US_PER_MS);
		assert_false(is_readable(fds[CONNECTIONS_MAX]));

		assert_int_equal(send(fds[3], request, strlen(request), 0), strlen(request));
		while (!is_readable(fds[3])) /* those within are served */
			loop_turn(fix->loop, LONG_US);
		close(fds[7]);
		while (!is_readable(fds[CONNECTIONS_MAX])) /* one ended: the next may come */
			loop_turn(fix->loop, LONG_US);
		assert_true(recv(fds[CONNECTIONS_MAX], answer, sizeof(answer) - 1, 0) > 0);
		assert_has(answer, "up 1");
		for (int i = 0; i <= CONNECTIONS_MAX; i++)
			if (i != 7)
				close(fds[i]);
	}
}

static int count_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void many_short_connections_leave_nothing_behind(void **state)
{
	struct fixture *fix = *state;
	int before = count_descriptors();

	for (int i = 0; i < 300; i++) {
		char *answer = ask(fix, "GET /metrics HTTP/1.0\r\n\r\n");
		assert_has(answer, "up 1");
		free(answer);
	}
	while (count_descriptors() > before)
		loop_turn(fix->loop, LONG_US);
}

static void a_busy_port_is_an_error_or_falls_back(void **state)
{
	struct fixture *fix = *state;
	char *listen = xasprintf("127.0.0.1:%u", httpd_port(fix->httpd));
	struct httpd *other = NULL;
	char *error = NULL;

	assert_int_equal(httpd_new(fix->loop, NULL, listen, false, on_page, fix, &other, &error), -ERR_SYSTEM);
	assert_null(other);
	assert_non_null(strstr(error, listen));
	assert_non_null(strstr(error, "in use"));
	free(error);
	other = serve(fix, listen, true);
	assert_int_not_equal(httpd_port(other), httpd_port(fix->httpd));
	assert_int_not_equal(httpd_port(other), 0);
	httpd_free(other);
	free(listen);
}

static void listen_takes_addresses_and_refuses_the_rest(void **state)
{
	static const char *const bad[] = {
	    "",	      "127.0.0.1", "127.0.0.1:",  "127.0.0.1:x",   "127.0.0.1:65536", "127.0.0.1:-1",
	    "[::1:0", "::1",	   "300.0.0.1:0", "example.com:0", "127.0.0.1:0x10",  "127.0.0.1:1 "};
	static const char *const good[] = {":0", "localhost:0", "0.0.0.0:0"};
	struct fixture *fix = *state;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct httpd *httpd = NULL;
		char *error = NULL;
		int err = httpd_new(fix->loop, NULL, bad[i], true, on_page, fix, &httpd, &error);
		if (err != -ERR_INVALID)
			fail_msg("\"%s\" gave %d", bad[i], err);
		assert_non_null(strstr(error, "http.listen"));
		free(error);
	}
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		struct httpd *before = fix->httpd;
		fix->httpd = serve(fix, good[i], false);
		char *answer = ask(fix, "GET /metrics HTTP/1.0\r\n\r\n");
		assert_has(answer, "up 1");
		free(answer);
		httpd_free(fix->httpd);
		fix->httpd = before;
	}
}

static void free_closes_open_connections(void **state)
{
	static const char request[] = "GET /big HTTP/1.1\r\nHost: x\r\n\r\n";
	struct fixture *fix = *state;
	int idle = connect_to(httpd_port(fix->httpd)), busy = connect_to(httpd_port(fix->httpd));
	char bytes[4096];
	ssize_t n;

	assert_int_equal(send(busy, request, strlen(request), 0), strlen(request));
	while (!is_readable(busy))
		loop_turn(fix->loop, LONG_US);
	httpd_free(fix->httpd); /* in the middle of the answer */
	fix->httpd = NULL;
	while ((n = recv(busy, bytes, sizeof(bytes), 0)) > 0)
		;
	assert_true(n == 0 || errno == ECONNRESET);
	assert_true(recv(idle, bytes, sizeof(bytes), 0) <= 0);
	close(busy);
	close(idle);
	loop_turn(fix->loop, 1000);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(answers_by_method_and_path),
	    TEST(the_path_comes_without_its_query),
	    TEST(a_connection_serves_several_requests),
	    TEST(a_big_answer_comes_whole),
	    TEST(too_large_requests_are_closed),
	    TEST(garbage_is_refused),
	    TEST(connections_over_the_cap_wait),
	    TEST(many_short_connections_leave_nothing_behind),
	    TEST(a_busy_port_is_an_error_or_falls_back),
	    TEST(listen_takes_addresses_and_refuses_the_rest),
	    TEST(free_closes_open_connections),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
