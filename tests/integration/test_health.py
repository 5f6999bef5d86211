"""Each cause of bad health, brought about for real: /healthz names it within 10 s, with a text that says what and where, and is well
again by itself once it is mended. What cannot be brought about from outside is done by the daemon linked with hindrances
(tests/support/blocking/hindered.c)."""

import contextlib
import re
import signal
import time

import pytest
from confluent_kafka import Consumer

import proc
import worker

NAMED_S = 10
WELL_S = 60  # a group that joins anew takes its time
NOT_MEMBER_S = 30
POLL_S, STEP_S = 0.1, 0.5


def watch(w, limit_s, question):
    """Asks /healthz until question(status, text); gives the text. Of a look that took long, because we or the daemon were not run, at most
    STEP_S counts."""
    counted, last, text = 0, time.monotonic(), ""
    while counted < limit_s:
        status, text = w.health("/healthz")
        if question(status, text):
            return text
        time.sleep(POLL_S)
        now = time.monotonic()
        counted, last = counted + min(now - last, STEP_S), now
    raise AssertionError(f"not within {limit_s} s; last: {text}\n{proc.tail(w.log)}")


def named(w, cause, pattern):
    """By /healthz in time, and soon in the log."""
    text = watch(w, NAMED_S, lambda status, text: status == 503 and text.startswith(f"{cause}: "))
    assert re.search(pattern, text), text
    logged(w, rf'level=warn msg=unhealthy cause={cause} detail="[^"]*{pattern}')


def well(w, was=None):
    watch(w, WELL_S, lambda status, text: (status, text) == (200, "ok\n"))
    if was:
        logged(w, rf'level=info msg="healthy again" was={was} unhealthy_ms=\d+')


def logged(w, pattern):
    proc.wait_until(lambda: re.search(pattern, w.read_log()), 30, f"the log says {pattern}", w.process)


@pytest.fixture
def hindered(start_worker, tmp_path, monkeypatch):
    """start(options), and hinder(name): a context in which that hindrance lasts."""
    folder = tmp_path / "hindrances"
    folder.mkdir()

    def start(options):
        build = worker.build_dir()
        with monkeypatch.context() as m:
            m.setattr(worker, "build_dir", lambda: build / "tests" / "hindered")
            return start_worker(options, env={"HINDRANCES": str(folder)}).wait_ready()

    @contextlib.contextmanager
    def hinder(name):
        (folder / name).touch()
        yield
        (folder / name).unlink()

    return start, hinder


# --- from outside ---

@contextlib.contextmanager
def no_results_topic(t, broker, origin):
    for future in t.admin.delete_topics([t.name("results")], operation_timeout=30).values():
        future.result(60)
    yield
    t.make("results", 2)


@contextlib.contextmanager
def no_jobs_topic(t, broker, origin):
    for future in t.admin.delete_topics([t.name("jobs")], operation_timeout=30).values():
        future.result(60)
    yield
    t.make("jobs", 2)


@contextlib.contextmanager
def results_refused(t, broker, origin):
    """Not even a result without its body fits."""
    t.alter("results", max_message_bytes=100)
    t.produce_jobs([f"{origin.url}/ok"] * 3, partitions=2)
    yield
    t.alter("results", max_message_bytes=1048588)


@contextlib.contextmanager
def broker_killed(t, broker, origin):
    broker.kill()
    yield
    broker.start()


@contextlib.contextmanager
def broker_frozen(t, broker, origin):
    broker.freeze()
    yield
    broker.thaw()


# cause, what its text says, the condition, of a broker of its own
OUTSIDE = {
    "results topic": ("no_topic", r"topic \S+\.results does not exist", no_results_topic, False),
    "jobs topic": ("no_topic", r"topic \S+\.jobs does not exist", no_jobs_topic, False),
    "results refused": ("output_blocked", r"oldest of 3 unacknowledged results \(of \S+\.jobs\[[01]\], offset [01]\) waits for \d+ s",
                        results_refused, False),
    "broker killed": ("no_broker", r"no broker answers: .*(refused|Disconnected|down|timed out)", broker_killed, True),
    "broker frozen": ("no_broker", r"no broker answers: .*(timed out|Timed out|timeout|down)", broker_frozen, True),
}
# The default run has what is short and unlike the others; ./check long has all.
SHORT = {("results topic", "at_least_once"), ("results refused", "exactly_once")}
BOTH = [(name, delivery) for name in OUTSIDE for delivery in ("at_least_once", "exactly_once")]


def long_but(rows, short):
    return [pytest.param(*row, marks=[] if row in short else pytest.mark.long) for row in rows]


@pytest.mark.parametrize("name, delivery", long_but(BOTH, SHORT))
def test_what_is_wrong_outside(request, topics, start_worker, origin, name, delivery):
    cause, pattern, condition, is_own = OUTSIDE[name]
    broker = request.getfixturevalue("own_broker" if is_own else "broker")
    t = topics(broker.bootstrap, partitions=2)
    w = start_worker(t.options(delivery=delivery)).wait_ready()
    well(w)
    with condition(t, broker, origin):
        named(w, cause, pattern)
        assert w.health("/livez") == (200, "ok\n")
        status, text = w.health("/readyz")
        # Blocked output does not keep it from taking work.
        assert (status, text.split(":")[0]) == ((200, "ok\n") if cause == "output_blocked" else (503, cause))
    well(w, r"\w+")  # the last one of what it was
    # And it works.
    w.wait_ready()
    before = w.metric("gatherd_results_total")
    t.produce_jobs([f"{origin.url}/ok"] * 10, partitions=2, prefix="after")
    w.wait_metric("gatherd_results_total", before + 10)


@pytest.mark.long
def test_no_assignment(broker, topics, start_worker):
    """Somebody else is in the group with a way to share out partitions that ours does not have."""
    t = topics(broker.bootstrap, partitions=2)
    other = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": t.prefix, "partition.assignment.strategy": "roundrobin"})
    other.subscribe([t.name("jobs")])
    proc.wait_until(lambda: other.poll(0.2) or other.assignment(), 60, "the other one is a member", step_s=0)
    w = start_worker(t.options())
    until = time.monotonic() + NOT_MEMBER_S - 5
    while time.monotonic() < until:
        other.poll(0.5)
        assert w.health("/healthz")[0] == 200
        assert w.health("/readyz")[0] == 503
    text = watch(w, NAMED_S + 5, lambda status, text: status == 503 or other.poll(0.1))
    assert re.fullmatch(r"no_assignment: not a member of the group for 3\d s\n", text)
    logged(w, 'cause=no_assignment detail="not a member')
    other.close()
    well(w, "no_assignment")


# --- from inside ---

# hindrance, cause, what its text says, settings
INSIDE = {
    "stall": ("loop_lag", r"the event loop was \d{4} ms late", {}),
    "poll": ("poll_starved", r"the group's events were not looked at for \d+ s", {}),
    "head": ("head_job_age", r"lowest open job \(of \S+\.jobs\[0\], offset 0\) had its first turn \d+ s ago, job.deadline is 1 s",
             {"job.deadline": "1s", "fetch.timeout": "1s", "retry.max_attempts": 1}),
    "call": ("no_broker", r"the Kafka client has not come back for \d+ s", {}),
}


@pytest.mark.parametrize("name", long_but([(name,) for name in INSIDE], {("stall",)}))
def test_what_is_wrong_inside(broker, topics, origin, hindered, name):
    cause, pattern, options = INSIDE[name]
    start, hinder = hindered
    t = topics(broker.bootstrap, partitions=1)
    w = start({**t.options(), **options})
    well(w)
    with hinder(name):
        t.produce_jobs([f"{origin.url}/delay/12000" if name == "head" else f"{origin.url}/ok"])
        named(w, cause, pattern)
    well(w, cause)
    t.produce_jobs([f"{origin.url}/ok"] * 10, prefix="after")
    w.wait_metric("gatherd_results_total", 11)


@pytest.mark.long
def test_a_loop_that_stands_still_ends_the_process(broker, topics, hindered):
    start, hinder = hindered
    t = topics(broker.bootstrap, partitions=1)
    w = start(t.options())
    with hinder("hang"):
        # No answer is the answer: what liveness is asked for.
        proc.wait_until(lambda: w.health("/livez")[0] == 0, 30, "no answer", w.process)
        assert w.wait_exit(180) == 1
    log = w.read_log()
    assert re.search(r'msg="the loop stands still".* stack="[^"]*hold_the_loop\+0x', log)
    last = re.search(r'level=error msg="cannot go on" code=LOOP_STALLED .*turn_ms=(\d+)\n', log)
    assert int(last.group(1)) >= 60000
    # Another one goes on.
    start(t.options()).stop()


@pytest.mark.long
def test_a_loop_that_was_stopped_does_not(broker, topics, start_worker):
    """The machine, or somebody's SIGSTOP, for longer than a turn may last."""
    t = topics(broker.bootstrap, partitions=1)
    w = start_worker(t.options()).wait_ready()
    w.signal(signal.SIGSTOP)
    time.sleep(65)
    w.signal(signal.SIGCONT)
    well(w)
    w.stop()


# --- not unhealthy ---

def test_a_full_log_pipe_is_no_matter(broker, topics, origin, tmp_path):
    t = topics(broker.bootstrap, partitions=1)
    w = worker.PipedWorker(tmp_path, t.options(), "piped").start()
    try:
        proc.wait_until(lambda: w.health("/readyz")[0] == 200, 60, "ready", w.process)
        t.produce_jobs([f"{origin.url}/ok"] * 2000)
        w.wait_metric("gatherd_results_total", 2000)
        assert w.health("/healthz") == (200, "ok\n")
        w.term()
        assert w.wait_exit(60) == 0
    finally:
        w.kill()


def test_a_start_and_a_drain_are_no_alarm(broker, topics, origin, start_worker):
    t = topics(broker.bootstrap, partitions=1)
    w = start_worker(t.options())
    while not w._logged("partition begins"):
        status, text = w.health("/healthz")
        assert status == 200, text
        time.sleep(0.02)
    t.produce_jobs([f"{origin.url}/delay/3000"])
    w.wait_metric("gatherd_inflight", 1)
    w.term()
    proc.wait_until(lambda: w._logged("msg=draining"), 30, "draining", w.process)
    assert w.health("/healthz") == (200, "ok\n")
    assert w.health("/readyz") == (503, "draining: SIGTERM: finishing what is under way\n")
    assert w.wait_exit(60) == 0
    assert "unhealthy" not in w.read_log()
