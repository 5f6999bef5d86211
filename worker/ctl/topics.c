/* gatherctl topics - make the topics of a pipeline, with settings that fit gatherd's, or check those that are there.
 *
 * Happy path: metadata says what exists -> what is missing is created -> its leaders are waited for -> what existed is
 * compared with what gatherd needs. Failure modes: no broker -> one sentence; the broker refuses -> its reason in the
 * topic's line; a broker that does not tell its settings (no ACL, the sandbox) -> said, no failure. Nothing that exists
 * is ever changed. */
#include "admin.h"
#include "clock.h"
#include "ctl.h"
#include "err.h"
#include "job.h"

#include <inttypes.h>
#include <unistd.h>

#define TOPICS_MAX 18
#define CREATE_MAX_MS 10000
#define CONFIG_MAX_MS 3000
#define LEADER_MAX_US (10 * US_PER_S)
/* What a result is beside its body: design.md, message.max.bytes. */
#define RESULT_EXTRA_BYTES (124 * 1024)
/* A job's key and headers; a dead letter is all that and our own headers. */
#define JOB_EXTRA_BYTES (64 * 1024)
#define DEAD_LETTER_EXTRA_BYTES (128 * 1024)
#define DAY_MS (INT64_C(24) * 3600 * 1000)

struct topics_args {
	int64_t partitions, replication;
	const char *jobs, *results, *dead_letters;
	bool create, check, json;
};

static const struct ctl_option topics_options[] = {
    {"partitions", 'p', CTL_INT, offsetof(struct topics_args, partitions), "N", "partitions of a new topic", 1, 100000,
     8},
    {"replication", 'r', CTL_INT, offsetof(struct topics_args, replication), "N", "copies of a new topic", 1, 100, 1},
    {"jobs", 0, CTL_TEXT, offsetof(struct topics_args, jobs), "TOPIC", "default: jobs.topic of the settings (jobs)", 0,
     0, 0},
    {"results", 0, CTL_TEXT, offsetof(struct topics_args, results), "TOPIC",
     "default: results.topic of the settings (results)", 0, 0, 0},
    {"dead-letters", 0, CTL_TEXT, offsetof(struct topics_args, dead_letters), "TOPIC",
     "default: dead_letter.topic of the settings, else dead-letters; '' = none", 0, 0, 0},
    {"create", 0, CTL_FLAG, offsetof(struct topics_args, create), NULL, "create what is missing (the default)", 0, 0,
     0},
    {"check", 0, CTL_FLAG, offsetof(struct topics_args, check), NULL,
     "change nothing; exit 1 when something is missing or does not fit", 0, 0, 0},
    {"json", 0, CTL_FLAG, offsetof(struct topics_args, json), NULL, "one line of JSON per topic", 0, 0, 0},
    {NULL, 0, CTL_FLAG, 0, NULL, NULL, 0, 0, 0},
};

enum topic_kind { TOPIC_JOBS, TOPIC_RESULTS, TOPIC_DEAD_LETTERS };

enum topic_state { TOPIC_MISSING, TOPIC_EXISTED, TOPIC_CREATED, TOPIC_REFUSED };

static const char *const state_names[] = {"missing", "existed", "created", "refused"};

struct topic {
	const char *name;
	enum topic_kind kind;
	enum topic_state state;
	int partitions;
	int64_t max_bytes; /* max.message.bytes that it needs or gets */
	char note[300];	   /* what is wrong, or not known */
	bool is_wrong;
};

struct topics {
	struct ctl *ctl;
	const struct topics_args *args;
	struct client *client;
	struct topic rows[TOPICS_MAX];
	size_t n;
};

static void add_topic(struct topics *topics, const char *name, enum topic_kind kind)
{
	static const int64_t extra[] = {[TOPIC_JOBS] = JOB_EXTRA_BYTES,
					[TOPIC_RESULTS] = RESULT_EXTRA_BYTES,
					[TOPIC_DEAD_LETTERS] = DEAD_LETTER_EXTRA_BYTES};
	int64_t body_max = topics->ctl->settings->body_max;

	if (!*name || topics->n == TOPICS_MAX)
		return;
	for (size_t i = 0; i < topics->n; i++)
		if (strcmp(topics->rows[i].name, name) == 0)
			return;
	struct topic *topic = &topics->rows[topics->n++];
	topic->name = name;
	topic->kind = kind;
	topic->max_bytes = (kind == TOPIC_RESULTS ? body_max : JOB_BYTES_MAX) + extra[kind];
}

static void list_topics(struct topics *topics)
{
	const struct topics_args *args = topics->args;
	const struct options *settings = topics->ctl->settings;
	const char *dead_letters = *settings->dead_letter_topic ? settings->dead_letter_topic : "dead-letters";

	for (size_t i = 0; !args->jobs && i < settings->jobs_topic.n; i++)
		add_topic(topics, settings->jobs_topic.v[i], TOPIC_JOBS);
	if (args->jobs)
		add_topic(topics, args->jobs, TOPIC_JOBS);
	add_topic(topics, args->results ? args->results : settings->results_topic, TOPIC_RESULTS);
	add_topic(topics, args->dead_letters ? args->dead_letters : dead_letters, TOPIC_DEAD_LETTERS);
}

/* --- what is there --- */

static bool has_leaders(const struct rd_kafka_metadata_topic *found)
{
	for (int i = 0; i < found->partition_cnt; i++)
		if (found->partitions[i].leader < 0)
			return false;
	return found->partition_cnt > 0;
}

static int find_topics(struct topics *topics)
{
	const struct rd_kafka_metadata *md;
	int err = client_metadata(topics->client, &md);

	if (err)
		return err;
	for (size_t i = 0; i < topics->n; i++) {
		const struct rd_kafka_metadata_topic *found = client_topic(md, topics->rows[i].name);

		if (!found)
			continue;
		topics->rows[i].state = TOPIC_EXISTED;
		topics->rows[i].partitions = found->partition_cnt;
	}
	rd_kafka_metadata_destroy(md);
	return 0;
}

/* So that whoever comes next can write at once. A leader that does not come is only said. */
static int wait_leaders(struct topics *topics)
{
	int64_t end_us = clock_now_us() + LEADER_MAX_US;
	size_t missing;

	do {
		const struct rd_kafka_metadata *md;
		int err = client_metadata(topics->client, &md);

		if (err)
			return err;
		missing = 0;
		for (size_t i = 0; i < topics->n; i++) {
			const struct rd_kafka_metadata_topic *found = client_topic(md, topics->rows[i].name);

			if (topics->rows[i].state == TOPIC_REFUSED)
				continue;
			topics->rows[i].partitions = found ? found->partition_cnt : 0;
			missing += !found || !has_leaders(found);
		}
		rd_kafka_metadata_destroy(md);
		if (missing)
			usleep(100000);
	} while (missing && clock_now_us() < end_us && !ctl_stopped());
	if (missing)
		ctl_say(topics->ctl, "%zu topics have no leader yet", missing);
	return 0;
}

/* --- create --- */

static rd_kafka_NewTopic_t *new_topic(const struct topics *topics, const struct topic *topic)
{
	char text[32];
	rd_kafka_NewTopic_t *spec =
	    rd_kafka_NewTopic_new(topic->name, (int)topics->args->partitions, (int)topics->args->replication, NULL, 0);

	snprintf(text, sizeof(text), "%" PRId64, topic->max_bytes);
	rd_kafka_NewTopic_set_config(spec, "cleanup.policy", "delete");
	/* Kept as gatherd compressed them: the broker does no work twice. */
	rd_kafka_NewTopic_set_config(spec, "compression.type", "producer");
	rd_kafka_NewTopic_set_config(spec, "max.message.bytes", text);
	if (topic->kind == TOPIC_RESULTS)
		return spec;
	snprintf(text, sizeof(text), "%" PRId64, (topic->kind == TOPIC_JOBS ? 7 : 30) * DAY_MS);
	rd_kafka_NewTopic_set_config(spec, "retention.ms", text);
	return spec;
}

static struct topic *row_of(struct topics *topics, const char *name)
{
	for (size_t i = 0; i < topics->n; i++)
		if (strcmp(topics->rows[i].name, name) == 0)
			return &topics->rows[i];
	return NULL;
}

static void on_created(struct topics *topics, const rd_kafka_topic_result_t *result)
{
	struct topic *topic = row_of(topics, rd_kafka_topic_result_name(result));
	rd_kafka_resp_err_t err = rd_kafka_topic_result_error(result);

	if (!topic)
		return;
	/* Somebody else was faster: that is as good. */
	topic->state = !err					       ? TOPIC_CREATED
		       : err == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS ? TOPIC_EXISTED
								       : TOPIC_REFUSED;
	if (topic->state == TOPIC_REFUSED) {
		const char *reason = rd_kafka_topic_result_error_string(result);
		bool is_denied = err == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
		snprintf(topic->note, sizeof(topic->note), "%s%s", reason ? reason : rd_kafka_err2str(err),
			 is_denied ? " This user lacks Create on it: docs/security.md" : "");
	}
}

static int create_missing(struct topics *topics)
{
	rd_kafka_t *rk = client_handle(topics->client);
	rd_kafka_NewTopic_t *specs[TOPICS_MAX];
	size_t n = 0, n_results;
	int err = 0;

	for (size_t i = 0; i < topics->n; i++)
		if (topics->rows[i].state == TOPIC_MISSING)
			specs[n++] = new_topic(topics, &topics->rows[i]);
	if (!n)
		return 0;

	rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
	rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_CREATETOPICS);
	rd_kafka_AdminOptions_set_request_timeout(options, CREATE_MAX_MS, NULL, 0);
	rd_kafka_CreateTopics(rk, specs, n, options, queue);
	rd_kafka_event_t *event = admin_wait(queue, true);
	if (event && !rd_kafka_event_error(event)) {
		const rd_kafka_topic_result_t **results =
		    rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &n_results);
		for (size_t i = 0; i < n_results; i++)
			on_created(topics, results[i]);
	} else {
		if (event)
			ctl_say(topics->ctl, "the broker did not create the topics: %s",
				rd_kafka_event_error_string(event));
		else if (ctl_stopped())
			ctl_say(topics->ctl, "interrupted before the broker answered: see `gatherctl topics --check`");
		err = -ERR_KAFKA;
	}
	if (event)
		rd_kafka_event_destroy(event);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_queue_destroy(queue);
	rd_kafka_NewTopic_destroy_array(specs, n);
	return err;
}

/* --- check --- */

static void add_note(struct topic *topic, bool is_wrong, const char *text)
{
	size_t len = strlen(topic->note);

	snprintf(topic->note + len, sizeof(topic->note) - len, "%s%s", len ? "; " : "", text);
	topic->is_wrong |= is_wrong;
}

static void check_entry(struct topic *topic, const char *name, const char *value)
{
	char text[200];

	if (!value)
		return;
	if (strcmp(name, "max.message.bytes") == 0 && strtoll(value, NULL, 10) < topic->max_bytes &&
	    topic->kind != TOPIC_JOBS) {
		snprintf(text, sizeof(text), "max.message.bytes is %s, should be at least %" PRId64, value,
			 topic->max_bytes);
		add_note(topic, true, text);
	}
	if (strcmp(name, "cleanup.policy") == 0 && strstr(value, "compact")) {
		snprintf(text, sizeof(text), "cleanup.policy is %s: records of one key replace each other", value);
		add_note(topic, true, text);
	}
}

static void check_resource(struct topics *topics, const rd_kafka_ConfigResource_t *resource)
{
	struct topic *topic = row_of(topics, rd_kafka_ConfigResource_name(resource));
	size_t n;

	if (!topic)
		return;
	if (rd_kafka_ConfigResource_error(resource)) {
		add_note(topic, false, "its settings could not be read (DescribeConfigs)");
		return;
	}
	const rd_kafka_ConfigEntry_t **entries = rd_kafka_ConfigResource_configs(resource, &n);
	for (size_t i = 0; i < n; i++)
		check_entry(topic, rd_kafka_ConfigEntry_name(entries[i]), rd_kafka_ConfigEntry_value(entries[i]));
}

/* Compares what existed with what gatherd needs. */
static void check_existing(struct topics *topics)
{
	rd_kafka_t *rk = client_handle(topics->client);
	rd_kafka_ConfigResource_t *asked[TOPICS_MAX];
	size_t n = 0, n_told = 0;

	for (size_t i = 0; i < topics->n; i++)
		if (topics->rows[i].state == TOPIC_EXISTED)
			asked[n++] = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topics->rows[i].name);
	if (!n)
		return;
	rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
	rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
	rd_kafka_AdminOptions_set_request_timeout(options, CONFIG_MAX_MS, NULL, 0);
	rd_kafka_DescribeConfigs(rk, asked, n, options, queue);
	rd_kafka_event_t *event = admin_wait(queue, false);
	if (event && !rd_kafka_event_error(event)) {
		const rd_kafka_ConfigResource_t **told =
		    rd_kafka_DescribeConfigs_result_resources(rd_kafka_event_DescribeConfigs_result(event), &n_told);
		for (size_t i = 0; i < n_told; i++)
			check_resource(topics, told[i]);
	}
	for (size_t i = 0; !n_told && i < topics->n; i++)
		if (topics->rows[i].state == TOPIC_EXISTED)
			add_note(&topics->rows[i], false,
				 ctl_stopped() ? "interrupted before it was compared"
					       : "its settings could not be read (DescribeConfigs)");
	if (event)
		rd_kafka_event_destroy(event);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_queue_destroy(queue);
	rd_kafka_ConfigResource_destroy_array(asked, n);
}

/* --- the whole --- */

static bool is_good(const struct topic *topic)
{
	return !topic->is_wrong && (topic->state == TOPIC_EXISTED || topic->state == TOPIC_CREATED);
}

/* A note is a broker's sentence: in JSON it must not end the string. */
static void print_topic(const struct topics *topics, struct topic *topic)
{
	char *note = print_clean(span_str(topic->note), 0);

	if (topics->args->json) {
		for (char *at = note; *at; at++)
			if (*at == '"' || *at == '\\')
				*at = '\'';
		printf("{\"topic\":\"%s\",\"state\":\"%s\",\"partitions\":%d,\"fits\":%s,\"note\":\"%s\"}\n",
		       topic->name, state_names[topic->state], topic->partitions, is_good(topic) ? "true" : "false",
		       note);
	} else if (topic->partitions) {
		printf("%-24s %-8s %d partitions%s%s\n", topic->name, state_names[topic->state], topic->partitions,
		       *note ? "; " : "", note);
	} else {
		printf("%-24s %s%s%s\n", topic->name, state_names[topic->state], *note ? ": " : "", note);
	}
	free(note);
}

static int work(struct topics *topics)
{
	if (find_topics(topics))
		return CTL_FAILED;
	if (!topics->args->check && (create_missing(topics) || wait_leaders(topics)))
		return CTL_FAILED;
	check_existing(topics);

	size_t n_good = 0;
	for (size_t i = 0; i < topics->n; i++) {
		if (topics->rows[i].state == TOPIC_MISSING)
			add_note(&topics->rows[i], true, "or the ACLs (docs/security.md) do not show it to this user");
		print_topic(topics, &topics->rows[i]);
		n_good += is_good(&topics->rows[i]);
	}
	int code = ctl_close_stdout(topics->ctl);
	return n_good == topics->n && !ctl_stopped() ? code : CTL_FAILED;
}

static int topics_run(struct ctl *ctl, const void *raw, int argc, char **argv)
{
	struct topics topics = {.ctl = ctl, .args = raw};

	if (argc) {
		ctl_say(ctl, "takes no arguments: %s; see --jobs, --results and --dead-letters", argv[0]);
		return CTL_USAGE;
	}
	if (topics.args->create && topics.args->check) {
		ctl_say(ctl, "--create and --check do not go together");
		return CTL_USAGE;
	}
	list_topics(&topics);
	topics.client = client_new(ctl, KAFKA_PRODUCER, NULL, NULL, NULL);
	if (!topics.client)
		return CTL_USAGE;
	int code = work(&topics);
	client_free(topics.client);
	return code;
}

const struct ctl_command topics_command = {
    .name = "topics",
    .summary = "make the topics of a pipeline, or check them",
    .synopsis = "[OPTION]...",
    .options = topics_options,
    .args_size = sizeof(struct topics_args),
    .has_settings = true,
    .details =
	"New topics: results take records of body.max + 124 KiB, dead letters those of any job; all delete old records "
	"(jobs after 7\n"
	"days, dead letters after 30, results as the broker is set). A topic that exists is compared, never changed.\n",
    .examples = "  gatherctl topics -b localhost:9092                         # create what is missing\n"
		"  gatherctl topics -b localhost:9092 --partitions 24 --replication 3\n"
		"  gatherctl topics -b localhost:9092 --check                 # for scripts: exit 1 when something "
		"does not fit\n"
		"  gatherctl topics -c /etc/gatherd/gatherd.conf --json\n",
    .run = topics_run,
};
