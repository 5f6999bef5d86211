/* sim - the real pipeline in a simulated world: seeded histories of faults, invariants after each step.
 *
 *   sim [--seed N] [--count N] [--calm] [-v]
 *
 * Without --seed: the regression seeds, then count histories from a fresh base seed, which is printed. Seed, seed + 1, ... give the same
 * histories on every machine. -v prints every event. Exit code 1 and the last events when something did not hold. */
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
#include <time.h>
#include <unistd.h>

/* A sanitizer's finding becomes a SIGABRT, so that on_abort can tell the seed. */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

const char *__asan_default_options(void)
{
	return "abort_on_error=1";
}

const char *__ubsan_default_options(void)
{
	return "abort_on_error=1:print_stacktrace=1";
}

/* Seeds that found something once. */
static const uint64_t regressions[] = {1};

static void on_abort(int signum)
{
	print_history();
	_exit(1);
}

static void print_coverage(uint64_t count, double seconds)
{
	printf("%" PRIu64 " histories in %.1f s (%.0f a second): %" PRIu64 " results, %" PRIu64 " of them excusably doubled\n", count,
	       seconds, (double)count / seconds, broker.results, broker.excused);
	printf("revokes %" PRIu64 ", lost %" PRIu64 ", crashes %" PRIu64 ", given up %" PRIu64 ", commits %" PRIu64 " (failed %" PRIu64
	       "), queue full %" PRIu64 ", dead letters %" PRIu64 ", too large %" PRIu64 "\n",
	       broker.revokes, broker.losts, broker.crashes, broker.given_up, broker.commits, broker.commit_errors, broker.queue_full,
	       broker.dead_letters, broker.stripped);
	printf("transfers %" PRIu64 " (cancelled %" PRIu64 ", paused %" PRIu64 "), lookups %" PRIu64 "\noutcomes:", net.transfers,
	       net.cancelled, net.paused, net.lookups);
	for (int i = 0; i < OUTCOME_COUNT; i++)
		if (broker.outcomes[i])
			printf(" %s %" PRIu64, outcome_name((enum outcome)i), broker.outcomes[i]);
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

int main(int argc, char **argv)
{
	static const struct option options[] = {{"seed", required_argument, NULL, 's'},
						{"count", required_argument, NULL, 'n'},
						{"calm", no_argument, NULL, 'c'},
						{NULL, 0, NULL, 0}};
	uint64_t seed = 0, count = 1;
	bool has_seed = false, is_calm = false;
	double start = seconds_now();

	for (int c; (c = getopt_long(argc, argv, "v", options, NULL)) != -1;) {
		if (c == 's')
			seed = strtoull(optarg, NULL, 10);
		else if (c == 'n')
			count = strtoull(optarg, NULL, 10);
		else if (c == 'v')
			trace_aloud(true);
		else if (c != 'c')
			return 2;
		has_seed |= c == 's';
		is_calm |= c == 'c';
	}
	signal(SIGABRT, on_abort);
	signal(SIGSEGV, on_abort);
	for (size_t i = 0; i < ARRAY_LEN(regressions) && !has_seed; i++)
		history_run(regressions[i], is_calm);
	seed = has_seed ? seed : fresh_seed();
	printf("base seed %" PRIu64 "\n", seed);
	fflush(stdout);
	for (uint64_t i = 0; i < count; i++)
		history_run(seed + i, is_calm);
	print_coverage(count, seconds_now() - start);
	return 0;
}
