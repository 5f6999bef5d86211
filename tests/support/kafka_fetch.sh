#!/usr/bin/env bash
# Fetches the broker's jars with Maven, once, into a cache outside the tree, and prints the directory they are in.
# A run that is cut short leaves nothing half done: the jars are copied beside the cache and renamed into place.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/gatherd
dest=$cache/kafka-4.1.0

if [ -d "$dest" ]; then
    echo "$dest"
    exit 0
fi

mkdir -p "$cache"
exec 9>"$cache/kafka.lock"
flock 9
if [ ! -d "$dest" ]; then
    tmp=$(mktemp -d "$cache/kafka-4.1.0.tmp.XXXXXX")
    trap 'rm -rf "$tmp"' EXIT
    echo "fetching: Kafka 4.1.0 (46 jars, 43 MB, once)" >&2
    if ! mvn -q -B -f "$here/../broker/pom.xml" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$tmp/libs" >"$cache/kafka-fetch.log" 2>&1; then
        tail -n 30 "$cache/kafka-fetch.log" >&2
        echo "error: Maven could not fetch the broker; the whole output is in $cache/kafka-fetch.log" >&2
        exit 1
    fi
    chmod 755 "$tmp"
    mv "$tmp" "$dest"
fi
echo "$dest"
