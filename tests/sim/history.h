/* history - one simulated life of a group of workers, from its seed to the end of all jobs. */
#ifndef GATHERD_SIM_HISTORY_H
#define GATHERD_SIM_HISTORY_H

#include "base.h"

/* is_calm: no faults at all. Returns only when everything held. */
void history_run(uint64_t seed, bool is_calm);
void history_print(void);

#endif
