"""Workers under load on one broker, each behind its own link of the proxy, and a reader of what they say."""

import time

import proc
import worker as worker_process
from faults import HEARTBEAT_S, SESSION_S, SLOTS, Pulse
from topics import Reader, ends_of

FIRST_JOBS = 200  # of a limited run: enough for every worker to have some
OUTSTANDING = 1500  # jobs that are produced and have no result: enough for all to work, little enough to end soon
EXIT_S = 40
SILENCE_S = 30
WORKING_MS = 500


class World:
    """step() is the heart: it reads results and tops up the jobs. All else is done between steps, on the main thread."""

    def __init__(self, topics, broker, links, url, dir, options, n_partitions):
        self.topics, self.broker, self.links, self.url, self.dir = topics, broker, links, url, dir
        self.options = {"kafka.session.timeout.ms": SESSION_S * 1000, "kafka.heartbeat.interval.ms": HEARTBEAT_S * 1000,
                        **options}
        self.n_partitions = n_partitions
        self.workers = {}   # slot -> Worker
        self.all = []       # every process that ever was
        self.leaving = []
        self.frail = None   # the slot whose process may end by what is done to it
        self.sources = {}   # job_id -> (partition, offset), once the broker has it
        self.n_jobs = 0
        self.limit = self.rate = None  # of all jobs; of jobs per second
        self.is_feeding = False
        self.reader = topics.reader()
        self.commits_from = ends_of(self.reader.consumer, "__consumer_offsets")
        self.seen_ms = []   # for each record that was read
        self.done = set()
        self.last_ms = dict.fromkeys(range(n_partitions), 0)  # partition, and process by its name -> its latest result
        self.number = 0
        self.has_stable_names = self.has_static_members = False
        self.pulse = Pulse(broker)

    # --- workers ---

    def start(self, slot, log_pipe=False, env=None):
        """Without stable names a process never has a name that another had: the results tell them apart."""
        self.number += 1
        name = f"{slot}{self.number}"
        options = {**self.topics.options(), **self.options, "instance": slot if self.has_stable_names else name}
        if self.has_static_members:
            options["kafka.group.instance.id"] = options["instance"]
        if slot in self.links:
            options["kafka.bootstrap.servers"] = f"127.0.0.1:{self.links[slot].port}"
        kind = worker_process.PipedWorker if log_pipe else worker_process.Worker
        self.workers[slot] = kind(self.dir, options, name, env=env).start()
        self.all.append(self.workers[slot])

    def leave(self, slot):
        """SIGTERM; that it ends in good order is looked at later, the load goes on."""
        self.workers[slot].term()
        self.leaving.append((self.workers.pop(slot), time.monotonic() + EXIT_S))

    def leave_for(self, slot):
        """The same, when another one comes in its place: of one name there may only be one at a time."""
        self.leave(slot)
        if self.has_stable_names:
            self.run_until(lambda: not self.leaving, EXIT_S, f"{slot} leaves")

    def kill(self, slot):
        """kill -9; the name of the dead."""
        worker = self.workers.pop(slot)
        worker.kill()
        return self.instance(worker)

    @staticmethod
    def instance(worker):
        return worker.options["instance"]

    def _check_processes(self):
        for slot, worker in self.workers.items():
            code = worker.process.poll()
            assert code is None or slot == self.frail, f"{worker.name} ended with {code}"
        for worker, until in list(self.leaving):
            code = worker.process.poll()
            assert code is not None or time.monotonic() < until, f"{worker.name} does not end after SIGTERM"
            if code is not None:
                assert code == 0, f"{worker.name} ended with {code}, after SIGTERM"
                self.leaving.remove((worker, until))

    # --- load ---

    def feed(self, n):
        for _ in range(n):
            job_id, p = f"job-{self.n_jobs}", self.n_partitions
            self.topics.produce(self.topics.job(job_id, self.url), key=job_id, partition=self.n_jobs % p,
                                on_offset=lambda *where, job_id=job_id: self.sources.__setitem__(job_id, where))
            self.n_jobs += 1

    def step(self):
        if self.is_feeding:
            self.feed(max(0, self.wanted() - self.n_jobs))
        self.topics.producer.poll(0)
        self.reader.poll(0.05)
        for r in self.reader.records[len(self.seen_ms):]:
            self.done.add(r.result.job_id)
            self.last_ms[r.result.source.partition] = self.last_ms[r.result.worker.instance] = r.timestamp_ms
        self.seen_ms += [time.time() * 1000] * (len(self.reader.records) - len(self.seen_ms))
        self._check_processes()

    def run_for(self, seconds):
        until = time.monotonic() + seconds
        self.step()
        while time.monotonic() < until:
            self.step()

    def run_until(self, question, limit_s, what):
        until = time.monotonic() + limit_s
        while not question():
            self.step()
            assert time.monotonic() < until, f"not within {limit_s} s: {what}; {len(self.done)} of {self.n_jobs} jobs done"

    def wanted(self):
        """How many jobs there should be by now: so many that all have work; with a limit, that many in the time that was set."""
        if not self.limit:
            return len(self.done) + OUTSTANDING
        return min(self.limit, FIRST_JOBS + int(self.rate * (time.monotonic() - self.begun)))

    def begin(self, slots=SLOTS, limit=None, over_s=None):
        for slot in slots:
            self.start(slot)
        if limit:
            self.limit, self.rate, self.begun = limit, limit / over_s, time.monotonic()
        self.is_feeding = True
        self.run_until(lambda: self.all_work_since(0), 60, "results of every worker")

    def begin_with(self, n, slots):
        """n jobs, and no more."""
        self.feed(n)
        self.topics.flush()
        for slot in slots:
            self.start(slot)

    def all_work_since(self, ms):
        """Every partition and every process has given a result."""
        who = [*range(self.n_partitions), *map(self.instance, self.workers.values())]
        return all(self.last_ms.get(w, 0) > ms for w in who)

    def is_working(self, slot):
        return slot in self.workers and time.time() * 1000 - self.last_ms.get(self.instance(self.workers[slot]), 0) < WORKING_MS

    def is_done(self):
        return len(self.done) >= self.n_jobs

    def finish(self):
        """No new jobs; all that were produced have a result, or nothing comes any more (then the ledger says what is lost);
        everybody leaves."""
        self.is_feeding = False
        if self.limit:
            self.feed(self.limit - self.n_jobs)
        self.topics.flush()
        n, until = len(self.done), time.monotonic() + SILENCE_S
        while not self.is_done() and time.monotonic() < until:
            if len(self.done) > n:
                n, until = len(self.done), time.monotonic() + SILENCE_S
            self.step()
        for slot in list(self.workers):
            self.leave(slot)
        self.run_until(lambda: not self.leaving, EXIT_S + 5, "the workers leave")
        self.reader.to_end()
        self.step()

    def commit_records(self):
        reader = Reader(self.broker.bootstrap, "__consumer_offsets", starts=self.commits_from)
        try:
            return [r for r in reader.to_end() if r.key]
        finally:
            reader.close()

    def logs(self):
        """The end of each worker's log, for a failure."""
        return "\n".join(f"--- end of {w.log}\n{proc.tail(w.log, 30)}" for w in self.all if w.log.is_file())

    def stop_all(self):
        self.pulse.stop()
        for w in self.all:
            if w.process and w.process.poll() is None:
                w.kill()
