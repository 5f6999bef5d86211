/* gatherctl tail - see results as they come, or all that there are.
 *
 * Happy path: a broker answers -> the end of each partition is asked for -> each partition is read from there, from a
 * time, or from the beginning, without a group -> decoded -> filtered -> printed, until the count is reached or every partition's
 * end. Failure modes: no broker, no topic -> one sentence; what is no FetchResult is said and counted, and the exit
 * code is 1. */
#include "clock.h"
#include "admin.h"
#include "ctl.h"
#include "err.h"
#include "gatherd/v1/result.pb-c.h"
#include "tail.h"
#include "url.h"

#include <unistd.h>

#define IDLE_MAX_MS 20000 /* without --follow: no record and no end for so long = the broker is gone */
#define UNDECODABLE_SAID_MAX 10
#define QUERY_MAX_MS 5000

struct tail_args {
	const char *topic, *outcomes, *host, *status, *bodies;
	struct strlist headers;
	bool from_beginning, follow;
	int64_t count, timeout_ms, since_ms;
	int body, format;
};

static const struct ctl_option tail_options[] = {
    {"topic", 't', CTL_TEXT, offsetof(struct tail_args, topic), "TOPIC",
     "default: results.topic of the settings (results)", 0, 0, 0},
    {"from-beginning", 'B', CTL_FLAG, offsetof(struct tail_args, from_beginning), NULL,
     "start at the oldest result, and end at the topic's end unless --follow", 0, 0, 0},
    {"since", 's', CTL_WHEN, offsetof(struct tail_args, since_ms), "TIME",
     "start at the first result since then, and end as --from-beginning does", 0, 0, 0},
    {"follow", 'f', CTL_FLAG, offsetof(struct tail_args, follow), NULL,
     "go on at the end (default without --from-beginning and --since)", 0, 0, 0},
    {"count", 'n', CTL_INT, offsetof(struct tail_args, count), "N", "end after so many results", 1, INT64_MAX, 0},
    {"outcome", 0, CTL_TEXT, offsetof(struct tail_args, outcomes), "OK,..", "only these outcomes", 0, 0, 0},
    {"host", 0, CTL_TEXT, offsetof(struct tail_args, host), "GLOB",
     "only URLs of these hosts: *.example.com, 127.0.0.1:8080", 0, 0, 0},
    {"status", 0, CTL_TEXT, offsetof(struct tail_args, status), "404,5xx,..", "only these statuses", 0, 0, 0},
    {"header", 0, CTL_LIST, offsetof(struct tail_args, headers), "NAME[:GLOB]",
     "only answers with this header, and this value; again as needed: all must fit", 0, 0, 0},
    {"bodies", 0, CTL_TEXT, offsetof(struct tail_args, bodies), "DIR",
     "write each body to a file there, named by its job_id, instead of printing it", 0, 0, 0},
    {"body", 0, CTL_CHOICE, offsetof(struct tail_args, body), "text|base64|none",
     "how bodies are printed (default text)", 0, 0, 0},
    {"format", 0, CTL_CHOICE, offsetof(struct tail_args, format), "json|table",
     "default: table on a terminal, else json", 0, 0, 0},
    {"timeout", 0, CTL_DURATION, offsetof(struct tail_args, timeout_ms), "DUR",
     "end after this time; exit 1 when --count was not reached", 0, 0, 0},
    {NULL, 0, CTL_FLAG, 0, NULL, NULL, 0, 0, 0},
};

struct partition {
	int64_t end; /* first offset behind what is there now */
	bool is_started, is_done;
};

struct tail {
	struct ctl *ctl;
	const struct tail_args *args;
	const char *topic_name;
	struct client *client;
	rd_kafka_topic_t *topic;
	rd_kafka_queue_t *queue;
	struct partition *partitions;
	int n_partitions, n_done;
	struct printer printer;
	uint32_t outcomes; /* bit per outcome; 0 = all */
	struct statuses statuses;
	int64_t printed, passed, undecodable;
	int64_t start_us;
	bool is_following, has_failed;
};

static int parse_outcomes(struct tail *tail)
{
	char *list = xstrdup(tail->args->outcomes ? tail->args->outcomes : ""), *at = list, *word;
	int err = 0;

	static_assert(OUTCOME_COUNT <= 32, "one bit each");
	while (!err && (word = strsep(&at, ", ")) != NULL) {
		if (!*word)
			continue;
		enum outcome outcome = outcome_parse(word);
		if (outcome) {
			tail->outcomes |= UINT32_C(1) << outcome;
			continue;
		}
		ctl_say(tail->ctl, "--outcome %s: there is no such outcome; gatherctl tail --help names them", word);
		err = -ERR_INVALID;
	}
	free(list);
	return err;
}

/* --- one record --- */

static bool host_matches(const char *glob, const char *text)
{
	struct arena arena;
	struct url url;

	arena_init(&arena, 4096);
	bool is_match =
	    !url_parse(&arena, span_str(text), &url) && (glob_match(glob, url.host) || glob_match(glob, url.key));
	arena_done(&arena);
	return is_match;
}

static bool wanted(const struct tail *tail, const Gatherd__V1__FetchResult *res)
{
	unsigned outcome = (unsigned)res->outcome;

	if (tail->outcomes && (outcome >= OUTCOME_COUNT || !(tail->outcomes >> outcome & 1)))
		return false;
	if (!statuses_has(&tail->statuses, res->status))
		return false;
	for (size_t i = 0; i < tail->args->headers.n; i++)
		if (!result_has_header(res, tail->args->headers.v[i]))
			return false;
	return !tail->args->host || host_matches(tail->args->host, res->url);
}

static void on_undecodable(struct tail *tail, const rd_kafka_message_t *msg)
{
	if (++tail->undecodable <= UNDECODABLE_SAID_MAX)
		ctl_say(tail->ctl, "%s/%d/%lld: not a FetchResult (%zu bytes)", tail->topic_name, msg->partition,
			(long long)msg->offset, msg->payload ? msg->len : 0);
}

static void on_record(struct tail *tail, const rd_kafka_message_t *msg)
{
	/* An empty value would decode, as a result with nothing in it. */
	Gatherd__V1__FetchResult *res =
	    msg->payload && msg->len ? gatherd__v1__fetch_result__unpack(NULL, msg->len, msg->payload) : NULL;

	if (!res) {
		on_undecodable(tail, msg);
		return;
	}
	if (wanted(tail, res)) {
		tail->has_failed |= tail->args->bodies && res->body.len && result_save_body(tail->ctl, tail->args->bodies, res);
		printer_result(&tail->printer, res);
		tail->printed++;
	} else {
		tail->passed++;
	}
	gatherd__v1__fetch_result__free_unpacked(res, NULL);
}

static void on_partition_done(struct tail *tail, int32_t partition)
{
	if (tail->is_following || tail->partitions[partition].is_done)
		return;
	tail->partitions[partition].is_done = true;
	tail->n_done++;
}

static void on_message(struct tail *tail, const rd_kafka_message_t *msg)
{
	switch (msg->err) {
	case RD_KAFKA_RESP_ERR_NO_ERROR:
		/* Records that came after the start are left to the next call: the end would never be reached on a busy
		 * topic. */
		if (tail->is_following || msg->offset < tail->partitions[msg->partition].end)
			on_record(tail, msg);
		if (msg->offset + 1 >= tail->partitions[msg->partition].end)
			on_partition_done(tail, msg->partition);
		break;
	case RD_KAFKA_RESP_ERR__PARTITION_EOF:
		/* Transaction markers at the end are never delivered, so the last offset alone would not do. */
		on_partition_done(tail, msg->partition);
		break;
	case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
	case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
	case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
	case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
		client_say_error(tail->client, msg->err, tail->topic_name, "Read", tail->topic_name);
		tail->has_failed = true;
		break;
	default:
		/* The library goes on by itself; a broker that stays away is found by its silence. */
		break;
	}
}

/* --- the whole --- */

static bool is_complete(const struct tail *tail)
{
	if (tail->args->count && tail->printed >= tail->args->count)
		return true;
	return !tail->is_following && tail->n_done == tail->n_partitions;
}

static void say_idle(struct tail *tail)
{
	char reason[256];

	client_reason(tail->client, reason, sizeof(reason));
	ctl_say(tail->ctl, "nothing came for %d s before the topic's end%s%s", IDLE_MAX_MS / 1000, *reason ? ": " : "",
		reason);
	tail->has_failed = true;
}

static void read_all(struct tail *tail)
{
	int64_t last_us = clock_now_us();

	while (!is_complete(tail) && !tail->has_failed && !ctl_stopped()) {
		/* What is there is printed in one go; only before a wait is it pushed out. */
		rd_kafka_message_t *msg = rd_kafka_consume_queue(tail->queue, 0);
		if (!msg) {
			if (fflush(tail->printer.out) || ferror(tail->printer.out))
				return;
			rd_kafka_poll(client_handle(tail->client), 0);
			msg = rd_kafka_consume_queue(tail->queue, 100);
		}
		int64_t now_us = clock_now_us();
		if (msg) {
			on_message(tail, msg);
			rd_kafka_message_destroy(msg);
			last_us = now_us;
		} else if (!tail->is_following && now_us - last_us > IDLE_MAX_MS * US_PER_MS) {
			say_idle(tail);
		}
		if (tail->args->timeout_ms && now_us - tail->start_us >= tail->args->timeout_ms * US_PER_MS)
			return;
	}
}

/* Reads each partition from the beginning or from its end as it is now: asked for before anything is read, so that what
 * is submitted once this has said that it waits is seen. read_committed: an open transaction's records are still to
 * come. */
static int start(struct tail *tail, const rd_kafka_topic_partition_list_t *from)
{
	rd_kafka_t *rk = client_handle(tail->client);

	tail->topic = rd_kafka_topic_new(rk, tail->topic_name, NULL);
	tail->queue = rd_kafka_queue_new(rk);
	for (int i = 0; i < tail->n_partitions; i++) {
		int64_t low, high;
		rd_kafka_resp_err_t err =
		    rd_kafka_query_watermark_offsets(rk, tail->topic_name, i, &low, &high, QUERY_MAX_MS);

		if (ctl_stopped())
			return -ERR_CANCELLED;
		if (err) {
			ctl_say(tail->ctl, "%s/%d cannot be read: %s", tail->topic_name, i, rd_kafka_err2str(err));
			return -ERR_KAFKA;
		}
		tail->partitions[i].end = high;
		if (low >= high || (from && from->elems[i].offset >= high))
			on_partition_done(tail, i);
		if (tail->partitions[i].is_done)
			continue;
		if (rd_kafka_consume_start_queue(tail->topic, i, tail->args->from_beginning ? low : from ? from->elems[i].offset : high,
						 tail->queue)) {
			ctl_say(tail->ctl, "%s/%d cannot be read: %s", tail->topic_name, i,
				rd_kafka_err2str(rd_kafka_last_error()));
			return -ERR_KAFKA;
		}
		tail->partitions[i].is_started = true;
	}
	return 0;
}

static int open_topic(struct tail *tail)
{
	const struct rd_kafka_metadata *md;

	tail->client = client_new_reader(tail->ctl, false);
	if (!tail->client)
		return -ERR_INVALID;
	int err = client_metadata(tail->client, &md);
	if (err)
		return err;
	const struct rd_kafka_metadata_topic *topic = client_need_topic(tail->client, md, tail->topic_name);
	if (topic) {
		tail->n_partitions = topic->partition_cnt;
		tail->partitions = xcalloc((size_t)topic->partition_cnt, sizeof(tail->partitions[0]));
	}
	rd_kafka_metadata_destroy(md);
	if (!topic)
		return -ERR_NOT_FOUND;
	if (!tail->args->since_ms)
		return start(tail, NULL);
	rd_kafka_topic_partition_list_t *from = rd_kafka_topic_partition_list_new(tail->n_partitions);
	for (int i = 0; i < tail->n_partitions; i++)
		rd_kafka_topic_partition_list_add(from, tail->topic_name, i);
	err = admin_offsets_at(tail->client, from, tail->args->since_ms);
	if (!err)
		err = start(tail, from);
	rd_kafka_topic_partition_list_destroy(from);
	return err;
}

static void close_topic(struct tail *tail)
{
	for (int i = 0; i < tail->n_partitions; i++)
		if (tail->partitions[i].is_started)
			rd_kafka_consume_stop(tail->topic, i);
	if (tail->queue)
		rd_kafka_queue_destroy(tail->queue);
	if (tail->topic)
		rd_kafka_topic_destroy(tail->topic);
	client_free(tail->client);
	free(tail->partitions);
}

static int conclude(struct tail *tail)
{
	const struct tail_args *args = tail->args;
	int code = ctl_close_stdout(tail->ctl);

	if (ctl_reader_gone())
		return code;
	if (tail->undecodable)
		ctl_say(tail->ctl, "%lld record%s could not be decoded", (long long)tail->undecodable,
			tail->undecodable == 1 ? "" : "s");
	if (args->count && tail->printed < args->count) {
		ctl_say(tail->ctl, "%lld of %lld results came", (long long)tail->printed, (long long)args->count);
		code = CTL_FAILED;
	} else if (isatty(STDERR_FILENO)) {
		fprintf(stderr, "%lld result%s", (long long)tail->printed, tail->printed == 1 ? "" : "s");
		if (tail->passed)
			fprintf(stderr, ", %lld not shown", (long long)tail->passed);
		fputc('\n', stderr);
	}
	return tail->undecodable || tail->has_failed ? CTL_FAILED : code;
}

static int tail_run(struct ctl *ctl, const void *raw, int argc, char **argv)
{
	const struct tail_args *args = raw;
	struct tail tail = {.ctl = ctl, .args = args, .start_us = clock_now_us()};

	if (argc) {
		ctl_say(ctl, "takes no arguments: %s", argv[0]);
		return CTL_USAGE;
	}
	if (args->from_beginning && args->since_ms) {
		ctl_say(ctl, "--from-beginning and --since are two places to start");
		return CTL_USAGE;
	}
	if (parse_outcomes(&tail) || statuses_parse(ctl, args->status, &tail.statuses) || (args->bodies && result_open_bodies(ctl, args->bodies)))
		return CTL_USAGE;
	tail.topic_name = args->topic ? args->topic : ctl->settings->results_topic;
	tail.is_following = args->follow || (!args->from_beginning && !args->since_ms);
	printer_init(&tail.printer, stdout, (enum print_format)args->format,
		     args->bodies && !args->body ? PRINT_NONE : (enum print_body)args->body);

	int code = CTL_FAILED, err = open_topic(&tail);
	if (err == -ERR_INVALID)
		code = CTL_USAGE;
	if (!err) {
		if (tail.is_following && isatty(STDERR_FILENO))
			fprintf(stderr, "waiting for results on %s (%d partitions), Ctrl-C ends\n", tail.topic_name,
				tail.n_partitions);
		read_all(&tail);
		code = conclude(&tail);
	}
	close_topic(&tail);
	return code;
}

const struct ctl_command tail_command = {
    .name = "tail",
    .summary = "print results, decoded",
    .synopsis = "[OPTION]...",
    .options = tail_options,
    .args_size = sizeof(struct tail_args),
    .has_settings = true,
    .details =
	"JSON lines are the proto3 JSON mapping of FetchResult with the names of result.proto and int64 as numbers. "
	"With --body text\n"
	"(and none) bytes are text and the digest is hexadecimal, for people and jq; with --body base64 every bytes "
	"field is\n"
	"base64, so that any protobuf library reads the line back. In the table bodies are printed only when --body is "
	"given.\n"
	"\noutcomes:\n"
	"  OK NOT_MODIFIED HTTP_ERROR UNEXPECTED DNS CONNECT TLS PROTOCOL TIMEOUT STALLED DISCONNECTED TOO_LARGE\n"
	"  TOO_MANY_REDIRECTS BLOCKED_ADDRESS BLOCKED_ROBOTS BLOCKED_POLICY EXPIRED DEADLINE BAD_JOB CANCELLED "
	"INTERNAL\n",
    .examples = "  gatherctl tail -b localhost:9092                              # new results, a table on a terminal\n"
		"  gatherctl tail -b localhost:9092 --from-beginning             # all that there are, then end\n"
		"  gatherctl tail -b localhost:9092 --outcome HTTP_ERROR,TIMEOUT --host '*.example.com'\n"
		"  gatherctl tail -b localhost:9092 -B --format json | jq -r 'select(.status==404).url'\n"
		"  gatherctl tail -b localhost:9092 --since 1h --status 429,5xx --header retry-after\n"
		"  gatherctl tail -b localhost:9092 -B --count 1 --body text     # one result and its body\n"
		"  gatherctl tail -b localhost:9092 -B --header 'content-type:image/*' --bodies images\n",
    .run = tail_run,
};
