#include "options_internal.h"

#include <inttypes.h>
#include <stdio.h>

/* The cells of one row, as text. */
struct cells {
	char initial[96], limits[96];
	const char *unit, *when;
};

static void set_text(const struct option_row *row, char *out, size_t size)
{
	const char *text = row->text;
	size_t len = 0;

	for (int64_t bits = row->initial; bits; bits >>= 1) {
		size_t n = strcspn(text, "|");
		if (bits & 1)
			len += (size_t)snprintf(out + len, size - len, "%s%.*s", len ? " " : "", (int)n, text);
		text += n + 1;
	}
}

static const char *initial_text(const struct option_row *row, char *out, size_t size)
{
	char number[OPTION_TEXT_MAX];
	const char *text = row->text;

	if (row->type == TYPE_SET) {
		set_text(row, out, size);
	} else if (row->type == TYPE_ENUM) {
		for (int64_t i = 0; i < row->initial; i++)
			text = strchr(text, '|') + 1;
		snprintf(out, size, "%.*s", (int)strcspn(text, "|"), text);
	} else if (row->type == TYPE_INT || row->type == TYPE_FLOAT) {
		snprintf(out, size, "%s", option_number_text(row->unit, row->initial, number));
	} else {
		snprintf(out, size, "%s", *text ? text : "empty");
	}
	return out;
}

static const char *limits_text(const struct option_row *row, char *out, size_t size)
{
	char min[OPTION_TEXT_MAX], max[OPTION_TEXT_MAX];
	size_t n = 0;

	if (row->type == TYPE_STR || row->type == TYPE_LIST)
		return snprintf(out, size, "-"), out;
	if (row->type != TYPE_ENUM && row->type != TYPE_SET) {
		snprintf(out, size, "%s to %s", option_number_text(row->unit, row->min, min),
			 option_number_text(row->unit, row->max, max));
		return out;
	}
	for (const char *s = row->text; *s && n + 3 < size; s++) {
		if (*s == '|')
			out[n++] = ',';
		out[n++] = *s == '|' ? ' ' : *s;
	}
	out[n] = '\0';
	return out;
}

static void fill(struct cells *cells, const struct option_row *row)
{
	static const char *const types[] = {
	    [TYPE_FLOAT] = "number",
	    [TYPE_ENUM] = "choice",
	    [TYPE_SET] = "list",
	    [TYPE_STR] = "text",
	    [TYPE_LIST] = "list",
	};
	static const char *const units[] = {[UNIT_COUNT] = "count", [UNIT_MS] = "time", [UNIT_BYTES] = "size"};

	initial_text(row, cells->initial, sizeof(cells->initial));
	limits_text(row, cells->limits, sizeof(cells->limits));
	cells->unit = row->type == TYPE_INT ? units[row->unit] : types[row->type];
	cells->when = row->reload == RESTART ? "restart" : row->is_host ? "live, host" : "live";
}

static void print_table(FILE *out)
{
	struct cells cells;
	int key = 3, initial = 7, limits = 6;

	for (size_t i = 0; i < ROW_COUNT; i++) {
		fill(&cells, &option_rows[i]);
		key = MAX(key, (int)strlen(option_rows[i].key));
		initial = MAX(initial, (int)strlen(cells.initial));
		limits = MAX(limits, (int)strlen(cells.limits));
	}
	fprintf(out, "%-*s  %-*s  %-*s  %-6s  %-10s  %s\n", key, "KEY", initial, "DEFAULT", limits, "LIMITS", "KIND",
		"CHANGE", "MEANING");
	for (size_t i = 0; i < ROW_COUNT; i++) {
		fill(&cells, &option_rows[i]);
		fprintf(out, "%-*s  %-*s  %-*s  %-6s  %-10s  %s\n", key, option_rows[i].key, initial, cells.initial,
			limits, cells.limits, cells.unit, cells.when, option_rows[i].help);
	}
	fputs("\nTimes take ms, s, m, h; sizes take bytes, KiB, MiB, GiB. Change: live = by SIGHUP; host = also in a "
	      "section\n"
	      "[host \"*.example.com\"]; [secret \"NAME\"] and [proxy \"NAME\"]: see docs/options.md. kafka.NAME, kafka.consumer.NAME, kafka.producer.NAME go to librdkafka.\n",
	      out);
}

/* A bar would end the cell. */
static void print_cell(FILE *out, const char *text)
{
	for (; *text; text++)
		fprintf(out, *text == '|' ? "\\%c" : "%c", *text);
}

static const char markdown_head[] =
    "# Settings of gatherd\n"
    "\n"
    "Generated from `worker/options.def` by `gatherd --options=markdown`; do not edit.\n"
    "\n"
    "Read in this order, the last wins: the defaults, the file of `-c` (`key = value`, `#` comments), the\n"
    "environment (`partition.inflight` is `GATHERD_PARTITION_INFLIGHT`), `-o key=value`. The items of a list stand\n"
    "between white space. A repeated key replaces the list.\n"
    "\n"
    "Times take `ms`, `s`, `m`, `h`; sizes take bytes, `KiB`, `MiB`, `GiB`. `live` rows change by SIGHUP, `restart`\n"
    "rows do not. Rows with `host` may also stand in a section `[host \"*.example.com\"]` at the end of the file:\n"
    "the first section whose glob matches the host name counts, and what it does not set comes from the general\n"
    "settings.\n"
    "\n"
    "A section `[secret \"NAME\"]` holds headers for the hosts that it names, and a section `[proxy \"NAME\"]` a proxy; a\n"
    "job names them in `secret_ref` and `proxy_ref`, a host's section in `secret` and `proxy`. Both are live:\n"
    "\n"
    "    [secret \"shop-api\"]\n"
    "    hosts = api.shop.example *.api.shop.example:443\n"
    "    header = Authorization: Bearer ${file:/run/secrets/shop-token}\n"
    "    header = Cookie: region=eu\n"
    "\n"
    "    [proxy \"eu\"]\n"
    "    url = http://proxy.example.com:3128\n"
    "    user = gatherd\n"
    "    password = ${file:/run/secrets/proxy-password}\n"
    "\n"
    "`hosts` are globs of host names, with `:443` for one port only, and are needed. `header` may stand again and again.\n"
    "`${file:PATH}` is what the file holds, without the line ends at its end. The scheme of `url` is `http`, `https`,\n"
    "`socks5` or `socks5h` (the same here: the proxy resolves names), and its port must be written.\n"
    "\n"
    "`kafka.NAME`, `kafka.consumer.NAME` and `kafka.producer.NAME` pass a property to librdkafka, for both sides or\n"
    "for one (`GATHERD_KAFKA_BOOTSTRAP_SERVERS` in the environment).\n"
    "\n"
    "| key | default | limits | kind | change | meaning |\n"
    "|---|---|---|---|---|---|\n";

static void print_markdown(FILE *out)
{
	struct cells cells;

	fputs(markdown_head, out);
	for (size_t i = 0; i < ROW_COUNT; i++) {
		const struct option_row *row = &option_rows[i];
		bool is_empty = (row->type == TYPE_STR || row->type == TYPE_LIST) && !*row->text;
		fill(&cells, row);
		fprintf(out, "| `%s` | %s%s%s | %s | %s | %s | ", row->key, is_empty ? "" : "`", cells.initial,
			is_empty ? "" : "`", cells.limits, cells.unit, cells.when);
		print_cell(out, row->help);
		fprintf(out, " |\n");
	}
}

void options_print(void *file, bool markdown)
{
	if (markdown)
		print_markdown(file);
	else
		print_table(file);
}
