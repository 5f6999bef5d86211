/* kafka_in of the simulation: a member of the group, the partitions that it believes in, reading and commits. */
#include "coordinator.h"

#include "err.h"
#include "kafka_in.h"
#include "pipeline.h"

#include <inttypes.h>
#include <stdio.h>

#define SET_WORDS (OFFSETMAP_SPAN_MAX / 64 + 1)
#define FETCH_US (5 * US_PER_MS)
/* After the drain of a revoked partition: lifecycle.c's REVOKE_DELIVER_US. */
#define REVOKE_DELIVER_US (3 * US_PER_S)
/* For a transaction's end. */
#define HOLD_US (3 * US_PER_S)
#define SLACK_US (100 * US_PER_MS)

struct kafka_part {
	struct kafka_in *in;
	int32_t partition;
	int64_t term;
	void *ctx;
	bool is_begun, is_positioned;
	size_t next, fetched; /* index of the next record to give; of the first that has not arrived */
	struct event begin, fetch;
};

struct commit_row {
	int32_t partition;
	int64_t term, offset;
	char *metadata;
};

struct kafka_in {
	struct machine *machine;
	struct loop *loop;
	const struct options *opts;
	const struct kafka_in_events *events;
	void *ctx;
	struct member *member; /* NULL: it left */
	struct kafka_part *parts[PARTS_MAX];
	size_t n_parts;
	int32_t assigned[PARTS_MAX]; /* to be told */
	size_t n_assigned;
	struct event rebalance; /* the next thing that the group tells */
	bool is_revoking, is_lost, is_closing, is_member;
	bool is_restarting, is_held;
	struct event unassign; /* handed back, and a transaction is waited for */
	struct kafka_member given, taken; /* with the assignment that is to be told; with the last one told */
	int64_t revoke_us;
	loop_fn on_closed;
	void *closed_ctx;
	struct commit_row rows[PARTS_MAX];
	size_t n_rows; /* of the commit under way */
	int commit_err;
	bool is_applied;
	struct event commit_arrives, commit_answers;
	uint8_t *views; /* what the last read gave */
};

bool consumer_is_leaving(const struct kafka_in *in)
{
	return in->is_closing;
}

struct member *consumer_member(const struct kafka_in *in)
{
	return in->member;
}

static struct kafka_part *part_of(const struct kafka_in *in, int32_t partition)
{
	for (size_t i = 0; i < in->n_parts; i++)
		if (in->parts[i]->partition == partition)
			return in->parts[i];
	return NULL;
}

int64_t consumer_term(const struct kafka_in *in, int32_t partition)
{
	const struct kafka_part *part = part_of(in, partition);

	return part ? part->term : 0;
}

/* ---- partitions come ---- */

static void on_fetch(void *ctx)
{
	struct kafka_part *part = ctx;
	struct topic_part *log = &broker.parts[part->partition];

	if (world.now_us < world.outage_until_us) {
		event_set(&part->fetch, part->in->loop, broker_time(latency_us(FETCH_US)), on_fetch, part);
		return;
	}
	size_t more = rnd(64) + 1; /* MIN looks at its arguments twice */
	part->fetched = MIN(part->fetched + more, log->n_visible);
	if (part->fetched < log->n_visible)
		event_set(&part->fetch, part->in->loop, world.now_us + latency_us(FETCH_US), on_fetch, part);
	part->in->events->on_wake(part->in->ctx);
}

void consumer_wake(struct kafka_in *in, int32_t partition)
{
	struct kafka_part *part = part_of(in, partition);

	if (part && part->is_positioned && !part->fetch.due.place && !part->fetch.active.list)
		event_set(&part->fetch, in->loop, broker_time(latency_us(FETCH_US)), on_fetch, part);
}

/* In between somebody else may have become the owner: then what we have is already lost. */
static void set_position(struct kafka_part *part)
{
	const struct topic_part *log = &broker.parts[part->partition];

	while (part->next < log->n_visible && log->recs[part->next].offset < log->committed)
		part->next++;
	part->fetched = part->next;
	part->is_positioned = true;
}

static void on_begin(void *ctx)
{
	struct kafka_part *part = ctx;
	struct topic_part *log = &broker.parts[part->partition];

	if (world.now_us < world.outage_until_us || coordinator_is_unstable(part->partition) || chance(broker.commit_fails)) {
		event_set(&part->begin, part->in->loop, broker_time(200 * US_PER_MS), on_begin, part);
		return;
	}
	part->is_begun = true;
	if (!part->is_positioned)
		set_position(part);
	trace(part->in->machine, "begins at", part->partition, log->committed);
	part->in->events->on_begin(part->in->ctx, part, log->committed, log->metadata, strlen(log->metadata));
	consumer_wake(part->in, part->partition);
}

static void part_add(struct kafka_in *in, int32_t partition, int64_t term)
{
	struct kafka_part *part = xcalloc(1, sizeof(*part));

	*part = (struct kafka_part){.in = in, .partition = partition, .term = term};
	if (!coordinator_is_unstable(partition))
		set_position(part);
	in->parts[in->n_parts++] = part;
	event_set(&part->begin, in->loop, broker_time(latency_us(2 * US_PER_MS)), on_begin, part);
	trace(in->machine, "assigned", partition, part->term);
	in->events->on_assign(in->ctx, part);
}

static void part_free(struct kafka_part *part)
{
	event_clear(&part->begin);
	event_clear(&part->fetch);
	free(part);
}

static void on_assign(void *ctx)
{
	struct kafka_in *in = ctx;

	in->member->state = MEMBER_STABLE;
	in->is_member = true;
	in->taken = in->given;
	for (size_t i = 0; i < in->n_assigned; i++)
		part_add(in, in->assigned[i], broker.parts[in->assigned[i]].term);
	in->n_assigned = 0;
	if (broker.is_rebalancing || in->is_closing)
		consumer_revoke(in);
}

void consumer_assign(struct kafka_in *in, const int32_t *partitions, size_t n)
{
	memcpy(in->assigned, partitions, n * sizeof(*partitions));
	in->n_assigned = n;
	in->given = (struct kafka_member){in->member->id, broker.generation};
	event_set(&in->rebalance, in->loop, world.now_us + latency_us(20 * US_PER_MS), on_assign, in);
}

/* ---- partitions go ---- */

static void on_left(void *ctx)
{
	struct kafka_in *in = ctx;

	in->on_closed(in->closed_ctx);
}

static void leave_or_join(struct kafka_in *in)
{
	if (in->is_closing) {
		struct member *member = in->member;
		in->member = NULL;
		group_remove(member);
		event_set(&in->rebalance, in->loop, world.now_us + latency_us(5 * US_PER_MS), on_left, in);
	} else {
		group_joins(in->member);
	}
}

static void revoke(struct kafka_in *in, bool is_lost)
{
	in->is_revoking = true;
	in->is_lost = is_lost;
	in->revoke_us = world.now_us;
	trace(in->machine, is_lost ? "lost" : "revoked", (int64_t)in->n_parts, 0);
	if (is_lost)
		seen.losts++;
	else
		seen.revokes++;
	in->events->on_revoke(in->ctx, in->parts, in->n_parts, is_lost);
}

static void on_revoke(void *ctx)
{
	struct kafka_in *in = ctx;

	if (in->n_parts == 0 && chance(0.5)) {
		leave_or_join(in);
		return;
	}
	in->member->state = MEMBER_REVOKING;
	revoke(in, false);
}

void consumer_revoke(struct kafka_in *in)
{
	/* It hears of it with its next heartbeat. */
	event_set(&in->rebalance, in->loop, world.now_us + (int64_t)rnd(2 * US_PER_S), on_revoke, in);
}

static void on_lost(void *ctx)
{
	struct kafka_in *in = ctx;

	in->is_member = false;
	if (in->n_parts)
		revoke(in, true);
	else
		leave_or_join(in);
}

void consumer_lost(struct kafka_in *in)
{
	if (in->is_revoking)
		return; /* it learns it when it wants to join again */
	in->n_assigned = 0;
	event_set(&in->rebalance, in->loop, world.now_us + (int64_t)rnd(3 * US_PER_S), on_lost, in);
}

/* From when on the worker may give up on what is not delivered or not committed. */
static int64_t may_give_up_us(const struct kafka_in *in)
{
	int64_t at_us = in->revoke_us + in->opts->rebalance_drain * US_PER_MS + REVOKE_DELIVER_US, total_ms = in->opts->drain_timeout;

	if (in->machine->stop_at_us)
		at_us = MIN(at_us, in->machine->stop_at_us + MAX(total_ms - 1000, total_ms * 3 / 4) * US_PER_MS);
	return at_us;
}

/* A partition is handed back whole, unless the time for that is over. */
static void check_revoked(struct kafka_in *in, const struct kafka_part *part)
{
	const struct topic_part *log = &broker.parts[part->partition];
	size_t unanswered = producer_pending(in->machine->out, part->partition, part->term);

	if (!broker_owns(part->partition, in->member, part->term) || (in->is_held && broker.is_exactly_once))
		return; /* lost on the way; a transaction that is being committed is waited for */
	for (size_t i = 0; i < log->n_visible; i++)
		unanswered += log->recs[i].live && !log->recs[i].is_covered;
	if (unanswered && world.now_us < may_give_up_us(in))
		fail("machine %d handed partition %d back with %zu results not acknowledged or not committed, %.3f s too early",
		     in->machine->id, part->partition, unanswered, (double)(may_give_up_us(in) - world.now_us) / 1e6);
	seen.given_up += unanswered;
}

static void forget_parts(struct kafka_in *in)
{
	for (size_t i = 0; i < in->n_parts; i++)
		part_free(in->parts[i]);
	in->n_parts = 0;
	in->is_revoking = false;
}

/* The same partitions again. */
static void finish_restart(struct kafka_in *in)
{
	struct kafka_part was[PARTS_MAX];
	size_t n = in->n_parts;

	for (size_t i = 0; i < n; i++)
		was[i] = *in->parts[i];
	forget_parts(in);
	in->is_restarting = false;
	trace(in->machine, "begins anew", (int64_t)n, 0);
	for (size_t i = 0; i < n; i++)
		part_add(in, was[i].partition, was[i].term);
}

static void on_unassign(void *ctx)
{
	struct kafka_in *in = ctx;

	for (size_t i = 0; i < in->n_parts; i++)
		if (broker_owns(in->parts[i]->partition, in->member, in->parts[i]->term))
			broker_end_term(in->parts[i]->partition);
	forget_parts(in);
	trace(in->machine, "handed back", 0, 0);
	leave_or_join(in);
}

void kafka_in_revoked(struct kafka_in *in)
{
	int64_t held_us = world.now_us - in->revoke_us, most_us = in->opts->rebalance_drain * US_PER_MS + REVOKE_DELIVER_US;

	if (!in->is_revoking || in->unassign.due.place)
		fail("machine %d: kafka_in_revoked without a revoke", in->machine->id);
	if (held_us > most_us + SLACK_US && in->loop->frozen_until_us <= in->revoke_us)
		fail("machine %d held a revoke for %.3f s", in->machine->id, (double)held_us / 1e6);
	if (in->is_restarting) {
		finish_restart(in);
		return;
	}
	for (size_t i = 0; i < in->n_parts && !in->is_lost; i++)
		check_revoked(in, in->parts[i]);
	for (size_t i = 0; i < in->n_parts; i++)
		event_clear(&in->parts[i]->begin);
	if (in->is_held && !in->is_lost)
		event_set(&in->unassign, in->loop, world.now_us + HOLD_US, on_unassign, in);
	else
		on_unassign(in);
}

void kafka_in_close(struct kafka_in *in, loop_fn on_closed, void *ctx)
{
	in->is_closing = true;
	in->is_member = false;
	in->on_closed = on_closed;
	in->closed_ctx = ctx;
	trace(in->machine, "leaves", 0, 0);
	switch (in->member->state) {
	case MEMBER_STABLE:
		event_set(&in->rebalance, in->loop, world.now_us + (chance(0.2) ? (int64_t)rnd(US_PER_S) : 0), on_revoke, in);
		break;
	case MEMBER_JOINING:
		leave_or_join(in);
		break;
	case MEMBER_ASSIGNED:
		/* The assignment may still come, and be taken away at once. */
		if (chance(0.5)) {
			event_clear(&in->rebalance);
			leave_or_join(in);
		}
		break;
	default: /* the end of the revoke goes on from here */
		break;
	}
}

/* ---- reading ---- */

size_t kafka_in_read(struct kafka_part *part, struct record *out, size_t max)
{
	struct kafka_in *in = part->in;
	const struct topic_part *log = &broker.parts[part->partition];
	size_t n = MIN(max, part->fetched - part->next), bytes = 1;

	if (!part->is_begun)
		fail("machine %d reads partition %d before its completed set is here", in->machine->id, part->partition);
	free(in->views);
	for (size_t i = 0; i < n; i++)
		bytes += log->recs[part->next + i].len + sizeof(log->recs[0].key);
	uint8_t *at = in->views = xmalloc(bytes);
	for (size_t i = 0; i < n; i++) {
		const struct rec *rec = &log->recs[part->next + i];
		size_t key_len = strlen(rec->key);
		out[i] = (struct record){.topic = "jobs",
					 .partition = part->partition,
					 .offset = rec->offset,
					 .timestamp_ms = clock_epoch_ms(),
					 .key = {key_len ? at : NULL, key_len},
					 .value = {rec->value ? at + key_len : NULL, rec->len}};
		memcpy(at, rec->key, key_len);
		if (rec->len)
			memcpy(at + key_len, rec->value, rec->len);
		at += key_len + rec->len;
	}
	part->next += n;
	return n;
}

const char *kafka_part_topic(const struct kafka_part *part)
{
	return "jobs";
}

int32_t kafka_part_partition(const struct kafka_part *part)
{
	return part->partition;
}

void kafka_part_set_ctx(struct kafka_part *part, void *ctx)
{
	part->ctx = ctx;
}

void *kafka_part_ctx(const struct kafka_part *part)
{
	return part->ctx;
}

void kafka_part_watermarks(const struct kafka_part *part, int64_t *ret_start, int64_t *ret_end)
{
	*ret_start = 0;
	*ret_end = broker.parts[part->partition].end;
}

bool kafka_part_is_at_stop(const struct kafka_part *part)
{
	return false;
}

int64_t kafka_part_stop(const struct kafka_part *part)
{
	return INT64_MAX;
}

/* ---- commits ---- */

/* Exactly what is acknowledged is committed: not more, or jobs are lost; not less, or a crash doubles more than it must. */
static void check_row(const struct kafka_in *in, const struct kafka_commit *row, const struct txn *txn)
{
	const struct kafka_part *part = row->part;
	const struct topic_part *log = &broker.parts[part->partition];
	uint64_t set[SET_WORDS] = {0};
	size_t n_bits;

	if (row->offset < 0 || row->offset > log->end || offsetmap_decode(row->metadata, strlen(row->metadata), set, SET_WORDS, &n_bits))
		fail("machine %d commits offset %" PRId64 " of partition %d, which ends at %" PRId64 ", with the set %s",
		     in->machine->id, row->offset, part->partition, log->end, row->metadata);
	if (!broker_owns(part->partition, in->member, part->term) || (broker.is_exactly_once && !txn))
		return; /* the broker will refuse it */
	for (size_t i = 0; i < log->n_visible; i++) {
		const struct rec *rec = &log->recs[i];
		bool is_acked = rec->is_covered || (txn ? coordinator_has(txn, rec) : rec->acked_term == part->term);
		bool is_committed = broker_covers(row->offset, set, n_bits, rec->offset);
		if (is_committed && !is_acked)
			fail("machine %d commits %" PRId64 " of partition %d with job %" PRId64
			     " complete, whose result nobody acknowledged",
			     in->machine->id, row->offset, part->partition, rec->offset);
		if (!is_committed && is_acked)
			fail("machine %d commits %" PRId64 " of partition %d without job %" PRId64 ", whose result is acknowledged",
			     in->machine->id, row->offset, part->partition, rec->offset);
	}
}

void consumer_check_commit(const struct kafka_in *in, const struct kafka_commit *rows, size_t n, const struct txn *txn)
{
	if (n == 0 || n > in->n_parts)
		fail("machine %d commits %zu rows for %zu partitions", in->machine->id, n, in->n_parts);
	for (size_t i = 0; i < n; i++)
		check_row(in, &rows[i], txn);
}

static void on_commit_answers(void *ctx)
{
	struct kafka_in *in = ctx;
	int err = in->commit_err;

	for (size_t i = 0; i < in->n_rows; i++)
		free(in->rows[i].metadata);
	in->n_rows = 0;
	seen.commit_errors += err != 0;
	trace(in->machine, "commit answered", err, 0);
	in->events->on_committed(in->ctx, err, err ? "simulated" : "");
}

/* Only whoever owns it in this generation may commit. */
static void on_commit_arrives(void *ctx)
{
	struct kafka_in *in = ctx;
	int64_t answer_us = latency_us(broker.commit_us);

	in->commit_err = chance(broker.commit_fails) ? -ERR_KAFKA : 0;
	for (size_t i = 0; i < in->n_rows; i++)
		if (!in->member || !broker_owns(in->rows[i].partition, in->member, in->rows[i].term))
			in->commit_err = -ERR_KAFKA;
	for (size_t i = 0; i < in->n_rows && !in->commit_err; i++) {
		trace(in->machine, "committed", in->rows[i].partition, in->rows[i].offset);
		broker_commit(in->rows[i].partition, in->rows[i].offset, in->rows[i].metadata);
	}
	if (!in->commit_err && chance(broker.commit_unsure))
		in->commit_err = -ERR_KAFKA; /* it holds, and the answer is lost */
	if (chance(broker.is_slow))
		answer_us += (int64_t)rnd(6 * US_PER_S);
	event_set(&in->commit_answers, in->loop, world.now_us + answer_us, on_commit_answers, in);
}

int kafka_in_commit(struct kafka_in *in, const struct kafka_commit *rows, size_t n)
{
	if (in->n_rows)
		fail("machine %d: two commits at once", in->machine->id);
	consumer_check_commit(in, rows, n, NULL);
	if (chance(broker.commit_fails * 0.2))
		return -ERR_KAFKA;
	for (size_t i = 0; i < n; i++)
		in->rows[i] = (struct commit_row){rows[i].part->partition, rows[i].part->term, rows[i].offset,
						  xstrdup(rows[i].metadata)};
	in->n_rows = n;
	event_set(&in->commit_arrives, NULL, broker_time(latency_us(broker.commit_us)), on_commit_arrives, in);
	return 0;
}

/* ---- made and unmade ---- */

enum kafka_state kafka_in_state(const struct kafka_in *in)
{
	return world.now_us < world.outage_until_us ? KAFKA_STATE_NO_BROKER : KAFKA_STATE_OK;
}

const char *kafka_in_state_detail(const struct kafka_in *in)
{
	return "";
}

/* No rights are simulated. */
void kafka_in_suspect(struct kafka_in *in)
{
}

void kafka_in_deny_id(struct kafka_in *in, const char *id)
{
}

int64_t kafka_in_polled_us(const struct kafka_in *in)
{
	return world.now_us;
}

bool kafka_in_is_member(const struct kafka_in *in)
{
	return in->is_member;
}

int kafka_in_new(struct loop *loop, struct helper *helper, struct metrics *metrics, struct log *log, const struct options *opts,
		 const struct kafka_range *plan, size_t n_plan, const struct kafka_in_events *events, void *ctx,
		 struct kafka_in **ret_in, char **ret_error)
{
	struct kafka_in *in = xcalloc(1, sizeof(*in));

	*in = (struct kafka_in){.machine = loop->machine, .loop = loop, .opts = opts, .events = events, .ctx = ctx};
	loop->machine->in = in;
	in->member = group_add(in);
	group_joins(in->member);
	*ret_in = in;
	return 0;
}

/* What a crash leaves on the wire may still arrive. */
static void drop_commit(struct kafka_in *in)
{
	if (in->commit_arrives.due.place && world.now_us >= world.outage_until_us && chance(0.5))
		on_commit_arrives(in);
	event_clear(&in->commit_arrives);
	event_clear(&in->commit_answers);
	for (size_t i = 0; i < in->n_rows; i++)
		free(in->rows[i].metadata);
}

void kafka_in_free(struct kafka_in *in)
{
	if (!in)
		return;
	drop_commit(in);
	if (in->member)
		group_died(in->member);
	event_clear(&in->rebalance);
	event_clear(&in->unassign);
	for (size_t i = 0; i < in->n_parts; i++)
		part_free(in->parts[i]);
	in->machine->in = NULL;
	free(in->views);
	free(in);
}

/* ---- transactions ---- */

struct kafka_member *kafka_in_member(struct kafka_in *in)
{
	return in->taken.id ? &in->taken : NULL;
}

void kafka_in_refresh(struct kafka_in *in)
{
	(void)in; /* the group here is an eager one */
}

void kafka_in_hold(struct kafka_in *in, bool is_held)
{
	in->is_held = is_held;
	if (is_held || !in->unassign.due.place)
		return;
	event_clear(&in->unassign);
	on_unassign(in);
}

void kafka_in_restart(struct kafka_in *in)
{
	if (in->is_revoking || in->is_closing || !in->n_parts)
		return;
	seen.restarts++;
	in->is_restarting = true;
	revoke(in, true);
}
