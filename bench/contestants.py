"""Who runs: gatherd as shipped, the floors, and the peers, each written as its own documentation would. All fetch the same jobs (bare
URLs with a key) and put the body into the results topic under the job's key. A peer learns where from its environment."""

import os
import resource
import shutil
import subprocess
import time
from pathlib import Path

import proc
import worker

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "bench" / "peers"
BUILD = ROOT / "build" / "bench"


class Missing(Exception):
    """The contestant cannot run here; the text says why."""


class Process:
    """One running contestant."""

    def __init__(self, argv, log, env=None):
        self.process = proc.spawn(argv, log, env={**os.environ, **(env or {})})
        self.pid = self.process.pid
        self.poll = self.process.poll

    def stop(self):
        proc.stop(self.process, 20)


class Contestant:
    """transactional: its results are there when the transaction is. share: of the shape's jobs, for one that is very slow."""

    transactional = False
    share = 1.0

    def __init__(self, name):
        self.name = name

    def prepare(self):
        """Builds what it needs, once; raises Missing."""

    def refuses(self, shape):
        """Why it cannot run the shape; None when it can."""
        return None

    def start(self, rig, shape, topics, name):
        """A process that works on the topics until it is stopped."""
        raise NotImplementedError


class Gatherd(Contestant):
    """Shipped defaults, but for topics, addresses and caps."""

    def __init__(self, name, delivery):
        super().__init__(name)
        self.delivery = delivery
        self.transactional = delivery == "exactly_once"

    def start(self, rig, shape, topics, name):
        n = shape.inflight
        options = topics.options(inflight=n, partition__inflight=n, host__inflight=n, delivery=self.delivery, tls__ca=rig.certs.ca)
        w = worker.Worker(rig.dir, options, name)
        w.start()
        w.poll = w.process.poll
        return w


class Floor(Contestant):
    """The libraries alone: tests/bench/floor.c. It commits nothing until its end, which it is stopped before."""

    def __init__(self, name, lanes):
        super().__init__(name)
        self.lanes = lanes

    def refuses(self, shape):
        return "one group member takes all" if shape.workers > 1 else None

    def start(self, rig, shape, topics, name):
        argv = [worker.build_dir() / "tests" / "floor", "--lanes", self.lanes]
        if shape.rate:
            argv += ["--linger", 0]
        if shape.tls:
            argv += ["--ca", rig.certs.ca]
        argv += [topics.bootstrap, topics.prefix, topics.name("jobs"), topics.name("results"), 1 << 40, shape.inflight]
        return Process(argv, rig.dir / f"{name}.log")


class Peer(Contestant):
    """A program that takes its settings from the environment."""

    share = 1.0

    def argv(self):
        raise NotImplementedError

    def start(self, rig, shape, topics, name):
        env = {"BOOTSTRAP": topics.bootstrap, "GROUP": topics.prefix, "JOBS": topics.name("jobs"), "RESULTS": topics.name("results"),
               "INFLIGHT": str(shape.inflight), "CA": str(rig.certs.ca)}
        return Process(self.argv(), rig.dir / f"{name}.log", env)


def run_or_miss(argv, what, **more):
    """A build step; its last lines are the reason when it fails."""
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, stdin=subprocess.DEVNULL, **more)
    if done.returncode:
        lines = (done.stderr + done.stdout).strip().splitlines() or ["it failed"]
        raise Missing(f"{what}: " + next((line for line in lines if "error" in line.lower()), lines[-1])[:300])
    return done.stdout


def need(program):
    if not shutil.which(program):
        raise Missing(f"{program} is not installed")


class Asyncio(Peer):
    def __init__(self, name, script, share=1.0):
        super().__init__(name)
        self.script = PEERS / "asyncio" / script
        self.share = share

    def prepare(self):
        venv = run_or_miss([ROOT / "tests" / "support" / "venv.sh", PEERS / "asyncio" / "requirements.txt"], "Python environment")
        self.python = Path(venv.strip()) / "bin" / "python"

    def argv(self):
        return [self.python, self.script]


class Bento(Peer):
    def prepare(self):
        need("go")
        BUILD.mkdir(parents=True, exist_ok=True)
        run_or_miss(["go", "build", "-o", BUILD / "bento", "."], "go build", cwd=PEERS / "bento")

    def argv(self):
        return [BUILD / "bento", "-c", PEERS / "bento" / "bento.yaml"]


class ParallelConsumer(Peer):
    def prepare(self):
        need("java")
        need("mvn")
        run_or_miss(["mvn", "-q", "-B", "-f", PEERS / "parallel_consumer" / "pom.xml", f"-DbuildDirectory={BUILD / 'parallel_consumer'}",
                     "package", "dependency:copy-dependencies", "-DincludeScope=runtime"], "Maven")

    def argv(self):
        return ["java", "-cp", f"{BUILD}/parallel_consumer/classes:{BUILD}/parallel_consumer/dependency/*", "Worker"]


class Wrk(Contestant):
    """The HTTP side alone: no Kafka, so rig.run is not for it."""

    SECONDS = 5

    def prepare(self):
        need("wrk")

    def refuses(self, shape):
        return "it asks one host, as fast as it can" if shape.hosts > 1 or shape.rate or shape.workers > 1 else None

    def measure(self, rig, shape):
        argv = ["wrk", "-t1", f"-c{shape.inflight}", f"-d{self.SECONDS}s", *shape.urls(rig.nginx)]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        out = run_or_miss(argv, "wrk")
        after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - start
        jobs = int(next(line.split()[0] for line in out.splitlines() if "requests in" in line))
        cpu_s = sum(getattr(after, k) - getattr(before, k) for k in ("ru_utime", "ru_stime"))
        return {"jobs": jobs, "cpu_us": cpu_s / jobs * 1e6, "rate": jobs / seconds, "seconds": seconds, "doubled": 0}


CONTESTANTS = {c.name: c for c in [
    Gatherd("gatherd", "at_least_once"),
    Gatherd("gatherd-eos", "exactly_once"),
    Floor("floor", 1),
    Floor("lanes", 64),
    Asyncio("aiohttp", "aiohttp_worker.py"),
    Asyncio("httpx", "httpx_worker.py", share=0.1),
    Bento("bento"),
    ParallelConsumer("parallel-consumer"),
    Wrk("wrk"),
]}
