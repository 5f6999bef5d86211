/* client - a Kafka handle for a command line: gatherd's own properties, logs kept quiet, one sentence when no broker
 * answers. */
#include "clock.h"
#include "ctl.h"
#include "err.h"
#include "kafka_conf.h"

#include <pthread.h>

#define CONNECT_MAX_MS 6000
#define FIRST_STEP_MS 200

struct client {
	struct ctl *ctl;
	rd_kafka_t *rk;
	client_delivered_fn on_delivered;
	client_rebalance_fn on_rebalance;
	void *ctx;
	struct client *asker; /* client_asker's */
	char brokers[512];
	pthread_mutex_t lock; /* of reason: the library's threads log */
	char reason[256];
};

/* "[thrd:x]: 127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state
 * CONNECT)": what a person needs is in the middle. */
static void keep_reason(struct client *client, const char *text)
{
	const char *thread = strncmp(text, "[thrd:", 6) == 0 ? strstr(text, "]: ") : NULL;
	const char *from = thread ? thread + 3 : text;
	const char *broker = strstr(from, "/bootstrap: "), *end = strstr(from, " (after ");
	if (broker)
		from = broker + strlen("/bootstrap: ");
	size_t len = end && end > from ? (size_t)(end - from) : strlen(from);

	/* That all brokers are down only says that there was a reason. */
	if (strstr(from, "brokers are down"))
		return;
	pthread_mutex_lock(&client->lock);
	snprintf(client->reason, sizeof(client->reason), "%.*s", (int)MIN(len, sizeof(client->reason) - 1), from);
	pthread_mutex_unlock(&client->lock);
}

static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
	struct client *client = rd_kafka_opaque(rk);

	if (client->ctl->is_verbose)
		fprintf(stderr, "kafka %d %s: %s\n", level, facility, text);
	/* CONFWARN is about a property that the other side uses. */
	if (level <= 4 && strcmp(facility, "CONFWARN") != 0)
		keep_reason(client, text);
}

static void on_error(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
	keep_reason(opaque, reason);
}

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *msg, void *opaque)
{
	struct client *client = opaque;

	client->on_delivered(client->ctx, msg);
}

/* The assignment is only looked at: what is assigned is an empty list, so nothing is read. (With none at all the library would leave the
 * state in which it goes along with the group's next rebalance.) */
static void on_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t err, rd_kafka_topic_partition_list_t *list, void *opaque)
{
	struct client *client = opaque;

	bool is_assigned = err == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
	rd_kafka_topic_partition_list_t *none = is_assigned ? rd_kafka_topic_partition_list_new(0) : NULL;

	client->on_rebalance(client->ctx, is_assigned, list);
	rd_kafka_assign(rk, none);
	if (none)
		rd_kafka_topic_partition_list_destroy(none);
}

const char *client_reason(struct client *client, char *buf, size_t size)
{
	pthread_mutex_lock(&client->lock);
	snprintf(buf, size, "%s", client->reason);
	pthread_mutex_unlock(&client->lock);
	return buf;
}

static bool user_set(const struct options *settings, enum kafka_side side, const char *name)
{
	for (size_t i = 0; i < settings->n_kafka; i++) {
		const struct kafka_property *row = &settings->kafka[i];

		if (strcmp(row->name, name) == 0 && (row->side == KAFKA_BOTH || row->side == side))
			return true;
	}
	return false;
}

static rd_kafka_conf_t *make_conf(struct client *client, enum kafka_side side, const struct client_setting *extra)
{
	struct ctl *ctl = client->ctl;
	rd_kafka_conf_t *conf = NULL;
	char *error = NULL;
	char text[256];

	if (!user_set(ctl->settings, side, "bootstrap.servers") &&
	    !user_set(ctl->settings, side, "metadata.broker.list")) {
		ctl_say(ctl, "no brokers are named: give -b HOST:PORT or set GATHERD_KAFKA_BOOTSTRAP_SERVERS");
		return NULL;
	}
	if (kafka_conf_make(ctl->settings, side, &conf, &error)) {
		ctl_say(ctl, "%s", error ? error : "the Kafka properties are refused");
		free(error);
		return NULL;
	}
	for (; extra && extra->name; extra++) {
		if (!extra->is_ours && user_set(ctl->settings, side, extra->name))
			continue;
		if (rd_kafka_conf_set(conf, extra->name, extra->value, text, sizeof(text)) == RD_KAFKA_CONF_OK)
			continue;
		ctl_say(ctl, "kafka.%s: %s", extra->name, text);
		rd_kafka_conf_destroy(conf);
		return NULL;
	}
	rd_kafka_conf_set_opaque(conf, client);
	rd_kafka_conf_set_log_cb(conf, on_log);
	rd_kafka_conf_set_error_cb(conf, on_error);
	if (client->on_delivered)
		rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
	if (client->on_rebalance)
		rd_kafka_conf_set_rebalance_cb(conf, on_rebalance);
	return conf;
}

/* Takes what is in `about`. */
static struct client *make(const struct client *about, enum kafka_side side, const struct client_setting *extra)
{
	struct client *client = xcalloc(1, sizeof(*client));
	struct ctl *ctl = about->ctl;
	char text[256];

	*client = *about;
	pthread_mutex_init(&client->lock, NULL);
	rd_kafka_conf_t *conf = make_conf(client, side, extra);
	if (!conf)
		goto fail;

	size_t size = sizeof(client->brokers);
	if (rd_kafka_conf_get(conf, "bootstrap.servers", client->brokers, &size) != RD_KAFKA_CONF_OK)
		snprintf(client->brokers, sizeof(client->brokers), "the named brokers"); /* a list longer than that */
	client->rk =
	    rd_kafka_new(side == KAFKA_CONSUMER ? RD_KAFKA_CONSUMER : RD_KAFKA_PRODUCER, conf, text, sizeof(text));
	if (client->rk)
		return client;
	ctl_say(ctl, "the Kafka client cannot start: %s", text);
	rd_kafka_conf_destroy(conf);
fail:
	client_free(client);
	return NULL;
}

struct client *client_new(struct ctl *ctl, enum kafka_side side, const struct client_setting *extra,
			  client_delivered_fn on_delivered, void *ctx)
{
	const struct client about = {.ctl = ctl, .on_delivered = on_delivered, .ctx = ctx};

	return make(&about, side, extra);
}

struct client *client_new_member(struct ctl *ctl, const struct client_setting *extra, client_rebalance_fn on_rebalance_event,
				 void *ctx)
{
	const struct client about = {.ctl = ctl, .on_rebalance = on_rebalance_event, .ctx = ctx};
	struct client *client = make(&about, KAFKA_CONSUMER, extra);

	if (client)
		rd_kafka_poll_set_consumer(client->rk);
	return client;
}

struct client *client_new_reader(struct ctl *ctl, bool is_sparse)
{
	static const struct client_setting common[] = {
	    {"group.id", NULL, true},
	    {"group.instance.id", NULL, true},
	    {"enable.auto.commit", "false", true},
	    {"enable.auto.offset.store", "false", true},
	    {"enable.partition.eof", "true", true},
	    {"auto.offset.reset", "earliest", true},
	    {"isolation.level", "read_committed", false},
	    {"fetch.wait.max.ms", "100", false}, /* the end waits for the last answer */
	    {"queued.max.messages.kbytes", "65536", true},
	    {NULL, NULL, false},
	};
	static const struct client_setting sparse[] = {
	    /* A larger record comes all the same, alone. */
	    {"fetch.message.max.bytes", "1024", true},
	    {"queued.min.messages", "1", true},
	    {NULL, NULL, false},
	};
	struct client_setting all[ARRAY_LEN(common) + ARRAY_LEN(sparse)];
	size_t n = ARRAY_LEN(common) - 1;

	memcpy(all, common, sizeof(common));
	if (is_sparse)
		memcpy(all + n, sparse, sizeof(sparse));
	return client_new(ctl, KAFKA_CONSUMER, all, NULL, NULL);
}

void client_say(const struct client *client, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	ctl_vsay(client->ctl, fmt, ap);
	va_end(ap);
}

void client_free(struct client *client)
{
	if (!client)
		return;
	client_free(client->asker);
	if (client->rk)
		rd_kafka_destroy(client->rk);
	pthread_mutex_destroy(&client->lock);
	free(client);
}

rd_kafka_t *client_handle(struct client *client)
{
	return client->rk;
}

rd_kafka_t *client_asker(struct client *client, const char *group)
{
	const struct client_setting extra[] = {
	    {"group.id", group, true}, {"group.instance.id", NULL, true}, {"enable.auto.commit", "false", true}, {NULL, NULL, false}};

	if (!client->asker)
		client->asker = client_new(client->ctl, KAFKA_CONSUMER, extra, NULL, NULL);
	return client->asker ? client->asker->rk : NULL;
}

static void say_no_broker(struct client *client)
{
	char reason[256];

	client_reason(client, reason, sizeof(reason));
	ctl_say(client->ctl, "no Kafka broker answered at %s within %d s%s%s%s", client->brokers, CONNECT_MAX_MS / 1000,
		*reason ? ": " : "", reason, kafka_conf_hint(reason));
}

int client_step(struct client_steps *steps, int max_ms)
{
	int64_t now_us = clock_now_us();

	steps->start_us = steps->start_us ? steps->start_us : now_us;
	steps->wait_ms = steps->wait_ms ? 2 * steps->wait_ms : FIRST_STEP_MS;
	int64_t left_ms = max_ms - (now_us - steps->start_us) / US_PER_MS;
	return ctl_stopped() ? 0 : (int)MAX(MIN(steps->wait_ms, left_ms), 0);
}

int client_metadata(struct client *client, const struct rd_kafka_metadata **ret_md)
{
	struct client_steps steps = {0};
	int wait_ms;

	/* All topics: asking for one by name may make it. */
	while ((wait_ms = client_step(&steps, CONNECT_MAX_MS)) > 0) {
		if (!rd_kafka_metadata(client->rk, 1, NULL, ret_md, wait_ms))
			return 0;
		/* Also the pause between answers that fail at once. */
		rd_kafka_poll(client->rk, 50);
	}
	if (ctl_stopped())
		return -ERR_CANCELLED;
	say_no_broker(client);
	return -ERR_KAFKA;
}

const struct rd_kafka_metadata_topic *client_topic(const struct rd_kafka_metadata *md, const char *topic)
{
	for (int i = 0; i < md->topic_cnt; i++)
		if (strcmp(md->topics[i].topic, topic) == 0 && !md->topics[i].err && md->topics[i].partition_cnt > 0)
			return &md->topics[i];
	return NULL;
}

const struct rd_kafka_metadata_topic *client_need_topic(const struct client *client, const struct rd_kafka_metadata *md,
							const char *topic)
{
	const struct rd_kafka_metadata_topic *found = client_topic(md, topic);

	if (!found)
		ctl_say(client->ctl,
			"there is no topic %s at %s, or the ACLs (docs/security.md) do not show it to this user; `gatherctl "
			"topics` makes the topics",
			topic, client->brokers);
	return found;
}

int client_add_partitions(const struct client *client, const struct rd_kafka_metadata *md, const char *topic,
			  rd_kafka_topic_partition_list_t *list)
{
	const struct rd_kafka_metadata_topic *found = client_need_topic(client, md, topic);

	for (int i = 0; found && i < found->partition_cnt; i++)
		if (!rd_kafka_topic_partition_list_find(list, topic, i))
			rd_kafka_topic_partition_list_add(list, topic, i);
	return found ? 0 : -ERR_NOT_FOUND;
}

rd_kafka_topic_t *client_open_topic(struct client *client, const char *topic)
{
	const struct rd_kafka_metadata *md;

	if (client_metadata(client, &md))
		return NULL;
	bool is_there = client_need_topic(client, md, topic) != NULL;
	rd_kafka_metadata_destroy(md);
	return is_there ? rd_kafka_topic_new(client->rk, topic, NULL) : NULL;
}

void client_say_error(const struct client *client, rd_kafka_resp_err_t err, const char *what, const char *right, const char *topic)
{
	/* Who may write nowhere gets no producer id: then the handle has failed as a whole, and only it knows why. */
	rd_kafka_resp_err_t fatal = rd_kafka_fatal_error(client->rk, NULL, 0);
	bool is_denied = err == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED ||
			 fatal == RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;

	ctl_say(client->ctl, is_denied ? "%s: %s: this user lacks %s on topic %s: docs/security.md" : "%s: %s", what,
		rd_kafka_err2str(fatal ? fatal : err), right, topic);
}
