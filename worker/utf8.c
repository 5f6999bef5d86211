#include "utf8.h"

/* Bytes of the sequence at s, 0 when it is not valid: overlong forms, surrogates and over U+10FFFF included. */
static size_t sequence(const uint8_t *s, size_t left)
{
	uint8_t low = 0x80, high = 0xbf;
	size_t n;

	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		n = 2;
	else if ((s[0] & 0xf0) == 0xe0)
		n = 3;
	else if (s[0] >= 0xf0 && s[0] <= 0xf4)
		n = 4;
	else
		return 0;
	if (left < n)
		return 0;
	if (s[0] == 0xe0)
		low = 0xa0;
	else if (s[0] == 0xed)
		high = 0x9f;
	else if (s[0] == 0xf0)
		low = 0x90;
	else if (s[0] == 0xf4)
		high = 0x8f;
	if (s[1] < low || s[1] > high)
		return 0;
	for (size_t i = 2; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

/* Nearly all that comes is ASCII: eight bytes at a time. */
static size_t ascii_len(const uint8_t *s, size_t len)
{
	uint64_t word;
	size_t i = 0;

	for (; len - i >= sizeof(word); i += sizeof(word)) {
		memcpy(&word, s + i, sizeof(word));
		if (word & UINT64_C(0x8080808080808080))
			break;
	}
	return i;
}

size_t utf8_valid_len(const void *data, size_t len)
{
	const uint8_t *s = data;
	size_t i = len ? ascii_len(s, len) : 0;

	while (i < len) {
		size_t n = sequence(s + i, len - i);
		if (!n)
			break;
		i += n;
	}
	return i;
}

size_t utf8_sanitise(const void *data, size_t len, void *out)
{
	const uint8_t *s = data;
	uint8_t *to = out;
	size_t i = 0;

	while (i < len) {
		size_t n = sequence(s + i, len - i);
		if (n) {
			memcpy(to, s + i, n);
			to += n;
			i += n;
		} else {
			memcpy(to, "\xef\xbf\xbd", 3);
			to += 3;
			i++;
		}
	}
	return (size_t)(to - (uint8_t *)out);
}
