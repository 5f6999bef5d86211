"""Fixtures: the chaos suite's own broker, with a listener behind the proxy for each worker; nginx; a world for each test."""

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

SLOTS = "abcxy"
PARTITIONS = 8


class Budget:
    """GATHERD_CHAOS_SECONDS for the whole run, from its first moment on; what the start took is shared out among the tests."""

    def __init__(self):
        self.total_s = int(os.environ.get("GATHERD_CHAOS_SECONDS", "240"))
        self.end = time.monotonic() + self.total_s
        self.begun = None

    def left_s(self, share):
        """Seconds until this share of what was left after the start is over."""
        return self.begun + (self.end - self.begun) * share - time.monotonic()


budget_of_run = Budget()


@pytest.fixture(scope="session")
def budget(net, nginx, protos):
    budget_of_run.begun = time.monotonic()
    return budget_of_run


@pytest.fixture(scope="session")
def seed():
    return int(os.environ.get("GATHERD_CHAOS_SEED") or random.SystemRandom().getrandbits(32))


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
    }
    broker.start()
    yield broker, proxy.links
    broker.kill()
    proxy.stop()


@pytest.fixture
def make_world(request, net, nginx, protos, tmp_path):
    """make_world(options, behind_proxy=True): topics of its own."""
    broker, links = net
    made = []

    def make(options, behind_proxy=True):
        t = topics_client.Topics(broker.bootstrap, f"{request.node.name}-{os.getpid()}", *protos)
        t.make("jobs", PARTITIONS)
        # The time of the append, not of the worker's clock: commits are judged by the same one.
        t.make("results", PARTITIONS, message_timestamp_type="LogAppendTime")
        w = World(t, broker, links if behind_proxy else {}, f"{nginx.url}/delay/100", tmp_path, options, PARTITIONS)
        made.append(w)
        return w

    yield make
    for w in made:
        w.stop_all()
        w.topics.close()
        for link in links.values():
            link.heal()
        for worker in w.all:
            if getattr(request.node, "failed", False) and worker.log.is_file():
                print(f"--- end of {worker.log}\n{proc.tail(worker.log, 30)}")
    reports = [line for w in made for worker in w.all if worker.log.is_file() for line in worker.reports()]
    assert not reports, "\n".join(reports[:20])
