/* host - one host's cap, rate, hold and breaker, and the table of hosts.
 *
 * Happy path: host_ask says MAY_START -> host_start takes a slot and a token -> host_finish gives the slot back.
 * Failure modes: all slots taken -> WAITS without a time (a finish will tell); no token, or held by Retry-After -> WAITS until a
 * time; 10 connect-level failures in a row -> IS_DOWN until a probe succeeds: probes after 1 s, doubling to 30 s.
 * Adaptive: an answer 429 or 503 (a strike) halves the pace of starts, down to 1 a second (or an eighth of host.rate); further ones
 * without a good answer between them hold the host for 1 s, doubling to 30 s, and let one request at a time through. Each good
 * answer lets it be faster by half a start a second (or an eighth of host.rate), until it is as fast as before. What was under way
 * at a strike counts neither way.
 * The bucket has depth 1: full at first; hosts_new_era (a rebalance) empties all, since another worker may just have started one.
 * Layer 2: no I/O, time is an argument. */
#ifndef GATHERD_HOST_H
#define GATHERD_HOST_H

#include "base.h"
#include "heap.h"
#include "list.h"
#include "options.h"

#define HOST_FAILURES_TO_OPEN 10
#define HOST_PROBE_MIN_US 1000000
#define HOST_PROBE_MAX_US 30000000
#define HOST_FORGET_US 60000000
#define HOST_HOLD_MIN_US 1000000
#define HOST_HOLD_MAX_US 30000000

struct host;
struct hosts;

enum host_answer { HOST_MAY_START, HOST_WAITS, HOST_IS_DOWN };

struct hosts *hosts_new(void);
void hosts_free(struct hosts *hosts);
/* Finds or makes it. opts: its profile, must live as long (host_set_options after a reload). */
struct host *hosts_get(struct hosts *hosts, const char *key, const struct host_options *opts, int64_t now_us);
size_t hosts_count(const struct hosts *hosts);
/* A rebalance: every token bucket is empty now, hosts not seen yet included, for one interval of theirs. */
void hosts_new_era(struct hosts *hosts, int64_t now_us);
/* Forgets up to max hosts that nobody holds and that were idle for HOST_FORGET_US. */
void hosts_sweep(struct hosts *hosts, int64_t now_us, size_t max);
/* fn for each host; it may change the host's options. */
void hosts_each(struct hosts *hosts, void (*fn)(void *ctx, struct host *host), void *ctx);

const char *host_key(const struct host *host);
const struct host_options *host_options(const struct host *host);
void host_set_options(struct host *host, const struct host_options *opts);
/* Crawl-delay: the least time between two starts, if host.rate does not ask for more; 0 = none. */
void host_set_delay(struct host *host, int64_t delay_us);
/* Somebody keeps a pointer (a line); a held host is not forgotten. */
void host_hold_ref(struct host *host);
void host_drop_ref(struct host *host, int64_t now_us);

/* *ret_wake_us: for WAITS, when to ask again; INT64_MAX = when a slot is given back. */
enum host_answer host_ask(const struct host *host, int64_t now_us, int64_t *ret_wake_us);
/* Takes a slot and a token. Only after HOST_MAY_START in the same turn. Returns how many were in flight before. */
int32_t host_start(struct host *host, int64_t now_us);

enum host_report {
	HOST_REACHED,     /* it answered, whatever it said */
	HOST_OVERLOADED,  /* 429 or 503 */
	HOST_UNREACHABLE, /* connect-level failure */
	HOST_NOT_TRIED,   /* cancelled, blocked, no name: says nothing about it */
};

/* Gives the slot back. started_us: of host_start. err: the failure, kept for the jobs that its breaker answers; for OVERLOADED the
 * status. True when the breaker opened just now. */
bool host_finish(struct host *host, int64_t started_us, int64_t now_us, enum host_report report, int err);
/* Retry-After: no start before until_us (the later of this and what stands). */
void host_hold_until(struct host *host, int64_t until_us);
int32_t host_inflight(const struct host *host);
/* As many as may be now: one while it only strikes. */
int32_t host_inflight_max(const struct host *host);
/* The failure that opened the breaker. */
int host_down_err(const struct host *host);

/* Hosts that are slowed down, or whose breaker is open. */
struct hosts_counts {
	size_t slowed, down;
	uint64_t strikes; /* so far */
	size_t spread;    /* hosts with jobs on more than one partition now */
	uint64_t spread_total;
};
struct hosts_counts hosts_counts(const struct hosts *hosts);

struct host_trouble {
	const char *key;
	bool is_down;
	int cause;       /* -ERR_*, or the status */
	double pace;     /* starts a second; 0 = as the settings say */
	int64_t wait_us; /* until the next start or probe may be */
};
/* Up to max of them, those that are down first, the latest first. */
size_t hosts_troubled(struct hosts *hosts, int64_t now_us, struct host_trouble *out, size_t max);

/* A partition has jobs for it; has none any more. */
void host_add_partition(struct host *host);
void host_drop_partition(struct host *host);

/* Lines (admit.c) that wait for this host, and the timer that admit.c sets for them. */
struct list *host_lines(struct host *host);
struct heap_node *host_timer(struct host *host);
struct host *host_of_timer(struct heap_node *timer);

#endif
