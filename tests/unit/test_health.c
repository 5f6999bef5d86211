/* health: one row per cause, and which of two causes is told. */
#include "health.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define IS(broker, topics, member) .has_broker = (broker), .has_topics = (topics), .is_member = (member), .job_deadline_ms = 60000
#define WELL IS(true, true, true)

static const struct {
	struct health_facts facts;
	enum health_cause health, ready;
	const char *why;
} rows[] = {
	{{WELL}, HEALTH_OK, HEALTH_OK, "all is well"},
	{{IS(false, true, true)}, HEALTH_NO_BROKER, HEALTH_NO_BROKER, "no broker"},
	{{IS(true, false, true)}, HEALTH_NO_TOPIC, HEALTH_NO_TOPIC, "no topic"},
	{{IS(false, false, true)}, HEALTH_NO_BROKER, HEALTH_NO_BROKER, "without a broker no topic is known"},
	{{IS(true, true, false), .not_member_ms = 30000}, HEALTH_OK, HEALTH_NO_ASSIGNMENT, "joining takes its time"},
	{{IS(true, true, false), .not_member_ms = 30001}, HEALTH_NO_ASSIGNMENT, HEALTH_NO_ASSIGNMENT, "not a member for over 30 s"},
	{{WELL, .not_member_ms = 99999}, HEALTH_OK, HEALTH_OK, "a standby without partitions is a member"},
	{{IS(true, true, false), .not_member_ms = 99999, .is_draining = true}, HEALTH_OK, HEALTH_DRAINING, "who leaves is no member"},
	{{WELL, .is_draining = true}, HEALTH_OK, HEALTH_DRAINING, "a drain takes no work, and is well"},
	{{WELL, .oldest_undelivered_ms = 5000}, HEALTH_OK, HEALTH_OK, "a slow delivery"},
	{{WELL, .oldest_undelivered_ms = 5001}, HEALTH_OUTPUT_BLOCKED, HEALTH_OK, "output blocked"},
	{{WELL, .head_job_age_ms = 65000}, HEALTH_OK, HEALTH_OK, "deadline and grace"},
	{{WELL, .head_job_age_ms = 65001}, HEALTH_HEAD_JOB_AGE, HEALTH_OK, "past deadline and grace"},
	{{WELL, .loop_lag_ms = 1000}, HEALTH_OK, HEALTH_OK, "a second of lag"},
	{{WELL, .loop_lag_ms = 1001}, HEALTH_LOOP_LAG, HEALTH_OK, "more than that"},
	{{WELL, .since_poll_ms = 5001}, HEALTH_POLL_STARVED, HEALTH_OK, "the group's queue is not polled"},
	{{WELL, .loop_lag_ms = 9999, .oldest_undelivered_ms = 9999}, HEALTH_LOOP_LAG, HEALTH_OK, "a loop that hangs explains the rest"},
	{{IS(false, true, true), .oldest_undelivered_ms = 9999}, HEALTH_NO_BROKER, HEALTH_NO_BROKER, "no broker explains blocked output"},
};

static void causes(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		if (health_judge(&rows[i].facts) != rows[i].health)
			fail_msg("%s: %s", rows[i].why, health_name(health_judge(&rows[i].facts)));
		if (health_ready(&rows[i].facts) != rows[i].ready)
			fail_msg("ready, %s: %s", rows[i].why, health_name(health_ready(&rows[i].facts)));
	}
}

/* These names are what alerts match. */
static void names(void **state)
{
	static const char *const all[] = {"ok",		    "no_broker", "no_topic",	 "no_assignment", "output_blocked",
					  "head_job_age", "loop_lag",  "poll_starved", "draining"};

	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		assert_string_equal(health_name((enum health_cause)i), all[i]);
	assert_int_equal(ARRAY_LEN(all), HEALTH_DRAINING + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(causes), cmocka_unit_test(names)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
