/* health - which cause is unhealthy, from a few facts, and what can only be mended by a new process. Layer 2: pure. */
#ifndef GATHERD_HEALTH_H
#define GATHERD_HEALTH_H

#include "base.h"

#define HEALTH_OUTPUT_BLOCKED_MS 5000
#define HEALTH_NOT_MEMBER_MS 30000
#define HEALTH_HEAD_GRACE_MS 5000
#define HEALTH_LOOP_LAG_MS 1000
#define HEALTH_POLL_STARVED_MS 5000
/* What does not recover in this time ends the process. */
#define HEALTH_PATIENCE_S 300

enum health_cause {
	HEALTH_OK,
	HEALTH_NO_BROKER,
	HEALTH_NOT_ALLOWED,
	HEALTH_NO_TOPIC,
	HEALTH_NO_ASSIGNMENT,
	HEALTH_OUTPUT_BLOCKED,
	HEALTH_HEAD_JOB_AGE,
	HEALTH_LOOP_LAG,
	HEALTH_POLL_STARVED,
	HEALTH_DRAINING, /* /readyz only */
};

/* Where a job is from; topic NULL = none. */
struct health_place {
	const char *topic;
	int32_t partition;
	int64_t offset;
};

struct health_facts {
	bool is_asking; /* no broker was asked yet: nothing is known, which is no cause, and not ready either */
	bool has_broker, has_topics, is_member, is_draining;
	bool is_denied;                /* the broker's ACLs lack something that was needed */
	const char *state_detail;      /* of has_broker, is_denied, has_topics: the last error, the rights, the topic. "" = nothing */
	int64_t not_member_ms;         /* since when */
	int64_t oldest_undelivered_ms; /* 0 = none */
	int64_t undelivered;
	struct health_place oldest;
	int64_t head_job_age_ms;       /* the lowest open job's time since its first turn; 0 = none had one */
	struct health_place head;
	int64_t job_deadline_ms;
	int64_t loop_lag_ms;           /* of the last second */
	int64_t since_poll_ms;         /* since the group's queue was polled */
	/* For health_is_hopeless: */
	bool has_producer;   /* one that takes records, or will once the broker answers; exactly once only */
	uint64_t helper_job; /* which one the helper is in; 0 = none */
};

/* For /healthz: the first cause that applies. */
enum health_cause health_judge(const struct health_facts *facts);
/* For /readyz: can work be taken now? HEALTH_OK, or why not. */
enum health_cause health_ready(const struct health_facts *facts);
const char *health_name(enum health_cause cause); /* "no_broker"; "ok" */
/* What is wrong, where, and for how long; "" when OK. */
void health_explain(const struct health_facts *facts, enum health_cause cause, char *out, size_t max);

/* For how long what only a new process mends has been so. Zeroed at the start. */
struct health_patience {
	int64_t last_us, not_member_us, no_producer_us, helper_us;
	uint64_t helper_job;
};

/* To be called each second. NULL, or why this process should end: for HEALTH_PATIENCE_S without a break, broker and topics were there
 * and it was no member of the group, or had no producer, or its helper was in one call. Of the time between two calls
 * at most two seconds count, so that a process that stood still as a whole loses nothing. */
const char *health_is_hopeless(struct health_patience *patience, const struct health_facts *facts, int64_t now_us);

#endif
