/* sim - the real pipeline in a simulated world: seeded histories of faults, invariants after each step.
 *
 *   sim [--seed N] [--count N] [--calm] [--every-step[=crash|stop|freeze|kick] [--step N]] [-j PROCESSES] [-v]
 *
 * Without --seed: the regression seeds, then count histories from a fresh base seed, which is printed. Seed, seed + 1, ... give the same
 * histories on every machine. --calm: no faults. --every-step: small histories, of alternating delivery modes; each is run once as it is,
 * and then once for each of its steps with a machine that dies there (is told to stop, stands still, loses its assignment); --step: that
 * one only. -v prints every event. Exit code 1, the seed and the last events when something did
 * not hold. */
#include "broker.h"
#include "history.h"
#include "net.h"
#include "world.h"

#include "err.h"

#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A sanitizer's finding becomes a SIGABRT, so that on_abort can tell the seed. */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

const char *__asan_default_options(void)
{
	/* Short stacks and a small quarantine: a good third faster. */
	return "abort_on_error=1:malloc_context_size=5:quarantine_size_mb=16:max_malloc_fill_size=256";
}

const char *__ubsan_default_options(void)
{
	return "abort_on_error=1:print_stacktrace=1";
}

#define PROCESSES_MAX 64

struct plan {
	uint64_t seed, count, n_processes, step;
	const char *strike; /* NULL = whole histories */
	bool is_calm;
};

/* Seeds that found something once. */
static const uint64_t regressions[] = {1};

static void on_abort(int signum)
{
	print_history();
	_exit(1);
}

/* As enum txn_state. */
static void print_states(const char *what, const uint64_t *counts)
{
	static const char *const names[] = {"off", "init", "ready", "open", "closing", "committing", "aborting", "broken"};

	printf("%s", what);
	for (size_t i = 1; i < ARRAY_LEN(names); i++)
		printf(" %s %" PRIu64, names[i], counts[i]);
	printf("\n");
}

static void print_seen(double seconds)
{
	printf("%" PRIu64 " histories in %.1f s (%.0f a second), %" PRIu64 " steps: %" PRIu64 " results, %" PRIu64
	       " of them doubled by a fault that explains it\n",
	       seen.histories, seconds, (double)seen.histories / seconds, seen.steps, seen.results, seen.excused);
	printf("revokes %" PRIu64 ", lost %" PRIu64 ", crashes %" PRIu64 ", stops %" PRIu64 ", given up %" PRIu64 ", commits %" PRIu64
	       " (failed %" PRIu64 "), queue full %" PRIu64 ", dead letters %" PRIu64 ", too large %" PRIu64 "\n",
	       seen.revokes, seen.losts, seen.crashes, seen.stops, seen.given_up, seen.commits, seen.commit_errors, seen.queue_full,
	       seen.dead_letters, seen.stripped);
	printf("transactions %" PRIu64 " (aborted %" PRIu64 ", timed out %" PRIu64 ", refused %" PRIu64 ", in doubt %" PRIu64 "), restarts %" PRIu64 "\n",
	       seen.txns, seen.txn_aborts, seen.txn_timeouts, seen.txn_refused, seen.txn_doubts, seen.restarts);
	print_states("killed while", seen.killed);
	print_states("producer broken while", seen.broken);
	printf("transfers %" PRIu64 " (cancelled %" PRIu64 ", paused %" PRIu64 "), lookups %" PRIu64 "\noutcomes:", seen.transfers,
	       seen.cancelled, seen.paused, seen.lookups);
	for (int i = 0; i < OUTCOME_COUNT; i++)
		if (seen.outcomes[i])
			printf(" %s %" PRIu64, outcome_name((enum outcome)i), seen.outcomes[i]);
	printf("\n");
}

static uint64_t fresh_seed(void)
{
	uint64_t seed = 0;

	if (getrandom(&seed, sizeof(seed), 0) < 0)
		seed = (uint64_t)time(NULL);
	return seed >> 16;
}

static double seconds_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void run(const struct plan *plan, uint64_t first, uint64_t stride)
{
	struct history_wish wish = {.is_calm = plan->is_calm, .is_small = plan->strike, .strike = plan->strike, .strike_step = plan->step};

	for (uint64_t i = first; i < plan->count; i += stride) {
		uint64_t n_steps = history_run(plan->seed + i, &wish);
		for (uint64_t k = 1; plan->strike && !plan->step && k <= n_steps; k++) {
			struct history_wish struck = wish;
			struck.strike_step = k;
			history_run(plan->seed + i, &struck);
		}
	}
}

/* What a child has seen comes back through its pipe; nothing comes when it failed. */
static bool add_seen(int fd)
{
	uint64_t theirs[sizeof(seen) / sizeof(uint64_t)], *ours = (uint64_t *)&seen;
	bool is_whole = read(fd, theirs, sizeof(theirs)) == (ssize_t)sizeof(theirs);

	for (size_t i = 0; is_whole && i < ARRAY_LEN(theirs); i++)
		ours[i] += theirs[i];
	return is_whole;
}

/* Each process takes every n-th seed. */
static bool run_parallel(const struct plan *plan)
{
	int pipes[PROCESSES_MAX][2], status;
	pid_t children[PROCESSES_MAX];
	bool is_ok = true;

	fflush(stdout);
	for (uint64_t i = 0; i < plan->n_processes; i++) {
		if (pipe(pipes[i]) || (children[i] = fork()) < 0)
			abort();
		if (children[i] == 0) {
			run(plan, i, plan->n_processes);
			exit(write(pipes[i][1], &seen, sizeof(seen)) != (ssize_t)sizeof(seen));
		}
		close(pipes[i][1]);
	}
	for (uint64_t i = 0; i < plan->n_processes; i++) {
		is_ok &= add_seen(pipes[i][0]);
		close(pipes[i][0]);
		is_ok &= waitpid(children[i], &status, 0) == children[i] && status == 0;
	}
	return is_ok;
}

static bool parse(int argc, char **argv, struct plan *plan, bool *ret_has_seed)
{
	static const struct option options[] = {{"seed", required_argument, NULL, 's'},
						{"count", required_argument, NULL, 'n'},
						{"calm", no_argument, NULL, 'c'},
						{"every-step", optional_argument, NULL, 'e'},
						{"step", required_argument, NULL, 'k'},
						{NULL, 0, NULL, 0}};

	for (int c; (c = getopt_long(argc, argv, "vj:", options, NULL)) != -1;) {
		switch (c) {
		case 's':
			plan->seed = strtoull(optarg, NULL, 10);
			*ret_has_seed = true;
			break;
		case 'n':
			plan->count = strtoull(optarg, NULL, 10);
			break;
		case 'c':
			plan->is_calm = true;
			break;
		case 'e':
			plan->strike = optarg ? optarg : "crash";
			if (!history_is_strike(plan->strike))
				return false;
			break;
		case 'k':
			plan->step = strtoull(optarg, NULL, 10);
			break;
		case 'j':
			plan->n_processes = strtoull(optarg, NULL, 10);
			break;
		case 'v':
			trace_aloud(true);
			plan->n_processes = 1;
			break;
		default:
			return false;
		}
	}
	plan->n_processes = MIN(plan->n_processes, plan->strike ? plan->count : plan->count / 20);
	plan->n_processes = MIN(plan->n_processes, (uint64_t)PROCESSES_MAX);
	return true;
}

int main(int argc, char **argv)
{
	struct plan plan = {.seed = fresh_seed(), .count = 1, .n_processes = (uint64_t)sysconf(_SC_NPROCESSORS_ONLN)};
	bool has_seed = false, is_ok = true;

	if (!parse(argc, argv, &plan, &has_seed)) {
		fprintf(stderr, "usage: sim [--seed N] [--count N] [--calm] [--every-step[=crash|stop|freeze|kick] [--step N]] [-j PROCESSES] [-v]\n");
		return 2;
	}
	double start = seconds_now();
	signal(SIGABRT, on_abort);
	signal(SIGSEGV, on_abort);
	for (size_t i = 0; i < ARRAY_LEN(regressions) && !has_seed && !plan.strike; i++)
		history_run(regressions[i], &(struct history_wish){0});
	printf("base seed %" PRIu64 "\n", plan.seed);
	if (plan.n_processes > 1) {
		uint64_t regressed = seen.histories;
		memset(&seen, 0, sizeof(seen));
		is_ok = run_parallel(&plan);
		seen.histories += regressed;
	} else {
		run(&plan, 0, 1);
	}
	if (is_ok)
		print_seen(seconds_now() - start);
	return is_ok ? 0 : 1;
}
