/* How far a group is with its plan. Happy path: each second the commits of all the plan's partitions are asked for, of
 * which other members have some -> what is complete is counted -> on_plan. Failure modes: not answered, or a commit
 * that is not known yet (a transaction under way) -> asked again a second later. */
#include "kafka_internal.h"

#include "clock.h"
#include "offsetmap.h"

#define PLAN_EVERY_US US_PER_S
#define SET_WORDS (OFFSETMAP_SPAN_MAX / 64)

void kafka_plan_ask(void *ctx)
{
	struct kafka_in *in = ctx;
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)in->n_plan);

	for (size_t i = 0; i < in->n_plan; i++)
		rd_kafka_topic_partition_list_add(list, in->plan[i].topic, in->plan[i].partition);
	kafka_offsets_ask(in, list, &in->plan_timer);
}

static const struct kafka_range *find(const struct kafka_in *in, const rd_kafka_topic_partition_t *row)
{
	for (size_t i = 0; i < in->n_plan; i++)
		if (in->plan[i].partition == row->partition && strcmp(in->plan[i].topic, row->topic) == 0)
			return &in->plan[i];
	return NULL;
}

/* What is complete of a range, by its commit. The offset committed is itself open, so below its stop a range never looks
 * whole. */
static int64_t count_done(const struct kafka_range *range, const rd_kafka_topic_partition_t *row)
{
	uint64_t bits[SET_WORDS] = {0};
	size_t n_bits = 0;
	int64_t done = MIN(row->offset, range->stop) - range->start;

	if (row->offset < range->start)
		return 0;
	if (offsetmap_decode(row->metadata ? row->metadata : "", row->metadata_size, bits, SET_WORDS, &n_bits))
		return done;
	for (size_t i = 1; i < n_bits && row->offset + (int64_t)i < range->stop; i++)
		done += bits[i / 64] >> (i % 64) & 1;
	return done;
}

/* False: some row is not known now. */
static bool count(const struct kafka_in *in, const rd_kafka_topic_partition_list_t *list, int64_t *ret_done)
{
	for (int i = 0; i < list->cnt; i++) {
		const struct kafka_range *range = find(in, &list->elems[i]);

		if (list->elems[i].err)
			return false;
		if (range && range->start < range->stop)
			*ret_done += count_done(range, &list->elems[i]);
	}
	return true;
}

void kafka_plan_on_offsets(struct kafka_in *in, rd_kafka_event_t *ev)
{
	int64_t done = 0, total = 0;
	bool is_known = !rd_kafka_event_error(ev);
	size_t n = 0;

	loop_timer_set(&in->plan_timer, loop_now_us(in->loop) + PLAN_EVERY_US);
	if (is_known) {
		const rd_kafka_ListConsumerGroupOffsets_result_t *result =
		    rd_kafka_event_ListConsumerGroupOffsets_result(ev);
		const rd_kafka_group_result_t **groups = rd_kafka_ListConsumerGroupOffsets_result_groups(result, &n);
		const rd_kafka_topic_partition_list_t *list = n ? rd_kafka_group_result_partitions(groups[0]) : NULL;
		is_known = list && !rd_kafka_group_result_error(groups[0]) && count(in, list, &done);
	}
	if (!is_known)
		return;
	for (size_t i = 0; i < in->n_plan; i++)
		total += MAX(in->plan[i].stop - in->plan[i].start, 0);
	in->events->on_plan(in->ctx, done, total);
}
