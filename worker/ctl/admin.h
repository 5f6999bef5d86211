/* admin - what a command asks the cluster: a group's members and commits, the offsets of partitions.
 *
 * Each call waits for its answer at most 15 s, and says on stderr what went wrong. On Ctrl-C it ends early, silently, with
 * -ERR_CANCELLED. Only calls that librdkafka 2.0.2 has. Layer 5. */
#ifndef GATHERD_CTL_ADMIN_H
#define GATHERD_CTL_ADMIN_H

#include "ctl.h"

#define ADMIN_MAX_MS 5000

/* The group that --group names, else the settings' kafka.group.id. In buf. */
void admin_group_name(const struct ctl *ctl, const char *given, char *buf, size_t size);

/* Waits for one answer of the admin API. NULL (nothing for 15 s; or Ctrl-C: a change has 2 s more then, or it is not known whether it was
 * made), or rd_kafka_event_destroy. */
rd_kafka_event_t *admin_wait(rd_kafka_queue_t *queue, bool is_change);

/* Asked by rd_kafka_list_groups: after a broker that does not know DescribeGroups (the sandbox), librdkafka 2.0.2's admin call
 * leaves a handle that never answers again. */
struct admin_group {
	const struct rd_kafka_group_list *list; /* owns the rest */
	const struct rd_kafka_group_info *info; /* NULL: absent or unknown */
	const char *state; /* "Stable", "Empty", ..; "absent"; "unknown": the broker does not tell */
	size_t n_members;
};

/* 0, also for a group that is not there; or -ERR_KAFKA, -ERR_CANCELLED. */
int admin_group(struct client *client, const char *group, struct admin_group *ret_group) MUST_CHECK;
void admin_group_done(struct admin_group *group);
/* "group G: Stable, 2 members" and a blank line, on stdout. */
void admin_group_print(const char *name, const struct admin_group *group);

/* What is committed of the list's partitions, filled in: offset (RD_KAFKA_OFFSET_INVALID = never), metadata. */
int admin_committed(struct client *client, const char *group, rd_kafka_topic_partition_list_t *list) MUST_CHECK;
/* Commits the list's offsets for a group without members. Each partition's outcome is in its err. After -ERR_CANCELLED they may be
 * committed or not. */
int admin_commit(struct client *client, const char *group, rd_kafka_topic_partition_list_t *list) MUST_CHECK;
/* Sets each row's offset to that of the first record at or after this time (the end when there is none); or, with
 * RD_KAFKA_OFFSET_BEGINNING and _END, to the log's start and end. */
int admin_offsets_at(struct client *client, rd_kafka_topic_partition_list_t *list, int64_t at_ms) MUST_CHECK;

/* --- places as people give them: place.c; what is wrong is said as of --OPTION, and is -ERR_INVALID --- */

/* An offset. Silent. */
int place_number(const char *text, int64_t *ret_value) MUST_CHECK;
/* "earliest", "latest", an offset (as it is, also outside of the log), or a time: into each row. Else as admin_offsets_at. */
int place_set(struct client *client, const char *option, const char *text, rd_kafka_topic_partition_list_t *list) MUST_CHECK;
/* "3", "3:REST", "jobs/3:REST": which row of the list, and the rest (free; NULL = none). form: what to say that it must be. */
int place_partition(struct client *client, const char *text, const char *form, const rd_kafka_topic_partition_list_t *list,
		    int *ret_row, char **ret_rest) MUST_CHECK;

#endif
