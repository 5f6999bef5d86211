"""Where the contestants run: one broker, one nginx, and one run of one contestant with what it cost."""

import itertools
import os
import signal
import statistics
import time

import certs
import kafka
import nginx as nginx_server
import proc
import topics as topics_client
from confluent_kafka import KafkaException

PARTITIONS = 8
STALL_S = 60
TICK = os.sysconf("SC_CLK_TCK")


class RunFailed(Exception):
    """The contestant did not end its jobs; the text says what was seen."""


class Usage:
    """What processes used, from /proc."""

    def __init__(self, pids):
        self.pids = pids
        self.rss_peak = self.anon_peak = 0

    def cpu_s(self):
        total = 0
        for pid in self.pids:
            with open(f"/proc/{pid}/stat") as f:
                fields = f.read().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICK

    def anon(self):
        return sum(self._status(pid)["RssAnon"] for pid in self.pids)

    def sample(self):
        """Peaks: the kernel keeps the one of resident memory, the one of anonymous memory is as fine as the samples."""
        self.rss_peak = max(self.rss_peak, sum(self._status(pid)["VmHWM"] for pid in self.pids))
        self.anon_peak = max(self.anon_peak, self.anon())

    @staticmethod
    def _status(pid):
        with open(f"/proc/{pid}/status") as f:
            lines = dict(line.split(":", 1) for line in f)
        return {k: int(lines[k].split()[0]) * 1024 for k in ("VmHWM", "RssAnon")}


class Appended(topics_client.Reader):
    """The results topic as (job's key, time of the append): values are not kept."""

    def poll(self, timeout_s=0.2):
        messages = [m for m in self.consumer.consume(5000, timeout_s) if not m.error()]
        self.records += [(m.key(), m.timestamp()[1]) for m in messages]
        return len(messages)

    def appended(self):
        """How many records lie in the topic, markers of transactions included; 0 while the broker does not know."""
        try:
            return sum(self.consumer.get_watermark_offsets(tp, 30)[1] for tp in self.consumer.assignment())
        except KafkaException:
            return 0  # its leader was elected a moment ago


class Work:
    """The topics of one run, and the jobs that were put in."""

    numbers = itertools.count(1)

    def __init__(self, bootstrap, name, urls, rate):
        prefix = f"bench-{name}-{os.getpid()}-{next(self.numbers)}"
        # Latency is the contestant's: the jobs' own producer does not wait for more of them.
        self.topics = topics_client.Topics(bootstrap, prefix, None, None, linger_ms=0 if rate else 1)
        self.topics.make("jobs", PARTITIONS)
        self.topics.make("results", PARTITIONS, message_timestamp_type="LogAppendTime")
        self.reader = Appended(bootstrap, self.topics.name("results"))
        self.urls = [u.encode() for u in urls]
        self.made_ms = {}

    def put(self, n, rate=0):
        """n jobs, as fast as they go or `rate` a second."""
        start = time.monotonic()
        for i in range(n):
            if rate:
                self._wait_until(start + i / rate)
            number = len(self.made_ms)
            key = str(number).encode()
            self.made_ms[key] = time.time() * 1000
            self.topics.produce(self.urls[number % len(self.urls)], key=key, partition=number % PARTITIONS)
        self.topics.flush()

    def _wait_until(self, at):
        while (left := at - time.monotonic()) > 0:
            self.topics.producer.poll(min(left, 0.001))

    def close(self):
        self.reader.close()
        for future in self.topics.admin.delete_topics([self.topics.name("jobs"), self.topics.name("results")]).values():
            future.result(30)


class Rig:
    """Broker and nginx in the directory `dir`."""

    def __init__(self, dir):
        self.dir = dir
        self.certs = certs.Certs(dir / "certs")
        self.nginx = nginx_server.Nginx(dir / "nginx", any_host=True, certificate=self.certs.servers["good"])
        self.broker = kafka.Broker(dir / "kafka", log__segment__delete__delay__ms=1000)

    def __enter__(self):
        self.nginx.start()
        self.broker.start()
        return self

    def __exit__(self, *_):
        self.broker.kill()
        self.nginx.stop()

    def run(self, shape, contestant, jobs):
        """One run; what it cost as a dict."""
        work = Work(self.broker.bootstrap, f"{shape.name}-{contestant.name}", shape.urls(self.nginx), shape.rate)
        workers = []
        try:
            for i in range(shape.workers):
                workers.append(contestant.start(self, shape, work.topics, f"{work.topics.prefix}-{i}"))
            return self._measure(shape, contestant, jobs, work, workers)
        finally:
            for w in workers:
                w.stop()
            work.close()

    def _measure(self, shape, contestant, jobs, work, workers):
        usage = Usage([w.pid for w in workers])
        work.put(PARTITIONS)  # answered jobs show that it is up
        wait_for(work, contestant, workers, usage)
        idle = usage.anon()
        # Warm: connections are open, code is compiled.
        work.put(min(max(2 * shape.inflight * shape.workers, jobs // 5), jobs))
        wait_for(work, contestant, workers, usage)
        first = len(work.made_ms)
        broker = Usage([self.broker.process.pid])
        start_ms, cpu_s, broker_s = self._under_load(shape, contestant, jobs, work, workers, usage, broker)
        return {"jobs": jobs, "cpu_us": cpu_s / jobs * 1e6, "broker_us": broker_s / jobs * 1e6, "anon_idle": idle,
                "rss_peak": usage.rss_peak, "anon_peak": usage.anon_peak,
                **judge(work, first, jobs, start_ms, shape.rate)}

    def _under_load(self, shape, contestant, jobs, work, workers, usage, broker):
        """(start in ms, CPU seconds of the contestant, of the broker)."""
        def begun():
            return time.time() * 1000, usage.cpu_s(), broker.cpu_s()

        if shape.rate:
            start_ms, cpu_s, broker_s = begun()
            work.put(jobs, shape.rate)
        else:
            signal_all(workers, signal.SIGSTOP)  # so that all jobs are there when it begins
            try:
                work.put(jobs)
            finally:
                start_ms, cpu_s, broker_s = begun()
                signal_all(workers, signal.SIGCONT)
        wait_for(work, contestant, workers, usage)
        cpu_s, broker_s = usage.cpu_s() - cpu_s, broker.cpu_s() - broker_s
        work.reader.until(len(work.made_ms), STALL_S)
        return start_ms, cpu_s, broker_s


def signal_all(workers, sig):
    for w in workers:
        os.kill(w.pid, sig)


def wait_for(work, contestant, workers, usage):
    """Until each job that was put in has its result; bounded by progress."""
    n, seen, last = len(work.made_ms), -1, time.monotonic()
    while True:
        usage.sample()
        ends = work.reader.appended()
        if ends >= n:
            break
        if ends > seen:
            seen, last = ends, time.monotonic()
        if any(w.poll() is not None for w in workers):
            raise RunFailed(f"it ended after {ends} of {n} results")
        if time.monotonic() - last > STALL_S:
            raise RunFailed(f"{ends} of {n} results, and no more for {STALL_S} s")
        time.sleep(0.05)
    if contestant.transactional:
        work.reader.until(n, STALL_S)  # markers lie in the topic, too


def judge(work, first, jobs, start_ms, rate):
    """Rate and latency from the times of the appends, and what was lost or doubled."""
    at = {}
    for key, ms in work.reader.records:
        at.setdefault(key, ms)
    mine = [str(i).encode() for i in range(first, first + jobs)]
    lost = [k for k in mine if k not in at]
    if lost:
        raise RunFailed(f"{len(lost)} of {jobs} jobs have no result under their key")
    seconds = (max(at[k] for k in mine) - start_ms) / 1000
    # The broker cuts the time of an append to the millisecond: half a one was cut off on average.
    latencies = sorted(at[k] + 0.5 - work.made_ms[k] for k in mine) if rate else None
    centiles = statistics.quantiles(latencies, n=100) if rate else [None] * 99
    return {"seconds": seconds, "rate": jobs / seconds, "p50_ms": centiles[49], "p99_ms": centiles[98],
            "doubled": len(work.reader.records) - len(at)}
