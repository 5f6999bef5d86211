"""gatherctl dlq on a real broker: what a worker sent to the dead-letter topic is listed, shown, and brought back byte for byte."""

import json
import signal
import subprocess

import pytest

import proc
from gatherctl import argv, ctl, environment, on_terminal, visible

# Key, value, headers of jobs that no worker understands: nothing in them may change on the way there and back.
BAD = [(b"k\x00\xff", b"not a url \xff\x00", [("a", b"1"), ("a", b"2"), ("gatherd-dlq-reason", b"older")]),
       (None, b"{\"url\":", None), (b"", b"", [("empty", b""), ("null", None)])]


class Dlq:
    def __init__(self, topics, broker):
        self.t = topics(broker.bootstrap, partitions=2)
        self.topic = self.t.make("dead", 2)
        self.base = ["-b", broker.bootstrap, "-t", self.topic, "-g", self.t.prefix]

    def ask(self, *args):
        return ctl("dlq", *args, *self.base)

    def lines(self, *args):
        return [json.loads(line) for line in self.ask("list", "--json", *args).stdout.splitlines()]

    def fill(self, n, reason=b"JOB_FORMAT"):
        """Dead letters as gatherd writes them."""
        for i in range(n):
            headers = [("own", b"%d" % i), ("gatherd-dlq-reason", reason), ("gatherd-dlq-detail", b"why"),
                       ("gatherd-dlq-topic", self.t.name("jobs").encode()), ("gatherd-dlq-partition", b"%d" % (i % 2)),
                       ("gatherd-dlq-offset", b"%d" % i), ("gatherd-dlq-timestamp", b"1")]
            self.t.produce(b"value %d" % i, key=b"key", partition=i % 2, headers=headers, kind="dead")
        self.t.flush()

    def jobs(self):
        """What is in the jobs topic now, by value."""
        return [r.value for r in self.t.reader("jobs").to_end()]


@pytest.fixture
def dlq(topics, broker):
    return Dlq(topics, broker)


def test_back_and_forth_byte_for_byte(dlq, start_worker):
    for key, value, headers in BAD:
        dlq.t.produce(value, key=key, partition=1, headers=headers)
    dlq.t.flush()
    worker = start_worker(dlq.t.options(dead_letter__topic=dlq.topic))
    proc.wait_until(lambda: len(dlq.lines()) == len(BAD), 60, "the dead letters are there")
    worker.stop()

    rows = sorted(dlq.lines(), key=lambda row: int(row["origin_offset"]))
    assert [(r["origin_topic"], r["origin_partition"], r["origin_offset"]) for r in rows] == \
        [(dlq.t.name("jobs"), "1", str(i)) for i in range(len(BAD))]
    assert all(r["reason"] and r["detail"] and not r["redriven"] and 0 <= r["age_ms"] < 600_000 for r in rows)

    done = dlq.ask("redrive")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("3 dead letters brought back")
    records = dlq.t.reader("jobs").to_end()
    before, after = records[:len(BAD)], records[len(BAD):]

    def bytes_of(records):
        return sorted((r.key or b"", r.key is None, r.value, r.headers, r.partition) for r in records)

    assert len(after) == len(BAD) and bytes_of(after) == bytes_of(before)


def test_redrive_is_done_once_and_only_what_is_asked_for(dlq):
    dlq.fill(6)
    dlq.fill(4, reason=b"TIMEOUT")
    assert len(dlq.lines()) == 10 and len(dlq.lines("--reason", "TIME*")) == 4 and not dlq.lines("--origin", "other")
    assert len(dlq.lines("--since", "1h")) == 10 and not dlq.lines("--since", "2100-01-01")
    dry = dlq.ask("redrive", "--reason", "TIMEOUT", "--dry-run", "--json")
    assert json.loads(dry.stdout) == {"dry_run": True, "redriven": 4, "failed": 0, "refused": 0, "passed_over": 6}
    assert dlq.jobs() == [] and len(dlq.lines()) == 10

    assert json.loads(dlq.ask("redrive", "--reason", "TIMEOUT", "--json").stdout)["redriven"] == 4
    assert json.loads(dlq.ask("redrive", "--reason", "TIMEOUT", "--json").stdout)["redriven"] == 0
    assert len(dlq.lines()) == 6 and [r["redriven"] for r in dlq.lines("--all")].count(True) == 4
    # One by its place: the one below it is not taken for done.
    assert dlq.ask("redrive", "0/2").returncode == 0
    again = dlq.ask("redrive", "0/2")
    assert again.returncode == 1 and "was brought back already" in again.stderr
    assert json.loads(dlq.ask("redrive", "--json").stdout)["redriven"] == 5
    assert sorted(dlq.jobs()) == sorted([b"value %d" % i for i in range(6)] + [b"value %d" % i for i in range(4)])
    assert dlq.lines() == [] and dlq.ask("list").stdout == f"no dead letters in {dlq.topic}\n"


@pytest.mark.parametrize("sig, again", [(signal.SIGINT, 0), (signal.SIGKILL, 500)])
def test_a_redrive_that_was_interrupted_goes_on(dlq, sig, again):
    """What it sent is remembered; when killed, all but the last 500. With so much linger each 500 take a while."""
    n = 3000
    dlq.fill(n)
    child = subprocess.Popen(argv("dlq", "redrive", *dlq.base, "-o", "kafka.producer.linger.ms=500"), stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment())
    jobs = dlq.t.reader("jobs")
    jobs.until(501)
    child.send_signal(sig)
    child.communicate(timeout=60)
    assert dlq.ask("redrive").returncode == 0
    values = [r.value for r in jobs.to_end()]
    assert set(values) == {b"value %d" % i for i in range(n)} and len(values) - n <= again


def test_what_has_no_way_back_stays(dlq):
    dlq.t.produce(b"a stranger", kind="dead", partition=0)
    dlq.t.flush()
    done = dlq.ask("redrive", "--json")
    assert done.returncode == 1 and json.loads(done.stdout)["refused"] == 1 and 'its topic "" is not there' in done.stderr
    assert len(dlq.lines()) == 1


def test_show(dlq):
    dlq.fill(1)
    dlq.t.produce(b"\x00\x1b[31mbinary", key=b"key", partition=1, kind="dead", headers=[("h", b"text")])
    dlq.t.flush()
    done = dlq.ask("show", "0/0")
    assert done.returncode == 0
    assert "header own: 0\n" in done.stdout and "header gatherd-dlq-reason: JOB_FORMAT\n" in done.stdout
    assert "key: key\nvalue: value 0\n" in done.stdout
    done = dlq.ask("show", "1/0")
    assert "00000000  00 1b 5b 33" in done.stdout and "\x1b" not in done.stdout
    assert json.loads(dlq.ask("show", "1/0", "--json").stdout)["headers"] == [{"name": "h", "value": "text"}]
    missing = dlq.ask("show", "0/9")
    assert missing.returncode == 1 and "there is no record 0/9" in missing.stderr


@pytest.mark.parametrize("args", [[], ["nonsense"], ["show"], ["show", "x"], ["list", "0/1"], ["redrive", "0/"]])
def test_wrong_usage_exits_2(args):
    assert ctl("dlq", *args, "-b", "127.0.0.1:1").returncode == 2


def test_table_fits_a_terminal(dlq):
    dlq.fill(3)
    text, code = on_terminal("dlq", "list", *dlq.base, columns=140)
    lines = visible(text).splitlines()
    assert code == 0 and lines[0].split() == "PLACE AGE REASON ORIGIN STATE BYTES DETAIL".split() and len(lines) == 4
    assert max(map(len, lines)) <= 140 and "\x1b[31mJOB_FORMAT" in text
