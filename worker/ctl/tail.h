/* tail - which results are shown, and their bodies in files: tail_match.c. Layer 5. */
#ifndef GATHERD_CTL_TAIL_H
#define GATHERD_CTL_TAIL_H

#include "ctl.h"

#define STATUSES_MAX 32

struct Gatherd__V1__FetchResult;

/* "404,5xx,400-499" */
struct statuses {
	struct {
		int from, to;
	} v[STATUSES_MAX];
	size_t n; /* 0 = all */
};

/* text NULL = all. -ERR_INVALID, said. */
int statuses_parse(const struct ctl *ctl, const char *text, struct statuses *ret_statuses) MUST_CHECK;
bool statuses_has(const struct statuses *statuses, int status);
/* "Name" or "Name:GLOB", without case: one of the answer's headers fits. */
bool result_has_header(const struct Gatherd__V1__FetchResult *res, const char *wish);

/* Makes the directory when it is not there. -ERR_SYSTEM, said. */
int result_open_bodies(const struct ctl *ctl, const char *dir) MUST_CHECK;
/* Into a file named by the job_id (what is no letter, digit, dot, dash or underscore as %XX), which is there as a whole or not at all;
 * the newest result of a job wins. -ERR_SYSTEM, said. */
int result_save_body(const struct ctl *ctl, const char *dir, const struct Gatherd__V1__FetchResult *res) MUST_CHECK;

#endif
