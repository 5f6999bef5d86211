"""A broker that is killed and comes back, with gatherd's own session settings: progress again within 10 s of its return.

Also when it was away for longer than the session. librdkafka then forgets its member id and comes back as a new member; the
coordinator, which begins every session anew when it loads the group, waits for the old one until that has passed, too: so the
session is shorter than 10 s. A static member (kafka.group.instance.id) takes its own place at once."""

import time

import pytest

import faults
from faults import KINDS, STUCK_S, Fault
from runs import AT_LEAST_ONCE, EXACTLY_ONCE, Report, judge, options

SESSION_S = 7  # gatherd's default
DEFAULT = {"kafka.session.timeout.ms": SESSION_S * 1000, "kafka.heartbeat.interval.ms": 2000}
WORKERS, INFLIGHT = "ab", 20
CASES = [(AT_LEAST_ONCE, False), (EXACTLY_ONCE, False), (EXACTLY_ONCE, True)]  # mode, whether members are static


def together(worlds, question, limit_s, what):
    """run_until of several at a time."""
    until = time.monotonic() + limit_s
    while not all(map(question, worlds)):
        for w in worlds:
            w.step()
        assert time.monotonic() < until, f"not within {limit_s} s: {what}"


def outage(worlds, number, down_s, report):
    """One kill of the broker, which all of them see."""
    f = Fault(number, "broker_kill", "the broker", 0, {"down_s": down_s})
    report.at(str(f))
    killed_ms = faults.now_ms()
    for pause_s in KINDS["broker_kill"].run(worlds[0], f):
        until = time.monotonic() + pause_s
        together(worlds, lambda w: time.monotonic() >= until, pause_s + STUCK_S, "the pause")
    away_s = (f.since_ms - killed_ms) / 1000
    report.at(f"back after {away_s:.1f} s")
    together(worlds, lambda w: w.all_work_since(f.since_ms), STUCK_S, f"recovery from {f}")
    return f


@pytest.mark.long
def test_broker_back(make_world, seed, budget, capsys):
    report = Report(capsys, "broker back", seed)
    budget.begin("test_broker_back")
    worlds = [make_world({**options(mode, INFLIGHT), **DEFAULT}, name=f"{i}-") for i, (mode, _) in enumerate(CASES)]
    for w, (_, is_static) in zip(worlds, CASES):
        w.has_static_members = is_static
        for slot in WORKERS:
            w.start(slot)
        w.is_feeding = True
    together(worlds, lambda w: w.all_work_since(0), STUCK_S, "results of every worker")
    outages = [outage(worlds, number, down_s, report) for number, down_s in ((1, 0), (2, SESSION_S + 3))]
    for w, (mode, is_static) in zip(worlds, CASES):
        w.finish()
        report.say(f"  {mode.name}{', static members' if is_static else ''}")
        n = judge(w, mode, outages, report)
        # What was under way to the broker at each kill, and acknowledged but in no commit yet; not what came after it.
        limit = len(outages) * len(WORKERS) * 2 * INFLIGHT
        assert n <= limit, f"{n} doubled; the limit is {limit}"
