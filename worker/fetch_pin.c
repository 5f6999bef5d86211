/* Hosts that were asked lately, and the addresses of them that libcurl was told. Its cache is per multi and never forgets here
 * (DNS_CACHE_TIMEOUT -1), so a host is fed once and again when its addresses change; when our memory of it goes, libcurl is told to
 * forget it too.
 *
 * Entries are the permanent kind (no '+'): a new one replaces them all the same, and with a time-out of -1 libcurl 8.14
 * drops the other kind at the end of every transfer. A transfer may find libcurl without the entry (its carrier was
 * cancelled before it ran): then it fails before any connect, and is started again with the addresses (pin_feed_again).
 */
#include "fetch_internal.h"

#include "clock.h"

#include <stdio.h>

/* "host:port:" and 16 times "[address]," */
#define PIN_TEXT_MAX (300 + RESOLVE_ADDRESSES_MAX * (ADDRESS_TEXT_MAX + 3))

static bool address_equal(const struct address *a, const struct address *b)
{
	if (a->is_v6 != b->is_v6)
		return false;
	return a->is_v6 ? memcmp(&a->v6, &b->v6, sizeof(a->v6)) == 0 : a->v4.s_addr == b->v4.s_addr;
}

static bool pin_is(const struct pin *pin, const struct addresses *addrs)
{
	if (pin->n != addrs->n)
		return false;
	for (size_t i = 0; i < addrs->n; i++)
		if (!address_equal(&pin->addrs[i], &addrs->v[i]))
			return false;
	return true;
}

static void slist_add(struct curl_slist **list, const char *text)
{
	struct curl_slist *longer = curl_slist_append(*list, text);

	if (!longer)
		abort();
	*list = longer;
}

/* The whole list at once: what is left of older ones, then ours. */
static void slist_feed(struct transfer *t)
{
	char text[PIN_TEXT_MAX], ip[ADDRESS_TEXT_MAX];
	int len = snprintf(text, sizeof(text), "%s:%u:", t->peer.host, t->peer.port);

	for (size_t i = 0; i < t->addrs.n; i++) {
		const struct address *addr = &t->addrs.v[i];
		address_print(addr, ip);
		len +=
		    snprintf(text + len, sizeof(text) - (size_t)len, addr->is_v6 ? "%s[%s]" : "%s%s", i ? "," : "", ip);
	}
	if (t->lane->drop) {
		t->resolve = t->lane->drop;
		t->lane->drop = NULL;
	}
	slist_add(&t->resolve, text);
}

static void pin_forget(struct lane *lane, struct pin *pin)
{
	HASH_DELETE(hh, lane->pins, pin);
	free(pin->addrs);
	free(pin);
}

/* One that was not used since it was last looked at; the oldest first. */
static void pin_evict(struct lane *lane)
{
	char text[300];
	struct pin *pin = lane->pins;

	while (pin->is_used) {
		pin->is_used = false;
		HASH_DELETE(hh, lane->pins, pin);
		HASH_ADD_KEYPTR_BYHASHVALUE(hh, lane->pins, pin->key, strlen(pin->key), pin->hh.hashv, pin);
		pin = lane->pins;
	}
	if (pin->n) {
		snprintf(text, sizeof(text), "-%s", pin->key);
		slist_add(&lane->drop, text);
	}
	pin_forget(lane, pin);
}

/* All keys of a lane have the low bits in common that chose it, and uthash looks at those. */
static unsigned pin_hash(const struct transfer *t)
{
	return t->key_hash / LANES;
}

static struct pin *pin_find(struct transfer *t)
{
	struct pin *pin;

	HASH_FIND_BYHASHVALUE(hh, t->lane->pins, t->peer.key, strlen(t->peer.key), pin_hash(t), pin);
	return pin;
}

static struct pin *pin_new(struct transfer *t)
{
	size_t len = strlen(t->peer.key);
	struct pin *pin = xcalloc(1, sizeof(*pin) + len + 1);

	if (HASH_COUNT(t->lane->pins) >= PINS_MAX)
		pin_evict(t->lane);
	memcpy(pin->key, t->peer.key, len + 1);
	HASH_ADD_KEYPTR_BYHASHVALUE(hh, t->lane->pins, pin->key, len, pin_hash(t), pin);
	return pin;
}

void pin_feed(struct transfer *t)
{
	struct pin *pin = pin_find(t);

	if (pin)
		pin->is_used = true;
	else
		pin = pin_new(t);
	if (pin->last_us + CONNECTION_AGE_MAX_S * US_PER_S < t->start_us)
		pin->visits = 0;
	pin->last_us = t->start_us;
	pin->visits += pin->visits <= RARE_VISITS;
	t->is_rare = pin->visits <= RARE_VISITS && !t->peer.is_proxy;
	/* Literals are never looked up; the name "*" would answer for all hosts. */
	if (t->peer.is_literal || t->addrs.n == 0 || strcmp(t->peer.host, "*") == 0 || pin_is(pin, &t->addrs))
		return;
	pin->n = (uint8_t)t->addrs.n;
	pin->addrs = xrealloc(pin->addrs, t->addrs.n * sizeof(*pin->addrs));
	memcpy(pin->addrs, t->addrs.v, t->addrs.n * sizeof(*pin->addrs));
	slist_feed(t);
}

void pin_feed_again(struct transfer *t)
{
	struct pin *pin = pin_find(t);

	if (pin)
		pin_forget(t->lane, pin);
	curl_slist_free_all(t->resolve);
	t->resolve = NULL;
	pin_feed(t);
}

void pin_release(struct transfer *t)
{
	if (t->resolve && !t->has_run) {
		struct pin *pin = pin_find(t);

		if (pin)
			pin_forget(t->lane, pin);
		for (struct curl_slist *item = t->resolve; item; item = item->next)
			if (item->data[0] == '-')
				slist_add(&t->lane->drop, item->data);
	}
	curl_slist_free_all(t->resolve);
	t->resolve = NULL;
}

void pins_free(struct lane *lane)
{
	while (lane->pins)
		pin_forget(lane, lane->pins);
	curl_slist_free_all(lane->drop);
}
