#include "host.h"

#include "clock.h"

#include <uthash.h>

#define NEVER_US (INT64_MIN / 2)
/* Starts a second: the slowest, by how much a good answer makes it faster, and what a host that was asked less often gets back to. */
#define PACE_MIN 1.0
#define PACE_STEP 0.5
#define PACE_SURE 10.0

struct hosts {
	struct host *by_key;
	struct list idle; /* nobody holds them; oldest first */
	struct list slowed, down; /* host->trouble; the last to get there last */
	struct hosts_counts counts;
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

	int32_t partitions; /* that have jobs for it */
	struct list_node trouble; /* on hosts->slowed or hosts->down */

	/* how fast it was asked: starts in the second before this one, and in this one */
	int64_t second_us;
	int32_t starts_before, starts;

	/* adaptive */
	double pace, pace_before; /* starts a second while it is slowed, and where that ends; 0 = it is not */
	int32_t strikes;          /* without a good answer since */
	int64_t strike_at_us;
	int strike_status;

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
	double rate = host->opts->host_rate;

	if (host->pace > 0 && (rate <= 0 || host->pace < rate))
		rate = host->pace;
	return MAX(rate > 0 ? (int64_t)(1e6 / rate) : 0, host->delay_us);
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
	list_init(&hosts->slowed);
	list_init(&hosts->down);
	hosts->era_us = NEVER_US;
	return hosts;
}

static void host_free(struct host *host)
{
	HASH_DEL(host->hosts->by_key, host);
	list_remove(&host->node);
	list_remove(&host->trouble);
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
	host->last_start_us = host->strike_at_us = host->second_us = NEVER_US;
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

/* What it knows would be lost: when a probe, a hold's end or a token is due, or a timer that still names it. */
static bool host_is_forgettable(const struct host *host, int64_t now_us)
{
	return !(host->is_open && now_us < host->probe_at_us) && !host->timer.place && host->hold_until_us <= now_us && host_token_us(host) <= now_us;
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
	if (host->inflight >= host_inflight_max(host))
		return HOST_WAITS;
	int64_t at_us = MAX(host->hold_until_us, host_token_us(host));
	if (now_us < at_us) {
		*ret_wake_us = at_us;
		return HOST_WAITS;
	}
	return HOST_MAY_START;
}

static void count_start(struct host *host, int64_t now_us)
{
	int64_t passed_us = now_us - host->second_us;

	if (passed_us >= US_PER_S) {
		host->starts_before = passed_us < 2 * US_PER_S ? host->starts : 0;
		host->starts = 0;
		host->second_us = now_us;
	}
	host->starts++;
}

int32_t host_start(struct host *host, int64_t now_us)
{
	if (host->is_open)
		host->is_probing = true;
	host->last_start_us = now_us;
	count_start(host, now_us);
	host_hold_ref(host);
	return host->inflight++;
}

/* The list says its state. */
static void host_place(struct host *host)
{
	struct hosts *hosts = host->hosts;
	struct list *list = host->is_open ? &hosts->down : host->pace > 0 ? &hosts->slowed : NULL;

	if (host->trouble.list == list)
		return;
	list_remove(&host->trouble);
	if (list)
		list_push(list, &host->trouble);
}

static void host_reached(struct host *host)
{
	host->failures = 0;
	host->is_open = host->is_probing = false;
}

/* As much faster by one good answer, and as slow at most. */
static double pace_step(const struct host *host, double step)
{
	return host->opts->host_rate > 0 ? MIN(step, host->opts->host_rate / 8) : step;
}

static void host_strike(struct host *host, int64_t now_us, int status)
{
	double pace = MAX(host->starts, host->starts_before), rate = host->opts->host_rate;
	int64_t hold_us = HOST_HOLD_MIN_US;

	if (host->pace <= 0)
		host->pace_before = rate > 0 ? rate : MAX(pace, PACE_SURE);
	if (host->pace > 0)
		pace = MIN(pace, host->pace);
	if (rate > 0)
		pace = MIN(pace, rate);
	host->pace = MAX(pace / 2, pace_step(host, PACE_MIN));
	host->strike_at_us = now_us;
	host->strike_status = status;
	host->hosts->counts.strikes++;
	if (++host->strikes == 1)
		return;
	for (int32_t i = 2; i < host->strikes && hold_us < HOST_HOLD_MAX_US; i++)
		hold_us *= 2;
	hold_us = MIN(hold_us, HOST_HOLD_MAX_US);
	host_hold_until(host, now_us + MIN(hold_us, host->opts->host_backoff_max * US_PER_MS));
}

static void host_was_good(struct host *host)
{
	host->strikes = 0;
	if (host->pace <= 0)
		return;
	host->pace += pace_step(host, PACE_STEP);
	if (host->pace >= host->pace_before)
		host->pace = 0;
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

bool host_finish(struct host *host, int64_t started_us, int64_t now_us, enum host_report report, int err)
{
	bool opened = false;

	assert(host->inflight > 0);
	host->inflight--;
	if (report == HOST_REACHED || report == HOST_OVERLOADED)
		host_reached(host);
	if (report == HOST_OVERLOADED && started_us > host->strike_at_us)
		host_strike(host, now_us, err);
	else if (report == HOST_REACHED && started_us > host->strike_at_us)
		host_was_good(host);
	else if (report == HOST_UNREACHABLE)
		opened = host_unreachable(host, now_us, err);
	else if (report == HOST_NOT_TRIED)
		host->is_probing = false;
	host_place(host);
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

int32_t host_inflight_max(const struct host *host)
{
	return host->strikes ? 1 : (int32_t)host->opts->host_inflight;
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

struct hosts_counts hosts_counts(const struct hosts *hosts)
{
	struct hosts_counts counts = hosts->counts;

	counts.slowed = hosts->slowed.len;
	counts.down = hosts->down.len;
	return counts;
}

static struct host_trouble trouble_of(const struct host *host, int64_t now_us)
{
	int64_t at_us = host->is_open ? host->probe_at_us : MAX(host->hold_until_us, host_token_us(host));

	return (struct host_trouble){.key = host->key,
				     .is_down = host->is_open,
				     .cause = host->is_open ? host->down_err : host->strike_status,
				     .pace = host->pace,
				     .wait_us = MAX(at_us - now_us, 0)};
}

size_t hosts_troubled(struct hosts *hosts, int64_t now_us, struct host_trouble *out, size_t max)
{
	struct list *const lists[] = {&hosts->down, &hosts->slowed};
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(lists); i++)
		for (struct list_node *node = lists[i]->head.prev; node != &lists[i]->head && n < max; node = node->prev)
			out[n++] = trouble_of(CONTAINER_OF(node, struct host, trouble), now_us);
	return n;
}

void host_add_partition(struct host *host)
{
	if (++host->partitions == 2) {
		host->hosts->counts.spread++;
		host->hosts->counts.spread_total++;
	}
}

void host_drop_partition(struct host *host)
{
	if (--host->partitions == 1)
		host->hosts->counts.spread--;
}
