"""gatherctl replay on a real broker: exactly its range, beside a live group that is not disturbed."""

import json
import re
import signal
import subprocess
import time

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

import gatherctl
import proc
import worker as worker_process
from gatherctl import ctl, on_terminal, visible


class Scene:
    """Two partitions of jobs. Job ids are PARTITION.OFFSET."""

    def __init__(self, topics, **options):
        self.bootstrap, self.topics = topics.bootstrap, topics
        for kind in ("jobs", "results"):
            topics.make(kind, 2)
        self.options = topics.options(**options)
        self.reader = topics.reader()

    def put(self, urls, first=0, at_ms=None):
        for p in range(2):
            for i, url in enumerate(urls, first):
                self.topics.producer.produce(self.topics.name("jobs"), self.topics.job(f"{p}.{i}", url), f"{p}.{i}", p,
                                             timestamp=at_ms or int(time.time() * 1000))
        self.topics.flush()

    def put_in_transaction(self, partition, urls, first):
        """What follows the last of them is the transaction's marker, which is no record."""
        producer = Producer({"bootstrap.servers": self.bootstrap, "transactional.id": self.topics.prefix})
        producer.init_transactions(30)
        producer.begin_transaction()
        for i, url in enumerate(urls, first):
            producer.produce(self.topics.name("jobs"), self.topics.job(f"{partition}.{i}", url), partition=partition)
        producer.commit_transaction(30)

    def committed(self, group=None):
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group or self.topics.prefix})
        got = consumer.committed([TopicPartition(self.topics.name("jobs"), p) for p in range(2)], 30)
        consumer.close()
        return [(p.offset, p.metadata) for p in got]

    def args(self, *args):
        return ["replay", *(word for k, v in self.options.items() for word in ("-o", f"{k}={v}")), *args]

    def replay(self, *args):
        return ctl(*self.args(*args))

    def start(self, *args):
        return subprocess.Popen(gatherctl.argv(*self.args(*args)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, env=gatherctl.environment())

    def results_of(self, replay_id):
        """Job ids of a replay's results, sorted."""
        return sorted(r.job_id for r in self.reader.results() if r.replay_id == replay_id)

    def wait_results(self, replay_id, n):
        proc.wait_until(lambda: self.reader.poll() is not None and len(self.results_of(replay_id)) >= n, 60, f"{n} results of {replay_id}")


def ids(*ranges):
    return sorted(f"{p}.{i}" for p, start, stop in ranges for i in range(start, stop))


@pytest.fixture(scope="module")
def make_scene(broker, protos):
    made = []

    def make(name, **options):
        made.append(gatherctl.topics_client.Topics(broker.bootstrap, f"replay-{name}", *protos))
        return Scene(made[-1], **options)

    yield make
    for t in made:
        t.close()


N = 60


@pytest.fixture(scope="module")
def lived(make_scene, nginx, tmp_path_factory):
    """A live group has done all its jobs, of which one in ten failed; the last two of partition 1 came in a transaction."""
    s = make_scene("lived", retry__max_attempts=1)
    s.put([f"{nginx.url}/{'missing' if i % 10 == 3 else 'ok'}" for i in range(N)])
    s.put_in_transaction(1, [f"http://localhost:{nginx.port}/missing"] * 2, N)
    worker = worker_process.Worker(tmp_path_factory.mktemp("lived"), s.options).start()
    s.reader.until(2 * N + 2)
    worker.stop()
    return s


@pytest.fixture(scope="module")
def idle(make_scene):
    """Ten jobs in each partition, which nobody does."""
    s = make_scene("idle", retry__max_attempts=1)
    s.put(["http://127.0.0.1:1/"] * 10)
    return s


def test_a_range_is_done_again_stopped_and_resumed(lived):
    s, settled, before = lived, lived.committed(), len(lived.reader.to_end())
    first = s.start("--partition", "0:10-50", "--partition", "1:50-60", "--id", "again", "--rate", "4")
    s.wait_results("again", 6)
    first.send_signal(signal.SIGTERM)
    out, err = first.communicate(timeout=60)
    assert first.returncode == 1 and "gatherctl replay --id again" in err, err
    assert re.match(r"replay again: \d+ of 50 offsets done", out)

    done = s.replay("--id", "again", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["complete"] and said["jobs"] == said["done"] == 50 and sum(said["outcomes"].values()) == said["results"]
    s.reader.to_end()
    # A clean stop repeats nothing: each job of the range once, nothing outside.
    assert s.results_of("again") == ids((0, 10, 50), (1, 50, 60))
    assert len(s.reader.records) == before + 50
    record = next(r for r in s.reader.records if r.result.replay_id)
    assert record.header("gatherd-replay-id") == b"again" and record.key == record.result.job_id.encode()
    assert s.committed() == settled and [offset for offset, _ in settled] == [N, N + 2]
    assert [offset for offset, _ in s.committed(f"{s.topics.prefix}.replay.again")] == [50, 60]

    # It is done, for good.
    again = s.replay("--id", "again")
    assert again.returncode == 0 and "50 of 50 offsets done" in again.stdout
    other = s.replay("--id", "again", "--from", "earliest")
    assert other.returncode == 2 and "exists with other flags" in other.stderr
    s.reader.to_end()
    assert len(s.results_of("again")) == 50


def test_only_some_jobs_and_a_topic_of_their_own(lived):
    """The failed ones, by what the live results said; a success wins over a failure, and a replay's results do not count."""
    s, pb2 = lived, lived.topics.result_pb2
    failed = sorted([f"{p}.{i}" for p in range(2) for i in range(3, N, 10)] + [f"1.{N}", f"1.{N + 1}"])
    # By hand: 0.3 has a success as well, the only success of 0.13 is a replay's, 0.0 was done before it failed.
    source = next(r.result.source for r in s.reader.records if r.result.job_id == "0.3")
    for offset, outcome, replay_id in [(3, "OK", ""), (13, "OK", "other"), (0, "TIMEOUT", "")]:
        source.offset = offset
        s.topics.produce(pb2.FetchResult(job_id=f"0.{offset}", source=source, outcome=pb2.Outcome.Value(f"OUTCOME_{outcome}"),
                                         replay_id=replay_id).SerializeToString(), partition=0, kind="results")
    s.topics.flush()
    failed.remove("0.3")

    s.topics.make("again")
    done = s.replay("--from", "earliest", "--only", "failed", "--results", s.topics.name("again"), "--id", "failed", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    # The marker counts as an offset, too.
    assert (said["jobs"], said["done"], said["outcomes"]) == (2 * N + 3, 2 * N + 3, {"HTTP_ERROR": len(failed)})
    again = s.topics.reader("again")
    again.decode = pb2.FetchResult.FromString
    assert sorted(r.result.job_id for r in again.to_end()) == failed
    assert {r.result.replay_id for r in again.records} == {"failed"}

    local = s.replay("--from", "earliest", "--only", "host=localhost", "--only", "outcome=OK,HTTP_ERROR", "--id", "local")
    assert local.returncode == 0, local.stderr
    s.reader.to_end()
    assert s.results_of("local") == [f"1.{N}", f"1.{N + 1}"] and not s.results_of("failed")


def test_jobs_that_retention_takes_meanwhile_are_said(make_scene, nginx):
    s = make_scene("gone")
    s.put([f"{nginx.url}/ok"] * 30)
    first = s.start("--partition", "0:0-30", "--id", "gone", "--rate", "4")
    s.wait_results("gone", 2)
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)
    s.reader.to_end()
    n = len(s.results_of("gone"))
    s.topics.delete_below(0, 28)
    done = s.replay("--id", "gone", "--json")
    assert done.returncode == 0 and "retention removed jobs" in done.stderr, done.stderr
    said = json.loads(done.stdout)
    assert (said["done"], said["results"], said["lost"]) == (30, 2, 28 - n)


def test_two_processes_share_a_range_of_time(make_scene, nginx):
    s = make_scene("shared")
    s.topics.alter("jobs", retention_ms=-1)  # they are of 2023
    for first, hour in [(0, 1), (20, 2), (60, 3)]:
        s.put([f"{nginx.url}/ok"] * (20 if first != 20 else 40), first, at_ms=1700000000000 + hour * 3600000)
    hours = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1700000000 + hour * 3600)) for hour in range(4)]
    # Both begin at once, without a plan; slow enough that whoever comes second does not find all done.
    both = [s.start("--from", hours[2], "--to", hours[3], "--id", "shared", "--rate", "15", "--json") for _ in range(2)]
    said = []
    for process in both:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0 and "ETA" not in err and "\r" not in err, err
        said.append(json.loads(out))
    assert all(x["complete"] and x["jobs"] == x["done"] == 80 for x in said)
    s.wait_results("shared", 80)
    s.reader.to_end()
    assert s.results_of("shared") == ids((0, 20, 60), (1, 20, 60)) and len(s.reader.records) == 80
    assert sum(x["results"] for x in said) == 80 and all(x["results"] for x in said)


@pytest.mark.parametrize("args, words", [
    ([], "which jobs: give --from"),
    (["--id", "nobody"], "there is no plan yet of replay nobody: give --from"),
    (["--id", "no spaces"], "must be 1 to 64 letters"),
    (["--from", "someday"], "--from someday: must be earliest, latest"),
    (["--from", "3", "--to", "2"], "--from 3 is after --to 2"),
    (["--from", "1h", "--to", "2h"], "--from 1h is after --to 2h"),
    (["--partition", "0"], "from where?"),
    (["--partition", "0:5"], "must be P, P:FROM-TO"),
    (["--partition", "0:5-3"], "must be P, P:FROM-TO"),
    (["--partition", "7:1-2"], "there is no such partition"),
    (["--from", "0", "--only", "bad"], "must be failed, outcome=A,B or host=GLOB"),
    (["--from", "0", "--only", "outcome=OK,NO"], "there is no outcome NO"),
    (["--from", "0", "--rate", "0"], "--rate 0"),
    (["now"], "takes no arguments: now"),
])
def test_wrong_usage_exits_2(idle, args, words):
    done = idle.replay(*args)
    assert done.returncode == 2 and words in done.stderr and not done.stdout


def test_what_is_not_there_is_said(idle):
    empty = idle.replay("--from", "latest")
    assert (empty.returncode, empty.stdout) == (0, "") and "the range is empty" in empty.stderr
    absent = idle.replay("--from", "0", "--results", "nowhere")
    assert absent.returncode == 1 and "there is no topic nowhere" in absent.stderr


def test_a_bar_on_a_terminal(idle):
    text, code = on_terminal(*idle.args("--from", "0", "--to", "3", "--rate", "4", "--id", "bar"), columns=80)
    assert code == 0, text
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", visible(text.replace("\x1b[K", ""))) if line.strip()]
    assert lines[0] == f"replay bar: 6 offsets in 2 partitions, results to {idle.topics.name('results')}"
    bars = [line for line in lines if line.startswith("[")]
    assert bars and all(re.fullmatch(r"\[#*\.*\] +\d+% \d/6 jobs \d+/s ETA (\?|\d+s)", bar) and len(bar) < 80 for bar in bars), bars
    assert lines[-1] == "replay bar: 6 of 6 offsets done, 6 results of this process: 6 BLOCKED_POLICY"


# --- the whole thing, at its size ---

JOBS, PARTS, FIRST, LAST, LIVE_RATE = 100_000, 4, 7_500, 17_500, 1_500


def live_rate(times_ms, start_ms, stop_ms):
    return sum(start_ms <= t < stop_ms for t in times_ms) / (stop_ms - start_ms) * 1000


@pytest.mark.alone
@pytest.mark.long
def test_the_middle_of_100000_jobs_beside_a_live_group(topics, broker, nginx, start_worker, capsys):
    """A live group that goes at its hosts' rate; a replay of the middle, killed half-way, gone on with by two processes."""
    t = topics(broker.bootstrap, PARTS, results={"message.timestamp.type": "LogAppendTime"})
    options = t.options(host__rate=LIVE_RATE, host__inflight=256)
    for p in range(PARTS):
        for i in range(JOBS // PARTS):
            t.produce(t.job(f"{p}.{i}", f"{nginx.url}/ok"), partition=p)
    t.flush()
    args = ["replay", *(word for k, v in options.items() for word in ("-o", f"{k}={v}")), "-o", "host.rate=0", "--id", "middle"]
    ranges = [word for p in range(PARTS) for word in ("--partition", f"{p}:{FIRST}-{LAST}")]
    wanted = ids(*((p, FIRST, LAST) for p in range(PARTS)))

    def start():
        return subprocess.Popen(gatherctl.argv(*args, *ranges, "--rate", "2000", "--json"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, env=gatherctl.environment())

    def done():
        shown = json.loads(ctl("offsets", "-b", broker.bootstrap, "-g", f"{t.prefix}.replay.middle", "-t", t.name("jobs"), "--json").stdout)
        rows = [r for r in shown["partitions"] if r["commit_point"] is not None]
        return sum(min(r["commit_point"], LAST) - FIRST + r["completed_above"] for r in rows)

    live, reader = start_worker(options), t.reader()
    live.wait_ready()
    reader.until(1)
    alone_ms = time.time() * 1000
    time.sleep(8)  # the rate of a while is what is measured
    begin_ms = time.time() * 1000
    first = start()
    proc.wait_until(lambda: done() >= len(wanted) // 2, 60, "half of it is done", first)
    first.kill()
    first.communicate()
    complete = done()
    half = [r.result.job_id for r in reader.to_end() if r.result.replay_id]
    both = [start() for _ in range(2)]
    said = []
    for process in both:
        out, err = process.communicate(timeout=180)
        assert process.returncode == 0, err
        said.append(json.loads(out))
    end_ms = time.time() * 1000
    assert all(x["complete"] and x["jobs"] == x["done"] == len(wanted) and x["results"] for x in said)

    reader.until(JOBS + len(half) + sum(x["results"] for x in said))
    live.stop()
    reader.to_end()
    replayed = [r.result.job_id for r in reader.records if r.result.replay_id]
    assert sorted(set(replayed)) == wanted and all(r.result.replay_id in ("", "middle") for r in reader.records)
    # A kill may double what was published and not committed yet.
    doubled = len(replayed) - len(wanted)
    assert doubled <= len(half) - complete
    # Nobody is disturbed: each live job once, up to its end.
    lives = [r for r in reader.records if not r.result.replay_id]
    assert sorted(r.result.job_id for r in lives) == ids(*((p, 0, JOBS // PARTS) for p in range(PARTS)))
    shown = json.loads(ctl("offsets", "-b", broker.bootstrap, "-g", t.prefix, "-t", t.name("jobs"), "--json").stdout)
    assert [r["commit_point"] for r in shown["partitions"]] == [JOBS // PARTS] * PARTS
    times = [r.timestamp_ms for r in lives]
    end_ms = min(end_ms, max(times))
    without, beside = live_rate(times, alone_ms, begin_ms), live_rate(times, begin_ms, end_ms)
    with capsys.disabled():
        print(f"\nlive: {without:.0f} jobs/s alone, {beside:.0f} beside the replay ({beside / without:.0%}); killed at {complete} complete, "
              f"{len(half)} published; {doubled} doubled; {[x['results'] for x in said]} results of the two; {len(wanted)} of the range")
    assert beside > 0.8 * without
