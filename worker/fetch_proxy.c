/* Ways through a proxy: whom a transfer connects to, and lanes of their own. Before 8.19 (CVE-2026-3784) libcurl tells tunnels
 * apart by the proxy's host and port and not by its user, so each proxy has multis that no other one uses. */
#include "fetch_internal.h"

#define PROXY_LANES 8

struct proxy_lanes {
	UT_hash_handle hh;
	struct lane *lanes[2][PROXY_LANES];
	char name[];
};

void peer_init(struct transfer *t, const struct fetch_request *req)
{
	const struct proxy *proxy = req->proxy;

	if (!proxy) {
		const struct url *url = req->url;
		t->peer = (struct peer_name){.host = url->host, .key = url->key, .port = url->port, .is_literal = url->is_literal};
		return;
	}
	/* The settings may go before the transfer does. */
	size_t host = strlen(proxy->host) + 1, key = strlen(proxy->key) + 1;
	t->peer_text = xmalloc(host + key);
	memcpy(t->peer_text, proxy->host, host);
	memcpy(t->peer_text + host, proxy->key, key);
	t->peer = (struct peer_name){.host = t->peer_text,
				.key = t->peer_text + host,
				.port = proxy->port,
				.is_literal = proxy->is_literal,
				.is_proxy = true};
}

bool peer_is_allowed(const struct transfer *t, const struct address *addr)
{
	return t->peer.is_proxy || netguard_address(t->fetch->guard, t->url->host, addr) == 0;
}

struct lane **proxy_lane(struct fetch *fetch, const struct proxy *proxy, uint32_t hash, bool is_http2)
{
	struct proxy_lanes *found;

	HASH_FIND_STR(fetch->proxies, proxy->name, found);
	if (!found) {
		found = xcalloc(1, sizeof(*found) + strlen(proxy->name) + 1);
		strcpy(found->name, proxy->name);
		HASH_ADD_STR(fetch->proxies, name, found);
	}
	return &found->lanes[is_http2][hash % PROXY_LANES];
}

void proxy_lanes_retire(struct fetch *fetch)
{
	struct proxy_lanes *proxy, *next;

	HASH_ITER(hh, fetch->proxies, proxy, next) {
		for (size_t i = 0; i < 2 * PROXY_LANES; i++)
			if (proxy->lanes[i / PROXY_LANES][i % PROXY_LANES])
				lane_retire(proxy->lanes[i / PROXY_LANES][i % PROXY_LANES]);
		HASH_DELETE(hh, fetch->proxies, proxy);
		free(proxy);
	}
}

/* What the proxy said of a SOCKS request: RFC 1928 6. */
static enum err err_of_socks(struct transfer *t)
{
	long reason = CURLPX_OK;

	curl_easy_getinfo(t->easy, CURLINFO_PROXY_ERROR, &reason);
	switch (reason) {
	case CURLPX_REPLY_CONNECTION_REFUSED:
		return ERR_CONNECT_REFUSED;
	case CURLPX_REPLY_HOST_UNREACHABLE:
	case CURLPX_REPLY_NETWORK_UNREACHABLE:
		return ERR_CONNECT_UNREACHABLE;
	default:
		return ERR_PROXY_FAILED;
	}
}

enum err err_of_proxy(struct transfer *t, CURLcode code)
{
	long answer = 0, verify = 0;

	if (!t->peer.is_proxy || t->is_sent)
		return ERR_NONE;
	curl_easy_getinfo(t->easy, CURLINFO_HTTP_CONNECTCODE, &answer);
	curl_easy_getinfo(t->easy, CURLINFO_PROXY_SSL_VERIFYRESULT, &verify);
	switch (code) {
	case CURLE_PROXY:
		return err_of_socks(t);
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION: /* the proxy's certificate, or the one behind it */
		return verify ? ERR_PROXY_FAILED : ERR_NONE;
	default:
		/* Bad gateway and its like: the proxy works, and could not get there. */
		return answer >= 502 && answer <= 504 ? ERR_CONNECT_FAILED : ERR_PROXY_FAILED;
	}
}
