/* fetch_internal - what the fetch*.c files share; nobody else includes it.
 *
 * fetch.c       transfers: start, cancel, pause, deadlines, the done list
 * fetch_lane.c  lanes: one curl multi each, its sockets on libevent, its timer
 * fetch_pin.c   addresses that libcurl was told (CURLOPT_RESOLVE)
 * fetch_proxy.c whom a transfer connects to, lanes of proxies, their errors
 * fetch_opts.c  one request -> options of an easy handle
 * fetch_recv.c  bytes from the peer -> response, caps
 * fetch_end.c   what libcurl says at the end -> the rest of the response
 * fetch_tls.c   the shared certificate store
 *
 * No callback of libcurl frees anything, ends a transfer or calls the owner: a lane that has something to tell goes on
 * the list `work`, and the hook after the turn does the rest. */
#ifndef GATHERD_FETCH_INTERNAL_H
#define GATHERD_FETCH_INTERNAL_H

/* Before list.h: libevent makes a LIST_ENTRY of its own and takes it away at its end. */
#include <event2/event.h>
#include <event2/event_struct.h>

#include "err.h"
#include "fetch.h"
#include "heap.h"
#include "list.h"

#include <curl/curl.h>
#include <openssl/evp.h>
#include <uthash.h>

#define LANES 64
#define SLOTS_PER_LANE 128
/* Hosts per lane whose addresses libcurl keeps. libcurl 8.14 walks them all at each transfer's end. */
#define PINS_MAX 256
/* Easy handles kept for reuse: 5.6 KiB each. */
#define POOL_MAX 1024
/* Connections without a transfer, all lanes together: about 50 KiB each with TLS. Of hosts that are asked rarely fewer are kept:
 * libcurl looks at each once a second. */
#define IDLE_MAX 4096
#define IDLE_RARE_SHARE 64
#define RARE_VISITS 2
/* libcurl's own limit, per lane: only a backstop, because it searches all connections for the oldest. */
#define LANE_CONNECTIONS_MAX 4096L
#define CONNECTION_AGE_MAX_S 30L
/* Sockets that one transfer remembers to have opened: two when happy eyeballs tries both families. */
#define OPENED_MAX 4
#define BOMB_RATIO 200
#define BOMB_BYTES_MIN (1024 * 1024)
#define BODY_FIRST_MAX 65536

struct lane;

/* A socket of libcurl, from OPENSOCKETFUNCTION to CLOSESOCKETFUNCTION. But 7.88 closes a socket that is not connected
 * yet without telling: such a one stays in the table, not armed, until its number comes again. */
struct sock {
	struct event event;
	struct lane *lane;
	short wanted;	   /* by libcurl: EV_READ, EV_WRITE; 0 = idle */
	short armed;	   /* in libevent */
	bool is_connected; /* a request went over it: from here on its close is told */
};

/* A host key that was asked lately, and its addresses that libcurl has in its cache. */
struct pin {
	UT_hash_handle hh;
	bool is_used;	 /* since it was last looked at for eviction */
	uint8_t n;	 /* 0 = libcurl was told none */
	int32_t visits;	 /* transfers, each within CONNECTION_AGE_MAX_S of the one before */
	int64_t last_us; /* the last one's start */
	struct address *addrs;
	char key[];
};

struct lane {
	struct fetch *fetch;
	CURLM *multi;
	struct list_node node;	 /* in fetch->retired */
	struct list_node work;	 /* in fetch->work */
	struct heap_node timer;	 /* in fetch->lane_timers */
	struct pin *pins;	 /* uthash, oldest first */
	struct curl_slist *drop; /* "-host:port" that libcurl was not told yet */
	size_t n_running;
	bool is_due;	 /* libcurl asks to be run without waiting */
	bool is_retired; /* takes no new transfer, freed with its last one */
};

struct proxy_lanes;

/* Whom libcurl connects to: the URL's host, or a proxy. */
struct peer_name {
	const char *host, *key;
	uint16_t port;
	bool is_literal, is_proxy;
};

struct transfer {
	struct list_node node;	/* in fetch->pool, running or done */
	struct list_node nudge; /* in fetch->nudged */
	struct heap_node deadline;
	struct fetch *fetch;
	struct lane *lane;
	CURL *easy;
	struct response *resp;
	fetch_done_fn fn;
	void *ctx;

	/* Of the request. */
	const struct url *url;
	struct peer_name peer;
	char *peer_text;   /* of a proxy's peer */
	uint32_t key_hash; /* of peer.key */
	struct addresses addrs;
	size_t body_max_bytes;
	enum body_mode body_mode;
	bool body_overflow_fails, is_head, is_http2;
	int64_t stall_us, end_us; /* end_us: when fetch.timeout is over */

	/* Lists that libcurl reads until the end. */
	void *header_block;
	struct curl_slist *resolve;

	/* Progress. */
	int64_t start_us, last_byte_us; /* last_byte_us 0 = none yet */
	int64_t paused_us;		/* since when; 0 = not paused */
	curl_off_t wire_seen;		/* at the last look of the stall timer */
	bool is_rare;			/* at most RARE_VISITS of its host lately, in this lane */
	bool is_sent;			/* connected, the request goes out */
	bool is_recv_paused;		/* libcurl knows of the pause */
	bool is_dropping;		/* what libcurl still has is thrown away */
	bool is_missed, is_refed;	/* libcurl had no address; was told again */
	bool is_cut;			/* we stopped at the cap and keep the prefix */
	bool has_run;			/* libcurl has read the RESOLVE list */
	int err;			/* ours, stronger than libcurl's */
	int n_denied, n_opened, open_errno;
	int opened[OPENED_MAX]; /* descriptors, the last ones */

	/* Of the answer. */
	int status;
	bool is_block_ended, is_coded, has_length;
	int64_t length; /* Content-Length, when has_length */
	size_t header_lines, header_bytes;
	int64_t decoded_bytes;
	EVP_MD_CTX *md;	      /* HASH_ONLY; made once per transfer struct */
	size_t counted_bytes; /* in fetch->bytes */
	char errbuf[CURL_ERROR_SIZE];
};

struct fetch {
	struct loop *loop;
	struct metrics *metrics, *own_metrics; /* own: when the caller gave none */
	struct log *log;
	const struct netguard *guard;
	struct tls_store *store;
	struct lane *lanes[2][LANES]; /* HTTP/1.1, HTTP/2; NULL = not used yet */
	struct proxy_lanes *proxies; /* uthash by the proxy's name */
	struct list retired, work;
	struct heap lane_timers, deadlines;
	struct loop_timer timer; /* for both heaps */
	int64_t timer_at_us;	 /* INT64_MAX = not set */
	struct sock **socks;	 /* by descriptor */
	size_t socks_cap, n_connected, idle_max;
	struct list pool, running, done;
	struct list nudged; /* their connecting socket went: see transfer_nudge */
	size_t bytes;
	bool is_inside;	 /* of libcurl or of the hook: the work list is looked at after it */
	char accept[40]; /* content codings that libcurl can undo */
	EVP_MD *sha256;
	EVP_MD_CTX *md;
};

/* fetch.c */
/* Collects the response and puts it on the done list. code does not count when t->err is set. */
void transfer_end(struct transfer *t, CURLcode code);
/* For a transfer whose socket was closed before it was connected: libcurl 7.88 has the next address in hand then, but
 * does nothing about it until it is run again, and asks for that only with its connect time-out. */
void transfer_nudge(struct transfer *t);
/* Sets the loop's timer when the first of the heaps became earlier. */
void fetch_arm(struct fetch *fetch);

/* fetch_lane.c */
struct lane *lane_new(struct fetch *fetch);
void lane_free(struct lane *lane);
/* Takes no more transfers; gone when it runs none: whoever ends a transfer calls lane_release after it. */
void lane_retire(struct lane *lane);
void lane_release(struct lane *lane);
void lane_touch(struct lane *lane);
/* Lets libcurl run what is due. */
void lane_run(struct lane *lane);
/* Of the lane's transfers, those that libcurl says are done go through transfer_end. */
void lane_drain(struct lane *lane);
curl_socket_t on_socket_open(void *ctx, curlsocktype purpose, struct curl_sockaddr *sa);
int on_socket_close(void *ctx, curl_socket_t fd);
/* The transfer's connection is made; local_port says which of its sockets it is. */
void socket_connected(struct transfer *t, int local_port);
void sockets_free(struct fetch *fetch);

/* fetch_pin.c: t->resolve is set when libcurl must be told something. */
void pin_feed(struct transfer *t);
/* libcurl did not know the host although we thought so. */
void pin_feed_again(struct transfer *t);
/* The transfer goes: what libcurl did not read of its list is kept for the next one. */
void pin_release(struct transfer *t);
void pins_free(struct lane *lane);

/* fetch_proxy.c */
/* Fills t->peer. */
void peer_init(struct transfer *t, const struct fetch_request *req);
/* The guard's word on an address that is connected to. A proxy's own is as configured. */
bool peer_is_allowed(const struct transfer *t, const struct address *addr);
/* The place of the lane, which may not be there yet. */
struct lane **proxy_lane(struct fetch *fetch, const struct proxy *proxy, uint32_t hash, bool is_http2);
void proxy_lanes_retire(struct fetch *fetch);
/* When the proxy is to blame, or speaks for the host; else ERR_NONE. */
enum err err_of_proxy(struct transfer *t, CURLcode code);

/* fetch_opts.c */
void opts_init(struct fetch *fetch);
/* On a reset handle. 0 or -ERR_SYSTEM. */
int opts_set(struct transfer *t, const struct fetch_request *req) MUST_CHECK;

/* fetch_recv.c */
size_t on_header(char *data, size_t size, size_t n, void *ctx);
size_t on_body(char *data, size_t size, size_t n, void *ctx);
bool recv_is_final(int status);
/* Decoded over BOMB_RATIO times the wire, for sure or perhaps: libcurl may count one read less than it decoded from. */
bool recv_is_bomb(const struct transfer *t);
bool recv_may_be_bomb(const struct transfer *t);

/* fetch_end.c */
void end_collect(struct transfer *t, CURLcode code);

/* fetch_tls.c */
CURLcode on_ssl_ctx(CURL *easy, void *ssl_ctx, void *ctx);
void tls_describe(struct transfer *t);

#endif
