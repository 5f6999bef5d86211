/* fetch - transfers on lanes, happy path first:
 * fetch_start -> options, addresses, curl_multi_add_handle -> the hook runs the lane -> sockets -> lane_drain ->
 * transfer_end
 * -> the done list -> the hook calls the owner.
 *
 * Ends otherwise by: fetch_cancel (no callback), a deadline of ours (total, stall), a cap (fetch_recv.c), the guard
 * (fetch_lane.c, fetch_opts.c), libcurl's error (fetch_end.c). */
#include "fetch_internal.h"

#include "clock.h"

#include <stdio.h>
#include <sys/resource.h>

#define NEVER_US (INT64_MAX / 4)

/* FNV-1a: 64 lanes need no more. */
static uint32_t hash_text(const char *text)
{
	uint32_t hash = 2166136261U;

	for (; *text; text++)
		hash = (hash ^ (uint8_t)*text) * 16777619U;
	return hash;
}

/* ---- transfer structs, each with its easy handle ---- */

static struct transfer *transfer_get(struct fetch *fetch)
{
	struct list_node *node = list_pop(&fetch->pool);

	if (node)
		return CONTAINER_OF(node, struct transfer, node);
	struct transfer *t = xcalloc(1, sizeof(*t));
	t->fetch = fetch;
	t->easy = curl_easy_init();
	if (!t->easy)
		abort();
	return t;
}

static void transfer_free(struct transfer *t)
{
	curl_easy_cleanup(t->easy);
	EVP_MD_CTX_free(t->md);
	free(t);
}

/* Back to the pool with all that it still holds. Not one that was for HTTP/2: while other streams use its
 * connection, 7.88 leaves the handle its read buffer, which then is not of the size asked for, and what came during a
 * pause. */
static void transfer_put(struct transfer *t)
{
	struct fetch *fetch = t->fetch;

	list_remove(&t->node);
	fetch->bytes -= t->counted_bytes;
	if (t->resp) {
		response_done(t->resp);
		free(t->resp);
	}
	curl_easy_reset(t->easy);
	free(t->header_block);
	free(t->peer_text);
	if (fetch->pool.len >= POOL_MAX || t->is_http2) {
		transfer_free(t);
		return;
	}
	struct transfer kept = {.fetch = fetch, .easy = t->easy, .md = t->md};
	memcpy(t, &kept, offsetof(struct transfer, errbuf));
	t->errbuf[0] = '\0';
	list_push_front(&fetch->pool, &t->node);
}

/* ---- deadlines: total and stall, in one heap, looked at when they may have come ---- */

void fetch_arm(struct fetch *fetch)
{
	const struct heap_node *lane = heap_first(&fetch->lane_timers), *deadline = heap_first(&fetch->deadlines);
	int64_t at_us = MIN(lane ? lane->at_us : INT64_MAX, deadline ? deadline->at_us : INT64_MAX);

	if (at_us >= fetch->timer_at_us)
		return;
	fetch->timer_at_us = at_us;
	loop_timer_set(&fetch->timer, at_us);
}

/* No byte moves a timer: last_byte_us is compared when the time may be over. */
static void deadline_set(struct transfer *t, int64_t now_us)
{
	int64_t stall_us = (t->last_byte_us ? t->last_byte_us : now_us) + t->stall_us;

	heap_set(&t->fetch->deadlines, &t->deadline, MIN(t->end_us, stall_us));
	fetch_arm(t->fetch);
}

static bool is_stalled(struct transfer *t, int64_t now_us)
{
	curl_off_t wire = 0;

	if (!t->last_byte_us || now_us < t->last_byte_us + t->stall_us)
		return false;
	if (!t->is_coded)
		return true;
	/* Bytes may have come that did not decode to any yet. */
	curl_easy_getinfo(t->easy, CURLINFO_SIZE_DOWNLOAD_T, &wire);
	if (wire == t->wire_seen)
		return true;
	t->wire_seen = wire;
	t->last_byte_us = now_us;
	return false;
}

static void on_deadline(struct transfer *t, int64_t now_us)
{
	struct lane *lane = t->lane;

	if (now_us >= t->end_us) {
		t->err = -ERR_FETCH_TIMEOUT;
		snprintf(t->resp->detail, sizeof(t->resp->detail), "time was up while %s",
			 t->last_byte_us ? "the answer was coming"
			 : t->is_sent	 ? "waiting for the first byte"
					 : "connecting");
	} else if (is_stalled(t, now_us)) {
		t->err = -ERR_FETCH_STALLED;
	} else {
		deadline_set(t, now_us);
		return;
	}
	transfer_end(t, CURLE_OK);
	lane_release(lane);
}

static void on_loop_timer(void *ctx)
{
	struct fetch *fetch = ctx;
	int64_t now_us = loop_now_us(fetch->loop);
	struct heap_node *node;

	fetch->timer_at_us = INT64_MAX;
	fetch->is_inside = true;
	while ((node = heap_first(&fetch->lane_timers)) && node->at_us <= now_us) {
		struct lane *lane = CONTAINER_OF(node, struct lane, timer);
		heap_remove(&fetch->lane_timers, node);
		lane->is_due = true;
		lane_touch(lane);
	}
	while ((node = heap_first(&fetch->deadlines)) && node->at_us <= now_us)
		on_deadline(CONTAINER_OF(node, struct transfer, deadline), now_us);
	fetch->is_inside = false;
	fetch_arm(fetch);
}

/* ---- connecting to the next address ---- */

void transfer_nudge(struct transfer *t)
{
	if (t && t->lane && !t->is_sent && !t->is_dropping && !t->nudge.list)
		list_push(&t->fetch->nudged, &t->nudge);
}

/* There is no call for it, but the end of a pause makes libcurl run a transfer. */
static void nudge_all(struct fetch *fetch)
{
	struct list_node *node;

	while ((node = list_pop(&fetch->nudged))) {
		struct transfer *t = CONTAINER_OF(node, struct transfer, nudge);
		if (t->is_sent || curl_easy_pause(t->easy, CURLPAUSE_RECV) != CURLE_OK)
			continue;
		curl_easy_pause(t->easy, CURLPAUSE_CONT);
	}
}

/* ---- the end of a transfer ---- */

/* Off the lane; what it holds stays until transfer_put. */
static void transfer_detach(struct transfer *t)
{
	/* What came during a pause is taken now. */
	t->is_dropping = true;
	if (t->is_recv_paused)
		curl_easy_pause(t->easy, CURLPAUSE_CONT);
	curl_multi_remove_handle(t->lane->multi, t->easy);
	heap_remove(&t->fetch->deadlines, &t->deadline);
	pin_release(t);
	t->lane->n_running--;
	t->lane = NULL;
	list_remove(&t->nudge);
	list_remove(&t->node);
}

/* libcurl had no address for the host although it was told once: tell it again. */
static bool transfer_again(struct transfer *t)
{
	curl_multi_remove_handle(t->lane->multi, t->easy);
	t->is_missed = false;
	t->is_refed = true;
	pin_feed_again(t);
	return curl_easy_setopt(t->easy, CURLOPT_RESOLVE, t->resolve) == CURLE_OK &&
	       curl_multi_add_handle(t->lane->multi, t->easy) == CURLM_OK;
}

void transfer_end(struct transfer *t, CURLcode code)
{
	struct fetch *fetch = t->fetch;
	bool has_no_address = code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_RESOLVE_PROXY;

	if (has_no_address && t->is_missed && t->addrs.n && !t->is_refed && transfer_again(t))
		return;
	end_collect(t, code);
	transfer_detach(t);
	list_push(&fetch->done, &t->node);
	if (!fetch->is_inside)
		loop_again(fetch->loop);
}

/* The owner may start, cancel and pause whatever it likes in here. */
static void transfer_answer(struct transfer *t)
{
	fetch_done_fn fn = t->fn;
	void *ctx = t->ctx;
	struct response *resp = t->resp;

	t->resp = NULL;
	transfer_put(t);
	fn(ctx, resp);
}

static void on_after_turn(void *ctx)
{
	struct fetch *fetch = ctx;
	struct list_node *node;

	fetch->is_inside = true;
	nudge_all(fetch);
	/* What becomes due meanwhile has its run in the next turn, so that no lane keeps the loop. */
	for (size_t n = fetch->work.len; n > 0 && (node = list_pop(&fetch->work)); n--) {
		struct lane *lane = CONTAINER_OF(node, struct lane, work);
		if (lane->is_due)
			lane_run(lane);
		lane_drain(lane);
	}
	while ((node = list_first(&fetch->done)))
		transfer_answer(CONTAINER_OF(node, struct transfer, node));
	fetch->is_inside = false;
	if (!list_empty(&fetch->work) || !list_empty(&fetch->nudged))
		loop_again(fetch->loop);
}

/* ---- start, cancel, pause ---- */

/* HTTP/2 has lanes of its own: 7.88 lets a request that wants 1.1 take a connection to the same host that speaks 2, and
 * then reads its frames as an answer. */
static struct lane *lane_for(struct fetch *fetch, const struct fetch_request *req)
{
	uint32_t hash = hash_text(req->url->key) + (uint32_t)req->host_slot / SLOTS_PER_LANE;
	struct lane **lane = req->proxy ? proxy_lane(fetch, req->proxy, hash, req->is_http2)
					: &fetch->lanes[req->is_http2][hash % LANES];

	if (!*lane)
		*lane = lane_new(fetch);
	return *lane;
}

static void transfer_fill(struct transfer *t, const struct fetch_request *req)
{
	t->url = req->url;
	peer_init(t, req);
	t->key_hash = hash_text(t->peer.key);
	t->lane = lane_for(t->fetch, req);
	if (req->addrs && !t->peer.is_literal) {
		t->addrs.n = req->addrs->n;
		memcpy(t->addrs.v, req->addrs->v, req->addrs->n * sizeof(req->addrs->v[0]));
	}
	t->body_max_bytes = req->body_max_bytes;
	t->body_overflow_fails = req->body_overflow_fails;
	t->body_mode = req->body_mode;
	t->is_http2 = req->is_http2;
	t->is_head = strcmp(req->method, "HEAD") == 0;
	t->start_us = clock_now_us();
	t->end_us = t->start_us + (req->total_ms > 0 ? req->total_ms * US_PER_MS : NEVER_US);
	t->stall_us = req->stall_ms > 0 ? req->stall_ms * US_PER_MS : NEVER_US;
	t->resp = xcalloc(1, sizeof(*t->resp));
	response_init(t->resp, req->body_max_bytes);
	if (t->body_mode == BODY_MODE_HASH_ONLY) {
		if (!t->md)
			t->md = EVP_MD_CTX_new();
		if (!t->md || EVP_DigestInit_ex2(t->md, t->fetch->sha256, NULL) != 1)
			abort();
	}
}

int fetch_start(struct fetch *fetch, const struct fetch_request *req, fetch_done_fn fn, void *ctx,
		struct transfer **ret_transfer)
{
	struct transfer *t = transfer_get(fetch);

	transfer_fill(t, req);
	t->fn = fn;
	t->ctx = ctx;
	pin_feed(t);
	if (opts_set(t, req) < 0 || curl_multi_add_handle(t->lane->multi, t->easy) != CURLM_OK) {
		pin_release(t);
		transfer_put(t);
		return -ERR_SYSTEM;
	}
	t->lane->n_running++;
	list_push(&fetch->running, &t->node);
	deadline_set(t, t->start_us);
	*ret_transfer = t;
	return 0;
}

void fetch_cancel(struct transfer *t)
{
	struct lane *lane = t->lane;

	if (lane) {
		transfer_detach(t);
		lane_release(lane);
	}
	transfer_put(t);
}

static void transfer_resume(struct transfer *t, int64_t now_us)
{
	int64_t pause_us = now_us - t->paused_us;
	struct lane *lane = t->lane;

	t->paused_us = 0;
	t->end_us += pause_us;
	if (t->last_byte_us)
		t->last_byte_us += pause_us;
	deadline_set(t, now_us);
	if (!t->is_recv_paused)
		return;
	t->is_recv_paused = false;
	/* It hands out what it had read: the caps may end the transfer in here. */
	CURLcode code = curl_easy_pause(t->easy, CURLPAUSE_CONT);
	if (code != CURLE_OK && code != CURLE_BAD_FUNCTION_ARGUMENT) {
		transfer_end(t, code);
		lane_release(lane);
	}
}

void fetch_pause(struct transfer *t, bool is_paused)
{
	int64_t now_us = loop_now_us(t->fetch->loop);

	if (!t->lane || is_paused == (t->paused_us != 0))
		return;
	if (!is_paused) {
		transfer_resume(t, now_us);
		return;
	}
	t->paused_us = now_us;
	heap_remove(&t->fetch->deadlines, &t->deadline);
	/* Before the headers are through, 7.88 would keep their lines in the wrong order or refuse: then on_body says
	 * it. */
	if (t->is_block_ended && recv_is_final(t->status) && curl_easy_pause(t->easy, CURLPAUSE_RECV) == CURLE_OK)
		t->is_recv_paused = true;
}

size_t fetch_bytes(const struct fetch *fetch)
{
	return fetch->bytes;
}

size_t transfer_bytes(const struct transfer *t)
{
	return t->counted_bytes;
}

/* ---- the engine ---- */

/* Idle connections may not take the descriptors that transfers need. */
static size_t idle_limit(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur == RLIM_INFINITY)
		return IDLE_MAX;
	return (size_t)MIN(files.rlim_cur / 4, (rlim_t)IDLE_MAX);
}

struct fetch *fetch_new(struct loop *loop, struct metrics *metrics, struct log *log, const struct netguard *guard,
			struct tls_store *store)
{
	struct fetch *fetch = xcalloc(1, sizeof(*fetch));

	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		abort();
	fetch->loop = loop;
	fetch->own_metrics = metrics ? NULL : xcalloc(1, sizeof(*metrics));
	fetch->metrics = metrics ? metrics : fetch->own_metrics;
	fetch->log = log;
	fetch->guard = guard;
	fetch->store = store;
	fetch->idle_max = idle_limit();
	fetch->timer_at_us = INT64_MAX;
	list_init(&fetch->retired);
	list_init(&fetch->work);
	list_init(&fetch->pool);
	list_init(&fetch->running);
	list_init(&fetch->done);
	list_init(&fetch->nudged);
	heap_init(&fetch->lane_timers);
	heap_init(&fetch->deadlines);
	/* Fetched once: by name each digest would search the providers. */
	fetch->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	fetch->md = EVP_MD_CTX_new();
	if (!fetch->sha256 || !fetch->md)
		abort();
	opts_init(fetch);
	loop_timer_init(loop, &fetch->timer, on_loop_timer, fetch);
	loop_after_turn(loop, on_after_turn, fetch);
	return fetch;
}

static void list_free_all(struct list *list)
{
	struct list_node *node;

	while ((node = list_pop(list)))
		transfer_free(CONTAINER_OF(node, struct transfer, node));
}

/* libcurl has no call that drops idle connections, so a whole lane goes, with its last transfer. */
static void lanes_retire(struct fetch *fetch)
{
	for (size_t i = 0; i < 2 * LANES; i++) {
		struct lane **lane = &fetch->lanes[i / LANES][i % LANES];
		if (*lane)
			lane_retire(*lane);
		*lane = NULL;
	}
	proxy_lanes_retire(fetch);
}

void fetch_free(struct fetch *fetch)
{
	struct list_node *node;

	if (!fetch)
		return;
	while ((node = list_first(&fetch->running)) || (node = list_first(&fetch->done)))
		fetch_cancel(CONTAINER_OF(node, struct transfer, node));
	loop_after_turn_clear(fetch->loop, on_after_turn, fetch);
	list_free_all(&fetch->pool);
	lanes_retire(fetch); /* none runs anything */
	loop_timer_done(&fetch->timer);
	heap_done(&fetch->lane_timers);
	heap_done(&fetch->deadlines);
	EVP_MD_free(fetch->sha256);
	EVP_MD_CTX_free(fetch->md);
	tls_store_free(fetch->store);
	sockets_free(fetch);
	free(fetch->own_metrics);
	free(fetch);
	curl_global_cleanup();
}

void fetch_reload(struct fetch *fetch, const struct netguard *guard, struct tls_store *store)
{
	fetch->guard = guard;
	if (store) {
		tls_store_free(fetch->store);
		fetch->store = store;
	}
	lanes_retire(fetch);
}
