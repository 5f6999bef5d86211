/* lifecycle - start, assign, revoke, drain, reload, stop.
 *
 * Happy path: worker_new -> worker_run -> SIGTERM -> drain -> leave the group -> worker_free.
 * Shutdown is one deadline: unset, draining (drain.timeout), cut. A second SIGTERM cuts at once.
 * Layer 4. */
#ifndef GATHERD_LIFECYCLE_H
#define GATHERD_LIFECYCLE_H

#include "base.h"
#include "clock.h"
#include "log.h"
#include "options.h"

/* For loop_guard: a turn over the first is a stall; what it is doing is logged at most once in the second; one of the third ends the
 * process. */
#define WORKER_TURN_LIMIT_US (250 * US_PER_MS)
#define WORKER_STALL_LOG_EVERY_US (10 * US_PER_S)
#define WORKER_STALL_GIVE_UP_US (60 * US_PER_S)

struct worker;
struct kafka_range;
struct pipeline_replay;

/* A bounded range done again, in the group that the settings name. The worker stops by itself when the whole group is done with it. */
struct worker_replay {
	const struct kafka_range *plan; /* copied */
	size_t n_plan;
	const struct pipeline_replay *jobs;
	/* Once a second, of the whole group: offsets complete, and of how many. */
	void (*on_progress)(void *ctx, int64_t done, int64_t total);
	void *ctx;
};

struct worker_config {
	struct options *opts; /* taken */
	struct log *log;
	/* Reads the settings again, for SIGHUP; as options_load. */
	int (*load)(void *ctx, struct options **ret_opts, char **ret_errors, char **ret_warnings);
	void *ctx;
	const struct worker_replay *replay; /* NULL = an ordinary worker */
};

/* 0; or -ERR_* and a sentence in *ret_error (free). */
int worker_new(const struct worker_config *config, struct worker **ret_worker, char **ret_error) MUST_CHECK;
/* Until the stop. The exit code: 0 clean, 1 fatal or cut. */
int worker_run(struct worker *worker);
void worker_free(struct worker *worker);

/* What the signals do. */
void worker_stop(struct worker *worker);
void worker_reload(struct worker *worker);
bool worker_is_stopping(const struct worker *worker);

/* The loop and the pipeline, for the simulation. */
struct loop;
struct pipeline;
struct loop *worker_loop(struct worker *worker);
struct pipeline *worker_pipeline(struct worker *worker);

#endif
