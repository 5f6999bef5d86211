/* The event loop: order, time and threads. No upper bound on any duration: a slow machine passes too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "clock.h"
#include "loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define LONG_US (30 * US_PER_S) /* never waited for when the code is right */

struct trace {
	struct loop *loop;
	struct loop_timer timers[4];
	char text[64];
	int n;
};

static void note(struct trace *trace, char c)
{
	assert_true((size_t)trace->n < sizeof(trace->text) - 1);
	trace->text[trace->n++] = c;
}

static void on_a(void *ctx)
{
	note(ctx, 'a');
}

static void on_b(void *ctx)
{
	note(ctx, 'b');
}

static void on_c(void *ctx)
{
	note(ctx, 'c');
}

static void on_stop(void *ctx)
{
	struct trace *trace = ctx;

	note(trace, '.');
	loop_stop(trace->loop);
}

static int setup(void **state)
{
	struct trace *trace = xcalloc(1, sizeof(*trace));

	trace->loop = loop_new(NULL, NULL);
	assert_non_null(trace->loop);
	*state = trace;
	return 0;
}

static int teardown(void **state)
{
	struct trace *trace = *state;

	for (size_t i = 0; i < ARRAY_LEN(trace->timers); i++)
		loop_timer_done(&trace->timers[i]);
	loop_free(trace->loop);
	free(trace);
	return 0;
}

static void timers_fire_in_order_of_time(void **state)
{
	struct trace *trace = *state;
	int64_t now_us = clock_now_us();

	loop_timer_init(trace->loop, &trace->timers[0], on_stop, trace);
	loop_timer_init(trace->loop, &trace->timers[1], on_b, trace);
	loop_timer_init(trace->loop, &trace->timers[2], on_a, trace);
	loop_timer_init(trace->loop, &trace->timers[3], on_c, trace);
	loop_timer_set(&trace->timers[0], now_us + 9000);
	loop_timer_set(&trace->timers[1], now_us + 6000);
	loop_timer_set(&trace->timers[2], now_us + 3000);
	loop_timer_set(&trace->timers[3], now_us + 1000);
	loop_timer_set(&trace->timers[3], now_us + 7500); /* setting again moves it */
	loop_run(trace->loop);
	assert_string_equal(trace->text, "abc.");
}

struct early {
	struct loop *loop;
	struct loop_timer timer;
	int64_t at_us;
	int left;
};

static void on_early(void *ctx)
{
	struct early *early = ctx;
	int64_t spin_us = clock_now_us() + 700;

	assert_true(loop_now_us(early->loop) >= early->at_us);
	while (clock_now_us() < spin_us)
		;
	/* Late in a turn: a loop that counts from a cached time would fire by that much too early. */
	early->at_us = clock_now_us() + 1300;
	loop_timer_set(&early->timer, early->at_us);
	if (--early->left == 0)
		loop_stop(early->loop);
}

static void timers_never_fire_early(void **state)
{
	struct trace *trace = *state;
	struct early early = {.loop = trace->loop, .left = 100};

	loop_timer_init(trace->loop, &early.timer, on_early, &early);
	loop_timer_set(&early.timer, 0);
	loop_run(trace->loop);
	loop_timer_done(&early.timer);
	assert_int_equal(early.left, 0);
}

static void a_past_time_means_the_next_turn(void **state)
{
	struct trace *trace = *state;

	loop_timer_init(trace->loop, &trace->timers[0], on_a, trace);
	loop_timer_set(&trace->timers[0], 1);
	loop_turn(trace->loop, LONG_US);
	assert_string_equal(trace->text, "a");
	loop_turn(trace->loop, 0); /* one shot */
	assert_string_equal(trace->text, "a");
}

static void a_cleared_timer_stays_silent(void **state)
{
	struct trace *trace = *state;

	loop_timer_init(trace->loop, &trace->timers[0], on_a, trace);
	loop_timer_set(&trace->timers[0], 1);
	loop_timer_clear(&trace->timers[0]);
	loop_turn(trace->loop, 2000);
	assert_string_equal(trace->text, "");
	loop_timer_done(&trace->timers[0]);
	loop_timer_done(&trace->timers[0]);
	loop_timer_clear(&trace->timers[0]);
}

static void on_finish_others(void *ctx)
{
	struct trace *trace = ctx;

	note(trace, 'x');
	for (size_t i = 0; i < ARRAY_LEN(trace->timers); i++)
		loop_timer_done(&trace->timers[i]);
}

static void a_callback_may_finish_timers_that_are_due_too(void **state)
{
	struct trace *trace = *state;

	for (size_t i = 0; i < ARRAY_LEN(trace->timers); i++) {
		loop_timer_init(trace->loop, &trace->timers[i], on_finish_others, trace);
		loop_timer_set(&trace->timers[i], 1);
	}
	loop_turn(trace->loop, LONG_US);
	loop_turn(trace->loop, 0);
	assert_string_equal(trace->text, "x");
}

static void on_check_now(void *ctx)
{
	struct trace *trace = ctx;
	int64_t now_us = loop_now_us(trace->loop), epoch_ms = loop_epoch_ms(trace->loop);

	while (clock_now_us() < now_us + 3000)
		;
	assert_int_equal(loop_now_us(trace->loop), now_us);
	assert_int_equal(loop_epoch_ms(trace->loop), epoch_ms);
	note(trace, 'n');
}

static void the_time_stands_still_within_a_turn(void **state)
{
	struct trace *trace = *state;
	int64_t before_us = loop_last_turn_us(trace->loop);

	loop_timer_init(trace->loop, &trace->timers[0], on_check_now, trace);
	loop_timer_set(&trace->timers[0], 0);
	loop_turn(trace->loop, LONG_US);
	assert_string_equal(trace->text, "n");
	assert_true(loop_last_turn_us(trace->loop) >= before_us + 3000);
	int64_t now_us = loop_now_us(trace->loop);
	while (clock_now_us() == now_us)
		;
	assert_true(loop_now_us(trace->loop) > now_us); /* between turns it moves */
}

static void hooks_run_in_order_after_what_was_due(void **state)
{
	struct trace *trace = *state;

	loop_after_turn(trace->loop, on_b, trace);
	loop_after_turn(trace->loop, on_c, trace);
	loop_timer_init(trace->loop, &trace->timers[0], on_a, trace);
	loop_timer_set(&trace->timers[0], 0);
	loop_turn(trace->loop, LONG_US);
	assert_string_equal(trace->text, "abc");
}

static void again_does_not_wait(void **state)
{
	struct trace *trace = *state;
	int64_t start_us = clock_now_us();

	loop_after_turn(trace->loop, on_a, trace);
	loop_again(trace->loop);
	loop_turn(trace->loop, LONG_US);
	assert_string_equal(trace->text, "a");
	assert_true(clock_now_us() - start_us < LONG_US);
	loop_turn(trace->loop, 3000); /* only one turn */
	assert_true(clock_now_us() - start_us >= 3000);
}

static void stop_from_a_hook_ends_the_run(void **state)
{
	struct trace *trace = *state;

	loop_after_turn(trace->loop, on_stop, trace);
	loop_again(trace->loop);
	loop_run(trace->loop);
	assert_string_equal(trace->text, ".");
	loop_again(trace->loop);
	loop_run(trace->loop); /* and it can run again */
	assert_string_equal(trace->text, "..");
}

#define POSTERS 4
#define POSTS 500

struct posts {
	struct loop *loop;
	pthread_t loop_thread;
	int n, last[POSTERS];
};

struct posted {
	struct posts *posts;
	int thread, number;
};

static void on_posted(void *ctx)
{
	struct posted *posted = ctx;
	struct posts *posts = posted->posts;

	assert_true(pthread_equal(pthread_self(), posts->loop_thread));
	assert_int_equal(posted->number, posts->last[posted->thread]++);
	if (++posts->n == POSTERS * POSTS)
		loop_stop(posts->loop);
}

static void *poster(void *ctx)
{
	struct posted *all = ctx;

	for (int i = 0; i < POSTS; i++)
		loop_post(all[0].posts->loop, on_posted, &all[i]);
	return NULL;
}

static void posts_of_a_thread_run_in_order_on_the_loop(void **state)
{
	struct trace *trace = *state;
	struct posts posts = {.loop = trace->loop, .loop_thread = pthread_self()};
	struct posted *all = xcalloc(POSTERS * POSTS, sizeof(*all));
	pthread_t threads[POSTERS];

	for (int i = 0; i < POSTERS * POSTS; i++)
		all[i] = (struct posted){&posts, i / POSTS, i % POSTS};
	for (int i = 0; i < POSTERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, poster, &all[i * POSTS]), 0);
	loop_run(trace->loop);
	for (int i = 0; i < POSTERS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(posts.n, POSTERS * POSTS);
	free(all);
}

static void on_post_again(void *ctx)
{
	struct trace *trace = ctx;

	note(trace, 'p');
	loop_post(trace->loop, on_a, trace);
}

static void a_post_made_by_a_post_runs_in_the_next_turn(void **state)
{
	struct trace *trace = *state;

	loop_post(trace->loop, on_post_again, trace);
	loop_turn(trace->loop, LONG_US);
	assert_string_equal(trace->text, "p");
	loop_turn(trace->loop, LONG_US);
	assert_string_equal(trace->text, "pa");
	loop_post(trace->loop, on_b, trace); /* never run: loop_free drops it */
}

static void on_readable(void *ctx, int fd)
{
	struct trace *trace = ctx;
	char c;

	assert_int_equal(read(fd, &c, 1), 1);
	note(trace, c);
	if (c == 'q')
		loop_unwatch(trace->loop, fd);
}

static void a_watched_descriptor_is_told_until_unwatched(void **state)
{
	struct trace *trace = *state;
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	for (int i = 0; i < 40; i++) { /* a place is free again after unwatch */
		loop_watch(trace->loop, fds[0], on_readable, trace);
		loop_unwatch(trace->loop, fds[0]);
	}
	loop_watch(trace->loop, fds[0], on_readable, trace);
	assert_int_equal(write(fds[1], "xqz", 3), 3);
	loop_turn(trace->loop, LONG_US);
	loop_turn(trace->loop, LONG_US);
	loop_turn(trace->loop, 1000);
	assert_string_equal(trace->text, "xq");
	close(fds[0]);
	assert_int_equal(write(fds[1], "x", 1), -1); /* SIGPIPE would have ended us */
	assert_int_equal(errno, EPIPE);
	close(fds[1]);
}

static void on_signal(void *ctx, int signum)
{
	note(ctx, signum == SIGUSR1 ? '1' : '2');
}

static void signals_arrive_on_the_loop(void **state)
{
	struct trace *trace = *state;

	loop_signal(trace->loop, SIGUSR1, on_signal, trace);
	loop_signal(trace->loop, SIGUSR2, on_signal, trace);
	raise(SIGUSR2);
	assert_string_equal(trace->text, "");
	loop_turn(trace->loop, LONG_US);
	raise(SIGUSR1);
	loop_turn(trace->loop, LONG_US);
	assert_string_equal(trace->text, "21");
}

static void on_spin(void *ctx)
{
	int64_t end_us = clock_now_us() + 60 * US_PER_MS;

	while (clock_now_us() < end_us)
		;
}

static void lag_and_turns_are_measured(void **state)
{
	struct metrics metrics = {0};
	struct loop *loop = loop_new(&metrics, NULL);
	struct loop_timer timer;

	loop_timer_init(loop, &timer, on_spin, NULL);
	loop_timer_set(&timer, 0);
	while (metrics.loop_lag_seconds.count == 0)
		loop_turn(loop, LONG_US);
	assert_true(metrics.loop_lag_seconds.sum_us >= 40 * US_PER_MS); /* due at 20 ms, the loop was busy until 60 */
	assert_true(loop_lag_us(loop) >= 40 * US_PER_MS);
	assert_true(metrics.loop_turn_seconds.count >= 1);
	assert_true(metrics.loop_turn_seconds.sum_us >= 59 * US_PER_MS);
	loop_timer_done(&timer);
	loop_free(loop);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(timers_fire_in_order_of_time),
	    TEST(timers_never_fire_early),
	    TEST(a_past_time_means_the_next_turn),
	    TEST(a_cleared_timer_stays_silent),
	    TEST(a_callback_may_finish_timers_that_are_due_too),
	    TEST(the_time_stands_still_within_a_turn),
	    TEST(hooks_run_in_order_after_what_was_due),
	    TEST(again_does_not_wait),
	    TEST(stop_from_a_hook_ends_the_run),
	    TEST(posts_of_a_thread_run_in_order_on_the_loop),
	    TEST(a_post_made_by_a_post_runs_in_the_next_turn),
	    TEST(a_watched_descriptor_is_told_until_unwatched),
	    TEST(signals_arrive_on_the_loop),
	    cmocka_unit_test(lag_and_turns_are_measured),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
