"""The main job on a real broker: what goes in comes out, once, in time, whatever is stopped."""

import os
import random
import subprocess
import time

import pytest
from confluent_kafka import Consumer, TopicPartition

import proc
import worker
from topics import PROTO, Ledger

JOBS = int(os.environ.get("GATHERD_TEST_JOBS", "100000"))
# What an instrumented build (the short runs) does of the fixed numbers below.
SCALE = 10 if worker.is_instrumented() else 1


def finish(topics, reader, jobs, *workers):
    """Waits for all results, stops the workers, reads what else came, and draws up the ledger."""
    reader.until(len(jobs))
    for w in workers:
        w.stop()
    return Ledger(jobs, [r.result for r in reader.to_end()])


def outcomes(topics, records):
    """How often each outcome came."""
    counts = {}
    for r in records:
        name = topics.outcome(r.result)
        counts[name] = counts.get(name, 0) + 1
    return counts


# --- 100,000 jobs ---

def protoc_count(values, tmp_path):
    """How many of these records protoc decodes from the shipped schema. A process for each would take minutes, so they are
    handed over as one list of messages: its wire form is each record after its tag and length."""
    (tmp_path / "all.proto").write_text('syntax = "proto3"; import "gatherd/v1/result.proto";\n'
                                        "message All { repeated gatherd.v1.FetchResult results = 1; }\n")
    argv = ["protoc", f"-I{PROTO}", f"-I{tmp_path}", "--decode=All", "all.proto"]
    text = subprocess.run(argv, input=b"".join(b"\x0a" + varint(len(v)) + v for v in values), stdout=subprocess.PIPE,
                          check=True).stdout
    # A field that the schema does not have is printed by its number.
    assert not any(line.lstrip()[:1].isdigit() for line in text.splitlines()), "protoc met a field that the schema does not have"
    return text.count(b"\nresults {") + text.startswith(b"results {")


def varint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes(out + bytes([n]))


@pytest.mark.short
def test_every_job_has_one_result_that_anybody_can_decode(broker, nginx, topics, start_worker, tmp_path):
    t = topics(broker.bootstrap, partitions=8)
    jobs = t.produce_jobs([f"{nginx.url}/1k"] * JOBS, partitions=8)
    w = start_worker(t.options(host__inflight=256))
    reader = t.reader()
    finish(t, reader, jobs, w).assert_exact()

    assert len({r.key for r in reader.records}) == JOBS
    assert outcomes(t, reader.records) == {"OK": JOBS}
    for r in reader.records:
        assert r.key.decode() == r.result.job_id
        assert r.header("gatherd-outcome") == b"OK"
        assert len(r.result.body) == r.result.body_length == 1024
    values = [r.value for r in reader.records]
    for i in range(0, JOBS, 10000):
        assert protoc_count(values[i:i + 10000], tmp_path) == len(values[i:i + 10000])
    one = subprocess.run(["protoc", f"-I{PROTO}", "--decode=gatherd.v1.FetchResult", "gatherd/v1/result.proto"],
                         input=values[0], stdout=subprocess.PIPE, check=True).stdout
    assert b"outcome: OUTCOME_OK" in one


# --- the origin story: many slow sources at once ---

def round_times(topics, reader, url, n, prefix, partitions):
    """One round of n jobs of the same URL: seconds from the first job in to the last result, and from first to last result."""
    before = len(reader.records)
    start_ms = time.time() * 1000
    jobs = topics.produce_jobs([f"{url}?i={i}" for i in range(n)], partitions, prefix)
    reader.until(before + n)
    records = reader.records[before:]
    Ledger(jobs, [r.result for r in records]).assert_exact()
    assert outcomes(topics, records) == {"OK": n}
    times = [r.timestamp_ms for r in records]
    return (max(times) - start_ms) / 1000, (max(times) - min(times)) / 1000


def best_round(check, rounds=5):
    """Time is measured on a machine that others use: the best of a few rounds is what the daemon can do. Each round must
    be right, whatever its time; `check(i)` returns whether it was also in time, and what it measured."""
    seen = []
    for i in range(rounds):
        in_time, measured = check(i)
        print(f"round {i}: {measured}")
        if in_time:
            return
        seen.append(measured)
    raise AssertionError(f"no round was in time: {seen}")


@pytest.mark.alone
def test_200_slow_sources_answer_in_one_second(broker, origin, topics, start_worker):
    t = topics(broker.bootstrap, partitions=8)
    start_worker(t.options(host__inflight=1000)).wait_ready()
    reader = t.reader()

    def one(i):
        origin.reset()
        total, spread = round_times(t, reader, f"{origin.url}/delay/1000", 200, f"r{i}", 8)
        assert origin.stats("/delay")["peak"] == 200
        return total < 1.4 and spread <= 0.3, f"{total:.2f} s, first to last result {spread:.2f} s"

    best_round(one)


@pytest.mark.alone
def test_10_slow_urls_take_as_long_as_one(broker, origin, topics, start_worker):
    t = topics(broker.bootstrap)
    start_worker(t.options(host__inflight=1000)).wait_ready()
    reader = t.reader()

    def one(i):
        origin.reset()
        total, _ = round_times(t, reader, f"{origin.url}/delay/1000", 10, f"r{i}", 1)
        assert origin.stats("/delay")["peak"] == 10
        return total < 1.4, f"{total:.2f} s"

    best_round(one)


@pytest.mark.alone
def test_a_partition_keeps_to_its_inflight(broker, origin, topics, start_worker):
    t = topics(broker.bootstrap)
    start_worker(t.options(host__inflight=1000, partition__inflight=20)).wait_ready()
    reader = t.reader()

    def one(i):
        origin.reset()
        total, _ = round_times(t, reader, f"{origin.url}/delay/1000", 100, f"r{i}", 1)
        assert origin.stats("/delay")["peak"] == 20
        assert total >= 5.0
        return total < 5.9, f"{total:.2f} s"  # a sixth wave would end after 6 s

    best_round(one, 3)


# --- stopping, sharing, joining, leaving ---

@pytest.mark.short
def test_sigterm_with_500_in_flight_finishes_them_and_a_restart_goes_on(broker, origin, topics, start_worker):
    t = topics(broker.bootstrap, partitions=8)
    n = 5000 // SCALE
    inflight = min(500, n // 2)
    # However slow an instrumented build starts them, they are in flight together.
    delay_ms = 3000 if worker.is_instrumented() else 100
    jobs = t.produce_jobs([f"{origin.url}/delay/{delay_ms}"] * n, partitions=8)
    options = t.options(host__inflight=1000, inflight=inflight)
    first = start_worker(options)
    proc.wait_until(lambda: origin.stats("/delay")["peak"] >= inflight, 60, f"{inflight} in flight", first.process, 0.005)
    first.term()
    assert first.wait_exit(60) == 0
    reader = t.reader()
    done = len(reader.to_end())
    assert inflight <= done
    assert done < n, "the worker had finished before it was told to stop: nothing was tested"
    # All that was fetched was also delivered.
    assert done == origin.stats("/delay")["total"]

    second = start_worker(options)
    finish(t, reader, jobs, second).assert_exact()
    # From the commit, not from the start: nothing was fetched twice.
    assert origin.stats("/delay")["total"] == n
    assert origin.stats("/delay")["peak"] <= inflight


def test_two_workers_share_the_partitions(broker, nginx, topics, start_worker):
    t = topics(broker.bootstrap, partitions=8)
    a = start_worker(t.options(host__inflight=1000), "a")
    b = start_worker(t.options(host__inflight=1000), "b")
    for w in (a, b):
        w.wait_partitions(4)
        w.wait_ready()
    jobs = t.produce_jobs([f"{nginx.url}/delay/100"] * 20000, partitions=8)
    reader = t.reader()
    finish(t, reader, jobs, a, b).assert_exact()
    owners = {}
    for r in reader.results():
        owners.setdefault(r.source.partition, set()).add(r.worker.instance)
    assert all(len(o) == 1 for o in owners.values()), owners
    assert sorted(next(iter(o)) for o in owners.values()) == ["a"] * 4 + ["b"] * 4


def test_workers_join_and_leave_and_every_job_has_one_result(broker, nginx, topics, start_worker):
    t = topics(broker.bootstrap, partitions=8)
    jobs = t.produce_jobs([f"{nginx.url}/delay/100"] * 20000, partitions=8)
    options = t.options(host__inflight=1000, inflight=80)
    workers = {"a": start_worker(options, "a")}

    def join(name):
        workers[name] = start_worker(options, name)

    # Moved by how far the work is, not by the clock.
    plan = [(2000, lambda: join("b")), (5000, lambda: workers["a"].term()), (8000, lambda: join("c")),
            (11000, lambda: join("d")), (14000, lambda: workers["b"].term()), (16000, lambda: workers["d"].term())]

    def on_progress(n):
        while plan and n >= plan[0][0]:
            plan.pop(0)[1]()

    reader = t.reader()
    reader.until(len(jobs), on_progress=on_progress)
    assert not plan
    workers["c"].term()
    assert {name: w.wait_exit(60) for name, w in workers.items()} == dict.fromkeys("abcd", 0)
    Ledger(jobs, [r.result for r in reader.to_end()]).assert_exact()
    assert {r.worker.instance for r in reader.results()} >= {"a", "b", "c"}


# --- retention is faster ---

def test_jobs_that_retention_takes_from_under_a_worker_are_counted(broker, origin, topics, start_worker):
    """The first gap is before its first record, the second while it reads."""
    t = topics(broker.bootstrap)
    for i in range(200):
        t.produce(t.job(f"job-{i}", f"{origin.url}/delay/20"))
        t.flush()  # each a batch of its own, so that little is read ahead
    settled = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": t.prefix})
    settled.commit(offsets=[TopicPartition(t.name("jobs"), 0, 20)], asynchronous=False)
    settled.close()
    t.delete_below(0, 50)
    w = start_worker(t.options(host__inflight=1000, partition__inflight=4, partition__window=50, kafka__consumer__queued__min__messages=1,
                               kafka__consumer__fetch__message__max__bytes=500))
    reader = t.reader()
    reader.until(10)
    assert w.metric("gatherd_jobs_lost_total") == 30
    t.delete_below(0, 180)
    w.wait_metric("gatherd_jobs_lost_total", 31)
    lost = int(w.metric("gatherd_jobs_lost_total"))
    reader.until(180 - lost)
    w.stop()
    # Each offset from the commit on has a result or is counted.
    assert sorted(r.source.offset for r in reader.results())[-20:] == list(range(180, 200))
    assert len(reader.to_end()) == len({r.job_id for r in reader.results()}) == 180 - lost
    assert w.read_log().count("retention removed jobs before they were read") == 2


# --- a slow head ---

@pytest.mark.parametrize("delay_s, options", [(8, {}), (30, {"fetch.timeout": "40s"})])
def test_jobs_behind_a_slow_one_go_on(broker, origin, topics, start_worker, delay_s, options):
    t = topics(broker.bootstrap)
    slow = t.produce_jobs([f"{origin.url}/delay/{delay_s * 1000}"], prefix="slow")
    fast = t.produce_jobs([f"{origin.url}/ok"] * 1000, prefix="fast")
    w = start_worker({**t.options(host__inflight=1000), **options})
    reader = t.reader()
    ledger = finish(t, reader, slow | fast, w)
    ledger.assert_exact()
    assert outcomes(t, reader.records) == {"OK": 1001}
    # All the others were out first.
    assert reader.results()[-1].job_id in slow


# --- bad input ---

def garbage(rng, good_url):
    """Kinds of bad records: name -> (value, key, headers, the outcomes that may come of it)."""
    bad = {"BAD_JOB"}
    refused = {"BLOCKED_POLICY", "BAD_JOB"}
    blob = rng.randbytes(rng.randint(1, 300))
    return {
        "random bytes": (b"\xff" + blob, None, None, bad),
        "random bytes, any first": (blob, None, None, refused),
        "random after a protobuf tag": (b"\x0a" + blob, None, None, refused),
        "random after an open brace": (b"{" + blob, None, None, bad),
        "broken JSON": (b'{"job_id": "x", "url": "' + good_url.encode()[:rng.randint(0, 20)], None, None, bad),
        "JSON of wrong types": (b'{"url": ["' + good_url.encode() + b'"], "timeouts": 7}', None, None, bad),
        "deep JSON": (b'{"a":' * 5000, None, None, bad),
        "file URL": (b"file:///etc/passwd", None, None, refused),
        "javascript URL": (b"javascript:alert(1)", None, None, refused),
        "CR LF in the URL": (good_url.encode() + b"\r\nX-Injected: 1", None, None, bad),
        "CR LF in a header value": (header_job(good_url, b"Accept", b"a\r\nX-Injected: 1"), None, None, bad),
        "CR LF in a header name": (header_job(good_url, b"A\r\nB", b"c"), None, None, bad),
        "non-UTF-8 in a header name": (header_job(good_url, b"\xff\xfe", b"c"), None, None, bad),
        "null": (None, b"tombstone", None, bad),
        "empty": (b"", None, None, bad),
        "large key": (b"file:///" + blob, b"k" * 100_000, None, refused),
        "odd record headers": (b"file:///x", None, [("content-type", b"\xff\r\n\x00"), ("traceparent", blob)], refused),
    }


def header_job(url, name, value):
    """A FetchJob with a header that Python's protobuf would refuse to write: tag 1 of Header is a string."""
    header = b"\x0a" + varint(len(name)) + name + b"\x12" + varint(len(value)) + value
    return b"\x12" + varint(len(url)) + url.encode() + b"\x2a" + varint(len(header)) + header


class Sent:
    """What was produced, by the offset it got."""

    def __init__(self):
        self.by_source = {}

    def put(self, topics, partition, kind, value, key, headers, allowed):
        def on_offset(p, offset):
            self.by_source[p, offset] = (kind, value, key, allowed)

        topics.produce(value, key, partition, headers, on_offset=on_offset)


def produce_mixed(topics, sent, rng, good_url, n_bad, n_good):
    """Bad and good records in a random order."""
    todo = ["good"] * n_good + ["bad"] * (n_bad - 20) + ["huge URL"] * 20
    rng.shuffle(todo)
    for i, what in enumerate(todo):
        if what == "good":
            # Every tenth has a key too large to be given back: the job is good all the same.
            key = (b"k" * 100_000) if i % 10 == 0 else f"good-{i}".encode()
            sent.put(topics, i % 8, "good", topics.job(f"good-{i}", good_url), key, None, {"OK"})
        elif what == "huge URL":
            sent.put(topics, i % 8, what, good_url.encode() + b"?" + b"u" * 1_000_000, None, None, {"BAD_JOB"})
        else:
            kinds = garbage(rng, good_url)
            name = rng.choice(sorted(kinds))
            sent.put(topics, i % 8, name, *kinds[name])
    topics.flush()


def is_flat(memory):
    return len(memory) > 2 and (worker.is_instrumented() or memory[-1] - max(memory[:-1]) < 4 << 20)


@pytest.mark.short
def test_garbage_among_good_jobs(broker, nginx, topics, start_worker):
    rng = random.Random(3)
    t = topics(broker.bootstrap, partitions=8)
    dead_topic = t.make("dead", max_message_bytes=2 << 20)
    w = start_worker(t.options(host__inflight=1000, dead_letter__topic=dead_topic))
    reader = t.reader()
    sent = Sent()
    memory = []
    # Flat: after a few rounds of the same, one needs no more than all before it. Not the second at once: how many records of 1 MB
    # librdkafka holds at a time differs from round to round. A leak of 400 bytes a record fails.
    while len(memory) < 6 and not is_flat(memory):
        produce_mixed(t, sent, rng, f"{nginx.url}/1k", 10000 // SCALE, 1000 // SCALE)
        reader.until(len(sent.by_source))
        memory.append(w.rss_bytes())
    w.stop()
    reader.to_end()

    wrong = []
    for r in reader.results():
        kind, value, key, allowed = sent.by_source[r.source.partition, r.source.offset]
        if t.outcome(r) not in allowed or (kind != "good" and not (r.error.code and r.error.message)):
            wrong.append((kind, t.outcome(r), r.error.code, r.error.message, value and value[:80]))
    assert not wrong, f"{len(wrong)} wrong: {wrong[:10]}"
    sources = [(r.source.partition, r.source.offset) for r in reader.results()]
    assert len(sources) == len(set(sources)) == len(sent.by_source)

    check_dead_letters(t, sent)
    assert is_flat(memory), [m >> 20 for m in memory]


def check_dead_letters(topics, sent):
    """Each record that could not be understood is in the dead-letter topic, byte for byte."""
    letters = {}
    for r in topics.reader("dead").to_end():
        letters[int(r.header("gatherd-dlq-partition")), int(r.header("gatherd-dlq-offset"))] = r
        assert r.header("gatherd-dlq-reason")
    for source, (kind, value, key, allowed) in sent.by_source.items():
        if allowed == {"BAD_JOB"}:
            assert source in letters, (kind, source)
        if source in letters:
            assert (letters[source].value, letters[source].key) == (value, key), kind
    assert not any(sent.by_source[s][0] == "good" for s in letters)


# --- the broker goes away ---

CAUSES = ("no_broker", "output_blocked", "no_assignment")


def test_the_broker_is_gone_for_20_seconds(own_broker, nginx, topics, start_worker):
    t = topics(own_broker.bootstrap, partitions=8)
    jobs = t.produce_jobs([f"{nginx.url}/delay/100"] * 20000, partitions=8)
    w = start_worker(t.options(host__inflight=1000, inflight=100))
    reader = t.reader()
    reader.until(2000)

    own_broker.stop()
    gone = time.monotonic()
    seen = proc.wait_until(lambda: cause(w), 60, "health names the cause", w.process)
    print(f"health said: {seen}")
    time.sleep(max(0, gone + 20 - time.monotonic()))
    assert cause(w)
    assert w.health("/livez")[0] == 200
    own_broker.start()

    later = t.produce_jobs([f"{nginx.url}/ok"] * 100, partitions=8, prefix="later")
    # The group may have been lost meanwhile, and some results come twice: wait for every job, not for a count.
    proc.wait_until(lambda: reader.poll() >= 0 and len({r.result.job_id for r in reader.records}) == len(jobs) + 100, 120,
                    "every job's result")
    proc.wait_until(lambda: w.health("/healthz")[0] == 200, 60, "healthy again", w.process)
    w.stop()
    ledger = Ledger(jobs | later, [r.result for r in reader.to_end()])
    print(f"ledger: {ledger}")
    ledger.assert_nothing_lost()
    assert outcomes(t, reader.records).keys() == {"OK"}


def cause(w):
    """The named cause of bad health, or None."""
    status, text = w.health("/healthz")
    return next((c for c in CAUSES if status == 503 and c in text), None)


def large_and_small(t, nginx, prefix="job"):
    return t.produce_jobs([f"{nginx.url}/64k" if i % 10 == 0 else f"{nginx.url}/1k" for i in range(200)], prefix=prefix)


@pytest.mark.short
def test_a_result_over_the_topics_limit_is_cut_and_says_so(broker, nginx, topics, start_worker):
    t = topics(broker.bootstrap, results={"max_message_bytes": 20000})
    jobs = large_and_small(t, nginx)
    # The broker judges what it receives: a compressed body of one letter would pass.
    w = start_worker(t.options(host__inflight=1000, kafka__compression__type="none"))
    reader = t.reader()
    finish(t, reader, jobs, w).assert_exact()
    assert outcomes(t, reader.records) == {"OK": 200}
    large = [r for r in reader.results() if r.url.endswith("/64k")]
    assert len(large) == 20
    for r in large:
        # Cut to what the topic takes; without its body when the limit was not known in time.
        assert len(r.body) < 20000
        assert r.truncated == t.result_pb2.TRUNCATED_LENGTH
    assert all(len(r.body) == 1024 for r in reader.results() if r.url.endswith("/1k"))


@pytest.mark.short
def test_a_result_that_the_broker_refuses_comes_without_its_body(broker, nginx, topics, start_worker):
    t = topics(broker.bootstrap)
    w = start_worker(t.options(host__inflight=1000, kafka__compression__type="none"))
    reader = t.reader()
    before = large_and_small(t, nginx, "before")
    reader.until(len(before))
    # Under the worker's feet: it still believes in the old limit.
    t.alter("results", max_message_bytes=20000)
    after = large_and_small(t, nginx, "after")
    finish(t, reader, before | after, w).assert_exact()
    large = [r for r in reader.results() if r.url.endswith("/64k")]
    assert all(len(r.body) == 65536 for r in large if r.job_id.startswith("before"))
    late = [r for r in large if r.job_id.startswith("after")]
    assert len(late) == 20 and all(r.truncated == t.result_pb2.TRUNCATED_LENGTH for r in late)
    assert any(r.body == b"" for r in late)
    # A batch is refused as a whole: the small ones in it lose nothing.
    assert all(len(r.body) == 1024 for r in reader.results() if r.url.endswith("/1k"))
