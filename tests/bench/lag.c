/* lag - how late a bare timer is on this machine right now: the control of tests/integration/test_loop_lag.py.
 *
 *   lag        until its standard input ends
 *
 * Every 20 ms, as the daemon's loop does, it takes the time by which it woke late; then it works for 600 us of its own CPU
 * time (3 % of a core, about what the daemon takes for 500 jobs a second) and takes how much longer that took by the clock. Prints
 * `late`/`held` and the number of microseconds, one a line: what the machine does to a process that blocks on nothing. */
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define PERIOD_US 20000
#define WORK_US 600

static long read_us(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000L + ts.tv_nsec / 1000;
}

int main(void)
{
	struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};

	while (poll(&input, 1, 0) == 0) {
		long due_us = read_us(CLOCK_MONOTONIC) + PERIOD_US;
		struct timespec due = {due_us / 1000000, due_us % 1000000 * 1000};
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
		long start_us = read_us(CLOCK_MONOTONIC), end_cpu_us = read_us(CLOCK_THREAD_CPUTIME_ID) + WORK_US;
		printf("late %ld\n", start_us - due_us);
		while (read_us(CLOCK_THREAD_CPUTIME_ID) < end_cpu_us)
			;
		printf("held %ld\n", read_us(CLOCK_MONOTONIC) - start_us - WORK_US);
	}
	return 0;
}
