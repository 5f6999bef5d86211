/* gatherctl completion - a script for the shell, made from the same tables as the parser and --help. */
#include "ctl.h"

struct completion_args {
	bool none;
};

static const struct ctl_option completion_options[] = {
    {NULL, 0, CTL_FLAG, 0, NULL, NULL, 0, 0, 0},
};

/* Words for the value of an option, where it has some. What has none is left to the shell: file names. */
static void on_choice(void *ctx, const struct ctl_option *row)
{
	const char *command = ctx;

	if (row->type != CTL_CHOICE)
		return;
	printf("    %s:--%s) words='", command, row->name);
	for (const char *at = row->arg; *at; at++)
		putchar(*at == '|' ? ' ' : *at);
	printf("' ;;\n");
}

static void on_value(void *ctx, const struct ctl_option *row)
{
	const char *command = ctx;

	if (row->type == CTL_FLAG || row->type == CTL_CHOICE)
		return;
	printf("    %s:--%s) return ;;\n", command, row->name);
	if (row->letter)
		printf("    %s:-%c) return ;;\n", command, row->letter);
}

static void on_name(void *ctx, const struct ctl_option *row)
{
	printf(" --%s", row->name);
}

static void print_bash(void)
{
	size_t n;
	const struct ctl_command *const *commands = ctl_commands(&n);

	printf("# bash completion of gatherctl %s\n_gatherctl() {\n"
	       "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} words=\n"
	       "    COMPREPLY=()\n    if [ \"$COMP_CWORD\" = 1 ]; then\n        words='",
	       GATHERD_VERSION);
	for (size_t i = 0; i < n; i++)
		printf("%s ", commands[i]->name);
	printf("help --help --version'\n    else\n    case $command:$prev in\n    help:*) words='");
	for (size_t i = 0; i < n; i++)
		printf("%s%s", i ? " " : "", commands[i]->name);
	printf("' ;;\n");
	for (size_t i = 0; i < n; i++) {
		args_each(commands[i], on_choice, (void *)(uintptr_t)commands[i]->name);
		args_each(commands[i], on_value, (void *)(uintptr_t)commands[i]->name);
	}
	printf("    *)\n        case $command in\n");
	for (size_t i = 0; i < n; i++) {
		const char *words = commands[i]->words;

		printf("        %s) words='%s", commands[i]->name, words ? words : "");
		args_each(commands[i], on_name, NULL);
		printf("' ;;\n");
	}
	printf("        esac ;;\n    esac\n    fi\n    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n"
	       "complete -o default -F _gatherctl gatherctl\n");
}

static int completion_run(struct ctl *ctl, const void *raw, int argc, char **argv)
{
	if (argc != 1 || strcmp(argv[0], "bash") != 0) {
		ctl_say(ctl, "for which shell? bash is the one that there is");
		return CTL_USAGE;
	}
	print_bash();
	return ctl_close_stdout(ctl);
}

const struct ctl_command completion_command = {
    .name = "completion",
    .summary = "print a script that completes commands and options",
    .synopsis = "bash",
    .words = "bash",
    .options = completion_options,
    .args_size = sizeof(struct completion_args),
    .examples = "  source <(gatherctl completion bash)\n"
		"  gatherctl completion bash > ~/.local/share/bash-completion/completions/gatherctl\n",
    .run = completion_run,
};
