/* kafka_conf - our defaults and the user's pass-through properties, for both sides.
 *
 * Failure mode: librdkafka refuses a property -> -ERR_INVALID and a sentence with key, value, source and its reason.
 * Layer 3 (librdkafka). */
#ifndef GATHERD_KAFKA_CONF_H
#define GATHERD_KAFKA_CONF_H

#include "base.h"
#include "options.h"

struct rd_kafka_conf_s;

/* One row of our defaults, for --options and docs/kafka.md. side as in options.h. */
struct kafka_default {
	enum kafka_side side;
	const char *name, *value, *why;
};

extern const struct kafka_default kafka_defaults[]; /* ends with a NULL name */

/* A fresh conf: defaults, then the computed ones (message.max.bytes, queue.buffering.max.kbytes), then the user's for that side.
 * cooperative-sticky below librdkafka 2.10, and group.protocol=consumer below 2.12 or with what does not go with it, are refused with
 * the reason. *ret_conf is rd_kafka_conf_destroy'd or used up by rd_kafka_new. *ret_error: free. */
int kafka_conf_make(const struct options *opts, enum kafka_side side, struct rd_kafka_conf_s **ret_conf,
		    char **ret_error) MUST_CHECK;
/* The group's name in force. In buf, cut to its size. */
void kafka_conf_group(const struct options *opts, char *buf, size_t size);
/* Any property's value in force for a side; false when librdkafka does not know it. */
bool kafka_conf_get(const struct options *opts, enum kafka_side side, const char *name, char *buf, size_t size);
/* group.protocol=consumer (KIP-848)? */
bool kafka_conf_is_broker_assigned(const struct options *opts);
/* What is to be added to an error of librdkafka's; "" = nothing. */
const char *kafka_conf_hint(const char *error);
/* Of the library that was found at run time: "2.12.2". */
const char *kafka_conf_library(void);

#endif
