#include "window.h"

#include "err.h"

/* Wider than any window: a set that another consumer wrote (Parallel Consumer has no cap on a run) is read whole, then
 * cut. */
#define RESTORE_BITS ((size_t)1 << 20)

/* One bit per offset in a ring of whole words, at offset modulo its size: moving the base clears bits, and shifts none.
 * In [base, next) a set bit is complete and a clear one is open; from next on a set bit came from a restored set. */
struct window {
	int64_t base; /* the commit point; always base <= next <= skip_to */
	int64_t next;
	int64_t skip_to; /* offsets in [next, skip_to) are complete too, but past the span: they have no bits yet */
	int32_t span_max;
	int32_t n_open;
	int32_t n_set;
	bool is_dirty;
	size_t word_mask; /* words in the ring - 1 */
	uint64_t bits[];
};

struct window *window_new(int64_t base, int32_t span_max)
{
	size_t n_words = 1;

	assert(base >= 0 && span_max >= 1 && span_max <= OFFSETMAP_SPAN_MAX);
	while (n_words * 64 < (size_t)span_max)
		n_words *= 2;
	struct window *win = xcalloc(1, sizeof(*win) + n_words * sizeof(win->bits[0]));
	win->base = win->next = win->skip_to = base;
	win->span_max = span_max;
	win->word_mask = n_words - 1;
	return win;
}

void window_free(struct window *win)
{
	free(win);
}

static uint64_t *ring_word(struct window *win, int64_t offset)
{
	return &win->bits[((uint64_t)offset >> 6) & win->word_mask];
}

static uint64_t ring_bit(int64_t offset)
{
	return UINT64_C(1) << ((uint64_t)offset & 63);
}

static bool ring_has(const struct window *win, int64_t offset)
{
	return win->bits[((uint64_t)offset >> 6) & win->word_mask] & ring_bit(offset);
}

/* Sets or clears [from, to), a word at a time. */
static void ring_fill(struct window *win, int64_t from, int64_t to, bool value)
{
	while (from < to) {
		unsigned low = (unsigned)((uint64_t)from & 63);
		int64_t n = MIN(to - from, 64 - (int64_t)low);
		uint64_t mask = (n == 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1) << low;
		uint64_t *word = ring_word(win, from);
		int set_before = __builtin_popcountll(*word);

		*word = value ? *word | mask : *word & ~mask;
		win->n_set += __builtin_popcountll(*word) - set_before;
		from += n;
	}
}

/* Forgets all bits below offset and makes it the base; nothing may be open below it. */
static void window_move_base(struct window *win, int64_t offset)
{
	if (offset == win->base)
		return;
	if (win->n_set > 0)
		ring_fill(win, win->base, win->base + MIN(offset - win->base, (int64_t)win->span_max), false);
	win->base = offset;
	win->is_dirty = true;
}

static void window_jump(struct window *win, int64_t offset)
{
	assert(win->n_open == 0);
	window_move_base(win, offset);
	win->next = offset;
	win->skip_to = MAX(win->skip_to, offset);
}

/* Lowest offset in [base, next) that is not complete, or next. */
static int64_t window_lowest_open(struct window *win)
{
	int64_t offset = win->base;

	while (offset < win->next) {
		unsigned low = (unsigned)((uint64_t)offset & 63);
		uint64_t open = ~*ring_word(win, offset) >> low;
		if (open) {
			offset += __builtin_ctzll(open);
			break;
		}
		offset += 64 - (int64_t)low;
	}
	return MIN(offset, win->next);
}

/* Makes [next, offset) complete, as far as the span reaches: those offsets do not exist. */
static void window_close_gap(struct window *win, int64_t offset)
{
	int64_t to = win->base + MIN(offset - win->base, (int64_t)win->span_max);

	win->skip_to = MAX(win->skip_to, offset);
	if (to <= win->next)
		return;
	ring_fill(win, win->next, to, true);
	win->next = to;
	win->is_dirty = true;
}

/* Lifts the base over what is complete; a gap that reached past the span may then have room. */
static void window_advance(struct window *win)
{
	if (win->n_open == 0) {
		window_jump(win, win->skip_to);
		return;
	}
	window_move_base(win, window_lowest_open(win));
	window_close_gap(win, win->skip_to);
}

int window_restore(struct window *win, const char *metadata, size_t len)
{
	size_t n_words = RESTORE_BITS / 64, n_bits;
	uint64_t *set = xcalloc(n_words, sizeof(*set));
	int err = offsetmap_decode(metadata, len, set, n_words, &n_bits);

	assert(win->next == win->base && win->n_set == 0);
	n_bits = err ? 0 : MIN(n_bits, (size_t)win->span_max);
	for (size_t i = 0; i < n_bits; i++)
		if (set[i / 64] & ring_bit((int64_t)i))
			ring_fill(win, win->base + (int64_t)i, win->base + (int64_t)i + 1, true);
	free(set);
	return err;
}

void window_restart(struct window *win, int64_t offset)
{
	assert(win->n_open == 0 && offset >= 0);
	memset(win->bits, 0, (win->word_mask + 1) * sizeof(win->bits[0]));
	win->n_set = 0;
	win->base = win->next = win->skip_to = offset;
	win->is_dirty = true;
}

int window_accept(struct window *win, int64_t offset)
{
	if (offset < window_next(win))
		return -ERR_NOT_FOUND;
	if (win->n_open == 0)
		window_jump(win, offset);
	if (offset - win->base >= win->span_max)
		return -ERR_FULL;
	window_close_gap(win, offset);
	win->next = win->skip_to = offset + 1;
	if (ring_has(win, offset)) {
		window_advance(win);
		return -ERR_NOT_FOUND;
	}
	win->n_open++;
	return 0;
}

void window_skip_to(struct window *win, int64_t offset)
{
	if (offset <= window_next(win))
		return;
	if (win->n_open == 0)
		window_jump(win, offset);
	else
		window_close_gap(win, offset);
}

void window_finish(struct window *win, int64_t offset)
{
	assert(offset >= win->base && offset < win->next && !ring_has(win, offset));
	*ring_word(win, offset) |= ring_bit(offset);
	win->n_set++;
	win->n_open--;
	win->is_dirty = true;
	if (offset == win->base)
		window_advance(win);
}

int64_t window_commit_point(const struct window *win)
{
	return win->base;
}

int64_t window_next(const struct window *win)
{
	return win->skip_to;
}

int32_t window_open(const struct window *win)
{
	return win->n_open;
}

int32_t window_completed_above(const struct window *win)
{
	return win->n_set + (int32_t)MIN(win->skip_to - win->next, INT32_MAX - win->n_set);
}

int32_t window_span(const struct window *win)
{
	return (int32_t)MIN(win->skip_to - win->base, INT32_MAX);
}

bool window_is_full(const struct window *win)
{
	return window_span(win) >= win->span_max;
}

bool window_is_dirty(const struct window *win)
{
	return win->is_dirty;
}

/* Copies the ring into a bitmap that starts at the base. Returns the highest complete bit + 1. Nothing outside the span
 * is ever set, so a last word that wraps round to the base's own brings in only zeroes. */
static size_t window_linear(const struct window *win, uint64_t out[static OFFSETMAP_SPAN_MAX / 64 + 1])
{
	size_t first = (size_t)((uint64_t)win->base >> 6), n_words = ((size_t)win->span_max + 63) / 64, n_bits = 0;
	unsigned shift = (unsigned)((uint64_t)win->base & 63);

	for (size_t i = 0; i < n_words; i++) {
		uint64_t low = win->bits[(first + i) & win->word_mask],
			 high = win->bits[(first + i + 1) & win->word_mask];
		out[i] = shift ? low >> shift | high << (64 - shift) : low;
	}
	for (size_t i = n_words; i-- > 0 && n_bits == 0;)
		if (out[i])
			n_bits = i * 64 + 64 - (size_t)__builtin_clzll(out[i]);
	return n_bits;
}

int64_t window_snapshot(struct window *win, char metadata[static OFFSETMAP_TEXT_MAX + 1])
{
	uint64_t bits[OFFSETMAP_SPAN_MAX / 64 + 1];

	metadata[0] = '\0';
	if (win->n_set > 0)
		offsetmap_encode(bits, window_linear(win, bits), metadata);
	win->is_dirty = false;
	return win->base;
}

void window_mark_dirty(struct window *win)
{
	win->is_dirty = true;
}
