#include "heap.h"

static void heap_place(struct heap *heap, size_t i, struct heap_node *node)
{
	heap->nodes[i - 1] = node;
	node->place = i;
}

static void heap_up(struct heap *heap, size_t i, struct heap_node *node)
{
	while (i > 1 && heap->nodes[i / 2 - 1]->at_us > node->at_us) {
		heap_place(heap, i, heap->nodes[i / 2 - 1]);
		i /= 2;
	}
	heap_place(heap, i, node);
}

static void heap_down(struct heap *heap, size_t i, struct heap_node *node)
{
	for (;;) {
		size_t child = i * 2;
		if (child > heap->len)
			break;
		if (child < heap->len && heap->nodes[child]->at_us < heap->nodes[child - 1]->at_us)
			child++;
		if (heap->nodes[child - 1]->at_us >= node->at_us)
			break;
		heap_place(heap, i, heap->nodes[child - 1]);
		i = child;
	}
	heap_place(heap, i, node);
}

void heap_init(struct heap *heap)
{
	*heap = (struct heap){0};
}

void heap_done(struct heap *heap)
{
	free(heap->nodes);
	*heap = (struct heap){0};
}

void heap_set(struct heap *heap, struct heap_node *node, int64_t at_us)
{
	int64_t before = node->at_us;

	node->at_us = at_us;
	if (!node->place) {
		if (heap->len == heap->cap) {
			heap->cap = heap->cap ? heap->cap * 2 : 64;
			heap->nodes = xrealloc(heap->nodes, heap->cap * sizeof(*heap->nodes));
		}
		heap_up(heap, ++heap->len, node);
	} else if (at_us < before) {
		heap_up(heap, node->place, node);
	} else {
		heap_down(heap, node->place, node);
	}
}

void heap_remove(struct heap *heap, struct heap_node *node)
{
	size_t i = node->place;

	if (!i)
		return;
	node->place = 0;
	struct heap_node *last = heap->nodes[--heap->len];
	if (last == node)
		return;
	if (i > 1 && heap->nodes[i / 2 - 1]->at_us > last->at_us)
		heap_up(heap, i, last);
	else
		heap_down(heap, i, last);
}

struct heap_node *heap_first(const struct heap *heap)
{
	return heap->len ? heap->nodes[0] : NULL;
}
