/* fetch - HTTP transfers on the loop by curl multi lanes.
 *
 * Happy path: fetch_start -> fetch_done_fn with the response, later, from the loop, never from inside fetch_start.
 * 64 multis ("lanes") on one loop, because libcurl's cost per transfer grows with the connections of a multi: a host key
 * hashes to one, every 128 further slots of a busy host to the next. Easy handles are pooled and reset.
 * Names: never resolved here. The addresses given go to libcurl by CURLOPT_RESOLVE; its own path is closed.
 * Guard: each address again in OPENSOCKETFUNCTION, and the peer of a reused connection in PREREQFUNCTION (-ERR_ADDRESS_DENIED).
 * Through a proxy: addrs are the proxy's, which is connected to as configured and resolves the URL's host itself; its connections
 * are kept apart from those of others.
 * Caps: header bytes and lines (all answers of the exchange and trailers together), decoded body bytes, decoded/wire over 200
 * past 1 MiB, connect, total and stall time. No redirects, cookies, .netrc, proxies of the environment, HTTP/0.9.
 * TLS: one certificate store, loaded by fetch_tls_load (may block: before the loop or on the helper), shared by all.
 * Layer 3 (libcurl, OpenSSL). */
#ifndef GATHERD_FETCH_H
#define GATHERD_FETCH_H

#include "base.h"
#include "job.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "netguard.h"
#include "resolve.h"
#include "result.h"
#include "url.h"

struct fetch;
struct transfer;
struct tls_store;

/* All views must live until the callback or fetch_cancel. */
struct fetch_request {
	const struct url *url;
	const struct addresses *addrs; /* copied; the ones that the guard allows; ignored when url->is_literal */
	const char *method;
	struct span body;
	const struct header *headers; /* checked by job_decode */
	size_t n_headers;
	const char *if_none_match, *if_modified_since; /* NULL or "" = none */
	const char *user_agent;                        /* when headers do not set one */
	int64_t connect_ms, total_ms, stall_ms;
	size_t body_max_bytes;
	bool body_overflow_fails;
	enum body_mode body_mode;
	bool is_http2, tls_verify;
	const struct proxy *proxy; /* NULL = none; copied. addrs are the proxy's then */
	int32_t host_slot; /* how many transfers this host has in flight already */
};

/* resp is the receiver's from now on: response_done, free. */
typedef void (*fetch_done_fn)(void *ctx, struct response *resp);

/* ca_file "" = the system's store. NULL and a sentence in *ret_error (free) on failure. */
struct tls_store *tls_store_load(const char *ca_file, char **ret_error);
void tls_store_free(struct tls_store *store);

/* Takes the store. guard is the caller's. */
struct fetch *fetch_new(struct loop *loop, struct metrics *metrics, struct log *log, const struct netguard *guard,
			struct tls_store *store);
/* Running transfers are dropped without a callback. */
void fetch_free(struct fetch *fetch);
/* After SIGHUP: idle connections are dropped, a running one that the new guard denies ends with -ERR_ADDRESS_DENIED at its next
 * connect or reuse. store NULL = keep. */
void fetch_reload(struct fetch *fetch, const struct netguard *guard, struct tls_store *store);

/* 0 and *ret_transfer, answered by one callback; or an error and no callback. */
int fetch_start(struct fetch *fetch, const struct fetch_request *req, fetch_done_fn fn, void *ctx,
		struct transfer **ret_transfer) MUST_CHECK;
/* Ends it now; no callback. Safe from any callback of the loop. */
void fetch_cancel(struct transfer *transfer);
/* Stops reading from the peer, and its stall and total timers; and goes on. */
void fetch_pause(struct transfer *transfer, bool is_paused);
/* Body and header bytes that running transfers hold. */
size_t fetch_bytes(const struct fetch *fetch);
/* Bytes held by one. */
size_t transfer_bytes(const struct transfer *transfer);

#endif
