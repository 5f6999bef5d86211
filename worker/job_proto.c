#include "job_internal.h"

#include "err.h"

#include "gatherd/v1/job.pb-c.h"

static void *alloc_in_arena(void *arena, size_t size)
{
	return arena_alloc(arena, size);
}

static void free_in_arena(void *arena, void *ptr)
{
	(void)arena;
	(void)ptr;
}

static void take_headers(struct arena *arena, const Gatherd__V1__FetchJob *msg, struct job *job)
{
	struct header *headers = arena_alloc(arena, (msg->n_headers + 1) * sizeof(*headers));

	for (size_t i = 0; i < msg->n_headers; i++)
		headers[i] = (struct header){msg->headers[i]->name, {msg->headers[i]->value.data, msg->headers[i]->value.len}};
	job->headers = headers;
	job->n_headers = msg->n_headers;
}

static void take_attrs(struct arena *arena, const Gatherd__V1__FetchJob *msg, struct job *job)
{
	struct attr *attrs = arena_alloc(arena, (msg->n_attrs + 1) * sizeof(*attrs));

	for (size_t i = 0; i < msg->n_attrs; i++)
		attrs[i] = (struct attr){msg->attrs[i]->key, msg->attrs[i]->value};
	job->attrs = attrs;
	job->n_attrs = msg->n_attrs;
}

static void take_limits(const Gatherd__V1__FetchJob *msg, struct job *job)
{
	if (msg->timeouts) {
		job->connect_ms = msg->timeouts->connect_ms;
		job->total_ms = msg->timeouts->total_ms;
		job->stall_ms = msg->timeouts->stall_ms;
	}
	if (msg->retry) {
		job->max_attempts = msg->retry->max_attempts;
		job->base_ms = msg->retry->base_ms;
		job->max_ms = msg->retry->max_ms;
	}
	if (msg->max_redirects_oneof_case == GATHERD__V1__FETCH_JOB__MAX_REDIRECTS_ONEOF_MAX_REDIRECTS)
		job->max_redirects = msg->max_redirects < 0 ? INT32_MIN : msg->max_redirects;
	job->max_body_bytes = msg->max_body_bytes;
	job->not_before_at_ms = msg->not_before_at_ms;
	job->expires_at_ms = msg->expires_at_ms;
}

int job_from_protobuf(struct arena *arena, struct span value, struct job *job, const char **ret_detail)
{
	ProtobufCAllocator allocator = {.alloc = alloc_in_arena, .free = free_in_arena, .allocator_data = arena};
	const Gatherd__V1__FetchJob *msg = gatherd__v1__fetch_job__unpack(&allocator, value.len, value.data);

	if (!msg) {
		*ret_detail = "not a gatherd.v1.FetchJob message";
		return -ERR_JOB_PROTOBUF;
	}
	job->job_id = msg->job_id;
	job->url = msg->url;
	job->method = msg->method;
	job->body = (struct span){msg->body.data, msg->body.len};
	take_headers(arena, msg, job);
	job->secret_ref = msg->secret_ref;
	job->proxy_ref = msg->proxy_ref;
	take_limits(msg, job);
	job->body_mode = (enum body_mode)msg->body_mode;
	job->if_none_match = msg->if_none_match;
	job->if_modified_since = msg->if_modified_since;
	job->prev_digest = (struct span){msg->prev_digest.data, msg->prev_digest.len};
	if (msg->expect) {
		job->expect_status = msg->expect->status;
		job->n_expect_status = msg->expect->n_status;
		job->expect_type = (const char *const *)msg->expect->content_type;
		job->n_expect_type = msg->expect->n_content_type;
	}
	job->host_profile = msg->host_profile;
	take_attrs(arena, msg, job);
	if (msg->schedule) {
		job->source_id = msg->schedule->source_id;
		job->period_ms = msg->schedule->period_ms;
		job->due_at_ms = msg->schedule->due_at_ms;
	}
	job->replay_id = msg->replay_id;
	return 0;
}
