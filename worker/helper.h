/* helper - the one helper thread, for calls that may block. One job at a time, in order.
 *
 * Happy path: helper_submit -> run() on the thread -> done() on the loop. A job is its owner's memory and must live until done().
 * helper_free waits for the running job at most wait_ms; then it gives the thread up (detached), and says false. Jobs not begun
 * are not run, and no done() follows it. Not to be called from a done().
 * Layer 3. */
#ifndef GATHERD_HELPER_H
#define GATHERD_HELPER_H

#include "base.h"
#include "loop.h"

struct helper;

struct helper_job {
	loop_fn run, done; /* done may be NULL */
	void *ctx;
	struct helper_job *next; /* private */
};

struct helper *helper_new(struct loop *loop);
bool helper_free(struct helper *helper, int64_t wait_ms);
void helper_submit(struct helper *helper, struct helper_job *job);
/* Takes a job back, submitted or not: one not begun is not run, a running one is waited for, at most wait_ms. True: no done()
 * follows and the memory is its owner's again. False: it still runs. Not to be called from a run(). */
bool helper_cancel(struct helper *helper, struct helper_job *job, int64_t wait_ms);
/* Which job runs now: each has a number of its own. 0 = none. */
uint64_t helper_running(struct helper *helper);
/* Jobs submitted and not done. */
size_t helper_pending(const struct helper *helper);

#endif
