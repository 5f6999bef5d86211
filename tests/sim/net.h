/* net - the network of the simulation: names and origins behind the headers of resolve and fetch. */
#ifndef GATHERD_SIM_NET_H
#define GATHERD_SIM_NET_H

#include "world.h"

#define ORIGINS_MAX 10

/* What an origin does; the rest of 1 is a plain 200. */
struct origin {
	char name[40];
	bool is_literal, is_private;
	int64_t latency_us, dns_us;
	double dns_fails, refuses, hangs, stalls, breaks, redirects, errors, is_busy, has_large;
	bool is_dead_name;
	int64_t down_until_us; /* refuses everybody */
};

struct net {
	struct origin origins[ORIGINS_MAX + 1]; /* the one past the last is a name that nobody has */
	size_t n_origins;
	int64_t body_max;
	int64_t n_redirects;
};

extern struct net net;

/* New origins; trouble 0 = all is well. */
void net_start(double trouble, int64_t body_max);
/* An URL of some origin. */
void net_url(char *out, size_t size);

#endif
