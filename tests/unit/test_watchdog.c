/* The watchdog over a real loop: what it logs of a stalled turn, how often, and when it stays silent. Turns are made
 * long by the clock, with no upper bound on anything: a slow machine passes too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "clock.h"
#include "loop.h"
#include "watchdog.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIMIT_US (250 * US_PER_MS)
#define EVERY_US (1000 * US_PER_S) /* once in a test */
#define NEVER_US (1000 * US_PER_S)

static const char *self_path; /* of this program */

struct world {
	FILE *file; /* what was logged */
	struct log *log;
	struct metrics metrics;
	struct loop *loop;
	struct loop_timer timer;
	int64_t turn_us;
	int n_turns; /* still to make */
	char text[65536];
};

static int setup(void **state)
{
	struct world *world = xcalloc(1, sizeof(*world));

	world->file = tmpfile();
	assert_non_null(world->file);
	world->log = log_new(fileno(world->file), LOG_INFO, LOG_LOGFMT);
	world->loop = loop_new(&world->metrics, world->log);
	assert_non_null(world->loop);
	*state = world;
	return 0;
}

/* Ends the loop and the log; all that was logged. */
static const char *logged(struct world *world)
{
	loop_timer_done(&world->timer);
	loop_free(world->loop);
	log_free(world->log);
	world->loop = NULL;
	rewind(world->file);
	world->text[fread(world->text, 1, sizeof(world->text) - 1, world->file)] = '\0';
	return world->text;
}

static int teardown(void **state)
{
	struct world *world = *state;

	if (world->loop)
		logged(world);
	fclose(world->file);
	free(world);
	return 0;
}

static int count(const char *text, const char *what)
{
	int n = 0;

	for (const char *at = text; (at = strstr(at, what)); at += strlen(what))
		n++;
	return n;
}

/* Static, as most of the daemon's functions are. By the clock, because the signal ends a sleep early. */
static void __attribute__((noinline)) sleep_in_a_turn(int64_t us)
{
	int64_t end_us = clock_now_us() + us;

	while (clock_now_us() < end_us)
		usleep((useconds_t)(end_us - clock_now_us()) + 1);
	__asm__ volatile(""); /* not a tail call */
}

static void on_timer(void *ctx)
{
	struct world *world = ctx;

	sleep_in_a_turn(world->turn_us);
	if (--world->n_turns > 0)
		loop_timer_set(&world->timer, 0);
	else
		loop_stop(world->loop);
}

/* n turns of that length, one after the other. They last far longer than the limit, so that the watching thread gets its looks on a
 * busy machine, too. */
static void run_turns(struct world *world, int n, int64_t turn_us)
{
	world->n_turns = n;
	world->turn_us = turn_us;
	if (!world->timer.loop)
		loop_timer_init(world->loop, &world->timer, on_timer, world);
	loop_timer_set(&world->timer, 0);
	loop_run(world->loop);
}

static void a_stalled_turn_is_logged_with_its_stack_and_its_length(void **state)
{
	struct world *world = *state;

	loop_guard(world->loop, LIMIT_US, EVERY_US, NEVER_US);
	run_turns(world, 1, 1500 * US_PER_MS);
	assert_int_equal(world->metrics.loop_stalls, 1);
	const char *text = logged(world);
	assert_int_equal(count(text, "\n"), 2);

	const char *first = strstr(text, "msg=\"the loop stands still\" turn_ms="), *second = strchr(text, '\n');
	assert_non_null(first);
	assert_true(first < second);
	assert_true(strtol(strstr(first, "turn_ms=") + 8, NULL, 10) >= 250);
	/* Who sleeps, who called it, and not ourselves. */
	const char *sleeper = strstr(first, "sleep_in_a_turn+0x"), *caller = strstr(first, " < on_timer+0x");
	if (!sleeper || !caller || sleeper > caller || caller > second || strstr(text, "backtrace") ||
	    strstr(text, "on_signal"))
		fail_msg("%s", text);

	const char *over = strstr(second, "msg=\"the loop goes on\" turn_ms=");
	assert_non_null(over);
	assert_true(strtol(strstr(over, "turn_ms=") + 8, NULL, 10) >= 1500);
}

static void ten_stalls_in_a_row_make_few_lines(void **state)
{
	struct world *world = *state;

	loop_guard(world->loop, 20 * US_PER_MS, EVERY_US, NEVER_US);
	run_turns(world, 10, 700 * US_PER_MS);
	assert_int_equal(world->metrics.loop_stalls, 10);
	const char *text = logged(world);
	assert_int_equal(count(text, "the loop stands still"), 1);
	assert_int_equal(count(text, "the loop goes on"), 1);
}

static void those_not_logged_are_counted_in_the_next_line(void **state)
{
	struct world *world = *state;

	loop_guard(world->loop, 20 * US_PER_MS, 2000 * US_PER_MS, NEVER_US);
	run_turns(world, 3, 500 * US_PER_MS);
	run_turns(world, 1, 4000 * US_PER_MS); /* long enough for a line of its own */
	assert_int_equal(world->metrics.loop_stalls, 4);
	const char *text = logged(world), *first = strstr(text, "not_logged_before=");
	assert_non_null(first);
	assert_int_equal(strtol(first + 18, NULL, 10), 0);
	/* A slow machine may have given one of the three a line. */
	const char *next = strstr(first + 18, "not_logged_before=");
	assert_non_null(next);
	assert_true(strtol(next + 18, NULL, 10) >= 1);
}

static void a_turn_that_does_not_end_is_logged_again(void **state)
{
	struct world *world = *state;

	loop_guard(world->loop, 20 * US_PER_MS, 100 * US_PER_MS, NEVER_US);
	run_turns(world, 1, 2500 * US_PER_MS);
	assert_int_equal(world->metrics.loop_stalls, 1);
	const char *text = logged(world);
	assert_true(count(text, "the loop stands still") >= 2);
	assert_true(count(text, "sleep_in_a_turn+0x") >= 2);
	assert_int_equal(count(text, "the loop goes on"), 1);
}

static void a_loop_that_waits_is_left_alone(void **state)
{
	struct world *world = *state;
	int64_t end_us = clock_now_us() + 300 * US_PER_MS;

	/* Not even the lag timer: after a turn, one wait that is longer than the limit. */
	struct loop *quiet = loop_new(NULL, world->log);
	loop_guard(quiet, 20 * US_PER_MS, EVERY_US, NEVER_US);
	loop_turn(quiet, 0);
	while (clock_now_us() < end_us)
		loop_turn(quiet, end_us - clock_now_us());
	loop_free(quiet);
	assert_string_equal(logged(world), "");
}

/* The whole process is stopped inside a turn, for far longer than the limit. */
static void a_process_that_was_stopped_did_not_stall(void **state)
{
	struct world *world = *state;
	pid_t self = getpid(), child = fork();

	if (child == 0) {
		usleep(300 * 1000);
		kill(self, SIGSTOP);
		usleep(1500 * 1000);
		kill(self, SIGCONT);
		_exit(0);
	}
	assert_true(child > 0);
	/* Far under the limit but for the stop. */
	loop_guard(world->loop, 1000 * US_PER_MS, EVERY_US, NEVER_US);
	while (waitpid(child, NULL, WNOHANG) == 0)
		run_turns(world, 1, 30 * US_PER_MS);
	assert_int_equal(world->metrics.loop_stalls, 0);
	assert_string_equal(logged(world), "");
}

/* In a process of its own, whose exit status is what is looked at. The log goes to fd. By exec: a process with threads that only
 * forks may start no others under ThreadSanitizer. */
static int ends_with(int fd, int64_t turn_us, int64_t give_up_us)
{
	char fd_text[24], turn_text[24], give_up_text[24];
	int status;

	snprintf(fd_text, sizeof(fd_text), "%d", fd);
	snprintf(turn_text, sizeof(turn_text), "%" PRId64, turn_us);
	snprintf(give_up_text, sizeof(give_up_text), "%" PRId64, give_up_us);
	pid_t child = fork();
	if (child == 0) {
		execl(self_path, self_path, "--one-turn", fd_text, turn_text, give_up_text, (char *)NULL);
		_exit(127);
	}
	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int one_turn(char **args)
{
	struct world world = {0};

	world.log = log_new((int)strtol(args[0], NULL, 10), LOG_INFO, LOG_LOGFMT);
	world.loop = loop_new(&world.metrics, world.log);
	loop_guard(world.loop, 20 * US_PER_MS, EVERY_US, strtoll(args[2], NULL, 10));
	run_turns(&world, 1, strtoll(args[1], NULL, 10));
	_exit(42);
}

static void a_turn_that_does_not_end_ends_the_process(void **state)
{
	struct world *world = *state;

	assert_int_equal(ends_with(fileno(world->file), 120 * US_PER_S, 700 * US_PER_MS), 1);
	const char *text = logged(world), *stack = strstr(text, "sleep_in_a_turn+0x"), *last = strstr(text, "msg=\"cannot go on\"");
	/* Where it was, again, although the stall was said before. */
	assert_int_equal(count(text, "the loop stands still"), 2);
	assert_non_null(stack);
	assert_non_null(last);
	assert_non_null(strstr(last, "turn_ms="));
}

static void a_turn_that_ends_in_time_does_not(void **state)
{
	struct world *world = *state;

	assert_int_equal(ends_with(fileno(world->file), 500 * US_PER_MS, 100 * US_PER_S), 42);
}

/* The pipe is full and nobody reads it. */
static void a_log_that_nobody_reads_does_not_keep_the_process(void **state)
{
	(void)state;
	char junk[4096] = "";
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	assert_int_equal(fcntl(fds[1], F_SETFL, O_NONBLOCK), 0);
	while (write(fds[1], junk, sizeof(junk)) > 0)
		;
	assert_int_equal(fcntl(fds[1], F_SETFL, 0), 0);
	assert_int_equal(ends_with(fds[1], 120 * US_PER_S, 300 * US_PER_MS), 1);
	close(fds[0]);
	close(fds[1]);
}

/* The process is stopped in its turn for far longer than it may last, again and again. */
static void a_process_that_was_stopped_does_not_end(void **state)
{
	struct world *world = *state;
	pid_t self = getpid(), child = fork();

	if (child == 0) {
		for (int i = 0; i < 2; i++) {
			usleep(200 * 1000);
			kill(self, SIGSTOP);
			usleep(2500 * 1000);
			kill(self, SIGCONT);
		}
		_exit(0);
	}
	assert_true(child > 0);
	loop_guard(world->loop, 1000 * US_PER_MS, EVERY_US, 2000 * US_PER_MS);
	while (waitpid(child, NULL, WNOHANG) == 0)
		run_turns(world, 1, 30 * US_PER_MS);
	assert_string_equal(logged(world), "");
}

static void system_calls_that_may_be_restarted_are(void **state)
{
	struct world *world = *state;
	int fds[2], status;
	char c;

	assert_int_equal(pipe(fds), 0);
	pid_t child = fork();
	if (child == 0) {
		usleep(500 * 1000);
		_exit(write(fds[1], "x", 1) != 1);
	}
	struct watchdog *dog = watchdog_new(world->log, 20 * US_PER_MS, EVERY_US, NEVER_US);
	errno = 0;
	watchdog_begin(dog, clock_now_us());
	assert_int_equal(read(fds[0], &c, 1), 1); /* and not EINTR */
	assert_int_equal(errno, 0);
	assert_true(watchdog_end(dog, clock_now_us()));
	watchdog_free(dog);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	close(fds[0]);
	close(fds[1]);
	assert_int_equal(count(logged(world), "stack="), 1);
}

/* As from `kill` or a debugger: no pointer of ours comes with it. */
static void the_signal_from_elsewhere_does_nothing(void **state)
{
	struct world *world = *state;
	union sigval wild = {.sival_ptr = (void *)(uintptr_t)1};

	loop_guard(world->loop, LIMIT_US, EVERY_US, NEVER_US);
	pid_t self = getpid(), child = fork();
	if (child == 0)
		_exit(kill(self, SIGRTMIN + 10) || sigqueue(self, SIGRTMIN + 10, wild));
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	run_turns(world, 1, 1000);
	assert_string_equal(logged(world), "");
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(int argc, char **argv)
{
	if (argc == 5 && strcmp(argv[1], "--one-turn") == 0)
		return one_turn(argv + 2);
	self_path = argv[0];
	const struct CMUnitTest tests[] = {
	    TEST(a_stalled_turn_is_logged_with_its_stack_and_its_length),
	    TEST(ten_stalls_in_a_row_make_few_lines),
	    TEST(those_not_logged_are_counted_in_the_next_line),
	    TEST(a_turn_that_does_not_end_is_logged_again),
	    TEST(a_loop_that_waits_is_left_alone),
	    TEST(a_process_that_was_stopped_did_not_stall),
	    TEST(a_turn_that_does_not_end_ends_the_process),
	    TEST(a_turn_that_ends_in_time_does_not),
	    TEST(a_log_that_nobody_reads_does_not_keep_the_process),
	    TEST(a_process_that_was_stopped_does_not_end),
	    TEST(system_calls_that_may_be_restarted_are),
	    TEST(the_signal_from_elsewhere_does_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
