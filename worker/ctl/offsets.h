/* offsets - where a group stands in its topics: shared by `offsets` and `offsets reset`. Layer 5. */
#ifndef GATHERD_CTL_OFFSETS_H
#define GATHERD_CTL_OFFSETS_H

#include "admin.h"

struct offsets_args {
	const char *group, *topic, *to;
	struct strlist partitions; /* "3", "3:1500" */
	bool yes, json;
};

struct offsets_row {
	const char *topic; /* of the list */
	int32_t partition;
	int64_t start, end;
	int64_t commit;	    /* -1 = never */
	int64_t completed;  /* above the commit point, and not below the log's start */
	int64_t lost;	    /* open jobs that the log's start overtook */
	int64_t backlog;    /* what is still to be done */
	int64_t oldest_ms;  /* timestamp of the oldest open job; -1 = none, or not known */
	bool is_set_broken; /* the commit's metadata is no completed set */
	int64_t target;	    /* reset: where to; -1 = not asked for */
};

struct offsets {
	struct ctl *ctl;
	const struct offsets_args *args;
	struct client *client;
	char group[256];
	struct admin_group about;
	rd_kafka_topic_partition_list_t *list; /* of all partitions, sorted */
	struct offsets_row *rows;
	size_t n;
};

/* offsets_reset.c: `offsets reset`; the rows are filled. The exit code. */
int offsets_reset(struct offsets *offsets);

#endif
