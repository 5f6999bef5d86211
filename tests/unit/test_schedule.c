/* schedule: spread, lateness, what is missed and why, changes, and a clock that goes back; time is an argument. */
#include "schedule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#define T0 INT64_C(1793000000000)
#define S INT64_C(1000)
#define PERIOD (10 * S)
#define PATIENCE (75 * S)

struct one {
	struct schedule sched;
	struct schedule_slot slot;
};

static void setup(struct one *one, int64_t period_ms, int64_t last_ms)
{
	memset(one, 0, sizeof(*one));
	schedule_init(&one->sched);
	schedule_add(&one->sched, &one->slot, "a", period_ms, PATIENCE, last_ms, T0);
}

static void assert_missed(const struct schedule_slot *slot, enum missed cause, int64_t n)
{
	assert_int_equal(slot->missed[cause], n);
	assert_int_equal(schedule_missed(slot), n);
	if (n)
		assert_int_equal(slot->last_cause, cause);
}

static void rounds_are_on_a_grid(void **state)
{
	struct one one;

	setup(&one, PERIOD, 0);
	int64_t due_ms = one.slot.due_ms;
	assert_in_range(due_ms, T0 + 1, T0 + PERIOD);
	assert_int_equal(schedule_next_ms(&one.sched), due_ms);
	assert_null(schedule_take(&one.sched, due_ms - 1));
	for (int i = 0; i < 100; i++) {
		assert_ptr_equal(schedule_take(&one.sched, due_ms + i), &one.slot);
		assert_int_equal(one.slot.round_ms, due_ms); /* however late it was */
		assert_null(schedule_take(&one.sched, due_ms + i));
		schedule_acknowledged(&one.slot, due_ms);
		schedule_ended(&one.slot, due_ms, false);
		assert_int_equal(one.slot.round_ms, 0);
		due_ms += PERIOD;
		assert_int_equal(schedule_next_ms(&one.sched), due_ms);
	}
	assert_int_equal(one.slot.sent, 100);
	assert_missed(&one.slot, MISSED_LATE, 0);
	schedule_done(&one.sched);
}

/* Whoever feeds a source, and whenever it was started, means the same rounds. */
static void rounds_do_not_depend_on_the_start(void **state)
{
	for (int64_t at_ms = T0; at_ms < T0 + 3 * PERIOD; at_ms += 777) {
		struct one one;
		struct schedule other;
		struct schedule_slot slot = {0};

		setup(&one, PERIOD, 0);
		schedule_init(&other);
		schedule_add(&other, &slot, "a", PERIOD, PATIENCE, 0, at_ms);
		assert_int_equal((slot.due_ms - one.slot.due_ms) % PERIOD, 0);
		assert_in_range(slot.due_ms, at_ms + 1, at_ms + PERIOD);
		schedule_done(&one.sched);
		schedule_done(&other);
	}
}

/* Ids that differ by one digit, as people number things. */
static void sources_are_spread(void **state)
{
	enum { N = 200, PARTS = 10 };
	const char *const forms[] = {"http://127.0.0.1:8080/source/%d", "%d", "https://example.com/%03d/prices.json"};

	for (size_t f = 0; f < ARRAY_LEN(forms); f++) {
		struct schedule sched;
		struct schedule_slot *slots = xcalloc(N, sizeof(slots[0]));
		int counts[PARTS] = {0};

		schedule_init(&sched);
		for (int i = 0; i < N; i++) {
			char id[100];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
			snprintf(id, sizeof(id), forms[f], i);
#pragma GCC diagnostic pop
			schedule_add(&sched, &slots[i], id, PERIOD, PATIENCE, 0, T0);
			counts[(slots[i].due_ms - T0 - 1) * PARTS / PERIOD]++;
		}
		for (int i = 0; i < PARTS; i++)
			assert_in_range(counts[i], N / PARTS / 3, N / PARTS * 2);
		schedule_done(&sched);
		free(slots);
	}
}

static void the_earliest_comes_first(void **state)
{
	enum { N = 50 };
	struct schedule_slot slots[N] = {0};
	struct schedule sched;
	int64_t before_ms = 0;

	schedule_init(&sched);
	assert_int_equal(schedule_next_ms(&sched), INT64_MAX);
	for (int i = 0; i < N; i++) {
		char id[16];
		snprintf(id, sizeof(id), "s%d", i);
		schedule_add(&sched, &slots[i], id, PERIOD, PATIENCE, 0, T0);
	}
	for (int i = 0; i < N; i++) {
		struct schedule_slot *slot = schedule_take(&sched, T0 + PERIOD);
		assert_non_null(slot);
		assert_true(slot->round_ms >= before_ms);
		before_ms = slot->round_ms;
	}
	assert_null(schedule_take(&sched, T0 + PERIOD));
	schedule_done(&sched);
}

static void a_round_under_way_holds_the_next(void **state)
{
	struct one one;

	setup(&one, PERIOD, 0);
	int64_t due_ms = one.slot.due_ms;
	assert_non_null(schedule_take(&one.sched, due_ms));
	assert_null(schedule_take(&one.sched, due_ms + PERIOD));
	assert_missed(&one.slot, MISSED_UNSENT, 1); /* no broker has it yet */
	one.slot.missed[MISSED_UNSENT] = 0;
	schedule_acknowledged(&one.slot, due_ms + 1); /* another round's */
	assert_false(one.slot.is_acknowledged);
	schedule_acknowledged(&one.slot, due_ms);
	assert_null(schedule_take(&one.sched, due_ms + 2 * PERIOD));
	assert_null(schedule_take(&one.sched, due_ms + 3 * PERIOD));
	assert_missed(&one.slot, MISSED_RUNNING, 2);
	schedule_ended(&one.slot, due_ms - PERIOD, false); /* an older one's result */
	assert_int_equal(one.slot.round_ms, due_ms);
	schedule_ended(&one.slot, due_ms, false);
	assert_ptr_equal(schedule_take(&one.sched, due_ms + 4 * PERIOD), &one.slot);
	assert_int_equal(one.slot.round_ms, due_ms + 4 * PERIOD); /* one, not three */
	assert_false(one.slot.is_acknowledged);
	assert_null(schedule_take(&one.sched, due_ms + 4 * PERIOD));
	assert_int_equal(one.slot.sent, 2);
	schedule_done(&one.sched);
}

static void late_by_rounds_sends_the_newest_only(void **state)
{
	static const struct {
		int64_t late_ms, missed;
	} rows[] = {{0, 0}, {1, 0}, {PERIOD - 1, 0}, {PERIOD, 1}, {PERIOD + 1, 1}, {2 * PERIOD - 1, 1}, {1000 * PERIOD + 5, 1000}};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct one one;

		setup(&one, PERIOD, 0);
		int64_t due_ms = one.slot.due_ms, now_ms = due_ms + rows[i].late_ms;
		assert_ptr_equal(schedule_take(&one.sched, now_ms), &one.slot);
		assert_int_equal(one.slot.round_ms, due_ms + rows[i].missed * PERIOD);
		assert_missed(&one.slot, MISSED_LATE, rows[i].missed);
		assert_null(schedule_take(&one.sched, now_ms));
		assert_int_equal(schedule_next_ms(&one.sched), one.slot.round_ms + PERIOD);
		schedule_done(&one.sched);
	}
}

static void what_is_unsent_expired_or_lost_is_missed(void **state)
{
	struct one one;

	setup(&one, PERIOD, 0);
	int64_t due_ms = one.slot.due_ms;
	assert_non_null(schedule_take(&one.sched, due_ms));
	schedule_unsent(&one.slot, due_ms);
	schedule_unsent(&one.slot, due_ms); /* once is enough */
	schedule_ended(&one.slot, 0, true);
	assert_missed(&one.slot, MISSED_UNSENT, 1);
	one.slot.missed[MISSED_UNSENT] = 0;

	due_ms += PERIOD;
	assert_non_null(schedule_take(&one.sched, due_ms));
	schedule_ended(&one.slot, due_ms, true);
	assert_missed(&one.slot, MISSED_EXPIRED, 1);
	one.slot.missed[MISSED_EXPIRED] = 0;

	due_ms += PERIOD;
	assert_non_null(schedule_take(&one.sched, due_ms));
	schedule_acknowledged(&one.slot, due_ms);
	int running = 0;
	for (int64_t at_ms = due_ms + PERIOD; at_ms < due_ms + PATIENCE; at_ms += PERIOD, running++)
		assert_null(schedule_take(&one.sched, at_ms));
	assert_missed(&one.slot, MISSED_RUNNING, running);
	one.slot.missed[MISSED_RUNNING] = 0;
	assert_non_null(schedule_take(&one.sched, due_ms + 8 * PERIOD));
	assert_missed(&one.slot, MISSED_LOST, 1);
	schedule_ended(&one.slot, due_ms, false); /* comes after all */
	assert_int_equal(one.slot.round_ms, due_ms + 8 * PERIOD);
	schedule_done(&one.sched);
}

static void a_long_period_that_is_overdue_runs_soon(void **state)
{
	static const struct {
		int64_t period_ms, last_ms;
		bool is_soon;
		const char *why;
	} rows[] = {
	    {3600 * S, 0, true, "never done"},
	    {3600 * S, T0 - 3601 * S, true, "overdue"},
	    {3600 * S, T0 - 1800 * S, false, "done half a period ago"},
	    {3600 * S, T0 + 9000 * S, true, "a clock was wrong"},
	    {PERIOD, 0, false, "the next round is soon enough"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct one one;

		setup(&one, rows[i].period_ms, rows[i].last_ms);
		int64_t due_ms = one.slot.due_ms, grid_ms = (due_ms - one.slot.phase_ms) % rows[i].period_ms;
		assert_true(due_ms > T0 - 1 && due_ms <= T0 + rows[i].period_ms);
		assert_int_equal(grid_ms != 0 && due_ms <= T0 + SCHEDULE_CATCH_UP_MS, rows[i].is_soon);
		assert_non_null(schedule_take(&one.sched, due_ms));
		assert_int_equal(one.slot.round_ms, due_ms);
		/* Then on the grid, and not at once again. */
		assert_int_equal((one.slot.due_ms - one.slot.phase_ms) % rows[i].period_ms, 0);
		assert_in_range(one.slot.due_ms - due_ms, rows[i].period_ms / 2, rows[i].period_ms * 3 / 2);
		assert_int_equal(schedule_missed(&one.slot), 0);
		schedule_done(&one.sched);
	}
}

/* Wherever in its hour a source is added. */
static void a_catch_up_keeps_away_from_the_grid(void **state)
{
	const int64_t hour_ms = 3600 * S;

	for (int64_t at_ms = T0; at_ms < T0 + hour_ms; at_ms += 7 * S) {
		struct schedule_slot slot = {0};
		struct schedule sched;

		schedule_init(&sched);
		schedule_add(&sched, &slot, "a", hour_ms, PATIENCE, 0, at_ms);
		int64_t first_ms = slot.due_ms;
		assert_in_range(first_ms, at_ms, at_ms + SCHEDULE_CATCH_UP_MS);
		assert_non_null(schedule_take(&sched, first_ms));
		assert_in_range(slot.due_ms - first_ms, hour_ms / 2, hour_ms * 3 / 2);
		schedule_done(&sched);
	}
}

static void a_round_that_is_done_is_not_done_again(void **state)
{
	struct one one;

	setup(&one, PERIOD, 0);
	int64_t due_ms = one.slot.due_ms;
	schedule_add(&one.sched, &one.slot, "a", PERIOD, PATIENCE, due_ms, T0);
	assert_int_equal(schedule_next_ms(&one.sched), due_ms + PERIOD);
	schedule_done(&one.sched);
}

static void reload_changes_the_period_and_keeps_the_rest(void **state)
{
	struct one one;

	setup(&one, PERIOD, 0);
	int64_t due_ms = one.slot.due_ms;
	assert_non_null(schedule_take(&one.sched, due_ms));
	schedule_add(&one.sched, &one.slot, "a", S, PATIENCE, 0, due_ms);
	assert_int_equal(one.sched.heap.len, 1);
	assert_in_range(schedule_next_ms(&one.sched), due_ms + 1, due_ms + S);
	assert_null(schedule_take(&one.sched, due_ms + S)); /* still under way */
	assert_missed(&one.slot, MISSED_UNSENT, 1);
	assert_int_equal(one.slot.sent, 1);
	schedule_remove(&one.sched, &one.slot);
	schedule_remove(&one.sched, &one.slot);
	assert_int_equal(schedule_next_ms(&one.sched), INT64_MAX);
	schedule_done(&one.sched);
}

static void a_clock_that_goes_back_stops_nothing(void **state)
{
	struct one one;

	setup(&one, PERIOD, 0);
	int64_t due_ms = one.slot.due_ms;
	assert_non_null(schedule_take(&one.sched, due_ms));
	schedule_acknowledged(&one.slot, due_ms);

	/* By less than a period: the next round is only that much later. */
	assert_null(schedule_take(&one.sched, due_ms - 5 * S));
	assert_int_equal(schedule_next_ms(&one.sched), due_ms + PERIOD);

	int64_t back_ms = due_ms - 3600 * S;
	assert_null(schedule_take(&one.sched, back_ms));
	assert_in_range(schedule_next_ms(&one.sched), back_ms + 1, back_ms + PERIOD);
	/* What is under way has its patience from now on. */
	assert_null(schedule_take(&one.sched, back_ms + PERIOD));
	assert_missed(&one.slot, MISSED_RUNNING, 1);
	assert_non_null(schedule_take(&one.sched, back_ms + PATIENCE + PERIOD));
	schedule_done(&one.sched);
}

static void each_cause_has_a_name(void **state)
{
	for (int i = 0; i < MISSED_COUNT; i++)
		for (int j = 0; j < i; j++)
			assert_string_not_equal(schedule_cause((enum missed)i), schedule_cause((enum missed)j));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(rounds_are_on_a_grid),
	    cmocka_unit_test(rounds_do_not_depend_on_the_start),
	    cmocka_unit_test(sources_are_spread),
	    cmocka_unit_test(the_earliest_comes_first),
	    cmocka_unit_test(a_round_under_way_holds_the_next),
	    cmocka_unit_test(late_by_rounds_sends_the_newest_only),
	    cmocka_unit_test(what_is_unsent_expired_or_lost_is_missed),
	    cmocka_unit_test(a_long_period_that_is_overdue_runs_soon),
	    cmocka_unit_test(a_catch_up_keeps_away_from_the_grid),
	    cmocka_unit_test(a_round_that_is_done_is_not_done_again),
	    cmocka_unit_test(reload_changes_the_period_and_keeps_the_rest),
	    cmocka_unit_test(a_clock_that_goes_back_stops_nothing),
	    cmocka_unit_test(each_cause_has_a_name),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
