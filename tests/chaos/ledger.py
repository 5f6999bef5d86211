"""What happened, from the two topics that cannot be argued with: the results, each with the time the broker appended it, and
__consumer_offsets, which still holds every commit that the coordinator took. Judged after the run, so nothing races with it.

A double is *allowed* when all copies but one are at risk from a fault that was injected:

- before(T): a process died, froze or was cut off at T. Its results are at risk when the last commit from before T does not
  cover them, and only those that the broker appended within commit interval + round trip before T. The round trip is this run's
  own: what nearly all (SLOWEST) of its results waited for their commit. So it holds on a slow machine; that results do not wait
  longer than the settings say is asserted apart, by the median.
- after(T): a process that lost its partitions without knowing (frozen, cut off) goes on at T. What it had in flight may still
  come out until it hears from the group.

Every commit is checked, too, whatever was doubled: it covers only what had its result, and never less than the one before."""

import base64
import statistics
import struct
from collections import Counter, defaultdict, namedtuple

COMMIT_INTERVAL_MS = 100
SLOWEST = 0.98
# A commit or a result that was on its way when the process died is still taken.
ON_ITS_WAY_MS = 500

# seen_ms: when a read_committed reader had it, and so what progress is measured by
Copy = namedtuple("Copy", "at_ms instance partition offset seen_ms")
Commit = namedtuple("Commit", "at_ms offset covered")  # covered: bit n = offset n is complete


# --- __consumer_offsets ---

def read_string(data, at):
    (length,) = struct.unpack_from(">h", data, at)
    return data[at + 2:at + 2 + length].decode(), at + 2 + length


def read_compact_string(data, at):
    length = shift = 0
    while True:
        length |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return data[at:at + length - 1].decode(), at + length - 1


def commit_key(key):
    """(group, topic, partition) of a commit's record, None for any other."""
    (version,) = struct.unpack_from(">h", key)
    if version > 1:
        return None
    group, at = read_string(key, 2)
    topic, at = read_string(key, at)
    return group, topic, struct.unpack_from(">i", key, at)[0]


def commit_value(value):
    """(offset, metadata, commit time): versions 3 and, flexible, 4."""
    version, offset = struct.unpack_from(">hq", value)
    assert version in (3, 4), f"OffsetCommitValue version {version}"
    metadata, at = (read_string if version == 3 else read_compact_string)(value, 14)  # 4 bytes: the leader's epoch
    return offset, metadata, struct.unpack_from(">q", value, at)[0]


def decode_set(metadata):
    """The completed set above the commit point as an integer: bit n = offset + n. Parallel Consumer's formats 'o' and 'e'."""
    data = base64.b64decode(metadata)
    if not data:
        return 0
    if data[:1] == b"o":
        (n,) = struct.unpack_from(">i", data, 1)
        return int.from_bytes(data[5:], "little") & ((1 << n) - 1)
    assert data[:1] == b"e", data[:1]
    bits = at = 0
    for i, (run,) in enumerate(struct.iter_unpack(">i", data[1:])):
        if i % 2:
            bits |= ((1 << run) - 1) << at
        at += run
    return bits


def read_commits(records, group, topic):
    """{partition: [Commit]} in the order that the coordinator took them."""
    commits = defaultdict(list)
    for r in records:
        key = commit_key(r.key)
        if key and key[:2] == (group, topic) and r.value:
            offset, metadata, at_ms = commit_value(r.value)
            commits[key[2]].append(Commit(at_ms, offset, ((1 << offset) - 1) | decode_set(metadata) << offset))
    return commits


def bits(n):
    """The set bits of an integer."""
    while n:
        yield (n & -n).bit_length() - 1
        n &= n - 1


# --- the book of one run ---

class Book:
    """sources: {job_id: (partition, offset)}; records: all of the results topic, and when each was seen; commits: see
    read_commits."""

    def __init__(self, sources, records, commits, seen_ms):
        self.sources, self.commits = sources, commits
        self.copies = defaultdict(list)
        for r, at_ms in zip(records, seen_ms):
            source = r.result.source
            copy = Copy(r.timestamp_ms, r.result.worker.instance, source.partition, source.offset, at_ms)
            self.copies[r.result.job_id].append(copy)
        self.lost = sources.keys() - self.copies.keys()
        self.unexpected = self.copies.keys() - sources.keys()
        self.doubled = {i: sorted(c) for i, c in self.copies.items() if len(c) > 1}
        self.by_partition = defaultdict(list)
        for copies in self.copies.values():
            for c in copies:
                self.by_partition[c.partition].append(c)
        for copies in self.by_partition.values():
            copies.sort()
        waits = sorted(self.commit_waits())
        self.commit_ms = statistics.median(waits)
        self.risk_ms = COMMIT_INTERVAL_MS + waits[int(SLOWEST * len(waits))]

    # --- commits ---

    def wrong_commits(self):
        """What no commit may do, as sentences."""
        wrong = []
        for p, commits in sorted(self.commits.items()):
            first, before = self.first_ms(p), 0
            for c in commits:
                gone = list(bits(before & ~c.covered))
                if gone:
                    wrong.append(f"[{p}] at {c.at_ms}: {len(gone)} offsets ({gone[0]}...) were complete and are not any more")
                for offset in bits(c.covered & ~before):
                    result_ms = first.get(offset)
                    if result_ms is None or result_ms > c.at_ms:
                        wrong.append(f"[{p}] at {c.at_ms}: offset {offset} is committed, its result is of {result_ms}")
                before |= c.covered
        return wrong

    def last_commit(self, partition, at_ms):
        return next((c for c in reversed(self.commits[partition]) if c.at_ms <= at_ms), Commit(0, 0, 0))

    def owned(self, instance, at_ms):
        """The partitions whose latest result until then is this process's."""
        latest = {p: next((c for c in reversed(copies) if c.at_ms <= at_ms + ON_ITS_WAY_MS), None)
                  for p, copies in self.by_partition.items()}
        return {p for p, c in latest.items() if c and c.instance == instance}

    def commit_waits(self):
        """For each offset, the milliseconds from its first result to the commit that covers it."""
        waits = []
        for p, commits in self.commits.items():
            first, before = self.first_ms(p), 0
            for c in commits:
                waits += [c.at_ms - first[offset] for offset in bits(c.covered & ~before) if offset in first]
                before |= c.covered
        return waits

    def first_ms(self, partition):
        """{offset: when its first result was appended}."""
        return {c.offset: c.at_ms for c in reversed(self.by_partition[partition])}

    # --- doubles ---

    def is_at_risk(self, copy, risk):
        if risk.instance not in (None, copy.instance):
            return False
        if risk.kind == "after":
            return risk.at_ms <= copy.at_ms <= risk.until_ms
        end_ms = risk.at_ms + ON_ITS_WAY_MS
        is_covered = self.last_commit(copy.partition, end_ms).covered >> copy.offset & 1
        return not is_covered and risk.at_ms - self.risk_ms <= copy.at_ms <= end_ms

    def judge(self, risks):
        """({(fault, before or after): number of doubles it explains}, [sentences about the others])."""
        explained, wrong = Counter(), []
        for job_id, copies in sorted(self.doubled.items()):
            by = [next((r for r in risks if self.is_at_risk(c, r)), None) for c in copies]
            if by.count(None) <= 1:
                risk = next(r for r in by if r)
                explained[risk.fault, risk.kind] += len(copies) - 1
            else:
                wrong.append(self.tell(job_id, copies))
        return explained, wrong

    def tell(self, job_id, copies=()):
        """A lost or doubled job in words that name the mechanism: when was it committed?"""
        p, offset = self.sources[job_id]
        since = next((c.at_ms for c in self.commits[p] if c.covered >> offset & 1), None)
        when = "never committed" if since is None else f"committed at {since}"
        return f"{job_id} [{p}]@{offset}: {', '.join(f'{c.instance} at {c.at_ms}' for c in copies) or 'no result'}; {when}"

    # --- progress ---

    def longest_gap_ms(self):
        times = sorted(c.seen_ms for copies in self.copies.values() for c in copies)
        return max((b - a for a, b in zip(times, times[1:])), default=0)

    def recovery_ms(self, since_ms):
        """From then until every partition that still had work gave a result again; None when none had any."""
        waits = []
        for copies in self.by_partition.values():
            after = [c.seen_ms for c in copies if c.at_ms > since_ms]
            if after:
                waits.append(min(after) - since_ms)
        return max(waits, default=None)

    def takeover_ms(self, instance, at_ms):
        """From the death of a process until the others had done what it had under way: in each of its partitions every offset
        below the highest that had a result, and the next one. None when nothing came after."""
        waits = []
        for p in self.owned(instance, at_ms):
            copies = self.by_partition[p]
            before = {c.offset for c in copies if c.at_ms <= at_ms + ON_ITS_WAY_MS}
            fresh = [c for c in copies if c.offset not in before]
            waits += [c.seen_ms - at_ms for c in fresh if c.offset < max(before)]
            waits += [c.seen_ms - at_ms for c in fresh[:1]]
        return max(waits, default=None)
