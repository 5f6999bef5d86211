"""gatherctl and quickstart as a user sees them: exit codes, words, tables, and what ends up in the topics."""

import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic
from google.protobuf import json_format

import proc
import worker
from gatherctl import Sandbox, argv, ctl, environment, on_terminal, visible

ROOT = worker.ROOT
MAN = ROOT / "docs/man/gatherctl.1"
COMMANDS = ("submit", "tail", "feed", "status", "offsets", "dlq", "replay", "try", "topics", "check", "sandbox", "completion")
NO_BROKER = "127.0.0.1:1"


# --- every command ---

@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_the_man_page_has_each_option(command):
    done = ctl(command, "--help")
    assert done.returncode == 0 and not done.stderr
    assert f"gatherctl {command}" in done.stdout.split("examples:")[1]
    man = MAN.read_text().replace("\\-", "-")
    options = re.findall(r"^  .{4}(--[a-z-]+)", done.stdout, re.M)
    assert len(options) >= 4 or command in ("check", "completion")
    for option in options:
        assert option in man, f"{option} of {command} is not in gatherctl(1)"
    assert max(map(len, done.stdout.splitlines())) <= 132


SHELLS = {
    "bash": r"""source <("$0" completion bash)
for line; do
    IFS=' ' read -ra COMP_WORDS <<<"$line."
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    COMP_WORDS[COMP_CWORD]=${COMP_WORDS[COMP_CWORD]%.}
    _gatherctl
    echo "${COMPREPLY[@]}"
done""",
    # It completes at a prompt only: it has a terminal of its own, and its compadd tells what it is given.
    "zsh": r"""zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z "PS1=; autoload -U compinit && compinit -u -D; source <($0 completion zsh)"
zpty -w z 'compadd() { builtin compadd -A found "$@"; said+=($found) }; tell() { said=(); _main_complete; print -r -- "[""[ $said ]""]" }'
zpty -w z 'zle -C tell complete-word tell; bindkey "^T" tell; print re""ady'
zpty -r z said '*ready*'
for line; do
    zpty -w -n z "$line"$'\x14'
    zpty -r z said '*]]*'
    print -r -- ${${said##*"[["}%"]]"*}
    zpty -w -n z $'\x15'
done""",
    "fish": r"""source ($argv[1] completion fish | psub)
for line in $argv[2..]
    echo (complete -C $line | string split -f 1 \t)
end""",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_completes_commands_options_and_words(shell, tmp_path):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    expected = {"--v": ["--version"], "ta": ["tail"], "tail --out": ["--outcome"], "tail --format ": ["json", "table"], "dlq r": ["redrive"],
                "offsets --br": ["--brokers"], "help sub": ["submit"],
                "tail --topic ": []}  # the shell's own: file names
    for command in COMMANDS:
        expected[f"{command} --"] = re.findall(r"^  .{4}(--[a-z-]+)", ctl(command, "--help").stdout, re.M)
    lines = [f"gatherctl {words}" for words in ("", *expected)]
    done = subprocess.run([shell, "-c", SHELLS[shell], argv()[0], *lines], stdin=subprocess.DEVNULL, cwd=tmp_path,
                          capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    offered = [line.split() for line in done.stdout.splitlines()]
    assert {*COMMANDS, "help"} <= set(offered[0])
    assert dict(zip(expected, map(set, offered[1:]))) == {words: set(found) for words, found in expected.items()}


def test_the_man_page_of_gatherd_has_each_option():
    done = subprocess.run([worker.build_dir() / "gatherd", "--help"], capture_output=True, text=True, env=environment())
    man = (ROOT / "docs/man/gatherd.1").read_text().replace("\\-", "-")
    options = re.findall(r"(?<![\w-])--?[a-z]+", done.stdout)
    assert done.returncode == 0 and len(options) >= 6
    assert not [o for o in options if o not in man]


def test_help_of_tail_names_each_outcome(protos):
    words = ctl("tail", "--help").stdout.split("outcomes:")[1].split("examples:")[0].split()
    names = [n.removeprefix("OUTCOME_") for n, number in protos[1].Outcome.items() if number]
    assert words == names


def test_version():
    done = ctl("--version")
    assert done.returncode == 0 and re.fullmatch(r"gatherctl \d+\.\d+\.\d+ .*\n", done.stdout)


@pytest.mark.parametrize("args, words", [
    ([], "usage:"),
    (["nonsense"], "there is no command nonsense"),
    (["tail", "--nonsense"], "--nonsense is not an option"),
    (["tail", "-x"], "-x is not an option"),
    (["tail", "extra"], "takes no arguments"),
    (["tail", "--count"], "--count wants a value"),
    (["tail", "--count", "0"], "must be a number from 1"),
    (["tail", "--body", "hex"], "one of text|base64|none"),
    (["tail", "--timeout", "soon"], "must be a time"),
    (["tail", "--outcome", "FINE", "-b", NO_BROKER], "no such outcome"),
    (["tail"], "no brokers are named"),
    (["tail", "-b", NO_BROKER, "-o", "kafka.nonsense=1"], "nonsense"),
    (["submit", "--rate", "0", "http://a/"], "above 0"),
    (["submit", "-b", NO_BROKER, "--file", "/nonexistent"], "No such file"),
    (["topics", "--create", "--check", "-b", NO_BROKER], "do not go together"),
    (["topics", "--partitions", "none"], "must be a number"),
    (["sandbox", "extra"], "takes no arguments"),
    (["status", "extra"], "takes no arguments"),
    (["check", "extra"], "takes no arguments"),
    (["feed"], "takes one file"),
    (["feed", "--every", "often", "sources.txt"], "must be a time"),
])
def test_wrong_usage_is_said_and_exits_2(args, words):
    done = ctl(*args)
    assert done.returncode == 2 and not done.stdout
    assert words in done.stderr


@pytest.mark.parametrize("args, brokers, reason", [
    (["tail"], NO_BROKER, "Connection refused"),
    (["submit", "http://a.example/"], NO_BROKER, "Connection refused"),
    (["topics"], "no-such-host.invalid:9092", "resolve"),
    (["offsets"], NO_BROKER, "Connection refused"),
])
def test_a_missing_broker_gets_one_sentence_within_10_s(args, brokers, reason):
    start = time.monotonic()
    done = ctl(*args, env={"GATHERD_KAFKA_BOOTSTRAP_SERVERS": brokers})
    assert time.monotonic() - start < 10
    assert done.returncode == 1 and not done.stdout
    assert len(done.stderr.splitlines()) == 1
    assert f"no Kafka broker answered at {brokers}" in done.stderr and reason in done.stderr


def test_an_absent_topic_is_said(sandbox):
    for args in (["tail"], ["submit", "http://a.example/"]):
        done = ctl(*args, "-b", sandbox.bootstrap, "-t", "absent")
        assert done.returncode == 1
        assert "there is no topic absent" in done.stderr and "gatherctl topics" in done.stderr
    assert ctl("topics", "-b", sandbox.bootstrap, "--check", "--jobs", "absent").returncode == 1


# --- submit ---

def test_submit_keys_by_host_and_skips_what_is_no_line(sandbox, tmp_path):
    urls = tmp_path / "urls.txt"
    urls.write_text("# a comment\n\n  http://b.example/2  \nhttps://b.example/3\n")
    job = '{"url":"http://C.example:8080/","attrs":{"shop":"7"}}'
    done = ctl("submit", "-b", sandbox.bootstrap, "--file", urls, "http://a.example/1", job)
    assert (done.returncode, done.stdout, done.stderr) == (0, "4 of 4 jobs acknowledged by jobs\n", "")
    records = sandbox.records(4)
    assert records == {"http://a.example/1": "a.example:80", job: "c.example:8080",
                       "http://b.example/2": "b.example:80", "https://b.example/3": "b.example:443"}


def test_submit_reports_bad_lines_with_their_place_and_sends_the_rest(sandbox):
    lines = 'http://a.example/1\n{"url":\n{"url":"http://a.example/2","nonsense":1}\nnot a url\nfile:///etc/passwd\n'
    done = ctl("submit", "-b", sandbox.bootstrap, "--json", stdin=lines)
    assert done.returncode == 1
    counts = json.loads(done.stdout)
    assert (counts["sent"], counts["acknowledged"], counts["failed"], counts["bad"]) == (2, 2, 0, 3)
    said = done.stderr.splitlines()
    assert [line.split(": ")[1] for line in said] == ["stdin:2", "stdin:3", "stdin:4"]
    assert "nonsense" in said[1]
    # A scheme is refused by rule, not for its form: the worker is to answer.
    assert sandbox.records(2) == {"http://a.example/1": "a.example:80", "file:///etc/passwd": None}


@pytest.mark.parametrize("key, expected", [("none", None), ("attrs.shop", "7"), ("job_id", "12"), ("url", "http://a.example/")])
def test_submit_keys_as_asked(sandbox, key, expected):
    job = '{"url":"http://a.example/","job_id":"12","attrs":{"shop":"7"}}'
    assert ctl("submit", "-b", sandbox.bootstrap, "--key", key, job).returncode == 0
    assert sandbox.records(1) == {job: expected}


def test_submit_without_the_field_to_key_by_sends_nothing(sandbox):
    done = ctl("submit", "-b", sandbox.bootstrap, "--key", "attrs.shop", '{"url":"http://a.example/"}')
    assert done.returncode == 1 and "there is no field attrs.shop" in done.stderr


def test_submit_unchecked_sends_everything(sandbox):
    assert ctl("submit", "-b", sandbox.bootstrap, "--no-check", "not a url", '{"url":').returncode == 0
    assert set(sandbox.records(2)) == {"not a url", '{"url":'}


def test_submit_keeps_to_its_rate(sandbox):
    start = time.monotonic()
    assert ctl("submit", "-b", sandbox.bootstrap, "--rate", "20", stdin="http://a.example/\n" * 21).returncode == 0
    assert time.monotonic() - start >= 1.0


def test_submit_many(sandbox):
    done = ctl("submit", "-b", sandbox.bootstrap, stdin="".join(f"http://a{i}.example/\n" for i in range(20000)))
    assert done.returncode == 0
    assert "20000 of 20000 jobs acknowledged" in done.stdout


def test_submit_shows_progress_on_a_terminal_only(sandbox, tmp_path):
    urls = tmp_path / "urls.txt"
    urls.write_text("http://a.example/\n" * 30)
    text, code = on_terminal("submit", "-b", sandbox.bootstrap, "--rate", "30", "--file", urls)
    assert code == 0
    assert re.search(r"\r\x1b\[K\[#+\.+\] +\d+% \d+ acknowledged \d+/s ETA \S+\r", text)
    assert text.endswith("\r\x1b[K30 of 30 jobs acknowledged by jobs\n")


def test_interrupted_submit_says_where(sandbox):
    child = subprocess.Popen(argv("submit", "-b", sandbox.bootstrap), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True, env=environment())
    child.stdin.write("http://a.example/\n")
    child.stdin.flush()
    assert len(sandbox.records(1)) == 1
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert child.returncode == 1
    assert "1 of 1 job acknowledged" in out and "interrupted at stdin:1" in err


def test_a_submit_that_was_killed_goes_on(sandbox, tmp_path):
    urls, state = tmp_path / "urls", tmp_path / "state"
    urls.write_text("# first\n" + "".join(f"http://a.example/{i}\n" for i in range(100)))
    args = ["submit", "-b", sandbox.bootstrap, "--key", "url", "-f", urls, "--resume", state]
    child = subprocess.Popen(argv(*args, "--rate", "20"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment())
    proc.wait_until(lambda: state.exists() and int(state.read_text().split()[0]) > 10, 30, "some are done", child)
    child.kill()
    child.wait()
    line = int(state.read_text().split()[0])
    done = ctl(*args, "--json")
    assert done.returncode == 0 and f"goes on after {urls}:{line}" in done.stderr
    sent = json.loads(done.stdout)["sent"]
    assert sent == 101 - line and state.read_text() == f"101 {urls}\n"
    # All of them, and doubled only what the killed one sent since it last wrote its state.
    values = sandbox.values("jobs")
    assert set(values) == {f"http://a.example/{i}" for i in range(100)}
    assert [v for v in set(values) if values.count(v) > 1] == [] or min(int(v.rpartition("/")[2]) for v in values if values.count(v) > 1) >= line - 1

    # Nothing is left; what is added later is all that is sent; another file is not meant.
    assert json.loads(ctl(*args, "--json").stdout)["sent"] == 0
    with urls.open("a") as f:
        f.write("http://a.example/more\n")
    assert json.loads(ctl(*args, "--json").stdout)["sent"] == 1
    other = tmp_path / "other"
    other.write_text("http://b.example/\n")
    done = ctl("submit", "-b", sandbox.bootstrap, "-f", other, "--resume", state)
    assert done.returncode == 2 and f"is of {urls}" in done.stderr


# --- tail ---

def samples(sandbox):
    """Results of every kind of field, without a duty to make sense."""
    pb = sandbox.result_pb2
    now = int(time.time() * 1000)
    full = sandbox.result(
        job_id="jobs/0/1", outcome="OUTCOME_OK", url="http://shop.example.com/1", final_url="http://shop.example.com/2", status=200,
        http_version="1.1", body="grün \x1b[31m\x7f\u009b31m\n".encode() + b"\xff\xfe\x00", body_length=12, declared_length=-1,
        truncated="TRUNCATED_NONE", digest=bytes(range(32)), etag=b'"\xff"', unchanged=True, dead_letter="DEAD_LETTER_NONE",
        start_at_ms=now - 1234, end_at_ms=now, source=pb.Source(topic="jobs", partition=3, offset=2**40),
        redirects=[pb.Redirect(url="http://shop.example.com/1", status=302, location=b"/2")],
        attempts=[pb.Attempt(outcome="OUTCOME_TIMEOUT", ms=5), pb.Attempt(outcome="OUTCOME_OK", status=200)],
        timing_us=pb.TimingUs(total=2**33), attrs={"shop": "7", "": "empty"}, worker=pb.Worker(instance="w"))
    full.headers.add(name="Server", value=b"\xff")
    failed = sandbox.result(job_id="jobs/0/2", outcome="OUTCOME_TOO_MANY_REDIRECTS", url="https://other.example/" + "x" * 200,
                            status=302, error=pb.Error(code="REDIRECT_MAX", message="more redirects than redirect.max"))
    bad = sandbox.result(job_id="jobs/0/3", outcome="OUTCOME_BAD_JOB", raw_input=b"\x1b[2J\x00garbage",
                         error=pb.Error(code="JOB_FORMAT", message="the record is neither protobuf, JSON nor a URL"))
    return full, failed, bad


def test_tail_base64_is_the_json_mapping(sandbox):
    results = samples(sandbox)
    sandbox.put([r.SerializeToString() for r in results])
    done = ctl("tail", "-b", sandbox.bootstrap, "--from-beginning", "--body", "base64")
    assert (done.returncode, done.stderr) == (0, "")
    back = [json_format.Parse(line, sandbox.result()) for line in done.stdout.splitlines()]
    by_id = {r.job_id: r for r in back}
    assert by_id == {r.job_id: r for r in results}


def test_tail_text_is_for_people(sandbox):
    full = samples(sandbox)[0]
    sandbox.put([full.SerializeToString()])
    line = ctl("tail", "-b", sandbox.bootstrap, "-B").stdout
    # Nothing that a terminal would obey, whatever the body has.
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", line)
    result = json.loads(line)
    assert result["body"] == "grün \x1b[31m\x7f\u009b31m\n\ufffd\ufffd\x00"
    assert result["digest"] == bytes(range(32)).hex()
    assert result["headers"] == [{"name": "Server", "value": "\ufffd"}]
    assert result["source"]["offset"] == 2**40
    assert result["attrs"] == {"shop": "7", "": "empty"}
    assert "body" not in json.loads(ctl("tail", "-b", sandbox.bootstrap, "-B", "--body", "none").stdout)


def test_tail_filters_and_counts(sandbox):
    sandbox.put([r.SerializeToString() for r in samples(sandbox)])

    def ids(*args):
        done = ctl("tail", "-b", sandbox.bootstrap, "-B", *args)
        return sorted(json.loads(line)["job_id"][-1] for line in done.stdout.splitlines()), done.returncode

    assert ids() == (["1", "2", "3"], 0)
    assert ids("--outcome", "ok,OUTCOME_BAD_JOB") == (["1", "3"], 0)
    assert ids("--host", "*.example.com") == (["1"], 0)
    assert ids("--host", "other.example:443") == (["2"], 0)
    assert ids("--status", "200,4xx") == (["1"], 0) and ids("--status", "300-302") == (["2"], 0)
    assert ids("--header", "server") == (["1"], 0) and ids("--header", "SERVER:x*") == ([], 0)
    assert ids("--status", "4x")[1] == 2
    assert len(ids("--count", "2")[0]) == 2
    assert ids("--count", "4") == (["1", "2", "3"], 1)


def test_tail_puts_bodies_into_files(sandbox, tmp_path):
    ids = ["jobs/0/1", "../../etc/x", ".hidden", "ü", "a" * 300, "plain-1.x"]
    bodies = [bytes([i]) * 1000 for i in range(len(ids))]
    sandbox.put([sandbox.result(job_id=i, body=b"old").SerializeToString() for i in ids[:1]])
    sandbox.put([sandbox.result(job_id=i, body=b, outcome="OUTCOME_OK").SerializeToString() for i, b in zip(ids, bodies)])
    sandbox.put([sandbox.result(job_id="empty").SerializeToString()])
    done = ctl("tail", "-b", sandbox.bootstrap, "-B", "--outcome", "OK", "--bodies", tmp_path / "new")
    assert done.returncode == 0 and not any("body" in json.loads(line) for line in done.stdout.splitlines())
    files = {f.name: f.read_bytes() for f in (tmp_path / "new").iterdir()}
    assert sorted(files.values()) == bodies
    assert {"jobs%2F0%2F1", "%2E.%2F..%2Fetc%2Fx", "%2Ehidden", "%C3%BC", "plain-1.x"} < files.keys() and max(map(len, files)) == 200
    assert ctl("tail", "-b", sandbox.bootstrap, "-B", "--bodies", __file__).returncode == 2


def test_tail_since(topics, broker):
    t = topics(broker.bootstrap, 2)
    t.alter("results", retention_ms=-1)  # they are of 2023
    for i in range(6):
        value = t.result_pb2.FetchResult(job_id=str(i)).SerializeToString()
        t.producer.produce(t.name("results"), value, partition=i % 2, timestamp=1700000000000 + i * 60000)
    t.flush()

    def ids(*args):
        done = ctl("tail", "-b", broker.bootstrap, "-t", t.name("results"), *args)
        return sorted(json.loads(line)["job_id"] for line in done.stdout.splitlines()), done.returncode

    assert ids("--since", "2023-11-14T22:16:20Z") == (["3", "4", "5"], 0)
    assert ids("--since", "1h") == ([], 0)
    assert ids("--since", "1h", "-B")[1] == 2


def test_tail_says_what_it_cannot_decode(sandbox):
    sandbox.put([b"\xff\xffgarbage", b"", None, sandbox.result(job_id="good").SerializeToString()])
    done = ctl("tail", "-b", sandbox.bootstrap, "-B")
    assert done.returncode == 1
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"job_id": "good"}]
    assert done.stderr.count("not a FetchResult") == 3 and "3 records could not be decoded" in done.stderr


def test_tail_follows_from_the_end(sandbox):
    sandbox.put([sandbox.result(job_id="old").SerializeToString()])
    child = subprocess.Popen(argv("tail", "-b", sandbox.bootstrap, "--count", "2", "--timeout", "60s"), stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, text=True, env=environment())
    lines = []
    # Its start is not seen from outside: put until one arrives.
    os.set_blocking(child.stdout.fileno(), False)
    deadline = time.monotonic() + 30
    while not lines and time.monotonic() < deadline:
        sandbox.put([sandbox.result(job_id="new").SerializeToString()])
        time.sleep(0.2)
        lines += child.stdout.readlines()
    while child.poll() is None and time.monotonic() < deadline:
        sandbox.put([sandbox.result(job_id="new").SerializeToString()])
        time.sleep(0.1)
    os.set_blocking(child.stdout.fileno(), True)
    lines += child.stdout.readlines()
    assert child.wait(10) == 0
    assert [json.loads(line)["job_id"] for line in lines] == ["new", "new"]


def test_tail_ends_cleanly_on_ctrl_c_time_out_and_a_closed_pipe(sandbox):
    sandbox.put([sandbox.result(job_id=str(i), url="x" * 5000).SerializeToString() for i in range(100)])
    child = subprocess.Popen(argv("tail", "-b", sandbox.bootstrap, "-B", "-f"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, env=environment())
    child.stdout.readline()
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=20)
    assert (child.returncode, err) == (0, b"")

    done = ctl("tail", "-b", sandbox.bootstrap, "--timeout", "300ms")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = ctl("tail", "-b", sandbox.bootstrap, "--timeout", "300ms", "--count", "1")
    assert done.returncode == 1 and "0 of 1 results came" in done.stderr

    child = subprocess.Popen(argv("tail", "-b", sandbox.bootstrap, "-B"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, env=environment())
    child.stdout.readline()
    child.stdout.close()
    assert (child.wait(20), child.stderr.read()) == (0, b"")


@pytest.mark.parametrize("columns", [80, 100, 160])
def test_tail_prints_a_table_that_fits_the_terminal(sandbox, columns):
    sandbox.put([r.SerializeToString() for r in samples(sandbox)])
    text, code = on_terminal("tail", "-b", sandbox.bootstrap, "-B", columns=columns)
    assert code == 0
    lines = visible(text).splitlines()
    assert lines[0].split() == ["TIME", "OUTCOME", "STATUS", "MS", "BYTES", "URL"]
    assert lines[-1] == "3 results"
    assert max(map(len, lines)) <= columns
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", visible(text))
    by_outcome = {line.split()[1]: line for line in lines[1:-1]}
    assert by_outcome["OK"].split()[2:5] == ["200", "1234", "12"]
    long = next(line for line in lines if "other.example" in line)
    assert long.endswith("…") and len(long) == columns
    assert "\x1b[32m" in text


def test_colours_are_off_when_asked_or_in_a_pipe(sandbox):
    sandbox.put([r.SerializeToString() for r in samples(sandbox)])
    assert "\x1b" not in on_terminal("tail", "-b", sandbox.bootstrap, "-B", env={"NO_COLOR": "1"})[0]
    piped = ctl("tail", "-b", sandbox.bootstrap, "-B", "--format", "table")
    assert piped.stdout.startswith("TIME") and "\x1b" not in piped.stdout
    assert "x" * 200 in piped.stdout  # not cut


def test_table_with_bodies(sandbox):
    sandbox.put([sandbox.result(outcome="OUTCOME_OK", url="http://a.example/", body=b"one\n\x1b[2Jtwo\n").SerializeToString()])
    out = ctl("tail", "-b", sandbox.bootstrap, "-B", "--format", "table", "--body", "text").stdout
    assert out.endswith("http://a.example/\n    one\n    ?[2Jtwo\n")


# --- topics ---

def test_topics_are_made_to_fit(broker):
    name = f"ctl-{os.getpid()}-{time.time_ns()}"
    names = [f"{name}.jobs", f"{name}.results", f"{name}.dead"]
    args = ["topics", "-b", broker.bootstrap, "--jobs", names[0], "--results", names[1], "--dead-letters", names[2]]

    done = ctl(*args, "--check")
    assert done.returncode == 1 and done.stdout.count("missing") == 3
    done = ctl(*args, "--partitions", "3")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split() for line in done.stdout.splitlines()] == [[n, "created", "3", "partitions"] for n in names]
    done = ctl(*args, "--json", "--create")
    assert done.returncode == 0
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(r["topic"], r["state"], r["partitions"], r["fits"]) for r in rows] == [(n, "existed", 3, True) for n in names]
    assert ctl(*args, "--check").returncode == 0

    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    futures = admin.describe_configs([ConfigResource("topic", n) for n in names])
    configs = {r.name: {k: v.value for k, v in f.result(30).items()} for r, f in futures.items()}
    for n in names:
        assert configs[n]["cleanup.policy"] == "delete" and configs[n]["compression.type"] == "producer"
    assert int(configs[names[1]]["max.message.bytes"]) == (900 + 124) * 1024
    assert int(configs[names[2]]["max.message.bytes"]) > int(configs[names[0]]["max.message.bytes"])
    assert int(configs[names[0]]["retention.ms"]) == 7 * 24 * 3600 * 1000


def test_topics_that_do_not_fit_or_are_refused_are_said(broker):
    name = f"ctl-{os.getpid()}-{time.time_ns()}"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(f"{name}.results", 1, 1, config={"max.message.bytes": "1000"})])[f"{name}.results"].result(30)
    args = ["topics", "-b", broker.bootstrap, "--results", f"{name}.results", "--dead-letters", ""]

    done = ctl(*args, "--jobs", f"{name}.jobs")
    assert done.returncode == 1
    assert re.search(r"results +existed +1 partitions; max.message.bytes is 1000, should be at least 1048576", done.stdout)
    done = ctl(*args, "--jobs", f"{name}.more", "--replication", "3")
    assert done.returncode == 1 and re.search(r"more +refused: .*replic", done.stdout)


# --- status, check ---

class FakeWorker:
    """The status port of a worker that is not well."""

    ANSWERS = {"/metrics": (200, "gatherd_results_total{outcome=\"OK\"} 5\n"), "/status": (200, '{"instance":"w","health":"ok","inflight":5}'),
               "/healthz": (503, "output_blocked: the oldest of 3: it waits for 7 s\n")}

    def __init__(self):
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                code, text = fake.ANSWERS.get(self.path, (404, "not here"))
                self.send_response(code)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def test_status_of_workers(topics, broker, start_worker, origin):
    t = topics(broker.bootstrap, partitions=3)
    worker = start_worker(t.options()).wait_ready()
    worker.wait_partitions(3)
    args = ["status", "-b", broker.bootstrap, "-g", t.prefix]
    done = ctl(*args, "--workers", f"127.0.0.1:{worker.port},127.0.0.1:1", "--json")
    assert done.returncode == 1 and not done.stderr
    shown = json.loads(done.stdout)
    one, other = shown["workers"]
    assert (shown["state"], len(shown["members"])) == ("Stable", 1) and shown["members"][0]["host"] == "/127.0.0.1"
    # A busy machine, or valgrind, may hold its loop up.
    assert (one["inflight"], one["results_per_s"], len(one["partitions"])) == (0, 0, 3) and one["health"] in ("ok", "loop_lag")
    assert not other["answers"] and "connect" in other["reason"].lower()

    # Some thirty results a second: the rate is of a second, not since the start.
    for _ in range(10000):
        t.produce(f"{origin.url}/delay/250".encode())
    t.flush()
    worker.wait_metric("gatherd_results_total", 10)
    done = ctl(*args, "--workers", f"127.0.0.1:{worker.port}", "--json")
    rate = json.loads(done.stdout)["workers"][0]["results_per_s"]
    assert done.returncode == 0 and 0 < rate < 60  # host.inflight = 8, so 32 at most
    text, code = on_terminal(*args, "--workers", f"127.0.0.1:{worker.port}", columns=200)
    assert code == 0 and re.search(r"worker1 +\x1b\[32mok", text) and t.name("jobs") + " 0-2" in text
    worker.kill()


@pytest.mark.short
def test_status_says_what_healthz_says(sandbox):
    """By default of the worker that the settings describe; and a port that is no gatherd's is said to be none."""
    fake = FakeWorker()
    done = ctl("status", "-b", sandbox.bootstrap, "-o", f"http.listen=0.0.0.0:{fake.port}")
    assert done.returncode == 1
    assert f"127.0.0.1:{fake.port} is not healthy: output_blocked: the oldest of 3: it waits for 7 s\n" in done.stdout
    assert re.search(r"output_blocked +5 +0 ", done.stdout)
    done = ctl("status", "-b", sandbox.bootstrap, "--json", "--workers", f"127.0.0.1:{fake.port},127.0.0.1:{fake.port}/nonsense")
    one, other = json.loads(done.stdout)["workers"]
    assert (one["health"], one["health_detail"]) == ("output_blocked", "the oldest of 3: it waits for 7 s")
    assert not other["answers"] and other["reason"].endswith("answers 404: is it a gatherd?")
    fake.stop()


def test_status_without_a_broker_shows_the_ports(sandbox, start_worker):
    worker = start_worker({"kafka.bootstrap.servers": sandbox.bootstrap})
    done = ctl("status", "-b", NO_BROKER, "--workers", f"127.0.0.1:{worker.port}")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "no Kafka broker answered" in done.stderr
    assert "worker1" in done.stdout


def test_check_says_what_gatherd_says(topics, broker):
    args = [word for key, value in {**topics(broker.bootstrap).options(), "tls.ca": "/nonexistent"}.items() for word in ("-o", f"{key}={value}")]
    done = ctl("check", *args)
    gatherd = subprocess.run([worker.build_dir() / "gatherd", "--check", *args], capture_output=True, text=True, env=environment())
    assert done.returncode == 1 == gatherd.returncode and "FAILED  tls.ca" in done.stdout
    assert done.stdout == gatherd.stdout


# --- sandbox ---

def test_sandbox_origin(sandbox):
    for path, status, words in [("/", 200, b"/delay/500"), ("/json", 200, b'"price":1299'), ("/status/404", 404, b"status 404"),
                                ("/bytes/3000", 200, b"abc"), ("/redirect/3", 200, b"sandbox"), ("/nonsense", 404, b"no such page"),
                                ("/slow/2", 200, b"one more line\none more line\n"), ("/headers", 200, b"Host: ")]:
        got, body = sandbox.get(path)
        assert got == status and words in body, path
    assert len(sandbox.get("/bytes/3000")[1]) == 3000
    start = time.monotonic()
    assert sandbox.get("/delay/300")[0] == 200 and time.monotonic() - start >= 0.3
    assert [sandbox.get("/flaky")[0] for _ in range(2)] == [503, 200]
    assert sandbox.get("/etag", **{"If-None-Match": '"v1"'})[0] == 304
    with pytest.raises(Exception, match="IncompleteRead"):
        sandbox.get("/cut")


def test_sandbox_ends_with_answers_still_due(tmp_path, protos):
    s = Sandbox(tmp_path, protos)
    host, port = s.origin.removeprefix("http://").split(":")
    open_ones = []
    for path in ("/delay/60000", "/slow/100", "/stall") * 2:
        open_ones.append(socket.create_connection((host, int(port))))
        open_ones[-1].sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    time.sleep(0.3)
    for one in open_ones[:3]:
        one.close()
    time.sleep(0.5)
    assert s.stop() == 0
    assert not [p for p in tmp_path.iterdir() if p.name.startswith("port.")]
    with pytest.raises(OSError):
        s.get("/")


def test_sandbox_needs_a_place_for_its_port_file():
    done = ctl("sandbox", "--port-file", "/nonexistent/port")
    assert done.returncode == 1 and "No such file" in done.stderr


# --- the whole, without a real broker ---

@pytest.mark.short
def test_submit_gatherd_tail(sandbox, start_worker):
    start_worker({"kafka.bootstrap.servers": sandbox.bootstrap, "guard.allow": "127.0.0.0/8", "dead_letter.topic": "dead-letters"})
    o = sandbox.origin
    expected = {f"{o}/": "OK", f"{o}/redirect/2": "OK", f"{o}/status/404": "HTTP_ERROR", f"{o}/loop": "TOO_MANY_REDIRECTS",
                "file:///etc/passwd": "BLOCKED_POLICY", "http://169.254.169.254/": "BLOCKED_ADDRESS", "not a url": "BAD_JOB"}
    assert ctl("submit", "-b", sandbox.bootstrap, "--no-check", *expected).returncode == 0
    done = ctl("tail", "-b", sandbox.bootstrap, "-B", "-f", "--count", len(expected), "--timeout", "60s", timeout_s=90)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    got = {r.get("url") or r["raw_input"]: r["outcome"].removeprefix("OUTCOME_") for r in results}
    assert got == expected


def run_quickstart(*args, timeout_s):
    child = subprocess.Popen([ROOT / "quickstart", *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, start_new_session=True, env=environment())
    try:
        out, _ = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        child.terminate()
        out, _ = child.communicate(timeout=90)
        raise AssertionError(f"not within {timeout_s} s:\n{out}") from None
    assert not proc.left_behind(child.pid)
    return child.returncode, out


@pytest.mark.skipif(worker.is_instrumented(), reason="quickstart builds and runs the release preset")
@pytest.mark.parametrize("args", [[], ["--kafka"]], ids=["embedded", "kafka"])
def test_quickstart(args):
    code, out = run_quickstart(*args, timeout_s=600)
    assert code == 0, out
    for words in ("OK ", "HTTP_ERROR", "STALLED", "DISCONNECTED", "BLOCKED_POLICY", "BLOCKED_ADDRESS", "BAD_JOB", "Next:"):
        assert words in out
    assert "\x1b" not in out


@pytest.mark.skipif(worker.is_instrumented(), reason="quickstart builds and runs the release preset")
def test_quickstart_with_urls_keeps_the_guard(origin):
    code, out = run_quickstart(f"{origin.url}/ok", timeout_s=600)
    assert code == 0, out
    assert "BLOCKED_ADDRESS" in out


@pytest.mark.skipif(worker.is_instrumented(), reason="quickstart builds and runs the release preset")
def test_quickstart_ends_with_a_signal():
    child = subprocess.Popen([ROOT / "quickstart", "--stay"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, start_new_session=True, env=environment())
    for line in child.stdout:
        if "keeps running" in line:
            break
    child.terminate()
    child.stdout.read()
    assert child.wait(90) == 143
    assert not proc.left_behind(child.pid)


def test_quickstart_usage():
    code, out = run_quickstart("--nonsense", timeout_s=30)
    assert code == 2 and "unknown option" in out
    code, out = run_quickstart("--help", timeout_s=30)
    assert code == 0 and "--kafka" in out
