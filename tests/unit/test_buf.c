/* buf: all or nothing up to the maximum, and not a byte past it. */
#include "buf.h"
#include "err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

static void assert_holds(const struct buf *buf, const char *text)
{
	assert_int_equal(buf->len, strlen(text));
	if (buf->len)
		assert_memory_equal(buf->data, text, buf->len);
}

static void adds_up_to_the_maximum(void **state)
{
	static const struct {
		size_t max;
		const char *before, *add;
		int expected;
		const char *why;
	} rows[] = {
	    {10, "", "abc", 0, "the first bytes"},
	    {10, "abc", "defghij", 0, "full to the byte"},
	    {10, "abc", "defghijk", -ERR_TOO_LARGE, "one over; what was in stays"},
	    {10, "abcdefghij", "", 0, "nothing fits in a full one"},
	    {10, "abcdefghij", "k", -ERR_TOO_LARGE, "a byte does not"},
	    {0, "", "", 0, "nothing fits in none"},
	    {0, "", "a", -ERR_TOO_LARGE, "no room at all"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		for (int printf_too = 0; printf_too < 2; printf_too++) {
			struct buf buf;
			char expected[32];
			buf_init(&buf, rows[i].max);
			assert_int_equal(buf_add_str(&buf, rows[i].before), 0);
			int err = printf_too ? buf_printf(&buf, "%s", rows[i].add) : buf_add_str(&buf, rows[i].add);
			if (err != rows[i].expected)
				fail_msg("%s: %d", rows[i].why, err);
			snprintf(expected, sizeof(expected), "%s%s", rows[i].before, err ? "" : rows[i].add);
			assert_holds(&buf, expected);
			buf_done(&buf);
		}
	}
}

static void grows_over_many_adds(void **state)
{
	struct buf buf;
	char chunk[7];

	buf_init(&buf, 100000);
	for (size_t i = 0; i < 100000 / sizeof(chunk); i++) {
		memset(chunk, (int)('a' + i % 26), sizeof(chunk));
		assert_int_equal(buf_add(&buf, chunk, sizeof(chunk)), 0);
		assert_true(buf.cap <= buf.max);
	}
	for (size_t i = 0; i < buf.len; i++)
		assert_int_equal(buf.data[i], 'a' + i / sizeof(chunk) % 26);
	buf_done(&buf);
}

static void reserve_gives_room_without_taking_it(void **state)
{
	struct buf buf;

	buf_init(&buf, 1000);
	assert_non_null(buf_reserve(&buf, 0)); /* NULL means over the maximum, never "nothing" */
	uint8_t *to = buf_reserve(&buf, 1000);
	assert_non_null(to);
	memset(to, 'x', 1000);
	assert_int_equal(buf.len, 0);
	buf.len += 600;
	assert_non_null(buf_reserve(&buf, 400));
	assert_null(buf_reserve(&buf, 401));
	assert_null(buf_reserve(&buf, SIZE_MAX)); /* len + SIZE_MAX must not wrap */
	assert_int_equal(buf.len, 600);
	buf_done(&buf);
}

static void any_bytes_go_in(void **state)
{
	struct buf buf;

	buf_init(&buf, 100);
	assert_int_equal(buf_add(&buf, "a\0b", 3), 0);
	assert_int_equal(buf_add(&buf, NULL, 0), 0);
	assert_int_equal(buf_printf(&buf, "%d%%", -5), 0);
	assert_int_equal(buf.len, 6);
	assert_memory_equal(buf.data, "a\0b-5%", 6);
	buf_done(&buf);
}

static void can_be_used_again(void **state)
{
	struct buf buf;

	buf_init(&buf, 10);
	assert_int_equal(buf_add_str(&buf, "0123456789"), 0);
	buf_clear(&buf);
	assert_int_equal(buf_add_str(&buf, "abc"), 0);
	assert_holds(&buf, "abc");
	buf_done(&buf);
	assert_holds(&buf, "");
	assert_int_equal(buf_add_str(&buf, "0123456789"), 0);
	assert_int_equal(buf_add_str(&buf, "a"), -ERR_TOO_LARGE); /* the maximum outlives buf_done */
	buf_done(&buf);
	buf_done(&buf);
}

static void take_hands_the_memory_over(void **state)
{
	static const size_t sizes[] = {1, 255, 256, 257, 5000, 100001};
	struct buf buf;
	size_t len = 99;

	buf_init(&buf, 200000);
	assert_null(buf_take(&buf, &len));
	assert_int_equal(len, 0);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		uint8_t *to = buf_reserve(&buf, sizes[i] + 20000); /* more than is used, as a reader does */
		memset(to, (int)i, sizes[i]);
		buf.len = sizes[i];
		uint8_t *data = buf_take(&buf, &len);
		assert_int_equal(len, sizes[i]);
		assert_int_equal(data[0], i);
		assert_int_equal(data[len - 1], i);
		assert_int_equal(buf.len, 0);
		assert_null(buf.data);
		free(data);
	}
	/* Room was made, nothing came: the memory stays and is freed by buf_done. */
	assert_non_null(buf_reserve(&buf, 10));
	assert_null(buf_take(&buf, &len));
	buf_done(&buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(adds_up_to_the_maximum),
	    cmocka_unit_test(grows_over_many_adds),
	    cmocka_unit_test(reserve_gives_room_without_taking_it),
	    cmocka_unit_test(any_bytes_go_in),
	    cmocka_unit_test(can_be_used_again),
	    cmocka_unit_test(take_hands_the_memory_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
