/* httpd - the small HTTP server of metrics and health, on the loop (libevent's evhttp).
 *
 * GET and HEAD only; a request body over 4 KiB, headers over 16 KiB or a connection idle for 30 s is closed; at most 64 connections.
 * Layer 3. */
#ifndef GATHERD_HTTPD_H
#define GATHERD_HTTPD_H

#include "base.h"
#include "buf.h"
#include "log.h"
#include "loop.h"

struct httpd;

/* Fills out (empty, with a maximum) and *ret_type; returns the HTTP status, 404 for an unknown path. */
typedef int (*httpd_fn)(void *ctx, const char *path, struct buf *out, const char **ret_type);

/* listen: "127.0.0.1:9464", "[::1]:0", ":9464" (all addresses). fall_back: a busy port falls to any free one. Logs
 * msg="http listening" addr= port=. -ERR_SYSTEM / -ERR_INVALID and *ret_error (free). */
int httpd_new(struct loop *loop, struct log *log, const char *listen, bool fall_back, httpd_fn fn, void *ctx,
	      struct httpd **ret_httpd, char **ret_error) MUST_CHECK;
void httpd_free(struct httpd *httpd);
uint16_t httpd_port(const struct httpd *httpd);

#endif
