#include "lifecycle.h"

#include "clock.h"
#include "fetch.h"
#include "health.h"
#include "helper.h"
#include "httpd.h"
#include "kafka_in.h"
#include "kafka_out.h"
#include "pipeline.h"
#include "report.h"
#include "resolve.h"

#include <signal.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

/* After the transfers of a revoked partition were cut, deliveries and the final commit have this long. */
#define REVOKE_DELIVER_US (3 * US_PER_S)
/* Of drain.timeout, what is kept for deliveries, the last commit and leaving the group. */
#define DRAIN_DELIVER_MS 5000
#define DRAIN_LEAVE_MS 1000
/* Descriptors that are not transfers: broker connections, log, HTTP port, epoll. */
#define FDS_RESERVED 128

/* At the end, what the helper still has to do (destroying the Kafka handles) may take this long. */
#define HELPER_WAIT_US (3 * US_PER_S)

enum phase { PHASE_RUNNING, PHASE_DRAINING, PHASE_LEAVING, PHASE_STOPPED };

struct worker {
	struct worker_config config;
	struct options *opts;
	struct log *log;
	struct metrics metrics;
	struct loop *loop;
	struct helper *helper;
	struct httpd *httpd;
	struct pipeline pl;
	struct netguard *guard;
	char *instance;
	enum phase phase;
	int exit_code;
	bool is_revoking;
	struct kafka_part **revoked; /* while is_revoking */
	size_t n_revoked;
	struct loop_timer cut;       /* drain.timeout is over */
	struct loop_timer second;    /* once a second: membership, health log */
	int64_t not_member_since_us; /* 0 = is a member */
	enum health_cause cause;     /* as last logged */
	int64_t unhealthy_since_us;  /* while cause is not HEALTH_OK */
	struct health_patience patience;
	struct netguard *old_guard;  /* replaced by a reload: freed with the worker, transfers may still look at it */
	struct tls_reload *tls;
};

/* ---- partitions come ---- */

static void on_assign(void *ctx, struct kafka_part *kafka)
{
	struct worker *worker = ctx;

	worker->pl.epoch++;
	worker->metrics.rebalances++;
	/* Another worker may have started a fetch of any of our hosts just now. */
	hosts_new_era(worker->pl.admit.hosts, loop_now_us(worker->loop));
	struct partition *part = pipeline_add_partition(&worker->pl, kafka);
	if (worker->phase != PHASE_RUNNING)
		pipeline_drain_partition(&worker->pl, part, 0, 0);
	log_info(worker->log, "partition assigned", LOG_STR("topic", kafka_part_topic(kafka)),
		 LOG_NUM("partition", kafka_part_partition(kafka)), LOG_NUM("epoch", worker->pl.epoch));
}

static void on_begin(void *ctx, struct kafka_part *kafka, int64_t offset, const char *metadata, size_t len)
{
	struct worker *worker = ctx;

	pipeline_begin_partition(&worker->pl, kafka_part_ctx(kafka), offset, metadata, len);
	log_info(worker->log, "partition begins", LOG_STR("topic", kafka_part_topic(kafka)),
		 LOG_NUM("partition", kafka_part_partition(kafka)), LOG_NUM("offset", offset), LOG_NUM("set_bytes", len));
}

/* ---- partitions go ---- */

static void finish_revoke(struct worker *worker)
{
	uint64_t before = worker->metrics.revoke_undelivered;

	worker->is_revoking = false;
	for (size_t i = 0; i < worker->n_revoked; i++)
		pipeline_remove_partition(&worker->pl, kafka_part_ctx(worker->revoked[i]));
	if (list_empty(&worker->pl.partitions)) {
		kafka_out_purge(worker->pl.out);
		dispatch_hold(worker->pl.dispatcher, false);
	}
	if (worker->metrics.revoke_undelivered != before)
		log_warn(worker->log, "the broker did not acknowledge results in time; those already sent may be doubled",
			 LOG_NUM("results", worker->metrics.revoke_undelivered - before));
	free(worker->revoked);
	worker->revoked = NULL;
	worker->n_revoked = 0;
	kafka_in_revoked(worker->pl.in);
}

static bool revoke_is_over(struct worker *worker)
{
	int64_t now_us = loop_now_us(worker->loop);

	for (size_t i = 0; i < worker->n_revoked; i++) {
		const struct partition *part = kafka_part_ctx(worker->revoked[i]);
		if (!pipeline_is_drained(part) && now_us < part->give_up_us)
			return false;
	}
	return true;
}

static void on_partition_drained(void *ctx);

static void on_revoke(void *ctx, struct kafka_part *const *parts, size_t n, bool is_lost)
{
	struct worker *worker = ctx;
	int64_t now_us = loop_now_us(worker->loop);
	int64_t cut_us = is_lost ? 0 : now_us + worker->opts->rebalance_drain * US_PER_MS;
	int64_t give_up_us = is_lost ? 0 : cut_us + REVOKE_DELIVER_US;

	worker->metrics.rebalances++;
	worker->metrics.assignments_lost += is_lost;
	log_info(worker->log, is_lost ? "partitions lost" : "partitions revoked", LOG_NUM("partitions", n));
	worker->is_revoking = true;
	worker->revoked = xmalloc((n + 1) * sizeof(*worker->revoked));
	worker->n_revoked = n;
	for (size_t i = 0; i < n; i++) {
		worker->revoked[i] = parts[i];
		pipeline_drain_partition(&worker->pl, kafka_part_ctx(parts[i]), cut_us, give_up_us);
	}
	/* It may be over at once, and be what a stop waits for. */
	on_partition_drained(worker);
}

/* ---- the stop ---- */

static void stop_now(struct worker *worker, int exit_code)
{
	worker->phase = PHASE_STOPPED;
	worker->exit_code = MAX(worker->exit_code, exit_code);
	loop_stop(worker->loop);
}

static void on_closed(void *ctx)
{
	stop_now(ctx, 0);
}

static bool all_drained(struct worker *worker)
{
	int64_t now_us = loop_now_us(worker->loop);

	LIST_EACH(&worker->pl.partitions, part, struct partition, node)
		if (!pipeline_is_drained(part) && now_us < part->give_up_us)
			return false;
	return true;
}

static void on_partition_drained(void *ctx)
{
	struct worker *worker = ctx;

	if (worker->is_revoking && revoke_is_over(worker))
		finish_revoke(worker);
	if (worker->phase == PHASE_DRAINING && !worker->is_revoking && all_drained(worker)) {
		worker->phase = PHASE_LEAVING;
		kafka_in_close(worker->pl.in, on_closed, worker);
	}
}

static void on_cut(void *ctx)
{
	struct worker *worker = ctx;

	log_error(worker->log, "drain.timeout is over: cut", LOG_NUM("open", worker->pl.tasks.in[TASK_DELIVERING].len));
	stop_now(worker, 1);
}

void worker_stop(struct worker *worker)
{
	struct pipeline *pl = &worker->pl;
	int64_t now_us = loop_now_us(worker->loop), total_ms = worker->opts->drain_timeout;

	if (worker->phase != PHASE_RUNNING) {
		log_warn(worker->log, "second signal: cut");
		stop_now(worker, 1);
		return;
	}
	log_info(worker->log, "draining", LOG_NUM("inflight", pl->admit.inflight), LOG_NUM("timeout_ms", total_ms));
	worker->phase = PHASE_DRAINING;
	pl->is_reading = false;
	int64_t cut_us = now_us + MAX(total_ms - DRAIN_DELIVER_MS, total_ms / 2) * US_PER_MS;
	int64_t give_up_us = now_us + MAX(total_ms - DRAIN_LEAVE_MS, total_ms * 3 / 4) * US_PER_MS;
	LIST_EACH(&pl->partitions, part, struct partition, node)
		pipeline_drain_partition(pl, part, cut_us, give_up_us);
	loop_timer_set(&worker->cut, now_us + total_ms * US_PER_MS);
	if (list_empty(&pl->partitions))
		on_partition_drained(worker);
}

static void on_fatal(void *ctx, int err, const char *detail)
{
	struct worker *worker = ctx;

	log_error(worker->log, "cannot go on", LOG_STR("code", err_code(err)), LOG_STR("detail", detail));
	stop_now(worker, 1);
}

/* ---- Kafka's events go to the pipeline ---- */

static void on_committed(void *ctx, int err, const char *detail)
{
	struct worker *worker = ctx;

	pipeline_on_committed(&worker->pl, err, detail);
}

static void on_plan(void *ctx, int64_t done, int64_t total)
{
	struct worker *worker = ctx;
	const struct worker_replay *replay = worker->config.replay;

	replay->on_progress(replay->ctx, done, total);
	if (done == total && worker->phase == PHASE_RUNNING)
		worker_stop(worker);
}

static void on_wake(void *ctx)
{
	struct worker *worker = ctx;

	pipeline_on_wake(&worker->pl);
}

static void on_delivered(void *ctx, struct delivery *delivery, int err)
{
	struct worker *worker = ctx;

	worker->pl.commit_waits = false;
	dispatch_on_delivered(worker->pl.dispatcher, delivery, err);
}

/* Exactly once. When nobody can say how a transaction ended, the stored offsets do: all partitions begin anew from them. */
static void on_txn(void *ctx, enum txn_end end, const char *detail)
{
	struct worker *worker = ctx;

	if (end == TXN_IN_DOUBT) {
		log_warn(worker->log, "a transaction's end is not known, all partitions begin anew from their stored offsets",
			 LOG_STR("detail", detail));
		if (worker->is_revoking)
			finish_revoke(worker); /* what is left of it is dropped */
		kafka_in_restart(worker->pl.in);
	}
	pipeline_on_txn(&worker->pl, end, detail);
	on_partition_drained(worker); /* the revoke that ended here may be what a stop waits for */
	loop_again(worker->loop);
}

static void on_room(void *ctx)
{
	struct worker *worker = ctx;

	worker->pl.commit_waits = false;
	dispatch_on_room(worker->pl.dispatcher);
	loop_again(worker->loop);
}

static void on_cut_off(void *ctx)
{
	struct worker *worker = ctx;

	pipeline_hold_output(&worker->pl);
}

/* ---- health ---- */

static struct health_facts facts_now(const struct worker *worker)
{
	return report_facts(&worker->pl, worker->phase != PHASE_RUNNING, worker->not_member_since_us);
}

/* Once for each cause, and once when all is well. */
static void log_health(struct worker *worker, const struct health_facts *facts)
{
	enum health_cause cause = health_judge(facts);
	int64_t now_us = loop_now_us(worker->loop);
	char detail[512];

	if (cause == worker->cause)
		return;
	if (cause == HEALTH_OK) {
		log_info(worker->log, "healthy again", LOG_STR("was", health_name(worker->cause)),
			 LOG_NUM("unhealthy_ms", (now_us - worker->unhealthy_since_us) / US_PER_MS));
	} else {
		health_explain(facts, cause, detail, sizeof(detail));
		log_warn(worker->log, "unhealthy", LOG_STR("cause", health_name(cause)), LOG_STR("detail", detail));
	}
	if (worker->cause == HEALTH_OK)
		worker->unhealthy_since_us = now_us;
	worker->cause = cause;
}

/* What is refused is seen on either side; which rights are missing is asked on one. */
static void look_at_rights(struct worker *worker)
{
	struct kafka_in *in = worker->pl.in;

	if (kafka_out_take_suspicion(worker->pl.out))
		kafka_in_suspect(in);
	kafka_in_deny_id(in, kafka_out_refused_id(worker->pl.out));
	kafka_out_deny(worker->pl.out, kafka_in_state(in) == KAFKA_STATE_DENIED);
}

static void on_second(void *ctx)
{
	struct worker *worker = ctx;
	int64_t now_us = loop_now_us(worker->loop);

	if (worker->phase == PHASE_STOPPED)
		return;
	if (kafka_in_is_member(worker->pl.in))
		worker->not_member_since_us = 0;
	else if (!worker->not_member_since_us)
		worker->not_member_since_us = now_us;
	look_at_rights(worker);
	struct health_facts facts = facts_now(worker);
	log_health(worker, &facts);
	const char *why = health_is_hopeless(&worker->patience, &facts, now_us);
	if (why)
		on_fatal(worker, -ERR_KAFKA, why);
	loop_timer_set(&worker->second, now_us + US_PER_S);
}

static int answer_health(const struct health_facts *facts, enum health_cause cause, struct buf *out)
{
	char detail[512];

	health_explain(facts, cause, detail, sizeof(detail));
	if (buf_printf(out, "%s%s%s\n", health_name(cause), *detail ? ": " : "", detail))
		return 500;
	return cause == HEALTH_OK ? 200 : 503;
}

static int on_request(void *ctx, const char *path, struct buf *out, const char **ret_type)
{
	struct worker *worker = ctx;
	struct health_facts facts = facts_now(worker);
	enum health_cause cause = health_judge(&facts);

	*ret_type = "text/plain; charset=utf-8";
	if (strcmp(path, "/metrics") == 0) {
		*ret_type = "text/plain; version=0.0.4; charset=utf-8";
		return report_metrics(&worker->pl, out, cause == HEALTH_OK) ? 500 : 200;
	}
	if (strcmp(path, "/livez") == 0)
		return answer_health(&facts, HEALTH_OK, out); /* a loop that stands still does not answer at all */
	if (strcmp(path, "/readyz") == 0)
		return answer_health(&facts, health_ready(&facts), out);
	if (strcmp(path, "/healthz") == 0)
		return answer_health(&facts, cause, out);
	if (strcmp(path, "/status") == 0) {
		*ret_type = "application/json";
		return report_status(&worker->pl, out, cause) ? 500 : 200;
	}
	return 404;
}

/* ---- reload ---- */

struct tls_reload {
	struct helper_job job;
	struct worker *worker;
	char *ca_file, *error;
	struct tls_store *store;
};

static void tls_reload_run(void *ctx)
{
	struct tls_reload *tls = ctx;

	tls->store = tls_store_load(tls->ca_file, &tls->error);
}

static void tls_reload_done(void *ctx)
{
	struct tls_reload *tls = ctx;
	struct worker *worker = tls->worker;

	if (worker->phase == PHASE_STOPPED)
		tls_store_free(tls->store);
	else if (tls->store)
		fetch_reload(worker->pl.fetch, worker->guard, tls->store);
	else
		log_error(worker->log, "tls.ca was not loaded, the old store stays", LOG_STR("detail", tls->error));
	worker->tls = NULL;
	free(tls->ca_file);
	free(tls->error);
	free(tls);
}

static void reload_tls(struct worker *worker)
{
	if (worker->tls)
		return;
	struct tls_reload *tls = xcalloc(1, sizeof(*tls));
	*tls = (struct tls_reload){.job = {.run = tls_reload_run, .done = tls_reload_done, .ctx = tls},
				   .worker = worker,
				   .ca_file = xstrdup(worker->opts->tls_ca)};
	worker->tls = tls;
	helper_submit(worker->helper, &tls->job);
}

static int make_guard(const struct options *opts, struct netguard **ret_guard, char **ret_error)
{
	return netguard_new(opts->guard_allow.v, opts->guard_allow.n, opts->guard_deny.v, opts->guard_deny.n, opts->guard_ports.v,
			    opts->guard_ports.n, ret_guard, ret_error);
}

static void log_lines(struct log *log, enum log_level level, const char *msg, char *lines)
{
	char *save = NULL;

	for (char *line = strtok_r(lines, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		LOG_AT(log, level, msg, LOG_STR("detail", line));
}

/* No file can ever serve all slots: lower the process's, with a warning. */
static void limit_by_fds(struct worker *worker)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	if (limit.rlim_cur == RLIM_INFINITY)
		return;
	int64_t most = MAX((int64_t)limit.rlim_cur - FDS_RESERVED, 1);
	if (worker->opts->inflight <= most)
		return;
	log_warn(worker->log, "inflight is lowered to what the limit of open files allows", LOG_NUM("inflight", most),
		 LOG_NUM("wanted", worker->opts->inflight));
	worker->opts->inflight = most;
}

void worker_reload(struct worker *worker)
{
	struct options *fresh = NULL;
	struct netguard *guard = NULL;
	char *errors = NULL, *warnings = NULL, *ignored = NULL;
	int err = worker->config.load(worker->config.ctx, &fresh, &errors, &warnings);

	if (!err)
		err = make_guard(fresh, &guard, &errors);
	if (warnings)
		log_lines(worker->log, LOG_WARN, "settings", warnings);
	if (err) {
		log_lines(worker->log, LOG_ERROR, "settings not reloaded", errors ? errors : (char[]){"unknown error"});
		options_free(fresh);
	} else {
		options_reload(worker->opts, fresh, &ignored);
		if (ignored)
			log_warn(worker->log, "changed settings that need a restart", LOG_STR("keys", ignored));
		/* The one before may still be looked at by transfers under way, the one before that may not. */
		netguard_free(worker->old_guard);
		worker->old_guard = worker->guard;
		worker->guard = worker->pl.guard = guard;
		fetch_reload(worker->pl.fetch, guard, NULL);
		resolve_reload(worker->pl.resolve, worker->opts->dns_timeout);
		limit_by_fds(worker);
		pipeline_apply_limits(&worker->pl);
		log_set(worker->log, (enum log_level)worker->opts->log_level, (enum log_format)worker->opts->log_format);
		reload_tls(worker);
		log_info(worker->log, "settings reloaded");
	}
	free(errors);
	free(warnings);
	free(ignored);
}

/* ---- the start ---- */

static void on_turn(void *ctx)
{
	struct worker *worker = ctx;

	if (worker->phase != PHASE_STOPPED)
		pipeline_turn(&worker->pl);
}

static void on_signal(void *ctx, int signum)
{
	struct worker *worker = ctx;

	if (worker->phase == PHASE_STOPPED)
		return;
	if (signum == SIGHUP)
		worker_reload(ctx);
	else
		worker_stop(ctx);
}

static char *make_instance(const struct options *opts)
{
	char host[128] = "localhost";
	uint32_t random = 0;

	if (*opts->instance)
		return xstrdup(opts->instance);
	gethostname(host, sizeof(host) - 1);
	if (getrandom(&random, sizeof(random), 0) < 0)
		random = (uint32_t)getpid();
	return xasprintf("%s-%08x", host, random);
}

static int start_io(struct worker *worker, char **ret_error)
{
	static const struct kafka_in_events in_events = {.on_assign = on_assign,
							 .on_begin = on_begin,
							 .on_revoke = on_revoke,
							 .on_committed = on_committed,
							 .on_wake = on_wake,
							 .on_plan = on_plan,
							 .on_fatal = on_fatal};
	static const struct kafka_out_events out_events = {
	    .on_delivered = on_delivered, .on_room = on_room, .on_cut_off = on_cut_off, .on_txn = on_txn, .on_fatal = on_fatal};
	struct options *opts = worker->opts;
	struct pipeline *pl = &worker->pl;
	const struct worker_replay *replay = worker->config.replay;
	struct tls_store *store;
	int err = make_guard(opts, &worker->guard, ret_error);

	if (err)
		return err;
	pl->guard = worker->guard;
	store = tls_store_load(opts->tls_ca, ret_error);
	if (!store)
		return -ERR_INVALID;
	pl->fetch = fetch_new(worker->loop, &worker->metrics, worker->log, worker->guard, store);
	err = resolve_new(worker->loop, &worker->metrics, worker->log, opts->dns_servers.v, opts->dns_servers.n, opts->dns_timeout,
			  &pl->resolve, ret_error);
	if (!err)
		err = kafka_out_new(worker->loop, worker->helper, &worker->metrics, worker->log, opts, worker->instance, &out_events,
				    worker, &pl->out, ret_error);
	if (err)
		return err;
	dispatcher_set_out(pl->dispatcher, pl->out);
	pl->replay = replay ? replay->jobs : NULL;
	err = kafka_in_new(worker->loop, worker->helper, &worker->metrics, worker->log, opts, replay ? replay->plan : NULL,
			   replay ? replay->n_plan : 0, &in_events, worker, &pl->in, ret_error);
	if (!err && *opts->http_listen)
		err = httpd_new(worker->loop, worker->log, opts->http_listen, opts->http_listen_is_default, on_request, worker,
				&worker->httpd, ret_error);
	return err;
}

int worker_new(const struct worker_config *config, struct worker **ret_worker, char **ret_error)
{
	struct worker *worker = xcalloc(1, sizeof(*worker));
	uint64_t seed = (uint64_t)clock_now_us();

	worker->config = *config;
	worker->opts = config->opts;
	worker->log = config->log;
	worker->instance = make_instance(worker->opts);
	worker->loop = loop_new(&worker->metrics, worker->log);
	if (!worker->loop) {
		*ret_error = xstrdup("the event loop could not be made");
		options_free(worker->opts);
		free(worker->instance);
		free(worker);
		return -ERR_SYSTEM;
	}
	limit_by_fds(worker);
	worker->helper = helper_new(worker->loop);
	if (getrandom(&seed, sizeof(seed), 0) < 0)
		seed ^= (uint64_t)getpid();
	pipeline_init(&worker->pl, worker->loop, &worker->metrics, worker->log, worker->opts, worker->instance, seed);
	worker->pl.helper = worker->helper;
	worker->pl.on_partition_drained = on_partition_drained;
	worker->pl.ctx = worker;
	loop_timer_init(worker->loop, &worker->cut, on_cut, worker);
	loop_timer_init(worker->loop, &worker->second, on_second, worker);
	int err = start_io(worker, ret_error);
	if (err) {
		worker_free(worker);
		return err;
	}
	loop_after_turn(worker->loop, on_turn, worker);
	loop_signal(worker->loop, SIGTERM, on_signal, worker);
	loop_signal(worker->loop, SIGINT, on_signal, worker);
	loop_signal(worker->loop, SIGHUP, on_signal, worker);
	worker->not_member_since_us = loop_now_us(worker->loop);
	loop_timer_set(&worker->second, loop_now_us(worker->loop));
	log_info(worker->log, "started", LOG_STR("instance", worker->instance), LOG_STR("version", GATHERD_VERSION));
	*ret_worker = worker;
	return 0;
}

int worker_run(struct worker *worker)
{
	loop_run(worker->loop);
	log_info(worker->log, "stopped", LOG_NUM("exit_code", worker->exit_code));
	return worker->exit_code;
}

void worker_free(struct worker *worker)
{
	struct pipeline *pl;

	if (!worker)
		return;
	pl = &worker->pl;
	worker->phase = PHASE_STOPPED; /* the loop turns once more for the helper: nothing below may be called from it */
	loop_timer_done(&worker->cut);
	loop_timer_done(&worker->second);
	if (worker->httpd)
		httpd_free(worker->httpd);
	if (pl->out)
		kafka_out_free(pl->out);
	pl->out = NULL;
	pipeline_done(pl);
	if (pl->in)
		kafka_in_free(pl->in);
	if (pl->resolve)
		resolve_free(pl->resolve);
	if (pl->fetch)
		fetch_free(pl->fetch);
	int64_t until_us = clock_now_us() + HELPER_WAIT_US;
	while (helper_pending(worker->helper) && clock_now_us() < until_us)
		loop_turn(worker->loop, 10 * US_PER_MS);
	helper_free(worker->helper, 100);
	loop_free(worker->loop);
	netguard_free(worker->old_guard);
	netguard_free(worker->guard);
	free(worker->revoked);
	free(worker->instance);
	options_free(worker->opts);
	free(worker);
}

bool worker_is_stopping(const struct worker *worker)
{
	return worker->phase != PHASE_RUNNING;
}

struct loop *worker_loop(struct worker *worker)
{
	return worker->loop;
}

struct pipeline *worker_pipeline(struct worker *worker)
{
	return &worker->pl;
}
