/* gatherctl offsets - where a group stands: per partition the commit point, what is completed above it, what is left, how old
 * that is, and what retention took.
 *
 * Happy path: metadata -> the group's members -> its commits and their completed sets -> the logs' starts and ends -> the
 * timestamp of each oldest open job -> table or JSON. Failure modes: no broker, no topic -> one sentence; the group is not there ->
 * said, exit 1; a timestamp that does not come in 5 s is left out. */
#include "offsets.h"

#include "clock.h"
#include "err.h"
#include "offsetmap.h"
#include "table.h"

#include <jansson.h>

#define AGES_MAX_US (5 * US_PER_S)
#define SET_WORDS (OFFSETMAP_SPAN_MAX / 64)

static const struct ctl_option offsets_options[] = {
    {"group", 'g', CTL_TEXT, offsetof(struct offsets_args, group), "GROUP",
     "default: kafka.group.id of the settings (gatherd)", 0, 0, 0},
    {"topic", 't', CTL_TEXT, offsetof(struct offsets_args, topic), "TOPIC",
     "default: each jobs.topic of the settings (jobs)", 0, 0, 0},
    {"to", 0, CTL_TEXT, offsetof(struct offsets_args, to), "earliest|latest|OFFSET|TIME",
     "reset: where to; a time is 2026-11-01T00:00Z, or 2h (ago)", 0, 0, 0},
    {"partition", 'p', CTL_LIST, offsetof(struct offsets_args, partitions), "P[:OFFSET]",
     "reset: only this partition, or this one to an offset of its own; again and again as needed", 0, 0, 0},
    {"yes", 'y', CTL_FLAG, offsetof(struct offsets_args, yes), NULL, "reset: do it; without it nothing is changed", 0, 0,
     0},
    {"json", 0, CTL_FLAG, offsetof(struct offsets_args, json), NULL, "print one line of JSON", 0, 0, 0},
    {NULL, 0, CTL_FLAG, 0, NULL, NULL, 0, 0, 0},
};

/* --- what is asked --- */

static int list_partitions(struct offsets *offsets)
{
	const struct strlist *jobs = &offsets->ctl->settings->jobs_topic;
	const struct rd_kafka_metadata *md;
	int err = client_metadata(offsets->client, &md);

	if (err)
		return err;
	offsets->list = rd_kafka_topic_partition_list_new(16);
	if (offsets->args->topic)
		err = client_add_partitions(offsets->client, md, offsets->args->topic, offsets->list);
	for (size_t i = 0; !err && !offsets->args->topic && i < jobs->n; i++)
		err = client_add_partitions(offsets->client, md, jobs->v[i], offsets->list);
	rd_kafka_metadata_destroy(md);
	if (err)
		return err;
	rd_kafka_topic_partition_list_sort(offsets->list, NULL, NULL);
	offsets->n = (size_t)offsets->list->cnt;
	offsets->rows = xcalloc(offsets->n + 1, sizeof(offsets->rows[0]));
	for (size_t i = 0; i < offsets->n; i++)
		offsets->rows[i] = (struct offsets_row){.topic = offsets->list->elems[i].topic,
							.partition = offsets->list->elems[i].partition,
							.commit = -1,
							.oldest_ms = -1,
							.target = -1};
	return 0;
}

/* The completed set counts from the log's start on: what is below it is neither open nor left. */
static void read_commit(struct offsets_row *row, const rd_kafka_topic_partition_t *stored)
{
	uint64_t bits[SET_WORDS] = {0};
	size_t n_bits = 0;
	int64_t lost_done = 0;

	if (stored->offset < 0) {
		row->backlog = row->end - row->start;
		return;
	}
	row->commit = stored->offset;
	row->is_set_broken = offsetmap_decode(stored->metadata_size ? stored->metadata : "", stored->metadata_size, bits,
					      SET_WORDS, &n_bits) != 0;
	for (size_t i = 0; !row->is_set_broken && i < n_bits; i++) {
		bool is_done = bits[i / 64] >> (i % 64) & 1;
		bool is_there = row->commit + (int64_t)i >= row->start;

		row->completed += is_done && is_there;
		lost_done += is_done && !is_there;
	}
	row->lost = MAX(row->start - row->commit - lost_done, 0);
	row->backlog = MAX(row->end - MAX(row->commit, row->start) - row->completed, 0);
}

static int read_rows(struct offsets *offsets)
{
	rd_kafka_topic_partition_list_t *starts = rd_kafka_topic_partition_list_copy(offsets->list);
	rd_kafka_topic_partition_list_t *ends = rd_kafka_topic_partition_list_copy(offsets->list);
	int err = admin_committed(offsets->client, offsets->group, offsets->list);

	if (!err)
		err = admin_offsets_at(offsets->client, starts, RD_KAFKA_OFFSET_BEGINNING);
	/* Last, so that a group under way is never shown beyond the end. */
	if (!err)
		err = admin_offsets_at(offsets->client, ends, RD_KAFKA_OFFSET_END);
	for (size_t i = 0; !err && i < offsets->n; i++) {
		struct offsets_row *row = &offsets->rows[i];

		row->start = rd_kafka_topic_partition_list_find(starts, row->topic, row->partition)->offset;
		row->end = rd_kafka_topic_partition_list_find(ends, row->topic, row->partition)->offset;
		read_commit(row, rd_kafka_topic_partition_list_find(offsets->list, row->topic, row->partition));
	}
	rd_kafka_topic_partition_list_destroy(starts);
	rd_kafka_topic_partition_list_destroy(ends);
	return err;
}

/* --- the oldest open job of each --- */

static struct offsets_row *row_of(struct offsets *offsets, const rd_kafka_message_t *msg)
{
	const char *topic = rd_kafka_topic_name(msg->rkt);

	for (size_t i = 0; i < offsets->n; i++)
		if (offsets->rows[i].partition == msg->partition && strcmp(offsets->rows[i].topic, topic) == 0)
			return &offsets->rows[i];
	return NULL;
}

/* The first record of each is all that is wanted. */
static void await_ages(struct offsets *offsets, rd_kafka_queue_t *queue, size_t n_open)
{
	int64_t end_us = clock_now_us() + AGES_MAX_US;

	while (n_open && clock_now_us() < end_us && !ctl_stopped()) {
		rd_kafka_message_t *msg = rd_kafka_consume_queue(queue, 100);
		struct offsets_row *row = msg && msg->rkt ? row_of(offsets, msg) : NULL;

		if (row && (!msg->err || msg->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) && row->oldest_ms == -1) {
			row->oldest_ms = msg->err ? -2 : rd_kafka_message_timestamp(msg, NULL);
			n_open--;
		}
		if (msg)
			rd_kafka_message_destroy(msg);
	}
}

static void read_ages(struct offsets *offsets)
{
	rd_kafka_t *rk = client_handle(offsets->client);
	rd_kafka_topic_t **topics = xcalloc(offsets->n + 1, sizeof(topics[0]));
	rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
	size_t n_open = 0;

	for (size_t i = 0; i < offsets->n; i++) {
		const struct offsets_row *row = &offsets->rows[i];

		if (!row->backlog)
			continue;
		topics[i] = rd_kafka_topic_new(rk, row->topic, NULL);
		n_open += !rd_kafka_consume_start_queue(topics[i], row->partition, MAX(row->commit, row->start), queue);
	}
	await_ages(offsets, queue, n_open);
	for (size_t i = 0; i < offsets->n; i++) {
		if (!topics[i])
			continue;
		rd_kafka_consume_stop(topics[i], offsets->rows[i].partition);
		rd_kafka_topic_destroy(topics[i]);
	}
	rd_kafka_queue_destroy(queue);
	free(topics);
}

/* --- show --- */

static int64_t age_of(const struct offsets_row *row, int64_t now_ms)
{
	return row->oldest_ms < 0 ? -1 : MAX(now_ms - row->oldest_ms, 0);
}

static struct offsets_row total_of(const struct offsets *offsets)
{
	struct offsets_row total = {.oldest_ms = -1};

	for (size_t i = 0; i < offsets->n; i++) {
		const struct offsets_row *row = &offsets->rows[i];

		total.completed += row->completed;
		total.backlog += row->backlog;
		total.lost += row->lost;
		if (row->oldest_ms >= 0 && (total.oldest_ms < 0 || row->oldest_ms < total.oldest_ms))
			total.oldest_ms = row->oldest_ms;
	}
	return total;
}

static const char *note_of(const struct offsets_row *row)
{
	if (row->commit < 0)
		return "never committed";
	if (row->commit > row->end)
		return "committed beyond the end: was the topic made anew?";
	if (row->lost)
		return "retention was faster than the workers";
	return row->is_set_broken ? "the completed set cannot be read" : "";
}

static void add_row(struct table *table, const struct offsets_row *row, int64_t now_ms)
{
	char age[32];

	table_cell(table, NULL, "%s", row->topic);
	table_cell(table, NULL, "%d", row->partition);
	table_cell(table, NULL, "%lld", (long long)row->start);
	if (row->commit < 0)
		table_cell(table, NULL, "-");
	else
		table_cell(table, NULL, "%lld", (long long)row->commit);
	table_cell(table, NULL, "%lld", (long long)row->completed);
	table_cell(table, NULL, "%lld", (long long)row->end);
	table_cell(table, row->backlog ? TABLE_YELLOW : NULL, "%lld", (long long)row->backlog);
	table_cell(table, NULL, "%s", table_age(age_of(row, now_ms), age, sizeof(age)));
	table_cell(table, row->lost ? TABLE_RED : NULL, "%lld", (long long)row->lost);
	table_cell(table, TABLE_DIM, "%s", note_of(row));
}

static void print_table(const struct offsets *offsets, const struct printer *printer)
{
	struct table *table = table_new("TOPIC >PARTITION ?>START >COMMITTED ?>ABOVE >END >BACKLOG ?>OLDEST >LOST NOTE");
	struct offsets_row total = total_of(offsets);
	int64_t now_ms = clock_epoch_ms();
	char age[32];

	admin_group_print(offsets->group, &offsets->about);
	for (size_t i = 0; i < offsets->n; i++)
		add_row(table, &offsets->rows[i], now_ms);
	table_cell(table, TABLE_BOLD, "total");
	for (int i = 0; i < 3; i++)
		table_cell(table, NULL, "%s", "");
	table_cell(table, TABLE_BOLD, "%lld", (long long)total.completed);
	table_cell(table, NULL, "%s", "");
	table_cell(table, TABLE_BOLD, "%lld", (long long)total.backlog);
	table_cell(table, TABLE_BOLD, "%s", table_age(age_of(&total, now_ms), age, sizeof(age)));
	table_cell(table, total.lost ? TABLE_RED : TABLE_BOLD, "%lld", (long long)total.lost);
	table_cell(table, NULL, "%s", "");
	table_print(table, printer);
	table_free(table);
}

/* What both the total and each row have. */
static json_t *json_of_row(const struct offsets_row *row, int64_t now_ms)
{
	json_t *json = json_pack("{s:I,s:I,s:I}", "completed_above", (json_int_t)row->completed, "backlog",
				 (json_int_t)row->backlog, "lost", (json_int_t)row->lost);

	json_object_set_new(json, "oldest_age_ms",
			    row->oldest_ms < 0 ? json_null() : json_integer(age_of(row, now_ms)));
	if (!row->topic)
		return json;
	json_object_set_new(json, "topic", json_string(row->topic));
	json_object_set_new(json, "partition", json_integer(row->partition));
	json_object_set_new(json, "start", json_integer(row->start));
	json_object_set_new(json, "commit_point", row->commit < 0 ? json_null() : json_integer(row->commit));
	json_object_set_new(json, "end", json_integer(row->end));
	json_object_set_new(json, "note", json_string(note_of(row)));
	return json;
}

static void print_as_json(const struct offsets *offsets)
{
	json_t *rows = json_array();
	struct offsets_row total = total_of(offsets);
	int64_t now_ms = clock_epoch_ms();

	for (size_t i = 0; i < offsets->n; i++)
		json_array_append_new(rows, json_of_row(&offsets->rows[i], now_ms));
	print_json(stdout, json_pack("{s:s,s:s,s:I,s:o,s:o}", "group", offsets->group, "state", offsets->about.state,
				     "members", (json_int_t)offsets->about.n_members, "partitions", rows, "total",
				     json_of_row(&total, now_ms)));
}

static bool is_never_committed(const struct offsets *offsets)
{
	for (size_t i = 0; i < offsets->n; i++)
		if (offsets->rows[i].commit >= 0)
			return false;
	return true;
}

static int show(struct offsets *offsets)
{
	struct printer printer;
	bool is_absent = strcmp(offsets->about.state, "absent") == 0 && is_never_committed(offsets);

	printer_init(&printer, stdout, PRINT_TABLE, PRINT_NONE);
	if (offsets->args->json)
		print_as_json(offsets);
	else
		print_table(offsets, &printer);
	int code = ctl_close_stdout(offsets->ctl);
	if (is_absent) {
		ctl_say(offsets->ctl, "there is no group %s: no worker has been in it, nothing is committed",
			offsets->group);
		return CTL_FAILED;
	}
	if (is_never_committed(offsets))
		ctl_say(offsets->ctl, "group %s has never committed here: its workers begin at the start",
			offsets->group);
	return code;
}

/* --- the whole --- */

static int work(struct offsets *offsets, bool is_reset)
{
	int err = list_partitions(offsets);

	if (!err)
		err = admin_group(offsets->client, offsets->group, &offsets->about);
	if (!err)
		err = read_rows(offsets);
	if (err || ctl_stopped())
		return CTL_FAILED;
	if (is_reset)
		return offsets_reset(offsets);
	read_ages(offsets);
	return ctl_stopped() ? CTL_FAILED : show(offsets);
}

static int check_usage(const struct ctl *ctl, const struct offsets_args *args, int argc, char **argv)
{
	bool is_reset = argc == 1 && strcmp(argv[0], "reset") == 0;

	if (argc && !is_reset)
		ctl_say(ctl, "there is only `offsets` and `offsets reset`, not `offsets %s`", argv[argc - 1]);
	else if (!is_reset && (args->to || args->partitions.n || args->yes))
		ctl_say(ctl, "--to, --partition and --yes are for `offsets reset`");
	else if (is_reset && !args->to && !args->partitions.n)
		ctl_say(ctl, "where to? give --to earliest|latest|OFFSET|TIME, or --partition P:OFFSET");
	else
		return 0;
	return -ERR_INVALID;
}

static int offsets_run(struct ctl *ctl, const void *raw, int argc, char **argv)
{
	struct offsets offsets = {.ctl = ctl, .args = raw};

	if (check_usage(ctl, offsets.args, argc, argv))
		return CTL_USAGE;
	admin_group_name(ctl, offsets.args->group, offsets.group, sizeof(offsets.group));
	offsets.client = client_new_reader(ctl, true);
	if (!offsets.client)
		return CTL_USAGE;
	int code = work(&offsets, argc > 0);
	admin_group_done(&offsets.about);
	if (offsets.list)
		rd_kafka_topic_partition_list_destroy(offsets.list);
	free(offsets.rows);
	client_free(offsets.client);
	return code;
}

const struct ctl_command offsets_command = {
    .name = "offsets",
    .summary = "where a group stands in its topics, or set it elsewhere",
    .synopsis = "[reset] [OPTION]...",
    .words = "reset",
    .options = offsets_options,
    .args_size = sizeof(struct offsets_args),
    .has_settings = true,
    .details =
	"COMMITTED is the commit point: every job below it is done. ABOVE are jobs beyond it that are done too. BACKLOG is what "
	"is left:\n"
	"END - COMMITTED - ABOVE. OLDEST is the age of the job at the commit point, LOST the jobs that were deleted before they "
	"were done.\n"
	"Exit 1 also when there is no such group.\n"
	"`reset` needs a group without members: stop its workers first. It prints what would change; --yes does it.\n",
    .examples = "  gatherctl offsets -b localhost:9092\n"
		"  gatherctl offsets -b localhost:9092 --json | jq .total.backlog\n"
		"  gatherctl offsets reset -b localhost:9092 --to earliest              # shows what would be done again\n"
		"  gatherctl offsets reset -b localhost:9092 --to 2h --yes              # all jobs of the last two hours again\n"
		"  gatherctl offsets reset -b localhost:9092 --partition 3:1500 --yes   # one partition\n",
    .run = offsets_run,
};
