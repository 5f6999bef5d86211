/* fetch: names, the guard, TLS, lanes, and what owners may do (fetch_world.h: real loop, real loopback sockets). */
#include "fetch_world.h"

/* ---- names and the guard ---- */

static void a_name_is_never_looked_up(void **state)
{
	static const struct addresses none;
	struct run run = named(world_of(state), "localhost", "/ok");

	run.req.addrs = &none;
	assert_err(finish(&run), -ERR_DNS_FAILED);
	drop(&run);
	run = named(world_of(state), "pin.test", "/ok");
	run.req.addrs = NULL;
	assert_err(finish(&run), -ERR_DNS_FAILED);
	assert_int_equal(world_of(state)->server.n_connections, 0);
	drop(&run);
}

static void addresses_are_told_once(void **state)
{
	struct world *world = world_of(state);
	struct run run = named(world, "pin.test", "/echo"), second = run;
	struct addresses moved = {.n = 1};

	start(&run);
	assert_non_null(run.transfer->resolve);
	start(&second);
	assert_null(second.transfer->resolve);
	wait_for(&run);
	wait_for(&second);
	assert_err(run.resp, 0);
	assert_err(second.resp, 0);
	assert_true(body_has(run.resp, "Host: pin.test:"));
	drop(&run);
	drop(&second);

	/* Another address: told again. Nobody listens there, but the open connection is used first. */
	moved.v[0].v4.s_addr = htonl(INADDR_LOOPBACK + 1);
	run.req.addrs = &moved;
	start(&run);
	assert_non_null(run.transfer->resolve);
	fetch_reload(world->fetch, world->guard, NULL);
	fetch_cancel(run.transfer);
	assert_err(finish(&run), -ERR_CONNECT_REFUSED);
	assert_string_equal(run.resp->remote_ip, "127.0.0.2");
	drop(&run);
}

/* The socket of the first is closed and its number taken by the next, which libcurl 7.88 does not tell. */
static void the_next_address_is_tried(void **state)
{
	struct world *world = world_of(state);
	struct addresses both = {.n = 3, .v = {{.is_v6 = true, .v6 = IN6ADDR_LOOPBACK_INIT}}};

	both.v[1].v4.s_addr = htonl(INADDR_LOOPBACK + 1);
	both.v[2].v4.s_addr = htonl(INADDR_LOOPBACK);
	for (int i = 0; i < 2; i++) {
		struct run run = named(world, "pin.test", "/ok");
		run.req.addrs = &both;
		assert_err(finish(&run), 0);
		assert_string_equal(run.resp->remote_ip, "127.0.0.1");
		assert_int_equal(run.resp->is_new_connection, i == 0);
		drop(&run);
		assert_int_equal(world->fetch->n_connected, 1);
	}
}

/* The first one swallows the SYN; libcurl gives it half of the time. */
static void the_next_address_is_tried_after_a_black_hole(void **state)
{
	struct world *world = world_of(state);
	struct addresses both = {.n = 2};
	struct hole hole;

	hole_open(&hole, INADDR_LOOPBACK + 1, world->server.port);
	both.v[0].v4.s_addr = htonl(INADDR_LOOPBACK + 1);
	both.v[1].v4.s_addr = htonl(INADDR_LOOPBACK);
	struct run run = named(world, "pin.test", "/ok");
	run.req.addrs = &both;
	run.req.connect_ms = 2000;
	assert_err(finish(&run), 0);
	assert_string_equal(run.resp->remote_ip, "127.0.0.1");
	drop(&run);
	hole_close(&hole);
}

static void ipv6_literals_are_judged_too(void **state)
{
	struct world *world = world_of(state);
	struct run run = request(world, arena_printf(&world->arena, "http://[::1]:%u/ok", world->server.port));

	struct response *resp = finish(&run);
	assert_true(resp->err == -ERR_CONNECT_REFUSED || resp->err == -ERR_CONNECT_UNREACHABLE); /* without IPv6 */
	assert_string_equal(run.resp->remote_ip, "::1");
	drop(&run);
	world->fetch->guard = world->strict;
	assert_err(finish(&run), -ERR_ADDRESS_DENIED);
	drop(&run);
}

static void a_connection_closed_while_idle_is_made_anew(void **state)
{
	struct world *world = world_of(state);

	for (int i = 1; i <= 5; i++) {
		struct run run = plain(world, "/bye");
		assert_err(finish(&run), 0);
		assert_body(run.resp, "bye");
		drop(&run);
		loop_turn(world->loop, 1000);
	}
	assert_true(world->server.n_connections >= 5);
	assert_int_equal(world->fetch->running.len, 0);
}

static void visit_each(struct world *world, int n_hosts)
{
	char host[32];

	for (int i = 0; i < n_hosts; i++) {
		snprintf(host, sizeof(host), "rare%d.test", i);
		struct run run = named(world, host, "/ok");
		assert_err(finish(&run), 0);
		drop(&run);
	}
}

/* libcurl looks at each connection once a second: those of hosts that nobody comes back to are not kept for long. */
static void hosts_asked_rarely_keep_few_connections(void **state)
{
	struct world *world = world_of(state);

	world->fetch->idle_max = (size_t)(4 * IDLE_RARE_SHARE);
	for (int round = 0; round < RARE_VISITS; round++) {
		visit_each(world, 20);
		assert_in_range(world->fetch->n_connected, 1, 5);
	}
	visit_each(world, 20);
	assert_int_equal(world->fetch->n_connected, 20);
}

static void a_lost_address_is_told_again(void **state)
{
	struct world *world = world_of(state);
	struct run carrier = named(world, "pin.test", "/ok"), run = carrier;

	/* The carrier goes before libcurl has read its list; the second counted on it. */
	start(&carrier);
	start(&run);
	assert_null(run.transfer->resolve);
	fetch_cancel(carrier.transfer);
	wait_for(&run);
	assert_err(run.resp, 0);
	drop(&run);
}

/* libcurl keeps the list of one that did not run over curl_easy_reset; the sanitizer sees when it is read. */
static void a_cancelled_list_does_not_leak_into_the_next_job(void **state)
{
	struct world *world = world_of(state);
	struct run carrier = named(world, "pin.test", "/ok"), run = plain(world, "/ok");

	start(&carrier);
	struct transfer *first = carrier.transfer;
	assert_non_null(first->resolve);
	fetch_cancel(first);
	start(&run);
	assert_ptr_equal(run.transfer, first);
	wait_for(&run);
	assert_err(run.resp, 0);
	drop(&run);
	/* The name was not told by it. */
	carrier.req.addrs = NULL;
	assert_err(finish(&carrier), -ERR_DNS_FAILED);
	drop(&carrier);
}

static void memory_of_addresses_is_bounded(void **state)
{
	struct world *world = world_of(state);
	size_t n_pins = 0;

	for (int i = 0; i < LANES * PINS_MAX * 5 / 4; i++) {
		struct run run =
		    request(world, arena_printf(&world->arena, "http://h%d.test:%u/", i, world->server.port));
		start(&run);
		fetch_cancel(run.transfer);
	}
	for (size_t i = 0; i < LANES; i++) {
		struct lane *lane = world->fetch->lanes[0][i];
		if (!lane)
			continue;
		assert_int_equal(HASH_COUNT(lane->pins), 0); /* none of them ran */
		assert_null(lane->drop);
	}
	struct lane *lane = world->fetch->lanes[0][0];
	for (int i = 0; n_pins < PINS_MAX + 10; i++) {
		struct run run =
		    request(world, arena_printf(&world->arena, "http://g%d.test:%u/", i, world->server.port));
		start(&run);
		if (run.transfer->lane != lane) {
			fetch_cancel(run.transfer);
			continue;
		}
		n_pins++;
		assert_int_equal(run.transfer->resolve->data[0] == '-', n_pins > PINS_MAX);
		wait_for(&run);
		assert_err(run.resp, 0);
		drop(&run);
		assert_true(HASH_COUNT(lane->pins) <= PINS_MAX);
	}
}

static void tls_with_a_pinned_name(void **state)
{
	struct world *world = world_of(state);
	struct run run = request(world, arena_printf(&world->arena, "https://pin.test:%u/sni", world->tls_server.port));
	struct response *resp = finish(&run);

	assert_err(resp, 0);
	assert_body(resp, "pin.test");
	assert_string_equal(resp->tls_version, "TLSv1.3");
	assert_true(strncmp(resp->tls_cipher, "TLS_", 4) == 0);
	assert_true(resp->tls_not_after_ms > clock_epoch_ms());
	assert_true(resp->tls_us > 0 && resp->connect_us > 0);
	drop(&run);
	resp = finish(&run);
	assert_false(resp->is_new_connection);
	assert_string_equal(resp->tls_version, "TLSv1.3");
	assert_int_equal(resp->tls_us, 0);
	drop(&run);

	run = request(world, arena_printf(&world->arena, "https://wrong.test:%u/sni", world->tls_server.port));
	resp = finish(&run);
	assert_err(resp, -ERR_TLS_CERTIFICATE);
	assert_true(resp->detail[0]);
	drop(&run);
	run.req.tls_verify = false;
	resp = finish(&run);
	assert_err(resp, 0);
	assert_body(resp, "wrong.test");
	drop(&run);
	run.req.tls_verify = true; /* the unverified connection is not reused */
	assert_err(finish(&run), -ERR_TLS_CERTIFICATE);
	drop(&run);
	run = request(world, arena_printf(&world->arena, "https://pin.test:%u/", world->server.port));
	run.req.connect_ms = 100; /* the plain server waits for the end of a request */
	resp = finish(&run);
	assert_true(resp->err == -ERR_TLS_HANDSHAKE || resp->err == -ERR_CONNECT_TIMEOUT);
	drop(&run);
}

static void the_system_store_is_not_ours(void **state)
{
	struct world *world = world_of(state);
	struct run run = request(world, arena_printf(&world->arena, "https://pin.test:%u/sni", world->tls_server.port));
	char *error = NULL;

	assert_null(tls_store_load("/does/not/exist", &error));
	assert_non_null(strstr(error, "/does/not/exist"));
	free(error);
	assert_null(tls_store_load("/dev/null", &error));
	free(error);
	/* Loading it again replaces the store: our certificate is not in the system's. */
	struct tls_store *store = tls_store_load("", &error);
	if (!store) {
		free(error);
		skip(); /* a machine without ca-certificates */
	}
	assert_err(finish(&run), 0);
	drop(&run);
	fetch_reload(world->fetch, world->guard, store);
	assert_err(finish(&run), -ERR_TLS_CERTIFICATE);
	drop(&run);
}

static void guard_at_connect_and_at_reuse(void **state)
{
	struct world *world = world_of(state);
	struct run run = plain(world, "/ok"), by_name = named(world, "pin.test", "/ok");

	world->fetch->guard = world->strict;
	assert_err(finish(&run), -ERR_ADDRESS_DENIED);
	drop(&run);
	assert_err(finish(&by_name), -ERR_ADDRESS_DENIED);
	drop(&by_name);
	assert_int_equal(world->server.n_connections, 0);
	assert_int_equal(world->metrics.blocked, 2);

	world->fetch->guard = world->guard;
	assert_err(finish(&run), 0);
	drop(&run);
	world->fetch->guard = world->strict; /* the connection is there already */
	assert_err(finish(&run), -ERR_ADDRESS_DENIED);
	assert_int_equal(run.resp->status, 0);
	drop(&run);
	assert_int_equal(world->server.n_requests, 1);
}

static void reload_drops_idle_connections(void **state)
{
	struct world *world = world_of(state);
	struct run run = plain(world, "/ok"), hanging = plain(world, "/silent");

	assert_err(finish(&run), 0);
	drop(&run);
	start(&hanging);
	while (world->server.n_requests < 2)
		loop_turn(world->loop, 1000);
	fetch_reload(world->fetch, world->guard, NULL);
	assert_int_equal(world->fetch->n_connected, 1); /* the one that runs */
	assert_int_equal(world->fetch->retired.len, 1);
	assert_err(finish(&run), 0);
	assert_true(run.resp->is_new_connection);
	drop(&run);
	fetch_cancel(hanging.transfer);
	assert_int_equal(world->fetch->retired.len, 0);
	assert_int_equal(world->fetch->n_connected, 1);
}

/* ---- owners ---- */

static void callbacks_may_start_and_cancel(void **state)
{
	struct world *world = world_of(state);
	struct run first = plain(world, "/ok"), hanging = plain(world, "/silent"), next = plain(world, "/ok");

	first.starts = &next;
	first.cancels = &hanging;
	start(&hanging);
	start(&first);
	wait_for(&first);
	wait_for(&next);
	assert_err(next.resp, 0);
	assert_null(hanging.resp);
	drop(&first);
	drop(&next);
	/* Cancel of one that waits on the done list behind it: the time of both is up in one turn. */
	struct run late = plain(world, "/silent"), later = plain(world, "/silent");
	late.req.total_ms = later.req.total_ms = 1;
	late.cancels = &later;
	later.cancels = &late;
	start(&late);
	start(&later);
	int64_t until_us = clock_now_us() + 2 * US_PER_MS;
	while (clock_now_us() < until_us)
		;
	wait_for(&late);
	loop_turn(world->loop, 0);
	assert_null(later.resp);
	assert_null(later.transfer);
	drop(&late);
	assert_int_equal(world->fetch->running.len, 0);
	assert_int_equal(world->fetch->done.len, 0);
}

static void a_pause_stops_bytes_and_timers(void **state)
{
	struct world *world = world_of(state);
	struct run run = plain(world, "/big");

	run.req.total_ms = 100;
	run.req.stall_ms = 100;
	start(&run);
	fetch_pause(run.transfer, true); /* before it is connected */
	while (!run.transfer->is_recv_paused)
		loop_turn(world->loop, 1000);
	int64_t until_us = clock_now_us() + 150 * US_PER_MS;
	while (clock_now_us() < until_us)
		loop_turn(world->loop, 10000);
	assert_null(run.resp);
	assert_int_equal(world->server.n_requests, 1);
	assert_int_equal(run.transfer->resp->body.len, 0);
	int64_t end_us = run.transfer->end_us;
	fetch_pause(run.transfer, false);
	assert_true(run.transfer->end_us >= end_us + 150 * US_PER_MS);
	run.transfer->end_us += GIVE_UP_US; /* no hurry on a slow machine */
	run.transfer->stall_us = GIVE_UP_US;
	fetch_pause(run.transfer, true); /* now libcurl can take it */
	assert_true(run.transfer->is_recv_paused);
	for (int i = 0; i < 5; i++)
		loop_turn(world->loop, 1000);
	size_t len = run.transfer->resp->body.len;
	assert_true(transfer_bytes(run.transfer) >= len);
	assert_int_equal(fetch_bytes(world->fetch), transfer_bytes(run.transfer));
	for (int i = 0; i < 5; i++)
		loop_turn(world->loop, 1000);
	assert_int_equal(run.transfer->resp->body.len, len);
	fetch_pause(run.transfer, false);
	wait_for(&run);
	assert_err(run.resp, 0);
	assert_int_equal(run.resp->body.len, 100000);
	drop(&run);
}

static void handles_of_http2_are_not_used_again(void **state)
{
	struct world *world = world_of(state);

	for (int is_http2 = 0; is_http2 < 2; is_http2++) {
		struct run run = plain(world, "/ok");
		run.req.is_http2 = is_http2;
		start(&run);
		wait_for(&run);
		assert_err(run.resp, 0);
		assert_int_equal(world->fetch->pool.len, is_http2 ? 0 : 1);
		drop(&run);
	}
}

/* libcurl 7.88 hands them out in one piece then. */
static void trailers_may_come_during_a_pause(void **state)
{
	struct run run = plain(world_of(state), "/chunked");
	struct span value;

	start(&run);
	fetch_pause(run.transfer, true);
	while (!run.transfer->is_recv_paused)
		loop_turn(run.world->loop, 1000);
	fetch_pause(run.transfer, false);
	wait_for(&run);
	assert_err(run.resp, 0);
	assert_body(run.resp, "abcdefg");
	assert_true(response_header(run.resp, "X-Last", &value) && value.len == 1 && value.data[0] == 'z');
	assert_true(response_header(run.resp, "X-Too", &value) && value.len == 1 && value.data[0] == 'y');
	drop(&run);
}

/* The cap is reached inside curl_easy_pause. */
static void a_resume_may_end_it(void **state)
{
	struct world *world = world_of(state);
	struct run run = plain(world, "/big");

	run.req.body_max_bytes = 100;
	start(&run);
	fetch_pause(run.transfer, true);
	while (!run.transfer->is_recv_paused)
		loop_turn(world->loop, 1000);
	fetch_pause(run.transfer, false);
	assert_null(run.resp);
	wait_for(&run);
	assert_err(run.resp, 0);
	assert_int_equal(run.resp->truncated, TRUNCATED_LENGTH);
	assert_int_equal(run.resp->body.len, 100);
	drop(&run);
}

static void thousands_in_sequence_use_one_connection(void **state)
{
	struct world *world = world_of(state);

	for (int i = 0; i < 5000; i++) {
		struct run run = named(world, "pin.test", "/ok");
		assert_err(finish(&run), 0);
		assert_body(run.resp, "hello");
		drop(&run);
	}
	assert_int_equal(world->server.n_connections, 1);
	assert_int_equal(world->fetch->pool.len, 1);
	assert_int_equal(fetch_bytes(world->fetch), 0);
}

static void many_at_once_go_to_several_lanes(void **state)
{
	struct world *world = world_of(state);
	static struct run runs[300];

	for (int i = 0; i < (int)ARRAY_LEN(runs); i++) {
		runs[i] = plain(world, "/echo");
		runs[i].req.host_slot = i;
		start(&runs[i]);
	}
	assert_ptr_not_equal(runs[0].transfer->lane, runs[SLOTS_PER_LANE].transfer->lane);
	assert_ptr_equal(runs[0].transfer->lane, runs[SLOTS_PER_LANE - 1].transfer->lane);
	if (curl_version_info(CURLVERSION_NOW)->features & CURL_VERSION_HTTP2) {
		struct run other = plain(world, "/ok");
		other.req.is_http2 = true;
		start(&other);
		assert_ptr_not_equal(other.transfer->lane, runs[0].transfer->lane);
		fetch_cancel(other.transfer);
	}
	for (size_t i = 0; i < ARRAY_LEN(runs); i++) {
		wait_for(&runs[i]);
		assert_err(runs[i].resp, 0);
		drop(&runs[i]);
	}
}

/* ---- a seed decides ---- */

#define CROWD 100

struct crowd {
	struct run runs[CROWD];
	bool is_paused[CROWD];
	uint32_t seed;
	size_t n_started, n_cancelled, n_answered;
};

static uint32_t dice(struct crowd *crowd, uint32_t n)
{
	crowd->seed = crowd->seed * 1103515245U + 12345U;
	return (crowd->seed >> 8) % n;
}

static void crowd_start(struct crowd *crowd, size_t i, struct world *world)
{
	static const char *const paths[] = {"/ok", "/big", "/chunked", "/bye", "/echo"};
	const char *path = paths[dice(crowd, ARRAY_LEN(paths))];
	char host[32];

	snprintf(host, sizeof(host), "h%u.test", dice(crowd, 10));
	crowd->runs[i] = dice(crowd, 4) ? named(world, host, path) : plain(world, path);
	crowd->runs[i].req.method = dice(crowd, 8) || strcmp(path, "/ok") != 0 ? "GET" : "HEAD";
	crowd->runs[i].req.host_slot = (int32_t)dice(crowd, 3) * SLOTS_PER_LANE;
	crowd->runs[i].req.total_ms = GIVE_UP_US / US_PER_MS;
	crowd->is_paused[i] = false;
	crowd->n_started++;
	start(&crowd->runs[i]);
}

static void crowd_act(struct crowd *crowd, struct world *world)
{
	size_t i = dice(crowd, CROWD);
	struct run *run = &crowd->runs[i];

	if (!run->transfer) {
		crowd_start(crowd, i, world);
	} else if (dice(crowd, 4) == 0) {
		fetch_cancel(run->transfer);
		run->transfer = NULL;
		crowd->n_cancelled++;
	} else {
		crowd->is_paused[i] = !crowd->is_paused[i];
		fetch_pause(run->transfer, crowd->is_paused[i]);
	}
}

/* Every answer is whole, whoever had the handle and the connection before. */
static void crowd_collect(struct crowd *crowd)
{
	for (size_t i = 0; i < CROWD; i++) {
		struct response *resp = crowd->runs[i].resp;
		if (!resp)
			continue;
		assert_err(resp, 0);
		assert_int_equal(resp->status, 200);
		assert_int_equal(resp->truncated, TRUNCATED_NONE);
		if (resp->declared_length >= 0 && resp->body_length)
			assert_int_equal(resp->body_length, resp->declared_length);
		crowd->n_answered++;
		drop(&crowd->runs[i]);
	}
}

static void owners_do_what_they_like(void **state)
{
	struct world *world = world_of(state);
	struct crowd *crowd = xcalloc(1, sizeof(*crowd));
	int64_t progress_us;

	for (crowd->seed = 1; crowd->n_started < 3000;) {
		for (int k = 0; k < 8; k++)
			crowd_act(crowd, world);
		loop_turn(world->loop, 1000);
		crowd_collect(crowd);
		if (dice(crowd, 100) == 0)
			fetch_reload(world->fetch, world->guard, NULL);
	}
	for (size_t i = 0; i < CROWD; i++)
		if (crowd->runs[i].transfer && crowd->is_paused[i])
			fetch_pause(crowd->runs[i].transfer, false);
	progress_us = clock_now_us();
	while (crowd->n_started > crowd->n_cancelled + crowd->n_answered && clock_now_us() < progress_us + GIVE_UP_US) {
		size_t n = crowd->n_answered;
		loop_turn(world->loop, 1000);
		crowd_collect(crowd);
		if (crowd->n_answered > n)
			progress_us = clock_now_us();
	}
	assert_int_equal(crowd->n_started, crowd->n_cancelled + crowd->n_answered);
	assert_int_equal(world->fetch->running.len, 0);
	assert_int_equal(world->fetch->retired.len, 0);
	assert_int_equal(fetch_bytes(world->fetch), 0);
	free(crowd);
}

/* The loop turns on without it. */
static void freed_with_transfers_running(void **state)
{
	struct run runs[3];

	for (size_t i = 0; i < ARRAY_LEN(runs); i++) {
		runs[i] = plain(world_of(state), i ? "/silent" : "/ok");
		start(&runs[i]);
	}
	while (world_of(state)->server.n_requests < 3)
		loop_turn(world_of(state)->loop, 1000);
	if (runs[0].resp)
		drop(&runs[0]);
	fetch_free(world_of(state)->fetch);
	world_of(state)->fetch = NULL;
	loop_turn(world_of(state)->loop, 1000);
}

/* Whatever libcurl makes of the proxies' users: they share no multi. */
static void proxies_have_lanes_of_their_own(void **state)
{
	struct world *world = world_of(state);
	char host[] = "127.0.0.1", key[32], url[48], ann[] = "ann", bob[] = "bob";
	snprintf(key, sizeof(key), "127.0.0.1:%u", world->server.port);
	snprintf(url, sizeof(url), "http://%s", key);
	struct proxy proxies[] = {
	    {.name = ann, .url = url, .host = host, .key = key, .port = world->server.port, .is_literal = true, .user = ann},
	    {.name = bob, .url = url, .host = host, .key = key, .port = world->server.port, .is_literal = true, .user = bob}};
	const struct proxy *way[] = {NULL, &proxies[0], &proxies[1], &proxies[0], &proxies[1], NULL};
	struct lane *lane[ARRAY_LEN(way)];

	for (size_t i = 0; i < ARRAY_LEN(way); i++) {
		struct run run = named(world, "target.test", "/echo");
		run.req.proxy = way[i];
		start(&run);
		lane[i] = run.transfer->lane;
		wait_for(&run);
		assert_err(run.resp, 0);
		assert_int_equal(body_has(run.resp, "\r\nProxy-Authorization: Basic "), way[i] != NULL);
		drop(&run);
	}
	assert_ptr_equal(lane[0], lane[5]);
	assert_ptr_equal(lane[1], lane[3]);
	assert_ptr_equal(lane[2], lane[4]);
	assert_ptr_not_equal(lane[1], lane[2]);
	assert_ptr_not_equal(lane[0], lane[1]);
	assert_ptr_not_equal(lane[0], lane[2]);
	/* A reload ends them, and the proxies that they were for. */
	fetch_reload(world->fetch, world->guard, NULL);
	assert_null(world->fetch->proxies);
	proxies[0].user = bob;
	struct run run = named(world, "target.test", "/echo");
	run.req.proxy = &proxies[0];
	assert_err(finish(&run), 0);
	assert_true(body_has(run.resp, "\r\nProxy-Authorization: Basic Ym9iOg==\r\n"));
	drop(&run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(a_name_is_never_looked_up),
	    TEST(addresses_are_told_once),
	    TEST(the_next_address_is_tried),
	    TEST(the_next_address_is_tried_after_a_black_hole),
	    TEST(ipv6_literals_are_judged_too),
	    TEST(a_connection_closed_while_idle_is_made_anew),
	    TEST(hosts_asked_rarely_keep_few_connections),
	    TEST(a_lost_address_is_told_again),
	    TEST(a_cancelled_list_does_not_leak_into_the_next_job),
	    TEST(memory_of_addresses_is_bounded),
	    TEST(tls_with_a_pinned_name),
	    TEST(the_system_store_is_not_ours),
	    TEST(guard_at_connect_and_at_reuse),
	    TEST(reload_drops_idle_connections),
	    TEST(callbacks_may_start_and_cancel),
	    TEST(a_pause_stops_bytes_and_timers),
	    TEST(handles_of_http2_are_not_used_again),
	    TEST(trailers_may_come_during_a_pause),
	    TEST(a_resume_may_end_it),
	    TEST(thousands_in_sequence_use_one_connection),
	    TEST(many_at_once_go_to_several_lanes),
	    TEST(owners_do_what_they_like),
	    TEST(freed_with_transfers_running),
	    TEST(proxies_have_lanes_of_their_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
