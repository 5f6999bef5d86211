#include "kafka_out.h"

#include "err.h"
#include "kafka_conf.h"
#include "kafka_internal.h"

#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define POLL_BUDGET 64
/* Batch framing and the record's own fields. */
#define RECORD_MARGIN 512
/* The broker refuses a whole batch for one record that is too large: a smaller one than this was only its neighbour. */
#define SURELY_SMALL_BYTES 32768

struct kafka_out {
	struct loop *loop;
	struct helper *helper;
	struct metrics *metrics;
	struct log *log;
	const struct options *opts;
	const struct kafka_out_events *events;
	void *ctx;
	rd_kafka_t *rk;
	rd_kafka_queue_t *queue;
	rd_kafka_topic_t *topics[2];
	int efd;
	size_t pending, record_max;
	bool is_full; /* on_room is owed */
	bool is_fatal; /* to be rebuilt after this poll */
};

static int out_open(struct kafka_out *out, char **ret_error)
{
	rd_kafka_conf_t *conf;
	char reason[256];
	uint64_t one = 1;
	int err = kafka_conf_make(out->opts, KAFKA_PRODUCER, &conf, ret_error);

	if (err)
		return err;
	rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG);
	rd_kafka_conf_set(conf, "log.queue", "true", NULL, 0);
	out->rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, reason, sizeof(reason));
	if (!out->rk) {
		rd_kafka_conf_destroy(conf);
		*ret_error = xasprintf("the Kafka producer cannot be made: %s", reason);
		return -ERR_INVALID;
	}
	out->queue = rd_kafka_queue_get_main(out->rk);
	rd_kafka_set_log_queue(out->rk, out->queue);
	rd_kafka_queue_io_event_enable(out->queue, out->efd, &one, sizeof(one));
	/* Making the topics now asks for their metadata, so that the first result is not late. */
	out->topics[KAFKA_RESULTS] = rd_kafka_topic_new(out->rk, out->opts->results_topic, NULL);
	if (*out->opts->dead_letter_topic)
		out->topics[KAFKA_DEAD_LETTERS] = rd_kafka_topic_new(out->rk, out->opts->dead_letter_topic, NULL);
	return 0;
}

static void out_close(struct kafka_out *out)
{
	if (out->topics[KAFKA_RESULTS])
		rd_kafka_topic_destroy(out->topics[KAFKA_RESULTS]);
	if (out->topics[KAFKA_DEAD_LETTERS])
		rd_kafka_topic_destroy(out->topics[KAFKA_DEAD_LETTERS]);
	out->topics[KAFKA_RESULTS] = out->topics[KAFKA_DEAD_LETTERS] = NULL;
	rd_kafka_queue_io_event_enable(out->queue, -1, NULL, 0);
	rd_kafka_queue_destroy(out->queue);
	kafka_destroy_later(out->helper, out->rk);
	out->rk = NULL;
}

static int map_error(rd_kafka_resp_err_t error, size_t bytes)
{
	switch (error) {
	case RD_KAFKA_RESP_ERR_NO_ERROR:
		return 0;
	case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
	case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
	case RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE:
		return bytes < SURELY_SMALL_BYTES ? -ERR_KAFKA : -ERR_KAFKA_TOO_LARGE;
	default:
		return -ERR_KAFKA;
	}
}

static void on_reports(struct kafka_out *out, rd_kafka_event_t *event)
{
	const rd_kafka_message_t *msg;

	while ((msg = rd_kafka_event_message_next(event))) {
		struct delivery *delivery = msg->_private;
		if (msg->err)
			log_debug(out->log, "not delivered", LOG_STR("error", rd_kafka_err2name(msg->err)),
				  LOG_NUM("bytes", msg->len));
		out->pending--;
		out->events->on_delivered(out->ctx, delivery, map_error(msg->err, msg->len));
	}
	if (out->is_full) {
		out->is_full = false;
		out->events->on_room(out->ctx);
	}
}

static void on_error(struct kafka_out *out, rd_kafka_event_t *event)
{
	char reason[512];

	if (rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR__FATAL || rd_kafka_fatal_error(out->rk, reason, sizeof(reason))) {
		if (!rd_kafka_fatal_error(out->rk, reason, sizeof(reason)))
			snprintf(reason, sizeof(reason), "%s", rd_kafka_event_error_string(event));
		log_warn(out->log, "the producer failed for good and is made anew", LOG_STR("detail", reason));
		out->is_fatal = true;
		return;
	}
	log_debug(out->log, "producer", LOG_STR("error", rd_kafka_event_error_string(event)));
}

static void serve(struct kafka_out *out, rd_kafka_event_t *event)
{
	switch (rd_kafka_event_type(event)) {
	case RD_KAFKA_EVENT_DR:
		on_reports(out, event);
		break;
	case RD_KAFKA_EVENT_ERROR:
		on_error(out, event);
		break;
	case RD_KAFKA_EVENT_LOG:
		kafka_log_event(out->log, event);
		break;
	default:
		break;
	}
	rd_kafka_event_destroy(event);
}

static bool poll_some(struct kafka_out *out)
{
	for (int i = 0; i < POLL_BUDGET; i++) {
		rd_kafka_event_t *event = rd_kafka_queue_poll(out->queue, 0);
		if (!event)
			return false;
		serve(out, event);
	}
	return true;
}

/* Everything in flight is given back as failed, then a new handle takes over. */
static void rebuild(struct kafka_out *out)
{
	char *error = NULL;

	out->is_fatal = false;
	rd_kafka_purge(out->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
	for (int i = 0; out->pending && i < 1000; i++) {
		rd_kafka_event_t *event = rd_kafka_queue_poll(out->queue, 10);
		if (event)
			serve(out, event);
	}
	out->is_fatal = false;
	out_close(out);
	if (out_open(out, &error)) {
		out->events->on_fatal(out->ctx, -ERR_KAFKA, error);
		free(error);
	}
}

static void on_readable(void *ctx, int fd)
{
	struct kafka_out *out = ctx;
	uint64_t count;

	if (read(fd, &count, sizeof(count)) < 0)
		count = 0;
	if (!out->rk)
		return;
	if (poll_some(out)) {
		uint64_t one = 1;
		if (write(fd, &one, sizeof(one)) < 0)
			return;
	}
	if (out->is_fatal)
		rebuild(out);
}

int kafka_out_new(struct loop *loop, struct helper *helper, struct metrics *metrics, struct log *log, const struct options *opts,
		  const struct kafka_out_events *events, void *ctx, struct kafka_out **ret_out, char **ret_error)
{
	struct kafka_out *out = xcalloc(1, sizeof(*out));
	char max[32];

	*out = (struct kafka_out){.loop = loop, .helper = helper, .metrics = metrics, .log = log, .opts = opts, .events = events, .ctx = ctx};
	out->efd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	int err = out_open(out, ret_error);
	if (err) {
		close(out->efd);
		free(out);
		return err;
	}
	kafka_conf_get(opts, KAFKA_PRODUCER, "message.max.bytes", max, sizeof(max));
	out->record_max = (size_t)atoll(max) - RECORD_MARGIN;
	loop_watch(loop, out->efd, on_readable, out);
	*ret_out = out;
	return 0;
}

int kafka_out_produce(struct kafka_out *out, struct delivery *delivery)
{
	rd_kafka_headers_t *headers = rd_kafka_headers_new(delivery->n_headers);

	if (!out->rk)
		return -ERR_FULL;
	for (size_t i = 0; i < delivery->n_headers; i++)
		rd_kafka_header_add(headers, delivery->headers[i].name, -1, delivery->headers[i].value.data,
				    (ssize_t)delivery->headers[i].value.len);
	rd_kafka_vu_t args[] = {
		{.vtype = RD_KAFKA_VTYPE_RKT, .u.rkt = out->topics[delivery->topic]},
		{.vtype = RD_KAFKA_VTYPE_KEY, .u.mem = {(void *)(uintptr_t)delivery->key.data, delivery->key.len}},
		{.vtype = RD_KAFKA_VTYPE_VALUE, .u.mem = {(void *)(uintptr_t)delivery->value.data, delivery->value.len}},
		{.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = 0},
		{.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = delivery},
		{.vtype = RD_KAFKA_VTYPE_HEADERS, .u.headers = headers},
	};
	rd_kafka_error_t *error = rd_kafka_produceva(out->rk, args, ARRAY_LEN(args));
	if (!error) {
		out->pending++;
		return 0;
	}
	rd_kafka_resp_err_t code = rd_kafka_error_code(error);
	log_debug(out->log, "not produced", LOG_STR("error", rd_kafka_error_string(error)));
	rd_kafka_error_destroy(error);
	rd_kafka_headers_destroy(headers);
	if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL) {
		out->is_full = true;
		return -ERR_FULL;
	}
	return map_error(code, SIZE_MAX);
}

size_t kafka_out_pending(const struct kafka_out *out)
{
	return out->pending;
}

size_t kafka_out_record_max(const struct kafka_out *out)
{
	return out->record_max;
}

void kafka_out_free(struct kafka_out *out)
{
	if (!out)
		return;
	loop_unwatch(out->loop, out->efd);
	if (out->rk) {
		rd_kafka_purge(out->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
		out_close(out);
	}
	close(out->efd);
	free(out);
}
