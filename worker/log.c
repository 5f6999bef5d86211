#include "log_internal.h"

#include "clock.h"
#include "thread.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#define RING_BYTES ((size_t)1 << 20)
#define CLOSE_MS 1000
/* How often a thread that waits for a full pipe looks whether it has to end. */
#define POLL_MS 100

struct log {
	int fd;
	_Atomic int level, format;
	_Atomic uint64_t n_dropped;
	pthread_t thread;
	pthread_mutex_t mutex; /* guards all below */
	pthread_cond_t wake, ended, written;
	bool has_ended, is_writing;
	int64_t close_at_us;	/* 0 = running */
	uint64_t n_dropped_now; /* not yet said in a line */
	struct log_limit limit;
	size_t head, len; /* of the bytes in the ring */
	char ring[RING_BYTES];
};

static void ring_put(struct log *log, const char *data, size_t len)
{
	size_t at = (log->head + log->len) % RING_BYTES, first = MIN(len, RING_BYTES - at);

	memcpy(log->ring + at, data, first);
	memcpy(log->ring, data + first, len - first);
	log->len += len;
}

/* Takes up to a page of whole lines out of the ring (a line is never longer); their length. */
static size_t ring_take(struct log *log, char out[static LOG_LINE_MAX])
{
	size_t len = MIN(log->len, (size_t)LOG_LINE_MAX), first = MIN(len, RING_BYTES - log->head);

	memcpy(out, log->ring + log->head, first);
	memcpy(out + first, log->ring, len - first);
	while (len && out[len - 1] != '\n')
		len--;
	log->head = (log->head + len) % RING_BYTES;
	log->len -= len;
	return len;
}

/* With the mutex held. A line that fits brings with it the one that says how many did not. */
static void put_line(struct log *log, const char *line, size_t len)
{
	char notice[LOG_LINE_MAX];
	size_t n = 0;

	if (log->n_dropped_now)
		n = log_line(notice, (enum log_format)atomic_load(&log->format), clock_epoch_ms(), LOG_WARN,
			     "log lines dropped", (struct log_field[]){LOG_NUM("count", log->n_dropped_now), {0}});
	if (n + len > RING_BYTES - log->len) {
		log->n_dropped_now++;
		atomic_fetch_add(&log->n_dropped, 1);
		return;
	}
	ring_put(log, notice, n);
	ring_put(log, line, len);
	log->n_dropped_now = 0;
}

/* With the mutex held. */
static void put_sums(struct log *log, int64_t now_us)
{
	struct log_limited row;
	char line[LOG_LINE_MAX];

	while (log_limit_sum(&log->limit, now_us, &row))
		put_line(log, line,
			 log_line(line, (enum log_format)atomic_load(&log->format), clock_epoch_ms(), row.level,
				  "log lines held back",
				  (struct log_field[]){LOG_STR("of", row.msg), LOG_NUM("count", row.n_held), {0}}));
}

/* Until there is something to write (true) or the log closes and all is written. Leaves with the mutex held. */
static bool wait_for_lines(struct log *log)
{
	for (;;) {
		/* At the end every second counts as over. */
		put_sums(log, log->close_at_us ? INT64_MAX : clock_now_us());
		if (log->len)
			return true;
		if (log->close_at_us)
			return false;
		int64_t next_us = log_limit_next_us(&log->limit);
		if (next_us == INT64_MAX) {
			pthread_cond_wait(&log->wake, &log->mutex);
		} else {
			struct timespec until = {next_us / US_PER_S, next_us % US_PER_S * 1000};
			pthread_cond_timedwait(&log->wake, &log->mutex, &until);
		}
	}
}

/* Whether the time that log_free gives is over. */
static bool is_cut(struct log *log)
{
	pthread_mutex_lock(&log->mutex);
	int64_t close_at_us = log->close_at_us;
	pthread_mutex_unlock(&log->mutex);
	return close_at_us && clock_now_us() >= close_at_us;
}

/* A pipe that poll calls writable takes a page without blocking. What cannot be written at all is thrown away: there is
 * nobody to tell. */
static void write_all(struct log *log, const char *data, size_t len)
{
	struct pollfd pfd = {.fd = log->fd, .events = POLLOUT};

	while (len) {
		if (poll(&pfd, 1, POLL_MS) == 0) {
			if (is_cut(log))
				return;
			continue;
		}
		ssize_t n = write(log->fd, data, len);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return;
		if (n > 0) {
			data += n;
			len -= (size_t)n;
		}
	}
}

static void *log_thread(void *ctx)
{
	struct log *log = ctx;
	char out[LOG_LINE_MAX];

	pthread_mutex_lock(&log->mutex);
	while (wait_for_lines(log)) {
		size_t len = ring_take(log, out);
		log->is_writing = true;
		pthread_mutex_unlock(&log->mutex);
		if (!is_cut(log))
			write_all(log, out, len);
		pthread_mutex_lock(&log->mutex);
		log->is_writing = false;
		pthread_cond_broadcast(&log->written);
	}
	log->has_ended = true;
	pthread_cond_signal(&log->ended);
	pthread_mutex_unlock(&log->mutex);
	return NULL;
}

struct log *log_new(int fd, enum log_level level, enum log_format format)
{
	struct log *log = xcalloc(1, sizeof(*log));
	pthread_condattr_t attr;

	log->fd = fd;
	log_set(log, level, format);
	pthread_mutex_init(&log->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&log->wake, &attr);
	pthread_cond_init(&log->ended, &attr);
	pthread_cond_init(&log->written, &attr);
	pthread_condattr_destroy(&attr);
	if (thread_start(&log->thread, log_thread, log))
		abort();
	return log;
}

/* Waits CLOSE_MS, and a little for the thread to see it. With the mutex held. */
static bool wait_for_end(struct log *log)
{
	int64_t until_us = log->close_at_us + 3 * POLL_MS * US_PER_MS;
	struct timespec until = {until_us / US_PER_S, until_us % US_PER_S * 1000};

	while (!log->has_ended)
		if (pthread_cond_timedwait(&log->ended, &log->mutex, &until) == ETIMEDOUT)
			break;
	return log->has_ended;
}

void log_free(struct log *log)
{
	if (!log)
		return;
	pthread_mutex_lock(&log->mutex);
	log->close_at_us = clock_now_us() + CLOSE_MS * US_PER_MS;
	pthread_cond_signal(&log->wake);
	bool has_ended = wait_for_end(log);
	pthread_mutex_unlock(&log->mutex);
	/* A thread stuck in write(2) (a device that poll misjudges) still uses the memory: both are left to the
	 * process's end. */
	if (!has_ended) {
		pthread_detach(log->thread);
		return;
	}
	pthread_join(log->thread, NULL);
	pthread_mutex_destroy(&log->mutex);
	pthread_cond_destroy(&log->wake);
	pthread_cond_destroy(&log->ended);
	pthread_cond_destroy(&log->written);
	free(log);
}

void log_flush(struct log *log, int64_t wait_ms)
{
	if (!log)
		return;
	int64_t until_us = clock_now_us() + wait_ms * US_PER_MS;
	struct timespec until = {until_us / US_PER_S, until_us % US_PER_S * 1000};

	pthread_mutex_lock(&log->mutex);
	while ((log->len || log->is_writing) && pthread_cond_timedwait(&log->written, &log->mutex, &until) != ETIMEDOUT)
		;
	pthread_mutex_unlock(&log->mutex);
}

void log_set(struct log *log, enum log_level level, enum log_format format)
{
	if (!log)
		return;
	atomic_store(&log->level, (int)level);
	atomic_store(&log->format, (int)format);
}

uint64_t log_dropped(const struct log *log)
{
	return log ? atomic_load(&log->n_dropped) : 0;
}

void log_write(struct log *log, enum log_level level, const char *msg, const struct log_field *fields)
{
	char line[LOG_LINE_MAX];

	if (!log || (int)level < atomic_load(&log->level))
		return;
	/* Two short sections, so that a line that is held back costs no formatting and a line is formatted without the
	 * lock. */
	pthread_mutex_lock(&log->mutex);
	size_t n_holding = log->limit.n_holding;
	bool passes = log_limit_pass(&log->limit, level, msg, clock_now_us());
	/* The thread has to wake at the end of that second now. */
	if (log->limit.n_holding != n_holding)
		pthread_cond_signal(&log->wake);
	pthread_mutex_unlock(&log->mutex);
	if (!passes)
		return;
	size_t len = log_line(line, (enum log_format)atomic_load(&log->format), clock_epoch_ms(), level, msg, fields);
	pthread_mutex_lock(&log->mutex);
	put_line(log, line, len);
	pthread_cond_signal(&log->wake);
	pthread_mutex_unlock(&log->mutex);
}
