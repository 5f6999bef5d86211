/* window - open offsets, commit point and completed set of one Kafka partition.
 *
 * Happy path: accept -> (fetched elsewhere) -> finish -> the commit point moves to the lowest open offset.
 * Offsets that are never accepted although a higher one was (compaction, transaction markers) count as complete. With
 * nothing open the base jumps to the next record.
 * Failure modes: the offset is beyond the span -> -ERR_FULL, the caller holds the record back and leaves the queue unread;
 *                complete already (from a restored set, or below the base) -> -ERR_NOT_FOUND, the caller skips it.
 * Layer 2: no I/O, no clock, no log. */
#ifndef GATHERD_WINDOW_H
#define GATHERD_WINDOW_H

#include "base.h"
#include "offsetmap.h"

struct window;

/* base: the committed offset, or the first to read. span_max: 1 to OFFSETMAP_SPAN_MAX. */
struct window *window_new(int64_t base, int32_t span_max);
void window_free(struct window *win);

/* Loads the completed set that was committed with base; once, before the first accept. -ERR_INVALID when it does not parse:
 * the window stays as it was. Bits at or past span_max are cut. */
int window_restore(struct window *win, const char *metadata, size_t len) MUST_CHECK;
/* The first record lies below the stored offset: the topic was made anew. Forgets the set and starts at offset. */
void window_restart(struct window *win, int64_t offset);

/* Opens the offset. Offsets come in rising order. 0, -ERR_FULL or -ERR_NOT_FOUND as above. */
int window_accept(struct window *win, int64_t offset) MUST_CHECK;
/* All offsets below `offset` that were not accepted are complete (end of partition, replay's stop). */
void window_skip_to(struct window *win, int64_t offset);
/* The job of an open offset is complete. Finishing what is not open is a bug (assert). */
void window_finish(struct window *win, int64_t offset);

/* Lowest open offset, or the next one to read when none is open. Never moves back, but by window_restart. */
int64_t window_commit_point(const struct window *win);
/* Highest offset seen + 1. */
int64_t window_next(const struct window *win);
/* Open jobs, and offsets complete above the commit point. */
int32_t window_open(const struct window *win);
int32_t window_completed_above(const struct window *win);
/* next - commit point. */
int32_t window_span(const struct window *win);
bool window_is_full(const struct window *win);
/* Changed since the last window_snapshot? */
bool window_is_dirty(const struct window *win);
/* What to commit now: offset (returned) and metadata (C string, may be empty). Clears dirty. */
int64_t window_snapshot(struct window *win, char metadata[static OFFSETMAP_TEXT_MAX + 1]);
/* The commit of the last snapshot failed: commit again. */
void window_mark_dirty(struct window *win);

#endif
