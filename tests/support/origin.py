#!/usr/bin/env python3
"""A test origin on asyncio: every way a server can answer, and count of how it was asked. Standard library only.

    python3 origin.py --port-file F [--port N]

/ok                      200 "ok"
/delay/MS                answers after MS milliseconds
/status/CODE             that status; ?header=Name:value (repeated) adds headers
/bytes/N                 N bytes
/echo                    the request line, headers and body as JSON
/redirect/N              302 to /redirect/N-1 ... /ok
/redirect-to?url=U       302 to U; ?status= changes the 302
/gzip/N                  N zero bytes, gzip coded
/hang                    never answers
/trickle?ms=M&n=N        N bytes, one each M milliseconds; declared
/reset?after=N           declares more, sends N bytes, then RST
/short                   declares 100 bytes, sends 10, closes
/headers?n=N&size=S      N header lines of S bytes
/flaky/KEY?fail=N&status=503   the first N requests of KEY get that status (0 = RST), then 200
/etag                    "v1"; 304 when the request says so
/raw?hex=...             these bytes as they are, then closes
/_stats, /_reset         counters per first path segment, as JSON; reset

Counted under "/delay" and so on, and all together under "*": now and peak (requests under way), total, and starts by second.
"""

import argparse
import asyncio
import gzip
import json
import os
import signal
import socket
import struct
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent))
import proc  # noqa: E402

MAX_REQUEST = 16 << 20


class Counter:
    """How one path prefix was asked."""

    def __init__(self):
        self.now = self.peak = self.total = 0
        self.seconds = {}

    def enter(self):
        self.total += 1
        self.now += 1
        self.peak = max(self.peak, self.now)
        second = int(time.time())
        self.seconds[second] = self.seconds.get(second, 0) + 1

    def leave(self):
        self.now -= 1

    def view(self):
        return {"now": self.now, "peak": self.peak, "total": self.total, "starts": self.seconds}


class Stats:
    """All counters, and what /flaky remembers."""

    def __init__(self):
        self.reset()

    def reset(self):
        # Requests under way leave the counters that they entered, so the old ones may simply be forgotten.
        self.counters = {}
        self.flaky = {}

    def enter(self, segment):
        entered = [self.counters.setdefault(key, Counter()) for key in ("/" + segment, "*")]
        for c in entered:
            c.enter()
        return entered

    def view(self):
        return {k: c.view() for k, c in self.counters.items()}


class Request:
    """One parsed request."""

    def __init__(self, head, body):
        line, *rest = head.decode("latin-1").split("\r\n")
        self.line = line
        self.method, self.target = (line.split(" ") + ["", ""])[:2]
        self.headers = [tuple(h.split(":", 1)) for h in rest if ":" in h]
        self.body = body
        parts = urlsplit(self.target)
        self.path = [unquote(p) for p in parts.path.split("/")[1:]]
        self.query = parse_qs(parts.query)

    def header(self, name):
        for k, v in self.headers:
            if k.lower() == name:
                return v.strip()
        return ""

    def arg(self, name, default):
        return self.query.get(name, [default])[0]

    def number(self, i, default=0):
        """The i-th path segment as a number."""
        return int(self.path[i]) if len(self.path) > i and self.path[i].isdigit() else default


def answer(status, body=b"", headers=(), length=None):
    """Bytes of a whole answer; length declares another one than the truth."""
    lines = [f"HTTP/1.1 {status} {'OK' if status == 200 else 'X'}"]
    lines += [f"{k}: {v}" for k, v in headers]
    if status not in (204, 304) and status >= 200:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    if not any(k.lower() == "content-type" for k, _ in headers):
        lines.append("Content-Type: text/plain")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class Connection(asyncio.Protocol):
    """One keep-alive connection: requests are answered one after the other."""

    def __init__(self, stats, connections):
        self.stats = stats
        self.connections = connections
        self.buffer = bytearray()
        self.task = None
        self.entered = []

    def connection_made(self, transport):
        self.transport = transport
        self.connections.add(self)

    def connection_lost(self, exc):
        self.connections.discard(self)
        if self.task:
            self.task.cancel()
        self.leave()

    def leave(self):
        for c in self.entered:
            c.leave()
        self.entered = []

    def data_received(self, data):
        self.buffer += data
        self.serve()

    def serve(self):
        """Starts on the next request once it is whole."""
        while self.task is None and not self.transport.is_closing():
            request = self.next_request()
            if request is None:
                return
            self.entered = self.stats.enter(request.path[0]) if not request.path[0].startswith("_") else []
            handler = HANDLERS.get(request.path[0], not_found)
            done = handler(self, request)
            if done is None:  # answered already
                self.finish(request)
            else:
                self.task = asyncio.ensure_future(self.finish_later(done, request))

    def next_request(self):
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self.buffer) > MAX_REQUEST:
                self.transport.abort()
            return None
        head = Request(bytes(self.buffer[:end]), b"")
        length = int(head.header("content-length") or 0)
        if length > MAX_REQUEST:
            self.transport.abort()
            return None
        if len(self.buffer) < end + 4 + length:
            if head.header("expect") == "100-continue" and len(self.buffer) == end + 4:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return None
        head.body = bytes(self.buffer[end + 4:end + 4 + length])
        del self.buffer[:end + 4 + length]
        return head

    async def finish_later(self, done, request):
        await done
        self.task = None
        self.finish(request)
        self.serve()

    def finish(self, request):
        self.leave()
        if request.header("connection").lower() == "close":
            self.transport.close()

    def send(self, request, status, body=b"", headers=()):
        whole = answer(status, body, headers)
        self.transport.write(whole if request.method != "HEAD" else whole[:whole.index(b"\r\n\r\n") + 4])

    def reset(self):
        """Closes with RST instead of FIN."""
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


def ok(conn, request):
    conn.send(request, 200, b"ok\n")


def not_found(conn, request):
    conn.send(request, 404, b"no such path\n")


async def delay(conn, request):
    await asyncio.sleep(request.number(1) / 1000)
    conn.send(request, 200, b"ok\n")


def status(conn, request):
    headers = [tuple(h.split(":", 1)) for h in request.query.get("header", [])]
    conn.send(request, request.number(1, 200), b"status\n" if request.number(1) not in (204, 304) else b"", headers)


def sized(conn, request):
    conn.send(request, 200, b"b" * request.number(1), [("Content-Type", "application/octet-stream")])


def echo(conn, request):
    view = {"line": request.line, "headers": request.headers, "body": request.body.decode("latin-1")}
    conn.send(request, 200, json.dumps(view).encode(), [("Content-Type", "application/json")])


def redirect(conn, request):
    n = request.number(1)
    conn.send(request, 302, b"", [("Location", f"/redirect/{n - 1}" if n > 1 else "/ok")])


def redirect_to(conn, request):
    conn.send(request, int(request.arg("status", "302")), b"", [("Location", request.arg("url", "/ok"))])


def gzipped(conn, request):
    conn.send(request, 200, gzip.compress(bytes(request.number(1)), mtime=0), [("Content-Encoding", "gzip")])


async def hang(conn, request):
    await asyncio.Event().wait()


async def trickle(conn, request):
    n, ms = int(request.arg("n", "10")), int(request.arg("ms", "100"))
    conn.transport.write(answer(200, b"", length=n))
    for _ in range(n):
        conn.transport.write(b"t")
        await asyncio.sleep(ms / 1000)


async def reset(conn, request):
    n = int(request.arg("after", "0"))
    if n:
        conn.transport.write(answer(200, b"r" * n, length=n + 1000))
        await asyncio.sleep(0.05)  # a RST overtakes what is not yet read
    conn.reset()


def short(conn, request):
    conn.transport.write(answer(200, b"s" * 10, length=100))
    conn.transport.close()


def many_headers(conn, request):
    n, size = int(request.arg("n", "100")), int(request.arg("size", "100"))
    conn.send(request, 200, b"ok\n", [(f"X-Filler-{i}", "h" * size) for i in range(n)])


def flaky(conn, request):
    key = request.path[1] if len(request.path) > 1 else ""
    seen = conn.stats.flaky[key] = conn.stats.flaky.get(key, 0) + 1
    if seen > int(request.arg("fail", "1")):
        conn.send(request, 200, b"ok\n")
    elif int(request.arg("status", "503")):
        conn.send(request, int(request.arg("status", "503")), b"not yet\n")
    else:
        conn.reset()


def etag(conn, request):
    headers = [("ETag", '"v1"'), ("Last-Modified", "Mon, 02 Nov 2026 10:00:00 GMT")]
    if request.header("if-none-match") == '"v1"' or request.header("if-modified-since") == headers[1][1]:
        conn.send(request, 304, b"", headers)
    else:
        conn.send(request, 200, b"v1\n", headers)


def raw(conn, request):
    conn.transport.write(bytes.fromhex(request.arg("hex", "")))
    conn.transport.close()


def stats_view(conn, request):
    conn.send(request, 200, json.dumps(conn.stats.view()).encode(), [("Content-Type", "application/json")])


def stats_reset(conn, request):
    conn.stats.reset()
    conn.send(request, 200, b"reset\n")


HANDLERS = {
    "ok": ok, "delay": delay, "status": status, "bytes": sized, "echo": echo, "redirect": redirect, "redirect-to": redirect_to,
    "gzip": gzipped, "hang": hang, "trickle": trickle, "reset": reset, "short": short, "headers": many_headers, "flaky": flaky,
    "etag": etag, "raw": raw, "_stats": stats_view, "_reset": stats_reset,
}


async def serve(port, port_file):
    stats, connections = Stats(), set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(stats, connections), "127.0.0.1", port, backlog=4096)
    done = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, done.set)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    Path(f"{port_file}.tmp").write_text(address + "\n")
    os.replace(f"{port_file}.tmp", port_file)
    await done.wait()
    server.close()
    for conn in list(connections):
        conn.transport.abort()


class Origin:
    """The origin as a process of its own, for a test."""

    def __init__(self, dir):
        self.dir = Path(dir)
        self.process = None

    def start(self):
        self.dir.mkdir(parents=True, exist_ok=True)
        port_file = self.dir / "origin.port"
        self.port = proc.free_port()
        argv = [sys.executable, Path(__file__).resolve(), "--port", self.port, "--port-file", port_file]
        self.process = proc.spawn(argv, self.dir / "origin.log")
        proc.wait_until(port_file.exists, 20, "the origin listens", self.process)
        return self

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=10) as r:
            return r.read()

    def stats(self, prefix="*"):
        """{now, peak, total, starts} of a path prefix."""
        none = {"now": 0, "peak": 0, "total": 0, "starts": {}}
        return json.loads(self.get("/_stats")).get(prefix, none)

    def reset(self):
        self.get("/_reset")

    def stop(self):
        if self.process:
            proc.stop(self.process, 5)


def main():
    parser = argparse.ArgumentParser(description="A test HTTP origin.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", required=True, help="written with HOST:PORT once it listens")
    args = parser.parse_args()
    asyncio.run(serve(args.port, args.port_file))


if __name__ == "__main__":
    main()
