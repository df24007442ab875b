#!/bin/sh
# chaos.sh BUILD [ARGUMENT...]: plays all scenarios of tests/chaos with the load balancer, HAProxy and nginx, and writes docs/chaos.md
# from what came out: what stands in tests/chaos/method.md, the versions, and the table. With other arguments than --only "" --skip "" the
# table only goes to stdout.
set -eu

build=$(cd "$1" && pwd)
shift
dir=$(mktemp -d "${TMPDIR:-/tmp}/loadbalancer-chaos-XXXXXX")
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

whole=yes
for argument in "$@"; do
    case $argument in
    --only | --skip | "") ;;
    *) whole=no ;;
    esac
done

version_of() { # NAME PROGRAM: "HAProxy 2.6.12"
    if [ -x "$2" ]; then
        echo "; $1 $("$2" -v 2>&1 | sed -n '1s/^[^0-9]*\([0-9.]*\).*/\1/p')"
    fi
}

status=0
TMPDIR=$dir LB_BUILD=$build "$build/chaos/chaos" --table "$dir/table" "$@" || status=$?
[ -s "$dir/table" ] || exit "$status"
if [ "$whole" = no ]; then
    cat "$dir/table"
    exit "$status"
fi
{
    cat tests/chaos/method.md
    printf '\n## The last run\n\n'
    echo "$("$build/loadbalancer" --version)$(version_of HAProxy /usr/sbin/haproxy)$(version_of nginx /usr/sbin/nginx); Linux $(uname -r | cut -d. -f1,2), $(nproc) cores, $(date -u +%Y-%m-%d)."
    echo
    cat "$dir/table"
} >"$dir/chaos.md"
mv "$dir/chaos.md" docs/chaos.md
echo "The table is in docs/chaos.md."
exit "$status"
