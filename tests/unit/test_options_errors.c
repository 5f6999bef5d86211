/* options: what is refused, and in which words. */
#include "options_internal.h"

#include "err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "options_fixture.h"

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
	    {"methods = GET PSOT", "methods = GET PSOT: must be one or more of GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS",
	     "a slip"},
	    {"methods =", "methods = : must be one or more of GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS", "none"},
	    {"methods = GET|HEAD", "methods = GET|HEAD: must be one or more of GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS",
	     "not by a bar"},
	    {"request.body_max = 2 MiB", "request.body_max = 2 MiB: must be 0 to 1 MiB", "a record has no more"},
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

#define HEADS "a section must be [host \"GLOB\"], [secret \"NAME\"] or [proxy \"NAME\"]"

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
	    {"[host *.example.com]", "[host *.example.com]: " HEADS, "no quotes"},
	    {"[host \"\"]", "[host \"\"]: " HEADS, "nothing"},
	    {"[host \"a\"", "[host \"a\": " HEADS, "no end"},
	    {"[proxies \"a\"]", "[proxies \"a\"]: " HEADS, "another kind"},
	    {"[secret a]", "[secret a]: " HEADS, "no quotes"},
	    {"[", "[: " HEADS, "a bracket"},
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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(wrong_values_are_refused),
	    cmocka_unit_test(what_no_single_row_can_say_is_refused),
	    cmocka_unit_test(a_contradiction_is_blamed_on_the_later_source),
	    cmocka_unit_test(broken_lines_are_refused),
	    cmocka_unit_test(all_errors_are_told),
	    cmocka_unit_test(a_thousand_errors_are_cut),
	    cmocka_unit_test(long_values_are_shown_cut),
	    cmocka_unit_test(files_that_are_none_are_refused),
	    cmocka_unit_test(kafka_properties_of_ours_are_refused),
	    cmocka_unit_test(exactly_once_needs_read_committed),
	    cmocka_unit_test(too_many_kafka_properties_are_refused),
	    cmocka_unit_test(too_many_sections_are_refused),
	};

	return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
