/* gatherctl completion - a script for the shell, made from the same tables as the parser and --help. */
#include "ctl.h"

struct completion_args {
	bool none;
};

static const struct ctl_option completion_options[] = {
    {NULL, 0, CTL_FLAG, 0, NULL, NULL, 0, 0, 0},
};

static void put_choices(const struct ctl_option *row)
{
	for (const char *at = row->arg; *at; at++)
		putchar(*at == '|' ? ' ' : *at);
}

/* In single quotes, as every shell reads them. */
static void put_quoted(const char *text)
{
	putchar('\'');
	for (; *text; text++)
		*text == '\'' ? (void)fputs("'\\''", stdout) : (void)putchar(*text);
	putchar('\'');
}

/* --- bash; zsh understands the same by bashcompinit, but for a variable `words` --- */

/* Words for the value of an option, where it has some. What has none is left to the shell: file names. */
static void on_choice(void *ctx, const struct ctl_option *row)
{
	const char *command = ctx;

	if (row->type != CTL_CHOICE)
		return;
	printf("    %s:--%s) list='", command, row->name);
	put_choices(row);
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

	printf("# bash and zsh completion of gatherctl %s\n"
	       "[ -z \"${ZSH_VERSION:-}\" ] || { autoload -U +X bashcompinit && bashcompinit; }\n_gatherctl() {\n"
	       "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} list=\n"
	       "    COMPREPLY=()\n    if [ \"$COMP_CWORD\" = 1 ]; then\n        list='",
	       GATHERD_VERSION);
	for (size_t i = 0; i < n; i++)
		printf("%s ", commands[i]->name);
	printf("help --help --version'\n    else\n    case ${command}:${prev} in\n    help:*) list='");
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

		printf("        %s) list='%s", commands[i]->name, words ? words : "");
		args_each(commands[i], on_name, NULL);
		printf("' ;;\n");
	}
	printf("        esac ;;\n    esac\n    fi\n    COMPREPLY=($(compgen -W \"$list\" -- \"$cur\"))\n}\n"
	       "complete -o default -F _gatherctl gatherctl\n");
}

/* --- fish: a line for each option --- */

static void on_fish_option(void *ctx, const struct ctl_option *row)
{
	printf("complete -c gatherctl -n '__gatherctl_is %s' -l %s", (const char *)ctx, row->name);
	if (row->letter)
		printf(" -s %c", row->letter);
	if (row->type == CTL_CHOICE) {
		printf(" -x -a '");
		put_choices(row);
		putchar('\'');
	} else if (row->type != CTL_FLAG) {
		printf(" -r");
	}
	printf(" -d ");
	put_quoted(row->help);
	putchar('\n');
}

static void print_fish(void)
{
	size_t n;
	const struct ctl_command *const *commands = ctl_commands(&n);

	printf("# fish completion of gatherctl %s\nfunction __gatherctl_is\n    set -l words (commandline -opc)\n"
	       "    contains -- \"$words[2]\" $argv\nend\ncomplete -c gatherctl -n '__gatherctl_is \"\"' -f -a 'help --help --version'\n",
	       GATHERD_VERSION);
	for (size_t i = 0; i < n; i++) {
		printf("complete -c gatherctl -n '__gatherctl_is \"\" help' -f -a %s -d ", commands[i]->name);
		put_quoted(commands[i]->summary);
		putchar('\n');
		if (commands[i]->words)
			printf("complete -c gatherctl -n '__gatherctl_is %s' -f -a '%s'\n", commands[i]->name, commands[i]->words);
		args_each(commands[i], on_fish_option, (void *)(uintptr_t)commands[i]->name);
	}
}

static int completion_run(struct ctl *ctl, const void *raw, int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*print)(void);
	} shells[] = {{"bash", print_bash}, {"zsh", print_bash}, {"fish", print_fish}};

	for (size_t i = 0; argc == 1 && i < ARRAY_LEN(shells); i++) {
		if (strcmp(argv[0], shells[i].name) == 0) {
			shells[i].print();
			return ctl_close_stdout(ctl);
		}
	}
	ctl_say(ctl, "for which shell? give one of bash, zsh, fish");
	return CTL_USAGE;
}

const struct ctl_command completion_command = {
    .name = "completion",
    .summary = "print a script that completes commands and options",
    .synopsis = "bash|zsh|fish",
    .words = "bash zsh fish",
    .options = completion_options,
    .args_size = sizeof(struct completion_args),
    .examples = "  source <(gatherctl completion bash)\n"
		"  source <(gatherctl completion zsh)       # after compinit\n"
		"  gatherctl completion bash > ~/.local/share/bash-completion/completions/gatherctl\n"
		"  gatherctl completion fish > ~/.config/fish/completions/gatherctl.fish\n",
    .run = completion_run,
};
