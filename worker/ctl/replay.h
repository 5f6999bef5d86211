/* replay - jobs of a bounded range done again: shared by replay.c (the run), replay_plan.c (which range, stored once) and
 * replay_only.c (which jobs of it). Layer 5. */
#ifndef GATHERD_CTL_REPLAY_H
#define GATHERD_CTL_REPLAY_H

#include "admin.h"
#include "kafka_in.h"
#include "progress.h"

struct task;
struct json_t;

struct replay_args {
	const char *from, *to, *id, *group, *results;
	struct strlist partitions; /* "3", "3:100-200" */
	struct strlist only;	   /* "failed", "outcome=A,B", "host=GLOB" */
	double rate;
	bool json;
};

/* Which jobs of the range are done again. */
struct only {
	uint32_t outcomes; /* bit per outcome that a result must have had; 0 = results are not looked at */
	struct strlist hosts; /* one must match; none = any */
	const struct kafka_range *ranges; /* of the plan */
	size_t n_ranges;
	struct only_bits *bits; /* per range: what the results said of each job */
};

struct replay {
	struct ctl *ctl;
	const struct replay_args *args;
	struct client *client;
	char id[80], live_group[256], group[352], plan_group[360];

	/* The plan. */
	rd_kafka_topic_partition_list_t *jobs;	 /* all partitions of jobs.topic; owns the ranges' topic names */
	rd_kafka_topic_partition_list_t *source; /* all partitions of the live results, with their ends; NULL = not looked at */
	struct kafka_range *ranges;
	size_t n_ranges;
	char *results_topic; /* where the new results go */
	struct json_t *flags;
	struct only only;
	int64_t total;	    /* offsets in the ranges */
	bool is_done;	    /* each partition's commit is at its stop */

	struct progress progress;
};

/* replay_plan.c: reads the stored plan, or makes and stores it; then the group's first offsets. 0 (total 0: the range is empty and
 * nothing was stored), -ERR_INVALID (usage), or another error; what is wrong is said. */
int plan_open(struct replay *replay) MUST_CHECK;
void plan_done(struct replay *replay);

/* replay_only.c: adds one "failed", "outcome=..", "host=..". -ERR_INVALID, said. */
int only_add(const struct ctl *ctl, struct only *only, const char *text) MUST_CHECK;
/* Reads the live results up to the plan's ends, when they are to be looked at. */
int only_read(struct replay *replay) MUST_CHECK;
/* For the pipeline. */
bool only_wants(void *only, const struct task *task);
void only_done(struct only *only);

#endif
