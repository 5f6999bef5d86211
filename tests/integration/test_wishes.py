"""What a job may ask for beyond a URL: methods and bodies, validators, secrets and proxies by name."""

import hashlib
import json
from urllib.parse import quote

import pytest

OK_DIGEST = hashlib.sha256(b"ok\n").digest()


class Jobs:
    """Sends jobs and gives their results back."""

    def __init__(self, topics):
        self.topics = topics
        self.reader = topics.reader()

    def run(self, rows):
        """{name: (url, fields)} -> {name: result}."""
        before = len(self.reader.records)
        for name, (url, fields) in rows.items():
            self.topics.produce(self.topics.job(name, url, **fields), name.encode(), 0)
        self.topics.flush()
        self.reader.until(before + len(rows))
        return {r.job_id: r for r in self.reader.results()[before:]}

    def one(self, url, **fields):
        name = f"one-{len(self.reader.records)}"
        return self.run({name: (url, fields)})[name]

    def ending(self, result):
        """The outcome, and the code of what is wrong."""
        return self.topics.outcome(result) + (f" {result.error.code}" if result.error.code else "")


@pytest.fixture
def jobs(broker, topics, start_worker, name_server):
    """jobs(options, config=text) starts a worker on topics of its own; every name is 127.0.0.1."""
    def start(config=None, **options):
        t = topics(broker.bootstrap)
        options = {"host__inflight": 64, "retry__base": "1ms", "dns__servers": "{}:{}".format(*name_server), **options}
        j = Jobs(t)
        j.worker = start_worker(t.options(**options), config=config).wait_ready()
        return j

    return start


def seen(result):
    """What /echo saw of the request: (method, {header: value}, body)."""
    view = json.loads(result.body)
    return view["line"].split(" ")[0], {k.lower(): v.strip() for k, v in view["headers"]}, view["body"]


# --- methods and bodies ---

METHODS_CONFIG = """
methods = GET HEAD POST
request.body_max = 1000
[host "all.test"]
methods = GET HEAD POST PUT PATCH DELETE OPTIONS
[host "read.test"]
methods = HEAD
"""


def test_methods_and_bodies(origin, jobs):
    port = origin.url.rsplit(":", 1)[1]
    j = jobs(METHODS_CONFIG)
    everything, local = f"http://all.test:{port}/echo", f"{origin.url}/echo"
    form = [{"name": "Content-Type", "value": b"application/x-www-form-urlencoded"}]
    results = j.run({
        "post": (local, {"method": "POST", "body": b"a=1", "headers": form}),
        "post, empty": (local, {"method": "POST"}),
        "at the cap": (local, {"method": "POST", "body": b"x" * 1000}),
        "put": (everything, {"method": "PUT", "body": b"\0\xff"}),
        "patch": (everything, {"method": "PATCH", "body": b"p"}),
        "delete": (everything, {"method": "DELETE"}),
        "delete, body": (everything, {"method": "DELETE", "body": b"d"}),
        "options": (everything, {"method": "OPTIONS"}),
        "over the cap": (local, {"method": "POST", "body": b"x" * 1001}),
        "get, body": (local, {"body": b"x"}),
        "head, body": (local, {"method": "HEAD", "body": b"x"}),
        "not in methods": (local, {"method": "PUT", "body": b"x"}),
        "not of this host": (f"http://read.test:{port}/echo", {}),
        "by the profile of another": (local, {"method": "DELETE", "host_profile": "all.test"}),
        "lower case": (local, {"method": "post"}),
        "no token": (local, {"method": "PO ST"}),
        "unheard of": (everything, {"method": "CONNECT"}),
    })
    assert {name: j.ending(r) for name, r in results.items() if j.ending(r) != "OK"} == {
        "over the cap": "BLOCKED_POLICY REQUEST_TOO_LARGE", "get, body": "BLOCKED_POLICY BODY_DENIED",
        "head, body": "BLOCKED_POLICY BODY_DENIED", "not in methods": "BLOCKED_POLICY METHOD_DENIED",
        "not of this host": "BLOCKED_POLICY METHOD_DENIED", "lower case": "BLOCKED_POLICY METHOD_DENIED",
        "no token": "BAD_JOB METHOD_SYNTAX", "unheard of": "BLOCKED_POLICY METHOD_DENIED"}
    assert {name: (seen(r)[0], seen(r)[2]) for name, r in results.items() if r.body} == {
        "post": ("POST", "a=1"), "post, empty": ("POST", ""), "at the cap": ("POST", "x" * 1000), "put": ("PUT", "\0\xff"),
        "patch": ("PATCH", "p"), "delete": ("DELETE", ""), "delete, body": ("DELETE", "d"), "options": ("OPTIONS", ""),
        "by the profile of another": ("DELETE", "")}
    headers = seen(results["post"])[1]
    assert headers["content-type"] == "application/x-www-form-urlencoded" and headers["content-length"] == "3"
    assert "content-type" not in seen(results["put"])[1] and seen(results["post, empty"])[1]["content-length"] == "0"

    # Headers that would change where the request's end is, or whose it is.
    for name in ("Host", "Content-Length", "Transfer-Encoding", "connection", "Expect", "Proxy-Authorization", "TE", "Upgrade"):
        refused = j.one(local, method="POST", body=b"x", headers=[{"name": name, "value": b"1"}])
        assert j.ending(refused) == "BLOCKED_POLICY HEADER_DENIED" and f"may not set {name}" in refused.error.message


def test_redirects_of_a_post(origin, jobs):
    port = origin.url.rsplit(":", 1)[1]
    j = jobs(METHODS_CONFIG)
    headers = [{"name": "Content-Type", "value": b"text/plain"}, {"name": "X-Kept", "value": b"1"}]
    sent = {"method": "POST", "body": b"b", "headers": headers}
    rows = {f"{status}": (f"{origin.url}/redirect-to?status={status}&url=/echo", sent) for status in (301, 302, 303, 307, 308)}
    rows["put"] = (f"http://all.test:{port}/redirect-to?status=303&url=/echo", {**sent, "method": "PUT"})
    elsewhere = f"http://all.test:{port}/redirect-to?status=307&url=" + quote(f"http://127.0.0.1:{port}/echo")
    rows["to where it may not be"] = (elsewhere, {**sent, "method": "PUT"})
    results = j.run(rows)
    assert j.ending(results.pop("to where it may not be")) == "BLOCKED_POLICY METHOD_DENIED"
    got = {name: (*seen(r)[::2], seen(r)[1].get("content-type"), seen(r)[1].get("x-kept")) for name, r in results.items()}
    get, same = ("GET", "", None, "1"), ("POST", "b", "text/plain", "1")
    assert got == {"301": get, "302": get, "303": get, "307": same, "308": same, "put": get}


def test_only_idempotent_methods_are_tried_again(origin, jobs):
    port = origin.url.rsplit(":", 1)[1]
    j = jobs(METHODS_CONFIG, host__inflight=1, retry__max_attempts=3)
    url = f"http://all.test:{port}"
    # libcurl sends a request again when a kept connection ends without a byte of an answer: a POST may not go there.
    for method in ("POST", "PATCH", "PUT", "GET"):
        origin.reset()
        j.one(f"{url}/ok")
        cut = j.one(f"{url}/flaky/{method}?fail=9&status=0", method=method)
        busy = j.one(f"{url}/status/503", method=method)
        may = method in ("PUT", "GET")
        assert (j.ending(cut), j.ending(busy)) == ("DISCONNECTED DISCONNECTED", "HTTP_ERROR HTTP_STATUS")
        assert len(cut.attempts) == len(busy.attempts) == (3 if may else 1), method
        assert origin.stats("/status")["total"] == (3 if may else 1), method
        total = origin.stats("/flaky")["total"]
        assert total >= 3 if may else total == 1, (method, total)


# --- validators, digests, attempts ---

def test_conditional(origin, jobs):
    j = jobs()
    first = j.one(f"{origin.url}/etag")
    assert (first.etag, first.last_modified) == (b'"v1"', b"Mon, 02 Nov 2026 10:00:00 GMT")
    assert first.digest == hashlib.sha256(b"v1\n").digest()
    again = {"if_none_match": first.etag.decode()}
    since = {"if_modified_since": first.last_modified.decode()}
    results = j.run({
        "by etag": (f"{origin.url}/etag", again),
        "by date": (f"{origin.url}/etag", since),
        "by both": (f"{origin.url}/etag", {**again, **since}),
        "after a redirect": (f"{origin.url}/redirect-to?url=/etag", again),
        "another etag": (f"{origin.url}/etag", {"if_none_match": '"v0"', "prev_digest": first.digest}),
        "changed": (f"{origin.url}/ok", {"prev_digest": first.digest}),
        "not asked for": (f"{origin.url}/status/304", {}),
        "own header": (f"{origin.url}/etag", {"headers": [{"name": "If-None-Match", "value": b'"v1"'}]}),
        "the same": (f"{origin.url}/ok", {"prev_digest": OK_DIGEST}),
        "the same, hash only": (f"{origin.url}/ok", {"prev_digest": OK_DIGEST, "body_mode": 2}),
        "cut": (f"{origin.url}/ok", {"prev_digest": hashlib.sha256(b"ok").digest(), "max_body_bytes": 2}),
        "broken off": (f"{origin.url}/short", {"prev_digest": hashlib.sha256(b"s" * 10).digest()}),
    })
    assert {name for name, r in results.items() if j.ending(r) == "NOT_MODIFIED"} == \
        {"by etag", "by date", "by both", "after a redirect"}
    assert {name for name, r in results.items() if r.unchanged} == {"another etag", "the same", "the same, hash only"}
    # What the next job needs is in every one.
    for name in ("by etag", "by date", "by both", "another etag"):
        assert (results[name].etag, results[name].last_modified) == (first.etag, first.last_modified)
    assert j.ending(results["not asked for"]) == j.ending(results["own header"]) == "HTTP_ERROR HTTP_STATUS"
    # The same bytes, but not all of them are known.
    assert results["cut"].truncated and results["cut"].digest == hashlib.sha256(b"ok").digest()
    assert results["broken off"].truncated and results["broken off"].digest == hashlib.sha256(b"s" * 10).digest()


def test_a_job_has_its_own_retry_and_every_attempt_is_told(origin, jobs):
    j = jobs(retry__max_attempts=5, retry__base="20ms", retry__max="60ms", job__deadline="3s")
    flaky = f"{origin.url}/flaky"
    results = j.run({
        "as set": (f"{flaky}/a?fail=9", {}),
        "fewer": (f"{flaky}/b?fail=9", {"retry": {"max_attempts": 2}}),
        "more": (f"{flaky}/c?fail=9", {"retry": {"max_attempts": 99}}),
        "in the end": (f"{flaky}/d?fail=2", {}),
    })
    assert {name: len(r.attempts) for name, r in results.items()} == {"as set": 5, "fewer": 2, "more": 5, "in the end": 3}
    # The last one: it holds the host back.
    results["the deadline wins"] = j.one(f"{origin.url}/status/503?header=Retry-After:5", retry={"max_attempts": 9})
    assert len(results["the deadline wins"].attempts) == 1
    for name, r in results.items():
        waits = [a.backoff_ms for a in r.attempts]
        assert waits[-1] == 0 and all(0 <= wait <= min(60, 20 * 2 ** i) for i, wait in enumerate(waits)), (name, waits)
        assert [a.status for a in r.attempts[:-1]] == [503] * (len(r.attempts) - 1)
        assert r.end_at_ms - r.start_at_ms >= sum(waits)
    assert j.ending(results["in the end"]) == "OK"
    assert {j.ending(r) for name, r in results.items() if name != "in the end"} == {"HTTP_ERROR HTTP_STATUS"}
    assert results["the deadline wins"].retry_after_ms == 5000 and results["the deadline wins"].error.retryable
