#include "health.h"

enum health_cause health_judge(const struct health_facts *facts)
{
	if (facts->loop_lag_ms > HEALTH_LOOP_LAG_MS)
		return HEALTH_LOOP_LAG;
	if (facts->since_poll_ms > HEALTH_POLL_STARVED_MS)
		return HEALTH_POLL_STARVED;
	if (!facts->has_broker)
		return HEALTH_NO_BROKER;
	if (!facts->has_topics)
		return HEALTH_NO_TOPIC;
	if (facts->oldest_undelivered_ms > HEALTH_OUTPUT_BLOCKED_MS)
		return HEALTH_OUTPUT_BLOCKED;
	if (!facts->is_member && !facts->is_draining && facts->not_member_ms > HEALTH_NOT_MEMBER_MS)
		return HEALTH_NO_ASSIGNMENT;
	if (facts->head_job_age_ms > facts->job_deadline_ms + HEALTH_HEAD_GRACE_MS)
		return HEALTH_HEAD_JOB_AGE;
	return HEALTH_OK;
}

enum health_cause health_ready(const struct health_facts *facts)
{
	if (facts->is_draining)
		return HEALTH_DRAINING;
	if (!facts->has_broker)
		return HEALTH_NO_BROKER;
	if (!facts->has_topics)
		return HEALTH_NO_TOPIC;
	return facts->is_member ? HEALTH_OK : HEALTH_NO_ASSIGNMENT;
}

const char *health_name(enum health_cause cause)
{
	static const char *const names[] = {
		[HEALTH_OK] = "ok",
		[HEALTH_NO_BROKER] = "no_broker",
		[HEALTH_NO_TOPIC] = "no_topic",
		[HEALTH_NO_ASSIGNMENT] = "no_assignment",
		[HEALTH_OUTPUT_BLOCKED] = "output_blocked",
		[HEALTH_HEAD_JOB_AGE] = "head_job_age",
		[HEALTH_LOOP_LAG] = "loop_lag",
		[HEALTH_POLL_STARVED] = "poll_starved",
		[HEALTH_DRAINING] = "draining",
	};

	return names[cause];
}
