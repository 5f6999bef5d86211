#include "check.h"

#include "broker.h"
#include "pipeline.h"

#include <inttypes.h>
#include <stdio.h>

/* What an arena may have grown by since it was counted. */
#define MEMORY_SLACK 4096
#define MEMORY_EVERY 32

#define IS(machine, left, op, right, what)                                                                             \
	do {                                                                                                           \
		int64_t left_ = (int64_t)(left), right_ = (int64_t)(right);                                            \
		if (!(left_ op right_))                                                                                \
			fail("machine %d: %s: %s = %" PRId64 ", %s = %" PRId64, (machine)->id, what, #left, left_, #right, right_); \
	} while (0)

struct host_sums {
	struct machine *machine;
	int64_t inflight;
};

static void check_host(void *ctx, struct host *host)
{
	struct host_sums *sums = ctx;
	int64_t cap = host_options(host)->host_inflight;

	sums->inflight += host_inflight(host);
	if (!sums->machine->was_reloaded)
		IS(sums->machine, host_inflight(host), <=, cap, host_key(host));
	/* Lines that wait for it are looked at again when a slot comes back, or at a time. */
	if (!list_empty(host_lines(host)) && host_inflight(host) < host_inflight_max(host) && !host_timer(host)->place)
		fail("machine %d: lines wait for %s, and nothing will wake them", sums->machine->id, host_key(host));
}

static bool memory_is_short(const struct pipeline *pl)
{
	return (int64_t)pipeline_bytes(pl) > pl->opts->memory_max / 100 * 85;
}

static void check_partition(struct machine *machine, const struct partition *part)
{
	const struct pipeline *pl = machine->pl;
	const struct admit *adm = &pl->admit;

	if (!machine->was_reloaded)
		IS(machine, part->admit.inflight, <=, adm->part_inflight_max, "slots of a partition");
	if (!part->is_draining) /* else what was let go stays open */
		IS(machine, part->win ? (size_t)window_open(part->win) : 0, ==, part->open.len, "open jobs and open offsets");
	if (part->win)
		IS(machine, window_span(part->win), <=, MAX(pl->opts->partition_window, window_span(part->win) * !list_empty(&part->held)),
		   "span of the window");
	if (!list_empty(&part->held) && list_empty(&part->open))
		fail("machine %d: records are held back, and nothing open will let them in", machine->id);
	if (part->is_draining)
		IS(machine, part->admit.waiting, ==, 0, "a draining partition starts nothing");
	/* Timers are of whole milliseconds, and a turn comes first. */
	if (part->is_draining && world.now_us >= part->cut_us + 5 * US_PER_MS)
		IS(machine, part->admit.inflight, ==, 0, "transfers after the cut");
	bool names_are_full = part->admit.resolving >= MAX(adm->part_inflight_max / 2, 1) ||
			      adm->resolving >= MAX(adm->inflight_max / 2, 1);
	bool slots_are_out = adm->inflight >= adm->inflight_max || part->admit.inflight >= adm->part_inflight_max;
	if (machine->loop->is_again || memory_is_short(pl) || slots_are_out)
		return;
	if (!list_empty(&part->admit.ready))
		fail("machine %d: partition %d has ready jobs and free slots, and the turn is over", machine->id,
		     kafka_part_partition(part->kafka));
	if (!list_empty(&part->admit.unnamed) && !names_are_full)
		fail("machine %d: partition %d has lines that wait for a name without cause", machine->id,
		     kafka_part_partition(part->kafka));
}

/* The count is what the jobs hold: their arenas, answers and payloads. */
static void check_memory(struct machine *machine)
{
	const struct pipeline *pl = machine->pl;
	size_t bytes = 0;

	for (int state = 0; state < TASK_STATES; state++)
		LIST_EACH(&pl->tasks.in[state], task, struct task, node) {
			size_t held = task->arena.bytes;
			if (task->resp)
				held += sizeof(*task->resp) + task->resp->body.cap + task->resp->headers.cap;
			/* After a dead letter the body is counted twice until the delivery: too much is the safe side. One that was
			 * aborted goes again. */
			bool has_letter = task->dead_letter != DEAD_LETTER_NONE || (broker.is_exactly_once && state == TASK_DELIVERING);
			if (task->partition && !has_letter && task->bytes > held + MEMORY_SLACK)
				fail("machine %d: job %" PRId64 " in state %d holds %zu bytes and counts %zu", machine->id,
				     task->rec.offset, state, held, task->bytes);
			if (task->partition && task->bytes + MEMORY_SLACK < held)
				fail("machine %d: job %" PRId64 " in state %d holds %zu bytes and counts only %zu", machine->id,
				     task->rec.offset, state, held, task->bytes);
			bytes += task->partition ? task->bytes : 0;
		}
	IS(machine, bytes, ==, pl->task_bytes, "memory counted by job");
}

void check_machine(struct machine *machine)
{
	struct pipeline *pl = machine->pl;
	const struct list *in = pl->tasks.in;
	struct host_sums sums = {.machine = machine};
	int64_t inflight = 0, waiting = 0, resolving = 0, held = 0;

	machine->pl_was_paused |= pl->is_paused || memory_is_short(pl);
	IS(machine, in[TASK_WAITING].len, ==, pl->admit.waiting, "waiting");
	IS(machine, in[TASK_RESOLVING].len, ==, pl->admit.resolving, "resolving");
	IS(machine, in[TASK_RESOLVING].len + in[TASK_FETCHING].len, ==, pl->admit.inflight, "in flight");
	if (!machine->was_reloaded)
		IS(machine, pl->admit.inflight, <=, pl->admit.inflight_max, "slots of the process");
	LIST_EACH(&pl->partitions, part, struct partition, node) {
		check_partition(machine, part);
		inflight += part->admit.inflight;
		waiting += part->admit.waiting;
		held += (int64_t)part->held.len;
		resolving += part->admit.resolving;
	}
	IS(machine, in[TASK_NEW].len, ==, held, "only what is held back is new after the turn");
	IS(machine, inflight, ==, pl->admit.inflight, "in flight by partition");
	IS(machine, waiting, ==, pl->admit.waiting, "waiting by partition");
	IS(machine, resolving, ==, pl->admit.resolving, "resolving by partition");
	if (world.n_steps % MEMORY_EVERY == 0)
		check_memory(machine);
	if (machine->stop_at_us && list_empty(&pl->partitions) && !consumer_is_leaving(machine->in))
		fail("machine %d has nothing left to drain and does not leave", machine->id);
	hosts_each(pl->admit.hosts, check_host, &sums);
	IS(machine, sums.inflight, ==, pl->admit.inflight, "in flight by host");
}

void check_idle(struct machine *machine)
{
	const struct pipeline *pl = machine->pl;

	for (int state = 0; state < TASK_STATES; state++)
		if (!list_empty(&pl->tasks.in[state]))
			fail("machine %d: %zu jobs in state %d when all is done", machine->id, pl->tasks.in[state].len, state);
	IS(machine, pipeline_bytes(pl), ==, robots_cache_bytes(pl->robots), "memory counted when nothing is held");
	LIST_EACH(&pl->partitions, part, struct partition, node) {
		IS(machine, part->open.len + part->held.len, ==, 0, "open jobs when all is done");
		if (part->win && window_is_dirty(part->win))
			fail("machine %d: something is not committed when all is done", machine->id);
	}
}

void print_machine(const struct machine *machine)
{
	static const char *const names[TASK_STATES] = {"new", "later", "robots", "waiting", "resolving", "fetching", "backoff", "delivering"};
	const struct pipeline *pl = machine->pl;

	if (!machine->worker)
		return;
	fprintf(stderr, "m%d:", machine->id);
	for (int state = 0; state < TASK_STATES; state++)
		if (pl->tasks.in[state].len)
			fprintf(stderr, " %s %zu", names[state], pl->tasks.in[state].len);
	fprintf(stderr, " bytes %zu reading %d commit in flight %d\n", pipeline_bytes(pl), pl->is_reading, pl->commit_in_flight);
	LIST_EACH(&pl->partitions, part, struct partition, node)
		fprintf(stderr, "    partition %d: open %zu held %zu in flight %d waiting %d span %d dry %d may_read %d draining %d\n",
			kafka_part_partition(part->kafka), part->open.len, part->held.len, part->admit.inflight, part->admit.waiting,
			part->win ? window_span(part->win) : -1, part->is_dry, part->may_read, part->is_draining);
}
