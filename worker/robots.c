#include "robots.h"

#include <ctype.h>
#include <strings.h>

/* Octets of a normalised pattern or path that mean more than themselves: controls stay percent-encoded there. */
enum symbol {
	WILDCARD = 1,  /* '*' in a pattern */
	ENCODED_SLASH, /* %2F in a pattern or in a path */
	QUERY_SLASH,   /* '/' or %2F in a query: a pattern may write either */
};

struct robots {
	int64_t delay_us;
	size_t n_bytes;
	uint8_t rules[]; /* each a struct rule and its pattern, without padding */
};

struct rule {
	uint32_t rank; /* octets that the RFC counts: of the whole pattern, when it is cut too */
	uint16_t len;  /* of the pattern behind it */
	bool is_allow;
	bool is_anchored; /* ended in '$' */
};

/* The path of a URL, normalised, and how much may still be spent on it. */
struct path {
	uint8_t octets[URL_BYTES_MAX];
	size_t len, steps_left;
};

enum field { USER_AGENT, ALLOW, DISALLOW, CRAWL_DELAY, UNKNOWN };

/* A name only has to begin so: "Disallowed" counts. */
static const struct {
	const char *prefix;
	enum field field;
} fields[] = {
    {"user-agent", USER_AGENT},	  {"useragent", USER_AGENT}, {"user agent", USER_AGENT},   {"allow", ALLOW},
    {"disallow", DISALLOW},	  {"dissallow", DISALLOW},   {"dissalow", DISALLOW},	   {"disalow", DISALLOW},
    {"diasllow", DISALLOW},	  {"disallaw", DISALLOW},    {"crawl-delay", CRAWL_DELAY}, {"crawldelay", CRAWL_DELAY},
    {"crawl delay", CRAWL_DELAY},
};

/* Whom the user-agent lines at hand name. */
struct names {
	bool is_own, is_star;
};

struct parser {
	const char *token;
	struct robots *robots;
	bool is_specific; /* a group of our own was seen: those of "*" no longer count */
	/* The next user-agent line begins a new group after a rule; for a delay, after one of those too. */
	struct names rules_for, delay_for;
	bool has_rules, has_delay;
};

/* Octets, normalised */

/* Reserved or unreserved (RFC 3986 2.2, 2.3). */
static bool is_uri_char(uint8_t c)
{
	return isascii(c) && (isalnum(c) || (c && strchr("-._~:/?#[]@!$&'()*+,;=", c)));
}

static int hex_value(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Takes one octet, raw or as %XX, off the front. */
static uint8_t octet_take(struct span *text, bool *ret_is_encoded)
{
	uint8_t c = text->data[0];
	int high, low;

	*ret_is_encoded = c == '%' && text->len >= 3 && (high = hex_value(text->data[1])) >= 0 &&
			  (low = hex_value(text->data[2])) >= 0;
	if (*ret_is_encoded)
		c = (uint8_t)(high << 4 | low);
	size_t n = *ret_is_encoded ? 3 : 1;
	text->data += n;
	text->len -= n;
	return c;
}

/* How an octet is written: itself, or %XX for a control or '%'. Returns its length. */
static size_t octet_print(uint8_t c, uint8_t out[static 3])
{
	static const char digits[] = "0123456789ABCDEF";

	out[0] = c;
	if (c >= ' ' && c != 0x7f && c != '%')
		return 1;
	out[0] = '%';
	out[1] = (uint8_t)digits[c >> 4];
	out[2] = (uint8_t)digits[c & 15];
	return 3;
}

/* False when it is longer than any URL of ours. */
static bool path_read(struct path *path, const char *text)
{
	struct span rest = {(const uint8_t *)text, strcspn(text, "#")};
	bool is_query = false;

	path->steps_left = ROBOTS_STEPS_MAX;
	path->len = *text == '/' ? 0 : 1;
	path->octets[0] = '/';
	while (rest.len) {
		uint8_t printed[3];
		bool is_encoded;
		uint8_t c = octet_take(&rest, &is_encoded);
		size_t n = octet_print(c, printed);
		if (c == '/' && (is_query || is_encoded))
			printed[0] = is_query ? QUERY_SLASH : ENCODED_SLASH;
		is_query = is_query || (c == '?' && !is_encoded);
		if (n > sizeof(path->octets) - path->len)
			return false;
		memcpy(path->octets + path->len, printed, n);
		path->len += n;
	}
	return true;
}

/* Writes at most ROBOTS_PATTERN_BYTES_MAX to out, which needs room for three times the text or that. */
static struct rule pattern_read(struct span text, bool is_allow, uint8_t *out, bool *ret_is_cut)
{
	struct rule rule = {.is_allow = is_allow, .is_anchored = text.data[text.len - 1] == '$'};

	*ret_is_cut = false;
	rule.rank = rule.is_anchored;
	text.len -= rule.is_anchored;
	while (text.len) {
		uint8_t printed[3];
		bool is_encoded;
		uint8_t c = octet_take(&text, &is_encoded);
		size_t n = octet_print(c, printed);
		if (c == '*' && !is_encoded)
			printed[0] = WILDCARD;
		if (c == '/' && is_encoded)
			printed[0] = ENCODED_SLASH;
		rule.rank += is_uri_char(c) ? 1 : 3;
		*ret_is_cut = *ret_is_cut || rule.len + n > ROBOTS_PATTERN_BYTES_MAX;
		if (*ret_is_cut)
			continue;
		memcpy(out + rule.len, printed, n);
		rule.len = (uint16_t)(rule.len + n);
	}
	rule.is_anchored = rule.is_anchored && !*ret_is_cut;
	return rule;
}

/* Lines */

static bool is_blank(uint8_t c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static struct span trim(struct span text)
{
	while (text.len && is_blank(text.data[0])) {
		text.data++;
		text.len--;
	}
	while (text.len && is_blank(text.data[text.len - 1]))
		text.len--;
	return text;
}

static size_t find_blank(struct span text)
{
	size_t at = 0;

	while (at < text.len && !is_blank(text.data[at]))
		at++;
	return at;
}

/* "name: value # comment", or "name value" when these are two words. False when it is neither. */
static bool line_split(struct span line, struct span *ret_name, struct span *ret_value)
{
	const uint8_t *hash = line.len ? memchr(line.data, '#', line.len) : NULL;

	line = trim((struct span){line.data, hash ? (size_t)(hash - line.data) : line.len});
	const uint8_t *colon = line.len ? memchr(line.data, ':', line.len) : NULL;
	size_t at = colon ? (size_t)(colon - line.data) : find_blank(line);
	if (at == line.len)
		return false;
	*ret_name = trim((struct span){line.data, at});
	*ret_value = trim((struct span){line.data + at + 1, line.len - at - 1});
	return colon || find_blank(*ret_value) == ret_value->len;
}

static enum field field_of(struct span name)
{
	for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
		size_t len = strlen(fields[i].prefix);
		if (name.len >= len && strncasecmp((const char *)name.data, fields[i].prefix, len) == 0)
			return fields[i].field;
	}
	return UNKNOWN;
}

/* Characters of a product token at the front (RFC 9309 2.2.1). */
static size_t token_len(struct span text)
{
	size_t len = 0;

	while (len < text.len &&
	       ((isascii(text.data[len]) && isalpha(text.data[len])) || text.data[len] == '-' || text.data[len] == '_'))
		len++;
	return len;
}

/* Groups */

static bool is_token(struct span value, const char *token)
{
	size_t len = token_len(value);

	return len && strlen(token) == len && strncasecmp((const char *)value.data, token, len) == 0;
}

static void on_user_agent(struct parser *parser, struct span value)
{
	if (parser->has_rules)
		parser->rules_for = (struct names){0};
	if (parser->has_rules || parser->has_delay)
		parser->delay_for = (struct names){0};
	parser->has_rules = parser->has_delay = false;
	if (is_token(value, parser->token)) {
		parser->rules_for.is_own = parser->delay_for.is_own = true;
		if (!parser->is_specific)
			*parser->robots = (struct robots){0};
		parser->is_specific = true;
	}
	if (value.len && value.data[0] == '*' && (value.len == 1 || is_blank(value.data[1])))
		parser->rules_for.is_star = parser->delay_for.is_star = true;
}

static bool is_ours(const struct parser *parser, struct names names)
{
	return names.is_own || (names.is_star && !parser->is_specific);
}

static void on_rule(struct parser *parser, bool is_allow, struct span value)
{
	uint8_t *end = parser->robots->rules + parser->robots->n_bytes;
	bool is_cut;

	parser->has_rules = true;
	/* An empty "disallow:" forbids nothing. */
	if (!is_ours(parser, parser->rules_for) || !value.len)
		return;
	struct rule rule = pattern_read(value, is_allow, end + sizeof(rule), &is_cut);
	if (is_cut && is_allow)
		return;
	memcpy(end, &rule, sizeof(rule));
	parser->robots->n_bytes += sizeof(rule) + rule.len;
}

/* "2", "0.5", "10 s"; with anything else behind the number it is none. */
static void on_delay(struct parser *parser, struct span value)
{
	int64_t delay_us = 0, scale = 100000;
	size_t at = 0;

	parser->has_delay = true;
	for (; at < value.len && isdigit(value.data[at]); at++)
		delay_us = MIN(delay_us * 10 + (value.data[at] - '0') * INT64_C(1000000), ROBOTS_DELAY_MAX_US);
	if (at < value.len && value.data[at] == '.')
		for (at++; at < value.len && isdigit(value.data[at]); at++, scale /= 10)
			delay_us += (value.data[at] - '0') * scale;
	bool is_seconds = at == value.len || is_blank(value.data[at]) || value.data[at] == 's';
	if (is_seconds && is_ours(parser, parser->delay_for))
		parser->robots->delay_us = MAX(parser->robots->delay_us, MIN(delay_us, ROBOTS_DELAY_MAX_US));
}

/* Records that are not of the RFC, Crawl-delay among them, end no group of rules (2.2.4). */
static void on_line(struct parser *parser, struct span line)
{
	struct span name, value;

	if (!line_split(line, &name, &value))
		return;
	switch (field_of(name)) {
	case USER_AGENT:
		on_user_agent(parser, value);
		break;
	case ALLOW:
		on_rule(parser, true, value);
		break;
	case DISALLOW:
		on_rule(parser, false, value);
		break;
	case CRAWL_DELAY:
		on_delay(parser, value);
		break;
	case UNKNOWN:
		break;
	}
}

/* The file */

static bool is_eol(uint8_t c)
{
	return c == '\n' || c == '\r';
}

/* To the last whole line within the limit, without the byte order mark or what there is of one. */
static struct span text_bound(struct span text)
{
	static const uint8_t bom[] = {0xef, 0xbb, 0xbf};

	if (text.len > ROBOTS_BYTES_MAX) {
		text.len = ROBOTS_BYTES_MAX;
		/* A line's end behind the limit shows that the last one is whole. */
		while (text.len && !is_eol(text.data[text.len]))
			text.len--;
	}
	for (size_t i = 0; i < sizeof(bom) && text.len && text.data[0] == bom[i]; i++) {
		text.data++;
		text.len--;
	}
	return text;
}

struct robots *robots_parse(struct span text, const char *user_agent_token)
{
	struct parser parser = {.token = user_agent_token};

	text = text_bound(text);
	/* A control takes three octets; a rule's name is longer than a third of struct rule. */
	parser.robots = xmalloc(sizeof(*parser.robots) + 3 * text.len);
	*parser.robots = (struct robots){0};
	for (size_t start = 0, at = 0; at <= text.len; at++) {
		if (at < text.len && !is_eol(text.data[at]))
			continue;
		if (at > start)
			on_line(&parser, (struct span){text.data + start, at - start});
		start = at + 1;
	}
	return xrealloc(parser.robots, robots_bytes(parser.robots));
}

struct robots *robots_allow_all(void)
{
	return robots_parse((struct span){NULL, 0}, "");
}

struct robots *robots_disallow_all(void)
{
	return robots_parse(span_str("user-agent: *\ndisallow: /"), "");
}

void robots_free(struct robots *robots)
{
	free(robots);
}

size_t robots_bytes(const struct robots *robots)
{
	return sizeof(*robots) + robots->n_bytes;
}

int64_t robots_delay_us(const struct robots *robots)
{
	return robots->delay_us;
}

/* Questions */

static bool path_has(struct path *path, size_t at, const uint8_t *part, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		uint8_t c = path->octets[at + i];
		if (path->steps_left == 0)
			return false;
		path->steps_left--;
		if (c != part[i] && !(c == QUERY_SLASH && (part[i] == '/' || part[i] == ENCODED_SLASH)))
			return false;
	}
	return true;
}

/* Each part between wildcards is taken where it first occurs: a later place would leave less for those behind it. So
 * nothing is tried twice, and the time is at most the product of both lengths. */
static bool rule_matches(const struct rule *rule, const uint8_t *pattern, struct path *path)
{
	const uint8_t *end = pattern + rule->len;
	size_t done = 0; /* octets of the path */

	for (const uint8_t *part = pattern, *star;; part = star + 1) {
		star = memchr(part, WILDCARD, (size_t)(end - part));
		size_t len = (size_t)((star ? star : end) - part);
		if (len > path->len - done)
			return false;
		/* The first part is at the front, the last one of an anchored rule at the end. */
		size_t last = path->len - len;
		size_t from = !star && rule->is_anchored ? last : done;
		size_t to = part == pattern ? 0 : last;
		while (from <= to && !path_has(path, from, part, len))
			from++;
		if (from > to)
			return false;
		if (!star)
			return true;
		done = from + len;
	}
}

bool robots_allows(const struct robots *robots, const char *path_and_query)
{
	static const char own[] = "/robots.txt";
	const uint8_t *at = robots->rules, *end = at + robots->n_bytes;
	struct rule rule, best = {.is_allow = true};
	struct path path;

	if (!path_read(&path, path_and_query))
		return false;
	if (path.len == strlen(own) && memcmp(path.octets, own, path.len) == 0)
		return true;
	for (; at < end; at += sizeof(rule) + rule.len) {
		memcpy(&rule, at, sizeof(rule));
		bool is_better = rule.rank > best.rank || (rule.rank == best.rank && rule.is_allow);
		if (is_better && rule_matches(&rule, at + sizeof(rule), &path))
			best = rule;
		if (path.steps_left == 0)
			return false;
	}
	return best.is_allow;
}

void robots_token(const char *user_agent, char out[static ROBOTS_TOKEN_MAX])
{
	const char *start = user_agent;

	if (strncasecmp(user_agent, "Mozilla/", strlen("Mozilla/")) == 0) {
		const char *mark = strcasestr(user_agent, "compatible;");
		if (mark) {
			mark += strlen("compatible;");
			start = mark + strspn(mark, " ");
		}
	}
	size_t len = MIN(token_len(span_str(start)), (size_t)ROBOTS_TOKEN_MAX - 1);
	memcpy(out, start, len);
	out[len] = '\0';
}
