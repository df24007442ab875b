#!/bin/sh
# count.sh BUILD [--record]: instructions of the daemon's own code (not of libraries) for each kind of request, counted
# by callgrind, against those recorded in tests/bench/instructions. Fails when one has grown by more than 3 %; with
# --record it writes them. Each is the difference of two runs of different length, so that start and end do not count;
# requests come one at a time, so that it repeats.
set -eu
. "$(dirname "$0")/common.sh"

build=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
record=$here/instructions
short=200 long=1200

begin count 2
command -v valgrind >/dev/null || fail "valgrind is not installed (apt install valgrind)"

base=$((10000 + $$ % 20000))
"$build/bench/bench_backend" $((base + 1)) $((base + 2)) $((base + 3)) &
pids="$pids $!"
limit='{ "default": { "capacity": 1000000000, "rate_per_sec": 1000000000 } }'
configure() { # RATE_LIMIT
    cat >"$dir/config.json" <<CONFIG
{ "listen": "127.0.0.1:$base",
  "backends": [ { "address": "127.0.0.1:$((base + 1))" }, { "address": "127.0.0.1:$((base + 2))" }, { "address": "127.0.0.1:$((base + 3))" } ],
  "health_check": null,
  "rate_limit": $1,
  "log": { "access": false } }
CONFIG
}

load() {
    "$build/bench/bench_load" -c 1 "$@" "$base" >"$dir/load.out" 2>&1
}

# The instructions of a run with that many requests.
count() { # REQUESTS OPTIONS...
    n=$1
    shift
    (cd "$dir" && exec valgrind --tool=callgrind --callgrind-out-file="$dir/profile" "$build/loadbalancer") >"$dir/out" 2>&1 &
    daemon=$!
    pids="$pids $daemon"
    await 300 load -n 1 || fail "the daemon does not answer: $(cat "$dir/out")"
    load -n "$n" "$@" || fail "requests failed: $(cat "$dir/load.out")"
    kill "$daemon"
    wait "$daemon" || fail "the daemon failed: $(cat "$dir/out")"
    # Lines of cost belong to the object named last; the line behind "calls=" is the callee's.
    awk '/^c?ob=/ { id = $1; sub(/^c?ob=/, "", id); if (NF > 1) ours[id] = $2 ~ /\/loadbalancer$/; if (/^ob=/) now = ours[id]; next }
        /^calls=/ { getline; next }
        /^[0-9+*-]/ && now { sum += $2 }
        END { printf "%.0f\n", sum }' "$dir/profile"
}

measure() { # NAME OPTIONS...
    name=$1
    shift
    few=$(count $short "$@")
    many=$(count $long "$@")
    echo "$name $(((many - few) / (long - short)))"
}

{
    configure "$limit"
    measure keep-alive
    measure upload-4KiB -u 4096
    measure response-64KiB -t /65536
    measure chunked-64KiB -t /chunked/65536
    # Apart from each other: whether the end of one connection and the next one are met in one turn would be chance.
    measure new-connection -C -s -r 500
    # What the limiter costs in all that: the same as keep-alive, without its fields, and without any limit.
    configure "${limit% \}}, \"headers\": \"off\" }"
    measure without-fields
    configure null
    measure without-limits
} >"$dir/counted"

if [ "${2:-}" = --record ]; then
    cp "$dir/counted" "$record"
    cat "$record"
    exit 0
fi
awk 'NR == FNR { recorded[$1] = $2; next }
    { grown = recorded[$1] ? ($2 / recorded[$1] - 1) * 100 : 100
      printf "%-16s %6d instructions a request, recorded %6d (%+.1f %%)\n", $1, $2, recorded[$1], grown
      bad += grown > 3 }
    END { exit bad > 0 }' "$record" "$dir/counted" || {
    echo "count: a request has become dearer; if that is worth it: tests/bench/count.sh $1 --record, and say why in the commit" >&2
    exit 1
}
