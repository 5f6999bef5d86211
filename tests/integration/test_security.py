"""The broker's side of security: SASL_SSL with SCRAM, and no rights but those of docs/security.md, on a broker that enforces them."""

import re
import subprocess
import time
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka.admin import AclBinding, AclBindingFilter, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

import certs
import gatherctl
import kafka
import proc
import topics as topics_client
import worker
from gatherctl import ctl, environment

DOC = worker.ROOT / "docs/security.md"
PASSWORDS = {"gatherd": "worker's own 1", "submitter": "submit-2", "reader": "read-3", "replayer": "again-4"}
SCRAM_SINCE = (2, 6, 1)
KINDS = {"--topic": ResourceType.TOPIC, "--group": ResourceType.GROUP, "--transactional-id": ResourceType.TRANSACTIONAL_ID}
TOPICS = {"jobs": "jobs", "results": "results", "dead-letters": "dead"}


def library(env):
    """The version of librdkafka that gatherd runs on."""
    done = subprocess.run([worker.build_dir() / "gatherd", "--version"], env=environment(**env), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True)
    found = re.search(r"librdkafka (\d+)\.(\d+)\.(\d+)", done.stdout)
    return tuple(map(int, found.groups())) if found else None


@pytest.fixture(scope="module")
def scram():
    """An environment in which gatherd's librdkafka can do SCRAM with Kafka 4: the system's, or the one of the Python client."""
    carried = sorted(Path(confluent_kafka.__file__).parents[1].glob("confluent_kafka.libs/librdkafka*.so*"))
    for env in [{}, *({"LD_PRELOAD": str(path)} for path in carried)]:
        if (library(env) or (0,)) >= SCRAM_SINCE:
            return env
    pytest.skip("no librdkafka here can do SCRAM with Kafka 4")


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    """A broker that allows nobody anything, and looks each second for dead transactions."""
    dir = tmp_path_factory.mktemp("secure")
    made = certs.Certs(dir / "certs")
    b = kafka.SecureBroker(dir / "kafka", made.servers["good"], PASSWORDS,
                           **{"transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000})
    b.ca = made.ca
    b.start()
    yield b
    b.stop()


class Rights:
    """The ACLs of the docs' lines for one test's topics and group."""

    def __init__(self, t):
        self.t = t

    def binding(self, user, what):
        """`--operation Read --topic jobs`, as kafka-acls.sh takes it."""
        operation, kind, name = re.fullmatch(r"--operation (\w+) (--\S+) (\S+?)(?: --resource-pattern-type prefixed)?", what).groups()
        is_prefix = what.endswith("prefixed")
        # Ours are called otherwise, so that each test has its own.
        name = self.t.name(TOPICS[name]) if kind == "--topic" else name.replace("gatherd", self.t.prefix)
        pattern = ResourcePatternType.PREFIXED if is_prefix else ResourcePatternType.LITERAL
        operation = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation).upper()
        return AclBinding(KINDS[kind], name, pattern, f"User:{user}", "*", AclOperation[operation], AclPermissionType.ALLOW)

    def give(self, user, *whats):
        for future in self.t.admin.create_acls([self.binding(user, what) for what in whats]).values():
            future.result(30)

    def take(self, user, what):
        b = self.binding(user, what)
        filter = AclBindingFilter(b.restype, b.name, b.resource_pattern_type, b.principal, b.host, b.operation, b.permission_type)
        [future] = self.t.admin.delete_acls([filter]).values()
        assert len(future.result(30)) == 1


@pytest.fixture
def rights(secure, topics):
    """Of topics jobs, results and dead letters with two partitions."""
    t = topics(secure.bootstrap, partitions=2)
    t.make("dead", 2)
    return Rights(t)


def documented(delivery):
    """What the docs say a worker needs: the three lines, then the further ones, without what is for older brokers."""
    text = DOC.read_text()
    least = re.findall(r"^    kafka-acls\.sh .* --allow-principal User:gatherd (--operation .*)$", text, re.M)
    further = dict(re.findall(r"^\| (.+?) \| `(--operation .+?)`", text, re.M))
    assert len(least) == 3
    return [*least, further["`dead_letter.topic`"], *([further["`delivery = exactly_once`"]] if delivery == "exactly_once" else [])]


def documented_for(who):
    [row] = re.findall(rf"^\| [^|]*{who}[^|]* \|(.*)\|$", DOC.read_text(), re.M)
    return re.findall("`(--operation .+?)`", row)


def login(secure, user, mechanism="SCRAM-SHA-512"):
    return {"kafka.bootstrap.servers": secure.secure, "kafka.security.protocol": "SASL_SSL", "kafka.ssl.ca.location": secure.ca,
            "kafka.sasl.mechanism": mechanism, "kafka.sasl.username": user}


def password(user):
    return {"GATHERD_KAFKA_SASL_PASSWORD": PASSWORDS[user]}


def usual():
    """What the system's librdkafka can."""
    return "SCRAM-SHA-512" if library({}) >= SCRAM_SINCE else "PLAIN"


def options(rights, secure, delivery, mechanism="SCRAM-SHA-512"):
    t = rights.t
    return {**t.options(kafka__session__timeout__ms=6000, kafka__transaction__timeout__ms=5000, delivery=delivery,
                        dead_letter__topic=t.name("dead")), **login(secure, "gatherd", mechanism)}


def arguments(options):
    return [word for key, value in options.items() for word in ("-o", f"{key}={value}")]


def check(options, env=None):
    """(exit status, what it printed) of gatherd --check."""
    argv = [worker.build_dir() / "gatherd", *arguments(options), "--check"]
    done = subprocess.run(argv, env=environment(**password("gatherd"), **(env or {})), stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def ledger(jobs, reader):
    return topics_client.Ledger(jobs, [r.result for r in reader.to_end()])


deliveries = pytest.mark.parametrize("delivery", [pytest.param("at_least_once", marks=pytest.mark.long), "exactly_once"])


@deliveries
def test_all_is_done_with_the_rights_of_the_docs_and_no_others(secure, scram, rights, nginx, start_worker, delivery):
    t = rights.t
    rights.give("gatherd", *documented(delivery))
    rights.give("submitter", *documented_for("who puts jobs in"))
    rights.give("reader", *documented_for("who reads results"))
    opts = options(rights, secure, delivery)
    w = start_worker(opts, env={**password("gatherd"), **scram}).wait_ready()

    urls = "".join(f"{nginx.url}/1k?{i}\n" for i in range(100)) + "not a URL\n"
    done = ctl("submit", *arguments(login(secure, "submitter")), "--topic", t.name("jobs"), "--no-check", stdin=urls,
               env={**password("submitter"), **scram})
    assert done.returncode == 0, done.stderr
    reader, dead = t.reader(), t.reader("dead")
    reader.until(101)
    done = ctl("tail", *arguments(login(secure, "reader")), "--topic", t.name("results"), "-B", "--format", "json",
               env={**password("reader"), **scram})
    assert done.returncode == 0 and done.stdout.count("\n") == 101, done
    w.stop()
    assert len(reader.to_end()) == 101 and len(dead.to_end()) == 1
    assert {t.outcome(r) for r in reader.results()} == {"OK", "BAD_JOB"}
    assert "unhealthy" not in w.read_log() and "uthoriz" not in w.read_log()
    # What was committed is not done again.
    w.start().wait_ready()
    jobs = t.produce_jobs([f"{nginx.url}/1k"] * 20, 2)
    reader.until(121)
    w.stop()
    assert len(reader.to_end()) == 121


@pytest.mark.long
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_check_names_each_right_that_is_missing(secure, rights, delivery):
    opts = {**options(rights, secure, delivery, usual()), "instance": ""}
    needed = documented(delivery)
    rights.give("gatherd", *needed)
    proc.wait_until(lambda: check(opts)[0] == 0, 30, "all rights are there")
    for what in needed:
        rights.take("gatherd", what)
        b = rights.binding("gatherd", what)
        said = {"--topic": f"on topic {b.name} ", "--group": f"on group {b.name} ", "--transactional-id": f"begin with {b.name} "}
        [text] = [text for kind, text in said.items() if kind in what]
        right = re.compile(rf"FAILED  acl: this user lacks {b.operation.name.title()} .*{re.escape(text)}")
        code, out = proc.wait_until(lambda: (lambda done: done if done[0] else None)(check(opts)), 30, f"{what} is missed")
        assert code == 1 and right.search(out), (what, out)
        # Without Read on the group the broker says nothing of topics.
        assert len(re.findall("FAILED  acl: ", out)) == 1, (what, out)
        rights.give("gatherd", what)


def tried(w):
    """How often something was begun that was in vain."""
    return w.metric("gatherd_results_reproduced_total") + w.metric("gatherd_transactions_aborted_total")


DENIED = [("--operation Write --topic results", "exactly_once"), ("--operation Write --topic results", "at_least_once"),
          ("--operation Write --topic dead-letters", "at_least_once"), ("--operation Write --topic dead-letters", "exactly_once"),
          ("--operation Read --topic jobs", "exactly_once"), ("--operation Read --topic jobs", "at_least_once"),
          ("--operation Read --group gatherd", "exactly_once"), ("--operation Read --group gatherd", "at_least_once"),
          ("--operation Write --transactional-id gatherd- --resource-pattern-type prefixed", "exactly_once")]


@pytest.mark.parametrize("on", ["system", pytest.param("newer", marks=pytest.mark.long)])
@pytest.mark.parametrize("what,delivery", [
    pytest.param(what, delivery, id=f"{'-'.join(what.split()[1:4:2])}-{delivery}", marks=[] if i == 0 else [pytest.mark.long])
    for i, (what, delivery) in enumerate(DENIED)])
def test_a_right_that_is_taken_away_is_named_and_work_goes_on_when_it_is_back(secure, rights, nginx, start_worker, request, what,
                                                                              delivery, on):
    env, mechanism = ({}, usual()) if on == "system" else (request.getfixturevalue("scram"), "SCRAM-SHA-512")
    t = rights.t
    rights.give("gatherd", *documented(delivery))
    w = start_worker(options(rights, secure, delivery, mechanism), env={**password("gatherd"), **env}).wait_ready()
    reader = t.reader()
    jobs = t.produce_jobs([f"{nginx.url}/1k"] * 20, 2, "before")
    reader.until(20)

    rights.take("gatherd", what)
    jobs |= t.produce_jobs([f"{nginx.url}/1k"] * 50, 2, "denied")
    t.produce(b"not a URL", partition=0)
    t.flush()
    b = rights.binding("gatherd", what)
    kind = {ResourceType.TOPIC: "topic", ResourceType.GROUP: "group", ResourceType.TRANSACTIONAL_ID: "transactional id"}[b.restype]
    named = re.compile(rf"^not_allowed: .*{b.operation.name.title()} on {kind}.* {re.escape(b.name)}")
    proc.wait_until(lambda: named.search(w.health("/healthz")[1]), 60, f"the right is named, not {w.health('/healthz')}", w.process)
    assert w.health("/readyz")[0] == 503
    assert w.health("/livez")[0] == 200
    proc.wait_until(lambda: w.health("/healthz")[0] == 503, 1, "no flicker")
    lines, tries = len(w.read_log().splitlines()), tried(w)
    time.sleep(2)
    assert tried(w) - tries < 1000, "it is tried again and again"

    rights.give("gatherd", what)
    proc.wait_until(lambda: w.health("/healthz")[0] == 200, 60, "well again", w.process)
    reader.until(71)
    w.stop()
    assert lines < 150, "the log is flooded"
    results = [r.result for r in reader.to_end()]
    bad = [r for r in results if t.outcome(r) == "BAD_JOB"]
    good = topics_client.Ledger(jobs, [r for r in results if t.outcome(r) != "BAD_JOB"])
    if delivery == "exactly_once":
        good.assert_exact()
    good.assert_nothing_lost()
    assert (len(bad) == 1 or delivery == "at_least_once") and {t.outcome(r) for r in results} == {"OK", "BAD_JOB"}


@pytest.mark.long
def test_one_that_may_not_log_in_says_why(secure, scram, rights, tmp_path):
    opts = options(rights, secure, "at_least_once")
    other = certs.Certs(tmp_path / "other")
    code, out = check({**opts, "kafka.sasl.password": "wrong"}, scram)
    assert code == 1 and "FAILED  broker: " in out and "invalid credentials" in out, out
    code, out = check({**opts, "kafka.ssl.ca.location": other.ca}, scram)
    assert code == 1 and "FAILED  broker: " in out and "certificate verify failed" in out, out
    # The system's own library.
    code, out = check(opts, {})
    assert ("invalid credentials" in out) == ("below 2.6.1 cannot log in to Kafka 4 with SCRAM" in out) == (library({}) < SCRAM_SINCE), out
    code, out = check({**opts, "kafka.sasl.mechanism": "PLAIN"}, {})
    assert code == 1 and "ok      broker: 1 in the cluster" in out, out


@pytest.mark.long
def test_gatherctl_names_the_right_that_is_missing(secure, rights):
    t = rights.t

    def refused(*args, user="submitter"):
        done = ctl(*args, *arguments(login(secure, user, usual())), env=password(user))
        assert done.returncode == 1, done
        return done.stderr + done.stdout

    t.produce(b"", partition=0, kind="results")  # of an empty topic nothing is read
    t.flush()
    submit = ("submit", "https://example.com/", "--topic", t.name("jobs"))
    tail = ("tail", "-B", "--topic", t.name("results"))
    hidden = "or the ACLs (docs/security.md) do not show it to this user"
    assert hidden in refused(*submit) and hidden in refused(*tail, user="reader")
    rights.give("submitter", "--operation Describe --topic jobs")
    rights.give("reader", "--operation Describe --topic results")
    lacks = "this user lacks {} on topic {}: docs/security.md"
    proc.wait_until(lambda: lacks.format("Write", t.name("jobs")) in refused(*submit), 30, "Write is named")
    proc.wait_until(lambda: lacks.format("Read", t.name("results")) in refused(*tail, user="reader"), 30, "Read is named")
    made = refused("topics", "-o", f"jobs.topic={t.prefix}.new", "-o", f"results.topic={t.name('results')}")
    assert "This user lacks Create on it" in made, made


@pytest.mark.long
def test_gatherctl_has_enough_with_the_rights_of_the_docs(secure, rights, nginx, start_worker, tmp_path):
    t = rights.t
    rights.give("gatherd", *documented("at_least_once"))
    w = start_worker(options(rights, secure, "at_least_once", usual()), env=password("gatherd")).wait_ready()
    t.produce_jobs([f"{nginx.url}/1k"] * 10, 2)
    t.produce(b"not a URL", partition=0)
    t.flush()
    reader = t.reader()
    reader.until(11)

    def does(user, *args):
        settings = {**options(rights, secure, "at_least_once", usual()), "kafka.sasl.username": user}
        done = ctl(*args, *arguments(settings), env=password(user))
        assert done.returncode == 0, done
        return done.stdout

    rights.give("reader", *documented_for("gatherctl offsets"), *documented_for("gatherctl dlq"))
    proc.wait_until(lambda: '"backlog":0' in does("reader", "offsets", "--json").replace(" ", ""), 60, "all is done")
    assert does("reader", "dlq", "list", "--json").count("\n") == 1
    does("reader", "dlq", "redrive")
    reader.until(12)
    rights.give("replayer", *(what for what in documented("at_least_once") if "--group" not in what), *documented_for("gatherctl replay"))
    does("replayer", "replay", "--from", "earliest", "-o", "delivery=exactly_once")
    reader.until(24)
    rights.give("submitter", *documented_for("gatherctl feed"))
    (tmp_path / "sources").write_text(f"{nginx.url}/1k\n")
    feed = proc.spawn(gatherctl.argv("feed", "--every", "1s", *arguments({**options(rights, secure, "at_least_once", usual()),
                                     "kafka.sasl.username": "submitter"}), tmp_path / "sources"), tmp_path / "feed.log",
                      env=environment(**password("submitter")))
    reader.until(26)
    assert proc.stop(feed) == 0, proc.tail(tmp_path / "feed.log")
    w.stop()
    does("reader", "offsets", "reset", "--to", "earliest", "--yes")
