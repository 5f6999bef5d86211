"""How a run is made and judged: the plan's faults one after the other, then the table and the asserts that every run has."""

import statistics
import time
from dataclasses import dataclass

import faults
from faults import KINDS, STUCK_S
from ledger import COMMIT_INTERVAL_MS, Book, read_commits

TRANSACTION_S = 5
# By then the broker has found a transaction that timed out; the tests' broker looks for them each second.
DEAD_TRANSACTION_S = 15
# What a commit may cost: a few questions, and threads that pass it on. One costs a millisecond where nothing else runs.
ROUND_TRIPS = 20


@dataclass(frozen=True)
class Mode:
    """A delivery mode: gatherd's options, and what it promises."""
    name: str
    options: dict
    may_double: bool  # what ledger.py allows; else nothing, for no excuse
    sigkill_s: float  # until the others have done what the dead had under way

    def limit_s(self, fault):
        return self.sigkill_s if fault.dead else faults.RECOVERS_S.get(fault.kind, STUCK_S)


AT_LEAST_ONCE = Mode("at least once", {"delivery": "at_least_once"}, True, faults.SESSION_S + 5)
EXACTLY_ONCE = Mode("exactly once", {"delivery": "exactly_once", "kafka.transaction.timeout.ms": TRANSACTION_S * 1000}, False,
                    TRANSACTION_S + DEAD_TRANSACTION_S)


class Report:
    """Printed whether the test passes or not."""

    def __init__(self, capsys, name, seed):
        self.capsys, self.start_ms = capsys, time.time() * 1000
        self.say(f"\nchaos {name}: seed {seed}")

    def say(self, text):
        with self.capsys.disabled():
            print(text, flush=True)

    def at(self, text):
        self.say(f"  {(time.time() * 1000 - self.start_ms) / 1000:6.1f} s  {text}")

    def table(self, rows):
        for name, value in rows:
            self.say(f"  {name:<36} {value}")


class Quiet:
    """The report of a run that has one line of a table of runs."""

    def at(self, text):
        pass

    def table(self, rows):
        pass


def run_faults(world, plan, report, seconds_left, kinds=KINDS):
    """One after the other, each only once the one before is over, unless it overlaps. Returns the ones that were done."""
    done = []
    for f in plan:
        if done and seconds_left() < kinds[f.kind].takes_s:
            report.at(f"skipped, no time: {f}")
            continue
        world.run_for(f.wait_s)
        report.at(str(f))
        for pause_s in kinds[f.kind].run(world, f):
            world.run_for(pause_s)
        done.append(f)
        if f.note:
            report.at(f"{f.number} {f.note}")
        if not f.overlaps:
            since_ms = max(f.since_ms, faults.now_ms() - 100)
            world.run_until(lambda: world.all_work_since(since_ms) or world.is_done(), STUCK_S, f"recovery from {f}")
    return done


class Verdict:
    """What one run came to. check() raises on the first thing that is wrong, the worst first."""

    def __init__(self, world, mode, done):
        commits = read_commits(world.commit_records(), world.topics.prefix, world.topics.name("jobs"))
        self.mode, self.pulse = mode, world.pulse
        self.book = book = Book(world.sources, world.reader.records, commits, world.seen_ms)
        self.explained, self.wrong = book.judge([r for f in done for r in f.risks] + list(world.pulse.risks()))
        # Of an overlapping fault nobody can say when it was over.
        self.waits = [(f, book.takeover_ms(f.dead, f.since_ms) if f.dead else book.recovery_ms(f.since_ms))
                      for f in done if not f.overlaps]
        self.n_doubled = sum(len(c) - 1 for c in book.doubled.values())

    def rows(self):
        book, pulse = self.book, self.pulse
        yield "jobs", len(book.sources)
        yield "lost", len(book.lost)
        yield "doubled", self.n_doubled
        if self.mode.may_double:
            yield "doubled within the bound", sum(self.explained.values())
            for (fault, kind), n in self.explained.items():
                yield f"    {fault}, {kind}", n
        yield "the machine stood still", f"{len(pulse.stalls)} times, {pulse.within_ms(0, faults.now_ms()) / 1000:.1f} s"
        yield "longest gap without progress", f"{book.longest_gap_ms() / 1000:.2f} s"
        yield "from result to commit", f"median {book.commit_ms:.0f} ms; at risk before a fault: {book.risk_ms:.0f} ms"
        for f, ms in self.waits:
            yield f"recovered: {f.number} {f.kind} of {f.slot}", "no work left" if ms is None else f"{ms / 1000:.2f} s"

    def recovery_ms(self):
        """The longest; None when there was no work left after any."""
        return max((ms for _, ms in self.waits if ms is not None), default=None)

    def check(self):
        book = self.book
        assert not book.lost, f"{len(book.lost)} lost:\n" + "\n".join(map(book.tell, sorted(book.lost)[:10]))
        assert not book.unexpected
        assert not (wrong_commits := book.wrong_commits()), f"{len(wrong_commits)} wrong commits: {wrong_commits[:5]}"
        if self.mode.may_double:
            assert not self.wrong, f"{len(self.wrong)} doubled beyond the bound:\n" + "\n".join(self.wrong[:10])
        else:
            assert not book.doubled, f"{len(book.doubled)} doubled:\n" + "\n".join(
                book.tell(job_id, copies) for job_id, copies in sorted(book.doubled.items())[:10])
        for f, ms in self.waits:
            lost_ms = self.pulse.lost_ms(f.since_ms, f.since_ms + (ms or 0))
            limit_ms = self.mode.limit_s(f) * 1000 + lost_ms
            assert ms is None or ms <= limit_ms, (f"{f}: recovered only after {ms:.0f} ms, of which the machine was busy for "
                                                  f"{lost_ms:.0f}")


def judge(world, mode, done, report):
    """The table, then the asserts. Returns how many results faults have doubled."""
    verdict = Verdict(world, mode, done)
    report.at("stopped")
    report.table(verdict.rows())
    verdict.check()
    # Most of the time all is well in these runs.
    commit_ms = verdict.book.commit_ms
    limit_ms = 3 * COMMIT_INTERVAL_MS + ROUND_TRIPS * statistics.median(world.pulse.round_trips)
    assert commit_ms <= limit_ms, f"results wait {commit_ms:.0f} ms for their commit; the limit is {limit_ms:.0f}"
    return sum(n for (fault, _), n in verdict.explained.items() if fault != faults.STALL)


# --- runs that both modes have ---

def options(mode, inflight):
    return {**mode.options, "host.inflight": 1000, "inflight": inflight}


def faults_run(make_world, mode, plan, report, seconds_left):
    """Three workers under load through the plan."""
    world = make_world(options(mode, 40))
    world.begin()
    done = run_faults(world, plan, report, seconds_left)
    world.finish()
    return judge(world, mode, done, report)


def three_kills_run(make_world, mode, seed, seconds, report):
    """40,000 jobs of 100 ms, fewer when there is less time; 256 in flight, three SIGKILLs. How many were doubled."""
    n = max(2000, min(40000, int(800 * seconds)))
    world = make_world(options(mode, 128), behind_proxy=False)
    world.begin_with(n, "ab")
    done = []
    for f, share in zip(faults.plan(seed, f"three kills, {mode.name}", ["sigkill"] * 3), (0.1, 0.3, 0.5)):
        f.params["down_s"] = min(f.params["down_s"], 2)
        world.run_until(lambda: len(world.done) >= share * n, STUCK_S, f"{share} of the jobs")
        # Of two, one may have no work left: killing it would show nothing.
        f.slot = f.slot if world.is_working(f.slot) else "b" if f.slot == "a" else "a"
        report.at(str(f))
        for pause_s in KINDS["sigkill"].run(world, f):
            world.run_for(pause_s)
        world.run_until(lambda: world.all_work_since(f.since_ms) or world.is_done(), STUCK_S, f"recovery from {f}")
        world.run_for(1)  # what it had under way is being fetched again: the next kill must not take that, too
        done.append(f)
    world.finish()
    return judge(world, mode, done, report)
