/* One reading of settings, for the tests of options. Include after cmocka.h. */
#ifndef GATHERD_TEST_OPTIONS_FIXTURE_H
#define GATHERD_TEST_OPTIONS_FIXTURE_H

#include "options.h"

#include <limits.h>
#include <stdio.h>
#include <unistd.h>

/* One reading: the file's text or NULL, and up to a few -o and variables. */
struct input {
	const char *file;
	const char *overrides[4], *environ[4];
};

struct output {
	struct options *opts;
	char *errors, *warnings;
	int err;
};

static void write_file(const char *path, const void *text, size_t len)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, len, file), len);
	fclose(file);
}

static struct output load(struct input in)
{
	struct output out = {0};
	char *overrides[4], *environ_block[5] = {NULL};
	size_t n = 0;

	for (; n < ARRAY_LEN(overrides) && in.overrides[n]; n++)
		overrides[n] = xstrdup(in.overrides[n]);
	for (size_t i = 0; i < ARRAY_LEN(in.environ) && in.environ[i]; i++)
		environ_block[i] = xstrdup(in.environ[i]);
	if (in.file)
		write_file("gatherd.conf", in.file, strlen(in.file));
	out.err = options_load(in.file ? "gatherd.conf" : NULL, overrides, n, environ_block, &out.opts, &out.errors,
			       &out.warnings);
	assert_int_equal(out.err != 0, out.errors != NULL);
	assert_int_equal(out.err != 0, out.opts == NULL);
	for (size_t i = 0; i < n; i++)
		free(overrides[i]);
	for (size_t i = 0; environ_block[i]; i++)
		free(environ_block[i]);
	return out;
}

static void output_done(struct output *out)
{
	options_free(out->opts);
	free(out->errors);
	free(out->warnings);
}

static inline struct output load_fine(struct input in)
{
	struct output out = load(in);

	if (out.err)
		fail_msg("%s", out.errors);
	return out;
}

static char start_dir[PATH_MAX], dir[] = "/tmp/gatherd-options-XXXXXX";

/* In a folder of its own, so that messages name the file as gatherd.conf. */
static int enter_folder(void **state)
{
	return !getcwd(start_dir, sizeof(start_dir)) || !mkdtemp(dir) || chdir(dir);
}

static int leave_folder(void **state)
{
	unlink("gatherd.conf");
	return chdir(start_dir) || rmdir(dir);
}

#endif
