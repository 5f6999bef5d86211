/* netguard - may we fetch from this host, port and address?
 *
 * Happy path: netguard_host at parse, netguard_address for each resolved address and again at connect.
 * Denied by default: all that the IANA special-purpose registries (RFC 6890, RFC 8190) do not call globally reachable,
 * multicast, cloud metadata (169.254.169.254, fd00:ec2::254, 168.63.129.16, 100.100.100.200 and four more); IPv6 only
 * 2000::/3 minus its special ranges. IPv4-mapped, -compatible, -translated, NAT64 (64:ff9b::/96, 64:ff9b:1::/48), 6to4 and Teredo
 * forms are denied as a whole; a CIDR in allow that opens one leaves the IPv4 address inside to be judged (of 64:ff9b:1::/48 the
 * last 32 bits). So is the one in an ISATAP address of any prefix. An unknown address family is denied.
 * deny wins over allow, on name or address. A CIDR in allow opens that range; a glob in allow lets that host's addresses skip the
 * built-in list, except link-local, metadata and local NAT64, which need a CIDR. A non-empty allow does not close the rest.
 * Layer 1: pure. */
#ifndef GATHERD_NETGUARD_H
#define GATHERD_NETGUARD_H

#include "base.h"

#include <netinet/in.h>

struct netguard;

/* One address: what resolvers give and sockets take. */
struct address {
	bool is_v6;
	union {
		struct in_addr v4;
		struct in6_addr v6;
	};
};

#define ADDRESS_TEXT_MAX 46

/* Lists as in the settings: CIDRs (a bare address is a /32 or /128; prefix bits past the length must be zero), host globs,
 * "80 443 1024-65535". 0, or -ERR_INVALID with a sentence that names the bad entry in *ret_error (free). */
int netguard_new(char *const allow[], size_t n_allow, char *const deny[], size_t n_deny, char *const ports[], size_t n_ports,
		 struct netguard **ret_guard, char **ret_error) MUST_CHECK;
void netguard_free(struct netguard *guard);

/* By name and port, before any lookup. 0, -ERR_HOST_DENIED or -ERR_PORT_DENIED. host as in struct url. */
int netguard_host(const struct netguard *guard, const char *host, uint16_t port) MUST_CHECK;
/* 0 or -ERR_ADDRESS_DENIED. host decides whether a glob of allow applies; it may be NULL. */
int netguard_address(const struct netguard *guard, const char *host, const struct address *addr) MUST_CHECK;

/* "192.0.2.1", "2001:db8::1" (no brackets, no zone). 0 or -ERR_INVALID. */
int address_parse(const char *text, struct address *ret_addr) MUST_CHECK;
void address_print(const struct address *addr, char out[static ADDRESS_TEXT_MAX]);
/* From a socket address. -ERR_INVALID for any other family. */
int address_from_sockaddr(const void *sockaddr, struct address *ret_addr, uint16_t *ret_port) MUST_CHECK;

#endif
