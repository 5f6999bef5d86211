/* health: one row per cause, which of two causes is told, what it says, and when patience ends. */
#include "clock.h"
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
	{{IS(false, true, false), .is_asking = true}, HEALTH_OK, HEALTH_NO_BROKER, "a start that has not asked is no alarm"},
	{{WELL, .is_denied = true}, HEALTH_NOT_ALLOWED, HEALTH_NOT_ALLOWED, "a right is missing"},
	{{IS(true, false, false), .is_denied = true, .oldest_undelivered_ms = 9999}, HEALTH_NOT_ALLOWED, HEALTH_NOT_ALLOWED,
	 "a missing right explains the rest"},
	{{IS(false, true, true), .is_denied = true}, HEALTH_NO_BROKER, HEALTH_NO_BROKER, "without a broker no right is known"},
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
	static const char *const all[] = {"ok",		   "no_broker",	   "not_allowed", "no_topic",	  "no_assignment",
					  "output_blocked", "head_job_age", "loop_lag",	  "poll_starved", "draining"};

	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		assert_string_equal(health_name((enum health_cause)i), all[i]);
	assert_int_equal(ARRAY_LEN(all), HEALTH_DRAINING + 1);
}

/* What, where, for how long. */
static void texts(void **state)
{
	static const struct {
		struct health_facts facts;
		enum health_cause cause;
		const char *text;
	} says[] = {
		{{WELL}, HEALTH_OK, ""},
		{{.state_detail = "127.0.0.1:1: Connection refused"}, HEALTH_NO_BROKER, "no broker answers: 127.0.0.1:1: Connection refused"},
		{{.state_detail = "Read on group g"}, HEALTH_NOT_ALLOWED,
		 "the broker's ACLs do not give this user: Read on group g (docs/security.md)"},
		{{.state_detail = "jobs"}, HEALTH_NO_TOPIC, "topic jobs does not exist"},
		{{.not_member_ms = 45999}, HEALTH_NO_ASSIGNMENT, "not a member of the group for 45 s"},
		{{.oldest_undelivered_ms = 7000, .undelivered = 3, .oldest = {"jobs", 4, 17}}, HEALTH_OUTPUT_BLOCKED,
		 "the oldest of 3 unacknowledged results (of jobs[4], offset 17) waits for 7 s"},
		{{.oldest_undelivered_ms = 7000, .undelivered = 1}, HEALTH_OUTPUT_BLOCKED,
		 "the oldest of 1 unacknowledged results waits for 7 s"},
		{{.head_job_age_ms = 66000, .job_deadline_ms = 60000, .head = {"jobs", 0, 5}}, HEALTH_HEAD_JOB_AGE,
		 "the lowest open job (of jobs[0], offset 5) had its first turn 66 s ago, job.deadline is 60 s"},
		{{.loop_lag_ms = 1500}, HEALTH_LOOP_LAG, "the event loop was 1500 ms late"},
		{{.since_poll_ms = 6100}, HEALTH_POLL_STARVED, "the group's events were not looked at for 6 s"},
		{{.is_draining = true}, HEALTH_DRAINING, "SIGTERM: finishing what is under way"},
	};
	char text[512];

	for (size_t i = 0; i < ARRAY_LEN(says); i++) {
		health_explain(&says[i].facts, says[i].cause, text, sizeof(text));
		assert_string_equal(text, says[i].text);
	}
}

static const struct health_facts fine = {WELL, .has_producer = true};

/* After how many seconds of this it is hopeless; 0 = not within twice the patience. */
static int hopeless_after(struct health_patience *patience, const struct health_facts *facts, int64_t *now_us, const char *what)
{
	for (int s = 1; s <= 2 * HEALTH_PATIENCE_S; s++) {
		*now_us += US_PER_S;
		const char *why = health_is_hopeless(patience, facts, *now_us);
		if (!why)
			continue;
		assert_non_null(strstr(why, what));
		return s;
	}
	return 0;
}

static void patience_ends(void **state)
{
	static const struct {
		struct health_facts facts;
		int after_s;
		const char *what, *why;
	} cases[] = {
		{{WELL, .has_producer = true}, 0, "", "all is well"},
		{{IS(true, true, false), .has_producer = true}, HEALTH_PATIENCE_S, "member", "no member, and nothing is missing"},
		{{IS(false, true, false)}, 0, "", "the broker is waited for"},
		{{IS(true, false, false)}, 0, "", "so is a topic"},
		{{IS(true, true, false), .is_denied = true}, 0, "", "so is a right"},
		{{IS(true, true, false), .has_producer = true, .is_draining = true}, 0, "", "who leaves is no member"},
		{{WELL}, HEALTH_PATIENCE_S, "producer", "no producer"},
		{{IS(false, true, true)}, 0, "", "it needs the broker"},
		{{IS(false, false, false), .helper_job = 7}, HEALTH_PATIENCE_S, "come back", "the helper's calls end by themselves, broker or not"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct health_patience patience = {0};
		int64_t now_us = 5 * US_PER_S;
		/* All was well before: this says when. */
		assert_null(health_is_hopeless(&patience, &fine, now_us));
		int after_s = hopeless_after(&patience, &cases[i].facts, &now_us, cases[i].what);
		/* Which call it is in is known from the second look on. */
		if (after_s && cases[i].facts.helper_job)
			after_s--;
		if (after_s != cases[i].after_s)
			fail_msg("%s: after %d s", cases[i].why, after_s);
	}
}

static void patience_begins_anew(void **state)
{
	static const struct health_facts no_member = {IS(true, true, false), .has_producer = true}, no_broker = {IS(false, true, false)};
	struct health_patience patience = {0};
	int64_t now_us = US_PER_S;

	for (int round = 0; round < 5; round++) {
		for (int s = 1; s < HEALTH_PATIENCE_S; s++)
			assert_null(health_is_hopeless(&patience, &no_member, now_us += US_PER_S));
		/* By what it waited for, or because there is now another reason to wait. */
		assert_null(health_is_hopeless(&patience, round % 2 ? &fine : &no_broker, now_us += US_PER_S));
	}
}

static void a_new_call_is_another(void **state)
{
	struct health_facts facts = fine;
	struct health_patience patience = {0};
	int64_t now_us = US_PER_S;

	for (int s = 0; s < 2 * HEALTH_PATIENCE_S; s++) {
		facts.helper_job = (uint64_t)s / 100;
		assert_null(health_is_hopeless(&patience, &facts, now_us += US_PER_S));
	}
}

/* SIGSTOP, a laptop that slept, a frozen machine: no time of ours. */
static void time_in_which_we_stood_still_does_not_count(void **state)
{
	static const struct health_facts no_member = {IS(true, true, false), .has_producer = true};
	struct health_patience patience = {0};
	int64_t now_us = US_PER_S;

	for (int i = 0; i < HEALTH_PATIENCE_S / 2; i++)
		assert_null(health_is_hopeless(&patience, &no_member, now_us += 3600 * US_PER_S));
	assert_non_null(health_is_hopeless(&patience, &no_member, now_us + 3600 * US_PER_S));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(causes),
		cmocka_unit_test(names),
		cmocka_unit_test(texts),
		cmocka_unit_test(patience_ends),
		cmocka_unit_test(patience_begins_anew),
		cmocka_unit_test(a_new_call_is_another),
		cmocka_unit_test(time_in_which_we_stood_still_does_not_count),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
