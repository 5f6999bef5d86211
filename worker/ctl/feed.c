/* gatherctl feed - periodic sources: a job for each round of each source, and what comes of them.
 *
 * Happy path: the sources are read -> a broker answers, the topics are there -> the results topic is read back for validators -> this feed
 * is the owner -> each round goes out when it is due -> its result gives the next one's validators and the report.
 * Failure modes: somebody else is the owner -> stand by; a round cannot go out, or the one before is not over -> missed, counted by cause,
 * never two at a time; no broker later on -> rounds are missed until it is back; SIGHUP with a wrong file -> said, all as before; Ctrl-C ->
 * what was sent is waited for, the group is left. */
#include "clock.h"
#include "err.h"
#include "feed.h"
#include "gatherd/v1/result.pb-c.h"

#include <unistd.h>

#define WAIT_MAX_MS 100
#define LOOK_BACK_MAX_MS 3600000
#define LOOK_BACK_MIN_MS 60000
#define READ_BACK_MAX_US (15 * US_PER_S)
#define STOPPED_FLUSH_US (5 * US_PER_S)
#define SAY_EVERY_US (10 * US_PER_S)
#define PATIENCE_SLACK_MS 5000

static const struct ctl_option feed_options[] = {
    {"every", 'e', CTL_DURATION, offsetof(struct feed_args, every_ms), "DUR", "period of each source that names none", 0, 0, 0},
    {"report", 'r', CTL_FLAG, offsetof(struct feed_args, report), NULL,
     "show each source: live on a terminal, else a table each --interval", 0, 0, 0},
    {"json", 0, CTL_FLAG, offsetof(struct feed_args, json), NULL, "report, and print the counts, as lines of JSON", 0, 0, 0},
    {"interval", 0, CTL_DURATION, offsetof(struct feed_args, interval_ms), "DUR",
     "between two reports (default 1s on a terminal, 10s else)", 0, 0, 0},
    {"timeout", 0, CTL_DURATION, offsetof(struct feed_args, timeout_ms), "DUR",
     "end after this time; exit 1 when a round was missed", 0, 0, 0},
    {"name", 'n', CTL_TEXT, offsetof(struct feed_args, name), "NAME",
     "of this feed: one owner at a time for each name (default feed)", 0, 0, 0},
    {"topic", 't', CTL_TEXT, offsetof(struct feed_args, topic), "TOPIC", "default: jobs.topic of the settings (jobs)", 0, 0, 0},
    {"results", 0, CTL_TEXT, offsetof(struct feed_args, results), "TOPIC", "default: results.topic of the settings (results)",
     0, 0, 0},
    {"look-back", 0, CTL_DURATION, offsetof(struct feed_args, look_back_ms), "DUR",
     "read results back at the start (default twice the longest period, 1h at most)", 0, 0, 0},
    {NULL, 0, CTL_FLAG, 0, NULL, NULL, 0, 0, 0},
};

struct feed {
	struct ctl *ctl;
	const struct feed_args *args;
	const char *path, *topic_name, *results_name;
	struct source *sources;
	struct schedule sched;
	struct client *producer;
	rd_kafka_topic_t *topic;
	struct feed_reader *reader;
	struct feed_owner *owner;
	struct feed_report *report;
	struct feed_totals totals;
	bool has_run; /* has been the owner */
	int64_t owner_since_ms;
	int64_t start_us, look_us; /* look_us: when to look for news to say */
	int64_t missed_said, foreign_said, unsent_said, unsent;
	char unsent_reason[256];
};

/* What a delivery report has to know; the source may be gone by then. */
struct sent {
	int64_t round_ms;
	char id[];
};

static void say(struct feed *feed, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Before there is a report, and with it. */
static void say_text(void *ctx, char *text)
{
	struct feed *feed = ctx;

	feed_report_say(feed->report, feed->ctl, text);
}

static void say(struct feed *feed, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	char *text = xvasprintf(fmt, ap);
	va_end(ap);
	say_text(feed, text);
}

static struct source *find(struct feed *feed, const char *id)
{
	struct source *source;

	HASH_FIND_STR(feed->sources, id, source);
	return source;
}

/* --- a round goes out --- */

static void on_delivered(void *ctx, const rd_kafka_message_t *msg)
{
	struct feed *feed = ctx;
	struct sent *sent = msg->_private;
	struct source *source = find(feed, sent->id);

	if (msg->err) {
		feed->unsent++;
		snprintf(feed->unsent_reason, sizeof(feed->unsent_reason), "%s", rd_kafka_err2str(msg->err));
	}
	if (source && msg->err)
		schedule_unsent(&source->slot, sent->round_ms);
	else if (source)
		schedule_acknowledged(&source->slot, sent->round_ms);
	free(sent);
}

static void send_round(struct feed *feed, struct source *source)
{
	size_t len = strlen(source->id) + 1;
	struct sent *sent = xmalloc(sizeof(*sent) + len);
	char *job = source_job(source, source->slot.round_ms, feed_owner_name(feed->owner));

	sent->round_ms = source->slot.round_ms;
	memcpy(sent->id, source->id, len);
	if (rd_kafka_produce(feed->topic, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, job, strlen(job), source->key,
			     source->key ? strlen(source->key) : 0, sent)) {
		feed->unsent++;
		snprintf(feed->unsent_reason, sizeof(feed->unsent_reason), "%s", rd_kafka_err2str(rd_kafka_last_error()));
		schedule_unsent(&source->slot, source->slot.round_ms);
		free(sent);
	}
	free(job);
}

static void send_due(struct feed *feed)
{
	struct schedule_slot *slot;

	while ((slot = schedule_take(&feed->sched, clock_epoch_ms())))
		send_round(feed, CONTAINER_OF(slot, struct source, slot));
}

/* --- a result --- */

static const char *attr_of(const Gatherd__V1__FetchResult *res, const char *key)
{
	for (size_t i = 0; i < res->n_attrs; i++)
		if (strcmp(res->attrs[i]->key, key) == 0)
			return res->attrs[i]->value;
	return "";
}

static void keep_text(char **field, const ProtobufCBinaryData *bytes)
{
	free(*field);
	*field = bytes->len && !memchr(bytes->data, '\0', bytes->len) ? xstrndup((const char *)bytes->data, bytes->len) : NULL;
}

/* RFC 9110 8.8, 15.4.5: a 304 may bring newer validators of the same body; what failed says nothing about it. */
static void keep_validators(struct source *source, const Gatherd__V1__FetchResult *res)
{
	bool is_ok = res->outcome == GATHERD__V1__OUTCOME__OUTCOME_OK;

	if (strcmp(res->url, source->url) != 0 || (!is_ok && res->outcome != GATHERD__V1__OUTCOME__OUTCOME_NOT_MODIFIED))
		return;
	if (is_ok || res->etag.len)
		keep_text(&source->etag, &res->etag);
	if (is_ok || res->last_modified.len)
		keep_text(&source->last_modified, &res->last_modified);
	if (!is_ok)
		return;
	source->has_digest =
	    res->digest.len == FEED_DIGEST_BYTES && res->truncated <= GATHERD__V1__TRUNCATED__TRUNCATED_NONE;
	if (source->has_digest)
		memcpy(source->digest, res->digest.data, FEED_DIGEST_BYTES);
}

static void on_result(void *ctx, const Gatherd__V1__FetchResult *res, int64_t at_ms, bool is_past)
{
	struct feed *feed = ctx;
	struct source *source = find(feed, attr_of(res, "feed.source"));

	if (!source || !res->due_at_ms)
		return;
	/* A retried job's results may come again, and older ones behind newer ones of another partition. */
	if (res->due_at_ms >= source->done_ms) {
		source->done_ms = res->due_at_ms;
		source->newest_ms = at_ms;
		source->outcome = (int)res->outcome;
		source->status = res->status;
		keep_validators(source, res);
	}
	if (is_past)
		return;
	source->results++;
	ages_add(&source->ages, at_ms - res->due_at_ms);
	schedule_ended(&source->slot, res->due_at_ms, res->outcome == GATHERD__V1__OUTCOME__OUTCOME_EXPIRED);
	if (feed->totals.is_owner && feed->owner && res->due_at_ms > feed->owner_since_ms &&
	    strcmp(attr_of(res, "feed.owner"), feed_owner_name(feed->owner)) != 0)
		feed->totals.foreign++;
}

/* --- owner or not --- */

static int64_t patience_of(const struct feed *feed, const struct source *source)
{
	/* A worker that comes too late for the round answers all the same (EXPIRED); after that nothing is to be hoped for. */
	return source->period_ms + feed->ctl->settings->job_deadline + PATIENCE_SLACK_MS;
}

static void add_to_schedule(struct feed *feed, struct source *source)
{
	schedule_add(&feed->sched, &source->slot, source->id, source->period_ms, patience_of(feed, source), source->done_ms,
		     clock_epoch_ms());
}

/* Rounds that somebody else has done meanwhile are not missed; those that nobody did are this feed's to do, or to count. */
static void take_over(struct feed *feed)
{
	for (struct source *source = feed->sources; source; source = source->hh.next)
		if (!source->slot.timer.place || source->done_ms >= source->slot.due_ms)
			add_to_schedule(feed, source);
	feed->owner_since_ms = clock_epoch_ms();
	if (feed->totals.is_standby)
		say(feed, "this feed is the owner now");
	feed->has_run = true;
	feed->totals.is_standby = false;
}

static void ask_owner(struct feed *feed)
{
	/* Validators first: else each source is fetched whole once more. */
	bool is_ready = feed_reader_is_current(feed->reader) || clock_now_us() - feed->start_us > READ_BACK_MAX_US;
	bool is_owner = feed_owner_ask(feed->owner) && is_ready;
	char *other = is_owner ? NULL : feed_owner_other(feed->owner);

	if (other) {
		say(feed, "%s feeds these sources already: standing by (--name NAME for a feed of its own)", other);
		feed->totals.is_standby = true;
		free(other);
	}
	if (is_owner && !feed->totals.is_owner)
		take_over(feed);
	feed->totals.is_owner = is_owner;
}

/* --- reload --- */

/* Takes from `fresh` what the file says of the source; what is known of it stays. */
static void adopt(struct feed *feed, struct source *source, struct source *fresh, bool *ret_changed)
{
	char *id = source->id, *url = source->url, *key = source->key;
	json_t *job = source->job;
	bool is_moved = strcmp(url, fresh->url) != 0, is_retimed = source->period_ms != fresh->period_ms;

	*ret_changed = is_moved || is_retimed || source->is_conditional != fresh->is_conditional || !json_equal(job, fresh->job);
	source->url = fresh->url;
	source->key = fresh->key;
	source->job = fresh->job;
	source->period_ms = fresh->period_ms;
	source->is_conditional = fresh->is_conditional;
	source->is_listed = true;
	source->line = fresh->line;
	if (is_moved) {
		keep_text(&source->etag, &(ProtobufCBinaryData){0});
		keep_text(&source->last_modified, &(ProtobufCBinaryData){0});
		source->has_digest = false;
	}
	if (is_retimed && source->slot.timer.place)
		add_to_schedule(feed, source);
	fresh->url = url;
	fresh->key = key;
	fresh->job = job;
	source->id = id;
	source_free(fresh);
}

static int drop_unlisted(struct feed *feed)
{
	struct source *source, *next;
	int n = 0;

	HASH_ITER(hh, feed->sources, source, next)
	{
		if (source->is_listed)
			continue;
		schedule_remove(&feed->sched, &source->slot);
		HASH_DEL(feed->sources, source);
		source_free(source);
		n++;
	}
	return n;
}

static void reload(struct feed *feed)
{
	struct source *fresh, *source, *next;
	int added = 0, changed = 0;
	bool is_changed;

	if (strcmp(feed->path, "-") == 0) {
		say(feed, "SIGHUP: stdin cannot be read again");
		return;
	}
	if (sources_read(feed->path, feed->args, feed->ctl->settings, say_text, feed, &fresh)) {
		say(feed, "SIGHUP: %s is wrong: all stays as it was", feed->path);
		return;
	}
	for (source = feed->sources; source; source = source->hh.next)
		source->is_listed = false;
	HASH_ITER(hh, fresh, source, next)
	{
		struct source *known = find(feed, source->id);

		HASH_DEL(fresh, source);
		if (known) {
			adopt(feed, known, source, &is_changed);
			changed += is_changed;
			continue;
		}
		HASH_ADD_KEYPTR(hh, feed->sources, source->id, strlen(source->id), source);
		if (feed->has_run)
			add_to_schedule(feed, source);
		added++;
	}
	int dropped = drop_unlisted(feed);
	say(feed, "SIGHUP: %u sources: %d new, %d changed, %d gone", HASH_COUNT(feed->sources), added, changed, dropped);
}

/* --- the whole --- */

static void say_missed(struct feed *feed)
{
	const struct source *last = NULL;
	int64_t missed = 0;

	for (const struct source *source = feed->sources; source; source = source->hh.next) {
		int64_t own = schedule_missed(&source->slot);

		missed += own;
		last = own && (!last || own >= schedule_missed(&last->slot)) ? source : last;
	}
	if (missed > feed->missed_said)
		say(feed, "%lld round%s missed, %lld of them by %s (%s)", (long long)missed, missed == 1 ? "" : "s",
		    (long long)schedule_missed(&last->slot), last->id, schedule_cause(last->slot.last_cause));
	feed->missed_said = missed;
}

/* What went wrong, in one go now and then, not a line for each round. */
static void say_news(struct feed *feed)
{
	char reason[256];

	feed->look_us = clock_now_us() + SAY_EVERY_US;
	if (feed->unsent > feed->unsent_said)
		say(feed, "%lld round%s could not be sent: %s; %s", (long long)feed->unsent, feed->unsent == 1 ? "" : "s",
		    feed->unsent_reason, client_reason(feed->producer, reason, sizeof(reason)));
	feed->unsent_said = feed->unsent;
	if (feed->totals.foreign > feed->foreign_said)
		say(feed, "%lld result%s of these sources asked for by another feed: is there one with another --name?",
		    (long long)feed->totals.foreign, feed->totals.foreign == 1 ? " was" : "s were");
	feed->foreign_said = feed->totals.foreign;
	say_missed(feed);
}

static int wait_ms(const struct feed *feed)
{
	int64_t left_ms = feed->totals.is_owner ? schedule_next_ms(&feed->sched) - clock_epoch_ms() : WAIT_MAX_MS;

	return (int)MAX(MIN(left_ms, WAIT_MAX_MS), 0);
}

static void run(struct feed *feed)
{
	int64_t end_us = feed->args->timeout_ms ? feed->start_us + feed->args->timeout_ms * US_PER_MS : INT64_MAX;

	while (!ctl_stopped() && clock_now_us() < end_us) {
		if (ctl_take_hangup())
			reload(feed);
		ask_owner(feed);
		if (feed->totals.is_owner)
			send_due(feed);
		rd_kafka_poll(client_handle(feed->producer), 0);
		feed_reader_poll(feed->reader, wait_ms(feed));
		if (clock_now_us() >= feed->look_us)
			say_news(feed);
		if (clock_now_us() < feed_report_next_us(feed->report))
			continue;
		feed_report_show(feed->report, &feed->sources, &feed->totals);
		if (ctl_reader_gone())
			return;
	}
}

/* 0, or how many rounds nobody knows of. */
static int wait_delivered(struct feed *feed)
{
	rd_kafka_t *rk = client_handle(feed->producer);

	for (int64_t cut_us = clock_now_us() + STOPPED_FLUSH_US; rd_kafka_outq_len(rk) && clock_now_us() < cut_us;)
		rd_kafka_poll(rk, 50);
	return rd_kafka_outq_len(rk);
}

static int conclude(struct feed *feed)
{
	int open = wait_delivered(feed);
	int64_t missed = 0;

	say_news(feed);
	feed_report_end(feed->report, &feed->sources, &feed->totals);
	for (const struct source *source = feed->sources; source; source = source->hh.next)
		missed += schedule_missed(&source->slot);
	int code = ctl_close_stdout(feed->ctl);
	if (open)
		ctl_say(feed->ctl, "%d round%s not acknowledged: nobody knows whether the broker has %s", open,
			open == 1 ? " was" : "s were", open == 1 ? "it" : "them");
	if (!feed->has_run && !feed->totals.is_standby && !ctl_stopped())
		ctl_say(feed->ctl, "the group was not joined in that time: nothing was sent");
	if (open || (feed->args->timeout_ms && (missed || !feed->has_run)))
		return CTL_FAILED;
	return code;
}

static int open_topic(struct feed *feed)
{
	static const struct client_setting extra[] = {
	    {"message.timeout.ms", "30000", false},
	    {"queue.buffering.max.messages", "1000000", true},
	    {NULL, NULL, false},
	};

	feed->producer = client_new(feed->ctl, KAFKA_PRODUCER, extra, on_delivered, feed);
	if (!feed->producer)
		return CTL_USAGE;
	feed->topic = client_open_topic(feed->producer, feed->topic_name);
	return feed->topic ? CTL_OK : CTL_FAILED;
}

static int64_t look_back_ms(const struct feed *feed)
{
	int64_t longest_ms = 0;

	for (const struct source *source = feed->sources; source; source = source->hh.next)
		longest_ms = MAX(longest_ms, source->period_ms);
	return feed->args->look_back_ms ? feed->args->look_back_ms
					: MAX(MIN(2 * longest_ms, LOOK_BACK_MAX_MS), LOOK_BACK_MIN_MS);
}

static int open_all(struct feed *feed)
{
	int code = open_topic(feed);

	if (code)
		return code;
	if (feed_reader_new(feed->ctl, feed->results_name, clock_epoch_ms() - look_back_ms(feed), on_result, feed, &feed->reader))
		return CTL_FAILED;
	feed->owner = feed_owner_new(feed->ctl, feed->args->name ? feed->args->name : "feed", feed->topic_name);
	return feed->owner ? CTL_OK : CTL_FAILED;
}

static void close_all(struct feed *feed)
{
	feed_owner_free(feed->owner);
	feed_reader_free(feed->reader);
	if (feed->topic)
		rd_kafka_topic_destroy(feed->topic);
	if (feed->producer) {
		/* Given up on: their reports come now, so that nothing is left. */
		rd_kafka_purge(client_handle(feed->producer), RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
		while (rd_kafka_poll(client_handle(feed->producer), 0) > 0)
			;
	}
	client_free(feed->producer);
	schedule_done(&feed->sched);
	sources_free(&feed->sources);
}

static int feed_run(struct ctl *ctl, const void *raw, int argc, char **argv)
{
	const struct feed_args *args = raw;
	struct feed feed = {.ctl = ctl, .args = args};

	if (argc != 1) {
		ctl_say(ctl, "takes one file of sources (- = stdin), not %d; see gatherctl feed --help", argc);
		return CTL_USAGE;
	}
	feed.path = argv[0];
	ctl_stop_reads(true);
	int code = sources_read(feed.path, args, ctl->settings, say_text, &feed, &feed.sources);
	if (code)
		return code == -ERR_CANCELLED ? CTL_FAILED : CTL_USAGE;
	ctl_stop_reads(false);
	ctl_catch_hangup();
	schedule_init(&feed.sched);
	feed.topic_name = args->topic		      ? args->topic
			  : ctl->settings->jobs_topic.n ? ctl->settings->jobs_topic.v[0]
							: "jobs";
	feed.results_name = args->results ? args->results : ctl->settings->results_topic;
	feed.start_us = clock_now_us();
	feed.look_us = feed.start_us + SAY_EVERY_US;
	code = open_all(&feed);
	if (!code) {
		feed.report = feed_report_new(args);
		run(&feed);
		code = conclude(&feed);
		feed_report_free(feed.report);
	}
	close_all(&feed);
	return code;
}

const struct ctl_command feed_command = {
    .name = "feed",
    .summary = "periodic sources: a job for each round of each",
    .synopsis = "[OPTION]... FILE",
    .options = feed_options,
    .args_size = sizeof(struct feed_args),
    .has_settings = true,
    .details =
	"FILE (- = stdin) has a source per line: a URL, or a FetchJob as JSON; or sections:\n"
	"  every = 10s                      # for all that follow; timeout, attempts and conditional likewise\n"
	"  https://example.com/prices\n"
	"  [ecb]                            # its name\n"
	"  url = https://example.com/ecb\n"
	"  every = 1h\n"
	"  timeout = 5s                     # of one attempt; periods under job.deadline: 80 % of the period\n"
	"  attempts = 2                     # periods under job.deadline: 1\n"
	"  conditional = no                 # never If-None-Match, If-Modified-Since, prev_digest\n"
	"  job = {\"headers\": [..]}          # more of the FetchJob\n"
	"SIGHUP reads FILE again. A round is missed, never made up for: running = the one before is not over; late = this feed\n"
	"was; unsent = no broker took it; expired = no worker took it in time; lost = no result came.\n",
    .examples = "  gatherctl feed -b localhost:9092 --every 10s sources.txt\n"
		"  gatherctl feed -b localhost:9092 --every 10s --report sources.txt\n"
		"  gatherctl feed -b localhost:9092 --report --json sources.ini | jq -c 'select(.missed > 0)'\n"
		"  echo https://example.com/ | gatherctl feed -b localhost:9092 --every 1m --timeout 1h -\n",
    .run = feed_run,
};
