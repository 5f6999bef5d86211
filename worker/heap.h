/* heap - binary min-heap of timers; a node knows its place, so removal is O(log n) without a search.
 *
 * Nodes are embedded in their owners and never moved or freed by the heap. Layer 0. */
#ifndef GATHERD_HEAP_H
#define GATHERD_HEAP_H

#include "base.h"

struct heap_node {
	int64_t at_us; /* when, on the monotonic clock */
	size_t place;  /* 1-based index in the heap; 0 = not in it */
};

struct heap {
	struct heap_node **nodes;
	size_t len, cap;
};

void heap_init(struct heap *heap);
/* Frees the array only. */
void heap_done(struct heap *heap);
/* Put in or move to at_us. */
void heap_set(struct heap *heap, struct heap_node *node, int64_t at_us);
/* Safe on a node that is not in the heap. */
void heap_remove(struct heap *heap, struct heap_node *node);
/* The earliest, or NULL. It stays in. */
struct heap_node *heap_first(const struct heap *heap);

#endif
