"""Exactly once under faults: a read_committed reader sees each result once, for every fault of the list and without excuse.

test_seeded_runs is the long set, too: ./check chaos-long. Its base seed gives each run its own; `--seed N --runs 1` repeats one."""

import os
import time

import pytest

import faults
from faults import KINDS
from runs import EXACTLY_ONCE, Quiet, Report, Verdict, faults_run, options, run_faults, three_kills_run

N_JOBS = 4000
# Of one run, by plan; a slow machine may take longer.
FAULTS_S = 24
# Which runs are this process's: of several side by side, each has its own broker.
LANE, LANES = (int(n) for n in os.environ.get("GATHERD_CHAOS_LANE", "0/1").split("/"))


def test_hard_exactly_once(make_world, seed, budget, capsys):
    """All faults, the graceful ones too, in the seed's order."""
    report, left_s = Report(capsys, "hard, exactly once", seed), budget.begin("test_hard_exactly_once")
    plan = faults.plan(seed, "hard, exactly once", faults.IN_TRANSACTIONS)
    faults_run(make_world, EXACTLY_ONCE, plan, report, lambda: left_s() - 6)


def test_three_kills_exactly_once(make_world, seed, budget, capsys):
    report = Report(capsys, "three kills, exactly once", seed)
    three_kills_run(make_world, EXACTLY_ONCE, seed, budget.begin("test_three_kills_exactly_once")(), report)


# --- many short runs ---

def one_run(make_world, seed):
    """(faults, verdict, the error or None) of one run."""
    plan, has_stable_names = faults.short_plan(seed, FAULTS_S)
    with make_world.once(options(EXACTLY_ONCE, 40), f"run-{seed}") as world:
        world.has_stable_names = has_stable_names
        verdict = None
        try:
            world.begin(limit=N_JOBS, over_s=sum(f.wait_s + KINDS[f.kind].takes_s for f in plan))
            done = run_faults(world, plan, Quiet(), lambda: FAULTS_S)
            world.finish()
            verdict = Verdict(world, EXACTLY_ONCE, done)
            verdict.check()
        except AssertionError as e:
            return plan, verdict, f"{e}\n{world.logs()}"
        return plan, verdict, None


def line(number, seed, took_s, plan, verdict):
    """One row of the table."""
    names = "; ".join(map(str, plan))
    if not verdict:
        return f"  run {number:<4} {seed:<11} {took_s:4.0f} s  not judged                             {names}"
    ms = verdict.recovery_ms()
    recovered = "     -" if ms is None else f"{ms / 1000:5.1f} s"
    return (f"  run {number:<4} {seed:<11} {took_s:4.0f} s  lost {len(verdict.book.lost)} doubled {verdict.n_doubled}"
            f"  gap {verdict.book.longest_gap_ms() / 1000:4.1f} s  recovered {recovered}  {names}")


def test_seeded_runs(make_world, seed, budget, capsys):
    """4,000 jobs and one fault or more, both drawn from the run's seed."""
    report, left_s = Report(capsys, "short runs, exactly once: base", seed), budget.begin("test_seeded_runs")
    n_runs = int(os.environ.get("GATHERD_CHAOS_RUNS") or 2)
    bad, n_done, begun = {}, 0, time.monotonic()
    for number in range(LANE, n_runs, LANES):
        if n_done and left_s() < 30:
            report.say(f"  no time for more: stopped before run {number}")
            break
        run_seed, from_s = (seed + number) % 2**32, time.monotonic()
        plan, verdict, error = one_run(make_world, run_seed)
        n_done += 1
        report.say(line(number, run_seed, time.monotonic() - from_s, plan, verdict))
        if error:
            bad[run_seed] = error
            report.say(f"    FAILED: {error}")
    report.say(f"  {n_done} runs of {N_JOBS} jobs in {time.monotonic() - begun:.0f} s, {len(bad)} failed")
    if bad:
        pytest.fail("\n".join(f"seed {s}: {e.splitlines()[0]}" for s, e in bad.items()), pytrace=False)
