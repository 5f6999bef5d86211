#include "buf.h"

#include "err.h"

#include <stdarg.h>
#include <stdio.h>

#define BUF_FIRST 256
/* Memory past len that buf_take gives back: below this a realloc is not worth it. */
#define BUF_SLACK 4096

void buf_init(struct buf *buf, size_t max_bytes)
{
	*buf = (struct buf){.max = max_bytes};
}

void buf_done(struct buf *buf)
{
	free(buf->data);
	buf_init(buf, buf->max);
}

void buf_clear(struct buf *buf)
{
	buf->len = 0;
}

uint8_t *buf_reserve(struct buf *buf, size_t len)
{
	if (len > buf->max - buf->len)
		return NULL;
	size_t need = buf->len + len;
	if (!buf->data || need > buf->cap) {
		size_t cap = MAX(buf->cap, (size_t)BUF_FIRST);
		while (cap < need)
			cap = cap > SIZE_MAX / 2 ? need : cap * 2;
		buf->cap = MIN(cap, buf->max);
		/* One more than cap, so that buf_printf's NUL has a place in a full buffer. */
		buf->data = xrealloc(buf->data, buf->cap + 1);
	}
	return buf->data + buf->len;
}

int buf_add(struct buf *buf, const void *data, size_t len)
{
	uint8_t *to = buf_reserve(buf, len);

	if (!to)
		return -ERR_TOO_LARGE;
	if (len)
		memcpy(to, data, len);
	buf->len += len;
	return 0;
}

int buf_add_str(struct buf *buf, const char *s)
{
	return buf_add(buf, s, strlen(s));
}

int buf_printf(struct buf *buf, const char *fmt, ...)
{
	va_list ap, again;

	va_start(ap, fmt);
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, again);
	va_end(again);
	uint8_t *to = n < 0 ? NULL : buf_reserve(buf, (size_t)n);
	if (to) {
		vsnprintf((char *)to, (size_t)n + 1, fmt, ap);
		buf->len += (size_t)n;
	}
	va_end(ap);
	return to ? 0 : -ERR_TOO_LARGE;
}

uint8_t *buf_take(struct buf *buf, size_t *ret_len)
{
	uint8_t *data = buf->data;

	*ret_len = buf->len;
	if (!buf->len)
		return NULL;
	/* Whoever takes it counts len against memory.max, so what is held should be about that. */
	if (buf->cap - buf->len > BUF_SLACK)
		data = xrealloc(data, buf->len);
	buf_init(buf, buf->max);
	return data;
}
