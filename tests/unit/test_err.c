/* err: the table is whole, and what a result carries does not change by accident. */
#include "err.h"

#include <ctype.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static void every_row_is_complete(void **state)
{
	for (int err = ERR_NONE; err < ERR_COUNT; err++) {
		const char *code = err_code(err), *text = err_text(err);

		if (!*code || !*text || text[strlen(text) - 1] == '.')
			fail_msg("%s: \"%s\" is no text that goes into a sentence", code, text);
		for (const char *s = code; *s; s++)
			assert_true(isupper((unsigned char)*s) || isdigit((unsigned char)*s) || *s == '_');
		for (int other = 0; other < err; other++)
			if (strcmp(code, err_code(other)) == 0)
				fail_msg("%s twice", code);
		if (err != ERR_NONE)
			assert_true(err_outcome(err) > OUTCOME_OK && err_outcome(err) < OUTCOME_COUNT);
	}
}

/* Consumers route on these: a change here is a change of the contract. */
static void codes_have_their_outcome(void **state)
{
	static const struct {
		int err;
		const char *code;
		enum outcome outcome;
		bool is_retryable;
		const char *why;
	} rows[] = {
	    {0, "NONE", OUTCOME_OK, false, "no error"},
	    {ERR_CONNECT_REFUSED, "CONNECT_REFUSED", OUTCOME_CONNECT, true, "a server may come back"},
	    {-ERR_CONNECT_REFUSED, "CONNECT_REFUSED", OUTCOME_CONNECT, true, "either sign"},
	    {-ERR_HOST_DOWN, "HOST_DOWN", OUTCOME_CONNECT, true, "the breaker's answer"},
	    {-ERR_DNS_NXDOMAIN, "DNS_NXDOMAIN", OUTCOME_DNS, false, "the name will not exist in a second either"},
	    {-ERR_DNS_TIMEOUT, "DNS_TIMEOUT", OUTCOME_DNS, true, "the server may answer"},
	    {-ERR_TLS_CERTIFICATE, "TLS_CERTIFICATE", OUTCOME_TLS, false, "a person has to mend it"},
	    {-ERR_ADDRESS_DENIED, "ADDRESS_DENIED", OUTCOME_BLOCKED_ADDRESS, false, "a rule stays a rule"},
	    {-ERR_JOB_JSON, "JOB_JSON", OUTCOME_BAD_JOB, false, "the same bytes parse the same way"},
	    {-ERR_FETCH_TIMEOUT, "FETCH_TIMEOUT", OUTCOME_TIMEOUT, true, "slow now"},
	    {-ERR_JOB_DEADLINE, "JOB_DEADLINE", OUTCOME_DEADLINE, false, "time is up"},
	    {-ERR_INTERNAL, "INTERNAL", OUTCOME_INTERNAL, false, "ours"},
	    {ERR_COUNT, "INTERNAL", OUTCOME_INTERNAL, false, "out of range"},
	    {-ERR_COUNT, "INTERNAL", OUTCOME_INTERNAL, false, "out of range"},
	    {INT_MAX, "INTERNAL", OUTCOME_INTERNAL, false, "out of range"},
	    {INT_MIN, "INTERNAL", OUTCOME_INTERNAL, false, "has no positive"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		if (strcmp(err_code(rows[i].err), rows[i].code) != 0 || err_outcome(rows[i].err) != rows[i].outcome ||
		    err_retryable(rows[i].err) != rows[i].is_retryable)
			fail_msg("%s: %s", rows[i].code, rows[i].why);
	}
}

/* What results in topics out there carry. Add new ones; never change one. */
static void names_are_for_ever(void **state)
{
	static const char *const codes[] = {
	    "FULL",
	    "AGAIN",
	    "SYSTEM",
	    "INVALID",
	    "NOT_FOUND",
	    "TOO_LARGE",
	    "KAFKA",
	    "KAFKA_TOO_LARGE",
	    "KAFKA_FENCED",
	    "INTERNAL",
	    "CANCELLED",
	    "JOB_EMPTY",
	    "JOB_TOO_LARGE",
	    "JOB_FORMAT",
	    "JOB_JSON",
	    "JOB_PROTOBUF",
	    "JOB_FIELD",
	    "JOB_NOT_BEFORE",
	    "JOB_ATTRS",
	    "URL_EMPTY",
	    "URL_TOO_LONG",
	    "URL_SYNTAX",
	    "URL_HOST",
	    "URL_USERINFO",
	    "METHOD_SYNTAX",
	    "HEADER_NAME",
	    "HEADER_VALUE",
	    "HEADER_COUNT",
	    "URL_SCHEME",
	    "PORT_DENIED",
	    "METHOD_DENIED",
	    "HEADER_DENIED",
	    "BODY_DENIED",
	    "REQUEST_TOO_LARGE",
	    "SECRET_UNKNOWN",
	    "SECRET_HOST",
	    "PROXY_UNKNOWN",
	    "PROFILE_UNKNOWN",
	    "ADDRESS_DENIED",
	    "HOST_DENIED",
	    "ROBOTS_DENIED",
	    "ROBOTS_UNREACHABLE",
	    "DNS_NXDOMAIN",
	    "DNS_NO_DATA",
	    "DNS_SERVFAIL",
	    "DNS_REFUSED",
	    "DNS_TIMEOUT",
	    "DNS_BAD_NAME",
	    "DNS_FAILED",
	    "CONNECT_REFUSED",
	    "CONNECT_TIMEOUT",
	    "CONNECT_UNREACHABLE",
	    "CONNECT_FAILED",
	    "CONNECT_NO_FDS",
	    "PROXY_FAILED",
	    "HOST_DOWN",
	    "TLS_HANDSHAKE",
	    "TLS_CERTIFICATE",
	    "HTTP_SYNTAX",
	    "HTTP2_ERROR",
	    "CONTENT_ENCODING",
	    "REDIRECT_BAD",
	    "FETCH_TIMEOUT",
	    "FETCH_STALLED",
	    "DISCONNECTED",
	    "BODY_TOO_LARGE",
	    "BODY_BOMB",
	    "HEADERS_TOO_LARGE",
	    "REDIRECT_MAX",
	    "REDIRECT_LOOP",
	    "HTTP_STATUS",
	    "UNEXPECTED_STATUS",
	    "UNEXPECTED_TYPE",
	    "JOB_EXPIRED",
	    "JOB_WAITED",
	    "JOB_DEADLINE",
	};
	static const char *const outcomes[] = {
	    "OK",
	    "NOT_MODIFIED",
	    "HTTP_ERROR",
	    "UNEXPECTED",
	    "DNS",
	    "CONNECT",
	    "TLS",
	    "PROTOCOL",
	    "TIMEOUT",
	    "STALLED",
	    "DISCONNECTED",
	    "TOO_LARGE",
	    "TOO_MANY_REDIRECTS",
	    "BLOCKED_ADDRESS",
	    "BLOCKED_ROBOTS",
	    "BLOCKED_POLICY",
	    "EXPIRED",
	    "DEADLINE",
	    "BAD_JOB",
	    "CANCELLED",
	    "INTERNAL",
	};

	for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
		int err = ERR_NONE;
		while (err < ERR_COUNT && strcmp(err_code(err), codes[i]) != 0)
			err++;
		if (err == ERR_COUNT)
			fail_msg("%s is gone", codes[i]);
	}
	for (size_t i = 0; i < ARRAY_LEN(outcomes); i++)
		assert_string_equal(outcome_name((enum outcome)(OUTCOME_OK + i)), outcomes[i]);
}

static void outcome_names_read_back(void **state)
{
	for (unsigned i = 0; i < OUTCOME_COUNT; i++) {
		const char *name = outcome_name((enum outcome)i);
		char *prefixed = xasprintf("OUTCOME_%s", name);

		assert_true(*name && strncmp(name, "OUTCOME_", 8) != 0);
		assert_int_equal(outcome_parse(name), i);
		assert_int_equal(outcome_parse(prefixed), i);
		free(prefixed);
	}
	assert_string_equal(outcome_name(OUTCOME_COUNT), "UNSPECIFIED");
	assert_string_equal(outcome_name((enum outcome) - 1), "UNSPECIFIED");
}

static void outcomes_parse_without_case(void **state)
{
	static const struct {
		const char *name;
		enum outcome expected;
		const char *why;
	} rows[] = {
	    {"BAD_JOB", OUTCOME_BAD_JOB, "as written"},
	    {"bad_job", OUTCOME_BAD_JOB, "case is ignored"},
	    {"Outcome_Dns", OUTCOME_DNS, "in the prefix too"},
	    {"DNS ", OUTCOME_UNSPECIFIED, "white space is the caller's"},
	    {"OUTCOME_", OUTCOME_UNSPECIFIED, "a prefix alone"},
	    {"OUTCOME_OUTCOME_DNS", OUTCOME_UNSPECIFIED, "one prefix"},
	    {"OK2", OUTCOME_UNSPECIFIED, "more than a name"},
	    {"", OUTCOME_UNSPECIFIED, "nothing"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (outcome_parse(rows[i].name) != rows[i].expected)
			fail_msg("\"%s\": %s", rows[i].name, rows[i].why);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_row_is_complete),	   cmocka_unit_test(codes_have_their_outcome),
	    cmocka_unit_test(names_are_for_ever),	   cmocka_unit_test(outcome_names_read_back),
	    cmocka_unit_test(outcomes_parse_without_case),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
