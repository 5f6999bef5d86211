#include "url.h"

#include "err.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <idn2.h>
#include <stdio.h>

#define HOST_BYTES_MAX 253 /* RFC 1035 2.3.4, without the dot at the end */
#define LABEL_BYTES_MAX 63
#define PORT_MAX 65535

/* A URL as cut from the text, nothing decoded yet. */
struct pieces {
	bool is_https;
	struct span host; /* without port, an IPv6 literal with its brackets */
	struct span port; /* empty when there is none */
	struct span rest; /* path and query, without fragment */
};

/* Text of limited size: what does not fit is dropped, and makes it is_over. */
struct writer {
	size_t len;
	bool is_over;
	char text[URL_BYTES_MAX + 1];
};

/* RFC 3986: unreserved, sub-delims, ":@/?" of path and query, and '%'. Brackets too: browsers send them as they are. */
static const bool is_url_char[256] = {
    ['a' ... 'z'] = true, ['A' ... 'Z'] = true, ['0' ... '9'] = true, ['-'] = true, ['.'] = true,
    ['_'] = true,	  ['~'] = true,		['!'] = true,	      ['$'] = true, ['&'] = true,
    ['\''] = true,	  ['('] = true,		[')'] = true,	      ['*'] = true, ['+'] = true,
    [','] = true,	  [';'] = true,		['='] = true,	      [':'] = true, ['@'] = true,
    ['/'] = true,	  ['?'] = true,		['%'] = true,	      ['['] = true, [']'] = true,
};

/* Not a zeroing initialiser: that would clear 8 KiB for each URL. */
static void writer_init(struct writer *out)
{
	out->len = 0;
	out->is_over = false;
}

static void put_char(struct writer *out, char c)
{
	if (out->len < URL_BYTES_MAX)
		out->text[out->len++] = c;
	else
		out->is_over = true;
}

static void put_span(struct writer *out, struct span bytes)
{
	size_t n = MIN(bytes.len, URL_BYTES_MAX - out->len);

	if (n)
		memcpy(out->text + out->len, bytes.data, n);
	out->len += n;
	out->is_over = out->is_over || n < bytes.len;
}

static void put_text(struct writer *out, const char *text)
{
	put_span(out, span_str(text));
}

static void put_percent(struct writer *out, uint8_t c)
{
	static const char hex[] = "0123456789ABCDEF";

	put_char(out, '%');
	put_char(out, hex[c >> 4]);
	put_char(out, hex[c & 15]);
}

static const char *writer_end(struct writer *out)
{
	out->text[out->len] = '\0';
	return out->text;
}

static bool is_alpha(uint8_t c)
{
	return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

static bool is_digit(uint8_t c)
{
	return c >= '0' && c <= '9';
}

static char to_lower(uint8_t c)
{
	return (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

static struct span span_cut(struct span bytes, size_t from, size_t to)
{
	return (struct span){bytes.data + from, to - from};
}

/* Index of the first byte that is one of the three, or the length. */
static size_t span_find(struct span bytes, char a, char b, char c)
{
	size_t i = 0;

	while (i < bytes.len && bytes.data[i] != a && bytes.data[i] != b && bytes.data[i] != c)
		i++;
	return i;
}

static bool span_is(struct span bytes, const char *lower)
{
	size_t i = 0;

	while (i < bytes.len && lower[i] && to_lower(bytes.data[i]) == lower[i])
		i++;
	return i == bytes.len && !lower[i];
}

/* Length of "scheme" in "scheme:..." (RFC 3986 3.1), 0 when the text has none. */
static size_t scheme_len(struct span text)
{
	size_t i = 0;

	while (i < text.len) {
		uint8_t c = text.data[i];
		if (c == ':')
			return i;
		if (!is_alpha(c) && (i == 0 || (!is_digit(c) && c != '+' && c != '-' && c != '.')))
			return 0;
		i++;
	}
	return 0;
}

static int split_authority(struct span authority, struct pieces *pieces)
{
	size_t end = span_find(authority, ':', ':', ':');

	if (span_find(authority, '@', '@', '@') < authority.len)
		return -ERR_URL_USERINFO;
	if (authority.len > 0 && authority.data[0] == '[') {
		end = span_find(authority, ']', ']', ']') + 1;
		if (end > authority.len || (end < authority.len && authority.data[end] != ':'))
			return -ERR_URL_HOST;
	}
	if (end == 0)
		return -ERR_URL_HOST;
	pieces->host = span_cut(authority, 0, end);
	pieces->port = span_cut(authority, MIN(end + 1, authority.len), authority.len);
	return 0;
}

static int split_text(struct span text, struct pieces *pieces)
{
	size_t colon = scheme_len(text);
	struct span scheme = span_cut(text, 0, colon);

	if (colon == 0)
		return -ERR_URL_SYNTAX;
	pieces->is_https = span_is(scheme, "https");
	if (!pieces->is_https && !span_is(scheme, "http")) {
		/* "example.com:8080/x" is a URL without scheme; no scheme in use has a dot. */
		return span_find(scheme, '.', '.', '.') < scheme.len ? -ERR_URL_SYNTAX : -ERR_URL_SCHEME;
	}
	/* libcurl would take one to three slashes. */
	if (text.len < colon + 3 || text.data[colon + 1] != '/' || text.data[colon + 2] != '/')
		return -ERR_URL_SYNTAX;
	text = span_cut(text, colon + 3, text.len);
	size_t end = span_find(text, '/', '?', '#');
	pieces->rest = span_cut(text, end, text.len);
	pieces->rest.len = span_find(pieces->rest, '#', '#', '#');
	return split_authority(span_cut(text, 0, end), pieces);
}

static int parse_port(struct span text, bool is_https, uint16_t *ret_port)
{
	uint32_t port = 0;

	for (size_t i = 0; i < text.len; i++) {
		if (!is_digit(text.data[i]))
			return -ERR_URL_SYNTAX;
		port = MIN(port * 10 + (text.data[i] - '0'), (uint32_t)PORT_MAX + 1);
	}
	if (text.len == 0)
		port = is_https ? 443 : 80;
	if (port < 1 || port > PORT_MAX)
		return -ERR_URL_SYNTAX;
	*ret_port = (uint16_t)port;
	return 0;
}

static CURLU *curlu_new(void)
{
	CURLU *curlu = curl_url();

	if (!curlu)
		abort();
	return curlu;
}

/* Percent-encoding off the host, as libcurl takes it off. Allocated by libcurl; NULL when it is no host. */
static char *decode_percent(struct span host)
{
	struct writer url;
	CURLU *curlu = curlu_new();
	char *decoded = NULL;

	writer_init(&url);
	put_text(&url, "http://");
	put_span(&url, host);
	put_text(&url, "/");
	if (url.is_over || curl_url_set(curlu, CURLUPART_URL, writer_end(&url), 0) ||
	    curl_url_get(curlu, CURLUPART_HOST, &decoded, 0))
		decoded = NULL;
	curl_url_cleanup(curlu);
	return decoded;
}

/* libcurl's own conversion (CURLU_PUNYCODE) reads the host in the locale's character set and fails in the C locale;
 * this is the same call for UTF-8. The second try, for names of IDNA 2003, is also libcurl's. */
static int to_punycode(const char *utf8, char out[static HOST_BYTES_MAX + 2])
{
	uint8_t *ascii = NULL;
	int rc = idn2_lookup_u8((const uint8_t *)utf8, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);

	if (rc != IDN2_OK)
		rc = idn2_lookup_u8((const uint8_t *)utf8, &ascii, IDN2_TRANSITIONAL);
	if (rc != IDN2_OK)
		return -ERR_URL_HOST;
	size_t len = strlen((const char *)ascii);
	int err = len <= HOST_BYTES_MAX + 1 ? 0 : -ERR_URL_HOST;
	if (!err)
		memcpy(out, ascii, len + 1);
	idn2_free(ascii);
	return err;
}

/* Takes a host as it is. check_name() judges it later. */
static int copy_host(const void *host, size_t len, char out[static HOST_BYTES_MAX + 2])
{
	if (len > HOST_BYTES_MAX + 1)
		return -ERR_URL_HOST;
	memcpy(out, host, len);
	out[len] = '\0';
	return 0;
}

static bool is_ascii(struct span bytes)
{
	for (size_t i = 0; i < bytes.len; i++)
		if (bytes.data[i] >= 0x80)
			return false;
	return true;
}

/* Only other than ASCII is converted: "r3---sn.example" stays what DNS knows. */
static int unusual_host(struct span host, char out[static HOST_BYTES_MAX + 2])
{
	char *name = decode_percent(host);
	int err = -ERR_URL_HOST;

	if (name)
		err = is_ascii(span_str(name)) ? copy_host(name, strlen(name), out) : to_punycode(name, out);
	curl_free(name);
	return err;
}

static int ipv6_host(struct span host, char out[static HOST_BYTES_MAX + 2])
{
	struct in6_addr addr;
	size_t len = host.len - 2;

	if (len >= INET6_ADDRSTRLEN)
		return -ERR_URL_HOST;
	memcpy(out, host.data + 1, len);
	out[len] = '\0';
	/* A zone id, encoded or not, is no part of an address here. */
	if (inet_pton(AF_INET6, out, &addr) != 1)
		return -ERR_URL_HOST;
	inet_ntop(AF_INET6, &addr, out, INET6_ADDRSTRLEN);
	return 0;
}

/* Letters, digits, '-' and '_' in labels of 1 to 63. */
static int check_name(const char *host)
{
	size_t label = 0, len = strlen(host);

	if (len == 0 || len > HOST_BYTES_MAX)
		return -ERR_URL_HOST;
	for (size_t i = 0; i < len; i++) {
		uint8_t c = (uint8_t)host[i];
		if (c == '.' && label == 0)
			return -ERR_URL_HOST;
		if (c != '.' && !is_alpha(c) && !is_digit(c) && c != '-' && c != '_')
			return -ERR_URL_HOST;
		label = c == '.' ? 0 : label + 1;
		if (label > LABEL_BYTES_MAX)
			return -ERR_URL_HOST;
	}
	return label ? 0 : -ERR_URL_HOST;
}

/* Lower-case ASCII, without brackets and without the dot at its end. IPv4 in its odd forms is left to libcurl. */
static int normal_host(struct span host, char out[static HOST_BYTES_MAX + 2])
{
	if (host.data[0] == '[')
		return ipv6_host(host, out);
	bool is_plain = is_ascii(host) && !memchr(host.data, '%', host.len);
	int err = is_plain ? copy_host(host.data, host.len, out) : unusual_host(host, out);
	if (err)
		return err;
	size_t len = strlen(out);
	if (len > 0 && out[len - 1] == '.')
		out[len - 1] = '\0';
	for (char *c = out; *c; c++)
		*c = to_lower((uint8_t)*c);
	return check_name(out);
}

/* Whether the last label is a number, so that the name can only be meant as an IPv4 address (WHATWG URL, "ends in a
 * number"). */
static bool ends_in_number(const char *host)
{
	const char *dot = strrchr(host, '.'), *label = dot ? dot + 1 : host;

	if (label[0] == '0' && label[1] == 'x')
		return label[2 + strspn(label + 2, "0123456789abcdef")] == '\0';
	return label[strspn(label, "0123456789")] == '\0';
}

static void put_rest(struct writer *out, struct span rest)
{
	if (rest.len == 0 || rest.data[0] != '/')
		put_char(out, '/');
	for (size_t i = 0; i < rest.len; i++) {
		if (is_url_char[rest.data[i]])
			put_char(out, (char)rest.data[i]);
		else
			put_percent(out, rest.data[i]);
	}
}

/* What libcurl makes of the URL: dot segments gone, numeric IPv4 dotted. Allocated by libcurl. */
static int through_curl(const char *text, char **ret_text)
{
	CURLU *curlu = curlu_new();
	CURLUcode code = curl_url_set(curlu, CURLUPART_URL, text, CURLU_DISALLOW_USER);

	if (!code)
		code = curl_url_get(curlu, CURLUPART_URL, ret_text, CURLU_NO_DEFAULT_PORT);
	curl_url_cleanup(curlu);
	if (code == CURLUE_OUT_OF_MEMORY)
		abort();
	if (code == CURLUE_BAD_HOSTNAME || code == CURLUE_BAD_IPV6 || code == CURLUE_NO_HOST)
		return -ERR_URL_HOST;
	return code ? -ERR_URL_SYNTAX : 0;
}

/* Whether libcurl would give the very same text back, which most URLs can be spared (it costs 1.5 us of 2.2). It
 * changes: a host that is a number, unless it is four decimal ones as inet_pton() has them; a path with dot segments,
 * also encoded ones (from 8.13 on); a '?' without query. Everything else that it looks at was made here. fuzz_url asks
 * libcurl about every text. */
static bool is_settled(const char *host, const char *rest)
{
	struct in_addr addr;

	if (ends_in_number(host) && inet_pton(AF_INET, host, &addr) != 1)
		return false;
	for (; *rest && *rest != '?'; rest++)
		if (rest[0] == '/' && (rest[1] == '.' || rest[1] == '%'))
			return false;
	return !rest[0] || rest[1];
}

/* Takes the host out of the final text: that is where libcurl will connect to, whatever we had put in. */
static int fill_url(struct arena *arena, const char *text, bool is_https, uint16_t port, struct url *ret_url)
{
	const char *scheme = is_https ? "https" : "http", *host = text + strlen(scheme) + 3;
	bool is_v6 = host[0] == '[';
	size_t len = is_v6 ? strcspn(++host, "]") : strcspn(host, ":/");
	struct in_addr addr;
	struct url url = {.scheme = scheme, .port = port, .is_https = is_https, .is_literal = is_v6};

	url.host = arena_strndup(arena, host, len);
	if (!is_v6 && ends_in_number(url.host)) {
		if (inet_pton(AF_INET, url.host, &addr) != 1)
			return -ERR_URL_HOST;
		url.is_literal = true;
	}
	url.text = arena_strndup(arena, text, strlen(text));
	url.key = arena_printf(arena, is_v6 ? "[%s]:%u" : "%s:%u", url.host, (unsigned)port);
	*ret_url = url;
	return 0;
}

static void put_origin(struct writer *out, bool is_https, const char *host, uint16_t port)
{
	bool is_v6 = strchr(host, ':');
	char port_text[8];

	put_text(out, is_https ? "https://" : "http://");
	put_text(out, is_v6 ? "[" : "");
	put_text(out, host);
	put_text(out, is_v6 ? "]" : "");
	if (port != (is_https ? 443 : 80)) {
		snprintf(port_text, sizeof(port_text), ":%u", (unsigned)port);
		put_text(out, port_text);
	}
}

static int build_url(struct arena *arena, const struct pieces *pieces, struct url *ret_url)
{
	struct writer out;
	char host[HOST_BYTES_MAX + 2], *curl_text = NULL;
	uint16_t port;
	int err = normal_host(pieces->host, host);

	if (!err)
		err = parse_port(pieces->port, pieces->is_https, &port);
	if (err)
		return err;
	writer_init(&out);
	put_origin(&out, pieces->is_https, host, port);
	size_t rest = out.len;
	put_rest(&out, pieces->rest);
	if (out.is_over)
		return -ERR_URL_TOO_LONG;
	const char *text = writer_end(&out);
	if (!is_settled(host, text + rest)) {
		err = through_curl(text, &curl_text);
		text = curl_text;
	}
	if (!err)
		err = fill_url(arena, text, pieces->is_https, port, ret_url);
	curl_free(curl_text);
	return err;
}

int url_parse(struct arena *arena, struct span text, struct url *ret_url)
{
	struct pieces pieces;

	if (text.len == 0)
		return -ERR_URL_EMPTY;
	if (text.len > URL_BYTES_MAX)
		return -ERR_URL_TOO_LONG;
	for (size_t i = 0; i < text.len; i++)
		if (text.data[i] <= ' ' || text.data[i] == 0x7f)
			return -ERR_URL_SYNTAX;
	int err = split_text(text, &pieces);
	return err ? err : build_url(arena, &pieces, ret_url);
}

/* RFC 3986 5.2.2: what of base stands before the reference. Dot segments are left to url_parse. */
static struct span base_prefix(const struct url *base, struct span location)
{
	struct span text = span_str(base->text);
	size_t host = strlen(base->scheme) + 3, path = host + strcspn(base->text + host, "/");
	size_t path_end = path + strcspn(base->text + path, "?");

	if (scheme_len(location) > 0)
		return span_cut(text, 0, 0);
	switch (location.data[0]) {
	case '/':
		if (location.len > 1 && location.data[1] == '/')
			return span_cut(text, 0, host - 2);
		return span_cut(text, 0, path);
	case '?':
		return span_cut(text, 0, path_end);
	case '#':
		return text;
	default:
		while (text.data[path_end - 1] != '/')
			path_end--;
		return span_cut(text, 0, path_end);
	}
}

int url_resolve(struct arena *arena, const struct url *base, struct span location, struct url *ret_url)
{
	struct writer out;

	while (location.len > 0 && location.data[0] == ' ')
		location = span_cut(location, 1, location.len);
	while (location.len > 0 && location.data[location.len - 1] == ' ')
		location.len--;
	if (location.len == 0)
		return -ERR_REDIRECT_BAD;
	writer_init(&out);
	put_span(&out, base_prefix(base, location));
	for (size_t i = 0; i < location.len; i++) {
		/* Servers do send spaces, and every client takes them. */
		if (location.data[i] == ' ')
			put_percent(&out, ' ');
		else
			put_char(&out, (char)location.data[i]);
	}
	if (out.is_over)
		return -ERR_REDIRECT_BAD;
	int err = url_parse(arena, (struct span){(const uint8_t *)out.text, out.len}, ret_url);
	return err == 0 || err == -ERR_URL_SCHEME ? err : -ERR_REDIRECT_BAD;
}

bool url_same_origin(const struct url *a, const struct url *b)
{
	return a->is_https == b->is_https && a->port == b->port && strcmp(a->host, b->host) == 0;
}
