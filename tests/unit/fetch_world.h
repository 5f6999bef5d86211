/* What the tests of fetch share: a real loop, a fetch engine and two origins on loopback sockets, and a transfer to
 * wait for. No step depends on the speed of the machine: where a time-out is tested, the server waits for ever. */
#ifndef GATHERD_FETCH_WORLD_H
#define GATHERD_FETCH_WORLD_H

#include "clock.h"
#include "err.h"
#include "fetch_internal.h"
#include "fetch_server.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#define GIVE_UP_US (30 * US_PER_S)
#define PEM_PATH "/tmp/gatherd-test-fetch.%d.pem"

struct world {
	struct loop *loop;
	struct metrics metrics;
	struct netguard *guard, *strict;
	struct fetch *fetch;
	struct server server, tls_server;
	struct arena arena;
	char pem_path[64];
};

/* One transfer and what became of it. */
struct run {
	struct world *world;
	struct transfer *transfer;
	struct response *resp;
	struct run *starts, *cancels; /* from its callback */
	struct fetch_request req;
};

static inline struct world *world_of(void **state)
{
	return *state;
}

static inline int setup(void **state)
{
	static char any4[] = "127.0.0.0/8", one6[] = "::1/128", ports_all[] = "1-65535";
	char *allow[] = {any4, one6}, *ports[] = {ports_all}, *error = NULL;
	struct world *world = xcalloc(1, sizeof(*world));

	*state = world;
	snprintf(world->pem_path, sizeof(world->pem_path), PEM_PATH, (int)getpid());
	server_start(&world->server, NULL);
	server_start(&world->tls_server, tls_make("DNS:pin.test,DNS:other.test", world->pem_path));
	world->loop = loop_new(NULL, NULL);
	assert_int_equal(netguard_new(allow, 2, NULL, 0, ports, 1, &world->guard, &error), 0);
	assert_int_equal(netguard_new(NULL, 0, NULL, 0, ports, 1, &world->strict, &error), 0);
	struct tls_store *store = tls_store_load(world->pem_path, &error);
	assert_non_null(store);
	world->fetch = fetch_new(world->loop, &world->metrics, NULL, world->guard, store);
	arena_init(&world->arena, 4096);
	return 0;
}

static inline int teardown(void **state)
{
	struct world *world = *state;

	fetch_free(world->fetch);
	loop_free(world->loop);
	server_stop(&world->server);
	server_stop(&world->tls_server);
	netguard_free(world->guard);
	netguard_free(world->strict);
	arena_done(&world->arena);
	unlink(world->pem_path);
	free(world);
	return 0;
}

static inline struct run request(struct world *world, const char *text)
{
	struct url *url = arena_zalloc(&world->arena, sizeof(*url));
	struct addresses *addrs = arena_zalloc(&world->arena, sizeof(*addrs));

	assert_int_equal(url_parse(&world->arena, span_str(text), url), 0);
	addrs->n = 1;
	addrs->v[0].v4.s_addr = htonl(INADDR_LOOPBACK);
	return (struct run){.world = world,
			    .req = {.url = url,
				    .addrs = addrs,
				    .method = "GET",
				    .user_agent = "test/1",
				    .connect_ms = 20000,
				    .total_ms = 20000,
				    .stall_ms = 20000,
				    .body_max_bytes = 900 * 1024,
				    .body_mode = BODY_MODE_INLINE,
				    .tls_verify = true}};
}

/* http://127.0.0.1:port/path of the plain server */
static inline struct run plain(struct world *world, const char *path)
{
	return request(world, arena_printf(&world->arena, "http://127.0.0.1:%u%s", world->server.port, path));
}

static inline struct run named(struct world *world, const char *host, const char *path)
{
	return request(world, arena_printf(&world->arena, "http://%s:%u%s", host, world->server.port, path));
}

static inline void start(struct run *run);

static inline void on_done(void *ctx, struct response *resp)
{
	struct run *run = ctx;

	assert_null(run->resp);
	run->resp = resp;
	run->transfer = NULL;
	if (run->cancels && run->cancels->transfer) {
		fetch_cancel(run->cancels->transfer);
		run->cancels->transfer = NULL;
	}
	if (run->starts)
		start(run->starts);
}

static inline void start(struct run *run)
{
	assert_int_equal(fetch_start(run->world->fetch, &run->req, on_done, run, &run->transfer), 0);
	assert_null(run->resp);
}

static inline void wait_for(struct run *run)
{
	int64_t give_up_us = clock_now_us() + GIVE_UP_US;

	while (!run->resp && clock_now_us() < give_up_us)
		loop_turn(run->world->loop, US_PER_S / 10);
	assert_non_null(run->resp);
}

static inline struct response *finish(struct run *run)
{
	start(run);
	wait_for(run);
	return run->resp;
}

static inline void drop(struct run *run)
{
	response_done(run->resp);
	free(run->resp);
	run->resp = NULL;
}

static inline void assert_err(const struct response *resp, int err)
{
	if (resp->err != err)
		fail_msg("%s (%s) instead of %s", err_code(resp->err), resp->detail, err_code(err));
}

static inline void assert_body(const struct response *resp, const char *text)
{
	assert_int_equal(resp->body.len, strlen(text));
	assert_memory_equal(resp->body.data, text, resp->body.len);
}

static inline bool body_has(const struct response *resp, const char *text)
{
	return memmem(resp->body.data, resp->body.len, text, strlen(text)) != NULL;
}

static inline void assert_headers(const struct response *resp, const char *text)
{
	assert_int_equal(resp->headers.len, strlen(text));
	assert_memory_equal(resp->headers.data, text, resp->headers.len);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

#endif
