/* dispatch - what a finished task sends to Kafka: its dead letter when one is due, then its result.
 *
 * Happy path: dispatch_send -> (dead letter acknowledged) -> result acknowledged -> on_done(task).
 * Failure modes: no room in the producer -> waits in a list, tried again at each delivery report; not delivered -> produced again
 * after a second, counted; a result refused for its size -> again without its body, then ever smaller; a dead letter refused for its
 * size -> dropped, counted, said in the result.
 * The bytes belong to the dispatch until acknowledged. Layer 4. */
#ifndef GATHERD_DISPATCH_H
#define GATHERD_DISPATCH_H

#include "base.h"
#include "kafka_out.h"
#include "metrics.h"
#include "task.h"

struct dispatcher;

/* The result is acknowledged: the task is complete. Called from the loop, may free the task by dispatch_done_task. */
typedef void (*dispatch_fn)(void *ctx, struct task *task);

struct dispatcher *dispatcher_new(struct loop *loop, struct metrics *metrics, struct log *log, const struct options *opts,
				  const char *instance, dispatch_fn on_done, void *ctx);
void dispatcher_free(struct dispatcher *disp);
/* Set once, before the first send; the events below are to be wired to it. */
void dispatcher_set_out(struct dispatcher *disp, struct kafka_out *out);

void dispatch_send(struct dispatcher *disp, struct task *task);
/* Frees what the dispatch holds of a task whose result was acknowledged, then the task. */
void dispatch_free_task(struct dispatcher *disp, struct task *task);
/* The task's partition is gone. True when the producer still has the bytes: the task frees itself when they come back, and its
 * result may be doubled. False: the task is freed. */
bool dispatch_give_up(struct dispatcher *disp, struct task *task);

/* To be called from kafka_out's events. */
void dispatch_on_delivered(struct dispatcher *disp, struct delivery *delivery, int err);
void dispatch_on_room(struct dispatcher *disp);

/* Bytes of payloads held. */
size_t dispatch_bytes(const struct dispatcher *disp);
/* When the oldest unacknowledged record was first produced; 0 = none. */
int64_t dispatch_oldest_us(const struct dispatcher *disp);

#endif
