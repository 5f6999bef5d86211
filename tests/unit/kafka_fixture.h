/* A world for the tests of kafka_*.c: librdkafka's mock cluster, a loop, a helper. Include after cmocka.h. */
#ifndef GATHERD_TEST_KAFKA_FIXTURE_H
#define GATHERD_TEST_KAFKA_FIXTURE_H

#include "clock.h"
#include "err.h"
#include "helper.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "options.h"

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <unistd.h>

#define LONG_US (40 * US_PER_S) /* never waited for when the code is right */

struct world {
	rd_kafka_t *rk;
	rd_kafka_mock_cluster_t *cluster;
	struct loop *loop;
	struct helper *helper;
	struct log *log;
	struct metrics metrics;
	char bootstrap[256];
};

static inline void quiet(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
}

static inline struct world *world_new(void)
{
	struct world *world = xcalloc(1, sizeof(*world));
	static const struct {
		const char *name;
		int partitions;
	} topics[] = {{"jobs", 2}, {"results", 1}, {"written", 2}, {"planned", 2}, {"shared", 2}};
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char text[256];

	rd_kafka_conf_set_log_cb(conf, quiet);
	world->rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text));
	assert_non_null(world->rk);
	world->cluster = rd_kafka_mock_cluster_new(world->rk, 1);
	assert_non_null(world->cluster);
#if RD_KAFKA_VERSION >= 0x020500ff
	rd_kafka_mock_group_initial_rebalance_delay_ms(world->cluster, 200);
#endif
	snprintf(world->bootstrap, sizeof(world->bootstrap), "%s", rd_kafka_mock_cluster_bootstraps(world->cluster));
	/* The handle that carries the cluster is also the tests' own producer. */
	rd_kafka_brokers_add(world->rk, world->bootstrap);
	for (size_t i = 0; i < ARRAY_LEN(topics); i++)
		assert_int_equal(rd_kafka_mock_topic_create(world->cluster, topics[i].name, topics[i].partitions, 1),
				 0);
	if (getenv("TEST_LOG"))
		world->log = log_new(STDERR_FILENO, LOG_DEBUG, LOG_LOGFMT);
	world->loop = loop_new(&world->metrics, world->log);
	world->helper = helper_new(world->loop);
	return world;
}

static inline void world_free(struct world *world)
{
	assert_true(helper_free(world->helper, LONG_US / 1000));
	loop_free(world->loop);
	log_free(world->log);
	rd_kafka_mock_cluster_destroy(world->cluster);
	rd_kafka_destroy(world->rk);
	free(world);
}

/* Defaults, the world's broker, and some settings more. TEST_DEBUG=cgrp shows what librdkafka does. */
static inline struct options *make_options(const char *bootstrap, const char *const *extra)
{
	char *overrides[16], *environ_block[] = {NULL}, *errors = NULL, *warnings = NULL;
	struct options *opts = NULL;
	size_t n = 0;

	if (bootstrap)
		overrides[n++] = xasprintf("kafka.bootstrap.servers=%s", bootstrap);
	/* The mock keeps a first join for 3 s, which must be within the session, and a later one for a second less than
	 * it. */
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

#endif
