/* retry: which failures, which methods, how long. */
#include "err.h"
#include "retry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#define NOW_MS INT64_C(784111717000) /* Sun, 06 Nov 1994 08:48:37 GMT */
#define RANDOM_MAX UINT32_MAX

static const struct retry_policy policy = {.max_attempts = 3, .base_ms = 500, .max_ms = 30000};

static int64_t wait_ms(int err, int status, const char *method, int attempts, uint32_t random)
{
	return retry_wait_ms(&policy, err, status, method, attempts, 0, 60000, random);
}

/* Every status there is: only these may get better by themselves. */
static void statuses(void **state)
{
	for (int status = -1; status <= 1000; status++) {
		bool expected = status == 408 || status == 425 || status == 429 ||
				(status >= 500 && status <= 599 && status != 501 && status != 505);
		if (retry_may_help(-ERR_HTTP_STATUS, status) != expected ||
		    retry_may_help(ERR_HTTP_STATUS, status) != expected)
			fail_msg("status %d", status);
		assert_int_equal(wait_ms(-ERR_HTTP_STATUS, status, "GET", 2, RANDOM_MAX), expected ? 1000 : -1);
		assert_int_equal(wait_ms(-ERR_HTTP_STATUS, status, "PATCH", 1, RANDOM_MAX), -1);
	}
}

/* All other failures, the whole table: what is not named here ends the job at once. The status says nothing then. */
static void errors(void **state)
{
	static const int retried[] = {
	    ERR_DNS_SERVFAIL,	     ERR_DNS_REFUSED,	 ERR_DNS_TIMEOUT,    ERR_DNS_FAILED,	ERR_CONNECT_REFUSED,
	    ERR_CONNECT_TIMEOUT,     ERR_CONNECT_FAILED, ERR_CONNECT_NO_FDS, ERR_PROXY_FAILED,	ERR_HOST_DOWN,
	    ERR_CONNECT_UNREACHABLE, ERR_TLS_HANDSHAKE,	 ERR_HTTP2_ERROR,    ERR_FETCH_TIMEOUT, ERR_FETCH_STALLED,
	    ERR_DISCONNECTED,	     ERR_ROBOTS_UNREACHABLE,
	};

	for (int err = 0; err < ERR_COUNT; err++) {
		bool expected = false;
		if (err == ERR_HTTP_STATUS)
			continue;
		for (size_t i = 0; i < ARRAY_LEN(retried); i++)
			expected |= retried[i] == err;
		for (int status = 200; status <= 503; status += 303) {
			if (retry_may_help(err, status) != expected || retry_may_help(-err, status) != expected)
				fail_msg("%s with status %d", err_code(err), status);
			for (int attempts = 1; attempts <= 3; attempts++) {
				int64_t wait = expected && attempts < 3 ? 500 * attempts : -1;
				if (wait_ms(-err, status, "GET", attempts, RANDOM_MAX) != wait)
					fail_msg("%s: the wait after attempt %d", err_code(err), attempts);
				assert_int_equal(wait_ms(-err, status, "POST", attempts, RANDOM_MAX), -1);
			}
		}
	}
}

static void methods(void **state)
{
	static const struct {
		const char *method;
		bool is_idempotent;
	} rows[] = {
	    {"GET", true},   {"HEAD", true},  {"PUT", true},	{"DELETE", true},   {"OPTIONS", true},
	    {"TRACE", true}, {"POST", false}, {"PATCH", false}, {"CONNECT", false}, {"QUERY", false},
	    {"get", false},  {"GETX", false}, {"GE", false},	{"", false},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		assert_int_equal(retry_is_idempotent(rows[i].method), rows[i].is_idempotent);
		assert_int_equal(wait_ms(-ERR_HTTP_STATUS, 503, rows[i].method, 1, 0), rows[i].is_idempotent ? 0 : -1);
		assert_int_equal(wait_ms(-ERR_CONNECT_REFUSED, 0, rows[i].method, 1, 0),
				 rows[i].is_idempotent ? 0 : -1);
	}
}

static void attempts(void **state)
{
	assert_int_equal(wait_ms(-ERR_FETCH_TIMEOUT, 0, "GET", 1, 0), 0);
	assert_int_equal(wait_ms(-ERR_FETCH_TIMEOUT, 0, "GET", 2, 0), 0);
	assert_int_equal(wait_ms(-ERR_FETCH_TIMEOUT, 0, "GET", 3, 0), -1);
	assert_int_equal(wait_ms(-ERR_FETCH_TIMEOUT, 0, "GET", 4, 0), -1);
	assert_int_equal(wait_ms(-ERR_HTTP_STATUS, 404, "GET", 1, 0), -1);
	assert_int_equal(wait_ms(-ERR_DNS_NXDOMAIN, 0, "GET", 1, 0), -1);
}

/* Full jitter: the random number picks from [0, cap], both ends included. */
static void back_off(void **state)
{
	static const struct {
		int64_t base_ms, max_ms;
		int attempts;
		uint32_t random;
		int64_t expected;
		const char *why;
	} rows[] = {
	    {500, 30000, 1, 0, 0, "the shortest"},
	    {500, 30000, 1, RANDOM_MAX, 500, "the longest"},
	    {500, 30000, 1, RANDOM_MAX / 2, 250, "the middle"},
	    {500, 30000, 2, RANDOM_MAX, 1000, "doubled"},
	    {500, 30000, 3, RANDOM_MAX, 2000, "doubled twice"},
	    {500, 30000, 6, RANDOM_MAX, 16000, "doubled five times"},
	    {500, 30000, 7, RANDOM_MAX, 30000, "the cap"},
	    {500, 30000, 999, RANDOM_MAX, 30000, "the cap, without overflow"},
	    {500, 200, 1, RANDOM_MAX, 200, "a cap under the base"},
	    {1, INT64_MAX, 1000, RANDOM_MAX, INT32_MAX, "a cap beyond sense"},
	    {INT64_MAX, INT64_MAX, 5, RANDOM_MAX, INT32_MAX, "a base beyond sense"},
	    {0, 30000, 5, RANDOM_MAX, 0, "no back-off"},
	    {500, 0, 5, RANDOM_MAX, 0, "no back-off"},
	    {-5, -5, 5, RANDOM_MAX, 0, "never below zero"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct retry_policy p = {.max_attempts = 10000, .base_ms = rows[i].base_ms, .max_ms = rows[i].max_ms};
		int64_t got =
		    retry_wait_ms(&p, -ERR_CONNECT_REFUSED, 0, "GET", rows[i].attempts, 0, INT64_MAX, rows[i].random);
		if (got != rows[i].expected)
			fail_msg("%s: %lld", rows[i].why, (long long)got);
	}
}

static void jitter_is_even(void **state)
{
	struct retry_policy p = {.max_attempts = 2, .base_ms = 9, .max_ms = 1000};
	int count[10] = {0};

	for (uint32_t i = 0; i < 10000; i++)
		count[retry_wait_ms(&p, -ERR_CONNECT_REFUSED, 0, "GET", 1, 0, 1000, i * 429496)]++;
	for (size_t i = 0; i < ARRAY_LEN(count); i++)
		assert_in_range(count[i], 990, 1010);
}

static void retry_after_and_deadline(void **state)
{
	static const struct {
		int64_t retry_after_ms, left_ms;
		uint32_t random;
		int64_t expected;
		const char *why;
	} rows[] = {
	    {0, 60000, RANDOM_MAX, 500, "none"},
	    {100, 60000, RANDOM_MAX, 500, "shorter than the back-off"},
	    {7000, 60000, 0, 7000, "longer than the back-off"},
	    {7000, 60000, RANDOM_MAX, 7000, "longer than the back-off"},
	    {60000, 60000, 0, -1, "would reach the deadline"},
	    {59999, 60000, 0, 59999, "just before the deadline"},
	    {INT64_C(999999999000), 60000, 0, -1, "far past the deadline"},
	    {0, 500, RANDOM_MAX, -1, "the back-off would reach the deadline"},
	    {0, 501, RANDOM_MAX, 500, "just before the deadline"},
	    {0, 0, 0, -1, "no time left"},
	    {0, -5, 0, -1, "past the deadline"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int64_t got = retry_wait_ms(&policy, -ERR_HTTP_STATUS, 503, "GET", 1, rows[i].retry_after_ms,
					    rows[i].left_ms, rows[i].random);
		if (got != rows[i].expected)
			fail_msg("%s: %lld", rows[i].why, (long long)got);
	}
}

static void retry_after_header(void **state)
{
	static const struct {
		const char *value;
		int64_t expected;
		const char *why;
	} rows[] = {
	    {"120", 120000, "seconds"},
	    {"0", 0, "none"},
	    {"  120\t", 120000, "white space around"},
	    {"0000000000000120", 120000, "zeros before"},
	    {"999999999", INT64_C(999999999000), "31 years"},
	    {"1000000000", INT64_C(999999999000), "over 31 years"},
	    {"99999999999999999999999999", INT64_C(999999999000), "over 64 bits"},
	    {"Sun, 06 Nov 1994 08:49:37 GMT", 60000, "IMF-fixdate"},
	    {"Sunday, 06-Nov-94 08:49:37 GMT", 60000, "RFC 850"},
	    {"Sun Nov  6 08:49:37 1994", 60000, "asctime"},
	    {"Sun, 06 Nov 1994 08:48:37 GMT", 0, "now"},
	    {"Sun, 06 Nov 1994 08:48:36 GMT", 0, "past"},
	    {"Thu, 01 Jan 1970 00:00:00 GMT", 0, "long past"},
	    {"", 0, "empty"},
	    {"   ", 0, "white space"},
	    {"-5", 0, "negative"},
	    {"+5", 0, "a sign"},
	    {"1.5", 0, "a fraction"},
	    {"5 seconds", 0, "a unit"},
	    {"soon", 0, "a word"},
	    {"0x10", 0, "hexadecimal"},
	    {"Sun, 06 Nov 1994 08:49:37 GMT                                          x", 0, "over 63 bytes"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		/* Without a NUL after it. */
		size_t len = strlen(rows[i].value);
		uint8_t *exact = xmalloc(len);
		memcpy(exact, rows[i].value, len);
		int64_t got = retry_after_ms((struct span){exact, len}, NOW_MS);
		free(exact);
		if (got != rows[i].expected)
			fail_msg("\"%s\": %s: %lld", rows[i].value, rows[i].why, (long long)got);
	}
	assert_int_equal(retry_after_ms((struct span){0}, NOW_MS), 0);
	assert_int_equal(retry_after_ms((struct span){(const uint8_t *)"12\0"
								       "3",
						      4},
					NOW_MS),
			 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(statuses),
	    cmocka_unit_test(errors),
	    cmocka_unit_test(methods),
	    cmocka_unit_test(attempts),
	    cmocka_unit_test(back_off),
	    cmocka_unit_test(jitter_is_even),
	    cmocka_unit_test(retry_after_and_deadline),
	    cmocka_unit_test(retry_after_header),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
