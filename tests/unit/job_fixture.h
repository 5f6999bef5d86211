/* job_fixture - one record and what job_decode made of it. */
#ifndef GATHERD_TEST_JOB_FIXTURE_H
#define GATHERD_TEST_JOB_FIXTURE_H

#include "job.h"

#define NOW_MS INT64_C(1700000000000)
#define B(text)                                                                                                        \
	{                                                                                                              \
		(const uint8_t *)(text), sizeof(text) - 1                                                              \
	}

struct decoded {
	struct arena arena;
	struct record rec;
	uint8_t *value;
	struct job job;
	const char *detail;
	int err;
};

/* The value lies in a block of just its size: the sanitizer sees a read past its end. */
static inline struct decoded *decode_with(enum job_format format, struct span value,
					  const struct record_header *headers, size_t n_headers)
{
	struct decoded *d = xcalloc(1, sizeof(*d));

	arena_init(&d->arena, 1024);
	if (value.data)
		d->value = memcpy(xmalloc(value.len ? value.len : 1), value.data, value.len);
	d->rec = (struct record){.topic = "jobs",
				 .partition = 3,
				 .offset = 42,
				 .value = {d->value, value.len},
				 .headers = headers,
				 .n_headers = n_headers};
	d->err = job_decode(&d->arena, &d->rec, format, NOW_MS, &d->job, &d->detail);
	return d;
}

static inline struct decoded *decode(enum job_format format, struct span value)
{
	return decode_with(format, value, NULL, 0);
}

static inline void done(struct decoded *d)
{
	arena_done(&d->arena);
	free(d->value);
	free(d);
}

#endif
