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
/loop/N                  302 in a circle of N
/method                  200 with the request's method in X-Method
/gzip/N                  N zero bytes, gzip coded
/hang                    never answers
/trickle?ms=M&n=N        N bytes, one each M milliseconds; declared
/reset?after=N           declares more, sends N bytes, then RST
/short                   declares 100 bytes, sends 10, closes
/headers?n=N&size=S      N header lines of S bytes
/flaky/KEY?fail=N&status=503   the first N requests of KEY get that status (0 = RST), then 200
/etag                    "v1"; 304 when the request says so
/close                   200 "ok", Connection: close
/raw?hex=...&end=E       these bytes as they are, then E: close (default), reset (RST a second later, so that what was sent can be
                         read before it), stay (as if it were answered), hang, or abort (closes without TLS's close_notify)
/endless/KIND            never ends: headers (lines), header (one line), informational (103s), body (no length), declared
                         (10 GiB), chunks, extension (of a chunk), trailers
/coded/CODING?gb=N&noise=B&window=W   N (10) GiB of zeros in gzip, br or zstd, made as they are sent, B bytes of noise before
                         each 128 KiB; W (17, zstd only) is the window's logarithm that the stream asks for
/lukewarm                zstd that stays at 200 times its wire without an end, in writes of a few hundred bytes
/endless and /coded with &together=N: nothing is sent before N requests came since the last reset
/_stats, /_reset         counters per first path segment, as JSON; reset

Counted under "/delay" and so on, and all together under "*": now and peak (requests under way), total, and starts by
second; under "tls" the finished handshakes. --tls NAME=PEM (repeated) listens on a port with that key and certificate,
--silent on one that accepts and never says a word, --extra on a second plain one: another origin.
"""

import argparse
import asyncio
import gzip
import itertools
import json
import os
import random
import signal
import socket
import ssl
import struct
import sys
import time
import urllib.request
import zlib
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent))
import proc  # noqa: E402

MAX_REQUEST = 16 << 20
RUN = 128 << 10  # zeros per piece of a coded body: the most that one block of zstd can hold


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
        keys = ("tls",) if segment == "tls" else ("/" + segment, "*")
        entered = [self.counters.setdefault(key, Counter()) for key in keys]
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
        self.may_write = asyncio.Event()
        self.may_write.set()

    def connection_made(self, transport):
        self.transport = transport
        self.connections.add(self)
        if transport.get_extra_info("ssl_object"):
            self.stats.enter("tls")

    def pause_writing(self):
        self.may_write.clear()

    def resume_writing(self):
        self.may_write.set()

    async def pump(self, request, pieces):
        """Sends pieces one after the other, as fast as they are read."""
        while self.stats.counters["*"].total < int(request.arg("together", "0")):
            await asyncio.sleep(0.02)
        for piece in pieces:
            self.transport.write(piece)
            await self.may_write.wait()
            await asyncio.sleep(0)  # a fast reader must not keep the others waiting

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
        if not self.buffer[:1].isalpha():  # somebody speaks TLS to a plain port
            self.transport.write(answer(400, b"this is HTTP\n"))
            self.transport.close()
            return
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


def loop(conn, request):
    n, i = request.number(1, 1), request.number(2)
    conn.send(request, 302, b"", [("Location", f"/loop/{n}/{(i + 1) % n}" if (i + 1) % n else f"/loop/{n}")])


def method(conn, request):
    conn.send(request, 200, b"ok\n", [("X-Method", request.method)])


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


def close(conn, request):
    conn.send(request, 200, b"ok\n", [("Connection", "close")])
    conn.transport.close()


async def raw(conn, request):
    conn.transport.write(bytes.fromhex(request.arg("hex", "")))
    end = request.arg("end", "close")
    if end == "reset":
        await asyncio.sleep(1)
        conn.reset()
    elif end == "hang":
        await asyncio.Event().wait()
    elif end == "abort":
        conn.transport.abort()
    elif end == "close":
        conn.transport.close()


# --- streams without an end ---

def repeat(head, piece):
    yield head
    while True:
        yield piece


def endless_headers():
    yield b"HTTP/1.1 200 OK\r\n"
    for i in itertools.count():
        yield f"X-Filler-{i}: {'h' * 1000}\r\n".encode()


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "headers": endless_headers,
    "header": lambda: repeat(b"HTTP/1.1 200 OK\r\nX-Long: ", b"h" * 4096),
    "informational": lambda: repeat(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"),
    "body": lambda: repeat(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n", b"b" * 16384),
    "declared": lambda: repeat(answer(200, length=10 << 30), b"b" * 16384),
    "chunks": lambda: repeat(CHUNKED, b"4000\r\n" + b"c" * 0x4000 + b"\r\n"),
    "extension": lambda: repeat(CHUNKED + b"4;x=", b"x" * 4096),
    "trailers": lambda: repeat(CHUNKED + b"2\r\nok\r\n0\r\n", b"X-Trailer: " + b"t" * 1000 + b"\r\n"),
}


def endless(conn, request):
    return conn.pump(request, ENDLESS[request.path[1]]())


# --- coded bodies, written by hand where the standard library has no coder ---

class Bits:
    """Bytes filled from their lowest bit, as brotli has them."""

    def __init__(self):
        self.value = self.n = 0

    def add(self, value, n):
        self.value |= value << self.n
        self.n += n

    def take(self):
        """The whole bytes so far."""
        whole = self.n // 8
        out = (self.value & ((1 << whole * 8) - 1)).to_bytes(whole, "little")
        self.value >>= whole * 8
        self.n -= whole * 8
        return out


def gzip_stream(n, noise, window):
    """Each piece stands alone (full flush), so it can be sent again and again."""
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = coder.compress(noise + bytes(RUN)) + coder.flush(zlib.Z_FULL_FLUSH)
    yield b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    for _ in range(n):
        yield piece
    yield b"\x03\0" + bytes(8)  # the checksum is not worth counting over 10 GiB


def brotli_stream(n, noise, window):
    """RFC 7932: the noise as it is, then one literal 0 and a copy of it from distance 1."""
    bits = Bits()
    bits.add(0, 1)  # a window of 64 KiB
    for _ in range(n):
        if noise:
            bits.add(0, 1)  # not the last
            bits.add(0, 2)  # 4 nibbles of length
            bits.add(len(noise) - 1, 16)
            bits.add(1, 1)  # uncompressed
            bits.add(0, -bits.n % 8)
            yield bits.take() + noise
        bits.add(0, 1)
        bits.add(1, 2)  # 5 nibbles of length
        bits.add(RUN - 1, 20)
        bits.add(0, 1)  # compressed
        bits.add(0, 3)  # one type of literals, commands, distances
        bits.add(0, 6)  # no postfix, no direct distances
        bits.add(0, 2)  # context mode
        bits.add(0, 2)  # one tree of literals, one of distances
        # Prefix codes of one symbol, which then takes no bits: literal 0, command "insert 1, copy 2118 and more", distance 16.
        for symbol, width in ((0, 8), (384 + (1 << 3) + 7, 10), (16, 6)):
            bits.add(1, 2)
            bits.add(0, 2)
            bits.add(symbol, width)
        bits.add(RUN - 1 - 2118, 24)
        bits.add(0, 1)  # of the two distances that code 16 stands for, 1
        yield bits.take()
    bits.add(3, 2)  # the last one, and empty
    bits.add(0, -bits.n % 8)
    yield bits.take()


def zstd_stream(n, noise, window):
    """RFC 8878: one frame, its blocks raw (type 0) and RLE (type 1)."""
    def block(kind, size, data, is_last=0):
        return (is_last | kind << 1 | size << 3).to_bytes(3, "little") + data

    yield b"\x28\xb5\x2f\xfd\0" + bytes([(window - 10) << 3])
    piece = (block(0, len(noise), noise) if noise else b"") + block(1, RUN, b"\0")
    for _ in range(n):
        yield piece
    yield block(0, 0, b"", is_last=1)


async def lukewarm(conn, request):
    def block(kind, size, data):
        return (kind << 1 | size << 3).to_bytes(3, "little") + data

    def piece(n):
        return block(0, n, noise[:n]) + block(1, RUN, b"\0")

    noise = random.Random(1).randbytes(1000)
    conn.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: zstd\r\nConnection: close\r\n\r\n")
    # A first leap of 1.5 MiB, less than is certainly a bomb; from there on (RUN + n) / (n + 7), in turns over and under 200.
    conn.transport.write(b"\x28\xb5\x2f\xfd\0" + bytes([17 << 3]) + block(1, RUN, b"\0") * 12)
    await asyncio.sleep(0.3)
    for n in itertools.cycle((651, 652, 652, 651, 652)):
        conn.transport.write(piece(n))
        await conn.may_write.wait()
        await asyncio.sleep(0.002)


CODINGS = {"gzip": gzip_stream, "br": brotli_stream, "zstd": zstd_stream}


def coded(conn, request):
    coding = request.path[1]
    noise = random.Random(1).randbytes(int(request.arg("noise", "0")))
    n = int(float(request.arg("gb", "10")) * (1 << 30)) // RUN
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: {coding}\r\nConnection: close\r\n\r\n"
    pieces = CODINGS[coding](n, noise, int(request.arg("window", "17")))

    async def send():
        await conn.pump(request, itertools.chain([head.encode()], pieces))
        conn.transport.close()

    return send()


def stats_view(conn, request):
    conn.send(request, 200, json.dumps(conn.stats.view()).encode(), [("Content-Type", "application/json")])


def stats_reset(conn, request):
    conn.stats.reset()
    conn.send(request, 200, b"reset\n")


HANDLERS = {
    "ok": ok, "delay": delay, "status": status, "bytes": sized, "echo": echo, "redirect": redirect, "redirect-to": redirect_to,
    "loop": loop, "method": method,
    "gzip": gzipped, "hang": hang, "trickle": trickle, "reset": reset, "short": short, "headers": many_headers, "flaky": flaky,
    "etag": etag, "close": close, "raw": raw, "endless": endless, "coded": coded,
    "lukewarm": lukewarm, "_stats": stats_view, "_reset": stats_reset,
}


def tls_context(pem):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


async def serve(args):
    """The port file: HOST:PORT of the origin, then a line "NAME PORT" for each further listener."""
    stats, connections, servers, lines = Stats(), set(), [], []
    loop = asyncio.get_running_loop()

    async def listen(name, port, protocol, tls=None):
        server = await loop.create_server(protocol, "127.0.0.1", port, backlog=4096, ssl=tls)
        servers.append(server)
        found = server.sockets[0].getsockname()[1]
        lines.append(f"{name} {found}" if name else f"127.0.0.1:{found}")

    def connection():
        return Connection(stats, connections)

    await listen("", args.port, connection)
    for name, _, pem in (t.partition("=") for t in args.tls):
        await listen(name, 0, connection, tls_context(pem))
    if args.silent:
        await listen("silent", 0, asyncio.Protocol)
    if args.extra:
        await listen("extra", 0, connection)
    done = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, done.set)
    Path(f"{args.port_file}.tmp").write_text("\n".join(lines) + "\n")
    os.replace(f"{args.port_file}.tmp", args.port_file)
    await done.wait()
    for server in servers:
        server.close()
    for conn in list(connections):
        conn.transport.abort()


class Origin:
    """The origin as a process of its own, for a test. tls: {name: PEM file}, each on a port of its own; with `more`, a
    silent and an extra plain port, too. `ports` has them by name."""

    def __init__(self, dir, tls=None, more=False):
        self.dir = Path(dir)
        self.tls = tls or {}
        self.more = more
        self.process = None
        self.ports = {}

    def start(self):
        self.dir.mkdir(parents=True, exist_ok=True)
        port_file = self.dir / "origin.port"
        self.port = proc.free_port()
        argv = [sys.executable, Path(__file__).resolve(), "--port", self.port, "--port-file", port_file]
        argv += [a for name, pem in self.tls.items() for a in ("--tls", f"{name}={pem}")]
        argv += ["--silent", "--extra"] if self.more else []
        self.process = proc.spawn(argv, self.dir / "origin.log")
        proc.wait_until(port_file.exists, 20, "the origin listens", self.process)
        further = (line.split() for line in port_file.read_text().splitlines()[1:])
        self.ports = {name: int(port) for name, port in further}
        return self

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def url_of(self, name):
        """The root of a further listener."""
        return f"http{'s' if name in self.tls else ''}://127.0.0.1:{self.ports[name]}"

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
    parser.add_argument("--tls", action="append", default=[], metavar="NAME=PEM")
    parser.add_argument("--silent", action="store_true")
    parser.add_argument("--extra", action="store_true")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
