/* loop - the one event loop: time, timers, signals, work after each turn, loop lag.
 *
 * A turn: wait, run what is due, then the after-turn hooks in the order they were added (that is where memory that a
 * library's callback made free is freed, where turns are given out, and where queues are read).
 * Timer callbacks may set, clear or finish any timer, their own too. Layer 3 (libevent); the simulation has its own. */
#ifndef GATHERD_LOOP_H
#define GATHERD_LOOP_H

#include "base.h"
#include "log.h"
#include "metrics.h"

struct loop;
struct event_base;

typedef void (*loop_fn)(void *ctx);
typedef void (*loop_fd_fn)(void *ctx, int fd);

struct loop_timer {
	struct loop *loop;
	loop_fn fn;
	void *ctx;
	void *event; /* private */
};

/* metrics and log may be NULL. Ignores SIGPIPE. NULL when the system refuses. */
struct loop *loop_new(struct metrics *metrics, struct log *log);
void loop_free(struct loop *loop);
/* Logs what a turn over limit_us is doing, and ends the process at one of give_up_us (watchdog.h). Once, on the thread that will turn
 * the loop and free it. */
void loop_guard(struct loop *loop, int64_t limit_us, int64_t log_every_us, int64_t give_up_us);
/* Turns until loop_stop. */
void loop_run(struct loop *loop);
/* One turn that waits at most max_wait_us (tests, gatherctl). */
void loop_turn(struct loop *loop, int64_t max_wait_us);
void loop_stop(struct loop *loop);

/* The time of this turn, which begins with the first call: whoever is called by libevent itself makes it before anything
 * else, or its work counts for no turn. Epoch: clock_epoch_ms() of this turn. */
int64_t loop_now_us(struct loop *loop);
int64_t loop_epoch_ms(struct loop *loop);
/* Time of the last turn's end: any thread may ask (livez). */
int64_t loop_last_turn_us(const struct loop *loop);
/* The greatest lag of this and the last second, measured by a timer every 20 ms. */
int64_t loop_lag_us(const struct loop *loop);

void loop_timer_init(struct loop *loop, struct loop_timer *timer, loop_fn fn, void *ctx);
/* One shot. at_us on the monotonic clock; past = the next turn. */
void loop_timer_set(struct loop_timer *timer, int64_t at_us);
void loop_timer_clear(struct loop_timer *timer);
/* Safe on a zeroed or finished timer. */
void loop_timer_done(struct loop_timer *timer);

/* Runs fn after every turn. At most 16. */
void loop_after_turn(struct loop *loop, loop_fn fn, void *ctx);
/* No more: its owner goes while the loop still turns. Not from a hook. */
void loop_after_turn_clear(struct loop *loop, loop_fn fn, void *ctx);
/* Makes the next turn start without waiting. */
void loop_again(struct loop *loop);

/* fn when fd becomes readable, until loop_unwatch. At most 16 descriptors. */
void loop_watch(struct loop *loop, int fd, loop_fd_fn fn, void *ctx);
void loop_unwatch(struct loop *loop, int fd);
/* fn(ctx, signum) on the loop. */
void loop_signal(struct loop *loop, int signum, loop_fd_fn fn, void *ctx);

/* Runs fn(ctx) on the loop soon; any thread may call it. */
void loop_post(struct loop *loop, loop_fn fn, void *ctx);

/* For the other files of layer 3 only. */
struct event_base *loop_base(struct loop *loop);

#endif
