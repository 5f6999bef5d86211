#!/usr/bin/env python3
"""The soak: four workers (two at least once, two exactly once) on one broker, a steady load of mixed kinds, for a long time.

    soak.py [--seconds N] [--rate N]      ./check soak runs it, from an environment that has what it needs

Judged:
- /healthz, asked each second, is never unhealthy. The machine is told apart: an alarm counts as the machine's when a control was
  held up at that time, too: a process that blocks on nothing (tests/bench/lag.c), the simplest question to the broker, or an
  acknowledgement of a record by the broker to a producer that is not gatherd's.
- Resident memory and descriptors are flat: after a warm-up of a quarter, the time is cut in six sections; the last one's median of
  memory and least number of descriptors may be above the greatest of the first three by no more than MEMORY_BYTES and FDS.
- The ledger: each record in has one result, each that cannot be understood one dead letter; no loss, no double.
Prints a line a minute, then the table; the exit code is 1 when anything of this does not hold."""

import argparse
import collections
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tests" / "chaos")]

import kafka  # noqa: E402
import nginx as nginx_server  # noqa: E402
import origin as origin_server  # noqa: E402
import proc  # noqa: E402
import topics as topics_client  # noqa: E402
import worker as worker_process  # noqa: E402
from faults import Pulse  # noqa: E402

PARTITIONS = 4
SECTIONS = 6
MEMORY_BYTES, FDS = 4 << 20, 5
LATE_US = 500_000
# A broker that takes this long for one record takes 5 s for a transaction, which is half a dozen such steps.
SLOW_ACK_S = 1
# A health cause is about what was up to this long before (a session that ran out, a delivery that waited).
AFTERMATH_S = 15
SILENCE_S = 120


class Control:
    """When a process that blocks on nothing was late or held up by more than LATE_US: its times."""

    def __init__(self):
        argv = ["stdbuf", "-oL", str(worker_process.build_dir() / "tests" / "lag")]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.late = []  # (at_s, by_s)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        for line in self.process.stdout:
            us = int(line.split()[1])
            if us > LATE_US:
                self.late.append((time.time(), us / 1e6))

    def stop(self):
        self.process.stdin.close()
        self.process.wait(10)


class Watch:
    """One worker: its health, memory and descriptors each second."""

    def __init__(self, w):
        self.worker = w
        self.n_asked = 0
        self.alarms = []   # (at_s, status, text)
        self.samples = []  # (at_s, rss, fds)
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.is_over.is_set():
            at = time.time()
            status, text = self.worker.health("/healthz")
            if self.is_over.is_set() or self.worker.process.poll() is not None:
                return
            self.n_asked += 1
            if status != 200:
                self.alarms.append((at, status, text.strip()))
            self.samples.append((at, self.worker.rss_bytes(), len(os.listdir(f"/proc/{self.worker.pid}/fd"))))
            self.is_over.wait(1)

    def stop(self):
        self.is_over.set()
        self.thread.join(15)

    def sections(self, start, end):
        """(median of memory, least of descriptors), section by section, after the warm-up; of one that ended before its time, to there.
        Connections come and go with the machine's pace: what leaks stays, and raises the least."""
        end = min(end, self.samples[-1][0])
        begin = start + (end - start) / 4
        step = (end - begin) / SECTIONS
        rows = []
        for i in range(SECTIONS):
            part = [s for s in self.samples if begin + i * step <= s[0] < begin + (i + 1) * step] or self.samples
            rows.append((statistics.median(s[1] for s in part), min(s[2] for s in part)))
        return rows


class Side:
    """One delivery mode: topics, two workers, what went in and what came out."""

    def __init__(self, mode, broker, protos, dir):
        self.mode = mode
        self.topics = topics_client.Topics(broker.bootstrap, f"soak-{mode}", *protos)
        for kind in ("jobs", "results", "dead"):
            self.topics.make(kind, PARTITIONS)
        options = self.topics.options(delivery=mode, dead_letter__topic=self.topics.name("dead"), host__inflight=100)
        self.workers = [worker_process.Worker(dir, options, f"{mode}-{i}").start() for i in (1, 2)]
        self.kinds = {}                        # source -> kind of job
        self.seen = collections.Counter()      # source -> results
        self.outcome = {}                      # source -> of its last result
        self.reader = self.topics.reader()
        self.n = 0
        self.slow_acks = []  # (from_s, to_s): of our own producer

    def ready(self):
        for w in self.workers:
            w.wait_ready()
            w.wait_partitions(PARTITIONS // len(self.workers))
        self.watches = [Watch(w) for w in self.workers]

    def put(self, kind, value):
        at = time.time()

        def on_offset(*source):
            self.kinds[source] = kind
            if (now := time.time()) - at > SLOW_ACK_S:
                self.slow_acks.append((at, now))

        self.topics.produce(value, f"{kind}-{self.n}", self.n % PARTITIONS, on_offset=on_offset)
        self.n += 1

    def read(self):
        """Takes what has come; nothing of it is kept but its number."""
        n = self.reader.poll(0.01)
        self.count()
        return n

    def count(self):
        for r in self.reader.records:
            source = r.result.source.partition, r.result.source.offset
            self.seen[source] += 1
            self.outcome[source] = self.topics.outcome(r.result)
        self.reader.records.clear()

    def finish(self):
        """All results, then the workers' ends."""
        self.topics.flush()
        last = time.monotonic()
        while len(self.seen) < len(self.kinds) and time.monotonic() - last < SILENCE_S:
            if self.read():
                last = time.monotonic()
        for w in self.watches:
            w.stop()
        self.metrics = [w.metrics() if w.process.poll() is None else {} for w in self.workers]
        self.early = [w.process.poll() is not None for w in self.workers]
        for w in self.workers:
            w.term()
        self.codes = [w.wait_exit(60) for w in self.workers]
        self.reader.to_end()
        self.count()

    def ledger(self):
        """{what: number}"""
        garbage = {s for s, kind in self.kinds.items() if kind == "garbage"}
        letters = collections.Counter((int(r.header("gatherd-dlq-partition")), int(r.header("gatherd-dlq-offset")))
                                      for r in self.topics.reader("dead").to_end())
        return {
            "in": len(self.kinds), "lost": len(self.kinds.keys() - self.seen.keys()),
            "doubled": sum(n > 1 for n in self.seen.values()), "unexpected": len(self.seen.keys() - self.kinds.keys()),
            "dead letters": len(letters), "dead letters lost": len(garbage - letters.keys()),
            "dead letters doubled": sum(n > 1 for n in letters.values()),
        }


class Load:
    """Kinds of jobs by weight; what may come of each."""

    def __init__(self, nginx, origin):
        dead = f"http://127.0.0.1:{proc.free_port()}/"
        self.kinds = {
            "200": (48, f"{nginx.url}/1k"), "64k": (4, f"{nginx.url}/64k"), "slow": (10, f"{nginx.url}/delay/1000"),
            "404": (12, f"{origin.url}/status/404"), "redirect": (12, f"{origin.url}/redirect/2"), "gzip": (4, f"{origin.url}/gzip/20000"),
            "garbage": (6, None), "dead host": (4, dead),
        }
        self.rng = random.Random(1)

    def draw(self, side):
        kind = self.rng.choices(list(self.kinds), [weight for weight, _ in self.kinds.values()])[0]
        url = self.kinds[kind][1]
        return kind, b"\xff" + self.rng.randbytes(200) if url is None else side.topics.job(f"{kind}-{side.n}", url)


def run(sides, load, rate, seconds):
    """The load, in step with the clock; what the machine held up is made up for, slowly."""
    start = time.monotonic()
    due, said = 0.0, 0
    while (now := time.monotonic() - start) < seconds and all(w.process.poll() is None for s in sides for w in s.workers):
        due = max(due, now * rate - rate)  # at most a second's jobs at once
        while due < now * rate:
            due += 1
            side = sides[int(due) % len(sides)]
            side.put(*load.draw(side))
        for side in sides:
            side.topics.producer.poll(0)
            side.read()
        if now // 60 > said:
            said = now // 60
            print(f"{said:3.0f} min: " + ", ".join(
                f"{s.mode} {len(s.kinds)} in, {len(s.seen)} out, {sum(len(w.alarms) for w in s.watches)} alarms" for s in sides),
                flush=True)
        time.sleep(0.02)


def machine_times(sides, control, pulse):
    """When the machine held up what is not gatherd's, as a set of whole seconds, aftermath included."""
    spans = [(t, t) for t, _ in control.late] + [(t / 1000, to / 1000) for t, to in pulse.stalls]
    spans += [span for side in sides for span in side.slow_acks]
    return {s for t, to in spans for s in range(int(t) - 1, int(to) + AFTERMATH_S)}


def judge(side, start, end, held_up):
    """Prints the table of one side; gives all that is wrong."""
    wrong = []
    ledger = side.ledger()
    print(f"\n{side.mode}: " + ", ".join(f"{n} {what}" for what, n in ledger.items()))
    outcomes = collections.Counter((kind, side.outcome.get(source, "none")) for source, kind in side.kinds.items())
    print("  outcomes: " + ", ".join(f"{kind} {outcome} {n}" for (kind, outcome), n in sorted(outcomes.items())))
    wrong += [f"{side.mode}: {n} {what}" for what, n in ledger.items() if n and what.split()[-1] in ("lost", "doubled", "unexpected")]
    for w, metrics, code, is_early in zip(side.watches, side.metrics, side.codes, side.early, strict=True):
        rows = w.sections(start, end)
        alarms = [a for a in w.alarms if int(a[0]) not in held_up]
        lost, stalls = (int(metrics.get(f"gatherd_{m}_total", -1)) for m in ("assignments_lost", "loop_stalls"))
        print(f"  {w.worker.name}: exit {code}; health asked {w.n_asked} times, {len(w.alarms)} alarms, {len(w.alarms) - len(alarms)} of them"
              f" while the machine held others up, too; assignments lost {lost}, loop stalls {stalls}")
        print("    memory MiB  " + " ".join(f"{m / 2**20:7.1f}" for m, _ in rows))
        print("    descriptors " + " ".join(f"{n:7.0f}" for _, n in rows), flush=True)
        for cause, n in sorted(collections.Counter(text.split(":")[0] for _, _, text in w.alarms).items()):
            first = next((at, text) for at, _, text in alarms + w.alarms if text.startswith(cause))
            print(f"    {n} alarms {cause}; one at {first[0] - start:.0f} s: {first[1]}")
        if code or is_early:
            wrong.append(f"{w.worker.name}: ended with {code}\n{proc.tail(w.worker.log, 5)}")
        wrong += [f"{w.worker.name}: {len(alarms)} false alarms"] * bool(alarms)
        for what, values, most in (("memory", [m for m, _ in rows], MEMORY_BYTES), ("descriptors", [n for _, n in rows], FDS)):
            if values[-1] - max(values[:SECTIONS // 2]) > most:
                wrong.append(f"{w.worker.name}: {what} grow")
        wrong += [f"{w.worker.name}: {line}" for line in w.worker.reports()]
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=1200)
    parser.add_argument("--rate", type=int, default=300, help="jobs a second, of all")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gatherd-soak-") as tmp:
        sys.exit(soak(Path(tmp), args))


def soak(dir, args):
    protos = topics_client.compile_protos(dir)
    broker = kafka.Broker(dir / "kafka").start()
    nginx, origin = nginx_server.Nginx(dir / "nginx").start(), origin_server.Origin(dir / "origin").start()
    sides, control, pulse = [], None, None
    try:
        sides = [Side(mode, broker, protos, dir) for mode in ("at_least_once", "exactly_once")]
        for side in sides:
            side.ready()
        control, pulse = Control(), Pulse(broker)
        start = time.time()
        run(sides, Load(nginx, origin), args.rate, args.seconds)
        end = time.time()
        for side in sides:
            side.finish()
        control.stop()
        pulse.stop()
        print(f"\n{args.seconds} s at {args.rate} jobs/s. The machine: a process that blocks on nothing was over {LATE_US / 1e6} s late"
              f" {len(control.late)} times (most {max((s for _, s in control.late), default=0):.1f} s), the broker silent {len(pulse.stalls)} times")
        held_up = machine_times(sides, control, pulse)
        print(f"Acknowledgements of our own records over {SLOW_ACK_S} s: {sum(len(s.slow_acks) for s in sides)}; in all {len(held_up)} s"
              f" with their aftermath do not count against gatherd")
        wrong = [w for side in sides for w in judge(side, start, end, held_up)]
        print("\n" + ("\n".join(f"WRONG: {w}" for w in wrong) or "flat, no false alarm, nothing lost, nothing doubled"))
        return bool(wrong)
    finally:
        for side in sides:
            side.topics.close()
            for w in side.workers:
                w.kill()
        if control and control.process.poll() is None:
            control.stop()
        origin.stop()
        nginx.stop()
        broker.kill()


if __name__ == "__main__":
    main()
