/* ctl - what the commands of gatherctl share.
 *
 * A command is one file, one row in the table of ctl.c, and one table of options, which the parser, --help and the man
 * page's test read. Its settings (brokers, topics, kafka.*) are read as gatherd reads them: file, environment, -o, then
 * -b. Exit codes: 0 done, 1 failed or done in part, 2 usage or settings. Layer 5. */
#ifndef GATHERD_CTL_H
#define GATHERD_CTL_H

#include "base.h"
#include "options.h"

#include <librdkafka/rdkafka.h>
#include <stdarg.h>
#include <stdio.h>

enum { CTL_OK = 0, CTL_FAILED = 1, CTL_USAGE = 2 };

/* --- options: args.c --- */

enum ctl_type {
	CTL_FLAG,     /* bool */
	CTL_TEXT,     /* const char *, NULL = not given */
	CTL_LIST,     /* struct strlist, one more each time */
	CTL_INT,      /* int64_t */
	CTL_REAL,     /* double, above 0 and at most max; 0 = not given */
	CTL_DURATION, /* int64_t in ms, 0 = not given */
	CTL_WHEN,     /* int64_t, ms since the epoch; 0 = not given */
	CTL_CHOICE,   /* int: place in arg ("text|base64|none"), from 1; 0 = not given */
};

/* One row of a command's options. `at` is the field's place in the command's struct. A NULL name ends the table. */
struct ctl_option {
	const char *name;
	char letter; /* 0 = none */
	enum ctl_type type;
	size_t at;
	const char *arg;
	const char *help;
	int64_t min, max, preset; /* CTL_INT */
};

struct ctl;

struct ctl_command {
	const char *name, *summary, *synopsis;
	const char *words;    /* what may follow it, for the shell: "list show"; may be NULL */
	const struct ctl_option *options;
	size_t args_size;     /* of the struct that the options fill */
	bool has_settings;    /* -b, -c, -o are taken and settings are loaded */
	const char *details;  /* for --help, after the options; may be NULL */
	const char *examples; /* one a line */
	int (*run)(struct ctl *ctl, const void *args, int argc, char **argv);
};

struct ctl {
	const struct ctl_command *command;
	const char *brokers, *config;
	struct strlist overrides;
	bool is_verbose, is_help;
	struct options *settings; /* NULL without has_settings */
};

extern const struct ctl_command submit_command, tail_command, status_command, offsets_command, dlq_command, replay_command,
    try_command, completion_command, topics_command, check_command, sandbox_command, feed_command;

/* Fills ctl's common fields and args. 0 and the place of the first argument that is no option in *ret_first; or
 * -ERR_INVALID, said on stderr. */
int args_parse(struct ctl *ctl, int argc, char **argv, void *args, int *ret_first) MUST_CHECK;
void args_done(struct ctl *ctl, void *args);
void args_help(const struct ctl_command *command, FILE *out);
/* Each option that it takes. */
void args_each(const struct ctl_command *command, void (*fn)(void *ctx, const struct ctl_option *row), void *ctx);

/* "2026-11-01T00:00Z", "2026-11-01 08:30" (local time), "2h" (ago). 0 or -ERR_INVALID. */
int when_parse(const char *text, int64_t *ret_ms) MUST_CHECK;

/* --- shared: ctl.c --- */

const struct ctl_command *const *ctl_commands(size_t *ret_n);

/* "gatherctl COMMAND: ..." on stderr. */
void ctl_say(const struct ctl *ctl, const char *fmt, ...) PRINTF_LIKE(2, 3);
void ctl_vsay(const struct ctl *ctl, const char *fmt, va_list ap) PRINTF_LIKE(2, 0);
/* SIGINT or SIGTERM came; a second one ends the process at once. */
bool ctl_stopped(void);
/* Whether a signal ends a blocked read (or opening a FIFO); else it goes on, as do writes, so that no line is cut. */
void ctl_stop_reads(bool is_wanted);
/* From now on either signal ends the process at once, with CTL_FAILED: for what changes nothing and cannot be interrupted. Standard output
 * is written line by line then, so that none is cut. */
void ctl_end_at_once(void);
/* From now on SIGHUP does not end the process: ctl_take_hangup says, once, that one came. */
void ctl_catch_hangup(void);
bool ctl_take_hangup(void);
/* Whoever read stdout went away (`| head`). */
bool ctl_reader_gone(void);
/* Flushes stdout: CTL_OK, or CTL_FAILED and a sentence. A reader that went away has had enough and is no failure. */
int ctl_close_stdout(const struct ctl *ctl);

/* The settings as gatherd reads them, as options_load; -b is the last word of the user. below and above (ending with NULL, or NULL) are
 * "key=value" that win over file and environment only, and over all. */
int ctl_load(const struct ctl *ctl, char *const below[], char *const above[], struct options **ret_opts, char **ret_errors,
	     char **ret_warnings) MUST_CHECK;

/* What a worker would say to a job, JSON or a URL, but for its settings; NULL = it can be a job. url gives the key. In the arena. submit.c */
struct arena;
struct url;
const char *ctl_job_fault(struct arena *arena, struct span line, struct url *ret_url);

/* --- Kafka: client.c --- */

struct client;

typedef void (*client_delivered_fn)(void *ctx, const rd_kafka_message_t *msg);

typedef void (*client_rebalance_fn)(void *ctx, bool is_assigned, const rd_kafka_topic_partition_list_t *list);

struct client_setting {
	const char *name, *value; /* value NULL = librdkafka's default */
	bool is_ours;		  /* wins over the user's */
};

/* extra: rows over gatherd's own defaults; the user's win unless is_ours; a NULL name ends them. on_delivered may be
 * NULL. NULL when refused, said on stderr. Library logs go to stderr only with --verbose. */
struct client *client_new(struct ctl *ctl, enum kafka_side side, const struct client_setting *extra,
			  client_delivered_fn on_delivered, void *ctx);
/* A member of extra's group.id that reads nothing. on_rebalance: its partitions now, or that it has none; from rd_kafka_consumer_poll and
 * rd_kafka_consumer_close. NULL as above. */
struct client *client_new_member(struct ctl *ctl, const struct client_setting *extra, client_rebalance_fn on_rebalance, void *ctx);
/* Reads topics without a group, so that the live one is never touched. is_sparse: a record here and there, no prefetch. */
struct client *client_new_reader(struct ctl *ctl, bool is_sparse);
void client_free(struct client *client);
/* ctl_say */
void client_say(const struct client *client, const char *fmt, ...) PRINTF_LIKE(2, 3);
rd_kafka_t *client_handle(struct client *client);
/* For what is asked of a group's coordinator: a handle of its own, made once, that names the group and never joins it. One that names
 * none crashes in librdkafka when the coordinator is another one than was thought (NOT_COORDINATOR: the first question to a new
 * cluster, a failover; its issue 5040). NULL when refused, said on stderr. */
rd_kafka_t *client_asker(struct client *client, const char *group);
/* For calls that cannot be interrupted: they are made again, each time with a longer patience, for a far cluster needs more than the first. */
struct client_steps {
	int64_t start_us; /* zeroed = fresh */
	int wait_ms;
};
/* The patience of the next call, in ms; 0: all in all max_ms have passed, or Ctrl-C came. */
int client_step(struct client_steps *steps, int max_ms);
/* The whole cluster's metadata (rd_kafka_metadata_destroy), which also proves that a broker answers; waits at most 6 s,
 * then says in one sentence which broker did not answer and why. -ERR_KAFKA, -ERR_CANCELLED. Never makes a topic. */
int client_metadata(struct client *client, const struct rd_kafka_metadata **ret_md) MUST_CHECK;
/* NULL when the topic is not there, or so new that it has no partitions yet. */
const struct rd_kafka_metadata_topic *client_topic(const struct rd_kafka_metadata *md, const char *topic);
/* The same, and says on stderr what to do when there is none. */
const struct rd_kafka_metadata_topic *client_need_topic(const struct client *client, const struct rd_kafka_metadata *md,
							const char *topic);
/* Adds its partitions to list, those that are there once only. -ERR_NOT_FOUND, said as above. */
int client_add_partitions(const struct client *client, const struct rd_kafka_metadata *md, const char *topic,
			  rd_kafka_topic_partition_list_t *list) MUST_CHECK;
/* Asks the cluster for it, then gives it for producing (rd_kafka_topic_destroy). NULL: said why. */
rd_kafka_topic_t *client_open_topic(struct client *client, const char *topic) MUST_CHECK;
/* Says that what failed with err; when the broker's ACLs are the cause, also which right on this topic is missing. */
void client_say_error(const struct client *client, rd_kafka_resp_err_t err, const char *what, const char *right, const char *topic);
/* What a broker's connection failed with last, "" = nothing. In buf. */
const char *client_reason(struct client *client, char *buf, size_t size);

/* --- results for people and programs: print.c --- */

enum print_format { PRINT_JSON = 1, PRINT_TABLE };
enum print_body { PRINT_TEXT = 1, PRINT_BASE64, PRINT_NONE };

struct Gatherd__V1__FetchResult;

struct printer {
	FILE *out;
	enum print_format format;
	enum print_body body;
	bool with_body; /* in the table too, below its row */
	bool has_colour;
	size_t width;	 /* of the terminal; 0 = lines are not cut */
	size_t height;	 /* of the terminal; 0 = no terminal */
	bool has_header; /* printed */
};

/* Finds out about the terminal: width, colours (not with NO_COLOR, not in a pipe). */
void printer_init(struct printer *printer, FILE *out, enum print_format format, enum print_body body);
/* Width and height again: the terminal may have been resized. */
void printer_measure(struct printer *printer);
void printer_result(struct printer *printer, const struct Gatherd__V1__FetchResult *res);
/* The proto3 JSON mapping, but for what print_body says of bytes. */
struct json_t *print_result_json(const struct Gatherd__V1__FetchResult *res, enum print_body body);
/* Copy with control characters and invalid UTF-8 replaced (by '?' and U+FFFD), cut to max columns with a last "…"; 0 =
 * not cut. free. */
char *print_clean(struct span text, size_t max);
/* What valid UTF-8 takes on a terminal. */
size_t print_columns(const char *text);
/* One line of JSON, with nothing in it that a terminal would obey. Takes the value. */
struct json_t;
void print_json(FILE *out, struct json_t *json);
/* Bytes as text, with U+FFFD for what is not UTF-8; in base64. */
struct json_t *print_json_text(struct span text);
struct json_t *print_json_base64(struct span bytes);
/* Of an outcome; for where the printer has colours. */
const char *print_outcome_colour(int outcome);

/* --- the sandbox's demo origin: origin.c --- */

struct event_base;
struct origin;

/* Listens on 127.0.0.1, any free port. NULL when the system refuses. */
struct origin *origin_new(struct event_base *base);
void origin_free(struct origin *origin);
uint16_t origin_port(const struct origin *origin);

#endif
