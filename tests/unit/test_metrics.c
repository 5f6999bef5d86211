/* metrics: buckets, quantiles, and an exposition that a strict reader of the text format takes. */
#include "metrics.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

/* The whole exposition as a string (free). */
static char *printed(const struct metrics *metrics)
{
	struct buf buf;
	size_t len;

	buf_init(&buf, 1024 * 1024);
	assert_int_equal(metrics_print(metrics, &buf), 0);
	assert_int_equal(buf_add(&buf, "", 1), 0);
	return (char *)buf_take(&buf, &len);
}

static void observations_go_to_their_bucket(void **state)
{
	static const struct {
		int64_t us;
		int64_t expected_us;
		const char *why;
	} rows[] = {
	    {0, 50, "nothing took nothing"},
	    {-5, 50, "a clock that went back counts as 0"},
	    {50, 50, "a bound belongs to its bucket (le)"},
	    {51, 100, "one more does not"},
	    {1000000, 1000000, "1 s"},
	    {1000001, 1100000, "one lost SYN ends here"},
	    {59999999, 60000000, "the last"},
	    {60000001, 60000000, "past the last bound: that bound, as Prometheus does"},
	    {INT64_MAX / 2, 60000000, "years"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct hist hist = {0};
		hist_observe(&hist, rows[i].us);
		if (hist_quantile(&hist, 0.5) != rows[i].expected_us)
			fail_msg("%" PRId64 " us: %s", rows[i].us, rows[i].why);
		assert_int_equal(hist.count, 1);
		assert_int_equal(hist.sum_us, MAX(rows[i].us, 0));
	}
}

static void quantiles_are_bounds(void **state)
{
	static const struct {
		double q;
		int64_t expected_us;
		const char *why;
	} rows[] = {
	    {0, 100, "the lowest that there is"},
	    {0.5, 100, "50 of 100 are at most 100 us"},
	    {0.51, 10000, "the 51st is not"},
	    {0.99, 10000, "99 of 100"},
	    {1, 60000000, "all"},
	};
	struct hist hist = {0};

	assert_int_equal(hist_quantile(&hist, 0.99), 0);
	for (int i = 0; i < 50; i++)
		hist_observe(&hist, 80);
	for (int i = 0; i < 49; i++)
		hist_observe(&hist, 9000);
	hist_observe(&hist, 100000000);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (hist_quantile(&hist, rows[i].q) != rows[i].expected_us)
			fail_msg("%g: %s", rows[i].q, rows[i].why);
}

static void values_are_printed(void **state)
{
	static const char *const lines[] = {
	    "# HELP gatherd_jobs_read_total Job records read from Kafka.\n# TYPE gatherd_jobs_read_total counter\n"
	    "gatherd_jobs_read_total 18446744073709551615\n",
	    "# TYPE gatherd_inflight gauge\ngatherd_inflight -3\n",
	    "# TYPE gatherd_results_total counter\ngatherd_results_total{outcome=\"OK\"} 7\n",
	    "\ngatherd_results_total{outcome=\"INTERNAL\"} 0\n",
	    "# TYPE gatherd_fetch_seconds histogram\ngatherd_fetch_seconds_bucket{le=\"0.00005\"} 1\n"
	    "gatherd_fetch_seconds_bucket{le=\"0.0001\"} 1\n",
	    "\ngatherd_fetch_seconds_bucket{le=\"0.01\"} 1\ngatherd_fetch_seconds_bucket{le=\"0.025\"} 2\n",
	    "\ngatherd_fetch_seconds_bucket{le=\"60\"} 2\ngatherd_fetch_seconds_bucket{le=\"+Inf\"} 3\n"
	    "gatherd_fetch_seconds_sum 61.020001\ngatherd_fetch_seconds_count 3\n",
	    "\ngatherd_job_seconds_sum 0\ngatherd_job_seconds_count 0\n",
	};
	struct metrics metrics = {.jobs_read = UINT64_MAX, .inflight = -3};

	metrics.results[OUTCOME_OK] = 7;
	hist_observe(&metrics.fetch_seconds, 1);
	hist_observe(&metrics.fetch_seconds, 20000);
	hist_observe(&metrics.fetch_seconds, 61000000);
	char *text = printed(&metrics);
	for (size_t i = 0; i < ARRAY_LEN(lines); i++)
		if (!strstr(text, lines[i]))
			fail_msg("not in it:\n%s", lines[i]);
	assert_null(strstr(text, "UNSPECIFIED")); /* no result ever has that outcome */
	free(text);
}

/* What promtool check metrics looks at, for one family: state while its lines go by. */
struct family {
	char name[128], type[16];
	double le;
	uint64_t bucket, inf, n_samples;
};

static bool is_one_of(const struct family *family, const char *name)
{
	static const char *const suffixes[] = {"_bucket", "_sum", "_count"};
	size_t n = strlen(family->name);

	if (strncmp(name, family->name, n) != 0)
		return false;
	if (strcmp(family->type, "histogram") != 0)
		return !name[n];
	for (size_t i = 0; i < ARRAY_LEN(suffixes); i++)
		if (strcmp(name + n, suffixes[i]) == 0)
			return true;
	return false;
}

static void check_bucket(struct family *family, const char *labels, uint64_t value)
{
	double le;

	assert_int_equal(sscanf(labels, "le=\"%lf\"", &le), 1); /* reads +Inf too */
	assert_true(le > family->le);
	assert_true(value >= family->bucket);
	family->le = le;
	family->bucket = value;
	if (strcmp(labels, "le=\"+Inf\"") == 0)
		family->inf = value;
}

static void check_sample(struct family *family, const char *line)
{
	char name[128], labels[256] = "", value[64];

	if (sscanf(line, "%127[a-zA-Z0-9_:]{%255[^}]} %63s", name, labels, value) != 3 &&
	    sscanf(line, "%127[a-zA-Z0-9_:] %63s", name, value) != 2)
		fail_msg("no sample: %s", line);
	if (!is_one_of(family, name))
		fail_msg("%s does not belong to %s", name, family->name);
	char *end;
	strtod(value, &end);
	assert_int_equal(*end, 0);
	if (strcmp(name + strlen(family->name), "_bucket") == 0)
		check_bucket(family, labels, strtoull(value, NULL, 10));
	if (strcmp(family->type, "histogram") == 0 && strcmp(name + strlen(family->name), "_count") == 0)
		assert_int_equal(strtoull(value, NULL, 10), family->inf);
	family->n_samples++;
}

static void check_name(const char *name, const char *type)
{
	size_t n = strlen(name);
	bool is_total = n > 6 && strcmp(name + n - 6, "_total") == 0;

	/* promtool: counters end in _total, nothing else does; base units. */
	if (is_total != (strcmp(type, "counter") == 0))
		fail_msg("%s is a %s", name, type);
	if (strcmp(type, "histogram") == 0 && (n < 8 || strcmp(name + n - 8, "_seconds") != 0))
		fail_msg("%s has no unit", name);
}

static void a_strict_reader_takes_it(void **state)
{
	struct metrics metrics = {0};
	struct family family = {.n_samples = 1};
	char seen[16384] = " ", rest[256];

	for (int64_t us = 1; us < 100000000; us *= 3)
		hist_observe(&metrics.fetch_seconds, us);
	char *text = printed(&metrics);
	for (char *save, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (strncmp(line, "# HELP ", 7) == 0) {
			assert_true(family.n_samples > 0);
			family = (struct family){.le = -1};
			assert_int_equal(sscanf(line, "# HELP %127s %255[^\n]", family.name, rest), 2);
			char *once = xasprintf(" %s ", family.name);
			assert_null(strstr(seen, once));
			strcat(strcat(seen, family.name), " ");
			free(once);
		} else if (strncmp(line, "# TYPE ", 7) == 0) {
			assert_int_equal(sscanf(line, "# TYPE %255s %15s", rest, family.type), 2);
			assert_string_equal(rest, family.name); /* HELP and TYPE stand together, before the samples */
			check_name(family.name, family.type);
		} else {
			check_sample(&family, line);
		}
	}
	assert_true(family.n_samples > 0);
	free(text);
}

static void help_is_escaped(void **state)
{
	struct buf buf;

	buf_init(&buf, 1000);
	assert_int_equal(metrics_print_head(&buf, "x", "gauge", "a\\b\nc \"d\""), 0);
	assert_int_equal(metrics_print_sample(&buf, "x", "topic=\"jobs\",partition=\"0\"", INT64_MIN), 0);
	assert_int_equal(metrics_print_sample(&buf, "x", NULL, 1), 0);
	assert_int_equal(metrics_print_sample(&buf, "x", "", 2), 0);
	assert_int_equal(buf_add(&buf, "", 1), 0);
	assert_string_equal((char *)buf.data, "# HELP x a\\\\b\\nc \"d\"\n# TYPE x gauge\n"
					      "x{topic=\"jobs\",partition=\"0\"} -9223372036854775808\nx 1\nx 2\n");
	buf_done(&buf);
}

static void says_when_it_is_too_large(void **state)
{
	struct metrics metrics = {0};
	char *text = printed(&metrics);
	size_t len = strlen(text);

	for (size_t max = 0; max < len; max += len / 50) {
		struct buf buf;
		buf_init(&buf, max);
		assert_int_equal(metrics_print(&metrics, &buf), -ERR_TOO_LARGE);
		buf_done(&buf);
	}
	free(text);
}

static void docs_name_every_metric(void **state)
{
	static const char *const names[] = {
#define COUNTER(field, name, help) name,
#define GAUGE(field, name, help) name,
#define OUTCOME_COUNTER(field, name, help) name,
#define HISTOGRAM(field, name, help) name,
#define PARTITION_GAUGE(name, help) name,
#define PARTITION_COUNTER(name, help) name,
#include "metrics.def"
	};
	char *text = NULL;
	size_t len;
	FILE *file = open_memstream(&text, &len);

	metrics_print_docs(file);
	fclose(file);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		char *cell = xasprintf("\n| `%s` | ", names[i]);
		if (!strstr(text, cell))
			fail_msg("%s is not in the docs", names[i]);
		free(cell);
	}
	assert_non_null(strstr(text, "in seconds: 0.00005, 0.0001, "));
	assert_non_null(strstr(text, ", 60, +Inf.\n"));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(observations_go_to_their_bucket),
	    cmocka_unit_test(quantiles_are_bounds),
	    cmocka_unit_test(values_are_printed),
	    cmocka_unit_test(a_strict_reader_takes_it),
	    cmocka_unit_test(help_is_escaped),
	    cmocka_unit_test(says_when_it_is_too_large),
	    cmocka_unit_test(docs_name_every_metric),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
