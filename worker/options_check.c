#include "options_internal.h"

#include "err.h"

static const char *key_of(enum option_index row)
{
	return option_rows[row].key;
}

/* Who is to answer for a contradiction of two rows: the later source. The defaults agree. */
static const char *blamed(const struct draft *draft, enum option_index a, enum option_index b)
{
	enum option_index row = draft->stages[a] >= draft->stages[b] ? a : b;

	return draft->sources[row] ? draft->sources[row] : "default";
}

/* As Kafka's Topic.validate: at most 249 of these characters, and neither "." nor "..". */
static bool is_topic_name(const char *name)
{
	size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

	return n > 0 && n <= 249 && !name[n] && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static void check_topic_name(struct draft *draft, enum option_index row, const char *name)
{
	char text[SHOWN_MAX];

	if (!is_topic_name(name))
		draft_error(draft, blamed(draft, row, row),
			    "%s = %s: must be the name of a topic: 1 to 249 letters, digits, '.', '_' or '-'",
			    key_of(row), shown(name, text));
}

static void check_topics_differ(struct draft *draft, enum option_index a, const char *a_name, enum option_index b,
				const char *b_name, const char *why)
{
	char text[SHOWN_MAX];

	if (*a_name && strcmp(a_name, b_name) == 0)
		draft_error(draft, blamed(draft, a, b), "%s = %s is also %s: %s", key_of(a), shown(a_name, text),
			    key_of(b), why);
}

static void check_topics(struct draft *draft)
{
	const struct options *opts = draft->opts;
	const char *dead = opts->dead_letter_topic;

	check_topic_name(draft, ROW_results_topic, opts->results_topic);
	if (*dead)
		check_topic_name(draft, ROW_dead_letter_topic, dead);
	if (opts->jobs_topic.n == 0)
		draft_error(draft, blamed(draft, ROW_jobs_topic, ROW_jobs_topic),
			    "%s is empty: name at least one topic", key_of(ROW_jobs_topic));
	for (size_t i = 0; i < opts->jobs_topic.n; i++) {
		const char *jobs = opts->jobs_topic.v[i];
		check_topic_name(draft, ROW_jobs_topic, jobs);
		check_topics_differ(draft, ROW_results_topic, opts->results_topic, ROW_jobs_topic, jobs,
				    "results would be read as jobs");
		check_topics_differ(draft, ROW_dead_letter_topic, dead, ROW_jobs_topic, jobs,
				    "dead letters would be read as jobs, for ever");
	}
	check_topics_differ(draft, ROW_dead_letter_topic, dead, ROW_results_topic, opts->results_topic,
			    "what reads results would meet job records");
}

static void check_dead_letters(struct draft *draft)
{
	const struct strlist *outcomes = &draft->opts->dead_letter_outcomes;
	const char *source = blamed(draft, ROW_dead_letter_outcomes, ROW_dead_letter_outcomes);
	char text[SHOWN_MAX];

	for (size_t i = 0; i < outcomes->n; i++)
		if (outcome_parse(outcomes->v[i]) == OUTCOME_UNSPECIFIED)
			draft_error(
			    draft, source,
			    "%s = %s: no such outcome; they are those of a result, as in BAD_JOB, DNS or TIMEOUT",
			    key_of(ROW_dead_letter_outcomes), shown(outcomes->v[i], text));
	if (draft->sources[ROW_dead_letter_outcomes] && outcomes->n && !*draft->opts->dead_letter_topic)
		draft_warning(draft, source, "%s has no effect while %s is empty", key_of(ROW_dead_letter_outcomes),
			      key_of(ROW_dead_letter_topic));
}

static void check_memory(struct draft *draft)
{
	const struct options *opts = draft->opts;
	char body[OPTION_TEXT_MAX], memory[OPTION_TEXT_MAX];

	if (opts->body_max > opts->memory_max / 4)
		draft_error(draft, blamed(draft, ROW_body_max, ROW_memory_max),
			    "body.max = %s is over a quarter of memory.max = %s: lower the one or raise the other",
			    option_number_text(UNIT_BYTES, opts->body_max, body),
			    option_number_text(UNIT_BYTES, opts->memory_max, memory));
}

static void check_retry(struct draft *draft, const char *source, const char *where, const struct host_options *host)
{
	char base[OPTION_TEXT_MAX], max[OPTION_TEXT_MAX];

	if (host->retry_base > host->retry_max)
		draft_error(draft, source, "%sretry.base = %s is over retry.max = %s", where,
			    option_number_text(UNIT_MS, host->retry_base, base),
			    option_number_text(UNIT_MS, host->retry_max, max));
}

/* The second of two equal globs could never be used. */
static void check_globs(struct draft *draft)
{
	struct host_section *sections = draft->opts->sections;
	const size_t *order;
	char text[SHOWN_MAX];

	options_index(draft->opts);
	order = draft->opts->by_glob;
	for (size_t i = 1; i < draft->opts->n_sections; i++)
		if (*sections[order[i]].glob && strcasecmp(sections[order[i - 1]].glob, sections[order[i]].glob) == 0)
			draft_error(draft, draft->sections[order[i]].source, "[host \"%s\"] is already at %s",
				    shown(sections[order[i]].glob, text), draft->sections[order[i - 1]].source);
}

static void check_reference(struct draft *draft, const char *source, const char *where, enum option_index row, const char *name)
{
	bool is_there = row == ROW_secret ? options_secret(draft->opts, name) != NULL : options_proxy(draft->opts, name) != NULL;
	char text[SHOWN_MAX];

	if (*name && !is_there)
		draft_error(draft, source, "%s%s = %s: there is no section [%s \"%s\"]", where, key_of(row), shown(name, text),
			    key_of(row), text);
}

static void check_references(struct draft *draft)
{
	check_reference(draft, blamed(draft, ROW_secret, ROW_secret), "", ROW_secret, draft->opts->host.secret);
	check_reference(draft, blamed(draft, ROW_proxy, ROW_proxy), "", ROW_proxy, draft->opts->host.proxy);
	for (size_t s = 0; s < draft->opts->n_sections; s++) {
		const struct host_options *host = &draft->opts->sections[s].host;
		const struct section_draft *section = &draft->sections[s];
		if (section->has[ROW_secret])
			check_reference(draft, section->source, "in this section ", ROW_secret, host->secret);
		if (section->has[ROW_proxy])
			check_reference(draft, section->source, "in this section ", ROW_proxy, host->proxy);
	}
}

void draft_check(struct draft *draft)
{
	check_topics(draft);
	check_dead_letters(draft);
	check_memory(draft);
	check_retry(draft, blamed(draft, ROW_retry_base, ROW_retry_max), "", &draft->opts->host);
	for (size_t s = 0; s < draft->opts->n_sections; s++)
		if (draft->sections[s].has[ROW_retry_base] || draft->sections[s].has[ROW_retry_max])
			check_retry(draft, draft->sections[s].source, "in this section ",
				    &draft->opts->sections[s].host);
	check_globs(draft);
	draft_check_named(draft);
	check_references(draft);
	draft_check_kafka(draft);
}
