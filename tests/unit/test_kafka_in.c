/* Jobs in: records, a group that shares and resumes, commits, a plan, what is missing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "kafka_internal.h" /* to see that an unassign is put off */
#include "kafka_fixture.h"
#include "offsetmap.h"

#define PARTS_MAX 8
#define RECORDS_MAX 64

/* ---- a member of the group ---- */

struct seen {
	int64_t offset, timestamp_ms;
	char topic[32], key[32], value[32], headers[128]; /* "name=value;", "-" for a null */
	int32_t partition;
};

struct member {
	struct world *world;
	struct options *opts;
	struct kafka_in *in;
	struct kafka_part *parts[PARTS_MAX];
	int64_t begin[PARTS_MAX];
	char metadata[PARTS_MAX][64];
	size_t n_parts, n_begun, n_assigned, n_revoked, n_committed, n_fatal;
	bool is_lost, holds_revoke, is_closed;
	int commit_err;
	char detail[256];
	struct seen seen[RECORDS_MAX];
	size_t n_seen;
	int64_t done, total; /* of the plan */
	size_t n_plan_answers;
};

static void on_assign(void *ctx, struct kafka_part *part)
{
	struct member *member = ctx;

	assert_true(member->n_parts < PARTS_MAX);
	assert_null(kafka_part_ctx(part));
	kafka_part_set_ctx(part, member);
	member->begin[member->n_parts] = -2;
	member->parts[member->n_parts++] = part;
	member->n_assigned++;
}

static void on_begin(void *ctx, struct kafka_part *part, int64_t offset, const char *metadata, size_t len)
{
	struct member *member = ctx;

	assert_ptr_equal(kafka_part_ctx(part), member);
	for (size_t i = 0; i < member->n_parts; i++) {
		if (member->parts[i] != part)
			continue;
		assert_int_equal(member->begin[i], -2);
		member->begin[i] = offset;
		snprintf(member->metadata[i], sizeof(member->metadata[i]), "%.*s", (int)len, metadata);
		member->n_begun++;
	}
}

/* Eager: always all of them. */
static void on_revoke(void *ctx, struct kafka_part *const *parts, size_t n, bool is_lost)
{
	struct member *member = ctx;

	assert_int_equal(n, member->n_parts);
	member->n_revoked += n;
	member->is_lost = is_lost;
	if (member->holds_revoke)
		return;
	member->n_parts = member->n_begun = 0;
	kafka_in_revoked(member->in);
}

static void on_committed(void *ctx, int err, const char *detail)
{
	struct member *member = ctx;

	member->n_committed++;
	member->commit_err = err;
	snprintf(member->detail, sizeof(member->detail), "%s", detail);
}

static void text_of(struct span span, char *out, size_t size)
{
	snprintf(out, size, "%.*s", span.data ? (int)span.len : 1, span.data ? (const char *)span.data : "-");
}

static void note(struct member *member, const struct record *rec)
{
	struct seen *seen = &member->seen[member->n_seen++];
	size_t used = 0;

	assert_true(member->n_seen <= RECORDS_MAX);
	*seen = (struct seen){.offset = rec->offset, .partition = rec->partition, .timestamp_ms = rec->timestamp_ms};
	snprintf(seen->topic, sizeof(seen->topic), "%s", rec->topic);
	text_of(rec->key, seen->key, sizeof(seen->key));
	text_of(rec->value, seen->value, sizeof(seen->value));
	for (size_t i = 0; i < rec->n_headers; i++) {
		char value[32];
		text_of(rec->headers[i].value, value, sizeof(value));
		used += (size_t)snprintf(seen->headers + used, sizeof(seen->headers) - used, "%s=%s;",
					 rec->headers[i].name, value);
	}
}

static void on_wake(void *ctx)
{
	struct member *member = ctx;
	struct record recs[8];

	for (size_t i = 0; i < member->n_parts; i++) {
		size_t n;
		while ((n = kafka_in_read(member->parts[i], recs, ARRAY_LEN(recs))))
			for (size_t j = 0; j < n; j++)
				note(member, &recs[j]);
	}
}

static void on_plan(void *ctx, int64_t done, int64_t total)
{
	struct member *member = ctx;

	member->done = done;
	member->total = total;
	member->n_plan_answers++;
}

static void on_fatal(void *ctx, int err, const char *detail)
{
	struct member *member = ctx;

	member->n_fatal++;
}

static void on_closed(void *ctx)
{
	struct member *member = ctx;

	member->is_closed = true;
}

static struct member *member_new(struct world *world, const char *bootstrap, const struct kafka_range *plan,
				 size_t n_plan, const char *const *extra)
{
	static const struct kafka_in_events events = {.on_assign = on_assign,
							.on_begin = on_begin,
							.on_revoke = on_revoke,
							.on_committed = on_committed,
							.on_wake = on_wake,
							.on_plan = on_plan,
							.on_fatal = on_fatal};
	struct member *member = xcalloc(1, sizeof(*member));
	char *error = NULL;

	member->world = world;
	member->opts = make_options(bootstrap, extra);
	int err = kafka_in_new(world->loop, world->helper, &world->metrics, world->log, member->opts, plan, n_plan,
			       &events, member, &member->in, &error);
	if (err)
		fprintf(stderr, "%s\n", error);
	assert_int_equal(err, 0);
	return member;
}

static void member_free(struct member *member)
{
	kafka_in_free(member->in);
	options_free(member->opts);
	assert_int_equal(member->n_fatal, 0);
	free(member);
}

/* Takes and nulls. */
static void leave(struct member **ret_member)
{
	struct member *member = *ret_member;

	*ret_member = NULL;
	kafka_in_close(member->in, on_closed, member);
	assert_false(member->is_closed); /* later, from the loop */
	WAIT_FOR(member->world, member->is_closed);
	member_free(member);
}

static size_t seen_of(const struct member *member, int32_t partition)
{
	size_t n = 0;

	for (size_t i = 0; i < member->n_seen; i++)
		n += member->seen[i].partition == partition;
	return n;
}

static int part_index(const struct member *member, int32_t partition)
{
	for (size_t i = 0; i < member->n_parts; i++)
		if (kafka_part_partition(member->parts[i]) == partition)
			return (int)i;
	return -1;
}

static void commit(struct member *member, int32_t partition, int64_t offset, const char *metadata)
{
	int i = part_index(member, partition);
	size_t before = member->n_committed;

	assert_true(i >= 0);
	struct kafka_commit row = {member->parts[i], offset, metadata};
	assert_int_equal(kafka_in_commit(member->in, &row, 1), 0);
	assert_int_equal(member->n_committed, before); /* later, from the loop */
	WAIT_FOR(member->world, member->n_committed > before);
	assert_string_equal(member->detail, "");
	assert_int_equal(member->commit_err, 0);
}

/* ---- plain producer ---- */

static void put(struct world *world, const char *topic, int32_t partition, const char *key, const char *value,
		rd_kafka_headers_t *headers)
{
	rd_kafka_topic_t *handle = rd_kafka_topic_new(world->rk, topic, NULL);
	rd_kafka_resp_err_t err =
	    rd_kafka_producev(world->rk, RD_KAFKA_V_RKT(handle), RD_KAFKA_V_PARTITION(partition),
			      RD_KAFKA_V_KEY((void *)(uintptr_t)key, key ? strlen(key) : 0),
			      RD_KAFKA_V_VALUE((void *)(uintptr_t)value, value ? strlen(value) : 0),
			      RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_TIMESTAMP(1700000000123),
			      RD_KAFKA_V_HEADERS(headers ? headers : rd_kafka_headers_new(0)), RD_KAFKA_V_END);

	assert_int_equal(err, 0);
	assert_int_equal(rd_kafka_flush(world->rk, 10000), 0);
	rd_kafka_topic_destroy(handle);
}

static void put_many(struct world *world, const char *topic, int32_t partition, int n)
{
	char value[16];

	for (int i = 0; i < n; i++) {
		snprintf(value, sizeof(value), "%d.%d", partition, i);
		put(world, topic, partition, "k", value, NULL);
	}
}

/* ---- the cast: all join at once, because the mock keeps each first join for 3 s ---- */

struct cast {
	struct world *world;
	struct member *reader, *planned, *first, *both, *later, *lost;
};

static int raise_curtain(void **state)
{
	static const struct kafka_range plan[] = {{"planned", 0, 1, 3}, {"planned", 1, 0, 5}};
	struct cast *cast = xcalloc(1, sizeof(*cast));
	struct world *world = cast->world = world_new();
	const char *broker = world->bootstrap;

	for (int32_t partition = 0; partition < 2; partition++) {
		put_many(world, "planned", partition, 5);
		put_many(world, "shared", partition, 5);
	}
	/* Unknown by decree: the mock makes what it is asked for. */
	rd_kafka_mock_topic_set_error(world->cluster, "later", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
	cast->reader = member_new(world, broker, NULL, 0, EXTRA("kafka.group.id=reader", "jobs.topic=written"));
	cast->planned = member_new(world, broker, plan, 2, EXTRA("kafka.group.id=planned"));
	cast->first = member_new(world, broker, NULL, 0, EXTRA("kafka.group.id=shared", "jobs.topic=shared"));
	cast->both = member_new(world, broker, NULL, 0, EXTRA("kafka.group.id=both", "jobs.topic=planned later"));
	cast->later = member_new(world, broker, NULL, 0, EXTRA("kafka.group.id=later", "jobs.topic=later"));
	/* Nothing listens on port 1. */
	cast->lost = member_new(world, "127.0.0.1:1", NULL, 0, NULL);
	*state = cast;
	return 0;
}

/* Who was not led off by a test that failed is at the cut. */
static int drop_curtain(void **state)
{
	struct cast *cast = *state;
	struct member *all[] = {cast->reader, cast->planned, cast->first, cast->both, cast->later, cast->lost};

	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		if (all[i])
			member_free(all[i]);
	world_free(cast->world);
	free(cast);
	return 0;
}

/* ---- what they do ---- */

static void an_absent_broker_is_said(void **state)
{
	struct cast *cast = *state;
	const struct kafka_in *in = cast->lost->in;

	assert_int_equal(kafka_in_state(in), KAFKA_STATE_ASKING);
	WAIT_FOR(cast->world, strstr(kafka_in_state_detail(in), "127.0.0.1:1"));
	assert_non_null(strstr(kafka_in_state_detail(in), "Connection refused"));
	assert_int_equal(kafka_in_state(in), KAFKA_STATE_NO_BROKER);
	assert_false(kafka_in_is_member(in));
	leave(&cast->lost);
}

static void a_member_may_be_cut_at_any_time(void **state)
{
	struct cast *cast = *state;

	/* Before its first turn, and with its probe under way. */
	for (int64_t wait_us = 0; wait_us < 100 * US_PER_MS; wait_us += 50 * US_PER_MS) {
		struct member *member = member_new(cast->world, "127.0.0.1:1", NULL, 0, NULL);
		if (wait_us)
			loop_turn(cast->world->loop, wait_us);
		member_free(member);
	}
}

static void records_are_read_as_they_were_written(void **state)
{
	struct cast *cast = *state;
	struct member *a = cast->reader;
	rd_kafka_headers_t *headers = rd_kafka_headers_new(3);
	int64_t start, end;

	rd_kafka_header_add(headers, "a", -1, "1", 1);
	rd_kafka_header_add(headers, "null", -1, NULL, 0);
	rd_kafka_header_add(headers, "a", -1, "", 0);
	put(cast->world, "written", 1, "key", "value", headers);
	put(cast->world, "written", 1, NULL, NULL, NULL);
	put(cast->world, "written", 1, "", "", NULL);
	WAIT_FOR(cast->world, a->n_seen == 3);
	assert_true(kafka_in_is_member(a->in));
	assert_int_equal(a->n_assigned, 2);
	assert_int_equal(a->begin[0], -1);
	assert_string_equal(a->metadata[0], "");
	assert_string_equal(a->seen[0].topic, "written");
	assert_int_equal(a->seen[0].partition, 1);
	assert_int_equal(a->seen[0].timestamp_ms, 1700000000123);
	assert_string_equal(a->seen[0].key, "key");
	assert_string_equal(a->seen[0].value, "value");
	assert_string_equal(a->seen[0].headers, "a=1;null=-;a=;");
	assert_string_equal(a->seen[1].key, "-");
	assert_string_equal(a->seen[1].value, "-");
	assert_string_equal(a->seen[1].headers, "");
	assert_string_equal(a->seen[2].key, "");
	assert_string_equal(a->seen[2].value, "");
	assert_int_equal(a->seen[2].offset, 2);
	kafka_part_watermarks(a->parts[part_index(a, 1)], &start, &end);
	assert_int_equal(end, 3);
	WAIT_FOR(cast->world, kafka_in_state(a->in) == KAFKA_STATE_OK);
	assert_string_equal(kafka_in_state_detail(a->in), "");
	leave(&cast->reader);
}

static void a_plan_bounds_the_reading(void **state)
{
	struct cast *cast = *state;
	struct member *a = cast->planned;

	WAIT_FOR(cast->world, a->n_begun == 2);
	assert_int_equal(a->begin[part_index(a, 0)], 1); /* nothing was committed: the plan's start */
	/* Partition 0 has a record at its stop, of partition 1 only the end tells. */
	WAIT_FOR(cast->world, kafka_part_is_at_stop(a->parts[0]) && kafka_part_is_at_stop(a->parts[1]));
	assert_int_equal(seen_of(a, 0), 2);
	assert_int_equal(seen_of(a, 1), 5);
	for (size_t i = 0; i < a->n_seen; i++)
		assert_true(a->seen[i].partition == 1 || (a->seen[i].offset >= 1 && a->seen[i].offset < 3));
	assert_int_equal(kafka_part_stop(a->parts[part_index(a, 0)]), 3);
}

/* The set counts, up to the stop; only commits at the stops are the end. */
static void a_plan_tells_how_far_the_group_is(void **state)
{
	struct cast *cast = *state;
	struct member *a = cast->planned;
	char set[OFFSETMAP_TEXT_MAX + 1];
	uint64_t beyond = 0x3e; /* 2 to 6 are complete: 5 and 6 are past the stop */

	WAIT_FOR(cast->world, a->n_plan_answers > 0);
	assert_int_equal(a->total, 7);
	assert_int_equal(a->done, 0);
	offsetmap_encode(&beyond, 6, set);
	commit(a, 1, 1, set);
	WAIT_FOR(cast->world, a->done == 1 + 3);
	commit(a, 0, 3, "no set");
	WAIT_FOR(cast->world, a->done == 2 + 1 + 3);
	commit(a, 1, 5, "");
	WAIT_FOR(cast->world, a->done == a->total);
}

/* librdkafka's issue 5040: such an answer was the end of the process. Last, when nobody else asks for offsets. */
static void a_coordinator_that_moved_is_asked_again(void **state)
{
	struct cast *cast = *state;
	struct member *a = cast->planned;
	size_t before = a->n_plan_answers;

	rd_kafka_mock_push_request_errors(cast->world->cluster, 9 /* OffsetFetch */, 2, RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
					  RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS);
	WAIT_FOR(cast->world, a->n_plan_answers > before + 1);
	leave(&cast->planned);
}

static void hold_revoke(struct member *member)
{
	member->holds_revoke = true;
}

static void let_go(struct member *member)
{
	member->holds_revoke = false;
	member->n_parts = member->n_begun = 0;
	kafka_in_revoked(member->in);
}

static void a_group_shares_and_resumes(void **state)
{
	struct cast *cast = *state;
	struct world *world = cast->world;
	struct member *a = cast->first;

	WAIT_FOR(world, a->n_seen == 10);
	commit(a, 0, 3, "set of 0");
	commit(a, 1, 2, "set of 1");

	/* A second one joins: a holds its revoke, commits once more, and lets go. */
	hold_revoke(a);
	struct member *b =
	    member_new(world, world->bootstrap, NULL, 0, EXTRA("kafka.group.id=shared", "jobs.topic=shared"));
	WAIT_FOR(world, a->n_revoked == 2);
	assert_false(a->is_lost);
	/* A commit is answered while the revoke is held. The mock refuses it, a real broker takes it. */
	struct kafka_commit row = {a->parts[part_index(a, 1)], 4, NULL};
	size_t before = a->n_committed;
	assert_int_equal(kafka_in_commit(a->in, &row, 1), 0);
	WAIT_FOR(world, a->n_committed > before);
	assert_int_equal(b->n_assigned, 0);
	let_go(a);
	WAIT_FOR(world, a->n_begun == 1 && b->n_begun == 1);
	struct member *has[2] = {part_index(a, 0) == 0 ? a : b, part_index(a, 1) == 0 ? a : b};
	assert_ptr_not_equal(has[0], has[1]);
	assert_int_equal(has[0]->begin[0], 3);
	assert_string_equal(has[0]->metadata[0], "set of 0");
	int64_t second = a->commit_err ? 2 : 4;
	assert_int_equal(has[1]->begin[0], second);
	assert_string_equal(has[1]->metadata[0], a->commit_err ? "set of 1" : "");

	/* What was read before the revoke is read again from the commits on, and nothing below them. */
	WAIT_FOR(world, a->n_seen + b->n_seen == 10 + 2 + (size_t)(5 - second));
	assert_int_equal(seen_of(a, 0) + seen_of(b, 0), 5 + 2);
	assert_int_equal(seen_of(a, 1) + seen_of(b, 1), 5 + (size_t)(5 - second));

	/* One leaves: the other has both again. */
	before = b->n_assigned;
	leave(&cast->first);
	WAIT_FOR(world, b->n_begun == 2 && b->n_assigned == before + 2);
	cast->first = b;
}

static void a_commit_under_way_is_waited_for(void **state)
{
	struct cast *cast = *state;
	struct world *world = cast->world;
	struct member *b = cast->first;
	size_t revoked = b->n_revoked, committed = b->n_committed;

	WAIT_FOR(world, b->n_begun == 2);
	/* It leaves the group, commits, and lets go before the answer. */
	hold_revoke(b);
	kafka_in_close(b->in, on_closed, b);
	WAIT_FOR(world, b->n_revoked > revoked);
	struct kafka_commit row = {b->parts[part_index(b, 0)], 5, "last"};
	assert_int_equal(kafka_in_commit(b->in, &row, 1), 0);
	let_go(b);
	assert_int_equal(b->n_committed, committed);
	assert_non_null(b->in->revoke);
	WAIT_FOR(world, b->n_committed > committed);
	WAIT_FOR(world, !b->in->revoke);
	WAIT_FOR(world, b->is_closed);
	assert_int_equal(b->commit_err, 0);
	member_free(b);
	cast->first = NULL;
}

static void a_missing_topic_is_said_and_waited_for(void **state)
{
	struct cast *cast = *state;
	struct member *a = cast->both, *b = cast->later;

	WAIT_FOR(cast->world,
		 kafka_in_state(a->in) == KAFKA_STATE_NO_TOPIC && kafka_in_state(b->in) == KAFKA_STATE_NO_TOPIC);
	assert_string_equal(kafka_in_state_detail(a->in), "later");
	WAIT_FOR(cast->world, a->n_begun == 2);
	assert_int_equal(b->n_assigned, 0);
	rd_kafka_mock_topic_set_error(cast->world->cluster, "later", RD_KAFKA_RESP_ERR_NO_ERROR);
	/* The group looks by itself only every 30 s. The mock makes topics of four partitions. */
	int64_t since_us = clock_now_us();
	WAIT_FOR(cast->world, kafka_in_state(a->in) == KAFKA_STATE_OK && a->n_begun == 6 && b->n_begun == 4);
	assert_true(clock_now_us() - since_us < 20 * US_PER_S);
	leave(&cast->both);
	leave(&cast->later);
}

/* An argument is a glob of the tests to run; TEST_LOG=1 shows the log. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(an_absent_broker_is_said),
	    cmocka_unit_test(a_member_may_be_cut_at_any_time),
	    cmocka_unit_test(records_are_read_as_they_were_written),
	    cmocka_unit_test(a_plan_bounds_the_reading),
	    cmocka_unit_test(a_plan_tells_how_far_the_group_is),
	    cmocka_unit_test(a_group_shares_and_resumes),
	    cmocka_unit_test(a_commit_under_way_is_waited_for),
	    cmocka_unit_test(a_missing_topic_is_said_and_waited_for),
	    cmocka_unit_test(a_coordinator_that_moved_is_asked_again),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, raise_curtain, drop_curtain);
}
