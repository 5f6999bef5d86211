/* gatherctl check - gatherd --check, from where gatherctl runs. */
#include "ctl.h"
#include "kafka_check.h"

struct check_args {
	char none;
};

static const struct ctl_option check_options[] = {
    {NULL, 0, CTL_FLAG, 0, NULL, NULL, 0, 0, 0},
};

static int check_run(struct ctl *ctl, const void *raw, int argc, char **argv)
{
	if (argc) {
		ctl_say(ctl, "takes no arguments: %s", argv[0]);
		return CTL_USAGE;
	}
	ctl_end_at_once();
	int failed = kafka_check(ctl->settings, stdout), code = ctl_close_stdout(ctl);
	return failed ? CTL_FAILED : code;
}

const struct ctl_command check_command = {
    .name = "check",
    .summary = "test the settings against the live cluster, as gatherd --check does",
    .synopsis = "[OPTION]...",
    .options = check_options,
    .args_size = sizeof(struct check_args),
    .has_settings = true,
    .details = "One line per question: ok, warning or FAILED. Exit 1 when one failed.\n",
    .examples = "  gatherctl check -b localhost:9092\n"
		"  gatherctl check -c /etc/gatherd/gatherd.conf\n",
    .run = check_run,
};
