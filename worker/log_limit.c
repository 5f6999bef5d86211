#include "log_internal.h"

#include "clock.h"

/* FNV-1a of what the table keeps of a message. */
static size_t hash_of(const char *msg)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < sizeof((struct log_limited){0}.msg) - 1 && msg[i]; i++)
		hash = (hash ^ (uint8_t)msg[i]) * UINT64_C(0x100000001b3);
	return (size_t)(hash ^ hash >> 32);
}

static bool is_over(const struct log_limited *row, int64_t now_us)
{
	return now_us - row->since_us >= US_PER_S;
}

/* The row of msg, or one that nobody needs any more; NULL when all neighbours are busy: that message is not limited. */
static struct log_limited *row_of(struct log_limit *limit, const char *msg, int64_t now_us)
{
	size_t at = hash_of(msg);
	struct log_limited *spare = NULL;

	for (size_t i = 0; i < 8; i++) {
		struct log_limited *row = &limit->rows[(at + i) % LOG_LIMIT_MESSAGES];
		if (row->n && strncmp(row->msg, msg, sizeof(row->msg) - 1) == 0)
			return row;
		if (!spare && (!row->n || (!row->n_held && is_over(row, now_us))))
			spare = row;
	}
	if (spare) {
		*spare = (struct log_limited){.since_us = now_us};
		strncpy(spare->msg, msg, sizeof(spare->msg) - 1);
	}
	return spare;
}

bool log_limit_pass(struct log_limit *limit, enum log_level level, const char *msg, int64_t now_us)
{
	struct log_limited *row = row_of(limit, msg, now_us);

	if (!row)
		return true;
	/* With lines held back the second ends only by log_limit_sum, or their number would be lost. */
	if (!row->n_held && is_over(row, now_us)) {
		row->since_us = now_us;
		row->n = 0;
	}
	row->level = level;
	if (row->n++ < LOG_LIMIT_PER_S)
		return true;
	if (row->n_held++ == 0)
		limit->n_holding++;
	return false;
}

bool log_limit_sum(struct log_limit *limit, int64_t now_us, struct log_limited *ret_row)
{
	for (size_t i = 0; i < LOG_LIMIT_MESSAGES && limit->n_holding; i++) {
		struct log_limited *row = &limit->rows[i];
		if (!row->n_held || !is_over(row, now_us))
			continue;
		*ret_row = *row;
		*row = (struct log_limited){0};
		limit->n_holding--;
		return true;
	}
	return false;
}

int64_t log_limit_next_us(const struct log_limit *limit)
{
	int64_t next_us = INT64_MAX;

	for (size_t i = 0; i < LOG_LIMIT_MESSAGES && limit->n_holding; i++)
		if (limit->rows[i].n_held)
			next_us = MIN(next_us, limit->rows[i].since_us + US_PER_S);
	return next_us;
}
