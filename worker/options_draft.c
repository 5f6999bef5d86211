#include "options_internal.h"

#include "err.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>

const char *shown(const char *text, char out[static SHOWN_MAX])
{
	size_t n = strnlen(text, SHOWN_MAX);
	bool is_cut = n == SHOWN_MAX;

	if (is_cut)
		n = SHOWN_MAX - 4;
	for (size_t i = 0; i < n; i++)
		out[i] = (unsigned char)text[i] < ' ' || text[i] == 0x7f ? '?' : text[i];
	strcpy(out + n, is_cut ? "..." : "");
	return out;
}

static void add_sentence(struct buf *buf, size_t n, const char *source, const char *text)
{
	/* When the buffer is full there is enough to mend already. */
	if (n < SENTENCES_MAX)
		(void)!buf_printf(buf, "%s%s: %s", buf->len ? "\n" : "", source, text);
}

void draft_error(struct draft *draft, const char *source, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	char *text = xvasprintf(fmt, ap);
	va_end(ap);
	add_sentence(&draft->errors, draft->n_errors++, source, text);
	free(text);
}

void draft_warning(struct draft *draft, const char *source, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	char *text = xvasprintf(fmt, ap);
	va_end(ap);
	add_sentence(&draft->warnings, draft->n_warnings++, source, text);
	free(text);
}

void draft_done(struct draft *draft)
{
	for (size_t i = 0; i < draft->n_sections; i++)
		free(draft->sections[i].source);
	free(draft->sections);
	for (size_t i = 0; i < ROW_COUNT; i++)
		free(draft->sources[i]);
	options_free(draft->opts);
	buf_done(&draft->errors);
	buf_done(&draft->warnings);
}

static char key_char(char c)
{
	return c == '_' || c == '-' ? '.' : (char)tolower((unsigned char)c);
}

#define KEY_MAX 64

/* Levenshtein's distance, one line of the matrix at a time. Both shorter than KEY_MAX. */
static size_t distance(const char *a, const char *b)
{
	size_t line[KEY_MAX], n = strlen(b);

	for (size_t j = 0; j <= n; j++)
		line[j] = j;
	for (size_t i = 0; a[i]; i++) {
		size_t diagonal = line[0];
		line[0] = i + 1;
		for (size_t j = 0; j < n; j++) {
			size_t same = diagonal + (key_char(a[i]) != key_char(b[j]));
			diagonal = line[j + 1];
			line[j + 1] = MIN(same, MIN(line[j], diagonal) + 1);
		}
	}
	return line[n];
}

const char *option_nearest(const char *key)
{
	size_t len = strlen(key), best = len / 3 + 1;
	const char *nearest = NULL;

	if (len >= KEY_MAX)
		return NULL;
	for (size_t i = 0; i < ROW_COUNT; i++) {
		size_t d = distance(key, option_rows[i].key);
		if (d < best) {
			best = d;
			nearest = option_rows[i].key;
		}
	}
	return nearest;
}

static const struct option_row *row_of(const char *key)
{
	for (size_t i = 0; i < ROW_COUNT; i++)
		if (strcmp(option_rows[i].key, key) == 0)
			return &option_rows[i];
	return NULL;
}

/* The value of an unknown key is not shown: it may be a password. */
static void say_unknown(struct draft *draft, const char *source, const char *key)
{
	char text[SHOWN_MAX];
	const char *nearest = draft->n_errors < SENTENCES_MAX ? option_nearest(key) : NULL;

	if (nearest)
		draft_error(draft, source, "%s: unknown key; did you mean %s?", shown(key, text), nearest);
	else
		draft_error(
		    draft, source,
		    "%s: unknown key; gatherd --options lists them, and a property of librdkafka is written kafka.NAME",
		    shown(key, text));
}

static void set_row(struct draft *draft, const char *source, int section, const struct option_row *row,
		    const char *value)
{
	size_t i = (size_t)(row - option_rows);
	void *at =
	    section < 0 ? option_at(draft->opts, row) : option_at_host(&draft->opts->sections[section].host, row);
	char *must, text[SHOWN_MAX];

	if (row->type == TYPE_LIST)
		option_free(row, at);
	if (option_parse(row, at, value, &must)) {
		draft_error(draft, source, "%s = %s: %s", row->key, shown(value, text), must);
		free(must);
		return;
	}
	if (section >= 0) {
		draft->sections[section].has[i] = true;
		return;
	}
	free(draft->sources[i]);
	draft->sources[i] = xstrdup(source);
	draft->stages[i] = draft->stage;
}

void draft_set(struct draft *draft, const char *source, int section, const char *key, const char *value)
{
	const struct option_row *row = row_of(key);
	bool is_kafka = !row && is_kafka_key(key);
	char text[SHOWN_MAX];

	if (!row && !is_kafka)
		say_unknown(draft, source, key);
	else if (section >= 0 && (is_kafka || !row->is_host))
		draft_error(draft, source, "%s: not a setting per host; write it above the first [host \"GLOB\"]",
			    shown(key, text));
	else if (is_kafka)
		draft_set_kafka(draft, source, key, value);
	else
		set_row(draft, source, section, row, value);
}
