/* base and list: globs of host names, the helpers that abort, and a list that knows its length. */
#include "base.h"
#include "list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static void globs_match_whole_names(void **state)
{
	static const struct {
		const char *glob, *name;
		bool matches;
		const char *why;
	} rows[] = {
	    {"example.com", "example.com", true, "itself"},
	    {"example.com", "EXAMPLE.Com", true, "host names have no case (RFC 4343)"},
	    {"EXAMPLE.com", "example.com", true, "on either side"},
	    {"example.com", "example.co", false, "the name ends early"},
	    {"example.co", "example.com", false, "the glob ends early"},
	    {"*.example.com", "www.example.com", true, "a run"},
	    {"*.example.com", "a.b.example.com", true, "a run goes over dots"},
	    {"*.example.com", "example.com", false, "the dot is a must"},
	    {"*.example.com", ".example.com", true, "a run may be empty"},
	    {"*example.com", "badexample.com", true, "no border is implied"},
	    {"?.example.com", "a.example.com", true, "one character"},
	    {"?.example.com", ".example.com", false, "one, not none"},
	    {"?.example.com", "ab.example.com", false, "one, not two"},
	    {"*", "anything", true, "all"},
	    {"*", "", true, "all, even nothing"},
	    {"", "", true, "nothing is nothing"},
	    {"", "a", false, "nothing is not something"},
	    {"?", "", false, "one character of none"},
	    {"a*b*c", "aXbXbXc", true, "the last star gives way more than once"},
	    {"a*b*c", "aXbXbX", false, "the tail has to match"},
	    {"*.*", "no-dot", false, "a dot somewhere"},
	    {"**a**", "bab", true, "stars in a row are one"},
	    {"*aab", "aaaaab", true, "a half match starts again one further on"},
	    {"xn--*", "xn--bcher-kva.example", true, "punycode is only letters here"},
	    {"[::1]", "[::1]", true, "brackets are no class"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (glob_match(rows[i].glob, rows[i].name) != rows[i].matches)
			fail_msg("glob_match(\"%s\", \"%s\"): %s", rows[i].glob, rows[i].name, rows[i].why);
}

static void globs_of_many_stars_end_soon(void **state)
{
	/* A matcher that recursed at each star would take the age of the universe. */
	assert_false(glob_match("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b",
				"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
}

static void allocations_are_as_asked(void **state)
{
	static const char zeros[64];
	void *nothing[] = {xmalloc(0), xcalloc(0, 8), xcalloc(8, 0), xrealloc(NULL, 0)};
	char *zeroed = xcalloc(8, 8), *grown = xrealloc(xstrdup("ab"), 100);

	for (size_t i = 0; i < ARRAY_LEN(nothing); i++) {
		assert_non_null(nothing[i]); /* never NULL, also where malloc(0) gives it */
		free(nothing[i]);
	}
	assert_memory_equal(zeroed, zeros, sizeof(zeros));
	assert_string_equal(grown, "ab");
	free(zeroed);
	free(grown);
}

static void strings_are_copied(void **state)
{
	char *whole = xstrdup("abc"), *part = xstrndup("abc", 2), *more = xstrndup("abc", 9);
	char *printed = xasprintf("%s-%03d", "x", 7);

	assert_string_equal(whole, "abc");
	assert_string_equal(part, "ab");
	assert_string_equal(more, "abc");
	assert_string_equal(printed, "x-007");
	free(whole);
	free(part);
	free(more);
	free(printed);
}

static void span_of_null_is_a_null(void **state)
{
	struct span none = span_str(NULL), empty = span_str(""), some = span_str("ab");

	assert_null(none.data);
	assert_int_equal(none.len, 0);
	assert_non_null(empty.data); /* an empty Kafka value is not a null one */
	assert_int_equal(empty.len, 0);
	assert_int_equal(some.len, 2);
}

struct thing {
	char name;
	struct list_node node;
};

/* The names in order, forwards; checks that backwards is the same and that the length is true. */
static const char *names_of(struct list *list)
{
	static char text[32];
	size_t n = 0, back = 0;

	for (struct list_node *node = list_first(list); node; node = list_next(list, node)) {
		assert_ptr_equal(node->list, list);
		text[n++] = LIST_ENTRY(node, struct thing, node)->name;
	}
	text[n] = '\0';
	for (struct list_node *node = list->head.prev; node != &list->head; node = node->prev)
		assert_int_equal(LIST_ENTRY(node, struct thing, node)->name, text[n - ++back]);
	assert_int_equal(back, n);
	assert_int_equal(list->len, n);
	assert_int_equal(list_empty(list), n == 0);
	return text;
}

static void list_keeps_order_and_length(void **state)
{
	struct thing a = {.name = 'a'}, b = {.name = 'b'}, c = {.name = 'c'}, d = {.name = 'd'};
	struct list list, other;

	list_init(&list);
	list_init(&other);
	assert_string_equal(names_of(&list), "");
	assert_null(list_first(&list));
	assert_null(list_last(&list));
	assert_null(list_pop(&list));
	list_push(&list, &b.node);
	list_push(&list, &c.node);
	list_push_front(&list, &a.node);
	list_insert_before(&list, &c.node, &d.node);
	assert_string_equal(names_of(&list), "abdc");
	assert_ptr_equal(list_last(&list), &c.node);
	list_remove(&d.node);
	list_remove(&d.node); /* on no list: nothing happens */
	assert_null(d.node.list);
	assert_string_equal(names_of(&list), "abc");
	list_remove(&b.node);
	list_push(&other, &b.node);
	assert_string_equal(names_of(&list), "ac");
	assert_string_equal(names_of(&other), "b");
	list_take_all(&list, &other);
	assert_string_equal(names_of(&list), "");
	assert_string_equal(names_of(&other), "bac");
	list_take_all(&other, &list);
	assert_ptr_equal(list_pop(&list), &b.node);
	assert_ptr_equal(list_pop(&list), &a.node);
	assert_ptr_equal(list_pop(&list), &c.node);
	assert_string_equal(names_of(&list), "");
}

static void list_each_lets_the_body_remove(void **state)
{
	struct thing things[5] = {{'a', {0}}, {'b', {0}}, {'c', {0}}, {'d', {0}}, {'e', {0}}};
	struct list list;
	char seen[8] = "";
	size_t n = 0;

	list_init(&list);
	for (size_t i = 0; i < ARRAY_LEN(things); i++)
		list_push(&list, &things[i].node);
	LIST_EACH (&list, thing, struct thing, node) {
		if (thing->name == 'b')
			continue;
		seen[n++] = thing->name;
		if (thing->name != 'c')
			list_remove(&thing->node);
	}
	assert_string_equal(seen, "acde");
	assert_string_equal(names_of(&list), "bc");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(globs_match_whole_names),	      cmocka_unit_test(globs_of_many_stars_end_soon),
	    cmocka_unit_test(allocations_are_as_asked),	      cmocka_unit_test(strings_are_copied),
	    cmocka_unit_test(span_of_null_is_a_null),	      cmocka_unit_test(list_keeps_order_and_length),
	    cmocka_unit_test(list_each_lets_the_body_remove),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
