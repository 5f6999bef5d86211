#include "helper.h"
#include "clock.h"
#include "thread.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Jobs in the order they came; guarded by helper->lock. */
struct queue {
	struct helper_job *first, *last;
};

struct helper {
	struct loop *loop;
	size_t n_pending; /* of the loop's thread */
	pthread_t thread;
	int fd; /* wakes the loop: there is something in done */

	pthread_mutex_t lock;
	pthread_cond_t wake;  /* the thread: a job or the end */
	pthread_cond_t ended; /* helper_free, helper_cancel: the thread or its job has ended */
	struct queue asked, done;
	struct helper_job *running;
	uint64_t n_begun;
	bool is_closing, is_ended;
	bool is_abandoned; /* helper_free did not wait: the thread frees */
};

static void queue_push(struct queue *queue, struct helper_job *job)
{
	job->next = NULL;
	if (queue->last)
		queue->last->next = job;
	else
		queue->first = job;
	queue->last = job;
}

static struct helper_job *queue_pop(struct queue *queue)
{
	struct helper_job *job = queue->first;

	if (job)
		queue->first = job->next;
	if (!queue->first)
		queue->last = NULL;
	return job;
}

static bool queue_remove(struct queue *queue, const struct helper_job *job)
{
	struct helper_job *before = NULL, *at = queue->first;

	while (at && at != job) {
		before = at;
		at = at->next;
	}
	if (!at)
		return false;
	if (before)
		before->next = at->next;
	else
		queue->first = at->next;
	if (queue->last == at)
		queue->last = before;
	return true;
}

static void helper_destroy(struct helper *helper)
{
	close(helper->fd);
	pthread_mutex_destroy(&helper->lock);
	pthread_cond_destroy(&helper->wake);
	pthread_cond_destroy(&helper->ended);
	free(helper);
}

static void *thread_main(void *ctx)
{
	struct helper *helper = ctx;
	struct helper_job *job;
	uint64_t one = 1;

	pthread_mutex_lock(&helper->lock);
	for (;;) {
		while (!helper->is_closing && !helper->asked.first)
			pthread_cond_wait(&helper->wake, &helper->lock);
		if (helper->is_closing)
			break;
		job = helper->running = queue_pop(&helper->asked);
		helper->n_begun++;
		pthread_mutex_unlock(&helper->lock);
		job->run(job->ctx);
		pthread_mutex_lock(&helper->lock);
		/* Given up: the job's memory may be gone with its owner. */
		if (helper->is_abandoned)
			break;
		queue_push(&helper->done, job);
		helper->running = NULL;
		pthread_cond_signal(&helper->ended);
		if (write(helper->fd, &one, sizeof(one)) < 0)
			assert(errno == EAGAIN || errno == EINTR);
	}
	helper->is_ended = true;
	bool is_abandoned = helper->is_abandoned;
	pthread_cond_signal(&helper->ended);
	pthread_mutex_unlock(&helper->lock);
	if (is_abandoned)
		helper_destroy(helper);
	return NULL;
}

static void on_done(void *ctx, int fd)
{
	struct helper *helper = ctx;
	struct helper_job *job;
	uint64_t count;

	if (read(fd, &count, sizeof(count)) < 0)
		return;
	pthread_mutex_lock(&helper->lock);
	struct queue done = helper->done;
	helper->done = (struct queue){0};
	pthread_mutex_unlock(&helper->lock);
	while ((job = queue_pop(&done))) {
		helper->n_pending--;
		if (job->done)
			job->done(job->ctx); /* may submit the job again or free it */
	}
}

struct helper *helper_new(struct loop *loop)
{
	struct helper *helper = xcalloc(1, sizeof(*helper));
	pthread_condattr_t attr;

	helper->loop = loop;
	helper->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	pthread_mutex_init(&helper->lock, NULL);
	pthread_cond_init(&helper->wake, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&helper->ended, &attr);
	pthread_condattr_destroy(&attr);
	if (helper->fd < 0 || thread_start(&helper->thread, thread_main, helper))
		abort();
	pthread_setname_np(helper->thread, "helper");
	loop_watch(loop, helper->fd, on_done, helper);
	return helper;
}

static struct timespec time_in(int64_t wait_ms)
{
	int64_t until_us = clock_now_us() + wait_ms * US_PER_MS;

	return (struct timespec){until_us / US_PER_S, until_us % US_PER_S * 1000};
}

bool helper_free(struct helper *helper, int64_t wait_ms)
{
	if (!helper)
		return true;
	loop_unwatch(helper->loop, helper->fd);

	struct timespec until = time_in(wait_ms);
	pthread_mutex_lock(&helper->lock);
	helper->is_closing = true;
	pthread_cond_signal(&helper->wake);
	while (!helper->is_ended && pthread_cond_timedwait(&helper->ended, &helper->lock, &until) != ETIMEDOUT)
		;
	bool is_ended = helper->is_ended;
	helper->is_abandoned = !is_ended;
	pthread_t thread = helper->thread;
	if (!is_ended)
		pthread_detach(thread);
	pthread_mutex_unlock(&helper->lock);
	if (is_ended) {
		pthread_join(thread, NULL);
		helper_destroy(helper);
	}
	return is_ended;
}

void helper_submit(struct helper *helper, struct helper_job *job)
{
	helper->n_pending++;
	pthread_mutex_lock(&helper->lock);
	queue_push(&helper->asked, job);
	pthread_cond_signal(&helper->wake);
	pthread_mutex_unlock(&helper->lock);
}

bool helper_cancel(struct helper *helper, struct helper_job *job, int64_t wait_ms)
{
	struct timespec until = time_in(wait_ms);

	pthread_mutex_lock(&helper->lock);
	while (helper->running == job &&
	       pthread_cond_timedwait(&helper->ended, &helper->lock, &until) != ETIMEDOUT)
		;
	bool is_running = helper->running == job;
	if (!is_running && (queue_remove(&helper->asked, job) || queue_remove(&helper->done, job)))
		helper->n_pending--;
	pthread_mutex_unlock(&helper->lock);
	return !is_running;
}

uint64_t helper_running(struct helper *helper)
{
	pthread_mutex_lock(&helper->lock);
	uint64_t number = helper->running ? helper->n_begun : 0;
	pthread_mutex_unlock(&helper->lock);
	return number;
}

size_t helper_pending(const struct helper *helper)
{
	return helper->n_pending;
}
