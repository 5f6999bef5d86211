/* Step 7 of a job's life: the lowest open offset of each partition that changed and the set above it, one commit in flight. At least
 * once: the offsets of acknowledged results, by the consumer. Exactly once: with the results in one
 * transaction, by the producer. */
#include "pipeline.h"

#include "clock.h"
#include "log.h"

#define COMMIT_SOON_US (20 * US_PER_MS)
#define COMMIT_SOON_DELIVERIES 64
#define SILENCE_US US_PER_S

/* While results are held also without news: its answer says that we are still a member. */
static bool wants_commit(const struct pipeline *pl, const struct partition *part)
{
	bool asks = dispatch_is_held(pl->dispatcher) && !list_empty(&part->open);

	return part->win && (window_is_dirty(part->win) || asks) && !part->is_in_commit;
}

/* Exactly once: the results go in one transaction with the offsets, which closes first. */
static bool may_commit(struct pipeline *pl)
{
	if (pl->opts->delivery == DELIVERY_AT_LEAST_ONCE)
		return true;
	/* Asked again when something comes back. */
	pl->commit_waits = !kafka_in_member(pl->in) || !kafka_out_quiesce(pl->out) || !dispatch_may_commit(pl->dispatcher);
	return !pl->commit_waits;
}

static int commit_rows(struct pipeline *pl, const struct kafka_commit *rows, size_t n)
{
	if (pl->opts->delivery == DELIVERY_AT_LEAST_ONCE)
		return kafka_in_commit(pl->in, rows, n);
	kafka_in_hold(pl->in, true);
	kafka_out_commit(pl->out, rows, n, kafka_in_member(pl->in));
	return 0;
}

void pipeline_commit(struct pipeline *pl)
{
	struct arena arena;
	size_t n = 0;

	if (!may_commit(pl))
		return;
	arena_init(&arena, 4096);
	struct kafka_commit *rows = arena_alloc(&arena, (pl->partitions.len + 1) * sizeof(*rows));
	LIST_EACH(&pl->partitions, part, struct partition, node) {
		if (!wants_commit(pl, part))
			continue;
		char *metadata = arena_alloc(&arena, OFFSETMAP_TEXT_MAX + 1);
		int64_t offset = window_snapshot(part->win, metadata);
		rows[n++] = (struct kafka_commit){part->kafka, offset, metadata};
		part->is_in_commit = true;
		part->committed = offset;
	}
	if (n) {
		pl->commit_in_flight = true;
		pl->commit_started_us = clock_now_us();
		pl->last_commit_us = loop_now_us(pl->loop);
		pl->uncommitted = 0;
		int err = commit_rows(pl, rows, n);
		if (err)
			pipeline_on_committed(pl, err, "refused at once");
	}
	arena_done(&arena);
}

int64_t pipeline_commit_due_us(const struct pipeline *pl)
{
	bool is_draining = false, is_wanted = false;

	if (pl->commit_in_flight || pl->commit_waits)
		return INT64_MAX;
	LIST_EACH(&pl->partitions, part, struct partition, node) {
		is_wanted |= wants_commit(pl, part);
		is_draining |= part->is_draining;
	}
	if (!is_wanted)
		return INT64_MAX;
	bool is_soon = is_draining || (pl->opts->delivery == DELIVERY_AT_LEAST_ONCE && pl->uncommitted >= COMMIT_SOON_DELIVERIES);
	return pl->last_commit_us + (is_soon ? COMMIT_SOON_US : pl->opts->commit_interval * US_PER_MS);
}

void pipeline_on_committed(struct pipeline *pl, int err, const char *detail)
{
	pl->commit_in_flight = false;
	if (err) {
		pl->metrics->commit_failures++;
		log_warn(pl->log, "commit failed, it is tried again", LOG_STR("detail", detail));
	} else {
		pl->metrics->commits++;
		pl->confirmed_us = loop_now_us(pl->loop);
		if (dispatch_is_held(pl->dispatcher) && pl->commit_started_us >= pl->held_us)
			dispatch_hold(pl->dispatcher, false);
		hist_observe(&pl->metrics->commit_seconds, clock_now_us() - pl->commit_started_us);
	}
	LIST_EACH(&pl->partitions, part, struct partition, node) {
		if (part->is_in_commit && err)
			window_mark_dirty(part->win);
		part->is_in_commit = false;
	}
}

/* True when it was not held before. */
static bool hold_output(struct pipeline *pl)
{
	if (pl->opts->delivery != DELIVERY_AT_LEAST_ONCE || list_empty(&pl->partitions) || dispatch_is_held(pl->dispatcher))
		return false;
	pl->held_us = clock_now_us();
	dispatch_hold(pl->dispatcher, true);
	loop_again(pl->loop);
	return true;
}

void pipeline_hold_output(struct pipeline *pl)
{
	if (hold_output(pl))
		log_info(pl->log, "no broker answers: results are held until a commit is confirmed");
}

/* Nothing is said: when only the results' topic is slow, the commit that asks is confirmed at once, again and again. */
void pipeline_watch_output(struct pipeline *pl)
{
	int64_t now_us = loop_now_us(pl->loop), oldest_us = dispatch_oldest_us(pl->dispatcher, NULL);

	if (oldest_us && now_us - oldest_us > SILENCE_US && now_us - pl->confirmed_us > SILENCE_US)
		hold_output(pl);
}

void pipeline_on_txn(struct pipeline *pl, enum txn_end end, const char *detail)
{
	if (pl->commit_in_flight)
		pipeline_on_committed(pl, end == TXN_COMMITTED ? 0 : -ERR_KAFKA, detail);
	dispatch_on_txn(pl->dispatcher, end);
	if (end == TXN_VOID)
		kafka_in_refresh(pl->in);
	pl->commit_waits = false;
	kafka_in_hold(pl->in, false);
}
