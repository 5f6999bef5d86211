"""Topics, jobs in, results out: what a user of the daemon does, with the public Python client."""

import re
import subprocess
import sys
import time
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

import proc

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"


def compile_protos(out):
    """Makes Python classes from the shipped schemas and nothing else; returns (FetchJob's module, FetchResult's module)."""
    out = Path(out)
    names = [str(p.relative_to(PROTO)) for p in sorted(PROTO.rglob("*.proto"))]
    argv = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"--python_out={out}", *names]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    sys.path.insert(0, str(out))
    from gatherd.v1 import job_pb2, result_pb2
    return job_pb2, result_pb2


class Record:
    """One record of the results topic, decoded. Bodies are left out of memory unless asked for."""

    __slots__ = ("key", "value", "headers", "partition", "offset", "timestamp_ms", "result")

    def __init__(self, message, decode):
        self.key = message.key()
        self.value = message.value()
        self.headers = message.headers() or []
        self.partition = message.partition()
        self.offset = message.offset()
        self.timestamp_ms = message.timestamp()[1]
        self.result = decode(self.value) if decode else None

    def header(self, name):
        return next((v for k, v in self.headers if k == name), None)


def ends_of(consumer, topic):
    """{partition: where the next record will lie}; nothing when there is no such topic."""
    found = consumer.list_topics(timeout=30).topics.get(topic)
    return {p: end_of(consumer, topic, p) for p in sorted(found.partitions)} if found else {}


def end_of(consumer, topic, partition):
    """A broker of several may not have heard yet that it leads this one, or that it does not any more."""
    for attempt in range(30):
        try:
            return consumer.get_watermark_offsets(TopicPartition(topic, partition), 30)[1]
        except KafkaException as e:
            if attempt == 29 or e.args[0].code() not in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.NOT_LEADER_FOR_PARTITION):
                raise
            time.sleep(0.5)


class Reader:
    """Reads a topic from its beginning (or from `starts`, an offset for each partition), read_committed, without a group.
    `records` holds all that was read."""

    def __init__(self, bootstrap, topic, decode=None, starts=None):
        self.topic = topic
        self.decode = decode
        self.records = []
        self.ends = {}
        self.consumer = Consumer({
            "bootstrap.servers": bootstrap, "group.id": "tests-reader", "enable.auto.commit": False,
            "isolation.level": "read_committed", "auto.offset.reset": "earliest", "fetch.wait.max.ms": 50,
            "enable.partition.eof": True,
            "fetch.message.max.bytes": 8 << 20, "reconnect.backoff.max.ms": 500,
        })
        # A broker may not know a topic yet that was made a moment ago.
        self.partitions = proc.wait_until(lambda: sorted(self.consumer.list_topics(topic, 30).topics[topic].partitions), 30,
                                          f"{topic} is known")
        self.consumer.assign([TopicPartition(topic, p, (starts or {}).get(p, 0)) for p in self.partitions])

    def poll(self, timeout_s=0.2):
        """Reads what is there; returns how many records came."""
        messages = self.consumer.consume(5000, timeout_s)
        came = [m for m in messages if not m.error()]
        # A transaction's marker is no record: only the end of the partition tells that it was passed.
        self.ends |= {m.partition(): m.offset() for m in messages if m.error() and m.error().code() == KafkaError._PARTITION_EOF}
        self.records += [Record(m, self.decode) for m in came]
        return len(came)

    def until(self, n, stall_s=60, on_progress=None):
        """Reads until there are n records. Time is bounded by progress, not by speed: it fails when nothing came for stall_s."""
        last = time.monotonic()
        while len(self.records) < n:
            if self.poll():
                last = time.monotonic()
                if on_progress:
                    on_progress(len(self.records))
            elif time.monotonic() - last > stall_s:
                raise AssertionError(f"{self.topic}: {len(self.records)} of {n} records, and no more for {stall_s} s")
        return self.records

    def to_end(self):
        """Reads all that is in the topic now: call it when its writers have ended."""
        for p in self.partitions:
            self._read_to(p, end_of(self.consumer, self.topic, p))
        return self.records

    def _read_to(self, partition, end):
        deadline = time.monotonic() + 120
        while self._position(partition) < end:
            self.poll()
            assert time.monotonic() < deadline, f"{self.topic}[{partition}]: end {end} not reached"

    def _position(self, partition):
        read = self.consumer.position([TopicPartition(self.topic, partition)])[0].offset
        return max(read, self.ends.get(partition, 0))

    def results(self):
        return [r.result for r in self.records]

    def close(self):
        self.consumer.close()


class Topics:
    """The topics of one test, on one broker."""

    def __init__(self, bootstrap, prefix, job_pb2, result_pb2, linger_ms=1):
        self.bootstrap = bootstrap
        self.prefix = re.sub(r"[^a-zA-Z0-9._-]", "-", prefix)[:150]
        self.job_pb2, self.result_pb2 = job_pb2, result_pb2
        self.admin = AdminClient({"bootstrap.servers": bootstrap})
        self.producer = Producer({
            "bootstrap.servers": bootstrap, "linger.ms": linger_ms, "acks": "all", "enable.idempotence": True,
            "queue.buffering.max.messages": 500000, "message.max.bytes": 8 << 20, "reconnect.backoff.max.ms": 500,
            "partitioner": "murmur2_random",
        })
        self.undelivered = []
        self.readers = []

    def name(self, kind):
        return f"{self.prefix}.{kind}"

    def make(self, kind, partitions=1, **config):
        """Makes a topic; config in Python's spelling: max_message_bytes=20000."""
        topic = NewTopic(self.name(kind), partitions, -1, config={k.replace("_", "."): str(v) for k, v in config.items()})
        for attempt in range(3):  # a broker that has just come up may leave a request without answer
            try:
                self.admin.create_topics([topic], operation_timeout=15, request_timeout=25)[topic.topic].result()
                break
            except KafkaException as e:
                if attempt and e.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                    break  # only the answer was lost
                if attempt == 2:
                    raise
        return self.name(kind)

    def delete(self, *kinds):
        """Asks for it and does not wait."""
        self.admin.delete_topics([self.name(kind) for kind in kinds])

    def alter(self, kind, **config):
        """Changes a topic's settings, in Python's spelling."""
        entries = [ConfigEntry(k.replace("_", "."), str(v), incremental_operation=AlterConfigOpType.SET) for k, v in config.items()]
        resource = ConfigResource(ConfigResource.Type.TOPIC, self.name(kind), incremental_configs=entries)
        for future in self.admin.incremental_alter_configs([resource]).values():
            future.result(30)

    def options(self, **more):
        """The daemon's settings for these topics; `more` in Python's spelling: host__inflight=8."""
        options = {
            "kafka.bootstrap.servers": self.bootstrap, "kafka.group.id": self.prefix,
            "jobs.topic": self.name("jobs"), "results.topic": self.name("results"),
            # The tests' origins are on loopback, which the guard is there to refuse.
            "guard.allow": "127.0.0.0/8",
        }
        options.update({k.replace("__", "."): v for k, v in more.items()})
        return options

    def job(self, job_id, url, **fields):
        """Bytes of a FetchJob."""
        return self.job_pb2.FetchJob(job_id=job_id, url=url, **fields).SerializeToString()

    def produce(self, value, key=None, partition=None, headers=None, kind="jobs", on_offset=None):
        """Queues one record; on_offset(partition, offset) is called once the broker has it. flush() waits for all."""
        def on_delivery(err, message):
            if err:
                self.undelivered.append(str(err))
            elif on_offset:
                on_offset(message.partition(), message.offset())

        where = {} if partition is None else {"partition": partition}
        while True:
            try:
                self.producer.produce(self.name(kind), value=value, key=key, headers=headers, on_delivery=on_delivery, **where)
                self.producer.poll(0)
                return
            except BufferError:
                self.producer.poll(0.1)

    def produce_jobs(self, urls, partitions=1, prefix="job"):
        """One job per URL, spread evenly; returns the set of ids. The key is the id."""
        ids = []
        for i, url in enumerate(urls):
            ids.append(f"{prefix}-{i}")
            self.produce(self.job(ids[-1], url), key=ids[-1], partition=i % partitions)
        self.flush()
        return set(ids)

    def delete_below(self, partition, offset, kind="jobs"):
        """What retention does, at once."""
        where = TopicPartition(self.name(kind), partition, offset)
        self.admin.delete_records([where])[where].result(30)

    def flush(self, timeout_s=120):
        left = self.producer.flush(timeout_s)
        assert left == 0 and not self.undelivered, f"{left} jobs not produced; {self.undelivered[:3]}"

    def reader(self, kind="results"):
        reader = Reader(self.bootstrap, self.name(kind), self.result_pb2.FetchResult.FromString if kind == "results" else None)
        self.readers.append(reader)
        return reader

    def outcome(self, result):
        """The outcome's name without its prefix: "OK"."""
        return self.result_pb2.Outcome.Name(result.outcome).removeprefix("OUTCOME_")

    def close(self):
        for reader in self.readers:
            reader.close()


class Ledger:
    """Jobs in against results out, by job_id."""

    def __init__(self, jobs, results):
        counts = {}
        for result in results:
            counts[result.job_id] = counts.get(result.job_id, 0) + 1
        self.lost = set(jobs) - counts.keys()
        self.unexpected = counts.keys() - set(jobs)
        self.doubled = {job_id for job_id, n in counts.items() if n > 1}

    def __repr__(self):
        def view(name, ids):
            return f"{len(ids)} {name}" + (f" (such as {sorted(ids)[:5]})" if ids else "")

        return ", ".join([view("lost", self.lost), view("doubled", self.doubled), view("unexpected", self.unexpected)])

    def assert_exact(self):
        assert not (self.lost or self.doubled or self.unexpected), repr(self)

    def assert_nothing_lost(self):
        assert not (self.lost or self.unexpected), repr(self)
