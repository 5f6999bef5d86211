#include "net.h"

#include "err.h"
#include "fetch.h"
#include "options.h"
#include "pipeline.h"
#include "resolve.h"
#include "task.h"

#include <stdio.h>

#define BODY_SMALL 2000
#define RELOAD_GRACE_US (5 * US_PER_S)

struct net net;

/* ---- origins ---- */

static void origin_start(struct origin *origin, size_t i, double trouble)
{
	*origin = (struct origin){.latency_us = rnd_between(2, 600) * US_PER_MS, .dns_us = rnd_between(1, 300) * US_PER_MS};
	snprintf(origin->name, sizeof(origin->name), "h%zu.example.com", i);
	if (i == 1 && chance(0.5)) {
		origin->is_literal = true;
		snprintf(origin->name, sizeof(origin->name), "93.184.216.%d", (int)rnd(250) + 1);
	}
	if (!chance(trouble))
		return;
	double *const troubles[] = {&origin->dns_fails, &origin->refuses, &origin->hangs,   &origin->stalls,   &origin->breaks,
				    &origin->redirects, &origin->errors,  &origin->is_busy, &origin->has_large};
	for (size_t n = rnd(4) + 1; n > 0; n--)
		*troubles[rnd(ARRAY_LEN(troubles))] = chance(0.2) ? 0.9 : 0.02 * (double)rnd(20);
	origin->is_private = i > 1 && chance(0.1);
	origin->is_dead_name = i > 0 && !origin->is_literal && chance(0.15);
	if (chance(0.1))
		origin->latency_us = rnd_between(1, 20) * US_PER_S;
}

void net_start(double trouble, int64_t body_max)
{
	net.n_origins = rnd(ORIGINS_MAX) + 1;
	net.body_max = body_max;
	memset(net.origins, 0, sizeof(net.origins));
	for (size_t i = 0; i < net.n_origins; i++)
		origin_start(&net.origins[i], i, trouble);
}

/* Skewed: the first origin gets about a third. */
static const struct origin *some_origin(void)
{
	return &net.origins[rnd(rnd(net.n_origins) + 1)];
}

void net_url(char *out, size_t size)
{
	snprintf(out, size, "%s://%s/%d", chance(0.8) ? "http" : "https", some_origin()->name, (int)rnd(1000000));
}

/* One past the last: a name that nobody has. */
static size_t origin_index(const char *host)
{
	size_t i = 0;

	while (i < net.n_origins && strcmp(net.origins[i].name, host) != 0)
		i++;
	return i;
}

/* ---- names ---- */

struct lookup {
	struct event event;
	struct resolve *rs;
	struct list queries;
	int64_t since_us, known_until_us;
	int err;
};

struct resolve {
	struct loop *loop;
	int64_t timeout_us;
	struct lookup lookups[ORIGINS_MAX + 1];
};

int resolve_new(struct loop *loop, struct metrics *metrics, struct log *log, char *const servers[], size_t n_servers,
		int64_t timeout_ms, struct resolve **ret_rs, char **ret_error)
{
	struct resolve *rs = xcalloc(1, sizeof(*rs));

	rs->loop = loop;
	rs->timeout_us = timeout_ms * US_PER_MS;
	for (size_t i = 0; i <= ORIGINS_MAX; i++) {
		rs->lookups[i].rs = rs;
		list_init(&rs->lookups[i].queries);
	}
	*ret_rs = rs;
	return 0;
}

void resolve_free(struct resolve *rs)
{
	for (size_t i = 0; rs && i <= ORIGINS_MAX; i++) {
		event_clear(&rs->lookups[i].event);
		if (!list_empty(&rs->lookups[i].queries))
			fail("machine %d: a query is alive when the resolver goes", rs->loop->machine->id);
	}
	free(rs);
}

void resolve_reload(struct resolve *rs, int64_t timeout_ms)
{
	rs->timeout_us = timeout_ms * US_PER_MS;
}

static void fill_addresses(size_t origin, struct addresses *addrs)
{
	addrs->n = 1 + rnd(2);
	for (size_t i = 0; i < addrs->n; i++)
		if (address_parse(net.origins[origin].is_private ? "10.0.0.5" : "93.184.216.34", &addrs->v[i]))
			abort();
}

int resolve_cached(struct resolve *rs, const char *host, struct addresses *ret_addrs)
{
	size_t origin = origin_index(host);
	const struct lookup *lookup = &rs->lookups[origin];

	if (world.now_us >= lookup->known_until_us)
		return -ERR_AGAIN;
	if (!lookup->err)
		fill_addresses(origin, ret_addrs);
	return lookup->err;
}

static void on_answer(void *ctx)
{
	struct lookup *lookup = ctx;
	struct addresses addrs = {.n = 0};
	struct list now;
	struct list_node *node;

	lookup->known_until_us = world.now_us + (lookup->err ? 2 : rnd_between(5, 60)) * US_PER_S;
	trace(lookup->rs->loop->machine, "resolved", lookup - lookup->rs->lookups, lookup->err);
	if (!lookup->err)
		fill_addresses((size_t)(lookup - lookup->rs->lookups), &addrs);
	list_init(&now);
	while ((node = list_pop(&lookup->queries)))
		list_push(&now, node);
	/* A callback may cancel those that follow, and ask anew. */
	while ((node = list_pop(&now))) {
		struct resolve_query *query = CONTAINER_OF(node, struct resolve_query, node);
		query->fn(query->ctx, lookup->err, &addrs, world.now_us - lookup->since_us);
	}
}

static int lookup_outcome(const struct resolve *rs, size_t origin, int64_t *ret_us)
{
	const struct origin *it = &net.origins[origin];

	*ret_us = latency_us(it->dns_us);
	if (origin == net.n_origins)
		return -ERR_DNS_NXDOMAIN;
	if (it->is_dead_name || *ret_us >= rs->timeout_us) {
		*ret_us = rs->timeout_us;
		return -ERR_DNS_TIMEOUT;
	}
	return chance(it->dns_fails) ? (chance(0.5) ? -ERR_DNS_SERVFAIL : -ERR_DNS_NXDOMAIN) : 0;
}

void resolve_start(struct resolve *rs, const char *host, struct resolve_query *query, resolve_fn fn, void *ctx)
{
	size_t origin = origin_index(host);
	struct lookup *lookup = &rs->lookups[origin];
	int64_t us;

	query->fn = fn;
	query->ctx = ctx;
	if (list_empty(&lookup->queries) && !lookup->event.due.place) {
		seen.lookups++;
		lookup->since_us = world.now_us;
		lookup->err = lookup_outcome(rs, origin, &us);
		event_set(&lookup->event, rs->loop, world.now_us + us, on_answer, lookup);
	}
	list_push(&lookup->queries, &query->node);
}

void resolve_cancel(struct resolve_query *query)
{
	list_remove(&query->node);
}

/* ---- transfers ---- */

struct fetch {
	struct loop *loop;
	struct list transfers;
	size_t bytes;
	struct tls_store *store;
};

struct transfer {
	struct list_node node;
	struct fetch *fetch;
	struct event event;
	fetch_done_fn fn;
	void *ctx;
	size_t origin;
	bool is_https, is_paused;
	size_t bytes, body_len; /* held now; when the body is here */
	int64_t left_us;	/* while paused */
	int64_t body_us;	/* from the first byte to the end */
	struct response *resp;
};

struct tls_store {
	int nothing;
};

struct tls_store *tls_store_load(const char *ca_file, char **ret_error)
{
	return xcalloc(1, sizeof(struct tls_store));
}

void tls_store_free(struct tls_store *store)
{
	free(store);
}

struct fetch *fetch_new(struct loop *loop, struct metrics *metrics, struct log *log, const struct netguard *guard,
			struct tls_store *store)
{
	struct fetch *fetch = xcalloc(1, sizeof(*fetch));

	fetch->loop = loop;
	fetch->store = store;
	list_init(&fetch->transfers);
	return fetch;
}

static void transfer_free(struct transfer *transfer)
{
	event_clear(&transfer->event);
	list_remove(&transfer->node);
	transfer->fetch->bytes -= transfer->bytes;
	if (transfer->resp) {
		response_done(transfer->resp);
		free(transfer->resp);
	}
	free(transfer);
}

void fetch_free(struct fetch *fetch)
{
	if (!fetch)
		return;
	LIST_EACH(&fetch->transfers, transfer, struct transfer, node)
		transfer_free(transfer);
	tls_store_free(fetch->store);
	free(fetch);
}

void fetch_reload(struct fetch *fetch, const struct netguard *guard, struct tls_store *store)
{
	if (!store)
		return;
	tls_store_free(fetch->store);
	fetch->store = store;
}

static void on_end(void *ctx)
{
	struct transfer *transfer = ctx;
	struct response *resp = transfer->resp;
	fetch_done_fn fn = transfer->fn;
	void *fn_ctx = transfer->ctx;

	world.progress_us = world.now_us;
	trace(transfer->fetch->loop->machine, resp->err ? "fetch failed" : "fetched", resp->err ? resp->err : resp->status,
	      ((struct task *)fn_ctx)->rec.offset);
	transfer->resp = NULL;
	transfer_free(transfer);
	fn(fn_ctx, resp);
}

static void on_first_byte(void *ctx)
{
	struct transfer *transfer = ctx;

	transfer->bytes = transfer->body_len;
	transfer->fetch->bytes += transfer->bytes;
	event_set(&transfer->event, transfer->fetch->loop, world.now_us + transfer->body_us, on_end, transfer);
}

static void add_header(struct response *resp, const char *name, const char *value)
{
	if (buf_printf(&resp->headers, "%s: %s\r\n", name, value))
		abort();
}

static void answer_busy(struct response *resp)
{
	char text[64];

	resp->status = chance(0.5) ? 503 : 429;
	if (chance(0.5))
		return;
	snprintf(text, sizeof(text), "%d", chance(0.05) ? 99999999 : (int)rnd(12));
	add_header(resp, "Retry-After", text);
}

static void answer_redirect(struct response *resp, const struct url *url)
{
	static const int statuses[] = {301, 302, 303, 307, 308};
	char text[128];

	resp->status = statuses[rnd(ARRAY_LEN(statuses))];
	net.n_redirects++;
	switch (rnd(12)) {
	case 0:
		return;
	case 1:
		add_header(resp, "Location", "http://[bad/");
		return;
	case 2:
		add_header(resp, "Location", url->text);
		return;
	case 3:
		add_header(resp, "Location", "http://nobody.example.com/");
		return;
	case 4:
		add_header(resp, "Location", "http://10.1.2.3/");
		return;
	case 5:
		add_header(resp, "Location", "http://h0.example.com:22/");
		return;
	default:
		net_url(text, sizeof(text));
		add_header(resp, "Location", text);
	}
}

static void answer(const struct origin *origin, const struct url *url, struct response *resp)
{
	static const int errors[] = {400, 403, 404, 410, 500, 501, 502, 304};
	static const int good[] = {200, 200, 200, 200, 201, 204};

	resp->http_version = 11;
	add_header(resp, "Content-Type", "text/plain; charset=utf-8");
	if (chance(origin->redirects))
		answer_redirect(resp, url);
	else if (chance(origin->is_busy))
		answer_busy(resp);
	else if (chance(origin->errors))
		resp->status = errors[rnd(ARRAY_LEN(errors))];
	else
		resp->status = good[rnd(ARRAY_LEN(good))];
}

static const char robots_txt[] = "User-agent: *\nDisallow: /9\nCrawl-delay: 0.1\n";

/* How much is read of a body of len bytes. */
static size_t give_body(struct response *resp, const struct fetch_request *req, size_t len)
{
	size_t kept = MIN(len, req->body_max_bytes);

	resp->declared_length = (int64_t)len;
	resp->wire_length = resp->body_length = (int64_t)kept;
	if (len > kept && req->body_overflow_fails)
		resp->err = -ERR_BODY_TOO_LARGE;
	else if (len > kept)
		resp->truncated = TRUNCATED_LENGTH;
	resp->has_digest = req->body_mode != BODY_MODE_NONE;
	memset(resp->digest, (int)(len & 255), sizeof(resp->digest));
	if (req->body_mode == BODY_MODE_HASH_ONLY || req->body_mode == BODY_MODE_NONE || !kept)
		return kept;
	uint8_t *to = buf_reserve(&resp->body, kept);
	if (!to)
		abort();
	memset(to, 'x', kept);
	resp->body.len += kept;
	if (kept > sizeof(robots_txt) && strstr(req->url->text, "/robots.txt"))
		memcpy(to, robots_txt, sizeof(robots_txt) - 1);
	return kept;
}

/* When the first byte is here, and whether it comes at all. */
static int64_t plan_start(const struct origin *origin, const struct fetch_request *req, struct response *resp)
{
	int64_t us = latency_us(origin->latency_us);

	if (world.now_us < origin->down_until_us || chance(origin->refuses)) {
		resp->err = -ERR_CONNECT_REFUSED;
		us = MIN(us, 20 * US_PER_MS);
	} else if (chance(origin->hangs)) {
		resp->err = -ERR_CONNECT_TIMEOUT;
		us = req->connect_ms * US_PER_MS;
	} else if (chance(0.002)) {
		resp->err = chance(0.5) ? -ERR_CONNECT_NO_FDS : -ERR_TLS_CERTIFICATE;
	}
	return us;
}

static void plan_body(struct transfer *transfer, const struct origin *origin, const struct fetch_request *req)
{
	struct response *resp = transfer->resp;
	bool is_large = chance(origin->has_large);

	resp->is_new_connection = chance(0.5);
	answer(origin, req->url, resp);
	transfer->body_len = give_body(resp, req, is_large ? rnd((uint64_t)net.body_max * 2) : rnd(BODY_SMALL));
	transfer->body_us = latency_us(is_large ? origin->latency_us * 2 : US_PER_MS);
	if (chance(origin->stalls)) {
		transfer->body_us = req->stall_ms * US_PER_MS;
		resp->err = -ERR_FETCH_STALLED;
	} else if (chance(origin->breaks)) {
		resp->err = -ERR_DISCONNECTED;
		resp->truncated = TRUNCATED_DISCONNECT;
	}
}

/* The whole of the transfer is decided at its start. */
static void plan(struct transfer *transfer, const struct fetch_request *req)
{
	const struct origin *origin = &net.origins[transfer->origin];
	struct response *resp = transfer->resp;
	int64_t first_us = plan_start(origin, req, resp), total_us = req->total_ms * US_PER_MS;

	snprintf(resp->remote_ip, sizeof(resp->remote_ip), "93.184.216.34");
	resp->remote_port = req->url->port;
	resp->declared_length = -1;
	resp->truncated = TRUNCATED_NONE;
	if (!resp->err)
		plan_body(transfer, origin, req);
	if (first_us + transfer->body_us > total_us) {
		resp->err = -ERR_FETCH_TIMEOUT;
		resp->truncated = TRUNCATED_TIME;
		first_us = MIN(first_us, total_us);
		transfer->body_us = total_us - first_us;
	}
	resp->connect_us = first_us / 4;
	resp->first_byte_us = first_us;
	resp->total_us = first_us + transfer->body_us;
	if (resp->err)
		snprintf(resp->detail, sizeof(resp->detail), "simulated: %s", err_code(resp->err));
	event_set(&transfer->event, transfer->fetch->loop, world.now_us + first_us, on_first_byte, transfer);
}

/* The origin counts for itself, whatever the worker believes. */
static void check_caps(const struct fetch *fetch, const struct transfer *mine, const struct task *task)
{
	const struct machine *machine = fetch->loop->machine;
	const struct options *opts = machine->opts;
	int64_t host = 1, partition = 1;

	/* Who waited for a name when the limits were lowered has its slots. */
	if (machine->was_reloaded && (machine->was_frozen || world.now_us < machine->reload_us + RELOAD_GRACE_US))
		return;
	LIST_EACH(&fetch->transfers, other, struct transfer, node) {
		host += other->origin == mine->origin && other->is_https == mine->is_https;
		partition += ((struct task *)other->ctx)->partition == task->partition;
	}
	if (host > opts->host.host_inflight)
		fail("machine %d: %d transfers of one host", fetch->loop->machine->id, (int)host);
	if (partition > opts->partition_inflight)
		fail("machine %d: %d transfers of one partition, %d of its slots are taken, it has %d", fetch->loop->machine->id,
		     (int)partition, task->partition->admit.inflight, (int)opts->partition_inflight);
	if ((int64_t)fetch->transfers.len + 1 > opts->inflight)
		fail("machine %d: %zu transfers", fetch->loop->machine->id, fetch->transfers.len + 1);
}

static void check_request(const struct fetch *fetch, const struct fetch_request *req, const struct transfer *transfer)
{
	int id = fetch->loop->machine->id;

	if (req->total_ms <= 0 || req->connect_ms <= 0 || req->stall_ms <= 0)
		fail("machine %d: a transfer of %s without time", id, req->url->text);
	if (!req->url->is_literal && !req->addrs->n)
		fail("machine %d: a transfer of %s without addresses", id, req->url->text);
	if (transfer->origin == net.n_origins || net.origins[transfer->origin].is_private)
		fail("machine %d: a transfer of %s, which has no allowed address", id, req->url->text);
}

int fetch_start(struct fetch *fetch, const struct fetch_request *req, fetch_done_fn fn, void *ctx, struct transfer **ret_transfer)
{
	struct transfer *transfer;

	if (chance(0.001))
		return -ERR_CONNECT_NO_FDS;
	transfer = xcalloc(1, sizeof(*transfer));
	*transfer = (struct transfer){.fetch = fetch,
				      .fn = fn,
				      .ctx = ctx,
				      .origin = origin_index(req->url->host),
				      .is_https = req->url->is_https,
				      .resp = xcalloc(1, sizeof(*transfer->resp))};
	response_init(transfer->resp, req->body_max_bytes);
	check_request(fetch, req, transfer);
	check_caps(fetch, transfer, ctx);
	plan(transfer, req);
	list_push(&fetch->transfers, &transfer->node);
	seen.transfers++;
	*ret_transfer = transfer;
	return 0;
}

void fetch_cancel(struct transfer *transfer)
{
	seen.cancelled++;
	transfer_free(transfer);
}

void fetch_pause(struct transfer *transfer, bool is_paused)
{
	if (transfer->is_paused == is_paused)
		return;
	transfer->is_paused = is_paused;
	seen.paused += is_paused;
	if (is_paused) {
		transfer->left_us = MAX(transfer->event.due.at_us - world.now_us, 0);
		event_clear(&transfer->event);
	} else {
		event_set(&transfer->event, transfer->fetch->loop, world.now_us + transfer->left_us, transfer->event.fn, transfer);
	}
}

size_t fetch_bytes(const struct fetch *fetch)
{
	return fetch->bytes;
}

size_t transfer_bytes(const struct transfer *transfer)
{
	return transfer->bytes;
}
