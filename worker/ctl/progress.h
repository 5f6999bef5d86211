/* progress - one line with a bar, a rate and the time that is left, on a terminal only (stderr). Layer 5. */
#ifndef GATHERD_CTL_PROGRESS_H
#define GATHERD_CTL_PROGRESS_H

#include "ctl.h"

#define PROGRESS_SAMPLES 16

struct progress_sample {
	int64_t at_us, n, done;
};

/* Zeroed = fresh. */
struct progress {
	struct progress_sample samples[PROGRESS_SAMPLES]; /* the last ones, in a ring */
	size_t n_samples;
	int64_t shown_us;
	bool is_shown;
};

/* Draws it anew, at most 5 times a second. The cursor then stands at its front, so that a log line takes its place. */
void progress_show(struct progress *progress, int64_t done, int64_t total, const char *what);
/* n and its rate are told, while bar and time come from something else: done of total (-1 = not known: without them). */
void progress_show_part(struct progress *progress, int64_t n, const char *what, int64_t done, int64_t total);
/* The same place, with words in it. */
void progress_say(struct progress *progress, const char *text);
void progress_clear(struct progress *progress);
/* 1234567 -> "1,234,567". In buf. */
const char *progress_number(int64_t n, char *buf, size_t size);

#endif
