/* utf8 - is it valid UTF-8 (RFC 3629), and making it so. Layer 1: pure. */
#ifndef GATHERD_UTF8_H
#define GATHERD_UTF8_H

#include "base.h"

/* Length of the valid prefix; len when all of it is valid. No NUL is needed at the end. */
size_t utf8_valid_len(const void *data, size_t len);
/* Copies with each bad byte as U+FFFD. out needs room for 3 x len. Returns the bytes written. */
size_t utf8_sanitise(const void *data, size_t len, void *out);

#endif
