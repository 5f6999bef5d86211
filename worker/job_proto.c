/* A FetchJob by protobuf-c, all of it in the arena. What protobuf-c does not do is done here: it has no limit on what a
 * small message may make it allocate, ends a string at a NUL within, and gives nothing of a message that is broken at
 * its end. */
#include "err.h"
#include "job_internal.h"
#include "utf8.h"

#include "gatherd/v1/job.pb-c.h"

_Static_assert((int)BODY_MODE_INLINE == GATHERD__V1__BODY_MODE__BODY_MODE_INLINE, "job.h and job.proto agree");
_Static_assert((int)BODY_MODE_HASH_ONLY == GATHERD__V1__BODY_MODE__BODY_MODE_HASH_ONLY, "job.h and job.proto agree");
_Static_assert((int)BODY_MODE_NONE == GATHERD__V1__BODY_MODE__BODY_MODE_NONE, "job.h and job.proto agree");

/* What any honest message needs beside its own bytes. */
#define BUDGET_BYTES (64 * 1024)
#define SALVAGE_FIELDS_MAX 4096

/* ---- memory ---- */

struct budget {
	struct arena *arena;
	size_t left;
};

/* Without it, 1 MiB of `expect {}` repeated, which protobuf-c merges one by one, took 24 GB. */
static void *alloc_in_budget(void *ctx, size_t size)
{
	struct budget *budget = ctx;

	if (size > budget->left)
		return NULL;
	budget->left -= size;
	return arena_alloc(budget->arena, size);
}

static void free_in_budget(void *ctx, void *ptr)
{
	(void)ctx;
	(void)ptr;
}

/* ---- the wire format: https://protobuf.dev/programming-guides/encoding ---- */

enum wire_type { WIRE_VARINT, WIRE_64, WIRE_BYTES, WIRE_GROUP, WIRE_GROUP_END, WIRE_32 };

struct wire_field {
	uint32_t number;
	struct span bytes; /* of WIRE_BYTES, else none */
	enum wire_type type;
};

static bool take(struct span *in, uint64_t len, struct span *ret_bytes)
{
	if (len > in->len)
		return false;
	*ret_bytes = (struct span){in->data, (size_t)len};
	in->data += len;
	in->len -= (size_t)len;
	return true;
}

static bool take_varint(struct span *in, uint64_t *ret_value)
{
	struct span byte;
	uint64_t value = 0;

	for (unsigned shift = 0; shift < 64; shift += 7) {
		if (!take(in, 1, &byte))
			return false;
		value |= (uint64_t)(byte.data[0] & 0x7f) << shift;
		if (byte.data[0] < 0x80) {
			*ret_value = value;
			return true;
		}
	}
	return false;
}

/* False at the end, and where the message is broken. */
static bool take_field(struct span *in, struct wire_field *ret_field)
{
	struct span skipped;
	uint64_t tag, value;

	if (!take_varint(in, &tag))
		return false;
	*ret_field = (struct wire_field){.number = (uint32_t)(tag >> 3), .type = (enum wire_type)(tag & 7)};
	switch (ret_field->type) {
	case WIRE_VARINT:
		return take_varint(in, &value);
	case WIRE_64:
		return take(in, 8, &skipped);
	case WIRE_32:
		return take(in, 4, &skipped);
	case WIRE_BYTES:
		return take_varint(in, &value) && take(in, value, &ret_field->bytes);
	default:
		return false;
	}
}

/* The name of the first string with a NUL in it, NULL when there is none. Messages are two deep at most. */
static const char *find_nul(const ProtobufCMessageDescriptor *type, struct span in)
{
	struct wire_field field;
	const char *name = NULL;

	while (!name && take_field(&in, &field)) {
		const ProtobufCFieldDescriptor *known = protobuf_c_message_descriptor_get_field(type, field.number);
		if (!known || !field.bytes.len)
			continue;
		if (known->type == PROTOBUF_C_TYPE_STRING && memchr(field.bytes.data, 0, field.bytes.len))
			name = known->name;
		else if (known->type == PROTOBUF_C_TYPE_MESSAGE)
			name = find_nul(known->descriptor, field.bytes);
	}
	return name;
}

static void salvage_text(struct arena *arena, struct span bytes, const char **ret_text)
{
	if (bytes.len && !memchr(bytes.data, 0, bytes.len))
		*ret_text = arena_strndup(arena, (const char *)bytes.data, bytes.len);
}

/* Of a message that protobuf-c refused: what the result is found by, and why it was refused. */
static int salvage(struct arena *arena, struct span in, struct job *job, const char **ret_detail)
{
	const struct {
		const char *name, **text;
	} texts[] = {{"job_id", &job->job_id}, {"url", &job->url}, {"replay_id", &job->replay_id}};
	struct span found[ARRAY_LEN(texts)] = {0};
	size_t n_headers = 0, n_attrs = 0;
	struct wire_field field;

	for (size_t n = 0; n < SALVAGE_FIELDS_MAX && take_field(&in, &field); n++) {
		const ProtobufCFieldDescriptor *known =
		    protobuf_c_message_descriptor_get_field(&gatherd__v1__fetch_job__descriptor, field.number);
		const char *name = known && field.type == WIRE_BYTES ? known->name : "";
		n_headers += strcmp(name, "headers") == 0;
		n_attrs += strcmp(name, "attrs") == 0;
		for (size_t i = 0; i < ARRAY_LEN(texts); i++)
			if (strcmp(name, texts[i].name) == 0)
				found[i] = field.bytes;
	}
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		salvage_text(arena, found[i], texts[i].text);
	if (n_headers > JOB_HEADERS_MAX)
		return job_fault(arena, ret_detail, -ERR_HEADER_COUNT, "headers", "over 64");
	if (n_attrs > JOB_ATTRS_MAX)
		return job_fault(arena, ret_detail, -ERR_JOB_ATTRS, "attrs", "over 64 entries");
	*ret_detail = "not a gatherd.v1.FetchJob message, or one with far too many fields";
	return -ERR_JOB_PROTOBUF;
}

/* ---- the message's fields ---- */

static void take_headers(struct arena *arena, const Gatherd__V1__FetchJob *msg, struct job *job)
{
	size_t n = MIN(msg->n_headers, (size_t)JOB_HEADERS_MAX + 1);
	struct header *headers = n ? arena_alloc(arena, n * sizeof(*headers)) : NULL;

	for (size_t i = 0; i < n; i++) {
		const Gatherd__V1__Header *header = msg->headers[i];
		headers[i] = (struct header){header->name, {header->value.data, header->value.len}};
	}
	job->headers = headers;
	job->n_headers = n;
}

static void take_attrs(struct arena *arena, const Gatherd__V1__FetchJob *msg, struct job *job)
{
	size_t n = MIN(msg->n_attrs, (size_t)JOB_ATTRS_MAX + 1);
	struct attr *attrs = n ? arena_alloc(arena, n * sizeof(*attrs)) : NULL;

	for (size_t i = 0; i < n; i++)
		attrs[i] = (struct attr){msg->attrs[i]->key, msg->attrs[i]->value};
	job->attrs = attrs;
	job->n_attrs = n;
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
		job->max_redirects = msg->max_redirects;
	job->max_body_bytes = msg->max_body_bytes;
	job->not_before_at_ms = msg->not_before_at_ms;
	job->expires_at_ms = msg->expires_at_ms;
}

static void take_answer_rules(const Gatherd__V1__FetchJob *msg, struct job *job)
{
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
}

static void take_message(struct arena *arena, const Gatherd__V1__FetchJob *msg, struct job *job)
{
	job->job_id = msg->job_id;
	job->url = msg->url;
	job->method = msg->method;
	job->body = (struct span){msg->body.data, msg->body.len};
	take_headers(arena, msg, job);
	job->secret_ref = msg->secret_ref;
	job->proxy_ref = msg->proxy_ref;
	job->host_profile = msg->host_profile;
	take_limits(msg, job);
	take_answer_rules(msg, job);
	take_attrs(arena, msg, job);
	if (msg->schedule) {
		job->source_id = msg->schedule->source_id;
		job->period_ms = msg->schedule->period_ms;
		job->due_at_ms = msg->schedule->due_at_ms;
	}
	job->replay_id = msg->replay_id;
}

int job_from_protobuf(struct arena *arena, struct span value, struct job *job, const char **ret_detail)
{
	struct budget budget = {arena, 2 * value.len + BUDGET_BYTES};
	ProtobufCAllocator allocator = {alloc_in_budget, free_in_budget, &budget};
	const Gatherd__V1__FetchJob *msg = gatherd__v1__fetch_job__unpack(&allocator, value.len, value.data);
	const char *name = NULL;

	if (!msg)
		return salvage(arena, value, job, ret_detail);
	take_message(arena, msg, job);
	/* A record without a zero byte, nearly every one, has no string with a NUL. */
	if (memchr(value.data, 0, value.len))
		name = find_nul(&gatherd__v1__fetch_job__descriptor, value);
	if (name)
		return job_fault(arena, ret_detail, -ERR_JOB_FIELD, name, "has a NUL character");
	if (job->max_redirects < -1 || (job->max_redirects == -1 && msg->max_redirects_oneof_case))
		return job_fault(arena, ret_detail, -ERR_JOB_FIELD, "max_redirects",
				 arena_printf(arena, "%d is under 0", job->max_redirects));
	return 0;
}
