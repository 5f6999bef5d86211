/* Happy path: ASSIGN -> a queue of its own for each partition -> assigned at once -> on_assign -> the completed sets
 * are asked for -> on_begin. REVOKE -> on_revoke -> (the owner drains) -> kafka_in_revoked -> unassigned, queues given
 * back. Failure modes: sets unstable or the coordinator away -> asked again every 200 ms; lost -> no commit is waited
 * for; a commit of ours unanswered -> unassigned only after its answer, or after 3 s. */
#include "kafka_internal.h"

#include "clock.h"
#include "err.h"

#include <stdio.h>

#define ASK_AGAIN_US (200 * US_PER_MS)
/* The most there is. A question that times out while its coordinator is away is freed, and librdkafka sends it all the
 * same once the coordinator is back, and aborts (2.0.2; its issue 4605). A broken connection is an answer, too. */
#define ASK_TIMEOUT_MS (3600 * 1000)
#define COMMIT_WAIT_US (3 * US_PER_S)
/* Stale batches that are thrown away when a partition goes. */
#define STALE_BATCHES_MAX 64

/* ---- one partition ---- */

static void set_range(struct kafka_part *part)
{
	const struct kafka_in *in = part->in;

	part->start = 0;
	part->stop = INT64_MAX;
	if (!in->plan)
		return;
	part->stop = 0; /* not in the plan: nothing of it is read */
	for (size_t i = 0; i < in->n_plan; i++) {
		const struct kafka_range *range = &in->plan[i];
		if (range->partition == part->partition && strcmp(range->topic, part->topic) == 0) {
			part->start = range->start;
			part->stop = range->stop;
		}
	}
	part->is_at_stop = part->start >= part->stop;
}

static struct kafka_part *part_new(struct kafka_in *in, const char *topic, int32_t partition)
{
	struct kafka_part *part = xcalloc(1, sizeof(*part));

	*part = (struct kafka_part){.in = in, .topic = xstrdup(topic), .partition = partition, .epoch = in->epoch};
	set_range(part);
	part->queue = rd_kafka_queue_get_partition(in->rk, topic, partition);
	/* Before the assign: librdkafka keeps a forward that the application has set. */
	rd_kafka_queue_forward(part->queue, NULL);
	kafka_queue_watch(part->queue, in->fd);
	list_push(&in->parts, &part->node);
	return part;
}

/* Outdated records would stay in the queue, and in memory, until somebody reads past them. The pause that comes with a
 * revoke has thrown most away already. */
static void drop_stale(struct kafka_part *part)
{
	rd_kafka_message_t *batch[KAFKA_BATCH_MAX];
	ssize_t n;

	for (int i = 0; i < STALE_BATCHES_MAX; i++) {
		n = rd_kafka_consume_batch_queue(part->queue, 0, batch, ARRAY_LEN(batch));
		if (n <= 0)
			return;
		while (n > 0)
			rd_kafka_message_destroy(batch[--n]);
	}
}

static void part_free(struct kafka_part *part)
{
	list_remove(&part->node);
	kafka_queue_drop(&part->queue);
	free(part->topic);
	free(part);
}

static struct kafka_part *find(struct kafka_in *in, const char *topic, int32_t partition)
{
	LIST_EACH (&in->parts, part, struct kafka_part, node) {
		if (part->partition == partition && strcmp(part->topic, topic) == 0)
			return part;
	}
	return NULL;
}

/* ---- who we are in the group ---- */

struct kafka_member {
	rd_kafka_consumer_group_metadata_t *metadata;
	char *id;
	int n_refs; /* the loop thread counts */
};

const rd_kafka_consumer_group_metadata_t *kafka_member_metadata(const struct kafka_member *member)
{
	return member->metadata;
}

struct kafka_member *kafka_member_ref(struct kafka_member *member)
{
	member->n_refs++;
	return member;
}

void kafka_member_unref(struct kafka_member *member)
{
	if (--member->n_refs > 0)
		return;
	rd_kafka_consumer_group_metadata_destroy(member->metadata);
	free(member->id);
	free(member);
}

static bool is_same(const rd_kafka_consumer_group_metadata_t *a, const rd_kafka_consumer_group_metadata_t *b)
{
	void *bytes[2] = {NULL, NULL};
	size_t sizes[2] = {0, 0};
	rd_kafka_error_t *error = rd_kafka_consumer_group_metadata_write(a, &bytes[0], &sizes[0]);

	if (!error)
		error = rd_kafka_consumer_group_metadata_write(b, &bytes[1], &sizes[1]);
	bool is_equal = !error && sizes[0] == sizes[1] && memcmp(bytes[0], bytes[1], sizes[0]) == 0;
	if (error)
		rd_kafka_error_destroy(error);
	for (size_t i = 0; i < ARRAY_LEN(bytes); i++)
		if (bytes[i])
			rd_kafka_mem_free(NULL, bytes[i]);
	return is_equal;
}

/* What librdkafka shows of one that is in no group. The broker takes offsets from such a one, over those of a live
 * member. */
static bool is_nobody(const struct kafka_in *in, const rd_kafka_consumer_group_metadata_t *metadata)
{
	rd_kafka_consumer_group_metadata_t *nobody = rd_kafka_consumer_group_metadata_new(in->group);
	bool is_it = !metadata || is_same(metadata, nobody);

	rd_kafka_consumer_group_metadata_destroy(nobody);
	return is_it;
}

static char *ask_member_id(struct kafka_in *in)
{
	char *id = rd_kafka_memberid(in->rk), *copy = xstrdup(id ? id : "");

	if (id)
		rd_kafka_mem_free(in->rk, id);
	return copy;
}

bool kafka_group_ask_joined(struct kafka_in *in)
{
	char *id = ask_member_id(in), instance[256] = "";
	bool has_id = *id != '\0';

	if (has_id && in->is_broker_assigned) {
		bool is_static = kafka_conf_get(in->opts, KAFKA_CONSUMER, "group.instance.id", instance, sizeof(instance));
		rd_kafka_consumer_group_metadata_t *now = rd_kafka_consumer_group_metadata(in->rk);
		/* The id is our own there; the epoch is the broker's, and 0 till then. */
		rd_kafka_consumer_group_metadata_t *before = rd_kafka_consumer_group_metadata_new_with_genid(
		    in->group, 0, id, is_static && *instance ? instance : NULL);
		has_id = !is_nobody(in, now) && !is_same(now, before);
		if (now)
			rd_kafka_consumer_group_metadata_destroy(now);
		rd_kafka_consumer_group_metadata_destroy(before);
	}
	free(id);
	return has_id;
}

/* As it is now; NULL when there is none. */
static struct kafka_member *member_new(struct kafka_in *in)
{
	rd_kafka_consumer_group_metadata_t *metadata = rd_kafka_consumer_group_metadata(in->rk);

	if (is_nobody(in, metadata)) {
		if (metadata)
			rd_kafka_consumer_group_metadata_destroy(metadata);
		return NULL;
	}
	struct kafka_member *member = xmalloc(sizeof(*member));
	/* The id after the metadata: it can only be newer. */
	*member = (struct kafka_member){metadata, ask_member_id(in), 1};
	return member;
}

static void take_member(struct kafka_in *in)
{
	struct kafka_member *member = member_new(in);

	if (!member)
		return;
	if (in->member)
		kafka_member_unref(in->member);
	in->member = member;
}

/* Asked for out of turn, it must not be of a life in the group that began after partitions of ours were lost: then the
 * id is another one, or the loss is known (after a loss librdkafka joins again only once we gave them back). */
void kafka_in_refresh(struct kafka_in *in)
{
	if (!in->is_cooperative || !in->member)
		return;
	struct kafka_member *member = member_new(in);
	if (!member)
		return;
	if (rd_kafka_assignment_lost(in->rk) || strcmp(member->id, in->member->id) != 0) {
		kafka_member_unref(member);
		return;
	}
	kafka_member_unref(in->member);
	in->member = member;
}

struct kafka_member *kafka_in_member(struct kafka_in *in)
{
	return in->member;
}

void kafka_in_hold(struct kafka_in *in, bool is_held)
{
	in->is_committing = is_held;
	kafka_group_tick(in);
}

/* ---- partitions come ---- */

static void log_error_take(struct kafka_in *in, const char *what, rd_kafka_error_t *error)
{
	if (!error)
		return;
	log_warn(in->log, "Kafka group error", LOG_STR("call", what), LOG_STR("detail", rd_kafka_error_string(error)));
	rd_kafka_error_destroy(error);
}

static void assign(struct kafka_in *in, const rd_kafka_topic_partition_list_t *list)
{
	if (in->is_cooperative) {
		log_error_take(in, "incremental_assign", rd_kafka_incremental_assign(in->rk, list));
		return;
	}
	rd_kafka_resp_err_t err = rd_kafka_assign(in->rk, list);
	if (err)
		log_warn(in->log, "Kafka group error", LOG_STR("call", "assign"),
			 LOG_STR("detail", rd_kafka_err2str(err)));
}

static void add_parts(struct kafka_in *in, const rd_kafka_topic_partition_list_t *list)
{
	in->epoch++;
	in->is_member = true; /* also without a partition */
	struct kafka_part **fresh = xcalloc((size_t)list->cnt + 1, sizeof(struct kafka_part *));
	for (int i = 0; i < list->cnt; i++)
		fresh[i] = part_new(in, list->elems[i].topic, list->elems[i].partition);
	assign(in, list);
	for (int i = 0; i < list->cnt; i++)
		in->events->on_assign(in->ctx, fresh[i]);
	free(fresh);
	kafka_group_ask(in);
}

static void on_assigned(struct kafka_in *in, const rd_kafka_topic_partition_list_t *list)
{
	take_member(in);
	add_parts(in, list);
}

/* ---- where each begins ---- */

/* The parts that have not begun, as a question. NULL when there is none. */
static rd_kafka_topic_partition_list_t *not_begun(struct kafka_in *in)
{
	rd_kafka_topic_partition_list_t *list = NULL;

	LIST_EACH (&in->parts, part, struct kafka_part, node) {
		if (part->has_begun)
			continue;
		if (!list)
			list = rd_kafka_topic_partition_list_new((int)in->parts.len);
		rd_kafka_topic_partition_list_add(list, part->topic, part->partition);
	}
	return list;
}

void kafka_offsets_ask(struct kafka_in *in, rd_kafka_topic_partition_list_t *list, void *opaque)
{
	char text[256];
	rd_kafka_ListConsumerGroupOffsets_t *question = rd_kafka_ListConsumerGroupOffsets_new(in->group, list);
	rd_kafka_AdminOptions_t *options =
	    rd_kafka_AdminOptions_new(in->admin, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS);

	log_error_take(in, "require_stable_offsets", rd_kafka_AdminOptions_set_require_stable_offsets(options, 1));
	if (rd_kafka_AdminOptions_set_request_timeout(options, ASK_TIMEOUT_MS, text, sizeof(text)))
		log_warn(in->log, "Kafka group error", LOG_STR("call", "request_timeout"), LOG_STR("detail", text));
	rd_kafka_AdminOptions_set_opaque(options, opaque);
	rd_kafka_ListConsumerGroupOffsets(in->admin, &question, 1, options, in->admin_queue);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_ListConsumerGroupOffsets_destroy(question);
	rd_kafka_topic_partition_list_destroy(list);
}

void kafka_group_ask(void *ctx)
{
	struct kafka_in *in = ctx;
	rd_kafka_topic_partition_list_t *list = in->is_asking || in->revoke ? NULL : not_begun(in);

	if (!list)
		return;
	/* Which assignment it was asked for: a later one has its own question. */
	kafka_offsets_ask(in, list, (void *)(uintptr_t)in->epoch);
	in->is_asking = true;
}

static void begin(struct kafka_in *in, struct kafka_part *part, const rd_kafka_topic_partition_t *row)
{
	int64_t offset = row->offset >= 0 ? row->offset : -1;

	part->has_begun = true;
	if (in->plan && offset < part->start)
		offset = part->start; /* what librdkafka fetches below it is skipped */
	if (offset >= part->stop)
		part->is_at_stop = true;
	in->events->on_begin(in->ctx, part, offset, row->metadata ? row->metadata : "",
			     row->metadata ? row->metadata_size : 0);
}

/* One group's answer. True when every row was good. */
static bool begin_rows(struct kafka_in *in, const rd_kafka_topic_partition_list_t *list, uint64_t epoch)
{
	bool is_good = true;

	for (int i = 0; i < list->cnt; i++) {
		const rd_kafka_topic_partition_t *row = &list->elems[i];
		struct kafka_part *part = find(in, row->topic, row->partition);
		if (!part || part->has_begun || part->epoch > epoch)
			continue;
		if (row->err) {
			if (kafka_is_refusal(row->err))
				kafka_in_suspect(in);
			log_debug(in->log, "committed offset not known yet", LOG_STR("topic", row->topic),
				  LOG_NUM("partition", row->partition), LOG_STR("code", rd_kafka_err2name(row->err)));
			is_good = false;
		} else {
			begin(in, part, row);
		}
	}
	return is_good;
}

void kafka_group_on_offsets(struct kafka_in *in, rd_kafka_event_t *ev)
{
	uint64_t epoch = (uint64_t)(uintptr_t)rd_kafka_event_opaque(ev);
	bool is_good = !rd_kafka_event_error(ev);
	size_t n = 0;

	in->is_asking = false;
	if (in->revoke)
		return; /* they go away; what stays is asked for again after that */
	if (is_good) {
		const rd_kafka_ListConsumerGroupOffsets_result_t *result =
		    rd_kafka_event_ListConsumerGroupOffsets_result(ev);
		const rd_kafka_group_result_t **groups = rd_kafka_ListConsumerGroupOffsets_result_groups(result, &n);
		for (size_t i = 0; i < n; i++) {
			const rd_kafka_error_t *error = rd_kafka_group_result_error(groups[i]);
			const rd_kafka_topic_partition_list_t *list = rd_kafka_group_result_partitions(groups[i]);
			is_good &= !error && list && begin_rows(in, list, epoch);
		}
	} else {
		log_debug(in->log, "committed offsets not known yet",
			  LOG_STR("detail", rd_kafka_event_error_string(ev)));
	}
	if (is_good)
		kafka_group_ask(in); /* for what came after the question */
	else
		loop_timer_set(&in->ask, loop_now_us(in->loop) + ASK_AGAIN_US);
}

/* ---- partitions go ---- */

static void free_revoked(struct kafka_in *in)
{
	for (size_t i = 0; i < in->n_revoked; i++) {
		drop_stale(in->revoked[i]);
		part_free(in->revoked[i]);
	}
	free(in->revoked);
	in->revoked = NULL;
	in->n_revoked = 0;
	in->unassign_by_us = 0;
}

/* The same partitions again, from their stored offsets. */
static void finish_restart(struct kafka_in *in)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)in->n_revoked);

	for (size_t i = 0; i < in->n_revoked; i++)
		rd_kafka_topic_partition_list_add(list, in->revoked[i]->topic, in->revoked[i]->partition);
	if (in->is_cooperative)
		log_error_take(in, "incremental_unassign", rd_kafka_incremental_unassign(in->rk, list));
	else
		rd_kafka_assign(in->rk, NULL);
	free_revoked(in);
	in->is_restarting = false;
	/* The group may have taken them away by now: then that event waits in the queue, and they go again. */
	add_parts(in, list);
	rd_kafka_topic_partition_list_destroy(list);
}

void kafka_in_restart(struct kafka_in *in)
{
	if (in->revoke || in->is_restarting || in->is_closing || list_empty(&in->parts))
		return;
	in->is_restarting = true;
	in->is_lost = true;
	in->revoked = xcalloc(in->parts.len + 1, sizeof(struct kafka_part *));
	LIST_EACH (&in->parts, part, struct kafka_part, node)
		in->revoked[in->n_revoked++] = part;
	in->events->on_revoke(in->ctx, in->revoked, in->n_revoked, true);
}

static void finish_unassign(struct kafka_in *in)
{
	if (in->is_restarting) {
		finish_restart(in);
		return;
	}
	if (in->is_cooperative) {
		log_error_take(in, "incremental_unassign",
			       rd_kafka_incremental_unassign(in->rk, rd_kafka_event_topic_partition_list(in->revoke)));
	} else {
		rd_kafka_resp_err_t err = rd_kafka_assign(in->rk, NULL);
		if (err)
			log_warn(in->log, "Kafka group error", LOG_STR("call", "unassign"),
				 LOG_STR("detail", rd_kafka_err2str(err)));
	}
	free_revoked(in);
	rd_kafka_event_destroy(in->revoke);
	in->revoke = NULL;
	if (in->next) {
		rd_kafka_event_t *next = in->next;
		in->next = NULL;
		kafka_group_on_rebalance(in, next);
	} else {
		kafka_group_ask(in);
	}
}

static void on_revoked(struct kafka_in *in, rd_kafka_event_t *ev)
{
	const rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(ev);

	in->epoch++;
	in->revoke = ev;
	/* A cooperative member is asked to give partitions up when the new generation has begun. */
	kafka_in_refresh(in);
	in->is_lost = rd_kafka_assignment_lost(in->rk);
	in->is_member &= !in->is_lost;
	in->revoked = xcalloc((size_t)list->cnt + 1, sizeof(struct kafka_part *));
	for (int i = 0; i < list->cnt; i++) {
		struct kafka_part *part = find(in, list->elems[i].topic, list->elems[i].partition);
		if (part)
			in->revoked[in->n_revoked++] = part;
	}
	if (in->n_revoked)
		in->events->on_revoke(in->ctx, in->revoked, in->n_revoked, in->is_lost);
	else
		finish_unassign(in);
}

void kafka_in_revoked(struct kafka_in *in)
{
	assert((in->revoke || in->is_restarting) && !in->unassign_by_us);
	for (size_t i = 0; i < in->n_revoked; i++) {
		in->revoked[i]->ctx = NULL;
		in->revoked[i]->has_begun = false; /* nothing more of it is read */
		list_remove(&in->revoked[i]->node);
	}
	/* A commit that meets the new generation would cost the assignment. */
	if (in->is_committing && !in->is_lost)
		in->unassign_by_us = loop_now_us(in->loop) + COMMIT_WAIT_US;
	else
		finish_unassign(in);
}

void kafka_group_tick(struct kafka_in *in)
{
	if (in->unassign_by_us && (!in->is_committing || loop_now_us(in->loop) >= in->unassign_by_us))
		finish_unassign(in);
}

void kafka_group_on_rebalance(struct kafka_in *in, rd_kafka_event_t *ev)
{
	const char *protocol = rd_kafka_rebalance_protocol(in->rk);

	/* One at a time. Only the newest counts: it is what the group wants now. */
	if (in->revoke) {
		if (in->next)
			rd_kafka_event_destroy(in->next);
		in->next = ev;
		return;
	}
	in->is_cooperative = protocol && strcmp(protocol, "COOPERATIVE") == 0;
	if (rd_kafka_event_error(ev) == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
		on_assigned(in, rd_kafka_event_topic_partition_list(ev));
		rd_kafka_event_destroy(ev);
	} else {
		on_revoked(in, ev);
	}
}

/* ---- commits ---- */

void kafka_group_on_commit(struct kafka_in *in, rd_kafka_event_t *ev)
{
	rd_kafka_resp_err_t err = rd_kafka_event_error(ev);
	const rd_kafka_topic_partition_list_t *list = rd_kafka_event_topic_partition_list(ev);
	char detail[256] = "";

	if (rd_kafka_event_opaque(ev) != in || !in->is_committing)
		return;
	in->is_committing = false;
	if (err)
		snprintf(detail, sizeof(detail), "%s", rd_kafka_err2str(err));
	if (kafka_is_refusal(err))
		kafka_in_suspect(in);
	for (int i = 0; list && i < list->cnt && !*detail; i++) {
		const rd_kafka_topic_partition_t *row = &list->elems[i];
		if (row->err)
			snprintf(detail, sizeof(detail), "%s [%d]: %s", row->topic, row->partition,
				 rd_kafka_err2str(row->err));
	}
	in->events->on_committed(in->ctx, *detail ? -ERR_KAFKA : 0, detail);
}

/* ---- the end ---- */

void kafka_group_done(struct kafka_in *in)
{
	for (size_t i = 0; i < in->n_revoked; i++)
		part_free(in->revoked[i]);
	free(in->revoked);
	LIST_EACH (&in->parts, part, struct kafka_part, node) {
		part_free(part);
	}
	if (in->revoke)
		rd_kafka_event_destroy(in->revoke);
	if (in->next)
		rd_kafka_event_destroy(in->next);
	if (in->member)
		kafka_member_unref(in->member);
}
