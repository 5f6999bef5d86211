/* The shared certificate store, and what a connection's TLS is. */
#include "fetch_internal.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <time.h>

struct tls_store {
	X509_STORE *x509;
};

/* The bundle that curl was built with is the distribution's. */
static const char *system_bundle(void)
{
	const char *env = getenv(X509_get_default_cert_file_env()),
		   *built_in = curl_version_info(CURLVERSION_NOW)->cainfo;

	if (env && *env)
		return env;
	return built_in ? built_in : X509_get_default_cert_file();
}

struct tls_store *tls_store_load(const char *ca_file, char **ret_error)
{
	const char *path = ca_file && *ca_file ? ca_file : system_bundle();
	X509_STORE *x509 = X509_STORE_new();
	char reason[256];

	if (!x509)
		abort();
	ERR_clear_error();
	if (X509_STORE_load_file(x509, path) != 1) {
		ERR_error_string_n(ERR_peek_last_error(), reason, sizeof(reason));
		*ret_error = xasprintf("tls.ca: no certificates from %s: %s", path, reason);
		ERR_clear_error();
		X509_STORE_free(x509);
		return NULL;
	}
	/* As curl does: an intermediate in the store is trusted as it is. */
	X509_STORE_set_flags(x509, X509_V_FLAG_TRUSTED_FIRST | X509_V_FLAG_PARTIAL_CHAIN);
	struct tls_store *store = xmalloc(sizeof(*store));
	store->x509 = x509;
	return store;
}

void tls_store_free(struct tls_store *store)
{
	if (!store)
		return;
	X509_STORE_free(store->x509); /* connections hold their own reference */
	free(store);
}

CURLcode on_ssl_ctx(CURL *easy, void *ssl_ctx, void *ctx)
{
	struct fetch *fetch = ctx;

	if (fetch->store)
		SSL_CTX_set1_cert_store(ssl_ctx, fetch->store->x509);
	return CURLE_OK;
}

void tls_describe(struct transfer *t)
{
	struct curl_tlssessioninfo *info = NULL;
	struct response *resp = t->resp;
	struct tm tm;

	if (curl_easy_getinfo(t->easy, CURLINFO_TLS_SSL_PTR, &info) != CURLE_OK || !info || !info->internals ||
	    info->backend != CURLSSLBACKEND_OPENSSL)
		return;
	/* Both names are constants of OpenSSL. */
	const SSL *ssl = info->internals;
	resp->tls_version = SSL_get_version(ssl);
	resp->tls_cipher = SSL_get_cipher_name(ssl);
	const X509 *cert = SSL_get0_peer_certificate(ssl);
	if (cert && ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) == 1)
		resp->tls_not_after_ms = (int64_t)timegm(&tm) * 1000;
}
