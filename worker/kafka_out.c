/* Happy path: kafka_out_produce -> the broker acknowledges -> DR event -> on_delivered(0).
 * A batch that the broker refuses for its size says nothing about any one record in it, and all of them come back. They
 * are produced again on a second handle that sends one record per batch: what is refused there is too large itself. To
 * make that rare, the results topic's max.message.bytes is asked for, and kafka_out_record_max tells it to the encoder.
 * A fatal error: everything in flight is purged, which answers it, and a new handle takes over. */
#include "kafka_out.h"

#include "clock.h"
#include "err.h"
#include "kafka_out_internal.h"

#include <errno.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define TICK_US US_PER_S
#define EVENTS_PER_TURN 64
#define DESCRIBE_TIMEOUT_MS 2000
#define DESCRIBE_AGAIN_US (10 * US_PER_S)
#define DESCRIBE_FRESH_US (300 * US_PER_S) /* somebody may have changed it */
#define REBUILD_AGAIN_US US_PER_S
/* While the broker's ACLs refuse it: each time the log has three lines, and exactly once what was fetched is fetched again. */
#define REBUILD_DENIED_US (5 * US_PER_S)
#define WARM_TIMEOUT_MS 1500
#define FREE_WAIT_MS 2000
/* A batch's own header (61 bytes), a record's (at most 36), and a rest. */
#define FRAMING_BYTES 128
/* ---- handles ---- */

/* The first record for a topic waits for its metadata, for up to a second when nobody asked. */
static void warm_run(void *ctx)
{
	struct producer *prod = ctx;
	const struct rd_kafka_metadata *md;

	for (size_t i = 0; i < N_TOPICS && prod->topics[i]; i++) {
		if (rd_kafka_metadata(prod->rk, 0, prod->topics[i], &md, WARM_TIMEOUT_MS))
			return; /* no broker: librdkafka asks again by itself */
		rd_kafka_metadata_destroy(md);
	}
}

static void warm_done(void *ctx)
{
	struct producer *prod = ctx;

	prod->is_warming = false;
}

static const char *topic_name(const struct kafka_out *out, size_t topic)
{
	return topic == KAFKA_RESULTS ? out->opts->results_topic : out->opts->dead_letter_topic;
}

static int producer_new(struct kafka_out *out, bool is_lone, struct producer **ret_prod, char **ret_error)
{
	rd_kafka_conf_t *conf = NULL;
	rd_kafka_t *rk = NULL;
	int err = kafka_conf_make(out->opts, KAFKA_PRODUCER, &conf, ret_error);

	if (err)
		return err;
	if (is_lone)
		kafka_handle_set(conf, "batch.num.messages", "1");
	if (out->txn.state != TXN_OFF)
		kafka_handle_set(conf, "transactional.id", out->transactional_id);
	err = kafka_handle_new(RD_KAFKA_PRODUCER, conf, RD_KAFKA_EVENT_DR, &rk, ret_error);
	if (err)
		return err;
	struct producer *prod = xcalloc(1, sizeof(*prod));
	*prod = (struct producer){.out = out, .rk = rk, .queue = rd_kafka_queue_get_main(rk), .is_lone = is_lone};
	rd_kafka_set_log_queue(rk, prod->queue);
	kafka_queue_watch(prod->queue, out->fd);
	for (size_t i = 0; i < N_TOPICS; i++)
		if (*topic_name(out, i))
			prod->topics[i] = rd_kafka_topic_new(rk, topic_name(out, i), NULL);
	list_push(&out->producers, &prod->node);
	prod->warm = (struct helper_job){.run = warm_run, .done = warm_done, .ctx = prod};
	prod->is_warming = true;
	helper_submit(out->helper, &prod->warm);
	if (out->txn.state != TXN_OFF)
		txn_start(out, prod);
	*ret_prod = prod;
	return 0;
}

/* Gives back all but the handle itself, which is returned. */
static rd_kafka_t *producer_done(struct producer *prod)
{
	rd_kafka_t *rk = prod->rk;

	list_remove(&prod->node);
	kafka_queue_drop(&prod->queue);
	for (size_t i = 0; i < N_TOPICS; i++)
		if (prod->topics[i])
			rd_kafka_topic_destroy(prod->topics[i]);
	free(prod);
	return rk;
}

void producer_retire(struct kafka_out *out, struct producer *prod, const char *detail)
{
	if (prod->is_retired)
		return;
	log_warn(out->log, "Kafka producer failed for good, a new one is made", LOG_NUM("in_flight", prod->pending),
		 LOG_STR("detail", detail));
	prod->is_retired = true;
	if (out->main == prod) {
		out->main = NULL;
		out->describe_at_us = 0; /* its answer may not come any more */
		txn_on_broken(out);
	}
	if (out->lone == prod)
		out->lone = NULL;
	rd_kafka_purge(prod->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT | RD_KAFKA_PURGE_F_NON_BLOCKING);
}

static void sweep_retired(struct kafka_out *out)
{
	LIST_EACH (&out->producers, prod, struct producer, node) {
		if (prod->is_retired && !prod->pending && !prod->is_warming && !out->txn.is_busy) {
			rd_kafka_t *rk = producer_done(prod);
			kafka_destroy(&rk, 1, 0);
		}
	}
}

bool kafka_out_take_suspicion(struct kafka_out *out)
{
	bool is_suspicious = out->is_suspicious;

	out->is_suspicious = false;
	return is_suspicious;
}

const char *kafka_out_refused_id(const struct kafka_out *out)
{
	return out->txn.is_id_refused ? out->transactional_id : NULL;
}

void kafka_out_deny(struct kafka_out *out, bool is_denied)
{
	out->is_denied = is_denied;
}

static int64_t rebuild_at_us(const struct kafka_out *out)
{
	return out->rebuilt_us ? out->rebuilt_us + (out->is_denied ? REBUILD_DENIED_US : REBUILD_AGAIN_US) : 0;
}

/* The main or the lone handle, made when there is none, but never more than one a second. NULL: not now. */
static struct producer *producer_get(struct kafka_out *out, bool is_lone)
{
	struct producer **slot = is_lone ? &out->lone : &out->main;
	int64_t now_us = loop_now_us(out->loop);
	char *error = NULL;

	if (*slot || now_us < rebuild_at_us(out))
		return *slot;
	/* Of transactions the old one goes first. */
	if (out->txn.state != TXN_OFF && !list_empty(&out->producers))
		return NULL;
	out->rebuilt_us = now_us;
	if (producer_new(out, is_lone, slot, &error)) {
		log_error(out->log, "Kafka producer cannot be made", LOG_STR("detail", error));
		free(error);
	}
	return *slot;
}

/* ---- how large may a record be ---- */

static void ask_topic_max(struct kafka_out *out)
{
	char text[256];

	if (!out->main || loop_now_us(out->loop) < out->describe_at_us)
		return;
	rd_kafka_ConfigResource_t *topic =
	    rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, out->opts->results_topic);
	rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(out->main->rk, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
	if (rd_kafka_AdminOptions_set_request_timeout(options, DESCRIBE_TIMEOUT_MS, text, sizeof(text)))
		log_debug(out->log, "Kafka request time-out refused", LOG_STR("detail", text));
	rd_kafka_DescribeConfigs(out->main->rk, &topic, 1, options, out->main->queue);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_ConfigResource_destroy(topic);
	out->describe_at_us = INT64_MAX;
}

static size_t find_topic_max(const rd_kafka_ConfigResource_t *topic)
{
	size_t n = 0;
	const rd_kafka_ConfigEntry_t **entries = rd_kafka_ConfigResource_configs(topic, &n);

	for (size_t i = 0; i < n; i++) {
		const char *value = rd_kafka_ConfigEntry_value(entries[i]);
		if (value && strcmp(rd_kafka_ConfigEntry_name(entries[i]), "max.message.bytes") == 0)
			return (size_t)strtoull(value, NULL, 10);
	}
	return 0;
}

/* Not allowed, not there yet or no broker: it is only a help, so it is asked again later. */
static void on_described(struct kafka_out *out, rd_kafka_event_t *ev)
{
	const rd_kafka_DescribeConfigs_result_t *result = rd_kafka_event_DescribeConfigs_result(ev);
	size_t n = 0, topic_max = 0;
	const rd_kafka_ConfigResource_t **topics =
	    result ? rd_kafka_DescribeConfigs_result_resources(result, &n) : NULL;

	if (!rd_kafka_event_error(ev) && n && !rd_kafka_ConfigResource_error(topics[0]))
		topic_max = find_topic_max(topics[0]);
	if (topic_max) {
		out->topic_max = topic_max;
		out->describe_at_us = loop_now_us(out->loop) + DESCRIBE_FRESH_US;
	} else {
		const char *reason = n ? rd_kafka_ConfigResource_error_string(topics[0]) : NULL;
		log_debug(out->log, "the results topic's max.message.bytes is not known",
			  LOG_STR("detail", reason ? reason : rd_kafka_event_error_string(ev)));
		out->describe_at_us = loop_now_us(out->loop) + DESCRIBE_AGAIN_US;
	}
}

/* The limit that we know may not be the one in force. */
static void describe_soon(struct kafka_out *out)
{
	out->describe_at_us = MIN(out->describe_at_us, loop_now_us(out->loop) + (out->topic_max ? US_PER_S : 0));
}

size_t kafka_out_record_max(const struct kafka_out *out)
{
	size_t max = out->message_max;

	if (out->topic_max)
		max = MIN(max, out->topic_max);
	return max > FRAMING_BYTES ? max - FRAMING_BYTES : 0;
}

/* ---- producing ---- */

static size_t record_bytes(const struct delivery *dlv)
{
	size_t bytes = dlv->key.len + dlv->value.len;

	for (size_t i = 0; i < dlv->n_headers; i++)
		bytes += strlen(dlv->headers[i].name) + dlv->headers[i].value.len + 10; /* two varints */
	return bytes;
}

static rd_kafka_headers_t *make_headers(const struct delivery *dlv)
{
	rd_kafka_headers_t *headers = rd_kafka_headers_new(dlv->n_headers);

	for (size_t i = 0; i < dlv->n_headers; i++) {
		const struct record_header *row = &dlv->headers[i];
		if (rd_kafka_header_add(headers, row->name, -1, row->value.data, (ssize_t)row->value.len))
			abort(); /* only for read-only headers */
	}
	return headers;
}

static int map_error(rd_kafka_resp_err_t err)
{
	switch (err) {
	case RD_KAFKA_RESP_ERR_NO_ERROR:
		return 0;
	case RD_KAFKA_RESP_ERR__QUEUE_FULL:
		return -ERR_FULL;
	case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
	case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
	case RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE:
		return -ERR_KAFKA_TOO_LARGE;
	default:
		return -ERR_KAFKA;
	}
}

static int produce_on(struct producer *prod, struct delivery *dlv)
{
	rd_kafka_headers_t *headers = dlv->n_headers ? make_headers(dlv) : NULL;
	/* Neither copied nor freed by librdkafka, and not written to; its type is not const. */
	void *key = (void *)(uintptr_t)dlv->key.data, *value = (void *)(uintptr_t)dlv->value.data;
	rd_kafka_resp_err_t err;

	if (headers)
		err = rd_kafka_producev(prod->rk, RD_KAFKA_V_RKT(prod->topics[dlv->topic]),
					RD_KAFKA_V_KEY(key, dlv->key.len), RD_KAFKA_V_VALUE(value, dlv->value.len),
					RD_KAFKA_V_MSGFLAGS(0), RD_KAFKA_V_OPAQUE(dlv), RD_KAFKA_V_HEADERS(headers),
					RD_KAFKA_V_END);
	else
		err = rd_kafka_producev(prod->rk, RD_KAFKA_V_RKT(prod->topics[dlv->topic]),
					RD_KAFKA_V_KEY(key, dlv->key.len), RD_KAFKA_V_VALUE(value, dlv->value.len),
					RD_KAFKA_V_MSGFLAGS(0), RD_KAFKA_V_OPAQUE(dlv), RD_KAFKA_V_END);
	if (err) {
		if (headers)
			rd_kafka_headers_destroy(headers);
		return map_error(err);
	}
	prod->pending++;
	prod->out->pending++;
	return 0;
}

int kafka_out_produce(struct kafka_out *out, struct delivery *dlv)
{
	struct producer *prod = producer_get(out, false);

	bool is_txn = out->txn.state != TXN_OFF;

	if (!is_txn && (!prod || !prod->topics[dlv->topic]))
		return -ERR_KAFKA;
	if (record_bytes(dlv) + FRAMING_BYTES > out->message_max)
		return -ERR_KAFKA_TOO_LARGE;
	/* A refusal would cost the whole transaction. The limit may be gone by now, which only a question can tell. */
	if (is_txn && dlv->topic == KAFKA_RESULTS && record_bytes(dlv) > kafka_out_record_max(out)) {
		describe_soon(out);
		return -ERR_KAFKA_TOO_LARGE;
	}
	int err = is_txn && (!prod || !txn_admits(out, dlv)) ? -ERR_FULL : produce_on(prod, dlv);
	if (is_txn && err == -ERR_KAFKA) {
		kafka_out_abort(out);
		err = -ERR_FULL;
	}
	out->was_full |= err == -ERR_FULL;
	return err;
}

/* ---- deliveries ---- */

/* Is it tried once more by itself? */
static bool produce_lone(struct kafka_out *out, struct delivery *dlv)
{
	struct producer *prod = producer_get(out, true);

	describe_soon(out);
	return prod && produce_on(prod, dlv) == 0;
}

/* librdkafka takes a batch that was refused, and is about to be sent again, for delivered once a later one is: the broker would
 * not have taken that out of sequence. But it does when it knows nothing of this producer yet, as in a topic that is just
 * being made (seen with 2.8 and Kafka 4.1: four results lost). What was really acknowledged has an offset. */
static bool is_only_inferred(const struct kafka_out *out, const rd_kafka_message_t *msg)
{
	return out->is_idempotent && !msg->err && msg->offset < 0;
}

static void on_delivery(struct kafka_out *out, struct producer *prod, const rd_kafka_message_t *msg)
{
	struct delivery *dlv = msg->_private;
	int err = is_only_inferred(out, msg) ? -ERR_KAFKA : map_error(msg->err);

	prod->pending--;
	out->pending--;
	out->is_suspicious |= kafka_is_refusal(msg->err);
	if (out->txn.state != TXN_OFF) {
		/* Of a whole batch it is not known which one is too large: then all go out again, one at a time. */
		if (err == -ERR_KAFKA_TOO_LARGE && (out->txn.wants_care || !txn_is_careful(out))) {
			out->txn.wants_care = true;
			err = -ERR_KAFKA;
			describe_soon(out);
		}
		if (err)
			kafka_out_abort(out);
	} else if (err == -ERR_KAFKA_TOO_LARGE && !prod->is_lone) {
		if (produce_lone(out, dlv))
			return;
		err = -ERR_KAFKA; /* not known yet: the owner tries again */
	}
	out->events->on_delivered(out->ctx, dlv, err == -ERR_FULL ? -ERR_KAFKA : err);
}

void kafka_out_say_room(struct kafka_out *out)
{
	if (!out->was_full)
		return;
	out->was_full = false;
	out->events->on_room(out->ctx);
}

static void on_deliveries(struct kafka_out *out, struct producer *prod, rd_kafka_event_t *ev)
{
	const rd_kafka_message_t *msg;

	while ((msg = rd_kafka_event_message_next(ev)))
		on_delivery(out, prod, msg);
	kafka_out_say_room(out);
}

/* ---- events ---- */

static void on_event(struct kafka_out *out, struct producer *prod, rd_kafka_event_t *ev)
{
	switch (rd_kafka_event_type(ev)) {
	case RD_KAFKA_EVENT_DR:
		on_deliveries(out, prod, ev);
		break;
	case RD_KAFKA_EVENT_DESCRIBECONFIGS_RESULT:
		on_described(out, ev);
		break;
	case RD_KAFKA_EVENT_ERROR:
		kafka_log_error(out->log, &out->errors, "producer", ev, loop_now_us(out->loop));
		out->is_suspicious |= kafka_is_refusal(rd_kafka_event_error(ev));
		if (rd_kafka_event_error(ev) == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
			out->events->on_cut_off(out->ctx);
		if (rd_kafka_event_error_is_fatal(ev))
			producer_retire(out, prod, rd_kafka_event_error_string(ev));
		break;
	case RD_KAFKA_EVENT_LOG:
		kafka_log_event(out->log, ev);
		break;
	default:
		break;
	}
	rd_kafka_event_destroy(ev);
}

static void serve(struct kafka_out *out)
{
	int budget = EVENTS_PER_TURN;
	rd_kafka_event_t *ev;
	uint64_t one = 1;

	LIST_EACH (&out->producers, prod, struct producer, node) {
		while (budget > 0 && (ev = rd_kafka_queue_poll(prod->queue, 0))) {
			budget--;
			on_event(out, prod, ev);
		}
	}
	sweep_retired(out);
	/* There may be more: the loop comes back after its other work. */
	if (!budget && write(out->fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN || errno == EINTR);
}

static void on_fd(void *ctx, int fd)
{
	uint64_t count;

	/* A hint only: what is there is found by polling. */
	if (read(fd, &count, sizeof(count)) < 0)
		assert(errno == EAGAIN || errno == EINTR);
	serve(ctx);
}

/* Finds what a lost wake-up left, and what is due. */
static void on_tick(void *ctx)
{
	struct kafka_out *out = ctx;

	loop_timer_set(&out->tick, loop_now_us(out->loop) + TICK_US);
	serve(out);
	producer_get(out, false);
	txn_tick(out);
	ask_topic_max(out);
}

/* ---- the start and the end ---- */

static size_t conf_number(const struct options *opts, const char *name)
{
	char text[32];

	return kafka_conf_get(opts, KAFKA_PRODUCER, name, text, sizeof(text)) ? (size_t)strtoull(text, NULL, 10) : 0;
}

static bool conf_is_on(const struct options *opts, const char *name)
{
	char text[32];

	return kafka_conf_get(opts, KAFKA_PRODUCER, name, text, sizeof(text)) && strcmp(text, "true") == 0;
}

int kafka_out_new(struct loop *loop, struct helper *helper, struct metrics *metrics, struct log *log,
		  const struct options *opts, const char *instance, const struct kafka_out_events *events, void *ctx,
		  struct kafka_out **ret_out, char **ret_error)
{
	struct kafka_out *out = xcalloc(1, sizeof(*out));

	*out = (struct kafka_out){.loop = loop,
				  .helper = helper,
				  .metrics = metrics,
				  .log = log,
				  .opts = opts,
				  .events = events,
				  .ctx = ctx,
				  .fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
	if (out->fd < 0)
		abort();
	list_init(&out->producers);
	if (opts->delivery == DELIVERY_EXACTLY_ONCE) {
		char group[256];
		kafka_conf_group(opts, group, sizeof(group));
		out->transactional_id = xasprintf("%s-%s", group, instance);
		out->txn.state = TXN_INIT;
	}
	loop_timer_init(loop, &out->tick, on_tick, out);
	loop_watch(loop, out->fd, on_fd, out);
	int err = producer_new(out, false, &out->main, ret_error);
	if (err) {
		kafka_out_free(out);
		return err;
	}
	out->message_max = conf_number(opts, "message.max.bytes");
	out->is_idempotent = conf_is_on(opts, "enable.idempotence");
	out->txn.timeout_us = (int64_t)conf_number(opts, "transaction.timeout.ms") * US_PER_MS;
	loop_timer_set(&out->tick, loop_now_us(loop));
	*ret_out = out;
	return 0;
}

size_t kafka_out_pending(const struct kafka_out *out)
{
	return out->pending;
}

void kafka_out_purge(struct kafka_out *out)
{
	LIST_EACH (&out->producers, prod, struct producer, node)
		rd_kafka_purge(prod->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_NON_BLOCKING);
}

void kafka_out_free(struct kafka_out *out)
{
	rd_kafka_t *rks[8];
	size_t n = 0;
	bool is_any_left = false;

	if (!out)
		return;
	loop_timer_done(&out->tick);
	loop_unwatch(out->loop, out->fd);
	is_any_left = !txn_done(out, FREE_WAIT_MS);
	LIST_EACH (&out->producers, prod, struct producer, node) {
		/* The helper is still in it, or there are more than ever should be: left to the exit. */
		if (is_any_left || n == ARRAY_LEN(rks) ||
		    (prod->is_warming && !helper_cancel(out->helper, &prod->warm, FREE_WAIT_MS)))
			is_any_left = true;
		else
			rks[n++] = producer_done(prod);
	}
	if (n && !kafka_destroy(rks, n, FREE_WAIT_MS))
		log_warn(out->log, "the Kafka producer does not end, it is left to the exit");
	/* A handle that is left may still signal. */
	if (is_any_left)
		return;
	close(out->fd);
	free(out->transactional_id);
	free(out);
}
