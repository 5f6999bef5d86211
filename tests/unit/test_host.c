/* host: cap, rate, hold, breaker and the table, with time as an argument. */
#include "err.h"
#include "host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#define S INT64_C(1000000)
#define T0 (100 * S)
#define NEVER INT64_MAX

static struct host_options opts_of(int64_t inflight, double rate)
{
	return (struct host_options){.host_inflight = inflight, .host_rate = rate};
}

static void assert_asks(const struct host *host, int64_t now_us, enum host_answer answer, int64_t wake_us)
{
	int64_t at_us;

	assert_int_equal(host_ask(host, now_us, &at_us), answer);
	assert_int_equal(at_us, wake_us);
}

static void cap_is_kept(void **state)
{
	struct hosts *hosts = hosts_new();
	struct host_options opts = opts_of(2, 0);
	struct host *host = hosts_get(hosts, "a:80", &opts, T0);

	assert_string_equal(host_key(host), "a:80");
	assert_asks(host, T0, HOST_MAY_START, NEVER);
	assert_int_equal(host_start(host, T0), 0);
	assert_int_equal(host_start(host, T0), 1);
	assert_asks(host, T0, HOST_WAITS, NEVER);
	assert_int_equal(host_inflight(host), 2);
	assert_false(host_finish(host, T0, T0, HOST_REACHED, 0));
	assert_asks(host, T0, HOST_MAY_START, NEVER);

	/* A lowered cap is kept from the next start on. */
	struct host_options fewer = opts_of(1, 0);
	host_set_options(host, &fewer);
	assert_ptr_equal(host_options(host), &fewer);
	assert_asks(host, T0, HOST_WAITS, NEVER);
	host_finish(host, T0, T0, HOST_NOT_TRIED, -ERR_CANCELLED);
	assert_asks(host, T0, HOST_MAY_START, NEVER);
	hosts_free(hosts);
}

static void rate_is_a_bucket_of_one(void **state)
{
	struct hosts *hosts = hosts_new();
	struct host_options opts = opts_of(10, 4);
	struct host *host = hosts_get(hosts, "a:80", &opts, T0);

	assert_asks(host, T0, HOST_MAY_START, NEVER); /* full at first */
	host_start(host, T0);
	assert_asks(host, T0, HOST_WAITS, T0 + S / 4);
	assert_asks(host, T0 + S / 4 - 1, HOST_WAITS, T0 + S / 4);
	assert_asks(host, T0 + S / 4, HOST_MAY_START, NEVER);
	host_start(host, T0 + 10 * S); /* idle time is not saved up */
	assert_asks(host, T0 + 10 * S, HOST_WAITS, T0 + 10 * S + S / 4);

	/* A slot given back brings no token. */
	host_finish(host, T0 + 10 * S, T0 + 10 * S, HOST_REACHED, 0);
	assert_asks(host, T0 + 10 * S, HOST_WAITS, T0 + 10 * S + S / 4);
	host_finish(host, T0 + 10 * S, T0 + 10 * S, HOST_REACHED, 0);
	hosts_free(hosts);
}

static void an_era_empties_all_buckets(void **state)
{
	struct hosts *hosts = hosts_new();
	struct host_options slow = opts_of(10, 0.5), any = opts_of(10, 0);
	struct host *host = hosts_get(hosts, "a:80", &slow, T0);
	struct host *free_host = hosts_get(hosts, "b:80", &any, T0);

	hosts_new_era(hosts, T0);
	assert_asks(host, T0, HOST_WAITS, T0 + 2 * S);
	assert_asks(free_host, T0, HOST_MAY_START, NEVER);
	/* Hosts not seen yet as well: another worker may just have asked them. */
	struct host *fresh = hosts_get(hosts, "c:80", &slow, T0 + S);
	assert_asks(fresh, T0 + S, HOST_WAITS, T0 + 2 * S);
	struct host *later = hosts_get(hosts, "d:80", &slow, T0 + 5 * S);
	assert_asks(later, T0 + 5 * S, HOST_MAY_START, NEVER);
	/* It never shortens a wait. */
	host_start(host, T0 + 2 * S);
	hosts_new_era(hosts, T0 + S);
	assert_asks(host, T0 + 2 * S, HOST_WAITS, T0 + 4 * S);
	host_finish(host, T0 + 2 * S, T0 + 2 * S, HOST_REACHED, 0);
	hosts_free(hosts);
}

static void the_longest_hold_counts(void **state)
{
	struct hosts *hosts = hosts_new();
	struct host_options opts = opts_of(10, 1);
	struct host *host = hosts_get(hosts, "a:80", &opts, T0);

	host_hold_until(host, T0 + 30 * S);
	host_hold_until(host, T0 + 5 * S);
	assert_asks(host, T0, HOST_WAITS, T0 + 30 * S);
	assert_asks(host, T0 + 30 * S, HOST_MAY_START, NEVER);
	/* Hold and token: the later one. */
	host_start(host, T0 + 30 * S);
	host_hold_until(host, T0 + 30 * S + S / 2);
	assert_asks(host, T0 + 30 * S, HOST_WAITS, T0 + 31 * S);
	host_finish(host, T0 + 30 * S, T0 + 30 * S, HOST_REACHED, 0);
	hosts_free(hosts);
}

/* One start and its end at now_us. */
static bool once(struct host *host, int64_t now_us, enum host_report report)
{
	int err = report == HOST_REACHED ? 0 : report == HOST_OVERLOADED ? 503 : -ERR_CONNECT_REFUSED;

	host_start(host, now_us);
	return host_finish(host, now_us, now_us, report, err);
}

static void open_breaker(struct host *host, int64_t now_us)
{
	for (int i = 1; i < HOST_FAILURES_TO_OPEN; i++)
		assert_false(once(host, now_us, HOST_UNREACHABLE));
	assert_true(once(host, now_us, HOST_UNREACHABLE));
}

static void failures_in_a_row_open_the_breaker(void **state)
{
	struct hosts *hosts = hosts_new();
	struct host_options opts = opts_of(10, 0);
	struct host *host = hosts_get(hosts, "a:80", &opts, T0);

	for (int i = 1; i < HOST_FAILURES_TO_OPEN; i++)
		assert_false(once(host, T0, HOST_UNREACHABLE));
	assert_false(once(host, T0, HOST_REACHED)); /* the row is broken */
	open_breaker(host, T0);
	assert_asks(host, T0, HOST_IS_DOWN, NEVER);
	assert_int_equal(host_down_err(host), -ERR_CONNECT_REFUSED);
	assert_asks(host, T0 + HOST_PROBE_MIN_US - 1, HOST_IS_DOWN, NEVER);
	hosts_free(hosts);
}

static void what_says_nothing_is_not_counted(void **state)
{
	struct hosts *hosts = hosts_new();
	struct host_options opts = opts_of(10, 0);
	struct host *host = hosts_get(hosts, "a:80", &opts, T0);

	for (int i = 0; i < 3 * HOST_FAILURES_TO_OPEN; i++)
		assert_false(once(host, T0, HOST_NOT_TRIED));
	for (int i = 1; i < HOST_FAILURES_TO_OPEN; i++)
		once(host, T0, HOST_UNREACHABLE);
	once(host, T0, HOST_NOT_TRIED); /* neither breaks the row nor lengthens it */
	assert_true(once(host, T0, HOST_UNREACHABLE));
	hosts_free(hosts);
}

static void probes_double_up_to_the_most(void **state)
{
	struct hosts *hosts = hosts_new();
	struct host_options opts = opts_of(10, 0);
	struct host *host = hosts_get(hosts, "a:80", &opts, T0);
	int64_t now_us = T0, wait_us = HOST_PROBE_MIN_US;

	open_breaker(host, now_us);
	for (int i = 0; i < 8; i++) {
		assert_asks(host, now_us + wait_us - 1, HOST_IS_DOWN, NEVER);
		now_us += wait_us;
		assert_asks(host, now_us, HOST_MAY_START, NEVER);
		host_start(host, now_us);
		assert_asks(host, now_us, HOST_IS_DOWN, NEVER); /* one probe at a time */
		assert_false(host_finish(host, now_us, now_us, HOST_UNREACHABLE, -ERR_CONNECT_TIMEOUT));
		wait_us = MIN(wait_us * 2, HOST_PROBE_MAX_US);
	}
	assert_int_equal(wait_us, HOST_PROBE_MAX_US);
	assert_int_equal(host_down_err(host), -ERR_CONNECT_TIMEOUT);
	hosts_free(hosts);
}

static void a_good_probe_closes_it(void **state)
{
	struct hosts *hosts = hosts_new();
	struct host_options opts = opts_of(10, 0);
	struct host *host = hosts_get(hosts, "a:80", &opts, T0);

	open_breaker(host, T0);
	/* A probe that says nothing: the next one may go at once. */
	once(host, T0 + S, HOST_NOT_TRIED);
	assert_asks(host, T0 + S, HOST_MAY_START, NEVER);
	once(host, T0 + S, HOST_REACHED);
	assert_asks(host, T0 + S, HOST_MAY_START, NEVER);
	host_start(host, T0 + S);
	assert_asks(host, T0 + S, HOST_MAY_START, NEVER);
	host_finish(host, T0 + S, T0 + S, HOST_REACHED, 0);
	open_breaker(host, T0 + S); /* all ten count again */
	hosts_free(hosts);
}

static void late_failures_do_not_lengthen_the_wait(void **state)
{
	struct hosts *hosts = hosts_new();
	struct host_options opts = opts_of(100, 0);
	struct host *host = hosts_get(hosts, "a:80", &opts, T0);

	for (int i = 0; i < 20; i++)
		host_start(host, T0);
	for (int i = 0; i < 20; i++)
		assert_int_equal(host_finish(host, T0, T0, HOST_UNREACHABLE, -ERR_CONNECT_REFUSED), i == HOST_FAILURES_TO_OPEN - 1);
	assert_asks(host, T0 + HOST_PROBE_MIN_US, HOST_MAY_START, NEVER);
	hosts_free(hosts);
}

static void a_crawl_delay_is_a_rate(void **state)
{
	struct hosts *hosts = hosts_new();
	struct host_options opts = opts_of(10, 2), any = opts_of(10, 0);
	struct host *host = hosts_get(hosts, "a:80", &opts, T0), *other = hosts_get(hosts, "b:80", &any, T0);

	once(host, T0, HOST_REACHED);
	once(other, T0, HOST_REACHED);
	assert_asks(host, T0, HOST_WAITS, T0 + S / 2);
	assert_asks(other, T0, HOST_MAY_START, NEVER);
	/* From the last start on, which was before it was known; the slower of the two counts. */
	host_set_delay(host, 3 * S);
	host_set_delay(other, 3 * S);
	assert_asks(host, T0 + S, HOST_WAITS, T0 + 3 * S);
	assert_asks(other, T0 + S, HOST_WAITS, T0 + 3 * S);
	host_set_delay(host, S / 10);
	host_set_delay(other, 0);
	assert_asks(host, T0, HOST_WAITS, T0 + S / 2);
	assert_asks(other, T0, HOST_MAY_START, NEVER);
	hosts_free(hosts);
}

/* A thousand a second for a second, eight in flight at its end. */
static struct host *make_busy(struct hosts *hosts, const struct host_options *opts)
{
	struct host *host = hosts_get(hosts, "a:80", opts, T0);

	for (int i = 0; i < 992; i++)
		once(host, T0 + i * S / 1000, HOST_REACHED);
	for (int i = 0; i < 8; i++)
		host_start(host, T0 + S - 1);
	return host;
}

static void a_strike_halves_the_pace(void **state)
{
	struct hosts *hosts = hosts_new();
	struct host_options opts = opts_of(8, 0);
	struct host *host = make_busy(hosts, &opts);
	struct host_trouble trouble;

	assert_int_equal(hosts_troubled(hosts, T0 + S, &trouble, 1), 0);
	host_finish(host, T0 + S - 1, T0 + S, HOST_OVERLOADED, 429);
	assert_int_equal(host_inflight_max(host), 1);
	/* What was under way counts neither way. */
	for (int i = 0; i < 7; i++)
		host_finish(host, T0 + S - 1, T0 + S, i % 2 ? HOST_OVERLOADED : HOST_REACHED, 429);
	assert_int_equal(hosts_counts(hosts).strikes, 1);
	assert_int_equal(hosts_troubled(hosts, T0 + S, &trouble, 1), 1);
	assert_string_equal(trouble.key, "a:80");
	assert_int_equal(trouble.cause, 429);
	assert_int_equal(trouble.pace, 500);
	assert_false(trouble.is_down);
	assert_asks(host, T0 + S, HOST_WAITS, T0 + S - 1 + S / 500);

	/* Each good answer brings half a start a second, up to what it was. */
	int64_t now_us = T0 + S;
	for (int i = 0; i < 999; i++) {
		now_us += S / 500;
		assert_asks(host, now_us, HOST_MAY_START, NEVER);
		once(host, now_us, HOST_REACHED);
		assert_int_equal(host_inflight_max(host), 8);
	}
	assert_int_equal(hosts_counts(hosts).slowed, 1);
	now_us += S / 500;
	once(host, now_us, HOST_REACHED);
	assert_int_equal(hosts_counts(hosts).slowed, 0);
	assert_asks(host, now_us, HOST_MAY_START, NEVER);
	hosts_free(hosts);
}

/* A minute of 503, asked whenever it may be. */
static void a_minute_of_strikes_is_few_requests(void **state)
{
	static const struct {
		double rate;
		int64_t backoff_max_ms;
		int at_most;
	} rows[] = {{0, 300000, 8}, {1, 300000, 8}, {100, 300000, 8}, {0, 5000, 16}, {0.05, 300000, 4}};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct hosts *hosts = hosts_new();
		struct host_options opts = opts_of(8, rows[i].rate);
		opts.host_backoff_max = rows[i].backoff_max_ms;
		struct host *host = hosts_get(hosts, "a:80", &opts, T0);
		int64_t now_us = T0, wake_us;
		int asked = 0;
		while (now_us < T0 + 60 * S) {
			if (host_ask(host, now_us, &wake_us) == HOST_MAY_START) {
				host_start(host, now_us);
				now_us += S / 100;
				host_finish(host, now_us - S / 100, now_us, HOST_OVERLOADED, 503);
				asked++;
			} else {
				assert_true(wake_us > now_us && wake_us < NEVER);
				now_us = wake_us;
			}
		}
		if (asked > rows[i].at_most || asked < 2)
			fail_msg("rate %g: %d requests", rows[i].rate, asked);
		/* It comes back: one, then ever faster, and all of it within half a minute after the hold. */
		int64_t until_us = now_us + 32 * S, begin_us = 0;
		int in_first_second = 0;
		while (now_us < until_us && rows[i].rate >= 1) {
			if (host_ask(host, now_us, &wake_us) == HOST_MAY_START) {
				begin_us = begin_us ? begin_us : now_us;
				in_first_second += now_us < begin_us + S;
				once(host, now_us, HOST_REACHED);
			} else {
				now_us = wake_us;
			}
		}
		if (rows[i].rate >= 1) {
			assert_in_range(in_first_second, 1, 3);
			assert_int_equal(host_inflight_max(host), 8);
		}
		hosts_free(hosts);
	}
}

static void slowed_and_down_hosts_are_shown(void **state)
{
	struct hosts *hosts = hosts_new();
	struct host_options opts = opts_of(8, 0);
	struct host_trouble out[4];

	once(hosts_get(hosts, "a:80", &opts, T0), T0, HOST_OVERLOADED);
	open_breaker(hosts_get(hosts, "b:80", &opts, T0), T0);
	once(hosts_get(hosts, "c:80", &opts, T0), T0, HOST_OVERLOADED);
	assert_int_equal(hosts_counts(hosts).slowed, 2);
	assert_int_equal(hosts_counts(hosts).down, 1);
	assert_int_equal(hosts_troubled(hosts, T0, out, 2), 2);
	assert_int_equal(hosts_troubled(hosts, T0, out, 4), 3);
	assert_string_equal(out[0].key, "b:80");
	assert_true(out[0].is_down);
	assert_int_equal(out[0].cause, -ERR_CONNECT_REFUSED);
	assert_int_equal(out[0].wait_us, HOST_PROBE_MIN_US);
	assert_string_equal(out[1].key, "c:80");
	assert_string_equal(out[2].key, "a:80");
	once(hosts_get(hosts, "b:80", &opts, T0), T0 + S, HOST_REACHED);
	assert_int_equal(hosts_counts(hosts).down, 0);
	/* Nobody asks them any more: forgotten like all others. */
	hosts_sweep(hosts, T0 + S + HOST_FORGET_US, 10);
	assert_int_equal(hosts_counts(hosts).slowed + hosts_count(hosts), 0);
	hosts_free(hosts);
}

static void partitions_of_a_host_are_counted(void **state)
{
	struct hosts *hosts = hosts_new();
	struct host_options opts = opts_of(8, 0);
	struct host *host = hosts_get(hosts, "a:80", &opts, T0);

	host_add_partition(host);
	assert_int_equal(hosts_counts(hosts).spread, 0);
	host_add_partition(host);
	host_add_partition(host);
	assert_int_equal(hosts_counts(hosts).spread, 1);
	assert_int_equal(hosts_counts(hosts).spread_total, 1);
	host_drop_partition(host);
	assert_int_equal(hosts_counts(hosts).spread, 1);
	host_drop_partition(host);
	assert_int_equal(hosts_counts(hosts).spread, 0);
	host_drop_partition(host);
	hosts_free(hosts);
}

static void only_idle_hosts_are_forgotten(void **state)
{
	struct hosts *hosts = hosts_new();
	struct host_options opts = opts_of(10, 0.001), any = opts_of(10, 0);
	int64_t later_us = T0 + HOST_FORGET_US;

	hosts_get(hosts, "idle:80", &any, T0);
	host_hold_ref(hosts_get(hosts, "line:80", &any, T0));
	host_start(hosts_get(hosts, "busy:80", &any, T0), T0);
	host_hold_until(hosts_get(hosts, "held:80", &any, T0), later_us + S);
	once(hosts_get(hosts, "token:80", &opts, T0), T0, HOST_REACHED);
	open_breaker(hosts_get(hosts, "down:80", &any, T0), T0);
	assert_int_equal(hosts_count(hosts), 6);
	hosts_sweep(hosts, later_us - 1, 100);
	assert_int_equal(hosts_count(hosts), 6);
	hosts_sweep(hosts, later_us, 100);
	assert_int_equal(hosts_count(hosts), 4); /* idle, and down with its probe long due */

	/* What had a reason then has none now. */
	host_finish(hosts_get(hosts, "busy:80", &any, T0), later_us, later_us, HOST_REACHED, 0);
	host_drop_ref(hosts_get(hosts, "line:80", &any, T0), later_us);
	hosts_sweep(hosts, later_us + HOST_FORGET_US, 100);
	assert_int_equal(hosts_count(hosts), 1); /* the token of a host with 0.001 a second */
	hosts_sweep(hosts, later_us + 3000 * S, 100);
	assert_int_equal(hosts_count(hosts), 0);
	hosts_free(hosts);
}

static void a_sweep_is_bounded(void **state)
{
	struct hosts *hosts = hosts_new();
	struct host_options opts = opts_of(10, 0);
	char key[16];

	for (int i = 0; i < 10; i++) {
		snprintf(key, sizeof(key), "h%d:80", i);
		hosts_get(hosts, key, &opts, T0);
	}
	hosts_sweep(hosts, T0 + HOST_FORGET_US, 3);
	assert_int_equal(hosts_count(hosts), 7);
	assert_ptr_equal(hosts_get(hosts, "h9:80", &opts, T0), hosts_get(hosts, "h9:80", &opts, T0));
	hosts_free(hosts);
}

static void count_one(void *ctx, struct host *host)
{
	++*(int *)ctx;
}

static void each_visits_all(void **state)
{
	struct hosts *hosts = hosts_new();
	struct host_options opts = opts_of(10, 0);
	int n = 0;

	hosts_get(hosts, "a:80", &opts, T0);
	hosts_get(hosts, "b:80", &opts, T0);
	hosts_each(hosts, count_one, &n);
	assert_int_equal(n, 2);
	assert_ptr_equal(host_of_timer(host_timer(hosts_get(hosts, "a:80", &opts, T0))), hosts_get(hosts, "a:80", &opts, T0));
	hosts_free(hosts);
	hosts_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cap_is_kept),
		cmocka_unit_test(rate_is_a_bucket_of_one),
		cmocka_unit_test(an_era_empties_all_buckets),
		cmocka_unit_test(the_longest_hold_counts),
		cmocka_unit_test(failures_in_a_row_open_the_breaker),
		cmocka_unit_test(what_says_nothing_is_not_counted),
		cmocka_unit_test(probes_double_up_to_the_most),
		cmocka_unit_test(a_good_probe_closes_it),
		cmocka_unit_test(late_failures_do_not_lengthen_the_wait),
		cmocka_unit_test(a_crawl_delay_is_a_rate),
		cmocka_unit_test(a_strike_halves_the_pace),
		cmocka_unit_test(a_minute_of_strikes_is_few_requests),
		cmocka_unit_test(slowed_and_down_hosts_are_shown),
		cmocka_unit_test(partitions_of_a_host_are_counted),
		cmocka_unit_test(only_idle_hosts_are_forgotten),
		cmocka_unit_test(a_sweep_is_bounded),
		cmocka_unit_test(each_visits_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
