#include "kafka_internal.h"

#include "clock.h"
#include "err.h"
#include "kafka_conf.h"

#include <stdio.h>

#define PROBE_EVERY_US (2 * US_PER_S)
#define PROBE_TIMEOUT_MS 1500

struct kafka_admin {
	struct helper *helper;
	struct log *log;
	const struct options *opts;
	loop_fn on_appeared;
	void *ctx;
	rd_kafka_t *rk;
	rd_kafka_queue_t *queue;
	struct helper_job job;
	bool is_probing, is_freed;
	int64_t probe_at_us;
	/* Written by the helper while is_probing, by nobody else then. */
	enum kafka_state found;
	char found_detail[256];
	/* What the loop sees. */
	enum kafka_state state;
	char detail[256];
};

struct closing {
	struct helper_job job;
	rd_kafka_t *rk;
};

static void close_run(void *ctx)
{
	struct closing *closing = ctx;

	rd_kafka_destroy_flags(closing->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
}

void kafka_destroy_later(struct helper *helper, rd_kafka_t *rk)
{
	struct closing *closing = xcalloc(1, sizeof(*closing));

	*closing = (struct closing){.job = {.run = close_run, .done = free, .ctx = closing}, .rk = rk};
	helper_submit(helper, &closing->job);
}

void kafka_log_event(struct log *log, rd_kafka_event_t *event)
{
	const char *facility, *text;
	int level;

	if (rd_kafka_event_log(event, &facility, &text, &level) == 0)
		LOG_AT(log, level <= 3 ? LOG_WARN : LOG_DEBUG, "librdkafka", LOG_STR("facility", facility), LOG_STR("text", text));
}

/* ---- the probe: on the helper ---- */

/* 0, or a sentence in found_detail. */
static bool topic_is_there(struct kafka_admin *admin, const char *topic)
{
	const struct rd_kafka_metadata *meta = NULL;
	rd_kafka_topic_t *handle = rd_kafka_topic_new(admin->rk, topic, NULL);
	rd_kafka_resp_err_t err = rd_kafka_metadata(admin->rk, 0, handle, &meta, PROBE_TIMEOUT_MS);

	if (err) {
		admin->found = KAFKA_STATE_NO_BROKER;
		snprintf(admin->found_detail, sizeof(admin->found_detail), "%s", rd_kafka_err2str(err));
	} else if (meta->topic_cnt != 1 || meta->topics[0].err || meta->topics[0].partition_cnt == 0) {
		admin->found = KAFKA_STATE_NO_TOPIC;
		snprintf(admin->found_detail, sizeof(admin->found_detail), "topic %s: %s", topic,
			 meta->topic_cnt == 1 && meta->topics[0].err ? rd_kafka_err2str(meta->topics[0].err) : "has no partitions");
	}
	if (meta)
		rd_kafka_metadata_destroy(meta);
	rd_kafka_topic_destroy(handle);
	return admin->found == KAFKA_STATE_OK;
}

static void probe_run(void *ctx)
{
	struct kafka_admin *admin = ctx;
	const struct strlist *topics = &admin->opts->jobs_topic;

	admin->found = KAFKA_STATE_OK;
	admin->found_detail[0] = '\0';
	for (size_t i = 0; i < topics->n; i++)
		if (!topic_is_there(admin, topics->v[i]))
			return;
	topic_is_there(admin, admin->opts->results_topic);
}

/* ---- on the loop ---- */

static void probe_done(void *ctx)
{
	struct kafka_admin *admin = ctx;
	bool is_appeared = admin->state == KAFKA_STATE_NO_TOPIC && admin->found == KAFKA_STATE_OK;

	admin->is_probing = false;
	if (admin->is_freed) {
		kafka_admin_free(admin);
		return;
	}
	admin->state = admin->found;
	snprintf(admin->detail, sizeof(admin->detail), "%s", admin->found_detail);
	if (is_appeared)
		admin->on_appeared(admin->ctx);
}

void kafka_admin_tick(struct kafka_admin *admin, int64_t now_us)
{
	if (admin->is_probing || now_us < admin->probe_at_us)
		return;
	admin->probe_at_us = now_us + PROBE_EVERY_US;
	admin->is_probing = true;
	admin->job = (struct helper_job){.run = probe_run, .done = probe_done, .ctx = admin};
	helper_submit(admin->helper, &admin->job);
}

enum kafka_state kafka_admin_state(const struct kafka_admin *admin)
{
	return admin->state;
}

const char *kafka_admin_detail(const struct kafka_admin *admin)
{
	return admin->detail;
}

void kafka_admin_list_offsets(struct kafka_admin *admin, const char *group, const rd_kafka_topic_partition_list_t *list,
			      rd_kafka_queue_t *queue, int timeout_ms)
{
	rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(admin->rk, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS);
	rd_kafka_ListConsumerGroupOffsets_t *ask = rd_kafka_ListConsumerGroupOffsets_new(group, list);
	char reason[256];

	rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, reason, sizeof(reason));
	rd_kafka_error_t *error = rd_kafka_AdminOptions_set_require_stable_offsets(options, 1);
	if (error)
		rd_kafka_error_destroy(error);
	rd_kafka_ListConsumerGroupOffsets(admin->rk, &ask, 1, options, queue);
	rd_kafka_ListConsumerGroupOffsets_destroy(ask);
	rd_kafka_AdminOptions_destroy(options);
}

rd_kafka_queue_t *kafka_admin_queue(struct kafka_admin *admin)
{
	return admin->queue;
}

int kafka_admin_new(struct helper *helper, struct log *log, const struct options *opts, loop_fn on_appeared, void *ctx,
		    struct kafka_admin **ret_admin, char **ret_error)
{
	struct kafka_admin *admin = xcalloc(1, sizeof(*admin));
	rd_kafka_conf_t *conf;
	char reason[256];
	int err = kafka_conf_make(opts, KAFKA_PRODUCER, &conf, ret_error);

	if (err) {
		free(admin);
		return err;
	}
	*admin = (struct kafka_admin){.helper = helper, .log = log, .opts = opts, .on_appeared = on_appeared, .ctx = ctx};
	rd_kafka_conf_set(conf, "enable.idempotence", "false", NULL, 0);
	rd_kafka_conf_set(conf, "log.queue", "true", NULL, 0);
	rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG);
	admin->rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, reason, sizeof(reason));
	if (!admin->rk) {
		rd_kafka_conf_destroy(conf);
		free(admin);
		*ret_error = xasprintf("the Kafka admin client cannot be made: %s", reason);
		return -ERR_INVALID;
	}
	admin->queue = rd_kafka_queue_get_main(admin->rk);
	rd_kafka_set_log_queue(admin->rk, admin->queue);
	*ret_admin = admin;
	return 0;
}

void kafka_admin_free(struct kafka_admin *admin)
{
	if (!admin)
		return;
	if (admin->is_probing) {
		admin->is_freed = true;
		return;
	}
	rd_kafka_queue_io_event_enable(admin->queue, -1, NULL, 0);
	rd_kafka_queue_destroy(admin->queue);
	kafka_destroy_later(admin->helper, admin->rk);
	free(admin);
}
