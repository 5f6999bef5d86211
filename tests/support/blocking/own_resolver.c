/* The daemon as it must not be: linked in front of it, this lets libcurl look names up by itself, on its threads.
 *
 * tests/integration/test_loop_lag.py runs the same load on this build, to be sure that it would see a loop that blocks.
 * - What gatherd tells libcurl of addresses, and that it must not look for any, is not passed on.
 * - gatherd's own lookups are answered with loopback at once.
 * - getaddrinfo is that of a machine whose name server never answers for names below dead.test (5 s: resolv.conf's
 *   default for one try), and knows every other .test as loopback. */
#include "resolve_internal.h"

#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>
#include <dlfcn.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#define SILENCE_S 5

CURLcode __real_curl_easy_setopt(CURL *easy, CURLoption option, ...);
CURLcode __wrap_curl_easy_setopt(CURL *easy, CURLoption option, ...);
void __real_resolve_dns_ask(struct resolve_dns *dns, const char *host, struct resolve_part *part);
void __wrap_resolve_dns_ask(struct resolve_dns *dns, const char *host, struct resolve_part *part);

CURLcode __wrap_curl_easy_setopt(CURL *easy, CURLoption option, ...)
{
	va_list args;

	if (option == CURLOPT_RESOLVER_START_FUNCTION || option == CURLOPT_RESOLVE)
		return CURLE_OK;
	va_start(args, option);
	void *value = va_arg(args, void *); /* a long and a curl_off_t are as wide */
	va_end(args);
	return __real_curl_easy_setopt(easy, option, value);
}

void __wrap_resolve_dns_ask(struct resolve_dns *dns, const char *host, struct resolve_part *part)
{
	__real_resolve_dns_ask(dns, part->is_v6 ? "::1" : "127.0.0.1", part);
}

int getaddrinfo(const char *restrict node, const char *restrict service, const struct addrinfo *restrict hints,
		struct addrinfo **restrict res)
{
	int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
	struct addrinfo v4 = {0};
	size_t len = node ? strlen(node) : 0;

	*(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
	if (len < 5 || strcmp(node + len - 5, ".test") != 0)
		return real(node, service, hints, res);
	if (len > 10 && strcmp(node + len - 10, ".dead.test") == 0) {
		sleep(SILENCE_S);
		return EAI_AGAIN;
	}
	if (hints)
		v4 = *hints;
	v4.ai_family = AF_INET;
	return real("127.0.0.1", service, &v4, res);
}
