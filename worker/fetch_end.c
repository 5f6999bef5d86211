/* What libcurl says at the end of a transfer -> the rest of the response. */
#include "fetch_internal.h"

#include "clock.h"

#include <errno.h>
#include <stdio.h>

static enum err err_of_errno(long os_errno)
{
	switch (os_errno) {
	case ECONNREFUSED:
		return ERR_CONNECT_REFUSED;
	case ETIMEDOUT:
		return ERR_CONNECT_TIMEOUT;
	case ENETUNREACH:
	case EHOSTUNREACH:
	case ENETDOWN:
	case EHOSTDOWN:
	case EADDRNOTAVAIL:
	case EAFNOSUPPORT:
		return ERR_CONNECT_UNREACHABLE;
	case EMFILE:
	case ENFILE:
		return ERR_CONNECT_NO_FDS;
	default:
		return ERR_CONNECT_FAILED;
	}
}

static enum err err_of_connect(struct transfer *t)
{
	long os_errno = 0;

	/* An address that was tried and failed says more than one that was not tried. */
	if (t->n_denied && !t->n_opened && !t->open_errno)
		return ERR_ADDRESS_DENIED;
	if (t->open_errno && !t->n_opened)
		return err_of_errno(t->open_errno);
	curl_easy_getinfo(t->easy, CURLINFO_OS_ERRNO, &os_errno);
	return err_of_errno(os_errno);
}

static const struct {
	CURLcode code;
	enum err err;
} err_table[] = {
    {CURLE_UNSUPPORTED_PROTOCOL, ERR_HTTP_SYNTAX}, /* our URLs are http(s): so it is an HTTP/0.9 answer */
    {CURLE_URL_MALFORMAT, ERR_URL_SYNTAX},
    {CURLE_COULDNT_RESOLVE_PROXY, ERR_PROXY_FAILED},
    {CURLE_COULDNT_RESOLVE_HOST, ERR_DNS_FAILED},
    {CURLE_WEIRD_SERVER_REPLY, ERR_HTTP_SYNTAX},
    {CURLE_HTTP2, ERR_HTTP2_ERROR},
    {CURLE_HTTP2_STREAM, ERR_HTTP2_ERROR},
    {CURLE_PARTIAL_FILE, ERR_DISCONNECTED},
    {CURLE_OPERATION_TIMEDOUT, ERR_CONNECT_TIMEOUT}, /* the only time-out that libcurl has from us */
    {CURLE_SSL_CONNECT_ERROR, ERR_TLS_HANDSHAKE},
    {CURLE_GOT_NOTHING, ERR_DISCONNECTED},
    {CURLE_SSL_ENGINE_NOTFOUND, ERR_TLS_HANDSHAKE},
    {CURLE_SSL_ENGINE_SETFAILED, ERR_TLS_HANDSHAKE},
    {CURLE_SSL_ENGINE_INITFAILED, ERR_TLS_HANDSHAKE},
    {CURLE_SSL_SHUTDOWN_FAILED, ERR_DISCONNECTED},
    {CURLE_SEND_ERROR, ERR_DISCONNECTED},
    {CURLE_RECV_ERROR, ERR_DISCONNECTED},
    {CURLE_SEND_FAIL_REWIND, ERR_DISCONNECTED},
    {CURLE_SSL_CERTPROBLEM, ERR_TLS_HANDSHAKE},
    {CURLE_SSL_CIPHER, ERR_TLS_HANDSHAKE},
    {CURLE_SSL_CLIENTCERT, ERR_TLS_HANDSHAKE},
    {CURLE_PEER_FAILED_VERIFICATION, ERR_TLS_CERTIFICATE},
    {CURLE_SSL_ISSUER_ERROR, ERR_TLS_CERTIFICATE},
    {CURLE_SSL_INVALIDCERTSTATUS, ERR_TLS_CERTIFICATE},
    {CURLE_BAD_CONTENT_ENCODING, ERR_CONTENT_ENCODING},
    {CURLE_FILESIZE_EXCEEDED, ERR_BODY_TOO_LARGE},
    {CURLE_PROXY, ERR_PROXY_FAILED},
#if LIBCURL_VERSION_NUM >= 0x080600
    {CURLE_TOO_LARGE, ERR_HEADERS_TOO_LARGE},
#endif
};

static enum err err_of_curl(struct transfer *t, CURLcode code)
{
	/* libcurl takes a connection's end among the header lines for the end of the answer. */
	if (code == CURLE_OK)
		return t->is_block_ended && recv_is_final(t->status) ? ERR_NONE : ERR_DISCONNECTED;
	enum err err = err_of_proxy(t, code);
	if (err)
		return err;
	if (code == CURLE_COULDNT_CONNECT)
		return err_of_connect(t);
	/* libcurl has no code of its own for these two. */
	if (code == CURLE_OUT_OF_MEMORY && t->is_sent && !t->is_block_ended)
		return ERR_HEADERS_TOO_LARGE; /* 7.88: one line over its 100 KiB */
	if (code == CURLE_RECV_ERROR && strstr(t->errbuf, "chunk"))
		return ERR_HTTP_SYNTAX;
	for (size_t i = 0; i < ARRAY_LEN(err_table); i++)
		if (err_table[i].code == code)
			return err_table[i].err;
	return ERR_INTERNAL;
}

static void set_err(struct transfer *t, CURLcode code)
{
	struct response *resp = t->resp;

	if (t->err)
		resp->err = t->err;
	else if (!t->is_cut)
		resp->err = -(int)err_of_curl(t, code);
	/* libcurl's count of the wire is exact now. */
	if (!resp->err && !t->is_cut && t->is_coded && t->decoded_bytes > BOMB_BYTES_MIN && recv_may_be_bomb(t))
		resp->err = -ERR_BODY_BOMB;
	bool is_over = t->decoded_bytes > (int64_t)t->body_max_bytes;
	if (!resp->err && is_over && t->body_overflow_fails)
		resp->err = -ERR_BODY_TOO_LARGE;
	if (resp->err && t->errbuf[0] && !t->err)
		snprintf(resp->detail, sizeof(resp->detail), "%.*s", (int)strcspn(t->errbuf, "\r\n"), t->errbuf);

	bool has_answer = recv_is_final(t->status);
	if (!resp->err && is_over)
		resp->truncated = TRUNCATED_LENGTH;
	else if (has_answer && (resp->err == -ERR_FETCH_TIMEOUT || resp->err == -ERR_FETCH_STALLED))
		resp->truncated = TRUNCATED_TIME;
	else if (has_answer && (resp->err == -ERR_DISCONNECTED || resp->err == -ERR_HTTP2_ERROR))
		resp->truncated = TRUNCATED_DISCONNECT;
	else
		resp->truncated = TRUNCATED_NONE;
}

static void set_answer(struct transfer *t)
{
	struct response *resp = t->resp;
	curl_off_t wire = 0, declared = -1;
	long version = 0;

	if (!recv_is_final(t->status)) {
		buf_clear(&resp->headers); /* at most a 1xx came */
		return;
	}
	resp->status = t->status;
	curl_easy_getinfo(t->easy, CURLINFO_HTTP_VERSION, &version);
	resp->http_version = version == CURL_HTTP_VERSION_1_0	? 10
			     : version == CURL_HTTP_VERSION_1_1 ? 11
			     : version == CURL_HTTP_VERSION_2_0 ? 20
								: 0;
	curl_easy_getinfo(t->easy, CURLINFO_SIZE_DOWNLOAD_T, &wire);
	curl_easy_getinfo(t->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &declared);
	resp->wire_length = wire;
	resp->declared_length = declared;
}

/* What an error leaves of the body is not kept, unless it says itself that it is a part. */
static void set_digest(struct transfer *t)
{
	struct response *resp = t->resp;
	EVP_MD_CTX *md = t->fetch->md;

	if (resp->err && resp->truncated == TRUNCATED_NONE) {
		buf_done(&resp->body);
		return;
	}
	if (!resp->status || t->is_head || resp->status == 304 || t->body_mode == BODY_MODE_NONE)
		return;
	if (t->body_mode == BODY_MODE_HASH_ONLY)
		resp->has_digest = EVP_DigestFinal_ex(t->md, resp->digest, NULL) == 1;
	else
		resp->has_digest = EVP_DigestInit_ex2(md, t->fetch->sha256, NULL) == 1 &&
				   EVP_DigestUpdate(md, resp->body.data, resp->body.len) == 1 &&
				   EVP_DigestFinal_ex(md, resp->digest, NULL) == 1;
}

static void set_times(struct transfer *t)
{
	struct response *resp = t->resp;
	curl_off_t name = 0, connect = 0, tls = 0, first = 0;
	long n_connects = 0;

	resp->total_us = clock_now_us() - t->start_us;
	if (resp->status) {
		curl_easy_getinfo(t->easy, CURLINFO_STARTTRANSFER_TIME_T, &first);
		resp->first_byte_us = first;
	}
	curl_easy_getinfo(t->easy, CURLINFO_NUM_CONNECTS, &n_connects);
	if (n_connects == 0)
		return;
	curl_easy_getinfo(t->easy, CURLINFO_NAMELOOKUP_TIME_T, &name);
	curl_easy_getinfo(t->easy, CURLINFO_CONNECT_TIME_T, &connect);
	curl_easy_getinfo(t->easy, CURLINFO_APPCONNECT_TIME_T, &tls);
	resp->is_new_connection = connect > 0; /* libcurl counts tries */
	if (connect > 0)
		resp->connect_us = MAX(connect - name, 1);
	if (tls > 0)
		resp->tls_us = MAX(tls - connect, 1);
}

void end_collect(struct transfer *t, CURLcode code)
{
	set_err(t, code);
	set_answer(t);
	set_digest(t);
	set_times(t);
}
