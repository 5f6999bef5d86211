/* robots=obey: what a job's URL may do by the robots.txt of its origin. The turns, slots and retries of fetching one are those of the
 * job that asks: see enqueue, on_robots_fetched and robots_failed in pipeline.c. */
#include "pipeline.h"

#include <stdio.h>

#define REDIRECTS_MAX 5 /* RFC 9309 2.3.1.2 */
/* Of memory.max, and never over: about 100,000 origins. */
#define CACHE_SHARE 16
#define CACHE_BYTES_MAX ((int64_t)32 * 1024 * 1024)

static struct robots_origin *origin_of(struct pipeline *pl, const struct url *url)
{
	char name[300]; /* a host name has up to 253 characters */

	snprintf(name, sizeof(name), "%s://%s", url->scheme, url->key);
	return robots_origin_get(pl->robots, name);
}

static const char *path_of(const struct url *url)
{
	const char *authority = url->text + strlen(url->scheme) + strlen("://");

	return authority + strcspn(authority, "/?");
}

static struct url *url_in_arena(struct task *task, const struct url *base, struct span location, int *ret_err)
{
	struct url *url = arena_zalloc(&task->arena, sizeof(*url));

	*ret_err = url_resolve(&task->arena, base, location, url);
	return *ret_err ? NULL : url;
}

static int ask(struct task *task, struct robots_origin *origin)
{
	int err;

	task->asks_url = url_in_arena(task, &task->url, span_str("/robots.txt"), &err);
	if (err)
		return err;
	task->asks_hops = task->asks_attempts = 0;
	task->robots = origin;
	robots_origin_ask(origin, task);
	return 0;
}

int pipeline_robots_gate(struct pipeline *pl, struct task *task, int64_t *ret_delay_us)
{
	*ret_delay_us = 0;
	if (profile_of_host(pl->opts, task->url.host)->robots == ROBOTS_OFF) {
		pipeline_robots_leave(task);
		return 0;
	}
	if (task->asks_url)
		return 0;
	struct robots_origin *origin = origin_of(pl, &task->url);
	const struct robots *rules = robots_origin_rules(origin, loop_now_us(pl->loop));
	if (!rules && !robots_origin_asker(origin))
		return ask(task, origin);
	if (!rules) {
		task->robots = origin;
		robots_origin_wait(origin, &task->robots_node);
		return -ERR_AGAIN;
	}
	pl->metrics->robots_cache_hits++;
	*ret_delay_us = robots_delay_us(rules);
	if (robots_allows(rules, path_of(&task->url)))
		return 0;
	pl->metrics->robots_blocked++;
	return robots_origin_is_unreachable(origin) ? -ERR_ROBOTS_UNREACHABLE : -ERR_ROBOTS_DENIED;
}

void pipeline_robots_request(struct pipeline *pl, struct fetch_request *req)
{
	pl->metrics->robots_fetches++;
	req->method = "GET";
	req->body = (struct span){0};
	req->headers = NULL;
	req->n_headers = 0;
	req->if_none_match = req->if_modified_since = NULL;
	req->body_max_bytes = ROBOTS_BYTES_MAX + 1; /* so that a line which is cut shows */
	req->body_overflow_fails = false;
	req->body_mode = BODY_MODE_INLINE;
}

static void known(struct pipeline *pl, struct task *task, struct robots *robots)
{
	robots_origin_answer(task->robots, robots, loop_now_us(pl->loop));
	task->robots = NULL;
	task->asks_url = NULL;
	task->asks_hops = 0;
}

/* A hop is a new admission, but of no other robots.txt. What leads nowhere is "unavailable" (2.3.1.3). */
static int follow(struct pipeline *pl, struct task *task, const struct response *resp)
{
	struct span location;
	struct url *url = NULL;
	int err = -ERR_REDIRECT_MAX;

	if (task->asks_hops < REDIRECTS_MAX && response_header(resp, "Location", &location))
		url = url_in_arena(task, task->asks_url, location, &err);
	if (!url) {
		known(pl, task, robots_allow_all());
		return 0;
	}
	task->asks_hops++;
	task->asks_url = url;
	return netguard_host(pl->guard, url->host, url->port);
}

int pipeline_robots_answer(struct pipeline *pl, struct task *task, const struct response *resp)
{
	if (resp->err)
		return resp->err;
	switch (resp->status) {
	case 200 ... 299:
		known(pl, task, robots_parse((struct span){resp->body.data, resp->body.len}, pl->robots_token));
		return 0;
	case 301:
	case 302:
	case 303:
	case 307:
	case 308:
		return follow(pl, task, resp);
	case 429: /* the RFC would allow all; a server under load did not mean that */
	case 500 ... 599:
		return -ERR_HTTP_STATUS;
	default:
		known(pl, task, robots_allow_all());
		return 0;
	}
}

void pipeline_robots_unreachable(struct pipeline *pl, struct task *task)
{
	robots_origin_unreachable(task->robots, loop_now_us(pl->loop));
	task->robots = NULL;
	task->asks_url = NULL;
	task->asks_hops = 0;
}

void pipeline_robots_leave(struct task *task)
{
	if (!task->robots)
		return;
	if (task->asks_url)
		robots_origin_ask_over(task->robots);
	else
		robots_origin_leave(task->robots, &task->robots_node);
	task->robots = NULL;
	task->asks_url = NULL;
	task->asks_hops = 0;
}

void pipeline_robots_reload(struct pipeline *pl)
{
	char token[ROBOTS_TOKEN_MAX];

	robots_token(pl->opts->user_agent, token);
	if (strcmp(token, pl->robots_token) == 0)
		return;
	memcpy(pl->robots_token, token, sizeof(token));
	robots_cache_expire(pl->robots);
}

struct task *pipeline_robots_due(struct pipeline *pl)
{
	struct robots_origin *origin = robots_cache_due(pl->robots);

	if (!origin)
		return NULL;
	struct task *task = CONTAINER_OF(robots_origin_first_waiter(origin), struct task, robots_node);
	pipeline_robots_leave(task);
	return task;
}

void pipeline_robots_trim(struct pipeline *pl)
{
	robots_cache_trim(pl->robots, (size_t)MIN(pl->opts->memory_max / CACHE_SHARE, CACHE_BYTES_MAX));
	if (robots_cache_due(pl->robots))
		loop_again(pl->loop);
}
