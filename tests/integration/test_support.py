"""The tests' own tools: a broker, origin or client that lies would make every other test worthless."""

import gzip
import http.client
import threading
import time

import pytest

import kafka
import proc
from topics import Ledger


def test_a_broker_keeps_its_records_over_stop_and_kill(own_broker, topics):
    t = topics(own_broker.bootstrap, partitions=2)
    ids = t.produce_jobs([f"http://example.com/{i}" for i in range(100)], partitions=2)
    reader = t.reader("jobs")
    reader.until(100)
    own_broker.restart()
    own_broker.kill()
    assert not kafka.answers(own_broker.port)
    own_broker.start()
    ids |= t.produce_jobs(["http://example.com/"] * 50, partitions=2, prefix="later")
    reader.until(150)
    assert len(reader.to_end()) == 150
    assert {r.key.decode() for r in reader.records} == {r.key.decode() for r in t.reader("jobs").to_end()} == ids
    pid = own_broker.process.pid
    own_broker.stop()
    with pytest.raises(ProcessLookupError):
        proc.os.kill(pid, 0)


@pytest.mark.long
def test_three_nodes_go_on_when_one_is_killed(tmp_path, topics):
    cluster = kafka.Cluster(tmp_path / "cluster", 3)
    try:
        cluster.start()
        t = topics(cluster.bootstrap, partitions=3)
        cluster.brokers[2].kill()
        t.produce_jobs(["http://example.com/"] * 30, partitions=3)
        assert len(t.reader("jobs").until(30)) == 30
    finally:
        cluster.kill()


def get(server, path, headers=None):
    conn = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    conn.request("GET", path, headers=headers or {})
    answer = conn.getresponse()
    return answer.status, answer.read(), answer


def test_the_origin_answers_as_asked(origin):
    assert get(origin, "/ok")[:2] == (200, b"ok\n")
    assert get(origin, "/status/418?header=Retry-After:7")[2].getheader("Retry-After") == "7"
    assert len(get(origin, "/bytes/70000")[1]) == 70000
    assert b'"X-Mine"' in get(origin, "/echo", {"X-Mine": "1"})[1]
    assert get(origin, "/redirect/2")[2].getheader("Location") == "/redirect/1"
    assert get(origin, "/redirect-to?url=http%3A%2F%2Fexample.com%2F")[2].getheader("Location") == "http://example.com/"
    assert gzip.decompress(get(origin, "/gzip/5000")[1]) == bytes(5000)
    assert get(origin, "/trickle?ms=1&n=5")[1] == b"ttttt"
    assert [get(origin, "/flaky/a?fail=2")[0] for _ in range(3)] == [503, 503, 200]
    assert get(origin, "/etag")[0] == 200
    assert get(origin, "/etag", {"If-None-Match": '"v1"'})[0] == 304
    assert get(origin, "/raw?hex=485454502f312e3120323030204f4b0d0a0d0a6869")[1] == b"hi"
    with pytest.raises(http.client.IncompleteRead):
        get(origin, "/short")
    with pytest.raises(ConnectionResetError):
        get(origin, "/reset?after=5")
    with pytest.raises(ConnectionResetError):
        get(origin, "/reset")


def test_the_origin_counts_what_is_under_way(origin):
    threads = [threading.Thread(target=get, args=(origin, "/delay/1000")) for _ in range(20)]
    for t in threads:
        t.start()
    proc.wait_until(lambda: origin.stats("/delay")["now"] == 20, 10, "20 under way")
    for t in threads:
        t.join()
    assert origin.stats("/delay")["peak"] == 20
    assert origin.stats("/delay")["now"] == 0
    assert sum(origin.stats("*")["starts"].values()) == 20


def test_nginx_answers_with_known_sizes_and_delays(nginx):
    assert len(get(nginx, "/1k")[1]) == 1024
    assert len(get(nginx, "/64k")[1]) == 65536
    start = time.monotonic()
    assert get(nginx, "/delay/100")[:2] == (200, b"ok\n")
    assert time.monotonic() - start >= 0.099


def test_the_ledger_tells_lost_doubled_and_unexpected(protos):
    results = [protos[1].FetchResult(job_id=i) for i in ("a", "b", "b", "x")]
    ledger = Ledger({"a", "b", "c"}, results)
    assert (ledger.lost, ledger.doubled, ledger.unexpected) == ({"c"}, {"b"}, {"x"})
    with pytest.raises(AssertionError):
        ledger.assert_exact()
