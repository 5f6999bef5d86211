/* coordinator - transactions at the broker of the simulation: what is open, what it holds, how it ends.
 *
 * A record of an open transaction is in nobody's ledger. The commit puts its results, dead letters and offsets there at once, and that is
 * where exactly once is judged: each job at most one result and one dead letter, and only together with an offset that covers it. */
#ifndef GATHERD_SIM_COORDINATOR_H
#define GATHERD_SIM_COORDINATOR_H

#include "broker.h"

#include "kafka_in.h"
#include "kafka_out.h"

#define TXN_TIMEOUT_US (10 * US_PER_S) /* transaction.timeout.ms, and at most as much again until the broker looks */

/* Who asks: kafka_in takes it when an assignment comes. */
struct kafka_member {
	int64_t id, generation;
};

struct txn_row {
	struct rec *rec;
	int32_t partition;
	enum kafka_topic topic;
};

struct txn_offset {
	int64_t offset; /* -1 = none */
	char *metadata;
};

/* One transactional id. */
struct txn {
	struct list_node node;
	char id[24];
	int64_t epoch; /* of the producer that has it; an older one is fenced */
	bool is_open;
	struct txn_row *rows;
	size_t n_rows;
	struct txn_offset offsets[PARTS_MAX];
	struct event timeout;
};

enum verdict {
	VERDICT_OK,
	VERDICT_REFUSED, /* the transaction can only be aborted */
	VERDICT_FENCED,	 /* the producer is of no use any more */
};

void coordinator_start(void);
void coordinator_done(void);
struct txn *coordinator_get(const char *id);
/* init_transactions: ends what a producer before it has left open. Gives its epoch. */
int64_t coordinator_init(struct txn *txn);
enum verdict coordinator_append(struct txn *txn, int64_t epoch, const struct txn_row *row);
enum verdict coordinator_offsets(struct txn *txn, int64_t epoch, const struct kafka_member *member, const struct txn_offset *offsets);
enum verdict coordinator_end(struct txn *txn, int64_t epoch, bool is_commit);
/* Some transaction may still change the partition's offset. */
bool coordinator_is_unstable(int32_t partition);
/* Is the record's result in it? */
bool coordinator_has(const struct txn *txn, const struct rec *rec);
/* Records of that partition in it. */
size_t coordinator_count(const struct txn *txn, int32_t partition);
/* What a worker wants to commit is right: see check_row. txn: NULL at least once, or when it is over already. */
void consumer_check_commit(const struct kafka_in *in, const struct kafka_commit *rows, size_t n, const struct txn *txn);

#endif
