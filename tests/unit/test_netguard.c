/* netguard: who may be connected to, with the default lists and with the user's. */
#include "err.h"
#include "netguard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>
#include <sys/socket.h>

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})
#define DEFAULT_PORTS LIST("80", "443", "1024-65535")

/* The guard takes lists of char *, as the options hold them. */
static size_t list_copy(const char *const list[], char *ret_copy[static 8])
{
	size_t n = 0;

	for (; list[n]; n++)
		ret_copy[n] = xstrdup(list[n]);
	return n;
}

static void list_free(char *list[], size_t n)
{
	while (n)
		free(list[--n]);
}

static int try_guard(const char *const allow[], const char *const deny[], const char *const ports[],
		     struct netguard **ret_guard, char **ret_error)
{
	char *a[8], *d[8], *p[8];
	size_t n_a = list_copy(allow, a), n_d = list_copy(deny, d), n_p = list_copy(ports, p);
	int err = netguard_new(a, n_a, d, n_d, p, n_p, ret_guard, ret_error);

	list_free(a, n_a);
	list_free(d, n_d);
	list_free(p, n_p);
	return err;
}

static struct netguard *guard_new(const char *const allow[], const char *const deny[])
{
	struct netguard *guard = NULL;
	char *error = NULL;

	if (try_guard(allow, deny, DEFAULT_PORTS, &guard, &error))
		fail_msg("%s", error);
	return guard;
}

static int ask(const struct netguard *guard, const char *host, const char *text)
{
	struct address addr;

	if (address_parse(text, &addr) != 0)
		fail_msg("%s is no address", text);
	return netguard_address(guard, host, &addr);
}

/* With empty lists. Both ends of each range, and their neighbours outside. */
static const struct {
	const char *addr;
	bool is_denied;
	const char *why;
} defaults[] = {
    {"1.1.1.1", false, "public"},
    {"2606:4700::5efe:10.0.0.1", true, "ISATAP of a private address"},
    {"2606:4700::5efe:8.8.8.8", false, "ISATAP of a public one"},
    {"8.8.8.8", false, "public"},
    {"93.184.216.34", false, "public"},
    {"0.0.0.0", true, "this host"},
    {"0.1.2.3", true, "this network"},
    {"0.255.255.255", true, "end of 0/8"},
    {"1.0.0.0", false, "after 0/8"},
    {"9.255.255.255", false, "before 10/8"},
    {"10.0.0.0", true, "RFC 1918"},
    {"10.255.255.255", true, "RFC 1918"},
    {"11.0.0.0", false, "after 10/8"},
    {"100.63.255.255", false, "before CGNAT"},
    {"100.64.0.0", true, "CGNAT"},
    {"100.100.100.200", true, "Alibaba metadata"},
    {"100.127.255.255", true, "CGNAT"},
    {"100.128.0.0", false, "after CGNAT"},
    {"126.255.255.255", false, "before loopback"},
    {"127.0.0.1", true, "loopback"},
    {"127.255.255.254", true, "loopback"},
    {"128.0.0.0", false, "after loopback"},
    {"168.63.129.15", false, "before Azure's host"},
    {"168.63.129.16", true, "Azure's host"},
    {"168.63.129.17", false, "after Azure's host"},
    {"169.253.255.255", false, "before link-local"},
    {"169.254.0.0", true, "link-local"},
    {"169.254.169.254", true, "metadata"},
    {"169.254.170.2", true, "ECS credentials"},
    {"169.254.255.255", true, "link-local"},
    {"169.255.0.0", false, "after link-local"},
    {"172.15.255.255", false, "before 172.16/12"},
    {"172.16.0.0", true, "RFC 1918"},
    {"172.31.255.255", true, "RFC 1918"},
    {"172.32.0.0", false, "after 172.16/12"},
    {"191.255.255.255", false, "before 192.0.0/24"},
    {"192.0.0.0", true, "protocol assignments"},
    {"192.0.0.192", true, "Oracle metadata"},
    {"192.0.0.255", true, "protocol assignments"},
    {"192.0.1.0", false, "between"},
    {"192.0.2.1", true, "TEST-NET-1"},
    {"192.0.3.0", false, "after TEST-NET-1"},
    {"192.31.196.1", true, "AS112"},
    {"192.52.193.1", true, "AMT"},
    {"192.88.99.1", true, "6to4 relay"},
    {"192.88.100.0", false, "after 6to4 relays"},
    {"192.167.255.255", false, "before 192.168/16"},
    {"192.168.0.0", true, "RFC 1918"},
    {"192.168.255.255", true, "RFC 1918"},
    {"192.169.0.0", false, "after 192.168/16"},
    {"192.175.48.1", true, "AS112"},
    {"198.17.255.255", false, "before benchmarks"},
    {"198.18.0.0", true, "benchmarks"},
    {"198.19.255.255", true, "benchmarks"},
    {"198.20.0.0", false, "after benchmarks"},
    {"198.51.100.1", true, "TEST-NET-2"},
    {"203.0.113.1", true, "TEST-NET-3"},
    {"223.255.255.255", false, "before multicast"},
    {"224.0.0.1", true, "multicast"},
    {"239.255.255.255", true, "multicast"},
    {"240.0.0.0", true, "reserved"},
    {"255.255.255.255", true, "broadcast"},

    {"2606:4700::1111", false, "public"},
    {"2a00:1450:4001::1", false, "public"},
    {"2000::", false, "start of global unicast"},
    {"3ffe:ffff::1", false, "global unicast"},
    {"::", true, "unspecified"},
    {"::1", true, "loopback"},
    {"::2", true, "reserved"},
    {"::8.8.8.8", true, "IPv4-compatible, though of a public one"},
    {"::127.0.0.1", true, "IPv4-compatible"},
    {"::ffff:8.8.8.8", true, "IPv4-mapped, though of a public one"},
    {"::ffff:127.0.0.1", true, "IPv4-mapped loopback"},
    {"::ffff:169.254.169.254", true, "IPv4-mapped metadata"},
    {"::ffff:0:127.0.0.1", true, "IPv4-translated (RFC 2765)"},
    {"64:ff9b::8.8.8.8", true, "NAT64, though of a public one"},
    {"64:ff9b::10.0.0.1", true, "NAT64 of a private one"},
    {"64:ff9b:1::1", true, "local NAT64"},
    {"100::1", true, "discard-only"},
    {"1fff:ffff::1", true, "before global unicast"},
    {"2001::1", true, "Teredo"},
    {"2001:0:4136:e378:8000:63bf:3fff:fdd2", true, "Teredo"},
    {"2001:2::1", true, "benchmarks"},
    {"2001:20::1", true, "ORCHIDv2"},
    {"2001:1ff:ffff::1", true, "end of 2001::/23"},
    {"2001:200::1", false, "after 2001::/23"},
    {"2001:db7:ffff::1", false, "before documentation"},
    {"2001:db8::1", true, "documentation"},
    {"2001:db9::1", false, "after documentation"},
    {"2002:808:808::1", true, "6to4, though of a public one"},
    {"2002:7f00:1::1", true, "6to4 of loopback"},
    {"2003::1", false, "after 6to4"},
    {"2620:4f:7fff::1", false, "before AS112"},
    {"2620:4f:8000::1", true, "AS112"},
    {"2620:4f:8001::1", false, "after AS112"},
    {"3ffe::1", false, "before documentation"},
    {"3fff::1", true, "documentation"},
    {"3fff:fff::1", true, "end of documentation"},
    {"3fff:1000::1", false, "after documentation"},
    {"4000::1", true, "after global unicast"},
    {"5f00::1", true, "SRv6 SIDs"},
    {"fc00::1", true, "unique local"},
    {"fd00::1", true, "unique local"},
    {"fd00:ec2::254", true, "Amazon metadata"},
    {"fd20:ce::254", true, "Google metadata"},
    {"fdff:ffff::1", true, "unique local"},
    {"fe80::1", true, "link-local"},
    {"febf::1", true, "link-local"},
    {"fec0::1", true, "site-local"},
    {"ff02::1", true, "multicast"},
    {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true, "the last one"},
};

static void default_list(void **state)
{
	struct netguard *guard = guard_new(LIST(NULL), LIST(NULL));

	for (size_t i = 0; i < ARRAY_LEN(defaults); i++) {
		int err = ask(guard, "host.example", defaults[i].addr);
		if (err != (defaults[i].is_denied ? -ERR_ADDRESS_DENIED : 0))
			fail_msg("%s: %s", defaults[i].addr, defaults[i].why);
		assert_int_equal(ask(guard, NULL, defaults[i].addr), err);
	}
	netguard_free(guard);
}

/* What a glob in allow must never open, and what it opens: whatever else is closed. */
static void glob_opens_all_but_metadata(void **state)
{
	static const char *const kept_closed[] = {
	    "169.254.0.1",
	    "169.254.169.254",
	    "168.63.129.16",
	    "100.100.100.200",
	    "192.0.0.192",
	    "fe80::1",
	    "fd00:ec2::254",
	    "fd20:ce::254",
	    "fd00:c1::a9fe:a9fe",
	    "fd00:42::42",
	    "::ffff:169.254.169.254",
	    "::169.254.169.254",
	    "64:ff9b::a9fe:a9fe",
	    "2002:a9fe:a9fe::1",
	    "2001:0:1::5601:5601",
	    "fd00:ec2::23",
	    "64:ff9b:1::a9fe:a9fe",
	    "64:ff9b:1:a9fe:a9:fe00::",
	    "::ffff:0:a9fe:a9fe",
	    "2606:4700::5efe:a9fe:a9fe",
	};
	static const char *const opened[] = {"10.0.0.1", "127.0.0.1",	    "100.64.0.1",      "::1",
					     "fd00::1",	 "::ffff:10.0.0.1", "64:ff9b::808:808"};
	struct netguard *guard = guard_new(LIST("*.internal.example"), LIST(NULL));

	for (size_t i = 0; i < ARRAY_LEN(kept_closed); i++)
		if (ask(guard, "a.internal.example", kept_closed[i]) != -ERR_ADDRESS_DENIED)
			fail_msg("%s opened", kept_closed[i]);
	for (size_t i = 0; i < ARRAY_LEN(opened); i++) {
		if (ask(guard, "a.internal.example", opened[i]) != 0)
			fail_msg("%s closed", opened[i]);
		assert_int_equal(ask(guard, "internal.example", opened[i]), -ERR_ADDRESS_DENIED);
		assert_int_equal(ask(guard, "a.internal.example.evil.example", opened[i]), -ERR_ADDRESS_DENIED);
		assert_int_equal(ask(guard, NULL, opened[i]), -ERR_ADDRESS_DENIED);
	}
	assert_int_equal(ask(guard, "other.example", "8.8.8.8"), 0);
	netguard_free(guard);
}

static void lists_of_the_user(void **state)
{
	static const struct {
		const char *allow, *deny;
		const char *host, *addr;
		bool is_denied;
		const char *why;
	} rows[] = {
	    {"10.1.0.0/16", NULL, "a", "10.1.2.3", false, "opened"},
	    {"10.1.0.0/16", NULL, "a", "10.2.0.0", true, "its neighbour"},
	    {"10.1.0.0/16", NULL, "a", "8.8.8.8", false, "a non-empty allow does not close the rest"},
	    {"10.1.2.3", NULL, "a", "10.1.2.3", false, "a bare address"},
	    {"10.1.2.3", NULL, "a", "10.1.2.2", true, "only that one"},
	    {"169.254.169.254/32", NULL, "a", "169.254.169.254", false, "metadata by CIDR"},
	    {"169.254.0.0/16", NULL, "a", "169.254.169.254", false, "metadata in a CIDR"},
	    {"168.63.129.16", NULL, "a", "168.63.129.16", false, "metadata by address"},
	    {"0.0.0.0/0", NULL, "a", "127.0.0.1", false, "all of IPv4"},
	    {"0.0.0.0/0", NULL, "a", "::1", true, "IPv4 is not IPv6"},
	    {"::/0", NULL, "a", "127.0.0.1", true, "IPv6 is not IPv4"},
	    {"::/0", NULL, "a", "::1", false, "all of IPv6"},
	    {"::1", NULL, "a", "::1", false, "a bare address"},
	    {"fd00::/8", NULL, "a", "fd12::1", false, "opened"},
	    {"fd00::/8", NULL, "a", "fc12::1", true, "its neighbour"},
	    {"::/0", NULL, "a", "::ffff:127.0.0.1", true, "the inner address is judged too"},
	    {"::ffff:0:0/96", NULL, "a", "::ffff:8.8.8.8", false, "the inner address is public"},
	    {"::ffff:0:0/96", NULL, "a", "::ffff:169.254.169.254", true, "the inner address is judged too"},
	    {"64:ff9b::/96", NULL, "a", "64:ff9b::8.8.8.8", false, "a NAT64-only cluster"},
	    {"64:ff9b::/96", NULL, "a", "64:ff9b::10.0.0.1", true, "the inner address is judged too"},
	    {"64:ff9b::/96", NULL, "a", "64:ff9b::169.254.169.254", true, "the inner address is judged too"},
	    {"2002::/16", NULL, "a", "2002:808:808::1", false, "6to4 of a public one"},
	    {"2002::/16", NULL, "a", "2002:7f00:1::1", true, "6to4 of loopback"},
	    {"2001::/32", NULL, "a", "2001:0:1::f7f7:f7f7", false, "Teredo of 8.8.8.8"},
	    {"2001::/32", NULL, "a", "2001:0:1::80ff:fffe", true, "Teredo of 127.0.0.1"},
	    {"a.example", NULL, "a.example", "10.0.0.1", false, "a name without star"},
	    {"A.Example", NULL, "a.example", "10.0.0.1", false, "case does not count"},
	    {"a?.example", NULL, "a1.example", "10.0.0.1", false, "one character"},
	    {"*", NULL, "a.example", "10.0.0.1", false, "every host"},
	    {"*", NULL, "a.example", "169.254.169.254", true, "but metadata"},

	    {NULL, "8.8.8.0/24", "a", "8.8.8.8", true, "denied"},
	    {NULL, "8.8.8.0/24", "a", "8.8.9.8", false, "its neighbour"},
	    {NULL, "2606:4700::/32", "a", "2606:4700::1", true, "denied"},
	    {NULL, "2606:4700::/32", "a", "2606:4701::1", false, "its neighbour"},
	    {NULL, "0.0.0.0/0", "a", "8.8.8.8", true, "all of IPv4"},
	    {NULL, "*.evil.example", "a.evil.example", "8.8.8.8", true, "by name"},
	    {NULL, "*.evil.example", NULL, "8.8.8.8", false, "no name to judge"},
	    {"10.0.0.0/8", "10.0.0.0/8", "a", "10.0.0.1", true, "deny wins"},
	    {"10.0.0.0/8", "10.1.0.0/16", "a", "10.1.0.1", true, "deny wins inside"},
	    {"10.0.0.0/8", "10.1.0.0/16", "a", "10.2.0.1", false, "and only there"},
	    {"10.1.0.0/16", "10.0.0.0/8", "a", "10.1.0.1", true, "deny wins around"},
	    {"*.example", "10.0.0.0/8", "a.example", "10.1.0.1", true, "deny wins over a name"},
	    {"10.0.0.0/8", "*.example", "a.example", "10.1.0.1", true, "deny wins by name"},
	    {"::/0", "8.8.8.8", "a", "::ffff:8.8.8.8", true, "deny looks inside"},
	    {"64:ff9b::/96", "8.8.8.0/24", "a", "64:ff9b::8.8.8.8", true, "deny looks inside"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct netguard *guard = guard_new(LIST(rows[i].allow), LIST(rows[i].deny));
		int err = ask(guard, rows[i].host, rows[i].addr);
		if (err != (rows[i].is_denied ? -ERR_ADDRESS_DENIED : 0))
			fail_msg("allow %s, deny %s, %s at %s: %s", rows[i].allow, rows[i].deny, rows[i].host,
				 rows[i].addr, rows[i].why);
		netguard_free(guard);
	}
}

/* Nested, equal and touching ranges in any order are still found: the look-up is a binary search. */
static void many_ranges(void **state)
{
	char *deny[300], *allow[8], *ports[8], *error = NULL, text[32];
	struct netguard *guard = NULL;
	size_t n = 0, n_allow = list_copy(LIST("10.0.0.0/8"), allow), n_ports = list_copy(LIST("80"), ports);

	/* Every other /24 of 10.0/16, from the top down; then one in another, the same again, and a bigger one
	 * elsewhere. */
	for (int third = 254; third >= 0; third -= 2)
		deny[n++] = xasprintf("10.0.%d.0/24", third);
	deny[n++] = xstrdup("10.0.4.128/25");
	deny[n++] = xstrdup("10.0.4.0/24");
	deny[n++] = xstrdup("10.0.8.0/25");
	deny[n++] = xstrdup("10.128.0.0/9");
	deny[n++] = xstrdup("10.200.0.0/16");
	deny[n++] = xstrdup("10.64.0.1");
	deny[n++] = xstrdup("2001:db8::/32");
	assert_int_equal(netguard_new(allow, n_allow, deny, n, ports, n_ports, &guard, &error), 0);
	for (int third = 0; third < 256; third++) {
		int expected = third % 2 ? 0 : -ERR_ADDRESS_DENIED;
		snprintf(text, sizeof(text), "10.0.%d.0", third);
		assert_int_equal(ask(guard, NULL, text), expected);
		snprintf(text, sizeof(text), "10.0.%d.255", third);
		assert_int_equal(ask(guard, NULL, text), expected);
	}
	assert_int_equal(ask(guard, NULL, "10.127.255.255"), 0);
	assert_int_equal(ask(guard, NULL, "10.128.0.0"), -ERR_ADDRESS_DENIED);
	assert_int_equal(ask(guard, NULL, "10.201.0.0"), -ERR_ADDRESS_DENIED);
	assert_int_equal(ask(guard, NULL, "10.255.255.255"), -ERR_ADDRESS_DENIED);
	assert_int_equal(ask(guard, NULL, "10.64.0.0"), 0);
	assert_int_equal(ask(guard, NULL, "10.64.0.1"), -ERR_ADDRESS_DENIED);
	assert_int_equal(ask(guard, NULL, "10.64.0.2"), 0);
	assert_int_equal(ask(guard, NULL, "8.8.8.8"), 0);
	list_free(allow, n_allow);
	list_free(deny, n);
	list_free(ports, n_ports);
	netguard_free(guard);
}

static void hosts_and_ports(void **state)
{
	static const struct {
		const char *host;
		uint16_t port;
		int err;
	} rows[] = {
	    {"a.example", 80, 0},
	    {"a.example", 443, 0},
	    {"a.example", 1024, 0},
	    {"a.example", 8080, 0},
	    {"a.example", 65535, 0},
	    {"a.example", 0, -ERR_PORT_DENIED},
	    {"a.example", 22, -ERR_PORT_DENIED},
	    {"a.example", 25, -ERR_PORT_DENIED},
	    {"a.example", 79, -ERR_PORT_DENIED},
	    {"a.example", 81, -ERR_PORT_DENIED},
	    {"a.example", 1023, -ERR_PORT_DENIED},
	    {"x.evil.example", 80, -ERR_HOST_DENIED},
	    {"evil.example", 80, 0}, /* "*." asks for a label more */
	    {"xevil.example", 80, 0},
	    {"bad", 80, -ERR_HOST_DENIED},
	    {"BAD", 80, -ERR_HOST_DENIED},
	    {"2001:db8::1", 80, 0},
	};
	struct netguard *guard = guard_new(LIST("bad"), LIST("*.evil.example", "bad"));

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (netguard_host(guard, rows[i].host, rows[i].port) != rows[i].err)
			fail_msg("%s port %u", rows[i].host, rows[i].port);
	netguard_free(guard);
}

/* Each in its list; the sentence names list and entry. */
static void bad_entries(void **state)
{
	static const struct {
		const char *allow, *deny, *port;
		const char *named;
	} rows[] = {
	    {"10.0.0.1/8", NULL, "80", "guard.allow: \"10.0.0.1/8\" has bits set past its prefix length"},
	    {"10.0.0.0/33", NULL, "80", "guard.allow: \"10.0.0.0/33\" has a prefix length over its address's"},
	    {"::/129", NULL, "80", "guard.allow: \"::/129\" has a prefix length over its address's"},
	    {"::1/127", NULL, "80", "guard.allow: \"::1/127\" has bits set past its prefix length"},
	    {"10.0.0.0/", NULL, "80", "guard.allow: \"10.0.0.0/\" has no valid prefix length"},
	    {"10.0.0.0/+8", NULL, "80", "guard.allow: \"10.0.0.0/+8\" has no valid prefix length"},
	    {"10.0.0.0/8x", NULL, "80", "guard.allow: \"10.0.0.0/8x\" has no valid prefix length"},
	    {"10.0.0.0/0008", NULL, "80", "guard.allow: \"10.0.0.0/0008\" has no valid prefix length"},
	    {"10/8", NULL, "80", "guard.allow: \"10/8\" is not an address"},
	    {"/8", NULL, "80", "guard.allow: \"/8\" is not an address"},
	    {"fe80::1%eth0", NULL, "80", "guard.allow: \"fe80::1%eth0\" is not an address"},
	    {"[::1]", NULL, "80", "guard.allow: \"[::1]\" is not an address"},
	    {"host.example:80", NULL, "80", "guard.allow: \"host.example:80\" is not an address"},
	    {NULL, "http://a/", "80", "guard.deny: \"http://a/\" is not an address"},
	    {NULL, "10.0.0.*", "80", "guard.deny: \"10.0.0.*\" is neither an address nor a host glob"},
	    {NULL, "10.0.0", "80", "guard.deny: \"10.0.0\" is neither an address nor a host glob"},
	    {NULL, "010.0.0.1", "80", "guard.deny: \"010.0.0.1\" is neither an address nor a host glob"},
	    {NULL, "", "80", "guard.deny: \"\" is empty"},
	    {NULL,
	     "b\xc3\xbc"
	     "cher.de",
	     "80", "is neither a CIDR nor a host glob"},
	    {NULL, "a b", "80", "guard.deny: \"a b\" is neither a CIDR nor a host glob"},
	    {NULL, NULL, "0", "guard.ports: \"0\" is neither a port nor a range"},
	    {NULL, NULL, "65536", "guard.ports: \"65536\""},
	    {NULL, NULL, "4294967376", "guard.ports: \"4294967376\""},
	    {NULL, NULL, "80-", "guard.ports: \"80-\""},
	    {NULL, NULL, "-80", "guard.ports: \"-80\""},
	    {NULL, NULL, "90-80", "guard.ports: \"90-80\""},
	    {NULL, NULL, "80,443", "guard.ports: \"80,443\""},
	    {NULL, NULL, "1-2-3", "guard.ports: \"1-2-3\""},
	    {NULL, NULL, "http", "guard.ports: \"http\""},
	    {NULL, NULL, NULL, "guard.ports: is empty"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct netguard *guard = NULL;
		char *error = NULL;

		assert_int_equal(try_guard(LIST(rows[i].allow), LIST(rows[i].deny), LIST(rows[i].port), &guard, &error),
				 -ERR_INVALID);
		assert_null(guard);
		if (!error || !strstr(error, rows[i].named))
			fail_msg("\"%s\" instead of \"%s\"", error, rows[i].named);
		free(error);
	}
	netguard_free(NULL);
}

static void addresses_as_text(void **state)
{
	static const struct {
		const char *text, *printed; /* printed NULL: refused */
	} rows[] = {
	    {"192.0.2.1", "192.0.2.1"},
	    {"0.0.0.0", "0.0.0.0"},
	    {"2001:DB8::1", "2001:db8::1"},
	    {"0:0:0:0:0:0:0:1", "::1"},
	    {"::", "::"},
	    {"::ffff:1.2.3.4", "::ffff:1.2.3.4"},
	    {"1111:2222:3333:4444:5555:6666:255.255.255.255", "1111:2222:3333:4444:5555:6666:ffff:ffff"},
	    {"", NULL},
	    {"127.1", NULL},
	    {"0x7f.0.0.1", NULL},
	    {"0177.0.0.1", NULL},
	    {"01.2.3.4", NULL},
	    {"1.2.3.4 ", NULL},
	    {"1.2.3.256", NULL},
	    {"[::1]", NULL},
	    {"::1%lo", NULL},
	    {"::1/128", NULL},
	    {"a", NULL},
	    {"1.2.3.4.5", NULL},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char out[ADDRESS_TEXT_MAX];
		struct address addr;
		int err = address_parse(rows[i].text, &addr);

		if (err != (rows[i].printed ? 0 : -ERR_INVALID))
			fail_msg("%s: %d", rows[i].text, err);
		if (err)
			continue;
		address_print(&addr, out);
		assert_string_equal(out, rows[i].printed);
	}
}

static void addresses_from_sockets(void **state)
{
	struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = htons(81), .sin_addr.s_addr = htonl(0x01020304)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(82), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	struct sockaddr unix_like = {.sa_family = AF_UNIX};
	char out[ADDRESS_TEXT_MAX], unaligned[sizeof(in6) + 1];
	struct address addr;
	uint16_t port;

	assert_int_equal(address_from_sockaddr(&in4, &addr, &port), 0);
	address_print(&addr, out);
	assert_string_equal(out, "1.2.3.4");
	assert_int_equal(port, 81);
	memcpy(unaligned + 1, &in6, sizeof(in6));
	assert_int_equal(address_from_sockaddr(unaligned + 1, &addr, &port), 0);
	address_print(&addr, out);
	assert_string_equal(out, "::1");
	assert_int_equal(port, 82);
	assert_int_equal(address_from_sockaddr(&unix_like, &addr, &port), -ERR_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(default_list),	 cmocka_unit_test(glob_opens_all_but_metadata),
	    cmocka_unit_test(lists_of_the_user), cmocka_unit_test(many_ranges),
	    cmocka_unit_test(hosts_and_ports),	 cmocka_unit_test(bad_entries),
	    cmocka_unit_test(addresses_as_text), cmocka_unit_test(addresses_from_sockets),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
