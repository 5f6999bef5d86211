# shellcheck shell=bash
# deps.sh - the Debian and Ubuntu packages that building, testing and a real Kafka broker need. Sourced by ./check and ./quickstart.
#
#   deps_need build|test|kafka|bench...   installs what is missing (as root), or says what is missing and exits 2
#
# Nothing else is asked of the machine: it works on a minimal installation of Debian 12 and 13.

# clang's runtime libraries (libFuzzer, sanitizers) are a package of their own, named after clang's version.
deps_clang_version() {
    case "${VERSION_CODENAME:-}" in
    bookworm) echo 14 ;;
    trixie) echo 19 ;;
    *) LC_ALL=C apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -n 1 ;;
    esac
}

# The JRE is named by version where that version was tried.
deps_jre() {
    case "${VERSION_CODENAME:-}" in
    bookworm) echo openjdk-17-jre-headless ;;
    trixie) echo openjdk-21-jre-headless ;;
    *) echo default-jre-headless ;;
    esac
}

deps_list() {
    case "$1" in
    build)
        echo build-essential cmake ninja-build pkg-config \
            libcurl4-openssl-dev librdkafka-dev libevent-dev libprotobuf-c-dev protobuf-c-compiler protobuf-compiler \
            libc-ares-dev libidn2-dev libjansson-dev libjemalloc-dev uthash-dev libssl-dev
        ;;
    test)
        local clang
        clang=$(deps_clang_version)
        echo libcmocka-dev nginx-light libnginx-mod-http-echo python3 python3-venv ca-certificates valgrind strace openssl \
            clang ${clang:+libclang-rt-$clang-dev} graphviz kcat jq faketime
        ;;
    kafka) echo "$(deps_jre)" maven ca-certificates curl python3 ;;
    bench) echo wrk ;;
    *)
        echo "deps_need: unknown purpose: $1" >&2
        return 2
        ;;
    esac
}

deps_missing() {
    local purpose pkg list
    for purpose in "$@"; do
        list=$(deps_list "$purpose") || return 2
        for pkg in $list; do
            [ "$(dpkg-query -W -f '${db:Status-Status}' "$pkg" 2>/dev/null || true)" = installed ] || echo "$pkg"
        done
    done | sort -u
}

# nginx's package starts a server on port 80, which the tests have no use for: while we install, no service is started.
deps_install() {
    local log=$1 policy=/usr/sbin/policy-rc.d made=no rc=0
    shift
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        made=yes
    fi
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } \
        >"$log" 2>&1 </dev/null || rc=$?
    if [ "$made" = yes ]; then rm -f "$policy"; fi
    return "$rc"
}

deps_need() {
    local missing log
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        echo "note: not a Debian or Ubuntu machine, so packages are not checked: README.md lists the libraries" >&2
        return 0
    fi
    # shellcheck disable=SC1091
    local VERSION_CODENAME="" && . /etc/os-release
    # shellcheck disable=SC2046
    missing=$(deps_missing "$@" | tr '\n' ' ')
    missing=${missing% }
    if [ -z "$missing" ]; then return 0; fi
    if [ "$(id -u)" -ne 0 ]; then
        {
            echo "missing packages: $missing"
            echo "install them with:"
            echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends $missing"
        } >&2
        exit 2
    fi
    echo "installing: $missing"
    log=$(mktemp)
    # shellcheck disable=SC2086
    if ! deps_install "$log" $missing; then
        tail -n 30 "$log" >&2
        echo "error: apt-get failed; its whole output is in $log" >&2
        exit 1
    fi
    rm -f "$log"
}
