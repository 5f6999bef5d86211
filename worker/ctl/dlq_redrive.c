/* gatherctl dlq redrive - dead letters back to where they came from.
 *
 * Happy path: a record -> its origin's topic and partition, byte for byte -> acknowledged -> finished in its partition's window -> after
 * each 500 the acknowledgements are waited for and the windows committed in GROUP.redrive, so that a kill repeats no more than these.
 * Failure modes: no origin, or its topic is gone -> said, left; not delivered, or Ctrl-C -> what is acknowledged within 2 s is
 * remembered, the rest stays for the next run, which says how much of it may be there already; of 500 not one delivered -> the end. */
#include "clock.h"
#include "dlq.h"
#include "err.h"
#include "progress.h"

#include <jansson.h>

#define UNREMEMBERED_MAX 500
#define FAILURES_SAID_MAX 10
#define STOPPED_FLUSH_US (2 * US_PER_S)

struct redrive {
	struct dlq *dlq;
	struct client *producer; /* NULL with --dry-run */
	int64_t sent, acknowledged, failed, refused;
	int64_t remembered, failed_before; /* sent and failed, when the windows were committed last */
	int64_t forgotten;		   /* sent, and perhaps not remembered */
	int64_t cut_us;			   /* after Ctrl-C: reports are waited for until then; 0 = it did not come */
	struct progress progress;
};

/* What a delivery report has to know. */
struct sent {
	int32_t partition;
	int64_t offset;
	bool is_again; /* remembered already */
};

static void show_progress(struct redrive *redrive)
{
	const struct dlq *dlq = redrive->dlq;

	progress_show_part(&redrive->progress, redrive->acknowledged, "brought back", dlq->shown + dlq->passed, dlq->total);
}

static void on_delivered(void *ctx, const rd_kafka_message_t *msg)
{
	struct redrive *redrive = ctx;
	struct sent *sent = msg->_private;

	if (!msg->err) {
		redrive->acknowledged++;
		if (!sent->is_again)
			window_finish(redrive->dlq->partitions[sent->partition].win, sent->offset);
	} else if (msg->err == RD_KAFKA_RESP_ERR__PURGE_QUEUE || msg->err == RD_KAFKA_RESP_ERR__PURGE_INFLIGHT) {
		/* Given up on after Ctrl-C: its fate is not known. */
	} else if (++redrive->failed <= FAILURES_SAID_MAX) {
		progress_clear(&redrive->progress);
		ctl_say(redrive->dlq->ctl, "%d/%lld: not delivered: %s", sent->partition, (long long)sent->offset,
			rd_kafka_err2str(msg->err));
	}
	free(sent);
}

/* Every record has its report in the end: acknowledged, or failed after message.timeout.ms. */
static void wait_delivered(struct redrive *redrive)
{
	while (redrive->acknowledged + redrive->failed < redrive->sent) {
		rd_kafka_poll(client_handle(redrive->producer), 100);
		show_progress(redrive);
		if (ctl_stopped() && !redrive->cut_us)
			redrive->cut_us = clock_now_us() + STOPPED_FLUSH_US;
		if (redrive->cut_us && clock_now_us() > redrive->cut_us)
			break;
	}
}

static int remember(struct redrive *redrive)
{
	struct dlq *dlq = redrive->dlq;
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(dlq->n_partitions);
	char metadata[OFFSETMAP_TEXT_MAX + 1];
	int err = 0;

	for (int i = 0; i < dlq->n_partitions; i++) {
		if (!window_is_dirty(dlq->partitions[i].win))
			continue;
		rd_kafka_topic_partition_t *row = rd_kafka_topic_partition_list_add(list, dlq->topic_name, i);

		row->offset = window_snapshot(dlq->partitions[i].win, metadata);
		row->metadata_size = strlen(metadata);
		row->metadata = rd_kafka_mem_malloc(NULL, row->metadata_size + 1);
		strcpy(row->metadata, metadata);
	}
	if (list->cnt)
		err = admin_commit(dlq->client, dlq->group, list);
	for (int i = 0; !err && i < list->cnt; i++)
		err = list->elems[i].err ? -ERR_KAFKA : 0;
	if (err)
		redrive->forgotten = redrive->sent - redrive->remembered;
	if (err && err != -ERR_CANCELLED)
		ctl_say(dlq->ctl, "what was brought back cannot be remembered in group %s: a next run would do it again",
			dlq->group);
	rd_kafka_topic_partition_list_destroy(list);
	redrive->remembered = redrive->sent;
	return err;
}

/* Before any more is sent. */
static int settle(struct redrive *redrive)
{
	int64_t n = redrive->sent - redrive->remembered, failed = redrive->failed_before;

	wait_delivered(redrive);
	redrive->failed_before = redrive->failed;
	int err = remember(redrive);
	/* Not one: it is the broker, not a record that its topic refuses. */
	return err ? err : redrive->failed - failed >= n ? -ERR_KAFKA : 0;
}

/* --- one record --- */

static rd_kafka_headers_t *own_headers(const struct dead_letter_view *letter)
{
	rd_kafka_headers_t *copy = rd_kafka_headers_new(letter->n_own + 1);

	for (size_t i = 0; i < letter->n_own; i++) {
		const char *name;
		const void *value;
		size_t len;

		if (!rd_kafka_header_get_all(letter->headers, i, &name, &value, &len))
			rd_kafka_header_add(copy, name, -1, value, value ? (ssize_t)len : 0);
	}
	return copy;
}

/* The origin's topic (free) and partition; the partition is left to the key when there is none of that number any more. */
static char *origin_of(const struct redrive *redrive, const struct dead_letter_view *letter, int32_t *ret_partition)
{
	char *topic = xstrndup((const char *)letter->topic.data, letter->topic.len);
	char *number = xstrndup((const char *)letter->partition.data, letter->partition.len);
	const struct rd_kafka_metadata_topic *found = *topic ? client_topic(redrive->dlq->md, topic) : NULL;
	long partition = *number ? strtol(number, NULL, 10) : -1;

	free(number);
	if (!found) {
		free(topic);
		return NULL;
	}
	*ret_partition = partition >= 0 && partition < found->partition_cnt ? (int32_t)partition : RD_KAFKA_PARTITION_UA;
	return topic;
}

static void produce(struct redrive *redrive, const struct dead_letter_view *letter, const char *topic, int32_t partition)
{
	const rd_kafka_message_t *msg = letter->msg;
	struct sent *sent = xmalloc(sizeof(*sent));
	rd_kafka_resp_err_t err;

	*sent = (struct sent){msg->partition, msg->offset, letter->is_redriven};
	do {
		rd_kafka_headers_t *headers = own_headers(letter);

		err = rd_kafka_producev(client_handle(redrive->producer), RD_KAFKA_V_TOPIC(topic),
					RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
					RD_KAFKA_V_KEY(msg->key, msg->key_len), RD_KAFKA_V_VALUE(msg->payload, msg->len),
					RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_OPAQUE(sent), RD_KAFKA_V_END);
		if (err)
			rd_kafka_headers_destroy(headers);
		if (err == RD_KAFKA_RESP_ERR__QUEUE_FULL)
			rd_kafka_poll(client_handle(redrive->producer), 100);
	} while (err == RD_KAFKA_RESP_ERR__QUEUE_FULL && !ctl_stopped());
	if (!err) {
		redrive->sent++;
		return;
	}
	free(sent);
	redrive->refused++;
	ctl_say(redrive->dlq->ctl, "%d/%lld: %s", msg->partition, (long long)msg->offset, rd_kafka_err2str(err));
}

static int redrive_one(void *ctx, const struct dead_letter_view *letter)
{
	struct redrive *redrive = ctx;
	struct dlq *dlq = redrive->dlq;
	int32_t partition;

	show_progress(redrive);
	if (letter->is_redriven && !dlq->args->all) {
		progress_clear(&redrive->progress);
		ctl_say(dlq->ctl, "%d/%lld was brought back already; --all does it again", letter->msg->partition,
			(long long)letter->msg->offset);
		redrive->refused++;
		return 0;
	}
	if (letter->is_beyond) {
		progress_clear(&redrive->progress);
		ctl_say(dlq->ctl, "%d/%lld is over %d records behind one that is not brought back: bring those back first",
			letter->msg->partition, (long long)letter->msg->offset, OFFSETMAP_SPAN_MAX);
		return -ERR_FULL;
	}
	char *topic = origin_of(redrive, letter, &partition);
	if (!topic) {
		progress_clear(&redrive->progress);
		if (++redrive->refused <= FAILURES_SAID_MAX)
			ctl_say(dlq->ctl, "%d/%lld: its topic \"%.*s\" is not there; it stays", letter->msg->partition,
				(long long)letter->msg->offset, (int)letter->topic.len, (const char *)letter->topic.data);
		return 0;
	}
	if (!redrive->producer)
		redrive->sent++;
	else
		produce(redrive, letter, topic, partition);
	free(topic);
	if (!redrive->producer)
		return 0;
	rd_kafka_poll(client_handle(redrive->producer), 0);
	return redrive->sent - redrive->remembered >= UNREMEMBERED_MAX ? settle(redrive) : 0;
}

/* --- the whole --- */

static void print_counts(const struct redrive *redrive, int64_t done, int64_t unknown)
{
	printf("%lld dead letter%s %sbrought back, %lld not delivered, ", (long long)done, done == 1 ? "" : "s",
	       redrive->dlq->args->dry_run ? "would be " : "", (long long)redrive->failed);
	if (unknown)
		printf("%lld unknown, ", (long long)unknown);
	printf("%lld left, %lld passed over\n", (long long)redrive->refused, (long long)redrive->dlq->passed);
}

static int conclude(struct redrive *redrive, int err)
{
	const struct dlq *dlq = redrive->dlq;
	bool is_dry = dlq->args->dry_run;
	int64_t done = is_dry ? redrive->sent : redrive->acknowledged, open = redrive->sent - done, unknown = open - redrive->failed;
	int64_t in_doubt = redrive->forgotten ? redrive->forgotten : unknown;

	if (dlq->args->json)
		print_json(stdout, json_pack("{s:b,s:I,s:I,s:I,s:I}", "dry_run", (int)is_dry, "redriven", (json_int_t)done,
					     "failed", (json_int_t)open, "refused", (json_int_t)redrive->refused,
					     "passed_over", (json_int_t)dlq->passed));
	else
		print_counts(redrive, done, unknown);
	if (ctl_stopped() && in_doubt)
		ctl_say(dlq->ctl, "interrupted; run it again for the rest, of which %lld may be back already", (long long)in_doubt);
	else if (ctl_stopped())
		ctl_say(dlq->ctl, "interrupted; run it again for the rest");
	int code = ctl_close_stdout(dlq->ctl);
	bool found_none = dlq->wanted_partition >= 0 && !redrive->sent && !redrive->refused;
	if (found_none)
		ctl_say(dlq->ctl, "there is no record %d/%lld to bring back", dlq->wanted_partition,
			(long long)dlq->wanted_offset);
	return err || open || redrive->refused || found_none ? CTL_FAILED : code;
}

int dlq_redrive(struct dlq *dlq)
{
	static const struct client_setting extra[] = {
	    {"enable.idempotence", "true", true},
	    {"message.timeout.ms", "30000", false},
	    {"queue.buffering.max.messages", "10000", true},
	    {"queue.buffering.max.kbytes", "65536", true},
	    {NULL, NULL, false},
	};
	struct redrive redrive = {.dlq = dlq};

	if (!dlq->args->dry_run) {
		redrive.producer = client_new(dlq->ctl, KAFKA_PRODUCER, extra, on_delivered, &redrive);
		if (!redrive.producer)
			return CTL_USAGE;
	}
	int err = dlq_scan(dlq, redrive_one, &redrive);
	if (redrive.producer) {
		wait_delivered(&redrive);
		progress_clear(&redrive.progress);
		int failed = remember(&redrive);
		err = err ? err : failed;
		/* Given up on: the end must not wait for them. Their reports are served here, too. */
		rd_kafka_purge(client_handle(redrive.producer), RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
		rd_kafka_poll(client_handle(redrive.producer), 100);
	}
	int code = conclude(&redrive, err);
	client_free(redrive.producer);
	return code;
}
