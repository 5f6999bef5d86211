#include "loop.h"
#include "clock.h"
#include "list.h"
#include "watchdog.h"

#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define HOOKS_MAX 16
#define WATCHES_MAX 16
#define SIGNALS_MAX 8
#define LAG_PERIOD_US (20 * US_PER_MS)

struct hook {
	loop_fn fn;
	void *ctx;
};

/* A watched descriptor or signal. */
struct watch {
	struct loop *loop;
	struct event *event; /* NULL = free */
	loop_fd_fn fn;
	void *ctx;
};

struct post {
	struct list_node node;
	loop_fn fn;
	void *ctx;
};

struct loop {
	struct event_base *base;
	struct metrics *metrics;
	struct log *log;
	struct watchdog *dog; /* NULL = none */
	bool is_stopping, is_again, is_turning;
	int64_t now_us;	  /* 0 = not read in this turn */
	int64_t epoch_ms; /* 0 = not read in this turn */
	_Atomic int64_t last_turn_us;

	struct hook hooks[HOOKS_MAX];
	size_t n_hooks;
	struct watch watches[WATCHES_MAX];
	struct watch signals[SIGNALS_MAX];
	struct event *max_wait;

	struct loop_timer lag_timer;
	int64_t lag_due_us;
	int64_t lag_since_us, lag_max_us, lag_before_us; /* greatest of the second that began then, and of the one before */

	pthread_mutex_t post_lock;
	struct list posts; /* guarded by post_lock */
	int post_fd;
};

/* ---- posts: the only thing that other threads may do ---- */

static void on_post(void *ctx, int fd)
{
	struct loop *loop = ctx;
	struct list_node *node;
	uint64_t count;

	if (read(fd, &count, sizeof(count)) < 0)
		assert(errno == EAGAIN || errno == EINTR);
	/* Only what is there now: a post made by a post runs in the next turn. */
	pthread_mutex_lock(&loop->post_lock);
	size_t n = loop->posts.len;
	pthread_mutex_unlock(&loop->post_lock);
	while (n-- > 0) {
		pthread_mutex_lock(&loop->post_lock);
		node = list_pop(&loop->posts);
		pthread_mutex_unlock(&loop->post_lock);
		struct post *post = CONTAINER_OF(node, struct post, node);
		loop_fn fn = post->fn;
		void *fn_ctx = post->ctx;
		free(post);
		fn(fn_ctx);
	}
}

void loop_post(struct loop *loop, loop_fn fn, void *ctx)
{
	struct post *post = xcalloc(1, sizeof(*post));
	uint64_t one = 1;

	post->fn = fn;
	post->ctx = ctx;
	pthread_mutex_lock(&loop->post_lock);
	list_push(&loop->posts, &post->node);
	pthread_mutex_unlock(&loop->post_lock);
	/* It fails only when 2^64 - 2 wake-ups are unread: then the loop is awake anyway. */
	if (write(loop->post_fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN || errno == EINTR);
}

/* ---- making and freeing ---- */

static struct event_base *base_new(void)
{
	struct event_config *config = event_config_new();
	struct event_base *base = NULL;

	if (!config)
		return NULL;
	/* Without PRECISE_TIMER libevent reads the coarse clock and epoll waits whole milliseconds: timers 5 ms off.
	 * Without NO_CACHE_TIME a timer set late in a long turn fires early by what the turn has taken. */
	if (event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER) == 0 &&
	    event_config_set_flag(config, EVENT_BASE_FLAG_NO_CACHE_TIME) == 0 &&
	    event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV) == 0)
		base = event_base_new_with_config(config);
	event_config_free(config);
	return base;
}

static void on_lag_timer(void *ctx)
{
	struct loop *loop = ctx;
	int64_t now_us = clock_now_us(); /* not the turn's: what ran before us in this turn made us late too */
	int64_t lag_us = MAX(now_us - loop->lag_due_us, 0);

	hist_observe(&loop->metrics->loop_lag_seconds, lag_us);
	if (now_us - loop->lag_since_us >= US_PER_S) {
		loop->lag_before_us = loop->lag_max_us;
		loop->lag_max_us = 0;
		loop->lag_since_us = now_us;
	}
	loop->lag_max_us = MAX(loop->lag_max_us, lag_us);
	loop->lag_due_us = now_us + LAG_PERIOD_US;
	loop_timer_set(&loop->lag_timer, loop->lag_due_us);
}

static void on_max_wait(evutil_socket_t fd, short what, void *ctx)
{
}

struct loop *loop_new(struct metrics *metrics, struct log *log)
{
	struct loop *loop = xcalloc(1, sizeof(*loop));

	loop->metrics = metrics;
	loop->log = log;
	list_init(&loop->posts);
	pthread_mutex_init(&loop->post_lock, NULL);
	atomic_init(&loop->last_turn_us, clock_now_us());
	signal(SIGPIPE, SIG_IGN);
	loop->post_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	loop->base = base_new();
	if (loop->base)
		loop->max_wait = evtimer_new(loop->base, on_max_wait, NULL);
	if (loop->post_fd < 0 || !loop->max_wait) {
		loop_free(loop);
		return NULL;
	}
	loop_watch(loop, loop->post_fd, on_post, loop);
	if (metrics) {
		loop_timer_init(loop, &loop->lag_timer, on_lag_timer, loop);
		loop->lag_due_us = clock_now_us() + LAG_PERIOD_US;
		loop_timer_set(&loop->lag_timer, loop->lag_due_us);
	}
	return loop;
}

static void watches_free(struct watch *watches, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (watches[i].event)
			event_free(watches[i].event);
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	watchdog_free(loop->dog);
	loop_timer_done(&loop->lag_timer);
	watches_free(loop->watches, WATCHES_MAX);
	watches_free(loop->signals, SIGNALS_MAX);
	if (loop->max_wait)
		event_free(loop->max_wait);
	if (loop->base)
		event_base_free(loop->base);
	if (loop->post_fd >= 0)
		close(loop->post_fd);
	while (!list_empty(&loop->posts)) {
		struct list_node *node = list_pop(&loop->posts);
		free(CONTAINER_OF(node, struct post, node));
	}
	pthread_mutex_destroy(&loop->post_lock);
	free(loop);
}

/* ---- turns ---- */

/* One wait and what it made due, then the hooks. */
static void turn(struct loop *loop, int flags)
{
	if (loop->is_again)
		flags |= EVLOOP_NONBLOCK;
	loop->is_again = false;
	loop->is_turning = true;
	if (event_base_loop(loop->base, EVLOOP_ONCE | flags) < 0)
		log_error(loop->log, "event loop failed", LOG_NUM("errno", errno));

	int64_t start_us = loop_now_us(loop);
	for (size_t i = 0; i < loop->n_hooks; i++)
		loop->hooks[i].fn(loop->hooks[i].ctx);

	int64_t end_us = clock_now_us();
	if (loop->metrics)
		hist_observe(&loop->metrics->loop_turn_seconds, end_us - start_us);
	if (watchdog_end(loop->dog, end_us) && loop->metrics)
		loop->metrics->loop_stalls++;
	atomic_store_explicit(&loop->last_turn_us, end_us, memory_order_relaxed);
	loop->now_us = loop->epoch_ms = 0;
	loop->is_turning = false;
}

void loop_guard(struct loop *loop, int64_t limit_us, int64_t log_every_us, int64_t give_up_us)
{
	loop->dog = watchdog_new(loop->log, limit_us, log_every_us, give_up_us);
}

void loop_run(struct loop *loop)
{
	while (!loop->is_stopping)
		turn(loop, 0);
	loop->is_stopping = false; /* it may be run again */
}

void loop_turn(struct loop *loop, int64_t max_wait_us)
{
	struct timeval wait = {max_wait_us / US_PER_S, max_wait_us % US_PER_S};

	if (max_wait_us <= 0) {
		turn(loop, EVLOOP_NONBLOCK);
		return;
	}
	event_add(loop->max_wait, &wait);
	turn(loop, 0);
	event_del(loop->max_wait);
}

void loop_stop(struct loop *loop)
{
	loop->is_stopping = true;
	loop->is_again = true; /* from a hook: do not wait first */
}

int64_t loop_now_us(struct loop *loop)
{
	if (!loop->is_turning)
		return clock_now_us();
	if (!loop->now_us) {
		loop->now_us = clock_now_us();
		watchdog_begin(loop->dog, loop->now_us);
	}
	return loop->now_us;
}

int64_t loop_epoch_ms(struct loop *loop)
{
	if (!loop->is_turning)
		return clock_epoch_ms();
	if (!loop->epoch_ms)
		loop->epoch_ms = clock_epoch_ms();
	return loop->epoch_ms;
}

int64_t loop_last_turn_us(const struct loop *loop)
{
	return atomic_load_explicit(&loop->last_turn_us, memory_order_relaxed);
}

void loop_after_turn(struct loop *loop, loop_fn fn, void *ctx)
{
	assert(loop->n_hooks < HOOKS_MAX);
	loop->hooks[loop->n_hooks++] = (struct hook){fn, ctx};
}

void loop_after_turn_clear(struct loop *loop, loop_fn fn, void *ctx)
{
	size_t i = 0;

	while (i < loop->n_hooks && !(loop->hooks[i].fn == fn && loop->hooks[i].ctx == ctx))
		i++;
	if (i == loop->n_hooks)
		return;
	loop->n_hooks--;
	memmove(&loop->hooks[i], &loop->hooks[i + 1], (loop->n_hooks - i) * sizeof(loop->hooks[0]));
}

int64_t loop_lag_us(const struct loop *loop)
{
	return MAX(loop->lag_max_us, loop->lag_before_us);
}

void loop_again(struct loop *loop)
{
	loop->is_again = true;
}

struct event_base *loop_base(struct loop *loop)
{
	return loop->base;
}

/* ---- timers ---- */

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
	struct loop_timer *timer = ctx;

	loop_now_us(timer->loop); /* the turn's time starts here */
	timer->fn(timer->ctx);
}

void loop_timer_init(struct loop *loop, struct loop_timer *timer, loop_fn fn, void *ctx)
{
	*timer = (struct loop_timer){.loop = loop, .fn = fn, .ctx = ctx};
	timer->event = evtimer_new(loop->base, on_timer, timer);
	if (!timer->event)
		abort();
}

void loop_timer_set(struct loop_timer *timer, int64_t at_us)
{
	int64_t wait_us = MAX(at_us - clock_now_us(), 0);
	struct timeval wait = {wait_us / US_PER_S, wait_us % US_PER_S};

	if (event_add(timer->event, &wait) < 0)
		abort(); /* out of memory */
}

void loop_timer_clear(struct loop_timer *timer)
{
	if (timer->event)
		event_del(timer->event);
}

void loop_timer_done(struct loop_timer *timer)
{
	if (timer->event)
		event_free(timer->event);
	timer->event = NULL;
}

/* ---- descriptors and signals ---- */

static void on_watch(evutil_socket_t fd, short what, void *ctx)
{
	struct watch *watch = ctx;

	loop_now_us(watch->loop);
	watch->fn(watch->ctx, fd);
}

static void watch_add(struct loop *loop, struct watch *watches, size_t n, int fd, short what, loop_fd_fn fn, void *ctx)
{
	struct watch *watch = watches;

	while (watch < watches + n && watch->event)
		watch++;
	assert(watch < watches + n);
	*watch = (struct watch){.loop = loop, .fn = fn, .ctx = ctx};
	watch->event = event_new(loop->base, fd, what | EV_PERSIST, on_watch, watch);
	if (!watch->event || event_add(watch->event, NULL) < 0)
		abort();
}

void loop_watch(struct loop *loop, int fd, loop_fd_fn fn, void *ctx)
{
	watch_add(loop, loop->watches, WATCHES_MAX, fd, EV_READ, fn, ctx);
}

void loop_unwatch(struct loop *loop, int fd)
{
	for (size_t i = 0; i < WATCHES_MAX; i++) {
		struct watch *watch = &loop->watches[i];
		if (watch->event && event_get_fd(watch->event) == fd) {
			event_free(watch->event);
			watch->event = NULL;
		}
	}
}

void loop_signal(struct loop *loop, int signum, loop_fd_fn fn, void *ctx)
{
	watch_add(loop, loop->signals, SIGNALS_MAX, signum, EV_SIGNAL, fn, ctx);
}
