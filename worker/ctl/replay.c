/* gatherctl replay - jobs of a bounded range done again, beside the live group.
 *
 * Happy path: the plan is found or made (replay_plan.c) -> the results are looked at, when they are to be (replay_only.c) -> a worker
 * as gatherd's, in the group GROUP.replay.ID -> each second how far the whole group is -> all done -> exit 0. Failure modes: no
 * broker, no topic, another plan -> one sentence; SIGINT, SIGTERM or a kill -> the same command, or only its --id, goes on. */
#include "replay.h"

#include "clock.h"
#include "err.h"
#include "lifecycle.h"
#include "log.h"
#include "loop.h"
#include "pipeline.h"

#include <ctype.h>
#include <curl/curl.h>
#include <jansson.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define RATE_MAX 1000000
#define ID_MAX 64

static const struct ctl_option replay_options[] = {
    {"from", 'f', CTL_TEXT, offsetof(struct replay_args, from), "earliest|OFFSET|TIME",
     "the first job; a time is 2026-11-01T00:00Z, or 2h (ago)", 0, 0, 0},
    {"to", 't', CTL_TEXT, offsetof(struct replay_args, to), "latest|OFFSET|TIME",
     "up to, but without this one; default: the end as it is now", 0, 0, 0},
    {"partition", 'p', CTL_LIST, offsetof(struct replay_args, partitions), "P[:FROM-TO]",
     "only this partition, or these offsets of it; again and again as needed", 0, 0, 0},
    {"only", 0, CTL_LIST, offsetof(struct replay_args, only), "failed|outcome=A,B|host=GLOB",
     "only these jobs of the range; again as needed: a host and an outcome must both fit", 0, 0, 0},
    {"rate", 'r', CTL_REAL, offsetof(struct replay_args, rate), "N", "start at most N jobs a second (each process)", 0,
     RATE_MAX, 0},
    {"results", 0, CTL_TEXT, offsetof(struct replay_args, results), "TOPIC",
     "where the results go; default: results.topic of the settings", 0, 0, 0},
    {"id", 0, CTL_TEXT, offsetof(struct replay_args, id), "ID",
     "name of the replay: goes on with it, or shares its work; default: a new one", 0, 0, 0},
    {"group", 'g', CTL_TEXT, offsetof(struct replay_args, group), "GROUP",
     "the live group, whose name begins the replay's; default: kafka.group.id (gatherd)", 0, 0, 0},
    {"json", 0, CTL_FLAG, offsetof(struct replay_args, json), NULL, "print one line of JSON at the end", 0, 0, 0},
    {NULL, 0, CTL_FLAG, 0, NULL, NULL, 0, 0, 0},
};

/* One process's part of it. */
struct run {
	struct replay *replay;
	struct worker *worker;
	int64_t done; /* of the whole group, as last heard */
	uint64_t outcomes[OUTCOME_COUNT];
	uint64_t lost; /* to retention, counted as done */
};

/* --- the name --- */

static int name_replay(struct replay *replay)
{
	const char *id = replay->args->id;
	time_t now = (time_t)(clock_epoch_ms() / 1000);
	struct tm tm;
	uint16_t random = 0;

	if (!id) {
		char stamp[32];

		if (getrandom(&random, sizeof(random), 0) < 0)
			random = (uint16_t)getpid();
		strftime(stamp, sizeof(stamp), "%Y%m%d-%H%M%S", gmtime_r(&now, &tm));
		snprintf(replay->id, sizeof(replay->id), "%s-%04x", stamp, random);
	} else {
		snprintf(replay->id, sizeof(replay->id), "%s", id);
		bool is_good = *id && strlen(id) <= ID_MAX;
		for (const char *at = id; *at && is_good; at++)
			is_good = isalnum((unsigned char)*at) || strchr("._-", *at);
		if (!is_good) {
			ctl_say(replay->ctl, "--id %s: must be 1 to %d letters, digits, dots, dashes and underscores", id, ID_MAX);
			return -ERR_INVALID;
		}
	}
	admin_group_name(replay->ctl, replay->args->group, replay->live_group, sizeof(replay->live_group));
	snprintf(replay->group, sizeof(replay->group), "%s.replay.%s", replay->live_group, replay->id);
	snprintf(replay->plan_group, sizeof(replay->plan_group), "%s.plan", replay->group);
	return 0;
}

/* --- the worker --- */

/* A worker's settings, but for what a replay is another worker in: its group, where results go, its name, no port, and on a command line
 * only what is wrong. */
static int load(void *ctx, struct options **ret_opts, char **ret_errors, char **ret_warnings)
{
	const struct replay *replay = ctx;
	char *below[] = {(char[]){"instance="}, (char[]){"http.listen="}, (char[]){"log.level=warn"}, NULL};
	char *above[] = {xasprintf("kafka.consumer.group.id=%s", replay->group),
			 xasprintf("results.topic=%s", replay->results_topic), NULL};

	if (replay->ctl->is_verbose)
		below[2] = NULL;
	int err = ctl_load(replay->ctl, below, above, ret_opts, ret_errors, ret_warnings);
	free(above[0]);
	free(above[1]);
	return err;
}

static void on_progress(void *ctx, int64_t done, int64_t total)
{
	struct run *run = ctx;

	run->done = done;
	if (worker_is_stopping(run->worker) && done < total)
		progress_say(&run->replay->progress, "stopping: transfers under way are finished; Ctrl-C again cuts them");
	else
		progress_show(&run->replay->progress, done, total, "jobs");
}

static int run_worker(struct run *run)
{
	struct replay *replay = run->replay;
	const struct pipeline_replay jobs = {
	    .id = replay->id,
	    .interval_us = replay->args->rate > 0 ? MAX((int64_t)((double)US_PER_S / replay->args->rate), 1) : 0,
	    .wants = replay->only.outcomes || replay->only.hosts.n ? only_wants : NULL,
	    .ctx = &replay->only};
	const struct worker_replay range = {
	    .plan = replay->ranges, .n_plan = replay->n_ranges, .jobs = &jobs, .on_progress = on_progress, .ctx = run};
	struct worker_config config = {.load = load, .ctx = replay, .replay = &range};
	char *error = NULL, *warnings = NULL;

	int err = load(replay, &config.opts, &error, &warnings);
	free(warnings); /* were said when the command's own settings were read */
	if (!err) {
		config.log = log_new(STDERR_FILENO, (enum log_level)config.opts->log_level,
				     (enum log_format)config.opts->log_format);
		err = worker_new(&config, &run->worker, &error);
	}
	if (err) {
		ctl_say(replay->ctl, "%s", error ? error : err_text(err));
	} else {
		loop_guard(worker_loop(run->worker), WORKER_TURN_LIMIT_US, WORKER_STALL_LOG_EVERY_US, WORKER_STALL_GIVE_UP_US);
		err = worker_run(run->worker) ? -ERR_CANCELLED : 0;
		const struct metrics *metrics = worker_pipeline(run->worker)->metrics;
		memcpy(run->outcomes, metrics->results, sizeof(run->outcomes));
		run->lost = metrics->jobs_lost;
		worker_free(run->worker);
	}
	progress_clear(&replay->progress);
	log_free(config.log);
	free(error);
	return err;
}

/* --- the end --- */

static uint64_t sum(const struct run *run)
{
	uint64_t n = 0;

	for (int i = 0; i < OUTCOME_COUNT; i++)
		n += run->outcomes[i];
	return n;
}

static void print_as_json(const struct run *run, bool is_done)
{
	const struct replay *replay = run->replay;
	json_t *outcomes = json_object();

	for (int i = 0; i < OUTCOME_COUNT; i++)
		if (run->outcomes[i])
			json_object_set_new(outcomes, outcome_name((enum outcome)i), json_integer((json_int_t)run->outcomes[i]));
	print_json(stdout, json_pack("{s:s,s:s,s:b,s:I,s:I,s:I,s:I,s:o}", "id", replay->id, "group", replay->group, "complete",
				     (int)is_done, "jobs", (json_int_t)replay->total, "done", (json_int_t)run->done, "results",
				     (json_int_t)sum(run), "lost", (json_int_t)run->lost, "outcomes", outcomes));
}

static void print_as_text(const struct run *run)
{
	const struct replay *replay = run->replay;
	char done[32], total[32], results[32];
	const char *before = ": ";

	printf("replay %s: %s of %s offsets done, %s results of this process", replay->id,
	       progress_number(run->done, done, sizeof(done)), progress_number(replay->total, total, sizeof(total)),
	       progress_number((int64_t)sum(run), results, sizeof(results)));
	for (int i = 0; i < OUTCOME_COUNT; i++) {
		if (!run->outcomes[i])
			continue;
		printf("%s%s %s", before, progress_number((int64_t)run->outcomes[i], results, sizeof(results)),
		       outcome_name((enum outcome)i));
		before = ", ";
	}
	if (run->lost)
		printf("; %s lost to retention", progress_number((int64_t)run->lost, results, sizeof(results)));
	putchar('\n');
}

static int conclude(const struct run *run, int err)
{
	const struct replay *replay = run->replay;
	bool is_done = !err && run->done == replay->total;

	if (replay->args->json)
		print_as_json(run, is_done);
	else
		print_as_text(run);
	int code = ctl_close_stdout(replay->ctl);
	if (!is_done)
		ctl_say(replay->ctl, "not done yet; to go on: gatherctl replay --id %s, with the same -b, -c, -o and -g", replay->id);
	return is_done ? code : CTL_FAILED;
}

static void say_start(const struct replay *replay)
{
	char total[32];

	if (isatty(STDERR_FILENO))
		fprintf(stderr, "replay %s: %s offsets in %zu partition%s, results to %s\n", replay->id,
			progress_number(replay->total, total, sizeof(total)), replay->n_ranges, replay->n_ranges == 1 ? "" : "s",
			replay->results_topic);
}

static int work(struct replay *replay)
{
	struct run run = {.replay = replay};
	int err = plan_open(replay);

	if (!err && !replay->total) {
		ctl_say(replay->ctl, "the range is empty: there is nothing to do");
		return CTL_OK;
	}
	if (!err && !replay->is_done) {
		say_start(replay);
		err = only_read(replay);
	}
	if (err)
		return err == -ERR_INVALID ? CTL_USAGE : CTL_FAILED;
	if (replay->is_done)
		run.done = replay->total;
	else
		err = ctl_stopped() ? -ERR_CANCELLED : run_worker(&run);
	return conclude(&run, err);
}

static int replay_run(struct ctl *ctl, const void *raw, int argc, char **argv)
{
	struct replay replay = {.ctl = ctl, .args = raw};
	int err = 0;

	if (argc) {
		ctl_say(ctl, "takes no arguments: %s", argv[0]);
		return CTL_USAGE;
	}
	for (size_t i = 0; !err && i < replay.args->only.n; i++)
		err = only_add(ctl, &replay.only, replay.args->only.v[i]);
	if (!err)
		err = name_replay(&replay);
	if (!err)
		replay.client = client_new_reader(ctl, false);
	int code = CTL_USAGE;
	if (replay.client) {
		curl_global_init(CURL_GLOBAL_DEFAULT);
		code = work(&replay);
		curl_global_cleanup();
	}
	plan_done(&replay);
	client_free(replay.client);
	return code;
}

const struct ctl_command replay_command = {
    .name = "replay",
    .summary = "do jobs of a range again, beside the live group",
    .synopsis = "--from PLACE [--to PLACE] [OPTION]...",
    .options = replay_options,
    .args_size = sizeof(struct replay_args),
    .has_settings = true,
    .details =
	"The jobs are fetched here, by a worker as gatherd's with the same settings, in the group GROUP.replay.ID; the live group is\n"
	"not disturbed. Results carry replay_id and the same job_id. The range is fixed when the replay begins: stopped or killed, the\n"
	"same command with its --id goes on where it was; several at once, on any machines, share the work. Each exits 0 when the\n"
	"whole range is done, 1 when it was stopped before. Jobs that retention took meanwhile are said, and count as done.\n"
	"`--only failed`: jobs with a result, but none that is OK or NOT_MODIFIED, among the results of no replay as they were when\n"
	"the replay began.\n",
    .examples = "  gatherctl replay -b localhost:9092 --from 2h                         # the jobs of the last two hours\n"
		"  gatherctl replay -b localhost:9092 --from 2h --only failed --rate 50\n"
		"  gatherctl replay -b localhost:9092 --from 2026-11-01T00:00Z --to 2026-11-02T00:00Z --id november-1\n"
		"  gatherctl replay -b localhost:9092 --id november-1                   # goes on, or helps\n"
		"  gatherctl replay -b localhost:9092 --partition 3:1500-1600 --results results-again\n",
    .run = replay_run,
};
