/* ages - how old results were when they came: the newest of one source, and percentiles of one or of many.
 *
 * Layer 2: pure. */
#ifndef GATHERD_AGES_H
#define GATHERD_AGES_H

#include "base.h"

#define AGES_KEPT 128

struct ages {
	uint32_t ms[AGES_KEPT];
	size_t n; /* ever added */
};

/* Of many sources: counts in steps of at most 1/32 of the value. */
#define AGES_STEPS 32
struct ages_sum {
	uint32_t counts[AGES_STEPS * 28];
	size_t n;
};

/* Negative ones count as 0, those over 49 days as that. */
void ages_add(struct ages *ages, int64_t ms);
/* The smallest kept age that at least `percent` % of the kept ones do not exceed; -1 = none kept. */
int64_t ages_percentile(const struct ages *ages, int percent);

void ages_sum_add(struct ages_sum *sum, const struct ages *ages);
/* The same of all, rounded up to the next step. */
int64_t ages_sum_percentile(const struct ages_sum *sum, int percent);

#endif
