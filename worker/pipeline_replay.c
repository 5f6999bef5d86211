/* What a replay adds to the way of a job: some are not wanted, all are numbered and paced, and the partition ends at its stop. */
#include "pipeline.h"

#include "clock.h"

/* So much may be caught up when a turn came late. */
#define PACE_SLACK_US (100 * US_PER_MS)

bool pipeline_is_replayed(struct pipeline *pl, struct task *task)
{
	const struct pipeline_replay *replay = pl->replay;

	task->job.replay_id = replay->id;
	if (replay->wants && !replay->wants(replay->ctx, task))
		return false;
	if (replay->interval_us)
		pl->pace_us = MAX(pl->pace_us, loop_now_us(pl->loop) - PACE_SLACK_US) + replay->interval_us;
	return true;
}

size_t pipeline_pace_room(const struct pipeline *pl)
{
	int64_t now_us = loop_now_us(pl->loop);

	if (!pl->replay || !pl->replay->interval_us)
		return SIZE_MAX;
	if (pl->pace_us > now_us)
		return 0;
	return (size_t)((now_us - MAX(pl->pace_us, now_us - PACE_SLACK_US)) / pl->replay->interval_us + 1);
}

/* Jobs below its commit point are done, so what lies below the log's start now is lost. */
static void count_lost(struct pipeline *pl, struct partition *part, int64_t stop)
{
	int64_t start = -1, end = -1, expected = window_commit_point(part->win);

	part->saw_first = true;
	kafka_part_watermarks(part->kafka, &start, &end);
	int64_t lost = MIN(start, stop) - expected;
	if (lost <= 0)
		return;
	pl->metrics->jobs_lost += (uint64_t)lost;
	log_error(pl->log, "retention removed jobs before they were read", LOG_STR("topic", kafka_part_topic(part->kafka)),
		  LOG_NUM("partition", kafka_part_partition(part->kafka)), LOG_NUM("lost", lost));
}

void pipeline_reach_stops(struct pipeline *pl)
{
	if (!pl->replay)
		return;
	LIST_EACH(&pl->partitions, part, struct partition, node) {
		int64_t stop = kafka_part_stop(part->kafka);

		/* What is held back comes before the stop. */
		if (!part->win || part->is_draining || !kafka_part_is_at_stop(part->kafka) || !list_empty(&part->held) ||
		    window_next(part->win) >= stop)
			continue;
		if (!part->saw_first)
			count_lost(pl, part, stop);
		window_skip_to(part->win, stop);
	}
}
