/* ages: percentiles against a sorted list. */
#include "ages.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static void none_is_said(void **state)
{
	struct ages ages = {0};
	struct ages_sum *sum = xcalloc(1, sizeof(*sum));

	assert_int_equal(ages_percentile(&ages, 50), -1);
	ages_sum_add(sum, &ages);
	assert_int_equal(ages_sum_percentile(sum, 99), -1);
	free(sum);
}

static void nearest_rank(void **state)
{
	static const struct {
		int n, percent;
		int64_t expected;
	} rows[] = {{1, 50, 1}, {1, 99, 1}, {2, 50, 1}, {2, 99, 2}, {30, 99, 30}, {100, 50, 50}, {100, 99, 99}, {101, 99, 100}, {128, 99, 127}};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct ages ages = {0};

		for (int ms = rows[i].n; ms > 0; ms--)
			ages_add(&ages, ms);
		assert_int_equal(ages_percentile(&ages, rows[i].percent), rows[i].expected);
	}
}

static void only_the_last_are_kept(void **state)
{
	struct ages ages = {0};

	ages_add(&ages, 1000000);
	for (int i = 0; i < AGES_KEPT; i++)
		ages_add(&ages, 5);
	assert_int_equal(ages_percentile(&ages, 100), 5);
	ages_add(&ages, -7);
	assert_int_equal(ages_percentile(&ages, 0), 0); /* the least */
	ages_add(&ages, INT64_MAX);
	assert_int_equal(ages_percentile(&ages, 100), UINT32_MAX);
}

/* Rounded up, by at most 1/32. */
static void a_sum_is_close_to_its_parts(void **state)
{
	struct ages_sum *sum = xcalloc(1, sizeof(*sum));
	uint32_t seed = 1;

	for (int64_t ms = 0; ms < INT64_C(4000000000); ms = ms * 21 / 20 + 1) {
		struct ages ages = {0};

		memset(sum, 0, sizeof(*sum));
		ages_add(&ages, ms);
		ages_sum_add(sum, &ages);
		assert_in_range(ages_sum_percentile(sum, 50), ms, ms + ms / 32);
	}
	memset(sum, 0, sizeof(*sum));
	for (int part = 0; part < 200; part++) {
		struct ages ages = {0};

		for (int i = 0; i < 50; i++) {
			seed = seed * 1103515245 + 12345;
			ages_add(&ages, 200 + seed / 65536 % 800); /* even from 200 to 999 */
		}
		ages_sum_add(sum, &ages);
	}
	assert_int_equal(sum->n, 10000);
	assert_in_range(ages_sum_percentile(sum, 50), 560, 660);
	assert_in_range(ages_sum_percentile(sum, 99), 980, 1030);
	free(sum);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(none_is_said),
	    cmocka_unit_test(nearest_rank),
	    cmocka_unit_test(only_the_last_are_kept),
	    cmocka_unit_test(a_sum_is_close_to_its_parts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
