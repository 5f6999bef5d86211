/* What the fuzz targets share. */
#ifndef GATHERD_TESTS_FUZZ_H
#define GATHERD_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Not assert: it must also stop a build with NDEBUG. */
static inline void must(bool is_so, const char *claim, const char *text)
{
	if (is_so)
		return;
	fprintf(stderr, "%s: %s\n", claim, text);
	abort();
}

#endif
