/* metrics - one table (metrics.def) of counters, gauges and histograms; the exposition and docs/metrics.md come from it.
 *
 * Use: metrics->jobs_read++; metrics->results[outcome]++; hist_observe(&metrics->fetch_seconds, us).
 * All on the loop thread, plain integers. Layer 0. */
#ifndef GATHERD_METRICS_H
#define GATHERD_METRICS_H

#include "base.h"
#include "buf.h"
#include "err.h"

#define HIST_BUCKETS_MAX 24

/* Buckets are fixed upper bounds in microseconds, shared per kind (see hist_bounds in metrics.c). */
struct hist {
	uint64_t buckets[HIST_BUCKETS_MAX + 1]; /* not cumulative; the last is +Inf */
	uint64_t count;
	int64_t sum_us;
};

struct metrics {
#define COUNTER(field, name, help) uint64_t field;
#define GAUGE(field, name, help) int64_t field;
#define OUTCOME_COUNTER(field, name, help) uint64_t field[OUTCOME_COUNT];
#define HISTOGRAM(field, name, help) struct hist field;
#include "metrics.def"
};

void hist_observe(struct hist *hist, int64_t us);
/* Upper bound of the bucket that holds quantile q (0..1), in us; 0 when empty. Past the last bound: that bound, as Prometheus
 * does. */
int64_t hist_quantile(const struct hist *hist, double q);

/* Prometheus text format 0.0.4, appended. -ERR_TOO_LARGE when out is full. */
int metrics_print(const struct metrics *metrics, struct buf *out) MUST_CHECK;
/* One more sample for rows that carry labels of their own (per partition). With labels like `topic="jobs",partition="0"`.
 * Call metrics_print_head once before the samples of one name. */
int metrics_print_head(struct buf *out, const char *name, const char *type, const char *help) MUST_CHECK;
int metrics_print_sample(struct buf *out, const char *name, const char *labels, int64_t value) MUST_CHECK;
/* docs/metrics.md, to a FILE *. */
void metrics_print_docs(void *file);

#endif
