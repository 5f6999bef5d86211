/* proto3's JSON mapping of FetchJob: https://protobuf.dev/programming-guides/json. One table names every field. */
#include "job_internal.h"

#include "err.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <strings.h>

enum kind { STRING, BYTES, INT32, INT64, BODY_MODE, HEADERS, ATTRS, STATUSES, TYPES, OBJECT };

struct field {
	const char *name; /* as in job.proto; the camelCase form is taken too */
	enum kind kind;
	size_t at;
	const struct field *within; /* OBJECT: its fields, of the same struct job */
};

struct reader {
	struct arena *arena;
	struct job *job;
	const char **ret_detail;
};

#define AT(member) offsetof(struct job, member)

static const struct field timeouts_fields[] = {
	{"connect_ms", INT64, AT(connect_ms), NULL}, {"total_ms", INT64, AT(total_ms), NULL}, {"stall_ms", INT64, AT(stall_ms), NULL}, {0}};
static const struct field retry_fields[] = {
	{"max_attempts", INT32, AT(max_attempts), NULL}, {"base_ms", INT64, AT(base_ms), NULL}, {"max_ms", INT64, AT(max_ms), NULL}, {0}};
static const struct field expect_fields[] = {{"status", STATUSES, 0, NULL}, {"content_type", TYPES, 0, NULL}, {0}};
static const struct field schedule_fields[] = {
	{"source_id", STRING, AT(source_id), NULL}, {"period_ms", INT64, AT(period_ms), NULL}, {"due_at_ms", INT64, AT(due_at_ms), NULL}, {0}};

static const struct field job_fields[] = {
	{"job_id", STRING, AT(job_id), NULL},
	{"url", STRING, AT(url), NULL},
	{"method", STRING, AT(method), NULL},
	{"body", BYTES, AT(body), NULL},
	{"headers", HEADERS, 0, NULL},
	{"secret_ref", STRING, AT(secret_ref), NULL},
	{"proxy_ref", STRING, AT(proxy_ref), NULL},
	{"not_before_at_ms", INT64, AT(not_before_at_ms), NULL},
	{"expires_at_ms", INT64, AT(expires_at_ms), NULL},
	{"timeouts", OBJECT, 0, timeouts_fields},
	{"retry", OBJECT, 0, retry_fields},
	{"max_redirects", INT32, AT(max_redirects), NULL},
	{"max_body_bytes", INT64, AT(max_body_bytes), NULL},
	{"body_mode", BODY_MODE, 0, NULL},
	{"if_none_match", STRING, AT(if_none_match), NULL},
	{"if_modified_since", STRING, AT(if_modified_since), NULL},
	{"prev_digest", BYTES, AT(prev_digest), NULL},
	{"expect", OBJECT, 0, expect_fields},
	{"host_profile", STRING, AT(host_profile), NULL},
	{"attrs", ATTRS, 0, NULL},
	{"schedule", OBJECT, 0, schedule_fields},
	{"replay_id", STRING, AT(replay_id), NULL},
	{0},
};

static int bad(struct reader *reader, const char *name, const char *what)
{
	*reader->ret_detail = arena_printf(reader->arena, "field %s: %s", name, what);
	return -ERR_JOB_FIELD;
}

/* "max_body_bytes" is also "maxBodyBytes". */
static bool name_matches(const char *snake, const char *given)
{
	if (strcmp(snake, given) == 0)
		return true;
	for (; *snake && *given; snake++, given++) {
		if (*snake == '_')
			snake++;
		else if (*snake == *given)
			continue;
		else
			return false;
		if (*given != (char)toupper((unsigned char)*snake))
			return false;
	}
	return *snake == *given;
}

static const struct field *find_field(const struct field *fields, const char *given)
{
	for (; fields->name; fields++)
		if (name_matches(fields->name, given))
			return fields;
	return NULL;
}

static int read_string(struct reader *reader, const char *name, const json_t *value, const char **ret)
{
	if (!json_is_string(value))
		return bad(reader, name, "must be a string");
	*ret = arena_strndup(reader->arena, json_string_value(value), json_string_length(value));
	return strlen(*ret) == json_string_length(value) ? 0 : bad(reader, name, "has a NUL character");
}

/* A number, a number without a fraction as 1e3 or 1.0, or a string of digits. */
static int read_int(struct reader *reader, const char *name, const json_t *value, int64_t min, int64_t max, int64_t *ret)
{
	char *end;

	if (json_is_integer(value)) {
		*ret = json_integer_value(value);
	} else if (json_is_real(value) && json_real_value(value) == (double)(int64_t)json_real_value(value)) {
		*ret = (int64_t)json_real_value(value);
	} else if (json_is_string(value) && json_string_length(value)) {
		errno = 0;
		*ret = strtoll(json_string_value(value), &end, 10);
		if (*end || errno || isspace((unsigned char)*json_string_value(value)))
			return bad(reader, name, "is not a whole number");
	} else {
		return bad(reader, name, "must be a whole number, as a number or a string");
	}
	return *ret < min || *ret > max ? bad(reader, name, "is out of range") : 0;
}

static int base64_digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+' || c == '-')
		return 62;
	return c == '/' || c == '_' ? 63 : -1;
}

/* Standard and URL-safe, padding optional: what proto3's mapping accepts. */
static int read_bytes(struct reader *reader, const char *name, const json_t *value, struct span *ret)
{
	size_t len = json_is_string(value) ? json_string_length(value) : 0, n = 0;
	const char *text = json_string_value(value);
	uint8_t *out = arena_alloc(reader->arena, len + 1);
	uint32_t bits = 0;
	int n_bits = 0;

	if (!json_is_string(value))
		return bad(reader, name, "must be a base64 string");
	while (len && text[len - 1] == '=')
		len--;
	for (size_t i = 0; i < len; i++) {
		int digit = base64_digit(text[i]);
		if (digit < 0)
			return bad(reader, name, "is not base64");
		bits = (bits << 6 | (uint32_t)digit) & 0xffffff;
		n_bits += 6;
		if (n_bits >= 8) {
			n_bits -= 8;
			out[n++] = (uint8_t)(bits >> n_bits);
		}
	}
	if (len % 4 == 1)
		return bad(reader, name, "is not base64");
	*ret = (struct span){out, n};
	return 0;
}

static int read_body_mode(struct reader *reader, const char *name, const json_t *value)
{
	static const char *const names[] = {"BODY_MODE_UNSPECIFIED", "BODY_MODE_INLINE", "BODY_MODE_HASH_ONLY", "BODY_MODE_NONE"};
	int64_t number;

	if (json_is_string(value)) {
		for (size_t i = 0; i < ARRAY_LEN(names); i++) {
			if (strcmp(json_string_value(value), names[i]) == 0) {
				reader->job->body_mode = (enum body_mode)i;
				return 0;
			}
		}
		return bad(reader, name, "must be BODY_MODE_INLINE, BODY_MODE_HASH_ONLY or BODY_MODE_NONE");
	}
	int err = read_int(reader, name, value, 0, BODY_MODE_NONE, &number);
	if (!err)
		reader->job->body_mode = (enum body_mode)number;
	return err;
}

static int read_header(struct reader *reader, const json_t *value, struct header *ret)
{
	const char *key;
	json_t *part;
	int err = 0;

	ret->name = "";
	ret->value = (struct span){(const uint8_t *)"", 0};
	if (!json_is_object(value))
		return bad(reader, "headers", "each must be an object of name and value");
	json_object_foreach((json_t *)(uintptr_t)value, key, part)
	{
		if (err || json_is_null(part))
			continue;
		if (strcmp(key, "name") == 0)
			err = read_string(reader, "headers.name", part, &ret->name);
		else if (strcmp(key, "value") == 0)
			err = read_bytes(reader, "headers.value", part, &ret->value);
		else
			err = bad(reader, arena_printf(reader->arena, "headers.%s", key), "unknown");
	}
	return err;
}

static int read_headers(struct reader *reader, const json_t *value)
{
	size_t n = json_array_size(value);
	struct header *headers;
	int err = 0;

	if (!json_is_array(value))
		return bad(reader, "headers", "must be a list of objects");
	if (n > JOB_HEADERS_MAX) {
		*reader->ret_detail = "over 64 headers";
		return -ERR_HEADER_COUNT;
	}
	headers = arena_alloc(reader->arena, (n + 1) * sizeof(*headers));
	for (size_t i = 0; i < n && !err; i++)
		err = read_header(reader, json_array_get(value, i), &headers[i]);
	if (err)
		return err;
	reader->job->headers = headers;
	reader->job->n_headers = n;
	return 0;
}

static int read_attrs(struct reader *reader, const json_t *value)
{
	size_t n = json_object_size(value), i = 0;
	struct attr *attrs;
	const char *key;
	json_t *text;
	int err = 0;

	if (!json_is_object(value))
		return bad(reader, "attrs", "must be an object of strings");
	if (n > JOB_ATTRS_MAX) {
		*reader->ret_detail = "over 64 attrs";
		return -ERR_JOB_ATTRS;
	}
	attrs = arena_alloc(reader->arena, (n + 1) * sizeof(*attrs));
	json_object_foreach((json_t *)(uintptr_t)value, key, text)
	{
		attrs[i].key = arena_strndup(reader->arena, key, strlen(key));
		if (!err)
			err = read_string(reader, arena_printf(reader->arena, "attrs.%s", key), text, &attrs[i++].value);
	}
	if (err)
		return err;
	reader->job->attrs = attrs;
	reader->job->n_attrs = n;
	return 0;
}

static int read_statuses(struct reader *reader, const json_t *value)
{
	size_t n = json_array_size(value);
	int32_t *out = arena_alloc(reader->arena, (n + 1) * sizeof(*out));
	int64_t number;
	int err = json_is_array(value) ? 0 : bad(reader, "expect.status", "must be a list of numbers");

	for (size_t i = 0; i < n && !err; i++) {
		err = read_int(reader, "expect.status", json_array_get(value, i), 100, 999, &number);
		out[i] = (int32_t)number;
	}
	reader->job->expect_status = out;
	reader->job->n_expect_status = err ? 0 : n;
	return err;
}

static int read_types(struct reader *reader, const json_t *value)
{
	size_t n = json_array_size(value);
	const char **out = arena_alloc(reader->arena, (n + 1) * sizeof(*out));
	int err = json_is_array(value) ? 0 : bad(reader, "expect.content_type", "must be a list of strings");

	for (size_t i = 0; i < n && !err; i++)
		err = read_string(reader, "expect.content_type", json_array_get(value, i), &out[i]);
	reader->job->expect_type = out;
	reader->job->n_expect_type = err ? 0 : n;
	return err;
}

static int read_object(struct reader *reader, const struct field *fields, const json_t *object, const char *prefix);

static int read_field(struct reader *reader, const struct field *field, const char *name, const json_t *value)
{
	uint8_t *at = (uint8_t *)reader->job + field->at;
	int64_t number = 0;
	int err;

	switch (field->kind) {
	case STRING:
		return read_string(reader, name, value, (const char **)(void *)at);
	case BYTES:
		return read_bytes(reader, name, value, (struct span *)(void *)at);
	case INT32:
		err = read_int(reader, name, value, 0, INT32_MAX, &number);
		if (!err)
			*(int32_t *)(void *)at = (int32_t)number;
		return err;
	case INT64:
		return read_int(reader, name, value, 0, INT64_MAX, (int64_t *)(void *)at);
	case BODY_MODE:
		return read_body_mode(reader, name, value);
	case HEADERS:
		return read_headers(reader, value);
	case ATTRS:
		return read_attrs(reader, value);
	case STATUSES:
		return read_statuses(reader, value);
	case TYPES:
		return read_types(reader, value);
	case OBJECT:
		return json_is_object(value) ? read_object(reader, field->within, value, arena_printf(reader->arena, "%s.", name))
					     : bad(reader, name, "must be an object");
	}
	return -ERR_JOB_FIELD;
}

/* All fields are read even after a bad one, so that the result carries the job's id, URL and attrs. The first error counts. */
static int read_object(struct reader *reader, const struct field *fields, const json_t *object, const char *prefix)
{
	const char *key, *first_detail = NULL;
	json_t *value;
	int first_err = 0;

	json_object_foreach((json_t *)(uintptr_t)object, key, value)
	{
		const struct field *field = find_field(fields, key);
		const char *name = arena_printf(reader->arena, "%s%s", prefix, field ? field->name : key);
		int err = 0;
		if (!field)
			err = bad(reader, name, "unknown; see the FetchJob schema");
		else if (!json_is_null(value))
			err = read_field(reader, field, name, value);
		if (err && !first_err) {
			first_err = err;
			first_detail = *reader->ret_detail;
		}
	}
	if (first_err)
		*reader->ret_detail = first_detail;
	return first_err;
}

int job_from_json(struct arena *arena, struct span value, struct job *job, const char **ret_detail)
{
	struct reader reader = {arena, job, ret_detail};
	json_error_t error;
	json_t *root = json_loadb((const char *)value.data, value.len, JSON_REJECT_DUPLICATES, &error);
	int err;

	if (!root) {
		*ret_detail = arena_printf(arena, "line %d, column %d: %s", error.line, error.column, error.text);
		return -ERR_JOB_JSON;
	}
	if (json_is_object(root)) {
		err = read_object(&reader, job_fields, root, "");
	} else {
		*ret_detail = "must be a JSON object";
		err = -ERR_JOB_JSON;
	}
	json_decref(root);
	return err;
}
