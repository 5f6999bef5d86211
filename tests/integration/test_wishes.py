"""What a job may ask for beyond a URL: methods and bodies, validators, secrets and proxies by name."""

import hashlib
import json
import re
import signal
import subprocess
from urllib.parse import quote

import pytest

import certs
import origin as origin_server
import proc
import proxies
import worker

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


@pytest.fixture(scope="module")
def trust(tmp_path_factory):
    return certs.Certs(tmp_path_factory.mktemp("certs"))


@pytest.fixture(scope="module")
def tls_origin(tmp_path_factory, trust):
    """An origin with a port that speaks TLS, `good`, and a second plain one."""
    server = origin_server.Origin(tmp_path_factory.mktemp("tls"), {"good": trust.servers["good"]}, more=True).start()
    yield server
    server.stop()


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
    flaky = f"{origin.url}/flaky"  # with 500, because 503 slows the whole host down
    results = j.run({
        "as set": (f"{flaky}/a?fail=9&status=500", {}),
        "fewer": (f"{flaky}/b?fail=9&status=500", {"retry": {"max_attempts": 2}}),
        "more": (f"{flaky}/c?fail=9&status=500", {"retry": {"max_attempts": 99}}),
        "in the end": (f"{flaky}/d?fail=2&status=500", {}),
    })
    assert {name: len(r.attempts) for name, r in results.items()} == {"as set": 5, "fewer": 2, "more": 5, "in the end": 3}
    # The last one: it holds the host back.
    results["the deadline wins"] = j.one(f"{origin.url}/status/503?header=Retry-After:5", retry={"max_attempts": 9})
    assert len(results["the deadline wins"].attempts) == 1
    for name, r in results.items():
        waits = [a.backoff_ms for a in r.attempts]
        assert waits[-1] == 0 and all(0 <= wait <= min(60, 20 * 2 ** i) for i, wait in enumerate(waits)), (name, waits)
        assert [a.status for a in r.attempts[:-1]] == [500] * (len(r.attempts) - 1)
        assert r.end_at_ms - r.start_at_ms >= sum(waits)
    assert j.ending(results["in the end"]) == "OK"
    assert {j.ending(r) for name, r in results.items() if name != "in the end"} == {"HTTP_ERROR HTTP_STATUS"}
    assert results["the deadline wins"].retry_after_ms == 5000 and results["the deadline wins"].error.retryable


# --- secrets ---

SECRETS = ("t0ken-of-the-api", "c00kie-of-the-api", "pr0xy-passw0rd", "wr0ng-passw0rd")


def secrets_config(token_file, port):
    return f"""
methods = GET POST
[secret "api"]
hosts = *.api.test 127.0.0.1:{port}
header = Authorization: Bearer ${{file:{token_file}}}
header = Cookie: id=c00kie-of-the-api
[secret "elsewhere"]
hosts = elsewhere.test
header = X-Key: c00kie-of-the-api
[host "own.api.test"]
secret = api
[host "not.test"]
secret = api
"""


def assert_no_secret(j, results):
    """Neither in what the daemon says nor in what it publishes, but for what a server sends back in its body."""
    said = j.worker.read_log() + j.worker.health("/status")[1] + str(j.worker.metrics())
    for result in results:
        result.body = b""
        said += str(result)
    assert not [s for s in SECRETS if s in said]


def test_secrets(tls_origin, jobs, tmp_path, trust):
    token = tmp_path / "token"
    token.write_text("t0ken-of-the-api\n")
    plain, other, tls = tls_origin.port, tls_origin.ports["extra"], tls_origin.ports["good"]
    j = jobs(secrets_config(token, plain), tls__ca=trust.ca)
    here = f"http://127.0.0.1:{plain}"
    api = {"secret_ref": "api"}

    def hop(to, start=here):
        return f"{start}/redirect-to?url=" + quote(to, safe="")

    results = j.run({
        "by the job": (f"{here}/echo", api),
        "posted": (f"{here}/echo", {**api, "method": "POST", "body": b"x"}),
        "by a name": (f"http://a.api.test:{other}/echo", api),
        "by the host's section": (f"http://own.api.test:{plain}/echo", {}),
        "in place of the job's own": (f"{here}/echo", {**api, "headers": [{"name": "authorization", "value": b"mine"},
                                                                        {"name": "X-Mine", "value": b"1"}]}),
        "a hop at home": (hop("/echo"), api),
        "a hop to another port": (hop(f"http://a.api.test:{other}/echo"), api),
        "a hop to another scheme": (hop(f"https://127.0.0.1:{tls}/echo"), api),
        "a hop to where its section has one": (hop(f"http://own.api.test:{plain}/echo"), {}),
        "there and back": (hop(hop(f"{here}/echo", f"http://127.0.0.1:{other}")), api),
        "not for this section's host": (f"http://not.test:{plain}/echo", {}),
        "no secret asked for": (f"{here}/echo", {}),
        "tried again": (f"{here}/flaky/secret?fail=1", api),
        "not for this host": (f"{here}/echo", {"secret_ref": "elsewhere"}),
        "not for this port": (f"http://127.0.0.1:{other}/echo", api),
        "unknown": (f"{here}/echo", {"secret_ref": "nothing"}),
    })
    assert {name: j.ending(r) for name, r in results.items() if j.ending(r) != "OK"} == {
        "not for this host": "BLOCKED_POLICY SECRET_HOST", "not for this port": "BLOCKED_POLICY SECRET_HOST",
        "unknown": "BLOCKED_POLICY SECRET_UNKNOWN"}
    got = {name: (seen(r)[1].get("authorization"), seen(r)[1].get("cookie")) for name, r in results.items() if r.body[:1] == b"{"}
    with_secret, without = ("Bearer t0ken-of-the-api", "id=c00kie-of-the-api"), (None, None)
    assert {name for name, what in got.items() if what == with_secret} == {
        "by the job", "posted", "by a name", "by the host's section", "in place of the job's own", "a hop at home"}
    assert all(what in (with_secret, without) for what in got.values())
    assert seen(results["in place of the job's own"])[1]["x-mine"] == "1"
    assert len(results["tried again"].attempts) == 2

    # As docs/schemas.md says it.
    job = {"job_id": "submitted", "url": f"{here}/echo", "method": "POST", "body": "eyJpZCI6IDF9", "secret_ref": "api",
           "headers": [{"name": "Content-Type", "value": "YXBwbGljYXRpb24vanNvbg=="}]}
    argv = [worker.build_dir() / "gatherctl", "submit", "-b", j.topics.bootstrap, "-t", j.topics.name("jobs"), json.dumps(job)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, timeout=60)
    j.reader.until(len(j.reader.records) + 1)
    method, headers, body = seen(j.reader.results()[-1])
    assert (method, body, headers["content-type"]) == ("POST", '{"id": 1}', "application/json")
    assert headers["authorization"] == "Bearer t0ken-of-the-api"

    # Live: a file that changed, then a secret that went; a file that is not there changes nothing.
    token.write_text("t0ken-two")
    reload(j, "settings reloaded")
    assert seen(j.one(f"{here}/echo", **api))[1]["authorization"] == "Bearer t0ken-two"
    token.unlink()
    reload(j, "settings not reloaded")
    assert seen(j.one(f"{here}/echo", **api))[1]["authorization"] == "Bearer t0ken-two"
    j.worker.config.write_text("methods = GET\n")
    reload(j, "settings reloaded")
    assert j.ending(j.one(f"{here}/echo", **api)) == "BLOCKED_POLICY SECRET_UNKNOWN"
    assert_no_secret(j, results.values())
    assert "t0ken-two" not in j.worker.read_log()


def reload(j, said):
    n = j.worker.read_log().count(said)
    j.worker.signal(signal.SIGHUP)
    proc.wait_until(lambda: j.worker.read_log().count(said) > n, 30, said, j.worker.process)


BROKEN = """
[secret "a"]
hosts = a.test
header = Host: t0ken-of-the-api
header = t0ken-of-the-api
t0ken-of-the-api
header = X-Key: ${file:/nowhere/at/all} t0ken-of-the-api
t0ken-of-the-api = 1
header = X-Key: t0ken-of-the-api\x01
[proxy "p"]
url = http://user:pr0xy-passw0rd@127.0.0.1:1
user = u
password = pr0xy-passw0rd\x01
"""


def test_settings_that_are_wrong_do_not_show_secrets(tmp_path):
    (tmp_path / "broken.conf").write_text(BROKEN)
    done = subprocess.run([worker.build_dir() / "gatherd", "-c", tmp_path / "broken.conf", "--check"], capture_output=True, text=True)
    assert done.returncode == 2
    lines = {int(n) for n in re.findall(r"broken\.conf:(\d+): ", done.stderr)}
    assert lines >= {4, 5, 6, 7, 8, 9, 11, 13}, done.stderr
    assert not [s for s in SECRETS if s in done.stdout + done.stderr]


# --- proxies ---

USERS = {"ann": "pr0xy-passw0rd", "bob": "pr0xy-passw0rd"}


@pytest.fixture
def proxy_servers(trust):
    servers = {"http": proxies.Proxy("http", USERS), "https": proxies.Proxy("http", USERS, trust.servers["good"]),
               "socks": proxies.Proxy("socks5", USERS), "open": proxies.Proxy("socks5"),
               "expired": proxies.Proxy("http", None, trust.servers["expired"])}
    for server in servers.values():
        server.start()
    yield servers
    for server in servers.values():
        server.stop()


def proxies_config(servers, password_file):
    ports = {name: server.port for name, server in servers.items()}
    sections = {
        "http": f"http://127.0.0.1:{ports['http']}\nuser = ann\npassword = ${{file:{password_file}}}",
        "http-bob": f"http://127.0.0.1:{ports['http']}\nuser = bob\npassword = ${{file:{password_file}}}",
        "wrong": f"http://127.0.0.1:{ports['http']}\nuser = bob\npassword = wr0ng-passw0rd",
        "named": f"http://proxy.test:{ports['http']}\nuser = ann\npassword = ${{file:{password_file}}}",
        "https": f"https://proxy.origin.test:{ports['https']}\nuser = ann\npassword = ${{file:{password_file}}}",
        "socks": f"socks5h://127.0.0.1:{ports['socks']}\nuser = bob\npassword = ${{file:{password_file}}}",
        "open": f"socks5://proxy.test:{ports['open']}",
        "expired": f"https://127.0.0.1:{ports['expired']}",
        "nobody": f"http://127.0.0.1:{proc.free_port()}",
        "nxdomain": "http://nx.test:3128",
    }
    text = "".join(f'[proxy "{name}"]\nurl = {url}\n' for name, url in sections.items())
    return text + f"""
[secret "api"]
hosts = *.test *.origin.test
header = Authorization: Bearer t0ken-of-the-api
[host "by-section.test"]
proxy = open
"""


def test_proxies(tls_origin, jobs, proxy_servers, trust, tmp_path):
    password = tmp_path / "password"
    password.write_text("pr0xy-passw0rd\n")
    plain, tls = tls_origin.port, tls_origin.ports["good"]
    j = jobs(proxies_config(proxy_servers, password), tls__ca=trust.ca, retry__max_attempts=1, fetch__timeout="5s")

    def through(name, url, **more):
        return url, {"proxy_ref": name, **more}

    # Names that only the proxies know: gatherd asks for none of them.
    good = {name: through(name, f"http://only-{name}.test:{plain}/echo", secret_ref="api")
            for name in ("http", "http-bob", "named", "https", "socks", "open")}
    good |= {f"{name}, tls": through(name, f"https://only-{name}.origin.test:{tls}/echo", secret_ref="api")
             for name in ("http", "http-bob", "named", "https", "socks", "open")}
    good["by its section"] = (f"http://by-section.test:{plain}/echo", {})
    good["an address"] = through("socks", f"http://127.0.0.1:{plain}/echo")
    good["posted"] = through("http", f"http://posted.test:{plain}/echo", secret_ref="api")
    good["redirected"] = through("open", f"http://first.test:{plain}/redirect-to?url=" + quote(f"http://second.test:{plain}/echo"))
    results = j.run(good)
    assert {name: j.ending(r) for name, r in results.items() if j.ending(r) != "OK"} == {}
    for name, r in results.items():
        kept = name not in ("by its section", "an address", "redirected")
        assert (seen(r)[1].get("authorization") == "Bearer t0ken-of-the-api") == kept, name
        assert "proxy-authorization" not in seen(r)[1] and r.remote_ip == "127.0.0.1"
    asked = {name: server.asked for name, server in proxy_servers.items()}
    assert ("ann", "GET", f"only-http.test:{plain}") in asked["http"]
    assert ("bob", "CONNECT", f"only-http-bob.origin.test:{tls}") in asked["http"]
    assert ("ann", "CONNECT", f"only-https.origin.test:{tls}") in asked["https"]
    assert ("bob", "name", f"only-socks.test:{plain}") in asked["socks"] and ("bob", "address", f"127.0.0.1:{plain}") in asked["socks"]
    for host in ("by-section", "first", "second"):
        assert (None, "name", f"{host}.test:{plain}") in asked["open"]
    # What is for the host behind the tunnel does not go to the proxy.
    tunnels = [head for head in proxy_servers["http"].heads if head.startswith("CONNECT ")]
    assert len(tunnels) == 3 and not [head for head in tunnels if "t0ken" in head]

    # One tunnel for two users would be the first one's for both.
    url = f"https://127.0.0.1:{tls}/ok"
    for name in ("http", "http-bob", "http", "http-bob"):
        assert j.ending(j.one(url, proxy_ref=name)) == "OK"
    assert [who for who, _, where in asked["http"] if where == f"127.0.0.1:{tls}"] == ["ann", "bob"]

    bad = j.run({
        "unknown": through("nothing", f"http://a.test:{plain}/ok"),
        "refused": through("wrong", f"https://a.origin.test:{tls}/ok"),
        "not there": through("nobody", f"http://a.test:{plain}/ok"),
        "no such name": through("nxdomain", f"http://a.test:{plain}/ok"),
        "not trusted": through("expired", f"http://a.test:{plain}/ok"),
        "dead, by tunnel": through("http", f"https://dead.test:{tls}/ok"),
        "dead, by socks": through("socks", f"http://dead.test:{plain}/ok"),
        "a denied address": through("http", "http://169.254.169.254/latest"),
        "a denied address, socks": through("socks", "http://10.0.0.1/"),
        "a denied port": through("http", "http://a.test:22/"),
    })
    assert {name: j.ending(r) for name, r in bad.items()} == {
        "unknown": "BLOCKED_POLICY PROXY_UNKNOWN", "refused": "CONNECT PROXY_FAILED", "not there": "CONNECT PROXY_FAILED",
        "no such name": "CONNECT PROXY_FAILED", "not trusted": "CONNECT PROXY_FAILED",
        "dead, by tunnel": "CONNECT CONNECT_FAILED", "dead, by socks": "CONNECT CONNECT_REFUSED",
        "a denied address": "BLOCKED_ADDRESS ADDRESS_DENIED", "a denied address, socks": "BLOCKED_ADDRESS ADDRESS_DENIED",
        "a denied port": "BLOCKED_POLICY PORT_DENIED"}

    # A proxy that is down says nothing about the host: its breaker stays closed. A host that the proxy cannot reach is down.
    def twelve(name, host):
        rows = {f"{name} {i}": through(name, f"http://{host}:{plain}/ok") for i in range(12)}
        return {j.ending(r) for r in j.run(rows).values()}

    assert twelve("nobody", "alive.test") == {"CONNECT PROXY_FAILED"}
    assert j.worker.metric("gatherd_breaker_opened_total") == 0
    assert "CONNECT CONNECT_REFUSED" in twelve("socks", "dead.test")
    assert j.worker.metric("gatherd_breaker_opened_total") >= 1
    assert j.ending(j.one(f"http://alive.test:{plain}/ok", proxy_ref="open")) == "OK"
    assert_no_secret(j, [*results.values(), *bad.values()])


def test_redirect_secret_robots_and_proxy_together(tls_origin, jobs, proxy_servers, tmp_path):
    """Every robots.txt goes the way of the job that needs it, and takes nothing of the job's along."""
    password = tmp_path / "password"
    password.write_text("pr0xy-passw0rd")
    j = jobs(proxies_config(proxy_servers, password), robots="obey")
    port = tls_origin.port
    own = [{"name": "X-Mine", "value": b"mine"}]
    result = j.one(f"http://first.test:{port}/redirect-to?url=" + quote(f"http://second.test:{port}/echo"), proxy_ref="http",
                   secret_ref="api", headers=own)
    assert j.ending(result) == "OK" and len(result.redirects) == 1 and "authorization" not in seen(result)[1]
    asked = [(head.split(" ")[1].split("?")[0].replace(f":{port}", ""), "t0ken" in head, "mine" in head)
             for head in proxy_servers["http"].heads]
    assert asked == [("http://first.test/robots.txt", False, False), ("http://first.test/redirect-to", True, True),
                     ("http://second.test/robots.txt", False, False), ("http://second.test/echo", False, True)]


def test_a_proxy_does_not_open_what_is_closed(origin, jobs, proxy_servers, tmp_path):
    """With the guard as it is by default, the proxy's own address is allowed and nothing else."""
    password = tmp_path / "password"
    password.write_text("pr0xy-passw0rd")
    j = jobs(proxies_config(proxy_servers, password), guard__allow="", retry__max_attempts=1)
    results = j.run({name: (url, {"proxy_ref": "open"}) for name, url in {
        "a name": f"http://a.test:{origin.port}/ok", "loopback": f"{origin.url}/ok", "localhost": f"http://localhost:{origin.port}/ok",
        "below it": f"http://a.localhost:{origin.port}/ok", "by number": f"http://2130706433:{origin.port}/ok"}.items()})
    assert {name for name, r in results.items() if j.ending(r) == "OK"} == {"a name"}
    assert {j.ending(r) for name, r in results.items() if name != "a name"} == {"BLOCKED_ADDRESS ADDRESS_DENIED"}
    assert j.ending(j.one(f"http://a.test:{origin.port}/ok")) == "BLOCKED_ADDRESS ADDRESS_DENIED"
