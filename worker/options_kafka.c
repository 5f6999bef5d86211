#include "options_internal.h"

#include "err.h"

/* All that librdkafka knows, for three sides, is less. */
#define PROPERTIES_MAX 1000

static const char prefix[] = "kafka.";
static const char *const side_names[] = {
    [KAFKA_BOTH] = "", [KAFKA_CONSUMER] = "consumer.", [KAFKA_PRODUCER] = "producer."};

static const struct refused {
	const char *name, *why;
} refused[] = {
    {"enable.auto.commit", "gatherd commits an offset itself, once the broker has its result"},
    {"auto.commit.enable", "gatherd commits an offset itself, once the broker has its result"},
    {"enable.auto.offset.store", "gatherd keeps the offsets itself"},
    {"enable.partition.eof", "gatherd sets it itself where it needs it"},
    {"transactional.id", "gatherd makes it from group.id and instance; set instance"},
};

bool is_kafka_key(const char *key)
{
	return strncmp(key, prefix, sizeof(prefix) - 1) == 0;
}

static enum kafka_side side_of(const char *key, const char **ret_name)
{
	enum kafka_side side = KAFKA_BOTH;

	key += sizeof(prefix) - 1;
	for (unsigned i = KAFKA_CONSUMER; i <= KAFKA_PRODUCER; i++)
		if (strncmp(key, side_names[i], strlen(side_names[i])) == 0)
			side = (enum kafka_side)i;
	*ret_name = key + strlen(side_names[side]);
	return side;
}

static struct kafka_property *find(const struct options *opts, enum kafka_side side, const char *name)
{
	for (size_t i = 0; i < opts->n_kafka; i++)
		if (opts->kafka[i].side == side && strcmp(opts->kafka[i].name, name) == 0)
			return &opts->kafka[i];
	return NULL;
}

/* The later row wins and takes the later place. */
static void drop(struct options *opts, struct kafka_property *property)
{
	size_t i = (size_t)(property - opts->kafka);

	kafka_property_done(property);
	memmove(property, property + 1, (--opts->n_kafka - i) * sizeof(*property));
}

static const char *refused_why(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(refused); i++)
		if (strcmp(refused[i].name, name) == 0)
			return refused[i].why;
	return NULL;
}

void draft_set_kafka(struct draft *draft, const char *source, const char *key, const char *value)
{
	struct options *opts = draft->opts;
	const char *name;
	enum kafka_side side = side_of(key, &name);
	const char *why = refused_why(name);
	char text[SHOWN_MAX];

	if (!*name || name[strcspn(name, " \t\r\n")]) {
		draft_error(draft, source, "%s: must be kafka.NAME with the name of a librdkafka property",
			    shown(key, text));
		return;
	}
	if (why) {
		draft_error(draft, source, "%s may not be set: %s", key, why);
		return;
	}
	struct kafka_property *before = find(opts, side, name);
	if (before)
		drop(opts, before);
	if (opts->n_kafka == PROPERTIES_MAX) {
		draft_error(draft, source, "%s: over %d Kafka properties", shown(key, text), PROPERTIES_MAX);
		return;
	}
	opts->kafka = xrealloc(opts->kafka, (opts->n_kafka + 1) * sizeof(*opts->kafka));
	opts->kafka[opts->n_kafka++] = (struct kafka_property){side, xstrdup(name), xstrdup(value), xstrdup(source)};
}

void draft_check_kafka(struct draft *draft)
{
	const struct kafka_property *isolation = find(draft->opts, KAFKA_CONSUMER, "isolation.level");

	if (!isolation)
		isolation = find(draft->opts, KAFKA_BOTH, "isolation.level");
	if (isolation && draft->opts->delivery == DELIVERY_EXACTLY_ONCE &&
	    strcmp(isolation->value, "read_uncommitted") == 0)
		draft_error(
		    draft, isolation->source,
		    "kafka.%sisolation.level = read_uncommitted contradicts delivery = exactly_once: jobs of aborted "
		    "transactions would be fetched",
		    side_names[isolation->side]);
}

/* Names what opts has and fresh has not; with_values also what both have with different values. */
static void name_changes(const struct options *opts, const struct options *fresh, bool with_values,
			 struct strlist *names)
{
	for (size_t i = 0; i < opts->n_kafka; i++) {
		const struct kafka_property *ours = &opts->kafka[i], *theirs = find(fresh, ours->side, ours->name);
		if (theirs && (!with_values || strcmp(ours->value, theirs->value) == 0))
			continue;
		char *name = xasprintf("%s%s%s", prefix, side_names[ours->side], ours->name);
		strlist_add(names, name, strlen(name));
		free(name);
	}
}

void kafka_changes(const struct options *opts, const struct options *fresh, struct strlist *names)
{
	name_changes(opts, fresh, true, names);
	name_changes(fresh, opts, false, names);
}

void kafka_property_done(struct kafka_property *property)
{
	free(property->name);
	free(property->value);
	free(property->source);
}
