/* options: the table itself, each kind of value, each source, sections, reload, print. What is refused:
 * test_options_errors.c. */
#include "options_internal.h"

#include "err.h"
#include "log.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "options_fixture.h"

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
	output_done(&out);
	out = load_fine((struct input){
	    .overrides = {"delivery=at_least_once", "robots=off", "http.version=1.1", "tls.verify=off"}});
	assert_int_equal(out.opts->delivery, DELIVERY_AT_LEAST_ONCE);
	assert_int_equal(out.opts->host.robots, ROBOTS_OFF);
	assert_int_equal(out.opts->host.http_version, 0);
	assert_int_equal(out.opts->tls_verify, 0);
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
	assert_string_equal(list_text(&out.opts->guard_deny), "example.com"); /* likewise */
	assert_int_equal(out.opts->log_level, LOG_DEBUG); /* no line feed at the end */
	assert_null(out.warnings);
	output_done(&out);
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
	     "e",
	     "-o does, and the last of its own wins"},
	    {{.file = "inflight = 1\njobs.topic = a\njobs.topic = b c"}, 1, "b c", "a repeated list key replaces the list"},
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

static int scan(const struct options *opts, const char *host)
{
	for (size_t i = 0; i < opts->n_sections; i++)
		if (glob_match(opts->sections[i].glob, host))
			return (int)i;
	return -1;
}

/* Searching finds what matching one glob after the other would, in file order, whatever its form. */
static void sections_are_found_as_a_scan_would(void **state)
{
	static const char *const globs[] = {"b.a.example.com", "*.example.com", "*.a.example.com", "x?.example.com", "*", "EXAMPLE.org",
					    "*.Example.ORG",   "*-cdn.example.net", "2001:db8::*", "a*.b.example.com", "*.com", "127.0.0.1"};
	static const char *const hosts[] = {"b.a.example.com", "c.a.example.com", "xy.example.com", "example.com", "com", "example.org",
					    "www.example.org", "q-cdn.example.net", "2001:db8::7", "2001:db9::7", "ab.b.example.com", "",
					    "127.0.0.1", ".example.com", "a..com", "..", "b.a.example.com."};

	for (size_t first = 0; first < ARRAY_LEN(globs); first++) {
		char *file = xstrdup("");
		/* Each order in turn, and without the ones before: "*" hides what follows. */
		for (size_t i = first; i < ARRAY_LEN(globs); i++) {
			char *longer = xasprintf("%s[host \"%s\"]\n", file, globs[i]);
			free(file);
			file = longer;
		}
		struct output out = load_fine((struct input){.file = file});
		for (size_t i = 0; i < ARRAY_LEN(hosts); i++)
			if (options_section_of(out.opts, hosts[i]) != scan(out.opts, hosts[i]))
				fail_msg("%s from %s on: %d", hosts[i], globs[first], options_section_of(out.opts, hosts[i]));
		for (size_t i = first; i < ARRAY_LEN(globs); i++)
			assert_int_equal(options_section_named(out.opts, globs[i]), i - first);
		assert_int_equal(options_section_named(out.opts, "nobody"), -1);
		output_done(&out);
		free(file);
	}
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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_row_is_sound),
	    cmocka_unit_test(values_stand_in_the_order_of_their_enum),
	    cmocka_unit_test(defaults_are_those_of_the_design),
	    cmocka_unit_test(durations_need_a_unit),
	    cmocka_unit_test(sizes_have_binary_units),
	    cmocka_unit_test(numbers_are_printed_in_their_unit),
	    cmocka_unit_test(the_file_is_read_as_written),
	    cmocka_unit_test(the_later_source_wins),
	    cmocka_unit_test(every_row_has_its_variable),
	    cmocka_unit_test(unknown_variables_are_warnings),
	    cmocka_unit_test(kafka_properties_pass_through),
	    cmocka_unit_test(sections_inherit_what_they_do_not_set),
	    cmocka_unit_test(the_first_section_that_matches_counts),
	    cmocka_unit_test(sections_are_found_as_a_scan_would),
	    cmocka_unit_test(a_reload_moves_what_is_live),
	    cmocka_unit_test(a_reload_of_the_same_names_nothing),
	    cmocka_unit_test(an_explicit_listen_address_is_known),
	    cmocka_unit_test(the_table_is_printed),
	};

	return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
