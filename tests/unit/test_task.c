/* task: states, copies, redirects, attempts, and what the result says of it. */
#include "err.h"
#include "task.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static struct task_lists lists;

static struct span text(const char *s)
{
	return span_str(s);
}

static struct task *make(void)
{
	struct record rec = {.topic = "jobs", .partition = 3, .offset = 7, .key = text("k"), .value = text("http://a.example/")};

	task_lists_init(&lists);
	return task_new(&lists, &rec, 1000, 2000);
}

/* A task that has fetched url, with room for max redirects. */
static struct task *make_at(const char *url, int32_t max_redirects)
{
	struct task *task = make();

	task->job.method = "GET";
	task->limits.max_redirects = max_redirects;
	assert_int_equal(url_parse(&task->arena, text(url), &task->url), 0);
	return task;
}

static void the_record_is_copied(void **state)
{
	char key[] = "key", value[] = "value", name[] = "name", header[] = "header";
	struct record_header headers[] = {{name, text(header)}};
	struct record rec = {
		.topic = "jobs", .key = text(key), .value = text(value), .headers = headers, .n_headers = 1, .offset = 9};

	task_lists_init(&lists);
	struct task *task = task_new(&lists, &rec, 1000, 2000);
	memset(key, 'x', 3);
	memset(value, 'x', 5);
	memset(name, 'x', 4);
	memset(header, 'x', 6);
	assert_memory_equal(task->rec.key.data, "key", 3);
	assert_memory_equal(task->rec.value.data, "value", 5);
	assert_string_equal(task->rec.headers[0].name, "name");
	assert_memory_equal(task->rec.headers[0].value.data, "header", 6);
	assert_int_equal(task->rec.offset, 9);
	assert_int_equal(task->arrived_us, 1000);
	assert_int_equal(task->arrived_at_ms, 2000);
	assert_int_equal(task->dead_letter, DEAD_LETTER_NONE);
	assert_int_equal(lists.in[TASK_NEW].len, 1);
	task_free(task);
	assert_int_equal(lists.in[TASK_NEW].len, 0);
}

static void a_null_stays_a_null(void **state)
{
	struct record rec = {.topic = "jobs", .key = text(""), .value = {NULL, 0}};

	task_lists_init(&lists);
	struct task *task = task_new(&lists, &rec, 0, 0);
	assert_null(task->rec.value.data);
	assert_non_null(task->rec.key.data); /* empty is not null */
	assert_int_equal(task->rec.key.len, 0);
	task_free(task);
}

#define BIT(state) (1u << (state))

/* Of task.h's picture. */
static const unsigned picture[TASK_STATES] = {
	[TASK_NEW] = BIT(TASK_LATER) | BIT(TASK_ROBOTS) | BIT(TASK_WAITING) | BIT(TASK_DELIVERING),
	[TASK_LATER] = BIT(TASK_ROBOTS) | BIT(TASK_WAITING) | BIT(TASK_DELIVERING),
	[TASK_ROBOTS] = BIT(TASK_WAITING) | BIT(TASK_DELIVERING),
	[TASK_WAITING] = BIT(TASK_RESOLVING) | BIT(TASK_FETCHING) | BIT(TASK_DELIVERING) | BIT(TASK_BACKOFF),
	[TASK_RESOLVING] = BIT(TASK_FETCHING) | BIT(TASK_BACKOFF) | BIT(TASK_DELIVERING),
	[TASK_FETCHING] = BIT(TASK_ROBOTS) | BIT(TASK_WAITING) | BIT(TASK_BACKOFF) | BIT(TASK_DELIVERING),
	[TASK_BACKOFF] = BIT(TASK_ROBOTS) | BIT(TASK_WAITING) | BIT(TASK_DELIVERING),
};

/* The way from NEW to a state. */
static const enum task_state ways[TASK_STATES][3] = {
	[TASK_LATER] = {TASK_LATER},
	[TASK_ROBOTS] = {TASK_ROBOTS},
	[TASK_WAITING] = {TASK_WAITING},
	[TASK_RESOLVING] = {TASK_WAITING, TASK_RESOLVING},
	[TASK_FETCHING] = {TASK_WAITING, TASK_FETCHING},
	[TASK_BACKOFF] = {TASK_WAITING, TASK_FETCHING, TASK_BACKOFF},
	[TASK_DELIVERING] = {TASK_DELIVERING},
};

static struct task *make_in(enum task_state state)
{
	struct task *task = make();

	for (size_t i = 0; i < 3 && ways[state][i]; i++)
		task_set_state(&lists, task, ways[state][i]);
	return task;
}

static void legal_moves_change_the_list(void **state)
{
	for (int from = 0; from < TASK_STATES; from++)
		for (int to = 0; to < TASK_STATES; to++) {
			if (!(picture[from] & BIT(to)))
				continue;
			struct task *task = make_in((enum task_state)from);
			assert_int_equal(lists.in[from].len, 1);
			task_set_state(&lists, task, (enum task_state)to);
			assert_int_equal(task->state, to);
			assert_ptr_equal(task->node.list, &lists.in[to]);
			assert_int_equal(lists.in[from].len, 0);
			task_free(task);
		}
}

/* In a child: an assert ends it. */
static bool aborts(enum task_state from, enum task_state to)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		struct task *task = make_in(from);
		signal(SIGABRT, SIG_DFL);
		if (!freopen("/dev/null", "w", stderr))
			_exit(2);
		task_set_state(&lists, task, to);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void illegal_moves_are_asserted(void **state)
{
#ifdef NDEBUG
	skip();
#endif
	for (int from = 0; from < TASK_STATES; from++)
		for (int to = 0; to < TASK_STATES; to++)
			if (!(picture[from] & BIT(to)) && !aborts((enum task_state)from, (enum task_state)to))
				fail_msg("%d -> %d was allowed", from, to);
}

static void the_last_attempts_are_kept(void **state)
{
	struct task *task = make();

	for (int i = 1; i <= RESULT_ATTEMPTS_MAX + 3; i++) {
		task_add_attempt(task, OUTCOME_HTTP_ERROR, 500 + i, i, 2 * i);
		assert_int_equal(task->n_attempts, MIN(i, RESULT_ATTEMPTS_MAX));
		assert_int_equal(task->attempts[task->n_attempts - 1].status, 500 + i);
	}
	assert_int_equal(task->attempts[0].status, 504);
	assert_int_equal(task->attempts[0].ms, 4);
	assert_int_equal(task->attempts[0].backoff_ms, 8);
	task_free(task);
}

static int follow(struct task *task, int status, const char *location)
{
	struct response resp = {.status = status, .remote_ip = "192.0.2.1"};
	struct url url;

	assert_int_equal(url_resolve(&task->arena, &task->url, text(location), &url), 0);
	return task_follow(task, &url, &resp, text(location));
}

static void hops_are_recorded(void **state)
{
	struct task *task = make_at("http://a.example/0", 2);

	assert_int_equal(follow(task, 301, "/1"), 0);
	assert_string_equal(task->url.text, "http://a.example/1");
	assert_false(task->drop_credentials);
	assert_int_equal(follow(task, 307, "https://a.example/2"), 0);
	assert_true(task->drop_credentials); /* another scheme is another origin */
	assert_int_equal(task->hops, 2);
	assert_string_equal(task->redirects[0].url, "http://a.example/0");
	assert_int_equal(task->redirects[0].status, 301);
	assert_memory_equal(task->redirects[0].location.data, "/1", 2);
	assert_string_equal(task->redirects[1].url, "http://a.example/1");
	assert_string_equal(task->redirects[1].ip, "192.0.2.1");
	assert_int_equal(follow(task, 302, "/3"), -ERR_REDIRECT_MAX);
	assert_string_equal(task->url.text, "https://a.example/2");
	task_free(task);
}

static void loops_are_seen(void **state)
{
	struct task *task = make_at("http://a.example/0", 9);

	assert_int_equal(follow(task, 301, "/0"), -ERR_REDIRECT_LOOP);
	assert_int_equal(follow(task, 301, "/1"), 0);
	assert_int_equal(follow(task, 301, "http://A.example/0"), -ERR_REDIRECT_LOOP);
	assert_int_equal(follow(task, 301, "/1"), -ERR_REDIRECT_LOOP);
	assert_int_equal(follow(task, 301, "/1?x"), 0);
	assert_int_equal(task->hops, 2);
	task_free(task);
}

static void coming_back_brings_no_credentials_back(void **state)
{
	struct task *task = make_at("http://a.example/0", 9);

	assert_int_equal(follow(task, 302, "http://b.example/"), 0);
	assert_int_equal(follow(task, 302, "http://a.example/1"), 0);
	assert_true(task->drop_credentials);
	task_free(task);
}

static void other_methods_become_get(void **state)
{
	static const struct {
		const char *method;
		int status;
		const char *after;
		bool has_body;
	} rows[] = {
		{"POST", 301, "GET", false}, {"POST", 302, "GET", false},   {"POST", 303, "GET", false},
		{"POST", 307, "POST", true}, {"POST", 308, "POST", true},   {"GET", 303, "GET", true},
		{"HEAD", 303, "HEAD", true}, {"PUT", 301, "GET", false},   {"DELETE", 303, "GET", false},
		{"PATCH", 302, "GET", false}, {"PUT", 307, "PUT", true},    {"DELETE", 308, "DELETE", true},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct task *task = make_at("http://a.example/0", 1);
		task->job.method = rows[i].method;
		task->job.body = text("body");
		assert_int_equal(follow(task, rows[i].status, "/1"), 0);
		assert_string_equal(task->job.method, rows[i].after);
		assert_int_equal(task->job.body.len, rows[i].has_body ? 4 : 0);
		task_free(task);
	}
}

static void secrets_stay_at_home(void **state)
{
	static const struct header headers[] = {
		{"Accept", {(const uint8_t *)"a", 1}},		    {"AUTHORIZATION", {(const uint8_t *)"b", 1}},
		{"X-Trace", {(const uint8_t *)"c", 1}},		    {"Cookie", {(const uint8_t *)"d", 1}},
		{"proxy-authorization", {(const uint8_t *)"e", 1}},
	};
	struct task *task = make_at("http://a.example/0", 9);
	size_t n;

	task->job.headers = headers;
	task->job.n_headers = ARRAY_LEN(headers);
	assert_ptr_equal(task_headers(task, NULL, &n), headers);
	assert_int_equal(n, ARRAY_LEN(headers));
	assert_int_equal(follow(task, 302, "http://b.example/"), 0);
	const struct header *kept = task_headers(task, NULL, &n);
	assert_int_equal(n, 2);
	assert_string_equal(kept[0].name, "Accept");
	assert_string_equal(kept[1].name, "X-Trace");
	task_free(task);
}

static void headers_of_a_body_go_with_it(void **state)
{
	static const struct header headers[] = {
		{"content-type", {(const uint8_t *)"a", 1}}, {"Content-Encoding", {(const uint8_t *)"b", 1}},
		{"Accept", {(const uint8_t *)"c", 1}},	     {"Authorization", {(const uint8_t *)"d", 1}},
	};

	for (int status = 302; status <= 307; status += 5) {
		struct task *task = make_at("http://a.example/0", 9);
		size_t n;
		task->job.method = "POST";
		task->job.headers = headers;
		task->job.n_headers = ARRAY_LEN(headers);
		assert_int_equal(follow(task, status, "/1"), 0);
		const struct header *kept = task_headers(task, NULL, &n);
		assert_int_equal(n, status == 302 ? 2 : 4);
		assert_string_equal(kept[n - 1].name, "Authorization"); /* the same origin */
		task_free(task);
	}
}

static void a_secret_replaces_headers(void **state)
{
	static const struct header headers[] = {{"authorization", {(const uint8_t *)"a", 1}}, {"Accept", {(const uint8_t *)"b", 1}}};
	char *names[] = {(char[]){"Authorization"}, (char[]){"X-Key"}}, *values[] = {(char[]){"c"}, (char[]){"d"}};
	struct secret secret = {.names = {names, 2}, .values = {values, 2}};
	struct task *task = make_at("http://a.example/0", 9);
	size_t n;

	const struct header *sent = task_headers(task, &secret, &n);
	assert_int_equal(n, 2); /* a job without headers */
	assert_string_equal(sent[0].name, "Authorization");
	task->job.headers = headers;
	task->job.n_headers = ARRAY_LEN(headers);
	sent = task_headers(task, &secret, &n);
	assert_int_equal(n, 3);
	assert_string_equal(sent[0].name, "Accept");
	assert_string_equal(sent[1].name, "Authorization");
	assert_memory_equal(sent[1].value.data, "c", 1);
	assert_string_equal(sent[2].name, "X-Key");
	task_free(task);
}

static struct response *answer(void)
{
	struct response *resp = xcalloc(1, sizeof(*resp));

	response_init(resp, 100);
	assert_int_equal(buf_add_str(&resp->body, "body"), 0);
	resp->has_digest = true;
	resp->truncated = TRUNCATED_NONE;
	memset(resp->digest, 7, DIGEST_BYTES);
	return resp;
}

static void what_the_result_says(void **state)
{
	struct task *task = make_at("http://a.example/0", 9);

	task_set_response(task, answer());
	task_set_response(task, answer()); /* the one before is freed */
	task->outcome = OUTCOME_OK;
	task->end_at_ms = 3000;
	task_add_attempt(task, OUTCOME_OK, 200, 1, 0);
	struct result res = task_result(task, "w1");
	assert_ptr_equal(res.job, &task->job);
	assert_ptr_equal(res.rec, &task->rec);
	assert_ptr_equal(res.resp, task->resp);
	assert_int_equal(res.outcome, OUTCOME_OK);
	assert_int_equal(res.n_attempts, 1);
	assert_int_equal(res.end_at_ms, 3000);
	assert_string_equal(res.final_url, "http://a.example/0");
	assert_string_equal(res.instance, "w1");
	assert_false(res.is_unchanged);
	task_free(task);
}

static void unchanged(void **state)
{
	uint8_t same[DIGEST_BYTES], other[DIGEST_BYTES];
	memset(same, 7, sizeof(same));
	memset(other, 8, sizeof(other));
	const struct {
		struct span prev;
		enum truncated truncated;
		bool has_digest, is_unchanged;
	} rows[] = {
		{{same, DIGEST_BYTES}, TRUNCATED_NONE, true, true},   {{other, DIGEST_BYTES}, TRUNCATED_NONE, true, false},
		{{same, 31}, TRUNCATED_NONE, true, false},	      {{NULL, 0}, TRUNCATED_NONE, true, false},
		{{same, DIGEST_BYTES}, TRUNCATED_NONE, false, false}, {{same, DIGEST_BYTES}, TRUNCATED_LENGTH, true, false},
		{{same, DIGEST_BYTES}, TRUNCATED_TIME, true, false},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct task *task = make_at("http://a.example/0", 9);
		task_set_response(task, answer());
		task->job.prev_digest = rows[i].prev;
		task->resp->truncated = rows[i].truncated;
		task->resp->has_digest = rows[i].has_digest;
		assert_int_equal(task_result(task, "w1").is_unchanged, rows[i].is_unchanged);
		task_free(task);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_record_is_copied),
		cmocka_unit_test(a_null_stays_a_null),
		cmocka_unit_test(legal_moves_change_the_list),
		cmocka_unit_test(illegal_moves_are_asserted),
		cmocka_unit_test(the_last_attempts_are_kept),
		cmocka_unit_test(hops_are_recorded),
		cmocka_unit_test(loops_are_seen),
		cmocka_unit_test(coming_back_brings_no_credentials_back),
		cmocka_unit_test(other_methods_become_get),
		cmocka_unit_test(secrets_stay_at_home),
		cmocka_unit_test(headers_of_a_body_go_with_it),
		cmocka_unit_test(a_secret_replaces_headers),
		cmocka_unit_test(what_the_result_says),
		cmocka_unit_test(unchanged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
