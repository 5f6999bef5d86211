/* The producer's side of a transaction: the states of worker/kafka_txn.c, and each of its requests as two events, so that anything may
 * come between them: it arrives at the broker (arrives), and the answer comes back (answers). */
#include "producer.h"

#include "err.h"
#include "kafka_in.h"

#include <inttypes.h>
#include <stdio.h>

#define INIT_US (300 * US_PER_MS)
#define REBUILD_US US_PER_S
#define CAREFUL_US (30 * US_PER_S)

static void ask(struct kafka_out *out, int64_t typical_us, loop_fn on_arrives)
{
	event_set(&out->arrives, NULL, broker_time(latency_us(typical_us)), on_arrives, out);
}

/* What may happen to any request: it gets lost, or its answer, or the handle breaks. True when it is to be carried out. */
static bool arrives(struct kafka_out *out, loop_fn on_answers)
{
	int64_t answer_us = latency_us(broker.commit_us);

	out->is_lost = chance(broker.commit_fails);
	bool is_carried_out = !out->is_lost && !out->is_applied;
	out->is_lost |= chance(broker.commit_unsure);
	if (chance(broker.producer_breaks)) {
		out->verdict = VERDICT_FENCED;
		is_carried_out &= chance(0.5);
	}
	if (chance(broker.is_slow))
		answer_us += (int64_t)rnd(6 * US_PER_S);
	event_set(&out->answers, out->loop, world.now_us + answer_us, on_answers, out);
	return is_carried_out;
}

static void begin_request(struct kafka_out *out)
{
	out->is_applied = false;
	out->verdict = VERDICT_OK;
}

static void take(struct kafka_out *out, enum verdict verdict)
{
	out->is_applied = verdict == VERDICT_OK;
	out->verdict = MAX(out->verdict, verdict);
}

static void drop_offsets(struct kafka_out *out)
{
	for (int32_t p = 0; p < PARTS_MAX; p++) {
		free(out->offsets[p].metadata);
		out->offsets[p] = (struct txn_offset){.offset = -1};
	}
}

static void say_end(struct kafka_out *out, enum txn_end end)
{
	out->state = TXN_READY;
	drop_offsets(out);
	if (out->wants_care)
		out->careful_until_us = world.now_us + CAREFUL_US;
	out->wants_care = false;
	trace(out->machine, end == TXN_COMMITTED ? "committed" : end == TXN_VOID ? "void" : "in doubt", 0, 0);
	out->events->on_txn(out->ctx, end, "simulated");
	producer_say_room(out);
}

/* ---- init ---- */

static void on_init_arrives(void *ctx);

static void on_init_answers(void *ctx)
{
	struct kafka_out *out = ctx;

	if (out->verdict == VERDICT_FENCED) {
		txn_break(out);
	} else if (out->is_lost) {
		ask(out, INIT_US, on_init_arrives);
	} else {
		out->state = TXN_READY;
		trace(out->machine, "producer ready", out->epoch, out->is_in_doubt);
		if (out->is_in_doubt) {
			out->is_in_doubt = false;
			seen.txn_doubts++;
			say_end(out, TXN_IN_DOUBT);
		} else {
			producer_say_room(out);
		}
	}
}

static void on_init_arrives(void *ctx)
{
	struct kafka_out *out = ctx;

	if (!arrives(out, on_init_answers))
		return;
	out->epoch = coordinator_init(out->txn);
	take(out, VERDICT_OK);
}

static void init(struct kafka_out *out)
{
	out->state = TXN_INIT;
	begin_request(out);
	ask(out, INIT_US, on_init_arrives);
}

void txn_start(struct kafka_out *out, const char *instance)
{
	out->txn = coordinator_get(instance);
	drop_offsets(out);
	init(out);
}

/* ---- the handle breaks ---- */

/* A request on its way: nobody hears its answer any more. */
static void forget_request(struct kafka_out *out)
{
	if (out->arrives.due.place && world.now_us >= world.outage_until_us && chance(0.5))
		out->arrives.fn(out);
	event_clear(&out->arrives);
	event_clear(&out->answers);
}

static void on_rebuild(void *ctx)
{
	struct kafka_out *out = ctx;

	/* The old one goes first. */
	if (out->sendings.len)
		event_set(&out->answers, out->loop, world.now_us + 100 * US_PER_MS, on_rebuild, out);
	else
		init(out);
}

void txn_break(struct kafka_out *out)
{
	if (out->state == TXN_BROKEN)
		return;
	trace(out->machine, "producer broken", out->state, 0);
	seen.broken[out->state]++;
	out->is_in_doubt |= out->state != TXN_INIT && out->state != TXN_READY;
	forget_request(out);
	out->state = TXN_BROKEN;
	drop_offsets(out);
	producer_purge(out);
	event_set(&out->answers, out->loop, world.now_us + latency_us(REBUILD_US), on_rebuild, out);
}

/* At the crash. */
void txn_stop(struct kafka_out *out)
{
	if (out->state == TXN_OFF)
		return;
	seen.killed[out->state]++;
	forget_request(out);
	drop_offsets(out);
}

/* ---- records ---- */

static bool is_careful(const struct kafka_out *out)
{
	return world.now_us < out->careful_until_us;
}

bool txn_admits(struct kafka_out *out, const struct delivery *delivery)
{
	if (out->state == TXN_READY)
		out->state = TXN_OPEN;
	if (out->sendings.len && is_careful(out))
		return false;
	return out->state == TXN_OPEN || (out->state == TXN_CLOSING && delivery->joins);
}

int txn_on_delivery(struct kafka_out *out, int err)
{
	/* Of a whole batch it is not known which one is too large. */
	if (err == -ERR_KAFKA_TOO_LARGE) {
		if (chance(0.7))
			out->topic_max_until_us = world.now_us + 60 * US_PER_S;
		if (out->wants_care || !is_careful(out)) {
			out->wants_care = true;
			err = -ERR_KAFKA;
		}
	}
	if (err)
		kafka_out_abort(out);
	return err;
}

/* ---- abort ---- */

static void on_abort_arrives(void *ctx);

static void on_abort_answers(void *ctx)
{
	struct kafka_out *out = ctx;

	if (out->verdict == VERDICT_FENCED)
		txn_break(out);
	else if (out->is_lost)
		ask(out, broker.commit_us, on_abort_arrives);
	else if (out->sendings.len) /* the call waits for them */
		event_set(&out->answers, out->loop, world.now_us + 5 * US_PER_MS, on_abort_answers, out);
	else
		say_end(out, TXN_VOID);
}

static void on_abort_arrives(void *ctx)
{
	struct kafka_out *out = ctx;

	if (arrives(out, on_abort_answers))
		take(out, coordinator_end(out->txn, out->epoch, false));
}

static void abort_it(struct kafka_out *out)
{
	out->state = TXN_ABORTING;
	trace(out->machine, "aborts", (int64_t)out->sendings.len, 0);
	producer_purge(out);
	begin_request(out);
	ask(out, broker.commit_us, on_abort_arrives);
}

void kafka_out_abort(struct kafka_out *out)
{
	if (out->state == TXN_OPEN || out->state == TXN_CLOSING)
		abort_it(out);
}

/* ---- commit ---- */

bool kafka_out_quiesce(struct kafka_out *out)
{
	if (out->state == TXN_READY || out->state == TXN_OPEN)
		out->state = TXN_CLOSING;
	bool is_quiet = out->state == TXN_CLOSING && out->sendings.len == 0;
	out->is_full |= !is_quiet;
	return is_quiet;
}

static void on_end_arrives(void *ctx);

static void on_end_answers(void *ctx)
{
	struct kafka_out *out = ctx;

	if (out->verdict == VERDICT_FENCED)
		txn_break(out);
	else if (out->is_lost)
		ask(out, broker.commit_us, on_end_arrives);
	else
		say_end(out, TXN_COMMITTED);
}

static void on_end_arrives(void *ctx)
{
	struct kafka_out *out = ctx;

	if (arrives(out, on_end_answers))
		take(out, coordinator_end(out->txn, out->epoch, true));
}

static void on_offsets_arrive(void *ctx);

static void on_offsets_answer(void *ctx)
{
	struct kafka_out *out = ctx;

	if (out->verdict == VERDICT_FENCED) {
		txn_break(out);
	} else if (out->verdict == VERDICT_REFUSED) {
		seen.txn_refused++;
		abort_it(out);
	} else if (out->is_lost) {
		ask(out, broker.commit_us, on_offsets_arrive);
	} else {
		begin_request(out);
		ask(out, broker.commit_us, on_end_arrives);
	}
}

static void on_offsets_arrive(void *ctx)
{
	struct kafka_out *out = ctx;

	if (!arrives(out, on_offsets_answer))
		return;
	if (chance(broker.commit_fails * 0.1))
		take(out, VERDICT_REFUSED);
	else
		take(out, coordinator_offsets(out->txn, out->epoch, &out->member, out->offsets));
}

void kafka_out_commit(struct kafka_out *out, const struct kafka_commit *rows, size_t n, struct kafka_member *member)
{
	if (out->state != TXN_CLOSING || out->sendings.len)
		fail("machine %d commits a transaction in state %d with %zu records under way", out->machine->id, (int)out->state,
		     out->sendings.len);
	consumer_check_commit(out->machine->in, rows, n, out->txn->epoch == out->epoch ? out->txn : NULL);
	for (size_t i = 0; i < n; i++)
		out->offsets[kafka_part_partition(rows[i].part)] = (struct txn_offset){rows[i].offset, xstrdup(rows[i].metadata)};
	out->member = *member;
	out->state = TXN_COMMITTING;
	trace(out->machine, "commits", (int64_t)n, out->member.generation);
	begin_request(out);
	ask(out, broker.commit_us, on_offsets_arrive);
}
