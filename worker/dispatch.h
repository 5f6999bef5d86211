/* dispatch - what a finished task sends to Kafka: its dead letter when one is due, then its result.
 *
 * Happy path: dispatch_send -> (dead letter acknowledged) -> result acknowledged -> on_done(task). A lone result goes to the producer at
 * once, others gather while some are under way: little wait at a low rate, few requests at a high one.
 * Failure modes: no room in the producer, or held -> waits in a list, tried again at each delivery report; not delivered -> produced again
 * after a second, counted; a result refused for its size -> again without its body, then ever smaller; a dead letter refused for its
 * size -> dropped, counted, said in the result.
 * The bytes belong to the dispatch until acknowledged; exactly once, until the transaction is committed: one that was aborted is
 * produced again, dead letters included. Layer 4. */
#ifndef GATHERD_DISPATCH_H
#define GATHERD_DISPATCH_H

#include "base.h"
#include "kafka_out.h"
#include "metrics.h"
#include "task.h"

struct dispatcher;

/* From the loop. */
typedef void (*dispatch_fn)(void *ctx, struct task *task);

struct dispatch_events {
	dispatch_fn on_acked; /* the broker has the result, exactly once: in the open transaction */
	dispatch_fn on_done;  /* for good, and for everybody to see: to be freed by dispatch_free_task */
};

struct dispatcher *dispatcher_new(struct loop *loop, struct metrics *metrics, struct log *log, const struct options *opts,
				  const char *instance, const struct dispatch_events *events, void *ctx);
void dispatcher_free(struct dispatcher *disp);
/* Set once, before the first send; the events below are to be wired to it. */
void dispatcher_set_out(struct dispatcher *disp, struct kafka_out *out);

void dispatch_send(struct dispatcher *disp, struct task *task);
/* Frees what the dispatch holds of a task whose result was acknowledged, then the task. */
void dispatch_free_task(struct dispatcher *disp, struct task *task);
/* The task's partition is gone. True when the producer still has the bytes: the task frees itself when they come back, and its
 * result may be doubled; or when its dead letter is in the open transaction. False: nobody has anything of it. */
bool dispatch_give_up(struct dispatcher *disp, struct task *task);

/* Exactly once. False while something is not in the open transaction that the offsets to be committed count on. */
bool dispatch_may_commit(const struct dispatcher *disp);
/* The acked ones of this partition, which is not ours any more, are not produced again and freed by and by. Gives how many there were
 * and what they counted against memory.max. */
size_t dispatch_forget(struct dispatcher *disp, const struct partition *part, size_t *ret_bytes);
void dispatch_on_txn(struct dispatcher *disp, enum txn_end end);

/* To be called from kafka_out's events. */
void dispatch_on_delivered(struct dispatcher *disp, struct delivery *delivery, int err);
void dispatch_on_room(struct dispatcher *disp);

/* Held: nothing more is given to the producer, it waits as if that had no room. */
void dispatch_hold(struct dispatcher *disp, bool is_held);
bool dispatch_is_held(const struct dispatcher *disp);

/* Bytes of payloads held. */
size_t dispatch_bytes(const struct dispatcher *disp);
/* When the oldest unacknowledged record was first produced; 0 = none. ret_task (may be NULL): whose it is, NULL = nobody's now. */
int64_t dispatch_oldest_us(const struct dispatcher *disp, const struct task **ret_task);

#endif
