#include <pthread.h>
#include <stdlib.h>
#include <threads.h>
struct start { thrd_start_t fn; void *arg; };
static void *run(void *raw) { struct start s = *(struct start *)raw; free(raw); return (void *)(long)s.fn(s.arg); }
int thrd_create(thrd_t *t, thrd_start_t fn, void *arg)
{ struct start *s = malloc(sizeof(*s)); s->fn = fn; s->arg = arg; return pthread_create(t, NULL, run, s) ? thrd_error : thrd_success; }
int thrd_join(thrd_t t, int *res) { void *r; if (pthread_join(t, &r)) return thrd_error; if (res) *res = (int)(long)r; return thrd_success; }
