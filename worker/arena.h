/* arena - many small allocations that live and die together (one job's). No single one is freed.
 *
 * Not for what a peer sizes without a cap: callers check sizes first. Layer 0. */
#ifndef GATHERD_ARENA_H
#define GATHERD_ARENA_H

#include "base.h"

struct arena_chunk;

struct arena {
	struct arena_chunk *chunk; /* newest first */
	size_t bytes;              /* all memory held, for accounting */
};

/* Makes a first chunk with room for about first_bytes. */
void arena_init(struct arena *arena, size_t first_bytes);
void arena_done(struct arena *arena);
/* Aligned to 16 bytes, not zeroed; never NULL. */
void *arena_alloc(struct arena *arena, size_t size) __attribute__((returns_nonnull));
void *arena_zalloc(struct arena *arena, size_t size) __attribute__((returns_nonnull));
char *arena_strndup(struct arena *arena, const char *s, size_t n) __attribute__((returns_nonnull));
char *arena_printf(struct arena *arena, const char *fmt, ...) PRINTF_LIKE(2, 3) __attribute__((returns_nonnull, nonnull(2)));
struct span arena_copy(struct arena *arena, struct span bytes);

#endif
