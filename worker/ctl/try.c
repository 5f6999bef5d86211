/* gatherctl try - one job fetched right here, by a worker's own pipeline and settings, without Kafka, and explained.
 *
 * Happy path: the job is put into the pipeline -> each transfer is told when it has ended: guard, connection, answer, where the time went
 * -> the outcome, and what a worker would do next. Failure modes: the settings are wrong -> exit 2; the job does not end as OK or
 * NOT_MODIFIED, another attempt would follow, Ctrl-C -> exit 1. */
#include "clock.h"
#include "ctl.h"
#include "gatherd/v1/result.pb-c.h"
#include "pipeline.h"
#include "progress.h"
#include "table.h"

#include <curl/curl.h>
#include <jansson.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define LABEL_COLUMNS 12
#define TIME_COLUMNS 11
#define BAR_MAX 60
#define VALUE_MAX (64 * 1024 * 1024)

struct try_args {
	bool retries, json;
	const char *output;
};

static const struct ctl_option try_options[] = {
    {"retries", 'r', CTL_FLAG, offsetof(struct try_args, retries), NULL, "go on with the attempts that a worker would make", 0, 0, 0},
    {"output", 'O', CTL_TEXT, offsetof(struct try_args, output), "FILE", "write the body there; - = print it after the report", 0, 0, 0},
    {"json", 0, CTL_FLAG, offsetof(struct try_args, json), NULL, "print one line of JSON: steps, result, next", 0, 0, 0},
    {NULL, 0, CTL_FLAG, 0, NULL, NULL, 0, 0, 0},
};

struct try {
	struct ctl *ctl;
	const struct try_args *args;
	struct printer printer;
	FILE *out; /* the report */
	struct loop *loop;
	struct metrics *metrics;
	struct log *log;
	struct netguard *guard;
	struct pipeline pl;
	json_t *steps, *result;
	int64_t idle_since_us, dns_told_us; /* when the step before was over; how much of the task's DNS time was told */
	int64_t started_us;		    /* the transfer under way; 0 = none */
	bool has_ended, was_good, will_retry, is_interrupted;
};

/* --- what is said --- */

/* "  label       text" */
static void say(struct try *try, const char *label, const char *colour, const char *fmt, ...) PRINTF_LIKE(4, 5);

static void say(struct try *try, const char *label, const char *colour, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	char *text = xvasprintf(fmt, ap);
	va_end(ap);
	char *clean = print_clean(span_str(text), 0);
	bool has_colour = colour && try->printer.has_colour;
	fprintf(try->out, "  %-*s%s%s%s\n", LABEL_COLUMNS, label, has_colour ? colour : "", clean, has_colour ? "\033[0m" : "");
	free(clean);
	free(text);
}

static void head(struct try *try, const char *method, const char *url)
{
	char *clean = print_clean(span_str(url), 0);

	fprintf(try->out, "%s%s %s%s\n", try->printer.has_colour ? TABLE_BOLD : "", method, clean, try->printer.has_colour ? "\033[0m" : "");
	free(clean);
}

/* One line of the waterfall: when within the step, and for how long. */
static void bar(struct try *try, const char *label, int64_t from_us, int64_t us, int64_t whole_us)
{
	size_t columns = try->printer.width ? try->printer.width : 80, left = 2 + LABEL_COLUMNS + TIME_COLUMNS + 1;
	size_t room = columns > left + 1 ? MIN(columns - left - 1, (size_t)BAR_MAX) : 1;

	if (us <= 0)
		return;
	size_t before = MIN((size_t)((double)from_us / (double)whole_us * (double)room), room - 1);
	size_t length = MAX((size_t)((double)us / (double)whole_us * (double)room + 0.5), (size_t)1);
	fprintf(try->out, "  %-*s%*.1f ms %*s", LABEL_COLUMNS, label, TIME_COLUMNS - 3, (double)us / 1000, (int)before, "");
	for (size_t i = 0; i < MIN(length, room - before); i++)
		fputc('=', try->out);
	fputc('\n', try->out);
}

/* --- steps --- */

static json_t *step_new(struct try *try, const struct task *task)
{
	const char *method = task->asks_url ? "GET" : task->job.method, *text = task_url(task)->text ? task_url(task)->text : task->job.url;
	json_t *step = json_pack("{s:s,s:s}", "method", method, "url", text);

	json_array_append_new(try->steps, step);
	if (task->asks_url)
		json_object_set_new(step, "for", json_string("robots.txt"));
	if (!try->args->json)
		head(try, method, text);
	return step;
}

static json_t *last_step(const struct try *try)
{
	size_t n = json_array_size(try->steps);

	return n ? json_array_get(try->steps, n - 1) : NULL;
}

/* Each address that the name has, as the guard judges it. */
static void tell_addresses(struct try *try, json_t *step, const struct url *url, const struct addresses *found, bool is_literal)
{
	char text[ADDRESS_TEXT_MAX], *line = xstrdup("");
	json_t *list = json_array();
	struct address one;
	size_t n = is_literal ? !address_parse(url->host, &one) : found->n, n_denied = 0;

	for (size_t i = 0; i < n; i++) {
		const struct address *addr = is_literal ? &one : &found->v[i];
		bool is_allowed = !netguard_address(try->guard, url->host, addr);

		address_print(addr, text);
		n_denied += !is_allowed;
		json_array_append_new(list, json_pack("{s:s,s:b}", "address", text, "allowed", (int)is_allowed));
		char *more = xasprintf("%s%s%s%s", line, i ? ", " : "", text, is_allowed ? "" : " (denied)");
		free(line);
		line = more;
	}
	json_object_set_new(step, "addresses", list);
	if (!try->args->json && n && !is_literal)
		say(try, "name", NULL, "%s is %s", url->host, line);
	if (!try->args->json && n)
		say(try, "guard", n_denied ? TABLE_RED : NULL, "%s%s", n_denied == n ? "denied" : n_denied ? "some are denied" : "allowed",
		    n_denied ? ": guard.allow and guard.deny decide" : "");
	free(line);
}

static void on_start(void *ctx, const struct task *task, const struct route *route, const struct addresses *found, int err)
{
	struct try *try = ctx;
	const struct url *url = task_url(task);
	json_t *step = step_new(try, task);
	int64_t now_us = loop_now_us(try->loop), dns_us = task->dns_us - try->dns_told_us;

	try->dns_told_us = task->dns_us;
	try->started_us = now_us;
	json_object_set_new(step, "wait_us", json_integer(MAX(now_us - try->idle_since_us - dns_us, 0)));
	json_object_set_new(step, "dns_us", json_integer(dns_us));
	if (route->proxy) {
		json_object_set_new(step, "proxy", json_string(route->proxy->host));
		if (!try->args->json)
			say(try, "proxy", NULL, "%s, which resolves the name itself", route->proxy->host);
	} else {
		tell_addresses(try, step, url, found, url->is_literal);
	}
	if (err && !try->args->json && err != -ERR_ADDRESS_DENIED)
		say(try, "not begun", TABLE_RED, "%s", err_text(err));
}

static void tell_answer(struct try *try, const struct response *resp)
{
	struct span location;
	char stamp[32] = "?";
	time_t until = (time_t)(resp->tls_not_after_ms / 1000);
	struct tm tm;

	if (*resp->remote_ip)
		say(try, resp->is_new_connection ? "connected" : resp->status ? "reused" : "peer", NULL, "%s%s%s:%u", strchr(resp->remote_ip, ':') ? "[" : "",
		    resp->remote_ip, strchr(resp->remote_ip, ':') ? "]" : "", resp->remote_port);
	if (resp->tls_version) {
		strftime(stamp, sizeof(stamp), "%Y-%m-%d", gmtime_r(&until, &tm));
		say(try, "TLS", NULL, "%s %s%s%s", resp->tls_version, resp->tls_cipher ? resp->tls_cipher : "",
		    resp->tls_not_after_ms ? ", certificate until " : "", resp->tls_not_after_ms ? stamp : "");
	}
	if (resp->status) {
		bool has_location = response_header(resp, "Location", &location);
		say(try, "answer", resp->status < 300 ? TABLE_GREEN : resp->status < 400 ? TABLE_YELLOW : TABLE_RED, "%d, HTTP/%d.%d%s%.*s", resp->status,
		    resp->http_version / 10, resp->http_version % 10, has_location ? " to " : "", has_location ? (int)location.len : 0,
		    has_location ? (const char *)location.data : "");
	}
	if (resp->err)
		say(try, "failed", TABLE_RED, "%s: %s", err_code(resp->err), resp->detail[0] ? resp->detail : err_text(resp->err));
}

static void tell_times(struct try *try, const json_t *step, const struct response *resp)
{
	int64_t wait_us = json_integer_value(json_object_get(step, "wait_us")), dns_us = json_integer_value(json_object_get(step, "dns_us"));
	int64_t whole_us = dns_us + MAX(resp->total_us, 1), ready_us = resp->connect_us + resp->tls_us;

	if (wait_us >= US_PER_MS)
		say(try, "waited", NULL, "%*.1f ms", TIME_COLUMNS - 3, (double)wait_us / 1000);
	bar(try, "DNS", 0, dns_us, whole_us);
	bar(try, "connect", dns_us, resp->connect_us, whole_us);
	bar(try, "TLS", dns_us + resp->connect_us, resp->tls_us, whole_us);
	if (!resp->first_byte_us) {
		bar(try, "no answer", dns_us + ready_us, resp->total_us - ready_us, whole_us);
		return;
	}
	bar(try, "first byte", dns_us + ready_us, resp->first_byte_us - ready_us, whole_us);
	bar(try, "the rest", dns_us + resp->first_byte_us, resp->total_us - resp->first_byte_us, whole_us);
}

static void on_answer(void *ctx, const struct task *task, const struct response *resp)
{
	struct try *try = ctx;
	json_t *step = last_step(try);

	json_object_set_new(step, "status", json_integer(resp->status));
	json_object_set_new(step, "connect_us", json_integer(resp->connect_us));
	json_object_set_new(step, "tls_us", json_integer(resp->tls_us));
	json_object_set_new(step, "first_byte_us", json_integer(resp->first_byte_us));
	json_object_set_new(step, "total_us", json_integer(resp->total_us));
	if (*resp->remote_ip)
		json_object_set_new(step, "remote_ip", json_string(resp->remote_ip));
	json_object_set_new(step, "new_connection", json_boolean(resp->is_new_connection));
	if (!try->args->json) {
		tell_answer(try, resp);
		tell_times(try, step, resp);
	}
	try->started_us = 0;
	try->idle_since_us = loop_now_us(try->loop);
}

/* --- what a worker would do next --- */

static void tell_retry(struct try *try, const struct task *task, int err, int64_t wait_ms)
{
	const struct retry_policy *policy = &task->limits.retry;
	char wait[32];

	say(try, "attempt", TABLE_YELLOW, "%d of %d failed: %s", task->attempts_made, policy->max_attempts, err_code(err));
	table_age(wait_ms, wait, sizeof(wait));
	if (task->retry_after_ms)
		say(try, "next", NULL, "a retry in %s: the server asks for %lld s", wait, (long long)(task->retry_after_ms / 1000));
	else
		say(try, "next", NULL, "a retry in %s, drawn from 0 to %lld ms", wait,
		    (long long)MIN((double)policy->max_ms, (double)policy->base_ms * (double)(INT64_C(1) << MIN(task->attempts_made - 1, 40))));
}

static void on_attempt(void *ctx, const struct task *task, int err, const char *detail, int64_t wait_ms)
{
	struct try *try = ctx;

	/* It failed before any transfer began: no address. */
	if (!try->started_us && err && (!last_step(try) || err_outcome(err) == OUTCOME_DNS || !task->resp)) {
		json_t *step = step_new(try, task);
		int64_t dns_us = task->dns_us - try->dns_told_us;

		json_object_set_new(step, "dns_us", json_integer(dns_us));
		if (!try->args->json) {
			say(try, "failed", TABLE_RED, "%s: %s", err_code(err), detail ? detail : err_text(err));
			bar(try, "DNS", 0, dns_us, MAX(dns_us, 1));
		}
		try->dns_told_us = task->dns_us;
	}
	json_t *step = last_step(try);
	json_object_set_new(step, "error", err ? json_string(err_code(err)) : json_null());
	try->started_us = 0;
	try->idle_since_us = loop_now_us(try->loop);
	if (wait_ms < 0)
		return;
	json_object_set_new(step, "retry_in_ms", json_integer(wait_ms));
	if (!try->args->json)
		tell_retry(try, task, err, wait_ms);
	if (try->args->retries)
		return;
	try->will_retry = true;
	loop_stop(try->loop);
}

static bool is_dead_letter(const struct options *opts, enum outcome outcome)
{
	for (size_t i = 0; i < opts->dead_letter_outcomes.n; i++)
		if (outcome_parse(opts->dead_letter_outcomes.v[i]) == outcome)
			return *opts->dead_letter_topic != '\0';
	return false;
}

static const char *why_no_retry(const struct task *task)
{
	if (!task->attempts_made)
		return "nothing was tried";
	if (!task->retryable)
		return "another attempt would not help";
	if (!retry_is_idempotent(task->job.method))
		return "a request that may have been carried out is not repeated";
	return task->attempts_made >= task->limits.retry.max_attempts ? "no attempt is left" : "no time is left";
}

static void tell_outcome(struct try *try, const struct task *task)
{
	const struct options *opts = try->pl.opts;
	const struct response *resp = task->resp;
	char length[32], type[128] = "", *clean;

	if (task->err == -ERR_HTTP_STATUS || !task->err) {
		if (resp)
			response_content_type(resp, type);
		say(try, "outcome", try->was_good ? TABLE_GREEN : TABLE_RED, "%s %d, %s%s%s bytes%s", outcome_name(task->outcome),
		    resp ? resp->status : 0, type, *type ? ", " : "", progress_number(resp ? resp->body_length : 0, length, sizeof(length)),
		    resp && resp->truncated > TRUNCATED_NONE ? ", cut" : "");
	} else {
		clean = print_clean(span_str(task->detail ? task->detail : err_text(task->err)), 0);
		say(try, "outcome", TABLE_RED, "%s, %s: %s", outcome_name(task->outcome), err_code(task->err), clean);
		free(clean);
	}
	bool is_dead = is_dead_letter(opts, task->outcome);
	say(try, "next", NULL, "%s%sthe result goes to %s%s%s", task->err ? why_no_retry(task) : "", task->err ? "; " : "", opts->results_topic,
	    is_dead ? ", and the job to " : "", is_dead ? opts->dead_letter_topic : "");
}

/* As a worker would publish it. */
static json_t *result_of(const struct task *task)
{
	struct result res = task_result(task, "gatherctl-try");
	uint8_t *data = NULL;
	size_t len = 0;
	json_t *json = NULL;

	if (result_encode(&res, VALUE_MAX, &data, &len))
		return json_null();
	Gatherd__V1__FetchResult *msg = gatherd__v1__fetch_result__unpack(NULL, len, data);
	if (msg)
		json = print_result_json(msg, PRINT_TEXT);
	gatherd__v1__fetch_result__free_unpacked(msg, NULL);
	free(data);
	return json ? json : json_null();
}

static int write_body(struct try *try, const struct response *resp)
{
	const char *path = try->args->output;
	bool is_stdout = strcmp(path, "-") == 0;
	FILE *file = is_stdout ? stdout : fopen(path, "we");

	if (file && resp)
		fwrite(resp->body.data, 1, resp->body.len, file);
	bool is_bad = !file || ferror(file) || (is_stdout ? fflush(file) : fclose(file)) != 0;
	if (is_bad)
		ctl_say(try->ctl, "%s cannot be written", path);
	return is_bad ? -ERR_SYSTEM : 0;
}

static void on_end(void *ctx, const struct task *task)
{
	struct try *try = ctx;

	try->has_ended = true;
	try->was_good = task->outcome == OUTCOME_OK || task->outcome == OUTCOME_NOT_MODIFIED;
	if (!last_step(try))
		step_new(try, task);
	if (try->args->json)
		try->result = result_of(task);
	else
		tell_outcome(try, task);
	if (try->args->output && write_body(try, task->resp))
		try->was_good = false;
	loop_stop(try->loop);
}

/* --- the engine --- */

static void on_signal(void *ctx, int signum)
{
	struct try *try = ctx;

	try->is_interrupted = true;
	loop_stop(try->loop);
}

static int start(struct try *try, char **ret_error)
{
	struct options *opts = try->ctl->settings;
	struct pipeline *pl = &try->pl;
	int err = netguard_new(opts->guard_allow.v, opts->guard_allow.n, opts->guard_deny.v, opts->guard_deny.n, opts->guard_ports.v,
			       opts->guard_ports.n, &try->guard, ret_error);

	if (err)
		return err;
	struct tls_store *store = tls_store_load(opts->tls_ca, ret_error);
	if (!store)
		return -ERR_INVALID;
	pl->guard = try->guard;
	pl->fetch = fetch_new(try->loop, try->metrics, try->log, try->guard, store);
	return resolve_new(try->loop, try->metrics, try->log, opts->dns_servers.v, opts->dns_servers.n, opts->dns_timeout, &pl->resolve,
			   ret_error);
}

static void put(struct try *try, struct span value)
{
	const struct pipeline_watch watch = {
	    .on_start = on_start, .on_answer = on_answer, .on_attempt = on_attempt, .on_end = on_end, .ctx = try};
	const struct record rec = {.topic = "try", .timestamp_ms = clock_epoch_ms(), .value = value};

	try->pl.watch = &watch;
	struct partition *part = pipeline_add_partition(&try->pl, NULL);
	loop_after_turn(try->loop, pipeline_turn, &try->pl);
	loop_signal(try->loop, SIGINT, on_signal, try);
	loop_signal(try->loop, SIGTERM, on_signal, try);
	try->idle_since_us = loop_now_us(try->loop);
	pipeline_put(&try->pl, part, &rec);
	loop_again(try->loop);
	if (!try->has_ended)
		loop_run(try->loop);
	loop_after_turn_clear(try->loop, pipeline_turn, &try->pl);
}

static void stop(struct try *try)
{
	pipeline_done(&try->pl);
	if (try->pl.resolve)
		resolve_free(try->pl.resolve);
	if (try->pl.fetch)
		fetch_free(try->pl.fetch);
	netguard_free(try->guard);
}

static int fetch_one(struct try *try, struct span value)
{
	char *error = NULL;
	int code = CTL_USAGE;

	curl_global_init(CURL_GLOBAL_DEFAULT);
	try->metrics = xcalloc(1, sizeof(*try->metrics));
	try->log = log_new(STDERR_FILENO, try->ctl->is_verbose ? LOG_DEBUG : LOG_ERROR, LOG_LOGFMT);
	try->loop = loop_new(try->metrics, try->log);
	if (!try->loop)
		abort();
	pipeline_init(&try->pl, try->loop, try->metrics, try->log, try->ctl->settings, "gatherctl-try", (uint64_t)clock_now_us());
	if (start(try, &error)) {
		ctl_say(try->ctl, "%s", error ? error : "the engine cannot start");
	} else {
		put(try, value);
		code = try->was_good && !try->will_retry ? CTL_OK : CTL_FAILED;
	}
	stop(try);
	loop_free(try->loop);
	log_free(try->log);
	free(try->metrics);
	free(error);
	curl_global_cleanup();
	return code;
}

static void print_line(struct try *try)
{
	const json_t *wait = json_object_get(last_step(try), "retry_in_ms");
	json_t *next = try->will_retry ? json_pack("{s:s,s:I}", "action", "retry", "in_ms", json_integer_value(wait))
				       : json_pack("{s:s,s:s}", "action", "publish", "topic", try->ctl->settings->results_topic);

	print_json(stdout, json_pack("{s:O,s:o,s:o}", "steps", try->steps, "result", try->result ? try->result : json_null(), "next", next));
}

static int try_run(struct ctl *ctl, const void *raw, int argc, char **argv)
{
	const struct try_args *args = raw;
	struct try try = {.ctl = ctl, .args = args, .out = stdout};

	if (argc != 1) {
		ctl_say(ctl, "give one job: a URL, or a FetchJob as JSON");
		return CTL_USAGE;
	}
	/* What goes into a pipe is the body alone. */
	if (args->output && strcmp(args->output, "-") == 0) {
		if (args->json) {
			ctl_say(ctl, "--json and --output - both want stdout");
			return CTL_USAGE;
		}
		try.out = stderr;
	}
	printer_init(&try.printer, try.out, PRINT_TABLE, PRINT_NONE);
	try.steps = json_array();
	int code = fetch_one(&try, span_str(argv[0]));
	if (try.is_interrupted)
		ctl_say(ctl, "interrupted");
	if (args->json && code != CTL_USAGE && !try.is_interrupted)
		print_line(&try);
	json_decref(try.steps);
	int closed = ctl_close_stdout(ctl);
	return code ? code : closed;
}

const struct ctl_command try_command = {
    .name = "try",
    .summary = "fetch one job right here, without Kafka, and explain it",
    .synopsis = "[OPTION]... URL|JSON",
    .options = try_options,
    .args_size = sizeof(struct try_args),
    .has_settings = true,
    .details = "The job goes through a worker's own engine, with the same settings (-c, environment, -o): guard, DNS, TLS, limits,\n"
	       "redirects. Each request is told, with where its time went, then the outcome and what a worker would do next. Nothing\n"
	       "is read from Kafka or written to it. Exit code 0 when the outcome is OK or NOT_MODIFIED, else 1.\n",
    .examples = "  gatherctl try https://example.com/\n"
		"  gatherctl try --retries -c gatherd.conf '{\"url\":\"https://example.com/\",\"method\":\"HEAD\"}'\n"
		"  gatherctl try -o guard.allow=127.0.0.0/8 http://127.0.0.1:8080/\n"
		"  gatherctl try --json https://example.com/ | jq .next\n",
    .run = try_run,
};
