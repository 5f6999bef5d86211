/* kafka_internal - what the kafka_*.c files share: handles whose events come by one eventfd, their logs, their end.
 *
 * Only kafka_*.c may include it. Layer 3 (librdkafka). */
#ifndef GATHERD_KAFKA_INTERNAL_H
#define GATHERD_KAFKA_INTERNAL_H

#include "helper.h"
#include "kafka_conf.h"
#include "kafka_in.h"
#include "list.h"
#include "log.h"
#include "loop.h"
#include "options.h"

#include <librdkafka/rdkafka.h>

/* ---- kafka_handle.c ---- */

/* Errors already logged: each kind again only after a minute. */
struct kafka_errors {
	struct {
		rd_kafka_resp_err_t err;
		int64_t at_us;
	} rows[16];
};

/* A handle that reports by events and logs to its queue. type may differ from side: the admin client of kafka_in is not
 * a member of the group. conf is used up in any case. *ret_error: free. */
int kafka_handle_new(rd_kafka_type_t type, rd_kafka_conf_t *conf, int events, rd_kafka_t **ret_rk,
		     char **ret_error) MUST_CHECK;
/* Sets a property of our own on top; our bug when librdkafka refuses it. */
void kafka_handle_set(rd_kafka_conf_t *conf, const char *name, const char *value);
/* From now on the queue signals the eventfd; -1 ends that. */
void kafka_queue_watch(rd_kafka_queue_t *queue, int fd);
/* Ends the signals and the reference. Takes and nulls. */
void kafka_queue_drop(rd_kafka_queue_t **queue);
/* LOG events of any handle. */
void kafka_log_event(struct log *log, rd_kafka_event_t *ev);
/* ERROR events: once per kind. True when it was logged. */
bool kafka_log_error(struct log *log, struct kafka_errors *errors, const char *who, rd_kafka_event_t *ev,
		     int64_t now_us);
/* Destroys handles on a thread of its own, which is given up after wait_ms: rd_kafka_destroy has no limit. Nobody may
 * use them any more. False when it was given up. */
bool kafka_destroy(rd_kafka_t *const *rks, size_t n, int64_t wait_ms);

/* ---- kafka_acl.c ---- */

/* The broker's authorizer said no. */
bool kafka_is_refusal(rd_kafka_resp_err_t err);

/* ---- kafka_in.c, kafka_group.c, kafka_plan.c, kafka_probe.c ---- */

#define KAFKA_BATCH_MAX 256
#define KAFKA_TOPICS_MAX 256

struct kafka_part {
	struct kafka_in *in;
	struct list_node node; /* in->parts */
	char *topic;
	int32_t partition;
	rd_kafka_queue_t *queue;
	void *ctx;
	uint64_t epoch; /* of the assignment that brought it */
	bool has_begun, is_at_stop;
	int64_t start, stop; /* of the plan; 0 and INT64_MAX without one */
};

enum kafka_sight { SIGHT_SEEN, SIGHT_MISSING, SIGHT_HIDDEN }; /* hidden: by the broker's ACLs */

/* What the helper thread finds out, for the loop. */
struct kafka_probe {
	struct helper_job job;
	struct loop_timer timer;
	bool is_pending;
	int64_t asked_us;
	bool wants_refresh; /* a topic of ours appeared: the group should look at once */
	uint64_t epoch;	    /* of the group when it was submitted */
	/* Filled by run(): */
	rd_kafka_resp_err_t err;
	bool has_joined;
	enum kafka_sight topics[KAFKA_TOPICS_MAX];
	char denied[512]; /* the rights that are missing, "" = none; as of the last time that they were asked for */
	bool wants_rights, has_asked_rights; /* by run() */
	bool is_suspected;		     /* that one is missing: they are to be asked for, from then on */
	int64_t rights_at_us;
	const char *refused_id; /* transactional; NULL = none */
};

struct kafka_in {
	struct loop *loop;
	struct helper *helper;
	struct metrics *metrics;
	struct log *log;
	const struct options *opts;
	const struct kafka_in_events *events;
	void *ctx;
	char group[256];
	struct kafka_range *plan;
	size_t n_plan;
	struct loop_timer plan_timer; /* the next question how far the group is */

	rd_kafka_t *rk, *admin;
	rd_kafka_queue_t *queue, *admin_queue, *close_queue;
	int fd;
	struct loop_timer tick;
	int64_t polled_us; /* the group's queue */
	struct kafka_errors errors;

	/* group */
	struct list parts;
	uint64_t epoch;		   /* goes up with every assignment and every loss */
	bool is_member, is_asking; /* is_asking: for the parts that have not begun */
	struct loop_timer ask;
	rd_kafka_event_t *revoke; /* held while the owner drains */
	rd_kafka_event_t *next;	  /* came meanwhile: the close revokes what is being revoked */
	bool is_lost, is_cooperative;
	bool is_broker_assigned;     /* the group protocol of KIP-848 */
	bool is_restarting;	     /* what is being given up is assigned again */
	struct kafka_member *member; /* NULL before the first assignment */
	struct kafka_part **revoked;
	size_t n_revoked;
	int64_t unassign_by_us; /* the owner is done; a commit is waited for till then. 0 = not so far */

	/* commit */
	bool is_committing;

	/* reading */
	rd_kafka_message_t *batch[KAFKA_BATCH_MAX];
	size_t n_batch;
	struct record_header *headers;
	size_t headers_cap;

	/* state */
	struct kafka_probe probe;
	rd_kafka_topic_t *topics[KAFKA_TOPICS_MAX]; /* of admin: jobs, then results and dead letters */
	enum kafka_sight seen[KAFKA_TOPICS_MAX];
	size_t n_topics, n_job_topics;
	enum kafka_state state;
	char detail[512], broker_error[512];

	/* closing */
	bool is_closing, is_closed, has_no_group;
	loop_fn on_closed;
	void *on_closed_ctx;
};

/* kafka_in.c */
/* With metadata copied; the caller's. */
rd_kafka_topic_partition_list_t *kafka_commit_list(const struct kafka_commit *rows, size_t n);

/* kafka_group.c */
/* The group as it was when an assignment came. */
const rd_kafka_consumer_group_metadata_t *kafka_member_metadata(const struct kafka_member *member);
struct kafka_member *kafka_member_ref(struct kafka_member *member);
void kafka_member_unref(struct kafka_member *member);
void kafka_group_on_rebalance(struct kafka_in *in, rd_kafka_event_t *ev); /* takes ev */
void kafka_group_on_offsets(struct kafka_in *in, rd_kafka_event_t *ev);
void kafka_group_on_commit(struct kafka_in *in, rd_kafka_event_t *ev);
void kafka_group_ask(void *in);
/* Asks the group's coordinator for the stable offsets of list, which it takes; the answer comes with opaque. */
void kafka_offsets_ask(struct kafka_in *in, rd_kafka_topic_partition_list_t *list, void *opaque);
/* Whether we are a member of the group. Blocks: on the helper. */
bool kafka_group_ask_joined(struct kafka_in *in);
/* A revoke that waited for a commit's answer too long. */
void kafka_group_tick(struct kafka_in *in);
/* Gives all references back, whatever the state. */
void kafka_group_done(struct kafka_in *in);

/* kafka_plan.c */
void kafka_plan_ask(void *in);
void kafka_plan_on_offsets(struct kafka_in *in, rd_kafka_event_t *ev);

/* kafka_probe.c */
int kafka_probe_init(struct kafka_in *in, char **ret_error) MUST_CHECK;
/* False: the helper is still in it, so the handles must be left alone. */
bool kafka_probe_done(struct kafka_in *in, int64_t wait_ms);

#endif
