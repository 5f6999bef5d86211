/* kafka_out - results and dead letters out, with confirmed deliveries (at least once, idempotent producer).
 *
 * Happy path: kafka_out_produce(delivery) -> on_delivered(delivery, 0), later, from the loop.
 * A delivery and all it points to is its owner's and must live until on_delivered; librdkafka gets pointers, never a copy.
 * Failure modes: the producer's queue is full -> -ERR_FULL, on_room tells when to try again; record too large for the client
 * or the broker -> -ERR_KAFKA_TOO_LARGE at once or in on_delivered; not delivered in time or any other failure -> -ERR_KAFKA in
 * on_delivered (the owner produces it again). A fatal producer error: the handle is rebuilt here, everything in flight comes back
 * by on_delivered(-ERR_KAFKA).
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
};

struct kafka_out_events {
	void (*on_delivered)(void *ctx, struct delivery *delivery, int err);
	/* The queue was full and has room again. */
	void (*on_room)(void *ctx);
	void (*on_fatal)(void *ctx, int err, const char *detail);
};

int kafka_out_new(struct loop *loop, struct helper *helper, struct metrics *metrics, struct log *log, const struct options *opts,
		  const struct kafka_out_events *events, void *ctx, struct kafka_out **ret_out, char **ret_error) MUST_CHECK;
/* 0, -ERR_FULL, -ERR_KAFKA_TOO_LARGE, or -ERR_KAFKA. On an error the delivery was not taken. */
int kafka_out_produce(struct kafka_out *out, struct delivery *delivery) MUST_CHECK;
/* Deliveries taken and not answered. */
size_t kafka_out_pending(const struct kafka_out *out);
/* No partition is ours any more: what was not sent yet comes back by on_delivered(-ERR_KAFKA) instead of being doubled later. */
void kafka_out_purge(struct kafka_out *out);
/* message.max.bytes in force: the most a record's key, value and headers together may take. */
size_t kafka_out_record_max(const struct kafka_out *out);
/* At the cut: gives up on what is in flight (no on_delivered) and destroys the handle on the helper, or leaves it to the exit. */
void kafka_out_free(struct kafka_out *out);

#endif
