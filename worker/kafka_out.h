/* kafka_out - results and dead letters out, with confirmed deliveries (at least once, idempotent producer), or in transactions
 * with the offsets of their jobs (exactly once).
 *
 * Happy path: kafka_out_produce(delivery) -> on_delivered(delivery, 0), later, from the loop.
 * A delivery and all it points to is its owner's and must live until on_delivered; librdkafka gets pointers, never a copy.
 * Failure modes: the producer's queue is full -> -ERR_FULL, on_room tells when to try again; record too large for the client
 * or the broker -> -ERR_KAFKA_TOO_LARGE at once or in on_delivered; not delivered in time or any other failure -> -ERR_KAFKA in
 * on_delivered (the owner produces it again). A fatal producer error: the handle is rebuilt here, everything in flight comes back
 * by on_delivered(-ERR_KAFKA).
 *
 * Exactly once: produce begins a transaction when none is open; on_delivered(0) then means that the broker has the record in it.
 * kafka_out_quiesce (until true) -> kafka_out_commit -> on_txn(TXN_COMMITTED). A record that is not delivered, or kafka_out_abort:
 * on_txn(TXN_VOID): all that was delivered since the last commit is to be produced again. A producer that broke with a transaction
 * open or being committed: on_txn(TXN_IN_DOUBT) once its successor has ended that transaction one way or the other: only the stored
 * offsets tell. While nothing can be taken, produce says -ERR_FULL, and on_room ends that.
 * Loop thread only. Layer 3 (librdkafka). */
#ifndef GATHERD_KAFKA_OUT_H
#define GATHERD_KAFKA_OUT_H

#include "base.h"
#include "helper.h"
#include "job.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "options.h"

#define DELIVERY_HEADERS_MAX 16

struct kafka_out;

enum kafka_topic { KAFKA_RESULTS, KAFKA_DEAD_LETTERS };

/* Embedded in its owner. */
struct delivery {
	enum kafka_topic topic;
	struct span key, value; /* data NULL = a Kafka null */
	const struct record_header *headers;
	size_t n_headers;
	bool joins; /* belongs into the same transaction as a record before it: taken also while that one closes */
};

enum txn_end { TXN_COMMITTED, TXN_VOID, TXN_IN_DOUBT };

struct kafka_out_events {
	void (*on_delivered)(void *ctx, struct delivery *delivery, int err);
	/* The queue was full and has room again. */
	void (*on_room)(void *ctx);
	/* No broker is reachable: what was produced and is produced now may come out much later. */
	void (*on_cut_off)(void *ctx);
	/* Exactly once. */
	void (*on_txn)(void *ctx, enum txn_end end, const char *detail);
	void (*on_fatal)(void *ctx, int err, const char *detail);
};

struct kafka_commit;
struct kafka_member;

int kafka_out_new(struct loop *loop, struct helper *helper, struct metrics *metrics, struct log *log, const struct options *opts,
		  const char *instance, const struct kafka_out_events *events, void *ctx, struct kafka_out **ret_out,
		  char **ret_error) MUST_CHECK;
/* 0, -ERR_FULL, -ERR_KAFKA_TOO_LARGE, or -ERR_KAFKA. On an error the delivery was not taken. */
int kafka_out_produce(struct kafka_out *out, struct delivery *delivery) MUST_CHECK;
/* Deliveries taken and not answered. */
size_t kafka_out_pending(const struct kafka_out *out);
/* No partition is ours any more: what was not sent yet comes back by on_delivered(-ERR_KAFKA) instead of being doubled later. */
void kafka_out_purge(struct kafka_out *out);
/* message.max.bytes in force: the most a record's key, value and headers together may take. */
size_t kafka_out_record_max(const struct kafka_out *out);
/* Exactly once: false while there is no producer whose transactional.id is settled with the broker. At least once: true. */
bool kafka_out_is_ready(const struct kafka_out *out);
/* Whether the broker's ACLs seem to have refused something since the last call; kafka_in_suspect finds out what. */
bool kafka_out_take_suspicion(struct kafka_out *out);
/* Exactly once: the transactional id when they refuse it to this worker, as far as is known; else NULL. */
const char *kafka_out_refused_id(const struct kafka_out *out);
/* They are known to lack something, or not any more: meanwhile a handle that failed is made anew less often. */
void kafka_out_deny(struct kafka_out *out, bool is_denied);
/* Exactly once: takes nothing new but what joins. True when nothing is under way: commit now. False: ask again after the next
 * on_delivered, on_txn or on_room. */
bool kafka_out_quiesce(struct kafka_out *out);
/* After kafka_out_quiesce said true: ends the transaction with these offsets, as that member (kafka_in_member). Copied. */
void kafka_out_commit(struct kafka_out *out, const struct kafka_commit *rows, size_t n, struct kafka_member *member);
/* What the open transaction has must not be seen by anybody. Not while it is being committed: then the broker decides. */
void kafka_out_abort(struct kafka_out *out);
/* At the cut: gives up on what is in flight (no on_delivered) and destroys the handle on the helper, or leaves it to the exit. */
void kafka_out_free(struct kafka_out *out);

#endif
