/* The helper thread: order, which thread runs what, and giving up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "clock.h"
#include "helper.h"

#include <pthread.h>
#include <semaphore.h>

#define LONG_MS (30 * 1000)

struct fixture {
	struct loop *loop;
	struct helper *helper;
	pthread_t loop_thread;
	int n_run, n_done;
};

struct work {
	struct helper_job job;
	struct fixture *fix;
	int number, again;
	sem_t *begun, *go_on;
};

static int setup(void **state)
{
	struct fixture *fix = xcalloc(1, sizeof(*fix));

	fix->loop = loop_new(NULL, NULL);
	fix->helper = helper_new(fix->loop);
	fix->loop_thread = pthread_self();
	*state = fix;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fix = *state;

	if (fix->helper)
		assert_true(helper_free(fix->helper, LONG_MS));
	loop_free(fix->loop);
	free(fix);
	return 0;
}

static void on_run(void *ctx)
{
	struct work *work = ctx;

	/* cmocka's own asserts are for the test's thread only. */
	assert(!pthread_equal(pthread_self(), work->fix->loop_thread));
	assert(work->number == work->fix->n_run);
	work->fix->n_run++;
}

static void on_done(void *ctx)
{
	struct work *work = ctx;
	struct fixture *fix = work->fix;

	assert_true(pthread_equal(pthread_self(), fix->loop_thread));
	assert_int_equal(work->number, fix->n_done);
	fix->n_done++;
	if (work->again-- > 0) {
		work->number = fix->n_done;
		helper_submit(fix->helper, &work->job);
	}
}

static void jobs_run_one_at_a_time_in_order(void **state)
{
	struct fixture *fix = *state;
	struct work works[200];

	for (int i = 0; i < 200; i++) {
		works[i] = (struct work){.fix = fix, .number = i};
		works[i].job = (struct helper_job){.run = on_run, .done = on_done, .ctx = &works[i]};
		helper_submit(fix->helper, &works[i].job);
	}
	assert_int_equal(helper_pending(fix->helper), 200);
	assert_int_equal(fix->n_done, 0); /* never from inside */
	while (fix->n_done < 200)
		loop_turn(fix->loop, LONG_MS * US_PER_MS);
	assert_int_equal(helper_pending(fix->helper), 0);
}

static void a_done_may_submit_its_job_again(void **state)
{
	struct fixture *fix = *state;
	struct work work = {.fix = fix, .again = 3};

	work.job = (struct helper_job){.run = on_run, .done = on_done, .ctx = &work};
	helper_submit(fix->helper, &work.job);
	while (helper_pending(fix->helper) > 0)
		loop_turn(fix->loop, LONG_MS * US_PER_MS);
	assert_int_equal(fix->n_run, 4);
	assert_int_equal(fix->n_done, 4);
}

static void done_may_be_null(void **state)
{
	struct fixture *fix = *state;
	struct work work = {.fix = fix};

	work.job = (struct helper_job){.run = on_run, .ctx = &work};
	helper_submit(fix->helper, &work.job);
	while (helper_pending(fix->helper) > 0)
		loop_turn(fix->loop, LONG_MS * US_PER_MS);
	assert_int_equal(fix->n_run, 1);
}

static void on_run_blocked(void *ctx)
{
	struct work *work = ctx;
	sem_t *go_on = work->go_on;

	sem_post(work->begun);
	sem_wait(go_on);
}

static void each_job_that_runs_has_a_number_of_its_own(void **state)
{
	struct fixture *fix = *state;
	sem_t begun, go_on;
	struct work work = {.fix = fix, .begun = &begun, .go_on = &go_on};
	uint64_t numbers[2];

	sem_init(&begun, 0, 0);
	sem_init(&go_on, 0, 0);
	work.job = (struct helper_job){.run = on_run_blocked, .ctx = &work};
	for (int i = 0; i < 2; i++) {
		assert_int_equal(helper_running(fix->helper), 0);
		helper_submit(fix->helper, &work.job); /* the same memory */
		sem_wait(&begun);
		numbers[i] = helper_running(fix->helper);
		assert_int_not_equal(numbers[i], 0);
		assert_int_equal(helper_running(fix->helper), numbers[i]);
		sem_post(&go_on);
		while (helper_pending(fix->helper) > 0)
			loop_turn(fix->loop, LONG_MS * US_PER_MS);
	}
	assert_int_not_equal(numbers[0], numbers[1]);
	sem_destroy(&begun);
	sem_destroy(&go_on);
}

static void free_waits_for_the_running_job_and_leaves_the_rest(void **state)
{
	struct fixture *fix = *state;
	sem_t begun, go_on;
	struct work blocked = {.fix = fix, .begun = &begun, .go_on = &go_on}, next = {.fix = fix};

	sem_init(&begun, 0, 0);
	sem_init(&go_on, 0, 0);
	blocked.job = (struct helper_job){.run = on_run_blocked, .done = on_done, .ctx = &blocked};
	next.job = (struct helper_job){.run = on_run, .done = on_done, .ctx = &next};
	helper_submit(fix->helper, &blocked.job);
	helper_submit(fix->helper, &next.job);
	sem_wait(&begun);
	sem_post(&go_on);
	/* Whether the second one was begun is a race; that nothing is called after it is not. */
	assert_true(helper_free(fix->helper, LONG_MS));
	fix->helper = NULL;
	loop_turn(fix->loop, 1000);
	assert_int_equal(fix->n_done, 0);
	sem_destroy(&begun);
	sem_destroy(&go_on);
}

static void free_gives_up_a_job_that_does_not_end(void **state)
{
	struct fixture *fix = *state;
	static sem_t begun, go_on; /* the thread outlives us */
	struct work *blocked = xcalloc(1, sizeof(*blocked));
	int64_t start_us = clock_now_us();

	sem_init(&begun, 0, 0);
	sem_init(&go_on, 0, 0);
	*blocked = (struct work){.fix = fix, .begun = &begun, .go_on = &go_on};
	blocked->job = (struct helper_job){.run = on_run_blocked, .done = on_done, .ctx = blocked};
	helper_submit(fix->helper, &blocked->job);
	sem_wait(&begun);
	assert_false(helper_free(fix->helper, 20));
	assert_true(clock_now_us() - start_us >= 20 * US_PER_MS);
	fix->helper = NULL;
	free(blocked); /* its owner may free it now: the thread does not touch it again */
	sem_post(&go_on);
	loop_turn(fix->loop, 1000);
	assert_int_equal(fix->n_done, 0);
}

static void a_job_may_be_taken_back(void **state)
{
	struct fixture *fix = *state;
	sem_t begun, go_on;
	struct work blocked = {.fix = fix, .begun = &begun, .go_on = &go_on}, next[3];

	sem_init(&begun, 0, 0);
	sem_init(&go_on, 0, 0);
	blocked.job = (struct helper_job){.run = on_run_blocked, .done = on_done, .ctx = &blocked};
	helper_submit(fix->helper, &blocked.job);
	for (int i = 0; i < 3; i++) {
		next[i] = (struct work){.fix = fix, .number = 0};
		next[i].job = (struct helper_job){.run = on_run, .done = on_done, .ctx = &next[i]};
		helper_submit(fix->helper, &next[i].job);
	}
	sem_wait(&begun);
	/* Not begun: the first and the last of what waits. */
	assert_true(helper_cancel(fix->helper, &next[2].job, 0));
	assert_true(helper_cancel(fix->helper, &next[0].job, 0));
	assert_true(helper_cancel(fix->helper, &next[0].job, 0)); /* not there any more */
	assert_int_equal(helper_pending(fix->helper), 2);
	/* Running: given up, then waited for. */
	assert_false(helper_cancel(fix->helper, &blocked.job, 20));
	sem_post(&go_on);
	assert_true(helper_cancel(fix->helper, &blocked.job, LONG_MS));
	assert_int_equal(helper_pending(fix->helper), 1);
	/* The one that is left runs, alone. */
	while (helper_pending(fix->helper) > 0)
		loop_turn(fix->loop, LONG_MS * US_PER_MS);
	assert_int_equal(fix->n_run, 1);
	assert_int_equal(fix->n_done, 1);
	sem_destroy(&begun);
	sem_destroy(&go_on);
}

static void helpers_may_come_and_go(void **state)
{
	struct fixture *fix = *state;

	for (int i = 0; i < 40; i++) { /* more than the loop has places for descriptors */
		struct helper *helper = helper_new(fix->loop);
		assert_true(helper_free(helper, LONG_MS));
	}
	assert_true(helper_free(NULL, 0));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(jobs_run_one_at_a_time_in_order),
	    TEST(a_done_may_submit_its_job_again),
	    TEST(done_may_be_null),
	    TEST(each_job_that_runs_has_a_number_of_its_own),
	    TEST(free_waits_for_the_running_job_and_leaves_the_rest),
	    TEST(free_gives_up_a_job_that_does_not_end),
	    TEST(a_job_may_be_taken_back),
	    TEST(helpers_may_come_and_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
