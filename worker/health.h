/* health - which cause is unhealthy, from a few facts. Layer 2: pure. */
#ifndef GATHERD_HEALTH_H
#define GATHERD_HEALTH_H

#include "base.h"

#define HEALTH_OUTPUT_BLOCKED_MS 5000
#define HEALTH_NOT_MEMBER_MS 30000
#define HEALTH_HEAD_GRACE_MS 5000
#define HEALTH_LOOP_LAG_MS 1000
#define HEALTH_POLL_STARVED_MS 5000

enum health_cause {
	HEALTH_OK,
	HEALTH_NO_BROKER,
	HEALTH_NO_TOPIC,
	HEALTH_NO_ASSIGNMENT,
	HEALTH_OUTPUT_BLOCKED,
	HEALTH_HEAD_JOB_AGE,
	HEALTH_LOOP_LAG,
	HEALTH_POLL_STARVED,
	HEALTH_DRAINING, /* /readyz only */
};

struct health_facts {
	bool has_broker, has_topics, is_member, is_draining;
	int64_t not_member_ms;         /* since when */
	int64_t oldest_undelivered_ms; /* 0 = none */
	int64_t head_job_age_ms;       /* the lowest open job's time since its first turn; 0 = none had one */
	int64_t job_deadline_ms;
	int64_t loop_lag_ms;           /* of the last second */
	int64_t since_poll_ms;         /* since the group's queue was polled */
};

/* For /healthz: the first cause that applies. */
enum health_cause health_judge(const struct health_facts *facts);
/* For /readyz: can work be taken now? HEALTH_OK, or why not. */
enum health_cause health_ready(const struct health_facts *facts);
const char *health_name(enum health_cause cause); /* "no_broker"; "ok" */

#endif
