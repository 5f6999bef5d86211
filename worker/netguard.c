#include "netguard.h"

#include "err.h"

#include <arpa/inet.h>
#include <ctype.h>

#define N_PORTS 65536
#define ADDRESS_BYTES 17

/* An address as bytes in rising order: the family first, so that ::/0 holds no IPv4 address, then 4 or 16 bytes. */
struct key {
	uint8_t bytes[ADDRESS_BYTES];
};

/* All addresses of one CIDR, both ends included. */
struct range {
	struct key low, high;
};

/* Sorted and disjoint, so a look-up is a binary search however long the list is. */
struct ranges {
	struct range *items;
	size_t n;
};

struct list {
	struct ranges ranges;
	char **globs;
	size_t n_globs;
};

enum verdict {
	GLOBAL,
	CLOSED,	    /* a CIDR or a host glob in allow opens it */
	LINK_LOCAL, /* only a CIDR opens it: metadata services live there */
	METADATA,
};

/* The first row that holds the address decides. IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890, RFC
 * 8190); some ranges that they call global (AS112, AMT, those inside 192.0.0.0/24 and 2001::/23) are anycast plumbing
 * without anything to fetch, and stay closed. */
static const struct rule {
	const char *cidr;
	enum verdict verdict;
} builtin_rules[] = {
    {"168.63.129.16/32", METADATA},   /* Azure, in public space */
    {"100.100.100.200/32", METADATA}, /* Alibaba */
    {"192.0.0.192/32", METADATA},     /* Oracle, the older one */
    {"169.254.0.0/16", LINK_LOCAL},   /* RFC 3927, and 169.254.169.254 */
    {"0.0.0.0/8", CLOSED},	      /* RFC 791: this network */
    {"10.0.0.0/8", CLOSED},	      /* RFC 1918 */
    {"100.64.0.0/10", CLOSED},	      /* RFC 6598: carrier-grade NAT */
    {"127.0.0.0/8", CLOSED},	      /* RFC 1122: loopback */
    {"172.16.0.0/12", CLOSED},	      /* RFC 1918 */
    {"192.0.0.0/24", CLOSED},	      /* RFC 6890: protocol assignments */
    {"192.0.2.0/24", CLOSED},	      /* RFC 5737: TEST-NET-1 */
    {"192.31.196.0/24", CLOSED},      /* RFC 7535: AS112 */
    {"192.52.193.0/24", CLOSED},      /* RFC 7450: AMT */
    {"192.88.99.0/24", CLOSED},	      /* RFC 7526: 6to4 relays, deprecated */
    {"192.168.0.0/16", CLOSED},	      /* RFC 1918 */
    {"192.175.48.0/24", CLOSED},      /* RFC 7534: AS112 */
    {"198.18.0.0/15", CLOSED},	      /* RFC 2544: benchmarks */
    {"198.51.100.0/24", CLOSED},      /* RFC 5737: TEST-NET-2 */
    {"203.0.113.0/24", CLOSED},	      /* RFC 5737: TEST-NET-3 */
    {"224.0.0.0/4", CLOSED},	      /* RFC 5771: multicast */
    {"240.0.0.0/4", CLOSED},	      /* RFC 1112: reserved, and broadcast */
    {"0.0.0.0/0", GLOBAL},
    {"fd00:ec2::/32", METADATA},	  /* Amazon: metadata is ::254, credentials of pods ::23 */
    {"fd20:ce::254/128", METADATA},	  /* Google */
    {"fd00:c1::a9fe:a9fe/128", METADATA}, /* Oracle */
    {"fd00:42::42/128", METADATA},	  /* Scaleway */
    {"fe80::/10", LINK_LOCAL},		  /* RFC 4291 */
    {"64:ff9b:1::/48", LINK_LOCAL},	  /* RFC 8215: local NAT64; where in it the IPv4 address stands is not known */
    {"2001::/23", CLOSED},		  /* RFC 2928: Teredo, benchmarks, ORCHID, DRIP */
    {"2001:db8::/32", CLOSED},		  /* RFC 3849: documentation */
    {"2002::/16", CLOSED},		  /* RFC 3056: 6to4 */
    {"2620:4f:8000::/48", CLOSED},	  /* RFC 7534: AS112 */
    {"3fff::/20", CLOSED},		  /* RFC 9637: documentation */
    {"2000::/3", GLOBAL},		  /* RFC 4291: all global unicast there is */
    {"::/0", CLOSED},			  /* ::1, mapped, NAT64, discard-only, unique local, site-local, multicast... */
};

struct netguard {
	struct list allow, deny;
	struct range builtin[ARRAY_LEN(builtin_rules)];
	uint64_t ports[N_PORTS / 64];
};

/* Addresses as text */

int address_parse(const char *text, struct address *ret_addr)
{
	struct address addr = {.is_v6 = strchr(text, ':') != NULL};

	/* inet_pton takes no octal, no short forms and no zone. */
	if (inet_pton(addr.is_v6 ? AF_INET6 : AF_INET, text, &addr.v6) != 1)
		return -ERR_INVALID;
	*ret_addr = addr;
	return 0;
}

void address_print(const struct address *addr, char out[static ADDRESS_TEXT_MAX])
{
	inet_ntop(addr->is_v6 ? AF_INET6 : AF_INET, &addr->v6, out, ADDRESS_TEXT_MAX);
}

int address_from_sockaddr(const void *sockaddr, struct address *ret_addr, uint16_t *ret_port)
{
	sa_family_t family;
	struct sockaddr_in in4;
	struct sockaddr_in6 in6;

	/* Copied, because curl's buffer need not be aligned for either. */
	memcpy(&family, (const char *)sockaddr + offsetof(struct sockaddr, sa_family), sizeof(family));
	if (family == AF_INET) {
		memcpy(&in4, sockaddr, sizeof(in4));
		*ret_addr = (struct address){.v4 = in4.sin_addr};
		*ret_port = ntohs(in4.sin_port);
		return 0;
	}
	if (family == AF_INET6) {
		memcpy(&in6, sockaddr, sizeof(in6));
		*ret_addr = (struct address){.is_v6 = true, .v6 = in6.sin6_addr};
		*ret_port = ntohs(in6.sin6_port);
		return 0;
	}
	return -ERR_INVALID;
}

/* Ranges */

static struct key key_of(const struct address *addr)
{
	struct key key = {{addr->is_v6}};

	memcpy(key.bytes + 1, &addr->v6, addr->is_v6 ? 16 : 4);
	return key;
}

static int key_cmp(const struct key *a, const struct key *b)
{
	return memcmp(a->bytes, b->bytes, ADDRESS_BYTES);
}

static bool range_has(const struct range *range, const struct key *key)
{
	return key_cmp(&range->low, key) <= 0 && key_cmp(key, &range->high) <= 0;
}

/* "10.0.0.0/8", "::1". NULL, or what is wrong with it. */
static const char *range_parse(const char *text, struct range *ret_range)
{
	char addr_text[ADDRESS_TEXT_MAX];
	const char *slash = strchr(text, '/');
	size_t len = slash ? (size_t)(slash - text) : strlen(text);
	struct address addr;

	if (len >= sizeof(addr_text))
		return "is not an address";
	memcpy(addr_text, text, len);
	addr_text[len] = '\0';
	if (address_parse(addr_text, &addr) < 0)
		return "is not an address";
	unsigned width = addr.is_v6 ? 128 : 32, bits = width;
	if (slash) {
		size_t n_digits = strspn(slash + 1, "0123456789");
		if (n_digits < 1 || n_digits > 3 || slash[1 + n_digits])
			return "has no valid prefix length";
		bits = (unsigned)strtoul(slash + 1, NULL, 10);
		if (bits > width)
			return "has a prefix length over its address's";
	}
	ret_range->low = ret_range->high = key_of(&addr);
	for (unsigned bit = bits; bit < width; bit++) {
		uint8_t mask = (uint8_t)(0x80 >> bit % 8);
		if (ret_range->low.bytes[1 + bit / 8] & mask)
			return "has bits set past its prefix length";
		ret_range->high.bytes[1 + bit / 8] |= mask;
	}
	return NULL;
}

static int range_cmp(const void *a, const void *b)
{
	const struct range *left = a, *right = b;
	int cmp = key_cmp(&left->low, &right->low);

	return cmp ? cmp : -key_cmp(&left->high, &right->high);
}

/* Sorts, and drops those inside another one: two CIDRs are nested or disjoint, never half over each other. */
static void ranges_settle(struct ranges *ranges)
{
	size_t kept = 0;

	if (ranges->n == 0)
		return;
	qsort(ranges->items, ranges->n, sizeof(ranges->items[0]), range_cmp);
	for (size_t i = 1; i < ranges->n; i++)
		if (key_cmp(&ranges->items[i].low, &ranges->items[kept].high) > 0)
			ranges->items[++kept] = ranges->items[i];
	ranges->n = kept + 1;
}

static bool ranges_have(const struct ranges *ranges, const struct key *key)
{
	size_t low = 0, high = ranges->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		if (key_cmp(&ranges->items[mid].high, key) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low < ranges->n && range_has(&ranges->items[low], key);
}

/* The lists of the settings */

/* NULL, or what is wrong. "10.0.0.*" would match only a URL that spells the address out: whoever writes it means a
 * CIDR. */
static const char *glob_check(const char *text)
{
	bool has_letter = false, has_digit = false;

	if (!*text)
		return "is empty";
	for (const char *c = text; *c; c++) {
		has_letter = has_letter || isalpha((unsigned char)*c);
		has_digit = has_digit || isdigit((unsigned char)*c);
		if (!isalnum((unsigned char)*c) && !strchr(".-_*?", *c))
			return "is neither a CIDR nor a host glob (international names are written as xn--...)";
	}
	return has_digit && !has_letter ? "is neither an address nor a host glob; write a range as a CIDR" : NULL;
}

static int list_parse(struct list *list, const char *key, char *const entries[], size_t n, char **ret_error)
{
	list->ranges.items = xcalloc(n, sizeof(list->ranges.items[0]));
	list->globs = xcalloc(n, sizeof(list->globs[0]));
	for (size_t i = 0; i < n; i++) {
		const char *wrong = range_parse(entries[i], &list->ranges.items[list->ranges.n]);
		if (!wrong) {
			list->ranges.n++;
			continue;
		}
		if (!strpbrk(entries[i], "/:"))
			wrong = glob_check(entries[i]);
		if (wrong) {
			*ret_error = xasprintf("%s: \"%s\" %s", key, entries[i], wrong);
			return -ERR_INVALID;
		}
		list->globs[list->n_globs++] = xstrdup(entries[i]);
	}
	ranges_settle(&list->ranges);
	return 0;
}

static void list_done(struct list *list)
{
	for (size_t i = 0; i < list->n_globs; i++)
		free(list->globs[i]);
	free(list->globs);
	free(list->ranges.items);
}

static bool list_has_host(const struct list *list, const char *host)
{
	for (size_t i = 0; i < list->n_globs; i++)
		if (glob_match(list->globs[i], host))
			return true;
	return false;
}

/* One to five digits from 1 to 65535. The text after them, or NULL. */
static const char *port_parse(const char *text, uint32_t *ret_port)
{
	size_t n_digits = strspn(text, "0123456789");

	if (n_digits < 1 || n_digits > 5)
		return NULL;
	*ret_port = (uint32_t)strtoul(text, NULL, 10);
	return *ret_port >= 1 && *ret_port < N_PORTS ? text + n_digits : NULL;
}

static int ports_parse(struct netguard *guard, char *const ports[], size_t n, char **ret_error)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t from = 0, to = 0;
		const char *rest = port_parse(ports[i], &from);
		if (rest && *rest == '-')
			rest = port_parse(rest + 1, &to);
		else
			to = from;
		if (!rest || *rest || from > to) {
			*ret_error =
			    xasprintf("guard.ports: \"%s\" is neither a port nor a range like 1024-65535", ports[i]);
			return -ERR_INVALID;
		}
		for (uint32_t port = from; port <= to; port++)
			guard->ports[port / 64] |= UINT64_C(1) << port % 64;
	}
	if (n == 0)
		*ret_error = xasprintf("guard.ports: is empty, so nothing could be fetched");
	return n == 0 ? -ERR_INVALID : 0;
}

int netguard_new(char *const allow[], size_t n_allow, char *const deny[], size_t n_deny, char *const ports[],
		 size_t n_ports, struct netguard **ret_guard, char **ret_error)
{
	struct netguard *guard = xcalloc(1, sizeof(*guard));
	int err = list_parse(&guard->allow, "guard.allow", allow, n_allow, ret_error);

	if (!err)
		err = list_parse(&guard->deny, "guard.deny", deny, n_deny, ret_error);
	if (!err)
		err = ports_parse(guard, ports, n_ports, ret_error);
	if (err) {
		netguard_free(guard);
		return err;
	}
	for (size_t i = 0; i < ARRAY_LEN(builtin_rules); i++)
		if (range_parse(builtin_rules[i].cidr, &guard->builtin[i]))
			abort();
	*ret_guard = guard;
	return 0;
}

void netguard_free(struct netguard *guard)
{
	if (!guard)
		return;
	list_done(&guard->allow);
	list_done(&guard->deny);
	free(guard);
}

/* Questions */

int netguard_host(const struct netguard *guard, const char *host, uint16_t port)
{
	if (list_has_host(&guard->deny, host))
		return -ERR_HOST_DENIED;
	return guard->ports[port / 64] >> port % 64 & 1 ? 0 : -ERR_PORT_DENIED;
}

static enum verdict builtin_verdict(const struct netguard *guard, const struct key *key)
{
	for (size_t i = 0; i < ARRAY_LEN(builtin_rules); i++)
		if (range_has(&guard->builtin[i], key))
			return builtin_rules[i].verdict;
	return METADATA;
}

/* The IPv4 address that the IPv6 one stands for: the kernel or a gateway would connect to that. */
static bool embedded_v4(const struct address *addr, struct address *ret_inner)
{
	static const uint8_t nat64[12] = {0x00, 0x64, 0xff, 0x9b},
			     local_nat64[6] = {0x00, 0x64, 0xff, 0x9b, 0x00, 0x01};
	static const uint8_t translated[12] = {[8] = 0xff, [9] = 0xff}, isatap[3] = {0x00, 0x5e, 0xfe};
	const uint8_t *b = addr->v6.s6_addr;
	uint8_t v4[4];

	if (!addr->is_v6)
		return false;
	/* V4COMPAT leaves out :: and ::1. */
	if (IN6_IS_ADDR_V4MAPPED(&addr->v6) || IN6_IS_ADDR_V4COMPAT(&addr->v6) ||
	    memcmp(b, nat64, sizeof(nat64)) == 0 || memcmp(b, local_nat64, sizeof(local_nat64)) == 0 ||
	    memcmp(b, translated, sizeof(translated)) == 0)
		memcpy(v4, b + 12, 4);
	else if (b[0] == 0x20 && b[1] == 0x02) /* 6to4 */
		memcpy(v4, b + 2, 4);
	else if (b[0] == 0x20 && b[1] == 0x01 && b[2] == 0 && b[3] == 0) /* Teredo: the client, inverted */
		for (int i = 0; i < 4; i++)
			v4[i] = (uint8_t)~b[12 + i];
	else if ((b[8] & 0xfd) == 0 && memcmp(b + 9, isatap, sizeof(isatap)) == 0) /* RFC 5214, in any prefix */
		memcpy(v4, b + 12, 4);
	else
		return false;
	*ret_inner = (struct address){0};
	memcpy(&ret_inner->v4, v4, 4);
	return true;
}

static bool is_permitted(const struct netguard *guard, const char *host, const struct address *addr)
{
	struct key key = key_of(addr);
	enum verdict verdict;

	if (ranges_have(&guard->deny.ranges, &key))
		return false;
	if (ranges_have(&guard->allow.ranges, &key))
		return true;
	verdict = builtin_verdict(guard, &key);
	return verdict == GLOBAL || (verdict == CLOSED && host && list_has_host(&guard->allow, host));
}

int netguard_address(const struct netguard *guard, const char *host, const struct address *addr)
{
	struct address inner;

	if (host && list_has_host(&guard->deny, host))
		return -ERR_ADDRESS_DENIED;
	if (!is_permitted(guard, host, addr))
		return -ERR_ADDRESS_DENIED;
	if (embedded_v4(addr, &inner) && !is_permitted(guard, host, &inner))
		return -ERR_ADDRESS_DENIED;
	return 0;
}
