/* Every 2 s on the helper: is a broker there, are our topics, are we a member? */
#include "kafka_internal.h"

#include "clock.h"
#include "err.h"
#include "kafka_acl.h"

#include <stdio.h>

#define PROBE_US (2 * US_PER_S)
#define PROBE_TIMEOUT_MS 1500
#define RIGHTS_TIMEOUT_MS 2000
#define RIGHTS_AGAIN_US (5 * US_PER_S)
#define SILENCE_US (6 * US_PER_S)

/* ---- on the helper ---- */

static rd_kafka_resp_err_t ask_topic(struct kafka_in *in, size_t i, int timeout_ms)
{
	const struct rd_kafka_metadata *md;
	rd_kafka_resp_err_t err = rd_kafka_metadata(in->admin, 0, in->topics[i], &md, timeout_ms);

	if (err)
		return err;
	rd_kafka_resp_err_t topic_err = md->topic_cnt ? md->topics[0].err : RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
	/* Without a leader for now: not the same as missing. */
	bool is_missing =
	    topic_err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART || topic_err == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC;
	in->probe.topics[i] = is_missing ? SIGHT_MISSING : kafka_is_refusal(topic_err) ? SIGHT_HIDDEN : SIGHT_SEEN;
	rd_kafka_metadata_destroy(md);
	return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static void refresh(struct kafka_in *in, rd_kafka_topic_t *topic, int64_t until_us)
{
	const struct rd_kafka_metadata *md;

	if (!rd_kafka_metadata(in->rk, !topic, topic, &md, (int)MAX((until_us - clock_now_us()) / US_PER_MS, 1)))
		rd_kafka_metadata_destroy(md);
}

/* Of all topics, because only such an answer makes librdkafka look whether its subscription changed; of ours by name
 * before, because 2.8 takes no topic out of that answer that it has not heard of. Subscribing again instead would drop
 * a join that is under way, and then nothing happened for 20 s (2.0.2). */
static void refresh_group(struct kafka_in *in)
{
	int64_t until_us = clock_now_us() + PROBE_TIMEOUT_MS * US_PER_MS;

	for (size_t i = 0; i < in->n_job_topics; i++) {
		rd_kafka_topic_t *topic = rd_kafka_topic_new(in->rk, rd_kafka_topic_name(in->topics[i]), NULL);
		if (!topic)
			continue;
		refresh(in, topic, until_us);
		rd_kafka_topic_destroy(topic);
	}
	refresh(in, NULL, until_us);
}

static void on_right(void *ctx, enum acl_answer answer, const char *right, const char *detail)
{
	struct kafka_probe *probe = ctx;
	size_t len = strlen(probe->denied);

	if (answer == ACL_DENIED)
		snprintf(probe->denied + len, sizeof(probe->denied) - len, "%s%s", len ? ", " : "", right);
}

static void run(void *ctx)
{
	struct kafka_in *in = ctx;
	struct kafka_probe *probe = &in->probe;

	if (probe->wants_refresh)
		refresh_group(in);

	int64_t until_us = clock_now_us() + PROBE_TIMEOUT_MS * US_PER_MS;
	probe->has_joined = kafka_group_ask_joined(in);
	probe->err = RD_KAFKA_RESP_ERR_NO_ERROR;
	for (size_t i = 0; i < in->n_topics && !probe->err; i++)
		probe->err = ask_topic(in, i, (int)MAX((until_us - clock_now_us()) / US_PER_MS, 1));
	probe->has_asked_rights = !probe->err && probe->wants_rights;
	if (probe->has_asked_rights) {
		*probe->denied = '\0';
		kafka_acl_ask(in->opts, RIGHTS_TIMEOUT_MS, on_right, probe);
	}
}

/* ---- on the loop ---- */

static void take_topics(struct kafka_in *in)
{
	bool has_appeared = false;

	in->state = KAFKA_STATE_OK;
	*in->detail = '\0';
	for (size_t i = 0; i < in->n_topics; i++) {
		enum kafka_sight topic = in->probe.topics[i];
		if (topic == SIGHT_HIDDEN)
			kafka_in_suspect(in);
		if (topic == SIGHT_MISSING && in->state == KAFKA_STATE_OK) {
			in->state = KAFKA_STATE_NO_TOPIC;
			snprintf(in->detail, sizeof(in->detail), "%s", rd_kafka_topic_name(in->topics[i]));
		}
		has_appeared |= i < in->n_job_topics && in->seen[i] != SIGHT_SEEN && topic == SIGHT_SEEN;
		in->seen[i] = topic;
	}
	/* The group would see it at its next refresh only, half a minute later. */
	in->probe.wants_refresh = has_appeared;
	if (has_appeared)
		loop_timer_set(&in->probe.timer, loop_now_us(in->loop));
}

/* While one is missing they are asked for again: nothing else tells that it was given. */
static void take_rights(struct kafka_in *in)
{
	struct kafka_probe *probe = &in->probe;

	if (probe->has_asked_rights) {
		probe->is_suspected = *probe->denied;
		probe->rights_at_us = loop_now_us(in->loop) + RIGHTS_AGAIN_US;
	}
	if (!*probe->denied && !probe->refused_id)
		return;
	in->state = KAFKA_STATE_DENIED;
	const char *id = probe->refused_id;
	if (!id)
		snprintf(in->detail, sizeof(in->detail), "%s", probe->denied);
	else
		snprintf(in->detail, sizeof(in->detail), "Write on transactional id %s%s%.400s", id, *probe->denied ? ", " : "",
			 probe->denied);
}

static void done(void *ctx)
{
	struct kafka_in *in = ctx;
	struct kafka_probe *probe = &in->probe;

	probe->is_pending = false;
	/* Where the broker assigns, one that gets nothing is not told that it has joined. */
	if (probe->epoch == in->epoch)
		in->is_member = probe->has_joined && (in->is_member || in->is_broker_assigned);
	if (probe->err) {
		in->state = KAFKA_STATE_NO_BROKER;
		snprintf(in->detail, sizeof(in->detail), "%s",
			 *in->broker_error ? in->broker_error : rd_kafka_err2str(probe->err));
	} else {
		*in->broker_error = '\0';
		take_topics(in);
		take_rights(in);
	}
}

static void on_timer(void *ctx)
{
	struct kafka_in *in = ctx;
	struct kafka_probe *probe = &in->probe;

	int64_t now_us = loop_now_us(in->loop);

	loop_timer_set(&probe->timer, now_us + PROBE_US);
	if (probe->is_pending) {
		/* The helper is in a call that does not come back: what was true before is not known any more. */
		if (now_us - probe->asked_us > SILENCE_US) {
			in->state = KAFKA_STATE_NO_BROKER;
			if (*in->broker_error)
				snprintf(in->detail, sizeof(in->detail), "%s", in->broker_error);
			else
				snprintf(in->detail, sizeof(in->detail), "the Kafka client has not come back for %lld s",
					 (long long)((now_us - probe->asked_us) / US_PER_S));
		}
		return;
	}
	probe->asked_us = now_us;
	probe->is_pending = true;
	probe->wants_rights = probe->is_suspected && now_us >= probe->rights_at_us;
	probe->epoch = in->epoch;
	helper_submit(in->helper, &probe->job);
}

void kafka_in_suspect(struct kafka_in *in)
{
	struct kafka_probe *probe = &in->probe;

	if (!probe->is_suspected)
		loop_timer_set(&probe->timer, loop_now_us(in->loop));
	probe->is_suspected = true;
}

void kafka_in_deny_id(struct kafka_in *in, const char *id)
{
	in->probe.refused_id = id;
}

/* ---- the start and the end ---- */

static void add_topic(struct kafka_in *in, const char *name)
{
	for (size_t i = 0; i < in->n_topics; i++)
		if (strcmp(rd_kafka_topic_name(in->topics[i]), name) == 0)
			return;
	in->topics[in->n_topics] = rd_kafka_topic_new(in->admin, name, NULL);
	in->n_topics += in->topics[in->n_topics] != NULL;
}

int kafka_probe_init(struct kafka_in *in, char **ret_error)
{
	size_t n = in->plan ? in->n_plan : in->opts->jobs_topic.n;

	for (size_t i = 0; i < n && in->n_topics < KAFKA_TOPICS_MAX - 2; i++)
		add_topic(in, in->plan ? in->plan[i].topic : in->opts->jobs_topic.v[i]);
	in->n_job_topics = in->n_topics;
	add_topic(in, in->opts->results_topic);
	if (*in->opts->dead_letter_topic)
		add_topic(in, in->opts->dead_letter_topic);
	loop_timer_init(in->loop, &in->probe.timer, on_timer, in);
	in->probe.job = (struct helper_job){.run = run, .done = done, .ctx = in};
	in->state = KAFKA_STATE_ASKING;
	snprintf(in->detail, sizeof(in->detail), "not asked yet");
	if (!in->n_job_topics) {
		*ret_error = xstrdup("jobs.topic is empty: name at least one topic");
		return -ERR_INVALID;
	}
	loop_timer_set(&in->probe.timer, loop_now_us(in->loop));
	return 0;
}

bool kafka_probe_done(struct kafka_in *in, int64_t wait_ms)
{
	loop_timer_done(&in->probe.timer);
	if (in->probe.is_pending && !helper_cancel(in->helper, &in->probe.job, wait_ms))
		return false;
	for (size_t i = 0; i < in->n_topics; i++)
		rd_kafka_topic_destroy(in->topics[i]);
	return true;
}
