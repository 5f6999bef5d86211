"""Writes docs/outcomes.md from worker/err.def: every outcome and error code that a result may carry."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAD = """# Outcomes and error codes

Made by `tests/layers/docs.sh` from `worker/err.def`; do not edit.

Every job ends in one outcome. Route on `outcome` (also in the record header `gatherd-outcome`); `error.code` says more and never changes
its name. `error.retryable` says whether the same job may succeed later; gatherd itself has already tried `retry.max_attempts` times.

| outcome | when |
|---|---|
| OK | 2xx, or a status that the job's `expect` names |
| NOT_MODIFIED | 304 to the job's validators |
"""
NOTE = """
`HTTP_STATUS` is tried again for 408, 425, 429 and 5xx but 501 and 505. `HOST_DOWN` has the outcome of the failure that opened the
breaker. INTERNAL names a bug of ours: please report it.

## Error codes

| outcome | code | tried again | meaning |
|---|---|---|---|
"""


def main(path):
    rows = re.findall(r'^ERR\((\w+), (\w+), (true|false), "(.*)"\)', (ROOT / "worker" / "err.def").read_text(), re.M)
    rows = [r for r in rows if r[1] != "INTERNAL" or r[0] == "INTERNAL"]
    proto = (ROOT / "proto/gatherd/v1/result.proto").read_text()
    outcomes = re.findall(r"^  OUTCOME_(\w+) = \d+;(?: *// (.*))?$", proto, re.M)
    order = [name for name, _ in outcomes]
    text = HEAD
    for name, comment in outcomes:
        if name not in ("UNSPECIFIED", "OK", "NOT_MODIFIED"):
            text += f"| {name} | {comment or 'see the codes below'} |\n"
    text += NOTE
    for code, outcome, retryable, meaning in sorted(rows, key=lambda r: order.index(r[1])):
        text += f"| {outcome} | `{code}` | {'yes' if retryable == 'true' else 'no'} | {meaning} |\n"
    Path(path).write_text(text)


main(sys.argv[1])
