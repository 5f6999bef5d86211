/* Lanes: one curl multi each, its sockets on libevent, its timer in a heap. */
#include "fetch_internal.h"

#include "clock.h"

#include <errno.h>
#include <unistd.h>

/* ---- sockets ---- */

static struct sock *sock_of(struct fetch *fetch, curl_socket_t fd)
{
	return fd >= 0 && (size_t)fd < fetch->socks_cap ? fetch->socks[fd] : NULL;
}

static void sock_disarm(struct sock *sock)
{
	if (sock->armed)
		event_del(&sock->event);
	sock->armed = 0;
}

static void on_ready(evutil_socket_t fd, short what, void *ctx)
{
	struct sock *sock = ctx;
	struct lane *lane = sock->lane;
	int mask = (what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0);
	int running;

	/* An idle connection that the peer closed, or a paused one: libcurl finds out when it looks. */
	if (!sock->wanted) {
		sock_disarm(sock);
		return;
	}
	loop_now_us(lane->fetch->loop); /* the turn's time starts here */
	lane->fetch->is_inside = true;
	curl_multi_socket_action(lane->multi, fd, mask, &running);
	lane->fetch->is_inside = false;
	lane_touch(lane);
}

static void sock_arm(struct sock *sock, int fd, short what)
{
	sock_disarm(sock);
	event_assign(&sock->event, loop_base(sock->lane->fetch->loop), fd, what | EV_PERSIST, on_ready, sock);
	if (event_add(&sock->event, NULL) < 0)
		abort();
	sock->armed = what;
}

static void sock_add(struct fetch *fetch, struct lane *lane, int fd)
{
	if ((size_t)fd >= fetch->socks_cap) {
		size_t cap = MAX((size_t)fd + 1, fetch->socks_cap * 2);
		fetch->socks = xrealloc(fetch->socks, cap * sizeof(*fetch->socks));
		memset(fetch->socks + fetch->socks_cap, 0, (cap - fetch->socks_cap) * sizeof(*fetch->socks));
		fetch->socks_cap = cap;
	}
	struct sock *sock = fetch->socks[fd];
	if (!sock)
		sock = fetch->socks[fd] = xcalloc(1, sizeof(*sock));
	/* One that was closed behind our back gave us its number. When libcurl still wants something of the number, it
	 * does not say so again: for it nothing has changed. */
	assert(!sock->is_connected);
	short wanted = sock->lane == lane ? sock->wanted : 0;
	sock_disarm(sock);
	sock->lane = lane;
	sock->wanted = wanted;
	if (wanted)
		sock_arm(sock, fd, wanted);
}

/* NULL for a handle that libcurl made for itself. */
static struct transfer *transfer_of(CURL *easy)
{
	struct transfer *t = NULL;

	curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&t);
	return t;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *sock_ctx)
{
	struct lane *lane = ctx;
	struct sock *sock = sock_of(lane->fetch, fd);

	if (!sock)
		return 0;
	sock->wanted = (short)((what & CURL_POLL_IN ? EV_READ : 0) | (what & CURL_POLL_OUT ? EV_WRITE : 0));
	if (what == CURL_POLL_REMOVE)
		sock->wanted = 0;
	/* A connection that goes idle stays armed for reading, as the next transfer on it will want: that saves two
	 * epoll_ctl per transfer. Only if on_socket_close is sure to come, which disarms. */
	if (!sock->wanted) {
		if (sock->armed & EV_WRITE || !sock->is_connected)
			sock_disarm(sock);
		if (!sock->is_connected)
			transfer_nudge(transfer_of(easy));
	} else if (sock->armed != sock->wanted) {
		sock_arm(sock, fd, sock->wanted);
	}
	return 0;
}

curl_socket_t on_socket_open(void *ctx, curlsocktype purpose, struct curl_sockaddr *sa)
{
	struct transfer *t = ctx;
	struct fetch *fetch = t->fetch;
	struct address addr;
	uint16_t port;

	t->has_run = true;
	if (address_from_sockaddr(&sa->addr, &addr, &port) < 0 || !peer_is_allowed(t, &addr)) {
		t->n_denied++;
		fetch->metrics->blocked++;
		return CURL_SOCKET_BAD;
	}
	address_print(&addr, t->resp->remote_ip);
	t->resp->remote_port = port;
	int fd = socket(sa->family, sa->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, sa->protocol);
	if (fd < 0) {
		t->open_errno = errno;
		return CURL_SOCKET_BAD;
	}
	t->opened[t->n_opened++ % OPENED_MAX] = fd;
	sock_add(fetch, t->lane, fd);
	return fd;
}

void socket_connected(struct transfer *t, int local_port)
{
	struct sockaddr_storage local;
	struct address addr;
	uint16_t port;

	for (int i = 0; i < MIN(t->n_opened, OPENED_MAX); i++) {
		socklen_t len = sizeof(local);
		struct sock *sock = sock_of(t->fetch, t->opened[i]);
		/* With two tried, ask the system which one has the port. */
		if (!sock || sock->lane != t->lane || sock->is_connected ||
		    (t->n_opened > 1 && (getsockname(t->opened[i], (struct sockaddr *)&local, &len) < 0 ||
					 address_from_sockaddr(&local, &addr, &port) < 0 || port != local_port)))
			continue;
		sock->is_connected = true;
		t->fetch->n_connected++;
		return;
	}
}

int on_socket_close(void *ctx, curl_socket_t fd)
{
	struct fetch *fetch = ctx;
	struct sock *sock = sock_of(fetch, fd);

	if (sock) {
		sock_disarm(sock);
		fetch->n_connected -= sock->is_connected;
		free(sock);
		fetch->socks[fd] = NULL;
	}
	return close(fd);
}

void sockets_free(struct fetch *fetch)
{
	for (size_t fd = 0; fd < fetch->socks_cap; fd++)
		free(fetch->socks[fd]);
	free(fetch->socks);
}

/* ---- the timer of libcurl ---- */

static int on_timer(CURLM *multi, long timeout_ms, void *ctx)
{
	struct lane *lane = ctx;
	struct fetch *fetch = lane->fetch;

	if (timeout_ms > 0) {
		heap_set(&fetch->lane_timers, &lane->timer, clock_now_us() + timeout_ms * US_PER_MS);
		fetch_arm(fetch);
		return 0;
	}
	heap_remove(&fetch->lane_timers, &lane->timer);
	if (timeout_ms == 0) {
		lane->is_due = true;
		lane_touch(lane);
	}
	return 0;
}

/* ---- lanes ---- */

void lane_touch(struct lane *lane)
{
	if (!lane->work.list)
		list_push(&lane->fetch->work, &lane->work);
	if (lane->is_due && !lane->fetch->is_inside)
		loop_again(lane->fetch->loop);
}

void lane_run(struct lane *lane)
{
	int running;

	lane->is_due = false;
	curl_multi_socket_action(lane->multi, CURL_SOCKET_TIMEOUT, 0, &running);
}

void lane_drain(struct lane *lane)
{
	CURLMsg *msg;
	int n_left;

	while ((msg = curl_multi_info_read(lane->multi, &n_left))) {
		CURLcode code = msg->data.result;

		if (msg->msg != CURLMSG_DONE)
			continue;
		transfer_end(transfer_of(msg->easy_handle), code); /* msg is gone with it */
	}
	lane_release(lane);
}

struct lane *lane_new(struct fetch *fetch)
{
	struct lane *lane = xcalloc(1, sizeof(*lane));

	lane->fetch = fetch;
	lane->multi = curl_multi_init();
	if (!lane->multi)
		abort();
	curl_multi_setopt(lane->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(lane->multi, CURLMOPT_SOCKETDATA, lane);
	curl_multi_setopt(lane->multi, CURLMOPT_TIMERFUNCTION, on_timer);
	curl_multi_setopt(lane->multi, CURLMOPT_TIMERDATA, lane);
	curl_multi_setopt(lane->multi, CURLMOPT_MAXCONNECTS, LANE_CONNECTIONS_MAX);
	return lane;
}

void lane_free(struct lane *lane)
{
	struct fetch *fetch = lane->fetch;

	curl_multi_cleanup(lane->multi);
	list_remove(&lane->node);
	list_remove(&lane->work);
	heap_remove(&fetch->lane_timers, &lane->timer);
	pins_free(lane);
	free(lane);
}

void lane_retire(struct lane *lane)
{
	lane->is_retired = true;
	list_push(&lane->fetch->retired, &lane->node);
	lane_release(lane);
}

void lane_release(struct lane *lane)
{
	if (lane->is_retired && lane->n_running == 0)
		lane_free(lane);
}
