/* gatherctl offsets reset - set a stopped group elsewhere.
 *
 * Happy path: no members -> each partition's target -> what changes is shown -> with --yes committed, without a completed set.
 * Failure modes: the group has members -> said, nothing changed (the broker refuses too, should one join meanwhile); an offset
 * outside of the log is moved to its nearest end. */
#include "clock.h"
#include "err.h"
#include "offsets.h"
#include "table.h"

#include <jansson.h>

static int64_t into_log(const struct offsets_row *row, int64_t offset)
{
	return MIN(MAX(offset, row->start), row->end);
}

/* "topic/3:1500", "3:1500", "3": the row, and its offset or -1. */
static int parse_partition(struct offsets *offsets, const char *text, struct offsets_row **ret_row, int64_t *ret_offset)
{
	static const char form[] = "P, P:OFFSET or TOPIC/P:OFFSET";
	char *rest = NULL;
	int i = 0;
	int err = place_partition(offsets->client, text, form, offsets->list, &i, &rest);

	*ret_offset = -1;
	if (!err && rest && place_number(rest, ret_offset)) {
		ctl_say(offsets->ctl, "--partition %s: must be %s", text, form);
		err = -ERR_INVALID;
	}
	free(rest);
	*ret_row = &offsets->rows[i];
	return err;
}

/* The rows that --to is for: those without an offset of their own; only the named ones when any is named bare. */
static int set_to(struct offsets *offsets, const bool *is_named, bool is_any_named)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_copy(offsets->list);
	int err = place_set(offsets->client, "to", offsets->args->to, list);

	for (size_t i = 0; !err && i < offsets->n; i++) {
		struct offsets_row *row = &offsets->rows[i];

		if (row->target < 0 && (!is_any_named || is_named[i]))
			row->target = into_log(row, list->elems[i].offset);
	}
	rd_kafka_topic_partition_list_destroy(list);
	return err;
}

static int set_targets(struct offsets *offsets)
{
	const struct strlist *given = &offsets->args->partitions;
	bool *is_named = xcalloc(offsets->n + 1, sizeof(is_named[0]));
	bool is_any_named = false;
	int err = 0;

	for (size_t i = 0; !err && i < given->n; i++) {
		struct offsets_row *row;
		int64_t offset;

		err = parse_partition(offsets, given->v[i], &row, &offset);
		if (err)
			break;
		if (offset >= 0)
			row->target = into_log(row, offset);
		is_named[row - offsets->rows] = true;
		is_any_named = true;
		if (offset < 0 && !offsets->args->to) {
			ctl_say(offsets->ctl, "--partition %s: where to? give --to, or P:OFFSET", given->v[i]);
			err = -ERR_INVALID;
		}
	}
	if (!err && offsets->args->to)
		err = set_to(offsets, is_named, is_any_named);
	free(is_named);
	return err;
}

/* --- show --- */

/* Of what stands in the log now: jobs that will be done again, and jobs that never will. */
static void count_change(const struct offsets_row *row, int64_t *ret_again, int64_t *ret_skipped)
{
	int64_t from = row->commit < 0 ? row->start : MIN(MAX(row->commit, row->start), row->end);
	bool is_back = row->target <= from;

	*ret_again = is_back ? from - row->target + row->completed : 0;
	*ret_skipped = is_back ? 0 : row->target - from;
}

static void print_plan(const struct offsets *offsets)
{
	struct table *table = table_new("TOPIC >PARTITION >FROM >TO >AGAIN >SKIPPED");
	struct printer printer;
	int64_t again, skipped;

	printer_init(&printer, stdout, PRINT_TABLE, PRINT_NONE);
	for (size_t i = 0; i < offsets->n; i++) {
		const struct offsets_row *row = &offsets->rows[i];

		if (row->target < 0)
			continue;
		count_change(row, &again, &skipped);
		table_cell(table, NULL, "%s", row->topic);
		table_cell(table, NULL, "%d", row->partition);
		if (row->commit < 0)
			table_cell(table, NULL, "-");
		else
			table_cell(table, NULL, "%lld", (long long)row->commit);
		table_cell(table, TABLE_BOLD, "%lld", (long long)row->target);
		table_cell(table, again ? TABLE_YELLOW : NULL, "%lld", (long long)again);
		table_cell(table, skipped ? TABLE_RED : NULL, "%lld", (long long)skipped);
	}
	table_print(table, &printer);
	table_free(table);
}

static void print_plan_json(const struct offsets *offsets, bool is_done)
{
	json_t *rows = json_array();
	int64_t again, skipped;

	for (size_t i = 0; i < offsets->n; i++) {
		const struct offsets_row *row = &offsets->rows[i];

		if (row->target < 0)
			continue;
		count_change(row, &again, &skipped);
		json_t *json = json_pack("{s:s,s:i,s:I,s:I,s:I}", "topic", row->topic, "partition", row->partition, "to",
					 (json_int_t)row->target, "again", (json_int_t)again, "skipped",
					 (json_int_t)skipped);
		json_object_set_new(json, "from", row->commit < 0 ? json_null() : json_integer(row->commit));
		json_array_append_new(rows, json);
	}
	print_json(stdout, json_pack("{s:s,s:b,s:o}", "group", offsets->group, "done", is_done, "partitions", rows));
}

/* --- do --- */

static int commit(struct offsets *offsets)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)offsets->n);
	int n_failed = 0;

	for (size_t i = 0; i < offsets->n; i++)
		if (offsets->rows[i].target >= 0)
			rd_kafka_topic_partition_list_add(list, offsets->rows[i].topic, offsets->rows[i].partition)->offset =
			    offsets->rows[i].target;
	int err = admin_commit(offsets->client, offsets->group, list);
	if (err == -ERR_CANCELLED && ctl_stopped())
		ctl_say(offsets->ctl, "interrupted before the broker answered: group %s may be set or not; see `gatherctl offsets`", offsets->group);
	for (int i = 0; !err && i < list->cnt; i++) {
		if (!list->elems[i].err)
			continue;
		n_failed++;
		ctl_say(offsets->ctl, "%s/%d is not changed: %s", list->elems[i].topic, list->elems[i].partition,
			list->elems[i].err == RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID ? "the group has members again"
										  : rd_kafka_err2str(list->elems[i].err));
	}
	rd_kafka_topic_partition_list_destroy(list);
	return err || n_failed ? -ERR_KAFKA : 0;
}

int offsets_reset(struct offsets *offsets)
{
	int err = set_targets(offsets);

	if (err)
		return err == -ERR_INVALID ? CTL_USAGE : CTL_FAILED;
	if (offsets->about.n_members) {
		ctl_say(offsets->ctl, "group %s has %zu member%s: stop its workers first; nothing is changed", offsets->group,
			offsets->about.n_members, offsets->about.n_members == 1 ? "" : "s");
		return CTL_FAILED;
	}
	bool is_wanted = offsets->args->yes;
	if (is_wanted && commit(offsets))
		return CTL_FAILED;
	if (offsets->args->json)
		print_plan_json(offsets, is_wanted);
	else
		print_plan(offsets);
	int code = ctl_close_stdout(offsets->ctl);
	if (!is_wanted)
		ctl_say(offsets->ctl, "nothing is changed yet; --yes does it");
	return code;
}
