#include "report.h"

#include "clock.h"

#include <stdio.h>

#define PREFETCH_BYTES_PER_PARTITION (8 * 1024 * 1024)
#define TROUBLED_MAX 20 /* hosts shown in /status */

static int64_t age_ms(int64_t now_us, int64_t since_us)
{
	return since_us ? (now_us - since_us) / US_PER_MS : 0;
}

/* The lowest open job; NULL = none. */
static const struct task *head(const struct partition *part)
{
	return LIST_ENTRY(list_first(&part->open), const struct task, open_node);
}

/* It counts from its first turn: waiting never does. */
static int64_t head_age_ms(const struct partition *part, int64_t now_us)
{
	return head(part) ? age_ms(now_us, head(part)->first_turn_us) : 0;
}

static struct health_place place_of(const struct task *task)
{
	if (!task)
		return (struct health_place){0};
	return (struct health_place){task->rec.topic, task->rec.partition, task->rec.offset};
}

static int64_t backlog(const struct partition *part)
{
	int64_t start, end, done;

	kafka_part_watermarks(part->kafka, &start, &end);
	if (end < 0)
		return 0;
	done = part->win ? window_commit_point(part->win) : MAX(part->committed, start);
	return MAX(end - MAX(done, 0) - (part->win ? window_completed_above(part->win) : 0), 0);
}

struct health_facts report_facts(const struct pipeline *pl, bool is_draining, int64_t not_member_since_us)
{
	const struct task *oldest;
	int64_t oldest_us = dispatch_oldest_us(pl->dispatcher, &oldest);
	int64_t now_us = loop_now_us(pl->loop);
	enum kafka_state state = kafka_in_state(pl->in);
	struct health_facts facts = {
		.is_asking = state == KAFKA_STATE_ASKING,
		.has_broker = state != KAFKA_STATE_NO_BROKER && state != KAFKA_STATE_ASKING,
		.is_denied = state == KAFKA_STATE_DENIED,
		.has_topics = state != KAFKA_STATE_NO_TOPIC,
		.is_member = kafka_in_is_member(pl->in),
		.is_draining = is_draining,
		.state_detail = kafka_in_state_detail(pl->in),
		.not_member_ms = age_ms(now_us, not_member_since_us),
		.oldest_undelivered_ms = age_ms(now_us, oldest_us),
		.undelivered = (int64_t)pl->tasks.in[TASK_DELIVERING].len,
		.oldest = place_of(oldest),
		.job_deadline_ms = pl->opts->job_deadline,
		.loop_lag_ms = loop_lag_us(pl->loop) / US_PER_MS,
		.since_poll_ms = age_ms(now_us, kafka_in_polled_us(pl->in)),
		.has_producer = kafka_out_is_ready(pl->out),
		.helper_job = helper_running(pl->helper),
	};

	LIST_EACH(&pl->partitions, part, struct partition, node) {
		if (head_age_ms(part, now_us) <= facts.head_job_age_ms)
			continue;
		facts.head_job_age_ms = head_age_ms(part, now_us);
		facts.head = place_of(head(part));
	}
	return facts;
}

static void fill_gauges(struct pipeline *pl, bool is_healthy)
{
	struct metrics *metrics = pl->metrics;

	metrics->inflight = pl->admit.inflight;
	metrics->resolving = pl->admit.resolving;
	metrics->waiting = pl->admit.waiting;
	metrics->backoff = (int64_t)(pl->tasks.in[TASK_BACKOFF].len + pl->tasks.in[TASK_LATER].len);
	metrics->undelivered = (int64_t)pl->tasks.in[TASK_DELIVERING].len;
	metrics->memory_bytes = (int64_t)pipeline_bytes(pl);
	metrics->memory_max_bytes = pl->opts->memory_max;
	metrics->hosts = (int64_t)hosts_count(pl->admit.hosts);
	struct hosts_counts counts = hosts_counts(pl->admit.hosts);
	metrics->host_strikes = counts.strikes;
	metrics->hosts_slowed = (int64_t)counts.slowed;
	metrics->hosts_down = (int64_t)counts.down;
	metrics->hosts_spread = (int64_t)counts.spread;
	metrics->hosts_spread_total = counts.spread_total;
	metrics->robots_known = (int64_t)robots_cache_count(pl->robots);
	metrics->robots_bytes = (int64_t)robots_cache_bytes(pl->robots);
	metrics->partitions = (int64_t)pl->partitions.len;
	metrics->prefetch_max_bytes = metrics->partitions * PREFETCH_BYTES_PER_PARTITION;
	metrics->oldest_undelivered_ms = age_ms(loop_now_us(pl->loop), dispatch_oldest_us(pl->dispatcher, NULL));
	metrics->healthy = is_healthy;
	metrics->log_dropped = pl->log ? log_dropped(pl->log) : 0;
}

/* One row of the table's PARTITION_GAUGEs: same names, same order as metrics.def. */
enum part_gauge { BACKLOG, COMMIT_POINT, END_OFFSET, OPEN_SPAN, COMPLETED_ABOVE, INFLIGHT, WINDOW_FULL, HEAD_AGE, PART_GAUGES };

static const struct {
	const char *name, *help;
} part_gauges[] = {
#define PARTITION_GAUGE(name, help) {name, help},
#include "metrics.def"
};
_Static_assert(ARRAY_LEN(part_gauges) == PART_GAUGES, "one value for each row");

static void part_values(const struct partition *part, int64_t now_us, int64_t out[static PART_GAUGES])
{
	int64_t start, end;

	kafka_part_watermarks(part->kafka, &start, &end);
	out[BACKLOG] = backlog(part);
	out[COMMIT_POINT] = part->win ? window_commit_point(part->win) : part->committed;
	out[END_OFFSET] = end;
	out[OPEN_SPAN] = part->win ? window_span(part->win) : 0;
	out[COMPLETED_ABOVE] = part->win ? window_completed_above(part->win) : 0;
	out[INFLIGHT] = part->admit.inflight;
	out[WINDOW_FULL] = !list_empty(&part->held) || (part->win && window_is_full(part->win));
	out[HEAD_AGE] = head_age_ms(part, now_us);
}

int report_metrics(struct pipeline *pl, struct buf *out, bool is_healthy)
{
	fill_gauges(pl, is_healthy);
	int err = metrics_print(pl->metrics, out);

	for (int i = 0; i < PART_GAUGES && !err; i++) {
		err = metrics_print_head(out, part_gauges[i].name, "gauge", part_gauges[i].help);
		LIST_EACH(&pl->partitions, part, struct partition, node) {
			char labels[400];
			int64_t values[PART_GAUGES];
			part_values(part, loop_now_us(pl->loop), values);
			snprintf(labels, sizeof(labels), "topic=\"%s\",partition=\"%d\"", kafka_part_topic(part->kafka),
				 kafka_part_partition(part->kafka));
			if (!err)
				err = metrics_print_sample(out, part_gauges[i].name, labels, values[i]);
		}
	}
	return err;
}

static int report_troubled(const struct pipeline *pl, struct buf *out)
{
	struct host_trouble hosts[TROUBLED_MAX];
	size_t n = hosts_troubled(pl->admit.hosts, loop_now_us(pl->loop), hosts, TROUBLED_MAX);
	int err = buf_add_str(out, "],\"hosts_in_trouble\":[");

	for (size_t i = 0; i < n && !err; i++) {
		const struct host_trouble *host = &hosts[i];
		char status[16];
		snprintf(status, sizeof(status), "%d", host->cause);
		err = buf_printf(out, "%s{\"host\":\"%s\",\"state\":\"%s\",\"cause\":\"%s\",\"starts_per_second\":%.2f,\"wait_ms\":%lld}",
				 i ? "," : "", host->key, host->is_down ? "down" : "slowed",
				 host->is_down ? err_code(host->cause) : status, host->pace, (long long)(host->wait_us / US_PER_MS));
	}
	return err;
}

int report_status(const struct pipeline *pl, struct buf *out, enum health_cause cause)
{
	const char *comma = "";
	int err = buf_printf(out,
			     "{\"instance\":\"%s\",\"version\":\"" GATHERD_VERSION "\",\"health\":\"%s\",\"inflight\":%d,"
			     "\"waiting\":%d,\"undelivered\":%zu,\"memory_bytes\":%zu,\"hosts\":%zu,\"partitions\":[",
			     pl->instance, health_name(cause), pl->admit.inflight, pl->admit.waiting,
			     pl->tasks.in[TASK_DELIVERING].len, pipeline_bytes(pl), hosts_count(pl->admit.hosts));

	LIST_EACH(&pl->partitions, part, struct partition, node) {
		int64_t v[PART_GAUGES];
		part_values(part, loop_now_us(pl->loop), v);
		if (!err)
			err = buf_printf(out,
					 "%s{\"topic\":\"%s\",\"partition\":%d,\"commit_point\":%lld,\"end\":%lld,"
					 "\"backlog\":%lld,\"inflight\":%lld,\"window_full\":%s}",
					 comma, kafka_part_topic(part->kafka), kafka_part_partition(part->kafka),
					 (long long)v[COMMIT_POINT], (long long)v[END_OFFSET], (long long)v[BACKLOG],
					 (long long)v[INFLIGHT], v[WINDOW_FULL] ? "true" : "false");
		comma = ",";
	}
	if (!err)
		err = report_troubled(pl, out);
	return err ? err : buf_add_str(out, "]}\n");
}
