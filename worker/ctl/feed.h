/* feed - periodic sources: shared by the files of `gatherctl feed`.
 *
 * A source has rounds (schedule.h); each is one job, and at most one of a source is under way. What its results say
 * (validators, ages, outcome) is kept here; nothing is stored elsewhere: a new owner reads the results topic back. Layer 5. */
#ifndef GATHERD_CTL_FEED_H
#define GATHERD_CTL_FEED_H

#include "ages.h"
#include "ctl.h"
#include "schedule.h"
#include "url.h"

#include <jansson.h>
#include <uthash.h>

#define FEED_DIGEST_BYTES 32
#define FEED_ID_BYTES_MAX 900 /* with the round behind it, it is a job_id */

struct feed_args {
	const char *name, *topic, *results;
	int64_t every_ms, interval_ms, timeout_ms, look_back_ms;
	bool report, json;
};

struct source {
	UT_hash_handle hh; /* by id */
	struct schedule_slot slot;
	char *id, *url, *key; /* key: of its records, the URL's host and port */
	json_t *job;	      /* a FetchJob without what each round adds */
	int64_t period_ms;
	bool is_conditional, is_listed;
	long line; /* in the file, for the order */

	/* of the newest results */
	char *etag, *last_modified; /* NULL = none */
	uint8_t digest[FEED_DIGEST_BYTES];
	bool has_digest;
	struct ages ages;
	int64_t done_ms;   /* due time of the newest result's round; 0 = none yet */
	int64_t newest_ms; /* when the newest result came */
	int outcome, status;
	int64_t results;
};

/* --- feed_sources.c --- */

/* A line for people. Takes the text. */
typedef void (*feed_say_fn)(void *ctx, char *text);

/* Reads the file of sources; all that is wrong with it is said. 0 and a table (sources_free); or -ERR_INVALID; after Ctrl-C
 * -ERR_CANCELLED, silently. */
int sources_read(const char *path, const struct feed_args *args, const struct options *settings, feed_say_fn say, void *ctx,
		 struct source **ret_sources) MUST_CHECK;
void source_free(struct source *source);
void sources_free(struct source **sources);
/* The round's job, as JSON. free. With the validators when they make a valid job. */
char *source_job(const struct source *source, int64_t due_ms, const char *owner);
/* "feed/ID/DUE" */
char *source_job_id(const struct source *source, int64_t due_ms);

/* --- feed_owner.c --- */

struct feed_owner;

/* Joins the feed's group: its one member with partition 0 of the topic is the owner, the one that was first. NULL when refused, said. */
struct feed_owner *feed_owner_new(struct ctl *ctl, const char *name, const char *topic);
/* Leaves the group, so that the next one need not wait. */
void feed_owner_free(struct feed_owner *owner);
/* To be asked often: it also keeps the membership. */
bool feed_owner_ask(struct feed_owner *owner);
/* Names this process, in the group and in each job: "feed-HOST-PID". */
const char *feed_owner_name(const struct feed_owner *owner);
/* Once it is known that somebody else is the owner: that one's name, else NULL. Asks the broker. free. */
char *feed_owner_other(struct feed_owner *owner);

/* --- feed_results.c --- */

struct Gatherd__V1__FetchResult;
struct feed_reader;

/* is_past: it was in the topic when the reading began. */
typedef void (*feed_result_fn)(void *ctx, const struct Gatherd__V1__FetchResult *res, int64_t at_ms, bool is_past);

/* Reads the topic from this time on and gives fn each result of a feed's job. 0; or what is wrong is said. */
int feed_reader_new(struct ctl *ctl, const char *topic, int64_t from_ms, feed_result_fn fn, void *ctx,
		    struct feed_reader **ret_reader) MUST_CHECK;
void feed_reader_free(struct feed_reader *reader);
/* Waits at most so long for the first, then takes what is there. */
void feed_reader_poll(struct feed_reader *reader, int timeout_ms);
/* All that was there at the beginning has been read. */
bool feed_reader_is_current(const struct feed_reader *reader);

/* --- feed_report.c --- */

struct feed_totals {
	int64_t foreign; /* results of our sources' rounds that another feed asked for */
	bool is_owner, is_standby;
};

struct feed_report;

struct feed_report *feed_report_new(const struct feed_args *args);
/* Leaves the terminal as it was. */
void feed_report_free(struct feed_report *report);
/* A line for people: stderr, or below the live table. Takes the text. report may be NULL. */
void feed_report_say(struct feed_report *report, struct ctl *ctl, char *text);
/* When the next one is due, in us of the monotonic clock; INT64_MAX = never. */
int64_t feed_report_next_us(const struct feed_report *report);
void feed_report_show(struct feed_report *report, struct source **sources, const struct feed_totals *totals);
/* The last words: the table once more, or the counts. */
void feed_report_end(struct feed_report *report, struct source **sources, const struct feed_totals *totals);

#endif
