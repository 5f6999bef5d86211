"""The daemon on a current librdkafka: the one that the Python client carries, put before the system's. Assignors and the group protocol
that no Debian has yet: partitions that stay with a worker are not disturbed, and every job has one result."""

import os
import re
import subprocess
from collections import Counter
from pathlib import Path

import confluent_kafka
import pytest

import kafka
import topics as topics_client
import worker

NEEDED = (2, 12)
COOPERATIVE = {"kafka.partition.assignment.strategy": "cooperative-sticky", "kafka.session.timeout.ms": 6000}
CONSUMER = {"kafka.group.protocol": "consumer"}
GROUPS = {"cooperative": COOPERATIVE, "consumer": CONSUMER}


@pytest.fixture(scope="module")
def newest():
    """The environment that makes gatherd run on it."""
    package = Path(confluent_kafka.__file__).parent
    found = sorted(package.parent.glob("confluent_kafka.libs/librdkafka*.so*"))
    if not found:
        pytest.skip("the Python client carries no librdkafka of its own")
    env = {"LD_PRELOAD": str(found[0])}
    done = subprocess.run([worker.build_dir() / "gatherd", "--version"], env={**os.environ, **env}, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True)
    version = re.search(r"librdkafka (\d+)\.(\d+)", done.stdout)
    if not version or tuple(map(int, version.groups())) < NEEDED:
        pytest.skip(f"{found[0].name} cannot be loaded here: {done.stdout}{done.stderr}")
    return env


@pytest.fixture(scope="module")
def group_broker(tmp_path_factory):
    """Quick heartbeats in the group protocol of KIP-848, where the broker decides; a quick look for dead transactions."""
    b = kafka.Broker(tmp_path_factory.mktemp("kafka") / "data", **{
        "group.consumer.min.heartbeat.interval.ms": 500, "group.consumer.heartbeat.interval.ms": 500,
        "group.consumer.min.session.timeout.ms": 6000, "group.consumer.session.timeout.ms": 6000,
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000}).start()
    yield b
    b.stop()


def options(t, group, delivery, **more):
    eo = {"delivery": "exactly_once", "kafka.transaction.timeout.ms": 5000} if delivery == "exactly_once" else {}
    return {**t.options(host__inflight=1000, **more), **group, **eo}


def ledger(jobs, reader):
    return topics_client.Ledger(jobs, [r.result for r in reader.to_end()])


def flow(w):
    """What happened to the partitions of a worker, in order: ("assigned", 3), ("revoked", 4 of them), ("lost", 4)."""
    pattern = r'msg="?partitions? (assigned|revoked|lost)"?.*? (?:partition|partitions)=(\d+)'
    return [(what, int(n)) for what, n in re.findall(pattern, w.read_log())]


def every(*default):
    """All combinations; those that are not named are for the long run."""
    rows = [(name, delivery) for name in ("cooperative", "consumer") for delivery in ("at_least_once", "exactly_once")]
    return pytest.mark.parametrize("group,delivery", [
        pytest.param(GROUPS[name], delivery, id=f"{name}-{delivery}",
                     marks=[] if (name, delivery) in default else [pytest.mark.long]) for name, delivery in rows])


@every(("consumer", "exactly_once"))
def test_workers_join_and_leave_and_what_stays_is_not_disturbed(newest, group_broker, origin, topics, start_worker, group, delivery):
    n = 4000
    t = topics(group_broker.bootstrap, partitions=8)
    jobs = t.produce_jobs([f"{origin.url}/delay/100"] * n, partitions=8)
    opts = options(t, group, delivery, inflight=40)
    workers = {}

    def join(name, partitions):
        workers[name] = start_worker(opts, name, env=newest)
        workers[name].wait_partitions(partitions)

    reader = t.reader()
    join("a", 8)
    reader.until(n // 10)
    join("b", 4)
    reader.until(len(reader.records) + n // 10)
    assert len(reader.records) < n, "all was done before b had come: nothing was tested"
    workers["a"].stop()
    workers["b"].wait_partitions(8)
    join("c", 4)
    reader.until(n)
    for w in ("b", "c"):
        workers[w].stop()
    ledger(jobs, reader).assert_exact()
    # On a machine so slow that requests to the broker time out, what was under way then is fetched again.
    if not any("timed out" in w.read_log() for w in workers.values()):
        assert origin.stats("/delay")["total"] == n, "some were fetched twice"
    # Half of them went, in one piece, and those that stayed did not move.
    assert [n for what, n in flow(workers["a"]) if what != "assigned"] == [4, 4]
    assert Counter(flow(workers["a"])) == {**{("assigned", p): 1 for p in range(8)}, ("revoked", 4): 2}
    assert Counter(flow(workers["b"])) == {**{("assigned", p): 1 for p in range(8)}, ("revoked", 4): 2}


@every(("consumer", "exactly_once"))
def test_a_worker_that_keeps_what_it_has_goes_on_when_others_come(newest, group_broker, nginx, topics, start_worker, group, delivery):
    """The group's generation goes up, and nobody tells those whose partitions stay: their commits must not be refused for ever."""
    t = topics(group_broker.bootstrap, partitions=2)
    opts = options(t, group, delivery)
    reader = t.reader()
    workers = [start_worker(opts, name, env=newest) for name in "ab"]
    for w in workers:
        w.wait_partitions(1)
    jobs = t.produce_jobs([f"{nginx.url}/1k"] * 100, 2, "first")
    reader.until(len(jobs))
    workers.append(start_worker(opts, "c", env=newest).wait_ready())
    jobs |= t.produce_jobs([f"{nginx.url}/1k"] * 100, 2, "second")
    reader.until(len(jobs))
    for w in reversed(workers):
        w.stop()
    ledger(jobs, reader).assert_exact()
    assert workers[2].read_log().count("partition assigned") == 0
    assert workers[1].read_log().count("partition assigned") == 1


@pytest.mark.parametrize("delivery", [pytest.param("at_least_once", marks=pytest.mark.long), "exactly_once"])
def test_the_main_job(newest, group_broker, nginx, topics, start_worker, delivery):
    t = topics(group_broker.bootstrap, partitions=8)
    jobs = t.produce_jobs([f"{nginx.url}/1k"] * 2000, partitions=8)
    w = start_worker(options(t, {}, delivery), env=newest)
    reader = t.reader()
    reader.until(len(jobs))
    w.stop()
    ledger(jobs, reader).assert_exact()


REFUSED = [
    ("session.timeout.ms", "6000", "group.consumer.session.timeout.ms"),
    ("heartbeat.interval.ms", "1000", "group.consumer.heartbeat.interval.ms"),
    ("partition.assignment.strategy", "range", "kafka.group.remote.assignor"),
    ("group.protocol.type", "consumer", "other protocol"),
]


def test_what_does_not_go_with_the_consumer_protocol_is_refused(newest):
    for name, value, why in REFUSED:
        argv = [worker.build_dir() / "gatherd", "-o", "kafka.bootstrap.servers=127.0.0.1:1", "-o", "kafka.group.protocol=consumer",
                "-o", f"kafka.{name}={value}"]
        env = {k: v for k, v in os.environ.items() if not k.startswith("GATHERD_")}
        done = subprocess.run(argv, env={**env, **newest}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2, done
        assert done.stderr.startswith(f"gatherd: -o: kafka.{name} may not be set with group.protocol = consumer: "), done.stderr
        assert why in done.stderr and done.stderr.count("\n") == 1, done.stderr
