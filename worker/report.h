/* report - what the HTTP port shows: /metrics, /livez, /readyz, /healthz, /status. Layer 4. */
#ifndef GATHERD_REPORT_H
#define GATHERD_REPORT_H

#include "buf.h"
#include "health.h"
#include "pipeline.h"

/* Fills the facts that the pipeline knows. */
struct health_facts report_facts(const struct pipeline *pl, bool is_draining, int64_t not_member_since_us);
/* Prometheus text: the table, and the rows per partition. */
int report_metrics(struct pipeline *pl, struct buf *out, bool is_healthy) MUST_CHECK;
/* One JSON object: instance, version, health, counts, partitions. No secrets. */
int report_status(const struct pipeline *pl, struct buf *out, enum health_cause cause) MUST_CHECK;

#endif
