/* admit: who gets the next turn, what a turn takes, and that nobody waits without being woken. */
#include "admit.h"
#include "err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#define S INT64_C(1000000)
#define T0 (100 * S)
#define PARTS 3
#define HOSTS 4
#define JOBS 200

/* A job is a turn with a number. */
struct job {
	struct turn turn;
	int id;
};

static struct world {
	struct admit adm;
	struct admit_part parts[PARTS];
	struct host_options opts[HOSTS];
	struct job jobs[JOBS];
	int n_jobs;
	bool is_unnamed[HOSTS]; /* its address is not known */
} world;

static struct host *host_of(int i)
{
	char key[16];

	snprintf(key, sizeof(key), "h%d:80", i);
	return hosts_get(world.adm.hosts, key, &world.opts[i], T0);
}

static bool needs_name(void *ctx, struct turn *turn)
{
	for (int i = 0; i < HOSTS; i++)
		if (turn->host == host_of(i))
			return world.is_unnamed[i];
	return false;
}

static void start(int32_t inflight_max, int32_t part_inflight_max, int64_t host_inflight)
{
	memset(&world, 0, sizeof(world));
	admit_init(&world.adm, inflight_max, part_inflight_max, needs_name, NULL);
	for (int i = 0; i < PARTS; i++)
		admit_part_init(&world.adm, &world.parts[i]);
	for (int i = 0; i < HOSTS; i++)
		world.opts[i] = (struct host_options){.host_inflight = host_inflight};
}

static void end(void)
{
	for (int i = 0; i < world.n_jobs; i++) {
		admit_leave(&world.jobs[i].turn, T0);
		admit_release(&world.jobs[i].turn, T0, HOST_NOT_TRIED, 0);
	}
	for (int i = 0; i < PARTS; i++)
		admit_part_done(&world.parts[i], T0);
	assert_int_equal(world.adm.inflight, 0);
	assert_int_equal(world.adm.waiting, 0);
	assert_int_equal(world.adm.resolving, 0);
	admit_done(&world.adm);
}

static struct job *add_at(int part, int host, int64_t now_us)
{
	struct job *job = &world.jobs[world.n_jobs];

	job->id = world.n_jobs++;
	admit_wait(&world.parts[part], &job->turn, host_of(host), now_us);
	return job;
}

static struct job *add(int part, int host)
{
	return add_at(part, host, T0);
}

static int next_at(int64_t now_us)
{
	struct turn *turn = admit_next(&world.adm, now_us);

	return turn ? CONTAINER_OF(turn, struct job, turn)->id : -1;
}

static int next(void)
{
	return next_at(T0);
}

static void release(struct job *job, int64_t now_us)
{
	admit_release(&job->turn, now_us, HOST_REACHED, 0);
}

static void assert_order(const int *ids, size_t n)
{
	for (size_t i = 0; i < n; i++)
		assert_int_equal(next(), ids[i]);
	assert_int_equal(next(), -1);
}

static void a_turn_takes_all_slots(void **state)
{
	start(10, 10, 10);
	struct job *job = add(0, 0);
	assert_int_equal(world.adm.waiting, 1);
	assert_int_equal(next(), 0);
	assert_true(job->turn.has_slots && job->turn.had_turn && !job->turn.is_down);
	assert_int_equal(world.adm.waiting, 0);
	assert_int_equal(world.adm.inflight, 1);
	assert_int_equal(world.parts[0].inflight, 1);
	assert_int_equal(host_inflight(host_of(0)), 1);
	assert_int_equal(next(), -1);
	release(job, T0);
	release(job, T0); /* safe twice */
	assert_int_equal(world.adm.inflight + world.parts[0].inflight + host_inflight(host_of(0)), 0);
	end();
}

static void round_robin(void **state)
{
	static const int order[] = {0, 6, 8, 2, 7, 4, 1, 3, 5};

	/* Partitions take turns, and within a partition its hosts. */
	start(100, 100, 100);
	add(0, 0), add(0, 0); /* 0 1 */
	add(0, 1), add(0, 1); /* 2 3 */
	add(0, 2), add(0, 2); /* 4 5 */
	add(1, 0), add(1, 0); /* 6 7 */
	add(2, 3);	      /* 8 */
	assert_order(order, ARRAY_LEN(order));
	end();
}

static void who_had_a_turn_comes_first(void **state)
{
	static const int order[] = {0, 1, 2};

	start(100, 100, 1);
	struct job *again = add(0, 0);
	assert_int_equal(next(), 0);
	add(0, 0), add(0, 0);
	release(again, T0);
	admit_wait(&world.parts[0], &again->turn, host_of(0), T0);
	for (size_t i = 0; i < ARRAY_LEN(order); i++) {
		assert_int_equal(next(), order[i]);
		assert_int_equal(next(), -1);
		release(&world.jobs[order[i]], T0);
	}
	end();
}

static void the_process_is_full(void **state)
{
	start(2, 10, 10);
	for (int i = 0; i < 4; i++)
		add(i % 2, i % 2);
	assert_int_equal(next(), 0);
	assert_int_equal(next(), 1);
	assert_int_equal(next(), -1);
	assert_int_equal(admit_room(&world.parts[0]), 0);
	release(&world.jobs[1], T0);
	assert_int_equal(next(), 2); /* the other partition's turn, whoever gave back */
	end();
}

static void a_partition_is_full(void **state)
{
	start(10, 1, 10);
	add(0, 0), add(0, 1), add(1, 0);
	assert_int_equal(next(), 0);
	assert_int_equal(next(), 2);
	assert_int_equal(next(), -1);
	release(&world.jobs[0], T0);
	assert_int_equal(next(), 1);
	end();
}

static void room_counts_only_what_is_ready(void **state)
{
	start(10, 4, 1);
	assert_int_equal(admit_room(&world.parts[0]), 4);
	for (int i = 0; i < 5; i++)
		add(0, 0);
	assert_int_equal(admit_room(&world.parts[0]), 0); /* not looked at yet */
	assert_int_equal(next(), 0);
	assert_int_equal(next(), -1);
	assert_int_equal(admit_room(&world.parts[0]), 3); /* four wait for their host: reading goes on past them */
	end();
}

static void a_slot_of_the_host_wakes_all_partitions(void **state)
{
	start(10, 10, 1);
	for (int part = 0; part < PARTS; part++)
		add(part, 0);
	assert_int_equal(next(), 0);
	assert_int_equal(next(), -1);
	assert_int_equal(host_lines(host_of(0))->len, 2);
	release(&world.jobs[0], T0);
	assert_int_equal(next(), 1);
	assert_int_equal(next(), -1);
	release(&world.jobs[1], T0);
	assert_int_equal(next(), 2);
	end();
}

static void a_rate_wakes_by_time(void **state)
{
	start(10, 10, 10);
	world.opts[0].host_rate = 2;
	for (int i = 0; i < 3; i++)
		add(0, 0);
	assert_int_equal(admit_wake_us(&world.adm), INT64_MAX);
	assert_int_equal(next(), 0);
	assert_int_equal(next(), -1);
	assert_int_equal(admit_wake_us(&world.adm), T0 + S / 2);
	admit_tick(&world.adm, T0 + S / 2 - 1);
	assert_int_equal(next_at(T0 + S / 2 - 1), -1);
	admit_tick(&world.adm, T0 + S / 2);
	assert_int_equal(next_at(T0 + S / 2), 1);
	assert_int_equal(next_at(T0 + S / 2), -1);
	/* A slot given back is no token, and does not lose the wake-up. */
	release(&world.jobs[0], T0 + S / 2);
	assert_int_equal(next_at(T0 + S / 2), -1);
	assert_int_equal(admit_wake_us(&world.adm), T0 + S);
	admit_tick(&world.adm, T0 + S);
	assert_int_equal(next_at(T0 + S), 2);
	end();
}

static void politeness_is_the_wait_for_the_host(void **state)
{
	start(1, 10, 1);
	struct job *first = add_at(0, 0, T0), *second = add_at(0, 0, T0);
	assert_int_equal(next_at(T0), 0);
	assert_int_equal(next_at(T0), -1);
	release(first, T0 + S); /* the process was full: nobody has looked at its host yet */
	assert_int_equal(next_at(T0 + S), 1);
	assert_int_equal(second->turn.politeness_us, 0);
	end();

	start(10, 10, 1);
	first = add_at(0, 0, T0), second = add_at(0, 0, T0);
	struct job *third = add_at(0, 0, T0 + S);
	assert_int_equal(next_at(T0), 0);
	assert_int_equal(next_at(T0), -1);
	release(first, T0 + 3 * S);
	assert_int_equal(next_at(T0 + 3 * S), 1);
	assert_int_equal(second->turn.politeness_us, 3 * S);
	admit_leave(&third->turn, T0 + 3 * S);
	assert_true(third->turn.politeness_us >= 2 * S);
	end();
}

static void open_breaker(struct host *host)
{
	for (int i = 0; i < HOST_FAILURES_TO_OPEN; i++) {
		host_start(host, T0);
		host_finish(host, T0, T0, HOST_UNREACHABLE, -ERR_CONNECT_REFUSED);
	}
}

static void a_down_host_answers_its_line(void **state)
{
	start(10, 10, 10);
	open_breaker(host_of(0));
	struct job *job = add(0, 0);
	add(0, 0), add(0, 1);
	assert_int_equal(next(), 0);
	assert_true(job->turn.is_down && !job->turn.has_slots && !job->turn.had_turn);
	assert_int_equal(next(), 2);
	assert_false(world.jobs[2].turn.is_down);
	assert_int_equal(next(), 1);
	assert_int_equal(world.adm.inflight, 1);
	/* The probe is a turn like any other. */
	add(0, 0);
	assert_int_equal(next_at(T0 + HOST_PROBE_MIN_US), 3);
	assert_true(world.jobs[3].turn.has_slots);
	end();
}

static void the_breaker_frees_those_who_wait(void **state)
{
	start(100, 100, HOST_FAILURES_TO_OPEN);
	for (int i = 0; i < HOST_FAILURES_TO_OPEN + 2; i++)
		add(0, 0);
	for (int i = 0; i < HOST_FAILURES_TO_OPEN; i++)
		assert_int_equal(next(), i);
	assert_int_equal(next(), -1);
	for (int i = 0; i < HOST_FAILURES_TO_OPEN; i++)
		assert_int_equal(admit_release(&world.jobs[i].turn, T0, HOST_UNREACHABLE, -ERR_CONNECT_REFUSED),
				 i == HOST_FAILURES_TO_OPEN - 1);
	assert_int_equal(next(), HOST_FAILURES_TO_OPEN);
	assert_true(world.jobs[HOST_FAILURES_TO_OPEN].turn.is_down);
	end();
}

/* Takes the next turn, which must be that job's, and lets it ask for its name. */
static void resolve_next(int id)
{
	assert_int_equal(next(), id);
	admit_set_resolving(&world.jobs[id].turn, true);
}

static void half_of_the_slots_may_resolve(void **state)
{
	start(100, 4, 100);
	world.is_unnamed[0] = world.is_unnamed[1] = true;
	add(0, 0), add(0, 0), add(0, 0), add(0, 1), add(0, 2);
	resolve_next(0);
	resolve_next(3);
	assert_int_equal(next(), 4); /* its name is known */
	assert_int_equal(next(), -1);
	assert_int_equal(world.parts[0].unnamed.len, 1);
	assert_int_equal(admit_room(&world.parts[0]), 1); /* what waits for a name is not ready: reading goes on */
	admit_set_resolving(&world.jobs[0].turn, false);
	resolve_next(1);
	assert_int_equal(next(), -1);
	end();
}

static void half_of_the_process_may_resolve(void **state)
{
	start(4, 100, 100);
	world.is_unnamed[0] = world.is_unnamed[1] = world.is_unnamed[2] = true;
	add(0, 0), add(1, 1), add(2, 2);
	resolve_next(0);
	resolve_next(1);
	assert_int_equal(next(), -1);
	/* Another partition's name makes the room. */
	admit_set_resolving(&world.jobs[1].turn, false);
	resolve_next(2);
	end();
}

static void one_may_always_resolve(void **state)
{
	start(1, 1, 1);
	world.is_unnamed[0] = true;
	add(0, 0);
	resolve_next(0);
	end();
}

/* Found by the simulation: the room was given to one line; when that one did not use it, the others waited for ever. */
static void unused_room_for_a_name_goes_on(void **state)
{
	start(100, 2, 1);
	world.is_unnamed[0] = world.is_unnamed[1] = world.is_unnamed[2] = true;
	add(0, 0);
	resolve_next(0);
	struct job *leaves = add(0, 1);
	add(0, 2);
	assert_int_equal(next(), -1);
	assert_int_equal(world.parts[0].unnamed.len, 2);
	admit_set_resolving(&world.jobs[0].turn, false);
	admit_leave(&leaves->turn, T0); /* expired just now */
	resolve_next(2);
	end();

	start(100, 10, 1);
	world.adm.part_inflight_max = 2;
	world.is_unnamed[0] = world.is_unnamed[1] = world.is_unnamed[2] = true;
	add(0, 0);
	resolve_next(0);
	add(0, 1), add(0, 2);
	host_start(host_of(1), T0); /* somebody else took its slot */
	assert_int_equal(next(), -1);
	admit_set_resolving(&world.jobs[0].turn, false);
	resolve_next(2);
	host_finish(host_of(1), T0, T0, HOST_REACHED, 0);
	end();
}

static void leaving_a_line(void **state)
{
	start(10, 10, 1);
	struct job *a = add(0, 0), *b = add(0, 0), *c = add(0, 0);
	admit_leave(&b->turn, T0);
	admit_leave(&b->turn, T0); /* safe twice */
	assert_int_equal(world.parts[0].waiting, 2);
	assert_int_equal(next(), a->id);
	admit_leave(&c->turn, T0);
	assert_int_equal(world.parts[0].waiting, 0);
	assert_int_equal(host_lines(host_of(0))->len, 0);
	release(a, T0);
	assert_int_equal(next(), -1);
	end();
}

static void taking_one_very_turn(void **state)
{
	start(2, 1, 1);
	struct job *a = add(0, 0), *b = add(0, 0), *other = add(1, 1);
	assert_true(admit_take(&b->turn, T0)); /* out of order: it is the lowest open one */
	assert_false(admit_take(&b->turn, T0));
	assert_false(admit_take(&a->turn, T0)); /* its partition and its host are full */
	assert_true(admit_take(&other->turn, T0));
	release(b, T0);
	assert_int_equal(next(), a->id);
	end();
}

static void new_limits(void **state)
{
	start(10, 10, 1);
	for (int i = 0; i < 4; i++)
		add(0, i % 2);
	assert_int_equal(next(), 0);
	assert_int_equal(next(), 1);
	assert_int_equal(next(), -1);
	world.opts[0].host_inflight = 2;
	admit_set_limits(&world.adm, 3, 10, T0);
	assert_int_equal(next(), 2);
	assert_int_equal(next(), -1);
	world.opts[1].host_inflight = 2;
	admit_set_limits(&world.adm, 3, 3, T0);
	assert_int_equal(next(), -1);
	admit_set_limits(&world.adm, 4, 4, T0);
	assert_int_equal(next(), 3);
	end();
}

static void empty_lines_and_idle_hosts_are_forgotten(void **state)
{
	start(10, 10, 10);
	for (int host = 0; host < HOSTS; host++)
		add(0, host);
	add(1, 0);
	add(1, 0);
	for (int i = 0; i < HOSTS + 1; i++)
		assert_int_not_equal(next(), -1);
	for (int i = 0; i < world.n_jobs; i++)
		release(&world.jobs[i], T0);
	assert_int_equal(hosts_counts(world.adm.hosts).spread, 1);
	admit_sweep(&world.adm, T0 + 9 * S, 100);
	assert_int_equal(world.adm.empty.len, HOSTS);
	assert_int_equal(hosts_count(world.adm.hosts), HOSTS);
	admit_sweep(&world.adm, T0 + 10 * S, 3);
	assert_int_equal(world.adm.empty.len, HOSTS - 3);
	admit_sweep(&world.adm, T0 + 10 * S, 100);
	assert_int_equal(world.adm.empty.len, 0);
	admit_sweep(&world.adm, T0 + 10 * S + HOST_FORGET_US, 100);
	/* One job still waits in partition 1. */
	assert_int_equal(hosts_count(world.adm.hosts), 1);
	assert_int_equal(hosts_counts(world.adm.hosts).spread, 0);
	end();
}

static void only_new_jobs_tell_that_a_host_is_spread(void **state)
{
	start(10, 10, 10);
	add(0, 0);
	struct job *hop = add(1, 1);
	assert_int_equal(next() + next(), 1);
	release(hop, T0);
	admit_wait(&world.parts[1], &hop->turn, host_of(0), T0);
	assert_int_equal(hosts_counts(world.adm.hosts).spread_total, 0);
	add(1, 0);
	add(2, 0);
	assert_int_equal(hosts_counts(world.adm.hosts).spread, 1);
	assert_int_equal(hosts_counts(world.adm.hosts).spread_total, 1);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_turn_takes_all_slots),
		cmocka_unit_test(round_robin),
		cmocka_unit_test(who_had_a_turn_comes_first),
		cmocka_unit_test(the_process_is_full),
		cmocka_unit_test(a_partition_is_full),
		cmocka_unit_test(room_counts_only_what_is_ready),
		cmocka_unit_test(a_slot_of_the_host_wakes_all_partitions),
		cmocka_unit_test(a_rate_wakes_by_time),
		cmocka_unit_test(politeness_is_the_wait_for_the_host),
		cmocka_unit_test(a_down_host_answers_its_line),
		cmocka_unit_test(the_breaker_frees_those_who_wait),
		cmocka_unit_test(half_of_the_slots_may_resolve),
		cmocka_unit_test(half_of_the_process_may_resolve),
		cmocka_unit_test(one_may_always_resolve),
		cmocka_unit_test(unused_room_for_a_name_goes_on),
		cmocka_unit_test(leaving_a_line),
		cmocka_unit_test(taking_one_very_turn),
		cmocka_unit_test(new_limits),
		cmocka_unit_test(empty_lines_and_idle_hosts_are_forgotten),
		cmocka_unit_test(only_new_jobs_tell_that_a_host_is_spread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
