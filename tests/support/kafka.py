#!/usr/bin/env python3
"""A real Kafka broker (KRaft, no container) on free loopback ports. Standard library only.

As a module: Broker(dir).start(), .bootstrap, .stop(), .kill(), .restart(); Cluster(dir, 3).
As a program: kafka.py run --data DIR [--port-file F] [--nodes N] [-o key=value]... prints `ready HOST:PORT` and serves until
SIGTERM, SIGINT, the end of its parent or, with --until-eof, of its standard input.

The jars come from kafka_fetch.sh, which is run when they are not in the cache yet.
"""

import argparse
import base64
import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import proc  # noqa: E402

JAVA_OPTIONS = ["-Xmx512m", "-Xss512k", "-XX:+ExitOnOutOfMemoryError"]

LOG4J = """\
status = error
rootLogger.level = WARN
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} %p %c{1}: %m%n
"""


def libs_dir():
    """The directory of the broker's jars, fetched when needed."""
    script = Path(__file__).resolve().parent / "kafka_fetch.sh"
    done = subprocess.run(["bash", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError("the broker's jars could not be fetched")
    return Path(done.stdout.strip()) / "libs"


def new_cluster_id():
    """A UUID as Kafka writes it. One that begins with a dash would be taken for an option."""
    return base64.urlsafe_b64encode(b"\0" + uuid.uuid4().bytes[1:]).rstrip(b"=").decode()


def answers(port, timeout_s=1.0):
    """Whether a broker answers an ApiVersions request (version 0) on this port: it listens only once it can serve."""
    body = struct.pack(">hhih", 18, 0, 1, 4) + b"test"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_s) as s:
            s.settimeout(timeout_s)
            s.sendall(struct.pack(">i", len(body)) + body)
            return len(s.recv(8)) > 0
    except OSError:
        return False


class Broker:
    """One node. Data, port and properties stay the same over stop and start."""

    def __init__(self, data, node=1, **properties):
        self.data = Path(data)
        self.node = node
        self.port = proc.free_port()
        self.controller_port = proc.free_port()
        self.voters = f"{node}@127.0.0.1:{self.controller_port}"
        self.replication = 1
        self.cluster_id = new_cluster_id()
        self.properties = properties
        self.users = {}
        self.process = None
        self.log = self.data / "broker.log"

    @property
    def bootstrap(self):
        return f"127.0.0.1:{self.port}"

    def start(self, timeout_s=90):
        """Starts it and waits until it serves."""
        self.launch()
        return self.wait_ready(timeout_s)

    def launch(self):
        if not (self.data / "logs" / "meta.properties").exists():
            self._format()
        self.process = proc.spawn(self._java("kafka.Kafka", self._config()), self.log)

    def wait_ready(self, timeout_s=90):
        try:
            proc.wait_until(lambda: answers(self.port), timeout_s, "the broker answers", self.process)
        except Exception as e:
            self.kill()
            raise RuntimeError(f"broker: {e}\n{proc.tail(self.log)}") from e
        return self

    def stop(self, grace_s=30):
        """In good order."""
        if self.process:
            proc.stop(self.process, grace_s)

    def kill(self):
        """kill -9."""
        if self.process:
            proc.kill(self.process)

    def freeze(self):
        """SIGSTOP: connections stay open and nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def restart(self):
        """Stops it when it runs, and starts it on the same port and data."""
        self.stop()
        return self.start()

    def _config(self):
        return self.data / "server.properties"

    def _java(self, main, *args):
        log4j = f"-Dlog4j2.configurationFile={self.data / 'log4j2.properties'}"
        return ["java", *JAVA_OPTIONS, log4j, "-cp", f"{libs_dir()}/*", main, *args]

    def _format(self):
        self.data.mkdir(parents=True, exist_ok=True)
        (self.data / "log4j2.properties").write_text(LOG4J)
        self._config().write_text("".join(f"{k}={v}\n" for k, v in self._properties().items()))
        argv = self._java("kafka.tools.StorageTool", "format", "-t", self.cluster_id, "-c", self._config())
        for name, password in self.users.items():
            argv += ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"]
        with open(self.log, "ab") as out:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        if done.returncode:
            raise RuntimeError(f"the broker's storage could not be made\n{proc.tail(self.log)}")

    def _properties(self):
        n = self.replication
        properties = {
            "process.roles": "broker,controller",
            "node.id": self.node,
            "controller.quorum.voters": self.voters,
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": self.data / "logs",
            "offsets.topic.replication.factor": n,
            "transaction.state.log.replication.factor": n,
            "share.coordinator.state.topic.replication.factor": n,
            "default.replication.factor": n,
            "transaction.state.log.min.isr": max(1, n - 1),
            "share.coordinator.state.topic.min.isr": max(1, n - 1),
            "min.insync.replicas": max(1, n - 1),
            # Few partitions in the internal topics: the first join has less to make.
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.num.partitions": 4,
            "group.initial.rebalance.delay.ms": 0,
            # A misspelt topic is a test's fault, and says so.
            "auto.create.topics.enable": "false",
        }
        properties.update({k.replace("__", "."): v for k, v in self.properties.items()})
        return properties


class SecureBroker(Broker):
    """One with a second listener at `secure`: TLS (a PEM file of key and certificate), SCRAM-SHA-512 or PLAIN, and an authorizer that
    allows nothing. Who comes by the plain listener may do everything."""

    def __init__(self, data, pem, users, **properties):
        super().__init__(data, **properties)
        self.users = users  # name -> password
        port = proc.free_port()
        self.secure = f"127.0.0.1:{port}"
        listeners = f"PLAINTEXT://{self.bootstrap},SASL_SSL://{self.secure}"
        self.properties = {
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config":
                "org.apache.kafka.common.security.scram.ScramLoginModule required;",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule required "
                + " ".join(f'user_{name}="{password}"' for name, password in users.items()) + ";",
            "ssl.keystore.type": "PEM", "ssl.keystore.location": pem,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS", **self.properties}


class Cluster:
    """Several nodes with combined roles: replication n, min.insync.replicas n - 1."""

    def __init__(self, data, nodes=3, **properties):
        data = Path(data)
        self.brokers = [Broker(data / f"node{i}", node=i, **properties) for i in range(1, nodes + 1)]
        voters = ",".join(b.voters for b in self.brokers)
        for b in self.brokers:
            b.voters, b.cluster_id, b.replication = voters, self.brokers[0].cluster_id, nodes

    @property
    def bootstrap(self):
        return ",".join(b.bootstrap for b in self.brokers)

    def start(self):
        """All are launched before one is waited for: the quorum needs a majority."""
        for b in self.brokers:
            b.launch()
        for b in self.brokers:
            b.wait_ready()
        return self

    def stop(self):
        """All are asked before one is waited for: the last ones alone would have no quorum to leave in good order."""
        for b in self.brokers:
            if b.process and b.process.poll() is None:
                b.process.terminate()
        for b in self.brokers:
            b.stop()

    def kill(self):
        for b in self.brokers:
            b.kill()


def end_with_parent():
    """Asks the kernel for a SIGTERM when our parent dies."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM, 0, 0, 0)  # 1 = PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit(0)


def run(args):
    """The command line: one broker (or several) in the foreground."""
    done = threading.Event()
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(sig, lambda *_: done.set())
    end_with_parent()
    if args.until_eof:
        threading.Thread(target=lambda: (sys.stdin.buffer.read(), done.set()), daemon=True).start()
    properties = dict(o.split("=", 1) for o in args.o)
    cluster = Cluster(args.data, args.nodes, **properties) if args.nodes > 1 else Broker(args.data, **properties)
    try:
        cluster.start()
        if args.port_file:
            write_atomically(args.port_file, cluster.bootstrap + "\n")
        print(f"ready {cluster.bootstrap}", flush=True)
        while not done.wait(0.5):
            if args.nodes == 1 and cluster.process.poll() is not None:
                sys.exit(f"the broker ended with {cluster.process.returncode}\n{proc.tail(cluster.log)}")
    finally:
        cluster.stop()


def write_atomically(path, text):
    """A reader that waits for the file never sees half of it."""
    tmp = f"{path}.tmp"
    Path(tmp).write_text(text)
    os.replace(tmp, path)


def main():
    parser = argparse.ArgumentParser(description="A real Kafka broker for tests and trials.")
    sub = parser.add_subparsers(required=True)
    cmd = sub.add_parser("run", help="run a broker in the foreground")
    cmd.add_argument("--data", required=True, help="directory for data and logs")
    cmd.add_argument("--port-file", help="written with HOST:PORT once it is ready")
    cmd.add_argument("--nodes", type=int, default=1)
    cmd.add_argument("--until-eof", action="store_true", help="also end when standard input does")
    cmd.add_argument("-o", action="append", default=[], metavar="KEY=VALUE", help="a broker property")
    cmd.set_defaults(call=run)
    args = parser.parse_args()
    try:
        args.call(args)
    except RuntimeError as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main()
