/* lifecycle - start, assign, revoke, drain, reload, stop.
 *
 * Happy path: worker_new -> worker_run -> SIGTERM -> drain -> leave the group -> worker_free.
 * Shutdown is one deadline: unset, draining (drain.timeout), cut. A second SIGTERM cuts at once.
 * Layer 4. */
#ifndef GATHERD_LIFECYCLE_H
#define GATHERD_LIFECYCLE_H

#include "base.h"
#include "log.h"
#include "options.h"

struct worker;

struct worker_config {
	struct options *opts; /* taken */
	struct log *log;
	/* Reads the settings again, for SIGHUP; as options_load. */
	int (*load)(void *ctx, struct options **ret_opts, char **ret_errors, char **ret_warnings);
	void *ctx;
};

/* 0; or -ERR_* and a sentence in *ret_error (free). */
int worker_new(const struct worker_config *config, struct worker **ret_worker, char **ret_error) MUST_CHECK;
/* Until the stop. The exit code: 0 clean, 1 fatal or cut. */
int worker_run(struct worker *worker);
void worker_free(struct worker *worker);

/* What the signals do. */
void worker_stop(struct worker *worker);
void worker_reload(struct worker *worker);

/* The loop and the pipeline, for the simulation. */
struct loop;
struct pipeline;
struct loop *worker_loop(struct worker *worker);
struct pipeline *worker_pipeline(struct worker *worker);

#endif
