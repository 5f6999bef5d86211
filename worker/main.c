/* gatherd - the daemon: argv, settings, exit codes. Everything else is in the library. */
#include "base.h"
#include "kafka_check.h"
#include "kafka_conf.h"
#include "lifecycle.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "options.h"

#include <curl/curl.h>
#include <getopt.h>
#include <stdio.h>
#include <unistd.h>

extern char **environ;

enum { EXIT_CLEAN, EXIT_FATAL, EXIT_USAGE };

struct args {
	const char *config;
	char **overrides;
	size_t n_overrides;
	bool check;
};

static int load(void *ctx, struct options **ret_opts, char **ret_errors, char **ret_warnings)
{
	const struct args *args = ctx;

	return options_load(args->config, args->overrides, args->n_overrides, environ, ret_opts, ret_errors, ret_warnings);
}

static void usage(FILE *to)
{
	fputs("Usage: gatherd [-c FILE] [-o key=value]... [--check]\n"
	      "       gatherd --options[=markdown] | --metrics | --version | --help\n\n"
	      "  -c FILE            settings: key = value lines, [host \"GLOB\"] sections\n"
	      "  -o key=value       one setting; wins over the file and the environment\n"
	      "  --check            test the settings and the live cluster, then exit\n"
	      "  --options          every setting with its default and limits\n"
	      "  --metrics          every metric, as Markdown\n\n"
	      "SIGTERM drains, a second one cuts, SIGHUP reads the settings again.\n"
	      "Exit codes: 0 clean, 1 fatal, 2 usage or settings.\n",
	      to);
}

/* Prints and says which exit code, or -1 to go on. */
static int parse(int argc, char **argv, struct args *args)
{
	static const struct option longs[] = {{"check", no_argument, NULL, 'k'},   {"options", optional_argument, NULL, 'O'},
					      {"metrics", no_argument, NULL, 'M'}, {"version", no_argument, NULL, 'V'},
					      {"help", no_argument, NULL, 'h'},	   {0}};
	int opt;

	args->overrides = xcalloc((size_t)argc, sizeof(*args->overrides));
	while ((opt = getopt_long(argc, argv, "c:o:h", longs, NULL)) != -1) {
		switch (opt) {
		case 'c':
			args->config = optarg;
			break;
		case 'o':
			args->overrides[args->n_overrides++] = optarg;
			break;
		case 'k':
			args->check = true;
			break;
		case 'O':
			options_print(stdout, optarg && strcmp(optarg, "markdown") == 0);
			return EXIT_CLEAN;
		case 'M':
			metrics_print_docs(stdout);
			return EXIT_CLEAN;
		case 'V':
			printf("gatherd " GATHERD_VERSION " (librdkafka %s)\n", kafka_conf_library());
			return EXIT_CLEAN;
		case 'h':
			usage(stdout);
			return EXIT_CLEAN;
		default:
			usage(stderr);
			return EXIT_USAGE;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "gatherd: unexpected argument: %s\n", argv[optind]);
		usage(stderr);
		return EXIT_USAGE;
	}
	return -1;
}

static int run(struct args *args, struct options *opts)
{
	struct log *log = log_new(STDERR_FILENO, (enum log_level)opts->log_level, (enum log_format)opts->log_format);
	struct worker_config config = {.opts = opts, .log = log, .load = load, .ctx = args};
	struct worker *worker;
	char *error = NULL;
	int code = EXIT_FATAL;

	int err = worker_new(&config, &worker, &error);
	if (err) {
		fprintf(stderr, "gatherd: %s\n", error ? error : err_text(err));
		code = err == -ERR_INVALID ? EXIT_USAGE : EXIT_FATAL;
	} else {
		loop_guard(worker_loop(worker), WORKER_TURN_LIMIT_US, WORKER_STALL_LOG_EVERY_US, WORKER_STALL_GIVE_UP_US);
		code = worker_run(worker);
		worker_free(worker);
	}
	free(error);
	log_free(log);
	return code;
}

int main(int argc, char **argv)
{
	struct args args = {0};
	struct options *opts = NULL;
	char *errors = NULL, *warnings = NULL;
	int code = parse(argc, argv, &args);

	if (code < 0) {
		curl_global_init(CURL_GLOBAL_DEFAULT);
		int err = load(&args, &opts, &errors, &warnings);
		if (warnings)
			fprintf(stderr, "gatherd: warning: %s\n", warnings);
		if (err) {
			fprintf(stderr, "gatherd: the settings are not usable:\n%s\n", errors ? errors : err_text(err));
			code = EXIT_USAGE;
		} else if (args.check) {
			code = kafka_check(opts, stdout);
			options_free(opts);
		} else {
			code = run(&args, opts);
		}
		curl_global_cleanup();
	}
	free(errors);
	free(warnings);
	free(args.overrides);
	return code;
}
