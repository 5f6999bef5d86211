#include "options_internal.h"

#include "err.h"

#define AT(field) offsetof(struct options, field)
#define AT_HOST(field) offsetof(struct host_options, field)

/* In the order of the members, and of enum option_index. */
const struct option_row option_rows[ROW_COUNT] = {
#define OPT_INT(field, key, unit, initial, min, max, reload, help)                                                     \
	{key, help, NULL, TYPE_INT, unit, reload, false, AT(field), min, max, initial},
#define OPT_STR(field, key, initial, reload, help)                                                                     \
	{key, help, initial, TYPE_STR, UNIT_COUNT, reload, false, AT(field), 0, 0, 0},
#define OPT_LIST(field, key, initial, reload, help)                                                                    \
	{key, help, initial, TYPE_LIST, UNIT_COUNT, reload, false, AT(field), 0, 0, 0},
#define OPT_ENUM(field, key, values, initial, reload, help)                                                            \
	{key, help, values, TYPE_ENUM, UNIT_COUNT, reload, false, AT(field), 0, 0, initial},
#define HOST_INT(field, key, unit, initial, min, max, reload, help)                                                    \
	{key, help, NULL, TYPE_INT, unit, reload, true, AT_HOST(field), min, max, initial},
#define HOST_FLOAT(field, key, initial, min, max, reload, help)                                                        \
	{key, help, NULL, TYPE_FLOAT, UNIT_COUNT, reload, true, AT_HOST(field), min, max, initial},
#define HOST_ENUM(field, key, values, initial, reload, help)                                                           \
	{key, help, values, TYPE_ENUM, UNIT_COUNT, reload, true, AT_HOST(field), 0, 0, initial},
#define HOST_SET(field, key, values, initial, reload, help)                                                            \
	{key, help, values, TYPE_SET, UNIT_COUNT, reload, true, AT_HOST(field), 0, 0, initial},
#define HOST_STR(field, key, initial, reload, help)                                                                    \
	{key, help, initial, TYPE_STR, UNIT_COUNT, reload, true, AT_HOST(field), 0, 0, 0},
#include "options.def"
};

void *option_at_host(struct host_options *host, const struct option_row *row)
{
	assert(row->is_host);
	return (char *)host + row->offset;
}

void *option_at(struct options *opts, const struct option_row *row)
{
	return row->is_host ? option_at_host(&opts->host, row) : (char *)opts + row->offset;
}

void strlist_add(struct strlist *list, const char *item, size_t len)
{
	list->v = xrealloc(list->v, (list->n + 2) * sizeof(*list->v));
	list->v[list->n++] = xstrndup(item, len);
	list->v[list->n] = NULL;
}

void strlist_done(struct strlist *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->v[i]);
	free(list->v);
	*list = (struct strlist){0};
}

void option_free(const struct option_row *row, void *at)
{
	if (row->type == TYPE_STR) {
		free(*(char **)at);
		*(char **)at = NULL;
	} else if (row->type == TYPE_LIST) {
		strlist_done(at);
	}
}

void options_free(struct options *opts)
{
	if (!opts)
		return;
	for (size_t i = 0; i < ROW_COUNT; i++)
		option_free(&option_rows[i], option_at(opts, &option_rows[i]));
	for (size_t s = 0; s < opts->n_sections; s++) {
		free(opts->sections[s].glob);
		for (size_t i = 0; i < ROW_COUNT; i++)
			if (option_rows[i].is_host)
				option_free(&option_rows[i], option_at_host(&opts->sections[s].host, &option_rows[i]));
	}
	for (size_t i = 0; i < opts->n_kafka; i++)
		kafka_property_done(&opts->kafka[i]);
	options_free_named(opts);
	options_unindex(opts);
	free(opts->sections);
	free(opts->kafka);
	free(opts);
}

static void set_defaults(struct options *opts)
{
	for (size_t i = 0; i < ROW_COUNT; i++) {
		const struct option_row *row = &option_rows[i];
		void *at = option_at(opts, row);
		char *must = NULL;

		if (row->type == TYPE_INT)
			*(int64_t *)at = row->initial;
		else if (row->type == TYPE_FLOAT)
			*(double *)at = (double)row->initial;
		else if (row->type == TYPE_ENUM || row->type == TYPE_SET)
			*(int *)at = (int)row->initial;
		else if (option_parse(row, at, row->text, &must))
			abort(); /* a default of the table that the table refuses */
	}
}

static size_t option_size(const struct option_row *row)
{
	switch (row->type) {
	case TYPE_STR:
		return sizeof(char *);
	case TYPE_LIST:
		return sizeof(struct strlist);
	case TYPE_ENUM:
	case TYPE_SET:
		return sizeof(int);
	default:
		return sizeof(int64_t);
	}
}

_Static_assert(sizeof(double) == sizeof(int64_t), "option_size takes them as one");

/* Rows that a section does not set come from the general settings, whichever source set those. */
static void fill_sections(struct draft *draft)
{
	for (size_t s = 0; s < draft->opts->n_sections; s++) {
		struct host_options given = draft->opts->sections[s].host, *host = &draft->opts->sections[s].host;

		*host = draft->opts->host;
		for (size_t i = 0; i < ROW_COUNT; i++) {
			const struct option_row *row = &option_rows[i];
			if (draft->sections[s].has[i])
				memcpy(option_at_host(host, row), option_at_host(&given, row), option_size(row));
			else if (row->is_host && row->type == TYPE_STR)
				*(char **)option_at_host(host, row) = xstrdup(*(char **)option_at_host(host, row));
		}
	}
}

/* NULL when there is no text. */
static char *text_of(const struct buf *buf, size_t n_sentences)
{
	int len = (int)buf->len;

	if (n_sentences > SENTENCES_MAX)
		return xasprintf("%.*s\nand %zu more", len, (char *)buf->data, n_sentences - SENTENCES_MAX);
	return len ? xstrndup((const char *)buf->data, buf->len) : NULL;
}

int options_load(const char *config_path, char *const overrides[], size_t n_overrides, char *const environ_block[],
		 struct options **ret_opts, char **ret_errors, char **ret_warnings)
{
	struct draft draft = {.opts = xcalloc(1, sizeof(*draft.opts)), .path = config_path};
	int err = 0;

	buf_init(&draft.errors, 1024 * 1024);
	buf_init(&draft.warnings, 1024 * 1024);
	set_defaults(draft.opts);
	if (config_path)
		err = draft_read_file(&draft);
	draft_read_environ(&draft, environ_block);
	draft_read_overrides(&draft, overrides, n_overrides);
	fill_sections(&draft);
	draft.opts->http_listen_is_default = !draft.sources[ROW_http_listen];
	draft_check(&draft);
	if (draft.n_errors && !err)
		err = -ERR_INVALID;
	*ret_errors = text_of(&draft.errors, draft.n_errors);
	*ret_warnings = text_of(&draft.warnings, draft.n_warnings);
	if (!err) {
		*ret_opts = draft.opts;
		draft.opts = NULL;
	}
	draft_done(&draft);
	return err;
}

static bool strlist_equal(const struct strlist *a, const struct strlist *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (strcmp(a->v[i], b->v[i]) != 0)
			return false;
	return true;
}

static bool option_equal(const struct option_row *row, const void *a, const void *b)
{
	switch (row->type) {
	case TYPE_INT:
		return *(const int64_t *)a == *(const int64_t *)b;
	case TYPE_FLOAT:
		return !(*(const double *)a < *(const double *)b) && !(*(const double *)a > *(const double *)b);
	case TYPE_ENUM:
	case TYPE_SET:
		return *(const int *)a == *(const int *)b;
	case TYPE_STR:
		return strcmp(*(char *const *)a, *(char *const *)b) == 0;
	case TYPE_LIST:
		return strlist_equal(a, b);
	}
	return false;
}

static void swap(void *a, void *b, size_t size)
{
	char kept[sizeof(struct strlist)];

	assert(size <= sizeof(kept));
	memcpy(kept, a, size);
	memcpy(a, b, size);
	memcpy(b, kept, size);
}

/* Free; NULL for an empty list. */
static char *joined(struct strlist *names)
{
	char *text = NULL;

	for (size_t i = 0; i < names->n; i++) {
		char *longer = text ? xasprintf("%s %s", text, names->v[i]) : xstrdup(names->v[i]);
		free(text);
		text = longer;
	}
	strlist_done(names);
	return text;
}

/* An empty instance asks for a made-up name, which opts may already hold. */
static bool is_made_up(const struct option_row *row, const struct options *fresh)
{
	return row == &option_rows[ROW_instance] && !*fresh->instance;
}

void options_reload(struct options *opts, struct options *fresh, char **ret_ignored)
{
	struct strlist names = {0};

	for (size_t i = 0; i < ROW_COUNT; i++) {
		const struct option_row *row = &option_rows[i];
		void *ours = option_at(opts, row), *theirs = option_at(fresh, row);
		if (row->reload == LIVE)
			swap(ours, theirs, option_size(row));
		else if (!option_equal(row, ours, theirs) && !is_made_up(row, fresh))
			strlist_add(&names, row->key, strlen(row->key));
	}
	swap(&opts->sections, &fresh->sections, sizeof(struct host_section *));
	swap(&opts->n_sections, &fresh->n_sections, sizeof(opts->n_sections));
	swap(&opts->secrets, &fresh->secrets, sizeof(struct secret *));
	swap(&opts->n_secrets, &fresh->n_secrets, sizeof(opts->n_secrets));
	swap(&opts->proxies, &fresh->proxies, sizeof(struct proxy *));
	swap(&opts->n_proxies, &fresh->n_proxies, sizeof(opts->n_proxies));
	options_index(opts);
	kafka_changes(opts, fresh, &names);
	*ret_ignored = joined(&names);
	options_free(fresh);
}
