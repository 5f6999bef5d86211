"""Fixtures: the chaos suite's own broker, with a listener behind the proxy for each worker; nginx; a world for each test."""

import contextlib
import os
import random
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import kafka  # noqa: E402
import proc  # noqa: E402
import topics as topics_client  # noqa: E402
from fixtures import nginx, protos, pytest_runtest_makereport  # noqa: E402, F401
from proxy import Proxy  # noqa: E402
from world import World  # noqa: E402

# A broker lives for minutes here, and starts again and again: what it costs to start counts, and not what it can do at its best.
kafka.JAVA_OPTIONS += ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
SLOTS = "abcxy"
PARTITIONS = 8


# What each test is meant to take, relative to the others: the time that there is, is shared out by it. Of those that take turns
# only as many run as it is enough for, at least one, drawn from the seed.
WEIGHTS = {"test_graceful": 14, "test_hard": 24, "test_hard_exactly_once": 26, "test_seeded_runs": 40}
IN_TURN = {"test_three_kills": 30, "test_three_kills_exactly_once": 40, "test_broker_back": 60, "test_cluster": 120,
           "test_cluster_exactly_once": 120}


def seed_of_run():
    if not os.environ.get("GATHERD_CHAOS_SEED"):
        os.environ["GATHERD_CHAOS_SEED"] = str(random.SystemRandom().getrandbits(32))
    return int(os.environ["GATHERD_CHAOS_SEED"])


class Budget:
    """GATHERD_CHAOS_SECONDS for the whole run, from its first moment on; each test gets its share of what is left."""

    def __init__(self):
        self.total_s = int(os.environ.get("GATHERD_CHAOS_SECONDS", "240"))
        self.end = time.monotonic() + self.total_s
        self.weights = {}

    def begin(self, test):
        """A function that says how many seconds of the test's share are left."""
        now = time.monotonic()
        until = now + (self.end - now) * self.weights[test] / sum(self.weights.values())
        del self.weights[test]
        return lambda: until - time.monotonic()


budget_of_run = Budget()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Who takes part in this run."""
    names = [item.name for item in items]
    turns = sorted(n for n in names if n in IN_TURN)
    random.Random(f"{seed_of_run()}/turns").shuffle(turns)
    left_s = budget_of_run.total_s - sum(WEIGHTS.get(n, 0) for n in names)
    out = set()
    for n in turns[1:]:
        left_s -= IN_TURN[n]
        if left_s < IN_TURN[turns[0]]:
            out.add(n)
    config.hook.pytest_deselected(items=[item for item in items if item.name in out])
    items[:] = [item for item in items if item.name not in out]
    budget_of_run.weights = {item.name: {**WEIGHTS, **IN_TURN}[item.name] for item in items}


@pytest.fixture(scope="session")
def budget(net, nginx, protos):
    return budget_of_run


@pytest.fixture(scope="session")
def seed():
    return seed_of_run()


@pytest.fixture(scope="session")
def net(tmp_path_factory):
    """(broker, links): a listener of the broker for each slot, which advertises the proxy's port: no worker gets past it."""
    ports = {slot: proc.free_port() for slot in SLOTS}
    proxy = Proxy(ports)
    broker = kafka.Broker(tmp_path_factory.mktemp("kafka") / "data")
    ours = {name.upper(): (port, proxy.links[name].port) for name, port in ports.items()}
    ours["PLAINTEXT"] = (broker.port, broker.port)
    listeners = [f"{n}://127.0.0.1:{p}" for n, (p, _) in ours.items()] + [f"CONTROLLER://127.0.0.1:{broker.controller_port}"]
    broker.properties = {
        "listeners": ",".join(listeners),
        "advertised.listeners": ",".join(f"{n}://127.0.0.1:{p}" for n, (_, p) in ours.items()),
        "listener.security.protocol.map": ",".join(f"{n}:PLAINTEXT" for n in [*ours, "CONTROLLER"]),
        "inter.broker.listener.name": "PLAINTEXT",
        # One that was killed may only come back when the controller has given up the one before: after 9 s by default.
        "broker.session.timeout.ms": 3000, "broker.heartbeat.interval.ms": 500,
        # How often it looks for dead transactions: each 10 s by default.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
    }
    broker.start()
    yield broker, proxy.links
    broker.kill()
    proxy.stop()


class Worlds:
    """make_world(options, behind_proxy=True): topics of its own, until the end of the test; make_world.once() for a `with`."""

    def __init__(self, broker, links, nginx, protos, dir, name):
        self.broker, self.links, self.nginx, self.protos, self.dir, self.name = broker, links, nginx, protos, dir, name
        self.made = []

    def __call__(self, options, behind_proxy=True, name=""):
        t = topics_client.Topics(self.broker.bootstrap, f"{self.name}-{name}{os.getpid()}", *self.protos)
        t.make("jobs", PARTITIONS)
        # The time of the append, not of the worker's clock: commits are judged by the same one.
        t.make("results", PARTITIONS, message_timestamp_type="LogAppendTime")
        dir = self.dir / name if name else self.dir
        dir.mkdir(exist_ok=True)
        w = World(t, self.broker, self.links if behind_proxy else {}, f"{self.nginx.url}/delay/100", dir, options, PARTITIONS)
        self.made.append(w)
        return w

    @contextlib.contextmanager
    def once(self, options, name):
        w = self(options, name=f"{name}-")
        try:
            yield w
        finally:
            self.close(w)
            self.made.remove(w)

    def end(self, has_failed):
        for w in self.made:
            if has_failed:
                print(w.logs())
            self.close(w)

    def close(self, w):
        w.stop_all()
        w.topics.delete("jobs", "results")
        w.topics.close()
        for link in self.links.values():
            link.heal()
        reports = [line for worker in w.all if worker.log.is_file() for line in worker.reports()]
        assert not reports, "\n".join(reports[:20])


@pytest.fixture
def make_world(request, net, nginx, protos, tmp_path):
    worlds = Worlds(*net, nginx, protos, tmp_path, request.node.name)
    yield worlds
    worlds.end(getattr(request.node, "failed", False))
