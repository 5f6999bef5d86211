/* kafka_acl - which rights of the broker's ACLs does this user lack? Asked by requests that change nothing, whoever is at work:
 *
 * - Read on the group and on jobs topics: an offset is committed for a partition that cannot exist. The authorizer is asked first.
 * - Write on topics: a record with acks=2, which Kafka refuses (since 0.9), but after the authorizer was asked.
 * - Write on transactional ids: init_transactions as GROUP-INSTANCE-check, which no worker is called. A right on the very id of a worker
 *   is not seen by that, so with an `instance` a refusal is no answer.
 *
 * Describe goes with each of them, so it is not asked for. The mock broker would take such a record, and is not asked at all.
 * Layer 3 (librdkafka). */
#ifndef GATHERD_KAFKA_ACL_H
#define GATHERD_KAFKA_ACL_H

#include "base.h"
#include "options.h"

enum acl_answer { ACL_ALLOWED, ACL_DENIED, ACL_UNKNOWN };

/* right: "Read on topic jobs"; detail: the broker's words, unless it is allowed. */
typedef void (*kafka_acl_fn)(void *ctx, enum acl_answer answer, const char *right, const char *detail);

/* Group and topics. fn once for each right, from inside. Blocks, at worst for about wait_ms: never on the loop. What was not answered
 * till then is ACL_UNKNOWN. */
void kafka_acl_ask(const struct options *opts, int64_t wait_ms, kafka_acl_fn fn, void *ctx);
/* The same for transactional ids. */
void kafka_acl_ask_ids(const struct options *opts, int64_t wait_ms, kafka_acl_fn fn, void *ctx);

#endif
