/* world - what every fake of the simulation shares: one virtual clock, one random stream, events, machines, a trace.
 *
 * A history is a function of its seed. Time stands still while a loop turns; between turns it jumps to the next event. There is one
 * world per process, because clock_now_us() has no argument. */
#ifndef GATHERD_SIM_WORLD_H
#define GATHERD_SIM_WORLD_H

#include "base.h"
#include "clock.h"
#include "heap.h"
#include "list.h"
#include "loop.h"

#define MACHINES_MAX 4
#define HOOKS_MAX 4

struct worker;
struct pipeline;
struct options;
struct kafka_in;
struct kafka_out;

/* Something that happens at a time: on the loop of one machine, or in the world. Embedded in its owner, zeroed before first use. */
struct event {
	struct heap_node due;
	struct list_node active; /* due in the turn that runs */
	struct loop *loop;	 /* NULL = the world */
	loop_fn fn;
	void *ctx;
};

struct loop {
	struct heap due;
	struct list active;
	struct {
		loop_fn fn;
		void *ctx;
	} hooks[HOOKS_MAX];
	size_t n_hooks;
	struct machine *machine;
	bool is_again, is_stopped;
	int64_t frozen_until_us; /* the process stands still: SIGSTOP, swap, a stolen CPU */
};

/* One place where a worker runs, dies and is started again. */
struct machine {
	int id;
	struct worker *worker; /* NULL = none runs */
	struct loop *loop;
	struct pipeline *pl;
	struct options *opts; /* the worker's */
	struct kafka_in *in;
	struct kafka_out *out;
	bool is_cut;	    /* crashed, or stopped by force: what the fakes free now is lost */
	int64_t stop_at_us; /* SIGTERM came; 0 = no */
	bool was_frozen, pl_was_paused; /* time went by in which its jobs could do nothing */
	bool was_reloaded;		/* its limits were others before */
	int64_t reload_us;
	struct event boot;		/* the next worker starts */
};

struct world {
	uint64_t seed, random;
	int64_t now_us;
	int64_t progress_us; /* the last time that a job came nearer to its end */
	uint64_t n_steps;
	struct heap due;
	struct machine machines[MACHINES_MAX];
	struct machine *booting; /* the one whose worker_new runs */
	struct machine *turned;	 /* by the last step; NULL = it was none's */
	int64_t outage_until_us; /* the broker takes nothing */
};

/* What happened, summed up over all histories. Nothing but uint64_t: processes add theirs up. */
struct seen {
	uint64_t histories, steps, results, excused, revokes, losts, given_up, crashes, stops, commits, commit_errors, queue_full, stripped,
		dead_letters, transfers, cancelled, paused, lookups, outcomes[32];
	/* Exactly once; killed and broken by the state of the transaction (enum txn_state). */
	uint64_t txns, txn_aborts, txn_timeouts, txn_doubts, txn_refused, restarts, killed[8], broken[8];
};

extern struct world world;
extern struct seen seen;

void world_start(uint64_t seed);
void world_done(void);
/* Goes to the next event. False when there is none. */
bool world_step(void);

/* Uniform in [0, n). */
uint64_t rnd(uint64_t n);
/* Uniform in [low, high]. */
int64_t rnd_between(int64_t low, int64_t high);
bool chance(double p);
/* Mostly near typical, rarely much longer. */
int64_t latency_us(int64_t typical_us);

void event_set(struct event *event, struct loop *loop, int64_t at_us, loop_fn fn, void *ctx);
void event_clear(struct event *event);

/* One line of the history, kept for the case that it fails. `what` is a literal. */
void trace(const struct machine *machine, const char *what, int64_t a, int64_t b);
/* Prints why, the seed and the last events, and exits with 1. */
void fail(const char *fmt, ...) PRINTF_LIKE(1, 2) __attribute__((noreturn));
/* The part of it that an assert or a sanitizer prints too. */
void print_history(void);
/* Print each trace line at once. */
void trace_aloud(bool on);

#endif
