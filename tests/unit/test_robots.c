/* robots: what a robots.txt allows. The rows hold every example of RFC 9309, the cases of the unit tests of Google's
 * parser (github.com/google/robotstxt) and of Protego (github.com/scrapy/protego), told anew, and our own. */
#include "robots.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define URLS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define NONE ((const char *const[]){NULL})
#define FOO "user-agent: FooBot\n"

/* In a block of just its size, so that the sanitizer sees a read past its end. */
static struct robots *parse_bytes(const void *text, size_t len, const char *token)
{
	uint8_t *copy = memcpy(xmalloc(len), text, len);
	struct robots *robots = robots_parse((struct span){copy, len}, token);

	free(copy);
	return robots;
}

static struct robots *parse(const char *text, const char *token)
{
	return parse_bytes(text, strlen(text), token);
}

/* RFC 9309 */
#define FIGURE_2 "user-agent: ExampleBot\ndisallow: /foo\ndisallow: /bar\n\nuser-agent: ExampleBot\ndisallow: /baz\n"
#define FIGURE_3 "user-agent: *\ndisallow: /foo\ndisallow: /bar\n\nuser-agent: BazBot\ndisallow: /baz\n"
#define SIMPLE                                                                                                         \
	"User-Agent: *\nDisallow: *.gif$\nDisallow: /example/\nAllow: /publications/\n\n"                              \
	"User-Agent: foobot\nDisallow:/\nAllow:/example/page.html\nAllow:/example/allowed.gif\n\n"                     \
	"User-Agent: barbot\nUser-Agent: bazbot\nDisallow: /example/page.html\n\nUser-Agent: quxbot\n\nEOF\n"
/* Google's */
#define GROUPS                                                                                                         \
	"allow: /foo/bar/\n\nuser-agent: FooBot\ndisallow: /\nallow: /x/\nuser-agent: BarBot\ndisallow: /\n"           \
	"allow: /y/\n\n\nallow: /w/\nuser-agent: BazBot\n\nuser-agent: FooBot\nallow: /z/\ndisallow: /\n"
#define MISSPELT                                                                                                       \
	"useragent: *\nDisallow: /1\nDissallow: /2\nDissalow: /3\nDisalow: /4\nDiasllow: /5\nDisallaw: /6\n"           \
	"Disallowed: /7\nDISALLOW /8\nDisslow: /9\n"
#define ENDINGS(eol, last)                                                                                             \
	"User-Agent: foo" eol "Allow: /some/path" eol "User-Agent: bar" eol eol eol "Disallow: /" last
/* The drafts of 1994 and 1996 */
#define DRAFT_1996                                                                                                     \
	"User-agent: unhipbot\nDisallow: /\n\nUser-agent: webcrawler\nUser-agent: excite\nDisallow:\n\n"               \
	"User-agent: *\nDisallow: /org/plans.html\nAllow: /org/\nAllow: /serv\nAllow: /~mak\nDisallow: /\n"

static const struct {
	const char *text, *token;
	const char *const *allowed, *const *denied;
	const char *why;
} rows[] = {
    /* RFC 9309 2.2.1 */
    {FIGURE_2, "examplebot", URLS("/fo", "/"), URLS("/foo", "/bar", "/baz"), "figure 2: groups are combined"},
    {FIGURE_3, "ExampleBot", URLS("/baz"), URLS("/foo", "/bar"), "figure 3: * when nothing else names us"},
    {FIGURE_3, "bazbot", URLS("/foo", "/bar"), URLS("/baz"), "figure 3: the group that names us, alone"},
    {"user-agent: BazBot\ndisallow: /\n", "ExampleBot", URLS("/"), NONE, "no group for us: no rules"},
    {"", "ExampleBot", URLS("/", "/x"), NONE, "no group at all"},
    /* 2.2.2 */
    {"disallow: /\nuser-agent: *\ndisallow: /a\n", "x", URLS("/b"), URLS("/a"), "a rule before any group"},
    {"user-agent: *\ndisallow: /\n", "x", URLS("/robots.txt", "/robots%2Etxt", "/robots.txt#x"),
     URLS("/", "/robots.txt.bak", "/a/robots.txt", "/robots.txt?a"), "/robots.txt is allowed, only it"},
    {"user-agent: *\ndisallow: /foo/bar?baz=quz\n", "x", URLS("/foo/bar"), URLS("/foo/bar?baz=quz"), "figure 4, 1"},
    {"user-agent: *\ndisallow: /foo/bar?baz=https://foo.bar\n", "x", URLS("/foo/bar?baz=https"),
     URLS("/foo/bar?baz=https://foo.bar", "/foo/bar?baz=https%3A%2F%2Ffoo.bar", "/foo/bar?baz=https%3a%2f%2ffoo.bar"),
     "figure 4, 2"},
    {"user-agent: *\ndisallow: /foo/bar?baz=https%3A%2F%2Ffoo.bar\n", "x", URLS("/foo/bar?baz=http%3A%2F%2Ffoo.bar"),
     URLS("/foo/bar?baz=https://foo.bar", "/foo/bar?baz=https%3A%2F%2Ffoo.bar"), "figure 4, 2, from the other side"},
    {"user-agent: *\ndisallow: /foo/bar/\xe3\x83\x84\n", "x", URLS("/foo/bar/", "/foo/bar/%E3%83%85"),
     URLS("/foo/bar/%E3%83%84", "/foo/bar/%e3%83%84", "/foo/bar/\xe3\x83\x84"), "figure 4, 3"},
    {"user-agent: *\ndisallow: /foo/bar/%E3%83%84\n", "x", URLS("/foo/bar/%E3%83"),
     URLS("/foo/bar/%E3%83%84", "/foo/bar/\xe3\x83\x84"), "figure 4, 4"},
    {"user-agent: *\ndisallow: /foo/bar/%62%61%7A\n", "x", URLS("/foo/bar/%62%61"),
     URLS("/foo/bar/baz", "/foo/bar/%62%61%7A", "/foo/bar/b%61z"), "figure 4, 5"},
    {"user-agent: *\ndisallow: /foo/bar/baz\n", "x", NONE, URLS("/foo/bar/%62%61%7A"), "figure 4, 5, the other side"},
    /* 2.2.3 */
    {"user-agent: *\ndisallow: / # comment in line\n# disallow: /\n", "x", NONE, URLS("/"), "figure 5: #"},
    {"user-agent: *\ndisallow: /\nallow: /this/path/exactly$\n", "x", URLS("/this/path/exactly"),
     URLS("/this/path/exactly/", "/this/path/exactl"), "figure 5: $"},
    {"user-agent: *\ndisallow: /\nallow: /this/*/exactly\n", "x",
     URLS("/this//exactly", "/this/a/exactly", "/this/a/b/exactly/c"), URLS("/this/exactly", "/this/a/exactl"),
     "figure 5: *"},
    {"user-agent: *\ndisallow: /path/file-with-a-%2A.html\n", "x", URLS("/path/file-with-a-b.html"),
     URLS("/path/file-with-a-*.html", "/path/file-with-a-%2A.html", "/path/file-with-a-%2a.html"), "figure 6: *"},
    {"user-agent: *\ndisallow: /path/foo-%24\n", "x", URLS("/path/foo-"),
     URLS("/path/foo-$", "/path/foo-%24", "/path/foo-$1"), "figure 6: $"},
    {"user-agent: *\nsitemap: https://a/b.xml\ndisallow: /a\n", "x", URLS("/b"), URLS("/a"), "2.2.4: other records"},
    /* 5.1, 5.2 */
    {SIMPLE, "anybot", URLS("/", "/publications/", "/publications/a.gif", "/a.gif?b", "/example"),
     URLS("/a.gif", "/a/b.gif", "/example/", "/example/page.html"), "5.1: *"},
    {SIMPLE, "foobot", URLS("/example/page.html", "/example/allowed.gif"),
     URLS("/", "/example/", "/example/a.gif", "/publications/"), "5.1: foobot"},
    {SIMPLE, "barbot", URLS("/", "/a.gif", "/example/", "/publications/"), URLS("/example/page.html"), "5.1: barbot"},
    {SIMPLE, "bazbot", URLS("/", "/a.gif", "/example/", "/publications/"), URLS("/example/page.html"), "5.1: bazbot"},
    {SIMPLE, "quxbot", URLS("/", "/a.gif", "/example/page.html"), NONE, "5.1: quxbot, a group without rules"},
    {"User-Agent: foobot\nAllow: /example/page/\nDisallow: /example/page/disallowed.gif\n", "foobot",
     URLS("/example/page/", "/example/page/allowed.gif", "/example/page/disallow.gif"),
     URLS("/example/page/disallowed.gif"), "5.2 (its URL lacks two letters)"},

    /* Google: the form of lines */
    {FOO "disallow: /\n", "", URLS("/x/y"), NONE, "no token: no group"},
    {FOO "disallow: /\n", "FooBot", NONE, URLS("", "/x/y"), "no path is /"},
    {"foo: FooBot\nbar: /\n", "FooBot", URLS("/x/y"), NONE, "unknown names"},
    {"user-agent FooBot\ndisallow /\n", "FooBot", NONE, URLS("/x/y"), "no colon"},
    {GROUPS, "FooBot", URLS("/x/b", "/z/d"), URLS("/y/c", "/foo/bar/"), "groups"},
    {GROUPS, "BarBot", URLS("/y/c", "/w/a"), URLS("/z/d", "/foo/bar/"), "empty lines end no group"},
    {GROUPS, "BazBot", URLS("/z/d"), URLS("/foo/bar/"), "nor do they part user-agent lines"},
    {"User-agent: BarBot\nSitemap: https://a/b\nUser-agent: *\nDisallow: /\n", "FooBot", NONE, URLS("/"), "others"},
    {"User-agent: BarBot\nSitemap: https://a/b\nUser-agent: *\nDisallow: /\n", "BarBot", NONE, URLS("/"), "others"},
    {"User-agent: FooBot\nInvalid-Unknown-Line: x\nUser-agent: *\nDisallow: /\n", "FooBot", NONE, URLS("/"), "others"},
    {"User-agent: FooBot\nInvalid-Unknown-Line: x\nUser-agent: *\nDisallow: /\n", "BarBot", NONE, URLS("/"), "others"},
    {"USER-AGENT: FooBot\nALLOW: /x/\nDISALLOW: /\n", "FooBot", URLS("/x/y"), URLS("/a/b"), "upper case"},
    {"uSeR-aGeNt: FooBot\nAlLoW: /x/\ndIsAlLoW: /\n", "FooBot", URLS("/x/y"), URLS("/a/b"), "any case"},
    {"User-Agent: FOO BAR\nAllow: /x/\nDisallow: /\n", "Foo", URLS("/x/y"), URLS("/a/b"), "a name to its blank"},
    {"User-Agent: FoO bAr\nAllow: /x/\nDisallow: /\n", "foo", URLS("/x/y"), URLS("/a/b"), "in any case"},
    {"User-Agent: *\nDisallow: /\nUser-Agent: Foo Bar\nAllow: /x/\n", "Foo", URLS("/x/y"), NONE, "Foo is named"},
    {"User-Agent: *\nDisallow: /\nUser-Agent: Foo Bar\nAllow: /x/\n", "Foo Bar", NONE, URLS("/x/y"), "not a token"},
    {"user-agent: *\nallow: /\nuser-agent: FooBot\ndisallow: /\n", "FooBot", NONE, URLS("/x/y"), "* is second"},
    {"user-agent: *\nallow: /\nuser-agent: FooBot\ndisallow: /\n", "BarBot", URLS("/x/y"), NONE, "* is second"},
    {FOO "allow: /\nuser-agent: BarBot\ndisallow: /\nuser-agent: BazBot\ndisallow: /\n", "QuxBot", URLS("/x/y"), NONE,
     "not named, and no *"},
    {"user-agent: * x\ndisallow: /\n", "FooBot", NONE, URLS("/"), "* with words behind it"},
    {"user-agent: *x\ndisallow: /\n", "FooBot", URLS("/"), NONE, "is no *"},
    {ENDINGS("\n", "\n"), "foo", URLS("/some/path", "/x"), NONE, "LF"},
    {ENDINGS("\n", "\n"), "bar", NONE, URLS("/some/path", "/x"), "LF"},
    {ENDINGS("\r\n", "\r\n"), "foo", URLS("/some/path", "/x"), NONE, "CR LF"},
    {ENDINGS("\r\n", "\r\n"), "bar", NONE, URLS("/some/path", "/x"), "CR LF"},
    {ENDINGS("\r", "\r"), "foo", URLS("/some/path", "/x"), NONE, "CR"},
    {ENDINGS("\r", "\r"), "bar", NONE, URLS("/some/path", "/x"), "CR"},
    {ENDINGS("\n", ""), "bar", NONE, URLS("/some/path", "/x"), "no end of the last line"},
    {"User-Agent: foo\nAllow: /a\r\nUser-Agent: bar\n\r\n\nDisallow: /", "bar", NONE, URLS("/a"), "mixed"},
    {"\xef\xbb\xbfUser-Agent: foo\nDisallow: /a\n", "foo", URLS("/b"), URLS("/a"), "byte order mark"},
    {"\xef\xbb"
     "User-Agent: foo\nDisallow: /a\n",
     "foo", URLS("/b"), URLS("/a"), "two thirds of it"},
    {"\xef"
     "User-Agent: foo\nDisallow: /a\n",
     "foo", URLS("/b"), URLS("/a"), "one third"},
    {"\xef\x11\xbfUser-Agent: foo\nDisallow: /a\n", "foo", URLS("/a"), NONE, "broken: the line is not read"},
    {"User-Agent: foo\n\xef\xbb\xbf"
     "Disallow: /a\nDisallow: /b\n",
     "foo", URLS("/a"), URLS("/b"), "not at the beginning"},
    {"User-Agent: foo\nAllow: /some/path\nUser-Agent bar # no\nabsolutely random line\n#so comment, much wow\n\n"
     "unicorns: /extinct\nnoarchive: /some\nDisallow: /\nError #and comment\nuseragent: baz\ndisallaw: /some\n"
     "site-map: https://e/s.xml #comment\nsitemap: https://e/t.xml\nNoarchive: /someCapital\n",
     "bar", NONE, URLS("/", "/x"), "a line of each kind: bar"},
    {"User-Agent bar # no\nDisallow: /\nuseragent: baz\ndisallaw: /some\nNoarchive: /x\n", "baz", URLS("/", "/x"),
     URLS("/some"), "a line of each kind: baz"},
    {MISSPELT, "x", URLS("/9", "/0"), URLS("/1", "/2", "/3", "/4", "/5", "/6", "/7", "/8"), "misspelt"},
    {"user agent: foo\ndisallow: /a\n", "foo", URLS("/b"), URLS("/a"), "misspelt with a blank"},
    {"user-agent: foo\ndisallow /a b\ndisallow /c d # e\n", "foo", URLS("/a%20b", "/c%20d"), NONE,
     "three words are no line"},
    /* Google: which rule */
    {FOO "disallow: /x/\n", "FooBot", NONE, URLS("/x/y"), "case"},
    {FOO "disallow: /X/\n", "FooBot", URLS("/x/y"), NONE, "case"},
    {FOO "disallow: /x/page.html\nallow: /x/\n", "FooBot", URLS("/x/"), URLS("/x/page.html"), "the longest"},
    {FOO "allow: /x/page.html\ndisallow: /x/\n", "FooBot", URLS("/x/page.html"), URLS("/x/"), "the longest"},
    {FOO "disallow: \nallow: \n", "FooBot", URLS("/x/page.html"), NONE, "empty ones"},
    {FOO "disallow: /\nallow: /\n", "FooBot", URLS("/x/page.html"), NONE, "allow wins a tie"},
    {FOO "allow: /\ndisallow: /\n", "FooBot", URLS("/x/page.html"), NONE, "in any order"},
    {FOO "disallow: /x\nallow: /x/\n", "FooBot", URLS("/x/"), URLS("/x"), "the longest"},
    {FOO "disallow: /x/page.html\nallow: /x/page.html\n", "FooBot", URLS("/x/page.html"), NONE, "allow wins a tie"},
    {FOO "allow: /page\ndisallow: /*.html\n", "FooBot", URLS("/page"), URLS("/page.html"), "* counts as an octet"},
    {FOO "allow: /x/page.\ndisallow: /*.html\n", "FooBot", URLS("/x/page.html"), URLS("/x/y.html"), "the longest"},
    {"User-agent: *\nDisallow: /x/\nUser-agent: FooBot\nDisallow: /y/\n", "FooBot", URLS("/x/page"), URLS("/y/page"),
     "the group that names us, alone"},
    /* Google: encoding */
    {FOO "Disallow: /\nAllow: /foo/bar?qux=taz&baz=http://foo.bar?tar&par\n", "FooBot",
     URLS("/foo/bar?qux=taz&baz=http://foo.bar?tar&par"), URLS("/foo/bar?qux=taz"), "a URL in a query"},
    {FOO "Disallow: /\nAllow: /foo/bar/\xe3\x83\x84\n", "FooBot", URLS("/foo/bar/%E3%83%84"), URLS("/foo/bar/"), ""},
    {FOO "Disallow: /\nAllow: /foo/bar/\xe3\x83\x84\n", "FooBot", URLS("/foo/bar/\xe3\x83\x84"), NONE,
     "Google: denied, as its caller has to encode"},
    {FOO "Disallow: /\nAllow: /foo/bar/%62%61%7A\n", "FooBot", URLS("/foo/bar/baz", "/foo/bar/%62%61%7A"), NONE,
     "Google: baz is denied; figure 4 says otherwise"},
    {FOO "Disallow: /%aa\n", "FooBot", URLS("/%ab"), URLS("/%AA", "/%aa", "/\xaa"), "digits in any case"},
    {FOO "Disallow: /\xc3\xa1\n", "FooBot", URLS("/a"), URLS("/%C3%A1"), "two octets"},
    /* Google: special characters */
    {FOO "Disallow: /foo/bar/quz\nAllow: /foo/*/qux\n", "FooBot", URLS("/foo/quz", "/foo//quz", "/foo/bax/quz"),
     URLS("/foo/bar/quz"), "*"},
    {FOO "Disallow: /foo/bar$\nAllow: /foo/bar/qux\n", "FooBot", URLS("/foo/bar/qux", "/foo/bar/", "/foo/bar/baz"),
     URLS("/foo/bar"), "$"},
    {FOO "# Disallow: /\nDisallow: /foo/quz#qux\nAllow: /\n", "FooBot", URLS("/foo/bar"), URLS("/foo/quz"), "#"},
    {"User-Agent: *\nAllow: /allowed-slash/index.html\nDisallow: /\n", "foobot", URLS("/allowed-slash/index.html"),
     URLS("/allowed-slash/", "/allowed-slash/index.htm", "/anyother-url"),
     "Google: the directory too; the RFC knows no such thing"},
    /* Google: its documentation */
    {FOO "disallow: /\nallow: /fish\n", "FooBot",
     URLS("/fish", "/fish.html", "/fish/salmon.html", "/fishheads", "/fishheads/yummy.html", "/fish.html?id=anything"),
     URLS("/bar", "/Fish.asp", "/catfish", "/?id=fish"), "/fish"},
    {FOO "disallow: /\nallow: /fish*\n", "FooBot",
     URLS("/fish", "/fish.html", "/fish/salmon.html", "/fishheads", "/fishheads/yummy.html", "/fish.html?id=anything"),
     URLS("/bar", "/Fish.bar", "/catfish", "/?id=fish"), "/fish*"},
    {FOO "disallow: /\nallow: /fish/\n", "FooBot",
     URLS("/fish/", "/fish/salmon", "/fish/?salmon", "/fish/salmon.html", "/fish/?id=anything"),
     URLS("/bar", "/fish", "/fish.html", "/Fish/Salmon.html"), "/fish/"},
    {FOO "disallow: /\nallow: /*.php\n", "FooBot",
     URLS("/filename.php", "/folder/filename.php", "/folder/filename.php?parameters", "//folder/any.php.file.html",
	  "/filename.php/", "/index?f=filename.php/"),
     URLS("/bar", "/php/", "/index?php", "/windows.PHP"), "/ * .php"},
    {FOO "disallow: /\nallow: /*.php$\n", "FooBot", URLS("/filename.php", "/folder/filename.php", "/a.php.php"),
     URLS("/bar", "/filename.php?parameters", "/filename.php/", "/filename.php5", "/php/", "/filename?php",
	  "/aaaphpaaa", "//windows.PHP"),
     "/ * .php$"},
    {FOO "disallow: /\nallow: /fish*.php\n", "FooBot", URLS("/fish.php", "/fishheads/catfish.php?parameters"),
     URLS("/bar", "/Fish.PHP"), "/fish*.php"},
    {FOO "allow: /p\ndisallow: /\n", "FooBot", URLS("/page"), NONE, "the longest"},
    {FOO "allow: /folder\ndisallow: /folder\n", "FooBot", URLS("/folder/page"), NONE, "allow wins a tie"},
    {FOO "allow: /page\ndisallow: /*.htm\n", "FooBot", NONE, URLS("/page.htm"), "the longest"},
    {FOO "allow: /$\ndisallow: /\n", "FooBot", URLS("/"), URLS("/page.html"), "$"},
    {FOO "disallow: /$\nallow: /\n", "FooBot", URLS("/page.html"), URLS("/"), "$ counts as an octet"},
    /* Google: path of a URL */
    {FOO "disallow: /?a\ndisallow: /a;b\n", "FooBot", URLS("/", "/a"), URLS("?a", "/?a", "/a;b#c"), "as it stands"},

    /* Protego: the drafts */
    {"User-agent: *\nDisallow: /cyberworld/map/ # an infinite space\nDisallow: /tmp/ # soon gone\nDisallow: /foo.html",
     "CrunchyFrogBot", URLS("/", "/foo.htm", "/foo.shtml", "/cyberworld/index.html"),
     URLS("/foo.html", "/foo.htmlx", "/tmp/foo.html", "/cyberworld/map/x"), "1994"},
    {FOO "Allow: /tmp/\nDisallow: /", "foobot", URLS("/tmp/", "/tmp/a.html"), URLS("/tmp", "/tmp.html"), "1996: /tmp/"},
    {FOO "Allow: /a%3cd.html\nDisallow: /", "foobot", URLS("/a%3cd.html", "/a%3Cd.html", "/a<d.html"), URLS("/a<e"),
     ""},
    {FOO "Allow: /a<d.html\nDisallow: /", "foobot", URLS("/a%3cd.html", "/a%3Cd.html", "/a<d.html"), URLS("/a<e"), ""},
    {FOO "Allow: /a%2fb.html\nDisallow: /", "foobot", URLS("/a%2fb.html", "/a%2Fb.html"), URLS("/a/b.html"),
     "1996: an encoded slash is not one"},
    {FOO "Allow: /a/b.html\nDisallow: /", "foobot", URLS("/a/b.html"), URLS("/a%2fb.html"),
     "1996: from the other side"},
    {FOO "Allow: /%7ejoe/index.html\nDisallow: /", "foobot", URLS("/~joe/index.html", "/%7Ejoe/index.html"), NONE, ""},
    {FOO "Allow: /~joe/index.html\nDisallow: /", "foobot", URLS("/~joe/index.html", "/%7ejoe/index.html"), NONE, ""},
    {DRAFT_1996, "unhipbot", NONE, URLS("/", "/index.html", "/server.html", "/org/plans.html", "/%7Emak/mak.html"), ""},
    {DRAFT_1996, "excite", URLS("/", "/index.html", "/server.html", "/org/plans.html", "/%7Ejim/jim.html"), NONE, ""},
    {DRAFT_1996, "OtherBot", URLS("/server.html", "/services/fast.html", "/org/about.html", "/%7Emak/mak.html"),
     URLS("/", "/index.html", "/orgo.gif", "/org/plans.html", "/%7Ejim/jim.html"), "1996"},
    /* Protego: wildcards */
    {FOO "Disallow: /disallowed/*/end$\nDisallow: /protego*work\n", "foobot",
     URLS("/disallowed", "/disallowed/xyz/endinglater", "/rotego_does_work", "/protego_does_wor"),
     URLS("/disallowed/xyz/end", "/protegoworks", "/protego_works", "/protego/works"), ""},
    {FOO "Disallow: /foo*/*bar.html\n", "foobot", URLS("/food/rebarf.html"),
     URLS("/foo/bar.html", "/food/rebar.html", "/foo/a/b/c/rebar.html"), ""},
    {FOO "Disallow: *m\n", "foobot", URLS("/foo", "/foo/bar.txt"), URLS("/foo.htm", "/foom", "/moo"), ""},
    {FOO "Allow: /foo/bar.html\nDisallow: *\n", "foobot", URLS("/foo/bar.html"), URLS("/", "/foo", "/foo/bar.txt"), ""},
    {FOO "Allow: *****************/****.js\nDisallow: /\n", "foobot", URLS("/a/b.js", "/.js"), URLS("/b.j"), ""},
    {FOO "disallow: /x$/abc\ndisallow: /y/abc$\ndisallow: /x*x$/abc\ndisallow: /y*y/abc$\n", "foobot",
     URLS("/y/abcdef", "/yabcy/abcdef"),
     URLS("/x$/abcdef", "/x%24/abcdef", "/y/abc", "/xabcx$/abcdef", "/xabcx%24/abcdef", "/yabcy/abc"),
     "only the last $ is special"},
    {FOO "disallow: /x/abc%24\ndisallow: /x%2Ax/abc\n", "foobot", URLS("/x/abc", "/xabcx/abc"),
     URLS("/x/abc$abc", "/x/abc$", "/x*x/abc", "/x*x/abcdef"), "encoded ones are not special"},
    {FOO "disallow: /x/abc$\ndisallow: /x*x/abc\n", "foobot", URLS("/x/abc$", "/x/abc%24"), URLS("/x*x/abc"),
     "Protego: $ is also a literal one; the RFC knows only the end"},
    {"User-Agent: *\nDisallow: //folder/*\n", "x", URLS("/", "/folder/page", "//folder"), URLS("//folder/page"), ""},
    {"User-Agent: *\nDisallow: /*s=\n", "x", URLS("/", "/s/"), URLS("/?s=asd"), ""},
    {"User-Agent: *\nallow: */p\ndisallow: /\n", "x", URLS("/page"), URLS("/age"), ""},
    {"User-Agent: *\nallow: /page\ndisallow: */*.htm\n", "x", NONE, URLS("/page.htm"), ""},
    {"User-Agent: *\ndisallow: http://a.example/\n", "x", URLS("/", "/http://a.example/"), NONE,
     "Protego: the second is denied; a rule begins with the path's first octet"},
    {"User-agent: *\nInvalid: /\nUser-agent: ia_archiver\nDisallow: /\n", "x", NONE, URLS("/foo"),
     "Protego: allowed; by RFC 9309 2.2.4 other records end no group"},

    /* Our own: wildcards, ends, what overlaps */
    {FOO "disallow: /a*b*c$\n", "foobot", URLS("/abcd", "/acb", "/ab", "/abcb"), URLS("/abc", "/aXbYc", "/abcbc"), ""},
    {FOO "disallow: /ab*ba$\n", "foobot", URLS("/aba", "/ab", "/abaa"), URLS("/abba", "/abXba", "/ababba"),
     "parts do not overlap"},
    {FOO "disallow: /*aab\n", "foobot", URLS("/aaaa", "/aba"), URLS("/aaaab", "/aab", "/xaabx"), "a part begins twice"},
    {FOO "disallow: /a*$\n", "foobot", URLS("/", "/b"), URLS("/a", "/ab", "/a/b?c"), "*$ is an end of any kind"},
    {FOO "disallow: $\ndisallow: *$x\n", "foobot", URLS("/", "/a"), URLS("/a$x", "/%24x"), "$ alone"},
    {FOO "disallow: /a$$\n", "foobot", URLS("/a", "/a$b"), URLS("/a$", "/a%24"), "a literal $ before the end"},
    {FOO "disallow: a\ndisallow: %2Fb\n", "foobot", URLS("/a", "/b", "a", "%2Fb"), NONE, "the path's first octet"},
    {FOO "disallow: /**\nallow: /a\n", "foobot", NONE, URLS("/a"), "each * counts"},
    /* Encoding */
    {FOO "disallow: /a/*/print\ndisallow: /*u=/b\ndisallow: /*v=%2Fb\n", "foobot", URLS("/a/print", "/u%3D%2Fb"),
     URLS("/a/?/print", "/a/?b=c%2Fprint", "/?u=/b", "/?u=%2Fb", "/?v=/b", "/?v=%2fb"), "a query behind a wildcard"},
    {FOO "disallow: /a%2Fb?c=%2F\n", "foobot", URLS("/a/b?c=/"), URLS("/a%2fb?c=/", "/a%2Fb?c=%2F"), "both kinds"},
    {FOO "disallow: /a%2525\ndisallow: /b%\ndisallow: /c%4\ndisallow: /d%zz\n", "foobot", URLS("/a%25", "/c", "/d%"),
     URLS("/a%2525", "/b%", "/b%25", "/c%4", "/c%254", "/d%zz", "/d%25zz"), "a percent sign"},
    {FOO "disallow: /a%01b\ndisallow: /c%00d\n", "foobot", URLS("/a*b", "/a/b", "/a%2501b", "/c"),
     URLS("/a%01b",
	  "/a\x01"
	  "b",
	  "/c%00d"),
     "controls are not our symbols"},
    {FOO "disallow: /a\x01"
	 "b\ndisallow: /c\x02"
	 "d\ndisallow: /e\x03"
	 "f\n",
     "foobot", URLS("/ab", "/axb", "/c%2Fd", "/c/d", "/e/f", "/?e/f", "/e%2Ff"), URLS("/a%01b", "/c%02d"),
     "raw ones neither"},
    {FOO "disallow: /a b\n", "foobot", URLS("/a"), URLS("/a%20b", "/a b"), "a blank"},
    {FOO "disallow: /\xff\xfe\xc3\n", "foobot", URLS("/\xff"), URLS("/%FF%FE%C3", "/\xff\xfe\xc3x"), "not UTF-8"},
    {FOO "disallow: /\xe3\x83\x84\nallow: /*/45678\n", "foobot", NONE, URLS("/%E3%83%84/45678"), "10 octets, not 4"},
    {FOO "disallow: /?u=%3A%2F\nallow: /?u=:/\n", "foobot", URLS("/?u=:/", "/?u=%3a%2f"), NONE, "equal: a tie"},
    {FOO "disallow: /a%3Fb%2Fc\n", "foobot", URLS("/a%3Fb/c", "/a?b"), URLS("/a%3Fb%2Fc", "/a?b/c"),
     "%3F begins no query"},
    {FOO "disallow: /a%4", "foobot", URLS("/a%"), URLS("/a%4"), "a text that ends in half of a %XX"},
    {FOO "disallow: /a%", "foobot", URLS("/a"), URLS("/a%"), "in a third"},
    /* Lines */
    {"  user-agent\t:  foobot  \t\r\n\t disallow \v:\f /a \n", "foobot", URLS("/"), URLS("/a"), "blanks"},
    {"user-agent: foobot/2.1 (x)\ndisallow: /a\n", "foobot", URLS("/"), URLS("/a"), "a version behind the name"},
    {"user-agent: foo\ndisallow: /a\nuser-agent: foobots\ndisallow: /b\n", "foobot", URLS("/a", "/b"), NONE,
     "neither the beginning of our name nor more than it"},
    {"user-agent:\ndisallow: /\n", "foobot", URLS("/"), NONE, "an empty name"},
    {"user-agent:\ndisallow: /\nuser-agent: 7\ndisallow: /\n", "", URLS("/"), NONE, "is not our empty one"},
    {":\n: x\n#\n \n::\nuser-agent: *\n:/\ndisallow\n disallow:\n", "x", URLS("/"), NONE, "odd lines"},
    {"user-agent: *\ndisallow: /a\nuser-agent: x\nuser-agent: *\ndisallow: /b\n", "x", URLS("/a"), URLS("/b"),
     "a group of * that is ours too"},
    {"user-agent: x\ndisallow: /a\nuser-agent: *\ndisallow: /b\n", "x", URLS("/b"), URLS("/a"), "* after ours"},
    {"user-agent: *\ndisallow: /a\nuser-agent: y\ndisallow: /\nuser-agent: *\ndisallow: /b\n", "x", URLS("/c"),
     URLS("/a", "/b"), "groups of * are combined"},
    {"user-agent: x\ncrawl-delay: 1\nuser-agent: *\ndisallow: /a\n", "x", URLS("/b"), URLS("/a"),
     "a delay ends no group"},
    {"<!DOCTYPE html><html><head><title>Not found: disallow: /</title></head>\n", "x", URLS("/"), NONE, "a page"},
};

static void test_rows(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct robots *robots = parse(rows[i].text, rows[i].token);
		for (const char *const *url = rows[i].allowed; *url; url++)
			if (!robots_allows(robots, *url))
				fail_msg("%s: %s is denied by\n%s", rows[i].why, *url, rows[i].text);
		for (const char *const *url = rows[i].denied; *url; url++)
			if (robots_allows(robots, *url))
				fail_msg("%s: %s is allowed by\n%s", rows[i].why, *url, rows[i].text);
		robots_free(robots);
	}
}

/* The status rules of RFC 9309 2.3.1. */
static void without_a_file(void **state)
{
	struct robots *all = robots_allow_all(), *none = robots_disallow_all();

	assert_true(robots_allows(all, "/") && robots_allows(all, "/robots.txt") && robots_allows(all, "/a?b"));
	assert_false(robots_allows(none, "/") || robots_allows(none, "/a?b") || robots_allows(none, ""));
	assert_true(robots_allows(none, "/robots.txt"));
	assert_int_equal(robots_delay_us(all), 0);
	assert_int_equal(robots_delay_us(none), 0);
	assert_true(robots_bytes(all) <= 64 && robots_bytes(none) <= 64);
	robots_free(all);
	robots_free(none);
	robots_free(NULL);
}

static const struct {
	const char *text, *token;
	int64_t delay_us;
	const char *why;
} delays[] = {
    {"user-agent: *\nCrawl-delay: 10\n", "x", 10000000, "seconds"},
    {"user-agent: *\ncrawl-delay: 0.5\n", "x", 500000, "a fraction"},
    {"user-agent: *\ncrawl-delay: .25\n", "x", 250000, "nothing before the point"},
    {"user-agent: *\ncrawl-delay: 2.\n", "x", 2000000, "nothing behind it"},
    {"user-agent: *\ncrawl-delay: 1.2345678\n", "x", 1234567, "more digits than microseconds"},
    {"user-agent: *\ncrawl-delay: 5 seconds # please\n", "x", 5000000, "a unit"},
    {"user-agent: *\ncrawl-delay: 5s\n", "x", 5000000, "a unit"},
    {"user-agent: *\ncrawl-delay 3\n", "x", 3000000, "no colon"},
    {"user-agent: *\nCrawldelay: 3\n", "x", 3000000, "misspelt"},
    {"user-agent: *\ncrawl-delay: 0\n", "x", 0, "none"},
    {"user-agent: *\ncrawl-delay: 299.9999999\n", "x", 299999999, "under the maximum"},
    {"user-agent: *\ncrawl-delay: 300.5\n", "x", ROBOTS_DELAY_MAX_US, "over it"},
    {"user-agent: *\ncrawl-delay: 99999999999999999999999999\n", "x", ROBOTS_DELAY_MAX_US, "over 64 bits"},
    {"user-agent: *\ncrawl-delay:\n", "x", 0, "empty"},
    {"user-agent: *\ncrawl-delay: random_word\n", "x", 0, "a word"},
    {"user-agent: *\ncrawl-delay: -5\n", "x", 0, "negative"},
    {"user-agent: *\ncrawl-delay: .\n", "x", 0, "a point"},
    {"user-agent: *\ncrawl-delay: 500ms\n", "x", 0, "another unit"},
    {"user-agent: *\ncrawl-delay: 1e9\n", "x", 0, "an exponent"},
    {"user-agent: *\ncrawl-delay: 1,5\n", "x", 0, "a comma"},
    {"user-agent: *\ncrawl-delay: inf\ncrawl-delay: nan\n", "x", 0, "what strtod would take"},
    {"crawl-delay: 5.2\nuser-agent: x\ndisallow: /\n", "x", 0, "before any group"},
    {"user-agent: *\ncrawl-delay: 10\nuser-agent: x\ncrawl-delay: 15\n", "x", 15000000, "ours"},
    {"user-agent: *\ncrawl-delay: 10\nuser-agent: x\ncrawl-delay: 15\n", "y", 10000000, "that of *"},
    {"user-agent: x\ncrawl-delay: 15\nuser-agent: *\ncrawl-delay: 20\n", "x", 15000000, "ours, no rule between"},
    {"user-agent: x\nuser-agent: y\ncrawl-delay: 15\nuser-agent: *\ndisallow: /\n", "x", 15000000, "two names"},
    {"user-agent: x\ncrawl-delay: 15\ncrawl-delay: 20\n", "x", 20000000, "two of them: the longest"},
    {"user-agent: x\ndisallow: /\ncrawl-delay: 20\n", "x", 20000000, "behind a rule"},
    {"user-agent: x\ncrawl-delay: 15\ndisallow: /\nuser-agent: *\ncrawl-delay: 20\n", "x", 15000000, "two groups"},
    {"user-agent: *\ncrawl-delay: 10\ndisallow: /\nuser-agent: x\ndisallow: /\n", "x", 0, "ours has none"},
    {"user-agent: x\ncrawl-delay: 2\ndisallow: /a\nuser-agent: x\ncrawl-delay: 1\n", "x", 2000000, "the longest"},
    {"user-agent: x\ndisallow: /a\nuser-agent: y\ncrawl-delay: 60\n", "x", 0, "another group"},
    {"user-agent: y\ncrawl-delay: 60\n\nuser-agent: *\ndisallow: /a\n", "x", 0, "it is not for names below it"},
};

static void crawl_delay(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(delays); i++) {
		struct robots *robots = parse(delays[i].text, delays[i].token);
		if (robots_delay_us(robots) != delays[i].delay_us)
			fail_msg("%s: %lld", delays[i].why, (long long)robots_delay_us(robots));
		robots_free(robots);
	}
}

static const struct {
	const char *user_agent, *token;
} tokens[] = {
    {"gatherd/1.0 (+https://example.com/bot)", "gatherd"},
    {"gatherd", "gatherd"},
    {"My_Own-Bot 2", "My_Own-Bot"},
    {"Mozilla/5.0 (compatible; ExampleBot/0.1; https://www.example.com/bot.html)", "ExampleBot"}, /* figure 1 */
    {"Mozilla/5.0 AppleWebKit/537.36 (KHTML; Compatible;  Foo_Bot) Safari", "Foo_Bot"},
    {"Mozilla/5.0 (X11; Linux x86_64)", "Mozilla"},
    {"Mozilla/5.0 (compatible;", ""},
    {"other (compatible; foo)", "other"},
    {"bot2000/1.0", "bot"},
    {"2000bot", ""},
    {" gatherd", ""},
    {"\xc3\xa4-bot", ""},
    {"", ""},
    {"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijkl", /* 64 */
     "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk"},
};

static void product_token(void **state)
{
	char out[ROBOTS_TOKEN_MAX];

	for (size_t i = 0; i < ARRAY_LEN(tokens); i++) {
		robots_token(tokens[i].user_agent, out);
		assert_string_equal(out, tokens[i].token);
	}
}

/* A text made of parts repeated. */
struct text {
	char *data;
	size_t len;
};

static void add(struct text *text, const char *part, size_t times)
{
	size_t len = strlen(part);

	text->data = xrealloc(text->data, text->len + len * times + 1);
	while (times--) {
		memcpy(text->data + text->len, part, len);
		text->len += len;
	}
	text->data[text->len] = '\0';
}

static struct robots *parse_text(struct text *text)
{
	struct robots *robots = parse_bytes(text->data, text->len, "x");

	free(text->data);
	*text = (struct text){0};
	return robots;
}

static void long_patterns(void **state)
{
	struct text text = {0}, url = {0};

	/* A disallow of 2 KiB and 10 octets: cut, with the $. */
	add(&text, "user-agent: *\ndisallow: /", 1);
	add(&text, "a", ROBOTS_PATTERN_BYTES_MAX + 8);
	add(&text, "$\n", 1);
	struct robots *robots = parse_text(&text);
	add(&url, "/", 1);
	add(&url, "a", ROBOTS_PATTERN_BYTES_MAX - 2);
	assert_true(robots_allows(robots, url.data));
	add(&url, "a", 1);
	assert_false(robots_allows(robots, url.data));
	add(&url, "b", 1);
	assert_false(robots_allows(robots, url.data));
	robots_free(robots);

	/* An allow as long as may be counts, a longer one does not; nor does a longer one that a blank would cut short.
	 */
	add(&text, "user-agent: *\ndisallow: /\nallow: /", 1);
	add(&text, "a", ROBOTS_PATTERN_BYTES_MAX - 1);
	add(&text, "\nallow: /b", 1);
	add(&text, "b", ROBOTS_PATTERN_BYTES_MAX - 1);
	add(&text, "\n", 1);
	robots = parse_text(&text);
	assert_true(robots_allows(robots, url.data));
	memset(url.data + 1, 'b', url.len - 1);
	add(&url, "b", 10);
	assert_false(robots_allows(robots, url.data));
	robots_free(robots);

	/* The whole length counts when it is cut: the disallow is more specific than an allow of just 2 KiB. */
	add(&text, "user-agent: *\nallow: /", 1);
	add(&text, "b", ROBOTS_PATTERN_BYTES_MAX - 1);
	add(&text, "\ndisallow: /", 1);
	add(&text, "b", ROBOTS_PATTERN_BYTES_MAX);
	robots = parse_text(&text);
	assert_false(robots_allows(robots, url.data));
	robots_free(robots);

	/* The cut is not inside of %XX. */
	add(&text, "user-agent: *\ndisallow: /", 1);
	add(&text, "%07", ROBOTS_PATTERN_BYTES_MAX);
	robots = parse_text(&text);
	url.len = 1;
	add(&url, "%07", ROBOTS_PATTERN_BYTES_MAX / 3);
	assert_false(robots_allows(robots, url.data));
	robots_free(robots);
	free(url.data);
}

static void long_urls(void **state)
{
	struct robots *all = robots_allow_all();
	struct text url = {0};

	add(&url, "/", URL_BYTES_MAX);
	assert_true(robots_allows(all, url.data));
	add(&url, "#and its fragment", 1);
	assert_true(robots_allows(all, url.data));
	url.len = URL_BYTES_MAX;
	add(&url, "/", 1);
	assert_false(robots_allows(all, url.data));
	free(url.data);
	robots_free(all);
}

/* At 500 KiB: the line there, whole or not. The comment before it fills up. */
static void long_files(void **state)
{
	static const struct {
		size_t line_at; /* from the end of what is read */
		const char *eol;
		bool is_read;
	} cases[] = {{16, "\n", true}, {16, "\r\n", true}, {15, "\n", true}, {14, "\n", true}, {13, "\n", false}};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct text text = {0};
		add(&text, "user-agent: *\n#", 1);
		add(&text, "x", ROBOTS_BYTES_MAX - cases[i].line_at - text.len - 1);
		add(&text, "\n", 1);
		assert_int_equal(text.len, ROBOTS_BYTES_MAX - cases[i].line_at);
		add(&text, "disallow: /abc", 1); /* 14 octets */
		add(&text, cases[i].eol, 1);
		add(&text, "disallow: /\n", 1);
		struct robots *robots = parse_text(&text);
		/* The last rule is never read: the limit is before or in it. */
		if (robots_allows(robots, "/abc") == cases[i].is_read || !robots_allows(robots, "/abd"))
			fail_msg("%zu before the limit, %zu", cases[i].line_at, i);
		robots_free(robots);
	}
	struct text text = {0};
	add(&text, "user-agent: *\ndisallow: /", 1);
	add(&text, "x", ROBOTS_BYTES_MAX);
	struct robots *robots = parse_text(&text);
	assert_true(robots_allows(robots, "/xxx"));
	robots_free(robots);
}

/* As many rules as a file can have, in groups of somebody else, of "*" and of ours. All count, and the memory is
 * bounded. */
static void many_rules(void **state)
{
	static const struct {
		const char *head, *rule, *tail;
		bool is_allowed;
	} cases[] = {
	    {"user-agent: *\n", "allow:/\n", "disallow: /last\n", false},
	    {"user-agent: *\n", "disallow:/last\n", "allow: /last/\n", true},
	    {"user-agent: y\n", "disallow:/\n", "user-agent: *\nallow: /\n", true},
	    {"user-agent: *\n", "disallow:/\n", "user-agent: x\nallow: /\n", true},
	    {"user-agent: *\n", "disallow:/\x01\n", "disallow: /last\n", false},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct text text = {0};
		add(&text, cases[i].head, 1);
		add(&text, cases[i].rule, (ROBOTS_BYTES_MAX - 100) / strlen(cases[i].rule));
		add(&text, cases[i].tail, 1);
		assert_true(text.len <= ROBOTS_BYTES_MAX);
		struct robots *robots = parse_text(&text);
		assert_int_equal(robots_allows(robots, "/last/"), cases[i].is_allowed);
		assert_true(robots_allows(robots, "/robots.txt"));
		assert_true(robots_bytes(robots) <= 3 * ROBOTS_BYTES_MAX);
		if (strchr(cases[i].head, 'y') || strstr(cases[i].tail, "user-agent: x"))
			assert_true(robots_bytes(robots) <= 64);
		robots_free(robots);
	}
}

/* With backtracking these would not end: 1,000 wildcards, and a path that fits all but the last part. */
static void deep_wildcards(void **state)
{
	static const struct {
		const char *part;
		size_t times;
		const char *tail, *url;
		bool is_allowed;
	} cases[] = {
	    {"*a", 1000, "*b", "a", true},   {"*a", 1000, "b$", "a", true}, {"*a", 1000, "", "a", false},
	    {"*a", 1000, "$", "a", false},   {"**", 1000, "b", "a", true},  {"*aa", 600, "b", "a", true},
	    {"*a", 1000, "*b", "ab", false}, {"*%2F", 500, "x", "/", true}, {"*", 2000, "*$", "*", false},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct text text = {0}, url = {0};
		add(&text, "user-agent: *\ndisallow: /", 1);
		add(&text, cases[i].part, cases[i].times);
		add(&text, cases[i].tail, 1);
		struct robots *robots = parse_text(&text);
		add(&url, "/", 1);
		add(&url, cases[i].url, 8000 / strlen(cases[i].url));
		if (robots_allows(robots, url.data) != cases[i].is_allowed)
			fail_msg("%s...%s: %s...", cases[i].part, cases[i].tail, cases[i].url);
		robots_free(robots);
		free(url.data);
	}
}

/* A part of 400 octets that fails at its last one at each of 7,600 places. One such rule is looked at to its end, and
 * says no; as many as a file can have would take a thousand times the steps there are, so the URL is forbidden though
 * none fits. */
static void steps(void **state)
{
	const size_t n_rules[] = {1, ROBOTS_BYTES_MAX / 500};

	for (size_t i = 0; i < ARRAY_LEN(n_rules); i++) {
		struct text text = {0}, url = {0};
		add(&text, "user-agent: *\n", 1);
		for (size_t rule = 0; rule < n_rules[i]; rule++) {
			add(&text, "disallow: /*", 1);
			add(&text, "a", 400);
			add(&text, "b\n", 1);
		}
		struct robots *robots = parse_text(&text);
		add(&url, "/", 1);
		add(&url, "a", 8000);
		assert_int_equal(robots_allows(robots, url.data), i == 0);
		assert_true(robots_allows(robots, "/aaa"));
		robots_free(robots);
		free(url.data);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_rows),     cmocka_unit_test(without_a_file), cmocka_unit_test(crawl_delay),
	    cmocka_unit_test(product_token), cmocka_unit_test(long_patterns),  cmocka_unit_test(long_urls),
	    cmocka_unit_test(long_files),    cmocka_unit_test(many_rules),     cmocka_unit_test(deep_wildcards),
	    cmocka_unit_test(steps),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
