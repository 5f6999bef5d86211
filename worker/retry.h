/* retry - try again or give up, and when.
 *
 * Full-jitter exponential back-off: uniform in [0, min(max, base x 2^(attempt - 1))], not under a server's Retry-After.
 * Retried: what err.def marks, and status 408, 425, 429, 5xx except 501 and 505; only for idempotent methods (RFC 9110 9.2.2).
 * Layer 1: pure; the random number is an argument. */
#ifndef GATHERD_RETRY_H
#define GATHERD_RETRY_H

#include "base.h"

struct retry_policy {
	int32_t max_attempts;
	int64_t base_ms, max_ms;
};

/* RFC 9110 9.2.2: GET, HEAD, PUT, DELETE, OPTIONS, TRACE. */
bool retry_is_idempotent(const char *method);
/* Whether another attempt may help, no matter how many there were. err as in err.h (either sign), status for HTTP_STATUS. */
bool retry_may_help(int err, int status);
/* Wait before the next attempt in ms, or -1 to give up. attempts: made so far (>= 1). retry_after_ms: 0 = none. left_ms: to the
 * job's deadline; a wait that would reach it gives up now. random: uniform 32 bits. */
int64_t retry_wait_ms(const struct retry_policy *policy, int err, int status, const char *method, int attempts,
		      int64_t retry_after_ms, int64_t left_ms, uint32_t random);
/* Retry-After: delay-seconds or an HTTP-date (RFC 9110 10.2.3), to ms from now; 0 when it is neither or past. */
int64_t retry_after_ms(struct span value, int64_t now_epoch_ms);

#endif
