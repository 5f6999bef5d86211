#include "health.h"

#include "clock.h"

#include <inttypes.h>
#include <stdio.h>

enum health_cause health_judge(const struct health_facts *facts)
{
	if (facts->loop_lag_ms > HEALTH_LOOP_LAG_MS)
		return HEALTH_LOOP_LAG;
	if (facts->since_poll_ms > HEALTH_POLL_STARVED_MS)
		return HEALTH_POLL_STARVED;
	if (!facts->has_broker)
		return facts->is_asking ? HEALTH_OK : HEALTH_NO_BROKER;
	if (facts->is_denied)
		return HEALTH_NOT_ALLOWED;
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
	if (facts->is_denied)
		return HEALTH_NOT_ALLOWED;
	if (!facts->has_topics)
		return HEALTH_NO_TOPIC;
	return facts->is_member ? HEALTH_OK : HEALTH_NO_ASSIGNMENT;
}

const char *health_name(enum health_cause cause)
{
	static const char *const names[] = {
		[HEALTH_OK] = "ok",
		[HEALTH_NO_BROKER] = "no_broker",
		[HEALTH_NOT_ALLOWED] = "not_allowed",
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

/* " (of jobs[3], offset 17)", or nothing. */
static void say_place(const struct health_place *place, char *out, size_t max)
{
	*out = '\0';
	if (place->topic)
		snprintf(out, max, " (of %s[%" PRId32 "], offset %" PRId64 ")", place->topic, place->partition, place->offset);
}

static int64_t seconds(int64_t ms)
{
	return ms / 1000;
}

void health_explain(const struct health_facts *facts, enum health_cause cause, char *out, size_t max)
{
	const char *detail = facts->state_detail ? facts->state_detail : "";
	char place[320];

	*out = '\0';
	switch (cause) {
	case HEALTH_OK:
		break;
	case HEALTH_NO_BROKER:
		snprintf(out, max, "no broker answers: %s", detail);
		break;
	case HEALTH_NOT_ALLOWED:
		snprintf(out, max, "the broker's ACLs do not give this user: %s (docs/security.md)", detail);
		break;
	case HEALTH_NO_TOPIC:
		snprintf(out, max, "topic %s does not exist", detail);
		break;
	case HEALTH_NO_ASSIGNMENT:
		snprintf(out, max, "not a member of the group for %" PRId64 " s", seconds(facts->not_member_ms));
		break;
	case HEALTH_OUTPUT_BLOCKED:
		say_place(&facts->oldest, place, sizeof(place));
		snprintf(out, max, "the oldest of %" PRId64 " unacknowledged results%s waits for %" PRId64 " s", facts->undelivered,
			 place, seconds(facts->oldest_undelivered_ms));
		break;
	case HEALTH_HEAD_JOB_AGE:
		say_place(&facts->head, place, sizeof(place));
		snprintf(out, max, "the lowest open job%s had its first turn %" PRId64 " s ago, job.deadline is %" PRId64 " s", place,
			 seconds(facts->head_job_age_ms), seconds(facts->job_deadline_ms));
		break;
	case HEALTH_LOOP_LAG:
		snprintf(out, max, "the event loop was %" PRId64 " ms late", facts->loop_lag_ms);
		break;
	case HEALTH_POLL_STARVED:
		snprintf(out, max, "the group's events were not looked at for %" PRId64 " s", seconds(facts->since_poll_ms));
		break;
	case HEALTH_DRAINING:
		snprintf(out, max, "SIGTERM: finishing what is under way");
		break;
	}
}

/* ---- what only a new process mends ---- */

#define PATIENCE_US (HEALTH_PATIENCE_S * US_PER_S)
#define STEP_MAX_US (2 * US_PER_S)

static bool is_over(int64_t *sum_us, bool is_so, int64_t step_us)
{
	*sum_us = is_so ? *sum_us + step_us : 0;
	return *sum_us >= PATIENCE_US;
}

const char *health_is_hopeless(struct health_patience *patience, const struct health_facts *facts, int64_t now_us)
{
	int64_t step_us = patience->last_us ? MIN(now_us - patience->last_us, STEP_MAX_US) : 0;
	bool is_all_there = facts->has_broker && !facts->is_denied && facts->has_topics && !facts->is_draining;
	bool is_same_job = facts->helper_job && facts->helper_job == patience->helper_job;

	patience->last_us = now_us;
	patience->helper_job = facts->helper_job;
	bool no_group = is_over(&patience->not_member_us, is_all_there && !facts->is_member, step_us);
	bool no_producer = is_over(&patience->no_producer_us, is_all_there && !facts->has_producer, step_us);
	bool no_helper = is_over(&patience->helper_us, is_same_job, step_us);

	return no_helper    ? "a call into the Kafka client does not come back"
	       : no_producer ? "the transactional producer cannot be made anew, though broker and topics are there"
	       : no_group    ? "not a member of the group, though broker and topics are there"
			     : NULL;
}
