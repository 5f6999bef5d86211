#!/usr/bin/env bash
# The generated documents: docs.sh BUILD writes them, docs.sh BUILD --check fails with a diff when one is stale.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$(cd "$1" && pwd)
out=$root/docs
if [ "${2:-}" = --check ]; then
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
fi
"$build/gatherd" --options=markdown >"$out/options.md"
"$build/gatherd" --metrics >"$out/metrics.md"
python3 "$root/tests/layers/outcomes.py" "$out/outcomes.md"
python3 "$root/tests/layers/layers.py" draw "$out/architecture.svg"
if [ "${2:-}" = --check ]; then
    rc=0
    for f in options.md metrics.md outcomes.md architecture.svg; do
        diff -u "$root/docs/$f" "$out/$f" || rc=1
    done
    [ "$rc" -eq 0 ] || echo "stale: run tests/layers/docs.sh BUILD"
    exit "$rc"
fi
