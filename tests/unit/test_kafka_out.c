/* Results out: deliveries, refusals for their size, a fatal error, a full queue, the cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "kafka_out.h"
#include "kafka_fixture.h"

#define RECORDS_MAX 64
#define PRODUCE_KEY 0 /* the request's number in Kafka's protocol */

struct sender {
	struct world *world;
	struct options *opts;
	struct kafka_out *out;
	int errs[RECORDS_MAX];
	size_t n_delivered, n_room, n_cut_off;
};

static void on_delivered(void *ctx, struct delivery *dlv, int err)
{
	struct sender *sender = ctx;

	assert_non_null(dlv);
	sender->errs[sender->n_delivered++ % RECORDS_MAX] = err;
}

static void on_fatal(void *ctx, int err, const char *detail)
{
	fail_msg("%s", detail);
}

static void on_room(void *ctx)
{
	struct sender *sender = ctx;

	sender->n_room++;
}

static void on_cut_off(void *ctx)
{
	struct sender *sender = ctx;

	sender->n_cut_off++;
}

static struct sender *sender_new(struct world *world, const char *const *extra)
{
	static const struct kafka_out_events events = {
	    .on_delivered = on_delivered, .on_room = on_room, .on_cut_off = on_cut_off, .on_fatal = on_fatal};
	struct sender *sender = xcalloc(1, sizeof(*sender));
	char *error = NULL;

	sender->world = world;
	sender->opts = make_options(world->bootstrap, extra);
	int err = kafka_out_new(world->loop, world->helper, &world->metrics, world->log, sender->opts, "test", &events, sender,
				&sender->out, &error);
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

/* Everything in results from its beginning, without a group. */
struct reader {
	rd_kafka_t *rk;
	rd_kafka_message_t *msgs[8];
	size_t n;
};

static void read_results(struct world *world, struct reader *reader, size_t n)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
	char text[256];

	rd_kafka_conf_set(conf, "bootstrap.servers", world->bootstrap, NULL, 0);
	rd_kafka_conf_set(conf, "group.id", "reader", NULL, 0);
	rd_kafka_conf_set_log_cb(conf, quiet);
	*reader = (struct reader){.rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof(text))};
	assert_non_null(reader->rk);
	rd_kafka_topic_partition_list_add(list, "results", 0)->offset = RD_KAFKA_OFFSET_BEGINNING;
	assert_int_equal(rd_kafka_assign(reader->rk, list), 0);
	rd_kafka_topic_partition_list_destroy(list);
	while (reader->n < n) {
		rd_kafka_message_t *msg = rd_kafka_consumer_poll(reader->rk, (int)(LONG_US / US_PER_MS));
		assert_non_null(msg);
		assert_int_equal(msg->err, 0);
		reader->msgs[reader->n++] = msg;
	}
}

static void reader_done(struct reader *reader)
{
	while (reader->n > 0)
		rd_kafka_message_destroy(reader->msgs[--reader->n]);
	rd_kafka_destroy(reader->rk);
}

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
	assert_int_equal(sender->n_delivered, 0); /* later, from the loop */
	WAIT_FOR(world, sender->n_delivered == 2);
	assert_int_equal(sender->errs[0] | sender->errs[1], 0);
	assert_int_equal(kafka_out_pending(sender->out), 0);

	/* Dead letters are off. */
	dead.topic = KAFKA_DEAD_LETTERS;
	assert_int_equal(kafka_out_produce(sender->out, &dead), -ERR_KAFKA);
	sender_free(sender);

	struct reader reader;
	rd_kafka_headers_t *got;
	const char *name;
	const void *value;
	size_t len;
	read_results(world, &reader, 2);
	assert_int_equal(reader.msgs[0]->key_len, 3);
	assert_memory_equal(reader.msgs[0]->key, "key", 3);
	assert_int_equal(reader.msgs[0]->len, 5);
	assert_memory_equal(reader.msgs[0]->payload, "value", 5);
	assert_int_equal(rd_kafka_message_headers(reader.msgs[0], &got), 0);
	assert_int_equal(rd_kafka_header_cnt(got), 2);
	assert_int_equal(rd_kafka_header_get_all(got, 0, &name, &value, &len), 0);
	assert_string_equal(name, "gatherd-outcome");
	assert_int_equal(len, 2);
	assert_memory_equal(value, "OK", 2);
	assert_int_equal(rd_kafka_header_get_all(got, 1, &name, &value, &len), 0);
	assert_string_equal(name, "null");
	assert_null(value);
	assert_null(reader.msgs[1]->key);
	assert_non_null(reader.msgs[1]->payload); /* empty, not null */
	assert_int_equal(reader.msgs[1]->len, 0);
	assert_int_equal(rd_kafka_message_headers(reader.msgs[1], &got), RD_KAFKA_RESP_ERR__NOENT);
	reader_done(&reader);
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

/* The first is refused for good, the second is in flight then and would be for 20 s more. */
static void a_fatal_error_is_survived(void **state)
{
	struct world *world = *state;
	struct sender *sender = sender_new(world, NULL);
	struct delivery dlvs[2] = {result_of("k", "0"), result_of("k", "1")};

	assert_int_equal(kafka_out_produce(sender->out, &dlvs[0]), 0);
	WAIT_FOR(world, sender->n_delivered == 1);
	rd_kafka_mock_broker_push_request_error_rtts(world->cluster, 1, PRODUCE_KEY, 2,
						     RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, 300,
						     RD_KAFKA_RESP_ERR_NO_ERROR, 20000);
	int64_t since_us = clock_now_us();
	assert_int_equal(kafka_out_produce(sender->out, &dlvs[0]), 0);
	while (clock_now_us() - since_us < 100 * US_PER_MS) /* a request of its own */
		loop_turn(world->loop, 20 * US_PER_MS);
	assert_int_equal(kafka_out_produce(sender->out, &dlvs[1]), 0);
	WAIT_FOR(world, sender->n_delivered == 3);
	assert_true(clock_now_us() - since_us < 10 * US_PER_S);
	assert_int_equal(sender->errs[1], -ERR_KAFKA);
	assert_int_equal(sender->errs[2], -ERR_KAFKA);
	assert_int_equal(kafka_out_pending(sender->out), 0);
	/* No handle for a moment is -ERR_KAFKA too. */
	WAIT_FOR(world, kafka_out_produce(sender->out, &dlvs[0]) == 0);
	WAIT_FOR(world, sender->n_delivered == 4);
	assert_int_equal(sender->errs[3], 0);
	sender_free(sender);
}

/* The first batch is refused, the second, in flight then, is taken. librdkafka calls both delivered. */
static void what_the_broker_never_took_is_not_delivered(void **state)
{
	struct world *world = *state;
	struct sender *sender = sender_new(world, NULL);
	struct delivery dlvs[3] = {result_of("k", "0"), result_of("k", "1"), result_of("k", "2")};
	struct reader reader;

	assert_int_equal(kafka_out_produce(sender->out, &dlvs[0]), 0);
	WAIT_FOR(world, sender->n_delivered == 1);
	rd_kafka_mock_broker_push_request_error_rtts(world->cluster, 1, PRODUCE_KEY, 2, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, 300,
						     RD_KAFKA_RESP_ERR_NO_ERROR, 300);
	assert_int_equal(kafka_out_produce(sender->out, &dlvs[1]), 0);
	for (int64_t since_us = clock_now_us(); clock_now_us() - since_us < 100 * US_PER_MS;) /* a request of its own */
		loop_turn(world->loop, 20 * US_PER_MS);
	assert_int_equal(kafka_out_produce(sender->out, &dlvs[2]), 0);
	WAIT_FOR(world, sender->n_delivered == 3);
	assert_int_equal(sender->errs[1], -ERR_KAFKA);
	assert_int_equal(sender->errs[2], 0);
	sender_free(sender);

	read_results(world, &reader, 2);
	assert_memory_equal(reader.msgs[0]->payload, "0", 1);
	assert_memory_equal(reader.msgs[1]->payload, "2", 1);
	reader_done(&reader);
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

static void a_broker_out_of_reach_is_said(void **state)
{
	struct world *world = *state;
	struct sender *sender = sender_new(world, NULL);
	struct delivery dlv = result_of("k", "0");

	assert_int_equal(kafka_out_produce(sender->out, &dlv), 0);
	WAIT_FOR(world, sender->n_delivered == 1);
	assert_int_equal(sender->n_cut_off, 0);
	rd_kafka_mock_broker_set_down(world->cluster, 1);
	WAIT_FOR(world, sender->n_cut_off > 0);
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

static int setup(void **state)
{
	*state = world_new();
	return 0;
}

static int teardown(void **state)
{
	world_free(*state);
	return 0;
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

/* An argument is a glob of the tests to run; TEST_LOG=1 shows the log. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    IN_WORLD(results_are_delivered_as_given),	    IN_WORLD(a_record_over_the_limit_is_refused_at_once),
	    IN_WORLD(a_refused_batch_is_sent_one_by_one),   IN_WORLD(a_fatal_error_is_survived),
	    IN_WORLD(what_the_broker_never_took_is_not_delivered), IN_WORLD(a_full_queue_says_when_there_is_room),
	    IN_WORLD(a_broker_out_of_reach_is_said),
	    IN_WORLD(what_is_in_flight_is_given_up_at_the_cut),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
