/* proto3's JSON mapping of FetchJob: https://protobuf.dev/programming-guides/json. One table names every field. */
#include "err.h"
#include "job_internal.h"

#include <errno.h>
#include <jansson.h>

/* All lists full, every field given twice over: an honest job stays far under it. A small text must not become millions
 * of values: 1 MiB of "[]," held the loop for 50 ms. */
#define VALUES_MAX 2048

enum kind { STRING, BYTES, INT32, INT64, BODY_MODE, HEADERS, ATTRS, STATUSES, TYPES, OBJECT };

struct field {
	const char *name; /* as in job.proto; the camelCase form is taken too */
	enum kind kind;
	size_t at;		    /* of its member in struct job */
	const struct field *fields; /* of an OBJECT, with members of the same struct job */
};

/* Reading goes on after a fault, so that the result carries the job's id, URL and attrs; the first fault counts. */
struct reader {
	struct arena *arena;
	struct job *job;
	const char *within; /* "timeouts.": before the names of the object being read */
	int err;
	const char *detail;
};

#define AT(member) offsetof(struct job, member)
#define END                                                                                                            \
	{                                                                                                              \
		NULL, STRING, 0, NULL                                                                                  \
	}

static const struct field timeouts_fields[] = {
    {"connect_ms", INT64, AT(connect_ms), NULL},
    {"total_ms", INT64, AT(total_ms), NULL},
    {"stall_ms", INT64, AT(stall_ms), NULL},
    END,
};

static const struct field retry_fields[] = {
    {"max_attempts", INT32, AT(max_attempts), NULL},
    {"base_ms", INT64, AT(base_ms), NULL},
    {"max_ms", INT64, AT(max_ms), NULL},
    END,
};

static const struct field expect_fields[] = {
    {"status", STATUSES, 0, NULL},
    {"content_type", TYPES, 0, NULL},
    END,
};

static const struct field schedule_fields[] = {
    {"source_id", STRING, AT(source_id), NULL},
    {"period_ms", INT64, AT(period_ms), NULL},
    {"due_at_ms", INT64, AT(due_at_ms), NULL},
    END,
};

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
    {"body_mode", BODY_MODE, AT(body_mode), NULL},
    {"if_none_match", STRING, AT(if_none_match), NULL},
    {"if_modified_since", STRING, AT(if_modified_since), NULL},
    {"prev_digest", BYTES, AT(prev_digest), NULL},
    {"expect", OBJECT, 0, expect_fields},
    {"host_profile", STRING, AT(host_profile), NULL},
    {"attrs", ATTRS, 0, NULL},
    {"schedule", OBJECT, 0, schedule_fields},
    {"replay_id", STRING, AT(replay_id), NULL},
    END,
};

/* Always false, so that a reader can return it. */
static bool bad(struct reader *reader, const char *name, const char *what)
{
	if (!reader->err)
		reader->err =
		    job_fault(reader->arena, &reader->detail, -ERR_JOB_FIELD,
			      *reader->within ? arena_printf(reader->arena, "%s%s", reader->within, name) : name, what);
	return false;
}

/* "max_body_bytes" is also "maxBodyBytes". */
static bool is_name(const char *snake, const char *given)
{
	if (strcmp(snake, given) == 0)
		return true;
	for (; *snake; snake++, given++) {
		char wanted = *snake;
		if (wanted == '_')
			wanted = (char)(*++snake - 'a' + 'A');
		if (*given != wanted)
			return false;
	}
	return !*given;
}

/* ---- values ---- */

static bool read_string(struct reader *reader, const char *name, const json_t *value, const char **ret)
{
	size_t len = json_string_length(value);

	if (!json_is_string(value))
		return bad(reader, name, "must be a string");
	if (memchr(json_string_value(value), 0, len))
		return bad(reader, name, "has a NUL character");
	*ret = arena_strndup(reader->arena, json_string_value(value), len);
	return true;
}

/* Digits after an optional minus, nothing else: strtoll alone takes white space and a plus. */
static bool int_of_text(const json_t *value, int64_t *ret)
{
	const char *text = json_string_value(value);
	char *end;

	if (text[text[0] == '-'] < '0' || text[text[0] == '-'] > '9')
		return false;
	errno = 0;
	*ret = strtoll(text, &end, 10);
	return !errno && end == text + json_string_length(value);
}

static bool int_of_real(const json_t *value, int64_t *ret)
{
	double real = json_real_value(value);

	if (!(real >= -0x1p63 && real < 0x1p63))
		return false;
	*ret = (int64_t)real;
	return (double)*ret == real;
}

/* A number, a real without a fraction (1e3), or a string of digits. */
static bool read_int(struct reader *reader, const char *name, const json_t *value, int64_t max, int64_t *ret)
{
	int64_t number = json_integer_value(value);

	if (json_is_string(value) && !int_of_text(value, &number))
		return bad(reader, name, "not a whole number of 64 bits");
	if (json_is_real(value) && !int_of_real(value, &number))
		return bad(reader, name, "not a whole number of 64 bits");
	if (!json_is_string(value) && !json_is_number(value))
		return bad(reader, name, "must be a number, or a string of digits");
	if (number < 0)
		return bad(reader, name, arena_printf(reader->arena, "%lld is under 0", (long long)number));
	if (number > max)
		return bad(reader, name,
			   arena_printf(reader->arena, "%lld is over %lld", (long long)number, (long long)max));
	*ret = number;
	return true;
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

/* Bytes written, or -1. Both alphabets, padding optional; padding that is there must be right. */
static ssize_t base64_decode(const char *text, size_t len, uint8_t *out)
{
	size_t padded = len, n = 0;
	uint32_t bits = 0;
	int n_bits = 0;

	while (len && padded - len < 2 && text[len - 1] == '=')
		len--;
	if (len % 4 == 1 || (len < padded && padded % 4))
		return -1;
	for (size_t i = 0; i < len; i++) {
		int digit = base64_digit(text[i]);
		if (digit < 0)
			return -1;
		bits = (bits << 6 | (uint32_t)digit) & 0xffffff;
		n_bits += 6;
		if (n_bits >= 8) {
			n_bits -= 8;
			out[n++] = (uint8_t)(bits >> n_bits);
		}
	}
	return (ssize_t)n;
}

static bool read_bytes(struct reader *reader, const char *name, const json_t *value, struct span *ret)
{
	size_t len = json_string_length(value);

	if (!json_is_string(value))
		return bad(reader, name, "must be a base64 string");
	uint8_t *out = arena_alloc(reader->arena, len / 4 * 3 + 3);
	ssize_t n = base64_decode(json_string_value(value), len, out);
	if (n < 0)
		return bad(reader, name, "not base64");
	*ret = (struct span){out, (size_t)n};
	return true;
}

static bool read_body_mode(struct reader *reader, const char *name, const json_t *value, enum body_mode *ret)
{
	static const char *const names[] = {"BODY_MODE_UNSPECIFIED", "BODY_MODE_INLINE", "BODY_MODE_HASH_ONLY",
					    "BODY_MODE_NONE"};
	int64_t number = 0;

	for (size_t i = 0; json_is_string(value) && i < ARRAY_LEN(names); i++) {
		if (strcmp(json_string_value(value), names[i]) == 0) {
			*ret = (enum body_mode)i;
			return true;
		}
	}
	if (!json_is_integer(value))
		return bad(reader, name, "must be BODY_MODE_INLINE, BODY_MODE_HASH_ONLY or BODY_MODE_NONE");
	if (!read_int(reader, name, value, BODY_MODE_NONE, &number))
		return false;
	*ret = (enum body_mode)number;
	return true;
}

/* ---- lists ---- */

/* Their limits are job_check's: one entry over it is read, the rest is not looked at. */
static size_t entries_to_read(size_t n, size_t max)
{
	return MIN(n, max + 1);
}

static bool read_header(struct reader *reader, const json_t *value, struct header *ret)
{
	const char *key;
	json_t *part;
	bool is_good = true;

	*ret = (struct header){.name = ""};
	if (!json_is_object(value))
		return bad(reader, "headers", "each must be an object with name and value");
	json_object_foreach((json_t *)(uintptr_t)value, key, part)
	{
		if (json_is_null(part))
			continue;
		if (strcmp(key, "name") == 0)
			is_good &= read_string(reader, "headers.name", part, &ret->name);
		else if (strcmp(key, "value") == 0)
			is_good &= read_bytes(reader, "headers.value", part, &ret->value);
		else
			is_good = bad(reader, "headers", "only name and value are known");
	}
	return is_good;
}

static void read_headers(struct reader *reader, const char *name, const json_t *value)
{
	size_t n = entries_to_read(json_array_size(value), JOB_HEADERS_MAX);
	struct header *headers = arena_alloc(reader->arena, n * sizeof(*headers));

	if (!json_is_array(value))
		bad(reader, name, "must be a list of objects");
	for (size_t i = 0; i < n; i++)
		if (!read_header(reader, json_array_get(value, i), &headers[i]))
			return;
	reader->job->headers = headers;
	reader->job->n_headers = n;
}

/* The good ones are kept beside a bad one. */
static void read_attrs(struct reader *reader, const char *name, const json_t *value)
{
	size_t max = entries_to_read(json_object_size(value), JOB_ATTRS_MAX), n = 0;
	struct attr *attrs = arena_alloc(reader->arena, max * sizeof(*attrs));
	const char *key;
	json_t *text;

	if (!json_is_object(value))
		bad(reader, name, "must be an object of strings");
	reader->within = "attrs.";
	json_object_foreach((json_t *)(uintptr_t)value, key, text)
	{
		if (n == max)
			break;
		attrs[n].key = arena_strndup(reader->arena, key, strlen(key));
		n += read_string(reader, key, text, &attrs[n].value);
	}
	reader->within = "";
	reader->job->attrs = attrs;
	reader->job->n_attrs = n;
}

static void read_statuses(struct reader *reader, const char *name, const json_t *value)
{
	size_t n = entries_to_read(json_array_size(value), JOB_EXPECT_MAX);
	int32_t *statuses = arena_alloc(reader->arena, n * sizeof(*statuses));
	int64_t number;

	if (!json_is_array(value))
		bad(reader, name, "must be a list of numbers");
	for (size_t i = 0; i < n; i++) {
		if (!read_int(reader, name, json_array_get(value, i), INT32_MAX, &number))
			return;
		statuses[i] = (int32_t)number;
	}
	reader->job->expect_status = statuses;
	reader->job->n_expect_status = n;
}

static void read_types(struct reader *reader, const char *name, const json_t *value)
{
	size_t n = entries_to_read(json_array_size(value), JOB_EXPECT_MAX);
	const char **types = arena_alloc(reader->arena, n * sizeof(*types));

	if (!json_is_array(value))
		bad(reader, name, "must be a list of strings");
	for (size_t i = 0; i < n; i++)
		if (!read_string(reader, name, json_array_get(value, i), &types[i]))
			return;
	reader->job->expect_type = types;
	reader->job->n_expect_type = n;
}

/* ---- objects ---- */

static void read_object(struct reader *reader, const struct field *fields, const json_t *object);

static void read_message(struct reader *reader, const struct field *field, const json_t *value)
{
	if (!json_is_object(value)) {
		bad(reader, field->name, "must be an object");
		return;
	}
	reader->within = arena_printf(reader->arena, "%s.", field->name);
	read_object(reader, field->fields, value);
	reader->within = "";
}

static void read_field(struct reader *reader, const struct field *field, const json_t *value)
{
	void *member = (char *)reader->job + field->at;
	int64_t number;

	switch (field->kind) {
	case STRING:
		read_string(reader, field->name, value, member);
		break;
	case BYTES:
		read_bytes(reader, field->name, value, member);
		break;
	case INT32:
		if (read_int(reader, field->name, value, INT32_MAX, &number))
			*(int32_t *)member = (int32_t)number;
		break;
	case INT64:
		read_int(reader, field->name, value, INT64_MAX, member);
		break;
	case BODY_MODE:
		read_body_mode(reader, field->name, value, member);
		break;
	case HEADERS:
		read_headers(reader, field->name, value);
		break;
	case ATTRS:
		read_attrs(reader, field->name, value);
		break;
	case STATUSES:
		read_statuses(reader, field->name, value);
		break;
	case TYPES:
		read_types(reader, field->name, value);
		break;
	case OBJECT:
		read_message(reader, field, value);
		break;
	}
}

static void read_object(struct reader *reader, const struct field *fields, const json_t *object)
{
	const char *key;
	uint32_t seen = 0;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)object, key, value)
	{
		size_t i = 0;
		while (fields[i].name && !is_name(fields[i].name, key))
			i++;
		if (!fields[i].name)
			bad(reader, key, "unknown");
		else if (seen & 1u << i) /* jansson refuses the same name twice, but not both its forms */
			bad(reader, fields[i].name, "given twice");
		else if (!json_is_null(value))
			read_field(reader, &fields[i], value);
		seen |= fields[i].name ? 1u << i : 0;
	}
}

/* ---- the record ---- */

/* Counted by what stands before or between them, outside of strings. */
static bool has_too_many_values(struct span text)
{
	bool in_string = false;
	size_t n = 0;

	for (size_t i = 0; i < text.len && n <= VALUES_MAX; i++) {
		uint8_t c = text.data[i];
		if (c == '"')
			in_string = !in_string;
		else if (in_string)
			i += c == '\\';
		else
			n += c == ',' || c == '[' || c == '{';
	}
	return n > VALUES_MAX;
}

int job_from_json(struct arena *arena, struct span value, struct job *job, const char **ret_detail)
{
	struct reader reader = {.arena = arena, .job = job, .within = ""};
	json_error_t error;

	if (has_too_many_values(value)) {
		*ret_detail = arena_printf(arena, "over %d values", VALUES_MAX);
		return -ERR_JOB_JSON;
	}
	json_t *root = json_loadb((const char *)value.data, value.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
	if (!root) {
		*ret_detail = arena_printf(arena, "line %d, column %d: %s", error.line, error.column, error.text);
		return -ERR_JOB_JSON;
	}
	if (json_is_object(root)) {
		read_object(&reader, job_fields, root);
	} else {
		reader.err = -ERR_JOB_JSON;
		reader.detail = "not a JSON object";
	}
	json_decref(root);
	if (reader.err)
		*ret_detail = reader.detail;
	return reader.err;
}
