"""robots=obey: what robots.txt says is kept, whatever a server does with it. Judged from the origin's log."""

import pytest

from hosts_origin import Answer, HostsOrigin

FORBID = b"User-agent: *\nDisallow: /private\n"


def reply(status=200, body=b"", **headers):
    return Answer(status, body, tuple((k.replace("_", "-"), v) for k, v in headers.items()))


@pytest.fixture
def origin_of():
    """origin_of({host: [answers for /robots.txt, the last one for ever]}): "ok" for all else."""
    made = []

    def make(robots, other=lambda ask: Answer(200)):
        def behave(ask):
            script = robots.get(ask.host.split(".")[0])
            if script is None or ask.path != "/robots.txt":
                return other(ask)
            return script[min(ask.n, len(script) - 1)]

        made.append(HostsOrigin(behave))
        return made[-1]

    yield make
    for origin in made:
        origin.stop()


@pytest.fixture
def run(broker, topics, start_worker, name_server):
    """run(jobs {id: url}, **options) -> {id: result}; the worker is `run.worker`."""
    def go(jobs, config=None, **options):
        t = topics(broker.bootstrap)
        for job_id, url in jobs.items():
            t.produce(t.job(job_id, url), key=job_id)
        t.flush()
        settings = {"robots": "obey", "dns__servers": "%s:%d" % name_server, "retry__base": "10ms", "retry__max": "20ms", **options}
        go.worker = start_worker(t.options(**settings), config=config)
        reader = t.reader()
        reader.until(len(jobs))
        go.outcome = t.outcome
        return {r.result.job_id: r.result for r in reader.records}

    return go


NAME = "{}.ip-127-0-7-{}.test"
# What /robots.txt answers, one after the other -> outcome of /private and of /open, and how often it was asked for.
ROWS = [
    ("rules", [reply(200, FORBID)], "BLOCKED_ROBOTS", "OK", 1),
    ("other-agent", [reply(200, b"User-agent: somebody\nDisallow: /\n")], "OK", "OK", 1),
    ("own-agent", [reply(200, b"User-agent: gatherd\nDisallow: /private\nUser-agent: *\nDisallow: /\n")], "BLOCKED_ROBOTS", "OK", 1),
    ("empty", [reply(200)], "OK", "OK", 1),
    ("no-content", [reply(204)], "OK", "OK", 1),
    ("not-found", [reply(404, FORBID)], "OK", "OK", 1),
    ("forbidden", [reply(403)], "OK", "OK", 1),
    ("gone", [reply(410)], "OK", "OK", 1),
    ("error", [reply(500)], "BLOCKED_ROBOTS", "BLOCKED_ROBOTS", 3),
    ("busy", [reply(503)], "BLOCKED_ROBOTS", "BLOCKED_ROBOTS", 3),
    ("too-many", [reply(429)], "BLOCKED_ROBOTS", "BLOCKED_ROBOTS", 3),
    ("not-implemented", [reply(501)], "BLOCKED_ROBOTS", "BLOCKED_ROBOTS", 1),
    ("error-once", [reply(502), reply(200, FORBID)], "BLOCKED_ROBOTS", "OK", 2),
    ("silent", [None], "BLOCKED_ROBOTS", "BLOCKED_ROBOTS", 3),
    ("circle", [reply(302, Location="/robots.txt")], "OK", "OK", 6),
    ("nowhere", [reply(301)], "OK", "OK", 1),
    ("bad-location", [reply(301, Location="http://[/")], "OK", "OK", 1),
    ("denied-hop", [reply(301, Location="http://10.0.0.1/robots.txt")], "BLOCKED_ROBOTS", "BLOCKED_ROBOTS", 1),
    ("denied-port", [reply(301, Location="http://127.0.0.1:22/robots.txt")], "BLOCKED_ROBOTS", "BLOCKED_ROBOTS", 1),
    ("dead-name-hop", [reply(301, Location="http://nx.test/robots.txt")], "BLOCKED_ROBOTS", "BLOCKED_ROBOTS", 1),
    ("huge", [reply(200, FORBID + b"# " + b"x" * 600_000 + b"\nDisallow: /open\n")], "BLOCKED_ROBOTS", "OK", 1),
]


@pytest.mark.short
def test_each_answer_for_robots_txt(origin_of, run):
    origin = origin_of({row[0]: row[1] for row in ROWS})
    hosts = {row[0]: NAME.format(row[0], i) for i, row in enumerate(ROWS)}
    jobs = {f"{name} {path}": origin.url(host, f"/{path}") for name, host in hosts.items() for path in ("private/x", "open")}
    jobs |= {f"{name} {path}?{i}": origin.url(host, f"/{path}?{i}")
             for name, host in hosts.items() for path in ("private/x", "open") for i in range(5)}
    results = run(jobs, config='[host "silent.*"]\nfetch.timeout = 300ms\n')
    wrong = []
    for name, _, private, is_open, asked in ROWS:
        for suffix in ("", *(f"?{i}" for i in range(5))):
            got = tuple(run.outcome(results[f"{name} {path}{suffix}"]) for path in ("private/x", "open"))
            if got != (private, is_open):
                wrong.append((name, suffix, got))
        if len(origin.of(hosts[name], "/robots.txt")) != asked:
            wrong.append((name, "asked", len(origin.of(hosts[name], "/robots.txt"))))
        fetched = {a.path.split("?")[0] for a in origin.of(hosts[name])} - {"/robots.txt"}
        may = {path for path, outcome in (("/private/x", private), ("/open", is_open)) if outcome == "OK"}
        if fetched != may:
            wrong.append((name, "fetched", fetched))
    assert not wrong, "\n".join(map(str, wrong))
    assert results["error open"].error.code == "ROBOTS_UNREACHABLE" and results["error open"].error.retryable
    assert results["rules private/x"].error.code == "ROBOTS_DENIED" and not results["rules private/x"].error.retryable
    metrics = run.worker.metrics()
    blocked = sum(6 * (row[2:4].count("BLOCKED_ROBOTS")) for row in ROWS)
    assert metrics["gatherd_robots_blocked_total"] == blocked
    assert metrics["gatherd_robots_origins"] == len(ROWS)
