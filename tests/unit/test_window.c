/* window: boundary cases by hand, then against a model so naive that it is plainly right. */
#include "err.h"
#include "window.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#define WORDS (OFFSETMAP_SPAN_MAX / 64 + 1)

static void assert_window(const struct window *win, int64_t commit_point, int64_t next, int32_t open, int32_t above)
{
	assert_int_equal(window_commit_point(win), commit_point);
	assert_int_equal(window_next(win), next);
	assert_int_equal(window_open(win), open);
	assert_int_equal(window_completed_above(win), above);
	assert_int_equal(window_span(win), next - commit_point);
}

/* Snapshot as text: one character per offset from the commit point on, 1 = complete. */
static void assert_snapshot(struct window *win, int64_t commit_point, const char *set)
{
	char metadata[OFFSETMAP_TEXT_MAX + 1], text[WORDS * 64 + 1] = "";
	uint64_t bits[WORDS] = {0};
	size_t n_bits = 0;

	assert_int_equal(window_snapshot(win, metadata), commit_point);
	assert_int_equal(offsetmap_decode(metadata, strlen(metadata), bits, WORDS, &n_bits), 0);
	for (size_t i = 0; i < n_bits; i++)
		text[i] = bits[i / 64] >> i % 64 & 1 ? '1' : '0';
	text[n_bits] = '\0';
	assert_string_equal(text, set);
	assert_false(window_is_dirty(win));
}

static void accept_all(struct window *win, int64_t from, int64_t to)
{
	for (int64_t offset = from; offset < to; offset++)
		assert_int_equal(window_accept(win, offset), 0);
}

static void happy_path(void **state)
{
	struct window *win = window_new(100, 10);

	assert_window(win, 100, 100, 0, 0);
	assert_false(window_is_dirty(win));
	accept_all(win, 100, 103);
	assert_window(win, 100, 103, 3, 0);
	assert_false(window_is_dirty(win));

	window_finish(win, 101);
	assert_window(win, 100, 103, 2, 1);
	assert_true(window_is_dirty(win));
	assert_snapshot(win, 100, "01");

	window_finish(win, 100);
	assert_window(win, 102, 103, 1, 0);
	assert_snapshot(win, 102, "");
	window_finish(win, 102);
	assert_window(win, 103, 103, 0, 0);
	assert_snapshot(win, 103, "");
	window_free(win);
}

static void missing_offsets_are_complete(void **state)
{
	struct window *win = window_new(100, 50);

	accept_all(win, 100, 101);
	assert_int_equal(window_accept(win, 104), 0);
	assert_window(win, 100, 105, 2, 3);
	assert_snapshot(win, 100, "0111");
	window_finish(win, 100);
	assert_window(win, 104, 105, 1, 0);
	window_free(win);
}

static void base_jumps_when_nothing_is_open(void **state)
{
	struct window *win = window_new(100, 8);

	assert_int_equal(window_accept(win, 5000000000), 0);
	assert_window(win, 5000000000, 5000000001, 1, 0);
	assert_true(window_is_dirty(win));
	window_finish(win, 5000000000);
	assert_int_equal(window_accept(win, 9000000000), 0);
	assert_window(win, 9000000000, 9000000001, 1, 0);
	window_free(win);
}

static void full_holds_the_record_back(void **state)
{
	struct window *win = window_new(0, 4);

	accept_all(win, 0, 4);
	assert_true(window_is_full(win));
	assert_int_equal(window_accept(win, 4), -ERR_FULL);
	assert_window(win, 0, 4, 4, 0);
	window_finish(win, 1);
	assert_int_equal(window_accept(win, 4), -ERR_FULL);
	window_finish(win, 0);
	assert_false(window_is_full(win));
	accept_all(win, 4, 6);
	assert_true(window_is_full(win));

	/* A gap past the span waits for the open ones, then jumps. */
	assert_int_equal(window_accept(win, 60), -ERR_FULL);
	for (int64_t offset = 2; offset < 6; offset++)
		window_finish(win, offset);
	assert_window(win, 6, 6, 0, 0);
	assert_int_equal(window_accept(win, 60), 0);
	assert_window(win, 60, 61, 1, 0);
	window_free(win);
}

static void last_offset_of_the_span_after_a_gap(void **state)
{
	struct window *win = window_new(7, 4);

	assert_int_equal(window_accept(win, 7), 0);
	assert_int_equal(window_accept(win, 11), -ERR_FULL);
	assert_window(win, 7, 8, 1, 0);
	assert_int_equal(window_accept(win, 10), 0);
	assert_window(win, 7, 11, 2, 2);
	window_free(win);
}

static void seen_offsets_are_skipped(void **state)
{
	struct window *win = window_new(10, 10);

	assert_int_equal(window_accept(win, 9), -ERR_NOT_FOUND);
	accept_all(win, 10, 12);
	assert_int_equal(window_accept(win, 11), -ERR_NOT_FOUND); /* open */
	window_finish(win, 10);
	assert_int_equal(window_accept(win, 10), -ERR_NOT_FOUND); /* done */
	assert_window(win, 11, 12, 1, 0);
	window_free(win);
}

static void restored_offsets_are_skipped(void **state)
{
	struct window *win = window_new(100, 64);

	/* 101, 103 and 104 */
	assert_int_equal(window_restore(win, "bwAAAAUaAA==", 12), 0);
	assert_window(win, 100, 100, 0, 3);
	assert_false(window_is_dirty(win));
	assert_snapshot(win, 100, "01011");

	assert_int_equal(window_accept(win, 100), 0);
	assert_int_equal(window_accept(win, 101), -ERR_NOT_FOUND);
	assert_window(win, 100, 102, 1, 3);
	assert_int_equal(window_accept(win, 102), 0);
	window_finish(win, 100);
	assert_window(win, 102, 103, 1, 2);
	window_finish(win, 102);
	/* The next to read is committed, not what a record was not read for: the set still holds the two. */
	assert_window(win, 103, 103, 0, 2);
	assert_snapshot(win, 103, "11");
	assert_int_equal(window_accept(win, 103), -ERR_NOT_FOUND);
	assert_int_equal(window_accept(win, 104), -ERR_NOT_FOUND);
	assert_window(win, 105, 105, 0, 0);
	assert_snapshot(win, 105, "");
	window_free(win);
}

static void jump_cuts_the_restored_set(void **state)
{
	struct window *win = window_new(100, 64);

	assert_int_equal(window_restore(win, "bwAAAAUaAA==", 12), 0);
	/* 100 to 102 were compacted away. */
	assert_int_equal(window_accept(win, 103), -ERR_NOT_FOUND);
	assert_window(win, 104, 104, 0, 1);
	assert_snapshot(win, 104, "1");
	assert_int_equal(window_accept(win, 106), 0);
	assert_window(win, 106, 107, 1, 0);
	window_free(win);
}

static void gap_over_restored_offsets(void **state)
{
	struct window *win = window_new(100, 64);

	assert_int_equal(window_restore(win, "bwAAAAUaAA==", 12), 0);
	assert_int_equal(window_accept(win, 100), 0);
	assert_int_equal(window_accept(win, 105), 0);
	assert_window(win, 100, 106, 2, 4);
	assert_snapshot(win, 100, "01111");
	window_free(win);
}

static void restore_refuses_garbage(void **state)
{
	struct window *win = window_new(100, 64);

	assert_int_equal(window_restore(win, "not a set", 9), -ERR_INVALID);
	assert_window(win, 100, 100, 0, 0);
	assert_int_equal(window_restore(win, "", 0), 0);
	assert_window(win, 100, 100, 0, 0);
	window_free(win);
}

static void restore_cuts_at_the_span(void **state)
{
	/* 1 incomplete and 100000 complete, as another consumer may have left it. */
	struct window *win = window_new(7, 70);
	char all[71];

	assert_int_equal(window_restore(win, "ZQAAAAEAAYag", 12), 0);
	assert_window(win, 7, 7, 0, 69);
	memset(all, '1', 70);
	all[0] = '0';
	all[70] = '\0';
	assert_snapshot(win, 7, all);
	assert_int_equal(window_accept(win, 7), 0);
	for (int64_t offset = 8; offset < 77; offset++)
		assert_int_equal(window_accept(win, offset), -ERR_NOT_FOUND);
	window_finish(win, 7);
	assert_window(win, 77, 77, 0, 0);
	assert_int_equal(window_accept(win, 77), 0);
	window_free(win);
}

static void restart_forgets_everything(void **state)
{
	struct window *win = window_new(100, 64);

	assert_int_equal(window_restore(win, "bwAAAAUaAA==", 12), 0);
	window_restart(win, 3);
	assert_window(win, 3, 3, 0, 0);
	assert_true(window_is_dirty(win));
	accept_all(win, 3, 60);
	assert_window(win, 3, 60, 57, 0);
	window_free(win);
}

static void skip_to_moves_the_base(void **state)
{
	struct window *win = window_new(100, 10);

	window_skip_to(win, 100);
	assert_false(window_is_dirty(win));
	window_skip_to(win, 90);
	assert_window(win, 100, 100, 0, 0);
	window_skip_to(win, 4000);
	assert_window(win, 4000, 4000, 0, 0);
	assert_true(window_is_dirty(win));
	window_free(win);
}

static void skip_to_waits_for_open_ones(void **state)
{
	struct window *win = window_new(100, 10);

	accept_all(win, 100, 102);
	window_skip_to(win, 105);
	assert_window(win, 100, 105, 2, 3);
	assert_snapshot(win, 100, "00111");

	/* Past the span: remembered, and reached when the open ones are done. */
	window_skip_to(win, 5000);
	assert_window(win, 100, 5000, 2, 4898);
	assert_true(window_is_full(win));
	assert_snapshot(win, 100, "0011111111");
	assert_int_equal(window_accept(win, 200), -ERR_NOT_FOUND);
	assert_int_equal(window_accept(win, 5000), -ERR_FULL);
	window_finish(win, 100);
	assert_window(win, 101, 5000, 1, 4898);
	window_finish(win, 101);
	assert_window(win, 5000, 5000, 0, 0);
	assert_false(window_is_full(win));
	assert_int_equal(window_accept(win, 5000), 0);
	window_free(win);
}

static void failed_commit_is_dirty_again(void **state)
{
	struct window *win = window_new(0, 4);

	accept_all(win, 0, 1);
	window_finish(win, 0);
	assert_snapshot(win, 1, "");
	window_mark_dirty(win);
	assert_true(window_is_dirty(win));
	window_free(win);
}

static void whole_span_fits_the_metadata(void **state)
{
	struct window *win = window_new(12345678901, OFFSETMAP_SPAN_MAX);
	char metadata[OFFSETMAP_TEXT_MAX + 1];

	accept_all(win, 12345678901, 12345678901 + OFFSETMAP_SPAN_MAX);
	assert_true(window_is_full(win));
	for (int64_t i = 1; i < OFFSETMAP_SPAN_MAX; i += 2)
		window_finish(win, 12345678901 + i);
	assert_int_equal(window_snapshot(win, metadata), 12345678901);
	assert_int_equal(strlen(metadata), 4008);
	window_free(win);
}

/* The model: what is known of each offset, in an array from offset `origin` on. */
enum { MODEL_MAX = 1 << 20 };

struct model {
	struct window *win;
	int32_t span_max;
	int64_t origin, next;
	enum { UNSEEN, OPEN, DONE, RESTORED } state[MODEL_MAX];
	uint64_t seed;
};

static uint64_t model_random(struct model *model, uint64_t below)
{
	model->seed ^= model->seed << 13;
	model->seed ^= model->seed >> 7;
	model->seed ^= model->seed << 17;
	return (model->seed >> 11) % below;
}

static int64_t model_commit_point(const struct model *model)
{
	int64_t offset = window_commit_point(model->win) - 1;

	/* The window never goes back, so all below its last commit point was checked before. */
	while (++offset < model->next && model->state[offset - model->origin] == DONE)
		;
	return offset;
}

static int32_t model_check(const struct model *model)
{
	int64_t commit_point = model_commit_point(model), end = commit_point + model->span_max;
	int32_t open = 0, above = 0;

	for (int64_t offset = commit_point; offset < MAX(model->next, end); offset++) {
		open += model->state[offset - model->origin] == OPEN;
		above += model->state[offset - model->origin] >= DONE;
	}
	assert_window(model->win, commit_point, model->next, open, above);
	assert_true(model->next == commit_point || model->state[commit_point - model->origin] == OPEN);
	return open;
}

static void model_check_snapshot(struct model *model, char metadata[static OFFSETMAP_TEXT_MAX + 1])
{
	uint64_t bits[WORDS] = {0};
	size_t n_bits = 0;
	int64_t base = window_snapshot(model->win, metadata);

	assert_int_equal(base, model_commit_point(model));
	assert_int_equal(offsetmap_decode(metadata, strlen(metadata), bits, WORDS, &n_bits), 0);
	assert_true(n_bits <= (size_t)model->span_max);
	for (int64_t i = 0; i < model->span_max; i++) {
		bool is_complete = model->state[base + i - model->origin] >= DONE;
		assert_int_equal(bits[i / 64] >> i % 64 & 1, is_complete);
	}
}

static void model_skip(struct model *model, int64_t to)
{
	for (; model->next < to; model->next++)
		model->state[model->next - model->origin] = DONE;
}

static void model_accept(struct model *model, int open)
{
	static const int gaps[] = {0, 0, 0, 0, 0, 0, 0, 1, 2, 70};
	uint64_t gap = (uint64_t)gaps[model_random(model, ARRAY_LEN(gaps))];
	int64_t offset = model->next + (int64_t)(gap ? model_random(model, gap) : 0);
	int err = window_accept(model->win, offset);

	if (open > 0 && offset - model_commit_point(model) >= model->span_max) {
		assert_int_equal(err, -ERR_FULL);
		return;
	}
	bool is_restored = model->state[offset - model->origin] == RESTORED;
	assert_int_equal(err, is_restored ? -ERR_NOT_FOUND : 0);
	model_skip(model, offset + 1);
	if (!is_restored)
		model->state[offset - model->origin] = OPEN;
}

static void model_finish(struct model *model, int open)
{
	int64_t offset = window_commit_point(model->win);

	/* Mostly any of the open ones; now and then the lowest, or a slow head would fill the window for ever. */
	uint64_t skip = model_random(model, 4) ? model_random(model, (uint64_t)open) : 0;
	for (;; offset++)
		if (model->state[offset - model->origin] == OPEN && skip-- == 0)
			break;
	model->state[offset - model->origin] = DONE;
	window_finish(model->win, offset);
	assert_true(window_is_dirty(model->win));
}

/* A crash after a commit: another window takes over at the commit point, with the set. */
static void model_crash(struct model *model)
{
	char metadata[OFFSETMAP_TEXT_MAX + 1];
	int64_t base;

	model_check_snapshot(model, metadata);
	base = window_commit_point(model->win);
	window_free(model->win);
	model->win = window_new(base, model->span_max);
	assert_int_equal(window_restore(model->win, metadata, strlen(metadata)), 0);
	for (int64_t offset = base; offset < MAX(model->next, base + model->span_max); offset++) {
		bool is_kept = model->state[offset - model->origin] >= DONE && offset < base + model->span_max;
		model->state[offset - model->origin] = is_kept ? RESTORED : UNSEEN;
	}
	model->next = base;
}

static void model_step(struct model *model)
{
	char metadata[OFFSETMAP_TEXT_MAX + 1];
	int open = model_check(model);
	uint64_t what = model_random(model, 1000);

	if (what < 1)
		model_crash(model);
	else if (what < 30)
		model_check_snapshot(model, metadata);
	else if (what < 35) {
		int64_t to = model->next + (int64_t)model_random(model, 2 * (uint64_t)model->span_max);
		window_skip_to(model->win, to);
		model_skip(model, to);
	} else if (what < 40 && model->next > model->origin) {
		assert_int_equal(window_accept(model->win, model->next - 1), -ERR_NOT_FOUND);
	} else if (open > 0 && (what < 500 || window_is_full(model->win)))
		model_finish(model, open);
	else
		model_accept(model, open);
}

static void random_walks_match_the_model(void **state)
{
	static const struct {
		int32_t span_max;
		int n_steps;
	} runs[] = {{1, 10000},	 {2, 10000},   {63, 10000},   {64, 20000},
		    {65, 20000}, {100, 20000}, {1000, 20000}, {24000, 500}};

	for (size_t i = 0; i < ARRAY_LEN(runs); i++) {
		struct model *model = xcalloc(1, sizeof(*model));
		model->span_max = runs[i].span_max;
		model->origin = model->next = INT64_C(1) << 33 | (int64_t)i * 17;
		model->seed = 88172645463325252 + i;
		model->win = window_new(model->origin, model->span_max);
		for (int step = 0; step < runs[i].n_steps; step++) {
			assert_true(model->next - model->origin < MODEL_MAX - 4 * (model->span_max + 100));
			model_step(model);
		}
		window_free(model->win);
		free(model);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(happy_path),
	    cmocka_unit_test(missing_offsets_are_complete),
	    cmocka_unit_test(base_jumps_when_nothing_is_open),
	    cmocka_unit_test(full_holds_the_record_back),
	    cmocka_unit_test(last_offset_of_the_span_after_a_gap),
	    cmocka_unit_test(seen_offsets_are_skipped),
	    cmocka_unit_test(restored_offsets_are_skipped),
	    cmocka_unit_test(jump_cuts_the_restored_set),
	    cmocka_unit_test(gap_over_restored_offsets),
	    cmocka_unit_test(restore_refuses_garbage),
	    cmocka_unit_test(restore_cuts_at_the_span),
	    cmocka_unit_test(restart_forgets_everything),
	    cmocka_unit_test(skip_to_moves_the_base),
	    cmocka_unit_test(skip_to_waits_for_open_ones),
	    cmocka_unit_test(failed_commit_is_dirty_again),
	    cmocka_unit_test(whole_span_fits_the_metadata),
	    cmocka_unit_test(random_walks_match_the_model),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
