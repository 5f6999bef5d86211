/* task - one URL and its legal states.
 *
 *   NEW -> (LATER) -> (ROBOTS) -> WAITING -> RESOLVING -> FETCHING -> DELIVERING -> DONE
 *                                     ^  |          |            |  |        ^
 *                                     |  +----------+------------+--|--------+     any failure that is final
 *                                     |                          |  +-> BACKOFF --+
 *                                     +--------------------------+----------------+ redirect hop, retry, robots.txt known
 *
 * A task and all its text live in one arena that is freed with it. It is on the list of its state, always.
 * Slots (see admit.h) are held in RESOLVING and FETCHING only. Layer 2: no I/O. */
#ifndef GATHERD_TASK_H
#define GATHERD_TASK_H

#include "admit.h"
#include "arena.h"
#include "base.h"
#include "heap.h"
#include "job.h"
#include "list.h"
#include "profile.h"
#include "result.h"
#include "url.h"

enum task_state {
	TASK_NEW,
	TASK_LATER,      /* not_before_at_ms is ahead */
	TASK_ROBOTS,     /* another job asks for the robots.txt of its origin */
	TASK_WAITING,    /* in the line of its host */
	TASK_RESOLVING,
	TASK_FETCHING,
	TASK_BACKOFF,
	TASK_DELIVERING, /* its dead letter or result is with the producer, or waits for room there */
	TASK_STATES
};

struct partition;
struct robots_origin;
struct transfer;
struct resolve_query;
struct dispatch;

struct task {
	struct arena arena;
	struct list_node node;      /* on the list of its state */
	struct list_node open_node; /* on its partition's open jobs, in offset order */
	struct heap_node timer;     /* LATER: its time; ROBOTS, WAITING: expiry or deadline; BACKOFF: next attempt */
	struct turn turn;
	struct partition *partition; /* NULL: it moved away; what is left is only waited for */
	enum task_state state;

	struct record rec; /* in the arena */
	struct job job;
	struct url url; /* of the current hop */
	struct limits limits;
	size_t bytes; /* counted against memory.max */

	int64_t arrived_us, arrived_at_ms;
	int64_t first_turn_us, start_at_ms; /* 0 = no turn yet */
	int64_t end_at_ms;                  /* when its outcome was known; a dead letter and the delivery come after it */
	int64_t queued_us, dns_us;
	int32_t attempts_made, hops;
	struct attempt attempts[RESULT_ATTEMPTS_MAX]; /* the last ones */
	size_t n_attempts;
	struct redirect *redirects; /* room for limits.max_redirects */
	bool drop_credentials;      /* a hop left the origin */
	bool drop_content;          /* a hop made it a GET: no body, and no header that describes one */

	/* robots.txt of its origin: it waits in ROBOTS for who asks, or asks_url is what its turns are for now. */
	struct robots_origin *robots;
	struct list_node robots_node;
	struct url *asks_url;
	int32_t asks_hops, asks_attempts;

	struct resolve_query *query; /* set while RESOLVING */
	const char *asked;           /* the name of that query */
	struct transfer *transfer;   /* set while FETCHING */

	int err; /* how it ended; 0 or -ERR_* */
	enum outcome outcome;
	const char *detail;
	bool retryable;
	struct response *resp; /* the last answer; owned */
	int64_t retry_after_ms;
	enum dead_letter dead_letter;
	bool strip_body;
	struct dispatch *dispatch; /* the record on its way out */
};

struct task_lists {
	struct list in[TASK_STATES];
};

void task_lists_init(struct task_lists *lists);
/* Copies the record. The task is NEW. */
struct task *task_new(struct task_lists *lists, const struct record *rec, int64_t now_us, int64_t now_epoch_ms);
/* From any state; must hold no slots, no query and no transfer. */
void task_free(struct task *task);
/* The one setter; asserts that the move is legal. */
void task_set_state(struct task_lists *lists, struct task *task, enum task_state state);

/* Remembers an attempt that ended. */
void task_add_attempt(struct task *task, enum outcome outcome, int status, int64_t ms, int64_t backoff_ms);
/* Goes on to url (in the arena) after resp's redirect. -ERR_REDIRECT_MAX, -ERR_REDIRECT_LOOP, or 0 and the task's url is the new one.
 * Any method but HEAD becomes GET after 301, 302, 303 (RFC 9110 15.4), and the body goes. */
int task_follow(struct task *task, const struct url *url, const struct response *resp, struct span location) MUST_CHECK;
/* Takes resp (may be NULL) in place of the one before. */
void task_set_response(struct task *task, struct response *resp);
/* What its turn is for: its URL, or a robots.txt. */
const struct url *task_url(const struct task *task);
/* What the result says of it. Views into the task. */
struct result task_result(const struct task *task, const char *instance);
/* The job's headers without those that must not follow to another origin, or that describe a body which is gone; and the secret's
 * (NULL = none) in place of those of the same name. Views into the job and the secret. */
const struct header *task_headers(struct task *task, const struct secret *secret, size_t *ret_n);

#endif
