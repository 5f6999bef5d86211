/* Any bytes as a URL and as the Location of a redirect. What comes out must be a fixed point, for us and for libcurl:
 * then what was judged is what is connected to. */
#include "err.h"
#include "url.h"
#include "fuzz.h"

#include <curl/curl.h>

static void check_libcurl(const struct url *url)
{
	CURLU *curlu = curl_url();
	char *text = NULL, *host = NULL, *port = NULL, *user = NULL;

	must(curl_url_set(curlu, CURLUPART_URL, url->text, 0) == CURLUE_OK, "libcurl takes it", url->text);
	must(curl_url_get(curlu, CURLUPART_URL, &text, 0) == CURLUE_OK, "libcurl has a URL", url->text);
	must(curl_url_get(curlu, CURLUPART_HOST, &host, 0) == CURLUE_OK, "libcurl has a host", url->text);
	must(curl_url_get(curlu, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK, "libcurl has a port",
	     url->text);
	must(curl_url_get(curlu, CURLUPART_USER, &user, 0) == CURLUE_NO_USER, "libcurl sees no user", url->text);
	must(strcmp(text, url->text) == 0, "libcurl changes nothing", url->text);
	must(atoi(port) == url->port, "libcurl sees the same port", url->text);
	bool is_v6 = host[0] == '[';
	must(strncmp(host + is_v6, url->host, strlen(url->host)) == 0, "libcurl sees the same host", url->text);
	must(strlen(host) == strlen(url->host) + (is_v6 ? 2 : 0), "libcurl sees no more of a host", url->text);
	curl_free(text);
	curl_free(host);
	curl_free(port);
	curl_url_cleanup(curlu);
}

static void check(struct arena *arena, const struct url *url)
{
	const char *host_chars = url->is_literal ? "0123456789abcdef.:" : "abcdefghijklmnopqrstuvwxyz0123456789.-_";
	struct url again;

	must(strlen(url->text) <= URL_BYTES_MAX, "the text is bounded", url->text);
	must(url->host[0] && url->host[strspn(url->host, host_chars)] == '\0', "the host is clean", url->host);
	must(url->port > 0, "the port is one", url->text);
	for (const char *c = url->text; *c; c++)
		must(*c > ' ' && *c < 0x7f && *c != '#', "the text is clean", url->text);
	must(url_parse(arena, span_str(url->text), &again) == 0, "the text can be parsed", url->text);
	must(strcmp(again.text, url->text) == 0 && strcmp(again.key, url->key) == 0, "a fixed point", url->text);
	must(again.is_literal == url->is_literal && url_same_origin(&again, url), "the same origin", url->text);
	check_libcurl(url);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span text = {data, size};
	struct arena arena;
	struct url base, url;

	arena_init(&arena, 4096);
	int err = url_parse(&arena, span_str("https://base.example:8443/a/b/../c?d=/e"), &base);
	must(err == 0, "the base can be parsed", "");
	if (url_parse(&arena, text, &url) == 0)
		check(&arena, &url);
	err = url_resolve(&arena, &base, text, &url);
	must(err == 0 || err == -ERR_URL_SCHEME || err == -ERR_REDIRECT_BAD, "a known error", "");
	if (err == 0)
		check(&arena, &url);
	arena_done(&arena);
	return 0;
}
