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
		pipeline_count_lost(pl, part, stop);
		window_skip_to(part->win, stop);
	}
}
