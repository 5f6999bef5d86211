#include "task.h"

/* Most jobs fit: the task, its record, the parsed job and its URL. */
#define TASK_ARENA_BYTES (sizeof(struct task) + 1536)

#define BIT(state) (1u << (state))

static const unsigned legal_moves[TASK_STATES] = {
	[TASK_NEW] = BIT(TASK_LATER) | BIT(TASK_ROBOTS) | BIT(TASK_WAITING) | BIT(TASK_DELIVERING),
	[TASK_LATER] = BIT(TASK_ROBOTS) | BIT(TASK_WAITING) | BIT(TASK_DELIVERING),
	[TASK_ROBOTS] = BIT(TASK_WAITING) | BIT(TASK_DELIVERING),
	[TASK_WAITING] = BIT(TASK_RESOLVING) | BIT(TASK_FETCHING) | BIT(TASK_DELIVERING) | BIT(TASK_BACKOFF),
	[TASK_RESOLVING] = BIT(TASK_FETCHING) | BIT(TASK_BACKOFF) | BIT(TASK_DELIVERING),
	[TASK_FETCHING] = BIT(TASK_ROBOTS) | BIT(TASK_WAITING) | BIT(TASK_BACKOFF) | BIT(TASK_DELIVERING),
	[TASK_BACKOFF] = BIT(TASK_ROBOTS) | BIT(TASK_WAITING) | BIT(TASK_DELIVERING),
	[TASK_DELIVERING] = 0,
};

void task_lists_init(struct task_lists *lists)
{
	for (int state = 0; state < TASK_STATES; state++)
		list_init(&lists->in[state]);
}

static void copy_record(struct arena *arena, const struct record *from, struct record *to)
{
	struct record_header *headers = NULL;

	*to = *from;
	to->key = arena_copy(arena, from->key);
	to->value = arena_copy(arena, from->value);
	if (from->n_headers)
		headers = arena_alloc(arena, from->n_headers * sizeof(*headers));
	for (size_t i = 0; i < from->n_headers; i++) {
		headers[i].name = arena_strndup(arena, from->headers[i].name, strlen(from->headers[i].name));
		headers[i].value = arena_copy(arena, from->headers[i].value);
	}
	to->headers = headers;
}

struct task *task_new(struct task_lists *lists, const struct record *rec, int64_t now_us, int64_t now_epoch_ms)
{
	struct arena arena;

	arena_init(&arena, TASK_ARENA_BYTES + rec->key.len + 2 * rec->value.len);
	struct task *task = arena_zalloc(&arena, sizeof(*task));
	copy_record(&arena, rec, &task->rec);
	task->arena = arena;
	task->arrived_us = now_us;
	task->arrived_at_ms = now_epoch_ms;
	task->dead_letter = DEAD_LETTER_NONE;
	task->state = TASK_NEW;
	list_push(&lists->in[TASK_NEW], &task->node);
	return task;
}

static void response_free(struct response *resp)
{
	if (!resp)
		return;
	response_done(resp);
	free(resp);
}

void task_free(struct task *task)
{
	assert(!task->robots && !task->turn.has_slots && !task->turn.line && !task->query && !task->transfer && !task->timer.place);
	list_remove(&task->node);
	list_remove(&task->open_node);
	response_free(task->resp);
	struct arena arena = task->arena;
	arena_done(&arena);
}

void task_set_state(struct task_lists *lists, struct task *task, enum task_state state)
{
	assert(legal_moves[task->state] & BIT(state));
	list_remove(&task->node);
	task->state = state;
	list_push(&lists->in[state], &task->node);
}

void task_add_attempt(struct task *task, enum outcome outcome, int status, int64_t ms, int64_t backoff_ms)
{
	if (task->n_attempts == RESULT_ATTEMPTS_MAX)
		memmove(task->attempts, task->attempts + 1, sizeof(task->attempts) - sizeof(task->attempts[0]));
	else
		task->n_attempts++;
	task->attempts[task->n_attempts - 1] =
		(struct attempt){.outcome = outcome, .status = status, .ms = ms, .backoff_ms = backoff_ms};
}

static bool was_seen(const struct task *task, const char *url)
{
	for (int32_t i = 0; i < task->hops; i++)
		if (strcmp(task->redirects[i].url, url) == 0)
			return true;
	return strcmp(task->url.text, url) == 0;
}

int task_follow(struct task *task, const struct url *url, const struct response *resp, struct span location)
{
	if (was_seen(task, url->text))
		return -ERR_REDIRECT_LOOP;
	if (task->hops >= task->limits.max_redirects)
		return -ERR_REDIRECT_MAX;
	if (!task->redirects)
		task->redirects = arena_zalloc(&task->arena, (size_t)task->limits.max_redirects * sizeof(*task->redirects));
	task->redirects[task->hops++] = (struct redirect){
		.url = task->url.text,
		.status = resp->status,
		.location = arena_copy(&task->arena, location),
		.ip = arena_strndup(&task->arena, resp->remote_ip, strlen(resp->remote_ip)),
	};
	if (!url_same_origin(&task->url, url))
		task->drop_credentials = true;
	if (resp->status <= 303 && strcmp(task->job.method, "GET") != 0 && strcmp(task->job.method, "HEAD") != 0) {
		task->job.method = "GET";
		task->job.body = (struct span){0};
		task->drop_content = true;
	}
	task->url = *url;
	return 0;
}

void task_set_response(struct task *task, struct response *resp)
{
	response_free(task->resp);
	task->resp = resp;
}

const struct url *task_url(const struct task *task)
{
	return task->asks_url ? task->asks_url : &task->url;
}

struct result task_result(const struct task *task, const char *instance)
{
	const struct response *resp = task->resp;

	return (struct result){
		.job = &task->job,
		.rec = &task->rec,
		.err = task->err,
		.outcome = task->outcome,
		.detail = task->detail,
		.retryable = task->retryable,
		.attempts = task->attempts,
		.n_attempts = task->n_attempts,
		.redirects = task->redirects,
		.n_redirects = (size_t)task->hops,
		.final_url = task->url.text,
		.resp = resp,
		.retry_after_ms = task->retry_after_ms,
		.is_unchanged = resp && resp->has_digest && resp->truncated == TRUNCATED_NONE &&
				task->job.prev_digest.len == DIGEST_BYTES &&
				memcmp(task->job.prev_digest.data, resp->digest, DIGEST_BYTES) == 0,
		.dead_letter = task->dead_letter,
		.queued_us = task->queued_us,
		.politeness_us = task->turn.politeness_us,
		.dns_us = task->dns_us,
		.start_at_ms = task->start_at_ms,
		.end_at_ms = task->end_at_ms,
		.instance = instance,
		.version = GATHERD_VERSION,
		.strip_body = task->strip_body,
	};
}

static bool may_send(const struct task *task, const struct secret *secret, const char *name)
{
	static const char *const credentials[] = {"authorization", "cookie", "proxy-authorization"};
	static const char *const content[] = {"content-encoding", "content-language", "content-location", "content-type"};

	return !(task->drop_credentials && field_is_one_of(name, credentials, ARRAY_LEN(credentials))) &&
	       !(task->drop_content && field_is_one_of(name, content, ARRAY_LEN(content))) &&
	       !(secret && field_is_one_of(name, (const char *const *)secret->names.v, secret->names.n));
}

const struct header *task_headers(struct task *task, const struct secret *secret, size_t *ret_n)
{
	size_t n = 0, n_max = task->job.n_headers + (secret ? secret->names.n : 0);

	*ret_n = task->job.n_headers;
	if ((!task->drop_credentials && !task->drop_content && !secret) || !n_max)
		return task->job.headers;
	struct header *kept = arena_alloc(&task->arena, n_max * sizeof(*kept));
	for (size_t i = 0; i < task->job.n_headers; i++)
		if (may_send(task, secret, task->job.headers[i].name))
			kept[n++] = task->job.headers[i];
	for (size_t i = 0; secret && i < secret->names.n; i++)
		kept[n++] = (struct header){secret->names.v[i], span_str(secret->values.v[i])};
	*ret_n = n;
	return kept;
}
