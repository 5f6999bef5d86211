/* offsetmap - the completed set above the commit point <-> Kafka commit metadata.
 *
 * Confluent Parallel Consumer's formats, so that a group can move from it and back: standard base64 of a magic byte and a
 * body. Written: 'o' (bit set v2: int32 BE bit count, then bits LSB first, 1 = complete, and one trailing zero byte) or 'e' (run
 * length v2: int32 BE run lengths, alternating, the first one incomplete), the shorter. Read: 'l' and 'n' too (16-bit
 * counts). 24000 offsets take at most 4008 characters, under Kafka's 4096.
 * Source: parallelconsumer/offsets/{OffsetEncoding,BitSetEncoder,RunLengthEncoder}.java. Layer 1: pure. */
#ifndef GATHERD_OFFSETMAP_H
#define GATHERD_OFFSETMAP_H

#include "base.h"

#define OFFSETMAP_SPAN_MAX 24000
#define OFFSETMAP_TEXT_MAX 4096

/* bits: bit i of word i/64 = offset base + i is complete; n_bits: up to and with the highest complete one (0 = none).
 * Writes a C string; its length, 0 for an empty set. n_bits over OFFSETMAP_SPAN_MAX is a bug (assert). */
size_t offsetmap_encode(const uint64_t *bits, size_t n_bits, char out[static OFFSETMAP_TEXT_MAX + 1]);
/* Into n_words zeroed words. *ret_bits: highest complete bit + 1. 0 (also for empty text), or -ERR_INVALID when it cannot be
 * parsed or reaches past n_words x 64 bits: then nothing is set. */
int offsetmap_decode(const char *text, size_t len, uint64_t *bits, size_t n_words, size_t *ret_bits) MUST_CHECK;

#endif
