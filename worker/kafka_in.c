/* Happy path: kafka_in_new -> subscribe -> (kafka_group.c: assigned, begun) -> on_wake -> kafka_in_read ->
 * kafka_in_commit -> on_committed -> kafka_in_close -> kafka_in_free. The probe of kafka_probe.c says meanwhile what is
 * missing. */
#include "kafka_internal.h"

#include "clock.h"
#include "err.h"

#include <errno.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Also keeps max.poll.interval.ms from passing, and finds what a lost wake-up left. */
#define TICK_US (200 * US_PER_MS)
#define EVENTS_PER_TURN 256
#define FREE_WAIT_MS 2000
#define UNRELEASED_INSTANCE_ID 111 /* Kafka's number: librdkafka has it since 2.4 */

/* ---- events ---- */

/* The last failure of a connection, for kafka_in_state_detail. librdkafka's own errors are negative; that all brokers
 * are down only says that there was one. " (after 0ms in state CONNECT)" is for its developers. */
static void keep_broker_error(struct kafka_in *in, rd_kafka_resp_err_t err, const char *text)
{
	const char *end = strstr(text, " (after ");

	if (err < 0 && err != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
		snprintf(in->broker_error, sizeof(in->broker_error), "%.*s%s",
			 end ? (int)(end - text) : (int)strlen(text), text, kafka_conf_hint(text));
}

static void on_error(struct kafka_in *in, const char *who, rd_kafka_event_t *ev)
{
	rd_kafka_resp_err_t err = rd_kafka_event_error(ev);
	const char *text = rd_kafka_event_error_string(ev);

	kafka_log_error(in->log, &in->errors, who, ev, loop_now_us(in->loop));
	keep_broker_error(in, err, text);
	if (kafka_is_refusal(err))
		kafka_in_suspect(in);
	if (!rd_kafka_event_error_is_fatal(ev))
		return;
	in->is_member = false;
	/* With KIP-848 the name stays with the one that has it. */
	bool is_fenced = err == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID || (int)err == UNRELEASED_INSTANCE_ID;
	in->events->on_fatal(in->ctx, is_fenced ? -ERR_KAFKA_FENCED : -ERR_KAFKA,
			     is_fenced ? "another process has the same kafka.group.instance.id" : text);
}

/* Takes ev. */
static void on_event(struct kafka_in *in, const char *who, rd_kafka_event_t *ev)
{
	switch (rd_kafka_event_type(ev)) {
	case RD_KAFKA_EVENT_REBALANCE:
		kafka_group_on_rebalance(in, ev);
		return;
	case RD_KAFKA_EVENT_OFFSET_COMMIT:
		kafka_group_on_commit(in, ev);
		break;
	case RD_KAFKA_EVENT_LISTCONSUMERGROUPOFFSETS_RESULT:
		/* The opaque tells who asked. */
		if (rd_kafka_event_opaque(ev) == &in->plan_timer)
			kafka_plan_on_offsets(in, ev);
		else
			kafka_group_on_offsets(in, ev);
		break;
	case RD_KAFKA_EVENT_ERROR:
		on_error(in, who, ev);
		break;
	case RD_KAFKA_EVENT_LOG:
		kafka_log_event(in->log, ev);
		break;
	default:
		break;
	}
	rd_kafka_event_destroy(ev);
}

/* The group's queue is polled until it is empty or the turn's budget is gone; then the loop comes back. */
static bool serve_queue(struct kafka_in *in, rd_kafka_queue_t *queue, const char *who, int *budget)
{
	rd_kafka_event_t *ev;

	while (queue && *budget > 0 && (ev = rd_kafka_queue_poll(queue, 0))) {
		--*budget;
		on_event(in, who, ev);
	}
	return *budget > 0;
}

static void wake_self(struct kafka_in *in)
{
	uint64_t one = 1;

	if (write(in->fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN || errno == EINTR);
}

static void serve(struct kafka_in *in)
{
	int budget = EVENTS_PER_TURN;

	in->polled_us = loop_now_us(in->loop);
	if (!serve_queue(in, in->queue, "consumer", &budget) ||
	    !serve_queue(in, in->close_queue, "consumer", &budget) ||
	    !serve_queue(in, in->admin_queue, "admin", &budget))
		wake_self(in);
	kafka_group_tick(in);
	if (in->is_closing && !in->is_closed && (in->has_no_group || rd_kafka_consumer_closed(in->rk))) {
		in->is_closed = true;
		in->on_closed(in->on_closed_ctx);
		return;
	}
	in->events->on_wake(in->ctx);
}

static void on_fd(void *ctx, int fd)
{
	uint64_t count;

	/* A hint only: what is there is found by polling. */
	if (read(fd, &count, sizeof(count)) < 0)
		assert(errno == EAGAIN || errno == EINTR);
	serve(ctx);
}

static void on_tick(void *ctx)
{
	struct kafka_in *in = ctx;

	loop_timer_set(&in->tick, loop_now_us(in->loop) + TICK_US);
	serve(in);
}

/* ---- the start ---- */

static int subscribe(struct kafka_in *in, char **ret_error)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)in->n_job_topics);

	for (size_t i = 0; i < in->n_job_topics; i++)
		rd_kafka_topic_partition_list_add(list, rd_kafka_topic_name(in->topics[i]), RD_KAFKA_PARTITION_UA);
	rd_kafka_resp_err_t err = rd_kafka_subscribe(in->rk, list);
	rd_kafka_topic_partition_list_destroy(list);
	if (!err)
		return 0;
	*ret_error = xasprintf("jobs.topic cannot be subscribed to: %s", rd_kafka_err2str(err));
	return -ERR_KAFKA;
}

static int consumer_new(struct kafka_in *in, char **ret_error)
{
	rd_kafka_conf_t *conf = NULL;
	int err = kafka_conf_make(in->opts, KAFKA_CONSUMER, &conf, ret_error);

	if (err)
		return err;
	if (in->plan)
		kafka_handle_set(conf, "enable.partition.eof", "true");
	err = kafka_handle_new(RD_KAFKA_CONSUMER, conf, RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_OFFSET_COMMIT,
			       &in->rk, ret_error);
	if (err)
		return err;
	/* Errors and logs too come by the group's queue. */
	rd_kafka_poll_set_consumer(in->rk);
	in->queue = rd_kafka_queue_get_consumer(in->rk);
	rd_kafka_set_log_queue(in->rk, in->queue);
	kafka_queue_watch(in->queue, in->fd);
	return 0;
}

/* Asks for offsets and metadata with the consumer's own credentials. It never subscribes, so it is nobody's member, and
 * no fetch ever stands before its requests. It has the group's name all the same: on a handle without one librdkafka
 * ends the process when the coordinator has moved (its issue 5040). */
static int admin_new(struct kafka_in *in, char **ret_error)
{
	rd_kafka_conf_t *conf = NULL;
	int err = kafka_conf_make(in->opts, KAFKA_CONSUMER, &conf, ret_error);

	if (err)
		return err;
	err = kafka_handle_new(RD_KAFKA_CONSUMER, conf, 0, &in->admin, ret_error);
	if (err)
		return err;
	in->admin_queue = rd_kafka_queue_get_main(in->admin);
	rd_kafka_set_log_queue(in->admin, in->admin_queue);
	kafka_queue_watch(in->admin_queue, in->fd);
	return 0;
}

static void copy_plan(struct kafka_in *in, const struct kafka_range *plan, size_t n)
{
	if (!n)
		return;
	in->plan = xcalloc(n, sizeof(*in->plan));
	in->n_plan = n;
	for (size_t i = 0; i < n; i++) {
		in->plan[i] = plan[i];
		in->plan[i].topic = xstrdup(plan[i].topic);
	}
}

int kafka_in_new(struct loop *loop, struct helper *helper, struct metrics *metrics, struct log *log,
		 const struct options *opts, const struct kafka_range *plan, size_t n_plan,
		 const struct kafka_in_events *events, void *ctx, struct kafka_in **ret_in, char **ret_error)
{
	struct kafka_in *in = xcalloc(1, sizeof(*in));

	*in = (struct kafka_in){.loop = loop,
				.helper = helper,
				.metrics = metrics,
				.log = log,
				.opts = opts,
				.events = events,
				.ctx = ctx,
				.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
	if (in->fd < 0)
		abort();
	list_init(&in->parts);
	copy_plan(in, plan, n_plan);
	kafka_conf_group(opts, in->group, sizeof(in->group));
	in->is_broker_assigned = kafka_conf_is_broker_assigned(opts);
	loop_timer_init(loop, &in->tick, on_tick, in);
	loop_timer_init(loop, &in->ask, kafka_group_ask, in);
	loop_timer_init(loop, &in->plan_timer, kafka_plan_ask, in);
	loop_watch(loop, in->fd, on_fd, in);
	int err = consumer_new(in, ret_error);
	if (!err)
		err = admin_new(in, ret_error);
	if (!err)
		err = kafka_probe_init(in, ret_error);
	if (!err)
		err = subscribe(in, ret_error);
	if (err) {
		kafka_in_free(in);
		return err;
	}
	in->polled_us = loop_now_us(loop);
	loop_timer_set(&in->tick, in->polled_us);
	if (in->plan)
		loop_timer_set(&in->plan_timer, in->polled_us);
	*ret_in = in;
	return 0;
}

/* ---- reading ---- */

static void clear_batch(struct kafka_in *in)
{
	for (size_t i = 0; i < in->n_batch; i++)
		rd_kafka_message_destroy(in->batch[i]);
	in->n_batch = 0;
}

/* What comes instead of a record. */
static void on_message_error(struct kafka_part *part, const rd_kafka_message_t *msg)
{
	struct kafka_in *in = part->in;

	if (msg->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
		/* A range that ends in a transaction marker has no record there: only this tells. */
		if (msg->offset >= part->stop)
			part->is_at_stop = true;
		return;
	}
	if (kafka_is_refusal(msg->err))
		kafka_in_suspect(in);
	log_warn(in->log, "partition cannot be read", LOG_STR("topic", part->topic),
		 LOG_NUM("partition", part->partition), LOG_STR("code", rd_kafka_err2name(msg->err)),
		 LOG_STR("detail", rd_kafka_message_errstr(msg)));
}

/* Is it a record that the owner gets? */
static bool is_record(struct kafka_part *part, const rd_kafka_message_t *msg)
{
	if (msg->err) {
		on_message_error(part, msg);
		return false;
	}
	if (msg->offset >= part->stop)
		part->is_at_stop = true;
	return msg->offset >= part->start && msg->offset < part->stop;
}

static size_t count_headers(const rd_kafka_message_t *msg)
{
	rd_kafka_headers_t *headers;

	return rd_kafka_message_headers(msg, &headers) ? 0 : rd_kafka_header_cnt(headers);
}

static size_t copy_headers(const rd_kafka_message_t *msg, struct record_header *out)
{
	rd_kafka_headers_t *headers;
	const void *value;
	size_t n = 0;

	if (rd_kafka_message_headers(msg, &headers))
		return 0;
	while (!rd_kafka_header_get_all(headers, n, &out[n].name, &value, &out[n].value.len)) {
		out[n].value.data = value;
		n++;
	}
	return n;
}

/* The rows of all headers of the batch are one array, so it is sized before it is pointed into. */
static size_t fill_records(struct kafka_part *part, struct record *out)
{
	struct kafka_in *in = part->in;
	size_t n = 0, n_headers = 0;

	for (size_t i = 0; i < in->n_batch; i++)
		n_headers += in->batch[i]->err ? 0 : count_headers(in->batch[i]);
	if (n_headers > in->headers_cap) {
		in->headers_cap = n_headers;
		in->headers = xrealloc(in->headers, n_headers * sizeof(*in->headers));
	}
	n_headers = 0;
	for (size_t i = 0; i < in->n_batch; i++) {
		const rd_kafka_message_t *msg = in->batch[i];
		if (!is_record(part, msg))
			continue;
		struct record_header *headers = in->headers ? in->headers + n_headers : NULL;
		out[n] = (struct record){.topic = part->topic,
					 .partition = part->partition,
					 .offset = msg->offset,
					 .timestamp_ms = rd_kafka_message_timestamp(msg, NULL),
					 .key = {msg->key, msg->key ? msg->key_len : 0},
					 .value = {msg->payload, msg->payload ? msg->len : 0},
					 .headers = headers,
					 .n_headers = headers ? copy_headers(msg, headers) : 0};
		n_headers += out[n++].n_headers;
	}
	return n;
}

size_t kafka_in_read(struct kafka_part *part, struct record *out, size_t max)
{
	struct kafka_in *in = part->in;
	size_t n = 0;

	/* Again when a batch held only what is no record: 0 must mean that the queue is empty. */
	while (n == 0) {
		clear_batch(in);
		if (!part->has_begun || part->is_at_stop)
			return 0;
		ssize_t got = rd_kafka_consume_batch_queue(part->queue, 0, in->batch, MIN(max, KAFKA_BATCH_MAX));
		if (got <= 0)
			return 0;
		in->n_batch = (size_t)got;
		n = fill_records(part, out);
	}
	return n;
}

/* ---- commit ---- */

rd_kafka_topic_partition_list_t *kafka_commit_list(const struct kafka_commit *rows, size_t n)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)n);

	for (size_t i = 0; i < n; i++) {
		rd_kafka_topic_partition_t *row =
		    rd_kafka_topic_partition_list_add(list, rows[i].part->topic, rows[i].part->partition);
		row->offset = rows[i].offset;
		row->metadata_size = rows[i].metadata ? strlen(rows[i].metadata) : 0;
		row->metadata = row->metadata_size ? xstrdup(rows[i].metadata) : NULL; /* freed with the list */
	}
	return list;
}

int kafka_in_commit(struct kafka_in *in, const struct kafka_commit *rows, size_t n)
{
	rd_kafka_topic_partition_list_t *list = kafka_commit_list(rows, n);

	assert(!in->is_committing);
	/* The opaque tells our commits' answers from any other. */
	rd_kafka_resp_err_t err = rd_kafka_commit_queue(in->rk, list, in->queue, NULL, in);
	rd_kafka_topic_partition_list_destroy(list);
	in->is_committing = !err;
	return err ? -ERR_KAFKA : 0;
}

/* ---- questions ---- */

const char *kafka_part_topic(const struct kafka_part *part)
{
	return part->topic;
}

int32_t kafka_part_partition(const struct kafka_part *part)
{
	return part->partition;
}

void kafka_part_set_ctx(struct kafka_part *part, void *ctx)
{
	part->ctx = ctx;
}

void *kafka_part_ctx(const struct kafka_part *part)
{
	return part->ctx;
}

void kafka_part_watermarks(const struct kafka_part *part, int64_t *ret_start, int64_t *ret_end)
{
	int64_t start = -1, end = -1;

	if (rd_kafka_get_watermark_offsets(part->in->rk, part->topic, part->partition, &start, &end))
		start = end = -1;
	*ret_start = MAX(start, -1); /* unknown is RD_KAFKA_OFFSET_INVALID there */
	*ret_end = MAX(end, -1);
}

bool kafka_part_is_at_stop(const struct kafka_part *part)
{
	return part->is_at_stop;
}

int64_t kafka_part_stop(const struct kafka_part *part)
{
	return part->stop;
}

enum kafka_state kafka_in_state(const struct kafka_in *in)
{
	return in->state;
}

const char *kafka_in_state_detail(const struct kafka_in *in)
{
	return in->detail;
}

bool kafka_in_is_member(const struct kafka_in *in)
{
	return in->is_member;
}

int64_t kafka_in_polled_us(const struct kafka_in *in)
{
	return in->polled_us;
}

/* ---- the end ---- */

void kafka_in_close(struct kafka_in *in, loop_fn on_closed, void *ctx)
{
	assert(!in->is_closing);
	in->is_closing = true;
	in->on_closed = on_closed;
	in->on_closed_ctx = ctx;
	/* A queue of its own: the group's queue is forwarded to it, and may not be to itself. */
	in->close_queue = rd_kafka_queue_new(in->rk);
	kafka_queue_watch(in->close_queue, in->fd);
	rd_kafka_error_t *error = rd_kafka_consumer_close_queue(in->rk, in->close_queue);
	if (!error)
		return;
	/* A fatal error came before: there is nothing to leave any more. */
	in->has_no_group = true;
	log_warn(in->log, "the group cannot be left", LOG_STR("detail", rd_kafka_error_string(error)));
	rd_kafka_error_destroy(error);
}

static void free_memory(struct kafka_in *in)
{
	for (size_t i = 0; i < in->n_plan; i++)
		free((char *)(uintptr_t)in->plan[i].topic);
	free(in->plan);
	free(in->headers);
	free(in);
}

void kafka_in_free(struct kafka_in *in)
{
	rd_kafka_t *rks[2];
	size_t n = 0;

	if (!in)
		return;
	loop_timer_done(&in->tick);
	loop_timer_done(&in->ask);
	loop_timer_done(&in->plan_timer);
	loop_unwatch(in->loop, in->fd);
	clear_batch(in);
	kafka_group_done(in);
	kafka_queue_drop(&in->close_queue);
	kafka_queue_drop(&in->queue);
	kafka_queue_drop(&in->admin_queue);
	if (!kafka_probe_done(in, FREE_WAIT_MS))
		return; /* the helper is still in it: all is left to the exit */
	if (in->rk)
		rks[n++] = in->rk;
	if (in->admin)
		rks[n++] = in->admin;
	if (n && !kafka_destroy(rks, n, FREE_WAIT_MS))
		log_warn(in->log, "the Kafka client does not end, it is left to the exit");
	close(in->fd);
	free_memory(in);
}
