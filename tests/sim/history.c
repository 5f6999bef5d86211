#include "history.h"

#include "broker.h"
#include "check.h"
#include "coordinator.h"
#include "lifecycle.h"
#include "net.h"
#include "options.h"
#include "pipeline.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define OVERRIDES_MAX 60
#define STUCK_US (300 * US_PER_S)
#define LONGEST_US (4 * 3600 * US_PER_S)
#define REST_US (30 * US_PER_S)

enum fault {
	FAULT_REBALANCE,
	FAULT_START,
	FAULT_STOP,
	FAULT_CRASH,
	FAULT_KICK,
	FAULT_FREEZE,
	FAULT_OUTAGE,
	FAULT_FULL,
	FAULT_RELOAD,
	FAULT_SECOND_SIGNAL,
	FAULT_ORIGIN_DOWN,
	FAULTS
};

static const char *const fault_names[FAULTS] = {"rebalance", "start",  "stop",	"crash",	 "kick",	"freeze",
						"outage",    "full",   "reload", "second signal", "origin down"};

/* What --every-step may do to a machine. */
static const struct {
	const char *name;
	enum fault fault;
} strikes[] = {{"crash", FAULT_CRASH}, {"stop", FAULT_STOP}, {"freeze", FAULT_FREEZE}, {"kick", FAULT_KICK}};

static struct history {
	struct history_wish wish;
	char *overrides[OVERRIDES_MAX];
	size_t n_overrides, n_at_first; /* those of reloads come after */
	int64_t memory_max; /* 0 = as set */
	bool faults[FAULTS];
	bool is_struck;
	int64_t fault_every_us, calm_at_us;
	struct event fault, show;
	bool has_ended; /* no more faults: what is left must come to its end */
	bool was_cut;	/* some stop ran out of time */
	bool is_hasty;	/* rebalances do not wait for drains */
	bool is_named;	/* a worker started again has the name of the one before: it ends that one's transaction */
	bool is_unsure; /* deliveries may be told as failed that are in the log */
	uint64_t excused_before, given_up_before;
} history;

static void start(void *ctx);

/* ---- settings ---- */

static void set(const char *fmt, ...) PRINTF_LIKE(1, 2);

static void set(const char *fmt, ...)
{
	va_list ap;

	assert(history.n_overrides < OVERRIDES_MAX);
	va_start(ap, fmt);
	history.overrides[history.n_overrides++] = xvasprintf(fmt, ap);
	va_end(ap);
}

static void set_limits(void)
{
	set("partition.inflight=%d", (int)rnd_between(1, chance(0.5) ? 4 : 40));
	set("inflight=%d", (int)rnd_between(1, chance(0.3) ? 6 : 100));
	set("host.inflight=%d", (int)rnd_between(1, chance(0.5) ? 3 : 20));
	if (chance(0.3))
		set("host.rate=%d", (int)rnd_between(2, 50));
	if (chance(0.3))
		set("robots=obey");
	set("host.backoff_max=%ds", (int)rnd(20));
	set("fetch.timeout=%dms", (int)rnd_between(200, 10000));
	set("fetch.connect_timeout=%dms", (int)rnd_between(100, 3000));
	set("fetch.stall_timeout=%dms", (int)rnd_between(100, 3000));
	set("job.deadline=%dms", (int)rnd_between(1000, 30000));
	if (chance(0.15))
		set("job.wait=%dms", (int)rnd_between(1000, 30000));
	set("retry.max_attempts=%d", (int)rnd_between(1, 5));
	set("retry.base=%dms", (int)rnd(1000));
	set("retry.max=%dms", (int)rnd_between(1000, 10000));
	set("redirect.max=%d", (int)rnd(6));
}

static void set_all(void)
{
	set("http.listen=");
	set("log.level=error");
	if (broker.is_exactly_once)
		set("delivery=exactly_once");
	set_limits();
	set("partition.window=%d", (int)rnd_between(1, chance(0.5) ? 30 : 1000));
	set("body.max=%d", (int)(net.body_max = rnd_between(0, chance(0.1) ? 200000 : 5000)));
	if (chance(0.2))
		set("body.overflow=fail");
	set("dns.timeout=%dms", (int)rnd_between(50, 3000));
	set("commit.interval=%dms", (int)rnd_between(20, 1000));
	set("drain.timeout=%dms", (int)rnd_between(chance(0.1) ? 0 : 8000, 30000));
	set("rebalance.drain=%dms", (int)rnd(4000));
	if (chance(0.5)) {
		set("dead_letter.topic=dead");
		set("dead_letter.outcomes=%s", chance(0.5) ? "BAD_JOB" : "BAD_JOB DNS HTTP_ERROR TIMEOUT OK");
	}
	history.memory_max = chance(0.15) ? rnd_between(20000, 400000) : 0;
}

static int load(void *ctx, struct options **ret_opts, char **ret_errors, char **ret_warnings)
{
	static char *const environment[] = {NULL};
	int err = options_load(NULL, history.overrides, history.n_overrides, environment, ret_opts, ret_errors, ret_warnings);

	if (!err && history.memory_max)
		(*ret_opts)->memory_max = history.memory_max; /* far under what a user may set */
	return err;
}

/* ---- jobs ---- */

static char *json_job(void)
{
	char url[80], wishes[400] = "";
	int64_t now_ms = clock_epoch_ms();
	size_t n = 0;

	net_url(url, sizeof(url));
	if (chance(0.3))
		n += (size_t)snprintf(wishes + n, sizeof(wishes) - n, ",\"jobId\":\"job-%d\"", (int)rnd(1000));
	if (chance(0.2))
		n += (size_t)snprintf(wishes + n, sizeof(wishes) - n, ",\"not_before_at_ms\":%" PRId64, now_ms + rnd_between(0, 60000));
	if (chance(0.2))
		n += (size_t)snprintf(wishes + n, sizeof(wishes) - n, ",\"expiresAtMs\":\"%" PRId64 "\"", chance(0.1) ? INT64_MAX : now_ms + rnd_between(500, 90000));
	if (chance(0.2))
		n += (size_t)snprintf(wishes + n, sizeof(wishes) - n, ",\"method\":\"HEAD\",\"body_mode\":\"BODY_MODE_HASH_ONLY\"");
	if (chance(0.2))
		n += (size_t)snprintf(wishes + n, sizeof(wishes) - n, ",\"max_redirects\":%d", (int)rnd(4));
	if (chance(0.2))
		n += (size_t)snprintf(wishes + n, sizeof(wishes) - n, ",\"retry\":{\"max_attempts\":%d,\"base_ms\":%" PRId64 "}", (int)rnd(5),
				      chance(0.2) ? INT64_MAX : (int64_t)rnd(2000));
	if (chance(0.1))
		n += (size_t)snprintf(wishes + n, sizeof(wishes) - n, ",\"timeouts\":{\"total_ms\":%" PRId64 ",\"stall_ms\":1}",
				      chance(0.3) ? INT64_MAX : rnd_between(1, 5000));
	if (chance(0.2))
		n += (size_t)snprintf(wishes + n, sizeof(wishes) - n, ",\"expect\":{\"status\":[200,404]}");
	return xasprintf("{\"url\":\"%s\"%s}", url, wishes);
}

static char *url_job(const char *before, const char *after)
{
	char url[80];

	net_url(url, sizeof(url));
	return xasprintf("%s%s%s", before, url, after);
}

static void garbage(int32_t partition, int64_t gap)
{
	size_t len = rnd(chance(0.05) ? 20000 : 100) + 1;
	uint8_t *value = xmalloc(len);

	for (size_t i = 0; i < len; i++)
		value[i] = (uint8_t)rnd(256);
	if (chance(0.5))
		value[0] = "{\n\022 :/"[rnd(6)];
	broker_add(partition, gap, JOB_GARBAGE, value, len);
}

static void add_job(int32_t partition, double garbage_share)
{
	int64_t gap = chance(0.1) ? (int64_t)rnd(chance(0.1) ? 2000 : 6) : 0;
	enum job_kind kind = chance(garbage_share) ? (enum job_kind)(JOB_GARBAGE + rnd(JOB_KINDS - JOB_GARBAGE)) : chance(0.7) ? JOB_URL : JOB_TEXT;
	char *text = NULL;

	switch (kind) {
	case JOB_TEXT:
		text = json_job();
		break;
	case JOB_GARBAGE:
		garbage(partition, gap);
		return;
	case JOB_NULL:
		break;
	case JOB_BAD_SCHEME:
		text = xstrdup(chance(0.5) ? "file:///etc/passwd" : "ftp://h0.example.com/x");
		break;
	case JOB_BAD_PORT:
		text = xstrdup("http://h0.example.com:25/");
		break;
	case JOB_PRIVATE:
		text = xstrdup(chance(0.5) ? "http://127.0.0.1/" : "http://169.254.169.254/latest");
		break;
	case JOB_EXPIRED:
		text = url_job("{\"url\":\"", "\",\"expires_at_ms\":1000}");
		break;
	default:
		text = url_job("", "");
	}
	broker_add(partition, gap, kind, (uint8_t *)text, text ? strlen(text) : 0);
}

static void add_jobs(void)
{
	size_t n = (size_t)(history.wish.is_small ? rnd_between(4, 12) : rnd_between(50, 400));
	double garbage_share = chance(0.3) ? 0.4 : 0.05;

	while (n-- > 0)
		add_job((int32_t)rnd(rnd((uint64_t)broker.n_parts) + 1), garbage_share);
	if (chance(0.2))
		broker.parts[0].end += (int64_t)rnd(10); /* transaction markers */
}

/* Some are there from the start, others come while the workers work. */
static void show_more(void *ctx)
{
	bool is_any_left = false;

	for (int32_t p = 0; p < broker.n_parts; p++) {
		const struct topic_part *part = &broker.parts[p];
		if (part->n_visible < part->n)
			broker_show(p, rnd(chance(0.1) ? 200 : 10));
		is_any_left |= part->n_visible < part->n;
	}
	if (is_any_left)
		event_set(&history.show, NULL, world.now_us + latency_us(300 * US_PER_MS), show_more, NULL);
}

/* ---- workers come and go ---- */

static void start(void *ctx)
{
	struct machine *machine = ctx;
	struct worker_config config = {.load = load};
	char *errors = NULL, *warnings = NULL;

	if (machine->worker)
		return;
	if (load(NULL, &config.opts, &errors, &warnings))
		fail("the settings of the simulation are wrong: %s", errors);
	free(warnings);
	free(config.opts->instance);
	config.opts->instance = history.is_named ? xasprintf("m%d", machine->id) : xasprintf("m%d-%d", machine->id, (int)rnd(1000000));
	machine->opts = config.opts;
	machine->stop_at_us = 0;
	machine->was_frozen = machine->pl_was_paused = machine->was_reloaded = false;
	world.booting = machine;
	trace(machine, "starts", 0, 0);
	if (worker_new(&config, &machine->worker, &errors))
		fail("machine %d does not start: %s", machine->id, errors);
	machine->pl = worker_pipeline(machine->worker);
	machine->pl->random = world.random | 1; /* its own seed is the system's */
}

static void bury(struct machine *machine)
{
	struct worker *worker = machine->worker;

	trace(machine, "gone", 0, 0);
	machine->worker = NULL;
	machine->pl = NULL;
	worker_free(worker);
	if (machine->loop)
		fail("machine %d: the worker is freed, its loop is not", machine->id);
}

static size_t n_running(void)
{
	size_t n = 0;

	for (int i = 0; i < MACHINES_MAX; i++)
		n += world.machines[i].worker && !world.machines[i].stop_at_us;
	return n;
}

/* Somebody always comes back. */
static void start_again(struct machine *machine)
{
	if (history.has_ended ? n_running() == 0 : chance(0.7) || n_running() == 0)
		event_set(&machine->boot, NULL, world.now_us + latency_us(2 * US_PER_S), start, machine);
}

static void stop(struct machine *machine)
{
	trace(machine, "SIGTERM", 0, 0);
	machine->stop_at_us = machine->stop_at_us ? machine->stop_at_us : world.now_us;
	worker_stop(machine->worker);
}

/* The worker ended by itself: after a SIGTERM, within its time. */
static void reap(struct machine *machine, bool is_last)
{
	int exit_code = worker_run(machine->worker);
	int64_t took_us = world.now_us - machine->stop_at_us, most_us = machine->opts->drain_timeout * US_PER_MS + US_PER_S;

	seen.stops++;
	trace(machine, "stopped", exit_code, took_us);
	if (!machine->stop_at_us)
		fail("machine %d stopped without a signal", machine->id);
	if (took_us > most_us && !machine->was_frozen)
		fail("machine %d took %.3f s to stop", machine->id, (double)took_us / 1e6);
	if (is_last && exit_code && machine->opts->drain_timeout > 5000)
		fail("machine %d stopped with exit code %d when all was well", machine->id, exit_code);
	history.was_cut |= exit_code != 0;
	bury(machine);
	if (!is_last)
		start_again(machine);
}

/* ---- faults ---- */

static struct machine *some_machine(void)
{
	struct machine *machine = &world.machines[rnd(MACHINES_MAX)];

	return machine->worker ? machine : NULL;
}

static void kick(struct machine *machine)
{
	struct member *member = machine->in ? consumer_member(machine->in) : NULL;

	if (!member || member->state == MEMBER_OUT)
		return;
	group_kick(member);
	group_rebalance();
}

static void on_session_timeout(void *ctx)
{
	struct machine *machine = ctx;

	if (machine->worker && machine->loop->frozen_until_us > world.now_us)
		kick(machine);
}

static void freeze(struct machine *machine)
{
	int64_t us = rnd_between(1, 30) * US_PER_S;

	machine->was_frozen = true;
	machine->loop->frozen_until_us = world.now_us + us;
	if (us > SESSION_US && !machine->boot.due.place)
		event_set(&machine->boot, NULL, world.now_us + SESSION_US, on_session_timeout, machine);
}

static void reload(struct machine *machine)
{
	while (history.n_overrides > history.n_at_first)
		free(history.overrides[--history.n_overrides]);
	set_limits();
	machine->was_reloaded = true;
	machine->reload_us = world.now_us;
	worker_reload(machine->worker);
}

static void inflict_on(struct machine *machine, enum fault fault)
{
	if (fault != FAULT_CRASH && fault != FAULT_KICK && machine->loop->frozen_until_us > world.now_us)
		return; /* what stands still takes no signals */
	switch (fault) {
	case FAULT_STOP:
		if (!machine->stop_at_us)
			stop(machine);
		break;
	case FAULT_SECOND_SIGNAL:
		stop(machine);
		break;
	case FAULT_CRASH:
		seen.crashes++;
		bury(machine);
		start_again(machine);
		break;
	case FAULT_KICK:
		kick(machine);
		break;
	case FAULT_FREEZE:
		freeze(machine);
		break;
	case FAULT_RELOAD:
		reload(machine);
		break;
	default:
		break;
	}
}

static void inflict(enum fault fault)
{
	struct machine *machine = some_machine();

	switch (fault) {
	case FAULT_REBALANCE:
		group_rebalance();
		break;
	case FAULT_START:
		start(&world.machines[rnd(MACHINES_MAX)]);
		break;
	case FAULT_OUTAGE:
		world.outage_until_us = world.now_us + (int64_t)rnd(25 * US_PER_S);
		break;
	case FAULT_FULL:
		broker.full_until_us = world.now_us + (int64_t)rnd(5 * US_PER_S);
		break;
	case FAULT_ORIGIN_DOWN:
		net.origins[rnd(net.n_origins)].down_until_us = world.now_us + (int64_t)rnd(40 * US_PER_S);
		break;
	default:
		if (machine)
			inflict_on(machine, fault);
	}
}

/* From here on all that is left must come to its end. */
static void heal(void)
{
	history.has_ended = true;
	broker.delivery_fails = broker.delivery_unsure = broker.commit_fails = broker.commit_unsure = broker.is_slow = 0;
	broker.producer_breaks = 0;
	broker.topic_max = broker.dead_letter_max = SIZE_MAX; /* somebody raised them */
	broker.rebalance_timeout_us = 300 * US_PER_S; /* a shorter one than a drain takes may go on for ever */
	trace(NULL, "no more faults", 0, 0);
	if (n_running() == 0 && !world.machines[0].boot.due.place)
		event_set(&world.machines[0].boot, NULL, world.now_us, start, &world.machines[0]);
}

static void on_fault(void *ctx)
{
	enum fault fault = (enum fault)rnd(FAULTS);

	if (world.now_us >= history.calm_at_us) {
		heal();
		return;
	}
	if (history.faults[fault]) {
		trace(NULL, fault_names[fault], 0, 0);
		inflict(fault);
	}
	event_set(&history.fault, NULL, world.now_us + (int64_t)rnd((uint64_t)history.fault_every_us * 2), on_fault, NULL);
}

/* ---- the plan ---- */

static double now_and_then(double share, double most)
{
	return chance(share) ? most * (double)rnd(100) / 100 : 0;
}

static void plan_faults(void)
{
	double share = history.wish.is_calm || chance(0.1) ? 0 : chance(0.5) ? 0.2 : 0.5;

	broker.delivery_us = rnd_between(1, chance(0.2) ? 500 : 20) * US_PER_MS;
	broker.commit_us = rnd_between(1, chance(0.2) ? 500 : 20) * US_PER_MS;
	broker.delivery_fails = now_and_then(share, 0.3);
	broker.delivery_unsure = now_and_then(share / 3, 0.1);
	history.is_hasty = chance(share / 3);
	history.is_unsure = broker.delivery_unsure > 0;
	broker.commit_fails = now_and_then(share, 0.5);
	broker.commit_unsure = now_and_then(share / 2, 0.3);
	broker.is_slow = now_and_then(share, 0.05);
	broker.producer_breaks = broker.is_exactly_once ? now_and_then(share, 0.1) : 0;
	broker.producer_room = chance(share) ? (size_t)rnd_between(1, 10) : 100000;
	broker.topic_max = chance(share) ? (size_t)rnd_between(chance(0.3) ? 300 : 3000, 8000) : SIZE_MAX;
	broker.dead_letter_max = chance(share) ? 1000 : SIZE_MAX;
	broker.rebalance_timeout_us = (history.is_hasty ? rnd_between(1, 6) : 300) * US_PER_S;
	for (int i = 0; i < FAULTS; i++)
		history.faults[i] = chance(share) && !history.wish.is_small;
	history.fault_every_us = rnd_between(200, 10000) * US_PER_MS;
	history.calm_at_us = world.now_us + (share > 0 ? rnd_between(5, 90) * US_PER_S : 0);
}

static void plan(void)
{
	const struct history_wish *wish = &history.wish;
	bool is_large = !wish->is_calm && chance(0.5);

	net_start(wish->is_calm ? 0 : chance(0.2) ? 0 : chance(0.5) ? 0.3 : 0.9, 5000);
	broker_start((int32_t)rnd_between(1, wish->is_small ? 2 : PARTS_MAX));
	coordinator_start();
	broker.is_exactly_once = wish->is_small ? world.seed & 1 : chance(0.4);
	history.is_named = chance(0.6);
	set_all();
	history.n_at_first = history.n_overrides;
	add_jobs();
	plan_faults();
	for (int32_t p = 0; p < broker.n_parts; p++)
		broker_show(p, rnd(broker.parts[p].n + 1));
	event_set(&history.show, NULL, world.now_us, show_more, NULL);
	event_set(&history.fault, NULL, world.now_us + history.fault_every_us, on_fault, NULL);
	event_set(&world.machines[0].boot, NULL, world.now_us, start, &world.machines[0]);
	for (int i = 1; i < (wish->is_small ? 2 : MACHINES_MAX) && is_large; i++)
		if (chance(0.4))
			event_set(&world.machines[i].boot, NULL, world.now_us + (int64_t)rnd(10 * US_PER_S), start, &world.machines[i]);
}

/* ---- the strike of --every-step ---- */

bool history_is_strike(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(strikes); i++)
		if (strcmp(strikes[i].name, name) == 0)
			return true;
	return false;
}

/* The machine that just turned; after a step of the broker's, anyone. */
static void strike(void)
{
	int first = world.turned ? world.turned->id : (int)rnd(2);

	for (int i = 0; i < MACHINES_MAX; i++) {
		struct machine *machine = &world.machines[(first + i) % MACHINES_MAX];
		for (size_t k = 0; k < ARRAY_LEN(strikes) && machine->worker; k++) {
			if (strcmp(strikes[k].name, history.wish.strike) != 0)
				continue;
			trace(machine, "struck", (int64_t)world.n_steps, 0);
			history.is_struck = true;
			inflict_on(machine, strikes[k].fault);
			return;
		}
	}
}

/* ---- the run ---- */

static void step(bool is_last)
{
	if (!world_step())
		fail("nothing will ever happen again");
	for (int i = 0; i < MACHINES_MAX; i++) {
		struct machine *machine = &world.machines[i];
		if (machine->worker && machine->loop->is_stopped)
			reap(machine, is_last);
		else if (machine == world.turned)
			check_machine(machine);
	}
	if (history.wish.strike_step == world.n_steps)
		strike();
	if (world.now_us - world.progress_us < STUCK_US && world.now_us < LONGEST_US)
		return;
	for (int i = 0; i < MACHINES_MAX; i++)
		print_machine(&world.machines[i]);
	fail("no job came nearer to its end for %.0f s", (double)(world.now_us - world.progress_us) / 1e6);
}

static void check_dead_letters(void)
{
	for (int32_t p = 0; p < broker.n_parts; p++)
		for (size_t i = 0; i < broker.parts[p].n; i++) {
			const struct rec *rec = &broker.parts[p].recs[i];
			if (rec->kind == JOB_NULL && !rec->dead_letters)
				fail("job %d/%" PRId64 " has no dead letter", p, rec->offset);
		}
}

/* Without a fault that may double, nothing is doubled: not even excusably. */
static void check_doubles(void)
{
	static const enum fault doubling[] = {FAULT_CRASH, FAULT_KICK, FAULT_FREEZE, FAULT_SECOND_SIGNAL};
	bool may_double = history.was_cut || history.is_unsure || history.is_hasty || history.is_struck || seen.given_up > history.given_up_before;

	for (size_t i = 0; i < ARRAY_LEN(doubling); i++)
		may_double |= history.faults[doubling[i]];
	if (!may_double && seen.excused > history.excused_before)
		fail("%" PRIu64 " results are doubled, and no fault of this history explains one",
		     seen.excused - history.excused_before);
}

static void end(void)
{
	int64_t rest_us = world.now_us + REST_US;
	bool has_dead_letters = false;

	trace(NULL, "all jobs are done", 0, 0);
	world.progress_us = world.now_us;
	while (world.now_us < rest_us)
		step(false);
	for (int i = 0; i < MACHINES_MAX; i++) {
		event_clear(&world.machines[i].boot);
		if (!world.machines[i].worker || world.machines[i].stop_at_us)
			continue;
		check_idle(&world.machines[i]);
		has_dead_letters = *world.machines[i].opts->dead_letter_topic;
		stop(&world.machines[i]);
	}
	if (has_dead_letters)
		check_dead_letters();
	for (int i = 0; i < MACHINES_MAX; i++)
		while (world.machines[i].worker)
			step(true);
	broker_is_done();
	check_doubles();
}

uint64_t history_run(uint64_t seed, const struct history_wish *wish)
{
	memset(&history, 0, sizeof(history));
	history.wish = *wish;
	world_start(seed);
	history.excused_before = seen.excused;
	history.given_up_before = seen.given_up;
	plan();
	while (!history.has_ended || !broker_is_done())
		step(false);
	uint64_t n_steps = world.n_steps;
	end();
	seen.histories++;
	event_clear(&history.fault);
	event_clear(&history.show);
	for (size_t i = 0; i < history.n_overrides; i++)
		free(history.overrides[i]);
	coordinator_done();
	broker_done();
	world_done();
	return n_steps;
}

void history_print(void)
{
	for (size_t i = 0; i < history.n_overrides; i++)
		fprintf(stderr, " -o %s", history.overrides[i]);
	fprintf(stderr, "\nmemory.max %" PRId64 " fails %.2f unsure %.2f, commits fail %.2f unsure %.2f, slow %.2f, faults:", history.memory_max,
		broker.delivery_fails, broker.delivery_unsure, broker.commit_fails, broker.commit_unsure, broker.is_slow);
	for (int i = 0; i < FAULTS; i++)
		if (history.faults[i])
			fprintf(stderr, " %s,", fault_names[i]);
	fprintf(stderr, "\nseed %" PRIu64 " at %.6f s, step %" PRIu64 ": repeat with  sim --seed %" PRIu64, world.seed,
		(double)world.now_us / 1e6, world.n_steps, world.seed);
	if (history.wish.is_small)
		fprintf(stderr, " --every-step=%s --step %" PRIu64, history.wish.strike, history.wish.strike_step);
	fprintf(stderr, " -v\n");
}
