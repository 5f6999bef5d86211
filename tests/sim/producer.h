/* producer - what producer.c and txn.c share: one worker's kafka_out. */
#ifndef GATHERD_SIM_PRODUCER_H
#define GATHERD_SIM_PRODUCER_H

#include "coordinator.h"

/* As in worker/kafka_out_internal.h. */
enum txn_state {
	TXN_OFF, /* at least once */
	TXN_INIT,
	TXN_READY,
	TXN_OPEN,
	TXN_CLOSING,
	TXN_COMMITTING,
	TXN_ABORTING,
	TXN_BROKEN,
	TXN_STATES
};

/* One record on its way. */
struct sending {
	struct list_node node;
	struct kafka_out *out;
	struct delivery *delivery;
	struct rec *rec;
	int32_t partition;
	int64_t term;
	uint64_t sum;
	int err;
	bool is_appended, is_fenced;
	struct event arrives, answers;
};

struct kafka_out {
	struct machine *machine;
	struct loop *loop;
	const struct options *opts;
	const struct kafka_out_events *events;
	void *ctx;
	struct list sendings;
	bool is_full; /* on_room is owed */
	struct event room;
	int64_t topic_max_until_us; /* the topic's limit is known so long */

	enum txn_state state;
	struct txn *txn;
	int64_t epoch;
	bool is_in_doubt, wants_care;
	int64_t careful_until_us;
	/* The one request that is under way: at the broker, and back. */
	struct event arrives, answers;
	enum verdict verdict;
	bool is_lost, is_applied; /* it or its answer; it took effect, whoever asks again */
	struct kafka_member member;
	struct txn_offset offsets[PARTS_MAX]; /* of the commit */
};

/* producer.c */
/* What is not at the broker yet may still get there, or comes back. */
void producer_purge(struct kafka_out *out);
void producer_say_room(struct kafka_out *out);

/* txn.c */
void txn_start(struct kafka_out *out, const char *instance);
void txn_stop(struct kafka_out *out);
bool txn_admits(struct kafka_out *out, const struct delivery *delivery);
/* What the owner is told of a delivery that ended with err. */
int txn_on_delivery(struct kafka_out *out, int err);
/* The handle is of no use any more. */
void txn_break(struct kafka_out *out);

#endif
