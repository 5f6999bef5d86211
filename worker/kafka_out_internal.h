/* kafka_out_internal - what kafka_out.c and kafka_txn.c share; nobody else includes it. */
#ifndef GATHERD_KAFKA_OUT_INTERNAL_H
#define GATHERD_KAFKA_OUT_INTERNAL_H

#include "kafka_internal.h"
#include "kafka_out.h"

#define N_TOPICS 2

/* One librdkafka handle. */
struct producer {
	struct list_node node; /* out->producers */
	struct kafka_out *out;
	rd_kafka_t *rk;
	rd_kafka_queue_t *queue;
	rd_kafka_topic_t *topics[N_TOPICS];
	size_t pending;	 /* deliveries taken and not answered */
	bool is_lone;	 /* one record per batch */
	bool is_retired; /* a fatal error: answers what it has, then goes */
	struct helper_job warm;
	bool is_warming;
};

enum txn_state {
	TXN_OFF,   /* at least once */
	TXN_INIT,  /* init_transactions: fences and ends what an earlier process or handle has left open */
	TXN_READY, /* none is open */
	TXN_OPEN,
	TXN_CLOSING,	/* takes nothing new; deliveries are waited for */
	TXN_COMMITTING, /* on the helper */
	TXN_ABORTING,	/* on the helper */
	TXN_BROKEN,	/* the handle is of no use, a new one is to come; how the transaction ended is not known */
};

/* What the helper says of a blocking call. */
enum txn_answer { TXN_DONE, TXN_AGAIN, TXN_ABORTED, TXN_FAILED };

struct txn {
	enum txn_state state;
	struct helper_job job;
	bool is_busy;	  /* the job is with the helper */
	bool is_in_doubt; /* a handle broke while it had a transaction: said once the next one is ready */
	/* A record or batch was refused for its size: from the next transaction on one record at a time, for a while.
	 */
	bool wants_care;
	int64_t careful_until_us;
	int64_t fenced_us;
	int64_t opened_us, timeout_us; /* the last one; transaction.timeout.ms */
	int n_failed;		       /* since the last that was committed */
	int64_t hold_until_us;	       /* none begins before */
	/* For the helper: */
	rd_kafka_t *rk;
	rd_kafka_topic_partition_list_t *offsets; /* NULL once they are sent */
	struct kafka_member *member;
	enum txn_answer answer;
	rd_kafka_resp_err_t err;
	char detail[256];
	bool is_id_refused; /* the broker's ACLs do not give the transactional id */
};

struct kafka_out {
	struct loop *loop;
	struct helper *helper;
	struct metrics *metrics;
	struct log *log;
	const struct options *opts;
	const struct kafka_out_events *events;
	void *ctx;
	int fd;
	struct loop_timer tick;
	struct kafka_errors errors;
	struct list producers;
	struct producer *main, *lone; /* NULL: to be made */
	int64_t rebuilt_us;
	size_t pending;
	bool was_full;
	bool is_idempotent;
	bool is_suspicious; /* the broker's ACLs seem to have refused something: not told yet */
	bool is_denied;	    /* they are known to lack something */
	size_t message_max;	/* message.max.bytes */
	size_t topic_max;	/* of the results topic; 0 = not known */
	int64_t describe_at_us; /* INT64_MAX while asked */
	char *transactional_id; /* NULL = at least once */
	struct txn txn;
};

/* kafka_out.c */
/* Fatal: what it has is purged, so that every delivery is answered; a new one is made by and by. */
void producer_retire(struct kafka_out *out, struct producer *prod, const char *detail);
void kafka_out_say_room(struct kafka_out *out);

/* kafka_txn.c. */
/* A fresh handle: init_transactions. */
void txn_start(struct kafka_out *out, struct producer *prod);
/* Whether a record may be produced now; begins a transaction when none is open. */
bool txn_admits(struct kafka_out *out, const struct delivery *dlv);
/* The handle is of no use any more. */
void txn_on_broken(struct kafka_out *out);
void txn_tick(struct kafka_out *out);
bool txn_is_careful(const struct kafka_out *out);
/* False: the helper is still in a call. */
bool txn_done(struct kafka_out *out, int64_t wait_ms);

#endif
