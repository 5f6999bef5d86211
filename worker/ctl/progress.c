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

static void take_sample(struct progress *progress, int64_t now_us, int64_t done)
{
	size_t last = (progress->n_samples + PROGRESS_SAMPLES - 1) % PROGRESS_SAMPLES;

	if (progress->n_samples && now_us - progress->samples[last].at_us < SAMPLE_EVERY_US)
		return;
	progress->samples[progress->n_samples % PROGRESS_SAMPLES].at_us = now_us;
	progress->samples[progress->n_samples++ % PROGRESS_SAMPLES].done = done;
}

/* A second, of the last samples; 0 = not known yet. */
static double rate_of(const struct progress *progress, int64_t now_us, int64_t done)
{
	size_t n = progress->n_samples, first = n > PROGRESS_SAMPLES ? n % PROGRESS_SAMPLES : 0;
	int64_t took_us = n ? now_us - progress->samples[first].at_us : 0;

	return took_us < US_PER_S ? 0 : (double)(done - progress->samples[first].done) * US_PER_S / (double)took_us;
}

static void draw_bar(int64_t done, int64_t total, size_t width)
{
	size_t full = total > 0 ? (size_t)((double)done / (double)total * (double)width) : width;

	fputc('[', stderr);
	for (size_t i = 0; i < width; i++)
		fputc(i < full ? '#' : '.', stderr);
	fputc(']', stderr);
}

void progress_show(struct progress *progress, int64_t done, int64_t total, const char *what)
{
	char text[128], a[32], b[32], c[32], left[32] = "?";
	int64_t now_us = clock_now_us();
	struct printer printer;

	if (!isatty(STDERR_FILENO) || (progress->shown_us && now_us - progress->shown_us < SHOW_EVERY_US))
		return;
	progress->shown_us = now_us;
	progress->is_shown = true;
	take_sample(progress, now_us, done);
	double rate = rate_of(progress, now_us, done);
	if (rate > 0 && done < total)
		table_age((int64_t)ceil((double)(total - done) / rate) * 1000, left, sizeof(left));
	else if (done >= total)
		snprintf(left, sizeof(left), "0s");
	int len = snprintf(text, sizeof(text), " %3d%% %s/%s %s %s/s ETA %s",
			   total > 0 ? (int)(done * 100 / total) : 100, progress_number(done, a, sizeof(a)),
			   progress_number(total, b, sizeof(b)), what, progress_number((int64_t)rate, c, sizeof(c)), left);
	printer_init(&printer, stderr, PRINT_TABLE, PRINT_NONE);
	/* The last column stays free: some terminals go on to the next line with it. */
	int room = (int)(printer.width ? printer.width : 80) - len - 3;
	fputs("\r\033[K", stderr);
	if (room >= BAR_MIN)
		draw_bar(done, total, (size_t)MIN(room, BAR_MAX));
	fprintf(stderr, "%s\r", text);
	fflush(stderr);
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
