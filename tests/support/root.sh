#!/usr/bin/env bash
# A Debian of another release in a directory, and the suite in a fresh clone inside it. As root; needs debootstrap.
#
#   root.sh make DIR [SUITE]      a minimal Debian SUITE (default: trixie) from $DEBIAN_MIRROR
#   root.sh run DIR [COMMAND]     what is committed, cloned into DIR/root/gatherd; COMMAND there (default: ./check)
#
# A machine that needs a proxy, a mirror or certificates of its own puts them into DIR between the two. Caches (jars, Python
# environment, packages) stay in DIR: the next run is quicker. What was mounted, and every process, ends with the command.
set -euo pipefail

usage() {
    sed -n '2,/^set -e/{/^#/s/^# \{0,1\}//p}' "$0"
}

[ $# -ge 2 ] || {
    usage >&2
    exit 2
}
what=$1
dir=$2
[ "$(id -u)" = 0 ] || {
    echo "root.sh: only root may do this" >&2
    exit 1
}

# Inside the new namespaces: mounts that nobody else sees, and process 1 of its own.
enter() {
    mount --make-rprivate /
    mount -t proc proc "$dir/proc"
    mount --rbind /dev "$dir/dev"
    exec chroot "$dir" /usr/bin/env -i HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        /bin/bash -c "cd /root/gatherd && $1"
}

case "$what" in
make)
    debootstrap --variant=minbase --include=ca-certificates,git "${3:-trixie}" "$dir" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
    ;;
run)
    tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
    cp /etc/resolv.conf "$dir/etc/resolv.conf"
    rm -rf "$dir/root/gatherd"
    git clone --quiet "$tree" "$dir/root/gatherd"
    unshare --mount --pid --fork --kill-child "$0" enter "$dir" "${3:-./check}"
    ;;
enter) enter "$3" ;;
*)
    usage >&2
    exit 2
    ;;
esac
