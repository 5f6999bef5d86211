/* Names to addresses, against tests/support/dns.py (what it answers is in the name) and against sockets that never
 * answer. The clock is ours: skip() moves it on, so that no test waits for a TTL. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "clock.h"
#include "err.h"
#include "resolve.h"
#include "resolve_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LONG_US (30 * US_PER_S)
#define TIMEOUT_MS 20000 /* as good as none: no test waits for it */

/* ---- the clock, in place of clock.c ---- */

static int64_t skipped_us, stopped_us;

int64_t clock_now_us(void)
{
	struct timespec ts;

	if (stopped_us)
		return stopped_us;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * US_PER_S + ts.tv_nsec / 1000 + skipped_us;
}

int64_t clock_epoch_ms(void)
{
	return clock_now_us() / 1000;
}

static void skip_ms(int64_t ms)
{
	skipped_us += ms * US_PER_MS;
}

/* Stands still at that time, for a question whose answer hangs on it; 0 = goes on. */
static void stop_at(int64_t now_us)
{
	stopped_us = now_us;
}

/* ---- the name server of all tests ---- */

static struct {
	pid_t pid;
	int pipe; /* it ends when this closes */
	char address[32];
	char port_file[64];
} dns;

static int start_dns(void **state)
{
	char python[] = "python3", script[] = "support/dns.py", until_eof[] = "--stdin", port_option[] = "--port-file";
	char *const argv[] = {python, script, until_eof, port_option, dns.port_file, NULL};
	posix_spawn_file_actions_t actions;
	unsigned port = 0;
	FILE *file;
	int fds[2];

	snprintf(dns.port_file, sizeof(dns.port_file), "/tmp/gatherd-test-dns.%d", (int)getpid());
	unlink(dns.port_file);
	if (pipe(fds) < 0)
		return -1;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fds[0], 0);
	posix_spawn_file_actions_addclose(&actions, fds[1]);
	if (posix_spawnp(&dns.pid, argv[0], &actions, NULL, argv, environ) != 0)
		return -1;
	posix_spawn_file_actions_destroy(&actions);
	close(fds[0]);
	dns.pipe = fds[1];
	while (!(file = fopen(dns.port_file, "r"))) {
		if (waitpid(dns.pid, NULL, WNOHANG) != 0)
			return -1;
		usleep(2000);
	}
	int n = fscanf(file, "%u", &port);
	fclose(file);
	unlink(dns.port_file);
	snprintf(dns.address, sizeof(dns.address), "127.0.0.1:%u", port);
	return n == 1 ? 0 : -1;
}

static int stop_dns(void **state)
{
	close(dns.pipe);
	waitpid(dns.pid, NULL, 0);
	return 0;
}

/* ---- one resolver ---- */

struct fixture {
	struct loop *loop;
	struct metrics metrics;
	struct resolve *rs;
};

/* A query and what it got. */
struct asked {
	struct resolve_query query;
	int n_answers, err;
	struct addresses addrs;
	int64_t dns_us;
	struct resolve_query *cancels; /* in the callback */
	struct fixture *fix;	       /* starts host again in the callback */
	const char *again;
};

static struct resolve *new_resolver(struct fixture *fix, const char *server, int64_t timeout_ms)
{
	char *servers[] = {xstrdup(server)}, *error = NULL;
	struct resolve *rs = NULL;

	if (resolve_new(fix->loop, &fix->metrics, NULL, servers, 1, timeout_ms, &rs, &error) < 0)
		fail_msg("%s", error);
	free(servers[0]);
	return rs;
}

static int setup(void **state)
{
	struct fixture *fix = xcalloc(1, sizeof(*fix));

	stop_at(0); /* a test that failed may have left it */
	fix->loop = loop_new(NULL, NULL);
	fix->rs = new_resolver(fix, dns.address, TIMEOUT_MS);
	*state = fix;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fix = *state;

	resolve_free(fix->rs);
	loop_free(fix->loop);
	free(fix);
	return 0;
}

static void on_resolved(void *ctx, int err, const struct addresses *addrs, int64_t dns_us)
{
	struct asked *asked = ctx;

	asked->n_answers++;
	asked->err = err;
	asked->addrs.n = 0;
	if (!err)
		asked->addrs = *addrs;
	asked->dns_us = dns_us;
	if (asked->cancels)
		resolve_cancel(asked->cancels);
	if (asked->again) {
		const char *host = asked->again;
		asked->again = NULL;
		resolve_start(asked->fix->rs, host, &asked->query, on_resolved, asked);
		assert_int_equal(asked->n_answers, 1);
	}
}

static void start(struct fixture *fix, const char *host, struct asked *asked)
{
	int before = asked->n_answers;

	resolve_start(fix->rs, host, &asked->query, on_resolved, asked);
	assert_int_equal(asked->n_answers, before); /* never from inside */
}

static void wait_for(struct fixture *fix, const struct asked *asked, int n_answers)
{
	while (asked->n_answers < n_answers)
		loop_turn(fix->loop, LONG_US);
}

/* "2001:db8::1 127.0.0.1", or the code of the error. */
static const char *print(int err, const struct addresses *addrs)
{
	static char out[RESOLVE_ADDRESSES_MAX * (ADDRESS_TEXT_MAX + 1)];
	char one[ADDRESS_TEXT_MAX];

	if (err)
		return err_code(err);
	out[0] = '\0';
	for (size_t i = 0; i < addrs->n; i++) {
		address_print(&addrs->v[i], one);
		strcat(strcat(out, i ? " " : ""), one);
	}
	return out;
}

static const char *resolve(struct fixture *fix, const char *host)
{
	struct asked asked = {0};

	start(fix, host, &asked);
	wait_for(fix, &asked, 1);
	assert_int_equal(asked.n_answers, 1);
	return print(asked.err, &asked.addrs);
}

static const char *cached(struct fixture *fix, const char *host)
{
	struct addresses addrs;
	int err = resolve_cached(fix->rs, host, &addrs);

	return print(err, &addrs);
}

/* ---- what servers answer ---- */

static void answers_become_addresses_or_errors(void **state)
{
	static const struct {
		const char *host, *expected, *why;
	} rows[] = {
	    {"ip-10-1-2-3.test", "10.1.2.3", "one address"},
	    {"ip-10-0-0-1.ip-10-0-0-2.test", "10.0.0.1 10.0.0.2", "the server's order"},
	    {"v6-2001-db8--1.test", "2001:db8::1", "IPv6 only"},
	    {"ip-10-0-0-1.ip-10-0-0-2.v6-2001-db8--1.v6-2001-db8--2.ip-10-0-0-3.test",
	     "2001:db8::1 10.0.0.1 2001:db8::2 10.0.0.2 10.0.0.3", "in turns, RFC 8305"},
	    {"many-20.test",
	     "127.0.1.1 127.0.1.2 127.0.1.3 127.0.1.4 127.0.1.5 127.0.1.6 127.0.1.7 127.0.1.8 127.0.1.9 "
	     "127.0.1.10 127.0.1.11 127.0.1.12 127.0.1.13 127.0.1.14 127.0.1.15 127.0.1.16",
	     "at most RESOLVE_ADDRESSES_MAX"},
	    {"many-40.v6-2001-db8--1.test",
	     "2001:db8::1 127.0.1.1 127.0.1.2 127.0.1.3 127.0.1.4 127.0.1.5 127.0.1.6 127.0.1.7 127.0.1.8 "
	     "127.0.1.9 127.0.1.10 127.0.1.11 127.0.1.12 127.0.1.13 127.0.1.14 127.0.1.15",
	     "over 512 bytes: by TCP; both families keep a place"},
	    {"tc.ip-10-0-0-9.test", "10.0.0.9", "truncated: asked again by TCP"},
	    {"cname-1.ip-10-0-0-1.test", "10.0.0.1", "CNAME"},
	    {"cname-8.ip-10-0-0-1.test", "10.0.0.1", "a chain of them"},
	    {"loop.test", "DNS_NO_DATA", "CNAMEs in a circle"},
	    {"nx.test", "DNS_NXDOMAIN", ""},
	    {"nodata.test", "DNS_NO_DATA", ""},
	    {"servfail.test", "DNS_SERVFAIL", ""},
	    {"refused.test", "DNS_REFUSED", ""},
	    {"wrongid.test", "127.0.0.1", "a forged answer before the true one"},
	    {"nx6.ip-10-0-0-1.test", "10.0.0.1", "one family is enough, whatever is said of the other"},
	    {"servfail6.ip-10-0-0-1.test", "10.0.0.1", ""},
	    {"servfail4.v6-2001-db8--1.test", "2001:db8::1", ""},
	    {"nx6.nodata4.test", "DNS_NXDOMAIN", "the name does not exist > it has none of these"},
	    {"nx4.nodata6.test", "DNS_NXDOMAIN", ""},
	    {"servfail6.nx4.test", "DNS_SERVFAIL", "a failure > a no: trying again may help"},
	    {"nodata6.servfail4.test", "DNS_SERVFAIL", ""},
	    {"IP-10-0-0-7.TEST", "10.0.0.7", "case"},
	    {"single", "127.0.0.1", "one label, absolute: no search list"},
	    {"ip-10-0-0-8.test.", "10.0.0.8", "a final dot"},
	    {"a..b.test", "DNS_BAD_NAME", "an empty label"},
	    {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.test", "DNS_BAD_NAME",
	     "a label over 63"},
	    {"localhost", "::1 127.0.0.1", "RFC 6761, or what the hosts file says: see below"},
	};
	struct fixture *fix = *state;
	unsigned n_failures = 0;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const char *got = resolve(fix, rows[i].host);
		n_failures += !strncmp(rows[i].expected, "DNS_", 4);
		if (!strcmp(rows[i].host, "localhost") && strstr(got, "127.0.0.1"))
			continue;
		if (strcmp(got, rows[i].expected) != 0)
			fail_msg("%s: %s, expected %s (%s)", rows[i].host, got, rows[i].expected, rows[i].why);
	}
	assert_int_equal(fix->metrics.dns_lookups, ARRAY_LEN(rows) - 1);
	assert_int_equal(fix->metrics.dns_seconds.count, ARRAY_LEN(rows) - 1);
	assert_int_equal(fix->metrics.dns_failures, n_failures);
}

/* ---- time ---- */

/* A UDP and TCP port on which nothing ever answers. */
static int black_hole(char out[static 32])
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
	snprintf(out, 32, "127.0.0.1:%u", ntohs(addr.sin_port));
	return fd;
}

static void dead_servers_end_at_the_timeout(void **state)
{
	struct fixture *fix = *state;
	char server[32];
	int fd = black_hole(server);

	resolve_free(fix->rs);
	fix->rs = new_resolver(fix, server, 120);
	struct asked asked = {0};
	start(fix, "any.test", &asked);
	wait_for(fix, &asked, 1);
	assert_string_equal(print(asked.err, &asked.addrs), "DNS_TIMEOUT");
	assert_true(asked.dns_us >= 120 * US_PER_MS);
	assert_string_equal(cached(fix, "any.test"), "DNS_TIMEOUT"); /* for 2 s */
	skip_ms(2100);
	assert_string_equal(cached(fix, "any.test"), "AGAIN");
	close(fd);
}

static void one_dead_server_is_got_round(void **state)
{
	struct fixture *fix = *state;
	char server[32], *error;
	int fd = black_hole(server);
	char *servers[] = {server, dns.address};
	struct resolve *rs = NULL;

	assert_int_equal(resolve_new(fix->loop, NULL, NULL, servers, 2, 3000, &rs, &error), 0);
	resolve_free(fix->rs);
	fix->rs = rs;
	assert_string_equal(resolve(fix, "ip-10-0-0-1.test"), "10.0.0.1");
	assert_string_equal(resolve(fix, "nx.test"), "DNS_NXDOMAIN");
	close(fd);
}

static void a_failing_server_is_got_round(void **state)
{
	struct fixture *fix = *state;
	char *servers[] = {dns.address, dns.address}, *error;
	struct resolve *rs = NULL;

	assert_int_equal(resolve_new(fix->loop, &fix->metrics, NULL, servers, 2, TIMEOUT_MS, &rs, &error), 0);
	resolve_free(fix->rs);
	fix->rs = rs;
	/* The first question fails, the second is asked of the next server. */
	assert_string_equal(resolve(fix, "servfail-first.nodata6.ip-10-0-0-1.test"), "10.0.0.1");
	assert_string_equal(resolve(fix, "servfail.test"), "DNS_SERVFAIL");
}

static void a_closed_server_port_is_a_failure_not_a_no(void **state)
{
	struct fixture *fix = *state;
	char server[32];

	close(black_hole(server)); /* ICMP says so at once */
	resolve_free(fix->rs);
	fix->rs = new_resolver(fix, server, 300);
	struct asked asked = {0};
	start(fix, "any.test", &asked);
	wait_for(fix, &asked, 1);
	assert_true(err_retryable(asked.err));
	assert_int_equal(err_outcome(asked.err), OUTCOME_DNS);
}

static void the_second_family_is_not_waited_for_long(void **state)
{
	struct fixture *fix = *state;
	struct asked asked = {0};
	char late[64];

	assert_string_equal(resolve(fix, "dead6.ip-10-0-0-1.test"), "10.0.0.1");
	assert_string_equal(resolve(fix, "dead4.v6-2001-db8--1.test"), "2001:db8::1");

	/* The AAAA takes 400 ms, and a machine that stands still so long sees both: it has ten goes. */
	for (int i = 0; i < 10 && (i == 0 || asked.addrs.n == 2); i++) {
		asked = (struct asked){0};
		snprintf(late, sizeof(late), "slow6-400.n%d.ip-10-0-0-1.v6-2001-db8--1.test", i);
		start(fix, late, &asked);
		wait_for(fix, &asked, 1);
	}
	assert_string_equal(print(asked.err, &asked.addrs), "10.0.0.1");
	assert_true(asked.dns_us >= 50 * US_PER_MS);
	/* What comes late goes into the cache, and calls nobody. */
	while (strcmp(cached(fix, late), "2001:db8::1 10.0.0.1") != 0)
		loop_turn(fix->loop, LONG_US);
	assert_int_equal(asked.n_answers, 1);
}

static void the_second_family_is_waited_for_when_the_first_has_nothing(void **state)
{
	struct fixture *fix = *state;

	assert_string_equal(resolve(fix, "slow4-150.nodata6.test"), "127.0.0.1");
}

/* ---- the cache ---- */

static void answers_are_kept_for_their_ttl(void **state)
{
	static const struct {
		const char *host;
		int64_t good_ms, gone_ms;
	} rows[] = {
	    {"ttl-60.test", 55000, 61000},	 {"ttl-0.test", 4000, 5001},
	    {"ttl-1.cname-2.test", 4000, 5001},	 {"ttl-4000000.test", 3599000, 3600001},
	    {"ttl-2147483648.test", 4000, 5001},
	};
	struct fixture *fix = *state;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		assert_string_equal(cached(fix, rows[i].host), "AGAIN");
		int64_t start_us = clock_now_us();
		assert_string_equal(resolve(fix, rows[i].host), "127.0.0.1");
		int64_t answered_us = clock_now_us();
		stop_at(start_us + rows[i].good_ms * US_PER_MS);
		assert_string_equal(cached(fix, rows[i].host), "127.0.0.1");
		stop_at(answered_us + rows[i].gone_ms * US_PER_MS);
		assert_string_equal(cached(fix, rows[i].host), "AGAIN");
		stop_at(0);
	}
	assert_int_equal(fix->metrics.dns_cache_hits, ARRAY_LEN(rows));
}

static void an_address_that_moves_moves_with_the_ttl(void **state)
{
	struct fixture *fix = *state;

	assert_string_equal(resolve(fix, "rebind.ttl-10.test"), "93.184.216.34");
	assert_string_equal(resolve(fix, "rebind.ttl-10.test"), "93.184.216.34");
	assert_int_equal(fix->metrics.dns_lookups, 1);
	skip_ms(10001);
	assert_string_equal(resolve(fix, "rebind.ttl-10.test"), "127.0.0.1");
	assert_int_equal(fix->metrics.dns_lookups, 2);
}

static void a_no_is_kept_longer_each_time(void **state)
{
	static const int64_t kept_ms[] = {5000, 10000, 20000, 30000, 30000};
	struct fixture *fix = *state;

	for (size_t i = 0; i < ARRAY_LEN(kept_ms); i++) {
		assert_string_equal(resolve(fix, "nx.test"), "DNS_NXDOMAIN");
		skip_ms(kept_ms[i] - 1000);
		assert_string_equal(cached(fix, "nx.test"), "DNS_NXDOMAIN");
		skip_ms(1001);
		assert_string_equal(cached(fix, "nx.test"), "AGAIN");
	}
}

static void a_failure_is_kept_two_seconds(void **state)
{
	struct fixture *fix = *state;

	assert_string_equal(resolve(fix, "servfail.test"), "DNS_SERVFAIL");
	assert_string_equal(cached(fix, "servfail.test"), "DNS_SERVFAIL");
	skip_ms(2001);
	assert_string_equal(cached(fix, "servfail.test"), "AGAIN");
}

static void stale_answers_stand_in_for_thirty_seconds(void **state)
{
	static const char host[] = "servfail-after-1.ttl-10.test";
	struct fixture *fix = *state;

	assert_string_equal(resolve(fix, host), "127.0.0.1");
	skip_ms(10001);
	assert_string_equal(cached(fix, host), "AGAIN"); /* the servers are asked first */
	assert_string_equal(resolve(fix, host), "127.0.0.1");
	assert_string_equal(cached(fix, host), "127.0.0.1"); /* and not again for 2 s */
	skip_ms(2001);
	assert_string_equal(cached(fix, host), "AGAIN");
	skip_ms(26000);
	assert_string_equal(resolve(fix, host), "127.0.0.1");
	skip_ms(2001); /* now 40 s after the answer */
	assert_string_equal(cached(fix, host), "AGAIN");
	assert_string_equal(resolve(fix, host), "DNS_SERVFAIL");
	assert_int_equal(fix->metrics.dns_lookups, 4);
}

static void a_no_is_believed_although_there_is_a_stale_answer(void **state)
{
	struct fixture *fix = *state;
	struct addresses addrs;

	assert_string_equal(resolve(fix, "nx-after-1.ttl-10.test"), "127.0.0.1");
	skip_ms(10001);
	assert_string_equal(resolve(fix, "nx-after-1.ttl-10.test"), "DNS_NXDOMAIN");
	assert_int_equal(resolve_cached(fix->rs, "nx-after-1.ttl-10.test", &addrs), -ERR_DNS_NXDOMAIN);
}

static void the_least_recently_used_name_goes_first(void **state)
{
	struct fixture *fix = *state;

	resolve_set_names_max(fix->rs, 3);
	resolve(fix, "a.test");
	resolve(fix, "b.test");
	resolve(fix, "c.test");
	assert_string_equal(cached(fix, "a.test"), "127.0.0.1"); /* used: now b is the oldest */
	resolve(fix, "d.test");
	assert_string_equal(cached(fix, "b.test"), "AGAIN");
	assert_string_equal(cached(fix, "a.test"), "127.0.0.1");
	assert_string_equal(cached(fix, "c.test"), "127.0.0.1");
	assert_string_equal(cached(fix, "d.test"), "127.0.0.1");
}

/* ---- queries ---- */

static void lookups_of_one_name_are_joined(void **state)
{
	struct fixture *fix = *state;
	struct asked asked[5] = {0};

	for (int i = 0; i < 5; i++)
		start(fix, "slow-50.ip-10-0-0-1.test", &asked[i]);
	for (int i = 0; i < 5; i++) {
		wait_for(fix, &asked[i], 1);
		assert_string_equal(print(asked[i].err, &asked[i].addrs), "10.0.0.1");
	}
	assert_int_equal(fix->metrics.dns_lookups, 1);
}

static void a_cached_answer_comes_by_callback_too(void **state)
{
	struct fixture *fix = *state;
	struct asked asked = {0};

	assert_string_equal(resolve(fix, "nx.test"), "DNS_NXDOMAIN");
	start(fix, "nx.test", &asked);
	wait_for(fix, &asked, 1);
	assert_int_equal(asked.err, -ERR_DNS_NXDOMAIN);
	assert_int_equal(asked.dns_us, 0);
	assert_int_equal(fix->metrics.dns_lookups, 1);
}

static void a_cancelled_query_is_not_called(void **state)
{
	struct fixture *fix = *state;
	struct asked gone = {0}, there = {0}, from_cache = {0};

	start(fix, "slow-30.test", &gone);
	start(fix, "slow-30.test", &there);
	resolve_cancel(&gone.query);
	wait_for(fix, &there, 1);
	resolve_cancel(&there.query); /* answered already: nothing happens */
	start(fix, "slow-30.test", &from_cache);
	resolve_cancel(&from_cache.query);
	loop_turn(fix->loop, 1000);
	assert_int_equal(gone.n_answers, 0);
	assert_int_equal(there.n_answers, 1);
	assert_int_equal(from_cache.n_answers, 0);

	start(fix, "slow-20.test", &gone); /* nobody waits: the lookup goes on for the cache */
	resolve_cancel(&gone.query);
	while (strcmp(cached(fix, "slow-20.test"), "AGAIN") == 0)
		loop_turn(fix->loop, LONG_US);
	assert_int_equal(gone.n_answers, 0);
}

static void a_callback_may_cancel_and_start(void **state)
{
	struct fixture *fix = *state;
	struct asked second = {0}, third = {.fix = fix, .again = "slow-20.test"};
	struct asked first = {.cancels = &second.query};

	start(fix, "slow-20.test", &first);
	start(fix, "slow-20.test", &second);
	start(fix, "slow-20.test", &third);
	wait_for(fix, &third, 2);
	assert_int_equal(first.n_answers, 1);
	assert_int_equal(second.n_answers, 0);
	assert_int_equal(third.n_answers, 2);
	assert_int_equal(fix->metrics.dns_lookups, 1);
}

static void free_with_queries_outstanding_calls_nobody(void **state)
{
	struct fixture *fix = *state;
	struct asked asked[300] = {0}, from_cache = {0};
	char host[32];

	resolve(fix, "x.test");
	for (int i = 0; i < 300; i++) {
		snprintf(host, sizeof(host), "dead.n%d.test", i);
		start(fix, host, &asked[i]);
	}
	start(fix, "x.test", &from_cache);
	resolve_free(fix->rs);
	fix->rs = NULL;
	loop_turn(fix->loop, 1000);
	for (int i = 0; i < 300; i++) {
		assert_int_equal(asked[i].n_answers, 0);
		resolve_cancel(&asked[i].query); /* its owner does not know */
	}
	resolve_cancel(&from_cache.query);
	assert_int_equal(from_cache.n_answers, 0);
}

#define FLOOD (RESOLVE_INFLIGHT_MAX + 300)

struct flood {
	struct fixture *fix;
	struct asked *asked;
};

static void on_flood(void *ctx)
{
	struct flood *flood = ctx;
	char host[32];

	for (int i = 0; i < FLOOD; i++) {
		snprintf(host, sizeof(host), "n%d.test", i);
		start(flood->fix, host, &flood->asked[i]);
	}
}

static void many_dead_names_go_in_slices_and_all_end(void **state)
{
	struct fixture *fix = *state;
	struct flood flood = {fix, xcalloc(FLOOD, sizeof(struct asked))};
	struct loop_timer timer;
	char server[32];
	int fd = black_hole(server), n_ended = 0;
	size_t n_asked_most = 0;

	resolve_free(fix->rs);
	fix->rs = new_resolver(fix, server, 400);
	loop_timer_init(fix->loop, &timer, on_flood, &flood);
	loop_timer_set(&timer, 0);
	loop_turn(fix->loop, LONG_US);
	assert_int_equal(fix->metrics.dns_lookups, 100);
	while (n_ended < FLOOD) {
		loop_turn(fix->loop, LONG_US);
		n_ended = 0;
		for (int i = 0; i < FLOOD; i++)
			n_ended += flood.asked[i].n_answers;
		n_asked_most = MAX(n_asked_most, fix->metrics.dns_lookups - (size_t)n_ended);
	}
	assert_true(n_asked_most <= RESOLVE_INFLIGHT_MAX);
	for (int i = 0; i < FLOOD; i++) {
		assert_int_equal(flood.asked[i].n_answers, 1);
		assert_int_equal(flood.asked[i].err, -ERR_DNS_TIMEOUT);
		/* The time-out counts from the issue, so those that had to wait have their whole time too (as the turns see it: a turn
		 * may be long on a slow machine). */
		assert_true(flood.asked[i].dns_us >= 200 * US_PER_MS);
	}
	assert_int_equal(fix->metrics.dns_lookups, FLOOD);
	assert_int_equal(fix->metrics.dns_failures, FLOOD);
	loop_timer_done(&timer);
	free(flood.asked);
	close(fd);
}

/* ---- reload ---- */

static void reload_with_a_new_timeout_asks_again(void **state)
{
	struct fixture *fix = *state;
	struct asked slow = {0}, dead = {0};

	start(fix, "slow-500.test", &slow);
	start(fix, "dead.test", &dead);
	assert_int_equal(fix->metrics.dns_lookups, 2);
	resolve_reload(fix->rs, TIMEOUT_MS); /* the same: nothing is asked again */
	loop_turn(fix->loop, 1000);
	assert_int_equal(fix->metrics.dns_lookups, 2);
	resolve_reload(fix->rs, TIMEOUT_MS - 1);
	wait_for(fix, &slow, 1);
	assert_string_equal(print(slow.err, &slow.addrs), "127.0.0.1");
	assert_int_equal(fix->metrics.dns_lookups, 4);
	resolve_reload(fix->rs, 100);
	wait_for(fix, &dead, 1);
	assert_int_equal(dead.err, -ERR_DNS_TIMEOUT);
	assert_int_equal(fix->metrics.dns_lookups, 5);
	assert_int_equal(slow.n_answers + dead.n_answers, 2);
}

/* ---- settings and the hosts file ---- */

static void servers_are_addresses_with_or_without_a_port(void **state)
{
	static const char *const good[] = {"127.0.0.1", "127.0.0.1:5353", "::1", "[::1]", "[2001:db8::1]:53"};
	static const char *const bad[] = {
	    "",	       "dns.example.com", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:x",  "[::1",
	    "[::1]53", "[127.0.0.1]:53",  "127.0.0.1 ", "1.2.3",       "127.0.0.1:+53",	  "127.0.0.1:5 3"};
	struct fixture *fix = *state;

	for (size_t i = 0; i < ARRAY_LEN(good) + ARRAY_LEN(bad); i++) {
		bool is_good = i < ARRAY_LEN(good);
		char *servers[] = {xstrdup("192.0.2.1"), xstrdup(is_good ? good[i] : bad[i - ARRAY_LEN(good)])};
		struct resolve *rs = NULL;
		char *error = NULL;
		int err = resolve_new(fix->loop, NULL, NULL, servers, 2, 1000, &rs, &error);
		if (err != (is_good ? 0 : -ERR_INVALID))
			fail_msg("\"%s\" gave %d", servers[1], err);
		if (!is_good)
			assert_non_null(strstr(error, servers[1]));
		resolve_free(rs);
		free(error);
		free(servers[0]);
		free(servers[1]);
	}
}

static void without_servers_resolv_conf_counts(void **state)
{
	struct fixture *fix = *state;
	struct resolve *rs = NULL;
	char *error = NULL;

	assert_int_equal(resolve_new(fix->loop, NULL, NULL, NULL, 0, 1000, &rs, &error), 0);
	resolve_free(rs);
}

static void the_hosts_file_is_read_as_everybody_does(void **state)
{
	static const char text[] = "# a comment\n"
				   "10.0.0.1 One one.example.COM  # another\n"
				   "\t10.0.0.2\tone two.\r\n"
				   "2001:db8::1 one\n"
				   "10.0.0.3\n"
				   "fe80::1%eth0 zone\n"
				   "not-an-address three\n"
				   "10.0.0.4 last.localhost last";
	static const struct {
		const char *host, *expected;
	} rows[] = {
	    {"one", "2001:db8::1 10.0.0.1 10.0.0.2"},
	    {"one.example.com", "10.0.0.1"},
	    {"one.example.com.", "10.0.0.1"},
	    {"two", "10.0.0.2"},
	    {"last", "10.0.0.4"},
	    {"last.localhost", "10.0.0.4"},
	    {"localhost", "::1 127.0.0.1"},
	    {"localhost.", "::1 127.0.0.1"},
	    {"any.localhost", "::1 127.0.0.1"},
	    {"notlocalhost", "NOT_FOUND"},
	    {"localhost.example", "NOT_FOUND"},
	    {"zone", "NOT_FOUND"},
	    {"three", "NOT_FOUND"},
	    {"another", "NOT_FOUND"},
	    {"", "NOT_FOUND"},
	};
	char path[] = "/tmp/gatherd-test-hosts.XXXXXX";
	int fd = mkstemp(path);
	bool is_cut;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
	close(fd);
	struct resolve_hosts *hosts = resolve_hosts_new(path, &is_cut);
	unlink(path);
	assert_false(is_cut);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct addresses addrs;
		int err = resolve_hosts_find(hosts, rows[i].host, &addrs) ? 0 : -ERR_NOT_FOUND;
		if (strcmp(print(err, &addrs), rows[i].expected) != 0)
			fail_msg("%s: %s", rows[i].host, print(err, &addrs));
	}
	resolve_hosts_free(hosts);

	hosts = resolve_hosts_new("/does/not/exist", &is_cut);
	struct addresses addrs;
	assert_true(resolve_hosts_find(hosts, "localhost", &addrs));
	assert_false(resolve_hosts_find(hosts, "one", &addrs));
	resolve_hosts_free(hosts);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(answers_become_addresses_or_errors),
	    TEST(dead_servers_end_at_the_timeout),
	    TEST(one_dead_server_is_got_round),
	    TEST(a_failing_server_is_got_round),
	    TEST(a_closed_server_port_is_a_failure_not_a_no),
	    TEST(the_second_family_is_not_waited_for_long),
	    TEST(the_second_family_is_waited_for_when_the_first_has_nothing),
	    TEST(answers_are_kept_for_their_ttl),
	    TEST(an_address_that_moves_moves_with_the_ttl),
	    TEST(a_no_is_kept_longer_each_time),
	    TEST(a_failure_is_kept_two_seconds),
	    TEST(stale_answers_stand_in_for_thirty_seconds),
	    TEST(a_no_is_believed_although_there_is_a_stale_answer),
	    TEST(the_least_recently_used_name_goes_first),
	    TEST(lookups_of_one_name_are_joined),
	    TEST(a_cached_answer_comes_by_callback_too),
	    TEST(a_cancelled_query_is_not_called),
	    TEST(a_callback_may_cancel_and_start),
	    TEST(free_with_queries_outstanding_calls_nobody),
	    TEST(many_dead_names_go_in_slices_and_all_end),
	    TEST(reload_with_a_new_timeout_asks_again),
	    TEST(servers_are_addresses_with_or_without_a_port),
	    TEST(without_servers_resolv_conf_counts),
	    cmocka_unit_test(the_hosts_file_is_read_as_everybody_does),
	};

	return cmocka_run_group_tests(tests, start_dns, stop_dns);
}
