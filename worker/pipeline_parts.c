/* Partitions come and go, as lifecycle.c decides: a partition is added when it is assigned, begins when its completed set is there, drains
 * when it is revoked or the worker stops, and is removed with whatever is left of it. */
#include "pipeline.h"

#include "clock.h"

struct partition *pipeline_add_partition(struct pipeline *pl, struct kafka_part *kafka)
{
	struct partition *part = xcalloc(1, sizeof(*part));

	part->kafka = kafka;
	part->committed = -1;
	part->next_read = -1;
	part->epoch = pl->epoch;
	admit_part_init(&pl->admit, &part->admit);
	list_init(&part->open);
	list_init(&part->held);
	list_push(&pl->partitions, &part->node);
	if (kafka)
		kafka_part_set_ctx(kafka, part);
	return part;
}

void pipeline_begin_partition(struct pipeline *pl, struct partition *part, int64_t offset, const char *metadata, size_t len)
{
	if (offset >= 0) {
		part->win = window_new(offset, (int32_t)pl->opts->partition_window);
		part->committed = offset;
		if (window_restore(part->win, metadata, len)) {
			pl->metrics->completed_sets_dropped++;
			log_warn(pl->log, "the completed set in the commit cannot be parsed and is ignored",
				 LOG_STR("topic", kafka_part_topic(part->kafka)), LOG_NUM("partition", kafka_part_partition(part->kafka)));
		}
	}
	part->may_read = true;
	loop_again(pl->loop);
}

void pipeline_count_lost(struct pipeline *pl, const struct partition *part, int64_t upto)
{
	int64_t from = part->next_read >= 0 ? part->next_read : window_commit_point(part->win), start = -1, end = -1;

	kafka_part_watermarks(part->kafka, &start, &end);
	int64_t lost = MIN(start, upto) - from;
	if (lost <= 0)
		return;
	pl->metrics->jobs_lost += (uint64_t)lost;
	log_error(pl->log, "retention removed jobs before they were read", LOG_STR("topic", kafka_part_topic(part->kafka)),
		  LOG_NUM("partition", kafka_part_partition(part->kafka)), LOG_NUM("lost", lost));
}

void pipeline_check_gap(struct pipeline *pl, struct partition *part, int64_t offset)
{
	if (!part->win) {
		part->win = window_new(offset, (int32_t)pl->opts->partition_window);
	} else if (part->next_read < 0 && offset < window_commit_point(part->win)) {
		pl->metrics->completed_sets_dropped++;
		log_warn(pl->log, "records lie below the committed offset: the topic was made anew", LOG_STR("topic", kafka_part_topic(part->kafka)),
			 LOG_NUM("partition", kafka_part_partition(part->kafka)),
			 LOG_NUM("committed", window_commit_point(part->win)), LOG_NUM("first", offset));
		window_restart(part->win, offset);
	} else {
		pipeline_count_lost(pl, part, offset);
	}
}

void pipeline_drain_partition(struct pipeline *pl, struct partition *part, int64_t cut_us, int64_t give_up_us)
{
	if (!part->is_draining) {
		part->is_draining = true;
		part->cut_us = cut_us;
		part->give_up_us = give_up_us;
	}
	part->cut_us = MIN(part->cut_us, cut_us);
	part->give_up_us = MIN(part->give_up_us, give_up_us);
	LIST_EACH(&part->held, task, struct task, open_node)
		pipeline_drop(pl, task);
	LIST_EACH(&part->open, task, struct task, open_node) {
		if (task->state != TASK_RESOLVING && task->state != TASK_FETCHING && task->state != TASK_DELIVERING)
			pipeline_drop(pl, task);
	}
	loop_again(pl->loop);
}

bool pipeline_is_drained(const struct partition *part)
{
	return list_empty(&part->open) && list_empty(&part->held) && !part->is_in_commit && !(part->win && window_is_dirty(part->win));
}

void pipeline_remove_partition(struct pipeline *pl, struct partition *part)
{
	size_t bytes, n_in_txn = dispatch_forget(pl->dispatcher, part, &bytes);

	pl->task_bytes -= bytes;
	pipeline_drain_partition(pl, part, 0, 0);
	LIST_EACH(&part->open, task, struct task, open_node) {
		if (task->state != TASK_DELIVERING) {
			pipeline_drop(pl, task);
		} else {
			pl->task_bytes -= task->bytes;
			if (dispatch_give_up(pl->dispatcher, task))
				n_in_txn++;
		}
	}
	if (pl->opts->delivery == DELIVERY_AT_LEAST_ONCE)
		pl->metrics->revoke_undelivered += n_in_txn;
	else if (n_in_txn && pl->out) /* none at the end: nobody commits it any more */
		kafka_out_abort(pl->out); /* its offsets will never be in it */
	admit_part_done(&part->admit, loop_now_us(pl->loop));
	list_remove(&part->node);
	window_free(part->win);
	free(part);
}

void pipeline_on_wake(struct pipeline *pl)
{
	LIST_EACH(&pl->partitions, part, struct partition, node)
		part->is_dry = false;
}
