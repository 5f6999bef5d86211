/* A small origin for test_fetch.c: one thread per connection, blocking sockets on the loopback interface, what it
 * answers goes by the path. It waits for the peer, never for the time. */
#ifndef GATHERD_FETCH_SERVER_H
#define GATHERD_FETCH_SERVER_H

#include "base.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

struct server {
	int fd;
	uint16_t port;
	SSL_CTX *tls; /* NULL = plain */
	pthread_t thread;
	_Atomic int n_connections, n_requests;
	pthread_mutex_t lock; /* of n_peers */
	pthread_cond_t is_quiet;
	int n_peers;
};

struct peer {
	struct server *server;
	int fd;
	SSL *ssl;
	char head[16384]; /* of the request, body included */
	size_t len;
};

static inline ssize_t peer_read(struct peer *peer, void *data, size_t len)
{
	return peer->ssl ? SSL_read(peer->ssl, data, (int)len) : read(peer->fd, data, len);
}

/* False when the peer is gone. */
static inline bool peer_write(struct peer *peer, const void *data, size_t len)
{
	const char *from = data;

	while (len) {
		ssize_t n = peer->ssl ? SSL_write(peer->ssl, from, (int)len) : send(peer->fd, from, len, MSG_NOSIGNAL);
		if (n <= 0)
			return false;
		from += n;
		len -= (size_t)n;
	}
	return true;
}

static inline bool peer_say(struct peer *peer, const char *text)
{
	return peer_write(peer, text, strlen(text));
}

/* Until the client closes. */
static inline void peer_hang(struct peer *peer)
{
	char byte[64];

	while (peer_read(peer, byte, sizeof(byte)) > 0)
		;
}

/* gzip: noise bytes that do not compress, then 4 MiB of zeros less 1032 for each of `cut` bytes left out of the 4080
 * that they compress to. */
#define ZEROS (4 * 1024 * 1024)
#define NOISE 60000
#define CUT_BYTES 1032

struct gzip {
	size_t noise, cut;
};

static inline uint32_t crc_of(uint32_t crc, uint8_t byte)
{
	crc ^= byte;
	for (int i = 0; i < 8; i++)
		crc = crc & 1 ? crc >> 1 ^ 0xedb88320U : crc >> 1;
	return crc;
}

static inline uint8_t *gzip_make(struct gzip gzip, size_t *ret_len)
{
	static const uint8_t head[] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3};
	static const uint8_t first[] = {0xed, 0xc1, 1, 1, 0, 0, 0, 0x82, 0x20, 0xff, 0xaf, 0x6e, 0x48, 0x40, 1};
	size_t zeros = ZEROS - gzip.cut * CUT_BYTES, len = sizeof(head);
	uint32_t crc = UINT32_MAX, seed = 1, size = (uint32_t)(zeros + gzip.noise);
	uint8_t *out = xcalloc(1, 80000);

	memcpy(out, head, len);
	if (gzip.noise) {
		unsigned n = (unsigned)gzip.noise;
		const uint8_t stored[] = {0, n & 255, n >> 8 & 255, ~n & 255, ~n >> 8 & 255};
		memcpy(out + len, stored, sizeof(stored));
		len += sizeof(stored);
	}
	for (size_t i = 0; i < gzip.noise; i++) {
		seed = seed * 1103515245U + 12345U;
		out[len] = (uint8_t)(seed >> 16);
		crc = crc_of(crc, out[len++]);
	}
	memcpy(out + len, first, sizeof(first));
	len += 4078 - gzip.cut;
	out[len++] = 0x7c;
	out[len++] = 0x1b;
	for (size_t i = 0; i < zeros; i++)
		crc = crc_of(crc, 0);
	crc = ~crc;
	for (int i = 0; i < 4; i++)
		out[len++] = (uint8_t)(crc >> 8 * i);
	for (int i = 0; i < 4; i++)
		out[len++] = (uint8_t)(size >> 8 * i);
	*ret_len = len;
	return out;
}

static inline bool say_gzip(struct peer *peer, struct gzip gzip, bool is_chunked)
{
	size_t len;
	uint8_t *gz = gzip_make(gzip, &len);
	char head[128];

	snprintf(head, sizeof(head),
		 is_chunked ? "Transfer-Encoding: chunked\r\n\r\n%zx\r\n" : "Content-Length: %zu\r\n\r\n", len);
	bool ok = peer_say(peer, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n") && peer_say(peer, head) &&
		  peer_write(peer, gz, len) && (!is_chunked || peer_say(peer, "\r\n0\r\n\r\n"));
	free(gz);
	return ok;
}

/* Many answers before the answer. */
static inline bool say_hints(struct peer *peer)
{
	char hint[1100];
	int len = snprintf(hint, sizeof(hint), "HTTP/1.1 103 Early Hints\r\nX: %01000d\r\n\r\n", 7);
	bool ok = true;

	for (int i = 0; i < 90 && ok; i++)
		ok = peer_write(peer, hint, (size_t)len);
	return ok && peer_say(peer, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
}

static inline bool say_many_headers(struct peer *peer, int n, size_t value_len)
{
	char line[1100];

	if (!peer_say(peer, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"))
		return false;
	for (int i = 0; i < n; i++) {
		int len = snprintf(line, sizeof(line), "X-%d: %0*d\r\n", i, (int)value_len, 7);
		if (!peer_write(peer, line, (size_t)len))
			return false;
	}
	return peer_say(peer, "\r\nok");
}

static inline bool say_counted(struct peer *peer, const char *more, const void *body, size_t len)
{
	char head[256];

	snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n%s\r\n", len, more);
	return peer_say(peer, head) && peer_write(peer, body, len);
}

static inline bool say_big(struct peer *peer)
{
	static const uint8_t zeros[100000];

	return say_counted(peer, "", zeros, sizeof(zeros));
}

static inline bool say_long_line(struct peer *peer)
{
	bool ok = peer_say(peer, "HTTP/1.1 200 OK\r\nX: ");

	for (int i = 0; i < 20000 && ok; i++)
		ok = peer_say(peer, "0123456789");
	return ok;
}

static inline bool say_sni(struct peer *peer)
{
	const char *sni = peer->ssl ? SSL_get_servername(peer->ssl, TLSEXT_NAMETYPE_host_name) : NULL;

	return say_counted(peer, "", sni ? sni : "none", strlen(sni ? sni : "none"));
}

static const struct {
	const char *path;
	struct gzip gzip;
} gzips[] = {
    {"/bomb-small", {0, 2000}}, /* 2 MiB in 2 KiB */
    {"/bomb", {0, 0}},
    {"/dense-small", {12000, 2000}}, /* 2 MiB in 14 KiB: over 100, under 200, in one read */
    {"/dense", {NOISE, 0}},
};

/* Answers one request; false = the connection ends. */
static inline bool peer_answer(struct peer *peer, const char *path)
{
	static const uint8_t hello_gz[] = {0x1f, 0x8b, 8,    0,	   0,	 0,    0,    0,	   2,	 3,
					   0xcb, 0x48, 0xcd, 0xc9, 0xc9, 0x57, 0xc8, 0x40, 0x27, 0xb9,
					   0,	 0,    0x88, 0x59, 0x0b, 0x18, 0,    0,	   0};

	if (strcmp(path, "/echo") == 0 || strncmp(path, "http://", 7) == 0) /* the second as a proxy */
		return say_counted(peer, "", peer->head, peer->len);
	if (strcmp(path, "/chunked") == 0)
		return peer_say(peer,
				"HTTP/1.1 103 Early Hints\r\nX-Early: 1\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: "
				"chunked\r\nX-Fold: a\r\n  b\r\nTrailer: "
				"X-Last\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\nX-Last: z\r\nX-Too: y\r\n\r\n");
	if (strcmp(path, "/gzip") == 0)
		return say_counted(peer, "Content-Encoding: gzip\r\n", hello_gz, sizeof(hello_gz));
	if (strcmp(path, "/badgzip") == 0)
		return say_counted(peer, "Content-Encoding: gzip\r\n", "this is not gzip", 16) && false;
	for (size_t i = 0; i < ARRAY_LEN(gzips); i++)
		if (strncmp(path, gzips[i].path, strlen(gzips[i].path)) == 0)
			return say_gzip(peer, gzips[i].gzip, strstr(path, "chunked"));
	if (strcmp(path, "/hints") == 0)
		return say_hints(peer);
	if (strcmp(path, "/big") == 0)
		return say_big(peer);
	if (strcmp(path, "/lines") == 0)
		return say_many_headers(peer, 201, 1);
	if (strcmp(path, "/bytes") == 0)
		return say_many_headers(peer, 100, 1000);
	if (strcmp(path, "/line") == 0)
		return say_long_line(peer) && false;
	if (strcmp(path, "/silent") == 0)
		peer_hang(peer);
	else if (strcmp(path, "/stall") == 0 && peer_say(peer, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"))
		peer_hang(peer);
	else if (strcmp(path, "/cut") == 0)
		return peer_say(peer, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf") && false;
	else if (strcmp(path, "/bye") == 0) /* as if the connection stayed open */
		return say_counted(peer, "", "bye", 3) && false;
	else if (strcmp(path, "/empty") == 0)
		return false;
	else if (strcmp(path, "/junk") == 0)
		return peer_say(peer, "what is this?\r\n\r\n") && false;
	else if (strcmp(path, "/badchunk") == 0)
		return peer_say(peer, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n") && false;
	else if (strcmp(path, "/sni") == 0)
		return say_sni(peer);
	else
		return strncmp(peer->head, "HEAD", 4) == 0
			   ? peer_say(peer, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"e\"\r\n\r\n")
			   : say_counted(peer, "", "hello", 5);
	return false;
}

/* Head and body of one request into peer->head. */
static inline bool peer_request(struct peer *peer, char path[static 64])
{
	size_t want = SIZE_MAX;

	peer->len = 0;
	while (peer->len < want) {
		ssize_t n = peer_read(peer, peer->head + peer->len, sizeof(peer->head) - 1 - peer->len);
		if (n <= 0)
			return false;
		peer->len += (size_t)n;
		peer->head[peer->len] = '\0';
		char *end = strstr(peer->head, "\r\n\r\n"), *length = strcasestr(peer->head, "\r\nContent-Length:");
		if (end)
			want = (size_t)(end + 4 - peer->head) + (length ? (size_t)atoi(length + 17) : 0);
	}
	return sscanf(peer->head, "%*s %63s", path) == 1;
}

static inline void server_count(struct server *server, int change)
{
	pthread_mutex_lock(&server->lock);
	server->n_peers += change;
	if (server->n_peers == 0)
		pthread_cond_signal(&server->is_quiet);
	pthread_mutex_unlock(&server->lock);
}

static inline void *peer_main(void *ctx)
{
	struct peer *peer = ctx;
	char path[64];

	if (peer->server->tls) {
		peer->ssl = SSL_new(peer->server->tls);
		SSL_set_fd(peer->ssl, peer->fd);
	}
	if (!peer->ssl || SSL_accept(peer->ssl) == 1)
		while (peer_request(peer, path)) {
			peer->server->n_requests++;
			if (!peer_answer(peer, path))
				break;
		}
	if (peer->ssl) {
		SSL_shutdown(peer->ssl);
		SSL_free(peer->ssl);
	}
	close(peer->fd);
	server_count(peer->server, -1);
	free(peer);
	return NULL;
}

static inline void *server_main(void *ctx)
{
	struct server *server = ctx;
	int fd;

	while ((fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		struct peer *peer = xcalloc(1, sizeof(*peer));
		pthread_t thread;
		int one = 1;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		peer->server = server;
		peer->fd = fd;
		server->n_connections++;
		server_count(server, 1);
		if (pthread_create(&thread, NULL, peer_main, peer) != 0)
			abort();
		pthread_detach(thread);
	}
	return NULL;
}

/* *port 0 = a free one. */
static inline int listen_at(uint32_t host, uint16_t *port, int backlog)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(*port), .sin_addr.s_addr = htonl(host)};
	socklen_t len = sizeof(sa);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, backlog) < 0 ||
	    getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
		abort();
	*port = ntohs(sa.sin_port);
	return fd;
}

/* A listener whose queue is full: it swallows the SYN. */
struct hole {
	int fd, clients[8];
	uint16_t port;
};

static inline void hole_open(struct hole *hole, uint32_t host, uint16_t port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(host)};

	hole->port = port;
	hole->fd = listen_at(host, &hole->port, 0);
	sa.sin_port = htons(hole->port);
	for (size_t i = 0; i < ARRAY_LEN(hole->clients); i++) {
		hole->clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (connect(hole->clients[i], (struct sockaddr *)&sa, sizeof(sa)) == 0)
			abort();
	}
}

static inline void hole_close(struct hole *hole)
{
	for (size_t i = 0; i < ARRAY_LEN(hole->clients); i++)
		close(hole->clients[i]);
	close(hole->fd);
}

static inline void server_start(struct server *server, SSL_CTX *tls)
{
	*server = (struct server){.tls = tls};
	pthread_mutex_init(&server->lock, NULL);
	pthread_cond_init(&server->is_quiet, NULL);
	server->fd = listen_at(INADDR_LOOPBACK, &server->port, 128);
	if (pthread_create(&server->thread, NULL, server_main, server) != 0)
		abort();
}

/* Waits for its connections, which end when their clients close. */
static inline void server_stop(struct server *server)
{
	shutdown(server->fd, SHUT_RDWR);
	pthread_join(server->thread, NULL);
	close(server->fd);
	pthread_mutex_lock(&server->lock);
	while (server->n_peers)
		pthread_cond_wait(&server->is_quiet, &server->lock);
	pthread_mutex_unlock(&server->lock);
	pthread_mutex_destroy(&server->lock);
	pthread_cond_destroy(&server->is_quiet);
	SSL_CTX_free(server->tls);
}

/* A server context with a fresh self-signed certificate for the names; the certificate goes to pem_path. */
static inline SSL_CTX *tls_make(const char *names, const char *pem_path)
{
	SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert = X509_new();
	X509_NAME *name = X509_get_subject_name(cert);
	FILE *file = fopen(pem_path, "w");

	X509_set_version(cert, 2);
	X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
	X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
	X509_set_pubkey(cert, key);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"test", -1, -1, 0);
	X509_set_issuer_name(cert, name);
	X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, names);
	X509_add_ext(cert, ext, -1);
	X509_EXTENSION_free(ext);
	X509_sign(cert, key, EVP_sha256());
	PEM_write_X509(file, cert);
	fclose(file);
	SSL_CTX_use_certificate(tls, cert);
	SSL_CTX_use_PrivateKey(tls, key);
	X509_free(cert);
	EVP_PKEY_free(key);
	return tls;
}

#endif
