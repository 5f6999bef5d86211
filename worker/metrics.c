#include "metrics.h"

#include <inttypes.h>
#include <stdio.h>

/* From one commit or cache hit (50 us) to job.deadline (60 s). 1.1 s tells one lost SYN or DNS packet from a slow
 * server. */
static const int64_t hist_bounds[HIST_BUCKETS_MAX] = {
    50,       100,      250,      500,      /* us */
    1000,     2500,     5000,     10000,    25000,  50000,
    100000,   150000,   250000,   500000,   /* ms */
    1000000,  1100000,  1500000,  2000000,  3000000, 5000000,
    10000000, 20000000, 30000000, 60000000, /* s */
};

/* Seconds without a locale and without trailing zeros: 50 -> "0.00005", 2000000 -> "2". */
#define SECONDS_TEXT_MAX 32
static const char *seconds_text(int64_t us, char out[static SECONDS_TEXT_MAX])
{
	int n = snprintf(out, SECONDS_TEXT_MAX, "%" PRId64 ".%06" PRId64, us / 1000000, us % 1000000);

	while (out[n - 1] == '0')
		out[--n] = '\0';
	if (out[n - 1] == '.')
		out[n - 1] = '\0';
	return out;
}

void hist_observe(struct hist *hist, int64_t us)
{
	size_t low = 0, high = HIST_BUCKETS_MAX;

	us = MAX(us, 0);
	while (low < high) {
		size_t mid = (low + high) / 2;
		if (us <= hist_bounds[mid])
			high = mid;
		else
			low = mid + 1;
	}
	hist->buckets[low]++;
	hist->count++;
	hist->sum_us += us;
}

int64_t hist_quantile(const struct hist *hist, double q)
{
	uint64_t seen = 0;

	if (!hist->count)
		return 0;
	for (size_t i = 0; i < HIST_BUCKETS_MAX; i++) {
		seen += hist->buckets[i];
		if (seen && (double)seen >= q * (double)hist->count)
			return hist_bounds[i];
	}
	return hist_bounds[HIST_BUCKETS_MAX - 1];
}

/* HELP text: a backslash and a line feed are escaped, nothing else (text format 0.0.4). */
static int print_help(struct buf *out, const char *help)
{
	while (*help) {
		size_t n = strcspn(help, "\\\n");
		if (buf_add(out, help, n))
			return -ERR_TOO_LARGE;
		help += n;
		if (*help && buf_add_str(out, *help++ == '\n' ? "\\n" : "\\\\"))
			return -ERR_TOO_LARGE;
	}
	return 0;
}

int metrics_print_head(struct buf *out, const char *name, const char *type, const char *help)
{
	int err = buf_printf(out, "# HELP %s ", name);

	if (!err)
		err = print_help(out, help);
	if (!err)
		err = buf_printf(out, "\n# TYPE %s %s\n", name, type);
	return err;
}

int metrics_print_sample(struct buf *out, const char *name, const char *labels, int64_t value)
{
	if (!labels || !*labels)
		return buf_printf(out, "%s %" PRId64 "\n", name, value);
	return buf_printf(out, "%s{%s} %" PRId64 "\n", name, labels, value);
}

static int print_counter(struct buf *out, const char *name, const char *help, uint64_t value)
{
	int err = metrics_print_head(out, name, "counter", help);

	return err ? err : buf_printf(out, "%s %" PRIu64 "\n", name, value);
}

static int print_gauge(struct buf *out, const char *name, const char *help, int64_t value)
{
	int err = metrics_print_head(out, name, "gauge", help);

	return err ? err : metrics_print_sample(out, name, NULL, value);
}

/* Every outcome from the start, also at 0: a rate over a series that appears with its first event misses that event. */
static int print_outcomes(struct buf *out, const char *name, const char *help,
			  const uint64_t values[static OUTCOME_COUNT])
{
	int err = metrics_print_head(out, name, "counter", help);

	for (unsigned i = OUTCOME_UNSPECIFIED + 1; i < OUTCOME_COUNT && !err; i++)
		err =
		    buf_printf(out, "%s{outcome=\"%s\"} %" PRIu64 "\n", name, outcome_name((enum outcome)i), values[i]);
	return err;
}

static int print_histogram(struct buf *out, const char *name, const char *help, const struct hist *hist)
{
	char text[SECONDS_TEXT_MAX];
	uint64_t seen = 0;
	int err = metrics_print_head(out, name, "histogram", help);

	for (size_t i = 0; i < HIST_BUCKETS_MAX && !err; i++) {
		seen += hist->buckets[i];
		err = buf_printf(out, "%s_bucket{le=\"%s\"} %" PRIu64 "\n", name, seconds_text(hist_bounds[i], text),
				 seen);
	}
	if (!err)
		err = buf_printf(out, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name, hist->count);
	if (!err)
		err = buf_printf(out, "%s_sum %s\n", name, seconds_text(hist->sum_us, text));
	if (!err)
		err = buf_printf(out, "%s_count %" PRIu64 "\n", name, hist->count);
	return err;
}

int metrics_print(const struct metrics *metrics, struct buf *out)
{
	int err = 0;

#define COUNTER(field, name, help)                                                                                     \
	if (!err)                                                                                                      \
		err = print_counter(out, name, help, metrics->field);
#define GAUGE(field, name, help)                                                                                       \
	if (!err)                                                                                                      \
		err = print_gauge(out, name, help, metrics->field);
#define OUTCOME_COUNTER(field, name, help)                                                                             \
	if (!err)                                                                                                      \
		err = print_outcomes(out, name, help, metrics->field);
#define HISTOGRAM(field, name, help)                                                                                   \
	if (!err)                                                                                                      \
		err = print_histogram(out, name, help, &metrics->field);
#include "metrics.def"
	return err;
}

static const struct metric_doc {
	const char *name, *type, *labels, *help;
} metric_docs[] = {
#define COUNTER(field, name, help) {name, "counter", "", help},
#define GAUGE(field, name, help) {name, "gauge", "", help},
#define OUTCOME_COUNTER(field, name, help) {name, "counter", "outcome", help},
#define HISTOGRAM(field, name, help) {name, "histogram", "", help},
#define PARTITION_GAUGE(name, help) {name, "gauge", "topic, partition", help},
#define PARTITION_COUNTER(name, help) {name, "counter", "topic, partition", help},
#include "metrics.def"
};

void metrics_print_docs(void *file)
{
	char text[SECONDS_TEXT_MAX];

	fprintf(file, "# Metrics of gatherd\n\n"
		      "Generated from `worker/metrics.def` by `gatherd --metrics`; do not edit.\n\n"
		      "Served at `/metrics` of `http.listen`, Prometheus text format 0.0.4.\n\n"
		      "| name | type | labels | meaning |\n|---|---|---|---|\n");
	for (size_t i = 0; i < ARRAY_LEN(metric_docs); i++)
		fprintf(file, "| `%s` | %s | %s | %s |\n", metric_docs[i].name, metric_docs[i].type,
			metric_docs[i].labels, metric_docs[i].help);
	fprintf(file, "\nBuckets of every histogram, in seconds:");
	for (size_t i = 0; i < HIST_BUCKETS_MAX; i++)
		fprintf(file, "%s %s", i ? "," : "", seconds_text(hist_bounds[i], text));
	fprintf(file, ", +Inf.\n");
}
