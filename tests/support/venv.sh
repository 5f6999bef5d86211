#!/usr/bin/env bash
# venv.sh [REQUIREMENTS]: makes a Python environment (the tests', when no file is named) once per requirements and Python, in a
# cache outside the tree, and prints its directory.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
requirements=${1:-$here/../requirements.txt}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/gatherd
key=$({ cat "$requirements"; python3 -VV; } | sha256sum | cut -c1-12)
dest=$cache/venv-$key

mkdir -p "$cache"
exec 9>"$cache/venv.lock"
flock 9
# A venv cannot be renamed (its scripts hold its path), so a mark says that it is whole.
if [ ! -e "$dest/.whole" ]; then
    echo "making: Python environment (once)" >&2
    rm -rf "$dest"
    if ! { python3 -m venv "$dest" && "$dest/bin/pip" install --disable-pip-version-check -r "$requirements"; } \
        >"$cache/venv.log" 2>&1 9>&-; then
        tail -n 30 "$cache/venv.log" >&2
        echo "error: the Python environment could not be made; the whole output is in $cache/venv.log" >&2
        exit 1
    fi
    touch "$dest/.whole"
fi
echo "$dest"
