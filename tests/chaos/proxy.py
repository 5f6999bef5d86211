"""A TCP proxy between workers and broker that delays, holds back or cuts. Asyncio on a thread; standard library only."""

import asyncio
import threading

CHUNK = 65536
CHUNKS_MAX = 64  # per connection and direction: then the sender waits, as it would for a full socket


class Link:
    """One listening port and where it leads. All methods may be called from any thread.

    hold()   connections stay, nothing passes: what TCP makes of a cable that is out. What was sent arrives later.
    reset()  connections are cut, new ones too: what a firewall makes of it
    delay(s) each chunk takes that much longer, in each direction
    heal()   all is well again"""

    def __init__(self, loop, target_port):
        self.loop = loop
        self.target_port = target_port
        self.port = None
        self.open = asyncio.Event()
        self.open.set()
        self.is_reset = False
        self.delay_s = 0
        self.transports = set()

    async def listen(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    def hold(self):
        self.loop.call_soon_threadsafe(self.open.clear)

    def reset(self):
        self.is_reset = True
        self.loop.call_soon_threadsafe(self._abort_all)

    def delay(self, seconds):
        self.delay_s = seconds

    def heal(self):
        self.is_reset, self.delay_s = False, 0
        self.loop.call_soon_threadsafe(self.open.set)

    def _abort_all(self):
        for transport in list(self.transports):
            transport.abort()

    async def _serve(self, reader, writer):
        ends = [writer]
        try:
            if self.is_reset:
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
            ends.append(far_writer)
            self.transports.update(e.transport for e in ends)
            pumps = [asyncio.ensure_future(self._pump(*way)) for way in ((reader, far_writer), (far_reader, writer))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
        except OSError:
            pass  # no broker there
        finally:
            for end in ends:
                self.transports.discard(end.transport)
                end.transport.abort()

    async def _pump(self, reader, writer):
        queue = asyncio.Queue(CHUNKS_MAX)

        async def read():
            data = True
            while data:
                try:
                    data = await reader.read(CHUNK)
                except OSError:
                    data = b""  # reset by its peer: cut as an end is
                await queue.put((self.loop.time() + self.delay_s, data))

        reading = asyncio.ensure_future(read())
        try:
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(0, due - self.loop.time()))
                await self.open.wait()
                if not data:
                    return
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            reading.cancel()


class Proxy:
    """Links by name: Proxy({"a": 9092}).links["a"].port. The names' target ports may be the same."""

    def __init__(self, targets):
        self.loop = asyncio.new_event_loop()
        self.links = {}
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(targets), self.loop).result(10)

    def _run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    async def _listen(self, targets):
        for name, port in targets.items():
            self.links[name] = Link(self.loop, port)
            await self.links[name].listen()

    def stop(self):
        async def end():
            for link in self.links.values():
                link.server.close()
                link._abort_all()
            rest = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
