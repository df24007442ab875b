#!/bin/sh
# stalls.sh BUILD: what requests wait for the limiter's longer work: 5,000 a second are forwarded while a million clients
# are saved over and over, and while pages of a thousand of them are asked for, beside the same with neither. Takes
# turns, and prints the median of the rounds, with the least and the greatest in brackets. Wanted: p99 while a save is
# under way at most 1.5 times that without, and no request that waits 5 ms longer for a page. On a machine that others
# use, too, the slowest requests are theirs: so nothing fails here.
#
# ROUNDS (5), SECONDS_EACH (6), CLIENTS (1000000), RATE (5000) and SAVE_INTERVAL (2ms: a save is always under way) may be
# set.
set -eu
. "$(dirname "$0")/common.sh"

build=$(cd "$1" && pwd)
rounds=${ROUNDS:-5} seconds=${SECONDS_EACH:-6} clients=${CLIENTS:-1000000} rate=${RATE:-5000} interval=${SAVE_INTERVAL:-2ms}

# The balancer has a core for itself, which its helper threads share; the load, which is the backend as well, has another,
# and sleeps when nothing is due: see docs/performance.md.
begin stalls
need_two_cores

load() { # OUTPUT OPTIONS...
    out=$1
    shift
    taskset -c 1 "$build/bench/bench_load" "$@" >"$out" 2>&1
}

wait_for() { # NAME PORT
    await 200 load "$dir/tried" -b "$backend" -n 1 "$2" || fail "nobody answers: $(cat "$dir/$1.out")"
}

# The load is a registered client, too, so that tokens move, and there is something to save.
write_clients() { # FOLDER
    mkdir "$1"
    awk -v n="$clients" 'BEGIN {
        print "{\"clients\":["
        print "{\"client_id\":\"127.0.0.1\",\"capacity\":1000000000,\"rate_per_sec\":1000000000}"
        for (i = 1; i < n; i++)
            printf ",{\"client_id\":\"client-%09d\",\"capacity\":100,\"rate_per_sec\":%d,\"tokens\":%d}\n", i, 1 + i % 3, i % 100
        print "]}"
    }' >"$1/clients.json"
}

balancer() { # NAME PORT SAVE_INTERVAL
    write_clients "$dir/$1"
    cat >"$dir/$1/config.json" <<CONFIG
{ "listen": "127.0.0.1:$2",
  "backends": [ { "address": "127.0.0.1:$backend" } ],
  "health_check": null,
  "rate_limit": { "clients_file": "$dir/$1/clients.json", "save_interval": "$3" },
  "log": { "access": false } }
CONFIG
    start 0 "$1" "$build/loadbalancer" -c "$dir/$1/config.json"
    wait_for "$1" "$2"
}

base=$((10000 + $$ % 20000))
backend=$((base + 2))
balancer calm "$base" 24h
balancer saving $((base + 1)) "$interval"

# "p50 p99 p99.9 max" in us.
measure() { # NAME PORT
    load "$dir/load.out" -s -b "$backend" -c 64 -r "$rate" -d "$seconds" "$2" || fail "$1: $(cat "$dir/load.out")"
    awk '{ print $8, $10, $12, $14 }' "$dir/load.out" >>"$dir/$1.results"
}

# The thread that writes has used so many ms: without any, there was no save, and the figures are of nothing. It is asked
# before and behind a round, for who looks while requests wait makes them wait.
written() { # NAME
    for task in "/proc/$(cat "$dir/$1.id")"/task/*; do
        [ "$(cat "$task/comm")" != disk ] || awk '{ printf "%d\n", $1 / 1000000 }' "$task/schedstat"
    done
}

round=0
while [ "$round" -lt "$rounds" ]; do
    measure calm "$base"
    before=$(written saving)
    measure saving $((base + 1))
    echo $(($(written saving) - before)) >>"$dir/written.results"
    load "$dir/list.out" -s -c 1 -r 50 -d "$seconds" -t '/clients/list?limit=1000' "$base" &
    lister=$!
    measure listing "$base"
    wait "$lister" || fail "no page: $(cat "$dir/list.out")"
    round=$((round + 1))
done

say() { # NAME COLUMN
    awk -v c="$2" '{ print $c }' "$dir/$1.results" | sort -n |
        awk '{ v[NR] = $1 } END { printf "%d (%d-%d)", v[int((NR + 1) / 2)], v[1], v[NR] }'
}

ratio() { # COLUMN
    for name in calm saving; do
        awk -v c="$1" '{ print $c }' "$dir/$name.results" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
    done | awk 'NR == 1 { calm = $1 } NR == 2 { printf "%.2f", $1 / calm }'
}

echo "$clients clients, $rate requests/s, $rounds rounds of $seconds s, in us:"
for name in calm saving listing; do
    echo "  $name: p50 $(say $name 1), p99 $(say $name 2), p99.9 $(say $name 3), longest $(say $name 4)"
done
echo "  ms of CPU that saves took in a round: $(tr '\n' ' ' <"$dir/written.results")"
echo "  p99 while saving / p99 calm: $(ratio 2) (wanted: at most 1.5)"
