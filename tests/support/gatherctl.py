"""gatherctl as a user runs it, in a pipe and on a terminal, and its sandbox."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import urllib.error
import urllib.request

from confluent_kafka import Producer

import proc
import topics as topics_client
import worker


def environment(**more):
    env = {k: v for k, v in os.environ.items() if not k.startswith("GATHERD_")}
    return {**worker.SANITIZERS, **env, **more}


def argv(*args):
    return [str(worker.build_dir() / "gatherctl"), *map(str, args)]


def ctl(*args, stdin=None, env=None, timeout_s=60):
    """Runs a command to its end."""
    how = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    return subprocess.run(argv(*args), capture_output=True, text=True, timeout=timeout_s, env=environment(**(env or {})), **how)


def on_terminal(*args, columns=100, env=None, timeout_s=60):
    """Runs a command on a terminal of its own; returns what it wrote there, and its exit status."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    child = subprocess.Popen(argv(*args), stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                             env=environment(TERM="xterm", **(env or {})))
    os.close(slave)
    text = b""
    try:
        while chunk := os.read(master, 65536):
            text += chunk
    except OSError:  # the last writer has gone
        pass
    os.close(master)
    return text.decode().replace("\r\n", "\n"), child.wait(timeout_s)


def visible(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


class Sandbox:
    """gatherctl sandbox, and what is read from and put into its topics."""

    def __init__(self, dir, protos):
        self.port_file = dir / "port"
        self.process = proc.spawn(argv("sandbox", "--port-file", self.port_file), dir / "sandbox.log", env=environment())
        proc.wait_until(self.port_file.exists, 30, "the sandbox listens", self.process)
        self.line = self.port_file.read_text()
        self.bootstrap, self.origin = re.fullmatch(r"bootstrap=(127\.0\.0\.1:\d+) origin=(http://127\.0\.0\.1:\d+)\n", self.line).groups()
        self.result_pb2 = protos[1]

    def stop(self):
        return proc.stop(self.process, 10)

    def put(self, values, topic="results"):
        producer = Producer({"bootstrap.servers": self.bootstrap})
        for value in values:
            producer.produce(topic, value=value)
        assert producer.flush(30) == 0

    def records(self, n):
        """The first n records of the topic jobs, as {value: key}."""
        reader = topics_client.Reader(self.bootstrap, "jobs")
        records = reader.until(n)
        reader.close()
        return {r.value.decode(): r.key and r.key.decode() for r in records}

    def values(self, topic):
        """All that is in a topic now."""
        reader = topics_client.Reader(self.bootstrap, topic)
        values = [r.value.decode() for r in reader.to_end()]
        reader.close()
        return values

    def get(self, path, **headers):
        request = urllib.request.Request(self.origin + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as r:
                return r.status, r.read()
        except urllib.error.HTTPError as e:
            return e.code, e.read()

    def result(self, **fields):
        return self.result_pb2.FetchResult(**fields)
