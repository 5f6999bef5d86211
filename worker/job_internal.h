/* job_internal - what job.c, its two format readers and its checks share. Layer 1: pure. */
#ifndef GATHERD_JOB_INTERNAL_H
#define GATHERD_JOB_INTERNAL_H

#include "job.h"

/* Lists are read one entry past their limit, so that job_check sees that they are over it, whatever the format. */
#define JOB_EXPECT_MAX 64

/* Each fills what it can, also when it fails, and returns 0 or -ERR_* with a sentence in *ret_detail. */
int job_from_json(struct arena *arena, struct span value, struct job *job, const char **ret_detail) MUST_CHECK;
int job_from_protobuf(struct arena *arena, struct span value, struct job *job, const char **ret_detail) MUST_CHECK;

/* The rules that all formats share. What a result could not carry is taken out of the job in any case. */
int job_check(struct arena *arena, struct job *job, int64_t now_epoch_ms, const char **ret_detail) MUST_CHECK;

/* "field FIELD: WHAT"; returns err. A field's name that somebody sent is cut. */
int job_fault(struct arena *arena, const char **ret_detail, int err, const char *field, const char *what);

#endif
