#include "ages.h"

void ages_add(struct ages *ages, int64_t ms)
{
	ages->ms[ages->n++ % AGES_KEPT] = (uint32_t)MIN(MAX(ms, 0), (int64_t)UINT32_MAX);
}

static size_t kept(const struct ages *ages)
{
	return MIN(ages->n, (size_t)AGES_KEPT);
}

/* Nearest rank, from 1. */
static size_t rank_of(size_t n, int percent)
{
	return MAX((n * (size_t)percent + 99) / 100, (size_t)1);
}

static int compare(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

	return (left > right) - (left < right);
}

int64_t ages_percentile(const struct ages *ages, int percent)
{
	size_t n = kept(ages);
	uint32_t sorted[AGES_KEPT];

	if (!n)
		return -1;
	memcpy(sorted, ages->ms, n * sizeof(sorted[0]));
	qsort(sorted, n, sizeof(sorted[0]), compare);
	return sorted[rank_of(n, percent) - 1];
}

/* Below AGES_STEPS each value has its own place; above, each power of two has AGES_STEPS of them. */
static size_t place_of(uint32_t ms)
{
	if (ms < AGES_STEPS)
		return ms;
	int shift = 31 - __builtin_clz(ms) - 5; /* what is left of it is AGES_STEPS to 2 * AGES_STEPS - 1 */
	return (size_t)shift * AGES_STEPS + (ms >> shift);
}

/* The greatest value of a place. */
static int64_t value_of(size_t place)
{
	if (place < (size_t)2 * AGES_STEPS)
		return (int64_t)place;
	size_t shift = place / AGES_STEPS - 1;
	return ((int64_t)(place % AGES_STEPS + AGES_STEPS + 1) << shift) - 1;
}

void ages_sum_add(struct ages_sum *sum, const struct ages *ages)
{
	for (size_t i = 0; i < kept(ages); i++)
		sum->counts[place_of(ages->ms[i])]++;
	sum->n += kept(ages);
}

int64_t ages_sum_percentile(const struct ages_sum *sum, int percent)
{
	size_t seen = 0;

	for (size_t i = 0; sum->n && i < ARRAY_LEN(sum->counts); i++) {
		seen += sum->counts[i];
		if (seen >= rank_of(sum->n, percent))
			return value_of(i);
	}
	return -1;
}
