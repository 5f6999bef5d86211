#include "ctl.h"
#include "err.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>

#define OPTIONS_MAX 40

static const struct ctl_option common_options[] = {
    {"verbose", 'v', CTL_FLAG, offsetof(struct ctl, is_verbose), NULL, "print the Kafka library's log lines too", 0, 0,
     0},
    {"help", 'h', CTL_FLAG, offsetof(struct ctl, is_help), NULL, "print this", 0, 0, 0},
    {NULL, 0, CTL_FLAG, 0, NULL, NULL, 0, 0, 0},
};

static const struct ctl_option settings_options[] = {
    {"brokers", 'b', CTL_TEXT, offsetof(struct ctl, brokers), "HOST:PORT,..",
     "Kafka brokers; default: $GATHERD_KAFKA_BOOTSTRAP_SERVERS", 0, 0, 0},
    {"option", 'o', CTL_LIST, offsetof(struct ctl, overrides), "KEY=VALUE",
     "a setting of gatherd, most of all kafka.KEY=VALUE (TLS, SASL, ..)", 0, 0, 0},
    {"config", 'c', CTL_TEXT, offsetof(struct ctl, config), "FILE",
     "gatherd's file of settings: the same brokers, topics and secrets", 0, 0, 0},
    {NULL, 0, CTL_FLAG, 0, NULL, NULL, 0, 0, 0},
};

/* The command's own rows and the common ones, side by side with what getopt_long wants. */
struct parser {
	struct ctl *ctl;
	struct option longs[OPTIONS_MAX + 1];
	char shorts[2 * OPTIONS_MAX + 3];
	const struct ctl_option *rows[OPTIONS_MAX];
	void *bases[OPTIONS_MAX];
	size_t n, n_shorts;
};

static void add_rows(struct parser *parser, const struct ctl_option *rows, void *base)
{
	for (const struct ctl_option *row = rows; row->name; row++) {
		assert(parser->n < OPTIONS_MAX);
		/* The value says which row it was, beyond every letter. */
		parser->longs[parser->n] = (struct option){
		    row->name, row->type == CTL_FLAG ? no_argument : required_argument, NULL, 256 + (int)parser->n};
		if (row->letter) {
			parser->shorts[parser->n_shorts++] = row->letter;
			if (row->type != CTL_FLAG)
				parser->shorts[parser->n_shorts++] = ':';
		}
		parser->rows[parser->n] = row;
		parser->bases[parser->n++] = base;
		if (row->type == CTL_INT)
			*(int64_t *)(void *)((char *)base + row->at) = row->preset;
	}
}

static void list_add(struct strlist *list, const char *text)
{
	list->v = xrealloc(list->v, (list->n + 2) * sizeof(list->v[0]));
	list->v[list->n++] = xstrdup(text);
	list->v[list->n] = NULL;
}

/* Place of `word` in "one|two|three", from 1; 0 = none. */
static int choice_of(const char *choices, const char *word)
{
	int place = 1;

	for (const char *at = choices; at; place++) {
		size_t len = strcspn(at, "|");

		if (strlen(word) == len && strncmp(at, word, len) == 0)
			return place;
		at = at[len] ? at + len + 1 : NULL;
	}
	return 0;
}

static int parse_int(const struct ctl *ctl, const struct ctl_option *row, const char *text, int64_t *ret_value)
{
	char *end;

	errno = 0;
	long long value = strtoll(text, &end, 10);
	if (errno || end == text || *end || value < row->min || value > row->max) {
		ctl_say(ctl, "--%s %s: must be a number from %lld to %lld", row->name, text, (long long)row->min,
			(long long)row->max);
		return -ERR_INVALID;
	}
	*ret_value = value;
	return 0;
}

static int parse_real(const struct ctl *ctl, const struct ctl_option *row, const char *text, double *ret_value)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !isfinite(value) || value <= 0 || value > (double)row->max) {
		ctl_say(ctl, "--%s %s: must be a number above 0, at most %lld", row->name, text, (long long)row->max);
		return -ERR_INVALID;
	}
	*ret_value = value;
	return 0;
}

static int set_value(const struct ctl *ctl, const struct ctl_option *row, void *base, const char *text)
{
	void *field = (char *)base + row->at;

	switch (row->type) {
	case CTL_FLAG:
		*(bool *)field = true;
		return 0;
	case CTL_TEXT:
		*(const char **)field = text;
		return 0;
	case CTL_LIST:
		list_add(field, text);
		return 0;
	case CTL_INT:
		return parse_int(ctl, row, text, field);
	case CTL_REAL:
		return parse_real(ctl, row, text, field);
	case CTL_DURATION:
		if (!options_parse_duration(text, field) && *(int64_t *)field > 0)
			return 0;
		ctl_say(ctl, "--%s %s: must be a time such as 500ms, 10s or 2m", row->name, text);
		return -ERR_INVALID;
	case CTL_WHEN:
		if (!when_parse(text, field) && *(int64_t *)field > 0)
			return 0;
		ctl_say(ctl, "--%s %s: must be a time such as 2026-11-01T00:00Z, or 2h (ago)", row->name, text);
		return -ERR_INVALID;
	case CTL_CHOICE:
		*(int *)field = choice_of(row->arg, text);
		if (*(int *)field)
			return 0;
		ctl_say(ctl, "--%s %s: must be one of %s", row->name, text, row->arg);
		return -ERR_INVALID;
	}
	return -ERR_INVALID;
}

static size_t row_of(const struct parser *parser, int got)
{
	if (got >= 256)
		return (size_t)got - 256;
	for (size_t i = 0; i < parser->n; i++)
		if (parser->rows[i]->letter == got)
			return i;
	return parser->n;
}

/* getopt tells a letter in optopt, and a long option by having moved past it. */
static int say_unknown(const struct ctl *ctl, const char *word)
{
	char letter[3] = {'-', (char)optopt, '\0'};

	ctl_say(ctl, "%s is not an option of this command, or takes no value; see gatherctl %s --help",
		optopt > 0 && optopt < 256 ? letter : word, ctl->command->name);
	return -ERR_INVALID;
}

int args_parse(struct ctl *ctl, int argc, char **argv, void *args, int *ret_first)
{
	const struct ctl_command *command = ctl->command;
	struct parser parser = {.ctl = ctl};
	int got;

	/* Leading ':' = getopt prints nothing and tells a missing value apart. */
	parser.shorts[parser.n_shorts++] = ':';
	add_rows(&parser, command->options, args);
	if (command->has_settings)
		add_rows(&parser, settings_options, ctl);
	add_rows(&parser, common_options, ctl);

	while ((got = getopt_long(argc, argv, parser.shorts, parser.longs, NULL)) != -1) {
		if (got == ':') {
			ctl_say(ctl, "%s wants a value", argv[optind - 1]);
			return -ERR_INVALID;
		}
		if (got == '?')
			return say_unknown(ctl, argv[optind - 1]);
		size_t i = row_of(&parser, got);
		int err = set_value(ctl, parser.rows[i], parser.bases[i], optarg);
		if (err)
			return err;
	}
	*ret_first = optind;
	return 0;
}

static void list_free(struct strlist *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->v[i]);
	free(list->v);
}

void args_done(struct ctl *ctl, void *args)
{
	for (const struct ctl_option *row = ctl->command->options; row->name; row++)
		if (row->type == CTL_LIST)
			list_free((void *)((char *)args + row->at));
	list_free(&ctl->overrides);
	free(args);
}

static void help_rows(const struct ctl_option *rows, FILE *out)
{
	for (const struct ctl_option *row = rows; row->name; row++) {
		char left[80];

		snprintf(left, sizeof(left), "%c%c%s --%s%s%s", row->letter ? '-' : ' ',
			 row->letter ? row->letter : ' ', row->letter ? "," : " ", row->name, row->arg ? " " : "",
			 row->arg ? row->arg : "");
		/* A long left side has its help on a line of its own, so that the right column stays straight. */
		fprintf(out, "  %-28s", left);
		if (strlen(left) > 27)
			fprintf(out, "\n  %-28s", "");
		fprintf(out, " %s", row->help);
		if (row->type == CTL_INT && row->preset)
			fprintf(out, " (default %lld)", (long long)row->preset);
		fprintf(out, "\n");
	}
}

static void each_row(const struct ctl_option *rows, void (*fn)(void *ctx, const struct ctl_option *row), void *ctx)
{
	for (; rows->name; rows++)
		fn(ctx, rows);
}

void args_each(const struct ctl_command *command, void (*fn)(void *ctx, const struct ctl_option *row), void *ctx)
{
	each_row(command->options, fn, ctx);
	if (command->has_settings)
		each_row(settings_options, fn, ctx);
	each_row(common_options, fn, ctx);
}

void args_help(const struct ctl_command *command, FILE *out)
{
	fprintf(out, "gatherctl %s - %s\n\nusage: gatherctl %s %s\n\noptions:\n", command->name, command->summary,
		command->name, command->synopsis);
	help_rows(command->options, out);
	if (command->has_settings)
		help_rows(settings_options, out);
	help_rows(common_options, out);
	if (command->details)
		fprintf(out, "\n%s", command->details);
	fprintf(out, "\nexamples:\n%s\nexit code: 0 done, 1 failed or done in part, 2 usage or settings\n",
		command->examples);
}
