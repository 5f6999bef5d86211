/* options_internal - the rows of options.def as data, and what the files options*.c share. Only for them and their
 * tests. */
#ifndef GATHERD_OPTIONS_INTERNAL_H
#define GATHERD_OPTIONS_INTERNAL_H

#include "buf.h"
#include "options.h"

enum option_type { TYPE_INT, TYPE_FLOAT, TYPE_ENUM, TYPE_SET, TYPE_STR, TYPE_LIST };
enum option_unit { UNIT_COUNT, UNIT_MS, UNIT_BYTES };
enum option_reload { LIVE, RESTART };

struct option_row {
	const char *key, *help;
	const char *text; /* STR and LIST: the default; ENUM and SET: "value|value" */
	enum option_type type;
	enum option_unit unit;
	enum option_reload reload;
	bool is_host; /* also per host: offset is then in struct host_options */
	size_t offset;
	int64_t min, max, initial; /* INT, FLOAT; initial also ENUM; SET: bits */
};

/* Names each row: ROW_partition_inflight is its index. */
enum option_index {
#define OPT_INT(field, ...) ROW_##field,
#define OPT_STR(field, ...) ROW_##field,
#define OPT_LIST(field, ...) ROW_##field,
#define OPT_ENUM(field, ...) ROW_##field,
#define HOST_INT(field, ...) ROW_##field,
#define HOST_FLOAT(field, ...) ROW_##field,
#define HOST_ENUM(field, ...) ROW_##field,
#define HOST_SET(field, ...) ROW_##field,
#define HOST_STR(field, ...) ROW_##field,
#include "options.def"
	ROW_COUNT
};

extern const struct option_row option_rows[ROW_COUNT];

/* Where the row's value lives. */
void *option_at(struct options *opts, const struct option_row *row);
void *option_at_host(struct host_options *host, const struct option_row *row);
void option_free(const struct option_row *row, void *at);
/* Replaces the value. 0, or -ERR_INVALID and what the value must be ("must be 1 to 100000") in *ret_must (free). A list
 * is added to. */
int option_parse(const struct option_row *row, void *at, const char *text, char **ret_must) MUST_CHECK;

/* Adds the words of text. */
void strlist_parse(struct strlist *list, const char *text);
void strlist_add(struct strlist *list, const char *item, size_t len);
void strlist_done(struct strlist *list);

/* "10 s", "900 KiB", "256": the largest unit that needs no fraction. */
#define OPTION_TEXT_MAX 32
const char *option_number_text(enum option_unit unit, int64_t value, char out[static OPTION_TEXT_MAX]);

/* A section while it is read. */
struct section_draft {
	char *source; /* "gatherd.conf:12", of its head */
	bool has[ROW_COUNT];
};

enum stage { STAGE_DEFAULTS, STAGE_FILE, STAGE_ENVIRON, STAGE_OVERRIDES };

/* One reading of all sources. */
struct draft {
	struct options *opts;
	struct section_draft *sections; /* beside opts->sections, and as many */
	size_t n_sections;
	enum stage stage;
	/* Who set the row last; NULL and STAGE_DEFAULTS when nobody did. */
	char *sources[ROW_COUNT];
	enum stage stages[ROW_COUNT];
	const char *path;
	struct buf errors, warnings;
	size_t n_errors, n_warnings;
};

/* Sentences of a kind; the rest of a file that is no settings file at all is only counted. */
#define SENTENCES_MAX 100

/* options_draft.c. A sentence: "SOURCE: what". */
void draft_error(struct draft *draft, const char *source, const char *fmt, ...) PRINTF_LIKE(3, 4);
void draft_warning(struct draft *draft, const char *source, const char *fmt, ...) PRINTF_LIKE(3, 4);
void draft_done(struct draft *draft);
/* The value for people: without control characters and not too long. */
#define SHOWN_MAX 96
const char *shown(const char *text, char out[static SHOWN_MAX]);
/* Sets a row or a Kafka property; what is wrong goes to the errors. section is an index, -1 = the general settings. */
void draft_set(struct draft *draft, const char *source, int section, const char *key, const char *value);
/* The key that a wrong one may have meant, or NULL. Case, and '_' or '-' for '.', do not count. */
const char *option_nearest(const char *key);

/* options_source.c: the three sources. 0, or -ERR_SYSTEM when the file cannot be read; what is wrong in them goes to
 * the draft. */
int draft_read_file(struct draft *draft) MUST_CHECK;
void draft_read_environ(struct draft *draft, char *const environ_block[]);
void draft_read_overrides(struct draft *draft, char *const overrides[], size_t n);

/* All of a file, -ERR_SYSTEM with errno, or what buf_add says. is_regular: a pipe, which might hold up a reload, is refused. */
int read_whole(const char *path, bool is_regular, struct buf *buf) MUST_CHECK;

/* options_named.c. */
enum section_kind { SECTION_NONE, SECTION_HOST, SECTION_SECRET, SECTION_PROXY };
/* Opens a section; its rows follow. */
void draft_add_named(struct draft *draft, const char *source, enum section_kind kind, const char *name);
/* A row of the section of that kind that was opened last. */
void draft_set_named(struct draft *draft, const char *source, enum section_kind kind, const char *key, const char *value);
void draft_check_named(struct draft *draft);
void options_free_named(struct options *opts);

/* options_kafka.c. */
bool is_kafka_key(const char *key);
void draft_set_kafka(struct draft *draft, const char *source, const char *key, const char *value);
void draft_check_kafka(struct draft *draft);
void kafka_property_done(struct kafka_property *property);
/* Names of the properties that differ, added to names. */
void kafka_changes(const struct options *opts, const struct options *fresh, struct strlist *names);

/* options_check.c: all that no single row can say. */
void draft_check(struct draft *draft);

#endif
