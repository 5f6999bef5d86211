"""A proxy of the tests' own, on a thread: HTTP (absolute form and CONNECT), the same over TLS, or SOCKS5 (RFC 1928, 1929). Every
name is 127.0.0.1 to it, but dead.test, which it cannot reach. `asked` has what it was asked: (user, how, host:port); `heads` the requests to an HTTP proxy as they came."""

import asyncio
import base64
import socket
import ssl
import threading


class Refused(Exception):
    pass


async def pipe(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except (OSError, ssl.SSLError):
        pass
    finally:
        writer.close()


class Proxy:
    def __init__(self, kind, users=None, pem=None):
        """kind: "http" or "socks5"; users: {user: password}, none = no authentication; pem: key and certificate for TLS."""
        self.serve = {"http": self._http, "socks5": self._socks}[kind]
        self.users, self.pem = users, pem
        self.asked, self.heads = [], []
        self.loop = asyncio.new_event_loop()
        self.tasks = set()

    def start(self):
        context = None
        if self.pem:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.pem)
        sock = socket.create_server(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        self.server = self.loop.run_until_complete(asyncio.start_server(self._client, sock=sock, ssl=context))
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        return self

    def stop(self):
        asyncio.run_coroutine_threadsafe(self._end(), self.loop).result(20)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def _end(self):
        self.server.close()
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)

    async def _client(self, reader, writer):
        self.tasks.add(task := asyncio.current_task())
        try:
            await self.serve(reader, writer)
        except (Refused, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self.tasks.discard(task)

    async def _connect(self, host, port):
        if host == "dead.test":
            raise ConnectionRefusedError
        return await asyncio.open_connection("127.0.0.1", port)

    async def _join(self, reader, writer, far):
        await asyncio.gather(pipe(reader, far[1]), pipe(far[0], writer))

    # --- HTTP ---

    def _user_of(self, lines):
        for line in lines:
            name, _, value = line.partition(": ")
            if name.lower() == "proxy-authorization" and value.startswith("Basic "):
                user, _, password = base64.b64decode(value[6:]).decode().partition(":")
                return user if self.users and self.users.get(user) == password else None
        return None

    async def _http(self, reader, writer):
        """One request in absolute form per connection, or a tunnel."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = head.rstrip().split("\r\n")
        method, target, version = line.split(" ")
        self.heads.append(head)
        user = self._user_of(lines)
        if self.users and not user:
            writer.write(b"HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n")
            return
        where = target if method == "CONNECT" else target.split("/")[2]
        self.asked.append((user, method, where))
        host, _, port = where.rpartition(":")
        try:
            far = await self._connect(host, int(port))
        except OSError:
            writer.write(b"HTTP/1.1 502 No way\r\nContent-Length: 0\r\n\r\n")
            return
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Go on\r\n\r\n")
        else:
            kept = [ln for ln in lines if not ln.lower().startswith(("proxy-", "connection:"))]
            path = "/" + target.split("/", 3)[3]
            far[1].write("\r\n".join([f"{method} {path} {version}", *kept, "Connection: close", "", ""]).encode("latin-1"))
        await self._join(reader, writer, far)

    # --- SOCKS5 ---

    async def _socks_user(self, reader, writer):
        version, n = await reader.readexactly(2)
        methods = await reader.readexactly(n)
        wanted = 2 if self.users else 0
        if version != 5 or wanted not in methods:
            writer.write(b"\x05\xff")
            raise Refused
        writer.write(bytes([5, wanted]))
        if not self.users:
            return None
        user = (await reader.readexactly((await reader.readexactly(2))[1])).decode()
        password = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        good = self.users.get(user) == password
        writer.write(b"\x01\x00" if good else b"\x01\x01")
        if not good:
            raise Refused
        return user

    async def _socks(self, reader, writer):
        user = await self._socks_user(reader, writer)
        kind = (await reader.readexactly(4))[3]
        if kind == 1:
            host = socket.inet_ntoa(await reader.readexactly(4))
        else:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append((user, {1: "address", 3: "name"}[kind], f"{host}:{port}"))
        try:
            far = await self._connect(host, port)
        except OSError:
            writer.write(b"\x05\x05\x00\x01" + bytes(6))
            raise Refused from None
        writer.write(b"\x05\x00\x00\x01" + bytes(6))
        await self._join(reader, writer, far)
