/* gatherctl status - the workers of a group: who is a member, and what each worker's status port says.
 *
 * Happy path: all ports are asked at once, and again a second later -> rates; the broker is asked for the group's members in between ->
 * table or JSON. Failure modes: a port that does not answer is a row that says so; no broker -> one sentence, and the ports are shown
 * all the same; exit 1 for both, and when a worker is not healthy, with what its /healthz says. */
#include "admin.h"
#include "clock.h"
#include "err.h"
#include "table.h"

#include <curl/curl.h>
#include <jansson.h>
#include <unistd.h>

#define CONNECT_MAX_MS 2000L
#define ASK_MAX_MS 3000L
#define ANSWER_MAX_BYTES (16U << 20)
#define RATE_US US_PER_S

struct status_args {
	const char *group, *workers;
	bool json;
};

static const struct ctl_option status_options[] = {
    {"workers", 'w', CTL_TEXT, offsetof(struct status_args, workers), "HOST:PORT,..",
     "status ports; default: http.listen of the settings (127.0.0.1:9464)", 0, 0, 0},
    {"group", 'g', CTL_TEXT, offsetof(struct status_args, group), "GROUP",
     "default: kafka.group.id of the settings (gatherd)", 0, 0, 0},
    {"json", 0, CTL_FLAG, offsetof(struct status_args, json), NULL, "print one line of JSON", 0, 0, 0},
    {NULL, 0, CTL_FLAG, 0, NULL, NULL, 0, 0, 0},
};

/* One path of one port. */
struct question {
	CURL *easy;
	char *url;
	char *text; /* the answer so far; NULL = none */
	size_t len;
	CURLcode failed;
	char reason[CURL_ERROR_SIZE];
};

/* What two scrapes are compared by. */
struct sample {
	int64_t at_us;
	double results, bytes, attempts;
};

struct worker_view {
	char *place;
	json_t *status;	     /* NULL = did not answer */
	char *health;	     /* "ok", or the cause, what, where and for how long; NULL = not known */
	char reason[CURL_ERROR_SIZE + 64];
	struct sample first, last;
};

struct status {
	struct ctl *ctl;
	const struct status_args *args;
	char group[256];
	struct client *client; /* NULL: no broker */
	struct admin_group about;
	bool has_group;
	struct worker_view *workers;
	size_t n;
};

/* --- one port --- */

static size_t on_data(char *data, size_t size, size_t n, void *ctx)
{
	struct question *question = ctx;

	if (question->len + size * n > ANSWER_MAX_BYTES)
		return 0;
	question->text = xrealloc(question->text, question->len + size * n + 1);
	memcpy(question->text + question->len, data, size * n);
	question->len += size * n;
	question->text[question->len] = '\0';
	return size * n;
}

static void question_init(struct question *question, CURLM *multi, const char *place, const char *path)
{
	CURL *easy = curl_easy_init();

	*question = (struct question){.easy = easy, .url = xasprintf("http://%s%s", place, path), .failed = CURLE_OPERATION_TIMEDOUT};
	curl_easy_setopt(easy, CURLOPT_URL, question->url);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http");
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MAX_MS);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, ASK_MAX_MS);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, question->reason);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, question);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, question);
	curl_multi_add_handle(multi, easy);
}

/* Until all are answered or given up; at once when stopped. */
static void wait_answers(CURLM *multi)
{
	int n_running = 1, n_left;
	struct question *question;
	const CURLMsg *msg;

	while (n_running && !ctl_stopped()) {
		if (curl_multi_perform(multi, &n_running) || (n_running && curl_multi_poll(multi, NULL, 0, 100, NULL)))
			return;
		while ((msg = curl_multi_info_read(multi, &n_left)) != NULL)
			if (msg->msg == CURLMSG_DONE && !curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &question))
				question->failed = msg->data.result;
	}
}

/* The text (free); or NULL, and why not for the worker's row. 503 is what an unhealthy worker says it with. */
static char *take_answer(struct question *question, const char *path, struct worker_view *worker)
{
	char *text = question->text;
	long code = 0;

	question->text = NULL;
	curl_easy_getinfo(question->easy, CURLINFO_RESPONSE_CODE, &code);
	if (!question->failed && text && (code == 200 || (code == 503 && strcmp(path, "/healthz") == 0)))
		return text;
	if (question->failed)
		snprintf(worker->reason, sizeof(worker->reason), "%s",
			 *question->reason ? question->reason : curl_easy_strerror(question->failed));
	else
		snprintf(worker->reason, sizeof(worker->reason), "%s answers %ld: is it a gatherd?", path, code);
	free(text);
	return NULL;
}

typedef void (*answer_fn)(struct worker_view *worker, char *text);

/* Asks all workers that answered so far, at once, and gives each answer (which it frees) to fn. */
static void ask_workers(struct worker_view *workers, size_t n, const char *path, answer_fn fn)
{
	struct question *questions = xcalloc(n + 1, sizeof(questions[0]));
	CURLM *multi = curl_multi_init();

	for (size_t i = 0; i < n; i++)
		if (!*workers[i].reason)
			question_init(&questions[i], multi, workers[i].place, path);
	wait_answers(multi);
	for (size_t i = 0; i < n; i++) {
		struct question *question = &questions[i];
		char *text = question->easy ? take_answer(question, path, &workers[i]) : NULL;

		if (text)
			fn(&workers[i], text);
		if (!question->easy)
			continue;
		curl_multi_remove_handle(multi, question->easy);
		curl_easy_cleanup(question->easy);
		free(question->url);
	}
	curl_multi_cleanup(multi);
	free(questions);
}

/* Of one metric, over its labels. */
static double sum_of(const char *text, const char *name)
{
	size_t len = strlen(name);
	double sum = 0;

	for (const char *at = text; at; at = strchr(at, '\n')) {
		at += *at == '\n';
		if (strncmp(at, name, len) != 0 || (at[len] != ' ' && at[len] != '{'))
			continue;
		const char *value = at[len] == '{' ? strstr(at, "} ") : at + len;
		sum += value ? strtod(value + (*value == '}'), NULL) : 0;
	}
	return sum;
}

static void on_metrics(struct worker_view *worker, char *text)
{
	worker->first = worker->last;
	worker->last = (struct sample){.at_us = clock_now_us(),
				       .results = sum_of(text, "gatherd_results_total"),
				       .bytes = sum_of(text, "gatherd_wire_bytes_total"),
				       .attempts = sum_of(text, "gatherd_attempts_total")};
	free(text);
}

static void on_health(struct worker_view *worker, char *text)
{
	text[strcspn(text, "\n")] = '\0';
	worker->health = text;
}

static void on_status(struct worker_view *worker, char *text)
{
	worker->status = json_loads(text, 0, NULL);
	if (!json_is_object(worker->status)) {
		snprintf(worker->reason, sizeof(worker->reason), "/status is no JSON object: is it a gatherd?");
		json_decref(worker->status);
		worker->status = NULL;
	}
	free(text);
}

static double rate_of(const struct worker_view *worker, double first, double last)
{
	double seconds = (double)(worker->last.at_us - worker->first.at_us) / US_PER_S;

	return seconds > 0 ? MAX(last - first, 0) / seconds : 0;
}

/* --- all --- */

/* What http.listen listens on, as somebody on this machine may ask it: ":9464" and "0.0.0.0:9464" are no places to go to. free. */
static char *place_of(const char *listen)
{
	const char *colon = strrchr(listen, ':');
	size_t len = colon ? (size_t)(colon - listen) : 0;
	bool is_any = !len || (len == 7 && strncmp(listen, "0.0.0.0", len) == 0);

	if (colon && is_any)
		return xasprintf("127.0.0.1%s", colon);
	return colon && len == 4 && strncmp(listen, "[::]", len) == 0 ? xasprintf("[::1]%s", colon) : xstrdup(listen);
}

static void list_workers(struct status *status)
{
	char *list = status->args->workers ? xstrdup(status->args->workers) : place_of(status->ctl->settings->http_listen);
	char *at = list, *word;

	while ((word = strsep(&at, ", ")) != NULL) {
		if (!*word)
			continue;
		status->workers = xrealloc(status->workers, (status->n + 1) * sizeof(status->workers[0]));
		status->workers[status->n++] = (struct worker_view){.place = xstrdup(word)};
	}
	free(list);
}

static void wait_until(int64_t at_us)
{
	while (!ctl_stopped() && clock_now_us() < at_us)
		usleep(20 * US_PER_MS);
}

static void ask_group(struct status *status)
{
	const struct rd_kafka_metadata *md;

	if (!status->client || client_metadata(status->client, &md))
		return;
	rd_kafka_metadata_destroy(md);
	status->has_group = !admin_group(status->client, status->group, &status->about);
}

static void ask_all(struct status *status)
{
	int64_t start_us = clock_now_us();

	ask_workers(status->workers, status->n, "/metrics", on_metrics);
	ask_group(status);
	wait_until(start_us + RATE_US);
	ask_workers(status->workers, status->n, "/metrics", on_metrics);
	ask_workers(status->workers, status->n, "/status", on_status);
	ask_workers(status->workers, status->n, "/healthz", on_health);
}

/* --- show --- */

static const char *text_at(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "-";
}

static long long number_at(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

static long long backlog_of(const json_t *partitions)
{
	const json_t *row;
	long long sum = 0;
	size_t i;

	json_array_foreach (partitions, i, row)
		sum += number_at(row, "backlog");
	return sum;
}

/* "jobs 0 2-5": short, however many there are. free. */
static char *partitions_of(const json_t *partitions)
{
	char *text = xstrdup("");
	const char *topic = "";

	for (size_t i = 0, n = json_array_size(partitions); i < n;) {
		const json_t *row = json_array_get(partitions, i);
		long long from = number_at(row, "partition"), to = from;
		const char *name = text_at(row, "topic");

		for (i++; i < n && number_at(json_array_get(partitions, i), "partition") == to + 1 &&
			  strcmp(text_at(json_array_get(partitions, i), "topic"), name) == 0;
		     i++)
			to++;
		char *longer = xasprintf("%s%s%s %lld", text, *text ? " " : "", strcmp(topic, name) == 0 ? "" : name, from);
		free(text);
		text = to > from ? xasprintf("%s-%lld", longer, to) : xstrdup(longer);
		free(longer);
		topic = name;
	}
	return text;
}

static bool is_healthy(const struct worker_view *worker)
{
	return worker->health && strcmp(worker->health, "ok") == 0;
}

/* "output_blocked: the oldest of ..": what stands behind the word; NULL = nothing. */
static const char *health_detail(const struct worker_view *worker)
{
	const char *colon = worker->health ? strstr(worker->health, ": ") : NULL;

	return colon ? colon + 2 : NULL;
}

static void add_worker(struct table *table, const struct worker_view *worker)
{
	const json_t *parts = json_object_get(worker->status, "partitions");

	table_cell(table, NULL, "%s", worker->place);
	if (!worker->status || !worker->health) {
		table_cell(table, NULL, "-");
		table_cell(table, TABLE_RED, "no answer");
		for (int i = 0; i < 6; i++)
			table_cell(table, NULL, "-");
		table_cell(table, TABLE_DIM, "%s", worker->reason);
		return;
	}
	char *list = partitions_of(parts);
	table_cell(table, NULL, "%s", text_at(worker->status, "instance"));
	table_cell(table, is_healthy(worker) ? TABLE_GREEN : TABLE_RED, "%.*s", (int)strcspn(worker->health, ":"), worker->health);
	table_cell(table, NULL, "%lld", number_at(worker->status, "inflight"));
	table_cell(table, NULL, "%lld", number_at(worker->status, "waiting"));
	table_cell(table, NULL, "%.0f", rate_of(worker, worker->first.results, worker->last.results));
	table_cell(table, NULL, "%.0f", rate_of(worker, worker->first.bytes, worker->last.bytes) / 1024);
	table_cell(table, NULL, "%lld", backlog_of(parts));
	table_cell(table, NULL, "%.0f", (double)number_at(worker->status, "memory_bytes") / (1024 * 1024));
	table_cell(table, TABLE_DIM, "%s", list);
	free(list);
}

static void print_members(const struct status *status, const struct printer *printer)
{
	struct table *table = table_new("MEMBER CLIENT HOST");

	admin_group_print(status->group, &status->about);
	for (size_t i = 0; i < status->about.n_members; i++) {
		const struct rd_kafka_group_member_info *member = &status->about.info->members[i];

		table_cell(table, NULL, "%s", member->member_id);
		table_cell(table, NULL, "%s", member->client_id);
		table_cell(table, NULL, "%s", member->client_host);
	}
	if (status->about.n_members) {
		table_print(table, printer);
		putchar('\n');
	}
	table_free(table);
}

static void print_detail(const struct worker_view *worker, const struct printer *printer)
{
	char *clean = print_clean(span_str(worker->health), 0);

	printf("\n%s is not healthy: %s%s%s\n", worker->place, printer->has_colour ? TABLE_RED : "", clean,
	       printer->has_colour ? "\033[0m" : "");
	free(clean);
}

static void print_tables(const struct status *status)
{
	struct table *table = table_new("WORKER ?INSTANCE HEALTH >INFLIGHT ?>WAITING >RESULTS/S ?>KIB/S >BACKLOG ?>MIB PARTITIONS");
	struct printer printer;

	printer_init(&printer, stdout, PRINT_TABLE, PRINT_NONE);
	if (status->has_group)
		print_members(status, &printer);
	for (size_t i = 0; i < status->n; i++)
		add_worker(table, &status->workers[i]);
	table_print(table, &printer);
	table_free(table);
	for (size_t i = 0; i < status->n; i++)
		if (health_detail(&status->workers[i]))
			print_detail(&status->workers[i], &printer);
}

static json_t *json_of_worker(const struct worker_view *worker)
{
	json_t *json = worker->status ? json_copy(worker->status) : json_object();

	json_object_set_new(json, "worker", print_json_text(span_str(worker->place)));
	json_object_set_new(json, "answers", json_boolean(worker->status && worker->health));
	if (!worker->status || !worker->health) {
		json_object_set_new(json, "reason", print_json_text(span_str(worker->reason)));
		return json;
	}
	const char *detail = health_detail(worker);
	json_object_set_new(json, "health",
			    print_json_text((struct span){(const uint8_t *)worker->health, strcspn(worker->health, ":")}));
	json_object_set_new(json, "health_detail", print_json_text(span_str(detail ? detail : "")));
	json_object_set_new(json, "results_per_s", json_real(rate_of(worker, worker->first.results, worker->last.results)));
	json_object_set_new(json, "attempts_per_s",
			    json_real(rate_of(worker, worker->first.attempts, worker->last.attempts)));
	json_object_set_new(json, "bytes_per_s", json_real(rate_of(worker, worker->first.bytes, worker->last.bytes)));
	return json;
}

static void print_as_json(const struct status *status)
{
	json_t *members = json_array(), *workers = json_array();

	for (size_t i = 0; i < status->about.n_members; i++) {
		const struct rd_kafka_group_member_info *member = &status->about.info->members[i];

		json_array_append_new(members, json_pack("{s:s,s:s,s:s}", "member", member->member_id, "client",
							 member->client_id, "host", member->client_host));
	}
	for (size_t i = 0; i < status->n; i++)
		json_array_append_new(workers, json_of_worker(&status->workers[i]));
	print_json(stdout, json_pack("{s:s,s:s,s:o,s:o}", "group", status->group, "state",
				     status->has_group ? status->about.state : "unknown", "members", members, "workers",
				     workers));
}

static bool all_healthy(const struct status *status)
{
	for (size_t i = 0; i < status->n; i++)
		if (!status->workers[i].status || !is_healthy(&status->workers[i]))
			return false;
	return status->has_group;
}

static int status_run(struct ctl *ctl, const void *raw, int argc, char **argv)
{
	struct status status = {.ctl = ctl, .args = raw};
	int code = CTL_FAILED;

	if (argc) {
		ctl_say(ctl, "takes no arguments: %s; see --workers", argv[0]);
		return CTL_USAGE;
	}
	admin_group_name(ctl, status.args->group, status.group, sizeof(status.group));
	list_workers(&status);
	if (!status.n) {
		ctl_say(ctl, "no worker is named: http.listen is empty in the settings; give --workers HOST:PORT,..");
		return CTL_USAGE;
	}
	status.client = client_new_reader(ctl, true);
	ask_all(&status);
	if (!ctl_stopped()) {
		if (status.args->json)
			print_as_json(&status);
		else
			print_tables(&status);
		code = ctl_close_stdout(ctl);
		code = all_healthy(&status) ? code : CTL_FAILED;
	}
	for (size_t i = 0; i < status.n; i++) {
		json_decref(status.workers[i].status);
		free(status.workers[i].health);
		free(status.workers[i].place);
	}
	free(status.workers);
	admin_group_done(&status.about);
	client_free(status.client);
	return code;
}

const struct ctl_command status_command = {
    .name = "status",
    .summary = "the workers of a group: health, rates, partitions",
    .synopsis = "[OPTION]...",
    .options = status_options,
    .args_size = sizeof(struct status_args),
    .has_settings = true,
    .details = "Asks each worker's status port twice, a second apart, and the broker for the group's members. Exit 1 when a "
	       "port or the\n"
	       "broker does not answer, or a worker is not healthy.\n",
    .examples = "  gatherctl status -b localhost:9092\n"
		"  gatherctl status -b localhost:9092 --workers 10.0.0.1:9464,10.0.0.2:9464\n"
		"  gatherctl status -b localhost:9092 --json | jq '.workers[] | {instance, health, results_per_s}'\n",
    .run = status_run,
};
