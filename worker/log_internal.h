/* log_internal - the pure parts of log: the text of a line, and the rate limit of one message. Only for log*.c and its
 * test.
 *
 * Layer 0: no clock, no lock; log.c holds its mutex around log_limit_*. */
#ifndef GATHERD_LOG_INTERNAL_H
#define GATHERD_LOG_INTERNAL_H

#include "log.h"

/* A line and its line feed. Not over PIPE_BUF, so that lines of several writers of one pipe do not mix. */
#define LOG_LINE_MAX 4096
/* Bytes of one value; a longer one is cut and ends in "...". */
#define LOG_VALUE_MAX 1024
#define LOG_LIMIT_PER_S 200
#define LOG_LIMIT_MESSAGES 128

/* The line with its line feed, no NUL; its length. Fields that do not fit are left out, and `cut=true` says so. */
size_t log_line(char out[static LOG_LINE_MAX], enum log_format format, int64_t epoch_ms, enum log_level level,
		const char *msg, const struct log_field *fields);

/* Messages seen lately. Zeroed is empty. */
struct log_limit {
	struct log_limited {
		char msg[64]; /* cut; what differs later than that shares a limit */
		enum log_level level;
		int64_t since_us; /* start of the second that is counted */
		uint32_t n;	  /* lines in that second; 0 = the place is free */
		uint32_t n_held;  /* those over the limit */
	} rows[LOG_LIMIT_MESSAGES];
	size_t n_holding; /* rows with n_held > 0 */
};

/* Counts one line of msg; false when it is over the limit and must not be written. */
bool log_limit_pass(struct log_limit *limit, enum log_level level, const char *msg, int64_t now_us);
/* A message whose second is over with lines held back: copies the row to *ret_row and starts it anew. Call it until
 * false. */
bool log_limit_sum(struct log_limit *limit, int64_t now_us, struct log_limited *ret_row);
/* When log_limit_sum has something next; INT64_MAX = nothing held back. */
int64_t log_limit_next_us(const struct log_limit *limit);

#endif
