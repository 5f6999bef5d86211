#include "kafka_internal.h"

#include "clock.h"
#include "err.h"
#include "thread.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#define ERROR_AGAIN_US (60 * US_PER_S)
/* syslog(3): what librdkafka calls a warning or worse. */
#define SYSLOG_WARNING 4

void kafka_handle_set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char reason[256];

	if (rd_kafka_conf_set(conf, name, value, reason, sizeof(reason)) != RD_KAFKA_CONF_OK) {
		fprintf(stderr, "gatherd: kafka.%s = %s: %s\n", name, value, reason);
		abort();
	}
}

int kafka_handle_new(rd_kafka_type_t type, rd_kafka_conf_t *conf, int events, rd_kafka_t **ret_rk, char **ret_error)
{
	char text[512];

	rd_kafka_conf_set_events(conf, events | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG);
	kafka_handle_set(conf, "log.queue", "true");
	*ret_rk = rd_kafka_new(type, conf, text, sizeof(text));
	if (*ret_rk)
		return 0;
	*ret_error = xasprintf("the Kafka client cannot start: %s", text);
	rd_kafka_conf_destroy(conf);
	return -ERR_INVALID;
}

void kafka_queue_watch(rd_kafka_queue_t *queue, int fd)
{
	static const uint64_t one = 1;

	rd_kafka_queue_io_event_enable(queue, fd, &one, sizeof(one));
}

void kafka_queue_drop(rd_kafka_queue_t **queue)
{
	if (!*queue)
		return;
	kafka_queue_watch(*queue, -1);
	rd_kafka_queue_destroy(*queue);
	*queue = NULL;
}

/* ---- logs ---- */

void kafka_log_event(struct log *log, rd_kafka_event_t *ev)
{
	const char *facility, *text;
	int level;

	if (rd_kafka_event_log(ev, &facility, &text, &level))
		return;
	/* FAIL: comes as an ERROR event too. AUTOCREATE: at every request to a mock broker, which does not know
	 * allow.auto.create.topics. */
	bool is_warning =
	    level <= SYSLOG_WARNING && strcmp(facility, "FAIL") != 0 && strcmp(facility, "AUTOCREATE") != 0;
	LOG_AT(log, is_warning ? LOG_WARN : LOG_DEBUG, "librdkafka", LOG_STR("facility", facility),
	       LOG_STR("text", text));
}

bool kafka_log_error(struct log *log, struct kafka_errors *errors, const char *who, rd_kafka_event_t *ev,
		     int64_t now_us)
{
	rd_kafka_resp_err_t err = rd_kafka_event_error(ev);
	size_t oldest = 0;

	for (size_t i = 0; i < ARRAY_LEN(errors->rows); i++) {
		if (errors->rows[i].err == err && now_us - errors->rows[i].at_us < ERROR_AGAIN_US)
			return false;
		if (errors->rows[i].err == err) {
			oldest = i;
			break;
		}
		if (errors->rows[i].at_us < errors->rows[oldest].at_us)
			oldest = i;
	}
	errors->rows[oldest].err = err;
	errors->rows[oldest].at_us = now_us;
	log_warn(log, "Kafka error", LOG_STR("side", who), LOG_STR("code", rd_kafka_err2name(err)),
		 LOG_STR("detail", rd_kafka_event_error_string(ev)));
	return true;
}

/* ---- the end ---- */

#define REAP_MAX 8

struct reaper {
	rd_kafka_t *rks[REAP_MAX];
	size_t n;
	int done_fd; /* closed at the end: whoever still waits sees the other end of the pipe hang up */
};

static void *reap(void *ctx)
{
	struct reaper *reaper = ctx;

	/* A consumer was closed before, or we are at the cut and the group finds out by itself. */
	for (size_t i = 0; i < reaper->n; i++)
		rd_kafka_destroy_flags(reaper->rks[i], RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	close(reaper->done_fd);
	free(reaper);
	return NULL;
}

/* A pipe and not pthread_clockjoin_np: ThreadSanitizer does not know that one, and would take every thread for a leak.
 */
static bool wait_for_end(pthread_t thread, int fd, int64_t wait_ms)
{
	struct pollfd end = {.fd = fd, .events = POLLIN};
	int64_t until_us = clock_now_us() + wait_ms * US_PER_MS;
	int n = 0;

	do {
		int64_t left_ms = MAX((until_us - clock_now_us()) / US_PER_MS, 0);
		n = poll(&end, 1, (int)left_ms);
	} while (n < 0 && errno == EINTR);
	close(fd);
	if (n > 0)
		pthread_join(thread, NULL);
	else
		pthread_detach(thread);
	return n > 0;
}

bool kafka_destroy(rd_kafka_t *const *rks, size_t n, int64_t wait_ms)
{
	struct reaper *reaper = xcalloc(1, sizeof(*reaper));
	pthread_t thread;
	int fds[2];

	assert(n <= REAP_MAX);
	if (pipe2(fds, O_CLOEXEC)) {
		free(reaper);
		return false; /* the handles are left to the exit */
	}
	memcpy(reaper->rks, rks, n * sizeof(*rks));
	reaper->n = n;
	reaper->done_fd = fds[1];
	if (thread_start(&thread, reap, reaper)) {
		close(fds[0]);
		close(fds[1]);
		free(reaper);
		return false;
	}
	return wait_for_end(thread, fds[0], wait_ms);
}
