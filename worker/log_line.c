#include "log_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

static const char *const level_names[] = {"debug", "info", "warn", "error"};

/* A line under work. Once full it stays so, and the field that did not fit is taken back. */
struct line {
	char *out;
	size_t len, max;
	bool is_full;
};

static void put(struct line *line, const char *text, size_t len)
{
	if (line->is_full || len > line->max - line->len) {
		line->is_full = true;
		return;
	}
	memcpy(line->out + line->len, text, len);
	line->len += len;
}

static void put_str(struct line *line, const char *text)
{
	put(line, text, strlen(text));
}

/* Bytes of the UTF-8 character at s (RFC 3629: no overlong form, no surrogate, at most U+10FFFF), 0 = not valid. */
static size_t utf8_len(const uint8_t *s, size_t left)
{
	static const uint8_t marks[] = {0, 0, 0xc0, 0xe0, 0xf0};
	size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;

	if (n == 0 || n > left)
		return 0;
	if (n == 1)
		return 1;
	uint32_t code = s[0] & (uint8_t)~marks[n];
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (s[i] & 0x3f);
	}
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	bool is_surrogate = code >= 0xd800 && code <= 0xdfff;
	return code < least[n] || code > 0x10ffff || is_surrogate ? 0 : n;
}

/* C0, DEL and C1 (U+0080 to U+009F as 0xc2 0x80 to 0x9f): a terminal would obey them. */
static bool is_control(const uint8_t *s, size_t n)
{
	return n == 1 ? s[0] < 0x20 || s[0] == 0x7f : n == 2 && s[0] == 0xc2 && s[1] < 0xa0;
}

static void put_control(struct line *line, const uint8_t *s, size_t n)
{
	char text[8];

	switch (s[0]) {
	case '\n':
		put_str(line, "\\n");
		return;
	case '\r':
		put_str(line, "\\r");
		return;
	case '\t':
		put_str(line, "\\t");
		return;
	}
	snprintf(text, sizeof(text), "\\u%04x", n == 2 ? s[1] : s[0]);
	put_str(line, text);
}

/* Quoted as JSON is, which logfmt readers understand too. A byte that is not UTF-8 is shown as the four characters
 * \x80. */
static void put_quoted(struct line *line, const char *value, size_t len)
{
	const uint8_t *s = (const uint8_t *)value;
	char text[8];

	put(line, "\"", 1);
	for (size_t i = 0, n; i < len; i += MAX(n, 1)) {
		n = utf8_len(s + i, len - i);
		if (n == 0) {
			snprintf(text, sizeof(text), "\\\\x%02x", s[i]);
			put_str(line, text);
		} else if (is_control(s + i, n)) {
			put_control(line, s + i, n);
		} else {
			if (s[i] == '"' || s[i] == '\\')
				put(line, "\\", 1);
			put(line, value + i, n);
		}
	}
	put(line, "\"", 1);
}

static bool is_bare(const char *value, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		uint8_t c = (uint8_t)value[i];
		if (c <= ' ' || c >= 0x7f || c == '"' || c == '=' || c == '\\')
			return false;
	}
	return len > 0;
}

/* Where to cut a value of len bytes: not inside a character. */
static size_t cut_at(const char *value, size_t len)
{
	if (len <= LOG_VALUE_MAX)
		return len;
	len = LOG_VALUE_MAX - 3;
	for (size_t i = 0; i < 3 && ((uint8_t)value[len] & 0xc0) == 0x80; i++)
		len--;
	return len;
}

static void put_value(struct line *line, enum log_format format, const char *value)
{
	size_t full = strnlen(value, LOG_VALUE_MAX + 1), len = cut_at(value, full);
	char cut[LOG_VALUE_MAX];

	if (len < full) {
		memcpy(cut, value, len);
		memcpy(cut + len, "...", 3);
		value = cut;
		len += 3;
	}
	if (format == LOG_LOGFMT && is_bare(value, len))
		put(line, value, len);
	else
		put_quoted(line, value, len);
}

static void put_key(struct line *line, enum log_format format, const char *key)
{
	put_str(line, format == LOG_JSON ? (line->len > 1 ? ",\"" : "\"") : line->len ? " " : "");
	put_str(line, key);
	put_str(line, format == LOG_JSON ? "\":" : "=");
}

static void put_field(struct line *line, enum log_format format, const struct log_field *field)
{
	char number[24];

	put_key(line, format, field->key);
	if (field->str) {
		put_value(line, format, field->str);
	} else {
		snprintf(number, sizeof(number), "%" PRId64, field->num);
		put_str(line, number);
	}
}

static const char *time_text(int64_t epoch_ms, char out[static 32])
{
	time_t seconds = epoch_ms / 1000;
	struct tm tm;

	gmtime_r(&seconds, &tm);
	size_t n = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out + n, 32 - n, ".%03dZ", (int)(epoch_ms % 1000));
	return out;
}

size_t log_line(char out[static LOG_LINE_MAX], enum log_format format, int64_t epoch_ms, enum log_level level,
		const char *msg, const struct log_field *fields)
{
	/* The rest is kept for the end of the line. */
	struct line line = {.out = out, .max = LOG_LINE_MAX - 16};
	char text[32];

	if (format == LOG_JSON)
		put(&line, "{", 1);
	put_field(&line, format, &LOG_STR("ts", time_text(epoch_ms, text)));
	put_field(&line, format, &LOG_STR("level", level_names[level]));
	size_t fits = line.len;
	put_field(&line, format, &LOG_STR("msg", msg));
	for (; fields && fields->key && !line.is_full; fields++) {
		fits = line.len;
		put_field(&line, format, fields);
	}
	if (line.is_full) {
		line = (struct line){.out = out, .len = fits, .max = LOG_LINE_MAX};
		put_str(&line, format == LOG_JSON ? ",\"cut\":true" : " cut=true");
	}
	line.max = LOG_LINE_MAX;
	put_str(&line, format == LOG_JSON ? "}\n" : "\n");
	return line.len;
}
