"""A proxy before a broker that keeps requests of one kind: whoever waits for their answers is in the middle of something. Threads; standard
library only."""

import socket
import struct
import threading

# Kafka's protocol: which request it is.
PRODUCE, FETCH, LIST_OFFSETS, METADATA, OFFSET_COMMIT, OFFSET_FETCH, FIND_COORDINATOR = 0, 1, 2, 3, 8, 9, 10
DESCRIBE_GROUPS, LIST_GROUPS, API_VERSIONS, CREATE_TOPICS, DESCRIBE_CONFIGS = 15, 16, 18, 19, 32


def frames(sock):
    """Requests or answers, each behind its length."""
    def take(n):
        data = b""
        while len(data) < n and (more := sock.recv(n - len(data))):
            data += more
        return data

    while len(head := take(4)) == 4:
        yield head + take(struct.unpack(">i", head)[0])


class Held:
    """Passes on all but the requests of this kind beyond the first `passed`; `reached` is set once one of them is kept. The broker's address in
    its answers becomes the proxy's, so that nobody gets past it."""

    def __init__(self, broker_port, kind, passed=0):
        self.kind, self.passed = kind, passed
        self.reached = threading.Event()
        self.sockets = [socket.create_server(("127.0.0.1", 0))]
        self.port = self.sockets[0].getsockname()[1]
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.broker_port = broker_port
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        try:
            while True:
                near = self.sockets[0].accept()[0]
                far = socket.create_connection(("127.0.0.1", self.broker_port))
                self.sockets += [near, far]
                for pump in (self._requests, self._answers):
                    threading.Thread(target=self._run, args=(pump, near, far), daemon=True).start()
        except OSError:
            pass  # stopped

    def _run(self, pump, near, far):
        try:
            pump(near, far)
        except OSError:
            pass
        for end in (near, far):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _requests(self, near, far):
        for frame in frames(near):
            kept = struct.unpack_from(">h", frame, 4)[0] == self.kind
            self.passed -= kept
            if kept and self.passed < 0:
                self.reached.set()
            else:
                far.sendall(frame)

    def _answers(self, near, far):
        theirs, ours = (b"127.0.0.1" + struct.pack(">i", port) for port in (self.broker_port, self.port))
        for frame in frames(far):
            near.sendall(frame.replace(theirs, ours))

    def stop(self):
        for sock in self.sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()
