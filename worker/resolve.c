#include "resolve.h"
#include "clock.h"
#include "heap.h"
#include "resolve_internal.h"

#define uthash_malloc(size) xmalloc(size)
#include <uthash.h>

#define HOSTS_FILE "/etc/hosts"
#define NAMES_MAX 100000
#define TTL_MIN_S 5
#define TTL_MAX_S 3600
#define NEGATIVE_MIN_S 5
#define NEGATIVE_MAX_S 30
#define FAILURE_TTL_US (2 * US_PER_S)
#define STALE_US (30 * US_PER_S)
#define SECOND_PATIENCE_US (50 * US_PER_MS)
#define SLICE_US US_PER_MS
#define SLICE_MAX 100

/* What is known of a name. On rs->idle (the least recently used first) unless a lookup of it is under way. */
struct name {
	UT_hash_handle hh;
	struct list_node node;
	struct lookup *lookup;
	int err;	    /* 0 with addresses, or -ERR_DNS_* */
	int64_t until_us;   /* the answer is good until then; 0 = there never was one */
	int64_t stale_us;   /* the addresses may be used until then when the servers do not answer */
	unsigned negatives; /* NXDOMAIN or no data so many times in a row */
	struct address *v;  /* as answered */
	size_t n;
	char host[];
};

/* One name being asked for, and who waits for it. On rs->waiting, rs->asking or rs->finished. */
struct lookup {
	struct list_node node;
	struct heap_node deadline; /* in rs->deadlines while asking and not answered */
	struct list queries;
	struct name *name; /* NULL: the answer was in memory */
	struct resolve_part a, aaaa;
	bool is_answered; /* at its deadline; what comes after is for the cache */
	int64_t asked_us;
	int err; /* and addrs: only when name is NULL */
	struct addresses addrs;
};

struct resolve {
	struct loop *loop;
	struct metrics *metrics, *own_metrics;
	struct log *log;
	char **servers;
	size_t n_servers;
	int64_t timeout_us;
	struct resolve_dns *dns;
	struct resolve_hosts *hosts;
	bool is_closing;

	struct name *names; /* uthash by host */
	size_t names_max;
	struct list idle;

	struct list waiting, asking, finished;
	struct heap deadlines;
	struct loop_timer timer;
	int64_t timer_us; /* what it is set to; INT64_MAX = it is not */
	int64_t slice_us; /* start of this slice of issues */
	int slice_n;
};

/* ---- names: the cache ---- */

static void name_free(struct resolve *rs, struct name *name)
{
	list_remove(&name->node);
	HASH_DEL(rs->names, name);
	free(name->v);
	free(name);
}

static struct name *name_find(struct resolve *rs, const char *host)
{
	struct name *name;

	HASH_FIND(hh, rs->names, host, strlen(host), name);
	return name;
}

static void name_touch(struct resolve *rs, struct name *name)
{
	if (name->lookup)
		return;
	list_remove(&name->node);
	list_push(&rs->idle, &name->node);
}

static struct name *name_get(struct resolve *rs, const char *host)
{
	struct name *name = name_find(rs, host);
	size_t len = strlen(host);

	if (name)
		return name;
	while (HASH_COUNT(rs->names) >= rs->names_max && !list_empty(&rs->idle))
		name_free(rs, LIST_ENTRY(list_first(&rs->idle), struct name, node));
	name = xcalloc(1, sizeof(*name) + len + 1);
	memcpy(name->host, host, len);
	HASH_ADD(hh, rs->names, host[0], len, name);
	list_push(&rs->idle, &name->node);
	return name;
}

static void name_keep_addresses(struct name *name, const struct addresses *addrs, int64_t ttl_s, int64_t now_us)
{
	name->err = 0;
	name->negatives = 0;
	name->until_us = now_us + MIN(MAX(ttl_s, TTL_MIN_S), TTL_MAX_S) * US_PER_S;
	name->stale_us = name->until_us + STALE_US;
	name->v = xrealloc(name->v, addrs->n * sizeof(*name->v));
	memcpy(name->v, addrs->v, addrs->n * sizeof(*name->v));
	name->n = addrs->n;
}

static void name_forget_addresses(struct name *name)
{
	free(name->v);
	name->v = NULL;
	name->n = 0;
}

/* c-ares does not tell the SOA's minimum (RFC 2308), so a name that stays away is asked for less and less. */
static void name_keep_negative(struct name *name, int err, int64_t now_us)
{
	int64_t ttl_s = MIN(NEGATIVE_MIN_S << MIN(name->negatives, 4U), NEGATIVE_MAX_S);

	name_forget_addresses(name);
	name->negatives++;
	name->err = err;
	name->until_us = now_us + ttl_s * US_PER_S;
}

/* True when stale addresses stand in (RFC 8767). */
static bool name_keep_failure(struct name *name, int err, int64_t now_us)
{
	name->until_us = now_us + FAILURE_TTL_US;
	if (name->n > 0 && now_us < name->stale_us) {
		name->until_us = MIN(name->until_us, name->stale_us);
		return true;
	}
	name_forget_addresses(name);
	name->err = err;
	return false;
}

static void name_addresses(const struct name *name, struct addresses *ret_addrs)
{
	ret_addrs->n = name->n;
	if (name->n > 0)
		memcpy(ret_addrs->v, name->v, name->n * sizeof(*name->v));
}

/* From the hosts file or the cache; -ERR_AGAIN when neither knows. */
static int from_memory(struct resolve *rs, const char *host, struct addresses *ret_addrs)
{
	if (resolve_hosts_find(rs->hosts, host, ret_addrs))
		return 0;
	struct name *name = name_find(rs, host);
	if (!name || name->until_us <= loop_now_us(rs->loop))
		return -ERR_AGAIN;
	name_touch(rs, name);
	rs->metrics->dns_cache_hits++;
	if (!name->err)
		name_addresses(name, ret_addrs);
	return name->err;
}

int resolve_cached(struct resolve *rs, const char *host, struct addresses *ret_addrs)
{
	return from_memory(rs, host, ret_addrs);
}

/* ---- lookups ---- */

void resolve_alternate(const struct address *v6, size_t n_v6, const struct address *v4, size_t n_v4,
		       struct addresses *ret_addrs)
{
	size_t i6 = 0, i4 = 0, n = 0;

	while (n < RESOLVE_ADDRESSES_MAX && (i6 < n_v6 || i4 < n_v4)) {
		if (i6 < n_v6)
			ret_addrs->v[n++] = v6[i6++];
		if (i4 < n_v4 && n < RESOLVE_ADDRESSES_MAX)
			ret_addrs->v[n++] = v4[i4++];
	}
	ret_addrs->n = n;
}

static struct lookup *lookup_new(void)
{
	struct lookup *lookup = xcalloc(1, sizeof(*lookup));

	list_init(&lookup->queries);
	lookup->a.ctx = lookup->aaaa.ctx = lookup;
	lookup->aaaa.is_v6 = true;
	return lookup;
}

/* Its name becomes idle again. */
static void lookup_free(struct resolve *rs, struct lookup *lookup)
{
	heap_remove(&rs->deadlines, &lookup->deadline);
	list_remove(&lookup->node);
	while (!list_empty(&lookup->queries))
		list_pop(&lookup->queries); /* resolve_cancel of a query that we leave must not follow its list */
	if (lookup->name) {
		lookup->name->lookup = NULL;
		list_push(&rs->idle, &lookup->name->node);
	}
	free(lookup);
}

static bool is_negative(int err)
{
	return err == -ERR_DNS_NXDOMAIN || err == -ERR_DNS_NO_DATA || err == -ERR_DNS_BAD_NAME;
}

/* Of two answers without addresses: a failure counts more than a "no", because trying again may help; and "the name
 * does not exist" more than "it has none of these". */
static int worse(int a, int b)
{
	if (is_negative(a) != is_negative(b))
		return is_negative(a) ? b : a;
	return a == -ERR_DNS_NO_DATA ? b : a;
}

/* What is known now; a part that is still out counts as timed out. */
static int lookup_result(const struct lookup *lookup, struct addresses *ret_addrs, int64_t *ret_ttl_s)
{
	const struct resolve_part *a = &lookup->a, *aaaa = &lookup->aaaa;
	size_t n_v4 = a->is_done ? a->n : 0, n_v6 = aaaa->is_done ? aaaa->n : 0;

	if (!n_v4 && !n_v6)
		return worse(a->is_done ? a->err : -ERR_DNS_TIMEOUT, aaaa->is_done ? aaaa->err : -ERR_DNS_TIMEOUT);
	*ret_ttl_s = MIN(n_v4 ? a->ttl_s : INT64_MAX, n_v6 ? aaaa->ttl_s : INT64_MAX);
	resolve_alternate(aaaa->v, n_v6, a->v, n_v4, ret_addrs);
	return 0;
}

/* Into the cache; gives what the waiting queries get, which may be a stale answer. */
static int lookup_keep(struct resolve *rs, struct lookup *lookup, struct addresses *ret_addrs)
{
	struct name *name = lookup->name;
	int64_t now_us = loop_now_us(rs->loop), ttl_s = 0;
	int err = lookup_result(lookup, ret_addrs, &ttl_s);

	if (err == 0) {
		name_keep_addresses(name, ret_addrs, ttl_s, now_us);
	} else if (is_negative(err)) {
		name_keep_negative(name, err, now_us);
	} else if (name_keep_failure(name, err, now_us)) {
		name_addresses(name, ret_addrs);
		return 0;
	}
	return err;
}

/* The queries may start, cancel and free what they like, themselves too, but not rs. */
static void deliver(struct list *queries, int err, const struct addresses *addrs, int64_t dns_us)
{
	struct list batch;
	struct list_node *node;

	list_init(&batch);
	list_take_all(queries, &batch);
	while ((node = list_pop(&batch))) {
		struct resolve_query *query = CONTAINER_OF(node, struct resolve_query, node);
		query->fn(query->ctx, err, addrs, dns_us);
	}
}

/* Keep what there is and tell everybody, unless that was done at the deadline. */
static void lookup_answer(struct resolve *rs, struct lookup *lookup)
{
	struct addresses addrs = {.n = 0};
	int64_t dns_us = loop_now_us(rs->loop) - lookup->asked_us;
	int err = lookup_keep(rs, lookup, &addrs);

	heap_remove(&rs->deadlines, &lookup->deadline);
	if (!lookup->is_answered) {
		lookup->is_answered = true;
		rs->metrics->dns_failures += err != 0;
		hist_observe(&rs->metrics->dns_seconds, dns_us);
	}
	deliver(&lookup->queries, err, &addrs, dns_us);
}

static void lookup_wait(struct resolve *rs, struct lookup *lookup)
{
	heap_remove(&rs->deadlines, &lookup->deadline);
	list_remove(&lookup->node);
	list_push(&rs->waiting, &lookup->node);
}

static bool is_cancelled(const struct lookup *lookup)
{
	return lookup->a.err == -ERR_CANCELLED || lookup->aaaa.err == -ERR_CANCELLED;
}

/* Both parts are in, or there never were any. */
static void lookup_finish(struct resolve *rs, struct lookup *lookup)
{
	list_remove(&lookup->node);
	if (!lookup->name) {
		deliver(&lookup->queries, lookup->err, &lookup->addrs, 0);
	} else if (!is_cancelled(lookup)) {
		lookup_answer(rs, lookup);
	} else if (!list_empty(&lookup->queries)) {
		lookup_wait(rs, lookup); /* resolve_reload took the channel away: ask again */
		return;
	}
	/* A callback that asked for the same name was answered from memory. */
	assert(list_empty(&lookup->queries));
	lookup_free(rs, lookup);
}

/* ---- asking ---- */

static void lookup_ask(struct resolve *rs, struct lookup *lookup)
{
	list_remove(&lookup->node);
	list_push(&rs->asking, &lookup->node);
	lookup->asked_us = loop_now_us(rs->loop);
	lookup->is_answered = false;
	lookup->a.is_done = lookup->aaaa.is_done = false;
	heap_set(&rs->deadlines, &lookup->deadline, lookup->asked_us + rs->timeout_us);
	rs->metrics->dns_lookups++;
	/* Either may be answered from inside; the lookup stays until the timer comes. */
	resolve_dns_ask(rs->dns, lookup->name->host, &lookup->aaaa);
	resolve_dns_ask(rs->dns, lookup->name->host, &lookup->a);
}

static void issue(struct resolve *rs)
{
	int64_t now_us = loop_now_us(rs->loop);

	if (now_us - rs->slice_us >= SLICE_US) {
		rs->slice_us = now_us;
		rs->slice_n = 0;
	}
	while (rs->slice_n < SLICE_MAX && rs->asking.len < RESOLVE_INFLIGHT_MAX && !list_empty(&rs->waiting)) {
		rs->slice_n++;
		lookup_ask(rs, LIST_ENTRY(list_first(&rs->waiting), struct lookup, node));
	}
}

/* Sets the timer to what is due first. */
static void arm(struct resolve *rs)
{
	struct heap_node *first = heap_first(&rs->deadlines);
	int64_t at_us = first ? first->at_us : INT64_MAX;

	if (!list_empty(&rs->waiting) && rs->asking.len < RESOLVE_INFLIGHT_MAX)
		at_us = MIN(at_us, rs->slice_us + SLICE_US);
	if (!list_empty(&rs->finished))
		at_us = 0;
	if (at_us >= rs->timer_us)
		return; /* it fires too early then, and sets itself again */
	rs->timer_us = at_us;
	loop_timer_set(&rs->timer, at_us);
}

/* All that is due now. What a callback finishes on the way waits for the next turn. */
static void run(struct resolve *rs)
{
	int64_t now_us = loop_now_us(rs->loop);
	struct heap_node *first;

	for (size_t n = rs->finished.len; n > 0; n--)
		lookup_finish(rs, LIST_ENTRY(list_first(&rs->finished), struct lookup, node));
	while ((first = heap_first(&rs->deadlines)) && first->at_us <= now_us)
		lookup_answer(rs, CONTAINER_OF(first, struct lookup, deadline));
	issue(rs);
	arm(rs);
}

static void on_timer(void *ctx)
{
	struct resolve *rs = ctx;

	rs->timer_us = INT64_MAX;
	run(rs);
}

/* From inside c-ares: only notes. */
static void on_part(void *ctx, struct resolve_part *part)
{
	struct resolve *rs = ctx;
	struct lookup *lookup = part->ctx;

	if (lookup->a.is_done && lookup->aaaa.is_done) {
		list_remove(&lookup->node);
		list_push(&rs->finished, &lookup->node);
	} else if (part->n > 0 && lookup->deadline.place) {
		int64_t at_us = loop_now_us(rs->loop) + SECOND_PATIENCE_US;
		heap_set(&rs->deadlines, &lookup->deadline, MIN(at_us, lookup->deadline.at_us));
	}
}

static void on_dns_left(void *ctx)
{
	struct resolve *rs = ctx;

	if (!rs->is_closing)
		run(rs);
}

/* ---- the way in ---- */

/* A lookup of an answered name that still waits for its late part is joined too; then it gets a deadline again. */
static struct lookup *lookup_join(struct resolve *rs, const char *host)
{
	struct name *name = name_get(rs, host);
	struct lookup *lookup = name->lookup;

	if (!lookup) {
		lookup = lookup_new();
		lookup->name = name;
		name->lookup = lookup;
		list_remove(&name->node);
		list_push(&rs->waiting, &lookup->node);
	} else if (lookup->is_answered && !lookup->deadline.place) {
		heap_set(&rs->deadlines, &lookup->deadline, loop_now_us(rs->loop) + rs->timeout_us);
	}
	return lookup;
}

void resolve_start(struct resolve *rs, const char *host, struct resolve_query *query, resolve_fn fn, void *ctx)
{
	struct addresses addrs = {.n = 0};
	int err = from_memory(rs, host, &addrs);
	struct lookup *lookup;

	query->fn = fn;
	query->ctx = ctx;
	if (err == -ERR_AGAIN) {
		lookup = lookup_join(rs, host);
	} else {
		lookup = lookup_new();
		lookup->err = err;
		lookup->addrs = addrs;
		list_push(&rs->finished, &lookup->node);
	}
	list_push(&lookup->queries, &query->node);
	issue(rs);
	arm(rs);
}

void resolve_cancel(struct resolve_query *query)
{
	list_remove(&query->node);
}

/* ---- making, reloading, freeing ---- */

static void load_hosts(struct resolve *rs)
{
	bool is_cut;

	resolve_hosts_free(rs->hosts);
	rs->hosts = resolve_hosts_new(HOSTS_FILE, &is_cut);
	if (is_cut)
		log_warn(rs->log, "hosts file has too many names, the rest is ignored", LOG_STR("file", HOSTS_FILE),
			 LOG_NUM("max", HOSTS_NAMES_MAX));
}

int resolve_new(struct loop *loop, struct metrics *metrics, struct log *log, char *const servers[], size_t n_servers,
		int64_t timeout_ms, struct resolve **ret_rs, char **ret_error)
{
	struct resolve *rs = xcalloc(1, sizeof(*rs));

	list_init(&rs->idle);
	list_init(&rs->waiting);
	list_init(&rs->asking);
	list_init(&rs->finished);
	heap_init(&rs->deadlines);
	rs->loop = loop;
	rs->own_metrics = metrics ? NULL : xcalloc(1, sizeof(*metrics));
	rs->metrics = metrics ? metrics : rs->own_metrics;
	rs->log = log;
	rs->timeout_us = timeout_ms * US_PER_MS;
	rs->names_max = NAMES_MAX;
	rs->timer_us = INT64_MAX;
	loop_timer_init(loop, &rs->timer, on_timer, rs);
	rs->servers = xcalloc(n_servers, sizeof(*rs->servers));
	for (; rs->n_servers < n_servers; rs->n_servers++)
		rs->servers[rs->n_servers] = xstrdup(servers[rs->n_servers]);
	load_hosts(rs);
	int err = resolve_dns_new(loop, servers, n_servers, timeout_ms, on_part, on_dns_left, rs, &rs->dns, ret_error);
	if (err < 0) {
		resolve_free(rs);
		return err;
	}
	*ret_rs = rs;
	return 0;
}

void resolve_reload(struct resolve *rs, int64_t timeout_ms)
{
	struct resolve_dns *before = rs->dns, *dns;
	char *error = NULL;

	load_hosts(rs);
	if (timeout_ms * US_PER_MS == rs->timeout_us)
		return;
	rs->timeout_us = timeout_ms * US_PER_MS;
	/* c-ares cannot change its time-outs, so it starts anew; what it was asked is asked again. */
	if (resolve_dns_new(rs->loop, rs->servers, rs->n_servers, timeout_ms, on_part, on_dns_left, rs, &dns, &error) <
	    0) {
		log_warn(rs->log, "dns.timeout not changed inside c-ares", LOG_STR("error", error));
		free(error);
		return;
	}
	rs->dns = dns;
	resolve_dns_free(before);
	arm(rs);
}

static void lookups_free(struct resolve *rs, struct list *list)
{
	while (!list_empty(list))
		lookup_free(rs, LIST_ENTRY(list_first(list), struct lookup, node));
}

void resolve_free(struct resolve *rs)
{
	if (!rs)
		return;
	rs->is_closing = true;
	resolve_dns_free(rs->dns); /* moves what is asked to finished */
	lookups_free(rs, &rs->waiting);
	lookups_free(rs, &rs->finished);
	assert(list_empty(&rs->asking));
	while (!list_empty(&rs->idle))
		name_free(rs, LIST_ENTRY(list_first(&rs->idle), struct name, node));
	resolve_hosts_free(rs->hosts);
	heap_done(&rs->deadlines);
	loop_timer_done(&rs->timer);
	for (size_t i = 0; i < rs->n_servers; i++)
		free(rs->servers[i]);
	free(rs->servers);
	free(rs->own_metrics);
	free(rs);
}

void resolve_set_names_max(struct resolve *rs, size_t names_max)
{
	rs->names_max = names_max;
}
