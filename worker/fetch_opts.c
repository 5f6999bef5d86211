/* One request -> options of an easy handle that was just reset. Every job sets all of them, so none can leak into the
 * next. */
#include "fetch_internal.h"

#include "retry.h"

#include <stdio.h>
#include <strings.h>

/* 7.88 and 8.14 both take an option that the library was built without as an error: any error is one of ours. */
struct setter {
	CURL *easy;
	bool has_failed;
};

#define SET(setter, option, value)                                                                                     \
	((setter)->has_failed |= curl_easy_setopt((setter)->easy, (option), (value)) != CURLE_OK)

static bool has_header(const struct fetch_request *req, const char *name)
{
	for (size_t i = 0; i < req->n_headers; i++)
		if (strcasecmp(req->headers[i].name, name) == 0)
			return true;
	return false;
}

static bool is_given(const char *text)
{
	return text && *text;
}

/* What ACCEPT_ENCODING "" means, which libcurl would put together for each request. */
void opts_init(struct fetch *fetch)
{
	int features = curl_version_info(CURLVERSION_NOW)->features;

	snprintf(fetch->accept, sizeof(fetch->accept), "%s%s%s",
		 features & CURL_VERSION_LIBZ ? "deflate, gzip" : "identity",
		 features & CURL_VERSION_BROTLI ? ", br" : "", features & CURL_VERSION_ZSTD ? ", zstd" : "");
}

/* ---- header lines: the nodes of the list and their text in one block ---- */

struct lines {
	struct curl_slist *nodes;
	size_t n;
	char *text;
};

static void put(struct lines *lines, const void *data, size_t len)
{
	if (len)
		memcpy(lines->text, data, len);
	lines->text += len;
}

static void line_begin(struct lines *lines)
{
	lines->nodes[lines->n].data = lines->text;
	if (lines->n)
		lines->nodes[lines->n - 1].next = &lines->nodes[lines->n];
	lines->n++;
}

/* libcurl: "Name: value" sends it, "Name;" sends it empty, "Name:" takes away its own. */
static void line_add(struct lines *lines, const char *name, struct span value)
{
	while (value.len && (value.data[0] == ' ' || value.data[0] == '\t'))
		value = (struct span){value.data + 1, value.len - 1};
	line_begin(lines);
	put(lines, name, strlen(name));
	put(lines, value.len ? ": " : ";", value.len ? 2 : 1);
	put(lines, value.data, value.len);
	put(lines, "", 1);
}

static void line_remove(struct lines *lines, const char *name)
{
	line_begin(lines);
	put(lines, name, strlen(name));
	put(lines, ":", 2);
}

#define LINE_EXTRA 4 /* ": ", NUL, one to spare */
#define OWN_LINES 4

static struct curl_slist *headers_build(struct transfer *t, const struct fetch_request *req, bool has_body)
{
	bool sends_none_match = is_given(req->if_none_match) && !has_header(req, "If-None-Match");
	bool sends_since = is_given(req->if_modified_since) && !has_header(req, "If-Modified-Since");
	size_t n_max = req->n_headers + OWN_LINES, bytes = n_max * (sizeof(struct curl_slist) + LINE_EXTRA);

	if (!req->n_headers && !sends_none_match && !sends_since && !has_body)
		return NULL;
	for (size_t i = 0; i < req->n_headers; i++)
		bytes += strlen(req->headers[i].name) + req->headers[i].value.len;
	bytes += sends_none_match ? strlen("If-None-Match") + strlen(req->if_none_match) : 0;
	bytes += sends_since ? strlen("If-Modified-Since") + strlen(req->if_modified_since) : 0;
	bytes += strlen("Expect") + strlen("Content-Type");

	t->header_block = xcalloc(1, bytes);
	struct lines lines = {.nodes = t->header_block};
	lines.text = (char *)(lines.nodes + n_max);
	for (size_t i = 0; i < req->n_headers; i++)
		line_add(&lines, req->headers[i].name, req->headers[i].value);
	if (sends_none_match)
		line_add(&lines, "If-None-Match", span_str(req->if_none_match));
	if (sends_since)
		line_add(&lines, "If-Modified-Since", span_str(req->if_modified_since));
	if (has_body) {
		line_remove(&lines, "Expect"); /* no round trip before the body */
		if (!has_header(req, "Content-Type"))
			line_remove(&lines, "Content-Type"); /* libcurl would say it is a form */
	}
	return lines.nodes;
}

/* ---- groups of options ---- */

static void set_always(struct setter *s, struct transfer *t)
{
	SET(s, CURLOPT_PRIVATE, t);
	SET(s, CURLOPT_NOSIGNAL, 1L);
	SET(s, CURLOPT_ERRORBUFFER, t->errbuf);
	SET(s, CURLOPT_HEADERFUNCTION, on_header);
	SET(s, CURLOPT_HEADERDATA, t);
	SET(s, CURLOPT_WRITEFUNCTION, on_body);
	SET(s, CURLOPT_WRITEDATA, t);
	/* PROXY "" keeps http_proxy of the environment away; FOLLOWLOCATION, cookies, .netrc, HTTP/0.9, HSTS and
	 * alt-svc are off after a reset, and what matters for where a job may go is said again. */
	SET(s, CURLOPT_PROTOCOLS_STR, "http,https");
	SET(s, CURLOPT_FOLLOWLOCATION, 0L);
	SET(s, CURLOPT_HTTP09_ALLOWED, 0L);
	SET(s, CURLOPT_UNRESTRICTED_AUTH, 0L);
	SET(s, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	SET(s, CURLOPT_ACCEPT_ENCODING, t->fetch->accept);
	SET(s, CURLOPT_MAXAGE_CONN, CONNECTION_AGE_MAX_S);
	SET(s, CURLOPT_DNS_CACHE_TIMEOUT, -1L);
}

static int on_resolver_start(void *resolver, void *reserved, void *ctx)
{
	struct transfer *t = ctx;

	/* libcurl asks before it looks whether the host is a literal; one needs no lookup. */
	t->has_run = true;
	if (t->peer.is_literal)
		return 0;
	t->is_missed = true;
	return 1;
}

static int on_prereq(void *ctx, char *peer_ip, char *local_ip, int peer_port, int local_port)
{
	struct transfer *t = ctx;
	struct address addr;

	t->has_run = true;
	if (address_parse(peer_ip, &addr) < 0 || !peer_is_allowed(t, &addr)) {
		t->err = -ERR_ADDRESS_DENIED;
		t->fetch->metrics->blocked++;
		return CURL_PREREQFUNC_ABORT;
	}
	t->is_sent = true;
	if (t->n_opened)
		socket_connected(t, local_port);
	memcpy(t->resp->remote_ip, peer_ip,
	       MIN(strlen(peer_ip) + 1, sizeof(t->resp->remote_ip))); /* it was parsed: it fits */
	t->resp->remote_port = (uint16_t)peer_port;
	if (t->url->is_https)
		tls_describe(t); /* the connection cannot be asked any more when the transfer is done */
	return CURL_PREREQFUNC_OK;
}

static void set_network(struct setter *s, struct transfer *t, const struct fetch_request *req)
{
	struct fetch *fetch = t->fetch;
	size_t n_idle = fetch->n_connected - MIN(fetch->n_connected, fetch->running.len);

	SET(s, CURLOPT_RESOLVER_START_FUNCTION, on_resolver_start);
	SET(s, CURLOPT_RESOLVER_START_DATA, t);
	SET(s, CURLOPT_OPENSOCKETFUNCTION, on_socket_open);
	SET(s, CURLOPT_OPENSOCKETDATA, t);
	SET(s, CURLOPT_CLOSESOCKETFUNCTION, on_socket_close);
	SET(s, CURLOPT_CLOSESOCKETDATA, fetch); /* outlives the transfer with its connection */
	SET(s, CURLOPT_PREREQFUNCTION, on_prereq);
	SET(s, CURLOPT_PREREQDATA, t);
	/* NULL too: a reset leaves the list of a transfer that was cancelled before it ran. */
	SET(s, CURLOPT_RESOLVE, t->resolve);
	/* Also how libcurl shares the time between several addresses. The other times are ours. */
	if (req->connect_ms > 0)
		SET(s, CURLOPT_CONNECTTIMEOUT_MS, (long)req->connect_ms);
	if (n_idle >= fetch->idle_max / (t->is_rare ? IDLE_RARE_SHARE : 1))
		SET(s, CURLOPT_FORBID_REUSE, 1L);
	if (req->is_http2) {
		SET(s, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
		SET(s, CURLOPT_PIPEWAIT, 1L);
		/* 7.88 loses the head of an answer that does not fit, when streams share a connection: "Received
		 * HTTP/0.9". Pages that no answer fills are not resident. */
		SET(s, CURLOPT_BUFFERSIZE, 2L * RESPONSE_HEADER_BYTES_MAX);
	} else {
		SET(s, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	}
}

static void set_tls(struct setter *s, struct transfer *t, const struct fetch_request *req)
{
	/* Debian's default (a file and a directory) parses the whole bundle for each connection: 22 ms of CPU. */
	SET(s, CURLOPT_CAINFO, NULL);
	SET(s, CURLOPT_CAPATH, NULL);
	SET(s, CURLOPT_SSL_CTX_FUNCTION, on_ssl_ctx);
	SET(s, CURLOPT_SSL_CTX_DATA, t->fetch);
#if LIBCURL_VERSION_NUM < 0x080c00
	/* Before 8.12 sessions are kept per easy handle: of no use to the next host, and one that was made before a
	 * reload of tls.ca would pass without a look at the certificate. Later ones are kept per multi and go with
	 * their lane. */
	SET(s, CURLOPT_SSL_SESSIONID_CACHE, 0L);
#endif
	SET(s, CURLOPT_SSL_VERIFYPEER, req->tls_verify ? 1L : 0L);
	SET(s, CURLOPT_SSL_VERIFYHOST, req->tls_verify ? 2L : 0L);
}

/* Custom headers go to the host only (HEADEROPT). TLS to a proxy is judged as TLS to a host. */
static void set_proxy(struct setter *s, struct transfer *t, const struct fetch_request *req)
{
	const struct proxy *proxy = req->proxy;

	SET(s, CURLOPT_PROXY, proxy ? proxy->url : "");
	SET(s, CURLOPT_NOPROXY, proxy ? "" : "*");
	if (!proxy)
		return;
	SET(s, CURLOPT_HEADEROPT, (long)CURLHEADER_SEPARATE);
	SET(s, CURLOPT_PROXYAUTH, (long)CURLAUTH_BASIC);
	SET(s, CURLOPT_SOCKS5_AUTH, (long)CURLAUTH_BASIC);
	if (proxy->user) {
		SET(s, CURLOPT_PROXYUSERNAME, proxy->user);
		SET(s, CURLOPT_PROXYPASSWORD, proxy->password ? proxy->password : "");
	}
	if (!proxy->is_https)
		return;
	SET(s, CURLOPT_PROXY_CAINFO, NULL);
	SET(s, CURLOPT_PROXY_CAPATH, NULL);
	SET(s, CURLOPT_SSL_CTX_FUNCTION, on_ssl_ctx);
	SET(s, CURLOPT_SSL_CTX_DATA, t->fetch);
	SET(s, CURLOPT_PROXY_SSL_VERIFYPEER, req->tls_verify ? 1L : 0L);
	SET(s, CURLOPT_PROXY_SSL_VERIFYHOST, req->tls_verify ? 2L : 0L);
}

static bool method_is(const struct fetch_request *req, const char *name)
{
	return strcmp(req->method, name) == 0;
}

static void set_request(struct setter *s, struct transfer *t, const struct fetch_request *req)
{
	bool wants_body = method_is(req, "POST") || method_is(req, "PUT") || method_is(req, "PATCH");
	bool has_body = !t->is_head && (req->body.len > 0 || wants_body);
	struct curl_slist *headers = headers_build(t, req, has_body);

	SET(s, CURLOPT_URL, req->url->text);
	/* When a kept connection ends before the answer, libcurl sends the request again by itself. */
	if (!retry_is_idempotent(req->method))
		SET(s, CURLOPT_FRESH_CONNECT, 1L);
	if (is_given(req->user_agent))
		SET(s, CURLOPT_USERAGENT, req->user_agent); /* a header of the job takes its place in libcurl */
	if (headers)
		SET(s, CURLOPT_HTTPHEADER, headers);
	if (t->is_head)
		SET(s, CURLOPT_NOBODY, 1L);
	if (has_body) {
		SET(s, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)req->body.len);
		SET(s, CURLOPT_POSTFIELDS, req->body.len ? (const char *)req->body.data : "");
	}
	if (!t->is_head && !method_is(req, has_body ? "POST" : "GET"))
		SET(s, CURLOPT_CUSTOMREQUEST, req->method);
}

int opts_set(struct transfer *t, const struct fetch_request *req)
{
	struct setter setter = {.easy = t->easy};

	set_always(&setter, t);
	set_network(&setter, t, req);
	set_request(&setter, t, req);
	set_proxy(&setter, t, req);
	if (req->url->is_https)
		set_tls(&setter, t, req);
	return setter.has_failed ? -ERR_SYSTEM : 0;
}
