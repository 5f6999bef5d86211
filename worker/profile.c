#include "profile.h"

#include "err.h"

const struct host_options *profile_of_host(const struct options *opts, const char *host)
{
	int section = options_section_of(opts, host);

	return section < 0 ? &opts->host : &opts->sections[section].host;
}

const struct host_options *profile_of_name(const struct options *opts, const char *name)
{
	int section = options_section_named(opts, name);

	return section < 0 ? NULL : &opts->sections[section].host;
}

/* 0 = no wish. */
static int64_t lesser(int64_t setting, int64_t wish)
{
	return wish > 0 ? MIN(setting, wish) : setting;
}

struct limits profile_limits(const struct options *opts, const struct host_options *host, const struct job *job)
{
	return (struct limits){
		.connect_ms = lesser(host->fetch_connect_timeout, job->connect_ms),
		.total_ms = lesser(host->fetch_timeout, job->total_ms),
		.stall_ms = lesser(host->fetch_stall_timeout, job->stall_ms),
		.retry = {.max_attempts = (int32_t)lesser(host->retry_max_attempts, job->max_attempts),
			  .base_ms = job->base_ms > 0 ? MIN(job->base_ms, host->retry_max) : host->retry_base,
			  .max_ms = lesser(host->retry_max, job->max_ms)},
		.max_redirects = (int32_t)(job->max_redirects >= 0 ? MIN(host->redirect_max, job->max_redirects) : host->redirect_max),
		.body_max_bytes = lesser(opts->body_max, job->max_body_bytes),
		.is_http2 = host->http_version == 1,
	};
}

int profile_check(const struct options *opts, const struct job *job)
{
	if (job->host_profile && *job->host_profile && !profile_of_name(opts, job->host_profile))
		return -ERR_PROFILE_UNKNOWN;
	if (job->body.len && (strcmp(job->method, "GET") == 0 || strcmp(job->method, "HEAD") == 0))
		return -ERR_BODY_DENIED;
	return job->body.len > (size_t)opts->request_body_max ? -ERR_REQUEST_TOO_LARGE : 0;
}

static bool is_given(const char *name)
{
	return name && *name;
}

int profile_secret(const struct options *opts, const struct host_options *host, const struct job *job, const struct url *url,
		   const struct secret **ret_secret)
{
	const char *name = is_given(job->secret_ref) ? job->secret_ref : host->secret;
	const struct secret *secret = is_given(name) ? options_secret(opts, name) : NULL;
	bool may_go = secret && secret_may_go(secret, url->host, url->key);

	if (is_given(job->secret_ref) && !may_go)
		return secret ? -ERR_SECRET_HOST : -ERR_SECRET_UNKNOWN;
	*ret_secret = may_go ? secret : NULL;
	return 0;
}

int profile_proxy(const struct options *opts, const struct host_options *host, const struct job *job,
		  const struct proxy **ret_proxy)
{
	const char *name = is_given(job->proxy_ref) ? job->proxy_ref : host->proxy;
	const struct proxy *proxy = is_given(name) ? options_proxy(opts, name) : NULL;

	if (is_given(name) && !proxy)
		return -ERR_PROXY_UNKNOWN;
	*ret_proxy = proxy;
	return 0;
}

int profile_check_method(const struct host_options *host, const char *method)
{
	int i = options_index_of(METHODS, method, strlen(method));

	return i >= 0 && host->methods & 1 << i ? 0 : -ERR_METHOD_DENIED;
}
