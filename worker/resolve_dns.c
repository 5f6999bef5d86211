#include "clock.h"
#include "resolve_internal.h"

#include <ares.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <stdio.h>

/* c-ares has no timer of its own. While something is asked, this often; with much of it oftener, because all that ran
 * out since the last time is sent again at once (10,000 questions: 27 ms of the loop with 50 ms, 5 with 5). */
#define TICK_US (50 * US_PER_MS)
#define TICK_MANY_US (5 * US_PER_MS)
#define MANY 500
/* Room for the answers that come while the loop is busy elsewhere; the kernel cuts it to net.core.rmem_max. */
#define RECEIVE_BUFFER (1024 * 1024)
/* Two tries of each server, the second with double patience (c-ares doubles): 3 shares of the time-out per server.
 * Rounded up, so that c-ares gives up just after the caller. */
#define TRIES 2
#define SHARES 3

struct resolve_dns {
	struct loop *loop;
	ares_channel channel;
	struct list sockets;
	struct loop_timer tick;
	size_t n_asked; /* questions without an answer */
	resolve_part_fn on_part;
	loop_fn after_fn;
	void *ctx;
};

/* One of c-ares's descriptors. */
struct socket {
	struct list_node node; /* dns->sockets */
	struct resolve_dns *dns;
	ares_socket_t fd;
	struct event *event;
};

/* ---- c-ares on the loop ---- */

static void process(struct resolve_dns *dns, ares_socket_t read_fd, ares_socket_t write_fd)
{
	ares_process_fd(dns->channel, read_fd, write_fd);
	dns->after_fn(dns->ctx);
}

static void on_socket(evutil_socket_t fd, short what, void *ctx)
{
	struct socket *sock = ctx; /* gone when process() comes back */

	loop_now_us(sock->dns->loop);
	process(sock->dns, what & EV_READ ? fd : ARES_SOCKET_BAD, what & EV_WRITE ? fd : ARES_SOCKET_BAD);
}

static void set_tick(struct resolve_dns *dns)
{
	loop_timer_set(&dns->tick, loop_now_us(dns->loop) + (dns->n_asked > MANY ? TICK_MANY_US : TICK_US));
}

static void on_tick(void *ctx)
{
	struct resolve_dns *dns = ctx;

	process(dns, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	if (dns->n_asked > 0)
		set_tick(dns);
}

static struct socket *socket_find(struct resolve_dns *dns, ares_socket_t fd)
{
	LIST_EACH (&dns->sockets, sock, struct socket, node) {
		if (sock->fd == fd)
			return sock;
	}
	return NULL;
}

static void socket_free(struct socket *sock)
{
	list_remove(&sock->node);
	event_free(sock->event);
	free(sock);
}

/* c-ares says which of its sockets it wants to read or write; neither = it is about to close it. */
static void on_socket_state(void *ctx, ares_socket_t fd, int readable, int writable)
{
	struct resolve_dns *dns = ctx;
	struct socket *sock = socket_find(dns, fd);
	short what = EV_PERSIST;

	if (sock)
		socket_free(sock);
	if (!readable && !writable)
		return;
	what |= readable ? EV_READ : 0;
	what |= writable ? EV_WRITE : 0;
	sock = xcalloc(1, sizeof(*sock));
	sock->dns = dns;
	sock->fd = fd;
	sock->event = event_new(loop_base(dns->loop), fd, what, on_socket, sock);
	if (!sock->event || event_add(sock->event, NULL) < 0)
		abort();
	list_push(&dns->sockets, &sock->node);
}

/* ---- servers ---- */

static int bad_server(const char *text, char **ret_error)
{
	*ret_error = xasprintf(
	    "dns.servers: \"%s\" is not an address or address:port, as 192.0.2.1:53 or [2001:db8::1]:53", text);
	return -ERR_INVALID;
}

/* "192.0.2.1", "192.0.2.1:53", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:53" -> c-ares's "[2001:db8::1]:53". */
static int parse_server(const char *text, char out[static 64])
{
	char host[ADDRESS_TEXT_MAX] = "", printed[ADDRESS_TEXT_MAX];
	const char *start = text, *end, *port_text = NULL;
	struct address addr;
	unsigned long port = 53;
	char *rest;

	if (*text == '[') {
		start++;
		end = strchr(start, ']');
		if (!end || (end[1] && end[1] != ':'))
			return -ERR_INVALID;
		port_text = end[1] ? end + 2 : NULL;
	} else {
		end = strchr(text, ':');
		if (end && strchr(end + 1, ':'))
			end = NULL; /* a bare IPv6 address */
		port_text = end ? end + 1 : NULL;
	}
	size_t len = end ? (size_t)(end - start) : strlen(start);
	if (len >= sizeof(host))
		return -ERR_INVALID;
	memcpy(host, start, len);
	if (address_parse(host, &addr) < 0 || (*text == '[' && !addr.is_v6))
		return -ERR_INVALID;
	if (port_text) {
		port = *port_text >= '0' && *port_text <= '9' ? strtoul(port_text, &rest, 10) : 0;
		if (port < 1 || port > 65535 || *rest)
			return -ERR_INVALID;
	}
	address_print(&addr, printed);
	snprintf(out, 64, addr.is_v6 ? "[%s]:%lu" : "%s:%lu", printed, port);
	return 0;
}

static int set_servers(struct resolve_dns *dns, char *const servers[], size_t n_servers, char **ret_error)
{
	char one[64];
	char *all = xcalloc(n_servers + 1, sizeof(one) + 1);
	int err = 0, status = ARES_SUCCESS;

	for (size_t i = 0; i < n_servers && !err; i++) {
		err = parse_server(servers[i], one);
		if (err < 0) {
			err = bad_server(servers[i], ret_error);
			break;
		}
		strcat(strcat(all, i ? "," : ""), one);
	}
	if (!err && n_servers > 0)
		status = ares_set_servers_ports_csv(dns->channel, all);
	free(all);
	if (status != ARES_SUCCESS) {
		*ret_error = xasprintf("dns.servers: %s", ares_strerror(status));
		return -ERR_INVALID;
	}
	return err;
}

/* How many /etc/resolv.conf names. It takes a channel to find out, because c-ares does the reading. */
static size_t count_default_servers(void)
{
	ares_channel channel;
	size_t n = 0;

	if (ares_init_options(&channel, NULL, 0) != ARES_SUCCESS)
		return 1;
#if ARES_VERSION >= 0x011800 /* 1.24 */
	char *all = ares_get_servers_csv(channel);
	for (const char *c = all; c && *c; c++)
		n += *c == ',';
	n += all && *all;
	ares_free_string(all);
#else
	struct ares_addr_port_node *all = NULL;
	if (ares_get_servers_ports(channel, &all) == ARES_SUCCESS)
		for (struct ares_addr_port_node *one = all; one; one = one->next)
			n++;
	ares_free_data(all);
#endif
	ares_destroy(channel);
	return MAX(n, 1);
}

/* ---- making and freeing ---- */

static int channel_new(struct resolve_dns *dns, size_t n_servers, int64_t timeout_ms)
{
	char lookups[] = "b"; /* the network only; /etc/hosts is read by us, once */
	struct ares_options options = {
	    .flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES,
	    .timeout = (int)(timeout_ms / (int64_t)(SHARES * n_servers)) + 1,
	    .tries = TRIES,
	    .domains = NULL, /* 1.18 looks at the list and not at NOSEARCH */
	    .ndomains = 0,
	    .lookups = lookups,
	    .socket_receive_buffer_size = RECEIVE_BUFFER,
	    .sock_state_cb = on_socket_state,
	    .sock_state_cb_data = dns,
	};
	int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_DOMAINS | ARES_OPT_LOOKUPS |
		   ARES_OPT_SOCK_RCVBUF | ARES_OPT_SOCK_STATE_CB;

	/* SERVFAIL and REFUSED send c-ares to the next server, and 1.18 forgets then what it was. With one server there
	 * is no next: take the answer as it is. */
	if (n_servers == 1)
		options.flags |= ARES_FLAG_NOCHECKRESP;
#ifdef ARES_OPT_MAXTIMEOUTMS /* 1.22: time-outs that follow what the server usually takes */
	options.maxtimeout = options.timeout * (SHARES - 1);
	mask |= ARES_OPT_MAXTIMEOUTMS;
#endif
#ifdef ARES_OPT_QUERY_CACHE /* 1.23: a cache, on by default since 1.31; the cache is ours */
	options.qcache_max_ttl = 0;
	mask |= ARES_OPT_QUERY_CACHE;
#endif
	return ares_init_options(&dns->channel, &options, mask);
}

int resolve_dns_new(struct loop *loop, char *const servers[], size_t n_servers, int64_t timeout_ms,
		    resolve_part_fn on_part, loop_fn after_fn, void *ctx, struct resolve_dns **ret_dns,
		    char **ret_error)
{
	int status = ares_library_init(ARES_LIB_INIT_ALL);

	if (status != ARES_SUCCESS) {
		*ret_error = xasprintf("c-ares: %s", ares_strerror(status));
		return -ERR_SYSTEM;
	}
	struct resolve_dns *dns = xcalloc(1, sizeof(*dns));
	dns->loop = loop;
	dns->on_part = on_part;
	dns->after_fn = after_fn;
	dns->ctx = ctx;
	list_init(&dns->sockets);
	loop_timer_init(loop, &dns->tick, on_tick, dns);
	status = channel_new(dns, n_servers ? n_servers : count_default_servers(), timeout_ms);
	int err = 0;
	if (status != ARES_SUCCESS) {
		*ret_error = xasprintf("c-ares: %s", ares_strerror(status));
		err = -ERR_SYSTEM;
	} else {
		err = set_servers(dns, servers, n_servers, ret_error);
	}
	if (err < 0) {
		resolve_dns_free(dns);
		return err;
	}
	*ret_dns = dns;
	return 0;
}

void resolve_dns_free(struct resolve_dns *dns)
{
	if (!dns)
		return;
	if (dns->channel)
		ares_destroy(dns->channel);
	assert(dns->n_asked == 0);
	while (!list_empty(&dns->sockets))
		socket_free(LIST_ENTRY(list_first(&dns->sockets), struct socket, node));
	loop_timer_done(&dns->tick);
	free(dns);
	ares_library_cleanup();
}

/* ---- questions ---- */

static int err_of(int status)
{
	switch (status) {
	case ARES_ENOTFOUND:
		return -ERR_DNS_NXDOMAIN;
	case ARES_SUCCESS: /* without addresses */
	case ARES_ENODATA:
		return -ERR_DNS_NO_DATA;
	case ARES_ESERVFAIL:
	case ARES_ECONNREFUSED: /* no server took it, or all of them failed (1.18) */
		return -ERR_DNS_SERVFAIL;
	case ARES_EREFUSED:
		return -ERR_DNS_REFUSED;
	case ARES_ETIMEOUT:
		return -ERR_DNS_TIMEOUT;
	case ARES_EBADNAME:
		return -ERR_DNS_BAD_NAME;
	case ARES_ECANCELLED:
	case ARES_EDESTRUCTION:
		return -ERR_CANCELLED;
	default:
		return -ERR_DNS_FAILED;
	}
}

static void take_answer(struct resolve_part *part, const struct ares_addrinfo *answer)
{
	int ttl_s = INT32_MAX;

	for (const struct ares_addrinfo_cname *cname = answer->cnames; cname; cname = cname->next)
		ttl_s = MIN(ttl_s, cname->ttl);
	for (const struct ares_addrinfo_node *node = answer->nodes; node; node = node->ai_next) {
		uint16_t port;
		if (part->n == RESOLVE_ADDRESSES_MAX || node->ai_family != (part->is_v6 ? AF_INET6 : AF_INET) ||
		    address_from_sockaddr(node->ai_addr, &part->v[part->n], &port) < 0)
			continue;
		ttl_s = MIN(ttl_s, node->ai_ttl);
		part->n++;
	}
	/* RFC 2181 section 8: one with the high bit set is zero. c-ares 1.18 gives it as negative, 1.34 cuts it to the
	 * greatest. */
	part->ttl_s = ttl_s < 0 || ttl_s == INT32_MAX ? 0 : ttl_s;
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *answer)
{
	struct resolve_part *part = arg;
	struct resolve_dns *dns = part->dns;

	dns->n_asked--;
	if (status == ARES_SUCCESS && answer)
		take_answer(part, answer);
	ares_freeaddrinfo(answer);
	part->err = part->n > 0 ? 0 : err_of(status);
	part->is_done = true;
	dns->on_part(dns->ctx, part);
}

void resolve_dns_ask(struct resolve_dns *dns, const char *host, struct resolve_part *part)
{
	/* NOSORT: the sorting of RFC 6724 would open a socket per address. */
	struct ares_addrinfo_hints hints = {.ai_family = part->is_v6 ? AF_INET6 : AF_INET, .ai_flags = ARES_AI_NOSORT};

	part->dns = dns;
	part->is_done = false;
	part->n = 0;
	if (dns->n_asked++ == 0)
		set_tick(dns);
	ares_getaddrinfo(dns->channel, host, NULL, &hints, on_answer, part);
}
