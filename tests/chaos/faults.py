"""The faults: one row and one function each. What is drawn from the seed is drawn when the plan is made, so a seed is a plan.

A function does its fault in steps and yields the seconds of load between them. It notes in its Fault since when recovery counts
(since_ms) and which results are at risk from it (ledger.py says what that means); one that notes none may double nothing."""

import glob
import random
import resource
import signal
import threading
import time
from collections import namedtuple
from dataclasses import dataclass, field
from pathlib import Path

import kafka

# kind: "before" or "after" at_ms; instance None: any
Risk = namedtuple("Risk", "fault kind instance at_ms until_ms", defaults=(None,))

SESSION_S = 6  # the least that a broker allows
HEARTBEAT_S = 1
# A process that lost its partitions unknowingly hears of it by then: from the answer to one heartbeat.
ZOMBIE_S = HEARTBEAT_S + 2
BROKER_START_S = 90
# What each may take, from its since_ms on, in both delivery modes.
RECOVERS_S = {"broker_kill": 10}
STUCK_S = 60  # any other
PULSE_S, STALL_S = 0.25, 1.5
STALL = "the machine stood still"


def now_ms():
    return time.time() * 1000


@dataclass
class Fault:
    number: int
    kind: str
    slot: str
    wait_s: float  # of load before it
    params: dict
    since_ms: float = None
    overlaps: bool = False  # the next one does not wait until this one is over
    dead: str = None  # whom it killed
    note: str = None  # what came of it, if that is not known beforehand
    risks: list = field(default_factory=list)

    def __str__(self):
        return (f"{self.number} {self.kind} of {self.slot}" + "".join(f" {k}={v}" for k, v in self.params.items())
                + (" (overlaps)" if self.overlaps else ""))

    def risk(self, kind, instance, at_ms, until_ms=None):
        self.risks.append(Risk(str(self), kind, instance, at_ms, until_ms))


def waited_us():
    """For how long in all some process of this machine waited for a CPU; 0 where the kernel does not say."""
    try:
        return int(Path("/proc/pressure/cpu").read_text().split("total=")[1].split()[0])
    except OSError:
        return 0


class Pulse:
    """Says when the machine, not a fault, stood still: the broker's answer to the simplest question takes longer than STALL_S,
    or this thread is not run. A live process may lose its session then, and what that doubles is no fault of gatherd's; nor does
    the time count in which nobody could recover, or work waited for a CPU."""

    def __init__(self, broker):
        self.broker = broker
        self.stalls = []  # (from_ms, to_ms)
        self.waited = []  # (at_ms, waited_us())
        self.round_trips = []
        self.is_over = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while not self.is_over.is_set():
            from_ms = now_ms()
            self.waited.append((from_ms, waited_us()))
            if kafka.answers(self.broker.port, 30):
                self.round_trips.append(now_ms() - from_ms)
            self.is_over.wait(PULSE_S)
            if now_ms() - from_ms > (STALL_S + PULSE_S) * 1000:
                self.stalls.append((from_ms, now_ms()))

    def stop(self):
        self.is_over.set()

    def risks(self):
        for from_ms, to_ms in self.stalls:
            yield Risk(STALL, "before", None, from_ms)
            yield Risk(STALL, "after", None, from_ms, to_ms + ZOMBIE_S * 1000)

    def within_ms(self, from_ms, to_ms):
        return sum(max(0, min(to, to_ms) - max(a, from_ms)) for a, to in self.stalls)

    def lost_ms(self, from_ms, to_ms):
        """Of that time, what a limit must not count."""
        waited = [us for at, us in self.waited if from_ms <= at <= to_ms]
        return max(self.within_ms(from_ms, to_ms), (waited[-1] - waited[0]) / 1000 if waited else 0)


# --- graceful ---

def sigterm(world, f):
    """SIGTERM in the midst of its work, and a new process in its place."""
    world.leave_for(f.slot)
    yield f.params["down_s"]
    f.since_ms = now_ms()
    world.start(f.slot)


def join_leave(world, f):
    """One more worker for a while."""
    world.start("x")
    yield f.params["stay_s"]
    f.since_ms = now_ms()
    world.leave("x")


def flap(world, f):
    """Two join, and one leaves before the group has settled."""
    world.start("x")
    world.start("y")
    yield f.params["stay_s"]
    world.leave("x")
    yield f.params["stay_s"]
    f.since_ms = now_ms()
    world.leave("y")


# --- hard ---

def sigkill(world, f):
    f.dead = world.kill(f.slot)
    f.since_ms = now_ms()
    f.risk("before", f.dead, f.since_ms)
    yield f.params["down_s"]
    world.start(f.slot)


def sigstop(world, f):
    """Frozen for two sessions: the others take its partitions, and it wakes not knowing."""
    worker = world.workers[f.slot]
    worker.signal(signal.SIGSTOP)
    f.since_ms = now_ms()
    f.risk("before", world.instance(worker), f.since_ms)
    yield f.params["for_s"]
    woken_ms = now_ms()
    worker.signal(signal.SIGCONT)
    f.risk("after", world.instance(worker), woken_ms, woken_ms + ZOMBIE_S * 1000)


def broker_kill(world, f):
    world.broker.kill()
    killed_ms = now_ms()
    yield f.params["down_s"]
    world.broker.launch()
    until = time.monotonic() + BROKER_START_S
    while not kafka.answers(world.broker.port):
        assert time.monotonic() < until, "the broker does not come back"
        yield 0.1
    f.since_ms = now_ms()
    # What it had appended and not acknowledged is for the producer's sequence numbers to tell; if the producer had to be made
    # anew, or the session ended meanwhile (what is with the producer then may still come out), that is doubled.
    f.risk("before", None, killed_ms)
    f.risk("after", None, killed_ms, f.since_ms + RECOVERS_S["broker_kill"] * 1000)


def cut(world, f):
    """No network between one worker and the broker."""
    name, link = world.instance(world.workers[f.slot]), world.links[f.slot]
    cut_ms = now_ms()
    link.hold() if f.params["how"] == "hold" else link.reset()
    yield f.params["for_s"]
    f.since_ms = now_ms()
    link.heal()
    f.risk("before", name, cut_ms)
    # What had been held back arrives now, wherever the partitions are.
    f.risk("after", name, cut_ms, f.since_ms + ZOMBIE_S * 1000)


def delay(world, f):
    """Each way takes longer."""
    world.links[f.slot].delay(f.params["seconds"])
    yield f.params["for_s"]
    f.since_ms = now_ms()
    world.links[f.slot].heal()


def refuse(world, f):
    """The results topic takes nothing."""
    world.topics.alter("results", **{f.params["by"]: REFUSE[f.params["by"]][0]})
    yield f.params["for_s"]
    world.topics.alter("results", **{f.params["by"]: REFUSE[f.params["by"]][1]})
    f.since_ms = now_ms()


def descriptors(world, f):
    """It may open none, while its connections to the broker are cut."""
    worker, link = world.workers[f.slot], world.links[f.slot]
    soft, hard = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (FEW_FILES, hard))
    cut_ms = now_ms()
    link.reset()
    yield 0.1
    link.heal()
    yield f.params["for_s"]
    f.since_ms = now_ms()
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (soft, hard))
    f.risk("before", world.instance(worker), cut_ms)
    f.risk("after", world.instance(worker), cut_ms, f.since_ms + ZOMBIE_S * 1000)


def memory(world, f):
    """Its address space may not grow. It goes on, or ends as by a SIGKILL and is started again."""
    worker, world.frail = world.workers[f.slot], f.slot
    with open(f"/proc/{worker.pid}/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    limits = resource.prlimit(worker.pid, resource.RLIMIT_AS)
    resource.prlimit(worker.pid, resource.RLIMIT_AS, (size + f.params["spare"], limits[1]))
    until_ms = now_ms() + f.params["for_s"] * 1000
    while worker.process.poll() is None and now_ms() < until_ms:
        yield 0.1
    world.frail = None
    f.since_ms = now_ms()
    if worker.process.poll() is None:
        resource.prlimit(worker.pid, resource.RLIMIT_AS, limits)
        f.note = "went on"
        return
    f.note = f"ended with {worker.process.returncode}, after {(now_ms() - until_ms) / 1000 + f.params['for_s']:.1f} s"
    f.dead = world.kill(f.slot)
    f.risk("before", f.dead, f.since_ms)
    world.start(f.slot)


def clock_jump(world, f):
    """The time of day jumps ahead and back under one process; how long something takes is counted right. Never to before the real
    time: libfaketime does not know C11's cnd_timedwait, so each wait of librdkafka would end at once there, as no real jump makes
    it."""
    clock = world.dir / f"clock-{f.number}"
    clock.write_text("+0")
    world.leave_for(f.slot)
    world.start(f.slot, env=faked_clock(clock))
    name = world.instance(world.workers[f.slot])
    since_ms = now_ms()
    yield 0.1
    world.run_until(lambda: world.all_work_since(since_ms) or world.is_done(), STUCK_S, "work of the one with the clock")
    clock.write_text(f"{f.params['by_s']:+d}")
    yield f.params["for_s"]
    f.since_ms = now_ms()
    clock.write_text("+0")
    yield f.params["for_s"]
    off_ms = [r.result.end_at_ms - r.timestamp_ms for r in world.reader.records if r.result.worker.instance == name]
    f.note = f"its results were off by up to {max(map(abs, off_ms), default=0) / 1000:.0f} s"


def faked_clock(file):
    """The environment of a process whose time of day is read from this file."""
    lib = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
    assert lib, "libfaketime is missing: package faketime"
    # jemalloc asks for the time while libfaketime, which allocates, is not ready: the C library's allocator comes first.
    return {"LD_PRELOAD": f"{lib[0]} libc.so.6", "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}


def log_pipe_full(world, f):
    """A worker whose log goes to a pipe that nobody reads, from now on."""
    world.leave_for(f.slot)
    yield 0.2
    f.since_ms = now_ms()
    world.start(f.slot, log_pipe=True)


FEW_FILES = 8  # fewer than it has open
# By which setting: the value that refuses, the usual one.
REFUSE = {"max_message_bytes": (100, 1048588), "min_insync_replicas": (2, 1)}


def between(low, high):
    return lambda rng: round(rng.uniform(low, high), 2)


def one_of(*values):
    return lambda rng: rng.choice(values)


SLOTS = "abc"

# slots: whom it may meet; takes_s: whether there is time for it in a bounded run
Kind = namedtuple("Kind", "run draw slots is_graceful takes_s")
KINDS = {
    "sigterm": Kind(sigterm, {"down_s": between(0, 1.5)}, SLOTS, True, 4),
    "join_leave": Kind(join_leave, {"stay_s": between(1, 3)}, "x", True, 6),
    "flap": Kind(flap, {"stay_s": between(0.1, 1)}, ["x and y"], True, 5),
    "sigkill": Kind(sigkill, {"down_s": one_of(0.2, 2, SESSION_S + 1)}, SLOTS, False, 10),
    "sigstop": Kind(sigstop, {"for_s": between(SESSION_S * 2, SESSION_S * 2.2)}, SLOTS, False, 15),
    "broker_kill": Kind(broker_kill, {"down_s": between(0, 3)}, ["the broker"], False, 20),
    "cut": Kind(cut, {"how": one_of("hold", "reset"), "for_s": one_of(2, 8.4)}, SLOTS, False, 11),
    "delay": Kind(delay, {"seconds": between(0.05, 0.25), "for_s": between(2, 4)}, SLOTS, False, 6),
    "refuse": Kind(refuse, {"by": one_of(*REFUSE), "for_s": between(1.5, 3)}, ["the results topic"], False, 6),
    "log_pipe_full": Kind(log_pipe_full, {}, SLOTS, False, 6),
    "descriptors": Kind(descriptors, {"for_s": one_of(2, 8.4)}, SLOTS, False, 11),
    "memory": Kind(memory, {"spare": one_of(0, 0, 1 << 20, 8 << 20), "for_s": between(2, 4)}, SLOTS, False, 10),
    "clock_jump": Kind(clock_jump, {"by_s": one_of(3600, 86400), "for_s": between(1.5, 2.5)}, SLOTS, False, 8),
}
# A clock that jumps makes librdkafka 2.0.2 end the process with an assertion of its own (rdkafka_txnmgr.c, "Invalid transaction state
# transition") in about one of five: what is behind it is not found yet.
IN_TRANSACTIONS = [kind for kind in KINDS if kind != "clock_jump"]


def plan(seed, name, names, first=1, kinds=KINDS):
    """The faults of one run, each kind once (or as often as it is named), in the seed's order."""
    rng = random.Random(f"{seed}/{name}")
    names = list(names)
    rng.shuffle(names)
    return [Fault(i, n, rng.choice(kinds[n].slots), round(rng.uniform(0.5, 1.5), 2),
                  {name: draw(rng) for name, draw in kinds[n].draw.items()})
            for i, n in enumerate(names, first)]


def short_plan(seed, seconds):
    """(faults, whether a process has the name of the one before it in its slot) for a run of that many seconds: a few of any
    kind, and some meet a worker that is not over the one before."""
    rng = random.Random(f"{seed}/short")
    kinds, n = [], rng.choice((1, 2, 2, 3))
    for kind in rng.sample(IN_TRANSACTIONS, n):
        if not kinds or sum(KINDS[k].takes_s for k in [*kinds, kind]) <= seconds:
            kinds.append(kind)
    faults = plan(seed, "short", kinds)
    for f in faults[:-1]:
        f.overlaps = rng.random() < 0.3
    return faults, rng.random() < 0.5
