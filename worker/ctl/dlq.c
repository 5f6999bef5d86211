/* gatherctl dlq - look at dead letters, and bring them back.
 *
 * Happy path: metadata -> the logs' ends, and what was brought back already -> the records, filtered -> listed, shown, or given to
 * dlq_redrive.c. Failure modes: no broker, no topic -> one sentence; a record without gatherd's headers is shown as it is and never
 * brought back. */
#include "dlq.h"

#include "clock.h"
#include "err.h"
#include "table.h"

#include <errno.h>
#include <jansson.h>

#define IDLE_MAX_US (20 * US_PER_S)
#define DETAIL_COLUMNS 60

static const struct ctl_option dlq_options[] = {
    {"topic", 't', CTL_TEXT, offsetof(struct dlq_args, topic), "TOPIC",
     "default: dead_letter.topic of the settings, else dead-letters", 0, 0, 0},
    {"group", 'g', CTL_TEXT, offsetof(struct dlq_args, group), "GROUP",
     "what was brought back is remembered in GROUP.redrive; default: kafka.group.id (gatherd)", 0, 0, 0},
    {"reason", 0, CTL_TEXT, offsetof(struct dlq_args, reason), "GLOB", "only these reasons: JOB_*, TIMEOUT", 0, 0, 0},
    {"origin", 0, CTL_TEXT, offsetof(struct dlq_args, origin), "TOPIC", "only records of this jobs topic", 0, 0, 0},
    {"since", 0, CTL_WHEN, offsetof(struct dlq_args, since_ms), "TIME",
     "only dead letters since 2026-11-01T00:00Z, or 2h (ago)", 0, 0, 0},
    {"count", 'n', CTL_INT, offsetof(struct dlq_args, count), "N", "end after so many", 1, INT64_MAX, 0},
    {"all", 'a', CTL_FLAG, offsetof(struct dlq_args, all), NULL, "those brought back already, too", 0, 0, 0},
    {"dry-run", 0, CTL_FLAG, offsetof(struct dlq_args, dry_run), NULL, "redrive: only say what would be brought back", 0,
     0, 0},
    {"json", 0, CTL_FLAG, offsetof(struct dlq_args, json), NULL, "lines of JSON", 0, 0, 0},
    {NULL, 0, CTL_FLAG, 0, NULL, NULL, 0, 0, 0},
};

/* --- one record --- */

static struct span header_of(const rd_kafka_headers_t *headers, const char *name)
{
	const void *value;
	size_t len;

	if (!headers || rd_kafka_header_get_last(headers, name, &value, &len) || !value)
		return span_str("");
	return (struct span){value, len};
}

/* Ours stand behind the record's own, and only those are ours. */
static size_t count_own(const rd_kafka_headers_t *headers)
{
	size_t n = headers ? rd_kafka_header_cnt(headers) : 0, n_ours = 0;
	const char *name;
	const void *value;
	size_t len;

	while (n && n_ours < DLQ_HEADERS && !rd_kafka_header_get_all(headers, n - 1, &name, &value, &len) &&
	       strncmp(name, "gatherd-dlq-", strlen("gatherd-dlq-")) == 0) {
		n--;
		n_ours++;
	}
	return n;
}

static struct dead_letter_view view_of(const rd_kafka_message_t *msg)
{
	struct dead_letter_view letter = {.msg = msg};
	rd_kafka_headers_t *headers = NULL;

	if (!rd_kafka_message_headers(msg, &headers))
		letter.headers = headers;
	letter.n_own = count_own(letter.headers);
	letter.reason = header_of(letter.headers, "gatherd-dlq-reason");
	letter.detail = header_of(letter.headers, "gatherd-dlq-detail");
	letter.topic = header_of(letter.headers, "gatherd-dlq-topic");
	letter.partition = header_of(letter.headers, "gatherd-dlq-partition");
	letter.offset = header_of(letter.headers, "gatherd-dlq-offset");
	letter.timestamp = header_of(letter.headers, "gatherd-dlq-timestamp");
	return letter;
}

static bool matches(const char *glob, struct span text)
{
	char *copy = xstrndup((const char *)text.data, text.len);
	bool is_match = !glob || glob_match(glob, copy);

	free(copy);
	return is_match;
}

static bool is_wanted(const struct dlq *dlq, const struct dead_letter_view *letter)
{
	int64_t since_ms = dlq->args->since_ms;

	if (dlq->wanted_partition >= 0)
		return letter->msg->partition == dlq->wanted_partition && letter->msg->offset == dlq->wanted_offset;
	if (since_ms && rd_kafka_message_timestamp(letter->msg, NULL) < since_ms)
		return false;
	return (dlq->args->all || !letter->is_redriven) && matches(dlq->args->reason, letter->reason) &&
	       matches(dlq->args->origin, letter->topic);
}

/* --- reading --- */

static int on_record(struct dlq *dlq, const rd_kafka_message_t *msg, dlq_fn fn, void *ctx)
{
	struct dead_letter_view letter = view_of(msg);

	int told = window_accept(dlq->partitions[msg->partition].win, msg->offset);
	letter.is_redriven = told == -ERR_NOT_FOUND;
	letter.is_beyond = told == -ERR_FULL;
	if (!is_wanted(dlq, &letter)) {
		dlq->passed++;
		return 0;
	}
	int err = fn(ctx, &letter);
	dlq->shown += !err;
	return err;
}

/* 1 when a partition is done with this, 0, or an error. */
static int on_message(struct dlq *dlq, const rd_kafka_message_t *msg, dlq_fn fn, void *ctx)
{
	struct dlq_partition *part = &dlq->partitions[msg->partition];
	int err = 0;

	if (msg->err && msg->err != RD_KAFKA_RESP_ERR__PARTITION_EOF)
		return 0; /* the library goes on by itself; silence is found by the caller */
	if (part->is_done)
		return 0;
	if (!msg->err && msg->offset < part->end)
		err = on_record(dlq, msg, fn, ctx);
	if (err)
		return err;
	part->is_done = msg->err || msg->offset + 1 >= part->end;
	return part->is_done;
}

static int start(struct dlq *dlq, rd_kafka_queue_t *queue, int *ret_open)
{
	*ret_open = 0;
	for (int i = 0; i < dlq->n_partitions; i++) {
		struct dlq_partition *part = &dlq->partitions[i];

		part->is_done = part->from >= part->end || (dlq->wanted_partition >= 0 && dlq->wanted_partition != i);
		if (part->is_done)
			continue;
		if (rd_kafka_consume_start_queue(dlq->topic, i, part->from, queue)) {
			ctl_say(dlq->ctl, "%s/%d cannot be read: %s", dlq->topic_name, i,
				rd_kafka_err2str(rd_kafka_last_error()));
			return -ERR_KAFKA;
		}
		part->is_started = true;
		dlq->total += part->end - part->from;
		++*ret_open;
	}
	return 0;
}

int dlq_scan(struct dlq *dlq, dlq_fn fn, void *ctx)
{
	rd_kafka_queue_t *queue = rd_kafka_queue_new(client_handle(dlq->client));
	int64_t last_us = clock_now_us();
	int n_open, err = start(dlq, queue, &n_open);

	while (!err && n_open && !ctl_stopped() && !(dlq->args->count && dlq->shown >= dlq->args->count)) {
		rd_kafka_message_t *msg = rd_kafka_consume_queue(queue, 100);

		if (msg) {
			int got = on_message(dlq, msg, fn, ctx);
			err = got < 0 ? got : 0;
			n_open -= got > 0;
			rd_kafka_message_destroy(msg);
			last_us = clock_now_us();
		} else if (clock_now_us() - last_us > IDLE_MAX_US) {
			ctl_say(dlq->ctl, "nothing came for %d s before the topic's end", (int)(IDLE_MAX_US / US_PER_S));
			err = -ERR_KAFKA;
		}
	}
	for (int i = 0; i < dlq->n_partitions; i++)
		if (dlq->partitions[i].is_started)
			rd_kafka_consume_stop(dlq->topic, i);
	rd_kafka_queue_destroy(queue);
	return err ? err : ctl_stopped() ? -ERR_CANCELLED : 0;
}

/* --- list --- */

struct dlq_list {
	struct dlq *dlq;
	struct table *table;
	int64_t now_ms;
};

static int64_t age_of(const struct dead_letter_view *letter, int64_t now_ms)
{
	int64_t at_ms = rd_kafka_message_timestamp(letter->msg, NULL);

	return at_ms < 0 ? -1 : MAX(now_ms - at_ms, 0);
}

static json_t *json_of_letter(const struct dead_letter_view *letter, int64_t now_ms)
{
	json_t *json = json_pack("{s:i,s:I,s:b,s:I}", "partition", (int)letter->msg->partition, "offset",
				 (json_int_t)letter->msg->offset, "redriven", (int)letter->is_redriven, "age_ms",
				 (json_int_t)age_of(letter, now_ms));

	json_object_set_new(json, "reason", print_json_text(letter->reason));
	json_object_set_new(json, "detail", print_json_text(letter->detail));
	json_object_set_new(json, "origin_topic", print_json_text(letter->topic));
	json_object_set_new(json, "origin_partition", print_json_text(letter->partition));
	json_object_set_new(json, "origin_offset", print_json_text(letter->offset));
	json_object_set_new(json, "value_bytes", json_integer((json_int_t)letter->msg->len));
	return json;
}

static int list_one(void *ctx, const struct dead_letter_view *letter)
{
	struct dlq_list *list = ctx;
	char age[32];

	if (list->dlq->args->json) {
		print_json(stdout, json_of_letter(letter, list->now_ms));
		return 0;
	}
	table_cell(list->table, NULL, "%d/%lld", letter->msg->partition, (long long)letter->msg->offset);
	table_cell(list->table, NULL, "%s", table_age(age_of(letter, list->now_ms), age, sizeof(age)));
	table_cell(list->table, TABLE_RED, "%.*s", (int)letter->reason.len, (const char *)letter->reason.data);
	table_cell(list->table, NULL, "%.*s/%.*s/%.*s", (int)letter->topic.len, (const char *)letter->topic.data,
		   (int)letter->partition.len, (const char *)letter->partition.data, (int)letter->offset.len,
		   (const char *)letter->offset.data);
	table_cell(list->table, TABLE_DIM, "%s", letter->is_redriven ? "redriven" : "");
	table_cell(list->table, NULL, "%zu", letter->msg->len);
	table_cell(list->table, TABLE_DIM, "%.*s", (int)letter->detail.len, (const char *)letter->detail.data);
	return 0;
}

static int dlq_list(struct dlq *dlq)
{
	struct dlq_list list = {.dlq = dlq, .now_ms = clock_epoch_ms()};
	struct printer printer;

	list.table = table_new("PLACE >AGE REASON ORIGIN ?STATE ?>BYTES DETAIL");
	printer_init(&printer, stdout, PRINT_TABLE, PRINT_NONE);
	int err = dlq_scan(dlq, list_one, &list);
	if (!dlq->args->json && dlq->shown)
		table_print(list.table, &printer);
	else if (!dlq->args->json && !err)
		printf("no dead letters in %s\n", dlq->topic_name);
	table_free(list.table);
	int code = ctl_close_stdout(dlq->ctl);
	if (err == -ERR_CANCELLED && dlq->shown)
		ctl_say(dlq->ctl, "interrupted; there may be more");
	return err ? CTL_FAILED : code;
}

/* --- show --- */

static bool is_text(struct span bytes)
{
	char *clean = print_clean(bytes, 0);
	bool is_same = strlen(clean) == bytes.len;
	for (size_t i = 0; is_same && i < bytes.len; i++)
		is_same = (uint8_t)clean[i] == bytes.data[i] || bytes.data[i] == '\n' || bytes.data[i] == '\t';
	free(clean);
	return is_same;
}

static void print_hex(struct span bytes)
{
	for (size_t i = 0; i < bytes.len; i += 16) {
		char *text = print_clean((struct span){bytes.data + i, MIN(bytes.len - i, 16U)}, 0);

		printf("  %08zx ", i);
		for (size_t k = 0; k < 16; k++)
			i + k < bytes.len ? printf(" %02x", bytes.data[i + k]) : printf("   ");
		printf("  %s\n", text);
		free(text);
	}
}

static void print_bytes(const char *name, struct span bytes)
{
	if (!bytes.data) {
		printf("%s: null\n", name);
	} else if (!is_text(bytes)) {
		printf("%s: %zu bytes\n", name, bytes.len);
		print_hex(bytes);
	} else {
		printf("%s: %.*s\n", name, (int)bytes.len, (const char *)bytes.data);
	}
}

static json_t *json_of_headers(const struct dead_letter_view *letter)
{
	json_t *list = json_array();

	for (size_t i = 0; letter->headers && i < rd_kafka_header_cnt(letter->headers); i++) {
		const char *name;
		const void *value;
		size_t len;

		if (!rd_kafka_header_get_all(letter->headers, i, &name, &value, &len))
			json_array_append_new(list, json_pack("{s:o,s:o}", "name", print_json_text(span_str(name)), "value",
							      print_json_text((struct span){value, len})));
	}
	return list;
}

static int show_one(void *ctx, const struct dead_letter_view *letter)
{
	const struct dlq *dlq = ctx;
	const rd_kafka_message_t *msg = letter->msg;

	if (dlq->args->json) {
		json_t *json = json_of_letter(letter, clock_epoch_ms());

		json_object_set_new(json, "headers", json_of_headers(letter));
		json_object_set_new(json, "key",
				    msg->key ? print_json_text((struct span){msg->key, msg->key_len}) : json_null());
		json_object_set_new(json, "value",
				    msg->payload ? print_json_text((struct span){msg->payload, msg->len}) : json_null());
		print_json(stdout, json);
		return 0;
	}
	printf("%s %d/%lld%s\n", dlq->topic_name, msg->partition, (long long)msg->offset,
	       letter->is_redriven ? ", brought back already" : "");
	for (size_t i = 0; letter->headers && i < rd_kafka_header_cnt(letter->headers); i++) {
		const char *name;
		const void *value;
		size_t len;

		if (rd_kafka_header_get_all(letter->headers, i, &name, &value, &len))
			continue;
		char *clean = print_clean(span_str(name), 0), *label = xasprintf("header %s", clean);
		print_bytes(label, (struct span){value, len});
		free(label);
		free(clean);
	}
	print_bytes("key", (struct span){msg->key, msg->key_len});
	print_bytes("value", (struct span){msg->payload, msg->len});
	return 0;
}

static int dlq_show(struct dlq *dlq)
{
	struct dlq_partition *part = &dlq->partitions[dlq->wanted_partition];

	/* Only to be looked at: what is below it need not be read. */
	part->from = MAX(dlq->wanted_offset, part->start);
	int err = dlq_scan(dlq, show_one, dlq);

	if (!err && !dlq->shown) {
		ctl_say(dlq->ctl, "there is no record %d/%lld in %s", dlq->wanted_partition, (long long)dlq->wanted_offset,
			dlq->topic_name);
		err = -ERR_NOT_FOUND;
	}
	int code = ctl_close_stdout(dlq->ctl);
	return err ? CTL_FAILED : code;
}

/* --- the whole --- */

/* The log's ends, and the windows of what was brought back. */
static int open_partitions(struct dlq *dlq)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(dlq->n_partitions);
	struct dlq_partition *parts = dlq->partitions;
	int err = 0;

	for (int i = 0; i < dlq->n_partitions; i++)
		rd_kafka_topic_partition_list_add(list, dlq->topic_name, i);
	err = admin_offsets_at(dlq->client, list, RD_KAFKA_OFFSET_BEGINNING);
	for (int i = 0; !err && i < list->cnt; i++)
		parts[list->elems[i].partition].start = parts[list->elems[i].partition].from = list->elems[i].offset;
	if (!err)
		err = admin_offsets_at(dlq->client, list, RD_KAFKA_OFFSET_END);
	for (int i = 0; !err && i < list->cnt; i++)
		parts[list->elems[i].partition].end = list->elems[i].offset;
	if (!err)
		err = admin_committed(dlq->client, dlq->group, list);
	for (int i = 0; !err && i < list->cnt; i++) {
		const rd_kafka_topic_partition_t *row = &list->elems[i];
		struct dlq_partition *part = &parts[row->partition];

		part->win = window_new(row->offset >= 0 ? row->offset : part->start, OFFSETMAP_SPAN_MAX);
		/* Always from there: to a window, what it never saw below what it saw is done. */
		if (!dlq->args->all)
			part->from = MAX(part->start, window_commit_point(part->win));
		if (row->metadata_size && window_restore(part->win, row->metadata, row->metadata_size))
			ctl_say(dlq->ctl, "what %s remembers of partition %d cannot be read", dlq->group, row->partition);
	}
	rd_kafka_topic_partition_list_destroy(list);
	return err;
}

static int open_topic(struct dlq *dlq)
{
	int err = client_metadata(dlq->client, &dlq->md);

	if (err)
		return err;
	const struct rd_kafka_metadata_topic *topic = client_need_topic(dlq->client, dlq->md, dlq->topic_name);
	if (!topic)
		return -ERR_NOT_FOUND;
	dlq->n_partitions = topic->partition_cnt;
	dlq->partitions = xcalloc((size_t)topic->partition_cnt, sizeof(dlq->partitions[0]));
	dlq->topic = rd_kafka_topic_new(client_handle(dlq->client), dlq->topic_name, NULL);
	err = open_partitions(dlq);
	if (!err && dlq->wanted_partition >= dlq->n_partitions) {
		ctl_say(dlq->ctl, "%s has %d partitions", dlq->topic_name, dlq->n_partitions);
		err = -ERR_NOT_FOUND;
	}
	return err;
}

static void close_topic(struct dlq *dlq)
{
	for (int i = 0; i < dlq->n_partitions; i++)
		window_free(dlq->partitions[i].win);
	free(dlq->partitions);
	if (dlq->topic)
		rd_kafka_topic_destroy(dlq->topic);
	if (dlq->md)
		rd_kafka_metadata_destroy(dlq->md);
	client_free(dlq->client);
}

static int parse_place(struct dlq *dlq, const char *text)
{
	int n = 0;
	long long offset;

	if (sscanf(text, "%d/%lld%n", &dlq->wanted_partition, &offset, &n) == 2 && !text[n] && dlq->wanted_partition >= 0 &&
	    offset >= 0) {
		dlq->wanted_offset = offset;
		return 0;
	}
	ctl_say(dlq->ctl, "%s: a dead letter's place is PARTITION/OFFSET, as `dlq list` prints it", text);
	return -ERR_INVALID;
}

static int dlq_run(struct ctl *ctl, const void *raw, int argc, char **argv)
{
	struct dlq dlq = {.ctl = ctl, .args = raw, .wanted_partition = -1};
	const char *verb = argc ? argv[0] : "";
	char group[256];
	int (*work)(struct dlq *) = strcmp(verb, "list") == 0	   ? dlq_list
				    : strcmp(verb, "show") == 0	   ? dlq_show
				    : strcmp(verb, "redrive") == 0 ? dlq_redrive
								   : NULL;

	if (!work || argc > 2 || (work == dlq_show && argc != 2) || (work == dlq_list && argc != 1)) {
		ctl_say(ctl, "give one of: list, show PARTITION/OFFSET, redrive [PARTITION/OFFSET]");
		return CTL_USAGE;
	}
	if (argc == 2 && parse_place(&dlq, argv[1]))
		return CTL_USAGE;
	dlq.topic_name = dlq.args->topic			   ? dlq.args->topic
			 : *ctl->settings->dead_letter_topic ? ctl->settings->dead_letter_topic
							     : "dead-letters";
	admin_group_name(ctl, dlq.args->group, group, sizeof(group));
	snprintf(dlq.group, sizeof(dlq.group), "%s.redrive", group);
	dlq.client = client_new_reader(ctl, false);
	if (!dlq.client)
		return CTL_USAGE;
	int code = open_topic(&dlq) ? CTL_FAILED : work(&dlq);
	close_topic(&dlq);
	return code;
}

const struct ctl_command dlq_command = {
    .name = "dlq",
    .summary = "dead letters: list them, show one, bring them back",
    .synopsis = "list|show PARTITION/OFFSET|redrive [PARTITION/OFFSET] [OPTION]...",
    .words = "list show redrive",
    .options = dlq_options,
    .args_size = sizeof(struct dlq_args),
    .has_settings = true,
    .details =
	"`redrive` puts each record back where it came from: key, value and headers byte for byte, without gatherd-dlq-*. It "
	"remembers\n"
	"what it has done in the group GROUP.redrive, so it can be stopped and run again: nothing is brought back twice, but "
	"for what\n"
	"was not remembered yet when it was killed (at most 500). `list` leaves out what was brought back, unless --all.\n",
    .examples = "  gatherctl dlq list -b localhost:9092\n"
		"  gatherctl dlq list -b localhost:9092 --json | jq -r .reason | sort | uniq -c\n"
		"  gatherctl dlq show 0/12 -b localhost:9092\n"
		"  gatherctl dlq redrive -b localhost:9092 --reason 'JOB_*' --since 2h --dry-run\n"
		"  gatherctl dlq redrive 0/12 -b localhost:9092          # one\n",
    .run = dlq_run,
};
