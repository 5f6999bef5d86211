/* gatherctl sandbox - a broker and a web server to play with, in one process, without Java.
 *
 * Happy path: librdkafka's mock cluster listens on a loopback port -> three topics -> the demo origin listens on
 * another -> "bootstrap=... origin=..." on stdout and in the port file -> serves until SIGINT or SIGTERM. What the mock
 * is not: it forgets all at the end, keeps at most some 5 MB a partition, stores no transactional offsets, and answers
 * no CreateTopics. */
#include "ctl.h"
#include "err.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <librdkafka/rdkafka_mock.h>
#include <signal.h>
#include <unistd.h>

struct sandbox_args {
	const char *port_file;
	int64_t partitions;
};

static const struct ctl_option sandbox_options[] = {
    {"port-file", 'f', CTL_TEXT, offsetof(struct sandbox_args, port_file), "FILE",
     "write the same line there, once all listens", 0, 0, 0},
    {"partitions", 'p', CTL_INT, offsetof(struct sandbox_args, partitions), "N", "partitions of each topic", 1, 1000,
     4},
    {NULL, 0, CTL_FLAG, 0, NULL, NULL, 0, 0, 0},
};

struct sandbox {
	struct ctl *ctl;
	rd_kafka_t *rk;
	rd_kafka_mock_cluster_t *cluster;
	struct event_base *base;
	struct event *on_int, *on_term;
	struct origin *origin;
};

/* The mock's lines about each connection are for its own developers. */
static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
	const struct ctl *ctl = rd_kafka_opaque(rk);

	if (ctl->is_verbose)
		fprintf(stderr, "kafka %d %s: %s\n", level, facility, text);
}

static int start_broker(struct sandbox *sandbox, int partitions)
{
	static const char *const names[] = {"jobs", "results", "dead-letters"};
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char text[256];

	rd_kafka_conf_set_opaque(conf, sandbox->ctl);
	rd_kafka_conf_set_log_cb(conf, on_log);
	sandbox->rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof(text));
	if (!sandbox->rk) {
		ctl_say(sandbox->ctl, "the Kafka library cannot start: %s", text);
		rd_kafka_conf_destroy(conf);
		return -ERR_KAFKA;
	}
	sandbox->cluster = rd_kafka_mock_cluster_new(sandbox->rk, 1);
	if (!sandbox->cluster) {
		ctl_say(sandbox->ctl, "the embedded broker cannot start");
		return -ERR_KAFKA;
	}
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		rd_kafka_resp_err_t err = rd_kafka_mock_topic_create(sandbox->cluster, names[i], partitions, 1);

		if (err) {
			ctl_say(sandbox->ctl, "topic %s: %s", names[i], rd_kafka_err2str(err));
			return -ERR_KAFKA;
		}
	}
	return 0;
}

static void on_stop(evutil_socket_t signum, short events, void *ctx)
{
	event_base_loopbreak(ctx);
}

static int start_loop(struct sandbox *sandbox)
{
	sandbox->base = event_base_new();
	if (!sandbox->base)
		goto fail;
	sandbox->on_int = evsignal_new(sandbox->base, SIGINT, on_stop, sandbox->base);
	sandbox->on_term = evsignal_new(sandbox->base, SIGTERM, on_stop, sandbox->base);
	sandbox->origin = origin_new(sandbox->base);
	if (sandbox->on_int && sandbox->on_term && sandbox->origin && !event_add(sandbox->on_int, NULL) &&
	    !event_add(sandbox->on_term, NULL))
		return 0;
fail:
	ctl_say(sandbox->ctl, "the demo origin cannot start: %s", strerror(errno));
	return -ERR_SYSTEM;
}

/* A reader sees the whole line or no file: written beside it, then renamed. */
static int write_port_file(const struct ctl *ctl, const char *path, const char *line)
{
	char *part = xasprintf("%s.%ld", path, (long)getpid());
	FILE *out = fopen(part, "we");
	bool is_good = out && fputs(line, out) >= 0;

	if (out)
		is_good = fclose(out) == 0 && is_good;
	is_good = is_good && rename(part, path) == 0;
	if (!is_good) {
		ctl_say(ctl, "%s: %s", path, strerror(errno));
		unlink(part);
	}
	free(part);
	return is_good ? 0 : -ERR_SYSTEM;
}

static int serve(struct sandbox *sandbox, const struct sandbox_args *args)
{
	char *line = xasprintf("bootstrap=%s origin=http://127.0.0.1:%d\n",
			       rd_kafka_mock_cluster_bootstraps(sandbox->cluster), origin_port(sandbox->origin));
	int err = args->port_file ? write_port_file(sandbox->ctl, args->port_file, line) : 0;

	if (!err) {
		fputs(line, stdout);
		fflush(stdout);
		if (isatty(STDERR_FILENO))
			fprintf(stderr, "open the origin's address for what it can do; Ctrl-C ends\n");
		event_base_dispatch(sandbox->base);
	}
	free(line);
	return err ? CTL_FAILED : CTL_OK;
}

static void stop(struct sandbox *sandbox)
{
	origin_free(sandbox->origin);
	if (sandbox->on_int)
		event_free(sandbox->on_int);
	if (sandbox->on_term)
		event_free(sandbox->on_term);
	if (sandbox->base)
		event_base_free(sandbox->base);
	if (sandbox->cluster)
		rd_kafka_mock_cluster_destroy(sandbox->cluster);
	if (sandbox->rk)
		rd_kafka_destroy(sandbox->rk);
}

static int sandbox_run(struct ctl *ctl, const void *raw, int argc, char **argv)
{
	const struct sandbox_args *args = raw;
	struct sandbox sandbox = {.ctl = ctl};
	int code = CTL_FAILED;

	if (argc) {
		ctl_say(ctl, "takes no arguments: %s", argv[0]);
		return CTL_USAGE;
	}
	if (!start_broker(&sandbox, (int)args->partitions) && !start_loop(&sandbox))
		code = ctl_stopped() ? CTL_OK : serve(&sandbox, args); /* before the loop was there to hear of it */
	stop(&sandbox);
	return code;
}

const struct ctl_command sandbox_command = {
    .name = "sandbox",
    .summary = "a broker and a web server to play with, no Java",
    .synopsis = "[OPTION]...",
    .options = sandbox_options,
    .args_size = sizeof(struct sandbox_args),
    .has_settings = false,
    .details =
	"Prints bootstrap=HOST:PORT origin=http://127.0.0.1:PORT once both listen, and serves until SIGINT or SIGTERM. "
	"The broker has the\n"
	"topics jobs, results and dead-letters, keeps all in memory, and is for playing only: small bodies, no "
	"transactions. The\n"
	"origin's first page lists what it can do: delays, statuses, sizes, redirects, cut and stalled answers.\n",
    .examples =
	"  gatherctl sandbox\n"
	"  gatherctl sandbox --port-file /tmp/sandbox & until [ -e /tmp/sandbox ]; do sleep 0.1; done; . /tmp/sandbox\n"
	"  gatherd -o kafka.bootstrap.servers=$bootstrap -o guard.allow=127.0.0.0/8 &\n"
	"  gatherctl submit -b $bootstrap $origin/ $origin/delay/500 $origin/status/404\n",
    .run = sandbox_run,
};
