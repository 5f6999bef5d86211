#include "kafka_conf.h"

#include "err.h"

#include <librdkafka/rdkafka.h>
#include <stdio.h>

/* What librdkafka itself allows at most for message.max.bytes. */
#define MESSAGE_BYTES_LIMIT INT64_C(1000000000)
#define MESSAGE_BYTES_MIN INT64_C(1000000)
/* What a result needs beside its body: headers, attrs, URL, redirects. */
#define RESULT_REST_BYTES (INT64_C(124) * 1024)
#define BUFFER_KBYTES_MIN INT64_C(1048576)
/* Commits while the group rebalances cost a cooperative member its whole assignment before this version (librdkafka
 * #4908). */
#define COOPERATIVE_VERSION 0x020a0000
/* Below it the client's last message repeats its nonce (librdkafka #4895). Kafka took that till 3.9. */
#define SCRAM_VERSION 0x020601ff
/* The group protocol of KIP-848 is a preview before this version. */
#define PROTOCOL_VERSION 0x020c0000

/* Values that follow from other settings are set by set_computed(). */
const struct kafka_default kafka_defaults[] = {
    {KAFKA_BOTH, "client.id", "gatherd", "names us in the broker's logs and quotas"},
    {KAFKA_BOTH, "allow.auto.create.topics", "false",
     "a missing topic is waited for and said, not made with one partition"},
    {KAFKA_BOTH, "socket.nagle.disable", "true", "40 ms per small request otherwise"},
    {KAFKA_CONSUMER, "socket.timeout.ms", "10000", "a connection that died without a word is given up"},
    {KAFKA_BOTH, "reconnect.backoff.max.ms", "1000", "a broker that is back is used within a second"},
    {KAFKA_CONSUMER, "group.id", "gatherd", "workers of one group share the partitions"},
    {KAFKA_CONSUMER, "auto.offset.reset", "earliest", "a job put in before the first start counts"},
    {KAFKA_CONSUMER, "partition.assignment.strategy", "range",
     "cooperative-sticky loses the assignment on frequent commits below librdkafka 2.10"},
    {KAFKA_CONSUMER, "session.timeout.ms", "7000", "a killed worker's work moves in about 7 s; a group is back 10 s after its broker"},
    {KAFKA_CONSUMER, "heartbeat.interval.ms", "2000", "three in a session; the loop does not hold them up"},
    {KAFKA_CONSUMER, "isolation.level", "read_committed", "jobs of aborted transactions are not fetched"},
    {KAFKA_CONSUMER, "queued.min.messages", "20000", "a partition above it is looked at again only after up to 1 s"},
    {KAFKA_CONSUMER, "queued.max.messages.kbytes", "8192", "bounds the prefetch of one partition"},
    {KAFKA_CONSUMER, "topic.metadata.refresh.interval.ms", "30000", "new partitions are found soon"},
    {KAFKA_CONSUMER, "enable.auto.commit", "false", "gatherd commits itself, once the broker has the result"},
    {KAFKA_CONSUMER, "enable.auto.offset.store", "false", "gatherd keeps the offsets itself"},
    {KAFKA_PRODUCER, "enable.idempotence", "true", "a retry inside the client doubles nothing"},
    {KAFKA_PRODUCER, "acks", "all", "a result counts when every in-sync replica has it"},
    {KAFKA_PRODUCER, "compression.type", "lz4", "bodies are mostly text, and it costs little"},
    {KAFKA_PRODUCER, "linger.ms", "0", "a lone result waits for no others; under load gatherd gathers them itself"},
    {KAFKA_PRODUCER, "partitioner", "murmur2_random", "keys land where Java clients put them"},
    {KAFKA_PRODUCER, "queue.buffering.max.messages", "1000000", "our own accounting is the limit"},
    {KAFKA_PRODUCER, "transaction.timeout.ms", "10000", "a killed worker's offsets are free again soon (exactly once)"},
    {KAFKA_BOTH, NULL, NULL, NULL},
};

static const char *const side_prefix[] = {
    [KAFKA_BOTH] = "", [KAFKA_CONSUMER] = "consumer.", [KAFKA_PRODUCER] = "producer."};

/* ---- which side a property is for ---- */

/* librdkafka's own list: lines of "name | C/P | range | ...". An unknown or hidden name is left to rd_kafka_conf_set.
 * A property of the other side is taken by librdkafka, but with a warning in the log at each start. */
static bool is_for_side(const char *list, const char *name, enum kafka_side side)
{
	size_t len = strlen(name);
	bool is_listed = false;

	for (const char *line = list; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, name, len) != 0 || (line[len] != ' ' && line[len] != '|'))
			continue;
		const char *column = strchr(line, '|');
		if (!column)
			break;
		column += 1 + strspn(column + 1, " ");
		if (*column == '*' || *column == (side == KAFKA_CONSUMER ? 'C' : 'P'))
			return true;
		is_listed = true;
	}
	return !is_listed;
}

/* Free. */
static char *property_list(void)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		abort();
	rd_kafka_conf_properties_show(out);
	fclose(out);
	return text;
}

/* ---- our defaults ---- */

/* The user's value that is in force for a side, NULL when there is none. */
static const struct kafka_property *user_row(const struct options *opts, enum kafka_side side, const char *name)
{
	const struct kafka_property *found = NULL;

	for (size_t i = 0; i < opts->n_kafka; i++) {
		const struct kafka_property *row = &opts->kafka[i];
		if (strcmp(row->name, name) == 0 && (row->side == side || (row->side == KAFKA_BOTH && !found)))
			found = row;
	}
	return found;
}

/* With the group protocol of KIP-848 these belong to the broker, and librdkafka refuses them. */
static const struct {
	const char *name, *instead;
} classic_only[] = {
    {"partition.assignment.strategy", "the broker assigns, see kafka.group.remote.assignor"},
    {"session.timeout.ms", "the broker sets it, see its group.consumer.session.timeout.ms"},
    {"heartbeat.interval.ms", "the broker sets it, see its group.consumer.heartbeat.interval.ms"},
    {"group.protocol.type", "it is of the other protocol"},
};

static const struct kafka_property *consumer_protocol(const struct options *opts)
{
	const struct kafka_property *row = user_row(opts, KAFKA_CONSUMER, "group.protocol");

	return row && strcasecmp(row->value, "consumer") == 0 ? row : NULL;
}

static bool is_classic_only(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(classic_only); i++)
		if (strcmp(name, classic_only[i].name) == 0)
			return true;
	return false;
}

static void set_ours(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char reason[256];

	/* Our own table: every supported librdkafka takes it. */
	if (rd_kafka_conf_set(conf, name, value, reason, sizeof(reason)) != RD_KAFKA_CONF_OK) {
		fprintf(stderr, "gatherd: default kafka.%s = %s: %s\n", name, value, reason);
		abort();
	}
}

static void set_number(rd_kafka_conf_t *conf, const char *name, int64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "%lld", (long long)value);
	set_ours(conf, name, text);
}

static void set_computed(rd_kafka_conf_t *conf, const struct options *opts, enum kafka_side side)
{
	if (side != KAFKA_PRODUCER)
		return;
	int64_t message_bytes = MAX(opts->body_max + RESULT_REST_BYTES, MESSAGE_BYTES_MIN);
	set_number(conf, "message.max.bytes", MIN(message_bytes, MESSAGE_BYTES_LIMIT));
	int64_t buffer_kbytes = (opts->memory_max + 1023) / 1024;
	set_number(conf, "queue.buffering.max.kbytes", MIN(MAX(buffer_kbytes, BUFFER_KBYTES_MIN), INT32_MAX));
	/* As the consumer's. Of transactions librdkafka takes it from transaction.timeout.ms, and refuses a longer one. */
	if (opts->delivery == DELIVERY_AT_LEAST_ONCE)
		set_number(conf, "socket.timeout.ms", 10000);
}

static void set_defaults(rd_kafka_conf_t *conf, const struct options *opts, enum kafka_side side)
{
	bool is_classic = !consumer_protocol(opts);

	for (const struct kafka_default *row = kafka_defaults; row->name; row++) {
		if ((row->side == KAFKA_BOTH || row->side == side) && (is_classic || !is_classic_only(row->name)))
			set_ours(conf, row->name, row->value);
	}
	set_computed(conf, opts, side);
}

/* ---- the user's properties ---- */

static int set_user(rd_kafka_conf_t *conf, const struct kafka_property *row, char **ret_error)
{
	char reason[512];

	if (rd_kafka_conf_set(conf, row->name, row->value, reason, sizeof(reason)) == RD_KAFKA_CONF_OK)
		return 0;
	*ret_error =
	    xasprintf("%s: kafka.%s%s = %s: %s", row->source, side_prefix[row->side], row->name, row->value, reason);
	return -ERR_INVALID;
}

static int check_strategy(const struct options *opts, char **ret_error)
{
	const struct kafka_property *row = user_row(opts, KAFKA_CONSUMER, "partition.assignment.strategy");

	if (!row || !strstr(row->value, "cooperative") || rd_kafka_version() >= COOPERATIVE_VERSION)
		return 0;
	*ret_error = xasprintf(
	    "%s: kafka.%spartition.assignment.strategy = %s: needs librdkafka 2.10, this is %s: a commit while the "
	    "group rebalances loses the whole assignment below it",
	    row->source, side_prefix[row->side], row->value, rd_kafka_version_str());
	return -ERR_INVALID;
}

static int check_protocol(const struct options *opts, char **ret_error)
{
	const struct kafka_property *row = consumer_protocol(opts);

	if (!row)
		return 0;
	if (rd_kafka_version() < PROTOCOL_VERSION) {
		*ret_error = xasprintf("%s: kafka.%sgroup.protocol = %s: needs librdkafka 2.12, this is %s", row->source,
				       side_prefix[row->side], row->value, rd_kafka_version_str());
		return -ERR_INVALID;
	}
	for (size_t i = 0; i < ARRAY_LEN(classic_only); i++) {
		const struct kafka_property *other = user_row(opts, KAFKA_CONSUMER, classic_only[i].name);
		if (!other)
			continue;
		*ret_error =
		    xasprintf("%s: kafka.%s%s may not be set with group.protocol = consumer: %s", other->source,
			      side_prefix[other->side], other->name, classic_only[i].instead);
		return -ERR_INVALID;
	}
	return 0;
}

/* Rows for both sides first, so that a side's own row wins. */
static int set_users(rd_kafka_conf_t *conf, const struct options *opts, enum kafka_side side, char **ret_error)
{
	char *list = property_list();
	int err = check_strategy(opts, ret_error);

	if (!err)
		err = check_protocol(opts, ret_error);
	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; !err && i < opts->n_kafka; i++) {
			const struct kafka_property *row = &opts->kafka[i];
			if (row->side != (pass == 0 ? KAFKA_BOTH : side))
				continue;
			if (is_for_side(list, row->name, side)) {
				err = set_user(conf, row, ret_error);
			} else if (pass == 1) {
				*ret_error = xasprintf("%s: kafka.%s%s: is not a property of the %.8s side",
						       row->source, side_prefix[side], row->name, side_prefix[side]);
				err = -ERR_INVALID;
			}
		}
	}
	free(list);
	return err;
}

static int check_servers(rd_kafka_conf_t *conf, char **ret_error)
{
	char servers[8];
	size_t size = sizeof(servers);

	/* size becomes what it takes, with the NUL. */
	if (rd_kafka_conf_get(conf, "bootstrap.servers", servers, &size) == RD_KAFKA_CONF_OK && size > 1)
		return 0;
	*ret_error = xstrdup("no broker is named: set kafka.bootstrap.servers = HOST:PORT[,HOST:PORT...] in the file, "
			     "GATHERD_KAFKA_BOOTSTRAP_SERVERS in the environment or with -o");
	return -ERR_INVALID;
}

int kafka_conf_make(const struct options *opts, enum kafka_side side, struct rd_kafka_conf_s **ret_conf,
		    char **ret_error)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();

	assert(side != KAFKA_BOTH);
	set_defaults(conf, opts, side);
	int err = set_users(conf, opts, side, ret_error);
	if (!err)
		err = check_servers(conf, ret_error);
	if (err) {
		rd_kafka_conf_destroy(conf);
		return err;
	}
	*ret_conf = conf;
	return 0;
}

bool kafka_conf_get(const struct options *opts, enum kafka_side side, const char *name, char *buf, size_t size)
{
	rd_kafka_conf_t *conf = NULL;
	char *error = NULL;

	if (kafka_conf_make(opts, side, &conf, &error)) {
		free(error);
		return false;
	}
	bool is_known = rd_kafka_conf_get(conf, name, buf, &size) == RD_KAFKA_CONF_OK;
	rd_kafka_conf_destroy(conf);
	return is_known;
}

void kafka_conf_group(const struct options *opts, char *buf, size_t size)
{
	const struct kafka_property *row = user_row(opts, KAFKA_CONSUMER, "group.id");
	const char *group = row ? row->value : "gatherd";

	snprintf(buf, size, "%s", group);
}

bool kafka_conf_is_broker_assigned(const struct options *opts)
{
	return consumer_protocol(opts) != NULL;
}

const char *kafka_conf_hint(const char *error)
{
	if (strstr(error, "SCRAM") && rd_kafka_version() < SCRAM_VERSION)
		return "; librdkafka below 2.6.1 cannot log in to Kafka 4 with SCRAM, whatever the password: docs/security.md";
	return "";
}

const char *kafka_conf_library(void)
{
	return rd_kafka_version_str();
}
