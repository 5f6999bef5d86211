/* options: the table itself, each kind of value, each source, what is refused and in which words. */
#include "options_internal.h"

#include "err.h"
#include "log.h"

#include <ctype.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>
#include <cmocka.h>

/* One reading: the file's text or NULL, and up to a few -o and variables. */
struct input {
	const char *file;
	const char *overrides[4], *environ[4];
};

struct output {
	struct options *opts;
	char *errors, *warnings;
	int err;
};

static void write_file(const char *path, const void *text, size_t len)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, len, file), len);
	fclose(file);
}

static struct output load(struct input in)
{
	struct output out = {0};
	char *overrides[4], *environ_block[5] = {NULL};
	size_t n = 0;

	for (; n < ARRAY_LEN(overrides) && in.overrides[n]; n++)
		overrides[n] = xstrdup(in.overrides[n]);
	for (size_t i = 0; i < ARRAY_LEN(in.environ) && in.environ[i]; i++)
		environ_block[i] = xstrdup(in.environ[i]);
	if (in.file)
		write_file("gatherd.conf", in.file, strlen(in.file));
	out.err = options_load(in.file ? "gatherd.conf" : NULL, overrides, n, environ_block, &out.opts, &out.errors,
			       &out.warnings);
	assert_int_equal(out.err != 0, out.errors != NULL);
	assert_int_equal(out.err != 0, out.opts == NULL);
	for (size_t i = 0; i < n; i++)
		free(overrides[i]);
	for (size_t i = 0; environ_block[i]; i++)
		free(environ_block[i]);
	return out;
}

static void output_done(struct output *out)
{
	options_free(out->opts);
	free(out->errors);
	free(out->warnings);
}

static struct output load_fine(struct input in)
{
	struct output out = load(in);

	if (out.err)
		fail_msg("%s", out.errors);
	return out;
}

/* "a b c" */
static const char *list_text(const struct strlist *list)
{
	static char text[256];

	*text = '\0';
	for (size_t i = 0; i < list->n; i++)
		strcat(strcat(text, i ? " " : ""), list->v[i]);
	assert_true(!list->v || !list->v[list->n]);
	return text;
}

static void every_row_is_sound(void **state)
{
	for (size_t i = 0; i < ROW_COUNT; i++) {
		const struct option_row *row = &option_rows[i];
		bool is_number = row->type == TYPE_INT || row->type == TYPE_FLOAT;

		for (const char *s = row->key; *s; s++)
			assert_true(islower((unsigned char)*s) || *s == '.' || *s == '_');
		if (strlen(row->help) < 10 || row->help[strlen(row->help) - 1] == '.')
			fail_msg("%s: the help is no phrase", row->key);
		if (is_number && (row->min > row->initial || row->initial > row->max))
			fail_msg("%s: the default is out of its limits", row->key);
		if (row->is_host && row->reload != LIVE)
			fail_msg("%s: a setting per host has to be live", row->key);
		/* Dots and underscores look the same in the environment. */
		for (size_t j = 0; j < i; j++) {
			char a[64], b[64];
			snprintf(a, sizeof(a), "%s", row->key);
			snprintf(b, sizeof(b), "%s", option_rows[j].key);
			for (char *s = a; (s = strchr(s, '_'));)
				*s = '.';
			for (char *s = b; (s = strchr(s, '_'));)
				*s = '.';
			if (strcmp(a, b) == 0)
				fail_msg("%s and %s are one variable", row->key, option_rows[j].key);
		}
	}
}

/* The numbers of these enums are the places in the table's "value|value". */
static void values_stand_in_the_order_of_their_enum(void **state)
{
	struct output out = load_fine((struct input){
	    .overrides = {"body.overflow=fail", "job.format=url", "log.level=error", "log.format=json"}});

	assert_int_equal(out.opts->body_overflow, BODY_OVERFLOW_FAIL);
	assert_int_equal(out.opts->job_format, JOB_FORMAT_URL);
	assert_int_equal(out.opts->log_level, LOG_ERROR);
	assert_int_equal(out.opts->log_format, LOG_JSON);
	assert_int_equal(out.opts->tls_verify, 1);
	assert_int_equal(out.opts->delivery, DELIVERY_AT_LEAST_ONCE);
	assert_int_equal(out.opts->host.robots, ROBOTS_OFF);
	output_done(&out);
}

/* design.md, the table of settings. */
static void defaults_are_those_of_the_design(void **state)
{
	struct output out = load_fine((struct input){0});
	const struct options *opts = out.opts;

	assert_string_equal(list_text(&opts->jobs_topic), "jobs");
	assert_string_equal(opts->results_topic, "results");
	assert_string_equal(opts->dead_letter_topic, "");
	assert_string_equal(list_text(&opts->guard_ports), "80 443 1024-65535");
	assert_int_equal(opts->guard_allow.n, 0);
	assert_string_equal(opts->instance, "");
	assert_string_equal(opts->user_agent, "gatherd/" GATHERD_VERSION);
	assert_int_equal(opts->memory_max, 512 << 20);
	assert_int_equal(opts->body_max, 900 << 10);
	assert_int_equal(opts->host.fetch_timeout, 10000);
	output_done(&out);
}

static void durations_need_a_unit(void **state)
{
	static const struct {
		const char *text;
		int64_t expected_ms; /* -1 = refused */
		const char *why;
	} rows[] = {
	    {"0", 0, "nothing needs no unit"},
	    {"0s", 0, "but may have one"},
	    {"1500ms", 1500, "ms"},
	    {"10 s", 10000, "a space before the unit"},
	    {"2\tm", 120000, "or a tab"},
	    {"1h", 3600000, "h"},
	    {"1500", -1, "of what?"},
	    {"", -1, "nothing"},
	    {"s", -1, "no number"},
	    {"1.5s", -1, "whole numbers only"},
	    {"-1s", -1, "no sign"},
	    {"+1s", -1, "no sign"},
	    {" 1s", -1, "white space in front is the reader's to cut"},
	    {"1s ", -1, "behind too"},
	    {"1S", -1, "M could be minutes or months: case counts"},
	    {"1sec", -1, "no other names"},
	    {"1d", -1, "no days"},
	    {"0x10s", -1, "decimal"},
	    {"2562047788015h", 9223372036854000000, "the longest in hours"},
	    {"2562047788016h", -1, "one more does not fit"},
	    {"9223372036854775808ms", -1, "nor this"},
	    {"99999999999999999999999s", -1, "nor this"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int64_t ms = -7;
		int err = options_parse_duration(rows[i].text, &ms);
		if (rows[i].expected_ms < 0 ? err != -ERR_INVALID || ms != -7 : err || ms != rows[i].expected_ms)
			fail_msg("\"%s\": %s", rows[i].text, rows[i].why);
	}
}

static void sizes_have_binary_units(void **state)
{
	static const struct {
		const char *text;
		int64_t expected_bytes; /* -1 = refused */
		const char *why;
	} rows[] = {
	    {"512", 512, "bare bytes"},
	    {"900 KiB", 921600, "KiB"},
	    {"1MiB", 1048576, "MiB"},
	    {"2 GiB", INT64_C(2147483648), "GiB"},
	    {"0", 0, "nothing"},
	    {"1 KB", -1, "1000 or 1024? Nobody knows"},
	    {"1K", -1, "the same"},
	    {"1kib", -1, "case counts"},
	    {"1 B", -1, "bytes are bare"},
	    {"", -1, "nothing at all"},
	    {"-1", -1, "no sign"},
	    {"8589934591 GiB", INT64_C(9223372035781033984), "the most"},
	    {"8589934592 GiB", -1, "one more does not fit"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int64_t bytes = -7;
		int err = options_parse_size(rows[i].text, &bytes);
		if (rows[i].expected_bytes < 0 ? err != -ERR_INVALID || bytes != -7
					       : err || bytes != rows[i].expected_bytes)
			fail_msg("\"%s\": %s", rows[i].text, rows[i].why);
	}
}

static void numbers_are_printed_in_their_unit(void **state)
{
	static const struct {
		enum option_unit unit;
		int64_t value;
		const char *expected;
	} rows[] = {
	    {UNIT_COUNT, 3600000, "3600000"},
	    {UNIT_MS, 0, "0"},
	    {UNIT_MS, 500, "500 ms"},
	    {UNIT_MS, 1500, "1500 ms"},
	    {UNIT_MS, 10000, "10 s"},
	    {UNIT_MS, 90000, "90 s"},
	    {UNIT_MS, 300000, "5 m"},
	    {UNIT_MS, 86400000, "24 h"},
	    {UNIT_BYTES, 0, "0"},
	    {UNIT_BYTES, 1023, "1023"},
	    {UNIT_BYTES, 921600, "900 KiB"},
	    {UNIT_BYTES, 1536 << 10, "1536 KiB"},
	    {UNIT_BYTES, 512 << 20, "512 MiB"},
	    {UNIT_BYTES, INT64_C(1) << 40, "1024 GiB"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char text[OPTION_TEXT_MAX];
		int64_t back;
		assert_string_equal(option_number_text(rows[i].unit, rows[i].value, text), rows[i].expected);
		if (rows[i].unit == UNIT_MS)
			assert_int_equal(options_parse_duration(text, &back), 0);
		else
			assert_int_equal(options_parse_size(text, &back), 0);
		assert_int_equal(back, rows[i].value);
	}
}

/* Each sentence names source, key, value and limit. */
static void wrong_values_are_refused(void **state)
{
	static const struct {
		const char *line, *expected, *why;
	} rows[] = {
	    {"partition.inflight = 0", "partition.inflight = 0: must be 1 to 100000", "under"},
	    {"partition.inflight = 100001", "partition.inflight = 100001: must be 1 to 100000", "over"},
	    {"partition.inflight = -1", "partition.inflight = -1: must be 1 to 100000", "a sign"},
	    {"partition.inflight = 12x", "partition.inflight = 12x: must be 1 to 100000", "a tail"},
	    {"partition.inflight =", "partition.inflight = : must be 1 to 100000", "nothing"},
	    {"partition.window = 24001", "partition.window = 24001: must be 1 to 24000", "what metadata can hold"},
	    {"fetch.timeout = 10", "fetch.timeout = 10: must be a whole number and a unit: ms, s, m or h, as in 500 ms",
	     "no unit"},
	    {"fetch.timeout = 0", "fetch.timeout = 0: must be 1 ms to 24 h", "limits have units too"},
	    {"body.max = 900 KB",
	     "body.max = 900 KB: must be a whole number of bytes, or with a unit: KiB, MiB or GiB, as in 900 KiB",
	     "unit"},
	    {"memory.max = 1 MiB", "memory.max = 1 MiB: must be 16 MiB to 1024 GiB", "under"},
	    {"host.rate = 1e3", "host.rate = 1e3: must be 0 to 1000000", "no exponent"},
	    {"host.rate = nan", "host.rate = nan: must be 0 to 1000000", "no number"},
	    {"host.rate = -0.5", "host.rate = -0.5: must be 0 to 1000000", "a sign"},
	    {"host.rate = 1.", "host.rate = 1.: must be 0 to 1000000", "half a fraction"},
	    {"host.rate = 1,5", "host.rate = 1,5: must be 0 to 1000000", "no locale"},
	    {"host.rate = 1000000.1", "host.rate = 1000000.1: must be 0 to 1000000", "just over"},
	    {"log.level = INFO", "log.level = INFO: must be one of debug|info|warn|error", "case counts"},
	    {"log.level = inf", "log.level = inf: must be one of debug|info|warn|error", "no prefixes"},
	    {"log.level = info|warn", "log.level = info|warn: must be one of debug|info|warn|error", "one of them"},
	    {"tls.verify = true", "tls.verify = true: must be one of off|on", "a word of its own"},
	    {"user_agent = a\x01"
	     "b",
	     "user_agent = a?b: must have no control characters", "it goes into a header"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct output out = load((struct input){.file = rows[i].line});
		char *expected = xasprintf("gatherd.conf:1: %s", rows[i].expected);
		assert_int_equal(out.err, -ERR_INVALID);
		if (strcmp(out.errors, expected) != 0)
			fail_msg("%s: %s", rows[i].why, out.errors);
		free(expected);
		output_done(&out);
	}
}

static void what_no_single_row_can_say_is_refused(void **state)
{
	static const struct {
		const char *file, *expected, *why;
	} rows[] = {
	    {"body.max = 200 MiB",
	     "gatherd.conf:1: body.max = 200 MiB is over a quarter of memory.max = 512 MiB: lower the one or raise the "
	     "other",
	     "four bodies have to fit"},
	    {"memory.max = 16 MiB\nbody.max = 5 MiB",
	     "gatherd.conf:2: body.max = 5 MiB is over a quarter of memory.max = 16 MiB: lower the one or raise the "
	     "other",
	     "both were set"},
	    {"memory.max = 16 MiB\nretry.base = 1 h", "gatherd.conf:2: retry.base = 1 h is over retry.max = 30 s",
	     "each by its own"},
	    {"retry.base = 31 s", "gatherd.conf:1: retry.base = 31 s is over retry.max = 30 s", "back-off"},
	    {"retry.max = 0", "gatherd.conf:1: retry.base = 500 ms is over retry.max = 0", "the other one was set"},
	    {"[host \"a\"]\nretry.max = 1 ms",
	     "gatherd.conf:1: in this section retry.base = 500 ms is over retry.max = 1 ms",
	     "against an inherited one"},
	    {"results.topic = jobs",
	     "gatherd.conf:1: results.topic = jobs is also jobs.topic: results would be read as jobs", "a circle"},
	    {"jobs.topic = a results b",
	     "gatherd.conf:1: results.topic = results is also jobs.topic: results would be read as jobs", "in a list"},
	    {"dead_letter.topic = jobs",
	     "gatherd.conf:1: dead_letter.topic = jobs is also jobs.topic: dead letters would be read as jobs, for "
	     "ever",
	     "a circle"},
	    {"dead_letter.topic = results",
	     "gatherd.conf:1: dead_letter.topic = results is also results.topic: what reads results would meet job "
	     "records",
	     "two kinds in one"},
	    {"jobs.topic =", "gatherd.conf:1: jobs.topic is empty: name at least one topic", "nothing to do"},
	    {"results.topic =",
	     "gatherd.conf:1: results.topic = : must be the name of a topic: 1 to 249 letters, digits, '.', '_' or '-'",
	     "silence is no answer"},
	    {"jobs.topic = ^web.*",
	     "gatherd.conf:1: jobs.topic = ^web.*: must be the name of a topic: 1 to 249 letters, digits, '.', '_' or "
	     "'-'",
	     "librdkafka would take it for a pattern"},
	    {"dead_letter.topic = ..",
	     "gatherd.conf:1: dead_letter.topic = ..: must be the name of a topic: 1 to 249 letters, digits, '.', '_' "
	     "or "
	     "'-'",
	     "Kafka refuses it"},
	    {"dead_letter.topic = d\ndead_letter.outcomes = DNS BAD",
	     "gatherd.conf:2: dead_letter.outcomes = BAD: no such outcome; they are those of a result, as in BAD_JOB, "
	     "DNS or "
	     "TIMEOUT",
	     "a name"},
	    {"[host \"*.A.com\"]\n[host \"b\"]\n[host \"*.a.com\"]",
	     "gatherd.conf:3: [host \"*.a.com\"] is already at gatherd.conf:1", "it could never be used"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct output out = load((struct input){.file = rows[i].file});
		assert_int_equal(out.err, -ERR_INVALID);
		if (strcmp(out.errors, rows[i].expected) != 0)
			fail_msg("%s: %s", rows[i].why, out.errors);
		output_done(&out);
	}
}

static void a_contradiction_is_blamed_on_the_later_source(void **state)
{
	struct output out = load((struct input){.file = "body.max = 5 MiB", .environ = {"GATHERD_MEMORY_MAX=16 MiB"}});

	assert_string_equal(out.errors,
			    "environment GATHERD_MEMORY_MAX: body.max = 5 MiB is over a quarter of memory.max = "
			    "16 MiB: lower the one or raise the other");
	output_done(&out);
}

static void what_is_not_built_is_refused(void **state)
{
	static const struct {
		const char *file, *expected;
	} rows[] = {
	    {"delivery = exactly_once", "gatherd.conf:1: delivery = exactly_once is not built yet"},
	    {"robots = obey", "gatherd.conf:1: robots = obey is not built yet"},
	    {"http.version = 2", "gatherd.conf:1: http.version = 2 is not built yet"},
	    {"[host \"a\"]\n[host \"b\"]\nrobots = obey",
	     "gatherd.conf:2: in this section: robots = obey is not built yet"},
	    {"[host \"a\"]\nhttp.version = 2", "gatherd.conf:1: in this section: http.version = 2 is not built yet"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct output out = load((struct input){.file = rows[i].file});
		assert_int_equal(out.err, -ERR_INVALID);
		assert_string_equal(out.errors, rows[i].expected);
		output_done(&out);
	}
}

static void broken_lines_are_refused(void **state)
{
	static const struct {
		const char *line, *expected, *why;
	} rows[] = {
	    {"partition.inflight 12", "partition.inflight: must be key = value", "no ="},
	    {"kafka.sasl.password: hunter2", "kafka.sasl.password: must be key = value", "a password is not shown"},
	    {"= 12", ": unknown key; gatherd --options lists them, and a property of librdkafka is written kafka.NAME",
	     "no key"},
	    {"partiton.inflight = 3", "partiton.inflight: unknown key; did you mean partition.inflight?", "a slip"},
	    {"PARTITION_INFLIGHT = 3", "PARTITION_INFLIGHT: unknown key; did you mean partition.inflight?",
	     "the environment's name"},
	    {"dead-letter.topic = x", "dead-letter.topic: unknown key; did you mean dead_letter.topic?", "a dash"},
	    {"sasl.password = hunter2",
	     "sasl.password: unknown key; gatherd --options lists them, and a property of librdkafka is written "
	     "kafka.NAME",
	     "no password here either"},
	    {"[host *.example.com]", "[host *.example.com]: a section must be [host \"GLOB\"]", "no quotes"},
	    {"[host \"\"]", "[host \"\"]: a section must be [host \"GLOB\"]", "nothing"},
	    {"[host \"a\"", "[host \"a\": a section must be [host \"GLOB\"]", "no end"},
	    {"[proxy \"a\"]", "[proxy \"a\"]: a section must be [host \"GLOB\"]", "another kind"},
	    {"[", "[: a section must be [host \"GLOB\"]", "a bracket"},
	    {"[host \"https://a.com/\"]",
	     "[host \"https://a.com/\"]: write a host name without scheme and path; '*' and '?' are wild", "a URL"},
	    {"[host \"a.com:8080\"]", "[host \"a.com:8080\"]: write the host name without its port", "a port"},
	    {"[host \"b\xc3\xbc"
	     "cher.example\"]",
	     "[host \"b\xc3\xbc"
	     "cher.example\"]: write the name in punycode (xn--...)",
	     "hosts are compared in punycode"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct output out = load((struct input){.file = rows[i].line});
		char *expected = xasprintf("gatherd.conf:1: %s", rows[i].expected);
		assert_int_equal(out.err, -ERR_INVALID);
		if (strcmp(out.errors, expected) != 0)
			fail_msg("%s: %s", rows[i].why, out.errors);
		free(expected);
		output_done(&out);
	}
}

static void all_errors_are_told(void **state)
{
	struct output out = load((struct input){.file = "inflight = 0\n# fine\n\nnope.at.all = 1\n[host "
							"\"a\"]\ninflight = 5\nhost.inflight = x\nkafka.client.id = x",
						.overrides = {"log.level=loud", "x"},
						.environ = {"GATHERD_COMMIT_INTERVAL=1ms"}});

	assert_string_equal(
	    out.errors,
	    "gatherd.conf:1: inflight = 0: must be 1 to 1000000\n"
	    "gatherd.conf:4: nope.at.all: unknown key; gatherd --options lists them, and a property of librdkafka is "
	    "written kafka.NAME\n"
	    "gatherd.conf:6: inflight: not a setting per host; write it above the first [host \"GLOB\"]\n"
	    "gatherd.conf:7: host.inflight = x: must be 1 to 1000000\n"
	    "gatherd.conf:8: kafka.client.id: not a setting per host; write it above the first [host \"GLOB\"]\n"
	    "environment GATHERD_COMMIT_INTERVAL: commit.interval = 1ms: must be 20 ms to 1 m\n"
	    "-o: log.level = loud: must be one of debug|info|warn|error\n"
	    "-o: x: must be key = value");
	output_done(&out);
}

static void a_thousand_errors_are_cut(void **state)
{
	char file[20000] = "", line[32];

	for (int i = 0; i < 1000; i++) {
		snprintf(line, sizeof(line), "x%d\n", i);
		strcat(file, line);
	}
	struct output out = load((struct input){.file = file});
	assert_non_null(strstr(out.errors, "gatherd.conf:100: x99: must be key = value\nand 900 more"));
	assert_null(strstr(out.errors, "x100:"));
	output_done(&out);
}

static void long_values_are_shown_cut(void **state)
{
	char line[1000], *expected;

	snprintf(line, sizeof(line), "log.level = %0500d", 7);
	struct output out = load((struct input){.file = line});
	expected =
	    xasprintf("gatherd.conf:1: log.level = %0*d...: must be one of debug|info|warn|error", SHOWN_MAX - 4, 0);
	assert_string_equal(out.errors, expected);
	free(expected);
	output_done(&out);
}

static void the_file_is_read_as_written(void **state)
{
	struct output out =
	    load_fine((struct input){.file = "\xef\xbb\xbf# a byte order mark in front, as some editors leave it\r\n"
					     "  partition.inflight=7\r\n"
					     "\tinflight\t=\t 9   # a comment\n"
					     "user_agent = a b=c#d  \n"
					     "tls.ca = #nothing\n"
					     "inflight = 11\n"
					     "body.max = 64 KiB\n"
					     "host.rate = 0.25\n"
					     "guard.deny = 10.0.0.0/8   *.internal\n"
					     "guard.deny = example.com\n"
					     "log.level = debug"});

	assert_int_equal(out.opts->partition_inflight, 7);
	assert_int_equal(out.opts->inflight, 11); /* the last wins */
	assert_string_equal(out.opts->user_agent, "a b=c#d");
	assert_string_equal(out.opts->tls_ca, "");
	assert_int_equal(out.opts->body_max, 65536);
	assert_true(out.opts->host.host_rate > 0.2499 && out.opts->host.host_rate < 0.2501);
	assert_string_equal(list_text(&out.opts->guard_deny), "10.0.0.0/8 *.internal example.com");
	assert_int_equal(out.opts->log_level, LOG_DEBUG); /* no line feed at the end */
	assert_null(out.warnings);
	output_done(&out);
}

static void files_that_are_none_are_refused(void **state)
{
	struct options *opts = NULL;
	char *errors, *warnings;
	char *large = xmalloc(OPTIONS_FILE_MAX + 1);

	assert_int_equal(options_load("absent.conf", NULL, 0, NULL, &opts, &errors, &warnings), -ERR_SYSTEM);
	assert_string_equal(errors, "absent.conf: cannot be read: No such file or directory");
	free(errors);
	assert_int_equal(options_load(".", NULL, 0, NULL, &opts, &errors, &warnings), -ERR_SYSTEM);
	assert_string_equal(errors, ".: cannot be read: Is a directory");
	free(errors);
	write_file("gatherd.conf", "a\0b", 3);
	assert_int_equal(options_load("gatherd.conf", NULL, 0, NULL, &opts, &errors, &warnings), -ERR_INVALID);
	assert_string_equal(errors, "gatherd.conf: has a NUL byte: not a file of settings");
	free(errors);
	memset(large, '\n', OPTIONS_FILE_MAX + 1);
	write_file("gatherd.conf", large, OPTIONS_FILE_MAX);
	assert_int_equal(options_load("gatherd.conf", NULL, 0, NULL, &opts, &errors, &warnings), 0);
	options_free(opts);
	opts = NULL;
	write_file("gatherd.conf", large, OPTIONS_FILE_MAX + 1);
	assert_int_equal(options_load("gatherd.conf", NULL, 0, NULL, &opts, &errors, &warnings), -ERR_INVALID);
	assert_string_equal(errors, "gatherd.conf: over 1048576 bytes: not a file of settings");
	assert_null(opts); /* untouched */
	free(errors);
	free(large);
	write_file("gatherd.conf", "", 0);
	assert_int_equal(options_load("gatherd.conf", NULL, 0, NULL, &opts, &errors, &warnings), 0);
	assert_null(errors);
	options_free(opts);
}

static void the_later_source_wins(void **state)
{
	static const struct {
		struct input in;
		int64_t inflight;
		const char *jobs, *why;
	} rows[] = {
	    {{.file = "inflight = 1\njobs.topic = a"}, 1, "a", "the file"},
	    {{.file = "inflight = 1\njobs.topic = a", .environ = {"GATHERD_INFLIGHT=2", "GATHERD_JOBS_TOPIC=b c"}},
	     2,
	     "b c",
	     "the environment replaces a list"},
	    {{.file = "inflight = 1\njobs.topic = a",
	      .environ = {"GATHERD_INFLIGHT=2", "GATHERD_JOBS_TOPIC=b\nc"},
	      .overrides = {"inflight=3", "jobs.topic=d", "jobs.topic = e"}},
	     3,
	     "d e",
	     "-o does, and grows its own"},
	    {{.file = "inflight = 1\njobs.topic = a\njobs.topic = b"}, 1, "a b", "a list grows in one source"},
	    {{.environ = {"PATH=/bin", "GATHERD_INFLIGHT=2", "GATHERD"}}, 2, "jobs", "no file"},
	    {{.overrides = {"inflight=3"}}, 3, "jobs", "only -o"},
	    {{.file = "jobs.topic = a", .overrides = {"jobs.topic=a"}}, 10000, "a", "the same again is not twice"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct output out = load_fine(rows[i].in);
		if (out.opts->inflight != rows[i].inflight ||
		    strcmp(list_text(&out.opts->jobs_topic), rows[i].jobs) != 0)
			fail_msg("%s: %lld, %s", rows[i].why, (long long)out.opts->inflight,
				 list_text(&out.opts->jobs_topic));
		output_done(&out);
	}
}

static void every_row_has_its_variable(void **state)
{
	for (size_t i = 0; i < ROW_COUNT; i++) {
		const struct option_row *row = &option_rows[i];
		char *variable = xasprintf("GATHERD_%s=\x01", row->key);

		for (char *s = variable; *s != '='; s++)
			*s = *s == '.' ? '_' : (char)toupper((unsigned char)*s);
		struct output out = load((struct input){.environ = {variable}});
		bool is_unknown = out.warnings && strstr(out.warnings, "unknown");
		/* A list takes any text. */
		if (is_unknown || (row->type != TYPE_LIST && !strstr(out.errors, row->key)))
			fail_msg("%s: %s, %s", variable, out.warnings, out.errors);
		free(variable);
		output_done(&out);
	}
}

static void unknown_variables_are_warnings(void **state)
{
	static const struct {
		const char *variable, *expected, *why;
	} rows[] = {
	    {"GATHERD_PARTITON_INFLIGHT=3",
	     "environment GATHERD_PARTITON_INFLIGHT: unknown, ignored; did you mean GATHERD_PARTITION_INFLIGHT?",
	     "a slip"},
	    {"GATHERD_SERVICE_HOST=10.0.0.1", "environment GATHERD_SERVICE_HOST: unknown, ignored",
	     "Kubernetes, of a service gatherd"},
	    {"GATHERD_PORT_9464_TCP=tcp://10.0.0.1:9464", "environment GATHERD_PORT_9464_TCP: unknown, ignored",
	     "the same"},
	    {"GATHERD_KAFKA_SERVICE_HOST=10.0.0.1", "environment GATHERD_KAFKA_SERVICE_HOST: unknown, ignored",
	     "of a service gatherd-kafka: no property"},
	    {"GATHERD_KAFKA_PORT=tcp://10.0.0.1:9092", "environment GATHERD_KAFKA_PORT: unknown, ignored", "the same"},
	    {"GATHERD_KAFKA_PORT_9092_TCP_ADDR=10.0.0.1",
	     "environment GATHERD_KAFKA_PORT_9092_TCP_ADDR: unknown, ignored", "the same"},
	    {"GATHERD_KAFKA_SERVICE_PORT_BROKER=9092",
	     "environment GATHERD_KAFKA_SERVICE_PORT_BROKER: unknown, ignored", "the same"},
	    {"GATHERD_BUILD=build/dev", "environment GATHERD_BUILD: unknown, ignored", "of our own tests"},
	    {"GATHERD_inflight=3", "environment GATHERD_inflight: unknown, ignored; did you mean GATHERD_INFLIGHT?",
	     "upper case only"},
	    {"GATHERD_=3", "environment GATHERD_: unknown, ignored", "no name"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct output out = load_fine((struct input){.environ = {rows[i].variable}});
		if (!out.warnings || strcmp(out.warnings, rows[i].expected) != 0)
			fail_msg("%s: %s", rows[i].why, out.warnings);
		assert_int_equal(out.opts->n_kafka, 0);
		output_done(&out);
	}
	struct output out = load_fine((struct input){.file = "dead_letter.outcomes = DNS", .environ = {"GATHERD_X="}});
	assert_string_equal(out.warnings,
			    "environment GATHERD_X: unknown, ignored\n"
			    "gatherd.conf:1: dead_letter.outcomes has no effect while dead_letter.topic is empty");
	output_done(&out);
}

static void kafka_properties_pass_through(void **state)
{
	static const struct {
		enum kafka_side side;
		const char *name, *value, *source;
	} expected[] = {
	    {KAFKA_PRODUCER, "linger.ms", "5", "gatherd.conf:3"},
	    {KAFKA_BOTH, "ssl.key.password", "a = b#c", "gatherd.conf:4"},
	    {KAFKA_BOTH, "bootstrap.servers", "b:9092", "environment GATHERD_KAFKA_BOOTSTRAP_SERVERS"},
	    {KAFKA_CONSUMER, "fetch.min.bytes", "2", "environment GATHERD_KAFKA_CONSUMER_FETCH_MIN_BYTES"},
	    {KAFKA_BOTH, "linger.ms", "7", "-o"},
	    {KAFKA_BOTH, "consumer", "", "-o"},
	};
	struct output out = load_fine((struct input){
	    .file = "kafka.bootstrap.servers = a:9092\nkafka.linger.ms = 1\nkafka.producer.linger.ms = 5\n"
		    "kafka.ssl.key.password = a = b#c\n",
	    .environ = {"GATHERD_KAFKA_BOOTSTRAP_SERVERS=b:9092", "GATHERD_KAFKA_CONSUMER_FETCH_MIN_BYTES=2"},
	    .overrides = {"kafka.linger.ms=7", "kafka.consumer="}});

	assert_int_equal(out.opts->n_kafka, ARRAY_LEN(expected));
	for (size_t i = 0; i < ARRAY_LEN(expected); i++) {
		assert_int_equal(out.opts->kafka[i].side, expected[i].side);
		assert_string_equal(out.opts->kafka[i].name, expected[i].name);
		assert_string_equal(out.opts->kafka[i].value, expected[i].value);
		assert_string_equal(out.opts->kafka[i].source, expected[i].source);
	}
	output_done(&out);
}

static void kafka_properties_of_ours_are_refused(void **state)
{
	static const struct {
		const char *override, *expected, *why;
	} rows[] = {
	    {"kafka.enable.auto.commit=true",
	     "-o: kafka.enable.auto.commit may not be set: gatherd commits an offset itself, once the broker has its "
	     "result",
	     "at least once"},
	    {"kafka.consumer.auto.commit.enable=true",
	     "-o: kafka.consumer.auto.commit.enable may not be set: gatherd commits an offset itself, once the broker "
	     "has "
	     "its result",
	     "its older name"},
	    {"kafka.consumer.enable.auto.offset.store=false",
	     "-o: kafka.consumer.enable.auto.offset.store may not be set: gatherd keeps the offsets itself",
	     "to whatever value"},
	    {"kafka.enable.partition.eof=true",
	     "-o: kafka.enable.partition.eof may not be set: gatherd sets it itself where it needs it", "replay"},
	    {"kafka.producer.transactional.id=x",
	     "-o: kafka.producer.transactional.id may not be set: gatherd makes it from group.id and instance; set "
	     "instance",
	     "what to do instead"},
	    {"kafka.=x", "-o: kafka.: must be kafka.NAME with the name of a librdkafka property", "no name"},
	    {"kafka.producer.=x", "-o: kafka.producer.: must be kafka.NAME with the name of a librdkafka property",
	     "no name"},
	    {"kafka.a b=x", "-o: kafka.a b: must be kafka.NAME with the name of a librdkafka property", "white space"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct output out = load((struct input){.overrides = {rows[i].override}});
		assert_int_equal(out.err, -ERR_INVALID);
		if (strcmp(out.errors, rows[i].expected) != 0)
			fail_msg("%s: %s", rows[i].why, out.errors);
		output_done(&out);
	}
}

static void exactly_once_needs_read_committed(void **state)
{
	static const struct {
		const char *overrides[4];
		bool is_refused;
		const char *why;
	} rows[] = {
	    {{"delivery=exactly_once", "kafka.isolation.level=read_uncommitted"}, true, "for both sides"},
	    {{"delivery=exactly_once", "kafka.consumer.isolation.level=read_uncommitted"}, true, "for the consumer"},
	    {{"delivery=exactly_once", "kafka.producer.isolation.level=read_uncommitted"},
	     false,
	     "a producer has none"},
	    {{"delivery=exactly_once", "kafka.isolation.level=read_committed"}, false, "the right one"},
	    {{"delivery=at_least_once", "kafka.isolation.level=read_uncommitted"}, false, "allowed there"},
	    {{"delivery=exactly_once", "kafka.isolation.level=read_uncommitted",
	      "kafka.isolation.level=read_committed"},
	     false,
	     "the last wins"},
	    {{"delivery=exactly_once", "kafka.isolation.level=read_uncommitted",
	      "kafka.consumer.isolation.level=read_committed"},
	     false,
	     "the side's own wins"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct input in = {0};
		memcpy(in.overrides, rows[i].overrides, sizeof(in.overrides));
		struct output out = load(in);
		bool is_refused = out.errors && strstr(out.errors, "isolation.level = read_uncommitted contradicts");
		if (is_refused != rows[i].is_refused)
			fail_msg("%s: %s", rows[i].why, out.errors);
		output_done(&out);
	}
}

static void too_many_kafka_properties_are_refused(void **state)
{
	char file[40000] = "", line[64];

	for (int i = 0; i <= 1000; i++) {
		snprintf(line, sizeof(line), "kafka.p%d = 1\n", i);
		strcat(file, line);
	}
	strcat(file, "kafka.p5 = 2\n"); /* not one more */
	struct output out = load((struct input){.file = file});
	assert_string_equal(out.errors, "gatherd.conf:1001: kafka.p1000: over 1000 Kafka properties");
	output_done(&out);
}

static void sections_inherit_what_they_do_not_set(void **state)
{
	struct output out = load_fine(
	    (struct input){.file = "host.inflight = 20\nfetch.timeout = 4 s\n"
				   "[host \"api.example.com\"]\nhost.rate = 2.5 # a second\nretry.max_attempts = 1\n"
				   "[ host  \"*.example.com\" ]\nhost.inflight = 5\n",
			   .environ = {"GATHERD_FETCH_TIMEOUT=6s", "GATHERD_HOST_INFLIGHT=30"},
			   .overrides = {"redirect.max=0", "fetch.timeout=7s"}});
	const struct options *opts = out.opts;

	assert_int_equal(opts->n_sections, 2);
	assert_string_equal(opts->sections[0].glob, "api.example.com");
	assert_true(opts->sections[0].host.host_rate > 2.49 && opts->sections[0].host.host_rate < 2.51);
	assert_int_equal(opts->sections[0].host.retry_max_attempts, 1);
	/* The general settings as they are after all sources. */
	assert_int_equal(opts->sections[0].host.host_inflight, 30);
	assert_int_equal(opts->sections[0].host.fetch_timeout, 7000);
	assert_int_equal(opts->sections[0].host.redirect_max, 0);
	assert_int_equal(opts->sections[0].host.retry_base, 500);
	/* What it sets is its own, whatever comes later for all. */
	assert_int_equal(opts->sections[1].host.host_inflight, 5);
	assert_int_equal(opts->sections[1].host.retry_max_attempts, 3);
	assert_true(opts->sections[1].host.host_rate <= 0);
	assert_true(opts->host.host_rate <= 0);
	assert_int_equal(opts->host.retry_max_attempts, 3);
	output_done(&out);
}

static void the_first_section_that_matches_counts(void **state)
{
	static const struct {
		const char *host;
		int expected;
		const char *why;
	} rows[] = {
	    {"api.example.com", 0, "its own, though the next matches too"},
	    {"www.example.com", 1, "by glob"},
	    {"example.com", -1, "the dot is a must"},
	    {"example.org", -1, "none"},
	};
	struct output out = load_fine((struct input){.file = "[host \"api.example.com\"]\n[host \"*.example.com\"]\n"});

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (options_section_of(out.opts, rows[i].host) != rows[i].expected)
			fail_msg("%s: %s", rows[i].host, rows[i].why);
	output_done(&out);
}

static void too_many_sections_are_refused(void **state)
{
	size_t size = (OPTIONS_SECTIONS_MAX + 2) * 24;
	char *file = xcalloc(1, size), *at = file;

	for (int i = 0; i <= OPTIONS_SECTIONS_MAX; i++)
		at += snprintf(at, 24, "[host \"h%d\"]\n", i);
	struct output out = load((struct input){.file = file});
	assert_string_equal(out.errors, "gatherd.conf:10001: over 10000 sections");
	output_done(&out);
	free(file);
}

static void a_reload_moves_what_is_live(void **state)
{
	struct output old = load_fine((struct input){
	    .file = "inflight = 1\nuser_agent = old\nguard.deny = a b\njobs.topic = j\nresults.topic = r\n"
		    "kafka.client.id = x\nkafka.linger.ms = 1\nkafka.consumer.gone = 1\nhost.rate = 1.5\n"
		    "[host \"old\"]\nhost.inflight = 2\n"});
	struct output fresh = load_fine((struct input){
	    .file = "inflight = 2\nuser_agent = new\nguard.deny = c\njobs.topic = j k\nresults.topic = r\n"
		    "partition.window = 5\nhttp.listen =\nkafka.client.id = x\nkafka.linger.ms = 2\n"
		    "kafka.producer.new = 1\nhost.rate = 3\n[host \"new\"]\nhost.inflight = 3\n[host \"more\"]\n"});
	struct options *opts = old.opts;
	char *ignored;

	options_reload(opts, fresh.opts, &ignored);
	assert_string_equal(ignored, "jobs.topic partition.window http.listen kafka.linger.ms kafka.consumer.gone "
				     "kafka.producer.new");
	free(ignored);
	assert_int_equal(opts->inflight, 2);
	assert_string_equal(opts->user_agent, "new");
	assert_string_equal(list_text(&opts->guard_deny), "c");
	assert_int_equal(opts->n_sections, 2);
	assert_string_equal(opts->sections[0].glob, "new");
	assert_int_equal(opts->sections[0].host.host_inflight, 3);
	assert_true(opts->host.host_rate > 2.9);
	/* restart rows stay as they run */
	assert_string_equal(list_text(&opts->jobs_topic), "j");
	assert_int_equal(opts->partition_window, 20000);
	assert_string_equal(opts->http_listen, "127.0.0.1:9464");
	assert_int_equal(opts->n_kafka, 3);
	assert_string_equal(opts->kafka[1].value, "1");
	fresh.opts = NULL; /* used up */
	output_done(&old);
	output_done(&fresh);
}

static void a_reload_of_the_same_names_nothing(void **state)
{
	struct input in = {.file = "jobs.topic = a b\nkafka.linger.ms = 1\n[host \"a\"]\nhost.rate = 1\n"};
	struct output old = load_fine(in), fresh = load_fine(in);
	char *ignored = (char *)&ignored;

	/* The name that was made up at the start stays; a given one is a change. */
	free(old.opts->instance);
	old.opts->instance = xstrdup("host-1234");
	options_reload(old.opts, fresh.opts, &ignored);
	assert_null(ignored);
	assert_string_equal(old.opts->instance, "host-1234");
	in.overrides[0] = "instance=other";
	fresh = load_fine(in);
	options_reload(old.opts, fresh.opts, &ignored);
	assert_string_equal(ignored, "instance");
	free(ignored);
	fresh.opts = NULL;
	output_done(&old);
	output_done(&fresh);
}

static void an_explicit_listen_address_is_known(void **state)
{
	static const struct {
		struct input in;
		bool is_default;
		const char *why;
	} rows[] = {
	    {{.file = ""}, true, "not set"},
	    {{.file = "http.listen = 127.0.0.1:9464"}, false, "set to what it is anyway"},
	    {{.environ = {"GATHERD_HTTP_LISTEN=:0"}}, false, "by the environment"},
	    {{.overrides = {"http.listen="}}, false, "off"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct output out = load_fine(rows[i].in);
		if (out.opts->http_listen_is_default != rows[i].is_default)
			fail_msg("%s", rows[i].why);
		output_done(&out);
	}
}

static char *options_text(bool markdown)
{
	char *text = NULL;
	size_t len;
	FILE *file = open_memstream(&text, &len);

	options_print(file, markdown);
	fclose(file);
	return text;
}

static void the_table_is_printed(void **state)
{
	static const struct {
		bool markdown;
		const char *expected, *why;
	} rows[] = {
	    {true, "by `gatherd --options=markdown`; do not edit.\n", "who made it"},
	    {true, "\n| `partition.inflight` | `256` | 1 to 100000 | count | live | jobs of one", "a count"},
	    {true, "\n| `fetch.timeout` | `10 s` | 1 ms to 24 h | time | live, host | one attempt", "a time, per host"},
	    {true, "\n| `body.max` | `900 KiB` | 0 to 1 GiB | size | live | decoded", "a size"},
	    {true, "\n| `host.rate` | `0` | 0 to 1000000 | number | live, host | starts", "a fraction"},
	    {true, "\n| `tls.verify` | `on` | off, on | choice | live | whether", "the default is the second value"},
	    {true, "\n| `dead_letter.topic` | empty | - | text | restart | topic", "nothing"},
	    {true, "\n| `guard.ports` | `80 443 1024-65535` | - | list | live | ports", "a list"},
	    {false, "\npartition.inflight     256                1 to 100000 ", "aligned"},
	    {false, "\ntls.verify             on                 off, on ", "aligned"},
	    {false, "kafka.NAME", "the rows that are not in it"},
	};
	char *plain = options_text(false), *markdown = options_text(true);

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (!strstr(rows[i].markdown ? markdown : plain, rows[i].expected))
			fail_msg("%s: %s", rows[i].why, rows[i].expected);
	assert_memory_equal(plain, "KEY ", 4);
	for (size_t i = 0; i < ROW_COUNT; i++) {
		assert_non_null(strstr(plain, option_rows[i].help));
		assert_non_null(strstr(markdown, option_rows[i].key));
	}
	free(plain);
	free(markdown);
}

static char start_dir[PATH_MAX], dir[] = "/tmp/gatherd-options-XXXXXX";

/* In a folder of its own, so that messages name the file as gatherd.conf. */
static int enter_folder(void **state)
{
	return !getcwd(start_dir, sizeof(start_dir)) || !mkdtemp(dir) || chdir(dir);
}

static int leave_folder(void **state)
{
	unlink("gatherd.conf");
	return chdir(start_dir) || rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_row_is_sound),
	    cmocka_unit_test(values_stand_in_the_order_of_their_enum),
	    cmocka_unit_test(defaults_are_those_of_the_design),
	    cmocka_unit_test(durations_need_a_unit),
	    cmocka_unit_test(sizes_have_binary_units),
	    cmocka_unit_test(numbers_are_printed_in_their_unit),
	    cmocka_unit_test(wrong_values_are_refused),
	    cmocka_unit_test(what_no_single_row_can_say_is_refused),
	    cmocka_unit_test(a_contradiction_is_blamed_on_the_later_source),
	    cmocka_unit_test(what_is_not_built_is_refused),
	    cmocka_unit_test(broken_lines_are_refused),
	    cmocka_unit_test(all_errors_are_told),
	    cmocka_unit_test(a_thousand_errors_are_cut),
	    cmocka_unit_test(long_values_are_shown_cut),
	    cmocka_unit_test(the_file_is_read_as_written),
	    cmocka_unit_test(files_that_are_none_are_refused),
	    cmocka_unit_test(the_later_source_wins),
	    cmocka_unit_test(every_row_has_its_variable),
	    cmocka_unit_test(unknown_variables_are_warnings),
	    cmocka_unit_test(kafka_properties_pass_through),
	    cmocka_unit_test(kafka_properties_of_ours_are_refused),
	    cmocka_unit_test(exactly_once_needs_read_committed),
	    cmocka_unit_test(too_many_kafka_properties_are_refused),
	    cmocka_unit_test(sections_inherit_what_they_do_not_set),
	    cmocka_unit_test(the_first_section_that_matches_counts),
	    cmocka_unit_test(too_many_sections_are_refused),
	    cmocka_unit_test(a_reload_moves_what_is_live),
	    cmocka_unit_test(a_reload_of_the_same_names_nothing),
	    cmocka_unit_test(an_explicit_listen_address_is_known),
	    cmocka_unit_test(the_table_is_printed),
	};

	return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
