"""Three brokers, replication 3, min.isr 2: leaders move, coordinators move, a broker is killed; in either delivery mode."""

import time

import pytest
from confluent_kafka import ElectionType, KafkaException

import faults
import kafka
from conftest import Worlds
from faults import BROKER_START_S, Kind, between, now_ms
from runs import AT_LEAST_ONCE, EXACTLY_ONCE, Report, judge, options, run_faults

WHOLE_S = 90
pytestmark = pytest.mark.long


class Nodes:
    """The cluster as a World knows a broker, and who leads what in it."""

    def __init__(self, cluster):
        self.cluster = cluster

    @property
    def bootstrap(self):
        return self.cluster.bootstrap

    @property
    def port(self):
        """Of one that runs."""
        return next(b.port for b in self.cluster.brokers if b.process.poll() is None)

    def leader(self, admin, topic, partition):
        leader = admin.list_topics(topic, 30).topics[topic].partitions[partition].leader
        return next(b for b in self.cluster.brokers if b.node == leader)

    def is_whole(self, admin):
        """Every replica of every partition is in sync."""
        try:
            topics = admin.list_topics(timeout=5).topics.values()
        except KafkaException:
            return False
        return all(len(p.isrs) == len(p.replicas) and p.leader >= 0 for t in topics for p in t.partitions.values())


def java_hash(text):
    """String.hashCode: what Kafka finds the partition of a coordinator by."""
    h = 0
    for c in text:
        h = (31 * h + ord(c)) & 0xFFFFFFFF
    return (h ^ 0x80000000) - 0x80000000


def coordinator(world, topic, name):
    """Who leads the internal topic's partition that keeps this group or transactional id."""
    n = len(world.topics.admin.list_topics(topic, 30).topics[topic].partitions)
    return world.broker.leader(world.topics.admin, topic, (java_hash(name) & 0x7FFFFFFF) % n)


def back(world, broker):
    """Starts it again; in steps, until all replicas have caught up: with two away nothing could be written."""
    broker.launch()
    until = time.monotonic() + BROKER_START_S + WHOLE_S
    while not (kafka.answers(broker.port) and world.broker.is_whole(world.topics.admin)):
        assert time.monotonic() < until, f"node {broker.node} does not come back"
        yield 0.2


def gone(world, f, broker, is_killed):
    """One node away for a while. Who works with the others must go on without it."""
    f.note = f"node {broker.node}"
    f.since_ms = now_ms()
    broker.kill() if is_killed else broker.stop()
    # A session may end with its coordinator, and a producer be made anew.
    f.risk("before", None, f.since_ms)
    f.risk("after", None, f.since_ms, now_ms() + faults.RECOVERS_S["broker_kill"] * 1000)
    since_ms = f.since_ms
    yield f.params["down_s"]
    world.run_until(lambda: world.all_work_since(since_ms) or world.is_done(), faults.STUCK_S, f"work without node {broker.node}")
    yield from back(world, broker)


def leader_move(world, f):
    """The leader of a partition of the results stops in good order; when it is back, it is elected again."""
    yield from gone(world, f, world.broker.leader(world.topics.admin, world.topics.name("results"), f.number), False)
    world.topics.admin.elect_leaders(ElectionType.PREFERRED).result(30)


def coordinator_move(world, f):
    """The group's coordinator stops in good order."""
    yield from gone(world, f, coordinator(world, "__consumer_offsets", world.topics.prefix), False)


def coordinator_kill(world, f):
    yield from gone(world, f, coordinator(world, "__consumer_offsets", world.topics.prefix), True)


def transactions_kill(world, f):
    """kill -9 of the node that keeps one worker's transactions; at least once, of any node."""
    if world.options["delivery"] == "exactly_once":
        name = f"{world.topics.prefix}-{world.instance(world.workers[f.slot])}"
        broker = coordinator(world, "__transaction_state", name)
    else:
        broker = world.broker.cluster.brokers[f.number % 3]
    yield from gone(world, f, broker, True)


DOWN = {"down_s": between(0, 3)}
KINDS = {kind.__name__: Kind(kind, DOWN, "ab", False, 20) for kind in (leader_move, coordinator_move, coordinator_kill, transactions_kill)}


@pytest.fixture
def cluster_world(request, nginx, protos, tmp_path, tmp_path_factory):
    """make(options): a world on three brokers of its own."""
    cluster = kafka.Cluster(tmp_path_factory.mktemp("cluster"), 3, **{
        "broker.session.timeout.ms": 3000, "broker.heartbeat.interval.ms": 500,
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000})
    cluster.start()
    worlds = Worlds(Nodes(cluster), {}, nginx, protos, tmp_path, request.node.name)
    yield worlds
    worlds.end(getattr(request.node, "failed", False))
    cluster.kill()


def cluster_run(cluster_world, mode, seed, left_s, capsys):
    report = Report(capsys, f"cluster of three, {mode.name}", seed)
    world = cluster_world(options(mode, 40))
    world.begin("ab")
    done = run_faults(world, faults.plan(seed, f"cluster, {mode.name}", KINDS, kinds=KINDS), report, left_s, KINDS)
    world.finish()
    judge(world, mode, done, report)


def test_cluster(cluster_world, seed, budget, capsys):
    cluster_run(cluster_world, AT_LEAST_ONCE, seed, budget.begin("test_cluster"), capsys)


def test_cluster_exactly_once(cluster_world, seed, budget, capsys):
    cluster_run(cluster_world, EXACTLY_ONCE, seed, budget.begin("test_cluster_exactly_once"), capsys)
