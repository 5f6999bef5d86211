/* robots - what one host's robots.txt lets us fetch (RFC 9309).
 *
 * Happy path: robots_parse, or one of the two below it by the answer's status -> robots_allows for each URL of the host
 * -> robots_free. Nothing fails: what cannot be understood is skipped (2.3.1.5), and what is cut is cut so that less is
 * allowed, never more.
 *
 * Kept are only the rules of all groups that name our token, else those of all groups of "*", else none. The longest
 * rule that matches decides, in octets of its normalised pattern, '*' and '$' included; allow wins a tie.
 *
 * Normalised (2.2.2): an octet and its %XX are equal. So "~" is %7E, U+30C4 is %E3%83%84, and %2A in a rule is a '*' in
 * the URL. Only %2F is not "/" in a path; in a query it is (figure 4).
 *
 * Beyond the RFC, as Google's parser: misspelt names (a table in the .c), names that only begin with the right one, a
 * missing colon, a group's name read up to its first character that no token has, a part of a byte order mark. Not as
 * it: "allow: /a/index.html" does not allow /a/.
 *
 * Layer 1: pure. */
#ifndef GATHERD_ROBOTS_H
#define GATHERD_ROBOTS_H

#include "base.h"
#include "url.h"

/* Read of a file (RFC 9309 2.5); a line that this cuts is dropped. There is no bound on the number of rules below that
 * one: the RFC wants 500 KiB parsed. What is kept takes at most three times as much, in practice less than the file. */
#define ROBOTS_BYTES_MAX ((size_t)500 * 1024)
/* A longer pattern: of a disallow the first 2 KiB count, so it forbids more; an allow is left out. */
#define ROBOTS_PATTERN_BYTES_MAX 2048
/* Octets looked at for one URL, at most some milliseconds; after that it is forbidden. No known file is near it: of
 * 4,231 real ones the dearest takes a fifth for a URL of 2,000 octets. */
#define ROBOTS_STEPS_MAX ((size_t)4 * 1024 * 1024)
/* A longer Crawl-delay counts as this: the host's line must move. */
#define ROBOTS_DELAY_MAX_US INT64_C(300000000)
#define ROBOTS_TOKEN_MAX 64

struct robots; /* one block of memory */

/* A 2xx answer. text need not end in NUL and may be any bytes. user_agent_token is as from robots_token; with an empty
 * one only the groups of "*" apply. 500 KiB take some milliseconds, a usual file 20 us. */
struct robots *robots_parse(struct span text, const char *user_agent_token) __attribute__((returns_nonnull));
/* 4xx, or more than five redirects: "unavailable" (2.3.1.3). */
struct robots *robots_allow_all(void) __attribute__((returns_nonnull));
/* 5xx, or no answer: "unreachable" (2.3.1.4). */
struct robots *robots_disallow_all(void) __attribute__((returns_nonnull));
void robots_free(struct robots *robots);

/* path_and_query as in the text of a struct url: from its "/" on; a fragment is not looked at. "/robots.txt" always is
 * allowed. False also for what is longer than URL_BYTES_MAX. */
bool robots_allows(const struct robots *robots, const char *path_and_query);
/* Between two starts; 0 = nothing asked. The longest Crawl-delay of our groups: seconds, with or without a fraction. */
int64_t robots_delay_us(const struct robots *robots);
/* Memory it takes. */
size_t robots_bytes(const struct robots *robots);

/* The product token of a User-Agent (2.2.1): letters, '-' and '_' from its beginning, or behind "compatible;" when it
 * begins with "Mozilla/". Empty when there is none; cut to what fits. */
void robots_token(const char *user_agent, char out[static ROBOTS_TOKEN_MAX]);

#endif
