#!/bin/sh
# report.sh DIR: the results of bench.sh as a document.
set -eu
dir=$1
read -r rounds seconds rate busy <"$dir/setting"

# "MEDIAN MIN MAX" of a column.
summary() { # FILE COLUMN
    awk -v c="$2" '{ print $c }' "$1" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)], v[1], v[NR] }'
}

name_of() { # NAME
    case $1 in
    ours) echo "loadbalancer" ;;
    bare) echo "loadbalancer, no limiter, no checks" ;;
    log) echo "loadbalancer, access log to a file" ;;
    with-1) echo "loadbalancer, 1 backend" ;;
    with-*) echo "loadbalancer, ${1#with-} backends" ;;
    *) echo "$1${2:+ }$(sed -n "s/^$1 //p" "$dir/versions")" ;;
    esac | sed 's/ *$//'
}

# A table of CPU time; the last column is against the row named second.
cpu_table() { # WORK TITLE REFERENCE TARGET
    [ -d "$dir/results/$1" ] || return 0
    printf '\n## %s\n\n%s\n\n' "$2" "$4"
    printf '| | CPU us a request | requests/s | CPU, %s = 1 |\n|---|---|---|---|\n' "$(name_of "$3")"
    reference=$(summary "$dir/results/$1/$3" 1 | cut -d' ' -f1)
    # shellcheck disable=SC2013  # the words are names
    for name in $(cat "$dir/results/$1/order"); do
        # shellcheck disable=SC2046
        set -- "$1" "$2" "$3" "$4" $(summary "$dir/results/$1/$name" 1) $(summary "$dir/results/$1/$name" 2)
        awk -v name="$(name_of "$name" v)" -v m="$5" -v low="$6" -v high="$7" -v r="$8" -v rlow="$9" -v rhigh="${10}" -v reference="$reference" \
            'BEGIN { printf "| %s | %.1f (%.1f-%.1f) | %d (%d-%d) | %.2f |\n", name, m, low, high, r, rlow, rhigh, m / reference }'
    done
}

latency_table() {
    [ -d "$dir/results/latency" ] || return 0
    printf '\n## Latency at a fixed rate\n\n%s requests a second over 256 connections: half of what the slowest can do; %s s each, behind one that is not counted. us from when a request was due. Wanted: each at most the better of nginx and HAProxy.\n\n' "$rate" $((seconds * 5))
    printf '| | p50 | p99 | p99.9 |\n|---|---|---|---|\n'
    # shellcheck disable=SC2013  # the words are names
    for name in $(cat "$dir/results/latency/order"); do
        echo "| $(name_of "$name" v) | $(for c in 3 4 5; do
            summary "$dir/results/latency/$name" $c | awk '{ printf "%d (%d-%d)", $1, $2, $3 }'
            [ $c = 5 ] || printf ' | '
        done) |"
    done
}

memory_table() {
    [ -d "$dir/results/memory" ] || return 0
    printf '\n## An idle keep-alive connection\n\nBytes of the process (RssAnon) for each of 4000 that have had an answer and wait; where they had to wait for each other, buffers that were not given back are in it. Wanted: at most 400.\n\n| | bytes |\n|---|---|\n'
    for name in ours nginx haproxy h2o; do
        [ ! -f "$dir/results/memory/$name" ] || echo "| $(name_of $name v) | $(cat "$dir/results/memory/$name") |"
    done
}

start_table() {
    [ -d "$dir/results/start" ] || return 0
    printf '\n## Start\n\n| | | wanted |\n|---|---|---|\n'
    summary "$dir/results/start/us" 1 | awk '{ printf "| from exec to the first answer | %.1f ms (%.1f-%.1f) | 20 ms |\n", $1 / 1000, $2 / 1000, $3 / 1000 }'
    summary "$dir/results/start/rss" 1 | awk '{ printf "| resident memory then | %d KiB (%d-%d) | 4096 KiB |\n", $1, $2, $3 }'
    awk '{ printf "| the program, stripped | %d KiB | 400 KiB |\n", $1 / 1024 }' "$dir/results/start/size"
}

cat <<TEXT
# Benchmarks

Written by \`make bench\` ([tests/bench/bench.sh](../tests/bench/bench.sh)); run it to have these figures for your machine. What was tried, and why the code is as it is, is in [performance.md](performance.md).

**Method.** The proxy has one core for itself; another has the load generator, which is the three backends as well, in one thread (between processes that share a core the scheduler gives each some milliseconds at a time, longer than what a proxy takes, and deals out its work in pieces of that size). What is compared takes turns, $rounds rounds of $seconds s each; a figure is the median, with the least and the greatest in brackets. CPU time is the proxy's, of all its threads, by \`/proc/PID/task/*/schedstat\`, over the requests answered;
requests/s are bounded by the load's core as often as by the proxy's. All proxies keep connections alive on both sides, add \`X-Forwarded-For\` and write no access log; the limiter of ours is on, with limits that are not met, and writes its fields, and health checks run, where nothing else is said. HAProxy has \`splice-auto\`, nginx \`proxy_request_buffering off\`.
The relay ([bench_relay.c](../tests/bench/bench_relay.c)) is the floor: it parses nothing, keeps a backend connection for each client, and makes only the four system calls that move the bytes. The load generator is [bench_load.c](../tests/bench/bench_load.c).

**Machine.** $(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n1), Linux $(uname -r | cut -d- -f1), $(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release), $(date -u +%F), load average at the begin $busy$(sed 's/^/; /' "$dir/versions" | tr -d '\n').
TEXT
cpu_table small "Small keep-alive requests" relay "64 connections, 128 bytes of content. Wanted: at most 1.15 x the relay, and 0.80 x the better of nginx and HAProxy."
cpu_table limited "The price of limiting and checks" relay "Wanted: at most 1.20 x the relay."
cpu_table log "The price of the access log" ours "Wanted: at most 1.08 x without."
cpu_table 64KiB "Responses of 64 KiB" relay "64 connections. Wanted: at most 1.0 x the relay, 0.6 x HAProxy."
cpu_table 1MiB "Responses of 1 MiB" relay "64 connections. Wanted: at most 1.0 x the relay, 0.6 x HAProxy."
cpu_table upload "Uploads of 1 MiB" relay "16 connections. Wanted: at most 1.0 x the relay, 0.6 x HAProxy."
cpu_table chunked "Chunked responses of 64 KiB" relay "64 connections. Wanted: at most 0.8 x nginx."
cpu_table connection "A connection for each request" ours "64 at a time. Wanted: at most 0.85 x the best of the others."
cpu_table c1000 "1,000 keep-alive connections, all busy" ours "Wanted: at most 1.15 x the CPU time with 64. The relay shows how much of the growth is the kernel's."
cpu_table c5000 "5,000 keep-alive connections, all busy" ours "Likewise."
cpu_table backends "More backends" with-1 "64 connections, no limiter. Wanted: flat within 5 %."
latency_table
memory_table
start_table
