/* schedule - rounds of periodic sources: which one goes out when, which were missed, and why.
 *
 * Happy path: schedule_add -> schedule_take gives each slot whose round is due -> schedule_acknowledged -> schedule_ended.
 * A slot's rounds are due at phase + k * period of the wall clock. The phase comes from the id alone: sources are spread over their
 * period, and whoever feeds them, after a restart or on another machine, means the same rounds.
 * Failure modes: the round before is not over -> this one is missed (MISSED_RUNNING; MISSED_UNSENT while no broker has it), so that
 *                never two are under way; asked too late by whole rounds -> only the newest goes out, the rest are MISSED_LATE; no result
 *                within the slot's patience -> MISSED_LOST, and the next round goes out; the clock was set back -> the rounds go on
 *                from where it is now.
 * Layer 2: pure; time is an argument, in ms since the epoch. */
#ifndef GATHERD_SCHEDULE_H
#define GATHERD_SCHEDULE_H

#include "heap.h"

/* A source with a longer period that is overdue when added runs once within this time, instead of waiting for its next round. */
#define SCHEDULE_CATCH_UP_MS 60000

enum missed { MISSED_RUNNING, MISSED_UNSENT, MISSED_LATE, MISSED_EXPIRED, MISSED_LOST, MISSED_COUNT };

/* Embedded in its owner; fields are read, not written. */
struct schedule_slot {
	struct heap_node timer;
	int64_t period_ms, phase_ms;
	int64_t patience_ms; /* from going out to the result */
	int64_t due_ms;	     /* the next round */
	int64_t round_ms;    /* due time of the round under way; 0 = none */
	int64_t sent_ms;     /* when it went out */
	bool is_acknowledged;
	int64_t sent, missed[MISSED_COUNT];
	enum missed last_cause; /* of those missed */
};

struct schedule {
	struct heap heap;
	int64_t last_ms; /* the newest time that schedule_take was given */
};

void schedule_init(struct schedule *sched);
/* Slots need not be removed before. */
void schedule_done(struct schedule *sched);

/* The slot is zeroed, or was in a schedule before: then what is under way and the counts stay. last_ms: due time of the newest round
 * known to be done, by whoever; 0 = none. */
void schedule_add(struct schedule *sched, struct schedule_slot *slot, const char *id, int64_t period_ms, int64_t patience_ms,
		  int64_t last_ms, int64_t now_ms);
/* Safe on a slot that is not in it. */
void schedule_remove(struct schedule *sched, struct schedule_slot *slot);

/* When schedule_take is to be asked again; INT64_MAX = never. */
int64_t schedule_next_ms(const struct schedule *sched);
/* The next slot whose round is to go out now, as round_ms; NULL = none. Counts what is missed on the way. */
struct schedule_slot *schedule_take(struct schedule *sched, int64_t now_ms);

/* What became of a round. One that is not under way any more changes nothing. */
void schedule_acknowledged(struct schedule_slot *slot, int64_t round_ms);
void schedule_unsent(struct schedule_slot *slot, int64_t round_ms);
/* is_expired: the result says that its turn came too late. */
void schedule_ended(struct schedule_slot *slot, int64_t round_ms, bool is_expired);

int64_t schedule_missed(const struct schedule_slot *slot); /* all causes */
const char *schedule_cause(enum missed cause);		   /* "running" */

#endif
