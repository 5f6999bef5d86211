/* heap against a plain array: same earliest time after every step of a seeded run. */
#include "heap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define N 200

static uint64_t random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* Each node knows its place, and no child is earlier than its parent. */
static void check_heap(const struct heap *heap)
{
	for (size_t i = 1; i <= heap->len; i++) {
		assert_int_equal(heap->nodes[i - 1]->place, i);
		if (i > 1)
			assert_true(heap->nodes[i / 2 - 1]->at_us <= heap->nodes[i - 1]->at_us);
	}
}

static void empty_heap_has_no_first(void **state)
{
	struct heap heap;
	struct heap_node node = {0};

	heap_init(&heap);
	assert_null(heap_first(&heap));
	heap_remove(&heap, &node); /* not in it: nothing happens */
	assert_int_equal(heap.len, 0);
	heap_done(&heap);
}

static void pops_in_order_of_time(void **state)
{
	struct heap heap;
	struct heap_node nodes[N] = {0};
	uint64_t seed = 1;
	int64_t last_us = INT64_MIN;

	heap_init(&heap);
	for (size_t i = 0; i < N; i++)
		heap_set(&heap, &nodes[i], (int64_t)(random_next(&seed) % 50)); /* with equal times */
	for (size_t left = N; left; left--) {
		struct heap_node *first = heap_first(&heap);
		assert_int_equal(heap.len, left);
		assert_true(first->at_us >= last_us);
		last_us = first->at_us;
		heap_remove(&heap, first);
		assert_int_equal(first->place, 0);
		check_heap(&heap);
	}
	assert_null(heap_first(&heap));
	heap_done(&heap);
}

static void setting_again_moves(void **state)
{
	static const struct {
		size_t node;
		int64_t at_us;
		size_t first;
		const char *why;
	} rows[] = {
	    {2, 5, 2, "a later one becomes the earliest"},   {2, 100, 0, "and goes back"},
	    {0, 10, 0, "the same time changes nothing"},     {0, INT64_MAX, 1, "never is a time too"},
	    {3, INT64_MIN, 3, "and so is before all times"},
	};
	struct heap heap;
	struct heap_node nodes[] = {{10, 0}, {20, 0}, {30, 0}, {40, 0}};

	heap_init(&heap);
	for (size_t i = 0; i < ARRAY_LEN(nodes); i++)
		heap_set(&heap, &nodes[i], nodes[i].at_us);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		heap_set(&heap, &nodes[rows[i].node], rows[i].at_us);
		check_heap(&heap);
		if (heap_first(&heap) != &nodes[rows[i].first])
			fail_msg("%s", rows[i].why);
		assert_int_equal(heap.len, ARRAY_LEN(nodes));
	}
	heap_done(&heap);
}

static int64_t earliest(const struct heap_node *nodes)
{
	int64_t at_us = INT64_MAX;

	for (size_t i = 0; i < N; i++)
		if (nodes[i].place)
			at_us = MIN(at_us, nodes[i].at_us);
	return at_us;
}

static void random_steps_keep_the_earliest_first(void **state)
{
	for (uint64_t seed_at = 1; seed_at <= 20; seed_at++) {
		struct heap heap;
		struct heap_node nodes[N] = {0};
		uint64_t seed = seed_at;

		heap_init(&heap);
		for (size_t step = 0; step < 2000; step++) {
			struct heap_node *node = &nodes[random_next(&seed) % N];
			if (random_next(&seed) % 3 == 0)
				heap_remove(&heap, node);
			else
				heap_set(&heap, node, (int64_t)(random_next(&seed) % 1000));
			check_heap(&heap);
			if (heap.len && heap_first(&heap)->at_us != earliest(nodes))
				fail_msg("seed %d, step %zu", (int)seed_at, step);
		}
		heap_done(&heap);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(empty_heap_has_no_first),
	    cmocka_unit_test(pops_in_order_of_time),
	    cmocka_unit_test(setting_again_moves),
	    cmocka_unit_test(random_steps_keep_the_earliest_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
