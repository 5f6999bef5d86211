"""Ctrl-C in the middle: a proxy keeps the request that a command waits for. submit, tail, feed, replay and try, which have a middle of their
own, are looked at beside their other tests."""

import array
import fcntl
import json
import re
import signal
import subprocess
import termios
import time
from collections import Counter

import pytest

import proc
from gatherctl import argv, ctl, environment
from held import API_VERSIONS, CREATE_TOPICS, DESCRIBE_CONFIGS, FETCH, FIND_COORDINATOR, LIST_GROUPS, LIST_OFFSETS, METADATA, OFFSET_COMMIT
from held import OFFSET_FETCH, PRODUCE, Held

N = 700  # dead letters; a redrive remembers each 500
PIPE_BYTES = 4096
ENDS_WITHIN_S = 10  # a few, on a busy machine

# What it waits for (with how many such requests let through before), and what it says then.
STAGES = {
    "dlq list --json": [(API_VERSIONS, 0, ""), (METADATA, 0, ""), (LIST_OFFSETS, 0, ""), (FIND_COORDINATOR, 0, ""), (OFFSET_FETCH, 0, ""),
                        (FETCH, 2, "interrupted; there may be more")],
    "dlq redrive": [(PRODUCE, 2, r"interrupted; run it again for the rest, of which \d+ may be back already"),
                    (OFFSET_COMMIT, 0, "interrupted; run it again for the rest, of which 500 may be back already")],
    "offsets reset --to earliest --yes": [(API_VERSIONS, 0, ""), (LIST_GROUPS, 0, ""), (OFFSET_FETCH, 0, ""), (LIST_OFFSETS, 0, ""),
                                          (OFFSET_COMMIT, 0, r"interrupted before the broker answered: group \S+ may be set or not; .*")],
    "status": [(API_VERSIONS, 0, ""), (LIST_GROUPS, 0, "")],
    "check": [(API_VERSIONS, 0, ""), (METADATA, 1, ""), (DESCRIBE_CONFIGS, 0, ""), (OFFSET_COMMIT, 0, ""), (PRODUCE, 0, "")],
    "topics": [(API_VERSIONS, 0, ""), (CREATE_TOPICS, 0, "interrupted before the broker answered: .*"), (DESCRIBE_CONFIGS, 0, "")],
}


class Scene:
    """Dead letters; and for each stage a group and a jobs topic to be made that no other has."""

    def __init__(self, t):
        self.t = t
        self.jobs, self.dead, self.results = t.name("jobs"), t.make("dead", 2, max_message_bytes=2 << 20), t.name("results")

    def fill(self):
        for i in range(N):
            headers = [("own", b"\xff%d" % i), ("gatherd-dlq-reason", b"TIMEOUT"), ("gatherd-dlq-topic", self.jobs.encode()),
                       ("gatherd-dlq-partition", b"%d" % (i % 2))]
            self.t.produce(b"value \x00%d" % i, key=b"%d" % i, partition=i % 2, headers=headers, kind="dead")
        self.t.flush()

    def group(self, kind):
        return f"{self.t.prefix}.{kind}"

    def line(self, words, kind, bootstrap):
        options = {"kafka.bootstrap.servers": bootstrap, "kafka.group.id": self.group(kind), "dead_letter.topic": self.dead,
                   "jobs.topic": self.t.name(f"new{kind}") if words == "topics" else self.jobs, "results.topic": self.results,
                   "kafka.consumer.fetch.message.max.bytes": 20000}
        return [*words.split(), *(word for k, v in options.items() for word in ("-o", f"{k}={v}"))]

    def again(self, words, *kinds):
        children = [start(self.line(words, kind, self.t.bootstrap)) for kind in kinds]
        ends = [(*child.communicate(timeout=60), child.returncode) for child in children]
        assert all(code == 0 for _, _, code in ends), ends
        return [out for out, _, _ in ends]

    def commit_points(self, kind):
        rows = json.loads(ctl(*self.line("offsets --json", kind, self.t.bootstrap)).stdout)["partitions"]
        return [row["commit_point"] for row in rows]


def start(args):
    return subprocess.Popen(argv(*args), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
                            pipesize=PIPE_BYTES)


def is_full(pipe):
    n = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, n)
    return n[0] == PIPE_BYTES


def interrupt(child):
    child.send_signal(signal.SIGINT)
    return time.monotonic()


def end_of(child, interrupted):
    """What it printed, and what it said."""
    out, err = child.communicate(timeout=60)
    assert time.monotonic() - interrupted < ENDS_WITHIN_S and (not out or out.endswith("\n"))
    return out, err


def check_redrive(scene):
    """Each group brought all back: whole, byte for byte, and twice only what could not be remembered."""
    scene.again("dlq redrive", PRODUCE, OFFSET_COMMIT)
    whole = {(b"%d" % i, b"value \x00%d" % i, (("own", b"\xff%d" % i),), i % 2) for i in range(N)}
    back = Counter((r.key, r.value, tuple(r.headers), r.partition) for r in scene.t.reader("jobs").to_end())
    assert back.keys() == whole and min(back.values()) >= 2 and back.total() == 2 * N + 500


def check_offsets(scene):
    """All partitions or none."""
    assert scene.commit_points(OFFSET_COMMIT) == [None, None]
    scene.again("offsets reset --to earliest --yes", OFFSET_COMMIT)
    assert scene.commit_points(OFFSET_COMMIT) == [0, 0]


def check_topics(scene):
    assert [re.search("created|existed", out)[0] for out in scene.again("topics", CREATE_TOPICS, DESCRIBE_CONFIGS)] == ["created", "existed"]


AFTERWARDS = {"dlq redrive": check_redrive, "offsets reset --to earliest --yes": check_offsets, "topics": check_topics}


@pytest.fixture
def scene(topics, broker):
    return Scene(topics(broker.bootstrap, 2))


@pytest.fixture
def proxies():
    made = []
    yield made
    for proxy in made:
        proxy.stop()


@pytest.fixture
def children():
    """By what they wait for."""
    started = {}
    yield started
    for child in started.values():
        proc.kill(child)


@pytest.mark.parametrize("words", STAGES)
def test_ctrl_c_leaves_nothing_half_done(words, scene, broker, proxies, children):
    if words.startswith("dlq"):
        scene.fill()
    interrupted = {}
    for kind, passed, _ in STAGES[words]:
        proxies.append(Held(broker.port, kind, passed))
        children[kind] = start(scene.line(words, kind, proxies[-1].bootstrap))

    def interrupt_each():
        """As soon as it is there: some wait for a few seconds only."""
        for proxy in proxies:
            child = children[proxy.kind]
            if proxy.kind in interrupted or not proxy.reached.is_set() or (proxy.kind == FETCH and not is_full(child.stdout)):
                continue
            if proxy.kind == FETCH:  # in the middle of a line, too
                time.sleep(0.1)
            interrupted[proxy.kind] = interrupt(child)
        return len(interrupted) == len(children)

    proc.wait_until(interrupt_each, 60, f"the requests of {words}")
    for kind, _, said in STAGES[words]:
        child = children[kind]
        out, err = end_of(child, interrupted[kind])
        line = f"gatherctl {words.split()[0]}: {said}\n" if said else ""
        assert child.returncode == 1 and re.fullmatch(line, err), (kind, child.returncode, err)
        if words == "dlq list --json":
            assert bool(out) == (kind == FETCH) and all(json.loads(row)["reason"] == "TIMEOUT" for row in out.splitlines())
        if words == "check":
            assert out and all(re.match(r"(ok      |warning )\S", row) for row in out.splitlines())
    AFTERWARDS.get(words, lambda scene: None)(scene)


def test_ctrl_c_while_the_sandbox_starts(children):
    """As soon as it is caught at all."""
    child = children["start"] = start(["sandbox", "--partitions", "1000"])

    def is_caught():
        with open(f"/proc/{child.pid}/status") as status:
            return int(re.search(r"^SigCgt:\s+(\w+)", status.read(), re.M)[1], 16) >> (signal.SIGINT - 1) & 1

    proc.wait_until(is_caught, 30, "it catches SIGINT", child, step_s=0)
    out, err = end_of(child, interrupt(child))
    assert (child.returncode, err) == (0, "") and re.fullmatch(r"(bootstrap=\S+ origin=\S+\n)?", out)
