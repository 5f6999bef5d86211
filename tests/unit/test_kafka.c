/* Jobs in and results out against librdkafka's mock cluster: group, commits, rebalances, deliveries, refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "clock.h"
#include "err.h"
#include "kafka_conf.h"
#include "kafka_in.h"
#include "kafka_out.h"

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <unistd.h>

#define LONG_US (40 * US_PER_S) /* never waited for when the code is right */
#define PARTS_MAX 8
#define RECORDS_MAX 64
#define PRODUCE_KEY 0 /* the request's number in Kafka's protocol */

/* ---- a world: a cluster, a loop, a helper ---- */

struct world {
	rd_kafka_t *rk;
	rd_kafka_mock_cluster_t *cluster;
	struct loop *loop;
	struct helper *helper;
	struct log *log;
	struct metrics metrics;
	char bootstrap[256];
};

static void quiet(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
}

static int setup(void **state)
{
	struct world *world = xcalloc(1, sizeof(*world));
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char text[256];

	rd_kafka_conf_set_log_cb(conf, quiet);
	world->rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text));
	assert_non_null(world->rk);
	world->cluster = rd_kafka_mock_cluster_new(world->rk, 1);
	assert_non_null(world->cluster);
	snprintf(world->bootstrap, sizeof(world->bootstrap), "%s", rd_kafka_mock_cluster_bootstraps(world->cluster));
	assert_int_equal(rd_kafka_mock_topic_create(world->cluster, "jobs", 2, 1), 0);
	assert_int_equal(rd_kafka_mock_topic_create(world->cluster, "results", 1, 1), 0);
	if (getenv("TEST_LOG"))
		world->log = log_new(STDERR_FILENO, LOG_DEBUG, LOG_LOGFMT);
	world->loop = loop_new(&world->metrics, world->log);
	world->helper = helper_new(world->loop);
	*state = world;
	return 0;
}

static int teardown(void **state)
{
	struct world *world = *state;

	assert_true(helper_free(world->helper, LONG_US / 1000));
	loop_free(world->loop);
	log_free(world->log);
	rd_kafka_mock_cluster_destroy(world->cluster);
	rd_kafka_destroy(world->rk);
	free(world);
	return 0;
}

/* Defaults, the world's broker, and up to four settings more. */
static struct options *make_options(const char *bootstrap, const char *const *extra)
{
	char *overrides[16], *environ_block[] = {NULL}, *errors = NULL, *warnings = NULL;
	struct options *opts = NULL;
	size_t n = 0;

	if (bootstrap)
		overrides[n++] = xasprintf("kafka.bootstrap.servers=%s", bootstrap);
	/* The mock keeps a first join for 3 s, which must be within the session, and a later one for a second less than it. */
	overrides[n++] = xstrdup("kafka.session.timeout.ms=4000");
	overrides[n++] = xstrdup("kafka.heartbeat.interval.ms=200");
	if (getenv("TEST_DEBUG"))
		overrides[n++] = xasprintf("kafka.debug=%s", getenv("TEST_DEBUG"));
	for (; extra && *extra; extra++)
		overrides[n++] = xstrdup(*extra);
	int err = options_load(NULL, overrides, n, environ_block, &opts, &errors, &warnings);
	if (err)
		fprintf(stderr, "%s\n", errors);
	assert_int_equal(err, 0);
	free(errors);
	free(warnings);
	while (n > 0)
		free(overrides[--n]);
	return opts;
}

#define EXTRA(...) ((const char *const[]){__VA_ARGS__, NULL})

#define WAIT_FOR(world, condition)                                                                                     \
	for (int64_t wait_us = clock_now_us() + LONG_US; !(condition);) {                                              \
		assert_true(clock_now_us() < wait_us);                                                                 \
		loop_turn((world)->loop, 20 * US_PER_MS);                                                              \
	}

/* ---- a member of the group ---- */

struct seen {
	int64_t offset, timestamp_ms;
	char topic[32], key[32], value[32], headers[128]; /* "name=value;", "-" for a null */
	int32_t partition;
};

struct member {
	struct world *world;
	struct options *opts;
	struct kafka_in *in;
	struct kafka_part *parts[PARTS_MAX];
	int64_t begin[PARTS_MAX];
	char metadata[PARTS_MAX][64];
	size_t n_parts, n_begun, n_assigned, n_revoked, n_committed, n_fatal;
	bool is_lost, holds_revoke, is_closed;
	int commit_err;
	char detail[256];
	struct seen seen[RECORDS_MAX];
	size_t n_seen;
};

static void on_assign(void *ctx, struct kafka_part *part)
{
	struct member *member = ctx;

	assert_true(member->n_parts < PARTS_MAX);
	assert_null(kafka_part_ctx(part));
	kafka_part_set_ctx(part, member);
	member->begin[member->n_parts] = -2;
	member->parts[member->n_parts++] = part;
	member->n_assigned++;
}

static void on_begin(void *ctx, struct kafka_part *part, int64_t offset, const char *metadata, size_t len)
{
	struct member *member = ctx;

	assert_ptr_equal(kafka_part_ctx(part), member);
	for (size_t i = 0; i < member->n_parts; i++) {
		if (member->parts[i] != part)
			continue;
		assert_int_equal(member->begin[i], -2);
		member->begin[i] = offset;
		snprintf(member->metadata[i], sizeof(member->metadata[i]), "%.*s", (int)len, metadata);
		member->n_begun++;
	}
}

/* Eager: always all of them. */
static void on_revoke(void *ctx, struct kafka_part *const *parts, size_t n, bool is_lost)
{
	struct member *member = ctx;

	assert_int_equal(n, member->n_parts);
	member->n_revoked += n;
	member->is_lost = is_lost;
	if (member->holds_revoke)
		return;
	member->n_parts = member->n_begun = 0;
	kafka_in_revoked(member->in);
}

static void on_committed(void *ctx, int err, const char *detail)
{
	struct member *member = ctx;

	member->n_committed++;
	member->commit_err = err;
	snprintf(member->detail, sizeof(member->detail), "%s", detail);
}

static void text_of(struct span span, char *out, size_t size)
{
	snprintf(out, size, "%.*s", span.data ? (int)span.len : 1, span.data ? (const char *)span.data : "-");
}

static void note(struct member *member, const struct record *rec)
{
	struct seen *seen = &member->seen[member->n_seen++];
	size_t used = 0;

	assert_true(member->n_seen <= RECORDS_MAX);
	*seen = (struct seen){.offset = rec->offset, .partition = rec->partition, .timestamp_ms = rec->timestamp_ms};
	snprintf(seen->topic, sizeof(seen->topic), "%s", rec->topic);
	text_of(rec->key, seen->key, sizeof(seen->key));
	text_of(rec->value, seen->value, sizeof(seen->value));
	for (size_t i = 0; i < rec->n_headers; i++) {
		char value[32];
		text_of(rec->headers[i].value, value, sizeof(value));
		used += (size_t)snprintf(seen->headers + used, sizeof(seen->headers) - used, "%s=%s;", rec->headers[i].name, value);
	}
}

static void on_wake(void *ctx)
{
	struct member *member = ctx;
	struct record recs[8];

	for (size_t i = 0; i < member->n_parts; i++) {
		size_t n;
		while ((n = kafka_in_read(member->parts[i], recs, ARRAY_LEN(recs))))
			for (size_t j = 0; j < n; j++)
				note(member, &recs[j]);
	}
}

static void on_fatal(void *ctx, int err, const char *detail)
{
	struct member *member = ctx;

	member->n_fatal++;
}

static void on_closed(void *ctx)
{
	struct member *member = ctx;

	member->is_closed = true;
}

static struct member *member_new(struct world *world, const char *bootstrap, const struct kafka_range *plan, size_t n_plan,
				 const char *const *extra)
{
	static const struct kafka_in_events events = {on_assign, on_begin, on_revoke, on_committed, on_wake, on_fatal};
	struct member *member = xcalloc(1, sizeof(*member));
	char *error = NULL;

	member->world = world;
	member->opts = make_options(bootstrap, extra);
	int err = kafka_in_new(world->loop, world->helper, &world->metrics, world->log, member->opts, plan, n_plan, &events, member,
			       &member->in, &error);
	if (err)
		fprintf(stderr, "%s\n", error);
	assert_int_equal(err, 0);
	return member;
}

static void member_free(struct member *member)
{
	kafka_in_free(member->in);
	options_free(member->opts);
	assert_int_equal(member->n_fatal, 0);
	free(member);
}

static void leave(struct member *member)
{
	kafka_in_close(member->in, on_closed, member);
	assert_false(member->is_closed); /* later, from the loop */
	WAIT_FOR(member->world, member->is_closed);
	member_free(member);
}

static size_t seen_of(const struct member *member, int32_t partition)
{
	size_t n = 0;

	for (size_t i = 0; i < member->n_seen; i++)
		n += member->seen[i].partition == partition;
	return n;
}

static int part_index(const struct member *member, int32_t partition)
{
	for (size_t i = 0; i < member->n_parts; i++)
		if (kafka_part_partition(member->parts[i]) == partition)
			return (int)i;
	return -1;
}

static void commit(struct member *member, int32_t partition, int64_t offset, const char *metadata)
{
	int i = part_index(member, partition);
	size_t before = member->n_committed;

	assert_true(i >= 0);
	struct kafka_commit row = {member->parts[i], offset, metadata};
	assert_int_equal(kafka_in_commit(member->in, &row, 1), 0);
	assert_int_equal(member->n_committed, before); /* later, from the loop */
	WAIT_FOR(member->world, member->n_committed > before);
	assert_string_equal(member->detail, "");
	assert_int_equal(member->commit_err, 0);
}

/* ---- plain producer ---- */

static void put(struct world *world, const char *topic, int32_t partition, const char *key, const char *value,
		rd_kafka_headers_t *headers)
{
	rd_kafka_topic_t *handle = rd_kafka_topic_new(world->rk, topic, NULL);
	rd_kafka_resp_err_t err = rd_kafka_producev(
	    world->rk, RD_KAFKA_V_RKT(handle), RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_KEY(key, key ? strlen(key) : 0),
	    RD_KAFKA_V_VALUE((void *)(uintptr_t)value, value ? strlen(value) : 0), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
	    RD_KAFKA_V_TIMESTAMP(1700000000123), RD_KAFKA_V_HEADERS(headers ? headers : rd_kafka_headers_new(0)), RD_KAFKA_V_END);

	assert_int_equal(err, 0);
	assert_int_equal(rd_kafka_flush(world->rk, 10000), 0);
	rd_kafka_topic_destroy(handle);
}

/* The producer of the mock cluster's own handle has no brokers: a second one that has. */
static void connect_plain(struct world *world)
{
	rd_kafka_brokers_add(world->rk, world->bootstrap);
}

static void put_many(struct world *world, int32_t partition, int n)
{
	char value[16];

	for (int i = 0; i < n; i++) {
		snprintf(value, sizeof(value), "%d.%d", partition, i);
		put(world, "jobs", partition, "k", value, NULL);
	}
}

/* ---- jobs in ---- */

static void records_are_read_as_they_were_written(void **state)
{
	struct world *world = *state;
	rd_kafka_headers_t *headers = rd_kafka_headers_new(3);

	connect_plain(world);
	rd_kafka_header_add(headers, "a", -1, "1", 1);
	rd_kafka_header_add(headers, "null", -1, NULL, 0);
	rd_kafka_header_add(headers, "a", -1, "", 0);
	put(world, "jobs", 1, "key", "value", headers);
	put(world, "jobs", 1, NULL, NULL, NULL);
	put(world, "jobs", 1, "", "", NULL);

	struct member *a = member_new(world, world->bootstrap, NULL, 0, NULL);
	assert_false(kafka_in_is_member(a->in));
	WAIT_FOR(world, a->n_seen == 3);
	assert_true(kafka_in_is_member(a->in));
	assert_int_equal(a->n_assigned, 2);
	assert_int_equal(a->begin[0], -1);
	assert_string_equal(a->metadata[0], "");
	assert_string_equal(a->seen[0].topic, "jobs");
	assert_int_equal(a->seen[0].partition, 1);
	assert_int_equal(a->seen[0].timestamp_ms, 1700000000123);
	assert_string_equal(a->seen[0].key, "key");
	assert_string_equal(a->seen[0].value, "value");
	assert_string_equal(a->seen[0].headers, "a=1;null=-;a=;");
	assert_string_equal(a->seen[1].key, "-");
	assert_string_equal(a->seen[1].value, "-");
	assert_string_equal(a->seen[1].headers, "");
	assert_string_equal(a->seen[2].key, "");
	assert_string_equal(a->seen[2].value, "");
	assert_int_equal(a->seen[2].offset, 2);
	WAIT_FOR(world, kafka_in_state(a->in) == KAFKA_STATE_OK);
	assert_string_equal(kafka_in_state_detail(a->in), "");
	int64_t start, end;
	kafka_part_watermarks(a->parts[part_index(a, 1)], &start, &end);
	assert_int_equal(end, 3);
	leave(a);
}

static void a_group_shares_and_resumes(void **state)
{
	struct world *world = *state;

	connect_plain(world);
	put_many(world, 0, 5);
	put_many(world, 1, 5);
	struct member *a = member_new(world, world->bootstrap, NULL, 0, NULL);
	WAIT_FOR(world, a->n_seen == 10);
	commit(a, 0, 3, "set of 0");
	commit(a, 1, 2, "set of 1");

	/* A second one joins: a holds its revoke, commits once more, and lets go. */
	a->holds_revoke = true;
	struct member *b = member_new(world, world->bootstrap, NULL, 0, NULL);
	WAIT_FOR(world, a->n_revoked == 2);
	assert_false(a->is_lost);
	/* A commit is answered while the revoke is held. The mock refuses it, a real broker takes it. */
	struct kafka_commit row = {a->parts[part_index(a, 1)], 4, NULL};
	size_t before = a->n_committed;
	assert_int_equal(kafka_in_commit(a->in, &row, 1), 0);
	WAIT_FOR(world, a->n_committed > before);
	assert_int_equal(b->n_assigned, 0);
	a->n_parts = a->n_begun = 0;
	a->holds_revoke = false;
	kafka_in_revoked(a->in);
	WAIT_FOR(world, a->n_begun == 1 && b->n_begun == 1);
	struct member *has[2] = {part_index(a, 0) == 0 ? a : b, part_index(a, 1) == 0 ? a : b};
	assert_ptr_not_equal(has[0], has[1]);
	assert_int_equal(has[0]->begin[0], 3);
	assert_string_equal(has[0]->metadata[0], "set of 0");
	int64_t second = a->commit_err ? 2 : 4;
	assert_int_equal(has[1]->begin[0], second);
	assert_string_equal(has[1]->metadata[0], a->commit_err ? "set of 1" : "");

	/* What was read before the revoke is read again from the commits on, and nothing below them. */
	WAIT_FOR(world, a->n_seen + b->n_seen == 10 + 2 + (size_t)(5 - second));
	assert_int_equal(seen_of(a, 0) + seen_of(b, 0), 5 + 2);
	assert_int_equal(seen_of(a, 1) + seen_of(b, 1), 5 + (size_t)(5 - second));

	/* One leaves: the other has both again. */
	before = b->n_assigned;
	leave(a);
	WAIT_FOR(world, b->n_begun == 2 && b->n_assigned == before + 2);
	leave(b);
}

static void a_plan_bounds_the_reading(void **state)
{
	struct world *world = *state;
	struct kafka_range plan[] = {{"jobs", 0, 1, 3}, {"jobs", 1, 0, 5}};

	connect_plain(world);
	put_many(world, 0, 5);
	put_many(world, 1, 5);
	struct member *a = member_new(world, world->bootstrap, plan, 2, EXTRA("kafka.group.id=replay"));
	WAIT_FOR(world, a->n_begun == 2);
	/* Partition 0 has a record at its stop, of partition 1 only the end tells. */
	WAIT_FOR(world, kafka_part_is_at_stop(a->parts[0]) && kafka_part_is_at_stop(a->parts[1]));
	assert_int_equal(seen_of(a, 0), 2);
	assert_int_equal(seen_of(a, 1), 5);
	for (size_t i = 0; i < a->n_seen; i++)
		assert_true(a->seen[i].partition == 1 || (a->seen[i].offset >= 1 && a->seen[i].offset < 3));
	leave(a);
}

static void a_missing_topic_is_said_and_waited_for(void **state)
{
	struct world *world = *state;

	/* Unknown by decree: the mock makes what it is asked for. */
	rd_kafka_mock_topic_set_error(world->cluster, "later", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
	struct member *a = member_new(world, world->bootstrap, NULL, 0, EXTRA("jobs.topic=jobs later"));
	struct member *b = member_new(world, world->bootstrap, NULL, 0, EXTRA("jobs.topic=later", "kafka.group.id=later"));
	WAIT_FOR(world, kafka_in_state(a->in) == KAFKA_STATE_NO_TOPIC && kafka_in_state(b->in) == KAFKA_STATE_NO_TOPIC);
	assert_string_equal(kafka_in_state_detail(a->in), "later");
	WAIT_FOR(world, a->n_begun == 2);
	assert_int_equal(b->n_assigned, 0);
	rd_kafka_mock_topic_set_error(world->cluster, "later", RD_KAFKA_RESP_ERR_NO_ERROR);
	/* The mock makes topics of four partitions. */
	int64_t since_us = clock_now_us();
	WAIT_FOR(world, kafka_in_state(a->in) == KAFKA_STATE_OK && a->n_begun == 6 && b->n_begun == 4);
	assert_true(clock_now_us() - since_us < 20 * US_PER_S);
	leave(a);
	leave(b);
}

/* Nothing listens on port 1. */
static void an_absent_broker_is_said(void **state)
{
	struct world *world = *state;
	struct member *a = member_new(world, "127.0.0.1:1", NULL, 0, NULL);

	WAIT_FOR(world, kafka_in_state(a->in) == KAFKA_STATE_NO_BROKER && strstr(kafka_in_state_detail(a->in), "127.0.0.1:1"));
	assert_false(kafka_in_is_member(a->in));
	leave(a);

	/* At the cut, not closed, the probe perhaps under way. */
	a = member_new(world, "127.0.0.1:1", NULL, 0, NULL);
	loop_turn(world->loop, 50 * US_PER_MS);
	member_free(a);
}

/* ---- results out ---- */

struct sender {
	struct world *world;
	struct options *opts;
	struct kafka_out *out;
	int errs[RECORDS_MAX];
	size_t n_delivered, n_room;
};

static void on_delivered(void *ctx, struct delivery *dlv, int err)
{
	struct sender *sender = ctx;

	assert_non_null(dlv);
	sender->errs[sender->n_delivered++ % RECORDS_MAX] = err;
}

static void on_room(void *ctx)
{
	struct sender *sender = ctx;

	sender->n_room++;
}

static struct sender *sender_new(struct world *world, const char *const *extra)
{
	static const struct kafka_out_events events = {on_delivered, on_room, on_fatal};
	struct sender *sender = xcalloc(1, sizeof(*sender));
	char *error = NULL;

	sender->world = world;
	sender->opts = make_options(world->bootstrap, extra);
	int err = kafka_out_new(world->loop, world->helper, &world->metrics, world->log, sender->opts, &events, sender, &sender->out,
				&error);
	assert_int_equal(err, 0);
	return sender;
}

static void sender_free(struct sender *sender)
{
	kafka_out_free(sender->out);
	options_free(sender->opts);
	free(sender);
}

static struct delivery result_of(const char *key, const char *value)
{
	return (struct delivery){.topic = KAFKA_RESULTS, .key = span_str(key), .value = span_str(value)};
}

/* The next record of results, as a member of a group of its own would see it. */
static void results_are_delivered_as_given(void **state)
{
	struct world *world = *state;
	const struct record_header headers[] = {{"gatherd-outcome", span_str("OK")}, {"null", {NULL, 0}}};
	struct delivery one = result_of("key", "value"), two = result_of(NULL, ""), dead = result_of("k", "dead");
	struct sender *sender = sender_new(world, NULL);

	one.headers = headers;
	one.n_headers = 2;
	assert_int_equal(kafka_out_record_max(sender->out), 900 * 1024 + 124 * 1024 - 128);
	assert_int_equal(kafka_out_produce(sender->out, &one), 0);
	assert_int_equal(kafka_out_produce(sender->out, &two), 0);
	assert_int_equal(kafka_out_pending(sender->out), 2);
	assert_int_equal(sender->n_delivered, 0);
	WAIT_FOR(world, sender->n_delivered == 2);
	assert_int_equal(sender->errs[0] | sender->errs[1], 0);
	assert_int_equal(kafka_out_pending(sender->out), 0);

	/* Dead letters are off. */
	dead.topic = KAFKA_DEAD_LETTERS;
	assert_int_equal(kafka_out_produce(sender->out, &dead), -ERR_KAFKA);
	sender_free(sender);

	struct kafka_range plan = {"results", 0, 0, 2};
	struct member *reader = member_new(world, world->bootstrap, &plan, 1, EXTRA("kafka.group.id=reader"));
	WAIT_FOR(world, reader->n_seen == 2);
	assert_string_equal(reader->seen[0].key, "key");
	assert_string_equal(reader->seen[0].value, "value");
	assert_string_equal(reader->seen[0].headers, "gatherd-outcome=OK;null=-;");
	assert_string_equal(reader->seen[1].key, "-");
	assert_string_equal(reader->seen[1].value, "");
	leave(reader);
}

static void a_record_over_the_limit_is_refused_at_once(void **state)
{
	struct world *world = *state;
	struct sender *sender = sender_new(world, EXTRA("kafka.producer.message.max.bytes=2000"));
	uint8_t bytes[2000] = {0};
	struct delivery dlv = {.topic = KAFKA_RESULTS, .value = {bytes, 2000 - 128}};

	assert_int_equal(kafka_out_record_max(sender->out), 2000 - 128);
	assert_int_equal(kafka_out_produce(sender->out, &dlv), 0);
	WAIT_FOR(world, sender->n_delivered == 1);
	assert_int_equal(sender->errs[0], 0);
	dlv.value.len++;
	assert_int_equal(kafka_out_produce(sender->out, &dlv), -ERR_KAFKA_TOO_LARGE);
	assert_int_equal(kafka_out_pending(sender->out), 0);
	sender_free(sender);
}

/* One batch of three is refused; alone, only the last is. */
static void a_refused_batch_is_sent_one_by_one(void **state)
{
	struct world *world = *state;
	struct sender *sender = sender_new(world, EXTRA("kafka.linger.ms=200"));
	struct delivery first = result_of("k", "0"), dlvs[3];

	/* The producer's own start is over. */
	assert_int_equal(kafka_out_produce(sender->out, &first), 0);
	WAIT_FOR(world, sender->n_delivered == 1);
	rd_kafka_mock_push_request_errors(world->cluster, PRODUCE_KEY, 4, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
					  RD_KAFKA_RESP_ERR_NO_ERROR, RD_KAFKA_RESP_ERR_NO_ERROR,
					  RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
	for (size_t i = 0; i < 3; i++) {
		dlvs[i] = result_of("k", "v");
		assert_int_equal(kafka_out_produce(sender->out, &dlvs[i]), 0);
	}
	WAIT_FOR(world, sender->n_delivered == 4);
	assert_int_equal(sender->errs[1], 0);
	assert_int_equal(sender->errs[2], 0);
	assert_int_equal(sender->errs[3], -ERR_KAFKA_TOO_LARGE);
	assert_int_equal(kafka_out_pending(sender->out), 0);

	/* And it goes on. */
	assert_int_equal(kafka_out_produce(sender->out, &first), 0);
	WAIT_FOR(world, sender->n_delivered == 5);
	assert_int_equal(sender->errs[4], 0);
	sender_free(sender);
}

static void a_fatal_error_is_survived(void **state)
{
	struct world *world = *state;
	struct sender *sender = sender_new(world, NULL);
	struct delivery dlv = result_of("k", "v");

	assert_int_equal(kafka_out_produce(sender->out, &dlv), 0);
	WAIT_FOR(world, sender->n_delivered == 1);
	rd_kafka_mock_push_request_errors(world->cluster, PRODUCE_KEY, 1, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
	assert_int_equal(kafka_out_produce(sender->out, &dlv), 0);
	WAIT_FOR(world, sender->n_delivered == 2);
	assert_int_equal(sender->errs[1], -ERR_KAFKA);
	assert_int_equal(kafka_out_pending(sender->out), 0);
	/* No handle for a moment is -ERR_KAFKA too. */
	WAIT_FOR(world, kafka_out_produce(sender->out, &dlv) == 0);
	WAIT_FOR(world, sender->n_delivered == 3);
	assert_int_equal(sender->errs[2], 0);
	sender_free(sender);
}

static void a_full_queue_says_when_there_is_room(void **state)
{
	struct world *world = *state;
	struct sender *sender = sender_new(world, EXTRA("kafka.queue.buffering.max.messages=2"));
	struct delivery dlvs[3] = {result_of("k", "0"), result_of("k", "1"), result_of("k", "2")};

	assert_int_equal(kafka_out_produce(sender->out, &dlvs[0]), 0);
	assert_int_equal(kafka_out_produce(sender->out, &dlvs[1]), 0);
	assert_int_equal(kafka_out_produce(sender->out, &dlvs[2]), -ERR_FULL);
	assert_int_equal(sender->n_room, 0);
	WAIT_FOR(world, sender->n_room == 1);
	assert_true(sender->n_delivered >= 1);
	assert_int_equal(kafka_out_produce(sender->out, &dlvs[2]), 0);
	WAIT_FOR(world, sender->n_delivered == 3);
	assert_int_equal(sender->n_room, 1);
	sender_free(sender);
}

/* The deliveries' memory is ours again when it returns. */
static void what_is_in_flight_is_given_up_at_the_cut(void **state)
{
	struct world *world = *state;
	struct sender *sender = sender_new(world, NULL);
	uint8_t *bytes = xmalloc(500000);
	struct delivery dlvs[8];

	memset(bytes, 'x', 500000);
	for (size_t i = 0; i < ARRAY_LEN(dlvs); i++) {
		dlvs[i] = (struct delivery){.topic = KAFKA_RESULTS, .value = {bytes, 500000}};
		assert_int_equal(kafka_out_produce(sender->out, &dlvs[i]), 0);
	}
	sender_free(sender);
	free(bytes);
}

/* ---- properties ---- */

static void assert_property(const struct options *opts, enum kafka_side side, const char *name, const char *expected)
{
	char text[256] = "";

	assert_true(kafka_conf_get(opts, side, name, text, sizeof(text)));
	assert_string_equal(text, expected);
}

static void properties_in_force(void **state)
{
	struct options *opts = make_options("b:1", EXTRA("kafka.client.id=both", "kafka.consumer.client.id=mine",
							 "kafka.fetch.min.bytes=7", "kafka.linger.ms=9"));
	char group[32];

	assert_property(opts, KAFKA_CONSUMER, "enable.auto.commit", "false");
	assert_property(opts, KAFKA_CONSUMER, "partition.assignment.strategy", "range");
	assert_property(opts, KAFKA_CONSUMER, "auto.offset.reset", "smallest"); /* earliest's other name */
	assert_property(opts, KAFKA_CONSUMER, "client.id", "mine");
	assert_property(opts, KAFKA_PRODUCER, "client.id", "both");
	assert_property(opts, KAFKA_PRODUCER, "message.max.bytes", "1048576");
	assert_property(opts, KAFKA_PRODUCER, "queue.buffering.max.kbytes", "1048576");
	assert_property(opts, KAFKA_PRODUCER, "linger.ms", "9");
	assert_property(opts, KAFKA_CONSUMER, "fetch.min.bytes", "7");
	/* A row for both sides is not set where it means nothing: librdkafka would warn at each start. */
	assert_property(opts, KAFKA_PRODUCER, "fetch.min.bytes", "1");
	assert_property(opts, KAFKA_CONSUMER, "linger.ms", "5");
	assert_false(kafka_conf_get(opts, KAFKA_CONSUMER, "no.such", group, sizeof(group)));
	kafka_conf_group(opts, group, sizeof(group));
	assert_string_equal(group, "gatherd");
	options_free(opts);

	opts = make_options("b:1", EXTRA("body.max=10MiB", "memory.max=8GiB", "kafka.group.id=mine"));
	assert_property(opts, KAFKA_PRODUCER, "message.max.bytes", "10612736");
	assert_property(opts, KAFKA_PRODUCER, "queue.buffering.max.kbytes", "8388608");
	kafka_conf_group(opts, group, sizeof(group));
	assert_string_equal(group, "mine");
	options_free(opts);
}

static void wrong_properties_are_refused_by_name(void **state)
{
	static const struct {
		const char *bootstrap, *setting;
		enum kafka_side side;
		const char *says[3];
	} rows[] = {
	    {"b:1", "kafka.no.such=1", KAFKA_CONSUMER, {"-o", "kafka.no.such", "No such configuration property"}},
	    {"b:1", "kafka.no.such=1", KAFKA_PRODUCER, {"-o", "kafka.no.such", "No such configuration property"}},
	    {"b:1", "kafka.producer.linger.ms=x", KAFKA_PRODUCER, {"-o", "kafka.producer.linger.ms = x", "linger.ms"}},
	    {"b:1", "kafka.producer.fetch.min.bytes=1", KAFKA_PRODUCER, {"kafka.producer.fetch.min.bytes", "not a property", "producer"}},
	    {"b:1", "kafka.consumer.acks=1", KAFKA_CONSUMER, {"kafka.consumer.acks", "not a property", "consumer"}},
	    {NULL, "kafka.client.id=x", KAFKA_CONSUMER, {"kafka.bootstrap.servers", "HOST:PORT", "GATHERD_KAFKA_BOOTSTRAP_SERVERS"}},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct options *opts = make_options(rows[i].bootstrap, EXTRA(rows[i].setting));
		rd_kafka_conf_t *conf;
		char *error = NULL;
		assert_int_equal(kafka_conf_make(opts, rows[i].side, &conf, &error), -ERR_INVALID);
		for (size_t j = 0; j < 3; j++) {
			if (!strstr(error, rows[i].says[j]))
				fprintf(stderr, "row %zu: %s\n", i, error);
			assert_non_null(strstr(error, rows[i].says[j]));
		}
		free(error);
		options_free(opts);
	}
}

static void cooperative_needs_a_sound_librdkafka(void **state)
{
	struct options *opts = make_options("b:1", EXTRA("kafka.partition.assignment.strategy=cooperative-sticky"));
	rd_kafka_conf_t *conf = NULL;
	char *error = NULL;
	int err = kafka_conf_make(opts, KAFKA_CONSUMER, &conf, &error);

	if (rd_kafka_version() >= 0x020a0000) {
		assert_int_equal(err, 0);
		rd_kafka_conf_destroy(conf);
	} else {
		assert_int_equal(err, -ERR_INVALID);
		assert_non_null(strstr(error, "2.10"));
	}
	free(error);
	options_free(opts);
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

/* An argument is a glob of the tests to run; TEST_LOG=1 shows the log. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(properties_in_force),
	    cmocka_unit_test(wrong_properties_are_refused_by_name),
	    cmocka_unit_test(cooperative_needs_a_sound_librdkafka),
	    IN_WORLD(records_are_read_as_they_were_written),
	    IN_WORLD(a_group_shares_and_resumes),
	    IN_WORLD(a_plan_bounds_the_reading),
	    IN_WORLD(a_missing_topic_is_said_and_waited_for),
	    IN_WORLD(an_absent_broker_is_said),
	    IN_WORLD(results_are_delivered_as_given),
	    IN_WORLD(a_record_over_the_limit_is_refused_at_once),
	    IN_WORLD(a_refused_batch_is_sent_one_by_one),
	    IN_WORLD(a_fatal_error_is_survived),
	    IN_WORLD(a_full_queue_says_when_there_is_room),
	    IN_WORLD(what_is_in_flight_is_given_up_at_the_cut),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
