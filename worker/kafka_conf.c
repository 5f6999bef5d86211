#include "kafka_conf.h"

#include "err.h"

#include <librdkafka/rdkafka.h>
#include <stdio.h>

#define LIBRDKAFKA_COOPERATIVE_SOUND 0x020a0000
#define ENVELOPE_BYTES (124 * 1024)

const struct kafka_default kafka_defaults[] = {
	{KAFKA_BOTH, "client.id", "gatherd", "names the connections in the broker's logs and quotas"},
	{KAFKA_BOTH, "socket.nagle.disable", "true", "small requests are not held back"},
	{KAFKA_BOTH, "reconnect.backoff.max.ms", "1000", "work goes on soon after a broker is back"},
	{KAFKA_BOTH, "allow.auto.create.topics", "false", "a misspelt topic is reported, not made"},
	{KAFKA_CONSUMER, "group.id", "gatherd", "one group of workers"},
	{KAFKA_CONSUMER, "auto.offset.reset", "earliest", "a job put in before the first start counts"},
	{KAFKA_CONSUMER, "partition.assignment.strategy", "range", "cooperative with frequent commits loses the assignment below librdkafka 2.10"},
	{KAFKA_CONSUMER, "session.timeout.ms", "10000", "a killed worker's work moves in about 10 s"},
	{KAFKA_CONSUMER, "heartbeat.interval.ms", "2000", "a fifth of the session"},
	{KAFKA_CONSUMER, "queued.min.messages", "20000", "above it librdkafka looks at a partition only after up to 1 s"},
	{KAFKA_CONSUMER, "queued.max.messages.kbytes", "8192", "bounds the prefetch of one partition"},
	{KAFKA_CONSUMER, "isolation.level", "read_committed", "aborted jobs are not fetched"},
	{KAFKA_CONSUMER, "topic.metadata.refresh.interval.ms", "30000", "new partitions are found soon"},
	{KAFKA_PRODUCER, "enable.idempotence", "true", "a retried batch is not doubled"},
	{KAFKA_PRODUCER, "acks", "all", "an acknowledged result is on all in-sync replicas"},
	{KAFKA_PRODUCER, "compression.type", "lz4", "cheap, and bodies are mostly text"},
	{KAFKA_PRODUCER, "linger.ms", "1", "latency before batch size"},
	{KAFKA_PRODUCER, "partitioner", "murmur2_random", "keys land where Java clients put them"},
	{KAFKA_PRODUCER, "queue.buffering.max.messages", "1000000", "our own accounting is the limit"},
	{KAFKA_PRODUCER, "transaction.timeout.ms", "10000", "a dead worker's open transaction ends soon"},
	{0, NULL, NULL, NULL},
};

static bool is_for(enum kafka_side row, enum kafka_side side)
{
	return row == KAFKA_BOTH || row == side;
}

/* Where the name is only known to the other side, librdkafka takes it with a warning: say nothing, leave it out. */
static bool is_of_other_side(const struct options *opts, const struct kafka_property *prop, enum kafka_side side)
{
	static const char *const consumer_only[] = {"group.",	  "session.timeout.ms", "heartbeat.interval.ms", "max.poll.interval.ms",
						    "queued.",	  "fetch.",		"isolation.level",	 "auto.",
						    "enable.auto", "partition.assignment.strategy", "check.crcs"};
	static const char *const producer_only[] = {"queue.buffering.", "linger.ms",	"enable.idempotence", "compression.",
						    "batch.",		"transaction", "acks",		      "partitioner",
						    "message.timeout.ms", "delivery.timeout.ms", "request.", "retries", "retry.backoff.ms",
						    "message.send.max.retries", "sticky.partitioning"};
	const char *const *list = side == KAFKA_PRODUCER ? consumer_only : producer_only;
	size_t n = side == KAFKA_PRODUCER ? ARRAY_LEN(consumer_only) : ARRAY_LEN(producer_only);

	for (size_t i = 0; prop->side == KAFKA_BOTH && i < n; i++)
		if (strncmp(prop->name, list[i], strlen(list[i])) == 0)
			return true;
	return false;
}

static int refuse_cooperative(const struct kafka_property *prop, char **ret_error)
{
	if (strcmp(prop->name, "partition.assignment.strategy") != 0 || !strstr(prop->value, "cooperative") ||
	    rd_kafka_version() >= LIBRDKAFKA_COOPERATIVE_SOUND)
		return 0;
	*ret_error = xasprintf("%s: kafka.partition.assignment.strategy = %s: librdkafka %s loses the assignment when a commit meets a "
			       "cooperative rebalance (fixed in 2.10); use range",
			       prop->source, prop->value, rd_kafka_version_str());
	return -ERR_INVALID;
}

static int set_user(rd_kafka_conf_t *conf, const struct kafka_property *prop, char **ret_error)
{
	char reason[256];
	int err = refuse_cooperative(prop, ret_error);

	if (err)
		return err;
	if (rd_kafka_conf_set(conf, prop->name, prop->value, reason, sizeof(reason)) == RD_KAFKA_CONF_OK)
		return 0;
	*ret_error = xasprintf("%s: kafka.%s = %s: %s", prop->source, prop->name, prop->value, reason);
	return -ERR_INVALID;
}

static void set_ours(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char reason[256];

	if (rd_kafka_conf_set(conf, name, value, reason, sizeof(reason)) != RD_KAFKA_CONF_OK) {
		fprintf(stderr, "bug: kafka default %s: %s\n", name, reason);
		abort();
	}
}

static void set_number(rd_kafka_conf_t *conf, const char *name, int64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "%lld", (long long)value);
	set_ours(conf, name, text);
}

int kafka_conf_make(const struct options *opts, enum kafka_side side, struct rd_kafka_conf_s **ret_conf, char **ret_error)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char servers[8];
	size_t size = sizeof(servers);

	for (const struct kafka_default *row = kafka_defaults; row->name; row++)
		if (is_for(row->side, side))
			set_ours(conf, row->name, row->value);
	if (side == KAFKA_PRODUCER) {
		set_number(conf, "message.max.bytes", MIN(MAX(opts->body_max + ENVELOPE_BYTES, INT64_C(1000000)), INT64_C(1000000000)));
		set_number(conf, "queue.buffering.max.kbytes", MIN(MAX(opts->memory_max / 1024, INT64_C(1048576)), INT64_C(2147483647)));
	}
	for (size_t i = 0; i < opts->n_kafka; i++) {
		const struct kafka_property *prop = &opts->kafka[i];
		if (!is_for(prop->side, side) || is_of_other_side(opts, prop, side))
			continue;
		int err = set_user(conf, prop, ret_error);
		if (err) {
			rd_kafka_conf_destroy(conf);
			return err;
		}
	}
	if (rd_kafka_conf_get(conf, "bootstrap.servers", servers, &size) != RD_KAFKA_CONF_OK || size <= 1) {
		rd_kafka_conf_destroy(conf);
		*ret_error = xstrdup("no broker is named: set kafka.bootstrap.servers = HOST:PORT[,HOST:PORT...] in the file, "
				     "GATHERD_KAFKA_BOOTSTRAP_SERVERS in the environment or with -o");
		return -ERR_INVALID;
	}
	*ret_conf = conf;
	return 0;
}

bool kafka_conf_get(const struct options *opts, enum kafka_side side, const char *name, char *buf, size_t size)
{
	rd_kafka_conf_t *conf;
	char *error = NULL;
	size_t len = size;

	*buf = '\0';
	if (kafka_conf_make(opts, side, &conf, &error)) {
		free(error);
		return false;
	}
	bool is_known = rd_kafka_conf_get(conf, name, buf, &len) == RD_KAFKA_CONF_OK;
	rd_kafka_conf_destroy(conf);
	return is_known;
}

void kafka_conf_group(const struct options *opts, char *buf, size_t size)
{
	kafka_conf_get(opts, KAFKA_CONSUMER, "group.id", buf, size);
}
