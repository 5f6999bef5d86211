/* Transactions of the producer. Happy path: txn_start -> READY -> (a record) -> OPEN -> quiesce: CLOSING -> commit:
 * COMMITTING, on the helper: offsets, then EndTxn -> TXN_COMMITTED -> READY. Failure modes: a record is not delivered,
 * or the broker refuses the offsets (another generation of the group) -> ABORTING -> TXN_VOID; the broker does not
 * answer -> the same call again, for as long as it takes; a fatal error or fenced -> BROKEN, a new handle ->
 * TXN_IN_DOUBT. Fenced twice in five minutes: two processes have one name, and this one ends. */
#include "kafka_out_internal.h"

#include "clock.h"
#include "err.h"

#include <stdio.h>

/* One call on the helper, which others wait for, too. */
#define CALL_TIMEOUT_MS 2000
#define INIT_TIMEOUT_MS 5000
#define CAREFUL_US (30 * US_PER_S)
#define FENCED_AGAIN_US (300 * US_PER_S)
/* So many in a row make us ask for our rights: librdkafka only logs that a topic may not be written to, and what it then says of the
 * transaction depends on its version (2.0.2: INVALID_TXN_STATE when it is aborted). */
#define FAILED_IN_A_ROW 3
/* From then on the next one waits, at first for the one, in the end for the other time. */
#define HOLD_MIN_US (50 * US_PER_MS)
#define HOLD_MAX_US US_PER_S

/* ---- on the helper ---- */

/* Takes error. */
static enum txn_answer answer_of(struct txn *txn, rd_kafka_error_t *error)
{
	txn->err = error ? rd_kafka_error_code(error) : RD_KAFKA_RESP_ERR_NO_ERROR;
	if (!error)
		return TXN_DONE;
	enum txn_answer answer = rd_kafka_error_is_fatal(error)		    ? TXN_FAILED
				 : rd_kafka_error_txn_requires_abort(error) ? TXN_ABORTED
				 : rd_kafka_error_is_retriable(error)	    ? TXN_AGAIN
									    : TXN_FAILED;
	snprintf(txn->detail, sizeof(txn->detail), "%s", rd_kafka_error_string(error));
	rd_kafka_error_destroy(error);
	return answer;
}

static void run_init(void *ctx)
{
	struct kafka_out *out = ctx;

	out->txn.answer = answer_of(&out->txn, rd_kafka_init_transactions(out->txn.rk, INIT_TIMEOUT_MS));
}

static void run_abort(void *ctx)
{
	struct kafka_out *out = ctx;

	out->txn.answer = answer_of(&out->txn, rd_kafka_abort_transaction(out->txn.rk, CALL_TIMEOUT_MS));
}

static void run_commit(void *ctx)
{
	struct kafka_out *out = ctx;
	struct txn *txn = &out->txn;

	if (txn->offsets) {
		txn->answer =
		    answer_of(txn, rd_kafka_send_offsets_to_transaction(
				       txn->rk, txn->offsets, kafka_member_metadata(txn->member), CALL_TIMEOUT_MS));
		if (txn->answer != TXN_DONE)
			return;
		rd_kafka_topic_partition_list_destroy(txn->offsets);
		txn->offsets = NULL;
	}
	txn->answer = answer_of(txn, rd_kafka_commit_transaction(txn->rk, CALL_TIMEOUT_MS));
}

/* ---- on the loop ---- */

static void submit(struct kafka_out *out, enum txn_state state, loop_fn run, loop_fn done)
{
	struct txn *txn = &out->txn;

	assert(!txn->is_busy);
	txn->state = state;
	txn->job = (struct helper_job){.run = run, .done = done, .ctx = out};
	txn->is_busy = true;
	helper_submit(out->helper, &txn->job);
}

static void drop_offsets(struct txn *txn)
{
	if (txn->offsets)
		rd_kafka_topic_partition_list_destroy(txn->offsets);
	txn->offsets = NULL;
	if (txn->member)
		kafka_member_unref(txn->member);
	txn->member = NULL;
}

static int64_t hold_us(int n)
{
	return MIN(HOLD_MIN_US << MIN(n, 16), HOLD_MAX_US);
}

static void say_end(struct kafka_out *out, enum txn_end end)
{
	struct txn *txn = &out->txn;

	txn->state = TXN_READY;
	drop_offsets(txn);
	if (txn->wants_care)
		txn->careful_until_us = loop_now_us(out->loop) + CAREFUL_US;
	txn->wants_care = false;
	txn->n_failed = end == TXN_COMMITTED ? 0 : txn->n_failed + 1;
	if (txn->n_failed >= FAILED_IN_A_ROW) {
		out->is_suspicious = true;
		txn->hold_until_us = loop_now_us(out->loop) + hold_us(txn->n_failed - FAILED_IN_A_ROW);
		loop_timer_set(&out->tick, txn->hold_until_us); /* txn_tick */
	}
	if (end != TXN_COMMITTED)
		out->metrics->transactions_aborted++;
	out->events->on_txn(out->ctx, end, txn->detail);
	kafka_out_say_room(out);
}

/* The broker fences a transaction that takes too long as it does one whose name another process has taken. */
static void check_fenced(struct kafka_out *out, bool was_open)
{
	int64_t now_us = loop_now_us(out->loop);
	struct txn *txn = &out->txn;
	char detail[256];

	if (rd_kafka_fatal_error(txn->rk, detail, sizeof(detail)) != RD_KAFKA_RESP_ERR__FENCED)
		return;
	if (was_open && now_us - txn->opened_us >= txn->timeout_us) {
		log_warn(out->log, "a transaction took longer than kafka.transaction.timeout.ms",
			 LOG_NUM("ms", (now_us - txn->opened_us) / US_PER_MS));
		return;
	}
	if (txn->fenced_us && now_us - txn->fenced_us < FENCED_AGAIN_US)
		out->events->on_fatal(out->ctx, -ERR_KAFKA_FENCED,
				      "fenced twice in five minutes: another process has the same `instance`");
	txn->fenced_us = now_us;
}

/* The helper is back and the handle is not to be used any more. */
static void give_up_handle(struct kafka_out *out)
{
	if (out->main)
		producer_retire(out, out->main, out->txn.detail);
}

/* The helper is back. False: the handle broke meanwhile. */
static bool is_still_good(struct kafka_out *out)
{
	struct txn *txn = &out->txn;

	txn->is_busy = false;
	out->is_suspicious |= kafka_is_refusal(txn->err);
	txn->is_id_refused = txn->err == RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED ||
			     (txn->is_id_refused && txn->answer != TXN_DONE);
	if (txn->state == TXN_BROKEN)
		drop_offsets(txn);
	return txn->state != TXN_BROKEN;
}

static void done_init(void *ctx)
{
	struct kafka_out *out = ctx;
	struct txn *txn = &out->txn;

	if (!is_still_good(out))
		return;
	if (txn->answer == TXN_AGAIN)
		return; /* txn_tick */
	if (txn->answer != TXN_DONE) {
		give_up_handle(out);
		return;
	}
	txn->state = TXN_READY;
	if (txn->is_in_doubt) {
		txn->is_in_doubt = false;
		say_end(out, TXN_IN_DOUBT);
	} else {
		kafka_out_say_room(out);
	}
}

static void done_abort(void *ctx)
{
	struct kafka_out *out = ctx;
	struct txn *txn = &out->txn;

	if (!is_still_good(out))
		return;
	if (txn->answer == TXN_AGAIN)
		submit(out, TXN_ABORTING, run_abort, done_abort);
	else if (txn->answer == TXN_DONE)
		say_end(out, TXN_VOID);
	else
		give_up_handle(out);
}

static void done_commit(void *ctx)
{
	struct kafka_out *out = ctx;
	struct txn *txn = &out->txn;

	if (!is_still_good(out))
		return;
	if (txn->answer == TXN_AGAIN) {
		submit(out, TXN_COMMITTING, run_commit, done_commit);
	} else if (txn->answer == TXN_ABORTED) {
		log_warn(out->log, "Kafka transaction aborted, its records are produced again",
			 LOG_STR("detail", txn->detail));
		submit(out, TXN_ABORTING, run_abort, done_abort);
	} else if (txn->answer == TXN_DONE) {
		say_end(out, TXN_COMMITTED);
	} else {
		give_up_handle(out);
	}
}

void txn_start(struct kafka_out *out, struct producer *prod)
{
	out->txn.rk = prod->rk;
	submit(out, TXN_INIT, run_init, done_init);
}

bool txn_is_careful(const struct kafka_out *out)
{
	return out->txn.careful_until_us && loop_now_us(out->loop) < out->txn.careful_until_us;
}

/* librdkafka 2.0.2, after a clock that jumped: a commit that it called done was none. Our windows count on it, so
 * they must go. */
static void check_state(struct kafka_out *out)
{
	char detail[256];

	if (!rd_kafka_fatal_error(out->txn.rk, detail, sizeof(detail)))
		out->events->on_fatal(out->ctx, -ERR_KAFKA, "the transaction before this one did not end as librdkafka said");
}

/* When none is open. */
static void begin(struct kafka_out *out)
{
	struct txn *txn = &out->txn;

	if (txn->state != TXN_READY || loop_now_us(out->loop) < txn->hold_until_us)
		return;
	txn->opened_us = loop_now_us(out->loop);
	if (answer_of(txn, rd_kafka_begin_transaction(txn->rk)) == TXN_DONE) {
		txn->state = TXN_OPEN;
		return;
	}
	check_state(out);
	give_up_handle(out);
}

bool txn_admits(struct kafka_out *out, const struct delivery *dlv)
{
	struct txn *txn = &out->txn;

	begin(out);
	if (out->pending > 0 && txn_is_careful(out))
		return false;
	return txn->state == TXN_OPEN || (txn->state == TXN_CLOSING && dlv->joins);
}

void kafka_out_abort(struct kafka_out *out)
{
	struct txn *txn = &out->txn;

	if (txn->state == TXN_OPEN || txn->state == TXN_CLOSING)
		submit(out, TXN_ABORTING, run_abort, done_abort);
}

void txn_on_broken(struct kafka_out *out)
{
	struct txn *txn = &out->txn;

	if (txn->state == TXN_OFF)
		return;
	bool was_open = txn->state != TXN_INIT && txn->state != TXN_READY;
	txn->is_in_doubt |= was_open;
	txn->state = TXN_BROKEN;
	if (!txn->is_busy)
		drop_offsets(txn);
	check_fenced(out, was_open);
}

/* An init that the broker did not answer; a transaction that was held back. */
void txn_tick(struct kafka_out *out)
{
	struct txn *txn = &out->txn;

	if (txn->state == TXN_INIT && !txn->is_busy && out->main)
		txn_start(out, out->main);
	if (txn->state == TXN_READY && txn->hold_until_us && loop_now_us(out->loop) >= txn->hold_until_us) {
		txn->hold_until_us = 0;
		kafka_out_say_room(out);
	}
}

bool txn_done(struct kafka_out *out, int64_t wait_ms)
{
	struct txn *txn = &out->txn;

	if (txn->is_busy && !helper_cancel(out->helper, &txn->job, wait_ms))
		return false;
	drop_offsets(txn);
	return true;
}

/* ---- the owner's side ---- */

bool kafka_out_is_ready(const struct kafka_out *out)
{
	return out->txn.state != TXN_INIT && out->txn.state != TXN_BROKEN;
}

bool kafka_out_quiesce(struct kafka_out *out)
{
	struct txn *txn = &out->txn;

	begin(out); /* nothing was produced: offsets alone */
	if (txn->state == TXN_OPEN)
		txn->state = TXN_CLOSING;
	bool is_quiet = txn->state == TXN_CLOSING && out->pending == 0;
	out->was_full |= !is_quiet; /* on_room is owed: a handle that becomes ready has nothing else to say */
	return is_quiet;
}

void kafka_out_commit(struct kafka_out *out, const struct kafka_commit *rows, size_t n, struct kafka_member *member)
{
	struct txn *txn = &out->txn;

	assert(txn->state == TXN_CLOSING && out->pending == 0 && !txn->offsets);
	txn->offsets = kafka_commit_list(rows, n);
	txn->member = kafka_member_ref(member);
	submit(out, TXN_COMMITTING, run_commit, done_commit);
}
