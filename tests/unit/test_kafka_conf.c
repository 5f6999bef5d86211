/* Properties: defaults, what follows from other settings, the user's own for both sides or one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "kafka_conf.h"
#include "kafka_fixture.h"

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
	    {"b:1",
	     "kafka.producer.fetch.min.bytes=1",
	     KAFKA_PRODUCER,
	     {"kafka.producer.fetch.min.bytes", "not a property", "producer"}},
	    {"b:1", "kafka.consumer.acks=1", KAFKA_CONSUMER, {"kafka.consumer.acks", "not a property", "consumer"}},
	    {NULL,
	     "kafka.client.id=x",
	     KAFKA_CONSUMER,
	     {"kafka.bootstrap.servers", "HOST:PORT", "GATHERD_KAFKA_BOOTSTRAP_SERVERS"}},
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

static void the_consumer_protocol_needs_a_sound_librdkafka(void **state)
{
	struct options *opts = make_options("b:1", EXTRA("kafka.group.protocol=consumer", "kafka.session.timeout.ms=6000"));
	rd_kafka_conf_t *conf;
	char *error;

	(void)state;
	assert_int_equal(kafka_conf_make(opts, KAFKA_CONSUMER, &conf, &error), -ERR_INVALID);
	if (rd_kafka_version() < 0x020c0000)
		assert_non_null(strstr(error, "needs librdkafka 2.12"));
	else
		assert_non_null(strstr(error, "kafka.session.timeout.ms may not be set"));
	free(error);
	options_free(opts);
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

/* An argument is a glob of the tests to run; TEST_LOG=1 shows the log. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(properties_in_force),
	    cmocka_unit_test(wrong_properties_are_refused_by_name),
	    cmocka_unit_test(the_consumer_protocol_needs_a_sound_librdkafka),
	    cmocka_unit_test(cooperative_needs_a_sound_librdkafka),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
