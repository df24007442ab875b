# shellcheck shell=sh
# common.sh: what bench.sh, count.sh, hostile.sh and stalls.sh have in common; they source it.

# To be called first: a folder `dir` that goes at the end, and with it whatever is in `pids`.
begin() { # TOOL [STATUS_OF_FAILURE]
    tool=$1 failure=${2:-1}
    dir=$(mktemp -d "${TMPDIR:-/tmp}/loadbalancer-$tool-XXXXXX")
    pids=""
    trap finish EXIT
    trap 'exit 130' INT TERM
}

finish() {
    trap - EXIT INT TERM
    for pid in $pids; do
        kill "$pid" 2>/dev/null || true
    done
    wait 2>/dev/null || true
    rm -rf "$dir"
}

fail() {
    echo "$tool: $*" >&2
    exit "$failure"
}

have() {
    [ -x "/usr/sbin/$1" ] || [ -x "/usr/bin/$1" ]
}

# For what runs on a core of its own, with as many descriptors as may be.
need_two_cores() {
    command -v taskset >/dev/null || fail "taskset is not installed (apt install util-linux)"
    [ "$(nproc)" -ge 2 ] || fail "two cores are needed"
    # shellcheck disable=SC3045  # for scripts of bash
    ulimit -n "$(ulimit -Hn)"
}

# Starts a program on a core, with its output in NAME.out and its process id in NAME.id; `first`, words, goes before.
first=""
start() { # CORE NAME COMMAND...
    core=$1 name=$2
    shift 2
    # shellcheck disable=SC2086  # it is words
    (cd "$dir" && exec $first taskset -c "$core" "$@" >"$dir/$name.out" 2>&1) &
    echo $! >"$dir/$name.id"
    pids="$pids $!"
}

# Tries a command until it succeeds; false when it has not for so many tenths of a second.
await() { # TENTHS COMMAND...
    tenths=$1
    shift
    until "$@"; do
        tenths=$((tenths - 1))
        [ "$tenths" -gt 0 ] || return 1
        sleep 0.1
    done
}
