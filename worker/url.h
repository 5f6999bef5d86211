/* url - one absolute http(s) URL taken apart, and the host key that limits go by.
 *
 * Happy path: url_parse -> parts in the caller's arena. Parsing is libcurl's (CURLU), so what is judged here is what libcurl
 * will connect to: 0x7f.1, 2130706433 and octal forms come out dotted. Bytes over 0x20 that are not URL characters are
 * percent-encoded; spaces, controls, a user name, an empty or invalid host are refused. A host name becomes lower-case
 * punycode (UTS 46 by libidn2, with libcurl's flags; full-width digits and dots are normalised before they are judged), one
 * trailing dot is dropped; one that ends in a number but is no IPv4 address is refused.
 * Layer 1: pure. */
#ifndef GATHERD_URL_H
#define GATHERD_URL_H

#include "arena.h"
#include "base.h"

#define URL_BYTES_MAX 8192

struct url {
	const char *text;   /* the normalised whole, without fragment: what libcurl gets */
	const char *scheme; /* "http" or "https" */
	const char *host;   /* lower case, punycode; an IPv6 literal without brackets */
	const char *key;    /* "example.com:443", "[2001:db8::1]:80": the host key */
	uint16_t port;
	bool is_https;
	bool is_literal; /* host is an IPv4 or IPv6 address */
};

/* text need not end in NUL. 0, or -ERR_URL_EMPTY, _URL_TOO_LONG, _URL_SYNTAX, _URL_SCHEME, _URL_HOST, _URL_USERINFO. */
int url_parse(struct arena *arena, struct span text, struct url *ret_url) MUST_CHECK;
/* Location of a redirect (RFC 9110 10.2.2), relative to base; spaces in it are encoded. 0, -ERR_URL_SCHEME, or -ERR_REDIRECT_BAD
 * for all else that is wrong with it: the job is not to blame. */
int url_resolve(struct arena *arena, const struct url *base, struct span location, struct url *ret_url) MUST_CHECK;
/* RFC 6454: scheme, host and port are equal. */
bool url_same_origin(const struct url *a, const struct url *b);

#endif
