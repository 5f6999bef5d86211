"""At least once under faults: nothing lost ever; nothing twice when everything stops in good order; after something hard only
what ledger.py allows. The same seed makes the same plan: ./check chaos --seed N."""

import time

import faults
from faults import KINDS, RECOVERS_S, STUCK_S
from ledger import COMMIT_INTERVAL_MS, Book, read_commits

# Of GATHERD_CHAOS_SECONDS without the start: when each test should have ended. The rest is for a slow machine.
ENDS = {"graceful": 0.22, "hard": 0.62, "three_kills": 0.9}

# delivery mode -> gatherd's options. exactly_once comes here as a second row, with its own bounds for doubles and RECOVERS_S.
AT_LEAST_ONCE = {"delivery": "at_least_once"}


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


def run_faults(world, plan, report, seconds_left):
    """One after the other, each only once the one before is over. Returns the ones that were done."""
    done = []
    for f in plan:
        if done and seconds_left() < KINDS[f.kind].takes_s:
            report.at(f"skipped, no time: {f}")
            continue
        world.run_for(f.wait_s)
        report.at(str(f))
        for pause_s in KINDS[f.kind].run(world, f):
            world.run_for(pause_s)
        since_ms = max(f.since_ms, faults.now_ms() - 100)
        world.run_until(lambda: world.all_work_since(since_ms), STUCK_S, f"recovery from {f}")
        done.append(f)
    return done


def judge(world, done, report):
    """The table, and the asserts that every run has."""
    commits = read_commits(world.commit_records(), world.topics.prefix, world.topics.name("jobs"))
    book = Book(world.sources, world.reader.records, commits)
    explained, wrong = book.judge([r for f in done for r in f.risks] + list(world.pulse.risks()))
    waits = [(f, book.takeover_ms(f.risks[0].instance, f.since_ms) if f.kind == "sigkill" else book.recovery_ms(f.since_ms))
             for f in done]
    pulse = world.pulse
    n_doubled = sum(len(c) - 1 for c in book.doubled.values())
    report.at("stopped")
    report.table([
        ("jobs", len(book.sources)), ("lost", len(book.lost)), ("doubled", n_doubled),
        ("doubled within the bound", sum(explained.values())),
        *((f"    {fault}, {kind}", n) for (fault, kind), n in explained.items()),
        ("the machine stood still", f"{len(pulse.stalls)} times, {pulse.within_ms(0, faults.now_ms()) / 1000:.1f} s"),
        ("longest gap without progress", f"{book.longest_gap_ms() / 1000:.2f} s"),
        ("from result to commit", f"median {book.commit_ms:.0f} ms; at risk before a fault: {book.risk_ms:.0f} ms"),
        *((f"recovered: {f.number} {f.kind} of {f.slot}", "no work left" if ms is None else f"{ms / 1000:.2f} s")
          for f, ms in waits),
    ])
    assert not book.lost, f"{len(book.lost)} lost:\n" + "\n".join(map(book.tell, sorted(book.lost)[:10]))
    assert not book.unexpected
    assert not (wrong_commits := book.wrong_commits()), f"{len(wrong_commits)} wrong commits: {wrong_commits[:5]}"
    assert not wrong, f"{len(wrong)} doubled beyond the bound:\n" + "\n".join(wrong[:10])
    assert book.commit_ms <= 3 * COMMIT_INTERVAL_MS, f"results wait {book.commit_ms} ms for their commit"
    for f, ms in waits:
        limit_ms = RECOVERS_S.get(f.kind, STUCK_S) * 1000 + pulse.within_ms(f.since_ms, f.since_ms + (ms or 0))
        assert ms is None or ms <= limit_ms, f"{f}: recovered only after {ms} ms"
    return sum(n for (fault, _), n in explained.items() if fault != faults.STALL)


def test_graceful(make_world, seed, budget, capsys):
    """Stops, joins and leaves: every job has one result."""
    report = Report(capsys, "graceful", seed)
    world = make_world({**AT_LEAST_ONCE, "host.inflight": 1000, "inflight": 40})
    world.begin()
    times = max(1, budget.total_s // 120)
    plan = faults.plan(seed, "graceful", [k for k, v in KINDS.items() if v.is_graceful] * times)
    done = run_faults(world, plan, report, lambda: budget.left_s(ENDS["graceful"]) - 4)
    world.finish()
    assert judge(world, done, report) == 0


def test_hard(make_world, seed, budget, capsys):
    """All of it, in the seed's order."""
    report = Report(capsys, "hard", seed)
    world = make_world({**AT_LEAST_ONCE, "host.inflight": 1000, "inflight": 40})
    world.begin()
    plan = faults.plan(seed, "hard", [k for k, v in KINDS.items() if not v.is_graceful])
    # What there is time for of the others: a stop in good order must double nothing in this company either.
    plan += faults.plan(seed, "hard, graceful", [k for k, v in KINDS.items() if v.is_graceful], len(plan) + 1)
    done = run_faults(world, plan, report, lambda: budget.left_s(ENDS["hard"]) - 4)
    world.finish()
    judge(world, done, report)


def test_three_kills(make_world, seed, budget, capsys):
    """40,000 jobs of 100 ms, 256 in flight, three SIGKILLs; fewer jobs when there is less time."""
    report = Report(capsys, "three_kills", seed)
    n = min(40000, 220 * budget.total_s)
    world = make_world({**AT_LEAST_ONCE, "host.inflight": 1000, "inflight": 128}, behind_proxy=False)
    world.begin_with(n, "ab")
    done = []
    for f, share in zip(faults.plan(seed, "three_kills", ["sigkill"] * 3), (0.1, 0.3, 0.5)):
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
    assert judge(world, done, report) < 592  # what the Parallel Consumer doubles here
