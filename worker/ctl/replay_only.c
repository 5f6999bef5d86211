/* Which jobs of a range are done again: by host, and by what became of them.
 *
 * Happy path: the live results are read up to the plan's ends, without a group -> those of no replay, whose job lies in a range, are
 * noted by the job's place -> the pipeline asks of each job. What several results of one job say does not hang on their order: it is
 * wanted when one of them has a wanted outcome, and none is a success (unless successes are wanted). Failure modes: nothing comes for
 * 20 s -> said; what is no result is passed over and counted. */
#include "clock.h"
#include "err.h"
#include "gatherd/v1/result.pb-c.h"
#include "replay.h"
#include "task.h"

#include <unistd.h>

#define IDLE_MAX_US (20 * US_PER_S)
#define SUCCESSES (UINT32_C(1) << OUTCOME_OK | UINT32_C(1) << OUTCOME_NOT_MODIFIED)

struct only_bits {
	uint64_t *has_wanted, *has_success; /* bit per offset of the range */
};

/* --- what is asked for --- */

static int add_outcomes(const struct ctl *ctl, struct only *only, const char *words)
{
	char *list = xstrdup(words), *at = list, *word;
	int err = *words ? 0 : -ERR_INVALID;

	static_assert(OUTCOME_COUNT <= 32, "one bit each");
	while (!err && (word = strsep(&at, ","))) {
		enum outcome outcome = outcome_parse(word);

		only->outcomes |= UINT32_C(1) << outcome;
		err = outcome ? 0 : -ERR_INVALID;
		if (err)
			ctl_say(ctl, "--only outcome=%s: there is no outcome %s; gatherctl tail --help names them", words, word);
	}
	free(list);
	return err;
}

int only_add(const struct ctl *ctl, struct only *only, const char *text)
{
	if (strcmp(text, "failed") == 0) {
		/* 0 is no outcome. */
		only->outcomes |= ((UINT32_C(1) << OUTCOME_COUNT) - 2) & ~SUCCESSES;
		return 0;
	}
	if (strncmp(text, "outcome=", 8) == 0)
		return add_outcomes(ctl, only, text + 8);
	if (strncmp(text, "host=", 5) == 0 && text[5]) {
		only->hosts.v = xrealloc(only->hosts.v, (only->hosts.n + 1) * sizeof(only->hosts.v[0]));
		only->hosts.v[only->hosts.n++] = xstrdup(text + 5);
		return 0;
	}
	ctl_say(ctl, "--only %s: must be failed, outcome=A,B or host=GLOB", text);
	return -ERR_INVALID;
}

void only_done(struct only *only)
{
	for (size_t i = 0; i < only->hosts.n; i++)
		free(only->hosts.v[i]);
	free(only->hosts.v);
	for (size_t i = 0; only->bits && i < only->n_ranges; i++) {
		free(only->bits[i].has_wanted);
		free(only->bits[i].has_success);
	}
	free(only->bits);
	*only = (struct only){0};
}

/* --- what the results say --- */

/* The range of a job's place; NULL = outside of all. */
static const struct kafka_range *range_of(const struct only *only, const char *topic, int32_t partition, int64_t offset)
{
	for (size_t i = 0; i < only->n_ranges; i++) {
		const struct kafka_range *range = &only->ranges[i];

		if (range->partition == partition && offset >= range->start && offset < range->stop &&
		    strcmp(range->topic, topic) == 0)
			return range;
	}
	return NULL;
}

static void note(struct only *only, const Gatherd__V1__FetchResult *res)
{
	const Gatherd__V1__Source *source = res->source;
	unsigned outcome = (unsigned)res->outcome;
	const struct kafka_range *range =
	    source && outcome < OUTCOME_COUNT ? range_of(only, source->topic, source->partition, source->offset) : NULL;

	if (!range || *res->replay_id)
		return;
	struct only_bits *bits = &only->bits[range - only->ranges];
	size_t place = (size_t)(source->offset - range->start);
	uint64_t bit = UINT64_C(1) << (place % 64);

	if (only->outcomes >> outcome & 1)
		bits->has_wanted[place / 64] |= bit;
	if (SUCCESSES >> outcome & 1)
		bits->has_success[place / 64] |= bit;
}

static void on_record(struct only *only, const rd_kafka_message_t *msg, int64_t *n_bad)
{
	rd_kafka_headers_t *headers;
	const void *value;
	size_t len;

	/* Of a replay: so it need not be unpacked. */
	if (!rd_kafka_message_headers(msg, &headers) &&
	    !rd_kafka_header_get_last(headers, "gatherd-replay-id", &value, &len))
		return;
	Gatherd__V1__FetchResult *res =
	    msg->payload && msg->len ? gatherd__v1__fetch_result__unpack(NULL, msg->len, msg->payload) : NULL;
	if (res)
		note(only, res);
	else
		++*n_bad;
	if (res)
		gatherd__v1__fetch_result__free_unpacked(res, NULL);
}

/* --- reading --- */

struct reading {
	struct replay *replay;
	rd_kafka_topic_t *topic;
	rd_kafka_queue_t *queue;
	int64_t *from, *position; /* by place in source */
	int64_t done, total, n_bad;
	int n_open;
};

static int start(struct reading *reading)
{
	struct replay *replay = reading->replay;
	rd_kafka_topic_partition_list_t *starts = rd_kafka_topic_partition_list_copy(replay->source);
	int err = admin_offsets_at(replay->client, starts, RD_KAFKA_OFFSET_BEGINNING);

	for (int i = 0; !err && i < starts->cnt; i++) {
		const rd_kafka_topic_partition_t *row = &replay->source->elems[i];

		reading->from[i] = reading->position[i] = starts->elems[i].offset;
		if (row->offset <= reading->from[i])
			continue; /* also what is newer than the plan */
		reading->total += row->offset - reading->from[i];
		if (rd_kafka_consume_start_queue(reading->topic, row->partition, reading->from[i], reading->queue)) {
			ctl_say(replay->ctl, "%s/%d cannot be read: %s", row->topic, row->partition,
				rd_kafka_err2str(rd_kafka_last_error()));
			err = -ERR_KAFKA;
		} else {
			reading->n_open++;
		}
	}
	rd_kafka_topic_partition_list_destroy(starts);
	return err;
}

/* The rows of source are its partitions, in order. */
static void on_message(struct reading *reading, const rd_kafka_message_t *msg)
{
	int64_t *position = &reading->position[msg->partition];
	int64_t end = reading->replay->source->elems[msg->partition].offset;

	if ((msg->err && msg->err != RD_KAFKA_RESP_ERR__PARTITION_EOF) || *position >= end)
		return; /* the library goes on by itself */
	if (!msg->err && msg->offset < end)
		on_record(&reading->replay->only, msg, &reading->n_bad);
	int64_t next = MIN(msg->err ? end : msg->offset + 1, end);
	reading->done += next - *position;
	*position = next;
	reading->n_open -= next >= end;
}

static int read_all(struct reading *reading)
{
	struct replay *replay = reading->replay;
	int64_t last_us = clock_now_us();

	while (reading->n_open && !ctl_stopped()) {
		rd_kafka_message_t *msg = rd_kafka_consume_queue(reading->queue, 100);

		if (msg) {
			on_message(reading, msg);
			rd_kafka_message_destroy(msg);
			last_us = clock_now_us();
		} else if (clock_now_us() - last_us > IDLE_MAX_US) {
			progress_clear(&replay->progress);
			ctl_say(replay->ctl, "nothing came of %s for %d s before its end", replay->source->elems[0].topic,
				(int)(IDLE_MAX_US / US_PER_S));
			return -ERR_KAFKA;
		}
		progress_show(&replay->progress, reading->done, reading->total, "results read");
	}
	progress_clear(&replay->progress);
	replay->progress = (struct progress){0};
	if (reading->n_bad)
		ctl_say(replay->ctl, "%lld records of %s are no results and were passed over", (long long)reading->n_bad,
			replay->source->elems[0].topic);
	return ctl_stopped() ? -ERR_CANCELLED : 0;
}

static void stop(struct reading *reading)
{
	const rd_kafka_topic_partition_list_t *source = reading->replay->source;

	/* One that was never started says so, and that is all. */
	for (int i = 0; i < source->cnt; i++)
		if (reading->position[i] >= 0 && source->elems[i].offset > reading->from[i])
			rd_kafka_consume_stop(reading->topic, source->elems[i].partition);
	rd_kafka_queue_destroy(reading->queue);
	rd_kafka_topic_destroy(reading->topic);
	free(reading->from);
	free(reading->position);
}

static bool has_ends(const rd_kafka_topic_partition_list_t *source)
{
	for (int i = 0; i < source->cnt; i++)
		if (source->elems[i].offset >= 0)
			return true;
	return false;
}

int only_read(struct replay *replay)
{
	struct only *only = &replay->only;
	int n = replay->source->cnt;

	only->ranges = replay->ranges;
	only->n_ranges = replay->n_ranges;
	if (!only->outcomes)
		return 0;
	if (!has_ends(replay->source)) {
		ctl_say(replay->ctl, "the plan of replay %s has no ends of %s: which results.topic was it made with?", replay->id,
			replay->ctl->settings->results_topic);
		return -ERR_INVALID;
	}
	only->bits = xcalloc(only->n_ranges + 1, sizeof(only->bits[0]));
	for (size_t i = 0; i < only->n_ranges; i++) {
		size_t n_words = (size_t)(only->ranges[i].stop - only->ranges[i].start) / 64 + 1;

		only->bits[i].has_wanted = xcalloc(n_words, sizeof(uint64_t));
		only->bits[i].has_success = xcalloc(n_words, sizeof(uint64_t));
	}
	struct reading reading = {.replay = replay,
				  .topic = rd_kafka_topic_new(client_handle(replay->client), replay->source->elems[0].topic, NULL),
				  .queue = rd_kafka_queue_new(client_handle(replay->client)),
				  .from = xcalloc((size_t)n + 1, sizeof(int64_t)),
				  .position = xcalloc((size_t)n + 1, sizeof(int64_t))};
	for (int i = 0; i < n; i++)
		reading.position[i] = -1;
	int err = start(&reading);
	if (!err)
		err = read_all(&reading);
	stop(&reading);
	return err;
}

/* --- what the pipeline asks --- */

static bool is_host_wanted(const struct only *only, const struct url *url)
{
	for (size_t i = 0; url->host && i < only->hosts.n; i++)
		if (glob_match(only->hosts.v[i], url->host) || glob_match(only->hosts.v[i], url->key))
			return true;
	return !only->hosts.n;
}

static bool is_outcome_wanted(const struct only *only, const struct record *rec)
{
	const struct kafka_range *range;

	if (!only->outcomes)
		return true;
	range = range_of(only, rec->topic, rec->partition, rec->offset);
	if (!range)
		return false;
	const struct only_bits *bits = &only->bits[range - only->ranges];
	size_t place = (size_t)(rec->offset - range->start);
	bool has_wanted = bits->has_wanted[place / 64] >> (place % 64) & 1;
	bool has_success = bits->has_success[place / 64] >> (place % 64) & 1;

	return has_wanted && (!has_success || only->outcomes & SUCCESSES);
}

bool only_wants(void *ctx, const struct task *task)
{
	const struct only *only = ctx;

	return is_outcome_wanted(only, &task->rec) && is_host_wanted(only, &task->url);
}
