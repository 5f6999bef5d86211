/* profile: which settings apply to a host, and what a job may wish for. */
#include "err.h"
#include "profile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define HUGE_MS INT64_MAX

static struct host_section sections[] = {
	{.glob = (char[]){"api.example.com"}, .host = {.host_inflight = 1}},
	{.glob = (char[]){"*.example.com"}, .host = {.host_inflight = 2}},
};

/* As options_index would find. */
static size_t by_glob[] = {1, 0};

static struct options settings(void)
{
	return (struct options){
		.body_max = 1000,
		.request_body_max = 4,
		.host = {.host_inflight = 8,
			 .fetch_timeout = 10000,
			 .fetch_connect_timeout = 3000,
			 .fetch_stall_timeout = 5000,
			 .retry_max_attempts = 3,
			 .retry_base = 500,
			 .retry_max = 30000,
			 .redirect_max = 5},
		.sections = sections,
		.n_sections = ARRAY_LEN(sections),
		.by_glob = by_glob,
	};
}

static struct job plain_job(void)
{
	return (struct job){.job_id = "id", .url = "http://a/", .method = "GET", .max_redirects = -1};
}

static void the_first_glob_that_matches(void **state)
{
	static const struct {
		const char *host;
		int64_t inflight;
	} rows[] = {
		{"api.example.com", 1}, {"www.example.com", 2}, {"example.com", 8}, {"api.example.com.evil.org", 8}, {"API.example.com", 1},
	};
	struct options opts = settings();

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_int_equal(profile_of_host(&opts, rows[i].host)->host_inflight, rows[i].inflight);
	assert_ptr_equal(profile_of_name(&opts, "*.example.com"), &sections[1].host);
	assert_null(profile_of_name(&opts, "www.example.com")); /* a name is a glob as written, not a host */
	assert_null(profile_of_name(&opts, ""));
}

static void no_wishes(void **state)
{
	struct options opts = settings();
	struct job job = plain_job();
	struct limits limits = profile_limits(&opts, &opts.host, &job);

	assert_int_equal(limits.connect_ms, 3000);
	assert_int_equal(limits.total_ms, 10000);
	assert_int_equal(limits.stall_ms, 5000);
	assert_int_equal(limits.retry.max_attempts, 3);
	assert_int_equal(limits.retry.base_ms, 500);
	assert_int_equal(limits.retry.max_ms, 30000);
	assert_int_equal(limits.max_redirects, 5);
	assert_int_equal(limits.body_max_bytes, 1000);
	assert_false(limits.is_http2);
}

static void a_job_may_ask_for_less(void **state)
{
	struct options opts = settings();
	struct job job = plain_job();

	job.connect_ms = 1;
	job.total_ms = 2;
	job.stall_ms = 3;
	job.max_attempts = 1;
	job.base_ms = 4;
	job.max_ms = 5;
	job.max_redirects = 0;
	job.max_body_bytes = 6;
	struct limits limits = profile_limits(&opts, &opts.host, &job);
	assert_int_equal(limits.connect_ms, 1);
	assert_int_equal(limits.total_ms, 2);
	assert_int_equal(limits.stall_ms, 3);
	assert_int_equal(limits.retry.max_attempts, 1);
	assert_int_equal(limits.retry.base_ms, 4);
	assert_int_equal(limits.retry.max_ms, 5);
	assert_int_equal(limits.max_redirects, 0); /* 0 is a wish here: do not follow */
	assert_int_equal(limits.body_max_bytes, 6);
}

static void a_job_gets_no_more(void **state)
{
	struct options opts = settings();
	struct job job = plain_job();

	job.connect_ms = job.total_ms = job.stall_ms = job.base_ms = job.max_ms = job.max_body_bytes = HUGE_MS;
	job.max_attempts = job.max_redirects = INT32_MAX;
	struct limits limits = profile_limits(&opts, &opts.host, &job);
	assert_int_equal(limits.connect_ms, 3000);
	assert_int_equal(limits.total_ms, 10000);
	assert_int_equal(limits.stall_ms, 5000);
	assert_int_equal(limits.retry.max_attempts, 3);
	assert_int_equal(limits.retry.base_ms, 30000); /* a longer back-off asks less of the host; retry.max still holds */
	assert_int_equal(limits.retry.max_ms, 30000);
	assert_int_equal(limits.max_redirects, 5);
	assert_int_equal(limits.body_max_bytes, 1000);
}

static void what_is_checked(void **state)
{
	static const struct {
		struct job job;
		int err;
	} rows[] = {
		{{.method = "GET"}, 0},
		{{.method = "HEAD"}, 0},
		{{.method = "GET", .body = {(const uint8_t *)"x", 1}}, -ERR_BODY_DENIED},
		{{.method = "HEAD", .body = {(const uint8_t *)"x", 1}}, -ERR_BODY_DENIED},
		{{.method = "DELETE", .body = {(const uint8_t *)"x", 1}}, 0},
		{{.method = "POST", .body = {(const uint8_t *)"1234", 4}}, 0},
		{{.method = "POST", .body = {(const uint8_t *)"12345", 5}}, -ERR_REQUEST_TOO_LARGE},
		{{.method = "GET", .host_profile = "*.example.com"}, 0},
		{{.method = "GET", .host_profile = "*.example.org"}, -ERR_PROFILE_UNKNOWN},
		{{.method = "GET", .host_profile = ""}, 0},
	};
	struct options opts = settings();

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_int_equal(profile_check(&opts, &rows[i].job), rows[i].err);
}

static void methods(void **state)
{
	static const struct {
		const char *method;
		int set, err;
	} rows[] = {
		{"GET", METHOD_GET | METHOD_HEAD, 0},
		{"HEAD", METHOD_GET | METHOD_HEAD, 0},
		{"POST", METHOD_GET | METHOD_HEAD, -ERR_METHOD_DENIED},
		{"GET", METHOD_HEAD, -ERR_METHOD_DENIED},
		{"POST", 1 << 2, 0},
		{"OPTIONS", 1 << 6, 0},
		{"get", METHOD_GET, -ERR_METHOD_DENIED}, /* methods are case-sensitive, RFC 9110 9.1 */
		{"GE", METHOD_GET, -ERR_METHOD_DENIED},
		{"GET|HEAD", -1, -ERR_METHOD_DENIED},
		{"CONNECT", -1, -ERR_METHOD_DENIED},
		{"", -1, -ERR_METHOD_DENIED},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct host_options host = {.methods = rows[i].set};
		assert_int_equal(profile_check_method(&host, rows[i].method), rows[i].err);
	}
}

static void secrets_and_proxies(void **state)
{
	char none[] = "", api[] = "api", *hosts[] = {(char[]){"*.api.example"}, (char[]){"one.example:443"}};
	struct secret secrets[] = {{.name = (char[]){"api"}, .hosts = {hosts, 2}}};
	struct proxy proxies[] = {{.name = (char[]){"eu"}}, {.name = (char[]){"us"}}};
	struct options opts = {.secrets = secrets, .n_secrets = 1, .proxies = proxies, .n_proxies = 2};
	const struct {
		const char *ref;
		char *of_host;
		const char *host, *key;
		int err;
		bool is_given;
		const char *why;
	} rows[] = {
		{NULL, none, "a.api.example", "a.api.example:80", 0, false, "none asked for"},
		{"", none, "a.api.example", "a.api.example:80", 0, false, "an empty name is none"},
		{"api", none, "a.api.example", "a.api.example:80", 0, true, "a host of it"},
		{"api", none, "A.API.example", "A.API.example:1", 0, true, "any port"},
		{"api", none, "api.example", "api.example:80", -ERR_SECRET_HOST, false, "the dot is a must"},
		{"api", none, "a.api.example.org", "a.api.example.org:80", -ERR_SECRET_HOST, false, "the end counts"},
		{"api", none, "one.example", "one.example:443", 0, true, "the port"},
		{"api", none, "one.example", "one.example:80", -ERR_SECRET_HOST, false, "another port"},
		{"ap", none, "a.api.example", "a.api.example:80", -ERR_SECRET_UNKNOWN, false, "a part of a name"},
		{NULL, api, "a.api.example", "a.api.example:80", 0, true, "the host's section"},
		{NULL, api, "b.example", "b.example:80", 0, false, "the section's hosts are not the secret's"},
		{"nope", api, "a.api.example", "a.api.example:80", -ERR_SECRET_UNKNOWN, false, "the job's name counts"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct host_options host = {.secret = rows[i].of_host, .proxy = (char[]){"us"}};
		struct job job = {.secret_ref = rows[i].ref};
		struct url url = {.host = rows[i].host, .key = rows[i].key};
		const struct secret *secret = NULL;
		if (profile_secret(&opts, &host, &job, &url, &secret) != rows[i].err || (secret != NULL) != rows[i].is_given)
			fail_msg("%s", rows[i].why);
		const struct proxy *proxy = NULL;
		assert_int_equal(profile_proxy(&opts, &host, &job, &proxy), 0);
		assert_ptr_equal(proxy, &proxies[1]);
		job.proxy_ref = "eu";
		assert_int_equal(profile_proxy(&opts, &host, &job, &proxy), 0);
		assert_ptr_equal(proxy, &proxies[0]);
		job.proxy_ref = "as";
		assert_int_equal(profile_proxy(&opts, &host, &job, &proxy), -ERR_PROXY_UNKNOWN);
		host.proxy = NULL;
		job.proxy_ref = "";
		assert_int_equal(profile_proxy(&opts, &host, &job, &proxy), 0);
		assert_null(proxy);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_glob_that_matches), cmocka_unit_test(no_wishes),	  cmocka_unit_test(a_job_may_ask_for_less),
		cmocka_unit_test(a_job_gets_no_more),	       cmocka_unit_test(what_is_checked),
		cmocka_unit_test(methods),
		cmocka_unit_test(secrets_and_proxies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
