/* utf8: what is valid by RFC 3629, and what is made of the rest. */
#include "utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define BAD "\xef\xbf\xbd"

static const struct {
	const char *input;
	size_t valid_len;
	const char *sanitised, *why;
} rows[] = {
    {"", 0, "", "nothing"},
    {"plain text", 10, "plain text", "ASCII"},
    {"\xc2\x80\xdf\xbf", 4, "\xc2\x80\xdf\xbf", "the least and the greatest of two bytes"},
    {"\xe0\xa0\x80\xef\xbf\xbf", 6, "\xe0\xa0\x80\xef\xbf\xbf", "of three"},
    {"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", 8, "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", "of four"},
    {"\xed\x9f\xbf\xee\x80\x80", 6, "\xed\x9f\xbf\xee\x80\x80", "both sides of the surrogates"},
    {"\xc0\xaf", 0, BAD BAD, "an overlong slash"},
    {"\xc1\xbf", 0, BAD BAD, "overlong"},
    {"\xe0\x9f\xbf", 0, BAD BAD BAD, "overlong in three bytes"},
    {"\xf0\x8f\xbf\xbf", 0, BAD BAD BAD BAD, "overlong in four bytes"},
    {"\xed\xa0\x80", 0, BAD BAD BAD, "a surrogate"},
    {"\xf4\x90\x80\x80", 0, BAD BAD BAD BAD, "over U+10FFFF"},
    {"\xf5\x80\x80\x80", 0, BAD BAD BAD BAD, "a byte that never occurs"},
    {"\xff", 0, BAD, "another one"},
    {"a\x80z", 1, "a" BAD "z", "a continuation byte alone"},
    {"a\xc3", 1, "a" BAD, "two bytes cut"},
    {"a\xe2\x82", 1, "a" BAD BAD, "three bytes cut"},
    {"a\xf0\x9f\x98", 1, "a" BAD BAD BAD, "four bytes cut"},
    {"\xc3(", 0, BAD "(", "the second byte is none"},
    {"\xc3\xc3\xa9", 0, BAD "\xc3\xa9", "the second byte begins a character"},
    {"\xe2\x82(", 0, BAD BAD "(", "the third byte is none"},
    {"\xe2\x82\xc0", 0, BAD BAD BAD, "the third byte is too high"},
    {"\xf0\x9f\x98(", 0, BAD BAD BAD "(", "the fourth byte is none"},
    {"12345678\xc3\xa9", 10, "12345678\xc3\xa9", "after a whole word of ASCII"},
    {"1234567\xc3\xa9", 9, "1234567\xc3\xa9", "across a word's end"},
    {"1234567\xff", 7, "1234567" BAD, "a bad last byte of a word"},
    {"\xff"
     "1234567",
     0, BAD "1234567", "a bad first byte of a word"},
    {"12345678\xff", 8, "12345678" BAD, "the byte after a word"},
};

/* In a block of just its size, so that the sanitizer sees a read past its end. */
static uint8_t *exact(const char *text, size_t len)
{
	return memcpy(xmalloc(len ? len : 1), text, len);
}

static void test_rows(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		size_t len = strlen(rows[i].input), wanted = strlen(rows[i].sanitised);
		uint8_t *input = exact(rows[i].input, len);
		uint8_t *output = xmalloc(3 * len + 1);
		if (utf8_valid_len(input, len) != rows[i].valid_len)
			fail_msg("%s: %zu bytes are valid, not %zu", rows[i].why, utf8_valid_len(input, len),
				 rows[i].valid_len);
		size_t n = utf8_sanitise(input, len, output);
		if (n != wanted || memcmp(output, rows[i].sanitised, wanted) != 0)
			fail_msg("%s: sanitised to %.*s", rows[i].why, (int)n, (char *)output);
		assert_int_equal(utf8_valid_len(output, n), n);
		free(input);
		free(output);
	}
}

static void test_nul_is_a_character(void **state)
{
	(void)state;
	assert_int_equal(utf8_valid_len("a\0b", 3), 3);
	assert_int_equal(utf8_valid_len(NULL, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_rows),
	    cmocka_unit_test(test_nul_is_a_character),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
