/* admit - which job starts next, and when to look again.
 *
 * A turn takes four things at once: a host slot, a host token, a partition slot, a process slot. Jobs wait in lines, one line
 * per partition and host. A line that only lacks the last two is *ready*; the others wait for their host, or because half of the
 * slots are in resolve already, and cost nothing meanwhile. Process slots go round robin over partitions, within a partition over
 * hosts; in a line, jobs that had a turn before (retry, redirect hop) come first.
 *
 * Happy path: admit_wait -> admit_next gives the turn (slots taken) -> admit_release.
 * Failure modes: the host is down -> admit_next gives the turn with is_down and without slots.
 * Layer 2: no I/O, time is an argument. */
#ifndef GATHERD_ADMIT_H
#define GATHERD_ADMIT_H

#include "base.h"
#include "heap.h"
#include "host.h"
#include "list.h"

struct line;

/* A job's place, embedded in its task. */
struct turn {
	struct list_node node; /* in its line while it waits */
	struct line *line;     /* set while it waits */
	struct host *host;     /* set by admit_wait, kept until the next one */
	struct admit_part *part;
	int64_t since_us, politeness_us; /* politeness: total time that its host was what it waited for */
	int64_t host_blocked_us;         /* private */
	int64_t started_us;              /* when the slots were taken */
	int32_t host_slot;               /* transfers that the host had in flight at the start */
	bool had_turn;                   /* set by the first admit_next */
	bool has_slots, is_resolving, is_down;
};

/* One partition's share, embedded in its owner. */
struct admit_part {
	struct list_node node; /* on admit->ready or admit->resting */
	struct admit *admit;
	struct list ready;   /* lines that could start now */
	struct list unnamed; /* lines that wait because too many names are being asked for */
	struct line *lines;  /* all, by host */
	int32_t inflight, resolving, waiting;
};

/* Must the network be asked for this host's address? */
typedef bool (*admit_needs_name_fn)(void *ctx, struct turn *turn);

struct admit {
	struct list ready;   /* partitions with a ready line and a free slot */
	struct list resting; /* the others */
	struct heap timers;  /* hosts whose time comes */
	struct list empty;   /* lines without a turn, oldest first */
	struct hosts *hosts;
	int32_t inflight, resolving, waiting;
	int32_t inflight_max, part_inflight_max;
	admit_needs_name_fn needs_name;
	void *ctx;
};

void admit_init(struct admit *adm, int32_t inflight_max, int32_t part_inflight_max, admit_needs_name_fn needs_name, void *ctx);
void admit_done(struct admit *adm);
/* After a reload: new caps, and the hosts' own may have changed; every waiting line is looked at again. */
void admit_set_limits(struct admit *adm, int32_t inflight_max, int32_t part_inflight_max, int64_t now_us);

void admit_part_init(struct admit *adm, struct admit_part *part);
/* No turn of it may wait or hold slots any more. */
void admit_part_done(struct admit_part *part, int64_t now_us);
/* Jobs that it may read now: free slots of the partition and of the process. */
int32_t admit_room(const struct admit_part *part);

/* Joins the line of its host: at the front half when it had a turn. */
void admit_wait(struct admit_part *part, struct turn *turn, struct host *host, int64_t now_us);
/* Leaves its line without a turn (expired, revoked). */
void admit_leave(struct turn *turn, int64_t now_us);
/* The next turn, or NULL when nothing may start now. */
struct turn *admit_next(struct admit *adm, int64_t now_us);
/* Gives this very turn its slots now if its host, partition and process allow; false otherwise. For the lowest open job when memory
 * is short. */
bool admit_take(struct turn *turn, int64_t now_us);
/* The turn, which has slots, begins or ends to wait for a name. */
void admit_set_resolving(struct turn *turn, bool is_resolving);
/* Gives all slots back. True when the host's breaker opened. */
bool admit_release(struct turn *turn, int64_t now_us, enum host_report report, int err);

/* Forgets up to max lines and hosts that were idle long enough. */
void admit_sweep(struct admit *adm, int64_t now_us, size_t max);
/* Hosts whose time came: their lines are looked at again. */
void admit_tick(struct admit *adm, int64_t now_us);
/* When to call admit_tick next; INT64_MAX = never. */
int64_t admit_wake_us(const struct admit *adm);

#endif
