/* thread - a thread that takes no signal: they are the loop's, and one that writes must not be ended by SIGPIPE.
 *
 * Layer 0, header only. */
#ifndef GATHERD_THREAD_H
#define GATHERD_THREAD_H

#include "base.h"

#include <pthread.h>
#include <signal.h>

/* 0, or what pthread_create said. */
static inline int thread_start(pthread_t *ret_thread, void *(*run)(void *ctx), void *ctx)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int err = pthread_create(ret_thread, NULL, run, ctx);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return err;
}

#endif
