/* print - results as JSON lines (proto3 mapping, names as in the .proto, by the descriptors, so a new field needs no
 * line here) and as a table. */
#include "ctl.h"
#include "err.h"
#include "gatherd/v1/result.pb-c.h"
#include "utf8.h"

#include <jansson.h>
#include <openssl/evp.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

/* --- text --- */

/* Bytes of the character at the front of valid UTF-8. */
static size_t char_len(const char *s)
{
	uint8_t first = (uint8_t)*s;

	return first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

/* C0, DEL, and C1 as UTF-8 (U+0080 to U+009F): what a terminal would obey. */
static bool is_control(const char *s)
{
	uint8_t first = (uint8_t)s[0];

	return first < 0x20 || first == 0x7f || (first == 0xc2 && (uint8_t)s[1] < 0xa0);
}

/* Columns of one character on a terminal: 2 in East Asian scripts, 0 for a combining mark. */
static size_t columns_of_char(const char *s)
{
	mbstate_t state = {0};
	wchar_t wide;
	size_t len = char_len(s);

	if (len == 1 || mbrtowc(&wide, s, len, &state) != len)
		return 1;
	int columns = wcwidth(wide);
	return columns < 0 ? 1 : (size_t)columns;
}

size_t print_columns(const char *text)
{
	size_t columns = 0;

	for (; *text; text += char_len(text))
		columns += columns_of_char(text);
	return columns;
}

char *print_clean(struct span text, size_t max)
{
	/* Room for a last "…" too. */
	char *out = xmalloc(3 * text.len + 4), *at = out;
	size_t len = utf8_sanitise(text.data, text.len, out);

	/* Controls go first, NUL too, so that it is a string from here on. */
	out[len] = '\0';
	for (size_t i = 0; i < len; i += char_len(out + i))
		if (is_control(out + i))
			memset(out + i, '?', char_len(out + i));
	if (!max || print_columns(out) <= max)
		return out;
	for (size_t room = max - 1; columns_of_char(at) <= room; at += char_len(at))
		room -= columns_of_char(at);
	strcpy(at, "…");
	return out;
}

/* --- JSON --- */

static json_t *json_of_message(const ProtobufCMessage *msg, enum print_body body);

json_t *print_json_text(struct span text)
{
	json_t *json = json_stringn((const char *)text.data, text.len);

	if (json)
		return json;
	char *clean = xmalloc(3 * text.len);
	json = json_stringn(clean, utf8_sanitise(text.data, text.len, clean));
	free(clean);
	return json;
}

json_t *print_json_base64(struct span bytes)
{
	unsigned char *text = xmalloc(4 * (bytes.len / 3 + 1) + 1);

	EVP_EncodeBlock(text, bytes.data, (int)bytes.len);
	json_t *json = json_string((const char *)text);
	free(text);
	return json;
}

static json_t *json_of_hex(struct span bytes)
{
	char *text = xmalloc(2 * bytes.len + 1);

	*text = '\0';
	for (size_t i = 0; i < bytes.len; i++)
		sprintf(text + 2 * i, "%02x", bytes.data[i]);
	json_t *json = json_string(text);
	free(text);
	return json;
}

/* The mapping says base64. For people and jq, text is better, and a digest as sha256sum prints it. */
static json_t *json_of_bytes(const char *name, struct span bytes, enum print_body body)
{
	if (body == PRINT_BASE64)
		return print_json_base64(bytes);
	return strcmp(name, "digest") == 0 ? json_of_hex(bytes) : print_json_text(bytes);
}

static json_t *json_of_enum(const ProtobufCFieldDescriptor *field, int value)
{
	const ProtobufCEnumValue *row = protobuf_c_enum_descriptor_get_value(field->descriptor, value);

	/* A newer worker's value: the mapping gives the number. */
	return row ? json_string(row->name) : json_integer(value);
}

static json_t *json_of_value(const ProtobufCFieldDescriptor *field, const void *at, enum print_body body)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
		return json_integer(*(const int32_t *)at);
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		return json_integer(*(const uint32_t *)at);
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		return json_integer(*(const int64_t *)at);
	case PROTOBUF_C_TYPE_FLOAT:
		return json_real((double)*(const float *)at);
	case PROTOBUF_C_TYPE_DOUBLE:
		return json_real(*(const double *)at);
	case PROTOBUF_C_TYPE_BOOL:
		return json_boolean(*(const protobuf_c_boolean *)at);
	case PROTOBUF_C_TYPE_ENUM:
		return json_of_enum(field, *(const int *)at);
	case PROTOBUF_C_TYPE_STRING:
		return print_json_text(span_str(*(char *const *)at));
	case PROTOBUF_C_TYPE_BYTES: {
		const ProtobufCBinaryData *bytes = at;
		return json_of_bytes(field->name, (struct span){bytes->data, bytes->len}, body);
	}
	case PROTOBUF_C_TYPE_MESSAGE:
		return json_of_message(*(ProtobufCMessage *const *)at, body);
	}
	return json_null();
}

static size_t size_of(const ProtobufCFieldDescriptor *field)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_DOUBLE:
		return 8;
	case PROTOBUF_C_TYPE_BOOL:
		return sizeof(protobuf_c_boolean);
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return sizeof(void *);
	default:
		return 4;
	}
}

/* protobuf-c knows no maps: map<string, string> arrives as repeated XEntry {key = 1; value = 2}. */
static bool is_map(const ProtobufCFieldDescriptor *field)
{
	const ProtobufCMessageDescriptor *type = field->type == PROTOBUF_C_TYPE_MESSAGE ? field->descriptor : NULL;
	size_t len = type ? strlen(type->short_name) : 0;

	return len > 5 && strcmp(type->short_name + len - 5, "Entry") == 0 && type->n_fields == 2 &&
	       strcmp(type->fields[0].name, "key") == 0 && type->fields[0].type == PROTOBUF_C_TYPE_STRING &&
	       strcmp(type->fields[1].name, "value") == 0;
}

static json_t *json_of_map(const ProtobufCFieldDescriptor *field, ProtobufCMessage *const *entries, size_t n,
			   enum print_body body)
{
	const ProtobufCMessageDescriptor *type = field->descriptor;
	json_t *map = json_object();

	for (size_t i = 0; i < n; i++) {
		const char *entry = (const char *)entries[i];
		struct span name = span_str(*(char *const *)(const void *)(entry + type->fields[0].offset));
		char *key = xmalloc(3 * name.len + 1);

		key[utf8_sanitise(name.data, name.len, key)] = '\0';
		json_object_set_new(map, key, json_of_value(&type->fields[1], entry + type->fields[1].offset, body));
		free(key);
	}
	return map;
}

static json_t *json_of_list(const ProtobufCFieldDescriptor *field, const void *items, size_t n, enum print_body body)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, json_of_value(field, (const char *)items + i * size_of(field), body));
	return list;
}

/* proto3: what has its default value is not printed. */
static bool is_default(const ProtobufCFieldDescriptor *field, const char *msg)
{
	const void *at = msg + field->offset;

	if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
		return *(const uint32_t *)(const void *)(msg + field->quantifier_offset) != field->id;
	switch (field->type) {
	case PROTOBUF_C_TYPE_STRING:
		return !*(char *const *)at || !**(char *const *)at;
	case PROTOBUF_C_TYPE_BYTES:
		return ((const ProtobufCBinaryData *)at)->len == 0;
	case PROTOBUF_C_TYPE_MESSAGE:
		return !*(void *const *)at;
	case PROTOBUF_C_TYPE_BOOL:
		return !*(const protobuf_c_boolean *)at;
	default: {
		static const char zero[8];
		return memcmp(at, zero, size_of(field)) == 0;
	}
	}
}

static json_t *json_of_message(const ProtobufCMessage *msg, enum print_body body)
{
	const char *base = (const char *)msg;
	json_t *object = json_object();

	for (unsigned i = 0; i < msg->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &msg->descriptor->fields[i];
		json_t *value = NULL;

		if (body == PRINT_NONE && strcmp(field->name, "body") == 0)
			continue;
		if (field->label == PROTOBUF_C_LABEL_REPEATED) {
			size_t n = *(const size_t *)(const void *)(base + field->quantifier_offset);
			void *items = *(void *const *)(const void *)(base + field->offset);

			if (n)
				value = is_map(field) ? json_of_map(field, items, n, body)
						      : json_of_list(field, items, n, body);
		} else if (!is_default(field, base)) {
			value = json_of_value(field, base + field->offset, body);
		}
		if (value)
			json_object_set_new(object, field->name, value);
	}
	return object;
}

/* jansson leaves DEL and C1 as they are, and a terminal may obey them; inside JSON they can only be in strings. */
static void print_escaped(FILE *out, const char *text)
{
	for (const uint8_t *at = (const uint8_t *)text; *at; at++) {
		if (*at == 0x7f)
			fputs("\\u007f", out);
		else if (at[0] == 0xc2 && at[1] < 0xa0)
			fprintf(out, "\\u%04x", *++at);
		else
			putc_unlocked(*at, out);
	}
}

void print_json(FILE *out, json_t *json)
{
	char *text = json_dumps(json, JSON_COMPACT);

	print_escaped(out, text ? text : "{}");
	putc('\n', out);
	free(text);
	json_decref(json);
}

/* --- table --- */

#define URL_COLUMNS_MIN 20
#define NOTE_COLUMNS_MIN 10
#define WIDE_COLUMNS 110

/* On a narrow terminal the URL needs the room more than milliseconds and the longest outcomes do. */
static bool is_wide(const struct printer *printer)
{
	return !printer->width || printer->width >= WIDE_COLUMNS;
}

static int time_columns(const struct printer *printer)
{
	return is_wide(printer) ? 12 : 8;
}

static int outcome_columns(const struct printer *printer)
{
	return is_wide(printer) ? 18 : 15;
}

/* Columns left for the URL and its note; 0 = no limit. */
static size_t url_room(const struct printer *printer)
{
	size_t used = (size_t)(time_columns(printer) + outcome_columns(printer)) + 2 + 2 + 6 + 2 + 7 + 2 + 8 + 2;

	return !printer->width ? 0 : MAX(printer->width, used + URL_COLUMNS_MIN) - used;
}

const char *print_outcome_colour(int outcome)
{
	switch ((enum outcome)outcome) {
	case OUTCOME_OK:
	case OUTCOME_NOT_MODIFIED:
		return "\033[32m";
	case OUTCOME_BLOCKED_ADDRESS:
	case OUTCOME_BLOCKED_POLICY:
	case OUTCOME_BLOCKED_ROBOTS:
	case OUTCOME_EXPIRED:
	case OUTCOME_DEADLINE:
	case OUTCOME_CANCELLED:
		return "\033[33m";
	default:
		return "\033[31m";
	}
}

static void time_of(int64_t epoch_ms, char *out, size_t size)
{
	time_t at = (time_t)(epoch_ms / 1000);
	struct tm tm;
	char text[16];

	if (epoch_ms <= 0 || !localtime_r(&at, &tm)) {
		snprintf(out, size, "-");
		return;
	}
	strftime(text, sizeof(text), "%H:%M:%S", &tm);
	snprintf(out, size, "%s.%03d", text, (int)(epoch_ms % 1000));
}

/* What is worth saying behind the URL: where it led, or what went wrong. "" = nothing. free. */
static char *note_of(const Gatherd__V1__FetchResult *res)
{
	if (res->outcome == GATHERD__V1__OUTCOME__OUTCOME_OK)
		return res->n_redirects ? xasprintf("-> %s", res->final_url) : xstrdup("");
	return res->error ? xasprintf("%s: %s", res->error->code, res->error->message) : xstrdup("");
}

static void print_head(struct printer *printer)
{
	fprintf(printer->out, "%s%-*s  %-*s  %6s  %7s  %8s  %s%s\n", printer->has_colour ? "\033[1m" : "",
		time_columns(printer), "TIME", outcome_columns(printer), "OUTCOME", "STATUS", "MS", "BYTES", "URL",
		printer->has_colour ? "\033[0m" : "");
	printer->has_header = true;
}

/* URL and note share what is left of the line; the URL may take it all. */
static void print_url(const struct printer *printer, const Gatherd__V1__FetchResult *res)
{
	size_t room = url_room(printer);
	/* What is not a URL at all is shown as it came. */
	struct span url =
	    *res->url ? span_str(res->url) : (struct span){res->raw_input.data, MIN(res->raw_input.len, 200U)};
	char *text = print_clean(url, room), *note = note_of(res);
	size_t used = print_columns(text);

	fputs(text, printer->out);
	if (*note && (!room || used + 2 + NOTE_COLUMNS_MIN <= room)) {
		char *clean = print_clean(span_str(note), room ? room - used - 2 : 0);

		fprintf(printer->out, "  %s%s%s", printer->has_colour ? "\033[2m" : "", clean,
			printer->has_colour ? "\033[0m" : "");
		free(clean);
	}
	free(note);
	free(text);
}

static void print_body(const struct printer *printer, const ProtobufCBinaryData *body)
{
	for (size_t i = 0; i < body->len;) {
		const uint8_t *from = body->data + i, *end = memchr(from, '\n', body->len - i);
		size_t len = end ? (size_t)(end - from) : body->len - i;
		char *line = print_clean((struct span){from, len}, 0);

		fprintf(printer->out, "    %s\n", line);
		free(line);
		i += len + 1;
	}
}

static void print_row(struct printer *printer, const Gatherd__V1__FetchResult *res)
{
	enum outcome outcome = (enum outcome)res->outcome;
	char when[32], status[16] = "-";

	if (!printer->has_header)
		print_head(printer);
	time_of(res->end_at_ms, when, sizeof(when));
	if (res->status)
		snprintf(status, sizeof(status), "%d", res->status);
	char *name = print_clean(span_str(outcome_name(outcome)), (size_t)outcome_columns(printer));
	/* The cut outcome's "…" is one column but three bytes. */
	int pad = outcome_columns(printer) - (int)print_columns(name);
	fprintf(printer->out, "%-*.*s  %s%s%s%*s  %6s  %7lld  %8lld  ", time_columns(printer), time_columns(printer),
		when, printer->has_colour ? print_outcome_colour(outcome) : "", name, printer->has_colour ? "\033[0m" : "", pad,
		"", status, (long long)(res->start_at_ms ? res->end_at_ms - res->start_at_ms : 0),
		(long long)res->body_length);
	free(name);
	print_url(printer, res);
	putc('\n', printer->out);
	if (printer->with_body && printer->body == PRINT_TEXT)
		print_body(printer, &res->body);
}

/* --- both --- */

void printer_measure(struct printer *printer)
{
	const char *columns = getenv("COLUMNS");
	struct winsize size = {0};

	if (ioctl(fileno(printer->out), TIOCGWINSZ, &size))
		size.ws_col = size.ws_row = 0;
	printer->height = size.ws_row ? size.ws_row : 24;
	printer->width = size.ws_col ? size.ws_col : columns && atoi(columns) > 0 ? (size_t)atoi(columns) : 80;
}

void printer_init(struct printer *printer, FILE *out, enum print_format format, enum print_body body)
{
	bool is_terminal = isatty(fileno(out));
	const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");

	*printer =
	    (struct printer){.out = out, .format = format, .body = body ? body : PRINT_TEXT, .with_body = body != 0};
	if (!printer->format)
		printer->format = is_terminal ? PRINT_TABLE : PRINT_JSON;
	if (is_terminal)
		printer_measure(printer);
	/* https://no-color.org: set and not empty. */
	printer->has_colour = is_terminal && !(no_color && *no_color) && !(term && strcmp(term, "dumb") == 0);
}

json_t *print_result_json(const Gatherd__V1__FetchResult *res, enum print_body body)
{
	return json_of_message(&res->base, body);
}

void printer_result(struct printer *printer, const struct Gatherd__V1__FetchResult *res)
{
	if (printer->format == PRINT_TABLE)
		print_row(printer, res);
	else
		print_json(printer->out, print_result_json(res, printer->body));
}
