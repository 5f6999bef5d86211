/* options: the sections [secret "NAME"] and [proxy "NAME"]. */
#include "options.h"

#include "err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "options_fixture.h"

static void secrets_are_read(void **state)
{
	write_file("token", "t0ken\r\n\n", 8);
	struct output out = load_fine((struct input){
	    .file = "[secret \"api\"]\nhosts = b\nhosts = api.example.com *.x:443 # these\n"
		    "header = Authorization: Bearer ${file:token}\nheader =  X-Two:${file:token}-${file:token} \n"
		    "[host \"a\"]\nsecret = api\n[host \"b\"]\nsecret =\n[secret \"other\"]\nhosts = *\nheader = Cookie: a=b; c=d\n",
	    .overrides = {"secret=other"}});
	const struct options *opts = out.opts;
	const struct secret *api = options_secret(opts, "api");

	assert_int_equal(opts->n_secrets, 2);
	assert_int_equal(api->hosts.n, 2); /* as every list: the last row */
	assert_string_equal(api->hosts.v[1], "*.x:443");
	assert_int_equal(api->names.n, 2);
	assert_string_equal(api->names.v[0], "Authorization");
	assert_string_equal(api->values.v[0], "Bearer t0ken");
	assert_string_equal(api->values.v[1], "t0ken-t0ken");
	assert_string_equal(options_secret(opts, "other")->values.v[0], "a=b; c=d");
	assert_null(options_secret(opts, "ap"));
	assert_string_equal(opts->host.secret, "other");
	assert_string_equal(opts->sections[0].host.secret, "api");
	assert_string_equal(opts->sections[1].host.secret, ""); /* none, though the general settings have one */
	assert_string_equal(opts->sections[1].host.proxy, "");
	output_done(&out);
	unlink("token");
}

static void proxies_are_read(void **state)
{
	static const struct {
		const char *url, *sent, *host, *key;
		uint16_t port;
		bool is_literal, is_https;
	} rows[] = {
	    {"http://Proxy.Example.com:3128", "http://proxy.example.com:3128", "proxy.example.com", "proxy.example.com:3128", 3128,
	     false, false},
	    {"https://10.0.0.1:443/", "https://10.0.0.1:443", "10.0.0.1", "10.0.0.1:443", 443, true, true},
	    {"socks5h://[::1]:1080", "socks5h://[::1]:1080", "::1", "[::1]:1080", 1080, true, false},
	    {"socks5://a_b-c:65535", "socks5h://a_b-c:65535", "a_b-c", "a_b-c:65535", 65535, false, false},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char *file = xasprintf("[proxy \"p\"]\nurl = %s\nuser = u\npassword = p w#1\n", rows[i].url);
		struct output out = load_fine((struct input){.file = file});
		const struct proxy *proxy = options_proxy(out.opts, "p");
		assert_string_equal(proxy->url, rows[i].sent);
		assert_string_equal(proxy->host, rows[i].host);
		assert_string_equal(proxy->key, rows[i].key);
		assert_int_equal(proxy->port, rows[i].port);
		assert_int_equal(proxy->is_literal, rows[i].is_literal);
		assert_int_equal(proxy->is_https, rows[i].is_https);
		assert_string_equal(proxy->user, "u");
		assert_string_equal(proxy->password, "p w#1");
		output_done(&out);
		free(file);
	}
}

#define S "[secret \"s\"]\nhosts = a\nheader = A: b\n"
#define P "[proxy \"p\"]\nurl = http://p:1\n"
#define URL_MUST                                                                                                       \
	"url: must be as in http://proxy.example.com:3128, with http, https, socks5 or socks5h and the port; user and "  \
	"password have keys of their own"

/* None of the sentences shows any of a value. */
static void wrong_sections_are_refused(void **state)
{
	static const struct {
		const char *file, *expected;
	} rows[] = {
	    {"[secret \"s\"]\nheader = A: hunter2", "1: this secret needs hosts: where it may go, as in hosts = api.example.com"},
	    {"[secret \"s\"]\nhosts = a", "1: this secret needs a header, as in header = Authorization: Bearer ..."},
	    {S "hosts = https://a/", "4: hosts: write names in punycode, as in api.example.com, *.example.com or api.example.com:443"},
	    {S "header = hunter2", "4: header: must be as in Authorization: Bearer ..."},
	    {S "header = hunter 2: x", "4: header: must be as in Authorization: Bearer ..."},
	    {S "header = : hunter2", "4: header: must be as in Authorization: Bearer ..."},
	    {S "header = B:", "4: header: has no value"},
	    {S "header = Host: hunter2", "4: header: Host is not a secret's to set"},
	    {S "header = proxy-authorization: hunter2", "4: header: proxy-authorization is not a secret's to set"},
	    {S "header = B: hunter\x01", "4: header: over 8192 bytes, or with a control character"},
	    {S "header = B: hunter2 ${file:none}", "4: header: none cannot be read: No such file or directory"},
	    {S "header = B: ${file:.}", "4: header: . cannot be read: Is a directory"},
	    {S "header = B: ${file:/dev/zero}", "4: header: /dev/zero cannot be read: Illegal seek"},
	    {S "header = B: ${file:}", "4: header:  cannot be read: No such file or directory"},
	    {S "hunter2", "4: must be key = value"},
	    {S "hunter2 = 1", "4: a secret has the keys hosts and header"},
	    {S "inflight = 1", "4: a secret has the keys hosts and header"},
	    {S S, "4: [secret \"s\"] is there already"},
	    {"[secret \"a b\"]\nhosts = a\nheader = A: b", "1: [secret \"a b\"]: a name has 1 to 256 letters, digits, '.', '_' or '-'"},
	    {"[proxy \"p\"]\nuser = u", "1: this proxy needs a url, as in url = http://proxy.example.com:3128"},
	    {P "password = hunter2", "1: this proxy has a password and no user"},
	    {P "user = \x01", "3: user: over 8192 bytes, or with a control character"},
	    {P "pass = hunter2", "3: a proxy has the keys url, user and password"},
	    {P "url = http://u:hunter2@p:1", "3: " URL_MUST},
	    {P "url = p:1", "3: " URL_MUST},
	    {P "url = http://p", "3: " URL_MUST},
	    {P "url = http://p:0", "3: " URL_MUST},
	    {P "url = http://p:65536", "3: " URL_MUST},
	    {P "url = http://p:1/path", "3: " URL_MUST},
	    {P "url = http://:1", "3: " URL_MUST},
	    {P "url = http://[::1:1", "3: " URL_MUST},
	    {P "url = http://[1.2]:1", "3: " URL_MUST},
	    {P "url = socks4://p:1", "3: " URL_MUST},
	    {P "url = http://p:-1", "3: " URL_MUST},
	    {P "url =", "3: " URL_MUST},
	    {"secret = s", "1: secret = s: there is no section [secret \"s\"]"},
	    {"proxy = p", "1: proxy = p: there is no section [proxy \"p\"]"},
	    {"[host \"a\"]\nsecret = s", "1: in this section secret = s: there is no section [secret \"s\"]"},
	    {P "[host \"a\"]\nproxy = q", "3: in this section proxy = q: there is no section [proxy \"q\"]"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct output out = load((struct input){.file = rows[i].file});
		char *expected = xasprintf("gatherd.conf:%s", rows[i].expected);
		assert_int_equal(out.err, -ERR_INVALID);
		if (strcmp(out.errors, expected) != 0)
			fail_msg("row %zu: %s", i, out.errors);
		free(expected);
		output_done(&out);
	}
}

static void a_file_too_large_or_empty_is_refused(void **state)
{
	char *large = xmalloc(8193);

	memset(large, 'x', 8193);
	write_file("token", large, 8193);
	struct output out = load((struct input){.file = S "header = B: ${file:token}"});
	assert_string_equal(out.errors, "gatherd.conf:4: header: token is over 8192 bytes");
	output_done(&out);
	write_file("token", "\n", 1);
	out = load((struct input){.file = S "header = B: ${file:token}"});
	assert_string_equal(out.errors, "gatherd.conf:4: header: token is empty");
	output_done(&out);
	write_file("token", "a\nb", 3);
	out = load((struct input){.file = S "header = B: ${file:token}"});
	assert_string_equal(out.errors, "gatherd.conf:4: header: over 8192 bytes, or with a control character");
	output_done(&out);
	unlink("token");
	free(large);
}

static void a_reload_moves_them(void **state)
{
	struct output old = load_fine((struct input){.file = S P "[host \"a\"]\nproxy = p\n"});
	struct output fresh = load_fine((struct input){.file = "secret = t\n[secret \"t\"]\nhosts = c\nheader = A: b\n"});
	char *ignored;

	options_reload(old.opts, fresh.opts, &ignored);
	assert_null(ignored);
	assert_null(options_secret(old.opts, "s"));
	assert_non_null(options_secret(old.opts, "t"));
	assert_null(options_proxy(old.opts, "p"));
	assert_string_equal(old.opts->host.secret, "t");
	fresh.opts = NULL; /* used up */
	output_done(&old);
	output_done(&fresh);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(secrets_are_read),
	    cmocka_unit_test(proxies_are_read),
	    cmocka_unit_test(wrong_sections_are_refused),
	    cmocka_unit_test(a_file_too_large_or_empty_is_refused),
	    cmocka_unit_test(a_reload_moves_them),
	};

	return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
