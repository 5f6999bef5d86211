#include "kafka_check.h"

#include "err.h"
#include "fetch.h"
#include "kafka_acl.h"
#include "kafka_conf.h"
#include "kafka_internal.h"
#include "netguard.h"

#include <stdarg.h>
#include <sys/resource.h>

#define ASK_TIMEOUT_MS 5000
#define CONFIG_TIMEOUT_MS 2000
#define ENVELOPE_BYTES (124 * 1024)
#define FDS_RESERVED 128

struct check {
	const struct options *opts;
	FILE *out;
	rd_kafka_t *rk;
	int failed;
	int32_t partitions; /* of all jobs topics */
};

enum verdict { OK, WARNING, FAILED };

static void say(struct check *check, enum verdict verdict, const char *fmt, ...) PRINTF_LIKE(3, 4);

static void say(struct check *check, enum verdict verdict, const char *fmt, ...)
{
	static const char *const words[] = {"ok      ", "warning ", "FAILED  "};
	va_list ap;

	check->failed += verdict == FAILED;
	fputs(words[verdict], check->out);
	va_start(ap, fmt);
	vfprintf(check->out, fmt, ap);
	va_end(ap);
	fputc('\n', check->out);
}

/* ---- without the cluster ---- */

static void check_guard(struct check *check)
{
	const struct options *opts = check->opts;
	struct netguard *guard = NULL;
	char *error = NULL;

	if (netguard_new(opts->guard_allow.v, opts->guard_allow.n, opts->guard_deny.v, opts->guard_deny.n,
			 opts->guard_ports.v, opts->guard_ports.n, &guard, &error))
		say(check, FAILED, "guard: %s", error);
	else
		say(check, OK, "guard: %zu allow, %zu deny, ports as set", opts->guard_allow.n, opts->guard_deny.n);
	netguard_free(guard);
	free(error);
}

static void check_tls(struct check *check)
{
	char *error = NULL;
	struct tls_store *store = tls_store_load(check->opts->tls_ca, &error);

	if (store)
		say(check, OK, "tls.ca: %s", *check->opts->tls_ca ? check->opts->tls_ca : "the system's store");
	else
		say(check, FAILED, "tls.ca: %s", error);
	tls_store_free(store);
	free(error);
}

static void check_files(struct check *check)
{
	struct rlimit limit;
	long long inflight = check->opts->inflight;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return;
	long long most = limit.rlim_max == RLIM_INFINITY ? INT64_MAX : (long long)limit.rlim_max;
	if (most - FDS_RESERVED < inflight)
		say(check, WARNING,
		    "open files: the limit of %lld allows %lld fetches in flight, inflight is %lld: raise the limit or "
		    "lower inflight",
		    most, most - FDS_RESERVED, inflight);
	else
		say(check, OK, "open files: enough for inflight = %lld", inflight);
}

/* ---- the cluster ---- */

static int32_t check_topic(struct check *check, const char *key, const char *topic)
{
	const struct rd_kafka_metadata *meta = NULL;
	rd_kafka_topic_t *handle = rd_kafka_topic_new(check->rk, topic, NULL);
	rd_kafka_resp_err_t err = rd_kafka_metadata(check->rk, 0, handle, &meta, ASK_TIMEOUT_MS);
	int32_t partitions = 0;

	if (!err)
		err = meta->topic_cnt == 1 ? meta->topics[0].err : RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
	if (kafka_is_refusal(err)) {
		say(check, FAILED, "%s: topic %s is not shown to this user by the broker's ACLs: docs/security.md", key, topic);
	} else if (err) {
		say(check, FAILED, "%s: topic %s: %s; gatherctl topics makes it", key, topic, rd_kafka_err2str(err));
	} else {
		partitions = meta->topics[0].partition_cnt;
		say(check, OK, "%s: topic %s has %d partitions", key, topic, partitions);
	}
	if (meta)
		rd_kafka_metadata_destroy(meta);
	rd_kafka_topic_destroy(handle);
	return partitions;
}

/* max.message.bytes of a topic, 0 when it may not be asked. */
static int64_t topic_max_bytes(struct check *check, const char *topic)
{
	rd_kafka_ConfigResource_t *resource = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic);
	rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(check->rk, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
	rd_kafka_queue_t *queue = rd_kafka_queue_new(check->rk);
	char reason[256];
	int64_t bytes = 0;
	size_t n = 0, n_rows = 0;

	rd_kafka_AdminOptions_set_request_timeout(options, CONFIG_TIMEOUT_MS, reason, sizeof(reason));
	rd_kafka_DescribeConfigs(check->rk, &resource, 1, options, queue);
	rd_kafka_event_t *event = rd_kafka_queue_poll(queue, CONFIG_TIMEOUT_MS + 500);
	const rd_kafka_DescribeConfigs_result_t *result = event ? rd_kafka_event_DescribeConfigs_result(event) : NULL;
	const rd_kafka_ConfigResource_t **resources =
	    result ? rd_kafka_DescribeConfigs_result_resources(result, &n) : NULL;
	const rd_kafka_ConfigEntry_t **rows = n ? rd_kafka_ConfigResource_configs(resources[0], &n_rows) : NULL;
	for (size_t i = 0; i < n_rows; i++)
		if (strcmp(rd_kafka_ConfigEntry_name(rows[i]), "max.message.bytes") == 0 &&
		    rd_kafka_ConfigEntry_value(rows[i]))
			bytes = atoll(rd_kafka_ConfigEntry_value(rows[i]));
	if (event)
		rd_kafka_event_destroy(event);
	rd_kafka_queue_destroy(queue);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_ConfigResource_destroy(resource);
	return bytes;
}

static void check_size(struct check *check, const char *key, const char *topic, int64_t wanted, const char *why)
{
	int64_t bytes = topic_max_bytes(check, topic);

	if (!bytes)
		say(check, WARNING,
		    "%s: max.message.bytes is not known: DescribeConfigs on topic %s is not allowed, or not answered", key,
		    topic);
	else if (bytes < wanted)
		say(check, WARNING, "%s: max.message.bytes of %s is %lld, under %lld (%s)", key, topic,
		    (long long)bytes, (long long)wanted, why);
	else
		say(check, OK, "%s: max.message.bytes of %s is %lld", key, topic, (long long)bytes);
}

static void check_memory(struct check *check)
{
	char text[32];
	long long each, all;

	if (!kafka_conf_get(check->opts, KAFKA_CONSUMER, "queued.max.messages.kbytes", text, sizeof(text)))
		return;
	each = atoll(text) * 1024;
	all = each * check->partitions;
	say(check, all > check->opts->memory_max ? WARNING : OK,
	    "memory: memory.max is %lld MiB; one worker that owns all %d partitions may prefetch %lld MiB on top "
	    "(kafka.queued.max.messages.kbytes)",
	    (long long)check->opts->memory_max >> 20, check->partitions, all >> 20);
}

static void on_right(void *ctx, enum acl_answer answer, const char *right, const char *detail)
{
	struct check *check = ctx;

	if (answer == ACL_ALLOWED)
		say(check, OK, "acl: %s", right);
	else if (answer == ACL_DENIED)
		say(check, FAILED, "acl: this user lacks %s (%s): docs/security.md", right, detail);
	else
		say(check, WARNING, "acl: whether this user has %s is not known: %s", right, detail);
}

/* The last failure of a connection, or what the call said. */
static void say_no_broker(struct check *check, rd_kafka_resp_err_t err)
{
	rd_kafka_queue_t *queue = rd_kafka_queue_get_main(check->rk);
	char reason[512];
	rd_kafka_event_t *ev;

	snprintf(reason, sizeof(reason), "%s", rd_kafka_err2str(err));
	while ((ev = rd_kafka_queue_poll(queue, 0))) {
		if (rd_kafka_event_type(ev) == RD_KAFKA_EVENT_ERROR &&
		    rd_kafka_event_error(ev) != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
			snprintf(reason, sizeof(reason), "%s", rd_kafka_event_error_string(ev));
		rd_kafka_event_destroy(ev);
	}
	rd_kafka_queue_destroy(queue);
	say(check, FAILED, "broker: none answers within %d s: %s%s; see kafka.bootstrap.servers and the kafka.security settings",
	    ASK_TIMEOUT_MS / 1000, reason, kafka_conf_hint(reason));
}

static void check_cluster(struct check *check)
{
	const struct options *opts = check->opts;
	const struct rd_kafka_metadata *meta = NULL;
	rd_kafka_resp_err_t err = rd_kafka_metadata(check->rk, 0, NULL, &meta, ASK_TIMEOUT_MS);

	if (err) {
		say_no_broker(check, err);
		return;
	}
	say(check, OK, "broker: %d in the cluster", meta->broker_cnt);
	rd_kafka_metadata_destroy(meta);
	for (size_t i = 0; i < opts->jobs_topic.n; i++) {
		check->partitions += check_topic(check, "jobs.topic", opts->jobs_topic.v[i]);
		check_size(check, "jobs.topic", opts->jobs_topic.v[i], 0, "");
	}
	if (check_topic(check, "results.topic", opts->results_topic))
		check_size(check, "results.topic", opts->results_topic, opts->body_max + ENVELOPE_BYTES,
			   "body.max + 124 KiB: larger results will be cut");
	if (*opts->dead_letter_topic && check_topic(check, "dead_letter.topic", opts->dead_letter_topic)) {
		int64_t jobs = topic_max_bytes(check, opts->jobs_topic.v[0]);
		check_size(check, "dead_letter.topic", opts->dead_letter_topic, jobs + 4096,
			   "a job record and its headers may not fit");
	}
	kafka_acl_ask(opts, ASK_TIMEOUT_MS, on_right, check);
	if (opts->delivery == DELIVERY_EXACTLY_ONCE)
		kafka_acl_ask_ids(opts, ASK_TIMEOUT_MS, on_right, check);
	check_memory(check);
}

int kafka_check(const struct options *opts, FILE *out)
{
	struct check check = {.opts = opts, .out = out};
	rd_kafka_conf_t *conf = NULL;
	char *error = NULL;

	say(&check, OK, "settings: every key is known and in its limits");
	check_guard(&check);
	check_tls(&check);
	check_files(&check);
	int err = kafka_conf_make(opts, KAFKA_CONSUMER, &conf, &error);
	if (!err) {
		rd_kafka_conf_destroy(conf);
		err = kafka_conf_make(opts, KAFKA_PRODUCER, &conf, &error);
	}
	if (!err)
		err = kafka_handle_new(RD_KAFKA_PRODUCER, conf, 0, &check.rk, &error);
	if (err) {
		say(&check, FAILED, "kafka: %s", error ? error : err_text(err));
		free(error);
	} else {
		check_cluster(&check);
		kafka_destroy(&check.rk, 1, CONFIG_TIMEOUT_MS);
	}
	return check.failed ? 1 : 0;
}
