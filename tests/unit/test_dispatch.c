/* dispatch: which result goes to the producer when. The producer is the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "clock.h"
#include "dispatch.h"
#include "err.h"

#define JOBS 8
#define LONG_US (20 * US_PER_S)

static struct world {
	struct loop *loop;
	struct metrics metrics;
	struct options opts;
	struct dispatcher *disp;
	struct task_lists tasks;
	struct partition *part; /* never looked into */
	struct delivery *sent[JOBS * 2];
	size_t n_sent, n_done;
	bool is_full;
} world;

/* In the place of kafka_out.c. */
int kafka_out_produce(struct kafka_out *out, struct delivery *delivery)
{
	if (world.is_full)
		return -ERR_FULL;
	world.sent[world.n_sent++] = delivery;
	return 0;
}

size_t kafka_out_record_max(const struct kafka_out *out)
{
	return 1 << 20;
}

static void on_acked(void *ctx, struct task *task)
{
	world.n_done++;
}

static void on_done(void *ctx, struct task *task)
{
	dispatch_free_task(world.disp, task);
}

static const struct dispatch_events events = {.on_acked = on_acked, .on_done = on_done};

static int setup(void **state)
{
	static char none[] = "";
	static int any;

	memset(&world, 0, sizeof(world));
	world.loop = loop_new(NULL, NULL);
	world.opts.dead_letter_topic = none;
	world.part = (struct partition *)&any;
	task_lists_init(&world.tasks);
	world.disp = dispatcher_new(world.loop, &world.metrics, NULL, &world.opts, "test", &events, NULL);
	return 0;
}

static int teardown(void **state)
{
	for (int i = 0; i < TASK_STATES; i++)
		LIST_EACH(&world.tasks.in[i], task, struct task, node)
			dispatch_free_task(world.disp, task);
	dispatcher_free(world.disp);
	loop_free(world.loop);
	return 0;
}

/* A job ends that was at this offset. */
static void end_job(int64_t offset)
{
	struct record rec = {.topic = "jobs", .offset = offset, .value = span_str("http://a.example/")};
	struct task *task = task_new(&world.tasks, &rec, loop_now_us(world.loop), 0);

	task->partition = world.part;
	task->outcome = OUTCOME_HTTP_ERROR;
	task->job.url = "http://a.example/";
	task->job.job_id = "id";
	task_set_state(&world.tasks, task, TASK_DELIVERING);
	dispatch_send(world.disp, task);
}

static void ack(size_t i)
{
	dispatch_on_delivered(world.disp, world.sent[i], 0);
}

static void test_a_lone_result_goes_at_once(void **state)
{
	for (size_t i = 0; i < 3; i++) {
		end_job((int64_t)i);
		assert_int_equal(world.n_sent, i + 1);
		ack(i);
	}
	assert_int_equal(world.n_done, 3);
}

static void test_others_gather_until_all_of_a_wave_is_acknowledged(void **state)
{
	for (int64_t i = 0; i < 4; i++)
		end_job(i);
	assert_int_equal(world.n_sent, 1);
	ack(0);
	assert_int_equal(world.n_sent, 4);
	end_job(4);
	ack(1);
	ack(3);
	assert_int_equal(world.n_sent, 4);
	ack(2);
	assert_int_equal(world.n_sent, 5);
	ack(4);
	assert_int_equal(world.n_done, 5);
}

static void test_a_broker_that_does_not_answer_holds_nothing_back_for_long(void **state)
{
	int64_t until_us = clock_now_us() + LONG_US;

	for (int64_t i = 0; i < 3; i++)
		end_job(i);
	assert_int_equal(world.n_sent, 1);
	while (world.n_sent < 3 && clock_now_us() < until_us)
		loop_turn(world.loop, US_PER_S);
	assert_int_equal(world.n_sent, 3);
	for (size_t i = 0; i < 3; i++)
		ack(i);
	assert_int_equal(world.n_done, 3);
}

static void test_a_full_producer_is_tried_again_when_it_has_room(void **state)
{
	world.is_full = true;
	end_job(0);
	end_job(1);
	assert_int_equal(world.n_sent, 0);
	assert_int_equal(world.metrics.queue_full, 2);
	world.is_full = false;
	dispatch_on_room(world.disp);
	assert_int_equal(world.n_sent, 2);
	ack(0);
	ack(1);
	assert_int_equal(world.n_done, 2);
}

static void test_nothing_goes_while_it_is_held(void **state)
{
	dispatch_hold(world.disp, true);
	end_job(0);
	end_job(1);
	dispatch_on_room(world.disp);
	assert_int_equal(world.n_sent, 0);
	assert_int_equal(world.metrics.queue_full, 0);
	dispatch_hold(world.disp, false);
	assert_int_equal(world.n_sent, 2);
	ack(0);
	ack(1);
	assert_int_equal(world.n_done, 2);
}

/* One that failed comes a second later, by itself, and does not wait for a wave. */
static void test_what_is_not_delivered_is_produced_again(void **state)
{
	int64_t until_us = clock_now_us() + LONG_US;

	end_job(0);
	dispatch_on_delivered(world.disp, world.sent[0], -ERR_KAFKA);
	end_job(1);
	assert_int_equal(world.n_sent, 2);
	while (world.n_sent < 3 && clock_now_us() < until_us)
		loop_turn(world.loop, US_PER_S);
	assert_int_equal(world.n_sent, 3);
	assert_ptr_equal(world.sent[2], world.sent[0]);
	assert_int_equal(world.metrics.results_reproduced, 1);
	ack(1);
	ack(2);
	assert_int_equal(world.n_done, 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_a_lone_result_goes_at_once),
	    TEST(test_others_gather_until_all_of_a_wave_is_acknowledged),
	    TEST(test_a_broker_that_does_not_answer_holds_nothing_back_for_long),
	    TEST(test_a_full_producer_is_tried_again_when_it_has_room),
	    TEST(test_nothing_goes_while_it_is_held),
	    TEST(test_what_is_not_delivered_is_produced_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
