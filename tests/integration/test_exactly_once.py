"""delivery=exactly_once on a real broker: read_committed readers see each result once, whatever is killed."""

import random
import signal
import time

import pytest

import kafka
import proc
import topics as topics_client
import worker

SCALE = 10 if worker.is_instrumented() else 1


def eo(t, **more):
    return t.options(delivery="exactly_once", host__inflight=1000, kafka__session__timeout__ms=6000,
                     kafka__transaction__timeout__ms=5000, **more)


@pytest.fixture(scope="module")
def eo_broker(tmp_path_factory):
    """One that looks for dead transactions each second, and not each 10."""
    b = kafka.Broker(tmp_path_factory.mktemp("kafka") / "data",
                                   **{"transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000}).start()
    yield b
    b.stop()


def ledger(jobs, reader):
    return topics_client.Ledger(jobs, [r.result for r in reader.to_end()])


@pytest.mark.short
def test_each_job_once_and_graceful_stops(eo_broker, nginx, topics, start_worker):
    t = topics(eo_broker.bootstrap, partitions=8)
    n = 10000 // SCALE
    jobs = t.produce_jobs([f"{nginx.url}/delay/100"] * n, partitions=8)
    reader = t.reader()
    a = start_worker(eo(t, inflight=100), "a")
    reader.until(n // 5)
    b = start_worker(eo(t, inflight=100), "b")
    reader.until(n // 2)
    a.term()
    assert a.wait_exit(60) == 0
    reader.until(n)
    b.stop()
    ledger(jobs, reader).assert_exact()


@pytest.mark.short
def test_dead_letters_go_with_their_results(eo_broker, nginx, topics, start_worker):
    t = topics(eo_broker.bootstrap, partitions=4)
    t.make("dead", 4)
    w = start_worker(eo(t, dead_letter__topic=t.name("dead")))
    reader, dead = t.reader(), t.reader("dead")
    n = 2000 // SCALE
    for i in range(n):
        value = b"not a URL at all" if i % 2 else t.job(f"j{i}", f"{nginx.url}/1k")
        t.produce(value, f"k{i}".encode(), i % 4)
    t.flush()
    reader.until(n)
    w.stop()
    assert len(reader.to_end()) == n
    assert len({(r.result.source.partition, r.result.source.offset) for r in reader.records}) == n
    assert len(dead.to_end()) == n // 2
    assert len({(r.header("gatherd-dlq-partition"), r.header("gatherd-dlq-offset")) for r in dead.records}) == n // 2


def test_killed_workers_double_nothing(eo_broker, nginx, topics, start_worker):
    rng = random.Random(1)
    t = topics(eo_broker.bootstrap, partitions=8)
    t.make("dead", 8)
    options = eo(t, inflight=100, dead_letter__topic=t.name("dead"), dead_letter__outcomes="HTTP_ERROR")
    n = 6000
    jobs = t.produce_jobs([f"{nginx.url}/delay/100" if i % 10 else f"{nginx.url}/none" for i in range(n)], partitions=8)
    reader = t.reader()
    workers = [start_worker(options, "a"), start_worker(options, "b")]
    for i, part in enumerate((0.2, 0.4, 0.6)):
        reader.until(int(n * part))
        time.sleep(rng.random() / 5)
        victim = workers[i % 2]
        victim.kill()
        workers[i % 2] = start_worker(options, f"k{i}")
    reader.until(n)
    for w in workers:
        w.stop()
    result = ledger(jobs, reader)
    print(f"ledger: {result}")
    result.assert_exact()
    dead = [(r.header("gatherd-dlq-partition"), r.header("gatherd-dlq-offset")) for r in t.reader("dead").to_end()]
    assert len(dead) == len(set(dead)) == n // 10


def test_broker_killed_and_back(own_broker, nginx, topics, start_worker):
    t = topics(own_broker.bootstrap, partitions=8)
    n = 6000
    jobs = t.produce_jobs([f"{nginx.url}/delay/100"] * n, partitions=8)
    w = start_worker(eo(t, inflight=50))
    reader = t.reader()
    reader.until(n // 4)
    own_broker.kill()
    time.sleep(3)
    own_broker.start()
    reader.until(n, stall_s=90)
    proc.wait_until(lambda: w.health("/healthz")[0] == 200, 60, "healthy again", w.process)
    w.stop()
    result = ledger(jobs, reader)
    print(f"ledger: {result}")
    result.assert_exact()


def test_stopped_for_two_sessions(eo_broker, nginx, topics, start_worker):
    t = topics(eo_broker.bootstrap, partitions=4)
    n = 4000
    jobs = t.produce_jobs([f"{nginx.url}/delay/100"] * n, partitions=4)
    reader = t.reader()
    a = start_worker(eo(t, inflight=60), "a")
    b = start_worker(eo(t, inflight=60), "b")
    reader.until(n // 4)
    a.signal(signal.SIGSTOP)
    time.sleep(13)
    a.signal(signal.SIGCONT)
    reader.until(n, stall_s=90)
    a.stop()
    b.stop()
    result = ledger(jobs, reader)
    print(f"ledger: {result}")
    result.assert_exact()


def test_a_result_that_the_broker_refuses(eo_broker, nginx, topics, start_worker):
    t = topics(eo_broker.bootstrap)
    w = start_worker(eo(t, kafka__compression__type="none"))
    reader = t.reader()
    t.produce_jobs([f"{nginx.url}/1k"], prefix="first")
    reader.until(1)
    t.alter("results", max_message_bytes=20000)
    jobs = t.produce_jobs([f"{nginx.url}/64k" if i % 10 == 0 else f"{nginx.url}/1k" for i in range(100)], prefix="later")
    reader.until(101)
    w.stop()
    reader.to_end()
    later = [r for r in reader.results() if r.job_id.startswith("later")]
    topics_client.Ledger(jobs, later).assert_exact()
    assert all(len(r.body) == 1024 for r in later if r.url.endswith("/1k"))
    assert all(r.truncated == t.result_pb2.TRUNCATED_LENGTH for r in later if r.url.endswith("/64k"))


def test_a_topic_that_takes_nothing_for_a_while(eo_broker, nginx, topics, start_worker):
    """What the worker knows of its limit is not what is in force later."""
    t = topics(eo_broker.bootstrap)
    w = start_worker(eo(t))
    reader = t.reader()
    t.produce_jobs([f"{nginx.url}/1k"], prefix="first")
    reader.until(1)
    t.alter("results", max_message_bytes=100)
    t.produce_jobs([f"{nginx.url}/1k"] * 10, prefix="later")
    proc.wait_until(lambda: "refused for its size" in w.read_log(), 30, "it is refused", w.process)
    time.sleep(3)  # until it has asked for the limit
    t.alter("results", max_message_bytes=1048588)
    reader.until(11, stall_s=30)
    w.stop()


def test_a_transaction_that_timed_out_is_no_second_worker(eo_broker, nginx, topics, start_worker):
    """The broker fences both alike; who is only slow goes on."""
    t = topics(eo_broker.bootstrap, partitions=4)
    n = 3000
    jobs = t.produce_jobs([f"{nginx.url}/delay/100"] * n, partitions=4)
    reader = t.reader()
    w = start_worker({**eo(t, inflight=40), "kafka.transaction.timeout.ms": 2000}, "slow")
    for part in (0.1, 0.4, 0.7):
        reader.until(int(n * part))
        w.signal(signal.SIGSTOP)
        time.sleep(4.5)
        w.signal(signal.SIGCONT)
    reader.until(n)
    w.stop()
    # Whether a stop meets an open transaction is chance: on a quick machine none may.
    print("timed out:", w.read_log().count("took longer than kafka.transaction.timeout.ms"))
    ledger(jobs, reader).assert_exact()


def test_two_workers_of_one_name_fence_each_other_and_one_ends(eo_broker, nginx, topics, start_worker):
    t = topics(eo_broker.bootstrap, partitions=4)
    options = eo(t, inflight=20, instance="same")
    workers = [start_worker(options, "a"), start_worker(options, "b")]
    jobs = t.produce_jobs([f"{nginx.url}/delay/100"] * 2000, partitions=4)
    proc.wait_until(lambda: any(w.process.poll() is not None for w in workers), 60, "one of them ends")
    ended = next(w for w in workers if w.process.poll() is not None)
    assert ended.process.returncode == 1
    assert "fenced twice" in ended.read_log() and "`instance`" in ended.read_log()
    reader = t.reader()
    reader.until(len(jobs), stall_s=90)
    for w in workers:
        if w.process.poll() is None:
            w.stop()
    ledger(jobs, reader).assert_exact()
