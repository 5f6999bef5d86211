/* job_internal - what job.c and its format readers share. Layer 1. */
#ifndef GATHERD_JOB_INTERNAL_H
#define GATHERD_JOB_INTERNAL_H

#include "job.h"

/* Each fills what it can and returns 0 or -ERR_*, with a sentence in *ret_detail. The checks that all formats share are job.c's. */
int job_from_json(struct arena *arena, struct span value, struct job *job, const char **ret_detail) MUST_CHECK;
int job_from_protobuf(struct arena *arena, struct span value, struct job *job, const char **ret_detail) MUST_CHECK;

#endif
