/* Any bytes as commit metadata, and as a set to be written: what was read or written comes back the same. */
#include "offsetmap.h"
#include "window.h"
#include "fuzz.h"

#define WORDS (OFFSETMAP_SPAN_MAX / 64 + 1)
#define BASE 1000000

static void check_round_trip(const uint64_t bits[static WORDS], size_t n_bits)
{
	uint64_t back[WORDS] = {0};
	char text[OFFSETMAP_TEXT_MAX + 1];
	size_t n_back = 0, len = offsetmap_encode(bits, n_bits, text);

	must(len == strlen(text) && len <= 4008, "the length is right and bounded", "");
	must(offsetmap_decode(text, len, back, WORDS, &n_back) == 0, "what was written can be read", "");
	must(n_back == n_bits && memcmp(bits, back, sizeof(back)) == 0, "it comes back the same", "");
}

/* A window that takes over gives the set on as it was, and skips just the complete ones. */
static void check_window(const char *text, size_t len, const uint64_t bits[static WORDS], size_t n_bits)
{
	struct window *win = window_new(BASE, OFFSETMAP_SPAN_MAX);
	char again[OFFSETMAP_TEXT_MAX + 1], expected[OFFSETMAP_TEXT_MAX + 1];

	must(window_restore(win, text, len) == 0, "the window reads it too", "");
	offsetmap_encode(bits, n_bits, expected);
	must(window_snapshot(win, again) == BASE && strcmp(again, expected) == 0, "the window keeps the set", "");
	for (size_t i = 0; i < n_bits; i++) {
		bool is_complete = bits[i / 64] >> i % 64 & 1;
		must((window_accept(win, BASE + (int64_t)i) == 0) == !is_complete, "complete offsets are skipped", "");
	}
	window_free(win);
}

static void check_metadata(const uint8_t *data, size_t size)
{
	uint64_t bits[WORDS] = {0}, none[WORDS] = {0};
	const char *text = (const char *)data;
	size_t n_bits = 0;

	if (offsetmap_decode(text, size, bits, WORDS, &n_bits) != 0) {
		must(memcmp(bits, none, sizeof(bits)) == 0, "nothing is set when it cannot be read", "");
		return;
	}
	must(n_bits <= WORDS * 64, "n_bits is bounded", "");
	must(n_bits == 0 || bits[(n_bits - 1) / 64] >> (n_bits - 1) % 64 & 1, "n_bits ends in a complete one", "");
	if (n_bits > OFFSETMAP_SPAN_MAX)
		return;
	check_round_trip(bits, n_bits);
	check_window(text, size, bits, n_bits);
}

static void check_set(const uint8_t *data, size_t size)
{
	uint64_t bits[WORDS] = {0};
	size_t n_bits = 0;

	for (size_t i = 0; i < MIN(size, (size_t)OFFSETMAP_SPAN_MAX / 8); i++) {
		bits[i / 8] |= (uint64_t)data[i] << i % 8 * 8;
		if (data[i])
			n_bits = i * 8 + 32 - (size_t)__builtin_clz(data[i]);
	}
	check_round_trip(bits, n_bits);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check_metadata(data, size);
	check_set(data, size);
	return 0;
}
