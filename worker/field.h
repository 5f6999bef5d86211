/* field - HTTP field names and values (RFC 9110 5), and those that are not for jobs or settings to set. Layer 0. */
#ifndef GATHERD_FIELD_H
#define GATHERD_FIELD_H

#include "base.h"

struct header {
	const char *name;
	struct span value;
};

/* RFC 9110 5.6.2; not isalnum, which follows the locale. */
size_t field_token_len(const char *text);
bool field_is_token(const char *text);
/* RFC 9110 5.5: no control character but tab. */
bool field_is_value(struct span value);
/* Whether name, in any case, is one of names. */
bool field_is_one_of(const char *name, const char *const names[], size_t n);
/* What says where a request ends, whose it is or what becomes of its connection: Host, Content-Length, Transfer-Encoding,
 * Connection, Keep-Alive, TE, Trailer, Upgrade, Expect, Proxy-*. */
bool field_is_denied(const char *name);

#endif
