#include "dispatch.h"

#include "clock.h"
#include "log.h"
#include "loop.h"

#include <stdio.h>

#define KEY_BYTES_MAX 16384
#define AGAIN_US US_PER_S
#define WAVE_US (10 * US_PER_MS)
/* A result without its body is always tried down to this size; a topic that takes less is kept waiting and said. */
#define RESULT_BYTES_MIN 2048
#define HEADERS_OUT_MAX 8
#define NUMBERS_MAX 3 /* header values that are numbers, of one record */

struct dispatcher {
	struct loop *loop;
	struct metrics *metrics;
	struct log *log;
	const struct options *opts;
	struct kafka_out *out;
	const char *instance;
	const struct dispatch_events *events;
	void *ctx;
	bool is_exactly_once;
	struct list stalled; /* waiting for the next wave, or for room in the producer, oldest first */
	struct list failed;  /* to be produced again when the timer fires */
	struct list sent;    /* with the producer, oldest first */
	struct list kept;    /* exactly once: in the open transaction */
	bool is_held;
	size_t n_again;	     /* exactly once: the next commit must wait for these */
	struct loop_timer again, wave;
	size_t bytes;
};

struct dispatch {
	struct delivery delivery;
	struct dispatcher *disp;
	struct list_node node; /* on stalled, failed, sent or kept */
	struct task *task;
	uint8_t *payload; /* NULL: a dead letter, which is the record itself */
	size_t payload_len, result_max;
	int64_t since_us;
	struct record_header *headers;
	char (*numbers)[24]; /* NULL before the first one; made once: a record may go out many times */
	bool is_acked; /* once at least */
	bool is_again; /* in disp->n_again */
};

static bool produce(struct dispatcher *disp, struct dispatch *dsp);
static void on_delivered(struct dispatcher *disp, struct delivery *delivery, int err);

/* Tried again a second after the first one failed: a stream of failures does not put it off. */
static void push_failed(struct dispatcher *disp, struct dispatch *dsp)
{
	if (list_empty(&disp->failed))
		loop_timer_set(&disp->again, loop_now_us(disp->loop) + AGAIN_US);
	list_push(&disp->failed, &dsp->node);
}

static void on_again(void *ctx)
{
	struct dispatcher *disp = ctx;
	struct list now;
	struct dispatch *dsp;

	list_init(&now);
	list_take_all(&disp->failed, &now);
	/* Without room each of them becomes a stalled one. */
	while ((dsp = LIST_ENTRY(list_pop(&now), struct dispatch, node)))
		produce(disp, dsp);
}

static void on_wave(void *ctx)
{
	dispatch_on_room(ctx);
}

struct dispatcher *dispatcher_new(struct loop *loop, struct metrics *metrics, struct log *log, const struct options *opts,
				  const char *instance, const struct dispatch_events *events, void *ctx)
{
	struct dispatcher *disp = xcalloc(1, sizeof(*disp));

	*disp = (struct dispatcher){.loop = loop,
				    .metrics = metrics,
				    .log = log,
				    .opts = opts,
				    .instance = instance,
				    .events = events,
				    .ctx = ctx,
				    .is_exactly_once = opts->delivery == DELIVERY_EXACTLY_ONCE};
	list_init(&disp->stalled);
	list_init(&disp->failed);
	list_init(&disp->sent);
	list_init(&disp->kept);
	loop_timer_init(loop, &disp->again, on_again, disp);
	loop_timer_init(loop, &disp->wave, on_wave, disp);
	return disp;
}

void dispatcher_free(struct dispatcher *disp)
{
	if (!disp)
		return;
	loop_timer_done(&disp->again);
	loop_timer_done(&disp->wave);
	free(disp);
}

void dispatcher_set_out(struct dispatcher *disp, struct kafka_out *out)
{
	disp->out = out;
}

static void drop_payload(struct dispatcher *disp, struct dispatch *dsp)
{
	disp->bytes -= dsp->payload_len;
	free(dsp->payload);
	dsp->payload = NULL;
	dsp->payload_len = 0;
}

static void set_again(struct dispatcher *disp, struct dispatch *dsp, bool is_again)
{
	disp->n_again += is_again - dsp->is_again;
	dsp->is_again = is_again;
}

void dispatch_free_task(struct dispatcher *disp, struct task *task)
{
	struct dispatch *dsp = task->dispatch;

	if (dsp) {
		set_again(disp, dsp, false);
		list_remove(&dsp->node);
		drop_payload(disp, dsp);
	}
	task_free(task);
}

bool dispatch_give_up(struct dispatcher *disp, struct task *task)
{
	bool has_letter = task->dispatch && task->dispatch->is_again;

	if (task->dispatch && task->dispatch->node.list == &disp->sent) {
		set_again(disp, task->dispatch, false);
		task->partition = NULL;
		list_remove(&task->open_node);
		return true;
	}
	dispatch_free_task(disp, task);
	return has_letter;
}

/* False when the producer has no room, or none is to be used: the caller need not try others now. */
static bool produce(struct dispatcher *disp, struct dispatch *dsp)
{
	dsp->delivery.joins = dsp->is_again;
	int err = disp->is_held ? -ERR_FULL : kafka_out_produce(disp->out, &dsp->delivery);

	if (err == -ERR_FULL) {
		disp->metrics->queue_full += !disp->is_held;
		if (dsp->is_again) /* others may be refused until it is through */
			list_push_front(&disp->stalled, &dsp->node);
		else
			list_push(&disp->stalled, &dsp->node);
		return false;
	}
	list_push(&disp->sent, &dsp->node);
	if (err)
		on_delivered(disp, &dsp->delivery, err);
	return true;
}

/* At once while nothing is under way. Else it goes with the next wave, when all of this one is acknowledged, or after WAVE_US when the
 * broker takes longer: a request for each record, of which many come in one round trip, costs the broker and us more than the record. */
static void submit(struct dispatcher *disp, struct dispatch *dsp)
{
	if (list_empty(&disp->sent) || dsp->is_again) {
		produce(disp, dsp);
		return;
	}
	if (list_empty(&disp->stalled))
		loop_timer_set(&disp->wave, loop_now_us(disp->loop) + WAVE_US);
	list_push(&disp->stalled, &dsp->node);
}

static void add_header(struct dispatch *dsp, const char *name, struct span value)
{
	assert(dsp->delivery.n_headers < HEADERS_OUT_MAX + dsp->task->rec.n_headers);
	dsp->headers[dsp->delivery.n_headers++] = (struct record_header){name, value};
}

static struct dispatch *dispatch_of(struct dispatcher *disp, struct task *task)
{
	if (!task->dispatch) {
		struct dispatch *dsp = arena_zalloc(&task->arena, sizeof(*dsp));
		dsp->disp = disp;
		dsp->task = task;
		dsp->since_us = loop_now_us(disp->loop);
		dsp->headers = arena_alloc(&task->arena, (HEADERS_OUT_MAX + task->rec.n_headers) * sizeof(*dsp->headers));
		task->dispatch = dsp;
	}
	task->dispatch->delivery = (struct delivery){.headers = task->dispatch->headers};
	return task->dispatch;
}

static struct span number(struct dispatch *dsp, size_t i, int64_t n)
{
	assert(i < NUMBERS_MAX);
	if (!dsp->numbers)
		dsp->numbers = arena_alloc(&dsp->task->arena, NUMBERS_MAX * sizeof(*dsp->numbers));
	snprintf(dsp->numbers[i], sizeof(dsp->numbers[i]), "%lld", (long long)n);
	return span_str(dsp->numbers[i]);
}

static bool is_dead_letter_due(const struct dispatcher *disp, const struct task *task)
{
	if (!*disp->opts->dead_letter_topic || task->dead_letter != DEAD_LETTER_NONE)
		return false;
	for (size_t i = 0; i < disp->opts->dead_letter_outcomes.n; i++)
		if (outcome_parse(disp->opts->dead_letter_outcomes.v[i]) == task->outcome)
			return true;
	return false;
}

/* The original record byte for byte, and why and where from in headers. */
static void send_dead_letter(struct dispatcher *disp, struct task *task)
{
	struct dispatch *dsp = dispatch_of(disp, task);

	dsp->delivery.topic = KAFKA_DEAD_LETTERS;
	dsp->delivery.key = task->rec.key;
	dsp->delivery.value = task->rec.value;
	for (size_t i = 0; i < task->rec.n_headers; i++)
		dsp->headers[dsp->delivery.n_headers++] = task->rec.headers[i];
	add_header(dsp, "gatherd-dlq-reason", span_str(task->err ? err_code(task->err) : outcome_name(task->outcome)));
	add_header(dsp, "gatherd-dlq-detail", span_str(task->detail ? task->detail : err_text(task->err)));
	add_header(dsp, "gatherd-dlq-topic", span_str(task->rec.topic));
	add_header(dsp, "gatherd-dlq-partition", number(dsp, 0, task->rec.partition));
	add_header(dsp, "gatherd-dlq-offset", number(dsp, 1, task->rec.offset));
	add_header(dsp, "gatherd-dlq-timestamp", number(dsp, 2, task->rec.timestamp_ms));
	submit(disp, dsp);
}

static size_t record_overhead(const struct dispatch *dsp)
{
	size_t bytes = dsp->delivery.key.len;

	for (size_t i = 0; i < dsp->delivery.n_headers; i++)
		bytes += strlen(dsp->headers[i].name) + dsp->headers[i].value.len + 16;
	return bytes;
}

static void encode_result(struct dispatcher *disp, struct dispatch *dsp)
{
	struct task *task = dsp->task;
	struct result res = task_result(task, disp->instance);
	size_t record_max = kafka_out_record_max(disp->out), overhead = record_overhead(dsp);
	size_t max = record_max > overhead + RESULT_BYTES_MIN ? record_max - overhead : RESULT_BYTES_MIN;
	if (dsp->result_max)
		max = MIN(max, dsp->result_max);
	if (result_encode(&res, max, &dsp->payload, &dsp->payload_len)) {
		/* Only for a topic that takes less than 64 KiB: give the encoder what it needs and let the broker decide. */
		if (result_encode(&res, SIZE_MAX, &dsp->payload, &dsp->payload_len))
			abort();
	}
	disp->bytes += dsp->payload_len;
	/* The body is in the payload now; the rest is kept for a second try without it. */
	if (task->resp)
		buf_done(&task->resp->body);
}

static void send_result(struct dispatcher *disp, struct task *task)
{
	static const char type[] = "application/x-protobuf; messageType=gatherd.v1.FetchResult";
	struct dispatch *dsp = dispatch_of(disp, task);

	dsp->delivery.topic = KAFKA_RESULTS;
	add_header(dsp, "content-type", (struct span){(const uint8_t *)type, sizeof(type) - 1});
	add_header(dsp, "gatherd-outcome", span_str(outcome_name(task->outcome)));
	add_header(dsp, "gatherd-job-id", span_str(task->job.job_id));
	if (task->job.replay_id && *task->job.replay_id)
		add_header(dsp, "gatherd-replay-id", span_str(task->job.replay_id));
	if (task->job.traceparent)
		add_header(dsp, "traceparent", span_str(task->job.traceparent));
	if (task->rec.key.len > KEY_BYTES_MAX)
		add_header(dsp, "gatherd-key-dropped", number(dsp, 0, (int64_t)task->rec.key.len));
	else
		dsp->delivery.key = task->rec.key;

	if (!dsp->payload)
		encode_result(disp, dsp);
	dsp->delivery.value = (struct span){dsp->payload, dsp->payload_len};
	submit(disp, dsp);
}

void dispatch_send(struct dispatcher *disp, struct task *task)
{
	if (is_dead_letter_due(disp, task))
		send_dead_letter(disp, task);
	else
		send_result(disp, task);
}

static void on_dead_letter(struct dispatcher *disp, struct dispatch *dsp, int err)
{
	struct task *task = dsp->task;

	task->dead_letter = err ? DEAD_LETTER_REFUSED : DEAD_LETTER_SENT;
	if (err) {
		disp->metrics->dead_letters_lost++;
		log_warn(disp->log, "dead letter refused for its size", LOG_STR("topic", task->rec.topic),
			 LOG_NUM("partition", task->rec.partition), LOG_NUM("offset", task->rec.offset),
			 LOG_NUM("bytes", task->rec.value.len));
	} else {
		disp->metrics->dead_letters++;
		set_again(disp, dsp, disp->is_exactly_once); /* its result goes into the same transaction */
	}
	send_result(disp, task);
}

static void on_result_refused(struct dispatcher *disp, struct dispatch *dsp)
{
	size_t bytes = dsp->payload_len;
	struct task *task = dsp->task;

	if (task->strip_body && (bytes <= RESULT_BYTES_MIN * 2 || (dsp->result_max && bytes > dsp->result_max))) {
		/* Nothing smaller can be said: it waits until the topic takes it, and health says output_blocked. */
		push_failed(disp, dsp);
		return;
	}
	disp->metrics->results_stripped++;
	log_warn(disp->log, "result refused for its size, sent again without its body", LOG_STR("job_id", task->job.job_id),
		 LOG_NUM("bytes", bytes));
	if (task->strip_body)
		dsp->result_max = MAX(bytes / 2, (size_t)RESULT_BYTES_MIN);
	task->strip_body = true;
	drop_payload(disp, dsp);
	send_result(disp, task);
}

static void on_done(struct dispatcher *disp, struct dispatch *dsp)
{
	struct task *task = dsp->task;

	disp->metrics->results[task->outcome]++;
	disp->metrics->results_bytes += dsp->payload_len;
	hist_observe(&disp->metrics->deliver_seconds, loop_now_us(disp->loop) - dsp->since_us);
	hist_observe(&disp->metrics->job_seconds, loop_now_us(disp->loop) - task->arrived_us);
	disp->events->on_done(disp->ctx, task);
}

static void on_result(struct dispatcher *disp, struct dispatch *dsp)
{
	set_again(disp, dsp, false);
	if (!dsp->is_acked) {
		dsp->is_acked = true;
		disp->events->on_acked(disp->ctx, dsp->task);
	}
	if (disp->is_exactly_once)
		list_push(&disp->kept, &dsp->node);
	else
		on_done(disp, dsp);
}

/* ---- exactly once ---- */

bool dispatch_may_commit(const struct dispatcher *disp)
{
	return disp->n_again == 0;
}

size_t dispatch_forget(struct dispatcher *disp, const struct partition *part, size_t *ret_bytes)
{
	struct list *lists[] = {&disp->kept, &disp->sent, &disp->failed, &disp->stalled};
	size_t n = 0;

	*ret_bytes = 0;
	for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
		LIST_EACH(lists[i], dsp, struct dispatch, node) {
			if (!dsp->is_acked || dsp->task->partition != part)
				continue;
			n++;
			*ret_bytes += dsp->task->bytes;
			set_again(disp, dsp, false);
			dsp->task->partition = NULL;
			if (i >= 2)
				dispatch_free_task(disp, dsp->task);
		}
	}
	return n;
}

/* All of it again: a dead letter that was in the transaction, too, and before its result. */
static void send_again(struct dispatcher *disp, struct dispatch *dsp)
{
	if (dsp->task->dead_letter == DEAD_LETTER_SENT)
		dsp->task->dead_letter = DEAD_LETTER_NONE;
	dispatch_send(disp, dsp->task);
}

void dispatch_on_txn(struct dispatcher *disp, enum txn_end end)
{
	struct dispatch *dsp;
	struct list ended;

	list_init(&ended);
	list_take_all(&disp->kept, &ended);
	if (end != TXN_COMMITTED) {
		struct list *others[] = {&disp->failed, &disp->stalled};
		LIST_EACH(&ended, row, struct dispatch, node)
			set_again(disp, row, row->task->partition != NULL);
		/* Results whose dead letter was acknowledged in it. */
		for (size_t i = 0; i < ARRAY_LEN(others); i++) {
			LIST_EACH(others[i], row, struct dispatch, node) {
				if (row->task->dead_letter != DEAD_LETTER_SENT)
					continue;
				list_remove(&row->node);
				list_push(&ended, &row->node);
			}
		}
	}
	while ((dsp = LIST_ENTRY(list_pop(&ended), struct dispatch, node))) {
		if (!dsp->task->partition)
			dispatch_free_task(disp, dsp->task);
		else if (end == TXN_COMMITTED)
			on_done(disp, dsp);
		else
			send_again(disp, dsp);
	}
}

static void on_delivered(struct dispatcher *disp, struct delivery *delivery, int err)
{
	struct dispatch *dsp = CONTAINER_OF(delivery, struct dispatch, delivery);

	list_remove(&dsp->node);
	if (!dsp->task->partition) {
		disp->metrics->results_dropped++;
		dispatch_free_task(disp, dsp->task);
	} else if (err && err != -ERR_KAFKA_TOO_LARGE) {
		disp->metrics->results_reproduced++;
		push_failed(disp, dsp);
	} else if (delivery->topic == KAFKA_DEAD_LETTERS) {
		on_dead_letter(disp, dsp, err);
	} else if (err) {
		on_result_refused(disp, dsp);
	} else {
		on_result(disp, dsp);
	}
}

void dispatch_on_delivered(struct dispatcher *disp, struct delivery *delivery, int err)
{
	on_delivered(disp, delivery, err);
	if (list_empty(&disp->sent))
		dispatch_on_room(disp);
}

void dispatch_on_room(struct dispatcher *disp)
{
	size_t n = disp->stalled.len;

	if (n)
		loop_timer_clear(&disp->wave);
	while (n-- > 0) {
		struct dispatch *dsp = LIST_ENTRY(list_pop(&disp->stalled), struct dispatch, node);
		if (!produce(disp, dsp)) {
			/* Back to the front: it is the oldest. */
			list_remove(&dsp->node);
			list_push_front(&disp->stalled, &dsp->node);
			return;
		}
	}
}

void dispatch_hold(struct dispatcher *disp, bool is_held)
{
	disp->is_held = is_held;
	if (!is_held)
		dispatch_on_room(disp);
}

bool dispatch_is_held(const struct dispatcher *disp)
{
	return disp->is_held;
}

size_t dispatch_bytes(const struct dispatcher *disp)
{
	return disp->bytes;
}

int64_t dispatch_oldest_us(const struct dispatcher *disp, const struct task **ret_task)
{
	const struct list *lists[] = {&disp->kept, &disp->sent, &disp->failed, &disp->stalled};
	const struct dispatch *oldest = NULL;

	for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
		const struct dispatch *dsp = LIST_ENTRY(list_first(lists[i]), const struct dispatch, node);
		if (dsp && (!oldest || dsp->since_us < oldest->since_us))
			oldest = dsp;
	}
	if (ret_task)
		*ret_task = oldest ? oldest->task : NULL;
	return oldest ? oldest->since_us : 0;
}
