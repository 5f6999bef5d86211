/* profile - what the settings, a host's section and the job together allow one attempt.
 *
 * A job's wish is clamped to the settings: it may ask for less, never for more. Layer 2: pure. */
#ifndef GATHERD_PROFILE_H
#define GATHERD_PROFILE_H

#include "base.h"
#include "job.h"
#include "options.h"
#include "retry.h"
#include "url.h"

struct limits {
	int64_t connect_ms, total_ms, stall_ms;
	struct retry_policy retry;
	int32_t max_redirects;
	int64_t body_max_bytes;
	bool is_http2;
};

/* The host's section or the general settings. */
const struct host_options *profile_of_host(const struct options *opts, const char *host);
/* The section that a job names by its glob; NULL when there is none. */
const struct host_options *profile_of_name(const struct options *opts, const char *name);
struct limits profile_limits(const struct options *opts, const struct host_options *host, const struct job *job);
/* What a job may not wish for: an unknown profile, a body beyond the settings.
 * 0 or -ERR_PROFILE_UNKNOWN, -ERR_BODY_DENIED, -ERR_REQUEST_TOO_LARGE. */
int profile_check(const struct options *opts, const struct job *job) MUST_CHECK;
/* The secret that the job names, else the host's where it may go; NULL = none. The job's own must be there and may go to the URL:
 * 0, -ERR_SECRET_UNKNOWN or -ERR_SECRET_HOST. What is returned is gone after a reload: ask at each attempt. */
int profile_secret(const struct options *opts, const struct host_options *host, const struct job *job, const struct url *url,
		   const struct secret **ret_secret) MUST_CHECK;
/* The proxy that the job names, else the host's; NULL = none. 0 or -ERR_PROXY_UNKNOWN. Ask at each attempt. */
int profile_proxy(const struct options *opts, const struct host_options *host, const struct job *job,
		  const struct proxy **ret_proxy) MUST_CHECK;
/* The host's `methods` name it: 0 or -ERR_METHOD_DENIED. */
int profile_check_method(const struct host_options *host, const char *method) MUST_CHECK;

#endif
