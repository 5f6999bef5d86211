#include "schedule.h"

void schedule_init(struct schedule *sched)
{
	heap_init(&sched->heap);
	sched->last_ms = 0;
}

void schedule_done(struct schedule *sched)
{
	heap_done(&sched->heap);
}

/* FNV-1a, and a last stir: ids that differ in their last character only must not be neighbours. */
static uint64_t hash_of(const char *id)
{
	uint64_t hash = UINT64_C(14695981039346656037);

	for (; *id; id++)
		hash = (hash ^ (uint8_t)*id) * UINT64_C(1099511628211);
	hash = (hash ^ hash >> 33) * UINT64_C(0xff51afd7ed558ccd);
	return hash ^ hash >> 33;
}

/* The newest due time at or before a point in time. */
static int64_t grid_floor(const struct schedule_slot *slot, int64_t at_ms)
{
	int64_t behind_ms = (at_ms - slot->phase_ms) % slot->period_ms;

	return at_ms - (behind_ms < 0 ? behind_ms + slot->period_ms : behind_ms);
}

static int64_t grid_after(const struct schedule_slot *slot, int64_t at_ms)
{
	return grid_floor(slot, at_ms) + slot->period_ms;
}

static void set_due(struct schedule *sched, struct schedule_slot *slot, int64_t due_ms)
{
	slot->due_ms = due_ms;
	heap_set(&sched->heap, &slot->timer, due_ms * 1000);
}

static int64_t first_due(const struct schedule_slot *slot, int64_t last_ms, int64_t now_ms)
{
	/* A time far ahead was written by a clock that was wrong. */
	if (last_ms > now_ms + slot->period_ms)
		last_ms = 0;
	int64_t grid_ms = grid_after(slot, MAX(now_ms, last_ms));
	int64_t soon_ms = now_ms + slot->phase_ms % SCHEDULE_CATCH_UP_MS;
	bool is_overdue = last_ms + slot->period_ms <= now_ms;

	return is_overdue && slot->period_ms > SCHEDULE_CATCH_UP_MS && soon_ms < grid_ms ? soon_ms : grid_ms;
}

void schedule_add(struct schedule *sched, struct schedule_slot *slot, const char *id, int64_t period_ms, int64_t patience_ms,
		  int64_t last_ms, int64_t now_ms)
{
	assert(period_ms > 0);
	slot->period_ms = period_ms;
	slot->patience_ms = patience_ms;
	slot->phase_ms = (int64_t)(hash_of(id) % (uint64_t)period_ms);
	set_due(sched, slot, first_due(slot, last_ms, now_ms));
}

void schedule_remove(struct schedule *sched, struct schedule_slot *slot)
{
	heap_remove(&sched->heap, &slot->timer);
}

int64_t schedule_next_ms(const struct schedule *sched)
{
	const struct heap_node *node = heap_first(&sched->heap);

	return node ? node->at_us / 1000 : INT64_MAX;
}

static void miss(struct schedule_slot *slot, enum missed cause, int64_t n)
{
	slot->missed[cause] += n;
	if (n)
		slot->last_cause = cause;
}

/* The clock was set back: what is due far ahead would wait for it to come there again. */
static void set_back(struct schedule *sched, int64_t now_ms)
{
	size_t n = sched->heap.len;
	struct heap_node **all = xcalloc(n + 1, sizeof(all[0]));

	for (size_t i = 0; i < n; i++)
		all[i] = sched->heap.nodes[i];
	for (size_t i = 0; i < n; i++) {
		struct schedule_slot *slot = CONTAINER_OF(all[i], struct schedule_slot, timer);

		slot->sent_ms = MIN(slot->sent_ms, now_ms);
		if (slot->due_ms > now_ms + 2 * slot->period_ms)
			set_due(sched, slot, grid_after(slot, now_ms));
	}
	free(all);
}

/* Whether the round may go out. */
static bool is_free(struct schedule_slot *slot, int64_t now_ms)
{
	if (!slot->round_ms)
		return true;
	if (now_ms - slot->sent_ms < slot->patience_ms) {
		miss(slot, slot->is_acknowledged ? MISSED_RUNNING : MISSED_UNSENT, 1);
		return false;
	}
	miss(slot, slot->is_acknowledged ? MISSED_LOST : MISSED_UNSENT, 1);
	return true;
}

struct schedule_slot *schedule_take(struct schedule *sched, int64_t now_ms)
{
	struct heap_node *node;

	if (now_ms < sched->last_ms)
		set_back(sched, now_ms);
	sched->last_ms = now_ms;
	while ((node = heap_first(&sched->heap)) && node->at_us / 1000 <= now_ms) {
		struct schedule_slot *slot = CONTAINER_OF(node, struct schedule_slot, timer);
		/* The first round of a catch-up is on no grid. */
		int64_t newest_ms = MAX(grid_floor(slot, now_ms), slot->due_ms);

		miss(slot, MISSED_LATE, (newest_ms - slot->due_ms + slot->period_ms - 1) / slot->period_ms);
		/* At least half a period from one that is on no grid. */
		set_due(sched, slot, grid_after(slot, newest_ms + slot->period_ms / 2));
		if (!is_free(slot, now_ms))
			continue;
		slot->round_ms = newest_ms;
		slot->sent_ms = now_ms;
		slot->is_acknowledged = false;
		slot->sent++;
		return slot;
	}
	return NULL;
}

void schedule_acknowledged(struct schedule_slot *slot, int64_t round_ms)
{
	if (slot->round_ms == round_ms)
		slot->is_acknowledged = true;
}

static bool end_round(struct schedule_slot *slot, int64_t round_ms)
{
	if (!round_ms || slot->round_ms != round_ms)
		return false;
	slot->round_ms = 0;
	return true;
}

void schedule_unsent(struct schedule_slot *slot, int64_t round_ms)
{
	if (end_round(slot, round_ms))
		miss(slot, MISSED_UNSENT, 1);
}

void schedule_ended(struct schedule_slot *slot, int64_t round_ms, bool is_expired)
{
	if (end_round(slot, round_ms) && is_expired)
		miss(slot, MISSED_EXPIRED, 1);
}

int64_t schedule_missed(const struct schedule_slot *slot)
{
	int64_t sum = 0;

	for (int i = 0; i < MISSED_COUNT; i++)
		sum += slot->missed[i];
	return sum;
}

const char *schedule_cause(enum missed cause)
{
	static const char *const names[] = {
	    [MISSED_RUNNING] = "running", [MISSED_UNSENT] = "unsent",	    [MISSED_LATE] = "late",
	    [MISSED_EXPIRED] = "expired", [MISSED_LOST] = "lost",
	};

	return names[cause];
}
