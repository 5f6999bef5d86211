/* The daemon with hindrances that cannot be made from outside, for tests/integration/test_health.py: each lasts while a file of its
 * name is in the folder that the environment variable HINDRANCES names.
 *
 * stall  each look at the consumer's queue takes 1.5 s of the loop
 * hang   it does not end
 * poll   the consumer's queue is not looked at, whatever wakes us
 * head   transfers that start now have lost their timers: their jobs overstay job.deadline
 * call   a blocking call into librdkafka, made by the helper, does not come back */
#include "fetch.h"
#include "kafka_in.h"
#include "loop.h"

#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <unistd.h>

#define STALL_US 1500000
#define STEP_US 50000

static bool is_on(const char *name)
{
	const char *folder = getenv("HINDRANCES");
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", folder ? folder : "", name);
	return folder && access(path, F_OK) == 0;
}

/* ---- the loop and the consumer's queue: kafka_in's first timer and its descriptor ---- */

static struct {
	bool is_making;
	struct loop_timer *timer;
	loop_fn on_timer;
	loop_fd_fn on_fd;
} queue;

int __real_kafka_in_new(struct loop *loop, struct helper *helper, struct metrics *metrics, struct log *log,
			const struct options *opts, const struct kafka_range *plan, size_t n_plan,
			const struct kafka_in_events *events, void *ctx, struct kafka_in **ret_in, char **ret_error);
int __wrap_kafka_in_new(struct loop *loop, struct helper *helper, struct metrics *metrics, struct log *log,
			const struct options *opts, const struct kafka_range *plan, size_t n_plan,
			const struct kafka_in_events *events, void *ctx, struct kafka_in **ret_in, char **ret_error);
void __real_loop_timer_init(struct loop *loop, struct loop_timer *timer, loop_fn fn, void *ctx);
void __wrap_loop_timer_init(struct loop *loop, struct loop_timer *timer, loop_fn fn, void *ctx);
void __real_loop_watch(struct loop *loop, int fd, loop_fd_fn fn, void *ctx);
void __wrap_loop_watch(struct loop *loop, int fd, loop_fd_fn fn, void *ctx);

int __wrap_kafka_in_new(struct loop *loop, struct helper *helper, struct metrics *metrics, struct log *log,
			const struct options *opts, const struct kafka_range *plan, size_t n_plan,
			const struct kafka_in_events *events, void *ctx, struct kafka_in **ret_in, char **ret_error)
{
	queue.is_making = true;
	int err = __real_kafka_in_new(loop, helper, metrics, log, opts, plan, n_plan, events, ctx, ret_in, ret_error);
	queue.is_making = false;
	return err;
}

/* By the clock: the watchdog's signal ends a sleep. */
static void __attribute__((noinline)) hold_the_loop(void)
{
	int64_t us = 0;

	while (is_on("hang") || (is_on("stall") && us < STALL_US)) {
		usleep(STEP_US);
		us += STEP_US;
	}
}

static void on_timer(void *ctx)
{
	hold_the_loop();
	if (is_on("poll"))
		loop_timer_set(queue.timer, loop_now_us(queue.timer->loop) + STEP_US);
	else
		queue.on_timer(ctx);
}

static void on_fd(void *ctx, int fd)
{
	uint64_t count;

	if (!is_on("poll"))
		queue.on_fd(ctx, fd);
	else if (read(fd, &count, sizeof(count)) < 0)
		return;
}

void __wrap_loop_timer_init(struct loop *loop, struct loop_timer *timer, loop_fn fn, void *ctx)
{
	if (!queue.is_making || queue.timer) {
		__real_loop_timer_init(loop, timer, fn, ctx);
		return;
	}
	queue.timer = timer;
	queue.on_timer = fn;
	__real_loop_timer_init(loop, timer, on_timer, ctx);
}

void __wrap_loop_watch(struct loop *loop, int fd, loop_fd_fn fn, void *ctx)
{
	if (queue.is_making) {
		queue.on_fd = fn;
		fn = on_fd;
	}
	__real_loop_watch(loop, fd, fn, ctx);
}

/* ---- transfers ---- */

int __real_fetch_start(struct fetch *fetch, const struct fetch_request *req, fetch_done_fn fn, void *ctx,
		       struct transfer **ret_transfer);
int __wrap_fetch_start(struct fetch *fetch, const struct fetch_request *req, fetch_done_fn fn, void *ctx,
		       struct transfer **ret_transfer);

int __wrap_fetch_start(struct fetch *fetch, const struct fetch_request *req, fetch_done_fn fn, void *ctx,
		       struct transfer **ret_transfer)
{
	struct fetch_request hindered = *req;

	if (is_on("head"))
		hindered.total_ms = hindered.stall_ms = 3600 * 1000;
	return __real_fetch_start(fetch, &hindered, fn, ctx, ret_transfer);
}

/* ---- the helper ---- */

rd_kafka_resp_err_t __real_rd_kafka_metadata(rd_kafka_t *rk, int all_topics, rd_kafka_topic_t *only,
					     const struct rd_kafka_metadata **ret_metadata, int timeout_ms);
rd_kafka_resp_err_t __wrap_rd_kafka_metadata(rd_kafka_t *rk, int all_topics, rd_kafka_topic_t *only,
					     const struct rd_kafka_metadata **ret_metadata, int timeout_ms);

rd_kafka_resp_err_t __wrap_rd_kafka_metadata(rd_kafka_t *rk, int all_topics, rd_kafka_topic_t *only,
					     const struct rd_kafka_metadata **ret_metadata, int timeout_ms)
{
	while (is_on("call"))
		usleep(STEP_US);
	return __real_rd_kafka_metadata(rk, all_topics, only, ret_metadata, timeout_ms);
}
