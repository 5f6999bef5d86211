#include "broker.h"

#include <inttypes.h>
#include <stdio.h>

#define SET_WORDS (OFFSETMAP_SPAN_MAX / 64 + 1)

struct broker broker;

/* ---- logs ---- */

void broker_start(int32_t n_parts)
{
	memset(broker.parts, 0, sizeof(broker.parts));
	memset(broker.members, 0, sizeof(broker.members));
	broker.n_parts = n_parts;
	broker.is_rebalancing = false;
	broker.last_term = broker.last_member = broker.generation = 0;
	broker.full_until_us = 0;
	memset(&broker.deadline, 0, sizeof(broker.deadline));
	for (int32_t p = 0; p < n_parts; p++) {
		broker.parts[p].committed = -1;
		broker.parts[p].end = chance(0.5) ? 0 : rnd_between(1, 1000000);
	}
}

void broker_done(void)
{
	event_clear(&broker.deadline);
	for (size_t i = 0; i < ARRAY_LEN(broker.members); i++)
		event_clear(&broker.members[i].session);
	for (int32_t p = 0; p < broker.n_parts; p++) {
		struct topic_part *part = &broker.parts[p];
		for (size_t i = 0; i < part->n; i++)
			free(part->recs[i].value);
		free(part->recs);
	}
}

void broker_add(int32_t partition, int64_t gap, enum job_kind kind, uint8_t *value, size_t len)
{
	struct topic_part *part = &broker.parts[partition];

	if (part->n % 64 == 0)
		part->recs = xrealloc(part->recs, (part->n / 64 + 1) * 64 * sizeof(*part->recs));
	struct rec *rec = &part->recs[part->n++];
	*rec = (struct rec){.offset = part->end + gap, .value = value, .len = len, .kind = kind};
	if (chance(0.7))
		snprintf(rec->key, sizeof(rec->key), "k%d", (int)rnd(100));
	part->end = rec->offset + 1;
}

void broker_show(int32_t partition, size_t n)
{
	struct topic_part *part = &broker.parts[partition];

	part->n_visible = MIN(part->n_visible + n, part->n);
	if (part->owner && part->owner->in)
		consumer_wake(part->owner->in, partition);
}

int64_t broker_time(int64_t latency)
{
	return MAX(world.now_us, world.outage_until_us) + latency;
}

struct rec *broker_find(int32_t partition, int64_t offset)
{
	struct topic_part *part = &broker.parts[partition];
	size_t low = 0, high = partition >= 0 && partition < broker.n_parts ? part->n_visible : 0;

	while (low < high) {
		size_t mid = (low + high) / 2;
		if (part->recs[mid].offset < offset)
			low = mid + 1;
		else
			high = mid;
	}
	return low < part->n_visible && part->recs[low].offset == offset ? &part->recs[low] : NULL;
}

/* ---- what is appended, what is committed ---- */

void broker_append(int32_t partition, struct rec *rec, int64_t term, bool is_unsure)
{
	struct topic_part *part = &broker.parts[partition];

	world.progress_us = world.now_us;
	rec->appended++;
	seen.results++;
	if (is_unsure || !part->owner || part->term != term) {
		rec->excused++;
		seen.excused++;
	} else {
		rec->live++;
	}
	if (rec->appended - rec->excused > 1)
		fail("doubled: job %d/%" PRId64 " has %d results, the faults explain %d", partition, rec->offset, rec->appended,
		     rec->excused + 1);
}

bool broker_owns(int32_t partition, const struct member *member, int64_t term)
{
	return broker.parts[partition].owner == member && broker.parts[partition].term == term;
}

bool broker_covers(int64_t offset, const uint64_t *set, size_t n_bits, int64_t rec_offset)
{
	uint64_t bit = (uint64_t)(rec_offset - offset);

	return rec_offset < offset || (bit < n_bits && (set[bit / 64] >> bit % 64 & 1));
}

void broker_commit(int32_t partition, int64_t offset, const char *metadata)
{
	struct topic_part *part = &broker.parts[partition];
	uint64_t set[SET_WORDS] = {0};
	size_t n_bits;

	if (offset < part->committed)
		fail("the committed offset of partition %d goes back from %" PRId64 " to %" PRId64, partition, part->committed, offset);
	if (offsetmap_decode(metadata, strlen(metadata), set, SET_WORDS, &n_bits))
		fail("the completed set of partition %d does not parse: %s", partition, metadata);
	world.progress_us = world.now_us;
	seen.commits++;
	part->committed = offset;
	snprintf(part->metadata, sizeof(part->metadata), "%s", metadata);
	for (size_t i = 0; i < part->n_visible; i++) {
		struct rec *rec = &part->recs[i];
		bool was_covered = rec->is_covered;
		rec->is_covered = broker_covers(offset, set, n_bits, rec->offset);
		if (rec->is_covered && !rec->appended)
			fail("lost: job %d/%" PRId64 " is committed and has no result", partition, rec->offset);
		if (was_covered && !rec->is_covered)
			fail("the commit of partition %d gives job %" PRId64 " up again, which was complete", partition, rec->offset);
	}
}

void broker_end_term(int32_t partition)
{
	struct topic_part *part = &broker.parts[partition];

	part->owner = NULL;
	for (size_t i = 0; i < part->n_visible; i++) {
		struct rec *rec = &part->recs[i];
		if (!rec->is_covered) {
			rec->excused += rec->live;
			seen.excused += (uint64_t)rec->live;
		}
		rec->live = 0;
	}
}

bool broker_is_done(void)
{
	for (int32_t p = 0; p < broker.n_parts; p++) {
		const struct topic_part *part = &broker.parts[p];
		if (part->n_visible < part->n || (part->n && part->committed < part->recs[part->n - 1].offset + 1))
			return false;
		for (size_t i = 0; i < part->n; i++)
			if (!part->recs[i].appended)
				fail("lost: job %d/%" PRId64 " is committed and has no result", p, part->recs[i].offset);
	}
	return true;
}

/* ---- the group ---- */

static void on_deadline(void *ctx);

struct member *group_add(struct kafka_in *in)
{
	for (size_t i = 0; i < ARRAY_LEN(broker.members); i++) {
		struct member *member = &broker.members[i];
		if (member->state == MEMBER_NONE) {
			member->in = in;
			member->id = ++broker.last_member;
			return member;
		}
	}
	fail("too many members");
}

static void take_partitions(struct member *member)
{
	for (int32_t p = 0; p < broker.n_parts; p++)
		if (broker.parts[p].owner == member)
			broker_end_term(p);
}

/* Everybody who is here has joined: each gets a range of the partitions. */
static void complete(void)
{
	struct member *joined[ARRAY_LEN(broker.members)];
	int32_t partitions[PARTS_MAX], n_joined = 0, p = 0;

	broker.is_rebalancing = false;
	broker.generation++;
	event_clear(&broker.deadline);
	for (size_t i = 0; i < ARRAY_LEN(broker.members); i++)
		if (broker.members[i].state == MEMBER_JOINING)
			joined[n_joined++] = &broker.members[i];
	for (int32_t i = 0; i < n_joined; i++) {
		int32_t share = (broker.n_parts - p) / (n_joined - i), n = 0;
		while (n < share) {
			if (broker.parts[p].owner)
				fail("partition %d is given away while somebody has it", p);
			broker.parts[p].owner = joined[i];
			broker.parts[p].term = ++broker.last_term;
			partitions[n++] = p++;
		}
		joined[i]->state = MEMBER_ASSIGNED;
		consumer_assign(joined[i]->in, partitions, (size_t)n);
	}
}

static void check_complete(void)
{
	bool is_any = false;

	if (!broker.is_rebalancing)
		return;
	for (size_t i = 0; i < ARRAY_LEN(broker.members); i++) {
		enum member_state state = broker.members[i].state;
		if (state != MEMBER_NONE && state != MEMBER_OUT && state != MEMBER_JOINING)
			return;
		is_any |= state == MEMBER_JOINING;
	}
	if (is_any)
		complete();
	else
		broker.is_rebalancing = false;
}

void group_rebalance(void)
{
	if (!broker.is_rebalancing) {
		broker.is_rebalancing = true;
		event_set(&broker.deadline, NULL, world.now_us + broker.rebalance_timeout_us, on_deadline, NULL);
		for (size_t i = 0; i < ARRAY_LEN(broker.members); i++)
			if (broker.members[i].state == MEMBER_STABLE)
				consumer_revoke(broker.members[i].in);
	}
	check_complete();
}

void group_joins(struct member *member)
{
	member->state = MEMBER_JOINING;
	group_rebalance();
}

bool group_takes(int64_t member_id, int64_t generation)
{
	for (size_t i = 0; i < ARRAY_LEN(broker.members) && generation >= 0; i++) {
		const struct member *member = &broker.members[i];
		if (member->state != MEMBER_NONE && member->id == member_id)
			return generation == broker.generation;
	}
	return generation < 0;
}

void group_remove(struct member *member)
{
	event_clear(&member->session);
	take_partitions(member);
	member->state = MEMBER_NONE;
	member->in = NULL;
	group_rebalance();
}

static void on_session_over(void *ctx)
{
	trace(NULL, "session over", (struct member *)ctx - broker.members, 0);
	group_remove(ctx);
}

void group_died(struct member *member)
{
	take_partitions(member);
	member->state = MEMBER_DEAD;
	member->in = NULL;
	event_set(&member->session, NULL, world.now_us + SESSION_US, on_session_over, member);
}

void group_kick(struct member *member)
{
	trace(NULL, "kicked", member - broker.members, (int64_t)member->state);
	take_partitions(member);
	switch (member->state) {
	case MEMBER_STABLE:
	case MEMBER_REVOKING:
	case MEMBER_ASSIGNED:
		member->state = MEMBER_OUT;
		member->id = ++broker.last_member;
		consumer_lost(member->in);
		break;
	case MEMBER_DEAD:
		event_clear(&member->session);
		member->state = MEMBER_NONE;
		break;
	default:
		break;
	}
}

/* Who has not joined by now is out, and the others go on. */
static void on_deadline(void *ctx)
{
	for (size_t i = 0; i < ARRAY_LEN(broker.members); i++) {
		struct member *member = &broker.members[i];
		if (member->state != MEMBER_NONE && member->state != MEMBER_JOINING)
			group_kick(member);
	}
	check_complete();
}
