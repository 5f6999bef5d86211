#include "kafka_acl.h"

#include "clock.h"
#include "kafka_internal.h"

#include <stdarg.h>
#include <stdio.h>

#define FREE_WAIT_MS 2000
/* A question that times out while its coordinator is away makes librdkafka abort (its issue 4605): the handle goes before. */
#define NEVER_MS (3600 * 1000)

struct acl {
	const struct options *opts;
	kafka_acl_fn fn;
	void *ctx;
	char group[256];
	int64_t until_us;
};

bool kafka_is_refusal(rd_kafka_resp_err_t err)
{
	return err == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED || err == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED ||
	       err == RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED ||
	       err == RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
}

static int left_ms(const struct acl *acl)
{
	return (int)MAX((acl->until_us - clock_now_us()) / US_PER_MS, 1);
}

/* good: what the broker says when the authorizer let it pass. */
static void say(struct acl *acl, rd_kafka_resp_err_t err, rd_kafka_resp_err_t good, const char *fmt, ...) PRINTF_LIKE(4, 5);

static void say(struct acl *acl, rd_kafka_resp_err_t err, rd_kafka_resp_err_t good, const char *fmt, ...)
{
	char right[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(right, sizeof(right), fmt, ap);
	va_end(ap);
	enum acl_answer answer = !err || err == good ? ACL_ALLOWED : kafka_is_refusal(err) ? ACL_DENIED : ACL_UNKNOWN;
	acl->fn(acl->ctx, answer, right, answer == ACL_ALLOWED ? "" : rd_kafka_err2str(err));
}

/* A handle with this side's properties and two of ours, for questions only. NULL: none can be made. */
static rd_kafka_t *handle_new(struct acl *acl, enum kafka_side side, const char *const ours[static 4], int events)
{
	rd_kafka_conf_t *conf = NULL;
	rd_kafka_t *rk = NULL;
	char *error = NULL;

	if (kafka_conf_make(acl->opts, side, &conf, &error) == 0) {
		kafka_handle_set(conf, ours[0], ours[1]);
		kafka_handle_set(conf, ours[2], ours[3]);
		if (kafka_handle_new(side == KAFKA_CONSUMER ? RD_KAFKA_CONSUMER : RD_KAFKA_PRODUCER, conf, events, &rk, &error))
			rk = NULL;
	}
	free(error);
	return rk;
}

/* ---- Read ---- */

static rd_kafka_event_t *commit_nothing(struct acl *acl, rd_kafka_t *rk, rd_kafka_queue_t *queue)
{
	const struct strlist *topics = &acl->opts->jobs_topic;
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)topics->n);
	rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS);
	char reason[256];

	for (size_t i = 0; i < topics->n; i++)
		rd_kafka_topic_partition_list_add(list, topics->v[i], INT32_MAX)->offset = 0;
	rd_kafka_AlterConsumerGroupOffsets_t *question = rd_kafka_AlterConsumerGroupOffsets_new(acl->group, list);
	rd_kafka_AdminOptions_set_request_timeout(options, NEVER_MS, reason, sizeof(reason));
	rd_kafka_AlterConsumerGroupOffsets(rk, &question, 1, options, queue);
	rd_kafka_AlterConsumerGroupOffsets_destroy(question);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_topic_partition_list_destroy(list);
	return rd_kafka_queue_poll(queue, left_ms(acl));
}

/* The broker's answer for each topic. */
static const rd_kafka_topic_partition_list_t *answer_rows(const rd_kafka_event_t *ev, rd_kafka_resp_err_t *ret_err)
{
	size_t n = 0;
	rd_kafka_event_t *event = (rd_kafka_event_t *)(uintptr_t)ev;

	*ret_err = ev ? rd_kafka_event_error(event) : RD_KAFKA_RESP_ERR__TIMED_OUT;
	if (*ret_err)
		return NULL;
	const rd_kafka_group_result_t **groups = rd_kafka_AlterConsumerGroupOffsets_result_groups(
	    rd_kafka_event_AlterConsumerGroupOffsets_result(event), &n);
	const rd_kafka_error_t *error = n ? rd_kafka_group_result_error(groups[0]) : NULL;
	if (error)
		*ret_err = rd_kafka_error_code(error);
	return n && !error ? rd_kafka_group_result_partitions(groups[0]) : NULL;
}

static void ask_read(struct acl *acl, rd_kafka_t *rk)
{
	rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR__FAIL;
	rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
	rd_kafka_event_t *ev = commit_nothing(acl, rk, queue);
	const rd_kafka_topic_partition_list_t *rows = answer_rows(ev, &err);

	if (rows && rows->cnt && rows->elems[0].err == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED)
		err = rows->elems[0].err;
	say(acl, err, RD_KAFKA_RESP_ERR_NO_ERROR, "Read on group %s", acl->group);
	for (int i = 0; !err && rows && i < rows->cnt; i++)
		say(acl, rows->elems[i].err, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, "Read on topic %s", rows->elems[i].topic);
	if (ev)
		rd_kafka_event_destroy(ev);
	rd_kafka_queue_destroy(queue);
}

/* ---- Write ---- */

static rd_kafka_resp_err_t delivery_error(struct acl *acl, rd_kafka_t *rk)
{
	rd_kafka_queue_t *queue = rd_kafka_queue_get_main(rk);
	rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR__TIMED_OUT;
	bool is_over = false;

	while (!is_over && clock_now_us() < acl->until_us) {
		rd_kafka_event_t *ev = rd_kafka_queue_poll(queue, left_ms(acl));
		if (ev && rd_kafka_event_type(ev) == RD_KAFKA_EVENT_DR) {
			err = rd_kafka_event_message_next(ev)->err;
			is_over = true;
		}
		if (ev)
			rd_kafka_event_destroy(ev);
	}
	rd_kafka_queue_destroy(queue);
	return err;
}

static void ask_write(struct acl *acl, rd_kafka_t *rk, const char *topic)
{
	rd_kafka_resp_err_t err = rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(0), RD_KAFKA_V_END);

	say(acl, err ? err : delivery_error(acl, rk), RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS, "Write on topic %s", topic);
}

static void ask_writes(struct acl *acl)
{
	const char *const ours[] = {"enable.idempotence", "false", "acks", "2"};
	rd_kafka_t *rk = handle_new(acl, KAFKA_PRODUCER, ours, RD_KAFKA_EVENT_DR);

	if (!rk)
		return;
	ask_write(acl, rk, acl->opts->results_topic);
	if (*acl->opts->dead_letter_topic)
		ask_write(acl, rk, acl->opts->dead_letter_topic);
	rd_kafka_purge(rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT | RD_KAFKA_PURGE_F_NON_BLOCKING);
	kafka_destroy(&rk, 1, FREE_WAIT_MS);
}

static bool is_mock(struct acl *acl, rd_kafka_t *rk)
{
	char *id = rd_kafka_clusterid(rk, left_ms(acl));
	bool is_it = id && strncmp(id, "mockCluster", strlen("mockCluster")) == 0;

	if (id)
		rd_kafka_mem_free(rk, id);
	return is_it;
}

static struct acl acl_make(const struct options *opts, int64_t wait_ms, kafka_acl_fn fn, void *ctx)
{
	struct acl acl = {.opts = opts, .fn = fn, .ctx = ctx, .until_us = clock_now_us() + wait_ms * US_PER_MS};

	kafka_conf_group(opts, acl.group, sizeof(acl.group));
	return acl;
}

void kafka_acl_ask(const struct options *opts, int64_t wait_ms, kafka_acl_fn fn, void *ctx)
{
	/* Its group has a name, though it never joins: without one librdkafka crashes when the coordinator has moved (its issue 5040). */
	const char *const ours[] = {"enable.auto.commit", "false", "client.id", "gatherd-check"};
	struct acl acl = acl_make(opts, wait_ms, fn, ctx);
	rd_kafka_t *rk = handle_new(&acl, KAFKA_CONSUMER, ours, 0);
	bool has_acls = rk && !is_mock(&acl, rk);

	if (has_acls)
		ask_read(&acl, rk);
	if (rk)
		kafka_destroy(&rk, 1, FREE_WAIT_MS);
	if (has_acls)
		ask_writes(&acl);
}

void kafka_acl_ask_ids(const struct options *opts, int64_t wait_ms, kafka_acl_fn fn, void *ctx)
{
	char name[600];
	const char *const ours[] = {"transactional.id", name, "client.id", "gatherd-check"};
	struct acl acl = acl_make(opts, wait_ms, fn, ctx);

	snprintf(name, sizeof(name), "%s-%s%scheck", acl.group, opts->instance, *opts->instance ? "-" : "");
	rd_kafka_t *rk = handle_new(&acl, KAFKA_PRODUCER, ours, 0);
	if (!rk)
		return;
	rd_kafka_error_t *error = rd_kafka_init_transactions(rk, left_ms(&acl));
	rd_kafka_resp_err_t err = error ? rd_kafka_error_code(error) : RD_KAFKA_RESP_ERR_NO_ERROR;
	if (*opts->instance && kafka_is_refusal(err))
		fn(ctx, ACL_UNKNOWN, name, "refused; a right on the worker's own id alone is not seen this way");
	else
		say(&acl, err, RD_KAFKA_RESP_ERR_NO_ERROR, "Write on transactional ids that begin with %s- (tried: %s)", acl.group,
		    name);
	rd_kafka_error_destroy(error);
	kafka_destroy(&rk, 1, FREE_WAIT_MS);
}
