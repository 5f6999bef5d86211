/* url: what comes out of each text, and why. */
#include "err.h"
#include "url.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>
#include <curl/curl.h>
#include <locale.h>

#define X63 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define X61 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

static const struct good {
	const char *input, *text, *key, *why;
	bool is_literal;
} good[] = {
    {"http://example.com/", "http://example.com/", "example.com:80", "as it should be", false},
    {"https://example.com/", "https://example.com/", "example.com:443", "the other scheme", false},
    {"http://example.com", "http://example.com/", "example.com:80", "a path is added", false},
    {"http://example.com?q=1", "http://example.com/?q=1", "example.com:80", "also before a query", false},
    {"http://example.com/a?q=?/..#x", "http://example.com/a?q=?/..", "example.com:80", "no fragment; query as it is",
     false},
    {"http://example.com#f", "http://example.com/", "example.com:80", "fragment on the host", false},
    {"http://example.com/?", "http://example.com/", "example.com:80", "an empty query is none to libcurl", false},
    {"http://example.com/#", "http://example.com/", "example.com:80", "an empty fragment", false},
    {"HTTP://EXAMPLE.Com/Path?Q", "http://example.com/Path?Q", "example.com:80", "case of scheme and host only", false},
    {"HttpS://a/", "https://a/", "a:443", "a host of one label", false},
    {"http://localhost:8080/", "http://localhost:8080/", "localhost:8080", "a port", false},
    {"http://a:80/", "http://a/", "a:80", "the default port", false},
    {"https://a:443/", "https://a/", "a:443", "the default port", false},
    {"http://a:443/", "http://a:443/", "a:443", "the other scheme's port", false},
    {"https://a:80/", "https://a:80/", "a:80", "the other scheme's port", false},
    {"http://a:/", "http://a/", "a:80", "an empty port is the default one (RFC 3986 3.2.3)", false},
    {"http://a:000080/", "http://a/", "a:80", "zeros before a port", false},
    {"http://a:65535/", "http://a:65535/", "a:65535", "the highest port", false},
    {"http://a:1/", "http://a:1/", "a:1", "the lowest port", false},

    /* Paths */
    {"http://a/b/../c/./d", "http://a/c/d", "a:80", "dot segments", false},
    {"http://a/../../etc", "http://a/etc", "a:80", "dot segments over the root", false},
    {"http://a/b/..", "http://a/", "a:80", "dots at the end", false},
    {"http://a/.well-known/x", "http://a/.well-known/x", "a:80", "a dot that is no dot segment", false},
    {"http://a//b//c", "http://a//b//c", "a:80", "empty segments stay", false},
    {"http://a/%7Eb/%zz%", "http://a/%7Eb/%zz%", "a:80", "percent signs stay, also wrong ones", false},
    {"http://a/\"<>\\^`{|}", "http://a/%22%3C%3E%5C%5E%60%7B%7C%7D", "a:80", "what RFC 3986 does not know", false},
    {"http://a/?\"<>\\^`{|}", "http://a/?%22%3C%3E%5C%5E%60%7B%7C%7D", "a:80", "in the query too", false},
    {"http://a/!$&'()*+,;=:@-._~[]", "http://a/!$&'()*+,;=:@-._~[]", "a:80", "what stays as it is", false},
    {"http://a/\xc3\xa9?\xc3\xa9", "http://a/%C3%A9?%C3%A9", "a:80", "UTF-8", false},
    {"http://a/\xff\x80", "http://a/%FF%80", "a:80", "not UTF-8", false},
    {"http://a/b@c:d", "http://a/b@c:d", "a:80", "@ and : in a path are no user name", false},
    {"http://a?b@c", "http://a/?b@c", "a:80", "@ in a query", false},
    {"http://a#b@c", "http://a/", "a:80", "@ in a fragment", false},

    /* Names */
    {"http://example.com./x", "http://example.com/x", "example.com:80", "one dot at the end", false},
    {"http://a_b.c-d.e/", "http://a_b.c-d.e/", "a_b.c-d.e:80", "underscore and hyphen", false},
    {"http://-a-.example/", "http://-a-.example/", "-a-.example:80", "hyphens at the ends exist", false},
    {"http://r3---sn-x.example/", "http://r3---sn-x.example/", "r3---sn-x.example:80", "hyphens 3 and 4 exist", false},
    {"http://xn--bcher-kva.de/", "http://xn--bcher-kva.de/", "xn--bcher-kva.de:80", "punycode as it is", false},
    {"http://" X63 ".de/", "http://" X63 ".de/", X63 ".de:80", "the longest label", false},
    {"http://" X63 "." X63 "." X63 "." X61 "/", "http://" X63 "." X63 "." X63 "." X61 "/",
     X63 "." X63 "." X63 "." X61 ":80", "253 characters", false},
    {"http://%65xample.com/", "http://example.com/", "example.com:80", "a percent-encoded host", false},
    {"http://r3---sn-%78.example/", "http://r3---sn-x.example/", "r3---sn-x.example:80", "encoded, yet no IDN", false},
    {"http://EX%41MPLE.com/", "http://example.com/", "example.com:80", "lower case after decoding", false},
    {"http://example.com%2e/", "http://example.com/", "example.com:80", "the encoded last dot", false},
    {"http://a.1e/", "http://a.1e/", "a.1e:80", "a last label that only begins as a number", false},
    {"http://1.2.3.4.example/", "http://1.2.3.4.example/", "1.2.3.4.example:80", "a name of numbers", false},
    {"http://0x7f.example/", "http://0x7f.example/", "0x7f.example:80", "a hexadecimal label before others", false},

    /* International names */
    {"http://b\xc3\xbc"
     "cher.de/",
     "http://xn--bcher-kva.de/", "xn--bcher-kva.de:80", "UTF-8", false},
    {"http://B\xc3\x9c"
     "CHER.DE/",
     "http://xn--bcher-kva.de/", "xn--bcher-kva.de:80", "in capitals", false},
    {"http://b%C3%BCcher.de/", "http://xn--bcher-kva.de/", "xn--bcher-kva.de:80", "percent-encoded UTF-8", false},
    {"http://fa\xc3\x9f.de/", "http://xn--fa-hia.de/", "xn--fa-hia.de:80", "sharp s: not transitional", false},
    {"http://\xe4\xbe\x8b\xe3\x81\x88.jp/", "http://xn--r8jz45g.jp/", "xn--r8jz45g.jp:80", "Japanese", false},
    {"http://a\xe3\x80\x82"
     "b/",
     "http://a.b/", "a.b:80", "ideographic full stop", false},
    {"http://\xef\xbd\x85xample.com/", "http://example.com/", "example.com:80", "full-width letter", false},
    {"http://exam\xc2\xadple.com/", "http://example.com/", "example.com:80", "soft hyphen", false},
    {"http://\xe2\x93\x9b\xe2\x93\x9e"
     "calhost/",
     "http://localhost/", "localhost:80", "circled letters", false},

    /* IPv4 in all its forms */
    {"http://192.0.2.1/", "http://192.0.2.1/", "192.0.2.1:80", "dotted", true},
    {"http://127.1/", "http://127.0.0.1/", "127.0.0.1:80", "two parts", true},
    {"http://127.0.1/", "http://127.0.0.1/", "127.0.0.1:80", "three parts", true},
    {"http://2130706433/", "http://127.0.0.1/", "127.0.0.1:80", "one number", true},
    {"http://0/", "http://0.0.0.0/", "0.0.0.0:80", "zero", true},
    {"http://4294967295/", "http://255.255.255.255/", "255.255.255.255:80", "the greatest", true},
    {"http://0x7f.1/", "http://127.0.0.1/", "127.0.0.1:80", "hexadecimal", true},
    {"http://0X7F.0X1/", "http://127.0.0.1/", "127.0.0.1:80", "hexadecimal in capitals", true},
    {"http://0x7f000001/", "http://127.0.0.1/", "127.0.0.1:80", "one hexadecimal number", true},
    {"http://0177.0.0.01/", "http://127.0.0.1/", "127.0.0.1:80", "octal", true},
    {"http://127.0.0.01/", "http://127.0.0.1/", "127.0.0.1:80", "dotted, one of them octal", true},
    {"http://255.255.255.255:8/", "http://255.255.255.255:8/", "255.255.255.255:8", "dotted, the greatest", true},
    {"http://127.0.0.1./", "http://127.0.0.1/", "127.0.0.1:80", "dotted, with a dot at the end", true},
    {"http://0x7f.1.:81/a/../b", "http://127.0.0.1:81/b", "127.0.0.1:81", "odd, with a dot at the end", true},
    {"http://%31%32%37.0.0.1/", "http://127.0.0.1/", "127.0.0.1:80", "percent-encoded", true},
    {"http://%30x7f.1/", "http://127.0.0.1/", "127.0.0.1:80", "hexadecimal only after decoding", true},
    {"http://127%2e1/", "http://127.0.0.1/", "127.0.0.1:80", "encoded dot", true},
    {"http://"
     "\xef\xbc\x91\xef\xbc\x92\xef\xbc\x97\xef\xbc\x8e\xef\xbc\x90\xef\xbc\x8e\xef\xbc\x90\xef\xbc\x8e\xef\xbc\x91"
     "/",
     "http://127.0.0.1/", "127.0.0.1:80", "full-width digits and dots", true},
    {"http://\xef\xbc\x90x7f\xe3\x80\x82\xef\xbc\x91/", "http://127.0.0.1/", "127.0.0.1:80",
     "full-width, hexadecimal and two parts", true},
    {"http://\xe2\x91\xa0\xe2\x91\xa1\xe2\x91\xa6.1/", "http://127.0.0.1/", "127.0.0.1:80", "circled digits", true},

    /* IPv6 */
    {"http://[::1]/", "http://[::1]/", "[::1]:80", "loopback", true},
    {"http://[2001:DB8:0:0::1]:8080/x", "http://[2001:db8::1]:8080/x", "[2001:db8::1]:8080", "the short form", true},
    {"http://[2001:DB8::1]/", "http://[2001:db8::1]/", "[2001:db8::1]:80", "lower case", true},
    {"https://[::ffff:127.0.0.1]/", "https://[::ffff:127.0.0.1]/", "[::ffff:127.0.0.1]:443", "mapped", true},
    {"https://[::ffff:7f00:1]/", "https://[::ffff:127.0.0.1]/", "[::ffff:127.0.0.1]:443", "mapped in hexadecimal",
     true},
    {"http://[::]:/", "http://[::]/", "[::]:80", "an empty port", true},
};

static const struct bad {
	const char *input;
	int err;
	const char *why;
} bad[] = {
    {"", ERR_URL_EMPTY, "nothing"},
    {" ", ERR_URL_SYNTAX, "a space"},
    {" http://a/", ERR_URL_SYNTAX, "a space before"},
    {"http://a/ ", ERR_URL_SYNTAX, "a space after"},
    {"http://a/b c", ERR_URL_SYNTAX, "a space within"},
    {"http://a/\t", ERR_URL_SYNTAX, "a tab"},
    {"http://a/\r\nHost: b", ERR_URL_SYNTAX, "a line end"},
    {"http://a/\x7f", ERR_URL_SYNTAX, "DEL"},
    {"http://a/\x01", ERR_URL_SYNTAX, "a control"},
    {"http://a\n/", ERR_URL_SYNTAX, "a control in the host"},

    {"example.com/x", ERR_URL_SYNTAX, "no scheme, no guessing"},
    {"example.com", ERR_URL_SYNTAX, "no scheme"},
    {"example.com:8080/x", ERR_URL_SYNTAX, "no scheme, though a colon"},
    {"//example.com/x", ERR_URL_SYNTAX, "no scheme"},
    {"/x", ERR_URL_SYNTAX, "a path"},
    {"://example.com/", ERR_URL_SYNTAX, "an empty scheme"},
    {"1http://a/", ERR_URL_SYNTAX, "a scheme does not begin with a digit"},
    {"ht tp://a/", ERR_URL_SYNTAX, "a space in the scheme"},
    {"ht_tp://a/", ERR_URL_SYNTAX, "no character of a scheme"},
    {"http", ERR_URL_SYNTAX, "only a word"},
    {"http:", ERR_URL_SYNTAX, "only a scheme"},
    {"http:/", ERR_URL_SYNTAX, "one slash"},
    {"http:a/", ERR_URL_SYNTAX, "no slash"},
    {"http:/a/", ERR_URL_SYNTAX, "one slash, which libcurl would take"},
    {"http:\\\\a/", ERR_URL_SYNTAX, "back slashes"},
    {"http:/\\a/", ERR_URL_SYNTAX, "a back slash"},
    {"file:///etc/passwd", ERR_URL_SCHEME, "file"},
    {"file:/etc/passwd", ERR_URL_SCHEME, "file"},
    {"javascript:alert(1)", ERR_URL_SCHEME, "javascript"},
    {"ftp://a/", ERR_URL_SCHEME, "ftp, which libcurl knows"},
    {"gopher://a:25/_HELO", ERR_URL_SCHEME, "gopher, which libcurl knows"},
    {"data:text/html,x", ERR_URL_SCHEME, "data"},
    {"mailto:a@b", ERR_URL_SCHEME, "mailto"},
    {"httpx://a/", ERR_URL_SCHEME, "nearly"},
    {"htt://a/", ERR_URL_SCHEME, "nearly"},
    {"view-source+http://a/", ERR_URL_SCHEME, "all characters that a scheme may have"},

    {"http://", ERR_URL_HOST, "no host"},
    {"http:///etc", ERR_URL_HOST, "an empty host, over which libcurl would step"},
    {"http:////a/", ERR_URL_HOST, "an empty host"},
    {"http://?q", ERR_URL_HOST, "an empty host"},
    {"http://#f", ERR_URL_HOST, "an empty host"},
    {"http://:80/", ERR_URL_HOST, "an empty host with a port"},
    {"http://./", ERR_URL_HOST, "only a dot"},
    {"http://../", ERR_URL_HOST, "only dots"},
    {"http://.a/", ERR_URL_HOST, "an empty label"},
    {"http://a..b/", ERR_URL_HOST, "an empty label"},
    {"http://a../", ERR_URL_HOST, "two dots at the end"},
    {"http://" X63 "x.de/", ERR_URL_HOST, "a label of 64"},
    {"http://" X63 "." X63 "." X63 "." X61 "x/", ERR_URL_HOST, "254 characters"},
    {"http://" X63 "." X63 "." X63 "." X63 ".a/", ERR_URL_HOST, "257 characters"},
    {"http://a*b/", ERR_URL_HOST, "a star"},
    {"http://a\\b/", ERR_URL_HOST, "a back slash"},
    {"http://a%20b/", ERR_URL_HOST, "an encoded space"},
    {"http://a%00b/", ERR_URL_HOST, "an encoded NUL"},
    {"http://a%0ab/", ERR_URL_HOST, "an encoded line end"},
    {"http://a%2fb/", ERR_URL_HOST, "an encoded slash"},
    {"http://a%3a80/", ERR_URL_HOST, "an encoded colon"},
    {"http://a%40b/", ERR_URL_HOST, "an encoded @"},
    {"http://a%2525b/", ERR_URL_HOST, "encoded twice"},
    {"http://a%/", ERR_URL_HOST, "half a percent-encoding"},
    {"http://a%zz/", ERR_URL_HOST, "no percent-encoding"},
    {"http://a,b/", ERR_URL_HOST, "a comma"},
    {"http://a~b/", ERR_URL_HOST, "a tilde"},
    {"http://a|b/", ERR_URL_HOST, "a bar"},
    {"http://\xff\xfe/", ERR_URL_HOST, "not UTF-8"},
    {"http://\xc2\xad/", ERR_URL_HOST, "a soft hyphen alone is nothing"},
    {"http://a\xef\xbc\x8f"
     "b/",
     ERR_URL_HOST, "full-width slash"},
    {"http://a\xef\xbc\xa0"
     "b/",
     ERR_URL_HOST, "full-width @"},
    {"http://a\xef\xbc\x9a"
     "80/",
     ERR_URL_HOST, "full-width colon"},
    {"http://a\xe2\x84\x80/", ERR_URL_HOST, "U+2100 becomes a/c"},
    {"http://\xef\xbd\xa1/", ERR_URL_HOST, "half-width full stop alone"},

    {"http://1.2.3.256/", ERR_URL_HOST, "a number too large, and no name"},
    {"http://256.1/", ERR_URL_HOST, "a number too large"},
    {"http://4294967296/", ERR_URL_HOST, "over 32 bits"},
    {"http://1.2.3.4.5/", ERR_URL_HOST, "five numbers"},
    {"http://1..2/", ERR_URL_HOST, "an empty number"},
    {"http://08.1/", ERR_URL_HOST, "no octal number"},
    {"http://0x/", ERR_URL_HOST, "no hexadecimal number"},
    {"http://a.0x/", ERR_URL_HOST, "no hexadecimal number"},
    {"http://a.1/", ERR_URL_HOST, "a name that ends in a number"},
    {"http://a.0x1/", ERR_URL_HOST, "a name that ends in a hexadecimal number"},
    {"http://99999999999999999999/", ERR_URL_HOST, "over 64 bits"},

    {"http://[::1/", ERR_URL_HOST, "a bracket not closed"},
    {"http://[]/", ERR_URL_HOST, "nothing in brackets"},
    {"http://[/", ERR_URL_HOST, "a bracket alone"},
    {"http://[::1]a/", ERR_URL_HOST, "more after the bracket"},
    {"http://[::1]]/", ERR_URL_HOST, "a bracket more"},
    {"http://[127.0.0.1]/", ERR_URL_HOST, "IPv4 in brackets"},
    {"http://[a]/", ERR_URL_HOST, "a name in brackets"},
    {"http://[::g]/", ERR_URL_HOST, "no hexadecimal"},
    {"http://[1:2:3:4:5:6:7:8:9]/", ERR_URL_HOST, "too long"},
    {"http://[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]/", ERR_URL_HOST, "far too long"},
    {"http://[fe80::1%25eth0]/", ERR_URL_HOST, "a zone id"},
    {"http://[fe80::1%eth0]/", ERR_URL_HOST, "a zone id, not encoded"},
    {"http://[v1.a]/", ERR_URL_HOST, "an IP future"},
    {"http://::1/", ERR_URL_HOST, "no brackets"},
    {"http://a]/", ERR_URL_HOST, "a bracket at the end"},

    {"http://a:0/", ERR_URL_SYNTAX, "port 0"},
    {"http://a:65536/", ERR_URL_SYNTAX, "a port over 16 bits"},
    {"http://a:99999999999999999999/", ERR_URL_SYNTAX, "a port over 64 bits"},
    {"http://a:4294967376/", ERR_URL_SYNTAX, "a port over 32 bits that would wrap to 80"},
    {"http://a:+80/", ERR_URL_SYNTAX, "a sign"},
    {"http://a:-1/", ERR_URL_SYNTAX, "a sign"},
    {"http://a:8o/", ERR_URL_SYNTAX, "a letter"},
    {"http://a:80:90/", ERR_URL_SYNTAX, "two ports"},
    {"http://a:http/", ERR_URL_SYNTAX, "a name of a port"},

    {"http://u@a/", ERR_URL_USERINFO, "a user"},
    {"http://u:p@a/", ERR_URL_USERINFO, "user and password"},
    {"http://@a/", ERR_URL_USERINFO, "an empty user"},
    {"http://:@a/", ERR_URL_USERINFO, "empty both"},
    {"http://a@b@c/", ERR_URL_USERINFO, "two of them"},
    {"http://good.example:80@evil.example/", ERR_URL_USERINFO, "the usual trick"},
    {"http://good.example\\@evil.example/", ERR_URL_USERINFO, "the other usual trick"},
    {"http://u@/", ERR_URL_USERINFO, "a user without host"},
    {"http://u@[::1]/", ERR_URL_USERINFO, "a user before IPv6"},
};

static int parse(struct arena *arena, const char *text, struct url *ret_url)
{
	/* A copy without NUL, so that a read past its end is seen. */
	size_t len = strlen(text);
	uint8_t *exact = xmalloc(len);
	memcpy(exact, text, len);
	int err = url_parse(arena, (struct span){exact, len}, ret_url);
	free(exact);
	return err;
}

static void good_urls(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		const struct good *row = &good[i];
		struct arena arena;
		struct url url, again;

		arena_init(&arena, 64);
		if (parse(&arena, row->input, &url) != 0)
			fail_msg("%s: %s", row->input, row->why);
		if (strcmp(url.text, row->text) != 0 || strcmp(url.key, row->key) != 0 ||
		    url.is_literal != row->is_literal)
			fail_msg("%s: %s: got %s, %s, literal %d", row->input, row->why, url.text, url.key,
				 url.is_literal);
		assert_int_equal(url.is_https, strncmp(url.text, "https:", 6) == 0);
		assert_string_equal(url.scheme, url.is_https ? "https" : "http");
		assert_int_equal(url.port, atoi(strrchr(url.key, ':') + 1));
		/* The key is the host, in brackets when it is IPv6, and the port. */
		bool is_v6 = url.key[0] == '[';
		assert_int_equal(strncmp(url.key + is_v6, url.host, strlen(url.host)), 0);
		assert_int_equal(strrchr(url.key, ':') - url.key, strlen(url.host) + (is_v6 ? 2 : 0));
		/* What came out stays as it is. */
		assert_int_equal(parse(&arena, url.text, &again), 0);
		assert_string_equal(again.text, url.text);
		assert_string_equal(again.key, url.key);
		assert_true(url_same_origin(&url, &again));
		arena_done(&arena);
	}
}

static void bad_urls(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct arena arena;
		struct url url = {.text = "untouched"};

		arena_init(&arena, 64);
		int err = parse(&arena, bad[i].input, &url);
		if (err != -bad[i].err)
			fail_msg("%s: %s: got %d, not %d", bad[i].input, bad[i].why, -err, bad[i].err);
		assert_string_equal(url.text, "untouched");
		arena_done(&arena);
	}
}

static void lengths(void **state)
{
	char text[URL_BYTES_MAX + 2];
	struct arena arena;
	struct url url;

	arena_init(&arena, 64);
	memset(text, 'a', sizeof(text));
	memcpy(text, "http://a/", 9);
	text[URL_BYTES_MAX] = '\0';
	assert_int_equal(parse(&arena, text, &url), 0);
	assert_int_equal(strlen(url.text), URL_BYTES_MAX);
	text[100] = '"';
	assert_int_equal(parse(&arena, text, &url), -ERR_URL_TOO_LONG); /* encoding makes it longer */
	text[URL_BYTES_MAX] = 'a';
	text[URL_BYTES_MAX + 1] = '\0';
	assert_int_equal(parse(&arena, text, &url), -ERR_URL_TOO_LONG);
	/* A host of 8 KiB, plain and encoded. */
	memset(text, 'a', sizeof(text));
	memcpy(text, "http://", 7);
	text[URL_BYTES_MAX] = '\0';
	assert_int_equal(parse(&arena, text, &url), -ERR_URL_HOST);
	text[20] = '%';
	assert_int_equal(parse(&arena, text, &url), -ERR_URL_HOST);
	text[20] = '\xc3';
	assert_int_equal(parse(&arena, text, &url), -ERR_URL_HOST);
	text[7] = '[';
	text[20] = 'a';
	text[URL_BYTES_MAX - 1] = ']';
	assert_int_equal(parse(&arena, text, &url), -ERR_URL_HOST);
	assert_int_equal(url_parse(&arena, (struct span){0}, &url), -ERR_URL_EMPTY);
	assert_int_equal(url_parse(&arena, (struct span){(const uint8_t *)"http://a\0/", 10}, &url), -ERR_URL_SYNTAX);
	arena_done(&arena);
}

/* The daemon never calls setlocale, and libcurl's own IDN would fail then; nor may a locale change anything. */
static void locale_does_not_matter(void **state)
{
	static const char *const locales[] = {"C", "C.UTF-8"};

	for (size_t i = 0; i < ARRAY_LEN(locales); i++) {
		struct arena arena;
		struct url url;

		setlocale(LC_ALL, locales[i]);
		arena_init(&arena, 64);
		assert_int_equal(parse(&arena,
				       "http://b\xc3\xbc"
				       "cher.de/",
				       &url),
				 0);
		assert_string_equal(url.host, "xn--bcher-kva.de");
		arena_done(&arena);
	}
	setlocale(LC_ALL, "C");
}

/* RFC 3986 5.4.1 and 5.4.2 (against http://a/b/c/d;p?q, without fragments), then what servers really send. */
static const struct {
	const char *location, *text;
	int err;
} resolutions[] = {
    {"g", "http://a/b/c/g", 0},
    {"./g", "http://a/b/c/g", 0},
    {"g/", "http://a/b/c/g/", 0},
    {"/g", "http://a/g", 0},
    {"//g", "http://g/", 0},
    {"?y", "http://a/b/c/d;p?y", 0},
    {"g?y", "http://a/b/c/g?y", 0},
    {"#s", "http://a/b/c/d;p?q", 0},
    {"g#s", "http://a/b/c/g", 0},
    {"g?y#s", "http://a/b/c/g?y", 0},
    {";x", "http://a/b/c/;x", 0},
    {"g;x", "http://a/b/c/g;x", 0},
    {"g;x?y#s", "http://a/b/c/g;x?y", 0},
    {".", "http://a/b/c/", 0},
    {"./", "http://a/b/c/", 0},
    {"..", "http://a/b/", 0},
    {"../", "http://a/b/", 0},
    {"../g", "http://a/b/g", 0},
    {"../..", "http://a/", 0},
    {"../../", "http://a/", 0},
    {"../../g", "http://a/g", 0},
    {"../../../g", "http://a/g", 0},
    {"../../../../g", "http://a/g", 0},
    {"/./g", "http://a/g", 0},
    {"/../g", "http://a/g", 0},
    {"g.", "http://a/b/c/g.", 0},
    {".g", "http://a/b/c/.g", 0},
    {"g..", "http://a/b/c/g..", 0},
    {"..g", "http://a/b/c/..g", 0},
    {"./../g", "http://a/b/g", 0},
    {"./g/.", "http://a/b/c/g/", 0},
    {"g/./h", "http://a/b/c/g/h", 0},
    {"g/../h", "http://a/b/c/h", 0},
    {"g;x=1/./y", "http://a/b/c/g;x=1/y", 0},
    {"g;x=1/../y", "http://a/b/c/y", 0},
    {"g?y/./x", "http://a/b/c/g?y/./x", 0},
    {"g?y/../x", "http://a/b/c/g?y/../x", 0},
    {"g:h", NULL, -ERR_URL_SCHEME},
    {"http:g", NULL, -ERR_REDIRECT_BAD}, /* strict parsers only */

    {"https://B.example:8443/x", "https://b.example:8443/x", 0},
    {"//b.example:81/x?y", "http://b.example:81/x?y", 0},
    {"/with space?and more", "http://a/with%20space?and%20more", 0},
    {"  /trimmed  ", "http://a/trimmed", 0},
    {"/\xc3\xa9", "http://a/%C3%A9", 0},
    {"\\\\evil.example/", "http://a/b/c/%5C%5Cevil.example/", 0},
    {"/\\evil.example/", "http://a/%5Cevil.example/", 0},
    {"http://2130706433/", "http://127.0.0.1/", 0},
    {"?", "http://a/b/c/d;p", 0},
    {"", NULL, -ERR_REDIRECT_BAD},
    {"   ", NULL, -ERR_REDIRECT_BAD},
    {"/a\r\nSet-Cookie: x", NULL, -ERR_REDIRECT_BAD},
    {"/a\tb", NULL, -ERR_REDIRECT_BAD},
    {"http://", NULL, -ERR_REDIRECT_BAD},
    {"//", NULL, -ERR_REDIRECT_BAD},
    {"http://a b/", NULL, -ERR_REDIRECT_BAD},
    {"http://u:p@b/", NULL, -ERR_REDIRECT_BAD},
    {"//u@b/", NULL, -ERR_REDIRECT_BAD},
    {"http://b:99999/", NULL, -ERR_REDIRECT_BAD},
    {"file:///etc/passwd", NULL, -ERR_URL_SCHEME},
    {"javascript:alert(1)", NULL, -ERR_URL_SCHEME},
};

static void redirects(void **state)
{
	struct arena arena;
	struct url base, url;

	arena_init(&arena, 4096);
	assert_int_equal(parse(&arena, "http://a/b/c/d;p?q", &base), 0);
	for (size_t i = 0; i < ARRAY_LEN(resolutions); i++) {
		int err = url_resolve(&arena, &base, span_str(resolutions[i].location), &url);
		if (err != resolutions[i].err || (!err && strcmp(url.text, resolutions[i].text) != 0))
			fail_msg("%s: got %d %s", resolutions[i].location, err, err ? "" : url.text);
	}
	arena_done(&arena);
}

static void redirects_from_other_bases(void **state)
{
	static const struct {
		const char *base, *location, *text;
	} rows[] = {
	    {"https://a", "x", "https://a/x"},
	    {"https://a:81", "//b/x", "https://b/x"},
	    {"https://[::1]:81/p", "/x", "https://[::1]:81/x"},
	    {"http://a/?x=/y/z", "w", "http://a/w"},
	    {"http://a/p?x=/y/z", "?w", "http://a/p?w"},
	    {"http://a/p/?x", "#f", "http://a/p/?x"},
	    {"http://a:81/p?q=http://b/c", "d", "http://a:81/d"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct arena arena;
		struct url base, url;

		arena_init(&arena, 4096);
		assert_int_equal(parse(&arena, rows[i].base, &base), 0);
		assert_int_equal(url_resolve(&arena, &base, span_str(rows[i].location), &url), 0);
		assert_string_equal(url.text, rows[i].text);
		arena_done(&arena);
	}
}

static void redirect_over_the_length(void **state)
{
	char text[URL_BYTES_MAX + 1];
	struct arena arena;
	struct url base, url;

	arena_init(&arena, 4096);
	assert_int_equal(parse(&arena, "http://a/b/c", &base), 0);
	memset(text, 'x', sizeof(text));
	text[URL_BYTES_MAX - strlen("http://a/b/")] = '\0';
	assert_int_equal(url_resolve(&arena, &base, span_str(text), &url), 0);
	text[10] = ' ';
	assert_int_equal(url_resolve(&arena, &base, span_str(text), &url), -ERR_REDIRECT_BAD);
	text[10] = 'x';
	text[strlen(text)] = 'x';
	assert_int_equal(url_resolve(&arena, &base, (struct span){(const uint8_t *)text, sizeof(text)}, &url),
			 -ERR_REDIRECT_BAD);
	arena_done(&arena);
}

static void origins(void **state)
{
	static const struct {
		const char *a, *b;
		bool is_same;
	} rows[] = {
	    {"http://a/x", "http://A:80/y?z", true},	   {"http://a/", "https://a/", false},
	    {"http://a/", "http://a:81/", false},	   {"http://a:443/", "https://a/", false},
	    {"http://a/", "http://www.a/", false},	   {"http://[::1]/", "http://[0:0::1]:80/", true},
	    {"http://127.1/", "http://2130706433/", true},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct arena arena;
		struct url a, b;

		arena_init(&arena, 256);
		assert_int_equal(parse(&arena, rows[i].a, &a), 0);
		assert_int_equal(parse(&arena, rows[i].b, &b), 0);
		assert_int_equal(url_same_origin(&a, &b), rows[i].is_same);
		arena_done(&arena);
	}
}

/* What is judged is what libcurl will connect to: it sees the same host and port in each text, and changes nothing. */
static void libcurl_agrees(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		struct arena arena;
		struct url url;
		char *text, *host, *port;
		CURLU *curlu = curl_url();

		arena_init(&arena, 256);
		assert_int_equal(parse(&arena, good[i].input, &url), 0);
		assert_int_equal(curl_url_set(curlu, CURLUPART_URL, url.text, 0), 0);
		assert_int_equal(curl_url_get(curlu, CURLUPART_URL, &text, 0), 0);
		assert_int_equal(curl_url_get(curlu, CURLUPART_HOST, &host, 0), 0);
		assert_int_equal(curl_url_get(curlu, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT), 0);
		assert_string_equal(text, url.text);
		assert_int_equal(atoi(port), url.port);
		assert_int_equal(strncmp(host + (host[0] == '['), url.host, strlen(url.host)), 0);
		curl_free(text);
		curl_free(host);
		curl_free(port);
		curl_url_cleanup(curlu);
		arena_done(&arena);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(good_urls),
	    cmocka_unit_test(bad_urls),
	    cmocka_unit_test(lengths),
	    cmocka_unit_test(locale_does_not_matter),
	    cmocka_unit_test(redirects),
	    cmocka_unit_test(redirects_from_other_bases),
	    cmocka_unit_test(redirect_over_the_length),
	    cmocka_unit_test(origins),
	    cmocka_unit_test(libcurl_agrees),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
