#include "admit.h"

#include <uthash.h>

/* An empty line is kept for so long: a busy host's comes and goes with each job. */
#define LINE_KEEP_US 10000000

/* Waiting jobs of one partition for one host. */
struct line {
	UT_hash_handle hh;
	struct list_node node; /* on part->ready, part->unnamed or host_lines(host); on adm->empty when empty */
	struct admit_part *part;
	struct host *host;
	struct list again, fresh;
	int64_t blocked_us;       /* total time that this line waited for its host, without the running wait */
	int64_t blocked_since_us; /* 0 = it does not wait for the host */
	int64_t empty_since_us;
	bool is_seen; /* a new job came for the host: redirect hops say nothing about how jobs are keyed */
};

static struct turn *line_first(const struct line *line)
{
	const struct list *list = list_empty(&line->again) ? &line->fresh : &line->again;

	return LIST_ENTRY(list_first(list), struct turn, node);
}

static int64_t line_blocked_us(const struct line *line, int64_t now_us)
{
	return line->blocked_us + (line->blocked_since_us ? now_us - line->blocked_since_us : 0);
}

/* A partition is on the list of those that can start something exactly when it can. */
static void part_place(struct admit_part *part)
{
	struct admit *adm = part->admit;
	bool can_start = !list_empty(&part->ready) && part->inflight < adm->part_inflight_max;
	struct list *list = can_start ? &adm->ready : &adm->resting;

	if (part->node.list == list)
		return;
	list_remove(&part->node);
	list_push(list, &part->node);
}

static void line_unblock(struct line *line, int64_t now_us)
{
	if (line->blocked_since_us) {
		line->blocked_us += now_us - line->blocked_since_us;
		line->blocked_since_us = 0;
	}
}

/* The only function that moves a line. */
static void line_place(struct line *line, struct list *list, int64_t now_us)
{
	struct admit_part *part = line->part;

	list_remove(&line->node);
	if (list == host_lines(line->host))
		line->blocked_since_us = line->blocked_since_us ? line->blocked_since_us : now_us;
	else
		line_unblock(line, now_us);
	list_push(list, &line->node);
	part_place(part);
}

static struct line *line_get(struct admit_part *part, struct host *host)
{
	struct line *line;

	HASH_FIND_PTR(part->lines, &host, line);
	if (line)
		return line;
	line = xcalloc(1, sizeof(*line));
	line->part = part;
	line->host = host;
	list_init(&line->again);
	list_init(&line->fresh);
	host_hold_ref(host);
	HASH_ADD_PTR(part->lines, host, line);
	return line;
}

static void line_free(struct line *line, int64_t now_us)
{
	list_remove(&line->node);
	if (line->is_seen)
		host_drop_partition(line->host);
	HASH_DEL(line->part->lines, line);
	host_drop_ref(line->host, now_us);
	free(line);
}

void admit_init(struct admit *adm, int32_t inflight_max, int32_t part_inflight_max, admit_needs_name_fn needs_name, void *ctx)
{
	*adm = (struct admit){.inflight_max = inflight_max,
			      .part_inflight_max = part_inflight_max,
			      .needs_name = needs_name,
			      .ctx = ctx};
	list_init(&adm->ready);
	list_init(&adm->resting);
	list_init(&adm->empty);
	heap_init(&adm->timers);
	adm->hosts = hosts_new();
}

void admit_done(struct admit *adm)
{
	heap_done(&adm->timers);
	hosts_free(adm->hosts);
	adm->hosts = NULL;
}

/* All lines that wait for the host get another look at the next admit_next. */
static void host_wake(struct admit *adm, struct host *host, int64_t now_us)
{
	struct list *lines = host_lines(host);

	heap_remove(&adm->timers, host_timer(host));
	for (struct list_node *node; (node = list_first(lines));) {
		struct line *line = CONTAINER_OF(node, struct line, node);
		line_place(line, &line->part->ready, now_us);
	}
}

/* Half of the slots, so that dead names cannot eat them all; always at least one. */
static bool resolve_is_full(const struct admit_part *part)
{
	const struct admit *adm = part->admit;

	return part->resolving >= MAX(adm->part_inflight_max / 2, 1) || adm->resolving >= MAX(adm->inflight_max / 2, 1);
}

/* The first line that waits for a name is looked at again. False when there is none, or no room for it. */
static bool part_name_freed(struct admit_part *part, int64_t now_us)
{
	struct line *line = LIST_ENTRY(list_first(&part->unnamed), struct line, node);

	if (!line || part->inflight >= part->admit->part_inflight_max || resolve_is_full(part))
		return false;
	line_place(line, &part->ready, now_us);
	return true;
}

/* The room for one name may be any partition's: the process may have been the limit. */
static bool any_name_freed(struct admit *adm, int64_t now_us)
{
	bool is_any = false;

	LIST_EACH(&adm->ready, part, struct admit_part, node)
		is_any |= part_name_freed(part, now_us);
	LIST_EACH(&adm->resting, part, struct admit_part, node)
		is_any |= part_name_freed(part, now_us);
	return is_any;
}

struct wake {
	struct admit *adm;
	int64_t now_us;
};

static void wake_any(void *ctx, struct host *host)
{
	struct wake *wake = ctx;

	host_wake(wake->adm, host, wake->now_us);
}

void admit_set_limits(struct admit *adm, int32_t inflight_max, int32_t part_inflight_max, int64_t now_us)
{
	adm->inflight_max = inflight_max;
	adm->part_inflight_max = part_inflight_max;
	hosts_each(adm->hosts, wake_any, &(struct wake){adm, now_us});
	LIST_EACH(&adm->ready, part, struct admit_part, node)
		part_place(part);
	LIST_EACH(&adm->resting, part, struct admit_part, node)
		part_place(part);
}

void admit_part_init(struct admit *adm, struct admit_part *part)
{
	*part = (struct admit_part){.admit = adm};
	list_init(&part->ready);
	list_init(&part->unnamed);
	list_push(&adm->resting, &part->node);
}

void admit_part_done(struct admit_part *part, int64_t now_us)
{
	struct line *line, *next;

	assert(part->waiting == 0 && part->inflight == 0);
	HASH_ITER(hh, part->lines, line, next)
		line_free(line, now_us);
	list_remove(&part->node);
}

int32_t admit_room(const struct admit_part *part)
{
	const struct admit *adm = part->admit;
	int32_t room = MIN(adm->part_inflight_max - part->inflight, adm->inflight_max - adm->inflight);

	/* Ready lines are only left over when slots ran out. */
	return list_empty(&part->ready) ? MAX(room, 0) : 0;
}

void admit_wait(struct admit_part *part, struct turn *turn, struct host *host, int64_t now_us)
{
	struct line *line = line_get(part, host);

	assert(!turn->line && !turn->has_slots);
	turn->line = line;
	turn->host = host;
	turn->part = part;
	turn->since_us = now_us;
	turn->host_blocked_us = line_blocked_us(line, now_us);
	list_push(turn->had_turn ? &line->again : &line->fresh, &turn->node);
	part->waiting++;
	part->admit->waiting++;
	if (!turn->had_turn && !line->is_seen) {
		line->is_seen = true;
		host_add_partition(host);
	}
	if (!line->node.list || line->node.list == &part->admit->empty)
		line_place(line, &part->ready, now_us);
}

void admit_leave(struct turn *turn, int64_t now_us)
{
	struct line *line = turn->line;

	if (!line)
		return;
	turn->politeness_us += line_blocked_us(line, now_us) - turn->host_blocked_us;
	list_remove(&turn->node);
	turn->line = NULL;
	line->part->waiting--;
	line->part->admit->waiting--;
	if (line_first(line))
		return;
	line->empty_since_us = now_us;
	line_place(line, &line->part->admit->empty, now_us);
}

static void turn_start(struct turn *turn, int64_t now_us)
{
	struct admit_part *part = turn->part;

	admit_leave(turn, now_us);
	turn->had_turn = true;
	turn->has_slots = true;
	turn->is_down = false;
	turn->started_us = now_us;
	turn->host_slot = host_start(turn->host, now_us);
	part->inflight++;
	part->admit->inflight++;
	part_place(part);
}

/* Puts the line where it waits without cost, or says that its first turn may go. */
static bool line_may_start(struct line *line, struct turn *turn, int64_t now_us, bool *ret_is_down)
{
	struct admit_part *part = line->part;
	int64_t wake_us;
	enum host_answer answer = host_ask(line->host, now_us, &wake_us);

	*ret_is_down = answer == HOST_IS_DOWN;
	if (answer == HOST_IS_DOWN)
		return true;
	if (answer == HOST_WAITS) {
		line_place(line, host_lines(line->host), now_us);
		if (wake_us != INT64_MAX)
			heap_set(&part->admit->timers, host_timer(line->host), wake_us);
		return false;
	}
	if (resolve_is_full(part) && part->admit->needs_name(part->admit->ctx, turn)) {
		line_place(line, &part->unnamed, now_us);
		return false;
	}
	return true;
}

/* The line and the partition that just had a turn go to the back of their queues. */
static void rotate(struct list_node *node)
{
	struct list *list = node->list;

	if (list && list->len > 1) {
		list_remove(node);
		list_push(list, node);
	}
}

struct turn *admit_next(struct admit *adm, int64_t now_us)
{
	while (adm->inflight < adm->inflight_max) {
		struct admit_part *part = LIST_ENTRY(list_first(&adm->ready), struct admit_part, node);
		/* A line that was let go before may have found its host busy, or its name known by now: then the room is still there. */
		if (!part && any_name_freed(adm, now_us))
			continue;
		if (!part)
			return NULL;
		struct line *line = LIST_ENTRY(list_first(&part->ready), struct line, node);
		struct turn *turn = line_first(line);
		bool is_down;
		if (!line_may_start(line, turn, now_us, &is_down))
			continue;
		rotate(&line->node);
		rotate(&part->node);
		if (is_down) {
			admit_leave(turn, now_us);
			turn->is_down = true;
		} else {
			turn_start(turn, now_us);
		}
		return turn;
	}
	return NULL;
}

bool admit_take(struct turn *turn, int64_t now_us)
{
	struct admit_part *part = turn->part;
	int64_t wake_us;

	if (!turn->line || part->inflight >= part->admit->part_inflight_max || part->admit->inflight >= part->admit->inflight_max)
		return false;
	if (host_ask(turn->host, now_us, &wake_us) != HOST_MAY_START)
		return false;
	turn_start(turn, now_us);
	return true;
}

void admit_set_resolving(struct turn *turn, bool is_resolving)
{
	struct admit_part *part = turn->part;
	struct admit *adm = part->admit;

	if (turn->is_resolving == is_resolving)
		return;
	turn->is_resolving = is_resolving;
	part->resolving += is_resolving ? 1 : -1;
	adm->resolving += is_resolving ? 1 : -1;
	if (!is_resolving)
		any_name_freed(adm, turn->since_us);
}

bool admit_release(struct turn *turn, int64_t now_us, enum host_report report, int err)
{
	struct admit_part *part = turn->part;

	if (!turn->has_slots)
		return false;
	admit_set_resolving(turn, false);
	turn->has_slots = false;
	part->inflight--;
	part->admit->inflight--;
	bool opened = host_finish(turn->host, turn->started_us, now_us, report, err);
	host_wake(part->admit, turn->host, now_us);
	part_place(part);
	return opened;
}

void admit_sweep(struct admit *adm, int64_t now_us, size_t max)
{
	struct line *line;

	for (size_t i = 0; i < max && (line = LIST_ENTRY(list_first(&adm->empty), struct line, node)); i++) {
		if (line->empty_since_us + LINE_KEEP_US > now_us)
			break;
		line_free(line, now_us);
	}
	hosts_sweep(adm->hosts, now_us, max);
}

void admit_tick(struct admit *adm, int64_t now_us)
{
	for (struct heap_node *timer; (timer = heap_first(&adm->timers)) && timer->at_us <= now_us;)
		host_wake(adm, host_of_timer(timer), now_us);
}

int64_t admit_wake_us(const struct admit *adm)
{
	const struct heap_node *timer = heap_first(&adm->timers);

	return timer ? timer->at_us : INT64_MAX;
}
