/* What a feed shows: a live table on a terminal, tables one below the other in a pipe, lines of JSON; and its last words.
 *
 * A source's row: the age of its newest result; the 50th and 99th percentile of the time from when a round was due until its result was
 * read, over its last 128 results; how the newest ended; rounds missed, and why. Sources in trouble come first on a terminal, whose
 * height may not do for all. */
#include "clock.h"
#include "err.h"
#include "feed.h"
#include "table.h"

#include <unistd.h>

#define NOTES_KEPT 3
#define OTHER_COLUMNS 61 /* but for the name, at their usual widths */
#define NAME_COLUMNS_MIN 16
#define LIVE_EVERY_MS 1000
#define PIPE_EVERY_MS 10000

struct feed_report {
	const struct feed_args *args;
	struct printer printer;
	bool is_live, is_shown; /* the alternate screen is on */
	int64_t every_us, next_us;
	char *notes[NOTES_KEPT]; /* newest last */
};

/* All sources together. */
struct sum {
	size_t n, n_healthy;
	int64_t sent, results, missed, by_cause[MISSED_COUNT];
	struct ages_sum ages; /* of the healthy ones */
};

struct feed_report *feed_report_new(const struct feed_args *args)
{
	struct feed_report *report = xcalloc(1, sizeof(*report));

	report->args = args;
	printer_init(&report->printer, stdout, PRINT_TABLE, PRINT_NONE);
	report->is_live = args->report && !args->json && isatty(STDOUT_FILENO);
	report->every_us = (args->interval_ms ? args->interval_ms : report->is_live ? LIVE_EVERY_MS : PIPE_EVERY_MS) * US_PER_MS;
	report->next_us = args->report ? clock_now_us() + (report->is_live ? 0 : report->every_us) : INT64_MAX;
	return report;
}

static void leave_screen(struct feed_report *report)
{
	if (report->is_shown)
		fputs("\033[?25h\033[?1049l", stdout);
	report->is_shown = false;
	fflush(stdout);
}

void feed_report_free(struct feed_report *report)
{
	if (!report)
		return;
	leave_screen(report);
	for (int i = 0; i < NOTES_KEPT; i++)
		free(report->notes[i]);
	free(report);
}

void feed_report_say(struct feed_report *report, struct ctl *ctl, char *text)
{
	if (!report || !report->is_live) {
		ctl_say(ctl, "%s", text);
		free(text);
		return;
	}
	free(report->notes[0]);
	memmove(report->notes, report->notes + 1, sizeof(report->notes) - sizeof(report->notes[0]));
	report->notes[NOTES_KEPT - 1] = text;
}

int64_t feed_report_next_us(const struct feed_report *report)
{
	return report->next_us;
}

/* --- what is shown --- */

static bool is_good(const struct source *source)
{
	return source->outcome == OUTCOME_OK || source->outcome == OUTCOME_NOT_MODIFIED;
}

static int64_t age_ms(const struct source *source, int64_t now_ms)
{
	return source->newest_ms ? MAX(now_ms - source->newest_ms, 0) : -1;
}

/* Nothing came for as long as no round may last. */
static bool is_stale(const struct source *source, int64_t now_ms)
{
	return age_ms(source, now_ms) > 2 * source->period_ms + source->slot.patience_ms;
}

static int by_line(struct source *a, struct source *b)
{
	return (a->line > b->line) - (a->line < b->line);
}

static int trouble_of(const struct source *source)
{
	if (source->newest_ms && !is_good(source))
		return 3;
	return schedule_missed(&source->slot) ? 2 : !source->newest_ms;
}

static int by_trouble(struct source *a, struct source *b)
{
	int left = trouble_of(a), right = trouble_of(b);

	return left == right ? by_line(a, b) : right - left;
}

static void add_up(struct source *sources, int64_t now_ms, struct sum *ret_sum)
{
	memset(ret_sum, 0, sizeof(*ret_sum));
	for (struct source *source = sources; source; source = source->hh.next) {
		if (!source->is_listed)
			continue;
		ret_sum->n++;
		ret_sum->sent += source->slot.sent;
		ret_sum->results += source->results;
		ret_sum->missed += schedule_missed(&source->slot);
		for (int i = 0; i < MISSED_COUNT; i++)
			ret_sum->by_cause[i] += source->slot.missed[i];
		if (!is_good(source) || is_stale(source, now_ms))
			continue;
		ret_sum->n_healthy++;
		ages_sum_add(&ret_sum->ages, &source->ages);
	}
}

/* "850ms", "1.25s", "12s": a time that is compared by tenths when it is short. */
static const char *short_ms(int64_t ms, char *buf, size_t size)
{
	if (ms < 1000 || ms >= 10000)
		return table_age(ms, buf, size);
	snprintf(buf, size, "%.2fs", (double)ms / 1000);
	return buf;
}

/* "every 90s" as it was written. */
static const char *period_text(int64_t ms, char *buf, size_t size)
{
	if (ms % 1000 || ms >= 120000)
		return table_age(ms, buf, size);
	snprintf(buf, size, "%llds", (long long)ms / 1000);
	return buf;
}

/* URLs of one site begin alike and end each in its own way: on a narrow terminal the middle is what can go. free. */
static char *name_of(const struct source *source, size_t room)
{
	char *clean = print_clean(span_str(source->id), 0), *at = clean;

	if (!room || print_columns(clean) <= room)
		return clean;
	char *head = print_clean(span_str(clean), room / 2);
	/* Byte by byte, but not from inside a character. */
	while (((uint8_t)*at & 0xc0) == 0x80 || print_columns(at) > room - room / 2)
		at++;
	char *name = xasprintf("%s%s", head, at);
	free(head);
	free(clean);
	return name;
}

static void add_row(struct table *table, const struct source *source, int64_t now_ms, size_t room)
{
	int64_t missed = schedule_missed(&source->slot);
	char text[32];

	table_cell(table, NULL, "%s", period_text(source->period_ms, text, sizeof(text)));
	table_cell(table, is_stale(source, now_ms) ? TABLE_RED : NULL, "%s", table_age(age_ms(source, now_ms), text, sizeof(text)));
	table_cell(table, NULL, "%s", short_ms(ages_percentile(&source->ages, 50), text, sizeof(text)));
	table_cell(table, NULL, "%s", short_ms(ages_percentile(&source->ages, 99), text, sizeof(text)));
	const char *colour = source->newest_ms ? print_outcome_colour(source->outcome) : TABLE_DIM;
	if (!source->newest_ms)
		table_cell(table, colour, source->slot.round_ms ? "under way" : "-");
	else if (source->status)
		table_cell(table, colour, "%s %d", outcome_name((enum outcome)source->outcome), source->status);
	else
		table_cell(table, colour, "%s", outcome_name((enum outcome)source->outcome));
	if (missed)
		table_cell(table, TABLE_RED, "%lld %s", (long long)missed, schedule_cause(source->slot.last_cause));
	else
		table_cell(table, NULL, "0");
	char *name = name_of(source, room);
	table_cell(table, NULL, "%s", name);
	free(name);
}

/* At most `room` rows; 0 = all. */
static void print_rows(const struct feed_report *report, struct source *sources, int64_t now_ms, size_t room, size_t n)
{
	struct table *table = table_new(">EVERY >AGE >P50 >P99 STATUS MISSED SOURCE");
	size_t rows = 0, hidden = 0, width = report->printer.width;

	for (const struct source *source = sources; source; source = source->hh.next) {
		if (!source->is_listed)
			continue;
		/* The last line says how many there are more. */
		if (room && n > room && rows + 1 >= room) {
			hidden++;
			continue;
		}
		add_row(table, source, now_ms, width ? MAX(width, OTHER_COLUMNS + NAME_COLUMNS_MIN) - OTHER_COLUMNS : 0);
		rows++;
	}
	table_print(table, &report->printer);
	table_free(table);
	if (hidden)
		fprintf(report->printer.out, "%s… and %zu more%s\n", report->printer.has_colour ? TABLE_DIM : "", hidden,
		       report->printer.has_colour ? "\033[0m" : "");
}

/* ": 3 running, 1 late" */
static void print_causes(FILE *out, const struct sum *sum)
{
	const char *before = ": ";

	for (int i = 0; i < MISSED_COUNT; i++) {
		if (!sum->by_cause[i])
			continue;
		fprintf(out, "%s%lld %s", before, (long long)sum->by_cause[i], schedule_cause((enum missed)i));
		before = ", ";
	}
}

static void print_summary(FILE *out, const struct sum *sum, const struct feed_totals *totals)
{
	char p50[32], p99[32];

	fprintf(out, "%zu of %zu source%s healthy: p50 %s, p99 %s; %lld round%s sent, %lld result%s, %lld missed", sum->n_healthy, sum->n,
	       sum->n == 1 ? "" : "s", short_ms(ages_sum_percentile(&sum->ages, 50), p50, sizeof(p50)),
	       short_ms(ages_sum_percentile(&sum->ages, 99), p99, sizeof(p99)), (long long)sum->sent, sum->sent == 1 ? "" : "s",
	       (long long)sum->results, sum->results == 1 ? "" : "s", (long long)sum->missed);
	print_causes(out, sum);
	if (totals->foreign)
		fprintf(out, "; %lld from another feed", (long long)totals->foreign);
	if (!totals->is_owner)
		fprintf(out, totals->is_standby ? "; standing by" : "; starting");
	putc('\n', out);
}

/* Each line is cleared behind what is written over it, and all goes out at once: no flicker. */
static void put_screen(struct feed_report *report, const char *text)
{
	fputs(report->is_shown ? "\033[H" : "\033[?1049h\033[?25l\033[H", stdout);
	report->is_shown = true;
	for (; *text; text++) {
		if (*text == '\n')
			fputs("\033[K", stdout);
		putchar(*text);
	}
	fputs("\033[J", stdout);
}

static void show_live(struct feed_report *report, struct source **sources, const struct sum *sum, const struct feed_totals *totals,
		      int64_t now_ms)
{
	struct printer *printer = &report->printer;
	size_t used = 4, size; /* the summary may take two lines; heads and the cursor's line */
	char *text = NULL;

	printer_measure(printer);
	HASH_SORT(*sources, by_trouble);
	printer->out = open_memstream(&text, &size);
	if (!printer->out)
		abort();
	for (int i = 0; i < NOTES_KEPT; i++)
		used += report->notes[i] != NULL;
	print_summary(printer->out, sum, totals);
	print_rows(report, *sources, now_ms, printer->height > used + 2 ? printer->height - used : 2, sum->n);
	for (int i = 0; i < NOTES_KEPT; i++) {
		if (!report->notes[i])
			continue;
		char *clean = print_clean(span_str(report->notes[i]), printer->width);
		fprintf(printer->out, "%s\n", clean);
		free(clean);
	}
	fclose(printer->out);
	printer->out = stdout;
	put_screen(report, text);
	free(text);
}

/* --- JSON --- */

static json_t *json_of_causes(const int64_t *missed)
{
	json_t *causes = json_object();

	for (int i = 0; i < MISSED_COUNT; i++)
		json_object_set_new(causes, schedule_cause((enum missed)i), json_integer(missed[i]));
	return causes;
}

static json_t *number_or_null(int64_t value)
{
	return value < 0 ? json_null() : json_integer(value);
}

static void print_source_json(const struct source *source, int64_t now_ms)
{
	json_t *json = json_object();
	const struct schedule_slot *slot = &source->slot;

	json_object_set_new(json, "source", json_string(source->id));
	json_object_set_new(json, "at_ms", json_integer(now_ms));
	json_object_set_new(json, "url", json_string(source->url));
	json_object_set_new(json, "period_ms", json_integer(source->period_ms));
	json_object_set_new(json, "age_ms", number_or_null(age_ms(source, now_ms)));
	json_object_set_new(json, "p50_ms", number_or_null(ages_percentile(&source->ages, 50)));
	json_object_set_new(json, "p99_ms", number_or_null(ages_percentile(&source->ages, 99)));
	json_object_set_new(json, "outcome",
			    source->newest_ms ? json_string(outcome_name((enum outcome)source->outcome)) : json_null());
	json_object_set_new(json, "status", source->status ? json_integer(source->status) : json_null());
	json_object_set_new(json, "next_at_ms", json_integer(slot->due_ms));
	json_object_set_new(json, "sent", json_integer(slot->sent));
	json_object_set_new(json, "results", json_integer(source->results));
	json_object_set_new(json, "missed", json_integer(schedule_missed(slot)));
	json_object_set_new(json, "missed_by_cause", json_of_causes(slot->missed));
	print_json(stdout, json);
}

static void print_summary_json(const struct sum *sum, const struct feed_totals *totals, int64_t now_ms, bool is_last)
{
	json_t *json = json_object();

	json_object_set_new(json, "sources", json_integer((json_int_t)sum->n));
	json_object_set_new(json, "at_ms", json_integer(now_ms));
	json_object_set_new(json, "healthy", json_integer((json_int_t)sum->n_healthy));
	json_object_set_new(json, "p50_ms", number_or_null(ages_sum_percentile(&sum->ages, 50)));
	json_object_set_new(json, "p99_ms", number_or_null(ages_sum_percentile(&sum->ages, 99)));
	json_object_set_new(json, "sent", json_integer(sum->sent));
	json_object_set_new(json, "results", json_integer(sum->results));
	json_object_set_new(json, "missed", json_integer(sum->missed));
	json_object_set_new(json, "missed_by_cause", json_of_causes(sum->by_cause));
	json_object_set_new(json, "from_another_feed", json_integer(totals->foreign));
	json_object_set_new(json, "is_owner", json_boolean(totals->is_owner));
	json_object_set_new(json, "is_standby", json_boolean(totals->is_standby));
	json_object_set_new(json, "is_last", json_boolean(is_last));
	print_json(stdout, json);
}

static void print_all(const struct feed_report *report, struct source **sources, const struct sum *sum,
		      const struct feed_totals *totals, int64_t now_ms, bool with_rows, bool is_last)
{
	HASH_SORT(*sources, by_line);
	if (!report->args->json) {
		if (with_rows)
			print_rows(report, *sources, now_ms, 0, 0);
		print_summary(stdout, sum, totals);
		if (with_rows && !is_last)
			putchar('\n');
		return;
	}
	for (const struct source *source = *sources; with_rows && source; source = source->hh.next)
		if (source->is_listed)
			print_source_json(source, now_ms);
	print_summary_json(sum, totals, now_ms, is_last);
}

void feed_report_show(struct feed_report *report, struct source **sources, const struct feed_totals *totals)
{
	int64_t now_ms = clock_epoch_ms();
	struct sum *sum = xmalloc(sizeof(*sum));

	report->next_us = clock_now_us() + report->every_us;
	add_up(*sources, now_ms, sum);
	if (report->is_live)
		show_live(report, sources, sum, totals, now_ms);
	else
		print_all(report, sources, sum, totals, now_ms, true, false);
	fflush(stdout);
	free(sum);
}

void feed_report_end(struct feed_report *report, struct source **sources, const struct feed_totals *totals)
{
	int64_t now_ms = clock_epoch_ms();
	struct sum *sum = xmalloc(sizeof(*sum));

	leave_screen(report);
	report->next_us = INT64_MAX;
	add_up(*sources, now_ms, sum);
	print_all(report, sources, sum, totals, now_ms, report->args->report, true);
	for (int i = 0; i < NOTES_KEPT; i++)
		if (report->notes[i])
			fprintf(stderr, "gatherctl feed: %s\n", report->notes[i]);
	free(sum);
}
