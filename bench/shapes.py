"""The shapes of work: what is fetched, how many at once, by whom. One row each; `bench/run --list` prints them."""

from dataclasses import dataclass

FLOORS = ("floor", "lanes")
PEERS = ("aiohttp", "bento", "parallel-consumer")
ALL = ("gatherd", "gatherd-eos", *FLOORS, *PEERS)


@dataclass(frozen=True)
class Shape:
    name: str
    inflight: int
    jobs: int
    body: str = "1k"
    hosts: int = 1
    tls: bool = False
    delay_ms: int = 0
    workers: int = 1
    rate: int = 0  # jobs a second; 0 = all are there at the start
    contestants: tuple = ALL
    says: str = ""

    def urls(self, nginx):
        """One URL per host."""
        path = f"/{self.body}" + (f"/delay/{self.delay_ms}" if self.delay_ms else "")
        if self.tls:
            return [nginx.tls_url + path]
        return [f"http://{loopback(i)}:{nginx.port}{path}" for i in range(self.hosts)]


def loopback(i):
    """The i-th loopback address, from 127.0.0.1 on."""
    return f"127.{i // 50000}.{i // 250 % 200}.{i % 250 + 1}"


SHAPES = [
    Shape("64", 64, 20000, contestants=(*ALL, "httpx", "wrk"), says="one keep-alive host"),
    Shape("256", 256, 20000, contestants=(*ALL, "httpx", "wrk"), says="one keep-alive host"),
    Shape("64k", 64, 4000, body="64k", says="64 KiB bodies"),
    Shape("tls", 256, 20000, tls=True, says="TLS 1.3, HTTP/1.1"),
    Shape("hosts-200", 256, 20000, hosts=200, says="200 hosts"),
    Shape("hosts-10000", 1000, 30000, hosts=10000, says="10,000 hosts, each three times"),
    Shape("1000", 1000, 20000, delay_ms=100, says="one host that answers after 100 ms"),
    Shape("5000", 5000, 30000, delay_ms=100, says="one host that answers after 100 ms"),
    Shape("5000-hosts-200", 5000, 30000, hosts=200, delay_ms=100, says="200 hosts that answer after 100 ms"),
    Shape("10000", 10000, 40000, delay_ms=100, says="one host that answers after 100 ms"),
    Shape("10000-hosts-200", 10000, 40000, hosts=200, delay_ms=100, says="200 hosts that answer after 100 ms"),
    Shape("slow", 10000, 30000, delay_ms=1000, says="one host that answers after 1 s: memory per fetch in flight"),
    Shape("latency", 256, 5000, rate=500, contestants=("gatherd", "gatherd-eos", "floor", *PEERS), says="500 jobs a second: latency"),
    *(Shape(f"workers-{n}", 64, 2000 * n, delay_ms=100, workers=n, contestants=("gatherd", *PEERS),
            says=f"{n} worker(s), 64 in flight each, 100 ms: does more do more?") for n in (1, 2, 4)),
]
BY_NAME = {s.name: s for s in SHAPES}
DEFAULT = ["64", "256", "5000", "10000", "5000-hosts-200", "latency"]
QUICK = ["256", "5000", "latency"]
