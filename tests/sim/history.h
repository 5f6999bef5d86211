/* history - one simulated life of a group of workers, from its seed to the end of all jobs. */
#ifndef GATHERD_SIM_HISTORY_H
#define GATHERD_SIM_HISTORY_H

#include "base.h"

/* What the seed does not decide. */
struct history_wish {
	bool is_calm;  /* no faults at all */
	bool is_small; /* a few jobs; only the broker and the origins have faults. Exactly once when the seed is odd */
	/* With is_small: at this step (0 = none) one machine is struck. */
	uint64_t strike_step;
	const char *strike; /* see history_is_strike */
};

bool history_is_strike(const char *name);
/* Returns only when everything held. Gives the step in which the last job was done. */
uint64_t history_run(uint64_t seed, const struct history_wish *wish);
void history_print(void);

#endif
