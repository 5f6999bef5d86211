/* Bytes from the peer -> response, and the caps on them. All of it runs inside libcurl: returning short ends the
 * transfer with CURLE_WRITE_ERROR, and t->err or t->is_cut says why. */
#include "fetch_internal.h"

#include <strings.h>

#define HEADERS_FIRST 1024

/* What the transfer holds has grown. */
static void recv_count(struct transfer *t)
{
	size_t bytes = t->resp->headers.cap + t->resp->body.cap;

	t->fetch->bytes += bytes - t->counted_bytes;
	t->counted_bytes = bytes;
}

/* ---- headers ---- */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* "HTTP/1.1 200 OK", "HTTP/2 200". 0 when there is no number. */
static int status_parse(const char *line, size_t len)
{
	size_t i = 0;
	int status = 0;

	while (i < len && line[i] != ' ')
		i++;
	while (i < len && line[i] == ' ')
		i++;
	for (; i < len && line[i] >= '0' && line[i] <= '9' && status < 1000; i++)
		status = status * 10 + (line[i] - '0');
	return status;
}

bool recv_is_final(int status)
{
	return status >= 200 || status == 101; /* after 101 no other answer comes */
}

/* A new answer begins: at the start, and after a 1xx. What comes after the last one are trailers. */
static bool is_status_line(const struct transfer *t, const char *line, size_t len)
{
	return len >= 5 && memcmp(line, "HTTP/", 5) == 0 &&
	       (t->status == 0 || (t->is_block_ended && !recv_is_final(t->status)));
}

static bool line_is(const char *line, size_t len, const char *name)
{
	size_t n = strlen(name);

	return len > n && line[n] == ':' && strncasecmp(line, name, n) == 0;
}

/* Is what comes over the wire something else than the body? */
static bool line_says_coded(const char *line, size_t len)
{
	static const char encoding[] = "Content-Encoding", transfer[] = "Transfer-Encoding";
	const char *plain = line_is(line, len, encoding) ? "identity" : line_is(line, len, transfer) ? "chunked" : NULL;

	if (!plain)
		return false;
	const char *value = memchr(line, ':', len), *end = line + len;
	for (value++; value < end && is_blank(*value);)
		value++;
	size_t n = (size_t)(end - value);
	return n > 0 && !(n == strlen(plain) && strncasecmp(value, plain, n) == 0);
}

/* RFC 9112 6.3: a Content-Length that is no number, or not the same as the one before it, makes the answer's end
 * unknown. libcurl takes the last one, and one beyond 64 bits for none. */
static bool length_is_valid(struct transfer *t, const char *line, size_t len)
{
	int64_t length = 0;
	size_t i = strlen("Content-Length:"), n_digits = 0;

	if (!line_is(line, len, "Content-Length") || t->is_block_ended) /* in a trailer it says nothing */
		return true;
	while (i < len && is_blank(line[i]))
		i++;
	for (; i < len && line[i] >= '0' && line[i] <= '9' && n_digits < 18; i++, n_digits++)
		length = length * 10 + (line[i] - '0');
	if (!n_digits || i < len || (t->has_length && length != t->length))
		return false;
	t->has_length = true;
	t->length = length;
	return true;
}

static int field_add(struct transfer *t, const char *line, size_t len)
{
	struct buf *headers = &t->resp->headers;

	/* Obsolete line folding (RFC 9112 5.2): one space in place of the line end. */
	if (is_blank(line[0]) && headers->len >= 2) {
		while (len && is_blank(line[0])) {
			line++;
			len--;
		}
		headers->len -= 2;
		return buf_add(headers, " ", 1) < 0 || buf_add(headers, line, len) < 0 ||
			       buf_add(headers, "\r\n", 2) < 0
			   ? -ERR_TOO_LARGE
			   : 0;
	}
	if (!memchr(line, ':', len)) {
		t->resp->headers_dropped++;
		return 0;
	}
	if ((line[0] | 0x20) == 'c' || (line[0] | 0x20) == 't')
		t->is_coded |= line_says_coded(line, len);
	uint8_t *to =
	    headers->data ? buf_reserve(headers, len + 2) : buf_reserve(headers, MAX(len + 2, (size_t)HEADERS_FIRST));
	if (!to)
		return -ERR_TOO_LARGE;
	memcpy(to, line, len);
	memcpy(to + len, "\r\n", 2);
	headers->len += len + 2;
	return 0;
}

/* 0, -ERR_HEADERS_TOO_LARGE or -ERR_HTTP_SYNTAX. */
static int line_take(struct transfer *t, const char *line, size_t len)
{
	while (len && is_blank(line[len - 1]))
		len--;
	if (len == 0) {
		t->is_block_ended = true;
		return 0;
	}
	if (++t->header_lines > RESPONSE_HEADER_LINES_MAX || t->header_bytes > RESPONSE_HEADER_BYTES_MAX)
		return -ERR_HEADERS_TOO_LARGE;
	if (!is_status_line(t, line, len)) {
		if (!length_is_valid(t, line, len))
			return -ERR_HTTP_SYNTAX;
		return field_add(t, line, len) < 0 ? -ERR_HEADERS_TOO_LARGE : 0;
	}
	t->status = status_parse(line, len);
	t->is_block_ended = t->is_coded = t->has_length = false;
	buf_clear(&t->resp->headers);
	t->resp->headers_dropped = 0;
	return 0;
}

/* One line; but trailers that came during a pause come all at once. */
size_t on_header(char *data, size_t size, size_t n, void *ctx)
{
	struct transfer *t = ctx;
	size_t len = size * n, from = 0;

	if (t->is_dropping)
		return len;
	t->last_byte_us = loop_now_us(t->fetch->loop);
	t->header_bytes += len;
	while (from < len) {
		const char *end = memchr(data + from, '\n', len - from);
		size_t line_len = end ? (size_t)(end - data) + 1 - from : len - from;
		t->err = line_take(t, data + from, line_len);
		if (t->err)
			return 0;
		from += line_len;
	}
	recv_count(t);
	return len;
}

/* ---- body ---- */

static curl_off_t wire_bytes(const struct transfer *t)
{
	curl_off_t bytes = 0;

	curl_easy_getinfo(t->easy, CURLINFO_SIZE_DOWNLOAD_T, &bytes);
	return bytes;
}

static curl_off_t declared_bytes(const struct transfer *t)
{
	curl_off_t bytes = -1;

	curl_easy_getinfo(t->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &bytes);
	return bytes;
}

/* During a transfer libcurl may count the bytes of its last read (16 KiB) only after it has decoded them: 7.88 with
 * chunks, 8.14 always. So there is a ratio that is certain, and one that is possible. */
bool recv_is_bomb(const struct transfer *t)
{
	curl_off_t wire_max = wire_bytes(t) + CURL_MAX_WRITE_SIZE, declared = declared_bytes(t);

	if (t->decoded_bytes <= BOMB_BYTES_MIN)
		return false;
	if (declared >= 0 && declared < wire_max)
		wire_max = declared;
	return t->decoded_bytes > wire_max * BOMB_RATIO;
}

bool recv_may_be_bomb(const struct transfer *t)
{
	return t->decoded_bytes > wire_bytes(t) * BOMB_RATIO;
}

/* The body's first bytes: take memory once for what the peer announces, as far as it is believable. */
static void body_begin(struct transfer *t)
{
	curl_off_t declared = declared_bytes(t);

	if (t->body_overflow_fails && !t->is_coded && declared > (curl_off_t)t->body_max_bytes)
		t->err = -ERR_BODY_TOO_LARGE;
	if (t->err || t->body_mode != BODY_MODE_INLINE || declared <= 0)
		return;
	size_t first = (size_t)MIN(declared, (curl_off_t)BODY_FIRST_MAX / 4);
	first = t->is_coded ? first * 4 : (size_t)MIN(declared, (curl_off_t)BODY_FIRST_MAX);
	if (!buf_reserve(&t->resp->body, MIN(first, t->body_max_bytes)))
		t->err = -ERR_INTERNAL;
}

/* 0, or -ERR_INTERNAL. */
static int body_keep(struct transfer *t, const char *data, size_t len)
{
	if (t->body_mode == BODY_MODE_HASH_ONLY)
		return EVP_DigestUpdate(t->md, data, len) == 1 ? 0 : -ERR_INTERNAL;
	if (t->body_mode == BODY_MODE_NONE)
		return 0;
	return buf_add(&t->resp->body, data, len) < 0 ? -ERR_INTERNAL : 0;
}

/* Past the cap. A compressed body that may be a bomb is decoded on, not kept, until that is known; but no further than
 * what libcurl may not have counted can explain: one that stays in doubt would go on for ever. */
static size_t body_over(struct transfer *t, size_t len)
{
	size_t doubt_max = MAX(t->body_max_bytes, (size_t)BOMB_BYTES_MIN) + (size_t)CURL_MAX_WRITE_SIZE * BOMB_RATIO;

	if (t->is_coded && recv_may_be_bomb(t) && (size_t)t->decoded_bytes <= doubt_max)
		return len;
	if (t->body_overflow_fails)
		t->err = -ERR_BODY_TOO_LARGE;
	else
		t->is_cut = true;
	return 0;
}

size_t on_body(char *data, size_t size, size_t n, void *ctx)
{
	struct transfer *t = ctx;
	struct response *resp = t->resp;
	size_t len = size * n, room = t->body_max_bytes - (size_t)resp->body_length, keep = MIN(len, room);

	if (t->is_dropping)
		return len;
	/* A pause that came before libcurl could take it. */
	if (t->paused_us) {
		t->is_recv_paused = true;
		return CURL_WRITEFUNC_PAUSE;
	}
	if (len == 0)
		return 0;
	if (t->decoded_bytes == 0)
		body_begin(t);
	if (t->err)
		return 0;
	t->last_byte_us = loop_now_us(t->fetch->loop);
	t->decoded_bytes += (int64_t)len;
	if (keep && body_keep(t, data, keep) < 0) {
		t->err = -ERR_INTERNAL;
		return 0;
	}
	resp->body_length += (int64_t)keep;
	recv_count(t);
	if (t->is_coded && recv_is_bomb(t)) {
		t->err = -ERR_BODY_BOMB;
		return 0;
	}
	return t->decoded_bytes > (int64_t)t->body_max_bytes ? body_over(t, len) : len;
}
