#include "progress.h"

#include "clock.h"
#include "table.h"

#include <math.h>
#include <unistd.h>

#define SHOW_EVERY_US (200 * US_PER_MS)
#define SAMPLE_EVERY_US (500 * US_PER_MS)
#define BAR_MIN 4
#define BAR_MAX 40

const char *progress_number(int64_t n, char *buf, size_t size)
{
	char digits[32];
	size_t len = (size_t)snprintf(digits, sizeof(digits), "%lld", (long long)n), used = 0;

	for (size_t i = 0; i < len && used + 2 < size; i++) {
		if (i && (len - i) % 3 == 0 && digits[i - 1] != '-')
			buf[used++] = ',';
		buf[used++] = digits[i];
	}
	buf[used] = '\0';
	return buf;
}

static void take_sample(struct progress *progress, int64_t now_us, int64_t n, int64_t done)
{
	size_t last = (progress->n_samples + PROGRESS_SAMPLES - 1) % PROGRESS_SAMPLES;

	if (progress->n_samples && now_us - progress->samples[last].at_us < SAMPLE_EVERY_US)
		return;
	progress->samples[progress->n_samples++ % PROGRESS_SAMPLES] = (struct progress_sample){now_us, n, done};
}

/* A second, of the last samples, into both of ret; 0 = not known yet. */
static void find_rates(const struct progress *progress, int64_t now_us, int64_t n, int64_t done, double ret[static 2])
{
	size_t first = progress->n_samples > PROGRESS_SAMPLES ? progress->n_samples % PROGRESS_SAMPLES : 0;
	const struct progress_sample *from = &progress->samples[first];
	double seconds = (double)(now_us - from->at_us) / US_PER_S;

	ret[0] = seconds < 1 ? 0 : (double)(n - from->n) / seconds;
	ret[1] = seconds < 1 ? 0 : (double)(done - from->done) / seconds;
}

static void draw_bar(int64_t done, int64_t total, size_t width)
{
	size_t full = total > 0 ? (size_t)((double)done / (double)total * (double)width) : width;

	fputc('[', stderr);
	for (size_t i = 0; i < width; i++)
		fputc(i < full ? '#' : '.', stderr);
	fputc(']', stderr);
}

/* of: what n goes up to; -1 = not known. */
static void show(struct progress *progress, int64_t n, int64_t of, const char *what, int64_t done, int64_t total)
{
	char text[160], a[32], b[32], c[32], left[32] = "?";
	int64_t now_us = clock_now_us();
	struct printer printer;
	double rates[2];

	if (!isatty(STDERR_FILENO) || (progress->shown_us && now_us - progress->shown_us < SHOW_EVERY_US))
		return;
	progress->shown_us = now_us;
	progress->is_shown = true;
	take_sample(progress, now_us, n, done);
	find_rates(progress, now_us, n, done, rates);
	int len = snprintf(text, sizeof(text), "%s%s%s %s %s/s", progress_number(n, a, sizeof(a)), of < 0 ? "" : "/",
			   of < 0 ? "" : progress_number(of, b, sizeof(b)), what, progress_number((int64_t)rates[0], c, sizeof(c)));
	fputs("\r\033[K", stderr);
	if (total >= 0) {
		if (rates[1] > 0 && done < total)
			table_age((int64_t)ceil((double)(total - done) / rates[1]) * 1000, left, sizeof(left));
		len += snprintf(text + len, sizeof(text) - (size_t)len, " ETA %s", done < total ? left : "0s");
		printer_init(&printer, stderr, PRINT_TABLE, PRINT_NONE);
		/* The last column stays free: some terminals go on to the next line with it. */
		int room = (int)(printer.width ? printer.width : 80) - len - 9;
		if (room >= BAR_MIN)
			draw_bar(done, total, (size_t)MIN(room, BAR_MAX));
		fprintf(stderr, " %3d%% ", total > 0 ? (int)(MIN(done, total) * 100 / total) : 100);
	}
	fprintf(stderr, "%s\r", text);
	fflush(stderr);
}

void progress_show(struct progress *progress, int64_t done, int64_t total, const char *what)
{
	show(progress, done, total, what, done, total);
}

void progress_show_part(struct progress *progress, int64_t n, const char *what, int64_t done, int64_t total)
{
	show(progress, n, -1, what, done, total);
}

void progress_say(struct progress *progress, const char *text)
{
	if (!isatty(STDERR_FILENO))
		return;
	progress->is_shown = true;
	fprintf(stderr, "\r\033[K%s\r", text);
	fflush(stderr);
}

void progress_clear(struct progress *progress)
{
	if (progress->is_shown)
		fputs("\r\033[K", stderr);
	progress->is_shown = false;
}
