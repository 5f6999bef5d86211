/* pipeline - the way of one URL, from the job record to the commit. lifecycle.h starts, drains and stops it.
 *
 * pipeline.c reads top to bottom as that way. What runs is on exactly one list (task.h); what belongs to a partition is on its list of
 * open jobs. Layer 4. */
#ifndef GATHERD_PIPELINE_H
#define GATHERD_PIPELINE_H

#include "admit.h"
#include "base.h"
#include "dispatch.h"
#include "fetch.h"
#include "heap.h"
#include "kafka_in.h"
#include "kafka_out.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "netguard.h"
#include "options.h"
#include "resolve.h"
#include "robots_cache.h"
#include "task.h"
#include "window.h"

struct route;

/* One assigned partition. */
struct partition {
	struct list_node node; /* on pipeline->partitions */
	struct kafka_part *kafka;
	struct admit_part admit;
	struct window *win; /* NULL until the first record when nothing was committed */
	struct list open;   /* its tasks, in offset order; the first is the lowest open job */
	struct list held;   /* read beyond the span: tried again when it moved */
	int64_t committed;  /* as confirmed, or -1 */
	int64_t next_read;  /* what follows the last record read; -1 until the first */
	int64_t epoch;      /* of its assignment */
	bool may_read;      /* its completed set has arrived */
	bool is_dry;        /* its queue was empty when last read */
	bool is_in_commit;  /* part of the commit in flight */
	bool is_draining;
	int64_t cut_us, give_up_us; /* while draining: when transfers are aborted, when deliveries and the commit are given up */
};

/* A range done again: gatherctl replay. */
struct pipeline_replay {
	const char *id;	     /* in each result */
	int64_t interval_us; /* between two jobs that this process starts; 0 = no limit */
	/* Is it to be done again? Where it cannot be understood, what there is of job and URL is filled in. NULL = all are. */
	bool (*wants)(void *ctx, const struct task *task);
	void *ctx;
};

/* One job watched from step to step, with nothing of Kafka: gatherctl try. */
struct pipeline_watch {
	/* A transfer begins, or (err) the guard or the deadline lets none begin: the addresses found, of which the guard leaves some. */
	void (*on_start)(void *ctx, const struct task *task, const struct route *route, const struct addresses *found, int err);
	/* A transfer has ended; what comes of it is not decided yet. */
	void (*on_answer)(void *ctx, const struct task *task, const struct response *resp);
	/* An attempt is over, err 0 = a success; the next one is due in wait_ms, -1 = there is none. */
	void (*on_attempt)(void *ctx, const struct task *task, int err, const char *detail, int64_t wait_ms);
	/* The one outcome, in place of the delivery. The task is freed with its partition. */
	void (*on_end)(void *ctx, const struct task *task);
	void *ctx;
};

struct pipeline {
	struct loop *loop;
	struct helper *helper;
	struct metrics *metrics;
	struct log *log;
	struct options *opts;
	const char *instance;
	struct netguard *guard;
	struct resolve *resolve;
	struct fetch *fetch;
	struct kafka_in *in;
	struct kafka_out *out;
	struct dispatcher *dispatcher;
	struct admit admit;
	struct robots_cache *robots;
	char robots_token[ROBOTS_TOKEN_MAX]; /* of the user agent that the cached rules were read for */
	struct list partitions;
	struct task_lists tasks;
	struct heap timers;     /* tasks */
	struct loop_timer wake; /* the earliest of all that is due */
	size_t task_bytes;
	int64_t epoch;
	uint64_t n_spread; /* hosts seen on more than one partition, as last warned of */
	int64_t spread_warned_us;
	uint64_t random; /* state of the back-off's generator */
	const struct pipeline_replay *replay; /* NULL = an ordinary worker */
	int64_t pace_us;		      /* when the next job may be started */
	const struct pipeline_watch *watch;   /* NULL = nobody looks, results are delivered */
	bool is_reading; /* false while the process drains */
	bool is_paused;  /* memory.max is far exceeded: all transfers but one stand still */
	int64_t commit_started_us;
	int64_t last_commit_us;    /* when the last one was sent */
	int64_t confirmed_us;      /* when the last one was confirmed */
	int64_t held_us;	   /* since when results are held, as dispatch_is_held says */
	int32_t uncommitted;       /* deliveries since then */
	bool commit_in_flight;
	bool commit_waits; /* exactly once: until something comes back from the producer */
	void (*on_partition_drained)(void *ctx); /* some draining partition may be done */
	void *ctx;
};

/* Everything but the I/O parts is filled here; the caller sets those before the first turn. */
void pipeline_init(struct pipeline *pl, struct loop *loop, struct metrics *metrics, struct log *log, struct options *opts,
		   const char *instance, uint64_t seed);
void pipeline_done(struct pipeline *pl);
/* After each turn of the loop: what is due, turns, reading, drains, the commit. */
void pipeline_turn(void *pl);

/* pipeline_parts.c, and from kafka_in: */
struct partition *pipeline_add_partition(struct pipeline *pl, struct kafka_part *kafka);
/* A record that nobody read from Kafka, into a partition with kafka == NULL; with a watch only. */
void pipeline_put(struct pipeline *pl, struct partition *part, const struct record *rec);
/* A record is read that does not follow the last one; the first one tells what became of the topic since the commit. */
void pipeline_check_gap(struct pipeline *pl, struct partition *part, int64_t offset);
/* Of the offsets between the last record read and `upto`, those that retention took; others are markers or were compacted. */
void pipeline_count_lost(struct pipeline *pl, const struct partition *part, int64_t upto);
void pipeline_begin_partition(struct pipeline *pl, struct partition *part, int64_t offset, const char *metadata, size_t len);
/* Stops reading; waiting and backing-off jobs are let go; transfers have until cut_us, deliveries and the last commit until
 * give_up_us. Calling again only shortens. */
void pipeline_drain_partition(struct pipeline *pl, struct partition *part, int64_t cut_us, int64_t give_up_us);
/* Nothing of it is left to wait for. */
bool pipeline_is_drained(const struct partition *part);
/* Drops what is left, at once. */
void pipeline_remove_partition(struct pipeline *pl, struct partition *part);
void pipeline_on_wake(struct pipeline *pl);

/* pipeline_route.c */
/* What the settings add to one attempt: views that a reload ends. NULL = none. */
struct route {
	const struct secret *secret;
	const struct proxy *proxy;
};

/* The profile that the job names, or the one of the URL's host. */
const struct host_options *pipeline_profile(const struct pipeline *pl, const struct task *task, const struct url *url);
/* For the next attempt. 0, -ERR_SECRET_UNKNOWN, -ERR_SECRET_HOST or -ERR_PROXY_UNKNOWN. */
int pipeline_route(const struct pipeline *pl, const struct task *task, struct route *ret_route) MUST_CHECK;
/* The same, when the task's profile is known already. */
int pipeline_route_by(const struct pipeline *pl, const struct task *task, const struct host_options *host, struct route *ret_route) MUST_CHECK;
/* Of the proxy or of the URL's host; NULL when that is an address. */
const char *pipeline_name_of_peer(const struct route *route, const struct url *url);
/* Leaves of addrs what the guard allows; each is judged again at the connect. Through a proxy, only the URL's own text is judged.
 * 0 or -ERR_ADDRESS_DENIED. */
int pipeline_guard(struct pipeline *pl, const struct route *route, const struct url *url, struct addresses *addrs) MUST_CHECK;

/* pipeline_robots.c: robots=obey. A robots.txt is fetched on the turns of the first job that needs it; those of the same origin wait
 * in TASK_ROBOTS. */
/* May the task's URL be fetched? 0 and its Crawl-delay, also when its turn shall be for robots.txt (asks_url); -ERR_AGAIN: it was
 * put to those who wait for the one that asks; -ERR_ROBOTS_DENIED, -ERR_ROBOTS_UNREACHABLE. */
int pipeline_robots_gate(struct pipeline *pl, struct task *task, int64_t *ret_delay_us) MUST_CHECK;
/* What is different in a request for robots.txt. */
void pipeline_robots_request(struct pipeline *pl, struct fetch_request *req);
/* 0: asks_url is the next hop, or NULL and the rules are known; or why there is no answer. */
int pipeline_robots_answer(struct pipeline *pl, struct task *task, const struct response *resp) MUST_CHECK;
/* No answer, and that stands for a while. */
void pipeline_robots_unreachable(struct pipeline *pl, struct task *task);
/* It asks and waits no more. */
void pipeline_robots_leave(struct task *task);
/* An empty or another token: rules read for the old one are forgotten. */
void pipeline_robots_reload(struct pipeline *pl);
/* The next that waits without cause, taken off its list; NULL when there is none. */
struct task *pipeline_robots_due(struct pipeline *pl);
/* Keeps the cache within its bounds. */
void pipeline_robots_trim(struct pipeline *pl);

/* For pipeline_parts.c: without a result. The job is not complete, the next owner reads it again. */
void pipeline_drop(struct pipeline *pl, struct task *task);

/* pipeline_commit.c */
/* When the next commit may go; INT64_MAX when nothing is to be committed, or one is in flight. */
int64_t pipeline_commit_due_us(const struct pipeline *pl);
void pipeline_commit(struct pipeline *pl);
/* At least once, the broker is out of reach: results that come now are held until a commit is confirmed. When the session ends before
 * that, their jobs are done again elsewhere, and what had gone out would be doubled. */
void pipeline_hold_output(struct pipeline *pl);
/* The same, when nobody said so: neither results nor commits are acknowledged for a while. */
void pipeline_watch_output(struct pipeline *pl);
/* At least once: the commit is answered. */
void pipeline_on_committed(struct pipeline *pl, int err, const char *detail);
/* Exactly once: the transaction has ended. */
void pipeline_on_txn(struct pipeline *pl, enum txn_end end, const char *detail);

/* pipeline_replay.c */
/* Gives the job its replay's id. False: it is not to be done again. */
bool pipeline_is_replayed(struct pipeline *pl, struct task *task);
/* How many jobs may be started now; SIZE_MAX = no limit. */
size_t pipeline_pace_room(const struct pipeline *pl);
/* Partitions of which all was read end at their stop. */
void pipeline_reach_stops(struct pipeline *pl);

/* After a reload of the live settings. */
void pipeline_apply_limits(struct pipeline *pl);
size_t pipeline_bytes(const struct pipeline *pl);

#endif
