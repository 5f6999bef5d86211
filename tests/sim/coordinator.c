#include "coordinator.h"

#include <inttypes.h>
#include <stdio.h>

static struct list txns;

void coordinator_start(void)
{
	list_init(&txns);
}

static void clear(struct txn *txn)
{
	event_clear(&txn->timeout);
	for (int32_t p = 0; p < PARTS_MAX; p++) {
		free(txn->offsets[p].metadata);
		txn->offsets[p] = (struct txn_offset){.offset = -1};
	}
	txn->n_rows = 0;
	txn->is_open = false;
}

void coordinator_done(void)
{
	LIST_EACH(&txns, txn, struct txn, node) {
		clear(txn);
		list_remove(&txn->node);
		free(txn->rows);
		free(txn);
	}
}

struct txn *coordinator_get(const char *id)
{
	LIST_EACH(&txns, txn, struct txn, node)
		if (strcmp(txn->id, id) == 0)
			return txn;
	struct txn *txn = xcalloc(1, sizeof(*txn));
	snprintf(txn->id, sizeof(txn->id), "%s", id);
	clear(txn);
	list_push(&txns, &txn->node);
	return txn;
}

static void end_aborted(struct txn *txn, const char *why)
{
	if (!txn->is_open)
		return;
	trace(NULL, why, (int64_t)txn->n_rows, txn->epoch);
	seen.txn_aborts++;
	clear(txn);
}

int64_t coordinator_init(struct txn *txn)
{
	end_aborted(txn, "transaction fenced");
	return ++txn->epoch;
}

/* A dead worker's, or one that is too slow: its producer is fenced. */
static void on_timeout(void *ctx)
{
	struct txn *txn = ctx;

	seen.txn_timeouts++;
	txn->epoch++;
	end_aborted(txn, "transaction timed out");
}

static enum verdict open_txn(struct txn *txn, int64_t epoch)
{
	if (epoch != txn->epoch)
		return VERDICT_FENCED;
	if (!txn->is_open)
		event_set(&txn->timeout, NULL, world.now_us + TXN_TIMEOUT_US + (int64_t)rnd(TXN_TIMEOUT_US), on_timeout, txn);
	txn->is_open = true;
	return VERDICT_OK;
}

enum verdict coordinator_append(struct txn *txn, int64_t epoch, const struct txn_row *row)
{
	enum verdict verdict = open_txn(txn, epoch);

	if (verdict)
		return verdict;
	if (txn->n_rows % 64 == 0)
		txn->rows = xrealloc(txn->rows, (txn->n_rows / 64 + 1) * 64 * sizeof(*txn->rows));
	txn->rows[txn->n_rows++] = *row;
	return VERDICT_OK;
}

/* The group looks at the member and its generation, and at nothing else: not at who has the partition. */
enum verdict coordinator_offsets(struct txn *txn, int64_t epoch, const struct kafka_member *member, const struct txn_offset *offsets)
{
	if (epoch != txn->epoch)
		return VERDICT_FENCED;
	if (!group_takes(member->id, member->generation))
		return VERDICT_REFUSED;
	open_txn(txn, epoch);
	for (int32_t p = 0; p < broker.n_parts; p++) {
		if (offsets[p].offset < 0)
			continue;
		const struct member *owner = broker.parts[p].owner;
		if (owner && owner->id != member->id)
			fail("%s commits partition %d over the head of its owner", txn->id, p);
		free(txn->offsets[p].metadata);
		txn->offsets[p] = (struct txn_offset){offsets[p].offset, xstrdup(offsets[p].metadata)};
	}
	return VERDICT_OK;
}

static void publish(const struct txn *txn, const struct txn_row *row)
{
	struct rec *rec = row->rec;
	int32_t *n = row->topic == KAFKA_RESULTS ? &rec->appended : &rec->dead_letters;

	if (++*n > 1)
		fail("doubled: %s commits %s of job %d/%" PRId64 " once more", txn->id,
		     row->topic == KAFKA_RESULTS ? "the result" : "the dead letter", row->partition, rec->offset);
	if (row->topic == KAFKA_RESULTS)
		seen.results++;
	else
		seen.dead_letters++;
}

/* Everything in it becomes visible in the same moment. */
static void end_committed(struct txn *txn)
{
	trace(NULL, "transaction committed", (int64_t)txn->n_rows, txn->epoch);
	for (size_t i = 0; i < txn->n_rows; i++)
		publish(txn, &txn->rows[i]);
	for (int32_t p = 0; p < broker.n_parts; p++)
		if (txn->offsets[p].offset >= 0)
			broker_commit(p, txn->offsets[p].offset, txn->offsets[p].metadata);
	for (size_t i = 0; i < txn->n_rows; i++) {
		const struct txn_row *row = &txn->rows[i];
		if (!row->rec->is_covered)
			fail("%s commits %s of job %d/%" PRId64 ", and the offsets do not cover it", txn->id,
			     row->topic == KAFKA_RESULTS ? "the result" : "the dead letter", row->partition, row->rec->offset);
		if (!row->rec->appended)
			fail("%s commits the dead letter of job %d/%" PRId64 " without its result", txn->id, row->partition,
			     row->rec->offset);
	}
	seen.txns++;
	clear(txn);
}

enum verdict coordinator_end(struct txn *txn, int64_t epoch, bool is_commit)
{
	if (epoch != txn->epoch || (is_commit && !txn->is_open))
		return VERDICT_FENCED;
	if (is_commit)
		end_committed(txn);
	else
		end_aborted(txn, "transaction aborted");
	return VERDICT_OK;
}

bool coordinator_is_unstable(int32_t partition)
{
	LIST_EACH(&txns, txn, struct txn, node)
		if (txn->offsets[partition].offset >= 0)
			return true;
	return false;
}

bool coordinator_has(const struct txn *txn, const struct rec *rec)
{
	for (size_t i = 0; i < txn->n_rows; i++)
		if (txn->rows[i].rec == rec && txn->rows[i].topic == KAFKA_RESULTS)
			return true;
	return false;
}

size_t coordinator_count(const struct txn *txn, int32_t partition)
{
	size_t n = 0;

	for (size_t i = 0; i < txn->n_rows; i++)
		n += txn->rows[i].partition == partition;
	return n;
}
