/* Sections with a name: [secret "NAME"] and [proxy "NAME"]. No sentence here shows any of a value: it may be the secret. */
#include "options_internal.h"

#include "err.h"
#include "field.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>

#define NAMED_MAX 1000
#define NAME_BYTES_MAX 256 /* of a job's secret_ref and proxy_ref */
#define VALUE_BYTES_MAX 8192
#define SECRET_HEADERS_MAX 16
#define SECRET_BYTES_MAX 16384
#define CREDENTIAL_BYTES_MAX 255 /* RFC 1929 */

static const char *const section_names[] = {[SECTION_SECRET] = "secret", [SECTION_PROXY] = "proxy"};

/* ---- ${file:PATH} ---- */

/* The file's text without the line ends at its end. */
static int add_file(struct draft *draft, const char *source, const char *key, const char *path, struct buf *out)
{
	char text[SHOWN_MAX];
	struct buf file;

	buf_init(&file, VALUE_BYTES_MAX);
	int err = read_whole(path, true, &file);
	while (file.len && (file.data[file.len - 1] == '\n' || file.data[file.len - 1] == '\r'))
		file.len--;
	if (err == -ERR_SYSTEM)
		draft_error(draft, source, "%s: %s cannot be read: %s", key, shown(path, text), strerror(errno));
	else if (err)
		draft_error(draft, source, "%s: %s is over %d bytes", key, shown(path, text), VALUE_BYTES_MAX);
	else if (!file.len)
		err = -ERR_INVALID, draft_error(draft, source, "%s: %s is empty", key, shown(path, text));
	else
		err = buf_add(out, file.data, file.len);
	buf_done(&file);
	return err;
}

/* The value with what each ${file:PATH} in it stands for; NULL when the errors say why not. */
static char *expand(struct draft *draft, const char *source, const char *key, const char *value)
{
	static const char mark[] = "${file:";
	const char *at, *end;
	struct buf out;
	int err = 0;

	buf_init(&out, 2 * VALUE_BYTES_MAX);
	while (!err && (at = strstr(value, mark)) && (end = strchr(at, '}'))) {
		const char *path = at + sizeof(mark) - 1;
		char *copy = xstrndup(path, (size_t)(end - path));
		err = buf_add(&out, value, (size_t)(at - value));
		if (!err)
			err = add_file(draft, source, key, copy, &out);
		free(copy);
		value = end + 1;
	}
	if (!err)
		err = buf_add_str(&out, value);
	char *text = err ? NULL : xstrndup((const char *)out.data, out.len);
	if (text && (out.len > VALUE_BYTES_MAX || memchr(text, '\0', out.len) || !field_is_value(span_str(text)))) {
		draft_error(draft, source, "%s: over %d bytes, or with a control character", key, VALUE_BYTES_MAX);
		free(text);
		text = NULL;
	}
	buf_done(&out);
	return text;
}

/* ---- [secret "NAME"] ---- */

static void set_hosts(struct draft *draft, const char *source, struct secret *secret, const char *value)
{
	strlist_done(&secret->hosts);
	strlist_parse(&secret->hosts, value);
	for (size_t i = 0; i < secret->hosts.n; i++)
		if (strspn(secret->hosts.v[i], "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._*?:[]") !=
		    strlen(secret->hosts.v[i]))
			draft_error(draft, source,
				    "hosts: write names in punycode, as in api.example.com, *.example.com or api.example.com:443");
}

static size_t secret_bytes(const struct secret *secret)
{
	size_t bytes = 0;

	for (size_t i = 0; i < secret->names.n; i++)
		bytes += strlen(secret->names.v[i]) + strlen(secret->values.v[i]);
	return bytes;
}

static void add_header(struct draft *draft, const char *source, struct secret *secret, const char *value)
{
	size_t len = field_token_len(value);

	if (!len || value[len] != ':') {
		draft_error(draft, source, "header: must be as in Authorization: Bearer ...");
		return;
	}
	char *name = xstrndup(value, len);
	const char *rest = value + len + 1 + strspn(value + len + 1, " \t");
	char *text = expand(draft, source, "header", rest);
	if (field_is_denied(name)) {
		draft_error(draft, source, "header: %s is not a secret's to set", name);
	} else if (text && !*text) {
		draft_error(draft, source, "header: has no value");
	} else if (text) {
		strlist_add(&secret->names, name, len);
		strlist_add(&secret->values, text, strlen(text));
		if (secret->names.n > SECRET_HEADERS_MAX || secret_bytes(secret) > SECRET_BYTES_MAX)
			draft_error(draft, source, "header: over %d headers or %d bytes in one secret", SECRET_HEADERS_MAX,
				    SECRET_BYTES_MAX);
	}
	free(name);
	free(text);
}

static void set_secret(struct draft *draft, const char *source, struct secret *secret, const char *key, const char *value)
{
	if (strcmp(key, "hosts") == 0)
		set_hosts(draft, source, secret, value);
	else if (strcmp(key, "header") == 0)
		add_header(draft, source, secret, value);
	else
		draft_error(draft, source, "a secret has the keys hosts and header");
}

static void wipe(struct strlist *list)
{
	for (size_t i = 0; i < list->n; i++)
		explicit_bzero(list->v[i], strlen(list->v[i]));
	strlist_done(list);
}

static void secret_done(struct secret *secret)
{
	free(secret->name);
	strlist_done(&secret->hosts);
	strlist_done(&secret->names);
	wipe(&secret->values);
}

/* ---- [proxy "NAME"] ---- */

/* With all of them the proxy resolves the names. */
static const struct {
	const char *prefix, *sent;
} schemes[] = {{"http://", "http://"}, {"https://", "https://"}, {"socks5://", "socks5h://"}, {"socks5h://", "socks5h://"}};

/* "proxy.example.com:3128", "[::1]:1080", and nothing behind it but a slash. */
static bool parse_authority(struct proxy *proxy, const char *text)
{
	bool has_brackets = *text == '[';
	const char *host = text + has_brackets;
	size_t n = strspn(host, has_brackets ? "0123456789abcdefABCDEF:." : "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._");
	const char *port = host + n + has_brackets;
	unsigned long number;
	char *end;
	struct in6_addr addr;

	if (n == 0 || n > 253 || (has_brackets && host[n] != ']') || *port != ':' || !isdigit((unsigned char)port[1]))
		return false;
	number = strtoul(port + 1, &end, 10);
	if (number < 1 || number > 65535 || strcmp(*end == '/' ? end + 1 : end, "") != 0)
		return false;
	proxy->host = xstrndup(host, n);
	for (char *s = proxy->host; *s; s++)
		*s = (char)tolower((unsigned char)*s);
	proxy->port = (uint16_t)number;
	proxy->is_literal = inet_pton(has_brackets ? AF_INET6 : AF_INET, proxy->host, &addr) == 1;
	proxy->key = xasprintf(has_brackets ? "[%s]:%u" : "%s:%u", proxy->host, proxy->port);
	return proxy->is_literal || !has_brackets;
}

static void proxy_forget_url(struct proxy *proxy)
{
	free(proxy->url);
	free(proxy->host);
	free(proxy->key);
	proxy->url = proxy->host = proxy->key = NULL;
}

static void set_url(struct draft *draft, const char *source, struct proxy *proxy, const char *value)
{
	proxy_forget_url(proxy);
	for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
		size_t n = strlen(schemes[i].prefix);
		if (strncmp(value, schemes[i].prefix, n) != 0 || !parse_authority(proxy, value + n))
			continue;
		proxy->url = xasprintf("%s%s", schemes[i].sent, proxy->key);
		proxy->is_https = strcmp(schemes[i].sent, "https://") == 0;
		return;
	}
	proxy_forget_url(proxy);
	proxy->url = xstrdup("");
	draft_error(draft, source,
		    "url: must be as in http://proxy.example.com:3128, with http, https, socks5 or socks5h and the port; user and "
		    "password have keys of their own");
}

static void set_credential(struct draft *draft, const char *source, char **at, const char *key, const char *value)
{
	char *text = expand(draft, source, key, value);

	if (text && strlen(text) > CREDENTIAL_BYTES_MAX)
		draft_error(draft, source, "%s: over %d bytes", key, CREDENTIAL_BYTES_MAX);
	if (text) {
		free(*at);
		*at = text;
	}
}

static void set_proxy(struct draft *draft, const char *source, struct proxy *proxy, const char *key, const char *value)
{
	if (strcmp(key, "url") == 0)
		set_url(draft, source, proxy, value);
	else if (strcmp(key, "user") == 0)
		set_credential(draft, source, &proxy->user, key, value);
	else if (strcmp(key, "password") == 0)
		set_credential(draft, source, &proxy->password, key, value);
	else
		draft_error(draft, source, "a proxy has the keys url, user and password");
}

static void proxy_done(struct proxy *proxy)
{
	free(proxy->name);
	proxy_forget_url(proxy);
	free(proxy->user);
	if (proxy->password)
		explicit_bzero(proxy->password, strlen(proxy->password));
	free(proxy->password);
}

/* ---- both ---- */

static const char *name_mistake(const char *name)
{
	size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

	return n == 0 || name[n] || n > NAME_BYTES_MAX ? "a name has 1 to 256 letters, digits, '.', '_' or '-'" : NULL;
}

void draft_add_named(struct draft *draft, const char *source, enum section_kind kind, const char *name)
{
	struct options *opts = draft->opts;
	bool is_secret = kind == SECTION_SECRET;
	size_t *n = is_secret ? &opts->n_secrets : &opts->n_proxies;
	const char *mistake = name_mistake(name);
	char text[SHOWN_MAX];

	if (is_secret ? options_secret(opts, name) != NULL : options_proxy(opts, name) != NULL)
		draft_error(draft, source, "[%s \"%s\"] is there already", section_names[kind], shown(name, text));
	if (mistake)
		draft_error(draft, source, "[%s \"%s\"]: %s", section_names[kind], shown(name, text), mistake);
	if (*n == NAMED_MAX) {
		draft_error(draft, source, "over %d sections of this kind", NAMED_MAX);
		return; /* its rows go to the last one: the settings are refused anyway */
	}
	if (is_secret) {
		opts->secrets = xrealloc(opts->secrets, (*n + 1) * sizeof(*opts->secrets));
		opts->secrets[(*n)++] = (struct secret){.name = xstrdup(name), .source = xstrdup(source)};
	} else {
		opts->proxies = xrealloc(opts->proxies, (*n + 1) * sizeof(*opts->proxies));
		opts->proxies[(*n)++] = (struct proxy){.name = xstrdup(name), .source = xstrdup(source)};
	}
}

void draft_set_named(struct draft *draft, const char *source, enum section_kind kind, const char *key, const char *value)
{
	struct options *opts = draft->opts;

	if (kind == SECTION_SECRET)
		set_secret(draft, source, &opts->secrets[opts->n_secrets - 1], key, value);
	else
		set_proxy(draft, source, &opts->proxies[opts->n_proxies - 1], key, value);
}

void draft_check_named(struct draft *draft)
{
	const struct options *opts = draft->opts;

	for (size_t i = 0; i < opts->n_secrets; i++) {
		const struct secret *secret = &opts->secrets[i];
		if (!secret->hosts.n)
			draft_error(draft, secret->source, "this secret needs hosts: where it may go, as in hosts = api.example.com");
		if (!secret->names.n)
			draft_error(draft, secret->source, "this secret needs a header, as in header = Authorization: Bearer ...");
	}
	for (size_t i = 0; i < opts->n_proxies; i++) {
		const struct proxy *proxy = &opts->proxies[i];
		if (!proxy->url)
			draft_error(draft, proxy->source, "this proxy needs a url, as in url = http://proxy.example.com:3128");
		if (proxy->password && !proxy->user)
			draft_error(draft, proxy->source, "this proxy has a password and no user");
	}
}

void options_free_named(struct options *opts)
{
	for (size_t i = 0; i < opts->n_secrets; i++) {
		free(opts->secrets[i].source);
		secret_done(&opts->secrets[i]);
	}
	for (size_t i = 0; i < opts->n_proxies; i++) {
		free(opts->proxies[i].source);
		proxy_done(&opts->proxies[i]);
	}
	free(opts->secrets);
	free(opts->proxies);
}

const struct secret *options_secret(const struct options *opts, const char *name)
{
	for (size_t i = 0; i < opts->n_secrets; i++)
		if (strcmp(opts->secrets[i].name, name) == 0)
			return &opts->secrets[i];
	return NULL;
}

const struct proxy *options_proxy(const struct options *opts, const char *name)
{
	for (size_t i = 0; i < opts->n_proxies; i++)
		if (strcmp(opts->proxies[i].name, name) == 0)
			return &opts->proxies[i];
	return NULL;
}

bool secret_may_go(const struct secret *secret, const char *host, const char *key)
{
	for (size_t i = 0; i < secret->hosts.n; i++)
		if (glob_match(secret->hosts.v[i], host) || glob_match(secret->hosts.v[i], key))
			return true;
	return false;
}
