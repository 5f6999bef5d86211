/* broker - the Kafka of the simulation: job and result logs, committed offsets, the group; and what must hold about them.
 *
 * The rule about doubles. Each result appended belongs to a term: one ownership of one partition. A term that ends while the
 * committed offset and set do not cover the job excuses its results, because the next owner fetches that job again; so does a
 * result appended after the term's end, and one whose producer was told that it failed. Results - excused <= 1, always, and the
 * places where terms end check that the worker was allowed to end them like that. Exactly once nothing excuses anything: see
 * coordinator.h. */
#ifndef GATHERD_SIM_BROKER_H
#define GATHERD_SIM_BROKER_H

#include "offsetmap.h"
#include "world.h"

#define PARTS_MAX 4
#define SESSION_US (10 * US_PER_S)

enum job_kind {
	JOB_URL,
	JOB_TEXT, /* JSON with wishes */
	JOB_GARBAGE,
	JOB_NULL,
	JOB_BAD_SCHEME,
	JOB_BAD_PORT,
	JOB_PRIVATE, /* an address that the guard denies */
	JOB_EXPIRED,
	JOB_KINDS
};

struct rec {
	int64_t offset;
	uint8_t *value;
	size_t len;
	char key[16];
	enum job_kind kind;
	int32_t appended; /* results in the log */
	int32_t excused;  /* of those, how many the faults explain */
	int32_t live;	  /* of those, appended in the term that runs */
	int32_t dead_letters;
	int64_t acked_term; /* the last term in which a worker was told that its result is in the log */
	bool is_covered;    /* by the committed offset and set */
};

struct topic_part {
	struct rec *recs;
	size_t n, n_visible; /* all, and those that are in the log by now */
	int64_t end;	     /* offset of the next record, trailing gap included */
	int64_t committed;   /* -1 = nothing yet */
	char metadata[OFFSETMAP_TEXT_MAX + 1];
	struct member *owner; /* NULL = nobody */
	int64_t term;
};

enum member_state {
	MEMBER_NONE,
	MEMBER_JOINING,
	MEMBER_ASSIGNED, /* the group gave it partitions, it does not know yet */
	MEMBER_STABLE,
	MEMBER_REVOKING, /* it was told, and drains */
	MEMBER_OUT,	 /* the group dropped it, it does not know yet */
	MEMBER_DEAD,	 /* crashed; its session is not over */
};

struct member {
	enum member_state state;
	int64_t id; /* another one after it was out */
	struct kafka_in *in;
	struct event session;
};

struct broker {
	struct topic_part parts[PARTS_MAX];
	int32_t n_parts;
	struct member members[MACHINES_MAX * 4];
	bool is_rebalancing;
	struct event deadline; /* of the rebalance that runs */
	int64_t last_term, last_member, generation;
	bool is_exactly_once;
	/* This history's faults. */
	double delivery_fails, delivery_unsure, commit_fails, commit_unsure, is_slow;
	double producer_breaks; /* at each request of a transaction */
	int64_t rebalance_timeout_us;
	size_t topic_max, dead_letter_max;
	int64_t delivery_us, commit_us, full_until_us;
	size_t producer_room;
};

extern struct broker broker;

void broker_start(int32_t n_parts);
void broker_done(void);
/* Takes value. Invisible until broker_show. */
void broker_add(int32_t partition, int64_t gap, enum job_kind kind, uint8_t *value, size_t len);
/* Puts n more records into the partition's log. */
void broker_show(int32_t partition, size_t n);
/* When the broker takes what is sent now; later in an outage. */
int64_t broker_time(int64_t latency);

struct rec *broker_find(int32_t partition, int64_t offset);
/* One more result of rec, from term. is_unsure: the worker is told that it failed. */
void broker_append(int32_t partition, struct rec *rec, int64_t term, bool is_unsure);
bool broker_owns(int32_t partition, const struct member *member, int64_t term);
void broker_commit(int32_t partition, int64_t offset, const char *metadata);
/* The ownership is over: what it did not commit will be repeated. */
void broker_end_term(int32_t partition);
/* Is rec complete by this commit? */
bool broker_covers(int64_t offset, const uint64_t *set, size_t n_bits, int64_t rec_offset);
/* Everything has its result and the commit says so. */
bool broker_is_done(void);

/* The group. */
struct member *group_add(struct kafka_in *in);
void group_joins(struct member *member);
/* Left in order, or dropped after its session. */
void group_remove(struct member *member);
void group_died(struct member *member);
/* Somebody starts a rebalance: metadata changed. */
void group_rebalance(void);
/* Its session or the rebalance timed out: the group takes its partitions away, and it does not know. */
void group_kick(struct member *member);

/* Is a transaction's offset of this member taken? Generation -1 is asked nothing. */
bool group_takes(int64_t member_id, int64_t generation);

/* Told to consumer.c by the group. */
void consumer_assign(struct kafka_in *in, const int32_t *partitions, size_t n);
void consumer_revoke(struct kafka_in *in);
void consumer_lost(struct kafka_in *in);
void consumer_wake(struct kafka_in *in, int32_t partition);
bool consumer_is_leaving(const struct kafka_in *in);
struct member *consumer_member(const struct kafka_in *in);
/* The term in which the machine owns the partition now; 0 = it does not. */
int64_t consumer_term(const struct kafka_in *in, int32_t partition);
/* Results of the machine's producer from this term that the broker has not answered, exactly once: not committed. */
size_t producer_pending(const struct kafka_out *out, int32_t partition, int64_t term);

#endif
