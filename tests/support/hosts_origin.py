"""An origin with any number of hosts on one port, in a thread of the test: it keeps a log of who asked for what and when.

    origin = HostsOrigin(lambda ask: ask.answer(200))

The function is called in the origin's thread for each request; what it returns is the answer: `Answer`, or None to be silent for
ever. It listens on every address of 127.0.0.0/8, so that any name that is an address of it is a host.
"""

import asyncio
import threading
import time
from collections import namedtuple

Answer = namedtuple("Answer", "status body headers delay_s", defaults=(b"ok\n", (), 0))
# at: time.monotonic(); n: how many requests its host and path had before.
Ask = namedtuple("Ask", "at host method path n")


class HostsOrigin:
    def __init__(self, behave):
        self.behave = behave
        self.asks = []
        self.now, self.peak = {}, {}
        self.counts = {}
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self.thread.start()
        assert started.wait(20), "the origin listens"

    def _run(self, started):
        async def listen():
            self.server = await self.loop.create_server(lambda: Connection(self), "0.0.0.0", 0, backlog=4096)
            self.port = self.server.sockets[0].getsockname()[1]
            started.set()

        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(listen())
        self.loop.run_forever()

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    def url(self, name, path="/"):
        return f"http://{name}:{self.port}{path}"

    def of(self, host, path=None):
        """Its asks, oldest first; host without the port."""
        return [a for a in list(self.asks) if a.host == host and (path is None or a.path == path)]

    def enter(self, method, path, host):
        key = (host, path)
        n = self.counts.get(key, 0)
        self.counts[key] = n + 1
        self.now[host] = self.now.get(host, 0) + 1
        self.peak[host] = max(self.peak.get(host, 0), self.now[host])
        ask = Ask(time.monotonic(), host, method, path, n)
        self.asks.append(ask)
        return self.behave(ask)

    def leave(self, host):
        self.now[host] -= 1


class Connection(asyncio.Protocol):
    def __init__(self, origin):
        self.origin = origin
        self.buffer = b""
        self.host = None  # of the request under way

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, exc):
        self.leave()

    def leave(self):
        if self.host:
            self.origin.leave(self.host)
            self.host = None

    def data_received(self, data):
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        lines = self.buffer[:end].decode("latin-1").split("\r\n")
        self.buffer = self.buffer[end + 4:]
        method, path, _ = lines[0].split(" ")
        host = next(ln[5:].strip() for ln in lines if ln.lower().startswith("host:")).rsplit(":", 1)[0]
        self.host = host
        answer = self.origin.enter(method, path, host)
        if answer is None:
            return
        if answer.delay_s:
            self.origin.loop.call_later(answer.delay_s, self.send, answer)
        else:
            self.send(answer)

    def send(self, answer):
        if self.transport.is_closing():
            return
        head = f"HTTP/1.1 {answer.status} X\r\nContent-Length: {len(answer.body)}\r\nContent-Type: text/plain\r\n"
        head += "".join(f"{k}: {v}\r\n" for k, v in answer.headers)
        self.leave()
        self.transport.write(head.encode() + b"\r\n" + answer.body)
