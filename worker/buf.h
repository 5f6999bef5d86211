/* buf - growing byte buffer that must be given its maximum when made (after curl's dynbuf).
 *
 * Failure mode: over the maximum -> -ERR_TOO_LARGE, what was in stays. Layer 0. */
#ifndef GATHERD_BUF_H
#define GATHERD_BUF_H

#include "base.h"

struct buf {
	uint8_t *data;
	size_t len, cap, max;
};

void buf_init(struct buf *buf, size_t max_bytes);
/* Frees the memory; the buffer can be used again with the same maximum. */
void buf_done(struct buf *buf);
void buf_clear(struct buf *buf);
/* All or nothing. 0, or -ERR_TOO_LARGE. */
int buf_add(struct buf *buf, const void *data, size_t len) MUST_CHECK;
int buf_add_str(struct buf *buf, const char *s) MUST_CHECK;
int buf_printf(struct buf *buf, const char *fmt, ...) PRINTF_LIKE(2, 3) MUST_CHECK;
/* Room for len more bytes at data + len; the caller adds to len what it wrote. NULL when over the maximum. */
uint8_t *buf_reserve(struct buf *buf, size_t len) MUST_CHECK;
/* Hands the memory to the caller (free); NULL when empty. */
uint8_t *buf_take(struct buf *buf, size_t *ret_len);

#endif
