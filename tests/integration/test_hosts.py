"""Polite to every host, and nobody waits for another's host: judged from the origin's log."""

import os
import random
import re
import subprocess

import pytest

import proc
import worker
from hosts_origin import Answer, HostsOrigin

OK = Answer(200)


@pytest.fixture
def origin_of():
    made = []

    def make(behave):
        made.append(HostsOrigin(behave))
        return made[-1]

    yield make
    for origin in made:
        origin.stop()


def names_from(name_server):
    """With patience: the tests' name server is a small one."""
    return {"dns__servers": "%s:%d" % name_server, "dns__timeout": "20s"}


def host_name(i):
    """The i-th host, at an address of its own."""
    n = i + 1
    return f"h{i}.ip-127-{1 + n // 62500}-{n // 250 % 250}-{1 + n % 250}.test"


def most_in_window(times, seconds):
    """The most starts in any window of that length."""
    times, first, most = sorted(times), 0, 0
    for i, at in enumerate(times):
        while times[first] <= at - seconds:
            first += 1
        most = max(most, i - first + 1)
    return most


def outcomes(topics, records, of=lambda result: True):
    counts = {}
    for r in records:
        if of(r.result):
            name = topics.outcome(r.result)
            counts[name] = counts.get(name, 0) + 1
    return counts


# --- one host answers badly ---

@pytest.mark.short
def test_429_is_silence_and_then_a_gentle_return(broker, topics, start_worker, name_server, origin_of):
    def behave(ask):
        return Answer(429, b"", (("Retry-After", "3"),)) if ask.path == "/30" and ask.n == 0 else OK

    origin, t = origin_of(behave), topics(broker.bootstrap)
    host = host_name(0)
    jobs = t.produce_jobs([origin.url(host, f"/{i}") for i in range(90)])
    w = start_worker(t.options(host__inflight=1, host__rate=30, **names_from(name_server)))
    w.wait_metric("gatherd_host_slowdowns_total", 1)
    shown = w.status()["hosts_in_trouble"]
    assert [(h["host"], h["state"], h["cause"]) for h in shown] == [(f"{host}:{origin.port}", "slowed", "429")]
    assert 0 < shown[0]["wait_ms"] <= 3000
    reader = t.reader()
    reader.until(len(jobs))
    assert outcomes(t, reader.records) == {"OK": 90}

    asks = origin.of(host)
    refused = next(i for i, a in enumerate(asks) if a.path == "/30")
    back = asks[refused + 1].at
    assert back - asks[refused].at >= 2.95, "the silence that it asked for"
    # Before that it was 30 a second at most; now it is half of it, and grows by each good answer.
    assert sum(back <= a.at < back + 0.5 for a in asks) <= 11
    assert most_in_window([a.at for a in asks], 1) <= 31
    assert w.metric("gatherd_hosts_slowed") == 0, "as fast as before"


# A hold of at most 1 s instead of 30, so that 4 s are as good as a minute; and the minute. 8 in flight at first, one more, then one
# after each hold: of 1 s, or of 1, 2, 4 ... 30 s.
@pytest.mark.parametrize("bad_s, hold, holds", [
    pytest.param(4, "1s", 5, marks=pytest.mark.short), pytest.param(60, "30s", 6, marks=pytest.mark.long)])
def test_a_host_that_answers_503_gets_few_requests_and_recovers(broker, topics, start_worker, name_server, origin_of, bad_s, hold, holds):
    began = []

    def behave(ask):
        began.append(ask.at)
        return Answer(503, b"") if ask.at < began[0] + bad_s else OK

    origin, t = origin_of(behave), topics(broker.bootstrap)
    host = host_name(0)
    jobs = t.produce_jobs([origin.url(host, f"/{i}") for i in range(20)])
    w = start_worker(t.options(host__backoff_max=hold, job__deadline="10m", retry__max_attempts=50, retry__base="10ms", retry__max="20ms",
                               **names_from(name_server)))
    reader = t.reader()
    reader.until(len(jobs), stall_s=60 + 2 * bad_s)
    assert outcomes(t, reader.records) == {"OK": 20}
    refused = [a for a in origin.of(host) if a.at < began[0] + bad_s]
    assert len(refused) <= 8 + 1 + holds, f"{len(refused)} requests in {bad_s} s of 503"
    assert w.metric("gatherd_host_slowdowns_total") <= len(refused)


def test_jobs_of_a_dead_host_end_by_its_breaker(broker, topics, start_worker, name_server, origin_of):
    t, port = topics(broker.bootstrap), proc.free_port()
    jobs = t.produce_jobs([f"http://127.0.0.9:{port}/{i}" for i in range(2000)])
    w = start_worker(t.options(retry__base="10ms", retry__max="20ms", **names_from(name_server)))
    reader = t.reader()
    reader.until(len(jobs))
    assert outcomes(t, reader.records) == {"CONNECT": 2000}
    by_breaker = sum(r.result.error.code == "HOST_DOWN" for r in reader.records)
    # Ten failures open it; what was in flight then and a few probes come on top.
    assert w.metric("gatherd_attempts_total") <= 60 and by_breaker >= 1900
    assert w.metric("gatherd_breaker_opened_total") >= 1 and w.metric("gatherd_hosts_down") == 1
    shown = w.status()["hosts_in_trouble"]
    assert [(h["host"], h["state"], h["cause"]) for h in shown] == [(f"127.0.0.9:{port}", "down", "CONNECT_REFUSED")]


# --- one host is flooded ---

def test_a_flood_for_one_host_starves_nobody_in_its_partition(broker, topics, start_worker, name_server, origin_of):
    origin, t = origin_of(lambda ask: OK), topics(broker.bootstrap)
    flood, scale = host_name(0), 10 if worker.is_instrumented() else 1
    t.produce_jobs([origin.url(flood, f"/{i}") for i in range(10000 // scale)], prefix="flood")
    others = t.produce_jobs([origin.url(host_name(1 + i)) for i in range(1000 // scale)], prefix="other")
    w = start_worker(t.options(**names_from(name_server)), config=f'[host "{flood}"]\nhost.rate = 1\n')
    reader = t.reader()
    while sum(r.result.job_id.startswith("other") for r in reader.records) < len(others):
        before = len(reader.records)
        reader.until(before + 1)
    done = outcomes(t, reader.records, lambda result: result.job_id.startswith("flood"))
    asked = [a.at for a in origin.of(flood)]
    assert outcomes(t, reader.records, lambda result: result.job_id.startswith("other")) == {"OK": len(others)}
    assert set(done) <= {"OK"}, "none of the flood expires"
    assert most_in_window(asked, 10) <= 11
    # 10,000 s of work stand before the others; they did not wait for it.
    assert len(asked) < 100
    waited = [r.result.timing_us.politeness for r in reader.records if r.result.job_id.startswith("other")]
    assert max(waited) == 0, "the others waited for no host"
    assert w.metric("gatherd_waiting") > 9000 // scale


# --- two workers ---

def test_limits_hold_across_two_workers_and_through_rebalances(broker, topics, start_worker, name_server, origin_of):
    hosts, slow = [host_name(i) for i in range(8)], [host_name(8 + i) for i in range(8)]
    # At one start a second these would have three at once under way.
    origin = origin_of(lambda ask: Answer(200, delay_s=3 if ask.host in slow else 0))
    t = topics(broker.bootstrap, partitions=4)
    jobs = {f"{host} {i}": host for i in range(8) for host in hosts} | {f"{host} {i}": host for i in range(4) for host in slow}
    for job_id, host in jobs.items():
        t.produce(t.job(job_id, origin.url(host, f"/{job_id.split()[1]}")), key=f"{host}:{origin.port}")
    t.flush()
    options = t.options(host__inflight=2, host__rate=1, **names_from(name_server))
    reader = t.reader()
    first = start_worker(options)
    reader.until(len(jobs) // 5)
    second = start_worker(options)
    second.wait_partitions(2)
    reader.until(len(jobs) // 2)
    first.stop()
    reader.until(len(jobs))
    assert {r.result.job_id for r in reader.records} == set(jobs)
    assert outcomes(t, reader.records) == {"OK": len(reader.records)}
    assert second.metric("gatherd_hosts_spread_total") == 0
    assert max(origin.peak.values()) == 2, "the limit is one that binds"
    for host in hosts + slow:
        asks = origin.of(host)
        assert origin.peak[host] <= 2, f"{host}: {origin.peak[host]} at once"
        assert most_in_window([a.at for a in asks], 5) <= 6, host


def test_a_host_on_two_partitions_is_warned_of(broker, topics, start_worker, name_server, origin_of):
    origin, t = origin_of(lambda ask: OK), topics(broker.bootstrap, partitions=2)
    jobs = t.produce_jobs([origin.url(host_name(i // 2)) for i in range(20)], partitions=2)
    w = start_worker(t.options(**names_from(name_server)))
    t.reader().until(len(jobs))
    assert w.metric("gatherd_hosts_spread_total") == w.metric("gatherd_hosts_spread") == 10
    warnings = [ln for ln in w.read_log().splitlines() if "more than one partition" in ln]
    assert len(warnings) == 1 and f"host={host_name(0)}:{origin.port}" in warnings[0]


# --- many hosts ---

def floor_us(broker, t, name_server, urls):
    """CPU per fetch of a bare loop that asks for each host once and opens a connection per fetch."""
    for i, url in enumerate(urls):
        t.produce(url.encode(), partition=i % 8)
    t.flush()
    argv = [worker.build_dir() / "tests" / "floor", "--fresh", "--dns", "%s:%d" % name_server, broker.bootstrap, "floor",
            t.name("jobs"), t.name("results"), str(len(urls)), "200"]
    out = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=True).stdout
    return int(re.search(r"cpu_us=(\d+)", out).group(1)) / len(urls)


def cpu_us(pid):
    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1_000_000 // os.sysconf("SC_CLK_TCK")


def many_hosts_urls(origin, n_hosts, n_busy, jobs_of_busy):
    """Two jobs for each host, and for a few as many as the rate lets through in the window that is looked at."""
    urls = [origin.url(host_name(i % n_hosts), f"/{i}") for i in range(2 * n_hosts)]
    random.Random(1).shuffle(urls)
    return [origin.url(host_name(i % n_busy), f"/busy{i}") for i in range(n_busy * (jobs_of_busy - 2))] + urls


def many_hosts(t, start_worker, name_server, origin, urls, jobs_of_busy):
    """All jobs lie there when the worker starts. Returns it, CPU per fetch, its start included, and bytes of memory per host."""
    # 100 names asked for at once are what the socket of the tests' name server can hold.
    options = t.options(inflight=200, host__inflight=1, host__rate=1, **names_from(name_server))
    w = start_worker(options)
    w.wait_partitions(8)
    idle_bytes = most_bytes = w.rss_bytes()
    w.stop()
    for i, url in enumerate(urls):
        t.produce(t.job(f"job-{i}", url), key=url.split("/")[2])
    t.flush()
    w = start_worker(options)

    def watch(n):
        nonlocal most_bytes
        most_bytes = max(most_bytes, w.rss_bytes())

    reader = t.reader()
    reader.until(len(urls), on_progress=watch)
    cpu = cpu_us(w.pid) / len(urls)
    bad = [r.result for r in reader.records if t.outcome(r.result) != "OK"]
    assert not bad, f"{len(bad)} such as {bad[0]}"
    by_host = {}
    for ask in origin.asks:
        by_host.setdefault(ask.host, []).append(ask.at)
    n_hosts = len({url.split("/")[2] for url in urls})
    assert len(by_host) == n_hosts and len(origin.asks) == len(urls)
    assert max(origin.peak.values()) == 1
    window = jobs_of_busy - 4
    assert max(most_in_window(times, window) for times in by_host.values()) <= window + 1
    print(f"{n_hosts} hosts, {len(urls)} jobs: {cpu:.1f} us of CPU per fetch, {most_bytes >> 20} MiB at most, "
          f"{idle_bytes >> 20} before, {w.metric('gatherd_hosts'):.0f} hosts known at the end")
    return w, cpu, (most_bytes - idle_bytes) / n_hosts


def test_many_hosts(broker, topics, start_worker, name_server, origin_of):
    scale = 10 if worker.is_instrumented() else 1
    t, origin = topics(broker.bootstrap, partitions=8), origin_of(lambda ask: OK)
    many_hosts(t, start_worker, name_server, origin, many_hosts_urls(origin, 500 // scale, n_busy=10, jobs_of_busy=8), 8)


@pytest.mark.long
def test_a_hundred_thousand_hosts(broker, topics, start_worker, name_server, origin_of):
    n = int(os.environ.get("GATHERD_TEST_HOSTS", "100000"))
    origin = origin_of(lambda ask: OK)
    urls = many_hosts_urls(origin, n, n_busy=100, jobs_of_busy=14)

    def floor():
        us = floor_us(broker, topics(broker.bootstrap, partitions=8), name_server, urls)
        origin.asks.clear()
        origin.peak.clear()
        return us

    # The machine's pace changes in a minute: the loop before, and after.
    before = floor()
    w, cpu, per_host = many_hosts(topics(broker.bootstrap, partitions=8), start_worker, name_server, origin, urls, 14)
    after = floor()
    ratio = cpu / (before + after) * 2
    print(f"a bare loop: {before:.1f} us before, {after:.1f} after, ratio {ratio:.2f}; {per_host:.0f} bytes for each host")
    assert ratio <= 1.4
    assert per_host < 7000
    # Idle ones are forgotten.
    proc.wait_until(lambda: w.metric("gatherd_hosts") < n / 100, 300, "idle hosts are forgotten", w.process)
