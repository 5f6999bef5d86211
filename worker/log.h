/* log - structured log lines through a ring and a thread: a full pipe never blocks the caller.
 *
 * A line is formatted by the caller (logfmt or JSON) into the ring; the thread writes it to the file descriptor. A full ring
 * drops the line and counts it; the next line that fits is preceded by one that says how many were dropped.
 * Rate limit: over 200 lines a second of one message text, the rest are counted and summed up in one line a second.
 * Line: ts=2026-11-01T12:00:00.123Z level=info msg="http listening" addr=127.0.0.1 port=9464
 * Any thread may log. Layer 0. */
#ifndef GATHERD_LOG_H
#define GATHERD_LOG_H

#include "base.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_LOGFMT, LOG_JSON };

struct log_field {
	const char *key; /* NULL ends the list */
	const char *str; /* NULL = a number */
	int64_t num;
};

/* A function, because the compiler calls `array ? array : ""` a mistake. */
static inline const char *log_or_empty(const char *s)
{
	return s ? s : "";
}

#define LOG_STR(key, value) ((struct log_field){(key), log_or_empty(value), 0})
#define LOG_NUM(key, value) ((struct log_field){(key), NULL, (int64_t)(value)})

struct log;

/* Starts the thread. fd stays the caller's. A NULL log everywhere below is allowed and silent (unit tests). */
struct log *log_new(int fd, enum log_level level, enum log_format format);
/* Writes what is in the ring, for at most 1 s, ends the thread. NULL is fine. */
void log_free(struct log *log);
/* Waits until all that was logged before is written, for at most wait_ms: for who must end without log_free. */
void log_flush(struct log *log, int64_t wait_ms);
/* Both may be changed while running (SIGHUP). */
void log_set(struct log *log, enum log_level level, enum log_format format);
/* Lines dropped so far because the ring was full. */
uint64_t log_dropped(const struct log *log);
void log_write(struct log *log, enum log_level level, const char *msg, const struct log_field *fields);

#define LOG_AT(log, level, msg, ...) log_write((log), (level), (msg), (const struct log_field[]){__VA_ARGS__ __VA_OPT__(, ) {NULL, NULL, 0}})
#define log_debug(log, msg, ...) LOG_AT(log, LOG_DEBUG, msg __VA_OPT__(, ) __VA_ARGS__)
#define log_info(log, msg, ...) LOG_AT(log, LOG_INFO, msg __VA_OPT__(, ) __VA_ARGS__)
#define log_warn(log, msg, ...) LOG_AT(log, LOG_WARN, msg __VA_OPT__(, ) __VA_ARGS__)
#define log_error(log, msg, ...) LOG_AT(log, LOG_ERROR, msg __VA_OPT__(, ) __VA_ARGS__)

#endif
