#!/usr/bin/env python3
"""A small DNS server of the tests' own: UDP and TCP on one free loopback port. Standard library only.

    python3 dns.py --port-file F [--port N] [--log F]

What it answers is in the name. Each label may be a rule; they go together: slow-300.ip-10-0-0-1.test. No rule: A 127.0.0.1.

ip-127-0-0-1   that A (several: all of them)      v6-2001-db8--1   that AAAA
many-N         N addresses 127.0.1.1, 127.0.1.2 ...
rebind         the addresses one at a time, in turns; without any, 93.184.216.34 and 127.0.0.1
ttl-N          seconds; 60 without                nodata      the name exists and has no address
nx             NXDOMAIN                           servfail, refused
dead           never answers                      slow-MS     answers after MS milliseconds
dead-after-N, servfail-after-N, nx-after-N    the first N questions for this name and type are answered as usual
servfail-first                                the first one is not, the next are
cname-N        N CNAMEs, then the address         loop        CNAMEs in a circle
tc             truncated over UDP, whole over TCP wrongid     first a forged answer (203.0.113.66) with another id, then the true one
nx, servfail, refused, dead, nodata and slow take a 4 or 6 after the word: for A or AAAA only (dead6, slow6-300).

With --log, one line per question: "udp A name". With --stdin it ends when its standard input does, so that it cannot outlive
the test that holds the other end.
"""

import argparse
import asyncio
import ipaddress
import os
import re
import signal
import struct
import sys
from collections import Counter

A, CNAME, AAAA = 1, 5, 28
NXDOMAIN, SERVFAIL, REFUSED = 3, 2, 5
TYPES = {A: "A", AAAA: "AAAA"}


class Question:
    """The one question of a message, and what its name asks for."""

    def __init__(self, message):
        self.id, flags, count = struct.unpack("!HHH", message[:6])
        if flags & 0x8000 or count != 1:
            raise ValueError("not a question")
        labels, at = [], 12
        while message[at]:
            labels.append(message[at + 1:at + 1 + message[at]].decode("latin-1"))
            at += 1 + message[at]
        self.type, _ = struct.unpack("!HH", message[at + 1:at + 5])
        self.raw = message[12:at + 5]  # sent back as it came, upper and lower case too
        self.name = ".".join(labels).lower()
        self.labels = self.name.split(".")

    def rule(self, word):
        """The number of WORD-N (0 without one) when a label says so, also as WORD4 or WORD6 for this type; else None."""
        family = {A: "4", AAAA: "6"}.get(self.type, "")
        for label in self.labels:
            match = re.fullmatch(rf"{word}[{family}]?(?:-(\d+))?", label) if family else None
            if match:
                return int(match[1] or 0)
        return None

    def has(self, word):
        return self.rule(word) is not None

    def addresses(self):
        found = [label[3:].replace("-", "." if label[0] == "i" else ":") for label in self.labels
                 if re.match(r"ip-\d|v6-[0-9a-f-]", label)]
        found += [f"127.0.{1 + i // 250}.{1 + i % 250}" for i in range(self.rule("many") or 0)]
        if not found:
            found = ["93.184.216.34", "127.0.0.1"] if self.has("rebind") else ["127.0.0.1"]
        version = 4 if self.type == A else 6
        return [a for a in map(ipaddress.ip_address, found) if a.version == version]


def wire_name(name):
    return b"".join(bytes([len(label)]) + label.encode("latin-1") for label in name.split(".")) + b"\0"


def record(owner, kind, ttl, data):
    return owner + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


class Server:
    def __init__(self, log):
        self.log = log
        self.asked = Counter()

    def records(self, q):
        """The answer section: the CNAMEs, then the addresses of their end."""
        ttl = 60 if q.rule("ttl") is None else q.rule("ttl")
        owner, out = b"\xc0\x0c", []
        if q.has("loop"):
            other = wire_name("b." + q.name)
            return [record(owner, CNAME, ttl, other), record(other, CNAME, ttl, b"\xc0\x0c")]
        for i in range(q.rule("cname") or 0):
            target = wire_name(f"c{i}." + q.labels[-1])
            out.append(record(owner, CNAME, ttl, target))
            owner = target
        addresses = [] if q.has("nodata") else q.addresses()
        if q.has("rebind") and addresses:
            addresses = [addresses[(self.asked[q.name, q.type] - 1) % len(addresses)]]
        return out + [record(owner, q.type, ttl, a.packed) for a in addresses]

    def code(self, q):
        for word, code in (("nx", NXDOMAIN), ("servfail", SERVFAIL), ("refused", REFUSED)):
            if q.has(word) or self.is_after(q, word):
                return code
        return SERVFAIL if q.has("servfail-first") and self.asked[q.name, q.type] == 1 else 0

    def is_silent(self, q):
        return q.has("dead") or self.is_after(q, "dead")

    def is_after(self, q, word):
        n = q.rule(word + "-after")
        return n is not None and self.asked[q.name, q.type] > n

    @staticmethod
    def message(q, code=0, records=(), tc=False, msg_id=None):
        flags = 0x8180 | code | (0x0200 if tc else 0)
        head = struct.pack("!HHHHHH", q.id if msg_id is None else msg_id, flags, 1, len(records), 0, 0)
        return head + q.raw + b"".join(records)

    async def answer(self, data, transport, send):
        """Calls send with each message to go back."""
        try:
            q = Question(data)
        except (ValueError, IndexError, struct.error):
            return
        self.asked[q.name, q.type] += 1
        if self.log:
            print(transport, TYPES.get(q.type, q.type), q.name, file=self.log, flush=True)
        if self.is_silent(q):
            return
        code = self.code(q)
        records = [] if code else self.records(q)
        if q.has("wrongid"):
            forged = record(b"\xc0\x0c", A, 60, bytes([203, 0, 113, 66]))
            send(self.message(q, records=[forged], msg_id=q.id ^ 0x5555))
        if q.has("slow"):
            await asyncio.sleep(q.rule("slow") / 1000)
        if transport == "udp" and (q.has("tc") or len(self.message(q, code, records)) > 512):
            send(self.message(q, tc=True))
        else:
            send(self.message(q, code, records))


class Udp(asyncio.DatagramProtocol):
    def __init__(self, server):
        self.server = server
        self.tasks = set()

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        task = asyncio.ensure_future(self.server.answer(data, "udp", lambda message: self.transport.sendto(message, addr)))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


def on_tcp(server):
    async def serve(reader, writer):
        try:
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                data = await reader.readexactly(length)
                await server.answer(data, "tcp", lambda m: writer.write(struct.pack("!H", len(m)) + m))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
    return serve


async def listen(server, port):
    """UDP first; the kernel's choice of port may be taken for TCP, then again."""
    loop = asyncio.get_running_loop()
    for _ in range(50):
        transport, _ = await loop.create_datagram_endpoint(lambda: Udp(server), local_addr=("127.0.0.1", port))
        found = transport.get_extra_info("sockname")[1]
        try:
            return transport, await asyncio.start_server(on_tcp(server), "127.0.0.1", found), found
        except OSError:
            transport.close()
            if port:
                raise
    raise OSError("no port that is free for UDP and TCP")


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", required=True)
    parser.add_argument("--log")
    parser.add_argument("--stdin", action="store_true")
    args = parser.parse_args()

    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    if args.stdin:
        asyncio.get_running_loop().add_reader(0, lambda: os.read(0, 4096) or stop.set())
    with open(args.log or os.devnull, "a", encoding="utf-8") as log:
        transport, tcp, port = await listen(Server(log if args.log else None), args.port)
        temporary = args.port_file + ".tmp"
        with open(temporary, "w", encoding="ascii") as f:
            f.write(f"{port}\n")
        os.rename(temporary, args.port_file)
        await stop.wait()
        transport.close()
        tcp.close()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
