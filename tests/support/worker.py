"""The daemon under test: one gatherd process, its log, metrics and health."""

import json
import os
import re
import shlex
import signal
import urllib.error
import urllib.request
from pathlib import Path

import proc

ROOT = Path(__file__).resolve().parents[2]
SANITIZERS = {
    "ASAN_OPTIONS": "exitcode=86:abort_on_error=0:detect_leaks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=86",
    "TSAN_OPTIONS": f"exitcode=86:halt_on_error=0:suppressions={ROOT}/tests/support/tsan.supp",
    "LSAN_OPTIONS": f"suppressions={ROOT}/tests/support/lsan.supp:print_suppressions=0",
}
REPORTS = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "WARNING: ThreadSanitizer", "runtime error:", "ERROR SUMMARY: ")


def build_dir():
    """The build to test: GATHERD_BUILD, in the tree or absolute."""
    return ROOT / os.environ.get("GATHERD_BUILD", "build/release")


def is_instrumented():
    """Whether the build is a sanitizer's, or runs under valgrind: memory and speed then say nothing."""
    return build_dir().name != "release" or bool(os.environ.get("GATHERD_WRAP"))


class Worker:
    """One gatherd. Options are gatherd's keys: Worker(dir, {"jobs.topic": "jobs"}); config is the text of a settings file;
    env is set on top of ours."""

    def __init__(self, dir, options, name="worker", config=None, env=None):
        self.name = name
        self.env = env or {}
        self.options = {"http.listen": "127.0.0.1:0", "instance": name, **options}
        self.log = Path(dir) / f"{name}.log"
        self.config = Path(dir) / f"{name}.conf" if config else None
        if config:
            self.config.write_text(config)
        self.process = None
        self.port = None

    def start(self):
        argv = shlex.split(os.environ.get("GATHERD_WRAP", "")) + [build_dir() / "gatherd"]
        if self.config:
            argv += ["-c", self.config]
        for key, value in self.options.items():
            argv += ["-o", f"{key}={value}"]
        self.log_start = self.log.stat().st_size if self.log.exists() else 0
        # As small a set of settings as can be: what the developer's shell has for gatherd is not what is tested.
        env = {k: v for k, v in os.environ.items() if not k.startswith("GATHERD_")}
        self.process = proc.spawn(argv, self.log, env={**SANITIZERS, **env, **self.env})
        self.port = int(self._wait(lambda: self._logged(r'msg="http listening".* port=(\d+)'), 60, "http listening").group(1))
        return self

    @property
    def pid(self):
        return self.process.pid

    def _wait(self, question, timeout_s, what):
        try:
            return proc.wait_until(question, timeout_s, f"{self.name}: {what}", self.process)
        except (RuntimeError, TimeoutError) as e:
            raise AssertionError(f"{e}; readiness: {self.health()}\n--- end of {self.log}\n{proc.tail(self.log)}") from e

    def _logged(self, pattern):
        """The first match in what this run of the worker logged."""
        return re.search(pattern, self.read_log())

    def read_log(self):
        with open(self.log, errors="replace") as f:
            f.seek(self.log_start)
            return f.read()

    def health(self, path="/readyz"):
        """(status, text) of a health path; (0, why) when it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as r:
                return r.status, r.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()
        except OSError as e:
            return 0, str(e)

    def status(self):
        return json.loads(self.health("/status")[1])

    def metrics(self):
        """{'name{labels}': value} from the Prometheus text."""
        status, text = self.health("/metrics")
        assert status == 200, f"/metrics: {status} {text}"
        samples = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                samples[name] = float(value)
        return samples

    def metric(self, name):
        """One metric, summed over its labels."""
        return sum(v for k, v in self.metrics().items() if k.split("{")[0] == name)

    def wait_metric(self, name, least, timeout_s=60):
        self._wait(lambda: self.metric(name) >= least, timeout_s, f"{name} >= {least}")

    def wait_ready(self, timeout_s=60):
        """Until it can take work: broker, topics and assignment are there."""
        self._wait(lambda: self.health("/readyz")[0] == 200, timeout_s, "ready")
        return self

    def wait_partitions(self, n, timeout_s=60):
        self._wait(lambda: self.metric("gatherd_partitions") == n, timeout_s, f"{n} partitions assigned")

    def rss_bytes(self):
        return proc.rss_bytes(self.pid)

    def signal(self, sig):
        self.process.send_signal(sig)

    def term(self):
        """SIGTERM: drain and leave."""
        self.signal(signal.SIGTERM)

    def wait_exit(self, timeout_s=60):
        """The exit status, within a bounded time."""
        proc.wait_until(lambda: self.process.poll() is not None, timeout_s, f"{self.name} ends")
        return self.process.returncode

    def stop(self, timeout_s=60):
        """SIGTERM, and it must end in good order."""
        self.term()
        code = self.wait_exit(timeout_s)
        assert code == 0, f"{self.name} ended with {code}\n{proc.tail(self.log)}"

    def kill(self):
        """kill -9."""
        if self.process:
            proc.kill(self.process)

    def reports(self):
        """Lines of sanitizer and valgrind reports in the log."""
        with open(self.log, errors="replace") as f:
            return [ln.strip() for ln in f if any(r in ln for r in REPORTS) and "ERROR SUMMARY: 0 errors" not in ln]


class PipedWorker(Worker):
    """Its log goes into a pipe that is full and never read, and so cannot tell its port."""

    def start(self):
        os.mkfifo(self.log)
        # Another open file description than the worker's: that one blocks.
        self.pipe = os.open(self.log, os.O_RDWR | os.O_NONBLOCK)
        try:
            while os.write(self.pipe, b"." * 4096):
                pass
        except BlockingIOError:
            pass
        self.port = proc.free_port()
        self.options.update({"http.listen": f"127.0.0.1:{self.port}", "log.level": "debug"})
        argv = [build_dir() / "gatherd"] + [a for k, v in self.options.items() for a in ("-o", f"{k}={v}")]
        env = {k: v for k, v in os.environ.items() if not k.startswith("GATHERD_")}
        self.process = proc.spawn(argv, self.log, env={**SANITIZERS, **env, **self.env})
        self._wait(lambda: self.health("/livez")[0], 60, "http listening")
        return self
