#include "admin.h"

#include "clock.h"
#include "err.h"
#include "kafka_conf.h"

#include <unistd.h>

#define WAIT_MAX_US (15 * US_PER_S)
#define STOPPED_WAIT_US (2 * US_PER_S)
/* As long as there is: a request to a coordinator that times out while that one is away makes librdkafka abort once it is back (2.0.2; its
 * issue 4605). */
#define REQUEST_TIMEOUT_MS (3600 * 1000)

void admin_group_name(const struct ctl *ctl, const char *given, char *buf, size_t size)
{
	if (given)
		snprintf(buf, size, "%s", given);
	else
		kafka_conf_group(ctl->settings, buf, size);
}

rd_kafka_event_t *admin_wait(rd_kafka_queue_t *queue, bool is_change)
{
	int64_t end_us = clock_now_us() + WAIT_MAX_US;
	rd_kafka_event_t *event = NULL;
	bool is_stopped = false;

	while (!event && clock_now_us() < end_us) {
		if (ctl_stopped() && !is_stopped) {
			is_stopped = true;
			end_us = is_change ? MIN(end_us, clock_now_us() + STOPPED_WAIT_US) : 0;
		}
		event = rd_kafka_queue_poll(queue, 100);
	}
	return event;
}

/* Our patience is admin_wait's. */
static rd_kafka_AdminOptions_t *new_options(rd_kafka_t *rk, rd_kafka_admin_op_t op)
{
	rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(rk, op);
	char text[128];

	if (rd_kafka_AdminOptions_set_request_timeout(options, REQUEST_TIMEOUT_MS, text, sizeof(text)))
		assert(false);
	return options;
}

/* A coordinator that has just moved, or reads its log: asked again, as a broker that starts is waited for. */
static bool is_passing(rd_kafka_resp_err_t err)
{
	return err == RD_KAFKA_RESP_ERR_NOT_COORDINATOR || err == RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS ||
	       err == RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE;
}

/* Whether to ask again after such an error: after a pause, until the time is over. */
static bool may_retry(rd_kafka_resp_err_t err, int64_t start_us)
{
	if (!is_passing(err) || ctl_stopped() || clock_now_us() - start_us > ADMIN_MAX_MS * US_PER_MS)
		return false;
	usleep(100 * US_PER_MS);
	return true;
}

/* Takes the event of a request. 0 and the event; or what is wrong with it is said. */
static int take_answer(struct client *client, rd_kafka_event_t *event, const char *what)
{
	if (!event) {
		if (!ctl_stopped())
			client_say(client, "%s: the broker does not answer", what);
		return -ERR_CANCELLED;
	}
	if (!rd_kafka_event_error(event))
		return 0;
	client_say(client, "%s: %s", what, rd_kafka_event_error_string(event));
	return -ERR_KAFKA;
}

/* Whether that was the last word: no brokers that may answer a more patient one, no coordinator that moves. */
static bool ask_about(struct client *client, const char *name, int wait_ms, struct admin_group *ret_group, rd_kafka_resp_err_t *ret_err)
{
	const struct rd_kafka_group_list *list = NULL;
	int64_t start_us = clock_now_us();
	rd_kafka_resp_err_t err = rd_kafka_list_groups(client_handle(client), name, &list, wait_ms);

	if (!err && list && list->group_cnt)
		err = list->groups[0].err;
	admin_group_done(ret_group);
	ret_group->list = list;
	*ret_err = err;
	return !err || (!is_passing(err) && clock_now_us() - start_us < wait_ms * US_PER_MS);
}

int admin_group(struct client *client, const char *name, struct admin_group *ret_group)
{
	rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR__TIMED_OUT;
	struct client_steps steps = {0};
	int wait_ms;

	*ret_group = (struct admin_group){.state = "unknown"};
	while ((wait_ms = client_step(&steps, ADMIN_MAX_MS)) > 0 && !ask_about(client, name, wait_ms, ret_group, &err))
		usleep(100 * US_PER_MS);
	if (err && ctl_stopped()) {
		admin_group_done(ret_group);
		return -ERR_CANCELLED;
	}
	const struct rd_kafka_group_list *list = ret_group->list;
	/* A broker that cannot tell is no reason to show nothing. */
	if (err == RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE || err == RD_KAFKA_RESP_ERR__PARTIAL)
		return 0;
	if (err) {
		client_say(client, "the group cannot be described: %s", rd_kafka_err2str(err));
		admin_group_done(ret_group);
		return -ERR_KAFKA;
	}
	ret_group->info = list && list->group_cnt ? &list->groups[0] : NULL;
	bool is_absent = !ret_group->info || strcmp(ret_group->info->state, "Dead") == 0;
	ret_group->state = is_absent ? "absent" : ret_group->info->state;
	ret_group->n_members = is_absent ? 0 : (size_t)ret_group->info->member_cnt;
	return 0;
}

void admin_group_done(struct admin_group *group)
{
	if (group->list)
		rd_kafka_group_list_destroy(group->list);
	group->list = NULL;
	group->info = NULL;
}

void admin_group_print(const char *name, const struct admin_group *group)
{
	/* The sandbox's broker does not know the question. */
	if (strcmp(group->state, "unknown") == 0)
		printf("group %s: the broker does not tell its members\n\n", name);
	else
		printf("group %s: %s, %zu member%s\n\n", name, group->state, group->n_members, group->n_members == 1 ? "" : "s");
}

/* The answer's rows, which may come in another order, into the list's. */
static void copy_rows(rd_kafka_topic_partition_list_t *list, const rd_kafka_topic_partition_list_t *answer)
{
	for (int i = 0; answer && i < answer->cnt; i++) {
		const rd_kafka_topic_partition_t *from = &answer->elems[i];
		rd_kafka_topic_partition_t *to =
		    rd_kafka_topic_partition_list_find(list, from->topic, from->partition);

		if (!to)
			continue;
		to->err = from->err;
		to->offset = from->offset;
		rd_kafka_mem_free(NULL, to->metadata);
		to->metadata = NULL;
		to->metadata_size = 0;
		if (!from->metadata_size)
			continue;
		to->metadata = rd_kafka_mem_malloc(NULL, from->metadata_size);
		memcpy(to->metadata, from->metadata, from->metadata_size);
		to->metadata_size = from->metadata_size;
	}
}

static void list_offsets(rd_kafka_t *rk, const char *group, const rd_kafka_topic_partition_list_t *list, rd_kafka_queue_t *queue)
{
	rd_kafka_ListConsumerGroupOffsets_t *question = rd_kafka_ListConsumerGroupOffsets_new(group, list);
	rd_kafka_AdminOptions_t *options = new_options(rk, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS);

	rd_kafka_ListConsumerGroupOffsets(rk, &question, 1, options, queue);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_ListConsumerGroupOffsets_destroy(question);
}

static void alter_offsets(rd_kafka_t *rk, const char *group, const rd_kafka_topic_partition_list_t *list, rd_kafka_queue_t *queue)
{
	rd_kafka_AlterConsumerGroupOffsets_t *wish = rd_kafka_AlterConsumerGroupOffsets_new(group, list);
	rd_kafka_AdminOptions_t *options = new_options(rk, RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS);

	rd_kafka_AlterConsumerGroupOffsets(rk, &wish, 1, options, queue);
	rd_kafka_AdminOptions_destroy(options);
	rd_kafka_AlterConsumerGroupOffsets_destroy(wish);
}

/* Both calls' answers are a group's rows. */
static const rd_kafka_group_result_t *group_answer(rd_kafka_event_t *event)
{
	const rd_kafka_ListConsumerGroupOffsets_result_t *listed = rd_kafka_event_ListConsumerGroupOffsets_result(event);
	const rd_kafka_AlterConsumerGroupOffsets_result_t *altered =
	    rd_kafka_event_AlterConsumerGroupOffsets_result(event);
	const rd_kafka_group_result_t **groups = NULL;
	size_t n = 0;

	if (listed)
		groups = rd_kafka_ListConsumerGroupOffsets_result_groups(listed, &n);
	else if (altered)
		groups = rd_kafka_AlterConsumerGroupOffsets_result_groups(altered, &n);
	return n ? groups[0] : NULL;
}

typedef void (*ask_fn)(rd_kafka_t *rk, const char *group, const rd_kafka_topic_partition_list_t *list, rd_kafka_queue_t *queue);

static int ask_group(struct client *client, const char *group, ask_fn ask, const char *what,
		     rd_kafka_topic_partition_list_t *list)
{
	rd_kafka_t *rk = client_asker(client, group);
	rd_kafka_queue_t *queue = rk ? rd_kafka_queue_new(rk) : NULL;
	rd_kafka_event_t *event = NULL;
	const rd_kafka_group_result_t *answer;
	const rd_kafka_error_t *error;
	int64_t start_us = clock_now_us();
	rd_kafka_resp_err_t code;

	if (!rk)
		return -ERR_KAFKA;
	do {
		if (event)
			rd_kafka_event_destroy(event);
		ask(rk, group, list, queue);
		event = admin_wait(queue, ask == alter_offsets);
		answer = event ? group_answer(event) : NULL;
		error = answer ? rd_kafka_group_result_error(answer) : NULL;
		code = error ? rd_kafka_error_code(error) : event ? rd_kafka_event_error(event) : RD_KAFKA_RESP_ERR_NO_ERROR;
	} while (may_retry(code, start_us));
	int err = take_answer(client, event, what);
	if (!err && error) {
		client_say(client, "%s: %s", what, rd_kafka_error_string(error));
		err = -ERR_KAFKA;
	}
	if (!err && answer)
		copy_rows(list, rd_kafka_group_result_partitions(answer));
	if (event)
		rd_kafka_event_destroy(event);
	rd_kafka_queue_destroy(queue);
	return err;
}

int admin_committed(struct client *client, const char *group, rd_kafka_topic_partition_list_t *list)
{
	return ask_group(client, group, list_offsets, "the group's offsets cannot be read", list);
}

int admin_commit(struct client *client, const char *group, rd_kafka_topic_partition_list_t *list)
{
	return ask_group(client, group, alter_offsets, "the group's offsets cannot be set", list);
}

int admin_offsets_at(struct client *client, rd_kafka_topic_partition_list_t *list, int64_t at_ms)
{
	rd_kafka_topic_partition_list_t *ends = NULL;
	struct client_steps steps = {0};
	rd_kafka_resp_err_t failed = RD_KAFKA_RESP_ERR__TIMED_OUT;
	int err = 0, wait_ms;

	while (failed == RD_KAFKA_RESP_ERR__TIMED_OUT && (wait_ms = client_step(&steps, ADMIN_MAX_MS)) > 0) {
		for (int i = 0; i < list->cnt; i++)
			list->elems[i].offset = at_ms;
		failed = rd_kafka_offsets_for_times(client_handle(client), list, wait_ms);
	}
	for (int i = 0; !failed && i < list->cnt; i++)
		failed = list->elems[i].err;
	if (failed && ctl_stopped())
		return -ERR_CANCELLED;
	if (failed) {
		client_say(client, "the offsets of %s cannot be read: %s", list->cnt ? list->elems[0].topic : "no topic",
			   rd_kafka_err2str(failed));
		return -ERR_KAFKA;
	}
	/* Nothing at or after that time: the end. */
	for (int i = 0; !err && i < list->cnt; i++) {
		if (list->elems[i].offset >= 0)
			continue;
		if (!ends) {
			ends = rd_kafka_topic_partition_list_copy(list);
			err = at_ms == RD_KAFKA_OFFSET_END ? -ERR_KAFKA : admin_offsets_at(client, ends, RD_KAFKA_OFFSET_END);
		}
		rd_kafka_topic_partition_t *row = &list->elems[i];
		const rd_kafka_topic_partition_t *end =
		    rd_kafka_topic_partition_list_find(ends, row->topic, row->partition);
		row->offset = end ? end->offset : row->offset;
	}
	if (ends)
		rd_kafka_topic_partition_list_destroy(ends);
	return err;
}
