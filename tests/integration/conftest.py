"""Fixtures: one broker, origin and nginx for the whole run; topics and workers for each test."""

import itertools
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import gatherctl  # noqa: E402
import kafka  # noqa: E402
import origin as origin_server  # noqa: E402
import proc  # noqa: E402
import topics as topics_client  # noqa: E402
import worker as worker_process  # noqa: E402
from fixtures import nginx, protos, pytest_runtest_makereport  # noqa: E402, F401

numbers = itertools.count(1)


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    """The broker that tests share; a test that stops it takes `own_broker`."""
    b = kafka.Broker(tmp_path_factory.mktemp("kafka") / "data").start()
    yield b
    b.stop()


@pytest.fixture
def own_broker(tmp_path):
    b = kafka.Broker(tmp_path / "kafka").start()
    yield b
    b.kill()


@pytest.fixture
def sandbox(tmp_path, protos):
    """gatherctl's embedded broker and demo origin."""
    s = gatherctl.Sandbox(tmp_path, protos)
    yield s
    assert s.stop() == 0


@pytest.fixture(scope="session")
def shared_origin(tmp_path_factory):
    server = origin_server.Origin(tmp_path_factory.mktemp("origin")).start()
    yield server
    server.stop()


@pytest.fixture
def origin(shared_origin):
    """The origin with its counters at zero."""
    shared_origin.reset()
    return shared_origin


@pytest.fixture(scope="session")
def name_server(tmp_path_factory):
    """(host, port) of a name server to which every name is 127.0.0.1 unless the name says otherwise: tests/support/dns.py."""
    dir = tmp_path_factory.mktemp("dns")
    argv = [sys.executable, Path(proc.__file__).with_name("dns.py"), "--port-file", dir / "port"]
    process = proc.spawn(argv, dir / "dns.log")
    proc.wait_until((dir / "port").exists, 20, "the name server listens", process)
    yield "127.0.0.1", int((dir / "port").read_text())
    proc.stop(process, 5)


@pytest.fixture
def topics(request, protos):
    """topics(bootstrap, partitions=N) makes jobs, results and dead-letter topics that no other test has."""
    made = []

    def make(bootstrap, partitions=1, results=None):
        t = topics_client.Topics(bootstrap, f"{request.node.name}-{os.getpid()}-{next(numbers)}", *protos)
        made.append(t)
        t.make("jobs", partitions)
        t.make("results", partitions, **(results or {}))
        return t

    yield make
    for t in made:
        t.close()


@pytest.fixture
def start_worker(request, tmp_path):
    """start_worker(options, name=...) starts a gatherd that ends with the test. A sanitizer's report fails the test."""
    started = []

    def start(options, name=None, config=None, env=None):
        w = worker_process.Worker(tmp_path, options, name or f"worker{len(started) + 1}", config, env)
        started.append(w)
        return w.start()

    yield start
    for w in started:
        if w.process and w.process.poll() is None:
            # In good order, so that leaks are looked for, too.
            proc.stop(w.process, 40)
    failed = getattr(request.node, "failed", False)
    for w in started:
        if failed and w.log.exists():
            print(f"--- end of {w.log}\n{proc.tail(w.log, 30)}")
    reports = [line for w in started if w.log.exists() for line in w.reports()]
    assert not reports, "\n".join(reports[:20])
