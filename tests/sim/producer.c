/* kafka_out of the simulation. What is produced is looked at twice: when it is taken, and when the broker gets it. */
#include "producer.h"

#include "err.h"
#include "gatherd/v1/result.pb-c.h"
#include "kafka_out.h"
#include "net.h"
#include "options.h"

#include <inttypes.h>

#define RECORD_MARGIN 512
#define MARGIN_MS 1000

/* ---- what a result must say ---- */

static uint64_t sum_bytes(uint64_t sum, struct span bytes)
{
	for (size_t i = 0; i < bytes.len; i++)
		sum = (sum ^ bytes.data[i]) * UINT64_C(0x100000001b3);
	return sum;
}

static uint64_t sum_delivery(const struct delivery *delivery)
{
	/* A large body is looked at in part: the last byte is enough to meet freed memory. */
	struct span value = {delivery->value.data, MIN(delivery->value.len, (size_t)300)};
	uint64_t sum = sum_bytes(sum_bytes(14695981039346656037u, delivery->key), value);

	if (delivery->value.len)
		sum = sum_bytes(sum, (struct span){delivery->value.data + delivery->value.len - 1, 1});
	for (size_t i = 0; i < delivery->n_headers; i++)
		sum = sum_bytes(sum_bytes(sum, span_str(delivery->headers[i].name)), delivery->headers[i].value);
	return sum;
}

static bool may_be(enum job_kind kind, enum outcome outcome)
{
	switch (kind) {
	case JOB_GARBAGE:
		return outcome == OUTCOME_BAD_JOB || outcome == OUTCOME_BLOCKED_POLICY;
	case JOB_NULL:
		return outcome == OUTCOME_BAD_JOB;
	case JOB_BAD_SCHEME:
	case JOB_BAD_PORT:
		return outcome == OUTCOME_BLOCKED_POLICY;
	case JOB_PRIVATE:
		return outcome == OUTCOME_BLOCKED_ADDRESS || outcome == OUTCOME_EXPIRED; /* job.wait */
	case JOB_EXPIRED:
		return outcome == OUTCOME_EXPIRED;
	default:
		return outcome != OUTCOME_UNSPECIFIED && outcome != OUTCOME_BAD_JOB && outcome != OUTCOME_CANCELLED &&
		       outcome != OUTCOME_INTERNAL && outcome < OUTCOME_COUNT;
	}
}

static void check_result(const struct kafka_out *out, const struct rec *rec, const Gatherd__V1__FetchResult *res)
{
	int64_t most_ms = out->opts->job_deadline + out->opts->dns_timeout + MARGIN_MS;
	int64_t took_ms = res->start_at_ms ? res->end_at_ms - res->start_at_ms : 0;

	if (!may_be(rec->kind, (enum outcome)res->outcome))
		fail("job %" PRId64 " of kind %d ended with %s (%s)", rec->offset, (int)rec->kind,
		     outcome_name((enum outcome)res->outcome), res->error ? res->error->message : "");
	if ((res->outcome == GATHERD__V1__OUTCOME__OUTCOME_OK) != !res->error)
		fail("job %" PRId64 ": %s with an error, or without one", rec->offset, outcome_name((enum outcome)res->outcome));
	if (!*res->job_id)
		fail("job %" PRId64 ": a result without a job id", rec->offset);
	if (took_ms > most_ms && !out->machine->was_reloaded && !out->machine->was_frozen && !out->machine->pl_was_paused)
		fail("job %" PRId64 " took %" PRId64 " ms, job.deadline is %" PRId64 " ms", rec->offset, took_ms,
		     out->opts->job_deadline);
}

/* Unpacking takes some twenty allocations, which ASan makes dear: here each is a step forward in one buffer. */
static uint8_t unpacked[1024 * 1024];
static size_t unpacked_len;

static void *bump(void *data, size_t size)
{
	void *ptr = unpacked + unpacked_len;

	unpacked_len += (size + 15) & ~(size_t)15;
	if (unpacked_len > sizeof(unpacked))
		fail("a result of over a megabyte");
	return ptr;
}

static void bump_free(void *data, void *ptr)
{
}

/* Finds the job, and says whether its key came through. */
static struct rec *open_result(const struct kafka_out *out, struct sending *sending)
{
	const struct delivery *delivery = sending->delivery;
	ProtobufCAllocator allocator = {.alloc = bump, .free = bump_free};
	unpacked_len = 0;
	Gatherd__V1__FetchResult *res = gatherd__v1__fetch_result__unpack(&allocator, delivery->value.len, delivery->value.data);
	struct rec *rec = res && res->source ? broker_find(res->source->partition, res->source->offset) : NULL;

	if (!rec)
		fail("machine %d produced a result that does not decode, or of no job", out->machine->id);
	if (delivery->key.len != strlen(rec->key) || memcmp(delivery->key.data ? (const char *)delivery->key.data : "", rec->key, delivery->key.len) != 0)
		fail("job %" PRId64 ": the key of the result is not the job's", rec->offset);
	check_result(out, rec, res);
	sending->partition = res->source->partition;
	seen.outcomes[res->outcome]++;
	return rec;
}

static int64_t header_number(const struct delivery *delivery, const char *name)
{
	for (size_t i = 0; i < delivery->n_headers; i++)
		if (strcmp(delivery->headers[i].name, name) == 0)
			return strtoll((const char *)delivery->headers[i].value.data, NULL, 10);
	fail("a dead letter without the header %s", name);
}

static struct rec *open_dead_letter(const struct kafka_out *out, struct sending *sending)
{
	const struct delivery *delivery = sending->delivery;
	struct rec *rec;

	sending->partition = (int32_t)header_number(delivery, "gatherd-dlq-partition");
	rec = broker_find(sending->partition, header_number(delivery, "gatherd-dlq-offset"));
	if (!rec)
		fail("machine %d produced a dead letter of no job: %d/%" PRId64, out->machine->id, sending->partition, header_number(delivery, "gatherd-dlq-offset"));
	if (delivery->value.len != rec->len || (rec->len && memcmp(delivery->value.data, rec->value, rec->len) != 0) ||
	    (delivery->value.data == NULL) != (rec->value == NULL))
		fail("job %" PRId64 ": the dead letter is not the record byte for byte", rec->offset);
	return rec;
}

/* ---- on its way ---- */

size_t producer_pending(const struct kafka_out *out, int32_t partition, int64_t term)
{
	size_t n = 0;

	LIST_EACH(&out->sendings, sending, struct sending, node)
		n += sending->partition == partition && sending->term == term;
	bool may_commit = out->state == TXN_OPEN || out->state == TXN_CLOSING || out->state == TXN_COMMITTING;
	if (may_commit && out->txn->epoch == out->epoch)
		n += coordinator_count(out->txn, partition);
	return n;
}

void producer_say_room(struct kafka_out *out)
{
	if (!out->is_full)
		return;
	out->is_full = false;
	out->events->on_room(out->ctx);
}

static void on_room(void *ctx)
{
	producer_say_room(ctx);
}

static void sending_free(struct sending *sending)
{
	event_clear(&sending->arrives);
	event_clear(&sending->answers);
	list_remove(&sending->node);
	free(sending);
}

static void on_answer(void *ctx)
{
	struct sending *sending = ctx;
	struct kafka_out *out = sending->out;
	struct delivery *delivery = sending->delivery;
	struct rec *rec = sending->rec;
	int err = sending->err;

	if (!err && delivery->topic == KAFKA_RESULTS && out->machine->in &&
	    consumer_term(out->machine->in, sending->partition) == sending->term)
		rec->acked_term = MAX(rec->acked_term, sending->term); /* a late one may belong to an older term */
	trace(out->machine, err ? "not delivered" : "delivered", rec->offset, err);
	bool is_fenced = sending->is_fenced;
	sending_free(sending);
	if (is_fenced)
		txn_break(out);
	if (out->state != TXN_OFF)
		err = txn_on_delivery(out, err);
	out->events->on_delivered(out->ctx, delivery, err);
	if (out->is_full)
		event_set(&out->room, out->loop, broker.full_until_us, on_room, out);
}

static void append(struct sending *sending)
{
	struct rec *rec = sending->rec;

	sending->is_appended = true;
	if (sending->out->state != TXN_OFF) {
		struct txn_row row = {rec, sending->partition, sending->delivery->topic};
		sending->is_fenced = coordinator_append(sending->out->txn, sending->out->epoch, &row) == VERDICT_FENCED;
		if (sending->is_fenced)
			sending->err = -ERR_KAFKA;
	} else if (sending->delivery->topic == KAFKA_RESULTS) {
		broker_append(sending->partition, rec, sending->term, sending->err != 0);
	} else {
		rec->dead_letters++;
		seen.dead_letters++;
	}
}

static void on_arrives(void *ctx)
{
	struct sending *sending = ctx;
	const struct delivery *delivery = sending->delivery;
	size_t max = delivery->topic == KAFKA_RESULTS ? broker.topic_max : broker.dead_letter_max;
	int64_t answer_us = latency_us(broker.delivery_us);

	if (sum_delivery(delivery) != sending->sum)
		fail("job %" PRId64 ": what is produced changed before it was delivered", sending->rec->offset);
	if (delivery->value.len > max) {
		sending->err = -ERR_KAFKA_TOO_LARGE;
		seen.stripped++;
	} else if (chance(broker.delivery_fails)) {
		sending->err = -ERR_KAFKA;
		sending->is_fenced = chance(broker.producer_breaks);
	} else {
		sending->err = chance(broker.delivery_unsure) ? -ERR_KAFKA : 0;
		append(sending);
	}
	if (chance(broker.is_slow))
		answer_us += (int64_t)rnd(8 * US_PER_S);
	event_set(&sending->answers, sending->out->loop, world.now_us + answer_us, on_answer, sending);
}

int kafka_out_produce(struct kafka_out *out, struct delivery *delivery)
{
	struct sending *sending;
	bool is_txn = out->state != TXN_OFF;

	if (is_txn && delivery->value.len > kafka_out_record_max(out))
		return -ERR_KAFKA_TOO_LARGE;
	if (is_txn && !txn_admits(out, delivery)) {
		out->is_full = true;
		return -ERR_FULL;
	}
	if (world.now_us < broker.full_until_us || out->sendings.len >= broker.producer_room) {
		out->is_full = true;
		seen.queue_full++;
		if (!out->sendings.len)
			event_set(&out->room, out->loop, broker.full_until_us, on_room, out);
		return -ERR_FULL;
	}
	if (chance(broker.delivery_fails * 0.1)) {
		if (!is_txn)
			return -ERR_KAFKA;
		kafka_out_abort(out);
		out->is_full = true;
		return -ERR_FULL;
	}
	if (delivery->value.len > kafka_out_record_max(out))
		return -ERR_KAFKA_TOO_LARGE;
	sending = xcalloc(1, sizeof(*sending));
	*sending = (struct sending){.out = out, .delivery = delivery};
	sending->rec = delivery->topic == KAFKA_RESULTS ? open_result(out, sending) : open_dead_letter(out, sending);
	sending->term = out->machine->in ? consumer_term(out->machine->in, sending->partition) : 0;
	if (!sending->term)
		fail("machine %d produces for partition %d, which it does not have", out->machine->id, sending->partition);
	sending->sum = sum_delivery(delivery);
	trace(out->machine, delivery->topic == KAFKA_RESULTS ? "produced" : "dead letter", sending->rec->offset, sending->partition);
	list_push(&out->sendings, &sending->node);
	event_set(&sending->arrives, NULL, broker_time(latency_us(broker.delivery_us)), on_arrives, sending);
	return 0;
}

/* ---- made and unmade ---- */

int kafka_out_new(struct loop *loop, struct helper *helper, struct metrics *metrics, struct log *log, const struct options *opts,
		  const char *instance, const struct kafka_out_events *events, void *ctx, struct kafka_out **ret_out, char **ret_error)
{
	struct kafka_out *out = xcalloc(1, sizeof(*out));

	*out = (struct kafka_out){.machine = loop->machine, .loop = loop, .opts = opts, .events = events, .ctx = ctx};
	list_init(&out->sendings);
	if (opts->delivery == DELIVERY_EXACTLY_ONCE)
		txn_start(out, instance);
	loop->machine->out = out;
	*ret_out = out;
	return 0;
}

size_t kafka_out_pending(const struct kafka_out *out)
{
	return out->sendings.len;
}

size_t kafka_out_record_max(const struct kafka_out *out)
{
	size_t max = (size_t)out->opts->body_max + 124 * 1024 - RECORD_MARGIN;

	return world.now_us < out->topic_max_until_us ? MIN(max, broker.topic_max) : max;
}

/* What the sockets had taken may still arrive. */
void kafka_out_free(struct kafka_out *out)
{
	if (!out)
		return;
	LIST_EACH(&out->sendings, sending, struct sending, node) {
		if (sending->arrives.due.place && world.now_us >= world.outage_until_us && chance(0.5))
			on_arrives(sending);
		sending_free(sending);
	}
	txn_stop(out);
	event_clear(&out->room);
	out->machine->out = NULL;
	free(out);
}

void producer_purge(struct kafka_out *out)
{
	LIST_EACH(&out->sendings, sending, struct sending, node) {
		if (!sending->arrives.due.place)
			continue;
		if (world.now_us >= world.outage_until_us && chance(0.5))
			on_arrives(sending);
		event_clear(&sending->arrives);
		sending->err = sending->err ? sending->err : -ERR_KAFKA;
		event_set(&sending->answers, out->loop, world.now_us, on_answer, sending);
	}
}

/* What the sockets have taken goes on. */
void kafka_out_purge(struct kafka_out *out)
{
	LIST_EACH(&out->sendings, sending, struct sending, node) {
		if (!sending->arrives.due.place || (world.now_us >= world.outage_until_us && chance(0.5)))
			continue;
		event_clear(&sending->arrives);
		sending->err = -ERR_KAFKA;
		event_set(&sending->answers, out->loop, world.now_us, on_answer, sending);
	}
}

/* No rights are simulated. */
bool kafka_out_take_suspicion(struct kafka_out *out)
{
	return false;
}

const char *kafka_out_refused_id(const struct kafka_out *out)
{
	return NULL;
}

void kafka_out_deny(struct kafka_out *out, bool is_denied)
{
}

/* What has become of its handle is not simulated, but in the transactions. */
bool kafka_out_is_ready(const struct kafka_out *out)
{
	return true;
}
