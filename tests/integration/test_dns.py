"""Name servers, well and badly behaved: the name says what the server does (tests/support/dns.py)."""

import pytest

import worker

# Under valgrind on a busy machine the two steps of a truncated answer take a second.
PATIENCE_S = 6 if worker.is_instrumented() else 2

# name: outcome, error code, fields. A code of None is any. Rebinding is in test_guard.py.
ROWS = {
    "plain": ("OK", "", {"remote_ip": "127.0.0.1"}),
    "many-20": ("CONNECT", "CONNECT_REFUSED", {}),  # 127.0.1.1 and so on, where nobody listens
    "cname-3": ("OK", "", {}),
    "tc": ("OK", "", {}),  # truncated over UDP, asked again over TCP
    "wrongid": ("OK", "", {"remote_ip": "127.0.0.1"}),  # and not the forged one
    "ttl-0": ("OK", "", {}),
    "ttl-2147483648": ("OK", "", {}),
    "slow-300": ("OK", "", {}),
    "dead6": ("OK", "", {}),  # the A is enough
    "servfail6": ("OK", "", {}),
    "slow6-700": ("OK", "", {}),
    "nx": ("DNS", "DNS_NXDOMAIN", {"status": 0, "remote_ip": ""}),
    "nodata": ("DNS", "DNS_NO_DATA", {}),
    "servfail": ("DNS", "DNS_SERVFAIL", {}),
    "refused": ("DNS", "DNS_REFUSED", {}),
    "dead": ("DNS", "DNS_TIMEOUT", {}),
    "slow-20000": ("DNS", "DNS_TIMEOUT", {}),
    "loop": ("DNS", None, {}),
    "ip-10-0-0-1": ("BLOCKED_ADDRESS", "ADDRESS_DENIED", {"remote_ip": ""}),
    "ip-10-0-0-1.ip-127-0-0-1": ("OK", "", {"remote_ip": "127.0.0.1"}),  # the good one of two
}


@pytest.mark.short
def test_each_answer_has_its_outcome(broker, origin, name_server, topics, start_worker):
    t = topics(broker.bootstrap)
    start_worker(t.options(dns__servers="%s:%d" % name_server, dns__timeout=f"{PATIENCE_S}s", retry__base="10ms",
                           retry__max="20ms")).wait_ready()
    reader = t.reader()
    for name in ROWS:
        t.produce(t.job(name, f"http://{name}.test:{origin.port}/ok"), name.encode(), 0)
    t.flush()
    reader.until(len(ROWS))
    wrong = []
    for r in reader.results():
        outcome, code, fields = ROWS[r.job_id]
        got = t.outcome(r), r.error.code, {k: getattr(r, k) for k in fields}
        if got != (outcome, r.error.code if code is None else code, fields):
            wrong.append((r.job_id, got, r.error.message))
    assert not wrong, "\n".join(map(str, wrong))
    # Temporary failures are tried again, final ones are not.
    tries = {r.job_id: len(r.attempts) for r in reader.results()}
    assert tries["servfail"] == tries["dead"] == 3 and tries["nx"] == tries["nodata"] == 1, tries
