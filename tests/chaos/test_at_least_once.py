"""At least once under faults: nothing lost ever; nothing twice when everything stops in good order; after something hard only
what ledger.py allows. The same seed makes the same plan: ./check chaos --seed N."""

import faults
from faults import KINDS
from runs import AT_LEAST_ONCE, Report, faults_run, three_kills_run


def test_graceful(make_world, seed, budget, capsys):
    """Stops, joins and leaves: every job has one result."""
    report, left_s = Report(capsys, "graceful, at least once", seed), budget.begin("test_graceful")
    times = max(1, budget.total_s // 120)
    plan = faults.plan(seed, "graceful", [k for k, v in KINDS.items() if v.is_graceful] * times)
    assert faults_run(make_world, AT_LEAST_ONCE, plan, report, lambda: left_s() - 4) == 0


def test_hard(make_world, seed, budget, capsys):
    """All of it, in the seed's order."""
    report, left_s = Report(capsys, "hard, at least once", seed), budget.begin("test_hard")
    plan = faults.plan(seed, "hard", [k for k, v in KINDS.items() if not v.is_graceful])
    # What there is time for of the others: a stop in good order must double nothing in this company either.
    plan += faults.plan(seed, "hard, graceful", [k for k, v in KINDS.items() if v.is_graceful], len(plan) + 1)
    faults_run(make_world, AT_LEAST_ONCE, plan, report, lambda: left_s() - 4)


def test_three_kills(make_world, seed, budget, capsys):
    report = Report(capsys, "three kills, at least once", seed)
    # What the Parallel Consumer doubles here.
    assert three_kills_run(make_world, AT_LEAST_ONCE, seed, budget.begin("test_three_kills")(), report) < 592
