"""gatherctl offsets on a real broker, against what the public Python client sees of the same group."""

import json
import time

import pytest
from confluent_kafka import Consumer, TopicPartition

import proc
from gatherctl import ctl, on_terminal, visible


class Group:
    """Jobs in three partitions and a group that committed in the first only; nobody is a member."""

    def __init__(self, topics, broker):
        self.t = topics(broker.bootstrap, partitions=3)
        self.topic, self.name = self.t.name("jobs"), self.t.prefix
        self.base = ["-b", broker.bootstrap, "-g", self.name, "-t", self.topic]
        self.bootstrap = broker.bootstrap
        for i in range(20):
            self.t.produce(b"http://a.example/", partition=i % 2)
        self.t.flush()

    def client(self):
        return Consumer({"bootstrap.servers": self.bootstrap, "group.id": self.name, "enable.auto.commit": False})

    def commit(self, partition, offset, metadata=""):
        c = self.client()
        c.commit(offsets=[TopicPartition(self.topic, partition, offset, metadata)], asynchronous=False)
        c.close()

    def committed(self):
        c = self.client()
        got = c.committed([TopicPartition(self.topic, p) for p in range(3)], 30)
        c.close()
        return [(p.offset if p.offset >= 0 else None, p.metadata or "") for p in got]

    def ask(self, *args):
        return ctl("offsets", *args[:1], *self.base, *args[1:]) if args and args[0] == "reset" else ctl("offsets", *self.base, *args)

    def shown(self):
        return json.loads(self.ask("--json").stdout)


@pytest.fixture
def group(topics, broker):
    return Group(topics, broker)


def test_absent_and_never_committed_groups_are_said(group):
    done = group.ask("--json")
    assert done.returncode == 1 and f"there is no group {group.name}" in done.stderr
    shown = json.loads(done.stdout)
    assert shown["total"]["backlog"] == 20 and shown["state"] == "absent"
    group.commit(2, 0)
    done = group.ask()
    assert done.returncode == 0 and not done.stderr
    assert done.stdout.count("never committed") == 2


def counts(row):
    return [row[k] for k in ("start", "commit_point", "completed_above", "end", "backlog", "lost")]


def test_offsets_of_each_partition(group):
    group.commit(0, 2)
    group.commit(1, 3, "not a set")
    group.t.delete_below(0, 4)
    shown = group.shown()
    assert [counts(row) for row in shown["partitions"]] == [[4, 2, 0, 10, 6, 2], [0, 3, 0, 10, 7, 0], [0, None, 0, 0, 0, 0]]
    assert [r["note"] for r in shown["partitions"]] == ["retention was faster than the workers", "the completed set cannot be read",
                                                        "never committed"]
    ages = [r["oldest_age_ms"] for r in shown["partitions"]]
    assert ages[2] is None and all(0 <= age < 600_000 for age in ages[:2])
    total = shown["total"]
    assert [total[k] for k in ("completed_above", "backlog", "lost", "oldest_age_ms")] == [0, 13, 2, max(ages[:2])]


def test_offsets_of_a_worker_under_way(group, origin, start_worker):
    """A hanging job, and answers behind it: the completed set that the worker commits is read, and counts where it should."""
    for path in ["ok"] * 20 + ["delay/60000"] + ["ok"] * 7:
        group.t.produce(f"{origin.url}/{path}".encode(), partition=2)
    group.t.flush()
    options = group.t.options(fetch__timeout="60s", fetch__stall_timeout="60s", drain__timeout="2s", dns__timeout="100ms",
                              retry__max_attempts=1)
    worker = start_worker(options)
    proc.wait_until(lambda: group.shown()["partitions"][2]["completed_above"] == 7, 60, "7 jobs are complete above the hanging one")
    shown = group.shown()
    assert counts(shown["partitions"][2]) == [0, 20, 7, 28, 1, 0] and (shown["state"], shown["members"]) == ("Stable", 1)

    done = group.ask("reset", "--to", "earliest", "--yes")
    assert done.returncode == 1 and "has 1 member" in done.stderr and "nothing is changed" in done.stderr
    worker.stop()
    assert group.committed()[2][0] == 20

    plan = json.loads(group.ask("reset", "--json", "--partition", "2:18").stdout)
    # What is complete above the commit point is done again, too.
    assert plan["partitions"] == [{"topic": group.topic, "partition": 2, "from": 20, "to": 18, "again": 9, "skipped": 0}]
    # Two more are deleted: the hanging one, which is lost, and one that was done.
    group.t.delete_below(2, 22)
    assert counts(group.shown()["partitions"][2]) == [22, 20, 6, 28, 0, 1]


@pytest.mark.parametrize("args, expected", [
    (["--to", "earliest"], [0, 0, 0]),
    (["--to", "latest"], [10, 10, 0]),
    (["--to", "7"], [7, 7, 0]),
    (["--to", "1h"], [0, 0, 0]),
    (["--to", "2001-01-01T00:00Z", "--partition", "1"], [5, 0, None]),
    (["--to", "latest", "--partition", "0:3", "--partition", "1"], [3, 10, None]),
    (["--partition", "1:4"], [5, 4, None]),
    (["--partition", "1:99"], [5, 10, None]),
])
def test_reset(group, args, expected):
    group.commit(0, 5, "a set")
    before = group.committed()
    dry = group.ask("reset", *args)
    assert dry.returncode == 0 and "nothing is changed yet" in dry.stderr and group.committed() == before
    done = group.ask("reset", *args, "--yes")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", dry.stdout)
    after = group.committed()
    assert [offset for offset, _ in after] == expected
    # The completed set belonged to the old commit point.
    assert after[0] == before[0] or after[0][1] == ""


def test_reset_says_what_happens_again_and_what_never_will(group):
    group.commit(0, 5)
    plan = json.loads(group.ask("reset", "--json", "--partition", "0:2", "--partition", "1:4").stdout)
    rows = [[r[k] for k in ("partition", "from", "to", "again", "skipped")] for r in plan["partitions"]]
    assert not plan["done"] and rows == [[0, 5, 2, 3, 0], [1, None, 4, 0, 4]]


@pytest.mark.parametrize("args, words", [
    (["reset"], "where to?"),
    (["reset", "--to", "someday"], "must be earliest, latest"),
    (["reset", "--partition", "9:1"], "there is no such partition"),
    (["reset", "--partition", "x"], "must be P, P:OFFSET"),
    (["reset", "--partition", "1"], "where to?"),
    (["--to", "earliest"], "are for `offsets reset`"),
    (["nonsense"], "not `offsets nonsense`"),
])
def test_wrong_usage_exits_2(group, args, words):
    done = ctl("offsets", *args, *group.base)
    assert done.returncode == 2 and words in done.stderr and not done.stdout


def test_table_fits_a_terminal(group):
    group.commit(0, 5)
    text, code = on_terminal("offsets", *group.base, columns=120)
    assert code == 0
    lines = visible(text).splitlines()
    assert lines[0] == f"group {group.name}: Empty, 0 members"
    assert lines[2].split() == "TOPIC PARTITION START COMMITTED ABOVE END BACKLOG OLDEST LOST NOTE".split()
    assert "\x1b[33m" in text and lines[-1].startswith("total")
    assert "\x1b" not in group.ask().stdout


def test_time_zone_and_forms_of_a_time(group):
    """The same moment in each form: between the records of the two halves."""
    time.sleep(1.1)
    cut = time.time()
    group.t.produce(b"http://late.example/", partition=0)
    group.t.flush()
    forms = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(cut)), time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(cut)),
             time.strftime("%Y-%m-%dT%H:%M:%S.001+02:00", time.gmtime(cut + 7200))]
    for form in forms:
        plan = json.loads(group.ask("reset", "--json", "--to", form, "--partition", "0").stdout)
        assert plan["partitions"][0]["to"] == 10, form
