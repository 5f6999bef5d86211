/* base - attributes and the few helpers that everything uses.
 *
 * Small fixed allocations abort on failure: a crash is safe, jobs are replayed from their offsets. Whatever a peer sizes
 * goes through buf.h. Layer 0. */
#ifndef GATHERD_BASE_H
#define GATHERD_BASE_H

#include <assert.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

/* A view of bytes that somebody else owns. data may be NULL only when len is 0; a Kafka null is data == NULL. */
struct span {
	const uint8_t *data;
	size_t len;
};

static inline struct span span_str(const char *s)
{
	return (struct span){(const uint8_t *)s, s ? strlen(s) : 0};
}

/* Allocate or abort. xcalloc zeroes. */
void *xmalloc(size_t size) __attribute__((returns_nonnull, malloc));
void *xcalloc(size_t n, size_t size) __attribute__((returns_nonnull, malloc));
void *xrealloc(void *ptr, size_t size) __attribute__((returns_nonnull));
char *xstrdup(const char *s) __attribute__((returns_nonnull, malloc));
char *xstrndup(const char *s, size_t n) __attribute__((returns_nonnull, malloc));
char *xasprintf(const char *fmt, ...) PRINTF_LIKE(1, 2) __attribute__((returns_nonnull, malloc));
char *xvasprintf(const char *fmt, va_list ap) PRINTF_LIKE(1, 0) __attribute__((returns_nonnull, malloc));

/* Case-insensitive glob of host names: '*' any run, '?' one character. */
bool glob_match(const char *glob, const char *name);

#endif
