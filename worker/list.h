/* list - intrusive doubly linked list that knows its length.
 *
 * The list an object is on IS its state, and counting a state is the length of its list: no counter can drift.
 * A node is on at most one list; node.list says which. Layer 0, header only. */
#ifndef GATHERD_LIST_H
#define GATHERD_LIST_H

#include "base.h"

struct list_node {
	struct list_node *prev, *next;
	struct list *list;
};

struct list {
	struct list_node head;
	size_t len;
};

static inline void list_init(struct list *list)
{
	list->head.prev = list->head.next = &list->head;
	list->head.list = NULL;
	list->len = 0;
}

static inline bool list_empty(const struct list *list)
{
	return list->len == 0;
}

static inline void list_insert_before(struct list *list, struct list_node *at, struct list_node *node)
{
	assert(!node->list);
	node->prev = at->prev;
	node->next = at;
	at->prev->next = node;
	at->prev = node;
	node->list = list;
	list->len++;
}

static inline void list_push(struct list *list, struct list_node *node)
{
	list_insert_before(list, &list->head, node);
}

static inline void list_push_front(struct list *list, struct list_node *node)
{
	list_insert_before(list, list->head.next, node);
}

/* Safe on a node that is on no list. */
static inline void list_remove(struct list_node *node)
{
	if (!node->list)
		return;
	node->prev->next = node->next;
	node->next->prev = node->prev;
	node->list->len--;
	node->prev = node->next = NULL;
	node->list = NULL;
}

static inline struct list_node *list_first(const struct list *list)
{
	return list->len ? list->head.next : NULL;
}

static inline struct list_node *list_last(const struct list *list)
{
	return list->len ? list->head.prev : NULL;
}

static inline struct list_node *list_next(const struct list *list, const struct list_node *node)
{
	return node->next == &list->head ? NULL : node->next;
}

static inline struct list_node *list_pop(struct list *list)
{
	struct list_node *node = list_first(list);

	if (node)
		list_remove(node);
	return node;
}

/* All of `from`, in its order, to the end of `to`: whoever works through them may put new ones on `from`. */
static inline void list_take_all(struct list *from, struct list *to)
{
	struct list_node *node;

	while ((node = list_pop(from)))
		list_push(to, node);
}

/* NULL stays NULL. `node` is looked at once: it may be a list_pop. */
#define LIST_ENTRY(node, type, member)                                                                                 \
	__extension__({                                                                                                \
		struct list_node *entry_ = (node);                                                                     \
		entry_ ? CONTAINER_OF(entry_, type, member) : NULL;                                                    \
	})

/* The body may remove `var`, but no other node. */
#define LIST_EACH(list, var, type, member)                                                                             \
	for (struct list_node *var##_n = (list)->head.next, *var##_next = var##_n->next;                               \
	     var##_n != &(list)->head; var##_n = var##_next, var##_next = var##_n->next)                               \
		for (type *var = CONTAINER_OF(var##_n, type, member), *var##_once = var; var##_once; var##_once = NULL)

#endif
