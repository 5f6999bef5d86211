/* gatherctl status - the workers of a group: who is a member, and what each worker's status port says.
 *
 * Happy path: each port is asked twice, a second apart -> rates; the broker is asked for the group's members in between -> table or
 * JSON. Failure modes: a port that does not answer is a row that says so; no broker -> one sentence, and the ports are shown all the
 * same; exit 1 for both, and when a worker is not healthy. */
#include "admin.h"
#include "clock.h"
#include "err.h"
#include "table.h"

#include <curl/curl.h>
#include <jansson.h>
#include <unistd.h>

#define ASK_MAX_MS 3000L
#define ANSWER_MAX_BYTES (16U << 20)
#define RATE_US US_PER_S

struct status_args {
	const char *group, *workers;
	bool json;
};

static const struct ctl_option status_options[] = {
    {"workers", 'w', CTL_TEXT, offsetof(struct status_args, workers), "HOST:PORT,..",
     "status ports, as http.listen has them (default 127.0.0.1:9464)", 0, 0, 0},
    {"group", 'g', CTL_TEXT, offsetof(struct status_args, group), "GROUP",
     "default: kafka.group.id of the settings (gatherd)", 0, 0, 0},
    {"json", 0, CTL_FLAG, offsetof(struct status_args, json), NULL, "print one line of JSON", 0, 0, 0},
    {NULL, 0, CTL_FLAG, 0, NULL, NULL, 0, 0, 0},
};

struct answer {
	char *text;
	size_t len;
};

/* What two scrapes are compared by. */
struct sample {
	int64_t at_us;
	double results, bytes, attempts;
};

struct worker_view {
	char *place;
	json_t *status; /* NULL = did not answer */
	char reason[CURL_ERROR_SIZE];
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
	struct answer *answer = ctx;

	if (answer->len + size * n > ANSWER_MAX_BYTES)
		return 0;
	answer->text = xrealloc(answer->text, answer->len + size * n + 1);
	memcpy(answer->text + answer->len, data, size * n);
	answer->len += size * n;
	answer->text[answer->len] = '\0';
	return size * n;
}

static int on_progress(void *ctx, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	return ctl_stopped();
}

/* The text at a path, NULL and the reason. free. */
static char *get(struct worker_view *worker, const char *path)
{
	char *url = xasprintf("http://%s%s", worker->place, path);
	struct answer answer = {0};
	CURL *easy = curl_easy_init();
	long code = 0;

	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http");
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, ASK_MAX_MS);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, worker->reason);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, &answer);
	curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
	CURLcode failed = curl_easy_perform(easy);
	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &code);
	if (failed && !*worker->reason)
		snprintf(worker->reason, sizeof(worker->reason), "%s", curl_easy_strerror(failed));
	if (!failed && code != 200)
		snprintf(worker->reason, sizeof(worker->reason), "%s answers %ld: is it a gatherd?", path, code);
	curl_easy_cleanup(easy);
	free(url);
	if (!failed && code == 200 && answer.text)
		return answer.text;
	free(answer.text);
	return NULL;
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

static bool take_sample(struct worker_view *worker, struct sample *ret_sample)
{
	char *text = get(worker, "/metrics");

	if (!text)
		return false;
	*ret_sample = (struct sample){.at_us = clock_now_us(),
				      .results = sum_of(text, "gatherd_results_total"),
				      .bytes = sum_of(text, "gatherd_wire_bytes_total"),
				      .attempts = sum_of(text, "gatherd_attempts_total")};
	free(text);
	return true;
}

static void take_status(struct worker_view *worker)
{
	char *text = get(worker, "/status");

	if (!text)
		return;
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

static void list_workers(struct status *status)
{
	char *list = xstrdup(status->args->workers ? status->args->workers : "127.0.0.1:9464"), *at = list, *word;

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
	for (size_t i = 0; i < status->n && !ctl_stopped(); i++)
		take_sample(&status->workers[i], &status->workers[i].first);
	ask_group(status);
	for (size_t i = 0; i < status->n && !ctl_stopped(); i++) {
		struct worker_view *worker = &status->workers[i];

		if (!worker->first.at_us)
			continue;
		wait_until(worker->first.at_us + RATE_US);
		if (take_sample(worker, &worker->last))
			take_status(worker);
	}
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

static void add_worker(struct table *table, const struct worker_view *worker)
{
	const json_t *parts = json_object_get(worker->status, "partitions");
	const char *health = text_at(worker->status, "health");

	table_cell(table, NULL, "%s", worker->place);
	if (!worker->status) {
		table_cell(table, NULL, "-");
		table_cell(table, TABLE_RED, "no answer");
		for (int i = 0; i < 6; i++)
			table_cell(table, NULL, "-");
		table_cell(table, TABLE_DIM, "%s", worker->reason);
		return;
	}
	char *list = partitions_of(parts);
	table_cell(table, NULL, "%s", text_at(worker->status, "instance"));
	table_cell(table, strcmp(health, "ok") == 0 ? TABLE_GREEN : TABLE_RED, "%s", health);
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

	printf("group %s: %s, %zu member%s\n\n", status->group, status->about.state, status->about.n_members,
	       status->about.n_members == 1 ? "" : "s");
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

static void print_tables(const struct status *status)
{
	struct table *table = table_new("WORKER INSTANCE HEALTH >INFLIGHT >WAITING >RESULTS/S >KIB/S >BACKLOG >MIB PARTITIONS");
	struct printer printer;

	printer_init(&printer, stdout, PRINT_TABLE, PRINT_NONE);
	if (status->has_group)
		print_members(status, &printer);
	for (size_t i = 0; i < status->n; i++)
		add_worker(table, &status->workers[i]);
	table_print(table, &printer);
	table_free(table);
}

static json_t *json_of_worker(const struct worker_view *worker)
{
	json_t *json = worker->status ? json_copy(worker->status) : json_object();

	json_object_set_new(json, "worker", print_json_text(span_str(worker->place)));
	json_object_set_new(json, "answers", json_boolean(worker->status));
	if (!worker->status) {
		json_object_set_new(json, "reason", print_json_text(span_str(worker->reason)));
		return json;
	}
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
		if (strcmp(text_at(status->workers[i].status, "health"), "ok") != 0)
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
