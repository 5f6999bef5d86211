#include "kafka_in.h"

#include "clock.h"
#include "err.h"
#include "kafka_conf.h"
#include "kafka_internal.h"
#include "list.h"

#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define READ_MAX 256
#define EVENT_BUDGET 64
#define TICK_US (200 * US_PER_MS)
#define SET_ASK_AGAIN_US (200 * US_PER_MS)
#define SET_TIMEOUT_MS 5000

enum part_phase { PART_ASKING, PART_READY };

struct kafka_part {
	struct list_node node; /* on in->parts */
	struct kafka_in *in;
	rd_kafka_queue_t *queue;
	char *topic;
	int32_t partition;
	enum part_phase phase;
	int64_t start, stop; /* of the plan; -1 = none */
	bool is_at_stop;
	void *ctx;
};

struct kafka_in {
	struct loop *loop;
	struct helper *helper;
	struct metrics *metrics;
	struct log *log;
	const struct options *opts;
	const struct kafka_in_events *events;
	void *ctx;
	const struct kafka_range *plan;
	size_t n_plan;

	rd_kafka_t *rk;
	rd_kafka_queue_t *queue;
	struct kafka_admin *admin;
	rd_kafka_queue_t *admin_queue;
	int efd;
	struct list parts;
	struct loop_timer tick, ask_again;
	bool is_asking; /* ListConsumerGroupOffsets is under way */
	rd_kafka_topic_partition_list_t *revoking; /* held until kafka_in_revoked */
	bool is_member;
	loop_fn on_closed;
	void *closed_ctx;
	char group[256];

	rd_kafka_message_t *batch[READ_MAX];
	size_t n_batch;
	struct record_header *headers; /* of the batch */
	size_t n_headers, cap_headers;
};

static void kafka_in_subscribe(struct kafka_in *in);

/* ---- partitions ---- */

static const struct kafka_range *plan_of(const struct kafka_in *in, const char *topic, int32_t partition)
{
	for (size_t i = 0; i < in->n_plan; i++)
		if (in->plan[i].partition == partition && strcmp(in->plan[i].topic, topic) == 0)
			return &in->plan[i];
	return NULL;
}

static struct kafka_part *part_find(struct kafka_in *in, const char *topic, int32_t partition)
{
	LIST_EACH(&in->parts, part, struct kafka_part, node)
		if (part->partition == partition && strcmp(part->topic, topic) == 0)
			return part;
	return NULL;
}

static struct kafka_part *part_new(struct kafka_in *in, const char *topic, int32_t partition)
{
	struct kafka_part *part = xcalloc(1, sizeof(*part));
	const struct kafka_range *range = plan_of(in, topic, partition);
	uint64_t one = 1;

	*part = (struct kafka_part){.in = in,
				    .topic = xstrdup(topic),
				    .partition = partition,
				    .start = range ? range->start : -1,
				    .stop = range ? range->stop : -1};
	part->queue = rd_kafka_queue_get_partition(in->rk, topic, partition);
	/* A queue of its own, before the assignment: nothing of it may land in the group's queue. */
	rd_kafka_queue_forward(part->queue, NULL);
	rd_kafka_queue_io_event_enable(part->queue, in->efd, &one, sizeof(one));
	list_push(&in->parts, &part->node);
	return part;
}

static void drop_batch(struct kafka_in *in)
{
	for (size_t i = 0; i < in->n_batch; i++)
		rd_kafka_message_destroy(in->batch[i]);
	in->n_batch = 0;
}

static void part_free(struct kafka_part *part)
{
	/* A reference left alive would make the consumer's destroy hang for ever. */
	drop_batch(part->in);
	rd_kafka_queue_io_event_enable(part->queue, -1, NULL, 0);
	rd_kafka_queue_destroy(part->queue);
	list_remove(&part->node);
	free(part->topic);
	free(part);
}

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

bool kafka_part_is_at_stop(const struct kafka_part *part)
{
	return part->is_at_stop;
}

void kafka_part_watermarks(const struct kafka_part *part, int64_t *ret_start, int64_t *ret_end)
{
	*ret_start = *ret_end = -1;
	if (rd_kafka_get_watermark_offsets(part->in->rk, part->topic, part->partition, ret_start, ret_end)) {
		*ret_start = *ret_end = -1;
		return;
	}
	/* Both 0 until the first fetch is answered; RD_KAFKA_OFFSET_INVALID is negative. */
	if (*ret_end <= 0)
		*ret_start = *ret_end = -1;
}

/* ---- the completed sets ---- */

static rd_kafka_topic_partition_list_t *parts_that_ask(struct kafka_in *in)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)in->parts.len + 1);

	LIST_EACH(&in->parts, part, struct kafka_part, node)
		if (part->phase == PART_ASKING)
			rd_kafka_topic_partition_list_add(list, part->topic, part->partition);
	return list;
}

static void ask_for_sets(void *ctx)
{
	struct kafka_in *in = ctx;
	rd_kafka_topic_partition_list_t *list = parts_that_ask(in);

	if (list->cnt && !in->is_asking) {
		in->is_asking = true;
		kafka_admin_list_offsets(in->admin, in->group, list, in->admin_queue, SET_TIMEOUT_MS);
	}
	rd_kafka_topic_partition_list_destroy(list);
}

static void begin_part(struct kafka_in *in, const rd_kafka_topic_partition_t *row)
{
	struct kafka_part *part = part_find(in, row->topic, row->partition);

	if (!part || part->phase != PART_ASKING || row->err)
		return;
	part->phase = PART_READY;
	const char *metadata = row->metadata ? row->metadata : "";
	size_t len = row->metadata ? row->metadata_size : 0;
	int64_t offset = row->offset >= 0 ? row->offset : part->start;
	in->events->on_begin(in->ctx, part, offset, metadata, strnlen(metadata, len));
}

static void on_sets(struct kafka_in *in, rd_kafka_event_t *event)
{
	const rd_kafka_ListConsumerGroupOffsets_result_t *result = rd_kafka_event_ListConsumerGroupOffsets_result(event);
	const rd_kafka_group_result_t **groups;
	bool is_any_left = false;
	size_t n = 0;

	in->is_asking = false;
	groups = result && !rd_kafka_event_error(event) ? rd_kafka_ListConsumerGroupOffsets_result_groups(result, &n) : NULL;
	for (size_t i = 0; i < n; i++) {
		const rd_kafka_topic_partition_list_t *list = rd_kafka_group_result_partitions(groups[i]);
		for (int j = 0; list && !rd_kafka_group_result_error(groups[i]) && j < list->cnt; j++)
			begin_part(in, &list->elems[j]);
	}
	if (!groups)
		log_debug(in->log, "the completed sets were not answered, asked again",
			  LOG_STR("error", rd_kafka_event_error_string(event)));
	LIST_EACH(&in->parts, part, struct kafka_part, node)
		is_any_left |= part->phase == PART_ASKING;
	if (is_any_left)
		loop_timer_set(&in->ask_again, loop_now_us(in->loop) + SET_ASK_AGAIN_US);
}

/* ---- the group ---- */

static bool is_cooperative(const struct kafka_in *in)
{
	const char *protocol = rd_kafka_rebalance_protocol(in->rk);

	return protocol && strcmp(protocol, "COOPERATIVE") == 0;
}

static void log_assign_error(struct kafka_in *in, const char *what, rd_kafka_resp_err_t err, rd_kafka_error_t *error)
{
	if (error) {
		log_error(in->log, what, LOG_STR("error", rd_kafka_error_string(error)));
		rd_kafka_error_destroy(error);
	} else if (err) {
		log_error(in->log, what, LOG_STR("error", rd_kafka_err2str(err)));
	}
}

static void on_assign(struct kafka_in *in, rd_kafka_topic_partition_list_t *list)
{
	in->is_member = true;
	for (int i = 0; i < list->cnt; i++) {
		struct kafka_part *part = part_new(in, list->elems[i].topic, list->elems[i].partition);
		list->elems[i].offset = part->start >= 0 ? part->start : RD_KAFKA_OFFSET_STORED;
	}
	if (is_cooperative(in))
		log_assign_error(in, "the assignment failed", 0, rd_kafka_incremental_assign(in->rk, list));
	else
		log_assign_error(in, "the assignment failed", rd_kafka_assign(in->rk, list), NULL);
	for (int i = 0; i < list->cnt; i++)
		in->events->on_assign(in->ctx, part_find(in, list->elems[i].topic, list->elems[i].partition));
	ask_for_sets(in);
}

static void on_revoke(struct kafka_in *in, const rd_kafka_topic_partition_list_t *list)
{
	bool is_lost = rd_kafka_assignment_lost(in->rk);
	struct kafka_part **parts = xcalloc((size_t)list->cnt + 1, sizeof(struct kafka_part *));
	size_t n = 0;

	if (is_lost)
		in->is_member = false;
	for (int i = 0; i < list->cnt; i++) {
		struct kafka_part *part = part_find(in, list->elems[i].topic, list->elems[i].partition);
		if (part)
			parts[n++] = part;
	}
	in->revoking = rd_kafka_topic_partition_list_copy(list);
	in->events->on_revoke(in->ctx, parts, n, is_lost);
	free(parts);
}

void kafka_in_revoked(struct kafka_in *in)
{
	rd_kafka_topic_partition_list_t *list = in->revoking;

	if (!list)
		return;
	in->revoking = NULL;
	for (int i = 0; i < list->cnt; i++) {
		struct kafka_part *part = part_find(in, list->elems[i].topic, list->elems[i].partition);
		if (part)
			part_free(part);
	}
	if (is_cooperative(in))
		log_assign_error(in, "the unassignment failed", 0, rd_kafka_incremental_unassign(in->rk, list));
	else
		log_assign_error(in, "the unassignment failed", rd_kafka_assign(in->rk, NULL), NULL);
	rd_kafka_topic_partition_list_destroy(list);
}

static void on_rebalance(struct kafka_in *in, rd_kafka_event_t *event)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(event);

	if (rd_kafka_event_error(event) == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS)
		on_assign(in, list);
	else
		on_revoke(in, list);
}

/* ---- commits ---- */

int kafka_in_commit(struct kafka_in *in, const struct kafka_commit *rows, size_t n)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)n);

	for (size_t i = 0; i < n; i++) {
		const struct kafka_part *part = rows[i].part;
		rd_kafka_topic_partition_t *row = rd_kafka_topic_partition_list_add(list, part->topic, part->partition);
		row->offset = rows[i].offset;
		row->metadata_size = strlen(rows[i].metadata);
		row->metadata = row->metadata_size ? xstrdup(rows[i].metadata) : NULL;
	}
	rd_kafka_resp_err_t err = rd_kafka_commit_queue(in->rk, list, in->queue, NULL, NULL);
	rd_kafka_topic_partition_list_destroy(list);
	return err ? -ERR_KAFKA : 0;
}

static void on_committed(struct kafka_in *in, rd_kafka_event_t *event)
{
	rd_kafka_resp_err_t err = rd_kafka_event_error(event);
	const rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(event);

	for (int i = 0; list && !err && i < list->cnt; i++)
		err = list->elems[i].err;
	in->events->on_committed(in->ctx, err ? -ERR_KAFKA : 0, err ? rd_kafka_err2str(err) : "");
}

/* ---- events ---- */

static void on_error(struct kafka_in *in, rd_kafka_event_t *event)
{
	rd_kafka_resp_err_t err = rd_kafka_event_error(event);
	char reason[512];

	if (err == RD_KAFKA_RESP_ERR__FATAL || err == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID) {
		if (!rd_kafka_fatal_error(in->rk, reason, sizeof(reason)))
			snprintf(reason, sizeof(reason), "%s", rd_kafka_event_error_string(event));
		in->events->on_fatal(in->ctx, -ERR_KAFKA_FENCED, reason);
		return;
	}
	if (err == RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED)
		in->is_member = false;
	log_debug(in->log, "consumer", LOG_STR("error", rd_kafka_event_error_string(event)));
}

static void serve(struct kafka_in *in, rd_kafka_event_t *event)
{
	switch (rd_kafka_event_type(event)) {
	case RD_KAFKA_EVENT_REBALANCE:
		on_rebalance(in, event);
		break;
	case RD_KAFKA_EVENT_OFFSET_COMMIT:
		on_committed(in, event);
		break;
	case RD_KAFKA_EVENT_LISTCONSUMERGROUPOFFSETS_RESULT:
		on_sets(in, event);
		break;
	case RD_KAFKA_EVENT_ERROR:
		on_error(in, event);
		break;
	case RD_KAFKA_EVENT_LOG:
		kafka_log_event(in->log, event);
		break;
	default:
		break;
	}
	rd_kafka_event_destroy(event);
}

static bool poll_queue(struct kafka_in *in, rd_kafka_queue_t *queue)
{
	for (int i = 0; i < EVENT_BUDGET; i++) {
		rd_kafka_event_t *event = rd_kafka_queue_poll(queue, 0);
		if (!event)
			return false;
		serve(in, event);
	}
	return true;
}

static void check_closed(struct kafka_in *in)
{
	loop_fn fn = in->on_closed;

	if (fn && rd_kafka_consumer_closed(in->rk)) {
		in->on_closed = NULL;
		fn(in->closed_ctx);
	}
}

static void poll_all(struct kafka_in *in)
{
	/* Both, always: the group's queue must be polled for the group to keep us. */
	bool is_more = poll_queue(in, in->queue);

	is_more |= poll_queue(in, in->admin_queue);
	in->events->on_wake(in->ctx);
	check_closed(in);
	if (is_more)
		loop_timer_set(&in->tick, 0);
}

static void on_readable(void *ctx, int fd)
{
	uint64_t count;

	if (read(fd, &count, sizeof(count)) == sizeof(count))
		poll_all(ctx);
}

/* A topic that was missing is there: the group would look for it only at the next metadata refresh. */
static void on_topics_appeared(void *ctx)
{
	struct kafka_in *in = ctx;

	kafka_in_subscribe(in);
}

static void on_tick(void *ctx)
{
	struct kafka_in *in = ctx;

	loop_timer_set(&in->tick, loop_now_us(in->loop) + TICK_US);
	kafka_admin_tick(in->admin, loop_now_us(in->loop));
	poll_all(in);
}

/* ---- reading ---- */

static void add_headers(struct kafka_in *in, const rd_kafka_message_t *msg, struct record *rec)
{
	rd_kafka_headers_t *headers;
	const char *name;
	const void *value;
	size_t size, first = in->n_headers;

	if (rd_kafka_message_headers(msg, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return;
	for (size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR; i++) {
		if (in->n_headers == in->cap_headers) {
			in->cap_headers = in->cap_headers ? in->cap_headers * 2 : 256;
			in->headers = xrealloc(in->headers, in->cap_headers * sizeof(*in->headers));
		}
		in->headers[in->n_headers++] = (struct record_header){name, {value, size}};
	}
	rec->n_headers = in->n_headers - first;
}

/* The array may have moved while it grew: point into it when the batch is whole. */
static void place_headers(struct kafka_in *in, struct record *recs, size_t n)
{
	size_t first = 0;

	for (size_t i = 0; i < n; i++) {
		recs[i].headers = recs[i].n_headers ? in->headers + first : NULL;
		first += recs[i].n_headers;
	}
}

static bool take_message(struct kafka_part *part, const rd_kafka_message_t *msg, struct record *rec)
{
	if (msg->err == RD_KAFKA_RESP_ERR__PARTITION_EOF && part->stop >= 0 && msg->offset >= part->stop)
		part->is_at_stop = true;
	if (msg->err) {
		if (msg->err != RD_KAFKA_RESP_ERR__PARTITION_EOF)
			log_warn(part->in->log, "partition", LOG_STR("topic", part->topic), LOG_NUM("partition", part->partition),
				 LOG_STR("error", rd_kafka_message_errstr(msg)));
		return false;
	}
	if (part->stop >= 0 && msg->offset >= part->stop) {
		part->is_at_stop = true;
		return false;
	}
	*rec = (struct record){.topic = part->topic,
			       .partition = part->partition,
			       .offset = msg->offset,
			       .timestamp_ms = rd_kafka_message_timestamp(msg, NULL),
			       .key = {msg->key, msg->key_len},
			       .value = {msg->payload, msg->len}};
	add_headers(part->in, msg, rec);
	return true;
}

size_t kafka_in_read(struct kafka_part *part, struct record *out, size_t max)
{
	struct kafka_in *in = part->in;
	size_t n = 0;

	drop_batch(in);
	in->n_headers = 0;
	if (part->phase != PART_READY || part->is_at_stop)
		return 0;
	ssize_t got = rd_kafka_consume_batch_queue(part->queue, 0, in->batch, MIN(max, (size_t)READ_MAX));
	in->n_batch = got > 0 ? (size_t)got : 0;
	for (size_t i = 0; i < in->n_batch; i++)
		n += take_message(part, in->batch[i], &out[n]);
	place_headers(in, out, n);
	return n;
}

/* ---- made and unmade ---- */

static void kafka_in_subscribe(struct kafka_in *in)
{
	const struct strlist *topics = &in->opts->jobs_topic;
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)topics->n);

	for (size_t i = 0; i < topics->n; i++)
		rd_kafka_topic_partition_list_add(list, topics->v[i], RD_KAFKA_PARTITION_UA);
	rd_kafka_resp_err_t err = rd_kafka_subscribe(in->rk, list);
	if (err)
		log_error(in->log, "the subscription failed", LOG_STR("error", rd_kafka_err2str(err)));
	rd_kafka_topic_partition_list_destroy(list);
}

static int make_consumer(struct kafka_in *in, char **ret_error)
{
	rd_kafka_conf_t *conf;
	char reason[256];
	uint64_t one = 1;
	int err = kafka_conf_make(in->opts, KAFKA_CONSUMER, &conf, ret_error);

	if (err)
		return err;
	rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_OFFSET_COMMIT | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG);
	rd_kafka_conf_set(conf, "log.queue", "true", NULL, 0);
	rd_kafka_conf_set(conf, "enable.auto.commit", "false", NULL, 0);
	rd_kafka_conf_set(conf, "enable.auto.offset.store", "false", NULL, 0);
	rd_kafka_conf_set(conf, "enable.partition.eof", in->plan ? "true" : "false", NULL, 0);
	in->rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, reason, sizeof(reason));
	if (!in->rk) {
		rd_kafka_conf_destroy(conf);
		*ret_error = xasprintf("the Kafka consumer cannot be made: %s", reason);
		return -ERR_INVALID;
	}
	rd_kafka_poll_set_consumer(in->rk);
	in->queue = rd_kafka_queue_get_consumer(in->rk);
	rd_kafka_set_log_queue(in->rk, in->queue);
	rd_kafka_queue_io_event_enable(in->queue, in->efd, &one, sizeof(one));
	return 0;
}

int kafka_in_new(struct loop *loop, struct helper *helper, struct metrics *metrics, struct log *log, const struct options *opts,
		 const struct kafka_range *plan, size_t n_plan, const struct kafka_in_events *events, void *ctx,
		 struct kafka_in **ret_in, char **ret_error)
{
	struct kafka_in *in = xcalloc(1, sizeof(*in));
	uint64_t one = 1;

	*in = (struct kafka_in){.loop = loop,
				.helper = helper,
				.metrics = metrics,
				.log = log,
				.opts = opts,
				.events = events,
				.ctx = ctx,
				.plan = plan,
				.n_plan = n_plan};
	list_init(&in->parts);
	in->efd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	kafka_conf_group(opts, in->group, sizeof(in->group));
	int err = kafka_admin_new(helper, log, opts, on_topics_appeared, in, &in->admin, ret_error);
	if (!err)
		err = make_consumer(in, ret_error);
	if (err) {
		kafka_admin_free(in->admin);
		close(in->efd);
		free(in);
		return err;
	}
	in->admin_queue = kafka_admin_queue(in->admin);
	rd_kafka_queue_io_event_enable(in->admin_queue, in->efd, &one, sizeof(one));
	loop_timer_init(loop, &in->tick, on_tick, in);
	loop_timer_init(loop, &in->ask_again, ask_for_sets, in);
	loop_watch(loop, in->efd, on_readable, in);
	loop_timer_set(&in->tick, 0);
	kafka_in_subscribe(in);
	*ret_in = in;
	return 0;
}

enum kafka_state kafka_in_state(const struct kafka_in *in)
{
	return kafka_admin_state(in->admin);
}

const char *kafka_in_state_detail(const struct kafka_in *in)
{
	return kafka_admin_detail(in->admin);
}

bool kafka_in_is_member(const struct kafka_in *in)
{
	return in->is_member;
}

void kafka_in_close(struct kafka_in *in, loop_fn on_closed, void *ctx)
{
	in->on_closed = on_closed;
	in->closed_ctx = ctx;
	in->is_member = false;
	rd_kafka_error_t *error = rd_kafka_consumer_close_queue(in->rk, in->queue);
	if (error) {
		log_warn(in->log, "leaving the group failed", LOG_STR("error", rd_kafka_error_string(error)));
		rd_kafka_error_destroy(error);
		in->on_closed = NULL;
		on_closed(ctx);
	}
	loop_timer_set(&in->tick, 0);
}

void kafka_in_free(struct kafka_in *in)
{
	if (!in)
		return;
	loop_unwatch(in->loop, in->efd);
	loop_timer_done(&in->tick);
	loop_timer_done(&in->ask_again);
	drop_batch(in);
	LIST_EACH(&in->parts, part, struct kafka_part, node)
		part_free(part);
	if (in->revoking)
		rd_kafka_topic_partition_list_destroy(in->revoking);
	rd_kafka_queue_io_event_enable(in->queue, -1, NULL, 0);
	rd_kafka_queue_destroy(in->queue);
	kafka_destroy_later(in->helper, in->rk);
	kafka_admin_free(in->admin);
	free(in->headers);
	close(in->efd);
	free(in);
}
