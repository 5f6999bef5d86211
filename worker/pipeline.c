/* The way of one URL:
 *
 *   on_message -> enqueue -> on_turn -> (on_resolved) -> start_fetch -> on_fetched -> finish -> on_result_acked -> pipeline_commit
 *                    ^___________________ retry, redirect hop _____________|
 *
 * and beside it: what cannot be understood or may not be fetched goes from on_message straight to finish; what expires goes there from
 * its timer; what a revoke or the stop lets go is dropped without a result, and fetched again by whoever owns the partition next. */
#include "pipeline.h"

#include "clock.h"

#include <strings.h>

#define READ_BATCH 256
#define READS_PER_TURN 512 /* those that only wait take no slot: they would keep the loop */
#define TURNS_PER_TURN 512
#define SWEEP_PER_TURN 16
#define SPREAD_WARN_US (600 * US_PER_S)
#define FAR_MS INT64_C(3155760000000) /* a hundred years */

static void enqueue(struct pipeline *pl, struct task *task);
static void start_fetch(struct pipeline *pl, struct task *task, const struct route *route, const struct addresses *addrs);
static void attempt_over(struct pipeline *pl, struct task *task, int err, const char *detail);
static void finish(struct pipeline *pl, struct task *task, int err, const char *detail);
static void back_off(struct pipeline *pl, struct task *task, int64_t wait_ms);

/* Counts what the task holds against memory.max. Payloads are counted by the dispatcher, running transfers by fetch. */
static void account(struct pipeline *pl, struct task *task)
{
	size_t bytes = task->arena.bytes;

	if (task->resp)
		bytes += sizeof(*task->resp) + task->resp->body.cap + task->resp->headers.cap;
	pl->task_bytes += bytes - task->bytes;
	task->bytes = bytes;
}

/* ---- 1. a record becomes a job ---- */

static int understand(struct pipeline *pl, struct task *task)
{
	const struct url *url = &task->url;
	const char *detail = NULL;
	struct route route;
	int err = job_decode(&task->arena, &task->rec, (enum job_format)pl->opts->job_format, task->arrived_at_ms, &task->job,
			     &detail);
	task->detail = detail;
	if (err)
		return err;
	err = url_parse(&task->arena, span_str(task->job.url), &task->url);
	if (err)
		return err;
	err = profile_check(pl->opts, &task->job);
	if (err)
		return err;
	const struct host_options *host = pipeline_profile(pl, task, url);
	task->limits = profile_limits(pl->opts, host, &task->job);
	err = profile_check_method(host, task->job.method);
	if (!err)
		err = pipeline_route_by(pl, task, host, &route);
	return err ? err : netguard_host(pl->guard, url->host, url->port);
}

/* A job may name any time: what is too far for microseconds is cut. */
static int64_t epoch_to_us(struct pipeline *pl, int64_t at_ms)
{
	return loop_now_us(pl->loop) + MIN(at_ms - loop_epoch_ms(pl->loop), FAR_MS) * US_PER_MS;
}

/* Replay: it is complete without a result. */
static void pass_over(struct pipeline *pl, struct task *task)
{
	window_finish(task->partition->win, task->rec.offset);
	list_remove(&task->open_node);
	pipeline_drop(pl, task);
}

static void begin(struct pipeline *pl, struct task *task)
{
	int err = understand(pl, task);

	account(pl, task);
	if (pl->replay && !pipeline_is_replayed(pl, task)) {
		pass_over(pl, task);
		return;
	}
	if (err) {
		finish(pl, task, err, task->detail);
		return;
	}
	if (task->job.not_before_at_ms > task->arrived_at_ms) {
		task_set_state(&pl->tasks, task, TASK_LATER);
		heap_set(&pl->timers, &task->timer, epoch_to_us(pl, task->job.not_before_at_ms));
		return;
	}
	enqueue(pl, task);
}

/* Opens its offset and begins; false when it is beyond the span and must wait. */
static bool open_task(struct pipeline *pl, struct partition *part, struct task *task)
{
	int err = window_accept(part->win, task->rec.offset);

	if (err == -ERR_FULL)
		return false;
	list_remove(&task->open_node);
	if (err) {
		pl->metrics->jobs_skipped++;
		pipeline_drop(pl, task);
		return true;
	}
	list_push(&part->open, &task->open_node);
	begin(pl, task);
	return true;
}

static void on_message(struct pipeline *pl, struct partition *part, const struct record *rec)
{
	pl->metrics->jobs_read++;
	if (rec->offset != part->next_read)
		pipeline_check_gap(pl, part, rec->offset);
	part->next_read = rec->offset + 1;
	struct task *task = task_new(&pl->tasks, rec, loop_now_us(pl->loop), loop_epoch_ms(pl->loop));
	task->partition = part;
	account(pl, task);
	if (!list_empty(&part->held) || !open_task(pl, part, task))
		list_push(&part->held, &task->open_node);
}

void pipeline_put(struct pipeline *pl, struct partition *part, const struct record *rec)
{
	on_message(pl, part, rec);
}

/* ---- 2. it waits for its turn ---- */

/* When a job that waits from now on is over: its deadline once it had a turn, expiry before that. */
static int64_t waiting_until_us(struct pipeline *pl, const struct task *task)
{
	int64_t until_us = INT64_MAX;

	if (task->first_turn_us)
		return task->first_turn_us + pl->opts->job_deadline * US_PER_MS;
	if (pl->opts->job_wait)
		until_us = loop_now_us(pl->loop) + pl->opts->job_wait * US_PER_MS;
	if (task->job.expires_at_ms)
		until_us = MIN(until_us, epoch_to_us(pl, task->job.expires_at_ms));
	return until_us;
}

static void waited_too_long(struct pipeline *pl, struct task *task)
{
	if (task->first_turn_us)
		finish(pl, task, -ERR_JOB_DEADLINE, NULL);
	else if (task->job.expires_at_ms && task->job.expires_at_ms <= loop_epoch_ms(pl->loop))
		finish(pl, task, -ERR_JOB_EXPIRED, NULL);
	else
		finish(pl, task, -ERR_JOB_WAITED, NULL);
}

/* Two partitions may be two machines after the next rebalance, and then the host's limits count on each of them. */
static void note_spread(struct pipeline *pl, const struct host *host)
{
	uint64_t n = hosts_counts(pl->admit.hosts).spread_total;
	int64_t now_us = loop_now_us(pl->loop);

	if (n == pl->n_spread)
		return;
	pl->n_spread = n;
	if (now_us < pl->spread_warned_us + SPREAD_WARN_US && pl->spread_warned_us)
		return;
	pl->spread_warned_us = now_us;
	log_warn(pl->log, "jobs of one host come from more than one partition: key jobs by host, or its limits count for each worker alone",
		 LOG_STR("host", host_key(host)));
}

static void enqueue(struct pipeline *pl, struct task *task)
{
	int64_t now_us = loop_now_us(pl->loop), until_us = waiting_until_us(pl, task), delay_us;

	if (until_us <= now_us) {
		waited_too_long(pl, task);
		return;
	}
	if (until_us != INT64_MAX)
		heap_set(&pl->timers, &task->timer, until_us);
	int err = pipeline_robots_gate(pl, task, &delay_us);
	account(pl, task);
	if (err == -ERR_AGAIN) {
		task_set_state(&pl->tasks, task, TASK_ROBOTS);
		return;
	}
	if (err) {
		finish(pl, task, err, NULL);
		return;
	}
	const struct url *url = task_url(task);
	struct host *host = hosts_get(pl->admit.hosts, url->key, profile_of_host(pl->opts, url->host), now_us);
	if (!task->asks_url)
		host_set_delay(host, delay_us);
	task_set_state(&pl->tasks, task, TASK_WAITING);
	admit_wait(&task->partition->admit, &task->turn, host, now_us);
	note_spread(pl, host);
}

/* Those whose robots.txt is known by now go on; where who asked gave up, the next one asks. */
static void after_robots(struct pipeline *pl)
{
	struct task *task;

	for (int n = 0; n < TURNS_PER_TURN && (task = pipeline_robots_due(pl)); n++) {
		heap_remove(&pl->timers, &task->timer);
		enqueue(pl, task);
	}
}

static void on_timer(struct pipeline *pl, struct task *task)
{
	switch (task->state) {
	case TASK_LATER:
	case TASK_BACKOFF:
		enqueue(pl, task);
		return;
	case TASK_WAITING:
		admit_leave(&task->turn, loop_now_us(pl->loop));
		waited_too_long(pl, task);
		return;
	case TASK_ROBOTS:
		waited_too_long(pl, task);
		return;
	default:
		assert(!"a timer in a state that has none");
	}
}

/* ---- 3. its turn: slots are held from here ---- */

static int64_t deadline_us(const struct pipeline *pl, const struct task *task)
{
	return task->first_turn_us + pl->opts->job_deadline * US_PER_MS;
}

static void note_first_turn(struct pipeline *pl, struct task *task)
{
	int64_t now_us = loop_now_us(pl->loop);

	if (task->first_turn_us)
		return;
	task->first_turn_us = now_us;
	task->start_at_ms = loop_epoch_ms(pl->loop);
	task->queued_us = MAX(now_us - task->arrived_us - task->turn.politeness_us, 0);
	hist_observe(&pl->metrics->queued_seconds, now_us - task->arrived_us);
}

static void on_resolved(void *ctx, int err, const struct addresses *addrs, int64_t dns_us);

static void name_failed(struct pipeline *pl, struct task *task, int err, bool is_proxy)
{
	attempt_over(pl, task, is_proxy ? -ERR_PROXY_FAILED : err, is_proxy ? err_text(err) : NULL);
}

static void on_turn(struct pipeline *pl, struct task *task)
{
	struct addresses addrs = {.n = 0};
	struct route route;

	heap_remove(&pl->timers, &task->timer);
	if (task->turn.is_down && task->asks_hops) {
		attempt_over(pl, task, host_down_err(task->turn.host), NULL);
		return;
	}
	if (task->turn.is_down) {
		int cause = host_down_err(task->turn.host);
		task->outcome = err_outcome(cause);
		finish(pl, task, -ERR_HOST_DOWN, err_text(cause));
		return;
	}
	note_first_turn(pl, task);
	task->retry_after_ms = 0; /* it was the answer's before this attempt */
	int err = pipeline_route(pl, task, &route);
	if (err) {
		attempt_over(pl, task, err, NULL);
		return;
	}
	const char *name = pipeline_name_of_peer(&route, task_url(task));
	if (name)
		err = resolve_cached(pl->resolve, name, &addrs);
	if (err == -ERR_AGAIN) {
		task_set_state(&pl->tasks, task, TASK_RESOLVING);
		admit_set_resolving(&task->turn, true);
		if (!task->query)
			task->query = arena_zalloc(&task->arena, sizeof(*task->query));
		task->asked = arena_strndup(&task->arena, name, strlen(name));
		resolve_start(pl->resolve, task->asked, task->query, on_resolved, task);
	} else if (err) {
		name_failed(pl, task, err, route.proxy);
	} else {
		start_fetch(pl, task, &route, &addrs);
	}
}

static void on_resolved(void *ctx, int err, const struct addresses *addrs, int64_t dns_us)
{
	struct task *task = ctx;
	struct route route;
	struct pipeline *pl = CONTAINER_OF(task->turn.part->admit, struct pipeline, admit);

	task->query = NULL;
	task->dns_us += dns_us;
	admit_set_resolving(&task->turn, false);
	int route_err = pipeline_route(pl, task, &route);
	const char *name = route_err ? NULL : pipeline_name_of_peer(&route, task_url(task));
	if (route_err)
		attempt_over(pl, task, route_err, NULL);
	else if (err)
		name_failed(pl, task, err, route.proxy);
	else if (!name || strcmp(name, task->asked) != 0)
		attempt_over(pl, task, -ERR_PROXY_FAILED, "the settings changed while the name was looked up");
	else
		start_fetch(pl, task, &route, addrs);
}

/* ---- 4. the fetch ---- */

static void on_fetched(void *ctx, struct response *resp);

static void start_fetch(struct pipeline *pl, struct task *task, const struct route *route, const struct addresses *resolved)
{
	struct addresses addrs = *resolved;
	int64_t left_ms = (deadline_us(pl, task) - loop_now_us(pl->loop)) / US_PER_MS;
	const struct job *job = &task->job;
	size_t n_headers;

	int err = left_ms > 0 ? pipeline_guard(pl, route, task_url(task), &addrs) : -ERR_JOB_DEADLINE;
	if (pl->watch)
		pl->watch->on_start(pl->watch->ctx, task, route, resolved, err);
	if (err) {
		attempt_over(pl, task, err, NULL);
		return;
	}
	const struct header *headers = task_headers(task, route->secret, &n_headers);
	struct fetch_request req = {
		.url = task_url(task),
		.addrs = &addrs,
		.method = job->method,
		.body = job->body,
		.headers = headers,
		.n_headers = n_headers,
		.if_none_match = job->if_none_match,
		.if_modified_since = job->if_modified_since,
		.user_agent = pl->opts->user_agent,
		.connect_ms = task->limits.connect_ms,
		.total_ms = MIN(task->limits.total_ms, left_ms),
		.stall_ms = task->limits.stall_ms,
		.body_max_bytes = (size_t)task->limits.body_max_bytes,
		.body_overflow_fails = pl->opts->body_overflow == BODY_OVERFLOW_FAIL,
		.body_mode = job->body_mode,
		.is_http2 = task->limits.is_http2,
		.tls_verify = pl->opts->tls_verify,
		.host_slot = task->turn.host_slot,
		.proxy = route->proxy,
	};
	if (task->asks_url)
		pipeline_robots_request(pl, &req);
	task_set_state(&pl->tasks, task, TASK_FETCHING);
	pl->metrics->attempts++;
	err = fetch_start(pl->fetch, &req, on_fetched, task, &task->transfer);
	if (err)
		attempt_over(pl, task, err, NULL);
}

static void observe(struct pipeline *pl, const struct response *resp)
{
	struct metrics *metrics = pl->metrics;

	if (resp->is_new_connection) {
		metrics->connections++;
		hist_observe(&metrics->connect_seconds, resp->connect_us);
		if (resp->tls_us)
			hist_observe(&metrics->tls_seconds, resp->tls_us);
	}
	if (resp->first_byte_us)
		hist_observe(&metrics->first_byte_seconds, resp->first_byte_us);
	hist_observe(&metrics->fetch_seconds, resp->total_us);
	metrics->wire_bytes += (uint64_t)resp->wire_length;
}

static enum host_report report_of(int err, int status)
{
	if (!err && (status == 429 || status == 503))
		return HOST_OVERLOADED;
	if (err == -ERR_ADDRESS_DENIED || err == -ERR_PROXY_FAILED || err == -ERR_CONNECT_NO_FDS || err_outcome(err) == OUTCOME_DNS ||
	    err_outcome(err) == OUTCOME_CANCELLED || err_outcome(err) == OUTCOME_INTERNAL)
		return err ? HOST_NOT_TRIED : HOST_REACHED;
	return err_outcome(err) == OUTCOME_CONNECT ? HOST_UNREACHABLE : HOST_REACHED;
}

static void release(struct pipeline *pl, struct task *task, enum host_report report, int err)
{
	const char *key = host_key(task->turn.host);

	if (admit_release(&task->turn, loop_now_us(pl->loop), report, err)) {
		pl->metrics->breaker_opened++;
		log_warn(pl->log, "host is down: its jobs are answered without an attempt until a probe succeeds",
			 LOG_STR("host", key), LOG_STR("cause", err_code(err)));
	}
}

/* Retry-After holds the host back, for those answers that RFC 9110 gives it a meaning for. */
static void note_retry_after(struct pipeline *pl, struct task *task, const struct response *resp)
{
	struct span value;

	task->retry_after_ms = 0;
	if ((resp->status != 429 && resp->status != 503) || !response_header(resp, "Retry-After", &value))
		return;
	task->retry_after_ms = retry_after_ms(value, loop_epoch_ms(pl->loop));
	int64_t hold_ms = MIN(task->retry_after_ms, host_options(task->turn.host)->host_backoff_max);
	host_hold_until(task->turn.host, loop_now_us(pl->loop) + hold_ms * US_PER_MS);
}

static bool is_redirect(const struct task *task, const struct response *resp)
{
	switch (resp->status) {
	case 301:
	case 302:
	case 303:
	case 307:
	case 308:
		return task->limits.max_redirects > 0;
	default:
		return false;
	}
}

/* A hop is a new admission: policy, guard, host slot. False when it was the last one, and *ret_err says why. */
static bool follow(struct pipeline *pl, struct task *task, struct response *resp, int *ret_err)
{
	struct span location;
	struct url url;

	*ret_err = -ERR_HTTP_STATUS;
	if (!is_redirect(task, resp) || !response_header(resp, "Location", &location))
		return false;
	*ret_err = url_resolve(&task->arena, &task->url, location, &url);
	if (*ret_err && err_outcome(*ret_err) == OUTCOME_BAD_JOB)
		*ret_err = -ERR_REDIRECT_BAD; /* the server's fault, not the job's */
	if (!*ret_err)
		*ret_err = task_follow(task, &url, resp, location);
	if (!*ret_err)
		*ret_err = profile_check_method(pipeline_profile(pl, task, &url), task->job.method);
	if (!*ret_err)
		*ret_err = netguard_host(pl->guard, url.host, url.port);
	if (*ret_err)
		return false;
	pl->metrics->redirects++;
	return true;
}

/* What the turn was for was a robots.txt: the next hop of it, or the job itself. */
static void on_robots_fetched(struct pipeline *pl, struct task *task, struct response *resp)
{
	int err = pipeline_robots_answer(pl, task, resp);

	task_set_response(task, resp);
	account(pl, task);
	if (err) {
		attempt_over(pl, task, err, resp->detail[0] ? resp->detail : NULL);
		return;
	}
	task_set_response(task, NULL);
	if (task->partition->is_draining)
		pipeline_drop(pl, task);
	else
		enqueue(pl, task);
}

static void on_fetched(void *ctx, struct response *resp)
{
	struct task *task = ctx;
	struct pipeline *pl = CONTAINER_OF(task->turn.part->admit, struct pipeline, admit);
	int err = resp->err;

	task->transfer = NULL;
	observe(pl, resp);
	if (pl->watch)
		pl->watch->on_answer(pl->watch->ctx, task, resp);
	if (!err)
		note_retry_after(pl, task, resp);
	release(pl, task, report_of(resp->err, resp->status), resp->err ? resp->err : resp->status);
	if (task->asks_url) {
		on_robots_fetched(pl, task, resp);
		return;
	}
	if (!err)
		err = result_judge(&task->job, resp, &task->outcome);
	if (err == -ERR_HTTP_STATUS && follow(pl, task, resp, &err)) {
		response_done(resp);
		free(resp);
		if (task->partition->is_draining)
			pipeline_drop(pl, task);
		else
			enqueue(pl, task);
		return;
	}
	task_set_response(task, resp);
	account(pl, task);
	attempt_over(pl, task, err, resp->detail[0] ? resp->detail : NULL);
}

/* ---- 5. again, or the end ---- */

/* xorshift64*: only spreads retries, needs no more than that. */
static uint32_t next_random(struct pipeline *pl)
{
	pl->random ^= pl->random >> 12;
	pl->random ^= pl->random << 25;
	pl->random ^= pl->random >> 27;
	return (uint32_t)((pl->random * UINT64_C(2685821657736338717)) >> 32);
}

static void back_off(struct pipeline *pl, struct task *task, int64_t wait_ms)
{
	if (task->partition->is_draining) {
		pipeline_drop(pl, task);
		return;
	}
	task_set_response(task, NULL);
	account(pl, task);
	task_set_state(&pl->tasks, task, TASK_BACKOFF);
	heap_set(&pl->timers, &task->timer, loop_now_us(pl->loop) + wait_ms * US_PER_MS);
}

/* An attempt at robots.txt failed. False when that ends the job as its own attempt would: its origin cannot be reached at all, or it
 * has no time left. */
static bool robots_failed(struct pipeline *pl, struct task *task, int err, int status, int64_t left_ms)
{
	enum outcome outcome = err_outcome(err);

	if (left_ms <= 0 || (!task->asks_hops && (outcome == OUTCOME_DNS || outcome == OUTCOME_CONNECT || outcome == OUTCOME_TLS ||
						  outcome == OUTCOME_BLOCKED_ADDRESS)))
		return false;
	int64_t wait_ms = retry_wait_ms(&task->limits.retry, err, status, "GET", ++task->asks_attempts, task->retry_after_ms, left_ms,
					next_random(pl));
	if (wait_ms < 0)
		pipeline_robots_unreachable(pl, task);
	back_off(pl, task, MAX(wait_ms, 0));
	return true;
}

/* One attempt is over; err 0 = it was a success. Decides on another one. */
static void attempt_over(struct pipeline *pl, struct task *task, int err, const char *detail)
{
	int64_t now_us = loop_now_us(pl->loop), left_ms = (deadline_us(pl, task) - now_us) / US_PER_MS;
	const struct response *resp = task->resp;
	int status = err == -ERR_HTTP_STATUS && resp ? resp->status : 0;
	enum outcome outcome = err == -ERR_HTTP_STATUS || !err ? task->outcome : err_outcome(err);

	release(pl, task, HOST_NOT_TRIED, err);
	if (task->asks_url && robots_failed(pl, task, err, status, left_ms))
		return;
	if (left_ms <= 0 && err)
		err = -ERR_JOB_DEADLINE;
	task->attempts_made++;
	int64_t wait_ms = err ? retry_wait_ms(&task->limits.retry, err, status, task->job.method, task->attempts_made,
					      task->retry_after_ms, left_ms, next_random(pl))
			      : -1;
	task_add_attempt(task, outcome, resp ? resp->status : 0, resp ? resp->total_us / US_PER_MS : 0, MAX(wait_ms, 0));
	if (pl->watch)
		pl->watch->on_attempt(pl->watch->ctx, task, err, detail, wait_ms);
	if (wait_ms < 0) {
		finish(pl, task, err, detail);
	} else {
		pl->metrics->retries += !task->partition->is_draining;
		back_off(pl, task, wait_ms);
	}
}

/* The one terminal outcome. err 0: task->outcome says OK or NOT_MODIFIED. */
static void finish(struct pipeline *pl, struct task *task, int err, const char *detail)
{
	heap_remove(&pl->timers, &task->timer);
	pipeline_robots_leave(task);
	task->err = err;
	if (err && err != -ERR_HOST_DOWN)
		task->outcome = err_outcome(err);
	task->detail = detail;
	task->end_at_ms = loop_epoch_ms(pl->loop);
	task->retryable = err && retry_may_help(err, task->resp ? task->resp->status : 0);
	if (pl->watch) {
		pl->watch->on_end(pl->watch->ctx, task);
		return;
	}
	task_set_state(&pl->tasks, task, TASK_DELIVERING);
	dispatch_send(pl->dispatcher, task);
	account(pl, task); /* the body went into the payload */
}

/* Without a result: the job is not complete, the next owner reads it again. */
void pipeline_drop(struct pipeline *pl, struct task *task)
{
	heap_remove(&pl->timers, &task->timer);
	pipeline_robots_leave(task);
	admit_leave(&task->turn, loop_now_us(pl->loop));
	if (task->query)
		resolve_cancel(task->query);
	task->query = NULL;
	if (task->transfer)
		fetch_cancel(task->transfer);
	task->transfer = NULL;
	admit_release(&task->turn, loop_now_us(pl->loop), HOST_NOT_TRIED, -ERR_CANCELLED);
	pl->task_bytes -= task->bytes;
	task_free(task);
}

/* ---- 6. the result is acknowledged: the offset is complete ---- */

static void on_result_acked(void *ctx, struct task *task)
{
	struct pipeline *pl = ctx;
	struct partition *part = task->partition;

	window_finish(part->win, task->rec.offset);
	list_remove(&task->open_node);
	pl->uncommitted++;
	while (!list_empty(&part->held)) {
		struct task *held = LIST_ENTRY(list_first(&part->held), struct task, open_node);
		if (!open_task(pl, part, held))
			return;
	}
}

/* At least once at the same time; exactly once with the commit. */
static void on_result_done(void *ctx, struct task *task)
{
	struct pipeline *pl = ctx;

	pl->task_bytes -= task->bytes;
	dispatch_free_task(pl->dispatcher, task);
}

/* ---- 7. the commit: pipeline_commit.c ---- */

/* ---- reading ---- */

static bool may_read(const struct pipeline *pl, const struct partition *part)
{
	return pl->is_reading && part->may_read && !part->is_dry && !part->is_draining && list_empty(&part->held) &&
	       (!part->win || !window_is_full(part->win));
}

static bool memory_is_over(const struct pipeline *pl, int64_t percent)
{
	return (int64_t)pipeline_bytes(pl) > pl->opts->memory_max / 100 * percent;
}

/* Up to the free slots; jobs that wait for their host are not counted, so reading goes on past them. */
static size_t read_partition(struct pipeline *pl, struct partition *part)
{
	struct record recs[READ_BATCH];
	size_t batch = MIN(MAX(READS_PER_TURN / pl->partitions.len, (size_t)1), (size_t)READ_BATCH);
	size_t room = MIN(MIN((size_t)admit_room(&part->admit), batch), pipeline_pace_room(pl));

	if (part->win)
		room = MIN(room, (size_t)(pl->opts->partition_window - window_span(part->win)));
	if (!room)
		return 0;
	size_t n = kafka_in_read(part->kafka, recs, room);
	part->is_dry = n == 0;
	for (size_t i = 0; i < n; i++)
		on_message(pl, part, &recs[i]);
	return n;
}

static void give_turns(struct pipeline *pl)
{
	int64_t now_us = loop_now_us(pl->loop);
	struct turn *turn;

	if (!memory_is_over(pl, 100)) {
		int n = 0;
		while (n < TURNS_PER_TURN && (turn = admit_next(&pl->admit, now_us))) {
			on_turn(pl, CONTAINER_OF(turn, struct task, turn));
			n++;
		}
		if (n == TURNS_PER_TURN)
			loop_again(pl->loop);
		return;
	}
	/* Memory is short: only the lowest open job of each partition, so that the commit point always moves. */
	LIST_EACH(&pl->partitions, part, struct partition, node) {
		struct task *task = LIST_ENTRY(list_first(&part->open), struct task, open_node);
		if (task && task->state == TASK_ROBOTS && robots_origin_asker(task->robots))
			task = robots_origin_asker(task->robots);
		if (task && task->state == TASK_WAITING && admit_take(&task->turn, now_us))
			on_turn(pl, task);
	}
}

/* Reads and gives turns by turns until the slots are full or the queues empty. */
static void read_and_start(struct pipeline *pl)
{
	size_t n = 1;

	give_turns(pl);
	for (size_t total = 0; n && total < READS_PER_TURN; total += n) {
		n = 0;
		LIST_EACH(&pl->partitions, part, struct partition, node) {
			if (may_read(pl, part) && !memory_is_over(pl, 90))
				n += read_partition(pl, part);
		}
		give_turns(pl);
	}
	if (n)
		loop_again(pl->loop);
}

/* Far over memory.max all transfers but the one longest under way stand still. */
static void pause_or_resume(struct pipeline *pl)
{
	const struct list *fetching = &pl->tasks.in[TASK_FETCHING];
	bool is_over = memory_is_over(pl, pl->is_paused ? 100 : 110);

	if (!is_over && !pl->is_paused)
		return;
	LIST_EACH(fetching, task, struct task, node)
		fetch_pause(task->transfer, is_over && &task->node != list_first(fetching));
	pl->is_paused = is_over;
}

/* ---- one turn of the loop ---- */

static void run_timers(struct pipeline *pl)
{
	int64_t now_us = loop_now_us(pl->loop);

	for (struct heap_node *node; (node = heap_first(&pl->timers)) && node->at_us <= now_us;) {
		heap_remove(&pl->timers, node);
		on_timer(pl, CONTAINER_OF(node, struct task, timer));
	}
}

/* Past its time, a draining partition aborts its transfers. When to look again; 0 when it is done. */
static int64_t drain_partition(struct pipeline *pl, struct partition *part)
{
	int64_t now_us = loop_now_us(pl->loop);

	LIST_EACH(&part->open, task, struct task, open_node) {
		if (task->state != TASK_DELIVERING && now_us >= part->cut_us)
			pipeline_drop(pl, task);
	}
	if (pipeline_is_drained(part) || now_us >= part->give_up_us)
		return 0;
	return now_us < part->cut_us ? part->cut_us : part->give_up_us;
}

/* When to look again; INT64_MAX when nothing drains. */
static int64_t drain(struct pipeline *pl)
{
	int64_t wake_us = INT64_MAX;
	bool is_any_done = false;

	LIST_EACH(&pl->partitions, part, struct partition, node) {
		int64_t at_us = part->is_draining ? drain_partition(pl, part) : INT64_MAX;
		is_any_done |= at_us == 0;
		wake_us = MIN(wake_us, at_us ? at_us : INT64_MAX);
	}
	if (is_any_done)
		pl->on_partition_drained(pl->ctx);
	return wake_us;
}

void pipeline_turn(void *ctx)
{
	struct pipeline *pl = ctx;
	int64_t now_us = loop_now_us(pl->loop), wake_us;

	run_timers(pl);
	after_robots(pl);
	admit_tick(&pl->admit, now_us);
	read_and_start(pl);
	pause_or_resume(pl);
	admit_sweep(&pl->admit, now_us, SWEEP_PER_TURN);
	pipeline_robots_trim(pl);
	pipeline_reach_stops(pl);
	pipeline_watch_output(pl);
	if (pipeline_commit_due_us(pl) <= now_us)
		pipeline_commit(pl);
	wake_us = drain(pl);
	wake_us = MIN(wake_us, MIN(pipeline_commit_due_us(pl), admit_wake_us(&pl->admit)));
	const struct heap_node *timer = heap_first(&pl->timers);
	if (timer)
		wake_us = MIN(wake_us, timer->at_us);
	if (pl->pace_us > now_us)
		wake_us = MIN(wake_us, pl->pace_us);
	if (wake_us != INT64_MAX)
		loop_timer_set(&pl->wake, wake_us);
}

/* ---- made and unmade ---- */

static bool needs_name(void *ctx, struct turn *turn)
{
	struct pipeline *pl = ctx;
	const struct task *task = CONTAINER_OF(turn, struct task, turn);
	struct addresses addrs;
	struct route route;
	const char *name = pipeline_route(pl, task, &route) ? NULL : pipeline_name_of_peer(&route, task_url(task));

	return name && resolve_cached(pl->resolve, name, &addrs) == -ERR_AGAIN;
}

static void on_nothing(void *ctx)
{
}

static const struct dispatch_events dispatch_events = {.on_acked = on_result_acked, .on_done = on_result_done};

void pipeline_init(struct pipeline *pl, struct loop *loop, struct metrics *metrics, struct log *log, struct options *opts,
		   const char *instance, uint64_t seed)
{
	*pl = (struct pipeline){.loop = loop, .metrics = metrics, .log = log, .opts = opts, .instance = instance, .is_reading = true};
	pl->random = seed | 1;
	admit_init(&pl->admit, (int32_t)opts->inflight, (int32_t)opts->partition_inflight, needs_name, pl);
	pl->robots = robots_cache_new();
	pipeline_robots_reload(pl);
	list_init(&pl->partitions);
	task_lists_init(&pl->tasks);
	heap_init(&pl->timers);
	/* The wake timer only makes a turn happen; what is due is done after it. */
	loop_timer_init(loop, &pl->wake, on_nothing, NULL);
	pl->dispatcher = dispatcher_new(loop, metrics, log, opts, instance, &dispatch_events, pl);
}

void pipeline_done(struct pipeline *pl)
{
	LIST_EACH(&pl->partitions, part, struct partition, node)
		pipeline_remove_partition(pl, part);
	/* What moved away and never came back from the producer. */
	LIST_EACH(&pl->tasks.in[TASK_DELIVERING], task, struct task, node)
		dispatch_free_task(pl->dispatcher, task);
	dispatcher_free(pl->dispatcher);
	loop_timer_done(&pl->wake);
	heap_done(&pl->timers);
	robots_cache_free(pl->robots);
	admit_done(&pl->admit);
}

static void refresh_host(void *ctx, struct host *host)
{
	struct pipeline *pl = ctx;
	const char *key = host_key(host), *colon = strrchr(key, ':');
	size_t len = (size_t)(colon - key);
	char *name = *key == '[' ? xstrndup(key + 1, len - 2) : xstrndup(key, len);

	host_set_options(host, profile_of_host(pl->opts, name));
	free(name);
}

void pipeline_apply_limits(struct pipeline *pl)
{
	pipeline_robots_reload(pl);
	hosts_each(pl->admit.hosts, refresh_host, pl);
	admit_set_limits(&pl->admit, (int32_t)pl->opts->inflight, (int32_t)pl->opts->partition_inflight, loop_now_us(pl->loop));
}

size_t pipeline_bytes(const struct pipeline *pl)
{
	return pl->task_bytes + robots_cache_bytes(pl->robots) + dispatch_bytes(pl->dispatcher) + (pl->fetch ? fetch_bytes(pl->fetch) : 0);
}
