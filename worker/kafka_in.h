/* kafka_in - job records in: one queue per assigned partition, group membership, commits.
 *
 * Happy path: kafka_in_new -> on_assign(part) -> on_begin(part, offset, set) -> kafka_in_read ... kafka_in_commit -> on_committed.
 * Rebalance: on_revoke(parts) -> the owner drains -> kafka_in_revoked(): unassigns; the parts are gone after that call.
 * Partitions are never paused: a queue is simply left unread. All queues signal one eventfd; a signal is a hint (on_wake).
 * Assignment happens at once with stored offsets; each part is read only after its completed set arrived by
 * ListConsumerGroupOffsets on an admin client of its own (asked again every 200 ms while unstable or failing).
 * Failure modes: broker or topic absent -> waited for, kafka_in_state says which; assignment lost -> on_revoke with is_lost; a
 * fatal error (fenced instance) -> on_fatal.
 * Everything here is called and calls back on the loop thread. Layer 3 (librdkafka). */
#ifndef GATHERD_KAFKA_IN_H
#define GATHERD_KAFKA_IN_H

#include "base.h"
#include "helper.h"
#include "job.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "options.h"

struct kafka_in;
struct kafka_part;
struct kafka_member;

struct kafka_in_events {
	/* New partition of ours. kafka_part_set_ctx may be called. Not readable before on_begin. */
	void (*on_assign)(void *ctx, struct kafka_part *part);
	/* Where to begin: committed offset and its metadata (valid during the call), or -1 and "" when nothing was committed. */
	void (*on_begin)(void *ctx, struct kafka_part *part, int64_t offset, const char *metadata, size_t len);
	/* These go away (parts is valid until kafka_in_revoked, which must be called, also from inside when lost). */
	void (*on_revoke)(void *ctx, struct kafka_part *const *parts, size_t n, bool is_lost);
	/* The one commit in flight is answered: 0 or -ERR_KAFKA; detail for people. */
	void (*on_committed)(void *ctx, int err, const char *detail);
	/* Some queue may have records. */
	void (*on_wake)(void *ctx);
	/* With a plan, once a second: how many of its offsets the whole group has committed as complete, and of how many. They are equal
	 * only when each partition's commit has reached its stop. */
	void (*on_plan)(void *ctx, int64_t done, int64_t total);
	/* Cannot go on: text for people. */
	void (*on_fatal)(void *ctx, int err, const char *detail);
};

/* Replay: the ranges that bound the reading. NULL plan = from the stored offsets, without end. */
struct kafka_range {
	const char *topic;
	int32_t partition;
	int64_t start, stop; /* stop is exclusive */
};

/* The consumer subscribes at once; a broker that is absent is waited for. -ERR_INVALID / -ERR_KAFKA and *ret_error (free). */
int kafka_in_new(struct loop *loop, struct helper *helper, struct metrics *metrics, struct log *log, const struct options *opts,
		 const struct kafka_range *plan, size_t n_plan, const struct kafka_in_events *events, void *ctx,
		 struct kafka_in **ret_in, char **ret_error) MUST_CHECK;

/* Up to max records of that partition, oldest first, views that live until the next kafka_in_read of any partition. 0 when there is
 * none now. Records at or past the stop are not returned; kafka_part_is_at_stop says that it was reached. */
size_t kafka_in_read(struct kafka_part *part, struct record *out, size_t max);

struct kafka_commit {
	struct kafka_part *part;
	int64_t offset;
	const char *metadata; /* copied */
};

/* Asynchronous; one at a time, answered by on_committed. 0 or -ERR_KAFKA at once. */
int kafka_in_commit(struct kafka_in *in, const struct kafka_commit *rows, size_t n) MUST_CHECK;
/* The revoke is handled (drained, committed). */
void kafka_in_revoked(struct kafka_in *in);

/* Exactly once: the member that a transaction's offsets are sent as. Taken when the assignment came: asked for later, it may already
 * be of a generation whose assignment we have not seen. NULL before the first one. Valid until the next event. */
struct kafka_member *kafka_in_member(struct kafka_in *in);
/* The broker refused offsets, or may soon: with the cooperative protocols (cooperative-sticky, and the consumer protocol of KIP-848)
 * the generation also goes up without a word to those who keep what they have. */
void kafka_in_refresh(struct kafka_in *in);
/* A transaction with offsets of ours is being committed: partitions are not given back meanwhile (for at most 3 s). */
void kafka_in_hold(struct kafka_in *in, bool is_held);
/* How far our offsets are is not known: every partition is lost (on_revoke) and comes again (on_assign, on_begin). */
void kafka_in_restart(struct kafka_in *in);

const char *kafka_part_topic(const struct kafka_part *part);
int32_t kafka_part_partition(const struct kafka_part *part);
void kafka_part_set_ctx(struct kafka_part *part, void *ctx);
void *kafka_part_ctx(const struct kafka_part *part);
/* Last known log start and end, or -1. Cached, never blocks. */
void kafka_part_watermarks(const struct kafka_part *part, int64_t *ret_start, int64_t *ret_end);
bool kafka_part_is_at_stop(const struct kafka_part *part);
/* Of the plan; INT64_MAX without one. */
int64_t kafka_part_stop(const struct kafka_part *part);

enum kafka_state {
	KAFKA_STATE_ASKING, /* the first probe has not come back */
	KAFKA_STATE_OK,
	KAFKA_STATE_NO_BROKER, /* none reachable: the last probe (each 2 s on the helper) failed */
	KAFKA_STATE_DENIED,    /* the broker's ACLs lack something */
	KAFKA_STATE_NO_TOPIC,  /* a topic of jobs.topic, results.topic or dead_letter.topic does not exist */
};

enum kafka_state kafka_in_state(const struct kafka_in *in);
/* The missing topic, the missing rights, or the last broker error; "" when OK. */
const char *kafka_in_state_detail(const struct kafka_in *in);
/* Something of ours was refused: which rights are missing is asked, at once and then every few seconds until none is. */
void kafka_in_suspect(struct kafka_in *in);
/* This worker's transactional id is refused, which goes with the missing rights; NULL: it is not, or not any more. Kept by reference. */
void kafka_in_deny_id(struct kafka_in *in, const char *id);
/* Member of the group now (it may own no partition)? */
bool kafka_in_is_member(const struct kafka_in *in);
/* When the group's queue was last polled. */
int64_t kafka_in_polled_us(const struct kafka_in *in);
/* Leaves the group: on_revoke comes for what is still assigned, then on_closed. */
void kafka_in_close(struct kafka_in *in, loop_fn on_closed, void *ctx);
/* After on_closed, or at the cut. Destroys the handles on the helper, or leaves them to the exit. */
void kafka_in_free(struct kafka_in *in);

#endif
