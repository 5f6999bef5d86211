"""Every example of gatherctl's man page, run as it stands there: only the broker's address and example.com are others. And pipelines with
kcat and jq."""

import json
import os
import re
import signal
import subprocess

import pytest

import proc
import worker
from gatherctl import ctl, environment

MAN = worker.ROOT / "docs/man/gatherctl.1"


def examples():
    text = MAN.read_text().split(".SH EXAMPLES")[1].split(".EX\n")[1].split(".EE")[0]
    return text.replace("\\-", "-").splitlines()


class Shell:
    """Runs lines of the man page in a directory of their own, with the settings that name this test's topics."""

    def __init__(self, dir, topics, origin):
        self.dir, self.topics, self.bootstrap, self.origin = dir, topics, topics.bootstrap, origin
        self.children = []
        keys = {"jobs.topic": topics.name("man-jobs"), "results.topic": topics.name("man-results"),
                "dead_letter.topic": topics.name("man-dead"),
                "kafka.group.id": topics.prefix, "guard.allow": "127.0.0.0/8"}
        self.options = {**keys, "kafka.bootstrap.servers": topics.bootstrap}
        self.keys = {"GATHERD_" + k.upper().replace(".", "_"): v for k, v in keys.items()}

    def start(self, line, stdout=subprocess.PIPE):
        line = line.replace("localhost:9092", self.bootstrap).replace("https://example.com/", f"{self.origin.url}/ok")
        env = environment(PATH=f"{worker.build_dir()}:{os.environ['PATH']}", **self.keys)
        child = subprocess.Popen(["bash", "-o", "pipefail", "-c", line], cwd=self.dir, env=env, stdin=subprocess.DEVNULL, stdout=stdout,
                                 stderr=subprocess.PIPE, text=True, start_new_session=True)
        self.children.append(child)
        return child

    def end(self):
        """Nothing that a line started goes on, however the test ended."""
        for child in self.children:
            for pid in proc.left_behind(child.pid):
                os.kill(pid, signal.SIGKILL)
            child.wait(30)

    def run(self, line):
        child = self.start(line)
        out, err = child.communicate(timeout=90)
        assert child.returncode == 0, f"{line}: exit code {child.returncode}\n{out}{err}"
        return out

    def interrupt(self, line, until):
        """For what goes on for ever: until it has said so, then Ctrl-C, which is a good end."""
        child = self.start(line)
        said = []
        for row in child.stdout:
            said.append(row)
            if re.search(until, row):
                break
        os.killpg(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=60)
        assert child.returncode == 0 and said and re.search(until, said[-1]), f"{line}: {child.returncode}\n{''.join(said)}{out}{err}"
        return "".join(said) + out


# What is seen of each; None: those that go on for ever have tests of their own below.
EXPECTED = {
    "gatherctl topics -b": r"results +created",
    "gatherctl submit -b localhost:9092 https://example.com/": r"^1 of 1 job acknowledged",
    "gatherctl submit -b localhost:9092 '{": r"^1 of 1 job acknowledged",
    "sort -u urls.txt | gatherctl submit": r"^3 of 3 jobs acknowledged",
    "gatherctl tail -b localhost:9092": None,
    "gatherctl tail -b localhost:9092 -B --outcome": r"^$",
    "gatherctl tail -b localhost:9092 -B --format json | jq": r"^http://127.0.0.1:\d+/status/404\n$",
    "gatherctl tail -b localhost:9092 --since": r'^{"job_id".*"status":503.*}\n$',
    "gatherctl tail -b localhost:9092 -B --header": r'"outcome":"OUTCOME_OK"',
    "gatherctl submit -b localhost:9092 --file": r"^3 of 3 jobs acknowledged",
    "gatherctl feed": None,
    "gatherctl status": r"worker1 +ok",
    "gatherctl check": r"ok",
    "gatherctl offsets -b": r"total +",
    "gatherctl offsets reset": r"\.man-jobs",
    "gatherctl dlq list": r"JOB_",
    "gatherctl dlq redrive": r"1 ",
    "gatherctl try": r"outcome +OK 200",
    "source <(gatherctl completion bash)": r"^$",
    "gatherctl replay": r"replay again: \d+ of \d+ offsets done",
}


def row_of(line):
    """The longest beginning that stands in the table."""
    found = [row for row in EXPECTED if line.startswith(row)]
    assert found, f"an example without a row: {line}"
    return max(found, key=len)


@pytest.fixture
def shell(topics, broker, origin, tmp_path):
    s = Shell(tmp_path, topics(broker.bootstrap), origin)
    yield s
    s.end()


def test_every_example_of_the_man_page_runs(shell, origin, start_worker, tmp_path):
    (tmp_path / "urls.txt").write_text("".join(f"{origin.url}/{path}\n" for path in ("ok", "status/404", "status/503?header=Retry-After:1")))
    (tmp_path / "sources.txt").write_text(f"{origin.url}/ok\n")
    lines = examples()
    assert sorted(map(row_of, lines)) == sorted(EXPECTED)
    seen = {}
    for line in lines:
        row = row_of(line)
        if row.startswith("gatherctl offsets reset"):
            live.stop()
        if row == "gatherctl tail -b localhost:9092":
            shell.topics.produce(b'{"nonsense": 1}', kind="man-jobs")  # a dead letter
            shell.topics.flush()
            live = start_worker({**shell.options, "retry.max_attempts": "1"})
            live.wait_ready()
            shell.keys["GATHERD_HTTP_LISTEN"] = f"127.0.0.1:{live.port}"
            proc.wait_until(lambda: len(shell.run("gatherctl tail -b localhost:9092 -B --body none").splitlines()) >= 6, 30, "all have results")
            seen[row] = new_results(shell, line)
        elif row == "gatherctl feed":
            seen[row] = shell.interrupt(line, r"sources? healthy")
        else:
            seen[row] = shell.run(line)
        if EXPECTED[row]:
            assert re.search(EXPECTED[row], seen[row], 0 if "$" in EXPECTED[row] else re.M), f"{line}\n{seen[row]}"
    assert (tmp_path / "urls.state").read_text().startswith("3 ") and any((tmp_path / "bodies").iterdir())


def new_results(shell, line):
    """tail shows what comes from now on: jobs are put in until it has shown one."""
    out = shell.dir / "tail.out"
    with out.open("w") as file:
        child = shell.start(line, file)
    proc.wait_until(lambda: shell.run("gatherctl submit -b localhost:9092 https://example.com/") and "\n" in out.read_text(), 60, "a new result", child)
    os.killpg(child.pid, signal.SIGINT)
    assert child.wait(30) == 0
    said = out.read_text()
    assert json.loads(said.splitlines()[0])["status"] == 200
    return said


def test_pipelines_with_kcat_and_jq(sandbox, start_worker):
    """Jobs by kcat or by submit, results by tail and jq; and what submit put in is what kcat reads."""
    base = f"-b {sandbox.bootstrap}"
    worker_options = {"kafka.bootstrap.servers": sandbox.bootstrap, "guard.allow": "127.0.0.0/8"}
    env = environment(PATH=f"{worker.build_dir()}:{os.environ['PATH']}")

    def sh(line):
        done = subprocess.run(["bash", "-o", "pipefail", "-c", line], env=env, capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, done.stderr
        return done.stdout

    start_worker(worker_options)
    sh(f"printf '%s\\n' {sandbox.origin}/bytes/10 {sandbox.origin}/status/418 | kcat -P {base} -t jobs")
    sh(f"gatherctl submit {base} {sandbox.origin}/bytes/20")
    assert sorted(sh(f"kcat -C {base} -t jobs -e -q").split()) == sorted(f"{sandbox.origin}/{p}" for p in ("bytes/10", "status/418", "bytes/20"))
    shown = sh(f"gatherctl tail {base} -B -f --count 3 --timeout 60s | jq -c '[.status, .body_length]'")
    assert sorted(map(json.loads, shown.splitlines()))[:2] == [[200, 10], [200, 20]] and "[418," in shown
    assert ctl("tail", "-b", sandbox.bootstrap, "-B", "--count", "9").returncode == 1
