/* arena: aligned, apart from each other, all counted, all freed at once (the sanitizer looks). */
#include "arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static void allocations_are_aligned_and_apart(void **state)
{
	static const size_t sizes[] = {0, 1, 15, 16, 17, 100, 1023, 1024, 1025, 70000, 3};
	struct arena arena;
	uint8_t *all[ARRAY_LEN(sizes)];

	arena_init(&arena, 64);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		all[i] = arena_alloc(&arena, sizes[i]);
		assert_int_equal((uintptr_t)all[i] % 16, 0);
		memset(all[i], (int)i, sizes[i]);
	}
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		for (size_t j = 0; j < sizes[i]; j++)
			assert_int_equal(all[i][j], i);
	arena_done(&arena);
}

static void counts_all_memory_held(void **state)
{
	struct arena arena;

	arena_init(&arena, 4096);
	size_t first = arena.bytes;
	assert_true(first >= 4096 && first < 4096 + 64);
	for (int i = 0; i < 4; i++)
		arena_alloc(&arena, 1000);
	assert_int_equal(arena.bytes, first); /* it fits what was asked for at first */
	arena_alloc(&arena, 100);
	assert_true(arena.bytes > first && arena.bytes < first + 2048);
	size_t second = arena.bytes;
	arena_alloc(&arena, 100000);
	assert_true(arena.bytes >= second + 100000 && arena.bytes < second + 100064);
	arena_done(&arena);
}

static void an_empty_first_chunk_is_fine(void **state)
{
	struct arena arena;

	arena_init(&arena, 0);
	memset(arena_alloc(&arena, 10), 1, 10);
	arena_done(&arena);
}

static void may_live_inside_itself(void **state)
{
	struct owner {
		struct arena arena;
		char *text;
	};
	struct arena arena;

	arena_init(&arena, 256);
	struct owner *owner = arena_zalloc(&arena, sizeof(*owner));
	owner->arena = arena;
	for (int i = 0; i < 100; i++)
		owner->text = arena_printf(&owner->arena, "%d", i);
	assert_string_equal(owner->text, "99");
	arena_done(&owner->arena);
}

static void copies_end_in_a_nul(void **state)
{
	static const struct {
		const char *text;
		size_t n;
		const char *expected, *why;
	} rows[] = {
	    {"abc", 3, "abc", "whole"},
	    {"abc", 2, "ab", "a part"},
	    {"abc", 0, "", "nothing"},
	    {NULL, 0, "", "nothing at no place"},
	};
	struct arena arena;

	arena_init(&arena, 16);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (strcmp(arena_strndup(&arena, rows[i].text, rows[i].n), rows[i].expected) != 0)
			fail_msg("%s", rows[i].why);
	struct span copy = arena_copy(&arena, (struct span){(const uint8_t *)"a\0b", 3});
	assert_int_equal(copy.len, 3);
	assert_memory_equal(copy.data, "a\0b", 4);
	assert_string_equal(arena_printf(&arena, "%s/%d/%d", "jobs", 3, 42), "jobs/3/42");
	/* Short text is formatted once, long text twice. */
	for (int n = 250; n < 260; n++) {
		char *text = arena_printf(&arena, "%0*d", n, 7);
		assert_int_equal(strlen(text), n);
		assert_int_equal(text[n - 1], '7');
	}
	arena_done(&arena);
}

static void a_null_stays_a_null(void **state)
{
	struct arena arena;

	arena_init(&arena, 16);
	assert_null(arena_copy(&arena, (struct span){NULL, 0}).data);
	struct span empty = arena_copy(&arena, span_str(""));
	assert_non_null(empty.data); /* an empty Kafka value is not a null one */
	assert_int_equal(empty.len, 0);
	arena_done(&arena);
}

static void zalloc_zeroes(void **state)
{
	static const uint8_t zeros[500];
	struct arena arena;

	arena_init(&arena, 1024);
	memset(arena_alloc(&arena, 500), 0xff, 500);
	assert_memory_equal(arena_zalloc(&arena, 500), zeros, 500);
	assert_memory_equal(arena_zalloc(&arena, 500), zeros, 500);
	arena_done(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(allocations_are_aligned_and_apart),
	    cmocka_unit_test(counts_all_memory_held),
	    cmocka_unit_test(an_empty_first_chunk_is_fine),
	    cmocka_unit_test(may_live_inside_itself),
	    cmocka_unit_test(copies_end_in_a_nul),
	    cmocka_unit_test(a_null_stays_a_null),
	    cmocka_unit_test(zalloc_zeroes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
