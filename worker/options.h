/* options - every setting is one row of options.def: field, key, type, default, limits, live or restart, unit, help.
 *
 * Read order: defaults, file, environment (GATHERD_PARTITION_INFLIGHT), -o; the last wins, and a repeated list key
 * replaces the list.
 * File: `key = value`, `#` comments (a whole line, or after white space), list values split at white space, sections
 * `[host "GLOB"]` with the rows that are marked per host, `[secret "NAME"]` and `[proxy "NAME"]`. No length limits but OPTIONS_FILE_MAX for the file.
 * Failure modes: unknown key, bad value, out of range, contradiction -> -ERR_INVALID and one sentence that names key, value,
 * limit and source ("gatherd.conf:12: partition.inflight = 0: must be 1 to 100000"). All errors are collected, not only the
 * first. An unknown GATHERD_* variable is a warning. Layer 0: no I/O but reading the named file, the files that
 * ${file:PATH} names in secrets and proxies, and environ. */
#ifndef GATHERD_OPTIONS_H
#define GATHERD_OPTIONS_H

#include "base.h"

#define OPTIONS_FILE_MAX (1024 * 1024)
#define OPTIONS_SECTIONS_MAX 10000

struct strlist {
	char **v; /* NULL-terminated */
	size_t n;
};

enum kafka_side { KAFKA_BOTH, KAFKA_CONSUMER, KAFKA_PRODUCER };

/* One kafka.*, kafka.consumer.* or kafka.producer.* row, without the prefix, as given. */
struct kafka_property {
	enum kafka_side side;
	char *name, *value;
	char *source; /* "gatherd.conf:12", "environment GATHERD_KAFKA_...", "-o" : for messages */
};

enum delivery_mode { DELIVERY_AT_LEAST_ONCE, DELIVERY_EXACTLY_ONCE };
enum body_overflow { BODY_OVERFLOW_TRUNCATE, BODY_OVERFLOW_FAIL };
enum robots_mode { ROBOTS_OFF, ROBOTS_OBEY };
/* In the order of METHODS. */
#define METHODS "GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS"
enum method_bit { METHOD_GET = 1, METHOD_HEAD = 2 };
enum job_format { JOB_FORMAT_AUTO, JOB_FORMAT_PROTOBUF, JOB_FORMAT_JSON, JOB_FORMAT_URL };

/* The settings that make sense per host: HOST_* rows. */
struct host_options {
#define HOST_INT(field, ...) int64_t field;
#define HOST_FLOAT(field, ...) double field;
#define HOST_ENUM(field, ...) int field;
#define HOST_SET(field, ...) int field;
#define HOST_STR(field, ...) char *field;
#include "options.def"
};

/* `[host "GLOB"]`: all rows filled, from the section or else from the general settings. */
struct host_section {
	char *glob;
	struct host_options host;
};

/* `[secret "NAME"]`: headers, names[i] with values[i], and where they may go. */
struct secret {
	char *name, *source;
	struct strlist hosts; /* globs of host names or host:port */
	struct strlist names, values;
};

/* `[proxy "NAME"]`. It resolves the names of what is fetched through it. */
struct proxy {
	char *name, *source;
	char *url;  /* what libcurl gets; without user and password */
	char *host; /* lower case, without brackets */
	char *key;  /* "host:port", "[::1]:1080" */
	uint16_t port;
	bool is_literal, is_https;
	char *user, *password; /* NULL = none */
};

/* Durations are in ms, sizes in bytes. */
struct options {
#define OPT_INT(field, ...) int64_t field;
#define OPT_STR(field, ...) char *field; /* never NULL */
#define OPT_LIST(field, ...) struct strlist field;
#define OPT_ENUM(field, ...) int field;
#include "options.def"
	struct host_options host;
	struct host_section *sections; /* in file order; the first whose glob matches wins */
	size_t n_sections;
	struct secret *secrets;
	struct proxy *proxies;
	size_t n_secrets, n_proxies;
	size_t *by_glob;      /* options_index: the sections in the order of their globs */
	size_t *scanned, n_scanned; /* those whose glob is neither a name nor "*.name", in file order */
	struct kafka_property *kafka; /* in order; a later row for the same name and side wins */
	size_t n_kafka;
	bool http_listen_is_default; /* a busy default port falls to any free one; an explicit one is fatal */
};

/* Reads everything and checks it. config_path may be NULL. overrides: "key=value" strings of -o. environ_block as environ(7).
 * 0 and *ret_opts (options_free); or -ERR_INVALID / -ERR_SYSTEM and in *ret_errors one sentence per line (free). Warnings
 * likewise in *ret_warnings (NULL when none), in both cases. */
int options_load(const char *config_path, char *const overrides[], size_t n_overrides, char *const environ_block[],
		 struct options **ret_opts, char **ret_errors, char **ret_warnings) MUST_CHECK;
void options_free(struct options *opts);

/* SIGHUP: moves the live rows of `fresh` into `opts` and frees fresh. Names of changed restart rows, separated by spaces, in
 * *ret_ignored (free; NULL when none). */
void options_reload(struct options *opts, struct options *fresh, char **ret_ignored);

/* The profile of a host name ("example.com", lower case, no port): index into sections, or -1. */
int options_section_of(const struct options *opts, const char *host);
/* The section with this very glob, or -1. */
int options_section_named(const struct options *opts, const char *glob);
/* After the sections changed: what the two above look in. Names and "*.name" are found by searching, other globs one by one. */
void options_index(struct options *opts);
void options_unindex(struct options *opts);

/* By name; NULL = none. */
const struct secret *options_secret(const struct options *opts, const char *name);
const struct proxy *options_proxy(const struct options *opts, const char *name);
/* host and key as in struct url. */
bool secret_may_go(const struct secret *secret, const char *host, const char *key);

/* The table for people, for --options; as Markdown for docs/options.md. Writes to the stream. */
void options_print(void *file, bool markdown);

/* Which of "a|b|c" the name is, from 0; -1 = none of them. */
int options_index_of(const char *values, const char *name, size_t len);
/* Parsers, also for gatherctl. 0 or -ERR_INVALID. "1500ms", "10 s", "2m", "1h" -> ms; a number without a unit is refused, but
 * for 0. "900 KiB", "1MiB", "1 GiB", "512" -> bytes. */
int options_parse_duration(const char *text, int64_t *ret_ms) MUST_CHECK;
int options_parse_size(const char *text, int64_t *ret_bytes) MUST_CHECK;

#endif
