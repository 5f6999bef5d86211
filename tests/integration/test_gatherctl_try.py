"""gatherctl try: one job through a worker's engine, without Kafka, explained."""

import json
import re
import signal
import subprocess

import pytest

import proc
from gatherctl import argv, ctl, environment, on_terminal, visible

ALLOW = ["-o", "guard.allow=127.0.0.0/8"]


def rows(text):
    """[(url, {label: text})] of each request; what is said twice: the last."""
    steps = []
    for line in text.splitlines():
        if line.startswith("  "):
            steps[-1][1][line[2:14].strip()] = line[14:].strip()
        else:
            steps.append((line.split(" ", 1)[1], {}))
    return steps


def test_each_hop_is_told_and_what_comes_of_it(origin):
    done = ctl("try", *ALLOW, f"{origin.url}/redirect/2")
    assert done.returncode == 0 and not done.stderr, done.stderr
    steps = rows(done.stdout)
    assert [url.removeprefix(origin.url) for url, _ in steps] == ["/redirect/2", "/redirect/1", "/ok"]
    assert [re.match(r"\d+", said["answer"]).group() for _, said in steps] == ["302", "302", "200"]
    assert steps[0][1]["guard"] == "allowed" and steps[0][1]["connected"] == origin.url.removeprefix("http://")
    assert steps[0][1]["answer"].endswith("to /redirect/1") and "reused" in steps[1][1]
    assert re.fullmatch(r"\d+\.\d ms +=+", steps[2][1]["first byte"])
    assert steps[2][1]["outcome"].startswith("OK 200") and steps[2][1]["next"] == "the result goes to results"


@pytest.mark.parametrize("options, job, outcome, following", [
    ([], "http://127.0.0.1:8080/", "BLOCKED_ADDRESS, ADDRESS_DENIED", "would not help"),
    (["-o", "guard.deny=*.example"], "http://a.example/", "BLOCKED_ADDRESS, HOST_DENIED", "nothing was tried"),
    (["-o", "dead_letter.topic=dead"], '{"url":"http://a.example/","x":1}', "BAD_JOB, JOB_FIELD", "results, and the job to dead"),
    ([*ALLOW, "-o", "retry.max_attempts=1"], "http://127.0.0.1:1025/", "CONNECT, CONNECT_REFUSED", "no attempt is left"),
])
def test_what_ends_badly_says_why_and_what_follows(options, job, outcome, following):
    done = ctl("try", *options, job)
    last = rows(done.stdout)[-1][1]
    assert done.returncode == 1 and last["outcome"].startswith(outcome) and following in last["next"], done.stdout
    assert len(rows(done.stdout)) == 1


def test_a_retry_is_said_or_made(origin):
    job = json.dumps({"url": f"{origin.url}/status/503", "retry": {"max_attempts": 2, "base_ms": 20}})
    once, all_of_them = ctl("try", *ALLOW, job), ctl("try", *ALLOW, "--retries", job)
    assert once.returncode == 1 and all_of_them.returncode == 1
    said = rows(once.stdout)
    assert len(said) == 1 and said[0][1]["attempt"] == "1 of 2 failed: HTTP_STATUS"
    assert re.fullmatch(r"a retry in \d+ms, drawn from 0 to 20 ms", said[0][1]["next"]) and "outcome" not in said[0][1]
    said = rows(all_of_them.stdout)
    assert len(said) == 2 and said[1][1]["outcome"].startswith("HTTP_ERROR 503") and "no attempt is left" in said[1][1]["next"]

    asked = json.loads(ctl("try", *ALLOW, "--json", job).stdout)
    assert asked["next"]["action"] == "retry" and 0 <= asked["next"]["in_ms"] <= 20 and asked["result"] is None
    told = json.loads(ctl("try", *ALLOW, "--json", "--retries", job).stdout)
    assert [s["status"] for s in told["steps"]] == [503, 503] and told["next"] == {"action": "publish", "topic": "results"}
    assert told["result"]["outcome"] == "OUTCOME_HTTP_ERROR" and len(told["result"]["attempts"]) == 2


def test_robots_txt_is_a_request_too(origin):
    done = ctl("try", *ALLOW, "-o", "robots=obey", f"{origin.url}/ok")
    assert [url.removeprefix(origin.url) for url, _ in rows(done.stdout)] == ["/robots.txt", "/ok"]


def test_the_body_alone_goes_into_a_pipe(origin, tmp_path):
    job = f"{origin.url}/echo?a"
    piped, file = ctl("try", *ALLOW, "-O", "-", job), tmp_path / "body"
    assert ctl("try", *ALLOW, "-O", file, job).returncode == piped.returncode == 0
    assert piped.stdout and file.read_text() == piped.stdout and "outcome     OK 200" in piped.stderr
    assert ctl("try", *ALLOW, "-O", tmp_path / "no" / "dir", job).returncode == 1


def test_ctrl_c_ends_it(origin):
    child = subprocess.Popen(argv("try", *ALLOW, f"{origin.url}/hang"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    proc.wait_until(lambda: origin.stats("/hang")["now"], 20, "it hangs")
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert child.returncode == 1 and err == "gatherctl try: interrupted\n" and out.startswith("GET ")


@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_terminal_no_line_is_too_long(origin, columns):
    text, code = on_terminal("try", *ALLOW, f"{origin.url}/ok", columns=columns)
    assert code == 0 and "\x1b[1m" in text and "\x1b[32m" in text
    assert max(map(len, visible(text).splitlines())) < columns


def test_usage():
    for args, words in [([], "give one job"), (["http://a.example/", "x"], "give one job"), (["--json", "-O", "-", "x"], "both want stdout")]:
        done = ctl("try", *args)
        assert done.returncode == 2 and words in done.stderr and not done.stdout
