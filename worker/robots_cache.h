/* robots_cache - what is known of each origin's robots.txt, and who waits to know.
 *
 * Happy path: robots_origin_get -> robots_origin_rules says NULL -> the first job asks (robots_origin_ask), the next ones wait
 * (robots_origin_wait) -> robots_origin_answer -> the origin is due (robots_cache_due): its waiters are let go, in order.
 * Failure modes: who asked gives up (robots_origin_ask_over) -> the origin is due, and the first waiter is to ask; no answer
 * (robots_origin_unreachable) -> rules of an earlier answer count on, else all is forbidden: for 1 min, doubling to 1 h with each
 * time in a row (RFC 9309 2.3.1.4). An answer counts for 24 h (2.4).
 * Bounded in bytes: least recently used first out; what is asked for or waited for stays.
 * Layer 2: no I/O, time is an argument. */
#ifndef GATHERD_ROBOTS_CACHE_H
#define GATHERD_ROBOTS_CACHE_H

#include "base.h"
#include "list.h"
#include "robots.h"

#define ROBOTS_TTL_US INT64_C(86400000000)
#define ROBOTS_UNREACHABLE_MIN_US INT64_C(60000000)
#define ROBOTS_UNREACHABLE_MAX_US INT64_C(3600000000)

struct robots_cache;
struct robots_origin;

struct robots_cache *robots_cache_new(void) __attribute__((returns_nonnull));
/* Nobody may ask or wait. */
void robots_cache_free(struct robots_cache *cache);
/* Forgets what nobody asks or waits for, least recently used first, until the rest is within bytes_max. */
void robots_cache_trim(struct robots_cache *cache, size_t bytes_max);
/* The user agent changed: everything must be asked again. */
void robots_cache_expire(struct robots_cache *cache);
size_t robots_cache_bytes(const struct robots_cache *cache);
size_t robots_cache_count(const struct robots_cache *cache);
/* An origin that nobody asks and somebody waits for; NULL when there is none. */
struct robots_origin *robots_cache_due(struct robots_cache *cache);

/* Finds or makes it. name: "http://example.com:80". Valid until the next robots_cache_trim, or while asked or waited for. */
struct robots_origin *robots_origin_get(struct robots_cache *cache, const char *name) __attribute__((returns_nonnull));
/* NULL: it must be asked. */
const struct robots *robots_origin_rules(const struct robots_origin *origin, int64_t now_us);
/* The rules stand for an answer that did not come. */
bool robots_origin_is_unreachable(const struct robots_origin *origin);

/* Whoever asks; NULL = nobody. */
void *robots_origin_asker(const struct robots_origin *origin);
void robots_origin_ask(struct robots_origin *origin, void *asker);
void robots_origin_ask_over(struct robots_origin *origin);
/* Takes the rules, and ends the asking. */
void robots_origin_answer(struct robots_origin *origin, struct robots *robots, int64_t now_us);
void robots_origin_unreachable(struct robots_origin *origin, int64_t now_us);

void robots_origin_wait(struct robots_origin *origin, struct list_node *waiter);
/* Safe on one that does not wait. */
void robots_origin_leave(struct robots_origin *origin, struct list_node *waiter);
struct list_node *robots_origin_first_waiter(const struct robots_origin *origin);

#endif
