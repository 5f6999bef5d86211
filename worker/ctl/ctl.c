/* gatherctl: main, the table of commands, and what they share. */
#include "ctl.h"
#include "err.h"

#include <errno.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <unistd.h>

static const struct ctl_command *const commands[] = {
    &submit_command,
    &tail_command,
    &feed_command,
    &status_command,
    &offsets_command,
    &dlq_command,
    &replay_command,
    &try_command,
    &topics_command,
    &check_command,
    &sandbox_command,
    &completion_command,
};

const struct ctl_command *const *ctl_commands(size_t *ret_n)
{
	*ret_n = ARRAY_LEN(commands);
	return commands;
}

/* The only globals: a signal handler has nowhere else to write. */
static volatile sig_atomic_t got_signal, got_hangup;

static void on_signal(int signum)
{
	got_signal = signum;
}

bool ctl_stopped(void)
{
	return got_signal != 0;
}

/* One shot, so that a second Ctrl-C always works. */
static void catch_stop(void (*handler)(int signum), int flags)
{
	struct sigaction stop = {.sa_handler = handler, .sa_flags = (int)SA_RESETHAND | flags};

	sigaction(SIGINT, &stop, NULL);
	sigaction(SIGTERM, &stop, NULL);
}

static void catch_signals(void)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN};

	catch_stop(on_signal, SA_RESTART);
	sigaction(SIGPIPE, &ignore, NULL);
}

void ctl_stop_reads(bool is_wanted)
{
	if (!ctl_stopped())
		catch_stop(on_signal, is_wanted ? 0 : SA_RESTART);
}

static void end_now(int signum)
{
	_exit(CTL_FAILED);
}

void ctl_end_at_once(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	catch_stop(end_now, 0);
	if (ctl_stopped())
		_exit(CTL_FAILED);
}

static void on_hangup(int signum)
{
	got_hangup = 1;
}

void ctl_catch_hangup(void)
{
	struct sigaction again = {.sa_handler = on_hangup};

	sigaction(SIGHUP, &again, NULL);
}

bool ctl_take_hangup(void)
{
	bool came = got_hangup != 0;

	got_hangup = 0;
	return came;
}

void ctl_vsay(const struct ctl *ctl, const char *fmt, va_list ap)
{
	fprintf(stderr, "gatherctl %s: ", ctl->command->name);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
}

void ctl_say(const struct ctl *ctl, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	ctl_vsay(ctl, fmt, ap);
	va_end(ap);
}

bool ctl_reader_gone(void)
{
	struct pollfd fd = {.fd = STDOUT_FILENO, .events = POLLOUT};

	return poll(&fd, 1, 0) == 1 && (fd.revents & POLLERR);
}

int ctl_close_stdout(const struct ctl *ctl)
{
	errno = 0;
	if ((fflush(stdout) == 0 && !ferror(stdout)) || ctl_reader_gone())
		return CTL_OK;
	ctl_say(ctl, "cannot write the output: %s", errno ? strerror(errno) : "write error");
	return CTL_FAILED;
}

static void usage(FILE *out)
{
	fprintf(out, "gatherctl - put URL jobs in, see results come out\n\nusage: gatherctl COMMAND [OPTION]... "
		     "[ARGUMENT]...\n\ncommands:\n");
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
	fprintf(out,
		"\n  gatherctl COMMAND --help   options and examples of one command\n"
		"  gatherctl --version\n\nstart here:\n"
		"  gatherctl sandbox                     a broker and a web server to play with\n"
		"  gatherctl submit -b HOST:PORT https://example.com/\n"
		"  gatherctl tail -b HOST:PORT --from-beginning\n");
}

static const struct ctl_command *command_of(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (strcmp(commands[i]->name, name) == 0)
			return commands[i];
	return NULL;
}

static size_t count(char *const list[])
{
	size_t n = 0;

	while (list && list[n])
		n++;
	return n;
}

int ctl_load(const struct ctl *ctl, char *const below[], char *const above[], struct options **ret_opts, char **ret_errors,
	     char **ret_warnings)
{
	size_t n = 0;
	char **all = xcalloc(count(below) + ctl->overrides.n + count(above) + 2, sizeof(all[0]));
	char *brokers = ctl->brokers ? xasprintf("kafka.bootstrap.servers=%s", ctl->brokers) : NULL;

	for (size_t i = 0; i < count(below); i++)
		all[n++] = below[i];
	for (size_t i = 0; i < ctl->overrides.n; i++)
		all[n++] = ctl->overrides.v[i];
	if (brokers)
		all[n++] = brokers;
	for (size_t i = 0; i < count(above); i++)
		all[n++] = above[i];
	int err = options_load(ctl->config, all, n, environ, ret_opts, ret_errors, ret_warnings);
	free(brokers);
	free(all);
	return err;
}

/* Says what is wrong. */
static int load_settings(struct ctl *ctl)
{
	char *errors = NULL, *warnings = NULL;
	int err = ctl_load(ctl, NULL, NULL, &ctl->settings, &errors, &warnings);

	if (err)
		fprintf(stderr, "%s%s", errors ? errors : "the settings cannot be read",
			errors && *errors && errors[strlen(errors) - 1] == '\n' ? "" : "\n");
	/* The environment of a gatherctl is seldom a worker's: what it does not know there is only for the curious. */
	if (warnings && ctl->is_verbose)
		fprintf(stderr, "%s\n", warnings);
	free(errors);
	free(warnings);
	return err;
}

static int run(const struct ctl_command *command, int argc, char **argv)
{
	struct ctl ctl = {.command = command};
	void *args = xcalloc(1, command->args_size);
	int first, code = CTL_USAGE;

	if (args_parse(&ctl, argc, argv, args, &first))
		goto out;
	if (ctl.is_help) {
		args_help(command, stdout);
		code = ctl_close_stdout(&ctl);
		goto out;
	}
	if (command->has_settings && load_settings(&ctl))
		goto out;
	catch_signals();
	code = command->run(&ctl, args, argc - first, argv + first);
out:
	options_free(ctl.settings);
	args_done(&ctl, args);
	return code;
}

int main(int argc, char **argv)
{
	const char *word = argc > 1 ? argv[1] : "";

	/* Only for the width of characters; numbers and times stay as they are in C. */
	setlocale(LC_CTYPE, "C.UTF-8");
	if (strcmp(word, "--version") == 0) {
		printf("gatherctl %s (librdkafka %s)\n", GATHERD_VERSION, rd_kafka_version_str());
		return CTL_OK;
	}
	bool is_help = strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0;
	const struct ctl_command *command = command_of(is_help && argc > 2 ? argv[2] : word);
	if (is_help) {
		if (command)
			args_help(command, stdout);
		else
			usage(stdout);
		return CTL_OK;
	}
	if (!command) {
		if (*word)
			fprintf(stderr, "gatherctl: there is no command %s\n\n", word);
		usage(stderr);
		return CTL_USAGE;
	}
	return run(command, argc - 1, argv + 1);
}
