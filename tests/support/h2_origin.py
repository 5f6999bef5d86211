#!/usr/bin/env python3
"""An HTTPS origin that speaks HTTP/2 (python-hyper/h2), well or badly, and HTTP/1.1 when that is all that is asked for.

    python3 h2_origin.py --port-file F --cert PEM --key PEM

/ok              200 "ok"                       /delay/MS      after MS milliseconds
/bytes/N         N bytes                        /endless       bytes without end
/rst/CODE        RST_STREAM instead of an answer, with that error code
/cut             half a body, then RST_STREAM   /hang          never answers
/goaway          GOAWAY with this request as the last one; all answers so far, then the connection closes
/drop/KEY        the first request of KEY: GOAWAY that says it was not processed; then as /ok
/close/KEY       the first request of KEY: the connection closes without a word; then as /ok
/headers/N       N header lines of 100 bytes
/_stats          JSON: connections (made), h1, streams (opened), peak (streams of one connection at once)
"""

import argparse
import asyncio
import json
import os
import signal
import ssl
import sys
from pathlib import Path

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, RequestReceived, StreamReset, WindowUpdated
from h2.exceptions import ProtocolError

stats = {"connections": 0, "h1": 0, "streams": 0, "peak": 0}
seen = set()


class Connection:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8", validate_outbound_headers=False))
        self.room = asyncio.Event()
        self.open = {}
        self.stuck = set()  # never answered

    def send(self):
        self.writer.write(self.h2.data_to_send())

    async def run(self):
        self.h2.initiate_connection()
        self.send()
        while data := await self.reader.read(65536):
            for event in self.h2.receive_data(data):
                if isinstance(event, RequestReceived):
                    path = dict(event.headers)[":path"]
                    stats["streams"] += 1
                    task = asyncio.ensure_future(self.answer(event.stream_id, path))
                    self.open[event.stream_id] = task
                    task.add_done_callback(lambda _, id=event.stream_id: self.open.pop(id, None))
                    stats["peak"] = max(stats["peak"], len(self.open))
                elif isinstance(event, WindowUpdated):
                    self.room.set()
                elif isinstance(event, StreamReset) and event.stream_id in self.open:
                    self.open[event.stream_id].cancel()
                elif isinstance(event, ConnectionTerminated):
                    return
            self.send()

    async def answer(self, id, path):
        try:
            what, *args = path.strip("/").split("/")
            await getattr(self, f"do_{what.strip('_')}")(id, *args)
        except (ProtocolError, ConnectionError):
            pass  # the peer went first
        except (AttributeError, TypeError, ValueError):
            self.reply(id, b"?", 404)

    def reply(self, id, body, status=200, extra=(), end=True):
        self.h2.send_headers(id, [(":status", str(status)), ("content-length", str(len(body))), *extra])
        self.h2.send_data(id, body, end_stream=end)
        self.send()

    async def do_ok(self, id):
        self.reply(id, b"ok")

    async def do_stats(self, id):
        self.reply(id, json.dumps(stats).encode())

    async def do_delay(self, id, ms):
        await asyncio.sleep(int(ms) / 1000)
        self.reply(id, b"ok")

    async def do_hang(self, id):
        self.stuck.add(id)
        await asyncio.sleep(3600)

    async def do_headers(self, id, n):
        self.reply(id, b"ok", extra=[(f"x-{i}", "h" * 92) for i in range(int(n))])

    async def stream(self, id, n):
        while n > 0:
            part = min(n, self.h2.local_flow_control_window(id), self.h2.max_outbound_frame_size)
            if part == 0:
                self.room.clear()
                await self.room.wait()
                continue
            n -= part
            self.h2.send_data(id, b"b" * part, end_stream=n == 0)
            self.send()
            await self.writer.drain()

    async def do_bytes(self, id, n):
        self.h2.send_headers(id, [(":status", "200"), ("content-length", n)])
        await self.stream(id, int(n))

    async def do_endless(self, id):
        self.stuck.add(id)
        self.h2.send_headers(id, [(":status", "200")])
        await self.stream(id, 1 << 40)

    async def do_rst(self, id, code):
        self.h2.reset_stream(id, ErrorCodes(int(code)))
        self.send()

    async def do_cut(self, id):
        self.h2.send_headers(id, [(":status", "200"), ("content-length", "100")])
        self.h2.send_data(id, b"c" * 50)
        self.send()
        await asyncio.sleep(0.1)  # what comes with an RST_STREAM may be thrown away
        self.h2.reset_stream(id, ErrorCodes.INTERNAL_ERROR)
        self.send()

    async def do_goaway(self, id):
        """As nginx after keepalive_requests: what was asked so far is answered, and then the connection closes."""
        await self.go_away(id)
        self.reply(id, b"ok")
        self.writer.close()

    async def do_drop(self, id, key):
        if key in seen:
            return self.reply(id, b"ok")
        seen.add(key)
        await self.go_away(id - 2)
        self.writer.close()

    async def go_away(self, last_id):
        # Not by h2, which would refuse to answer what is open (RFC 9113, 6.8).
        self.send()
        self.writer.write(b"\0\0\x08\x07\0\0\0\0\0" + last_id.to_bytes(4, "big") + b"\0\0\0\0")
        while any(i < last_id and i not in self.stuck for i in self.open):
            await asyncio.sleep(0.01)

    async def do_close(self, id, key):
        if key in seen:
            return self.reply(id, b"ok")
        seen.add(key)
        self.writer.transport.abort()


async def on_connection(reader, writer):
    stats["connections"] += 1
    try:
        if writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2":
            await Connection(reader, writer).run()
            return
        while (await reader.readuntil(b"\r\n\r\n")):
            stats["h1"] += 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, ProtocolError):
        pass
    finally:
        writer.close()


async def main():
    args = argparse.ArgumentParser()
    for name in ("--port-file", "--cert", "--key"):
        args.add_argument(name, required=True)
    args.add_argument("--h1", action="store_true", help="no ALPN: HTTP/1.1 only")
    args = args.parse_args()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(args.cert, args.key)
    if not args.h1:
        tls.set_alpn_protocols(["h2", "http/1.1"])
    server = await asyncio.start_server(on_connection, "127.0.0.1", 0, ssl=tls, backlog=1024)
    done = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, done.set)
    part = Path(f"{args.port_file}.part")
    part.write_text(str(server.sockets[0].getsockname()[1]))
    os.rename(part, args.port_file)
    await done.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
