#include "robots_cache.h"

#include <uthash.h>

struct robots_cache {
	struct robots_origin *by_name;
	struct list known; /* nobody asks or waits; least recently used first */
	struct list busy;  /* somebody asks */
	struct list due;   /* nobody asks, somebody waits */
	size_t bytes;
};

struct robots_origin {
	UT_hash_handle hh;
	struct robots_cache *cache;
	struct list_node node; /* on the list of its state */
	struct list waiters;
	void *asker;
	struct robots *robots; /* NULL: never answered */
	int64_t until_us;      /* the rules count */
	int64_t retry_us;      /* how long the last failure counted; 0 = it answered */
	bool is_unreachable;   /* robots stands for an answer that never came */
	size_t bytes;
	char name[];
};

/* The one that moves it. */
static void place(struct robots_origin *origin)
{
	struct robots_cache *cache = origin->cache;

	list_remove(&origin->node);
	if (origin->asker)
		list_push(&cache->busy, &origin->node);
	else
		list_push(list_empty(&origin->waiters) ? &cache->known : &cache->due, &origin->node);
}

static void set_rules(struct robots_origin *origin, struct robots *robots)
{
	size_t bytes = robots ? robots_bytes(robots) : 0;
	size_t old = origin->robots ? robots_bytes(origin->robots) : 0;

	robots_free(origin->robots);
	origin->robots = robots;
	origin->bytes += bytes - old;
	origin->cache->bytes += bytes - old;
}

struct robots_cache *robots_cache_new(void)
{
	struct robots_cache *cache = xcalloc(1, sizeof(*cache));

	list_init(&cache->known);
	list_init(&cache->busy);
	list_init(&cache->due);
	return cache;
}

static void origin_free(struct robots_origin *origin)
{
	struct robots_cache *cache = origin->cache;

	assert(!origin->asker && list_empty(&origin->waiters));
	set_rules(origin, NULL);
	cache->bytes -= origin->bytes;
	HASH_DEL(cache->by_name, origin);
	list_remove(&origin->node);
	free(origin);
}

void robots_cache_free(struct robots_cache *cache)
{
	if (!cache)
		return;
	robots_cache_trim(cache, 0);
	assert(!cache->by_name);
	free(cache);
}

void robots_cache_trim(struct robots_cache *cache, size_t bytes_max)
{
	struct robots_origin *origin;

	while (cache->bytes > bytes_max && (origin = LIST_ENTRY(list_first(&cache->known), struct robots_origin, node)))
		origin_free(origin);
}

void robots_cache_expire(struct robots_cache *cache)
{
	struct robots_origin *origin, *next;

	HASH_ITER(hh, cache->by_name, origin, next) {
		set_rules(origin, NULL);
		origin->is_unreachable = false;
	}
}

size_t robots_cache_bytes(const struct robots_cache *cache)
{
	return cache->bytes;
}

size_t robots_cache_count(const struct robots_cache *cache)
{
	return HASH_COUNT(cache->by_name);
}

struct robots_origin *robots_cache_due(struct robots_cache *cache)
{
	return LIST_ENTRY(list_first(&cache->due), struct robots_origin, node);
}

struct robots_origin *robots_origin_get(struct robots_cache *cache, const char *name)
{
	size_t len = strlen(name);
	struct robots_origin *origin;

	HASH_FIND(hh, cache->by_name, name, len, origin);
	if (!origin) {
		origin = xcalloc(1, sizeof(*origin) + len + 1);
		memcpy(origin->name, name, len + 1);
		origin->cache = cache;
		origin->bytes = sizeof(*origin) + len + 1;
		cache->bytes += origin->bytes;
		list_init(&origin->waiters);
		HASH_ADD_KEYPTR(hh, cache->by_name, origin->name, len, origin);
	}
	if (origin->node.list != &cache->due) /* the due ones keep their order */
		place(origin);
	return origin;
}

const struct robots *robots_origin_rules(const struct robots_origin *origin, int64_t now_us)
{
	return origin->robots && now_us < origin->until_us ? origin->robots : NULL;
}

bool robots_origin_is_unreachable(const struct robots_origin *origin)
{
	return origin->is_unreachable;
}

void *robots_origin_asker(const struct robots_origin *origin)
{
	return origin->asker;
}

void robots_origin_ask(struct robots_origin *origin, void *asker)
{
	assert(asker && !origin->asker);
	origin->asker = asker;
	place(origin);
}

void robots_origin_ask_over(struct robots_origin *origin)
{
	origin->asker = NULL;
	place(origin);
}

void robots_origin_answer(struct robots_origin *origin, struct robots *robots, int64_t now_us)
{
	set_rules(origin, robots);
	origin->is_unreachable = false;
	origin->until_us = now_us + ROBOTS_TTL_US;
	origin->retry_us = 0;
	robots_origin_ask_over(origin);
}

void robots_origin_unreachable(struct robots_origin *origin, int64_t now_us)
{
	origin->retry_us = origin->retry_us ? MIN(origin->retry_us * 2, ROBOTS_UNREACHABLE_MAX_US) : ROBOTS_UNREACHABLE_MIN_US;
	origin->until_us = now_us + origin->retry_us;
	if (!origin->robots) {
		set_rules(origin, robots_disallow_all());
		origin->is_unreachable = true;
	}
	robots_origin_ask_over(origin);
}

void robots_origin_wait(struct robots_origin *origin, struct list_node *waiter)
{
	list_push(&origin->waiters, waiter);
	place(origin);
}

void robots_origin_leave(struct robots_origin *origin, struct list_node *waiter)
{
	if (!waiter->list)
		return;
	assert(waiter->list == &origin->waiters);
	list_remove(waiter);
	if (list_empty(&origin->waiters))
		place(origin);
}

struct list_node *robots_origin_first_waiter(const struct robots_origin *origin)
{
	return list_first(&origin->waiters);
}
