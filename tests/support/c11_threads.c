/* C11's threads over POSIX's, for ThreadSanitizer builds only: its runtime does not see thrd_create, by which Debian's librdkafka
 * starts its threads, and crashes in the first one. The mutexes are left alone: wrapped, they give false lock-order reports. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <threads.h>

struct start {
	thrd_start_t fn;
	void *arg;
};

static void *run(void *ctx)
{
	struct start start = *(struct start *)ctx;

	free(ctx);
	return (void *)(intptr_t)start.fn(start.arg);
}

int thrd_create(thrd_t *thread, thrd_start_t fn, void *arg)
{
	struct start *start = malloc(sizeof(*start));

	if (!start)
		return thrd_nomem;
	*start = (struct start){fn, arg};
	if (pthread_create(thread, NULL, run, start) == 0)
		return thrd_success;
	free(start);
	return thrd_error;
}

int thrd_join(thrd_t thread, int *res)
{
	void *ret;

	if (pthread_join(thread, &ret))
		return thrd_error;
	if (res)
		*res = (int)(intptr_t)ret;
	return thrd_success;
}
