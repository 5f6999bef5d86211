/* log: the text of a line, the rate limit with time as an argument, and the ring and its thread over a pipe. */
#include "log_internal.h"

#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>
#include <cmocka.h>

/* A moment with all parts to see: 2026-11-01T12:00:00.023Z. */
#define MOMENT_MS INT64_C(1793534400023)

/* The line as a string, without its line feed. */
static const char *line_of(enum log_format format, const char *msg, const struct log_field *fields)
{
	static char text[LOG_LINE_MAX + 1];
	size_t len = log_line(text, format, MOMENT_MS, LOG_INFO, msg, fields);

	assert_true(len > 0 && len <= LOG_LINE_MAX);
	assert_int_equal(text[len - 1], '\n');
	text[len - 1] = '\0';
	assert_null(strchr(text, '\n'));
	return text;
}

#define HEAD_LOGFMT "ts=2026-11-01T12:00:00.023Z level=info msg=m v="
#define HEAD_JSON "{\"ts\":\"2026-11-01T12:00:00.023Z\",\"level\":\"info\",\"msg\":\"m\",\"v\":"

static void values_are_quoted(void **state)
{
	static const struct {
		const char *value, *logfmt, *json, *why;
	} rows[] = {
	    {"plain-1.2/x:y", "plain-1.2/x:y", "\"plain-1.2/x:y\"", "nothing to quote"},
	    {"two words", "\"two words\"", "\"two words\"", "a space"},
	    {"", "\"\"", "\"\"", "an empty value is to be seen"},
	    {"a=b", "\"a=b\"", "\"a=b\"", "or it would look like a field"},
	    {"say \"hi\"", "\"say \\\"hi\\\"\"", "\"say \\\"hi\\\"\"", "quotes"},
	    {"\"", "\"\\\"\"", "\"\\\"\"", "a quote alone"},
	    {"c:\\dir", "\"c:\\\\dir\"", "\"c:\\\\dir\"", "a backslash"},
	    {"a\nb\rc\td", "\"a\\nb\\rc\\td\"", "\"a\\nb\\rc\\td\"", "a line stays one line"},
	    {"\x1b[31m\x7f", "\"\\u001b[31m\\u007f\"", "\"\\u001b[31m\\u007f\"", "a terminal must not obey"},
	    {"\xc2\x9b"
	     "31m",
	     "\"\\u009b31m\"", "\"\\u009b31m\"", "nor the 8-bit form of ESC ["},
	    {"b\xc3\xbc"
	     "cher",
	     "\"b\xc3\xbc"
	     "cher\"",
	     "\"b\xc3\xbc"
	     "cher\"",
	     "UTF-8 stays"},
	    {"\xf0\x9f\x98\x80", "\"\xf0\x9f\x98\x80\"", "\"\xf0\x9f\x98\x80\"", "of four bytes too"},
	    {"\xff", "\"\\\\xff\"", "\"\\\\xff\"", "no UTF-8 at all"},
	    {"a\xc3", "\"a\\\\xc3\"", "\"a\\\\xc3\"", "cut inside a character"},
	    {"\xc0\xaf", "\"\\\\xc0\\\\xaf\"", "\"\\\\xc0\\\\xaf\"", "overlong (RFC 3629)"},
	    {"\xe0\x80\xaf", "\"\\\\xe0\\\\x80\\\\xaf\"", "\"\\\\xe0\\\\x80\\\\xaf\"", "overlong in three"},
	    {"\xed\xa0\x80", "\"\\\\xed\\\\xa0\\\\x80\"", "\"\\\\xed\\\\xa0\\\\x80\"", "a surrogate"},
	    {"\xf4\x90\x80\x80", "\"\\\\xf4\\\\x90\\\\x80\\\\x80\"", "\"\\\\xf4\\\\x90\\\\x80\\\\x80\"",
	     "past U+10FFFF"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct log_field fields[] = {LOG_STR("v", rows[i].value), {0}};
		char *logfmt = xasprintf("%s%s", HEAD_LOGFMT, rows[i].logfmt);
		char *json = xasprintf("%s%s}", HEAD_JSON, rows[i].json);
		if (strcmp(line_of(LOG_LOGFMT, "m", fields), logfmt) != 0)
			fail_msg("%s: %s", rows[i].why, line_of(LOG_LOGFMT, "m", fields));
		if (strcmp(line_of(LOG_JSON, "m", fields), json) != 0)
			fail_msg("%s: %s", rows[i].why, line_of(LOG_JSON, "m", fields));
		free(logfmt);
		free(json);
	}
}

static void a_line_has_all_its_fields(void **state)
{
	struct log_field fields[] = {LOG_STR("addr", "127.0.0.1"),
				     LOG_NUM("port", 9464),
				     LOG_NUM("least", INT64_MIN),
				     LOG_STR("none", NULL),
				     {0}};

	assert_string_equal(line_of(LOG_LOGFMT, "http listening", fields),
			    "ts=2026-11-01T12:00:00.023Z level=info msg=\"http listening\" addr=127.0.0.1 port=9464 "
			    "least=-9223372036854775808 none=\"\"");
	assert_string_equal(line_of(LOG_JSON, "http listening", fields),
			    "{\"ts\":\"2026-11-01T12:00:00.023Z\",\"level\":\"info\",\"msg\":\"http listening\","
			    "\"addr\":\"127.0.0.1\",\"port\":9464,\"least\":-9223372036854775808,\"none\":\"\"}");
	assert_string_equal(line_of(LOG_LOGFMT, "x", NULL), "ts=2026-11-01T12:00:00.023Z level=info msg=x");
}

static void long_values_are_cut(void **state)
{
	char value[2 * LOG_VALUE_MAX + 1], expected[LOG_LINE_MAX];
	struct log_field fields[] = {LOG_STR("v", value), {0}};

	memset(value, 'a', sizeof(value) - 1);
	value[sizeof(value) - 1] = '\0';
	snprintf(expected, sizeof(expected), "%s%.*s...", HEAD_LOGFMT, LOG_VALUE_MAX - 3, value);
	assert_string_equal(line_of(LOG_LOGFMT, "m", fields), expected);
	value[LOG_VALUE_MAX] = '\0';
	snprintf(expected, sizeof(expected), "%s%s", HEAD_LOGFMT, value);
	assert_string_equal(line_of(LOG_LOGFMT, "m", fields), expected);
	/* The cut is never inside a character: U+00FC at every place around it. */
	for (size_t at = LOG_VALUE_MAX - 8; at < LOG_VALUE_MAX; at++) {
		memset(value, 'a', sizeof(value) - 1);
		value[LOG_VALUE_MAX + 10] = '\0';
		memcpy(value + at, "\xc3\xbc", 2);
		assert_null(strstr(line_of(LOG_LOGFMT, "m", fields), "\\x"));
	}
}

static uint64_t random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* Any bytes at all, and too many of them: the line is one JSON object, and what fits is in it whole. */
static void json_is_always_json(void **state)
{
	static const char *const keys[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
	char values[ARRAY_LEN(keys)][LOG_VALUE_MAX + 100];
	struct log_field fields[10] = {{0}};
	uint64_t seed = 7;
	size_t n_cut = 0;

	for (int round = 0; round < 500; round++) {
		size_t n = 1 + (size_t)round % ARRAY_LEN(values);
		memset(fields, 0, sizeof(fields));
		for (size_t i = 0; i < n; i++) {
			size_t len = random_next(&seed) % sizeof(values[i]);
			for (size_t j = 0; j < len; j++)
				values[i][j] = (char)(1 + random_next(&seed) % 255);
			values[i][len ? len - 1 : 0] = '\0';
			fields[i] = LOG_STR(keys[i], values[i]);
		}
		json_error_t error;
		json_t *line = json_loads(line_of(LOG_JSON, "m", fields), 0, &error);
		if (!line)
			fail_msg("round %d: %s", round, error.text);
		bool is_cut = json_is_true(json_object_get(line, "cut"));
		assert_true(is_cut ? json_object_size(line) <= 3 + n : json_object_size(line) == 3 + n);
		n_cut += is_cut;
		json_decref(line);
	}
	assert_true(n_cut > 0 && n_cut < 500);
}

/* Lines of every length around the longest one. */
static void the_end_of_a_line_always_fits(void **state)
{
	char values[4][LOG_VALUE_MAX + 1] = {{0}};
	struct log_field fields[] = {
	    LOG_STR("a", values[0]), LOG_STR("b", values[1]), LOG_STR("c", values[2]), LOG_STR("d", values[3]), {0}};
	size_t n_cut = 0;

	for (size_t i = 0; i < 3; i++)
		memset(values[i], 'x', LOG_VALUE_MAX);
	for (size_t len = 0; len <= LOG_VALUE_MAX; len++) {
		memset(values[3], 'y', len);
		json_t *line = json_loads(line_of(LOG_JSON, "m", fields), 0, NULL);
		assert_non_null(line);
		n_cut += json_object_get(line, "cut") != NULL;
		json_decref(line);
	}
	assert_true(n_cut > 0 && n_cut < LOG_VALUE_MAX);
}

static void fields_that_do_not_fit_are_left_out(void **state)
{
	char value[LOG_VALUE_MAX + 1];
	struct log_field fields[] = {LOG_STR("a", value), LOG_STR("b", value), LOG_STR("c", value),
				     LOG_STR("d", value), LOG_NUM("e", 1),     {0}};

	memset(value, 'x', sizeof(value) - 1);
	value[sizeof(value) - 1] = '\0';
	const char *text = line_of(LOG_LOGFMT, "m", fields);
	assert_non_null(strstr(text, " c=xxx"));
	assert_null(strstr(text, " d="));
	assert_null(strstr(text, " e=1")); /* nothing after a gap, or the gap could not be seen */
	assert_string_equal(text + strlen(text) - 9, " cut=true");
	memset(value, '\1', sizeof(value) - 1);
	assert_string_equal(line_of(LOG_JSON, value, fields),
			    "{\"ts\":\"2026-11-01T12:00:00.023Z\",\"level\":\"info\",\"cut\":true}");
}

static size_t pass_n(struct log_limit *limit, const char *msg, size_t n, int64_t now_us)
{
	size_t passed = 0;

	for (size_t i = 0; i < n; i++)
		passed += log_limit_pass(limit, LOG_WARN, msg, now_us);
	return passed;
}

static void one_message_is_limited_by_the_second(void **state)
{
	static struct log_limit limit;
	struct log_limited row;

	assert_int_equal(log_limit_next_us(&limit), INT64_MAX);
	assert_int_equal(pass_n(&limit, "fetch failed", LOG_LIMIT_PER_S, 5 * US_PER_S), LOG_LIMIT_PER_S);
	assert_int_equal(log_limit_next_us(&limit), INT64_MAX);
	assert_int_equal(pass_n(&limit, "fetch failed", 50, 5 * US_PER_S + 999999), 0);
	assert_int_equal(pass_n(&limit, "other", 10, 5 * US_PER_S), 10); /* the others have their own */
	assert_int_equal(limit.n_holding, 1);
	assert_int_equal(log_limit_next_us(&limit), 6 * US_PER_S);
	assert_false(log_limit_sum(&limit, 6 * US_PER_S - 1, &row));
	assert_true(log_limit_sum(&limit, 6 * US_PER_S, &row));
	assert_string_equal(row.msg, "fetch failed");
	assert_int_equal(row.n_held, 50);
	assert_int_equal(row.level, LOG_WARN);
	assert_false(log_limit_sum(&limit, 6 * US_PER_S, &row));
	assert_int_equal(log_limit_next_us(&limit), INT64_MAX);
	assert_int_equal(pass_n(&limit, "fetch failed", 1000, 6 * US_PER_S), LOG_LIMIT_PER_S);
}

static void a_quiet_second_starts_anew(void **state)
{
	static struct log_limit limit;

	assert_int_equal(pass_n(&limit, "m", LOG_LIMIT_PER_S - 1, 0), LOG_LIMIT_PER_S - 1);
	assert_int_equal(pass_n(&limit, "m", LOG_LIMIT_PER_S, US_PER_S), LOG_LIMIT_PER_S);
	/* What is held back is not forgotten when nobody asks for the sum in time. */
	assert_int_equal(pass_n(&limit, "m", 3, US_PER_S), 0);
	assert_int_equal(pass_n(&limit, "m", 4, 9 * US_PER_S), 0);
	struct log_limited row;
	assert_true(log_limit_sum(&limit, 9 * US_PER_S, &row));
	assert_int_equal(row.n_held, 7);
}

static void many_messages_need_no_more_memory(void **state)
{
	static struct log_limit limit;
	struct log_limited row;
	char msg[100];
	size_t held = 0;

	/* More texts than places: none is ever held back without reason, and no sum is lost. */
	for (int i = 0; i < 1000; i++) {
		snprintf(msg, sizeof(msg), "message %d", i);
		assert_int_equal(pass_n(&limit, msg, 5, i), 5);
	}
	for (int i = 0; i < 300; i++) {
		snprintf(msg, sizeof(msg), "later %d", i);
		held += 300 - pass_n(&limit, msg, 300, 2 * US_PER_S);
	}
	assert_true(held >= LOG_LIMIT_MESSAGES / 2 * 100);
	while (log_limit_sum(&limit, 3 * US_PER_S, &row))
		held -= row.n_held;
	assert_int_equal(held, 0);
	assert_int_equal(limit.n_holding, 0);
	/* Texts are compared as far as they are kept. */
	memset(msg, 'x', sizeof(msg));
	msg[70] = '\0';
	assert_int_equal(pass_n(&limit, msg, 300, 9 * US_PER_S), LOG_LIMIT_PER_S);
	msg[69] = 'y';
	assert_int_equal(pass_n(&limit, msg, 1, 9 * US_PER_S), 0);
}

struct pipe_end {
	int read_fd, write_fd;
	pthread_t thread;
	char *text; /* all that came */
	size_t len;
};

static void *read_all(void *ctx)
{
	struct pipe_end *end = ctx;
	size_t cap = 0;

	for (ssize_t n = 1; n > 0;) {
		if (cap - end->len < 65536)
			end->text = xrealloc(end->text, cap += 1 << 20);
		n = read(end->read_fd, end->text + end->len, 65535);
		if (n > 0)
			end->len += (size_t)n;
	}
	end->text[end->len] = '\0';
	return NULL;
}

static void pipe_open(struct pipe_end *end)
{
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	*end = (struct pipe_end){.read_fd = fds[0], .write_fd = fds[1]};
	assert_true(fcntl(end->write_fd, F_SETPIPE_SZ, 4096) >= 4096);
}

static void pipe_start_reading(struct pipe_end *end)
{
	assert_int_equal(pthread_create(&end->thread, NULL, read_all, end), 0);
}

/* Everything that was written, as one string. The log must be free. */
static const char *pipe_text(struct pipe_end *end)
{
	close(end->write_fd);
	pthread_join(end->thread, NULL);
	close(end->read_fd);
	return end->text;
}

static size_t count_of(const char *text, const char *what)
{
	size_t n = 0;

	for (; (text = strstr(text, what)); text += strlen(what))
		n++;
	return n;
}

/* The sum of N in " count=N" over lines with that text. */
static uint64_t sum_of(const char *text, const char *what)
{
	uint64_t sum = 0;

	for (; (text = strstr(text, what)); text += strlen(what)) {
		const char *count = strstr(text, " count=");
		sum += strtoull(count + 7, NULL, 10);
	}
	return sum;
}

static void lines_come_out_in_order(void **state)
{
	struct pipe_end end;

	pipe_open(&end);
	pipe_start_reading(&end);
	struct log *log = log_new(end.write_fd, LOG_INFO, LOG_LOGFMT);
	log_debug(log, "hidden");
	log_info(log, "first", LOG_NUM("n", 1));
	log_error(log, "second");
	log_set(log, LOG_ERROR, LOG_JSON);
	log_warn(log, "hidden too");
	log_error(log, "third", LOG_STR("s", "x"));
	log_free(log);
	const char *text = pipe_text(&end), *first = strstr(text, " level=info msg=first n=1\n");
	const char *second = strstr(text, " level=error msg=second\n");
	const char *third = strstr(text, ",\"level\":\"error\",\"msg\":\"third\",\"s\":\"x\"}\n");
	assert_true(first && second && third && first < second && second < third);
	assert_int_equal(count_of(text, "\n"), 3);
	assert_null(strstr(text, "hidden"));
	free(end.text);
}

static void a_storm_is_summed_up(void **state)
{
	struct pipe_end end;

	pipe_open(&end);
	pipe_start_reading(&end);
	struct log *log = log_new(end.write_fd, LOG_INFO, LOG_LOGFMT);
	for (int i = 0; i < 5000; i++)
		log_warn(log, "storm");
	log_free(log); /* does not wait for the second to end */
	const char *text = pipe_text(&end);
	size_t n = count_of(text, "level=warn msg=storm\n");
	assert_true(n >= LOG_LIMIT_PER_S);
	/* Also when the machine was so slow that a second ended in between, nothing is lost. */
	assert_int_equal(n + sum_of(text, "level=warn msg=\"log lines held back\" of=storm"), 5000);
	free(end.text);
}

static size_t read_more(struct pipe_end *end, char *text, size_t len, size_t size)
{
	ssize_t n = read(end->read_fd, text + len, size - 1 - len);

	assert_true(n > 0);
	text[len + (size_t)n] = '\0';
	return len + (size_t)n;
}

/* The one test that takes its second. */
static void the_thread_wakes_by_itself(void **state)
{
	struct pipe_end end;
	char text[65536] = "";
	size_t len = 0;

	pipe_open(&end);
	struct log *log = log_new(end.write_fd, LOG_INFO, LOG_LOGFMT);
	for (int i = 0; i < LOG_LIMIT_PER_S; i++)
		log_info(log, "storm");
	while (count_of(text, "\n") < LOG_LIMIT_PER_S)
		len = read_more(&end, text, len, sizeof(text));
	/* The thread has nothing to do now; a line wakes it. */
	log_info(log, "wake");
	while (!strstr(text, "msg=wake\n"))
		len = read_more(&end, text, len, sizeof(text));
	/* And a line that does not come sets its alarm. One of these is held back, even if the second has just ended.
	 */
	for (int i = 0; i <= LOG_LIMIT_PER_S; i++)
		log_info(log, "storm");
	while (!strstr(text, "of=storm count="))
		len = read_more(&end, text, len, sizeof(text));
	log_free(log);
	close(end.read_fd);
	close(end.write_fd);
}

/* Different texts, so that it is the ring and not the rate that refuses them. */
static void write_numbered(struct log *log, const char *prefix, int i)
{
	static char filler[801];
	char msg[32];

	memset(filler, 'x', sizeof(filler) - 1);
	snprintf(msg, sizeof(msg), "%s%d", prefix, i);
	log_info(log, msg, LOG_STR("filler", filler));
}

static void a_blocked_pipe_blocks_nobody(void **state)
{
	struct pipe_end end;
	int n = 0, after = 0, n_in = 0;

	pipe_open(&end);
	struct log *log = log_new(end.write_fd, LOG_INFO, LOG_LOGFMT);
	/* Nobody reads: were this to block, it would block for ever. */
	for (; log_dropped(log) < 100; n++)
		write_numbered(log, "before", n);
	pipe_start_reading(&end);
	for (; n_in < 5; after++) {
		uint64_t before = log_dropped(log);
		sched_yield();
		write_numbered(log, "after", after);
		n_in += log_dropped(log) == before;
	}
	uint64_t dropped = log_dropped(log);
	log_free(log);
	const char *text = pipe_text(&end);
	assert_int_equal(count_of(text, "msg=before"), (size_t)(n - 100));
	assert_int_equal(count_of(text, "msg=after"), n_in);
	assert_int_equal(sum_of(text, "level=warn msg=\"log lines dropped\""), dropped);
	/* The notice stands where the hole is. */
	assert_true(strstr(text, "log lines dropped") < strstr(text, "msg=after"));
	assert_int_equal(count_of(text, "\nts="), count_of(text, "\n") - 1);
	free(end.text);
}

/* In packet mode each write is a packet, and each packet takes one of 16 places. */
static void writes_end_with_a_line(void **state)
{
	int fds[2];
	char packet[65536];
	ssize_t n;
	size_t n_full = 0, n_lines = 0;

	assert_int_equal(pipe2(fds, O_DIRECT | O_NONBLOCK), 0);
	while (write(fds[1], "full\n", 5) == 5)
		n_full++;
	assert_true(n_full >= 12);
	struct log *log = log_new(fds[1], LOG_INFO, LOG_LOGFMT);
	for (int i = 0; i < 12; i++)
		write_numbered(log, "m", i); /* they gather in the ring */
	while (n_full--)
		assert_int_equal(read(fds[0], packet, sizeof(packet)), 5);
	log_free(log);
	close(fds[1]);
	while ((n = read(fds[0], packet, sizeof(packet) - 1)) > 0) {
		packet[n] = '\0';
		assert_memory_equal(packet, "ts=", 3);
		assert_int_equal(packet[n - 1], '\n');
		n_lines += count_of(packet, "\n");
	}
	assert_int_equal(n_lines, 12);
	close(fds[0]);
}

static void freeing_a_blocked_log_ends(void **state)
{
	struct pipe_end end;

	pipe_open(&end);
	struct log *log = log_new(end.write_fd, LOG_INFO, LOG_LOGFMT);
	for (int i = 0; i < 20; i++)
		write_numbered(log, "m", i);
	int64_t start_us = clock_now_us();
	log_free(log);
	assert_true(clock_now_us() - start_us < 10 * US_PER_S); /* 1 s, on a machine with time */
	close(end.read_fd);
	close(end.write_fd);
}

static void a_reader_that_left_is_survived(void **state)
{
	struct pipe_end end;

	pipe_open(&end);
	close(end.read_fd);
	struct log *log = log_new(end.write_fd, LOG_INFO, LOG_LOGFMT);
	for (int i = 0; i < 3000; i++)
		write_numbered(log, "m", i);
	log_free(log); /* no SIGPIPE has ended us */
	close(end.write_fd);
	log_free(log_new(-1, LOG_INFO, LOG_LOGFMT));
}

/* Before the log ends: a process that ends without log_free loses no line. */
static void a_flush_waits_until_all_is_written(void **state)
{
	FILE *file = tmpfile();
	struct log *log = log_new(fileno(file), LOG_INFO, LOG_LOGFMT);
	static char text[256 * 1024];

	for (int i = 0; i < 150; i++)
		write_numbered(log, "m", i);
	log_flush(log, 60 * 1000);
	rewind(file);
	text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
	assert_int_equal(count_of(text, "\n"), 150);
	log_flush(log, 60 * 1000); /* nothing to wait for */
	log_free(log);
	fclose(file);
}

static void a_flush_of_a_blocked_pipe_ends(void **state)
{
	struct pipe_end end;

	pipe_open(&end);
	struct log *log = log_new(end.write_fd, LOG_INFO, LOG_LOGFMT);
	for (int i = 0; log_dropped(log) == 0; i++)
		write_numbered(log, "m", i);
	int64_t start_us = clock_now_us();
	log_flush(log, 50);
	assert_true(clock_now_us() - start_us >= 50 * US_PER_MS);
	close(end.read_fd);
	log_free(log);
	close(end.write_fd);
}

struct writer {
	struct log *log;
	int id;
	pthread_t thread;
};

static void *write_many(void *ctx)
{
	struct writer *writer = ctx;
	char msg[32];

	for (int i = 0; i < 1000; i++) {
		snprintf(msg, sizeof(msg), "w%d-%d", writer->id, i);
		log_info(writer->log, msg, LOG_STR("end", "here"));
	}
	return NULL;
}

static void any_thread_may_log(void **state)
{
	struct pipe_end end;
	struct writer writers[4];

	pipe_open(&end);
	pipe_start_reading(&end);
	struct log *log = log_new(end.write_fd, LOG_INFO, LOG_LOGFMT);
	for (int i = 0; i < (int)ARRAY_LEN(writers); i++) {
		writers[i] = (struct writer){.log = log, .id = i};
		assert_int_equal(pthread_create(&writers[i].thread, NULL, write_many, &writers[i]), 0);
	}
	for (int i = 0; i < 100; i++)
		log_set(log, i % 2 ? LOG_INFO : LOG_DEBUG, LOG_LOGFMT);
	for (size_t i = 0; i < ARRAY_LEN(writers); i++)
		pthread_join(writers[i].thread, NULL);
	assert_int_equal(log_dropped(log), 0);
	log_free(log);
	const char *text = pipe_text(&end);
	assert_int_equal(count_of(text, " end=here\n"), 4000); /* whole lines, each once */
	assert_int_equal(count_of(text, "ts="), 4000);
	for (int i = 0; i < (int)ARRAY_LEN(writers); i++) {
		char msg[32];
		const char *at = text;
		for (int j = 0; j < 1000; j++) {
			snprintf(msg, sizeof(msg), " msg=w%d-%d ", i, j);
			at = strstr(at, msg); /* each thread's lines in its order */
			assert_non_null(at);
		}
	}
	free(end.text);
}

static void no_log_is_silent(void **state)
{
	log_info(NULL, "nobody hears", LOG_NUM("n", 1));
	log_set(NULL, LOG_DEBUG, LOG_JSON);
	log_flush(NULL, 1000);
	assert_int_equal(log_dropped(NULL), 0);
	log_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(values_are_quoted),
	    cmocka_unit_test(a_line_has_all_its_fields),
	    cmocka_unit_test(long_values_are_cut),
	    cmocka_unit_test(json_is_always_json),
	    cmocka_unit_test(the_end_of_a_line_always_fits),
	    cmocka_unit_test(fields_that_do_not_fit_are_left_out),
	    cmocka_unit_test(one_message_is_limited_by_the_second),
	    cmocka_unit_test(a_quiet_second_starts_anew),
	    cmocka_unit_test(many_messages_need_no_more_memory),
	    cmocka_unit_test(lines_come_out_in_order),
	    cmocka_unit_test(a_storm_is_summed_up),
	    cmocka_unit_test(the_thread_wakes_by_itself),
	    cmocka_unit_test(a_blocked_pipe_blocks_nobody),
	    cmocka_unit_test(writes_end_with_a_line),
	    cmocka_unit_test(freeing_a_blocked_log_ends),
	    cmocka_unit_test(a_reader_that_left_is_survived),
	    cmocka_unit_test(a_flush_waits_until_all_is_written),
	    cmocka_unit_test(a_flush_of_a_blocked_pipe_ends),
	    cmocka_unit_test(any_thread_may_log),
	    cmocka_unit_test(no_log_is_silent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
