"""The address guard against the corpus tests/data/guard_bypass.tsv. That nothing else was connected to is read off a trace of the
daemon's system calls, from outside of the process, and not off its own counters."""

import json
import re
import signal
import socket
import socketserver
import threading
import time
from pathlib import Path
from typing import NamedTuple

import pytest

import proc
import worker

DATA = worker.ROOT / "tests/data/guard_bypass.tsv"
# The settings of each group of rows, and the addresses that its rows may connect to at the listener's port.
GROUPS = {
    "default": ({}, []),
    "redirect": ({"guard.allow": "origin.allowed.test"}, []),
    "glob": ({"guard.allow": "*"}, ["127.0.0.1"]),
    "names": ({"guard.allow": "origin.allowed.test *.inside.test exact.test"}, ["127.0.0.1"]),
    "cidr": ({"guard.allow": "127.0.0.1"}, ["127.0.0.1"]),
    "v6": ({"guard.allow": "::/0"}, ["::1"]),
    "deny": ({"guard.allow": "127.0.0.0/8 ::1 *.test",
              "guard.deny": "127.9.0.0/16 ::1 8.8.8.0/24 bad.test *.bad.test xn--bcher-kva.test"},
             ["127.0.0.1", "127.8.255.255", "127.10.0.0"]),
    "ports": ({"guard.allow": "127.0.0.0/8", "guard.ports": "{port} {origin}"}, ["127.0.0.1"]),
}
REDIRECTS = (301, 302, 303, 307, 308)
DNS_TTL_MIN_S = 5  # resolve.c: an answer is kept so long at least

CALLS = "connect,sendto,sendmsg,sendmmsg,io_uring_setup"
# glibc asks its name service cache, which tests have no need of, before it looks at a name.
NOT_OURS = re.compile(r'sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"|sa_family=AF_NETLINK|sa_family=AF_UNSPEC')
INET = re.compile(r'sa_family=AF_INET6?, sin6?_port=htons\((\d+)\), (?:sin6_flowinfo=htonl\(\d+\), )?'
                  r'(?:sin_addr=inet_addr\(|inet_pton\(AF_INET6, )"([^"]+)"')


class Row(NamedTuple):
    line: int
    group: str
    way: str     # url: a job, and in the group redirect a Location too; job; location; later: once ttl-0 ran out
    target: str
    outcome: str
    code: str
    source: str


def load():
    """The corpus: tab-separated; the target is the inside of a JSON string."""
    rows = []
    for number, line in enumerate(DATA.read_text(encoding="ascii").splitlines(), 1):
        if line and not line.startswith("#"):
            group, way, target, outcome, code, source = line.split("\t")
            rows.append(Row(number, group, way, json.loads(f'"{target}"'), outcome, code, source))
    return rows


ROWS = load()


def as_location(row):
    """What a row of the group default means in a Location: what is no URL is then the server's fault."""
    outcome = ("PROTOCOL", "REDIRECT_BAD") if row.outcome == "BAD_JOB" else (row.outcome, row.code)
    return row._replace(way="location", outcome=outcome[0], code=outcome[1])


def has_v6():
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
        return True
    except OSError:
        return False


HAS_V6 = has_v6()


# --- what the daemon does, seen from outside ---

class Listener:
    """Answers each request at one port of every loopback address, and counts. /hold is answered once `release` is set."""

    def __init__(self):
        outer = self
        self.lock = threading.Lock()
        self.connections = self.open = self.requests = 0
        self.release = threading.Event()

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                outer.count(connections=1, open=1)
                try:
                    while data := self.request.recv(65536):
                        outer.count(requests=1)
                        if data.startswith(b"GET /hold"):
                            outer.release.wait(60)
                        self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nin\n")
                except OSError:
                    pass  # the daemon may cut a connection when it likes
                finally:
                    outer.count(open=-1)

        class Server(socketserver.ThreadingTCPServer):
            address_family = socket.AF_INET6 if HAS_V6 else socket.AF_INET
            allow_reuse_address = daemon_threads = True
            request_queue_size = 128

            def server_bind(self):
                if HAS_V6:
                    self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                super().server_bind()

        self.server = Server(("::" if HAS_V6 else "0.0.0.0", proc.free_port()), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def count(self, **by):
        with self.lock:
            for name, n in by.items():
                setattr(self, name, getattr(self, name) + n)

    def stop(self):
        self.release.set()
        self.server.shutdown()
        self.server.server_close()


class Trace:
    """What one worker connects to. Look once it has ended."""

    def __init__(self, path, monkeypatch, proxy):
        self.path = path
        self.monkeypatch = monkeypatch
        self.proxy = proxy

    def start(self, start_worker, options, **more):
        """-D: strace is the daemon's grandchild and not its parent, so that signals and exit status are the daemon's own."""
        with self.monkeypatch.context() as m:
            m.setenv("GATHERD_WRAP", f"strace -D -f -q --seccomp-bpf -s 0 -e trace={CALLS} -o {self.path}")
            # A proxy of the environment would take every job past the guard.
            for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
                m.setenv(name, self.proxy)
            self.worker = start_worker(options, **more)
        return self.worker.wait_ready()

    def targets(self):
        """{(address, port)} of all that was connected or sent to. Whatever cannot be read is an error, never overlooked."""
        end = re.compile(rf"^{self.worker.pid} +\+\+\+ exited", re.MULTILINE)  # a short pid is filled up to five places
        proc.wait_until(lambda: end.search(self.path.read_text()), 20, "the trace's end")
        found = set()
        for line in self.path.read_text().splitlines():
            assert "io_uring" not in line, line
            assert "connect(" not in line or "sa_family=" in line, line
            matches = INET.findall(line)
            assert len(matches) == line.count("sa_family=") - len(NOT_OURS.findall(line)), line
            found |= {(address, int(port)) for port, address in matches}
        return found


@pytest.fixture
def listener():
    server = Listener()
    yield server
    server.stop()


@pytest.fixture
def other_listener():
    server = Listener()
    yield server
    server.stop()


@pytest.fixture
def trace(tmp_path, monkeypatch, listener):
    return Trace(tmp_path / "trace", monkeypatch, f"http://127.77.0.1:{listener.port}")


# --- the corpus ---

class Run:
    """One daemon with a group's settings; rows in, (row, result) out."""

    def __init__(self, topics, ports):
        self.topics = topics
        self.ports = ports
        self.reader = None
        self.asked = {}
        self.origin = f"http://origin.allowed.test:{ports['origin']}"

    def fill(self, text):
        for name, port in self.ports.items():
            text = text.replace("{%s}" % name, str(port))
        return text

    def url(self, row, status):
        """The job's URL: the target, or one that redirects there. /raw answers with the Location's very bytes."""
        target = self.fill(row.target)
        if row.way != "location":
            return target
        head = f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\nLocation: ".encode()
        return f"{self.origin}/raw?hex={(head + target.encode() + bytes.fromhex('0d0a0d0a')).hex()}"

    def send(self, rows, statuses=(302,)):
        """Sends the rows and waits for all results. The daemon is ready: so the topics are there, which a reader needs."""
        self.reader = self.reader or self.topics.reader()
        for row in rows:
            for status in statuses:
                job_id = f"{row.line}-{row.way}-{status}"
                self.asked[job_id] = row
                self.topics.produce(self.topics.job(job_id, self.url(row, status)))
        self.topics.flush()
        self.reader.until(len(self.asked))

    def wrong(self):
        """Each result that is not as its row says."""
        found = []
        for result in self.reader.results():
            row = self.asked[result.job_id]
            got = (self.topics.outcome(result), result.error.code or "-")
            if got != (row.outcome, row.code) or (row.outcome.startswith("BLOCKED") and result.error.retryable):
                found.append(f"{DATA.name}:{row.line}: {result.job_id} {row.target!r} ({row.source}): {got} instead of "
                             f"{row.outcome} {row.code} {result.error.message!r}")
        return found


def test_the_corpus_is_large_and_well_formed():
    assert len(ROWS) >= 200
    assert len({row[1:4] for row in ROWS}) == len(ROWS), "a row twice"
    assert {row.group for row in ROWS} == set(GROUPS)
    assert {row.way for row in ROWS} == {"url", "job", "location", "later"}
    assert all(row.source for row in ROWS)


@pytest.mark.parametrize("group", GROUPS)
def test_only_what_is_allowed_is_connected_to(group, broker, origin, name_server, listener, other_listener, topics, start_worker, trace):
    if group == "v6" and not HAS_V6:
        pytest.skip("no IPv6 on this machine")
    t = topics(broker.bootstrap)
    run = Run(t, {"port": listener.port, "origin": origin.port, "other": other_listener.port})
    settings, allowed = GROUPS[group]
    options = {"guard.allow": "", "dns.servers": "%s:%d" % name_server, "host.inflight": 64, "redirect.max": 3,
               **{k: run.fill(v) for k, v in settings.items()}}
    w = trace.start(start_worker, {**t.options(), **options})

    rows = [row for row in ROWS if row.group == group]
    run.send([row for row in rows if row.way != "later"])
    if group == "redirect":
        run.send([as_location(row) for row in ROWS if row.group == "default" and row.way == "url"], REDIRECTS)
    later = [row for row in rows if row.way == "later"]
    if later:
        time.sleep(DNS_TTL_MIN_S + 0.5)
        run.send(later)
    w.stop()
    assert not run.wrong(), "\n".join(run.wrong())

    own = {("127.0.0.1", broker.port), name_server}
    if any(row.way == "location" for row in rows):
        own.add(("127.0.0.1", origin.port))
    targets = trace.targets()
    assert own <= targets, "the trace does not show even what must be there"
    # Both ways: what the rows may connect to they do, and then the trace shows it. Where there is nothing, there is nothing.
    assert targets - own == {(address, listener.port) for address in allowed}
    assert bool(listener.connections) == bool(allowed) and other_listener.connections == 0
    # The redirecting server is allowed by name. A Location that has its address instead did not reach it either.
    assert origin.stats("/ok")["total"] == sum(row.outcome == "OK" and "{origin}/ok" in row.target for row in rows)


# --- a guard that changes ---

OPEN = "guard.allow = 127.0.0.0/8\n"
TIGHT = OPEN + "guard.deny = 127.0.0.1 127.8.0.1 *.denied.test\n"


def reload(w, config):
    n = w.read_log().count("settings reloaded")
    w.config.write_text(config)
    w.signal(signal.SIGHUP)
    proc.wait_until(lambda: w.read_log().count("settings reloaded") > n, 30, "the settings are reloaded", w.process)


def test_a_guard_that_is_tightened_holds_for_connections_that_are_there(broker, name_server, listener, topics, start_worker, trace):
    t = topics(broker.bootstrap)
    options = {**t.options(), "dns.servers": "%s:%d" % name_server, "host.inflight": 1}
    del options["guard.allow"]  # it is to come from the file
    w = trace.start(start_worker, options, config=OPEN)
    reader = t.reader()
    sent = []

    def send(*urls):
        for url in urls:
            sent.append(url)
            t.produce(t.job(str(len(sent)), url))
        t.flush()

    def outcomes():
        """By URL, of all that was sent; a URL has its last outcome."""
        reader.until(len(sent))
        return {r.result.url: t.outcome(r.result) for r in reader.records}

    # Denied later by address, by the address of a name, by name, and while a transfer is under way and another job waits for it.
    hosts = ["127.0.0.1", "keep.test", "ip-127-10-0-1.denied.test"]
    idle = [f"http://{host}:{listener.port}/idle" for host in hosts]
    again = [f"http://{host}:{listener.port}/again" for host in hosts]
    held, waiting = f"http://127.8.0.1:{listener.port}/hold", f"http://127.8.0.1:{listener.port}/waiting"
    send(*idle)
    assert outcomes() == dict.fromkeys(idle, "OK")
    send(held)
    proc.wait_until(lambda: listener.requests == 4, 30, "the held request is there")
    assert (listener.connections, listener.open) == (4, 4), "connections are kept"
    send(waiting)
    proc.wait_until(lambda: w.metric("gatherd_jobs_read_total") == 5, 30, "the job that waits is there", w.process)

    reload(w, TIGHT)
    proc.wait_until(lambda: listener.open == 1, 30, "idle connections are dropped")
    send(*again)
    reader.until(len(sent) - 2)
    listener.release.set()
    after = outcomes()
    assert [after[url] for url in again + [waiting]] == ["BLOCKED_ADDRESS"] * 4
    assert (listener.connections, listener.requests) == (4, 4), "a byte went to a denied address"

    reload(w, OPEN)
    send(*[url + "?open" for url in again])
    assert [outcomes()[url + "?open"] for url in again] == ["OK"] * 3, "it is the guard that blocked"
    assert (listener.connections, listener.requests) == (7, 7)
    w.stop()
    fetched = {(address, listener.port) for address in ("127.0.0.1", "127.8.0.1", "127.10.0.1")}
    assert trace.targets() == {("127.0.0.1", broker.port), name_server} | fetched
