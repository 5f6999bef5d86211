/* resolve - host names to addresses without ever blocking (c-ares on the loop), with a cache.
 *
 * Happy path: resolve_cached answers at once; else resolve_start -> the callback, later, from the loop.
 * A and AAAA are asked separately, absolute names only; the second one is waited for at most 50 ms after the first has
 * addresses. /etc/hosts is read at start and by resolve_reload. Lookups of one name in progress are joined; lookups are issued
 * at most 100 per ms and RESOLVE_INFLIGHT_MAX at once, the rest wait in order; dns.timeout counts from the issue.
 * Cache: TTL clamped to [5 s, 1 h]; negative 5 to 30 s (NXDOMAIN, no data), 2 s (time-out, failure); at most 100,000 names, least
 * recently used first out; a stale answer is served up to 30 s past its end when the servers do not answer or fail.
 * Failure modes: -ERR_DNS_*. Layer 3 (c-ares, uthash). */
#ifndef GATHERD_RESOLVE_H
#define GATHERD_RESOLVE_H

#include "base.h"
#include "list.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "netguard.h"

#define RESOLVE_ADDRESSES_MAX 16
#define RESOLVE_INFLIGHT_MAX 5000

struct resolve;

struct addresses {
	struct address v[RESOLVE_ADDRESSES_MAX]; /* IPv6 and IPv4 alternating, as RFC 8305 wants */
	size_t n;
};

/* err: 0 and addrs with n > 0 (valid during the call), or -ERR_DNS_*. dns_us: how long it took. */
typedef void (*resolve_fn)(void *ctx, int err, const struct addresses *addrs, int64_t dns_us);

/* Embedded in its owner, zeroed before the first use. */
struct resolve_query {
	struct list_node node; /* private */
	resolve_fn fn;
	void *ctx;
};

/* servers: "host" or "host:port", "[v6]:port"; n_servers 0 = /etc/resolv.conf. 0; -ERR_INVALID and a sentence in
 * *ret_error (free). */
int resolve_new(struct loop *loop, struct metrics *metrics, struct log *log, char *const servers[], size_t n_servers,
		int64_t timeout_ms, struct resolve **ret_rs, char **ret_error) MUST_CHECK;
/* Outstanding queries get no callback. */
void resolve_free(struct resolve *rs);
/* Reads /etc/hosts again and takes a new time-out. */
void resolve_reload(struct resolve *rs, int64_t timeout_ms);

/* From memory: 0; a negatively cached -ERR_DNS_*; -ERR_AGAIN when the network must be asked. host as in struct url, not a literal. */
int resolve_cached(struct resolve *rs, const char *host, struct addresses *ret_addrs) MUST_CHECK;
/* Always answered by one callback, later, from the loop, never from inside; unless cancelled. */
void resolve_start(struct resolve *rs, const char *host, struct resolve_query *query, resolve_fn fn, void *ctx);
/* No callback after this; safe when it was answered already. The lookup itself goes on for the cache. */
void resolve_cancel(struct resolve_query *query);

#endif
