/* clock - the only place that reads the time. Everything above takes `now` as an argument. Layer 0. */
#ifndef GATHERD_CLOCK_H
#define GATHERD_CLOCK_H

#include "base.h"

#define US_PER_MS INT64_C(1000)
#define US_PER_S INT64_C(1000000)

/* Monotonic microseconds: for durations and timers. */
int64_t clock_now_us(void);
/* Milliseconds since the epoch: for `_at_ms` fields only. */
int64_t clock_epoch_ms(void);

#endif
