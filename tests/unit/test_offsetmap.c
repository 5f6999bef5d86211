/* offsetmap against what Confluent Parallel Consumer itself writes. */
#include "err.h"
#include "offsetmap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#define WORDS (OFFSETMAP_SPAN_MAX / 64 + 1)

static uint64_t random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* "0101": one character per offset, 1 = complete. Returns n_bits. */
static size_t set_from_text(const char *text, uint64_t bits[static WORDS])
{
	size_t n_bits = 0;

	memset(bits, 0, WORDS * sizeof(bits[0]));
	for (size_t i = 0; text[i]; i++) {
		if (text[i] != '1')
			continue;
		bits[i / 64] |= UINT64_C(1) << i % 64;
		n_bits = i + 1;
	}
	return n_bits;
}

#define ONES_100 "1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111"

/* Written by OffsetSimultaneousEncoder of io.confluent.parallelconsumer:parallel-consumer-core:0.5.3.2, one column per
 * encoding. */
static const struct vector {
	const char *set, *bits_v1, *runs_v1, *bits_v2, *runs_v2;
} vectors[] = {
    {"01", "bAACAgA=", "bgABAAE=", "bwAAAAICAA==", "ZQAAAAEAAAAB"},
    {"0101", "bAAECgA=", "bgABAAEAAQAB", "bwAAAAQKAA==", "ZQAAAAEAAAABAAAAAQAAAAE="},
    {"1", "bAABAQA=", "bgAAAAE=", "bwAAAAEBAA==", "ZQAAAAAAAAAB"},
    {"011", "bAADBgA=", "bgABAAI=", "bwAAAAMGAA==", "ZQAAAAEAAAAC"},
    {"101", "bAADBQA=", "bgAAAAEAAQAB", "bwAAAAMFAA==", "ZQAAAAAAAAABAAAAAQAAAAE="},
    {"0000000001", "bAAKAAIA", "bgAJAAE=", "bwAAAAoAAgA=", "ZQAAAAkAAAAB"},
    {"0010110101111001", "bAAQtJ4A", "bgACAAEAAQACAAEAAQABAAQAAgAB",
     "bwAAABC0ngA=", "ZQAAAAIAAAABAAAAAQAAAAIAAAABAAAAAQAAAAEAAAAEAAAAAgAAAAE="},
    {"0" ONES_100, "bABl/v//////////////HwA=", "bgABAGQ=", "bwAAAGX+//////////////8fAA==", "ZQAAAAEAAABk"},
};

static void writes_the_shorter_form(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(vectors); i++) {
		const struct vector *v = &vectors[i];
		/* In bytes; a tie goes to the bit set. */
		const char *expected = i == ARRAY_LEN(vectors) - 1 ? v->runs_v2 : v->bits_v2;
		uint64_t bits[WORDS];
		char out[OFFSETMAP_TEXT_MAX + 1];

		assert_int_equal(offsetmap_encode(bits, set_from_text(v->set, bits), out), strlen(expected));
		assert_string_equal(out, expected);
	}
}

static void reads_all_four_forms(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(vectors); i++) {
		const char *texts[] = {vectors[i].bits_v1, vectors[i].runs_v1, vectors[i].bits_v2, vectors[i].runs_v2};
		uint64_t expected[WORDS];
		size_t n_expected = set_from_text(vectors[i].set, expected);

		for (size_t form = 0; form < ARRAY_LEN(texts); form++) {
			uint64_t bits[WORDS] = {0};
			size_t n_bits = 12345;

			assert_int_equal(offsetmap_decode(texts[form], strlen(texts[form]), bits, WORDS, &n_bits), 0);
			assert_int_equal(n_bits, n_expected);
			assert_memory_equal(bits, expected, sizeof(bits));
		}
	}
}

static void empty_set_is_empty_text(void **state)
{
	uint64_t bits[WORDS] = {0};
	char out[OFFSETMAP_TEXT_MAX + 1] = "x";
	size_t n_bits = 7;

	assert_int_equal(offsetmap_encode(bits, 0, out), 0);
	assert_string_equal(out, "");
	assert_int_equal(offsetmap_decode("", 0, bits, WORDS, &n_bits), 0);
	assert_int_equal(n_bits, 0);
	assert_int_equal(offsetmap_decode(NULL, 0, bits, WORDS, &n_bits), 0);
}

/* Parallel Consumer writes these before anything has succeeded. */
static void nothing_complete_is_an_empty_set(void **state)
{
	static const char *const texts[] = {"bAABAAA=", "bwAAAAEAAA==", "ZQAAAAE=", "bgAB", "ZQ==", "bwAAAAAA"};

	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		uint64_t bits[1] = {0};
		size_t n_bits = 7;

		assert_int_equal(offsetmap_decode(texts[i], strlen(texts[i]), bits, 1, &n_bits), 0);
		assert_int_equal(n_bits, 0);
		assert_int_equal(bits[0], 0);
	}
}

static void worst_case_fits_kafka(void **state)
{
	uint64_t bits[WORDS] = {0}, back[WORDS] = {0};
	char out[OFFSETMAP_TEXT_MAX + 1];
	size_t n_bits;

	/* Every other offset: the most runs there can be. */
	for (size_t i = 1; i < OFFSETMAP_SPAN_MAX; i += 2)
		bits[i / 64] |= UINT64_C(1) << i % 64;
	assert_int_equal(offsetmap_encode(bits, OFFSETMAP_SPAN_MAX, out), 4008);
	assert_int_equal(strlen(out), 4008);
	assert_int_equal(offsetmap_decode(out, 4008, back, WORDS, &n_bits), 0);
	assert_int_equal(n_bits, OFFSETMAP_SPAN_MAX);
	assert_memory_equal(bits, back, sizeof(bits));
}

static void bits_past_the_count_are_not_written(void **state)
{
	uint64_t bits[WORDS] = {UINT64_MAX, UINT64_MAX};
	char out[OFFSETMAP_TEXT_MAX + 1];
	size_t n_bits;

	bits[0] = 0x5555555555555554;
	offsetmap_encode(bits, 11, out);
	bits[0] = bits[1] = 0;
	assert_int_equal(offsetmap_decode(out, strlen(out), bits, WORDS, &n_bits), 0);
	assert_int_equal(n_bits, 11);
	assert_int_equal(bits[0], 0x554);
	assert_int_equal(bits[1], 0);
}

/* Sets of all densities and lengths come back the same, and never longer than the bit set. */
static void random_sets_come_back(void **state)
{
	uint64_t seed = 0x9e3779b97f4a7c15;

	for (int round = 0; round < 3000; round++) {
		uint64_t bits[WORDS] = {0}, back[WORDS] = {0}, flip = 1 + random_next(&seed) % (1 << round % 12);
		size_t n_bits = 1 + random_next(&seed) % (round % 3 ? 300 : OFFSETMAP_SPAN_MAX), n_back;
		char out[OFFSETMAP_TEXT_MAX + 1];
		bool is_complete = false;

		for (size_t i = 0; i < n_bits; i++) {
			if (random_next(&seed) % flip == 0)
				is_complete = !is_complete;
			if (is_complete || i == n_bits - 1)
				bits[i / 64] |= UINT64_C(1) << i % 64;
		}
		size_t len = offsetmap_encode(bits, n_bits, out);
		assert_true(len <= (6 + (n_bits + 7) / 8 + 2) / 3 * 4);
		assert_int_equal(strlen(out), len);
		assert_int_equal(offsetmap_decode(out, len, back, WORDS, &n_back), 0);
		assert_int_equal(n_back, n_bits);
		assert_memory_equal(bits, back, sizeof(bits));
	}
}

static void refuses_what_is_not_a_set(void **state)
{
	static const struct {
		const char *text, *why;
	} rows[] = {
	    {"hello", "length not a multiple of 4"},
	    {"bwAAAAQKAA", "padding missing"},
	    {"bwAAAAQKAA=", "half the padding"},
	    {"bwAAAAQKAB==", "unused bits set"},
	    {"bwAA=AQKAA==", "padding in the middle"},
	    {"bwAA\nAQKAA=", "line end"},
	    {"bwAA-AQKAA==", "the URL alphabet"},
	    {"====", "nothing but padding"},
	    {"b===", "one digit"},
	    {"TAAA", "magic L: byte array, read by nobody"},
	    {"YXh4", "magic a: zstd"},
	    {"AQAA", "Kafka Streams"},
	    {"eyJhIjoxfQ==", "JSON"},
	    {"bw==", "bit set without count"},
	    {"bwAA", "half a count"},
	    {"bAA=", "half a v1 count"},
	    {"bwAAABA=", "16 bits promised, none there"},
	    {"bwAAABAB", "16 bits promised, 8 there"},
	    {"b/////8KAA==", "negative count"},
	    {"bP//CgA=", "negative v1 count"},
	    {"bwAAAAQKAAA=", "two bytes too many"},
	    {"bwAAAAQKAQ==", "trailing byte is not zero"},
	    {"bwAAAAQaAA==", "a bit past the count"},
	    {"b3////8KAA==", "a count of 2^31 - 1"},
	    {"ZQAAAAEAAAA=", "three bytes of a run"},
	    {"bgABAA==", "one byte of a v1 run"},
	    {"Zf////8AAAAB", "negative incomplete run"},
	    {"ZQAAAAH/////", "negative complete run"},
	    {"bgAB//8=", "negative v1 run"},
	    {"bgABAAH//w==", "negative v1 run, incomplete at the end"},
	    {"ZQAAAAF/////", "a run of 2^31 - 1"},
	    {"ZX////9/////f////wAAAAE=", "runs whose sum is over 2^32"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint64_t bits[WORDS] = {0}, none[WORDS] = {0};
		size_t n_bits = 7;
		int err = offsetmap_decode(rows[i].text, strlen(rows[i].text), bits, WORDS, &n_bits);

		if (err != -ERR_INVALID)
			fail_msg("%s: %s", rows[i].text, rows[i].why);
		assert_memory_equal(bits, none, sizeof(bits));
		assert_int_equal(n_bits, 7);
	}
}

static void refuses_what_reaches_past_the_words(void **state)
{
	/* Complete at 63 fits one word; at 64 it does not, in both forms; incomplete past the end is nothing. */
	static const struct {
		const char *text;
		int err;
		size_t n_bits;
	} rows[] = {
	    {"ZQAAAD8AAAAB", 0, 64},	       {"ZQAAAEAAAAAB", -ERR_INVALID, 7},
	    {"ZQAAAD8AAAAC", -ERR_INVALID, 7}, {"ZQAAAD8AAAABAAEAAA==", 0, 64},
	    {"bwAAAEAAAAAAAAAAgAA=", 0, 64},   {"bwAAAEEAAAAAAAAAAAEA", -ERR_INVALID, 7},
	    {"bwAAAEEAAAAAAAAAgAAA", 0, 64},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint64_t bits[1] = {0};
		size_t n_bits = 7;

		assert_int_equal(offsetmap_decode(rows[i].text, strlen(rows[i].text), bits, 1, &n_bits), rows[i].err);
		assert_int_equal(n_bits, rows[i].n_bits);
		assert_int_equal(bits[0], rows[i].err ? 0 : UINT64_C(1) << 63);
	}
}

static void refuses_what_is_longer_than_kafka_takes(void **state)
{
	char text[OFFSETMAP_TEXT_MAX + 4];
	uint64_t bits[WORDS] = {0};
	size_t n_bits;

	memset(text, 'A', sizeof(text));
	assert_int_equal(offsetmap_decode(text, sizeof(text), bits, WORDS, &n_bits), -ERR_INVALID);
	/* 'o', then zeros: a count of 0 with too many bytes. */
	memcpy(text, "bwAA", 4);
	assert_int_equal(offsetmap_decode(text, OFFSETMAP_TEXT_MAX, bits, WORDS, &n_bits), -ERR_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(writes_the_shorter_form),
	    cmocka_unit_test(reads_all_four_forms),
	    cmocka_unit_test(empty_set_is_empty_text),
	    cmocka_unit_test(nothing_complete_is_an_empty_set),
	    cmocka_unit_test(worst_case_fits_kafka),
	    cmocka_unit_test(bits_past_the_count_are_not_written),
	    cmocka_unit_test(random_sets_come_back),
	    cmocka_unit_test(refuses_what_is_not_a_set),
	    cmocka_unit_test(refuses_what_reaches_past_the_words),
	    cmocka_unit_test(refuses_what_is_longer_than_kafka_takes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
