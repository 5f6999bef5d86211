"""CPU per fetch against the libraries' own floor (tests/bench/floor.c), in the same run: a ratio, never a time."""

import os
import re
import signal
import statistics
import subprocess

import pytest

import proc
import worker

JOBS = int(os.environ.get("GATHERD_TEST_CPU_JOBS", "20000"))
ROUNDS = 3
LIMIT = 1.75  # medians of 1.03 to 1.5 were seen

pytestmark = [pytest.mark.alone, pytest.mark.skipif(worker.is_instrumented(), reason="an instrumented build says nothing about cost")]


def cpu_us(pid):
    """User and system time of a process so far."""
    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1_000_000 // os.sysconf("SC_CLK_TCK")


def produce(topics, url):
    """Bare URLs: the floor parses nothing."""
    for i in range(JOBS):
        topics.produce(url.encode(), partition=i % 8)
    topics.flush()


def floor_us(topics, broker, url, inflight):
    produce(topics, url)
    argv = [worker.build_dir() / "tests" / "floor", broker.bootstrap, "floor", topics.name("jobs"), topics.name("results"), str(JOBS),
            str(inflight)]
    out = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True).stdout
    return int(re.search(r"cpu_us=(\d+)", out).group(1)) / JOBS


def gatherd_us(topics, start_worker, url, inflight):
    """From the first job on: the worker starts on an empty topic, so that start and join do not count. It stands still while the jobs are
    put in, so that they are all there, as they are for the floor."""
    w = start_worker(topics.options(host__inflight=1000, inflight=inflight))
    proc.wait_until(lambda: w.health("/readyz")[0] == 200, 60, "ready", w.process)
    os.kill(w.pid, signal.SIGSTOP)
    try:
        produce(topics, url)
        before = cpu_us(w.pid)
    finally:
        os.kill(w.pid, signal.SIGCONT)
    proc.wait_until(lambda: w.metrics().get('gatherd_results_total{outcome="OK"}', 0) >= JOBS, 120, "all results", w.process)
    used = (cpu_us(w.pid) - before) / JOBS
    w.stop()
    return used


@pytest.mark.parametrize("inflight", [64, 256])
def test_cpu_per_fetch_stays_near_the_floor(broker, nginx, topics, start_worker, inflight):
    ratios = []
    for _ in range(ROUNDS):
        floor = floor_us(topics(broker.bootstrap, partitions=8), broker, f"{nginx.url}/1k", inflight)
        ours = gatherd_us(topics(broker.bootstrap, partitions=8), start_worker, f"{nginx.url}/1k", inflight)
        print(f"in flight {inflight}: floor {floor:.1f} us, gatherd {ours:.1f} us, ratio {ours / floor:.2f}")
        ratios.append(ours / floor)
    assert statistics.median(ratios) <= LIMIT
