#include "host.h"

#include <uthash.h>

#define NEVER_US (INT64_MIN / 2)

struct hosts {
	struct host *by_key;
	struct list idle; /* nobody holds them; oldest first */
	int64_t era_us;   /* the last rebalance: as a start of every host */
};

struct host {
	UT_hash_handle hh;
	struct hosts *hosts;
	struct list_node node; /* on hosts->idle while nobody holds it */
	struct list lines;
	struct heap_node timer;
	const struct host_options *opts;
	size_t refs;
	int64_t idle_since_us;
	int64_t last_start_us, delay_us;
	int64_t hold_until_us;
	int32_t inflight;

	/* breaker */
	int32_t failures; /* in a row */
	bool is_open, is_probing;
	int64_t probe_at_us, probe_wait_us;
	int down_err;
	char key[];
};

/* Between two starts; 0 = no limit. */
static int64_t host_interval_us(const struct host *host)
{
	int64_t rate_us = host->opts->host_rate > 0 ? (int64_t)(1e6 / host->opts->host_rate) : 0;

	return MAX(rate_us, host->delay_us);
}

/* When the bucket has its token. */
static int64_t host_token_us(const struct host *host)
{
	int64_t interval_us = host_interval_us(host);

	return interval_us ? MAX(host->last_start_us, host->hosts->era_us) + interval_us : NEVER_US;
}

struct hosts *hosts_new(void)
{
	struct hosts *hosts = xcalloc(1, sizeof(*hosts));

	list_init(&hosts->idle);
	hosts->era_us = NEVER_US;
	return hosts;
}

static void host_free(struct host *host)
{
	HASH_DEL(host->hosts->by_key, host);
	list_remove(&host->node);
	free(host);
}

void hosts_free(struct hosts *hosts)
{
	struct host *host, *next;

	if (!hosts)
		return;
	HASH_ITER(hh, hosts->by_key, host, next)
		host_free(host);
	free(hosts);
}

struct host *hosts_get(struct hosts *hosts, const char *key, const struct host_options *opts, int64_t now_us)
{
	size_t len = strlen(key);
	struct host *host;

	HASH_FIND(hh, hosts->by_key, key, len, host);
	if (host)
		return host;
	host = xcalloc(1, sizeof(*host) + len + 1);
	memcpy(host->key, key, len + 1);
	host->hosts = hosts;
	host->opts = opts;
	host->idle_since_us = now_us;
	list_init(&host->lines);
	host->last_start_us = NEVER_US;
	HASH_ADD_KEYPTR(hh, hosts->by_key, host->key, len, host);
	list_push(&hosts->idle, &host->node);
	return host;
}

size_t hosts_count(const struct hosts *hosts)
{
	return HASH_COUNT(hosts->by_key);
}

void hosts_new_era(struct hosts *hosts, int64_t now_us)
{
	hosts->era_us = now_us;
}

/* What it knows would be lost: a breaker, a hold or a token that is not back yet, or a timer that still names it. */
static bool host_is_forgettable(const struct host *host, int64_t now_us)
{
	return !host->is_open && !host->timer.place && host->hold_until_us <= now_us && host_token_us(host) <= now_us;
}

void hosts_sweep(struct hosts *hosts, int64_t now_us, size_t max)
{
	while (max-- > 0) {
		struct host *host = LIST_ENTRY(list_first(&hosts->idle), struct host, node);
		if (!host || host->idle_since_us + HOST_FORGET_US > now_us)
			return;
		if (host_is_forgettable(host, now_us)) {
			host_free(host);
		} else {
			host->idle_since_us = now_us;
			list_remove(&host->node);
			list_push(&hosts->idle, &host->node);
		}
	}
}

void hosts_each(struct hosts *hosts, void (*fn)(void *ctx, struct host *host), void *ctx)
{
	struct host *host, *next;

	HASH_ITER(hh, hosts->by_key, host, next)
		fn(ctx, host);
}

const char *host_key(const struct host *host)
{
	return host->key;
}

const struct host_options *host_options(const struct host *host)
{
	return host->opts;
}

void host_set_options(struct host *host, const struct host_options *opts)
{
	host->opts = opts;
}

void host_set_delay(struct host *host, int64_t delay_us)
{
	host->delay_us = delay_us;
}

void host_hold_ref(struct host *host)
{
	if (host->refs++ == 0)
		list_remove(&host->node);
}

void host_drop_ref(struct host *host, int64_t now_us)
{
	assert(host->refs > 0);
	if (--host->refs == 0) {
		host->idle_since_us = now_us;
		list_push(&host->hosts->idle, &host->node);
	}
}

enum host_answer host_ask(const struct host *host, int64_t now_us, int64_t *ret_wake_us)
{
	*ret_wake_us = INT64_MAX;
	if (host->is_open && (host->is_probing || now_us < host->probe_at_us))
		return HOST_IS_DOWN;
	if (host->inflight >= host->opts->host_inflight)
		return HOST_WAITS;
	int64_t at_us = MAX(host->hold_until_us, host_token_us(host));
	if (now_us < at_us) {
		*ret_wake_us = at_us;
		return HOST_WAITS;
	}
	return HOST_MAY_START;
}

int32_t host_start(struct host *host, int64_t now_us)
{
	if (host->is_open)
		host->is_probing = true;
	host->last_start_us = now_us;
	host_hold_ref(host);
	return host->inflight++;
}

static void host_reached(struct host *host)
{
	host->failures = 0;
	host->is_open = host->is_probing = false;
}

static bool host_unreachable(struct host *host, int64_t now_us, int err)
{
	bool was_probe = host->is_probing;

	host->is_probing = false;
	host->down_err = err;
	if (host->is_open) {
		/* Late failures of transfers from before the opening do not lengthen the wait; the probe's does. */
		if (was_probe) {
			host->probe_wait_us = MIN(host->probe_wait_us * 2, HOST_PROBE_MAX_US);
			host->probe_at_us = now_us + host->probe_wait_us;
		}
		return false;
	}
	if (++host->failures < HOST_FAILURES_TO_OPEN)
		return false;
	host->is_open = true;
	host->probe_wait_us = HOST_PROBE_MIN_US;
	host->probe_at_us = now_us + host->probe_wait_us;
	return true;
}

bool host_finish(struct host *host, int64_t now_us, enum host_report report, int err)
{
	bool opened = false;

	assert(host->inflight > 0);
	host->inflight--;
	if (report == HOST_REACHED)
		host_reached(host);
	else if (report == HOST_UNREACHABLE)
		opened = host_unreachable(host, now_us, err);
	else
		host->is_probing = false;
	host_drop_ref(host, now_us);
	return opened;
}

void host_hold_until(struct host *host, int64_t until_us)
{
	host->hold_until_us = MAX(host->hold_until_us, until_us);
}

int32_t host_inflight(const struct host *host)
{
	return host->inflight;
}

int host_down_err(const struct host *host)
{
	return host->down_err;
}

struct list *host_lines(struct host *host)
{
	return &host->lines;
}

struct heap_node *host_timer(struct host *host)
{
	return &host->timer;
}

struct host *host_of_timer(struct heap_node *timer)
{
	return CONTAINER_OF(timer, struct host, timer);
}
