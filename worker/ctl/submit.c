/* gatherctl submit - put jobs in: URLs or JSON lines from arguments, a file or stdin.
 *
 * Happy path: a broker answers, the topic is there -> each line is checked, keyed, produced -> every delivery is waited
 * for -> counts. Failure modes: a line that can be no job is said with file:line and left out; the queue is full ->
 * wait for deliveries; a delivery fails, or Ctrl-C -> what was sent is still waited for, and the exit code is 1. */
#include "clock.h"
#include "ctl.h"
#include "err.h"
#include "job.h"
#include "progress.h"
#include "url.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <sys/stat.h>
#include <unistd.h>

#define INTERRUPTED_FLUSH_US (5 * US_PER_S)
#define FAILURES_SAID_MAX 10

struct submit_args {
	const char *topic, *key, *file, *resume;
	bool json, no_check;
	double rate;
};

static const struct ctl_option submit_options[] = {
    {"topic", 't', CTL_TEXT, offsetof(struct submit_args, topic), "TOPIC", "default: jobs.topic of the settings (jobs)",
     0, 0, 0},
    {"file", 'f', CTL_TEXT, offsetof(struct submit_args, file), "FILE", "read lines from this file; - = stdin", 0, 0,
     0},
    {"key", 'k', CTL_TEXT, offsetof(struct submit_args, key), "host|none|FIELD",
     "key of the records: the URL's host:port (default), none, or a field of the JSON (attrs.shop)", 0, 0, 0},
    {"rate", 'r', CTL_REAL, offsetof(struct submit_args, rate), "N", "at most N jobs a second", 0, 10000000, 0},
    {"resume", 0, CTL_TEXT, offsetof(struct submit_args, resume), "STATE",
     "keep in this file how far the input is, and go on from there", 0, 0, 0},
    {"no-check", 0, CTL_FLAG, offsetof(struct submit_args, no_check), NULL,
     "send lines that can be no job too: the worker will say why", 0, 0, 0},
    {"json", 0, CTL_FLAG, offsetof(struct submit_args, json), NULL, "print the counts as JSON", 0, 0, 0},
    {NULL, 0, CTL_FLAG, 0, NULL, NULL, 0, 0, 0},
};

/* More than the producer ever holds. */
#define OPEN_LINES 131072

struct open_line {
	long line;
	bool is_acknowledged;
};

struct submit {
	struct ctl *ctl;
	const struct submit_args *args;
	const char *topic_name;
	struct client *client;
	rd_kafka_topic_t *topic;
	const char *source; /* "urls.txt", "stdin", "argument": where the line comes from */
	long line;
	int64_t sent, acknowledged, failed, bad;
	int64_t start_us;
	int64_t size_bytes, read_bytes; /* of the input; 0 = its size is not known */
	struct open_line *open;		/* lines on their way, in a ring by the order of sending; NULL without --resume */
	int64_t oldest, done_line, kept_line; /* of the ring; every line up to it is over; as in the file of state */
	int64_t stuck_at;		      /* the first job that was not delivered, by the order of sending: done_line stays below */
	int64_t kept_us;
	struct progress progress;
	bool is_broken; /* the input could not be read */
};

/* --- progress --- */

/* A job that is not acknowledged counts as not read. */
static void show_progress(struct submit *submit)
{
	int64_t open = submit->sent - submit->acknowledged - submit->failed;
	double each = submit->line ? (double)submit->read_bytes / (double)submit->line : 0;

	progress_show_part(&submit->progress, submit->acknowledged, "acknowledged", submit->read_bytes - (int64_t)(each * (double)open),
			   submit->size_bytes ? submit->size_bytes : -1);
}

/* --- how far it is: --resume --- */

/* A line at a time, so that a kill leaves the old state or the new one. */
static void keep_state(struct submit *submit)
{
	const char *path = submit->args->resume;
	char *part = xasprintf("%s.part", path);
	FILE *file = fopen(part, "we");
	bool is_bad = !file || fprintf(file, "%lld %s\n", (long long)submit->done_line, submit->source) < 0;

	is_bad |= file && fclose(file) != 0;
	if (is_bad || rename(part, path)) {
		ctl_say(submit->ctl, "%s: %s", path, strerror(errno));
		submit->is_broken = true;
	}
	submit->kept_line = submit->done_line;
	free(part);
}

static void keep_state_by_and_by(struct submit *submit)
{
	int64_t now_us = clock_now_us();

	if (!submit->open || submit->done_line == submit->kept_line || now_us - submit->kept_us < US_PER_S)
		return;
	submit->kept_us = now_us;
	keep_state(submit);
}

static int load_state(struct submit *submit)
{
	FILE *file = fopen(submit->args->resume, "re");
	char *text = NULL;
	size_t size = 0;
	long long line = 0;
	int n = 0;

	if (!file && errno == ENOENT)
		return CTL_OK;
	bool is_good = file && getline(&text, &size, file) > 0 && sscanf(text, "%lld %n", &line, &n) == 1 && line >= 0 && n;
	if (is_good)
		text[strcspn(text, "\n")] = '\0';
	if (!is_good)
		ctl_say(submit->ctl, "%s: %s", submit->args->resume, file ? "is no state of a submit" : strerror(errno));
	else if (strcmp(text + n, submit->source) != 0)
		ctl_say(submit->ctl, "%s is of %s", submit->args->resume, text + n);
	is_good = is_good && strcmp(text + n, submit->source) == 0;
	submit->done_line = submit->kept_line = line;
	if (file)
		fclose(file);
	free(text);
	return is_good ? CTL_OK : CTL_USAGE;
}

/* Up to the first line whose fate is not known, or that was not delivered. */
static void move_done(struct submit *submit)
{
	while (submit->oldest < MIN(submit->sent, submit->stuck_at) && submit->open[submit->oldest % OPEN_LINES].is_acknowledged)
		submit->done_line = submit->open[submit->oldest++ % OPEN_LINES].line;
	keep_state_by_and_by(submit);
}

static void on_delivered(void *ctx, const rd_kafka_message_t *msg)
{
	struct submit *submit = ctx;

	if (!msg->err) {
		submit->acknowledged++;
		if (submit->open && (intptr_t)msg->_private < submit->stuck_at) {
			submit->open[(intptr_t)msg->_private % OPEN_LINES].is_acknowledged = true;
			move_done(submit);
		}
		return;
	}
	if (submit->open)
		submit->stuck_at = MIN(submit->stuck_at, (intptr_t)msg->_private);
	if (++submit->failed > FAILURES_SAID_MAX)
		return;
	progress_clear(&submit->progress);
	char what[512];
	snprintf(what, sizeof(what), "%s: not delivered", submit->open ? submit->source : (const char *)msg->_private);
	client_say_error(submit->client, msg->err, what, "Write", rd_kafka_topic_name(msg->rkt));
}

/* --- one line --- */

static void refuse(struct submit *submit, const char *reason)
{
	submit->bad++;
	progress_clear(&submit->progress);
	ctl_say(submit->ctl, "%s:%ld: %s; not sent", submit->source, submit->line, reason);
}

const char *ctl_job_fault(struct arena *arena, struct span line, struct url *ret_url)
{
	struct record rec = {.topic = "", .value = line};
	struct job job = {0};
	const char *detail = NULL;
	enum job_format format = *line.data == '{' ? JOB_FORMAT_JSON : JOB_FORMAT_URL;

	int err = job_decode(arena, &rec, format, clock_epoch_ms(), &job, &detail);
	int url_err = job.url ? url_parse(arena, span_str(job.url), ret_url) : -ERR_URL_EMPTY;
	if (!err)
		err = url_err;
	/* What is refused by rule and not for its form is the worker's to refuse: it is set elsewhere. */
	if (!err || err_outcome(err) != OUTCOME_BAD_JOB)
		return NULL;
	return detail ? detail : err_text(err);
}

/* The value at "attrs.shop" as text: strings as they are, numbers printed. NULL = none. */
static const char *field_of(struct arena *arena, struct span line, const char *path)
{
	json_t *root = json_loadb((const char *)line.data, line.len, 0, NULL), *at = root;
	const char *text = NULL;

	while (at && *path) {
		size_t len = strcspn(path, ".");
		char *name = arena_strndup(arena, path, len);

		at = json_object_get(at, name);
		path += len + (path[len] == '.');
	}
	if (json_is_string(at))
		text = arena_strndup(arena, json_string_value(at), json_string_length(at));
	else if (json_is_integer(at))
		text = arena_printf(arena, "%lld", (long long)json_integer_value(at));
	json_decref(root);
	return text;
}

/* 0 and the key (NULL = a Kafka null); -ERR_NOT_FOUND when the field that was asked for is not there. */
static int key_of(struct arena *arena, const struct submit *submit, struct span line, const struct url *url,
		  const char **ret_key)
{
	const char *key = submit->args->key ? submit->args->key : "host";
	bool is_json = *line.data == '{';

	*ret_key = NULL;
	if (strcmp(key, "none") == 0)
		return 0;
	if (strcmp(key, "host") == 0)
		*ret_key = url->key;
	else if (is_json)
		*ret_key = field_of(arena, line, key);
	else if (strcmp(key, "url") == 0)
		*ret_key = arena_strndup(arena, (const char *)line.data, line.len);
	return *ret_key || strcmp(key, "host") == 0 ? 0 : -ERR_NOT_FOUND;
}

static void produce(struct submit *submit, struct span line, const char *key)
{
	rd_kafka_t *rk = client_handle(submit->client);

	/* A const view in, a copy made: the cast only pleases the signature. */
	/* One partition may be far behind the others. */
	while (submit->open && submit->sent - submit->oldest >= OPEN_LINES && submit->stuck_at == INT64_MAX && !ctl_stopped())
		rd_kafka_poll(rk, 100);
	if (submit->open && submit->stuck_at == INT64_MAX)
		submit->open[submit->sent % OPEN_LINES] = (struct open_line){submit->line, false};
	while (rd_kafka_produce(submit->topic, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, (void *)(uintptr_t)line.data,
				line.len, key, key ? strlen(key) : 0,
				submit->open ? (void *)(intptr_t)submit->sent : (void *)(uintptr_t)submit->source)) {
		rd_kafka_resp_err_t err = rd_kafka_last_error();

		if (err != RD_KAFKA_RESP_ERR__QUEUE_FULL) {
			refuse(submit, rd_kafka_err2str(err));
			return;
		}
		if (ctl_stopped())
			return;
		rd_kafka_poll(rk, 100);
		show_progress(submit);
	}
	submit->sent++;
}

/* The n-th job is due n / rate after the start, so that a slow moment is made up for. */
static void wait_turn(struct submit *submit)
{
	rd_kafka_t *rk = client_handle(submit->client);

	rd_kafka_poll(rk, 0);
	while (submit->args->rate > 0 && !ctl_stopped()) {
		int64_t due_us = submit->start_us + (int64_t)((double)submit->sent / submit->args->rate * US_PER_S);
		int64_t left_us = due_us - clock_now_us();

		if (left_us <= 0)
			break;
		if (left_us >= US_PER_MS)
			rd_kafka_poll(rk, (int)MIN(left_us / US_PER_MS, 100));
		else
			usleep((useconds_t)left_us);
		show_progress(submit);
	}
}

static void submit_line(struct submit *submit, const char *text, size_t len)
{
	struct arena arena;
	struct url url = {0};
	const char *key = NULL;

	while (len && isspace((unsigned char)text[len - 1]))
		len--;
	while (len && isspace((unsigned char)*text)) {
		text++;
		len--;
	}
	if (!len || *text == '#')
		return;
	struct span line = {(const uint8_t *)text, len};
	arena_init(&arena, 4096);
	const char *fault = ctl_job_fault(&arena, line, &url);
	if (fault && !submit->args->no_check) {
		refuse(submit, fault);
	} else if (key_of(&arena, submit, line, &url, &key)) {
		refuse(submit, arena_printf(&arena, "there is no field %s to key it by", submit->args->key));
	} else {
		wait_turn(submit);
		if (!ctl_stopped())
			produce(submit, line, key);
	}
	arena_done(&arena);
	show_progress(submit);
}

/* --- the whole --- */

static void submit_stream(struct submit *submit, FILE *in)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t len;
	int64_t first = submit->done_line; /* done in an earlier run */

	while (!ctl_stopped() && (len = getline(&line, &size, in)) >= 0) {
		submit->line++;
		submit->read_bytes += len;
		if (submit->line > first)
			submit_line(submit, line, (size_t)len);
	}
	if (ferror(in) && !ctl_stopped()) {
		ctl_say(submit->ctl, "%s cannot be read on: %s", submit->source, strerror(errno));
		submit->is_broken = true;
	}
	free(line);
}

static void submit_all(struct submit *submit, FILE *in, int argc, char **argv)
{
	submit->start_us = clock_now_us();
	submit->source = "argument";
	for (int i = 0; i < argc && !ctl_stopped(); i++) {
		submit->line = i + 1;
		submit_line(submit, argv[i], strlen(argv[i]));
	}
	if (!in)
		return;
	submit->source = in == stdin ? "stdin" : submit->args->file;
	submit->line = 0;
	submit_stream(submit, in);
}

/* Every record gets its report: acknowledged, or failed after message.timeout.ms. */
static void wait_delivered(struct submit *submit)
{
	rd_kafka_t *rk = client_handle(submit->client);
	int64_t cut_us = 0;

	while (submit->acknowledged + submit->failed < submit->sent) {
		rd_kafka_poll(rk, 100);
		show_progress(submit);
		if (!ctl_stopped())
			continue;
		if (!cut_us)
			cut_us = clock_now_us() + INTERRUPTED_FLUSH_US;
		else if (clock_now_us() > cut_us)
			break;
	}
	progress_clear(&submit->progress);
}

static int conclude(struct submit *submit)
{
	int64_t open = submit->sent - submit->acknowledged - submit->failed;
	double seconds = (double)(clock_now_us() - submit->start_us) / US_PER_S;

	if (submit->args->json) {
		printf("{\"topic\":\"%s\",\"sent\":%lld,\"acknowledged\":%lld,\"failed\":%lld,\"bad\":%lld,\"seconds\":"
		       "%.3f}\n",
		       submit->topic_name, (long long)submit->sent, (long long)submit->acknowledged,
		       (long long)(submit->failed + open), (long long)submit->bad, seconds);
	} else {
		int64_t all = submit->sent + submit->bad;
		printf("%lld of %lld job%s acknowledged by %s", (long long)submit->acknowledged, (long long)all,
		       all == 1 ? "" : "s", submit->topic_name);
		if (submit->bad)
			printf(", %lld not sent", (long long)submit->bad);
		if (submit->failed)
			printf(", %lld not delivered", (long long)submit->failed);
		if (open)
			printf(", %lld unknown", (long long)open);
		putchar('\n');
	}
	if (ctl_stopped())
		ctl_say(submit->ctl, "interrupted at %s:%ld%s", submit->source, submit->line,
			submit->open ? "; the same command goes on from there" : "");
	int code = ctl_close_stdout(submit->ctl);
	return submit->bad || submit->failed || open || submit->is_broken || ctl_stopped() ? CTL_FAILED : code;
}

/* The last word, when all that can be known is known. */
static void close_state(struct submit *submit)
{
	if (!submit->open)
		return;
	if (!ctl_stopped() && !submit->is_broken && submit->oldest == submit->sent)
		submit->done_line = MAX(submit->done_line, submit->line);
	if (submit->done_line != submit->kept_line)
		keep_state(submit);
}

static int open_state(struct submit *submit, FILE *in, int argc)
{
	struct stat st;

	if (in && fstat(fileno(in), &st) == 0 && S_ISREG(st.st_mode))
		submit->size_bytes = st.st_size;
	if (!submit->args->resume)
		return CTL_OK;
	if (!in || argc) {
		ctl_say(submit->ctl, "--resume is for lines of --file or stdin");
		return CTL_USAGE;
	}
	submit->source = in == stdin ? "stdin" : submit->args->file;
	int code = load_state(submit);
	if (code)
		return code;
	submit->stuck_at = INT64_MAX;
	submit->open = xcalloc(OPEN_LINES, sizeof(*submit->open));
	if (submit->done_line)
		ctl_say(submit->ctl, "goes on after %s:%lld", submit->source, (long long)submit->done_line);
	return CTL_OK;
}

static int open_topic(struct submit *submit)
{
	static const struct client_setting extra[] = {
	    /* A command line tells soon, and holds little. */
	    {"message.timeout.ms", "30000", false},
	    {"queue.buffering.max.messages", "100000", true},
	    {"queue.buffering.max.kbytes", "65536", true},
	    {"linger.ms", "5", false},
	    {NULL, NULL, false},
	};

	submit->client = client_new(submit->ctl, KAFKA_PRODUCER, extra, on_delivered, submit);
	if (!submit->client)
		return CTL_USAGE;
	submit->topic = client_open_topic(submit->client, submit->topic_name);
	return submit->topic ? CTL_OK : CTL_FAILED;
}

/* *ret_in stays NULL when only the arguments are read. */
static int open_input(const struct submit *submit, int argc, FILE **ret_in)
{
	const char *file = submit->args->file;

	*ret_in = NULL;
	if (!file && argc)
		return CTL_OK;
	if (!file && isatty(STDIN_FILENO)) {
		ctl_say(submit->ctl, "nothing to submit: give URLs, --file FILE, or lines on stdin");
		return CTL_USAGE;
	}
	*ret_in = !file || strcmp(file, "-") == 0 ? stdin : fopen(file, "re");
	if (*ret_in)
		return CTL_OK;
	ctl_say(submit->ctl, "%s: %s", file, strerror(errno));
	return CTL_USAGE;
}

static int submit_run(struct ctl *ctl, const void *raw, int argc, char **argv)
{
	const struct submit_args *args = raw;
	struct submit submit = {.ctl = ctl, .args = args};
	FILE *in;

	submit.topic_name = args->topic			  ? args->topic
			    : ctl->settings->jobs_topic.n ? ctl->settings->jobs_topic.v[0]
							  : "jobs";
	ctl_stop_reads(true);
	int code = open_input(&submit, argc, &in);
	if (code)
		return code;
	code = open_state(&submit, in, argc);
	if (!code)
		code = open_topic(&submit);
	if (!code) {
		submit_all(&submit, in, argc, argv);
		wait_delivered(&submit);
		close_state(&submit);
		code = conclude(&submit);
	}
	if (submit.topic)
		rd_kafka_topic_destroy(submit.topic);
	/* Given up on: rd_kafka_destroy must not wait for them. */
	if (submit.client)
		rd_kafka_purge(client_handle(submit.client), RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
	client_free(submit.client);
	free(submit.open);
	if (in && in != stdin)
		fclose(in);
	return code;
}

const struct ctl_command submit_command = {
    .name = "submit",
    .summary = "put jobs in, from arguments, a file or stdin",
    .synopsis = "[OPTION]... [URL|JSON]...",
    .options = submit_options,
    .args_size = sizeof(struct submit_args),
    .has_settings = true,
    .details = "One job is a URL or a FetchJob as JSON (a line that begins with {: job.proto has the fields). Blank "
	       "lines and lines that\n"
	       "begin with # are skipped. A line that can be no job is said with its place and not sent; the exit code "
	       "is then 1.\n",
    .examples = "  gatherctl submit -b localhost:9092 https://example.com/\n"
		"  gatherctl submit -b localhost:9092 '{\"url\":\"https://example.com/\",\"attrs\":{\"shop\":\"7\"}}'\n"
		"  gatherctl submit -b localhost:9092 --file urls.txt --rate 100\n"
		"  sort -u urls.txt | gatherctl submit -b localhost:9092\n"
		"  gatherctl submit -b localhost:9092 --file jobs.jsonl --key attrs.shop\n"
		"  gatherctl submit -b localhost:9092 --file urls.txt --resume urls.state   # stopped or killed: again, and it goes on\n",
    .run = submit_run,
};
