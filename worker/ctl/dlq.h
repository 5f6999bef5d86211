/* dlq - the dead-letter topic: shared by `dlq list`, `show` and `redrive`.
 *
 * What was brought back is remembered as a group's commits and completed sets are: the group GROUP.redrive, in the dead-letter topic,
 * by the same window as a worker's. Layer 5. */
#ifndef GATHERD_CTL_DLQ_H
#define GATHERD_CTL_DLQ_H

#include "admin.h"
#include "window.h"

#define DLQ_HEADERS 6 /* that gatherd adds, behind the record's own */

struct dlq_args {
	const char *topic, *group, *reason, *origin;
	int64_t since_ms, count;
	bool dry_run, all, json;
};

struct dlq_partition {
	int64_t start, end, from;
	struct window *win;
	bool is_done, is_started;
};

/* One dead letter, as views into its message. Absent headers are "". */
struct dead_letter_view {
	const rd_kafka_message_t *msg;
	const rd_kafka_headers_t *headers; /* NULL = none */
	size_t n_own;			   /* headers that the record had before */
	struct span reason, detail, topic, partition, offset, timestamp;
	bool is_redriven;
	bool is_beyond; /* of what can be remembered: more than 24000 behind the oldest that is not brought back */
};

struct dlq {
	struct ctl *ctl;
	const struct dlq_args *args;
	const char *topic_name;
	char group[300];
	struct client *client;
	const struct rd_kafka_metadata *md;
	rd_kafka_topic_t *topic;
	struct dlq_partition *partitions;
	int n_partitions;
	int wanted_partition; /* of `show P/OFFSET`, `redrive P/OFFSET`; -1 = all */
	int64_t wanted_offset;
	int64_t shown, passed, total; /* records; total: between `from` and the ends */
};

/* What to do with each record that the filters let through: 0, or what ends the reading. */
typedef int (*dlq_fn)(void *ctx, const struct dead_letter_view *letter);

/* Reads from each partition's `from` to the end as it is now, and gives what is wanted to fn. */
int dlq_scan(struct dlq *dlq, dlq_fn fn, void *ctx) MUST_CHECK;
/* dlq_redrive.c: `dlq redrive`. The exit code. */
int dlq_redrive(struct dlq *dlq);

#endif
