#include "httpd.h"
#include "err.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

#define CONNECTIONS_MAX 64
#define HEADERS_MAX (16 * 1024)
#define REQUEST_BODY_MAX 4096
#define ANSWER_MAX (16 * 1024 * 1024)
#define IDLE_S 30
#define SWEEP_MS 100

struct httpd {
	struct event_base *base;
	struct evhttp *http;
	struct evconnlistener *listener;
	uint16_t port;
	httpd_fn fn;
	void *ctx;

	/* evhttp 2.1 neither limits its connections nor says when one ends. So we make their bufferevents, keep a
	 * reference, and know the ended ones by their callbacks, which bufferevent_free clears. CLOSE_ON_FREE, so that
	 * the descriptor lives until our reference goes: else it could be another's while the old events still name it.
	 * At the limit the listener rests, and further clients wait in the kernel's bounded queue. */
	struct bufferevent *connections[CONNECTIONS_MAX];
	size_t n_connections;
	struct event *sweep_timer; /* set while there are connections */
};

union any_address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* ---- requests ---- */

static void free_answer(const void *data, size_t len, void *ctx)
{
	free(ctx);
}

/* HEAD carries the same headers as GET, its length too; evhttp keeps the body back. */
static void reply(struct evhttp_request *req, int status, struct buf *body, const char *type)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(req);
	bool is_head = evhttp_request_get_command(req) == EVHTTP_REQ_HEAD;
	char length[32];
	size_t len;

	snprintf(length, sizeof(length), "%zu", body->len);
	evhttp_add_header(headers, "Content-Type", type);
	evhttp_add_header(headers, "Content-Length", length);
	evhttp_add_header(headers, "Cache-Control", "no-store");
	evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");

	uint8_t *data = buf_take(body, &len);
	struct evbuffer *out = evhttp_request_get_output_buffer(req);
	if (is_head || !data || evbuffer_add_reference(out, data, len, free_answer, data) < 0)
		free(data);
	evhttp_send_reply(req, status, NULL, NULL);
}

static void on_request(struct evhttp_request *req, void *ctx)
{
	struct httpd *httpd = ctx;
	enum evhttp_cmd_type method = evhttp_request_get_command(req);
	const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(req);
	const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
	const char *type = "text/plain; charset=utf-8";
	struct buf body;
	int status = 405;

	buf_init(&body, ANSWER_MAX);
	if (method == EVHTTP_REQ_GET || method == EVHTTP_REQ_HEAD)
		status = httpd->fn(httpd->ctx, path && *path ? path : "/", &body, &type);
	else
		evhttp_add_header(evhttp_request_get_output_headers(req), "Allow", "GET, HEAD");
	if (!body.len && status >= 400)
		(void)!buf_printf(&body, "%d\n", status);
	reply(req, status, &body, type);
	buf_done(&body);
}

/* ---- connections ---- */

static bool has_ended(struct bufferevent *bev)
{
	bufferevent_event_cb on_event;

	bufferevent_getcb(bev, NULL, NULL, &on_event, NULL);
	return !on_event;
}

static void sweep(struct httpd *httpd)
{
	size_t n = 0;

	for (size_t i = 0; i < httpd->n_connections; i++) {
		struct bufferevent *bev = httpd->connections[i];
		if (has_ended(bev))
			bufferevent_decref(bev);
		else
			httpd->connections[n++] = bev;
	}
	httpd->n_connections = n;
}

static void sweep_later(struct httpd *httpd)
{
	struct timeval period = {0, SWEEP_MS * 1000};

	event_add(httpd->sweep_timer, &period);
}

static void on_sweep_timer(evutil_socket_t fd, short what, void *ctx)
{
	struct httpd *httpd = ctx;

	sweep(httpd);
	if (httpd->n_connections < CONNECTIONS_MAX)
		evconnlistener_enable(httpd->listener);
	if (httpd->n_connections > 0)
		sweep_later(httpd);
}

/* evhttp asks for the bufferevent of a connection that it has just accepted. */
static struct bufferevent *on_connection(struct event_base *base, void *ctx)
{
	struct httpd *httpd = ctx;
	struct bufferevent *bev = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);

	if (!bev)
		abort();
	assert(httpd->n_connections < CONNECTIONS_MAX);
	bufferevent_incref(bev);
	httpd->connections[httpd->n_connections++] = bev;
	if (httpd->n_connections == CONNECTIONS_MAX)
		evconnlistener_disable(httpd->listener);
	if (httpd->n_connections == 1)
		sweep_later(httpd);
	return bev;
}

/* ---- listening ---- */

/* "127.0.0.1:9464", "[::1]:0", "localhost:9464", ":9464"; no lookups, those could block. */
static int parse_listen(const char *listen, union any_address *ret_addr)
{
	const char *colon = strrchr(listen, ':');
	char host[64] = "";
	char *end;

	if (!colon || (size_t)(colon - listen) >= sizeof(host) || colon[1] < '0' || colon[1] > '9')
		return -ERR_INVALID;
	unsigned long port = strtoul(colon + 1, &end, 10);
	if (*end || port > 65535)
		return -ERR_INVALID;
	memcpy(host, listen, (size_t)(colon - listen));

	union any_address addr = {0};
	size_t len = strlen(host);
	if (len > 2 && host[0] == '[' && host[len - 1] == ']') {
		host[len - 1] = '\0';
		addr.v6.sin6_family = AF_INET6;
		addr.v6.sin6_port = htons((uint16_t)port);
		if (inet_pton(AF_INET6, host + 1, &addr.v6.sin6_addr) != 1)
			return -ERR_INVALID;
	} else if (len == 0) {
		addr.v6.sin6_family = AF_INET6;
		addr.v6.sin6_port = htons((uint16_t)port);
	} else {
		addr.v4.sin_family = AF_INET;
		addr.v4.sin_port = htons((uint16_t)port);
		if (inet_pton(AF_INET, strcmp(host, "localhost") ? host : "127.0.0.1", &addr.v4.sin_addr) != 1)
			return -ERR_INVALID;
	}
	*ret_addr = addr;
	return 0;
}

static struct evconnlistener *bind_one(struct httpd *httpd, const union any_address *addr)
{
	unsigned flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE;
	int len = addr->any.sa_family == AF_INET6 ? sizeof(addr->v6) : sizeof(addr->v4);

	return evconnlistener_new_bind(httpd->base, NULL, NULL, flags, CONNECTIONS_MAX, &addr->any, len);
}

/* is_all: every address of the machine, IPv4 too where there is no IPv6. */
static int bind_listener(struct httpd *httpd, union any_address addr, bool is_all, bool fall_back)
{
	httpd->listener = bind_one(httpd, &addr);
	if (!httpd->listener && is_all && (errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL)) {
		in_port_t port = addr.v6.sin6_port;
		addr = (union any_address){.v4 = {.sin_family = AF_INET, .sin_port = port}};
		httpd->listener = bind_one(httpd, &addr);
	}
	if (!httpd->listener && errno == EADDRINUSE && fall_back) {
		if (addr.any.sa_family == AF_INET6)
			addr.v6.sin6_port = 0;
		else
			addr.v4.sin_port = 0;
		httpd->listener = bind_one(httpd, &addr);
	}
	return httpd->listener ? 0 : -ERR_SYSTEM;
}

static void log_listening(struct httpd *httpd, struct log *log)
{
	union any_address addr = {0};
	socklen_t len = sizeof(addr);
	char text[INET6_ADDRSTRLEN] = "";

	getsockname(evconnlistener_get_fd(httpd->listener), &addr.any, &len);
	if (addr.any.sa_family == AF_INET6) {
		inet_ntop(AF_INET6, &addr.v6.sin6_addr, text, sizeof(text));
		httpd->port = ntohs(addr.v6.sin6_port);
	} else {
		inet_ntop(AF_INET, &addr.v4.sin_addr, text, sizeof(text));
		httpd->port = ntohs(addr.v4.sin_port);
	}
	log_info(log, "http listening", LOG_STR("addr", text), LOG_NUM("port", httpd->port));
}

static void http_start(struct httpd *httpd)
{
	httpd->http = evhttp_new(httpd->base);
	httpd->sweep_timer = evtimer_new(httpd->base, on_sweep_timer, httpd);
	if (!httpd->http || !httpd->sweep_timer || !evhttp_bind_listener(httpd->http, httpd->listener))
		abort();
	evhttp_set_max_headers_size(httpd->http, HEADERS_MAX);
	evhttp_set_max_body_size(httpd->http, REQUEST_BODY_MAX);
	evhttp_set_timeout(httpd->http, IDLE_S);
	/* All that evhttp knows: what is not GET or HEAD gets our 405 instead of its 501. */
	evhttp_set_allowed_methods(httpd->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_POST | EVHTTP_REQ_PUT |
						    EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS | EVHTTP_REQ_TRACE |
						    EVHTTP_REQ_CONNECT | EVHTTP_REQ_PATCH);
	evhttp_set_bevcb(httpd->http, on_connection, httpd);
	evhttp_set_gencb(httpd->http, on_request, httpd);
}

int httpd_new(struct loop *loop, struct log *log, const char *listen, bool fall_back, httpd_fn fn, void *ctx,
	      struct httpd **ret_httpd, char **ret_error)
{
	union any_address addr;

	if (parse_listen(listen, &addr) < 0) {
		*ret_error = xasprintf("http.listen: \"%s\" is not ADDRESS:PORT, as 127.0.0.1:9464 or [::1]:0", listen);
		return -ERR_INVALID;
	}
	struct httpd *httpd = xcalloc(1, sizeof(*httpd));
	httpd->base = loop_base(loop);
	httpd->fn = fn;
	httpd->ctx = ctx;
	if (bind_listener(httpd, addr, listen[0] == ':', fall_back) < 0) {
		*ret_error = xasprintf("http.listen: cannot listen on %s: %s", listen, strerror(errno));
		httpd_free(httpd);
		return -ERR_SYSTEM;
	}
	http_start(httpd);
	log_listening(httpd, log);
	*ret_httpd = httpd;
	return 0;
}

void httpd_free(struct httpd *httpd)
{
	if (!httpd)
		return;
	if (httpd->http)
		evhttp_free(httpd->http); /* the listener and the connections too */
	for (size_t i = 0; i < httpd->n_connections; i++)
		bufferevent_decref(httpd->connections[i]);
	if (httpd->sweep_timer)
		event_free(httpd->sweep_timer);
	free(httpd);
}

uint16_t httpd_port(const struct httpd *httpd)
{
	return httpd->port;
}
