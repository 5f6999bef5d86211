#include "world.h"

#include "helper.h"
#include "history.h"
#include "httpd.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#define TRACE_LINES 120
#define EPOCH_MS INT64_C(1800000000000)

struct world world;
struct seen seen;

static struct line {
	int64_t now_us, a, b;
	const char *what;
	int machine;
} lines[TRACE_LINES];
static uint64_t n_lines;
static bool is_aloud;

/* ---- chance ---- */

/* splitmix64 */
static uint64_t next_random(void)
{
	uint64_t z = world.random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

uint64_t rnd(uint64_t n)
{
	return n ? next_random() % n : 0;
}

int64_t rnd_between(int64_t low, int64_t high)
{
	return low + (int64_t)rnd((uint64_t)(high - low) + 1);
}

bool chance(double p)
{
	return (double)(next_random() >> 11) / (double)(UINT64_C(1) << 53) < p;
}

int64_t latency_us(int64_t typical_us)
{
	int64_t us = rnd_between(typical_us / 4, typical_us + typical_us / 2);

	return chance(0.03) ? us * rnd_between(2, 20) : us;
}

/* ---- the trace ---- */

static void print_line(FILE *file, const struct line *line)
{
	fprintf(file, "  %12.6f ", (double)line->now_us / 1e6);
	fprintf(file, line->machine < 0 ? "   " : "m%d ", line->machine);
	fprintf(file, "%-28s %" PRId64 " %" PRId64 "\n", line->what, line->a, line->b);
}

void trace(const struct machine *machine, const char *what, int64_t a, int64_t b)
{
	struct line *line = &lines[n_lines++ % TRACE_LINES];

	*line = (struct line){world.now_us, a, b, what, machine ? machine->id : -1};
	if (is_aloud)
		print_line(stdout, line);
}

void trace_aloud(bool on)
{
	is_aloud = on;
}

void print_history(void)
{
	uint64_t first = n_lines > TRACE_LINES ? n_lines - TRACE_LINES : 0;

	fflush(stdout);
	for (uint64_t i = first; !is_aloud && i < n_lines; i++)
		print_line(stderr, &lines[i % TRACE_LINES]);
	history_print();
}

void fail(const char *fmt, ...)
{
	va_list ap;

	print_history();
	va_start(ap, fmt);
	fprintf(stderr, "FAILED: ");
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\n");
	va_end(ap);
	_exit(1);
}

/* ---- events and time ---- */

void event_clear(struct event *event)
{
	list_remove(&event->active);
	if (event->due.place)
		heap_remove(event->loop ? &event->loop->due : &world.due, &event->due);
}

void event_set(struct event *event, struct loop *loop, int64_t at_us, loop_fn fn, void *ctx)
{
	event_clear(event);
	event->loop = loop;
	event->fn = fn;
	event->ctx = ctx;
	heap_set(loop ? &loop->due : &world.due, &event->due, at_us);
}

int64_t clock_now_us(void)
{
	return world.now_us;
}

int64_t clock_epoch_ms(void)
{
	return EPOCH_MS + world.now_us / US_PER_MS;
}

void world_start(uint64_t seed)
{
	world = (struct world){.seed = seed, .random = seed, .now_us = US_PER_S};
	world.progress_us = world.now_us;
	n_lines = 0;
	heap_init(&world.due);
	for (int i = 0; i < MACHINES_MAX; i++)
		world.machines[i].id = i;
}

void world_done(void)
{
	heap_done(&world.due);
}

/* ---- the loop ---- */

static int64_t loop_next_us(const struct loop *loop)
{
	const struct heap_node *first = heap_first(&loop->due);
	int64_t at_us = loop->is_again ? 0 : first ? first->at_us : INT64_MAX;

	return at_us == INT64_MAX ? INT64_MAX : MAX(at_us, loop->frozen_until_us);
}

/* What is due now runs; what it makes due waits for the next turn. */
static void turn(struct loop *loop)
{
	struct heap_node *first;

	loop->is_again = false;
	while ((first = heap_first(&loop->due)) && first->at_us <= world.now_us) {
		heap_remove(&loop->due, first);
		list_push(&loop->active, &CONTAINER_OF(first, struct event, due)->active);
	}
	for (struct list_node *node; (node = list_pop(&loop->active));) {
		struct event *event = CONTAINER_OF(node, struct event, active);
		event->fn(event->ctx);
	}
	for (size_t i = 0; i < loop->n_hooks; i++)
		loop->hooks[i].fn(loop->hooks[i].ctx);
}

bool world_step(void)
{
	struct heap_node *first = heap_first(&world.due);
	int64_t at_us = first ? first->at_us : INT64_MAX;
	struct loop *loop = NULL;

	for (int i = 0; i < MACHINES_MAX; i++) {
		struct loop *other = world.machines[i].loop;
		if (!other || other->is_stopped || loop_next_us(other) >= at_us)
			continue;
		at_us = loop_next_us(other);
		loop = other;
	}
	if (at_us == INT64_MAX)
		return false;
	world.n_steps++;
	seen.steps++;
	world.now_us = MAX(world.now_us, at_us);
	world.turned = loop ? loop->machine : NULL;
	if (loop) {
		turn(loop);
		world.now_us += (int64_t)rnd(30); /* a turn takes time */
	} else {
		heap_remove(&world.due, first);
		struct event *event = CONTAINER_OF(first, struct event, due);
		event->fn(event->ctx);
	}
	return true;
}

struct loop *loop_new(struct metrics *metrics, struct log *log)
{
	struct loop *loop = xcalloc(1, sizeof(*loop));

	heap_init(&loop->due);
	list_init(&loop->active);
	loop->machine = world.booting;
	loop->machine->loop = loop;
	return loop;
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	if (heap_first(&loop->due))
		fail("machine %d: the loop is freed with an event of it alive", loop->machine->id);
	heap_done(&loop->due);
	loop->machine->loop = NULL;
	free(loop);
}

void loop_run(struct loop *loop)
{
	assert(loop->is_stopped);
}

void loop_turn(struct loop *loop, int64_t max_wait_us)
{
	world.now_us = MAX(world.now_us, MIN(loop_next_us(loop), world.now_us + max_wait_us));
	turn(loop);
}

void loop_stop(struct loop *loop)
{
	loop->is_stopped = true;
}

int64_t loop_now_us(struct loop *loop)
{
	return world.now_us;
}

int64_t loop_epoch_ms(struct loop *loop)
{
	return clock_epoch_ms();
}

int64_t loop_lag_us(const struct loop *loop)
{
	return 0;
}

int64_t loop_last_turn_us(const struct loop *loop)
{
	return world.now_us;
}

void loop_timer_init(struct loop *loop, struct loop_timer *timer, loop_fn fn, void *ctx)
{
	*timer = (struct loop_timer){.loop = loop, .fn = fn, .ctx = ctx, .event = xcalloc(1, sizeof(struct event))};
}

void loop_timer_set(struct loop_timer *timer, int64_t at_us)
{
	event_set(timer->event, timer->loop, at_us, timer->fn, timer->ctx);
}

void loop_timer_clear(struct loop_timer *timer)
{
	if (timer->event)
		event_clear(timer->event);
}

void loop_timer_done(struct loop_timer *timer)
{
	loop_timer_clear(timer);
	free(timer->event);
	timer->event = NULL;
}

void loop_after_turn(struct loop *loop, loop_fn fn, void *ctx)
{
	assert(loop->n_hooks < HOOKS_MAX);
	loop->hooks[loop->n_hooks].fn = fn;
	loop->hooks[loop->n_hooks++].ctx = ctx;
}

void loop_again(struct loop *loop)
{
	loop->is_again = true;
}

/* Signals are sent by calling worker_stop and worker_reload. */
void loop_signal(struct loop *loop, int signum, loop_fd_fn fn, void *ctx)
{
}

/* ---- the helper: a job runs some time after it was asked for ---- */

struct helper {
	struct loop *loop;
	struct helper_job *first, *last;
	size_t n_pending;
	struct event ready;
};

static void on_helper(void *ctx)
{
	struct helper *helper = ctx;
	struct helper_job *job = helper->first;

	helper->first = job->next;
	helper->n_pending--;
	if (helper->first)
		event_set(&helper->ready, helper->loop, world.now_us + latency_us(2000), on_helper, helper);
	job->run(job->ctx);
	if (job->done)
		job->done(job->ctx);
}

struct helper *helper_new(struct loop *loop)
{
	struct helper *helper = xcalloc(1, sizeof(*helper));

	helper->loop = loop;
	return helper;
}

bool helper_free(struct helper *helper, int64_t wait_ms)
{
	if (!helper)
		return true;
	event_clear(&helper->ready);
	free(helper);
	return true;
}

void helper_submit(struct helper *helper, struct helper_job *job)
{
	job->next = NULL;
	if (helper->first)
		helper->last->next = job;
	else
		helper->first = job;
	helper->last = job;
	if (helper->n_pending++ == 0)
		event_set(&helper->ready, helper->loop, world.now_us + latency_us(2000), on_helper, helper);
}

uint64_t helper_running(struct helper *helper)
{
	return 0;
}

size_t helper_pending(const struct helper *helper)
{
	return helper->n_pending;
}

/* ---- http.listen is empty ---- */

int httpd_new(struct loop *loop, struct log *log, const char *listen, bool fall_back, httpd_fn fn, void *ctx,
	      struct httpd **ret_httpd, char **ret_error)
{
	abort();
}

void httpd_free(struct httpd *httpd)
{
}
