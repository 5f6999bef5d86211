/* origin - the sandbox's web server: pages that are slow, large, broken or elsewhere, on purpose.
 *
 * One row per path; a handler gets what follows it. An answer that waits is a pending entry with a timer; its request
 * is libevent's and stays valid until it is answered, because reading is off meanwhile. */
#include "ctl.h"
#include "list.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>

#define DELAY_MAX_MS 120000
#define BYTES_MAX (64 * 1024 * 1024)
#define SLOW_STEP_MS 200
#define IDLE_S 180

struct origin {
	struct event_base *base;
	struct evhttp *http;
	uint16_t port;
	struct list pending;
	int64_t flaky; /* requests of /flaky so far */
};

/* An answer, or the rest of one, that is due later. */
struct pending {
	struct list_node node;
	struct origin *origin;
	struct evhttp_request *req;
	struct event *timer;
	void (*fn)(struct pending *pending);
	int64_t left; /* /slow: lines to come */
};

typedef void (*handler_fn)(struct origin *origin, struct evhttp_request *req, const char *rest);

static void pending_free(struct pending *pending)
{
	list_remove(&pending->node);
	event_free(pending->timer);
	free(pending);
}

static void on_timer(evutil_socket_t fd, short events, void *ctx)
{
	struct pending *pending = ctx;

	pending->fn(pending);
}

static void pending_wait(struct pending *pending, int64_t ms)
{
	struct timeval tv = {ms / 1000, (ms % 1000) * 1000};

	evtimer_add(pending->timer, &tv);
}

static struct pending *later(struct origin *origin, struct evhttp_request *req, int64_t ms,
			     void (*fn)(struct pending *pending))
{
	struct pending *pending = xcalloc(1, sizeof(*pending));

	pending->origin = origin;
	pending->req = req;
	pending->fn = fn;
	pending->timer = evtimer_new(origin->base, on_timer, pending);
	list_push(&origin->pending, &pending->node);
	pending_wait(pending, ms);
	return pending;
}

/* A number at the front of a path's rest, within limits. */
static int64_t number_of(const char *rest, int64_t preset, int64_t max)
{
	char *end;
	long long value = strtoll(rest, &end, 10);

	return end == rest || value < 0 ? preset : MIN(value, max);
}

static void set_header(struct evhttp_request *req, const char *name, const char *value)
{
	evhttp_add_header(evhttp_request_get_output_headers(req), name, value);
}

static void reply(struct evhttp_request *req, int status, const char *type, const char *body)
{
	struct evbuffer *out = evhttp_request_get_output_buffer(req);

	set_header(req, "Content-Type", type);
	evbuffer_add(out, body, strlen(body));
	/* NULL = the status' own phrase. */
	evhttp_send_reply(req, status, NULL, NULL);
}

/* --- paths --- */

static void on_delayed(struct pending *pending)
{
	struct evhttp_request *req = pending->req;

	pending_free(pending);
	reply(req, 200, "text/plain", "that took a while\n");
}

static void serve_delay(struct origin *origin, struct evhttp_request *req, const char *rest)
{
	later(origin, req, number_of(rest, 1000, DELAY_MAX_MS), on_delayed);
}

static void serve_status(struct origin *origin, struct evhttp_request *req, const char *rest)
{
	int status = (int)number_of(rest, 200, 999);
	char *body = xasprintf("status %d\n", status);

	if (status == 429 || status == 503)
		set_header(req, "Retry-After", "1");
	/* 1xx would be no final answer. */
	reply(req, MAX(status, 200), "text/plain", status == 204 || status == 304 ? "" : body);
	free(body);
}

static void serve_bytes(struct origin *origin, struct evhttp_request *req, const char *rest)
{
	struct evbuffer *out = evhttp_request_get_output_buffer(req);
	int64_t left = number_of(rest, 1024, BYTES_MAX);
	char block[4096];

	for (size_t i = 0; i < sizeof(block); i++)
		block[i] = (char)('a' + i % 26);
	set_header(req, "Content-Type", "application/octet-stream");
	for (; left > 0; left -= (int64_t)sizeof(block))
		evbuffer_add(out, block, (size_t)MIN(left, (int64_t)sizeof(block)));
	evhttp_send_reply(req, 200, NULL, NULL);
}

static void serve_json(struct origin *origin, struct evhttp_request *req, const char *rest)
{
	reply(req, 200, "application/json",
	      "{\"shop\":\"corner\",\"price\":1299,\"currency\":\"EUR\",\"in_stock\":true}\n");
}

static void serve_redirect(struct origin *origin, struct evhttp_request *req, const char *rest)
{
	int64_t left = number_of(rest, 1, 1000);
	char *to = left > 1 ? xasprintf("/redirect/%lld", (long long)left - 1) : xstrdup("/");

	set_header(req, "Location", to);
	reply(req, 302, "text/plain", "elsewhere\n");
	free(to);
}

static void serve_loop(struct origin *origin, struct evhttp_request *req, const char *rest)
{
	set_header(req, "Location", "/loop");
	reply(req, 302, "text/plain", "round and round\n");
}

static void send_part(struct evhttp_request *req, const char *text)
{
	struct evbuffer *part = evbuffer_new();

	evbuffer_add(part, text, strlen(text));
	evhttp_send_reply_chunk(req, part);
	evbuffer_free(part);
}

static void on_slow_step(struct pending *pending)
{
	struct evhttp_request *req = pending->req;

	if (pending->left-- > 0 && evhttp_request_get_connection(req)) {
		send_part(req, "one more line\n");
		pending_wait(pending, SLOW_STEP_MS);
		return;
	}
	pending_free(pending);
	evhttp_send_reply_end(req);
}

static void serve_slow(struct origin *origin, struct evhttp_request *req, const char *rest)
{
	set_header(req, "Content-Type", "text/plain");
	evhttp_send_reply_start(req, 200, "OK");
	later(origin, req, SLOW_STEP_MS, on_slow_step)->left = number_of(rest, 5, DELAY_MAX_MS / SLOW_STEP_MS);
}

static void on_cut(struct pending *pending)
{
	struct evhttp_connection *conn = evhttp_request_get_connection(pending->req);

	/* Frees the request too. Where the peer was faster there is no connection, and the end frees it. */
	if (conn)
		evhttp_connection_free(conn);
	else
		evhttp_send_reply_end(pending->req);
	pending_free(pending);
}

/* Half of what was promised, then nothing until cut_ms. */
static void serve_half(struct origin *origin, struct evhttp_request *req, int64_t cut_ms)
{
	set_header(req, "Content-Type", "text/plain");
	set_header(req, "Content-Length", "100");
	evhttp_send_reply_start(req, 200, "OK");
	send_part(req, "the first half of a promise of 100 bytes, and \n");
	later(origin, req, cut_ms, on_cut);
}

static void serve_cut(struct origin *origin, struct evhttp_request *req, const char *rest)
{
	serve_half(origin, req, 50);
}

static void serve_stall(struct origin *origin, struct evhttp_request *req, const char *rest)
{
	serve_half(origin, req, DELAY_MAX_MS);
}

static void serve_flaky(struct origin *origin, struct evhttp_request *req, const char *rest)
{
	bool is_good = ++origin->flaky % 2 == 0;

	reply(req, is_good ? 200 : 503, "text/plain", is_good ? "this time it worked\n" : "try again\n");
}

static void serve_etag(struct origin *origin, struct evhttp_request *req, const char *rest)
{
	const char *known = evhttp_find_header(evhttp_request_get_input_headers(req), "If-None-Match");
	bool is_known = known && strcmp(known, "\"v1\"") == 0;

	set_header(req, "ETag", "\"v1\"");
	reply(req, is_known ? 304 : 200, "text/plain", is_known ? "" : "version one\n");
}

static void serve_headers(struct origin *origin, struct evhttp_request *req, const char *rest)
{
	struct evbuffer *out = evhttp_request_get_output_buffer(req);
	struct evkeyval *header;

	set_header(req, "Content-Type", "text/plain");
	for (header = evhttp_request_get_input_headers(req)->tqh_first; header; header = header->next.tqe_next)
		evbuffer_add_printf(out, "%s: %s\n", header->key, header->value);
	evhttp_send_reply(req, 200, NULL, NULL);
}

static void serve_home(struct origin *origin, struct evhttp_request *req, const char *rest);

/* A path that ends in '/' matches what begins so; the others match whole. */
static const struct path {
	const char *path, *example, *help;
	handler_fn fn;
} paths[] = {
    {"/", "/", "this page", serve_home},
    {"/delay/", "/delay/500", "answers after so many milliseconds (at most 120000)", serve_delay},
    {"/status/", "/status/404", "that status; 429 and 503 with Retry-After: 1", serve_status},
    {"/bytes/", "/bytes/10000", "so many bytes (at most 64 MiB)", serve_bytes},
    {"/json", "/json", "a small JSON document", serve_json},
    {"/redirect/", "/redirect/3", "so many redirects, then this page", serve_redirect},
    {"/loop", "/loop", "a redirect to itself", serve_loop},
    {"/slow/", "/slow/10", "so many lines, one each 200 ms", serve_slow},
    {"/stall", "/stall", "half an answer, then silence", serve_stall},
    {"/cut", "/cut", "half an answer, then the connection is closed", serve_cut},
    {"/flaky", "/flaky", "every second request gets a 503", serve_flaky},
    {"/etag", "/etag", "an ETag, and 304 for If-None-Match: \"v1\"", serve_etag},
    {"/headers", "/headers", "the request's headers", serve_headers},
};

static void serve_home(struct origin *origin, struct evhttp_request *req, const char *rest)
{
	struct evbuffer *out = evhttp_request_get_output_buffer(req);

	set_header(req, "Content-Type", "text/html; charset=utf-8");
	evbuffer_add_printf(
	    out, "<!doctype html><html lang=\"en\"><title>gatherd sandbox</title><h1>gatherd sandbox</h1><ul>\n");
	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		evbuffer_add_printf(out, "<li><a href=\"%s\">%s</a>: %s\n", paths[i].example, paths[i].example,
				    paths[i].help);
	evbuffer_add_printf(out, "</ul></html>\n");
	evhttp_send_reply(req, 200, NULL, NULL);
}

static void on_request(struct evhttp_request *req, void *ctx)
{
	const char *path = evhttp_uri_get_path(evhttp_request_get_evhttp_uri(req));

	for (size_t i = 0; path && i < ARRAY_LEN(paths); i++) {
		size_t len = strlen(paths[i].path);
		bool is_prefix = len > 1 && paths[i].path[len - 1] == '/';

		if (is_prefix ? strncmp(path, paths[i].path, len) == 0 : strcmp(path, paths[i].path) == 0) {
			paths[i].fn(ctx, req, path + len);
			return;
		}
	}
	reply(req, 404, "text/plain", "no such page; / lists them\n");
}

/* --- start and end --- */

static bool listen_on(struct origin *origin)
{
	struct evhttp_bound_socket *sock = evhttp_bind_socket_with_handle(origin->http, "127.0.0.1", 0);
	struct sockaddr_in addr;
	socklen_t len = sizeof(addr);

	if (!sock || getsockname(evhttp_bound_socket_get_fd(sock), (struct sockaddr *)&addr, &len))
		return false;
	origin->port = ntohs(addr.sin_port);
	return true;
}

struct origin *origin_new(struct event_base *base)
{
	struct origin *origin = xcalloc(1, sizeof(*origin));

	origin->base = base;
	list_init(&origin->pending);
	origin->http = evhttp_new(base);
	if (!origin->http || !listen_on(origin)) {
		int saved = errno;

		origin_free(origin);
		errno = saved;
		return NULL;
	}
	evhttp_set_timeout(origin->http, IDLE_S);
	evhttp_set_gencb(origin->http, on_request, origin);
	return origin;
}

void origin_free(struct origin *origin)
{
	if (!origin)
		return;
	LIST_EACH (&origin->pending, pending, struct pending, node) {
		/* Of a request whose peer went away nobody else knows. */
		if (!evhttp_request_get_connection(pending->req))
			evhttp_request_free(pending->req);
		pending_free(pending);
	}
	if (origin->http)
		evhttp_free(origin->http);
	free(origin);
}

uint16_t origin_port(const struct origin *origin)
{
	return origin->port;
}
