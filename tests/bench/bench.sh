#!/bin/bash
# bench.sh BUILD [FOLDER]: what requests cost here: the load balancer beside a relay that parses nothing, and beside what
# is installed of nginx, HAProxy and h2o. Prints each figure as it comes, then the report; with FOLDER, writes it there as
# benchmarks.md, with benchmarks.svg.
#
# The proxy under test has core 0; core 1 has the load generator, which is the backends as well, in one thread: two
# processes there would take turns by the scheduler's slices, and the proxy's work come in pieces of their size.
# What is compared takes turns:
# BENCH_ROUNDS rounds (default 5) of BENCH_SECONDS each (default 1). BENCH_CORES="PROXY LOAD" chooses other cores,
# BENCH_WORKS="small large" some works only (see the list at the end). BENCH_H2O names a program that is not installed.
set -eu
. "$(dirname "$0")/common.sh"

build=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
folder=${2:-}
rounds=${BENCH_ROUNDS:-5}
seconds=${BENCH_SECONDS:-1}
cores=${BENCH_CORES:-0 1}
proxy_core=${cores% *}
load_core=${cores#* }
works=${BENCH_WORKS:-small limited log 64KiB 1MiB upload chunked connection c1000 c5000 backends latency memory start}

busy=$(cut -d' ' -f1 /proc/loadavg)
begin bench
need_two_cores

# ---- who is compared ----

h2o=${BENCH_H2O:-h2o}
peers=""
have nginx && peers="$peers nginx"
have haproxy && peers="$peers haproxy"
{ have h2o || [ -n "${BENCH_H2O:-}" ]; } && peers="$peers h2o"

# A range of its own for each run: the proxies, three backends, then a thousand.
base=$((10000 + $$ % 200 * 100))
port_of() { # NAME
    case $1 in
    relay) echo $((base + 1)) ;;
    ours) echo $((base + 2)) ;;
    bare) echo $((base + 3)) ;;
    log) echo $((base + 4)) ;;
    nginx) echo $((base + 5)) ;;
    haproxy) echo $((base + 6)) ;;
    h2o) echo $((base + 7)) ;;
    with-1) echo $((base + 8)) ;;
    with-10) echo $((base + 9)) ;;
    with-100) echo $((base + 10)) ;;
    with-1000) echo $((base + 11)) ;;
    start) echo $((base + 12)) ;;
    esac
}
b1=$((base + 21)) b2=$((base + 22)) b3=$((base + 23))
many=$((30000 + base % 1000))

# ---- configurations: proxies of the same sort, keep-alive on both sides, the client's address passed on ----

backend_list() { # FIRST_PORT COUNT
    seq "$1" $(($1 + $2 - 1)) | sed 's/.*/{ "address": "127.0.0.1:&" }/' | paste -sd,
}

config() { # NAME BACKENDS CHECKS LIMIT ACCESS
    cat >"$dir/$1.json" <<CONFIG
{ "listen": "127.0.0.1:$(port_of "$1")", "backends": [ $2 ], "limits": { "connections": 8000 }$3, "rate_limit": $4,
  "log": { "file": "$dir/$1.log", "access": $5 } }
CONFIG
}

limit() { # NAME
    echo "{ \"clients_file\": \"$dir/$1-clients.json\", \"default\": { \"capacity\": 1000000000, \"rate_per_sec\": 1000000000 } }"
}

# "ours" is what a config.json of no more than backends gives, but for the log; "bare" limits and checks nothing.
config ours "$(backend_list $b1 3)" "" "$(limit ours)" false
config log "$(backend_list $b1 3)" "" "$(limit log)" true
config bare "$(backend_list $b1 3)" ', "health_check": null' null false
config start "$(backend_list $b1 3)" "" "$(limit start)" false
for n in 1 10 100 1000; do
    config with-$n "$(backend_list $many $n)" ', "health_check": null' null false
done

cat >"$dir/nginx.conf" <<CONFIG
daemon off; master_process off; worker_processes 1; pid $dir/nginx.pid; error_log $dir/nginx.log;
worker_rlimit_nofile 19000;
events { worker_connections 16000; }
http {
    access_log off; keepalive_requests 1000000000; keepalive_timeout 60s; client_max_body_size 0;
    client_body_temp_path $dir/n1; proxy_temp_path $dir/n2; fastcgi_temp_path $dir/n3; uwsgi_temp_path $dir/n4; scgi_temp_path $dir/n5;
    upstream backends {
        server 127.0.0.1:$b1; server 127.0.0.1:$b2; server 127.0.0.1:$b3;
        keepalive 256; keepalive_requests 1000000000;
    }
    server {
        listen 127.0.0.1:$(port_of nginx) backlog=4096;
        location / {
            proxy_pass http://backends; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header X-Forwarded-For \$remote_addr; proxy_request_buffering off;
        }
    }
}
CONFIG
cat >"$dir/haproxy.cfg" <<CONFIG
global
    nbthread 1
    maxconn 7000
defaults
    mode http
    option forwardfor
    option splice-auto
    http-reuse always
    timeout connect 2s
    timeout client 60s
    timeout server 30s
frontend front
    bind 127.0.0.1:$(port_of haproxy) backlog 4096
    default_backend backends
backend backends
    balance roundrobin
    server b1 127.0.0.1:$b1
    server b2 127.0.0.1:$b2
    server b3 127.0.0.1:$b3
CONFIG
# Its version in Debian 12 knows one backend.
cat >"$dir/h2o.yaml" <<CONFIG
num-threads: 1
max-connections: 8000
listen: { host: 127.0.0.1, port: $(port_of h2o) }
hosts:
  default:
    paths:
      /:
        proxy.reverse.url: "http://127.0.0.1:$b1"
CONFIG

# ---- running ----

# For what needs them longer than its load.
start_backend() {
    # shellcheck disable=SC2046  # each port is a word
    start "$load_core" backend "$build/bench/bench_backend" $b1 $b2 $b3 $(seq $many $((many + 999)))
    await 50 "$build/bench/bench_load" -n 1 $b3 >"$dir/load.out" 2>&1 || fail "the backends do not answer"
}

start_proxy() { # NAME
    [ -f "$dir/$1.id" ] && return
    case $1 in
    relay) start "$proxy_core" relay "$build/bench/bench_relay" "$(port_of relay)" $b1 $b2 $b3 ;;
    nginx) start "$proxy_core" nginx nginx -c "$dir/nginx.conf" -e "$dir/nginx.log" ;;
    haproxy) start "$proxy_core" haproxy haproxy -db -f "$dir/haproxy.cfg" ;;
    h2o) start "$proxy_core" h2o "$h2o" -c "$dir/h2o.yaml" ;;
    *) start "$proxy_core" "$1" "$build/loadbalancer" -c "$dir/$1.json" ;;
    esac
    await 50 load "$1" -n 10 || fail "$1 does not answer: $(cat "$dir/$1.out")"
}

stop() { # NAME
    kill "$(cat "$dir/$1.id")"
    wait "$(cat "$dir/$1.id")" 2>/dev/null || true
    rm "$dir/$1.id"
}

load() { # NAME OPTIONS...
    to=$1
    shift
    serve="-b $b1-$b3 -b $many-$((many + 999))"
    [ ! -f "$dir/backend.id" ] || serve="" # there are some already
    # shellcheck disable=SC2086  # it is words
    timeout 120 taskset -c "$load_core" "$build/bench/bench_load" $serve "$@" "$(port_of "$to")" >"$dir/load.out" 2>&1
}

# One turn of a proxy: adds "CPU us, requests/s, p50, p99, p99.9" to its results.
measure() { # WORK NAME OPTIONS...
    work=$1 name=$2
    shift 2
    load "$name" -p "$(cat "$dir/$name.id")" "$@" || fail "$name failed requests: $(cat "$dir/load.out"); $(tail -n 5 "$dir/$name.out")"
    awk '{ printf "%.2f %.0f %d %d %d\n", $16, $2 / $4, $8, $10, $12 }' "$dir/load.out" \
        >>"$dir/results/$work/$name"
}

# Rounds in which all take turns.
compare() { # WORK "NAMES" OPTIONS...
    work=$1 names=$2
    shift 2
    mkdir -p "$dir/results/$work"
    echo "$names" >"$dir/results/$work/order"
    start_backend # or their checks would fail
    for name in $names; do
        start_proxy "$name"
    done
    stop backend
    round=0
    while [ "$round" -lt "$rounds" ]; do
        for name in $names; do
            measure "$work" "$name" "$@"
        done
        round=$((round + 1))
    done
    for name in $names; do
        echo "$work  $name: $(sort -n "$dir/results/$work/$name" | awk '{ v[NR] = $1 } END { printf "%.2f us (%.2f-%.2f)", v[int((NR + 1) / 2)], v[1], v[NR] }')" >&2
    done
}

median() { # FILE COLUMN
    awk -v c="$2" '{ print $c }' "$1" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

# Half of what the slowest of them can do, the same for all.
half_rate() {
    for name in ours $peers; do
        median "$dir/results/small/$name" 2
    done | sort -n | awk 'NR == 1 { printf "%d\n", $1 / 2 }'
}

anon_kib() { # PID
    awk '/^RssAnon/ { print $2 }' "/proc/$1/status"
}

# Bytes of the process for each of 4000 connections that have had an answer and wait.
memory_of() { # NAME
    [ -f "$dir/$1.id" ] && stop "$1"
    start_proxy "$1"
    load "$1" -c 64 -n 2000
    idle=$(anon_kib "$(cat "$dir/$1.id")")
    taskset -c "$load_core" "$build/bench/bench_load" -c 4000 -n 4000 -r 4000 -h 2 "$(port_of "$1")" >"$dir/load.out" 2>&1 &
    holder=$!
    sleep 2.5
    mkdir -p "$dir/results/memory"
    echo $((($(anon_kib "$(cat "$dir/$1.id")") - idle) * 1024 / 4000)) >>"$dir/results/memory/$1"
    wait "$holder"
    echo "memory  $1: $(tail -n1 "$dir/results/memory/$1") bytes a connection" >&2
}

# From exec() to the first answer.
first_answer() {
    mkdir -p "$dir/results/start"
    round=0
    while [ "$round" -lt "$rounds" ]; do
        taskset -c "$load_core" "$build/bench/bench_load" -w -n 1 "$(port_of start)" >/dev/null &
        asker=$!
        sleep 0.2
        begun=$(date +%s%N)
        start "$proxy_core" start "$build/loadbalancer" -c "$dir/start.json"
        wait "$asker"
        echo $((($(date +%s%N) - begun) / 1000)) >>"$dir/results/start/us"
        awk '/^VmRSS/ { print $2 }' "/proc/$(cat "$dir/start.id")/status" >>"$dir/results/start/rss"
        stop start
        round=$((round + 1))
    done
    strip -o "$dir/stripped" "$build/loadbalancer" && stat -c %s "$dir/stripped" >"$dir/results/start/size"
    echo "start: $(median "$dir/results/start/us" 1) us, $(median "$dir/results/start/rss" 1) KiB, $(cat "$dir/results/start/size") bytes" >&2
}

run_work() { # WORK
    case $1 in
    small) compare small "relay ours $peers" -c 64 -d "$seconds" ;;
    limited) compare limited "relay bare ours" -c 64 -d "$seconds" ;;
    log) compare log "ours log" -c 64 -d "$seconds" ;;
    64KiB) compare 64KiB "relay ours $peers" -c 64 -d "$seconds" -t /65536 ;;
    1MiB) compare 1MiB "relay ours $peers" -c 64 -d "$seconds" -t /1048576 ;;
    upload) compare upload "relay ours $peers" -c 16 -d "$seconds" -u 1048576 ;;
    chunked) compare chunked "relay ours $peers" -c 64 -d "$seconds" -t /chunked/65536 ;;
    connection) compare connection "ours $peers" -c 64 -d "$seconds" -C ;;
    c1000) compare c1000 "relay ours $peers" -c 1000 -d "$seconds" ;;
    c5000) compare c5000 "relay ours $peers" -c 5000 -d "$seconds" ;;
    backends) compare backends "with-1 with-10 with-100 with-1000" -c 64 -d "$seconds" ;;
    latency)
        [ -d "$dir/results/small" ] || run_work small
        half_rate >"$dir/rate"
        # It warms up, or the slowest of a hundred would be those that wait while all the connections are made.
        compare latency "ours $peers" -c 256 -d $((seconds * 5)) -W 1 -r "$(cat "$dir/rate")"
        ;;
    memory)
        start_backend
        for name in ours $peers; do
            memory_of "$name"
        done
        stop backend
        ;;
    start)
        start_backend
        first_answer
        stop backend
        ;;
    *) fail "there is no work $1" ;;
    esac
}

for work in $works; do
    run_work "$work"
done

version_of() { # NAME
    case $1 in
    nginx) nginx -v 2>&1 | sed 's/.*\///' ;;
    haproxy) haproxy -v | sed -n 's/.*version \([0-9.]*\).*/\1/p' ;;
    h2o) "$h2o" -v | sed -n 's/^h2o version \([0-9.]*\).*/\1/p' ;;
    esac
}
for name in $peers; do
    echo "$name $(version_of "$name")"
done >"$dir/versions"
echo "$rounds $seconds $(cat "$dir/rate" 2>/dev/null || echo 0) $busy" >"$dir/setting"
if [ -n "$folder" ]; then
    "$here/report.sh" "$dir" >"$folder/benchmarks.md"
    "$here/chart.sh" "$dir" >"$folder/benchmarks.svg"
else
    "$here/report.sh" "$dir"
fi
