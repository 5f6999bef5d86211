/* The way out of one attempt: the secret and the proxy that settings and job give it, which name is to be resolved for it, and
 * where the guard lets it go. Secrets and proxies are live, so they are looked up at each attempt and not kept. */
#include "pipeline.h"

static const struct host_options *named_profile(const struct pipeline *pl, const struct task *task)
{
	const char *name = task->job.host_profile;

	return name ? profile_of_name(pl->opts, name) : NULL;
}

const struct host_options *pipeline_profile(const struct pipeline *pl, const struct task *task, const struct url *url)
{
	const struct host_options *named = named_profile(pl, task);

	return named ? named : profile_of_host(pl->opts, url->host);
}

int pipeline_route(const struct pipeline *pl, const struct task *task, struct route *ret_route)
{
	const struct host_options *host = named_profile(pl, task);

	if (!host && task->turn.host)
		host = host_options(task->turn.host); /* found already, when it came into its line */
	else if (!host)
		host = profile_of_host(pl->opts, task->url.host);
	return pipeline_route_by(pl, task, host, ret_route);
}

int pipeline_route_by(const struct pipeline *pl, const struct task *task, const struct host_options *host, struct route *ret_route)
{
	struct route route = {0};
	int err = 0;

	/* A redirect to another origin takes no secret along, not even one that may go there: who sent us does not hold it. */
	if (!task->drop_credentials)
		err = profile_secret(pl->opts, host, &task->job, &task->url, &route.secret);
	if (!err)
		err = profile_proxy(pl->opts, host, &task->job, &route.proxy);
	if (!err)
		*ret_route = route;
	return err;
}

const char *pipeline_name_of_peer(const struct route *route, const struct url *url)
{
	if (route->proxy)
		return route->proxy->is_literal ? NULL : route->proxy->host;
	return url->is_literal ? NULL : url->host;
}

/* RFC 6761 6.3: it is the loopback, for a proxy too. */
static bool is_localhost(const char *host)
{
	return glob_match("localhost", host) || glob_match("*.localhost", host);
}

static int guard_one(struct pipeline *pl, const char *host, const char *text)
{
	struct address addr;

	if (address_parse(text, &addr))
		return -ERR_URL_HOST;
	int err = netguard_address(pl->guard, host, &addr);
	pl->metrics->blocked += err != 0;
	return err;
}

int pipeline_guard(struct pipeline *pl, const struct route *route, const struct url *url, struct addresses *addrs)
{
	size_t n = 0;

	if (url->is_literal && guard_one(pl, url->host, url->host))
		return -ERR_ADDRESS_DENIED;
	if (route->proxy) /* its own address is as configured; what it makes of a name, it alone knows */
		return is_localhost(url->host) && guard_one(pl, url->host, "127.0.0.1") ? -ERR_ADDRESS_DENIED : 0;
	if (url->is_literal)
		return 0;
	for (size_t i = 0; i < addrs->n; i++) {
		if (netguard_address(pl->guard, url->host, &addrs->v[i]))
			pl->metrics->blocked++;
		else
			addrs->v[n++] = addrs->v[i];
	}
	addrs->n = n;
	return n ? 0 : -ERR_ADDRESS_DENIED;
}
