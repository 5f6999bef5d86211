/* kafka_internal - what the kafka_*.c files share. Layer 3 (librdkafka). */
#ifndef GATHERD_KAFKA_INTERNAL_H
#define GATHERD_KAFKA_INTERNAL_H

#include "helper.h"
#include "kafka_in.h"
#include "log.h"
#include "options.h"

#include <librdkafka/rdkafka.h>

/* Destroying joins librdkafka's threads: that is for the helper. */
void kafka_destroy_later(struct helper *helper, rd_kafka_t *rk);
/* A line of librdkafka's own: warnings and worse as warnings, the rest for debugging. */
void kafka_log_event(struct log *log, rd_kafka_event_t *event);

/* The small non-transactional client for what must not queue behind a parked fetch: completed sets, and the probe that says
 * whether brokers and topics are there (rd_kafka_metadata blocks: on the helper, every 2 s). */
struct kafka_admin;

int kafka_admin_new(struct helper *helper, struct log *log, const struct options *opts, loop_fn on_appeared, void *ctx,
		    struct kafka_admin **ret_admin, char **ret_error) MUST_CHECK;
/* NULL is fine. Frees itself once a probe under way is back. */
void kafka_admin_free(struct kafka_admin *admin);
rd_kafka_queue_t *kafka_admin_queue(struct kafka_admin *admin);
void kafka_admin_list_offsets(struct kafka_admin *admin, const char *group, const rd_kafka_topic_partition_list_t *list,
			      rd_kafka_queue_t *queue, int timeout_ms);
void kafka_admin_tick(struct kafka_admin *admin, int64_t now_us);
enum kafka_state kafka_admin_state(const struct kafka_admin *admin);
const char *kafka_admin_detail(const struct kafka_admin *admin);

#endif
