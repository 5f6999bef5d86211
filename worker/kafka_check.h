/* kafka_check - `gatherd --check`: can these settings work here, against this cluster?
 *
 * One line per question: ok, warning or failed, with what, where and what to do. Every question to the cluster is bounded
 * to a few seconds. Blocks: never called from the loop. Layer 3 (librdkafka). */
#ifndef GATHERD_KAFKA_CHECK_H
#define GATHERD_KAFKA_CHECK_H

#include "base.h"
#include "options.h"

#include <stdio.h>

/* The exit code: 0 when nothing failed (warnings may stand), else 1. */
int kafka_check(const struct options *opts, FILE *out);

#endif
