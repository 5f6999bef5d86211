/* The plan of a replay: which offsets of which partitions, fixed once for all its processes.
 *
 * Happy path: nothing is stored under this ID -> the range is found out -> stored in the group ID.plan: each partition's stop as its
 * offset, its start and the flags as that commit's metadata; the ends of the live results as offsets of their topic -> read back ->
 * the starts are committed in the replay's own group. A later process finds the plan and takes it.
 * Failure modes: two first processes at once -> both wait a second after storing and take what is there then; other flags with the
 * same ID, or a commit outside of the range -> said, -ERR_INVALID; a range that reaches out of the log is cut, and that is said. */
#include "err.h"
#include "replay.h"

#include <jansson.h>
#include <unistd.h>

#define SETTLE_US 1000000
/* offset.metadata.max.bytes */
#define METADATA_MAX 4096

/* --- topics --- */

static int list_topics(struct replay *replay)
{
	const struct strlist *names = &replay->ctl->settings->jobs_topic;
	const char *live = replay->ctl->settings->results_topic;
	const struct rd_kafka_metadata *md;
	int err = client_metadata(replay->client, &md);

	if (err)
		return err;
	replay->jobs = rd_kafka_topic_partition_list_new(16);
	replay->source = rd_kafka_topic_partition_list_new(16);
	for (size_t i = 0; !err && i < names->n; i++)
		err = client_add_partitions(replay->client, md, names->v[i], replay->jobs);
	if (!err && client_topic(md, live))
		err = client_add_partitions(replay->client, md, live, replay->source);
	/* One that is not there would be waited for. */
	if (!err && !client_need_topic(replay->client, md, replay->args->results ? replay->args->results : live))
		err = -ERR_NOT_FOUND;
	rd_kafka_metadata_destroy(md);
	rd_kafka_topic_partition_list_sort(replay->jobs, NULL, NULL);
	return err;
}

/* --- the flags, as they are stored and compared --- */

static json_t *json_of_list(const struct strlist *list)
{
	json_t *json = json_array();

	for (size_t i = 0; i < list->n; i++)
		json_array_append_new(json, print_json_text(span_str(list->v[i])));
	return json;
}

/* Only those that were given: none at all = whatever the plan has. */
static json_t *given_flags(const struct replay_args *args)
{
	json_t *flags = json_object();

	if (args->from)
		json_object_set_new(flags, "from", print_json_text(span_str(args->from)));
	if (args->to)
		json_object_set_new(flags, "to", print_json_text(span_str(args->to)));
	if (args->partitions.n)
		json_object_set_new(flags, "partition", json_of_list(&args->partitions));
	if (args->only.n)
		json_object_set_new(flags, "only", json_of_list(&args->only));
	return flags;
}

static int check_flags(const struct replay *replay)
{
	json_t *given = given_flags(replay->args);
	bool is_same = !json_object_size(given) || json_equal(given, replay->flags);
	const char *results = replay->args->results;

	json_decref(given);
	if (is_same && (!results || strcmp(results, replay->results_topic) == 0))
		return 0;
	char *text = json_dumps(replay->flags, JSON_COMPACT | JSON_SORT_KEYS);
	ctl_say(replay->ctl, "replay %s exists with other flags: %s, results to %s; give the same or none to go on with it, or another --id",
		replay->id, text, replay->results_topic);
	free(text);
	return -ERR_INVALID;
}

/* --- read --- */

static int read_only(struct replay *replay)
{
	json_t *list = json_object_get(replay->flags, "only");
	int err = 0;

	only_done(&replay->only);
	for (size_t i = 0; !err && i < json_array_size(list); i++)
		err = only_add(replay->ctl, &replay->only, json_string_value(json_array_get(list, i)));
	return err;
}

/* One partition's row. -ERR_INVALID when it is nobody's plan. */
static int take_row(struct replay *replay, const rd_kafka_topic_partition_t *row, json_int_t *ret_of)
{
	json_t *json = json_loadb(row->metadata ? row->metadata : "", row->metadata_size, 0, NULL), *flags;
	const char *results;
	json_int_t start;

	int err = json_unpack(json, "{s:I,s:I,s:s,s:o}", "start", &start, "of", ret_of, "results", &results, "flags", &flags)
		      ? -ERR_INVALID
		      : 0;
	if (!err) {
		replay->ranges[replay->n_ranges++] = (struct kafka_range){row->topic, row->partition, start, row->offset};
		replay->total += row->offset - start;
		free(replay->results_topic);
		replay->results_topic = xstrdup(results);
		json_decref(replay->flags);
		replay->flags = json_incref(flags);
	}
	json_decref(json);
	return err;
}

static int read_rows(struct replay *replay)
{
	json_int_t of = 0;

	free(replay->ranges);
	replay->ranges = xcalloc((size_t)replay->jobs->cnt + 1, sizeof(replay->ranges[0]));
	replay->n_ranges = 0;
	replay->total = 0;
	for (int i = 0; i < replay->jobs->cnt; i++) {
		const rd_kafka_topic_partition_t *row = &replay->jobs->elems[i];

		if (row->offset >= 0 && take_row(replay, row, &of)) {
			ctl_say(replay->ctl, "what is stored in group %s is no plan of a replay", replay->plan_group);
			return -ERR_INVALID;
		}
	}
	if ((json_int_t)replay->n_ranges == of)
		return 0;
	ctl_say(replay->ctl, "replay %s is of %lld partitions, and only %zu of them are in the topics of jobs.topic", replay->id,
		(long long)of, replay->n_ranges);
	return -ERR_INVALID;
}

/* n_ranges is 0 when there is none. */
static int read_plan(struct replay *replay)
{
	int err = admin_committed(replay->client, replay->plan_group, replay->jobs);

	if (!err)
		err = admin_committed(replay->client, replay->plan_group, replay->source);
	if (!err)
		err = read_rows(replay);
	if (!err && replay->n_ranges)
		err = check_flags(replay);
	return err || !replay->n_ranges ? err : read_only(replay);
}

/* --- make --- */

/* "100-200" */
static int parse_range(char *text, int64_t *ret_start, int64_t *ret_stop)
{
	char *dash = strchr(text, '-');

	if (!dash)
		return -ERR_INVALID;
	*dash = '\0';
	int err = place_number(text, ret_start);
	if (!err)
		err = place_number(dash + 1, ret_stop);
	return !err && *ret_start > *ret_stop ? -ERR_INVALID : err;
}

/* The ranges that --partition gives, and which partitions it names; starts of -1 are --from's. */
static int set_named(struct replay *replay, bool *is_named)
{
	static const char form[] = "P, P:FROM-TO or TOPIC/P:FROM-TO";
	const struct strlist *given = &replay->args->partitions;

	for (size_t i = 0; i < given->n; i++) {
		char *rest = NULL;
		int row = 0;
		int err = place_partition(replay->client, given->v[i], form, replay->jobs, &row, &rest);

		if (!err && rest && parse_range(rest, &replay->ranges[row].start, &replay->ranges[row].stop)) {
			ctl_say(replay->ctl, "--partition %s: must be %s", given->v[i], form);
			err = -ERR_INVALID;
		}
		if (!err && !rest && !replay->args->from) {
			ctl_say(replay->ctl, "--partition %s: from where? give --from, or P:FROM-TO", given->v[i]);
			err = -ERR_INVALID;
		}
		free(rest);
		if (err)
			return err;
		is_named[row] = true;
	}
	return 0;
}

/* Of numbers and of times it can be told; an offset and a time may well cross in some partition. */
static int check_order(const struct replay *replay)
{
	const char *from = replay->args->from, *to = replay->args->to ? replay->args->to : "";
	int64_t a, b;
	bool are_numbers = !place_number(from, &a) && !place_number(to, &b);

	if ((!are_numbers && (when_parse(from, &a) || when_parse(to, &b))) || a <= b)
		return 0;
	ctl_say(replay->ctl, "--from %s is after --to %s", from, to);
	return -ERR_INVALID;
}

static int set_from_to(struct replay *replay)
{
	rd_kafka_topic_partition_list_t *from = rd_kafka_topic_partition_list_copy(replay->jobs);
	rd_kafka_topic_partition_list_t *to = rd_kafka_topic_partition_list_copy(replay->jobs);
	int err = check_order(replay);

	if (!err)
		err = place_set(replay->client, "from", replay->args->from, from);
	if (!err)
		err = place_set(replay->client, "to", replay->args->to ? replay->args->to : "latest", to);
	for (int i = 0; !err && i < replay->jobs->cnt; i++) {
		if (replay->ranges[i].start >= 0)
			continue;
		replay->ranges[i].start = from->elems[i].offset;
		replay->ranges[i].stop = to->elems[i].offset;
	}
	rd_kafka_topic_partition_list_destroy(from);
	rd_kafka_topic_partition_list_destroy(to);
	return err;
}

static int cut_to_log(struct replay *replay)
{
	rd_kafka_topic_partition_list_t *starts = rd_kafka_topic_partition_list_copy(replay->jobs);
	rd_kafka_topic_partition_list_t *ends = rd_kafka_topic_partition_list_copy(replay->jobs);
	int err = place_set(replay->client, "from", "earliest", starts);

	if (!err)
		err = place_set(replay->client, "to", "latest", ends);
	for (int i = 0; !err && i < replay->jobs->cnt; i++) {
		struct kafka_range *range = &replay->ranges[i];
		int64_t low = starts->elems[i].offset, high = ends->elems[i].offset;

		if (range->start < low && range->start < range->stop)
			ctl_say(replay->ctl, "%s/%d: offsets below %lld are no longer there, the range begins with it",
				range->topic, range->partition, (long long)low);
		range->start = MIN(MAX(range->start, low), high);
		range->stop = MAX(MIN(range->stop, high), range->start);
	}
	rd_kafka_topic_partition_list_destroy(starts);
	rd_kafka_topic_partition_list_destroy(ends);
	return err;
}

/* One range per row of jobs; then only the named ones stay. */
static int set_ranges(struct replay *replay)
{
	bool *is_named = xcalloc((size_t)replay->jobs->cnt + 1, sizeof(is_named[0]));
	size_t n = (size_t)replay->jobs->cnt, n_kept = 0;

	for (size_t i = 0; i < n; i++)
		replay->ranges[i] =
		    (struct kafka_range){replay->jobs->elems[i].topic, replay->jobs->elems[i].partition, -1, -1};
	int err = set_named(replay, is_named);
	if (!err && replay->args->from)
		err = set_from_to(replay);
	if (!err)
		err = cut_to_log(replay);
	for (size_t i = 0; !err && i < n; i++) {
		if (replay->args->partitions.n && !is_named[i])
			continue;
		replay->total += replay->ranges[i].stop - replay->ranges[i].start;
		replay->ranges[n_kept++] = replay->ranges[i];
	}
	replay->n_ranges = n_kept;
	free(is_named);
	return err;
}

static int add_row(const struct replay *replay, const struct kafka_range *range, json_t *flags,
		   rd_kafka_topic_partition_list_t *list)
{
	const char *results = replay->args->results ? replay->args->results : replay->ctl->settings->results_topic;
	rd_kafka_topic_partition_t *row = rd_kafka_topic_partition_list_add(list, range->topic, range->partition);
	json_t *json = json_pack("{s:I,s:I,s:s,s:O}", "start", (json_int_t)range->start, "of", (json_int_t)replay->n_ranges,
				 "results", results, "flags", flags);
	char *text = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);

	json_decref(json);
	row->offset = range->stop;
	row->metadata_size = strlen(text);
	row->metadata = rd_kafka_mem_malloc(NULL, row->metadata_size + 1);
	strcpy(row->metadata, text);
	free(text);
	if (row->metadata_size <= METADATA_MAX)
		return 0;
	ctl_say(replay->ctl, "the flags are too long to be stored: %zu bytes, at most %d", row->metadata_size, METADATA_MAX);
	return -ERR_INVALID;
}

static int commit_all(const struct replay *replay, const char *group, rd_kafka_topic_partition_list_t *list, bool may_be_taken)
{
	int err = admin_commit(replay->client, group, list);

	for (int i = 0; !err && i < list->cnt; i++) {
		/* A member joined meanwhile: it began from what another process stored. */
		if (!list->elems[i].err || (may_be_taken && list->elems[i].err == RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID))
			continue;
		ctl_say(replay->ctl, "%s/%d cannot be stored in group %s: %s", list->elems[i].topic, list->elems[i].partition, group,
			rd_kafka_err2str(list->elems[i].err));
		err = -ERR_KAFKA;
	}
	return err;
}

static int store_plan(struct replay *replay)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)replay->n_ranges);
	json_t *flags = given_flags(replay->args);
	int err = 0;

	for (size_t i = 0; !err && i < replay->n_ranges; i++)
		err = add_row(replay, &replay->ranges[i], flags, list);
	json_decref(flags);
	if (!err && replay->only.outcomes)
		err = place_set(replay->client, "to", "latest", replay->source);
	for (int i = 0; !err && replay->only.outcomes && i < replay->source->cnt; i++) {
		const rd_kafka_topic_partition_t *row = &replay->source->elems[i];

		rd_kafka_topic_partition_list_add(list, row->topic, row->partition)->offset = row->offset;
	}
	if (!err)
		err = commit_all(replay, replay->plan_group, list, false);
	rd_kafka_topic_partition_list_destroy(list);
	return err;
}

/* total is 0 when the range is empty: then nothing is stored. */
static int make_plan(struct replay *replay)
{
	if (!replay->args->from && !replay->args->partitions.n) {
		ctl_say(replay->ctl, "%s%s: give --from, or --partition P:FROM-TO",
			replay->args->id ? "there is no plan yet of replay " : "which jobs", replay->args->id ? replay->id : "");
		return -ERR_INVALID;
	}
	int err = set_ranges(replay);
	if (err || !replay->total)
		return err;
	err = store_plan(replay);
	if (err)
		return err;
	usleep(SETTLE_US);
	return read_plan(replay);
}

/* --- the group's own offsets --- */

/* Only when it has none: what is there is how far it is. */
static int check_commits(struct replay *replay, const rd_kafka_topic_partition_list_t *list, bool *ret_has_any)
{
	replay->is_done = true;
	*ret_has_any = false;
	for (int i = 0; i < list->cnt; i++) {
		const struct kafka_range *range = &replay->ranges[i];
		int64_t offset = list->elems[i].offset;

		replay->is_done &= offset >= range->stop || range->start == range->stop;
		*ret_has_any |= offset >= 0;
		if (offset < 0 || (offset >= range->start && offset <= range->stop))
			continue;
		ctl_say(replay->ctl, "group %s stands at %s/%d offset %lld, outside of the plan (%lld to %lld): use another --id",
			replay->group, range->topic, range->partition, (long long)offset, (long long)range->start,
			(long long)range->stop);
		return -ERR_INVALID;
	}
	return 0;
}

static int start_group(struct replay *replay)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)replay->n_ranges);
	bool has_any = false;

	for (size_t i = 0; i < replay->n_ranges; i++)
		rd_kafka_topic_partition_list_add(list, replay->ranges[i].topic, replay->ranges[i].partition);
	int err = admin_committed(replay->client, replay->group, list);
	if (!err)
		err = check_commits(replay, list, &has_any);
	for (int i = 0; !err && i < list->cnt; i++)
		list->elems[i].offset = replay->ranges[i].start;
	if (!err && !has_any)
		err = commit_all(replay, replay->group, list, true);
	rd_kafka_topic_partition_list_destroy(list);
	return err;
}

int plan_open(struct replay *replay)
{
	int err = list_topics(replay);

	if (!err)
		err = read_plan(replay);
	if (!err && !replay->n_ranges)
		err = make_plan(replay);
	return err || !replay->total ? err : start_group(replay);
}

void plan_done(struct replay *replay)
{
	if (replay->jobs)
		rd_kafka_topic_partition_list_destroy(replay->jobs);
	if (replay->source)
		rd_kafka_topic_partition_list_destroy(replay->source);
	json_decref(replay->flags);
	free(replay->ranges);
	free(replay->results_topic);
	only_done(&replay->only);
}
