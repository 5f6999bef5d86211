#include "arena.h"

#include <stdarg.h>
#include <stdio.h>

#define ARENA_ALIGN 16
#define ARENA_CHUNK_MIN 1024

struct arena_chunk {
	struct arena_chunk *older;
	size_t used, size;
	_Alignas(ARENA_ALIGN) uint8_t data[];
};

static void arena_grow(struct arena *arena, size_t size)
{
	struct arena_chunk *chunk = xmalloc(sizeof(*chunk) + size);

	chunk->older = arena->chunk;
	chunk->used = 0;
	chunk->size = size;
	arena->chunk = chunk;
	arena->bytes += sizeof(*chunk) + size;
}

void arena_init(struct arena *arena, size_t first_bytes)
{
	*arena = (struct arena){0};
	arena_grow(arena, first_bytes);
}

void arena_done(struct arena *arena)
{
	/* The arena itself may live inside its first chunk. */
	struct arena_chunk *chunk = arena->chunk;

	while (chunk) {
		struct arena_chunk *older = chunk->older;
		free(chunk);
		chunk = older;
	}
}

void *arena_alloc(struct arena *arena, size_t size)
{
	size_t need = (size + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);

	if (arena->chunk->size - arena->chunk->used < need)
		arena_grow(arena, MAX(need, (size_t)ARENA_CHUNK_MIN));
	void *ptr = arena->chunk->data + arena->chunk->used;
	arena->chunk->used += need;
	return ptr;
}

void *arena_zalloc(struct arena *arena, size_t size)
{
	return memset(arena_alloc(arena, size), 0, size);
}

char *arena_strndup(struct arena *arena, const char *s, size_t n)
{
	char *out = arena_alloc(arena, n + 1);

	if (n)
		memcpy(out, s, n);
	out[n] = '\0';
	return out;
}

/* Formatted once when it is short, as nearly all is: vsnprintf() is the dear part. */
char *arena_printf(struct arena *arena, const char *fmt, ...)
{
	char text[256], *out;
	va_list ap, again;

	va_start(ap, fmt);
	va_copy(again, ap);
	int n = vsnprintf(text, sizeof(text), fmt, again);
	va_end(again);
	if (n < 0)
		abort();
	if ((size_t)n < sizeof(text)) {
		out = arena_strndup(arena, text, (size_t)n);
	} else {
		out = arena_alloc(arena, (size_t)n + 1);
		vsnprintf(out, (size_t)n + 1, fmt, ap);
	}
	va_end(ap);
	return out;
}

struct span arena_copy(struct arena *arena, struct span bytes)
{
	if (!bytes.data)
		return bytes;
	uint8_t *out = arena_alloc(arena, bytes.len + 1);
	if (bytes.len)
		memcpy(out, bytes.data, bytes.len);
	out[bytes.len] = '\0'; /* so that text can be used as a C string */
	return (struct span){out, bytes.len};
}
