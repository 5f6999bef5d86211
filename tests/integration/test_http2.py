"""HTTP/2, which is asked for by http.version=2: many requests on one connection, and servers that break its rules."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import proc
import worker

SERVER = Path(worker.__file__).with_name("h2_origin.py")


class H2Origin:
    def __init__(self, dir, *args):
        self.port_file = Path(dir) / "h2.port"
        self.cert = Path(dir) / "h2.pem"
        key = Path(dir) / "h2.key"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                        "-subj", "/CN=h2", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", self.cert],
                       check=True, capture_output=True)
        argv = [sys.executable, SERVER, "--port-file", self.port_file, "--cert", self.cert, "--key", key, *args]
        self.process = proc.spawn(argv, Path(dir) / "h2.log")
        proc.wait_until(self.port_file.exists, 20, "the h2 origin listens", self.process)
        self.url = f"https://127.0.0.1:{self.port_file.read_text()}"

    def stop(self):
        proc.stop(self.process)


@pytest.fixture
def h2(tmp_path):
    origin = H2Origin(tmp_path)
    yield origin
    origin.stop()


def fetch(t, reader, jobs):
    """Sends {name: url or (url, more)}; returns {name: result}, and the body of the origin's counters as the last one."""
    before = len(reader.records)
    for name, url in jobs.items():
        t.produce(t.job(name, url), name.encode(), 0)
    t.flush()
    reader.until(before + len(jobs))
    return {r.job_id: r for r in reader.results()[before:]}


def stats(t, reader, origin, name):
    return json.loads(fetch(t, reader, {name: f"{origin.url}/_stats"})[name].body)


@pytest.mark.short
def test_many_requests_share_one_connection(broker, h2, topics, start_worker):
    t = topics(broker.bootstrap)
    start_worker(t.options(http__version="2", tls__ca=h2.cert, host__inflight=64)).wait_ready()
    reader = t.reader()
    results = fetch(t, reader, {f"j{i}": f"{h2.url}/delay/100" for i in range(500)})
    assert {t.outcome(r) for r in results.values()} == {"OK"}
    assert {r.http_version for r in results.values()} == {"2"}
    assert {r.tls.version for r in results.values()} == {"TLSv1.3"}
    # One connection pays for all; 64 streams at once are under the 100 that libcurl asks for.
    assert sum(r.timing_us.tls > 0 for r in results.values()) == 1
    seen = stats(t, reader, h2, "stats")
    assert seen["connections"] == 1 and seen["streams"] == 501 and 32 < seen["peak"] <= 64


def test_a_server_that_has_only_http1_is_asked_that_way(broker, tmp_path, topics, start_worker):
    origin = H2Origin(tmp_path, "--h1")
    try:
        t = topics(broker.bootstrap)
        start_worker(t.options(http__version="2", tls__ca=origin.cert, host__inflight=4)).wait_ready()
        results = fetch(t, t.reader(), {f"j{i}": f"{origin.url}/ok" for i in range(20)})
        assert {(t.outcome(r), r.http_version) for r in results.values()} == {("OK", "1.1")}
    finally:
        origin.stop()


def test_a_host_profile_may_ask_for_http2(broker, h2, topics, start_worker):
    t = topics(broker.bootstrap)
    start_worker(t.options(tls__ca=h2.cert), config='[host "127.0.0.1"]\nhttp.version = 2\n').wait_ready()
    assert fetch(t, t.reader(), {"j": f"{h2.url}/ok"})["j"].http_version == "2"


TRUNCATED_LENGTH, TRUNCATED_DISCONNECT = 2, 4

# name: path, outcome, error code, fields; {} is the round. Good ones run beside them on the same connections and must not suffer.
ROWS = {
    "goaway": ("/goaway", "OK", "", {"body": b"ok"}),
    "not processed": ("/drop/{}", "OK", "", {"body": b"ok"}),
    "connection closed": ("/close/{}", "OK", "", {"body": b"ok"}),
    "rst internal": ("/rst/2", "PROTOCOL", "HTTP2_ERROR", {}),
    "rst refused": ("/rst/7", "DISCONNECTED", "DISCONNECTED", {}),
    "cut": ("/cut", "PROTOCOL", "HTTP2_ERROR", {"status": 200, "body": b"c" * 50, "truncated": TRUNCATED_DISCONNECT}),
    "hang": ("/hang", "TIMEOUT", "FETCH_TIMEOUT", {"status": 0}),
    "endless": ("/endless", "OK", "", {"status": 200, "truncated": TRUNCATED_LENGTH, "body_length": 65536}),
    "over the cap": ("/bytes/200000", "OK", "", {"status": 200, "truncated": TRUNCATED_LENGTH, "declared_length": 200000}),
    "long header": ("/headers/190", "OK", "", {"body": b"ok"}),
    "header bytes": ("/headers/700", "TOO_LARGE", "HEADERS_TOO_LARGE", {}),
    "header lines": ("/headers/300", "TOO_LARGE", "HEADERS_TOO_LARGE", {}),
    "404": ("/nothing", "HTTP_ERROR", "HTTP_STATUS", {"status": 404}),
}


@pytest.mark.short
def test_misbehaviour(broker, h2, topics, start_worker):
    t = topics(broker.bootstrap)
    start_worker(t.options(http__version="2", tls__ca=h2.cert, host__inflight=64, retry__base="10ms", retry__max="50ms",
                           fetch__timeout="2s", body__max="64KiB")).wait_ready()
    reader = t.reader()
    wrong = []
    for round, (name, row) in enumerate(2 * list(ROWS.items())):
        path, *expected = row
        jobs = {f"{name}/{round}": h2.url + path.format(round)}
        jobs |= {f"good{i}/{round}": f"{h2.url}/delay/{i * 10}" for i in range(20)}
        for job, r in fetch(t, reader, jobs).items():
            outcome, code, fields = expected if not job.startswith("good") else ("OK", "", {"body": b"ok"})
            got = t.outcome(r), r.error.code, {k: getattr(r, k) for k in fields}
            if got != (outcome, code, fields):
                wrong.append((job, name, got, r.error.message, [(a.outcome, a.ms) for a in r.attempts]))
    assert not wrong, "\n".join(map(str, wrong))
