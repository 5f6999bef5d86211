"""Static membership: kafka.group.instance.id. One that comes back within its session finds its partitions, and nobody else is disturbed."""

import pytest

import topics as topics_client
from test_newest import CONSUMER, COOPERATIVE, flow, group_broker, newest  # noqa: F401

PARTITIONS = 4
# Longer than any restart on a slow machine takes: what comes back late is none of this test.
RANGE = {"kafka.session.timeout.ms": 45000}
GROUPS = {"range": RANGE, "cooperative": {**COOPERATIVE, **RANGE}, "consumer": CONSUMER}


def rows(*default):
    every = [(name, delivery) for name in GROUPS for delivery in ("at_least_once", "exactly_once")]
    return pytest.mark.parametrize("group,delivery", [
        pytest.param(*row, id="-".join(row), marks=[] if row in default else [pytest.mark.long]) for row in every])


@pytest.fixture
def library(request, group):
    """The environment: range is for every librdkafka, the others for a current one."""
    return {} if group == "range" else request.getfixturevalue("newest")


@pytest.fixture
def where(request, group):
    """The broker: in the group protocol of KIP-848 it sets the session."""
    return request.getfixturevalue("group_broker" if group == "consumer" else "broker")


def member(t, group, delivery, name):
    return {**t.options(host__inflight=1000, delivery=delivery, inflight=20), **GROUPS[group], "kafka.group.instance.id": name,
            "instance": name}


def owned(w):
    return sorted(n for what, n in flow(w) if what == "assigned")


@rows(("range", "exactly_once"))
def test_a_restart_moves_no_partition(where, library, nginx, topics, start_worker, group, delivery):
    t = topics(where.bootstrap, partitions=PARTITIONS)
    n = 1500
    a = start_worker(member(t, group, delivery, "a"), "a", env=library)
    a.wait_partitions(PARTITIONS)
    b = start_worker(member(t, group, delivery, "b"), "b", env=library)
    b.wait_partitions(2)
    a.wait_partitions(2)
    before = [p for what, p in flow(a) if what == "assigned"][-2:] if group == "range" else [p for p in range(PARTITIONS) if p not in owned(b)]
    jobs = t.produce_jobs([f"{nginx.url}/delay/50"] * n, PARTITIONS)
    reader = t.reader()
    reader.until(n // 5)
    a.stop()
    a.start()
    a.wait_partitions(2)
    reader.until(n)
    a.stop()
    b.stop()
    topics_client.Ledger(jobs, [r.result for r in reader.to_end()]).assert_exact()
    assert owned(a) == sorted(before)
    # All that b ever had, it had from its start; the last line is its own end.
    assert [what for what, _ in flow(b)] == ["assigned"] * 2 + ["revoked"], flow(b)


@rows(("range", "at_least_once"))
def test_of_two_with_one_name_one_ends_and_says_why(where, library, nginx, topics, start_worker, group, delivery):
    t = topics(where.bootstrap, partitions=PARTITIONS)
    first = start_worker(member(t, group, delivery, "same"), "first", env=library)
    first.wait_partitions(PARTITIONS)
    second = start_worker({**member(t, group, delivery, "same"), "instance": "other"}, "second", env=library)
    # The broker takes the name from the first; in the group protocol of KIP-848 it keeps it for the first.
    ended, other = (second, first) if group == "consumer" else (first, second)
    assert ended.wait_exit(60) == 1
    assert 'code=KAFKA_FENCED detail="another process has the same kafka.group.instance.id"' in ended.read_log()
    other.wait_partitions(PARTITIONS)
    jobs = t.produce_jobs([f"{nginx.url}/1k"] * 100, PARTITIONS)
    reader = t.reader()
    reader.until(100)
    other.stop()
    topics_client.Ledger(jobs, [r.result for r in reader.to_end()]).assert_exact()
