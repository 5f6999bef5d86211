#include "offsetmap.h"

#include "err.h"

#define MAGIC_BITS_V1 'l'
#define MAGIC_BITS_V2 'o'
#define MAGIC_RUNS_V1 'n'
#define MAGIC_RUNS_V2 'e'

/* Magic, count, bits and the zero byte at the end: what a whole span takes in the longer of the two forms written. */
#define BYTES_MAX (1 + 4 + OFFSETMAP_SPAN_MAX / 8 + 1)
#define READ_BYTES_MAX (OFFSETMAP_TEXT_MAX / 4 * 3)

static_assert((BYTES_MAX + 2) / 3 * 4 == 4008, "a whole span always fits Kafka's 4096 characters");

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static size_t base64_encode(const uint8_t *in, size_t len, char *out)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i += 3) {
		uint32_t three = (uint32_t)in[i] << 16;
		if (i + 1 < len)
			three |= (uint32_t)in[i + 1] << 8;
		if (i + 2 < len)
			three |= in[i + 2];
		out[n++] = base64_digits[three >> 18];
		out[n++] = base64_digits[three >> 12 & 63];
		out[n++] = i + 1 < len ? base64_digits[three >> 6 & 63] : '=';
		out[n++] = i + 2 < len ? base64_digits[three & 63] : '=';
	}
	out[n] = '\0';
	return n;
}

static int base64_digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* RFC 4648 section 4 with its padding, no line ends, unused bits zero. out has room for len / 4 x 3 bytes. */
static int base64_decode(const char *text, size_t len, uint8_t *out, size_t *ret_len)
{
	size_t n = 0, n_pad = 0;

	if (len % 4)
		return -ERR_INVALID;
	while (n_pad < 2 && n_pad < len && text[len - 1 - n_pad] == '=')
		n_pad++;
	for (size_t i = 0; i < len; i += 4) {
		size_t pad = i + 4 == len ? n_pad : 0;
		uint32_t three = 0;
		for (size_t k = 0; k < 4; k++) {
			int digit = k < 4 - pad ? base64_digit(text[i + k]) : 0;
			if (digit < 0)
				return -ERR_INVALID;
			three = three << 6 | (uint32_t)digit;
		}
		if (three & ((1U << 8 * pad) - 1))
			return -ERR_INVALID;
		for (size_t k = 0; k < 3 - pad; k++)
			out[n++] = (uint8_t)(three >> (16 - 8 * k));
	}
	*ret_len = n;
	return 0;
}

static void put_be32(uint8_t *out, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		out[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* Signed, as Java writes them. */
static int64_t get_be(const uint8_t *in, size_t width)
{
	if (width == 2)
		return (int16_t)(uint16_t)(in[0] << 8 | in[1]);
	return (int32_t)((uint32_t)in[0] << 24 | (uint32_t)in[1] << 16 | (uint32_t)in[2] << 8 | in[3]);
}

/* First bit from `from` on whose value is not `value`, or n_bits. */
static size_t run_end(const uint64_t *bits, size_t n_bits, size_t from, bool value)
{
	while (from < n_bits) {
		uint64_t other = (value ? ~bits[from / 64] : bits[from / 64]) >> from % 64;
		if (other)
			return MIN(from + (size_t)__builtin_ctzll(other), n_bits);
		from += 64 - from % 64;
	}
	return n_bits;
}

/* Runs, beginning with a (maybe empty) one of incomplete offsets. 0 when they take more than max bytes. */
static size_t write_runs(const uint64_t *bits, size_t n_bits, uint8_t *out, size_t max)
{
	size_t n = 0;
	bool is_complete = false;

	out[n++] = MAGIC_RUNS_V2;
	for (size_t from = 0; from < n_bits; is_complete = !is_complete) {
		size_t end = run_end(bits, n_bits, from, is_complete);
		if (n + 4 > max)
			return 0;
		put_be32(out + n, (uint32_t)(end - from));
		n += 4;
		from = end;
	}
	return n;
}

static size_t write_bits(const uint64_t *bits, size_t n_bits, uint8_t *out)
{
	size_t n_bytes = (n_bits + 7) / 8;

	out[0] = MAGIC_BITS_V2;
	put_be32(out + 1, (uint32_t)n_bits);
	for (size_t i = 0; i < n_bytes; i++)
		out[5 + i] = (uint8_t)(bits[i / 8] >> i % 8 * 8);
	if (n_bits % 8)
		out[5 + n_bytes - 1] &= (uint8_t)((1U << n_bits % 8) - 1);
	out[5 + n_bytes] = 0;
	return 5 + n_bytes + 1;
}

size_t offsetmap_encode(const uint64_t *bits, size_t n_bits, char out[static OFFSETMAP_TEXT_MAX + 1])
{
	uint8_t bytes[BYTES_MAX];

	assert(n_bits <= OFFSETMAP_SPAN_MAX);
	out[0] = '\0';
	if (n_bits == 0)
		return 0;
	/* One byte under the bit set, or it is not worth having. */
	size_t len = write_runs(bits, n_bits, bytes, 5 + (n_bits + 7) / 8);
	if (len == 0)
		len = write_bits(bits, n_bits, bytes);
	return base64_encode(bytes, len, out);
}

/* A set as it comes in: the caller's words, and how far they reach. */
struct set {
	uint64_t *bits;
	size_t n_bits_max, n_bits;
};

/* The body is a count, its bits and at most one more byte, which is zero, as are the bits past the count: anything else
 * was not written by a Parallel Consumer. */
static int check_bits(const uint8_t *body, size_t len, size_t width, size_t n_bits_max)
{
	if (len < width || get_be(body, width) < 0)
		return -ERR_INVALID;
	size_t n_bits = (size_t)get_be(body, width), n_bytes = (n_bits + 7) / 8, got = len - width;
	if (got < n_bytes || got > n_bytes + 1 || (got > n_bytes && body[width + n_bytes]))
		return -ERR_INVALID;
	if (n_bits % 8 && body[width + n_bytes - 1] >> n_bits % 8)
		return -ERR_INVALID;
	for (size_t i = n_bits_max / 8; i < n_bytes; i++)
		if (body[width + i])
			return -ERR_INVALID;
	return 0;
}

static int read_bits(const uint8_t *body, size_t len, size_t width, struct set *set)
{
	int err = check_bits(body, len, width, set->n_bits_max);

	for (size_t i = 0; !err && i < len - width; i++) {
		unsigned byte = body[width + i];
		if (!byte)
			continue;
		set->bits[i / 8] |= (uint64_t)byte << i % 8 * 8;
		set->n_bits = i * 8 + 32 - (size_t)__builtin_clz(byte);
	}
	return err;
}

/* Negative lengths and complete offsets past the end are refused; no sum can overflow, a body has under 2^12 runs. */
static int check_runs(const uint8_t *body, size_t len, size_t width, size_t n_bits_max)
{
	int64_t end = 0;

	if (len % width)
		return -ERR_INVALID;
	for (size_t i = 0; i < len; i += width) {
		int64_t run = get_be(body + i, width);
		if (run < 0)
			return -ERR_INVALID;
		end += run;
		if (i / width % 2 && run && (size_t)end > n_bits_max)
			return -ERR_INVALID;
	}
	return 0;
}

static int read_runs(const uint8_t *body, size_t len, size_t width, struct set *set)
{
	int err = check_runs(body, len, width, set->n_bits_max);
	size_t from = 0;

	for (size_t i = 0; !err && i < len; i += width) {
		size_t end = from + (size_t)get_be(body + i, width);
		if (i / width % 2 && end > from) {
			for (size_t bit = from; bit < end; bit++)
				set->bits[bit / 64] |= UINT64_C(1) << bit % 64;
			set->n_bits = end;
		}
		from = end;
	}
	return err;
}

int offsetmap_decode(const char *text, size_t len, uint64_t *bits, size_t n_words, size_t *ret_bits)
{
	uint8_t bytes[READ_BYTES_MAX];
	struct set set = {.bits = bits, .n_bits_max = n_words * 64};
	size_t n = 0;
	int err;

	if (len > OFFSETMAP_TEXT_MAX)
		return -ERR_INVALID;
	err = base64_decode(text, len, bytes, &n);
	if (err)
		return err;
	switch (n ? bytes[0] : 0) {
	case MAGIC_BITS_V1:
		err = read_bits(bytes + 1, n - 1, 2, &set);
		break;
	case MAGIC_BITS_V2:
		err = read_bits(bytes + 1, n - 1, 4, &set);
		break;
	case MAGIC_RUNS_V1:
		err = read_runs(bytes + 1, n - 1, 2, &set);
		break;
	case MAGIC_RUNS_V2:
		err = read_runs(bytes + 1, n - 1, 4, &set);
		break;
	default:
		err = n ? -ERR_INVALID : 0;
	}
	if (!err)
		*ret_bits = set.n_bits;
	return err;
}
