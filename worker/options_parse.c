#include "options_internal.h"

#include "err.h"

#include <inttypes.h>
#include <stdio.h>

#define BLANKS " \t\r\n"

static const struct unit {
	const char *name;
	int64_t factor;
} duration_units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}},
  size_units[] = {{"", 1}, {"KiB", 1024}, {"MiB", 1024 * 1024}, {"GiB", 1024 * 1024 * 1024}};

/* Decimal digits only: no sign, no white space, no base prefix. The end, or NULL without digits or past int64. */
static const char *parse_digits(const char *text, int64_t *ret_value)
{
	int64_t value = 0;

	if (*text < '0' || *text > '9')
		return NULL;
	for (; *text >= '0' && *text <= '9'; text++)
		if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, *text - '0', &value))
			return NULL;
	*ret_value = value;
	return text;
}

static int parse_with_unit(const char *text, const struct unit *units, size_t n_units, int64_t *ret_value)
{
	int64_t value;
	const char *unit = parse_digits(text, &value);

	if (!unit)
		return -ERR_INVALID;
	while (*unit == ' ' || *unit == '\t')
		unit++;
	for (size_t i = 0; i < n_units; i++)
		if (strcmp(unit, units[i].name) == 0)
			return __builtin_mul_overflow(value, units[i].factor, ret_value) ? -ERR_INVALID : 0;
	return -ERR_INVALID;
}

int options_parse_duration(const char *text, int64_t *ret_ms)
{
	int64_t value;

	if (strcmp(text, "0") == 0) {
		*ret_ms = 0;
		return 0;
	}
	int err = parse_with_unit(text, duration_units, ARRAY_LEN(duration_units), &value);
	if (!err)
		*ret_ms = value;
	return err;
}

int options_parse_size(const char *text, int64_t *ret_bytes)
{
	int64_t value;
	int err = parse_with_unit(text, size_units, ARRAY_LEN(size_units), &value);

	if (!err)
		*ret_bytes = value;
	return err;
}

const char *option_number_text(enum option_unit unit, int64_t value, char out[static OPTION_TEXT_MAX])
{
	const struct unit *units = unit == UNIT_MS ? duration_units : size_units;
	size_t i = unit == UNIT_COUNT ? 0 : ARRAY_LEN(size_units) - 1;

	while (i > 0 && (value == 0 || value % units[i].factor != 0))
		i--;
	if (unit == UNIT_COUNT || value == 0 || !*units[i].name)
		snprintf(out, OPTION_TEXT_MAX, "%" PRId64, value);
	else
		snprintf(out, OPTION_TEXT_MAX, "%" PRId64 " %s", value / units[i].factor, units[i].name);
	return out;
}
_Static_assert(ARRAY_LEN(duration_units) == ARRAY_LEN(size_units), "option_number_text goes through both alike");

/* "0.5", "20". No exponent, no locale; digits past the ninth place are dropped. */
static int parse_decimal(const char *text, double *ret_value)
{
	int64_t whole, fraction = 0, scale = 1;
	const char *at = parse_digits(text, &whole);

	if (!at)
		return -ERR_INVALID;
	if (*at == '.') {
		if (at[1] < '0' || at[1] > '9')
			return -ERR_INVALID;
		for (at++; *at >= '0' && *at <= '9'; at++) {
			if (scale < 1000000000) {
				fraction = fraction * 10 + (*at - '0');
				scale *= 10;
			}
		}
	}
	if (*at)
		return -ERR_INVALID;
	*ret_value = (double)whole + (double)fraction / (double)scale;
	return 0;
}

static char *must_be_in(const struct option_row *row)
{
	char min[OPTION_TEXT_MAX], max[OPTION_TEXT_MAX];

	return xasprintf("must be %s to %s", option_number_text(row->unit, row->min, min),
			 option_number_text(row->unit, row->max, max));
}

static int parse_int(const struct option_row *row, int64_t *at, const char *text, char **ret_must)
{
	int64_t value;
	int err;

	if (row->unit == UNIT_MS) {
		err = options_parse_duration(text, &value);
	} else if (row->unit == UNIT_BYTES) {
		err = options_parse_size(text, &value);
	} else {
		const char *end = parse_digits(text, &value);
		err = end && !*end ? 0 : -ERR_INVALID;
	}
	if (err && row->unit == UNIT_MS)
		*ret_must = xstrdup("must be a whole number and a unit: ms, s, m or h, as in 500 ms");
	else if (err && row->unit == UNIT_BYTES)
		*ret_must = xstrdup("must be a whole number of bytes, or with a unit: KiB, MiB or GiB, as in 900 KiB");
	else if (err || value < row->min || value > row->max)
		*ret_must = must_be_in(row);
	if (*ret_must)
		return -ERR_INVALID;
	*at = value;
	return 0;
}

static int parse_float(const struct option_row *row, double *at, const char *text, char **ret_must)
{
	double value;

	if (parse_decimal(text, &value) || value < (double)row->min || value > (double)row->max) {
		*ret_must = must_be_in(row);
		return -ERR_INVALID;
	}
	*at = value;
	return 0;
}

int options_index_of(const char *values, const char *name, size_t len)
{
	for (int i = 0; *values; i++) {
		size_t n = strcspn(values, "|");
		if (n == len && strncmp(values, name, n) == 0)
			return i;
		values += n + (values[n] == '|');
	}
	return -1;
}

static int parse_enum(const struct option_row *row, int *at, const char *text, char **ret_must)
{
	int i = options_index_of(row->text, text, strlen(text));

	if (i < 0) {
		*ret_must = xasprintf("must be one of %s", row->text);
		return -ERR_INVALID;
	}
	*at = i;
	return 0;
}

static int parse_set(const struct option_row *row, int *at, const char *text, char **ret_must)
{
	int set = 0;

	for (const char *s = text + strspn(text, BLANKS); *s; s += strspn(s, BLANKS)) {
		size_t n = strcspn(s, BLANKS);
		int i = options_index_of(row->text, s, n);
		if (i < 0) {
			set = 0;
			break;
		}
		set |= 1 << i;
		s += n;
	}
	if (!set) {
		*ret_must = xasprintf("must be one or more of %s", row->text);
		return -ERR_INVALID;
	}
	*at = set;
	return 0;
}

static int parse_str(char **at, const char *text, char **ret_must)
{
	for (const char *s = text; *s; s++) {
		if ((unsigned char)*s < ' ' || *s == 0x7f) {
			*ret_must = xstrdup("must have no control characters");
			return -ERR_INVALID;
		}
	}
	free(*at);
	*at = xstrdup(text);
	return 0;
}

void strlist_parse(struct strlist *list, const char *text)
{
	for (;;) {
		text += strspn(text, BLANKS);
		size_t n = strcspn(text, BLANKS);
		if (n == 0)
			return;
		strlist_add(list, text, n);
		text += n;
	}
}

int option_parse(const struct option_row *row, void *at, const char *text, char **ret_must)
{
	*ret_must = NULL;
	switch (row->type) {
	case TYPE_INT:
		return parse_int(row, at, text, ret_must);
	case TYPE_FLOAT:
		return parse_float(row, at, text, ret_must);
	case TYPE_ENUM:
		return parse_enum(row, at, text, ret_must);
	case TYPE_SET:
		return parse_set(row, at, text, ret_must);
	case TYPE_STR:
		return parse_str(at, text, ret_must);
	case TYPE_LIST:
		strlist_parse(at, text);
		return 0;
	}
	return -ERR_INVALID;
}
