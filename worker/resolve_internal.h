/* resolve_internal - what resolve.c, resolve_dns.c and resolve_hosts.c share; nobody else but their test includes it.
 *
 * resolve_dns.c asks one question (name, A or AAAA) over the network with c-ares, without a cache.
 * resolve_hosts.c answers from a hosts file in memory.
 * Layer 3. */
#ifndef GATHERD_RESOLVE_INTERNAL_H
#define GATHERD_RESOLVE_INTERNAL_H

#include "err.h"
#include "resolve.h"

struct resolve_dns;
struct resolve_hosts;

/* One question and its answer; its owner's memory until the answer. */
struct resolve_part {
	struct resolve_dns *dns; /* private */
	void *ctx;		 /* the owner's */
	bool is_v6, is_done;
	int err;       /* 0 and n > 0, or -ERR_DNS_*, or -ERR_CANCELLED from resolve_dns_free */
	int64_t ttl_s; /* the smallest of the answer's, CNAMEs too */
	struct address v[RESOLVE_ADDRESSES_MAX];
	size_t n;
};

/* on_part comes from inside c-ares, even from inside resolve_dns_ask: it may only take notes. after_fn comes from the
 * loop when c-ares is left. timeout_ms is for all tries and servers of a question; the caller's own timer decides. */
typedef void (*resolve_part_fn)(void *ctx, struct resolve_part *part);
int resolve_dns_new(struct loop *loop, char *const servers[], size_t n_servers, int64_t timeout_ms,
		    resolve_part_fn on_part, loop_fn after_fn, void *ctx, struct resolve_dns **ret_dns,
		    char **ret_error) MUST_CHECK;
/* Questions under way end with -ERR_CANCELLED, from inside. Not to be called from on_part. */
void resolve_dns_free(struct resolve_dns *dns);
void resolve_dns_ask(struct resolve_dns *dns, const char *host, struct resolve_part *part);

/* A file that cannot be read is an empty one. *ret_cut: it had more than HOSTS_NAMES_MAX names. */
#define HOSTS_NAMES_MAX 200000
struct resolve_hosts *resolve_hosts_new(const char *path, bool *ret_cut);
void resolve_hosts_free(struct resolve_hosts *hosts);
/* localhost and all below it are loopback even without an entry (RFC 6761 section 6.3). */
bool resolve_hosts_find(const struct resolve_hosts *hosts, const char *host, struct addresses *ret_addrs);

/* IPv6 first, then in turns (RFC 8305 section 4), cut at RESOLVE_ADDRESSES_MAX. */
void resolve_alternate(const struct address *v6, size_t n_v6, const struct address *v4, size_t n_v4,
		       struct addresses *ret_addrs);
/* Tests only: a smaller cache. */
void resolve_set_names_max(struct resolve *rs, size_t names_max);

#endif
