"""Child processes that cannot outlive their test, and ports for them. Standard library only."""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path


LANE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])  # of two at most
given_ports = set()


def free_port():
    """A free loopback port below the range that outgoing connections take theirs from, so that a server which is stopped
    for a while finds its port free when it comes back."""
    for _ in range(1000):
        port = random.SystemRandom().randint(15000, 32000)
        if port in given_ports or port % 2 != LANE % 2:
            continue  # its server may not listen yet, or it is the other lane's
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
                given_ports.add(port)
                return port
            except OSError:
                continue
    raise RuntimeError("no free port")


def spawn(argv, log, env=None, cwd=None):
    """Starts argv with its output appended to the file log. The kernel kills it when the *thread* that called us
    ends, however it ends: call from the main thread. A session of its own keeps a Ctrl-C at the terminal for us to handle."""
    setpriv = shutil.which("setpriv")
    if setpriv:
        argv = [setpriv, "--pdeathsig", "KILL", *argv]
    with open(log, "ab") as out:
        return subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                env=env, cwd=cwd, start_new_session=True)


def stop(proc, grace_s=30):
    """SIGTERM, and SIGKILL when that did not help in time. Returns the exit status."""
    if proc.poll() is None:
        proc.terminate()
        try:
            proc.wait(grace_s)
        except subprocess.TimeoutExpired:
            kill(proc)
    return proc.returncode


def kill(proc):
    """SIGKILL, at once."""
    if proc.poll() is None:
        proc.send_signal(signal.SIGCONT)  # one that was stopped still has to be collected
        proc.kill()
    return proc.wait(30)


def left_behind(session):
    """Processes of a session that still run."""
    left = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            left.append(int(stat.parent.name))
    return left


def wait_until(question, timeout_s, what, proc=None, step_s=0.05):
    """Asks until the answer is true and returns it. Fails when time is up, or when proc ended meanwhile."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = question()
        if answer:
            return answer
        if proc is not None and proc.poll() is not None:
            raise RuntimeError(f"ended with {proc.returncode} while we waited for: {what}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s} s: {what}")
        time.sleep(step_s)


def tail(path, lines=40):
    """The last lines of a log file, for a failure's message."""
    if not os.path.isfile(path):
        return "(no file)"  # a pipe would be read for ever
    try:
        with open(path, errors="replace") as f:
            return "".join(f.readlines()[-lines:])
    except OSError as e:
        return f"({e})"


def rss_bytes(pid):
    """Resident memory of a process."""
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
