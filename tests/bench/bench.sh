#!/bin/sh
# bench.sh BUILD: CPU time per request of the load balancer beside nginx and HAProxy, on small keep-alive requests.
# The proxy under test has core 0 for itself; wrk (64 connections) and three backends (128-byte responses) share core 1.
# The proxies take turns, BENCH_ROUNDS times (default 5) for BENCH_SECONDS each (default 4); figures are medians.
# Give a different load with BENCH_CONNECTIONS and BENCH_CORES="PROXY_CORE LOAD_CORE".
set -eu

build=$(cd "$1" && pwd)
rounds=${BENCH_ROUNDS:-5}
seconds=${BENCH_SECONDS:-4}
connections=${BENCH_CONNECTIONS:-64}
cores=${BENCH_CORES:-0 1}
proxy_core=${cores% *}
load_core=${cores#* }

dir=$(mktemp -d "${TMPDIR:-/tmp}/loadbalancer-bench-XXXXXX")
pids=""

finish() {
    trap - EXIT INT TERM
    for pid in $pids; do
        kill "$pid" 2>/dev/null || true
    done
    wait 2>/dev/null || true
    rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT TERM

fail() {
    echo "bench: $*" >&2
    exit 1
}

have() {
    [ -x "/usr/sbin/$1" ] || [ -x "/usr/bin/$1" ]
}

have wrk || fail "wrk is not installed (apt install wrk)"
have taskset || fail "taskset is not installed (apt install util-linux)"
[ "$(nproc)" -ge 2 ] || fail "two cores are needed"

base=$((10000 + $$ % 20000))
b1=$((base + 1)) b2=$((base + 2)) b3=$((base + 3))
port_of() { # PROXY
    case $1 in
    loadbalancer) echo $((base + 4)) ;;
    nginx) echo $((base + 5)) ;;
    haproxy) echo $((base + 6)) ;;
    esac
}

# Both are proxies of the same sort: keep-alive on both sides, no access log, the client's address passed on. The limiter
# of ours runs, with limits too high to be met.
cat >"$dir/config.json" <<CONFIG
{ "listen": "127.0.0.1:$(port_of loadbalancer)",
  "backends": [ { "address": "127.0.0.1:$b1" }, { "address": "127.0.0.1:$b2" }, { "address": "127.0.0.1:$b3" } ],
  "rate_limit": { "default": { "capacity": 1000000000, "rate_per_sec": 1000000000 } },
  "log": { "access": false } }
CONFIG
cat >"$dir/nginx.conf" <<CONFIG
daemon off; master_process off; worker_processes 1; pid $dir/nginx.pid; error_log $dir/nginx.log;
events { worker_connections 4096; }
http {
    access_log off; keepalive_requests 1000000000; keepalive_timeout 60s;
    client_body_temp_path $dir/n1; proxy_temp_path $dir/n2; fastcgi_temp_path $dir/n3; uwsgi_temp_path $dir/n4; scgi_temp_path $dir/n5;
    upstream backends {
        server 127.0.0.1:$b1; server 127.0.0.1:$b2; server 127.0.0.1:$b3;
        keepalive 256; keepalive_requests 1000000000;
    }
    server {
        listen 127.0.0.1:$(port_of nginx);
        location / {
            proxy_pass http://backends; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header X-Forwarded-For \$remote_addr;
        }
    }
}
CONFIG
cat >"$dir/haproxy.cfg" <<CONFIG
global
    nbthread 1
    maxconn 4096
defaults
    mode http
    option forwardfor
    http-reuse always
    timeout connect 2s
    timeout client 60s
    timeout server 30s
frontend front
    bind 127.0.0.1:$(port_of haproxy)
    default_backend backends
backend backends
    balance roundrobin
    server b1 127.0.0.1:$b1
    server b2 127.0.0.1:$b2
    server b3 127.0.0.1:$b3
CONFIG

# Starts a program on a core, with its output in a file; its process id is in $started.
start() { # CORE NAME COMMAND...
    core=$1 name=$2
    shift 2
    (cd "$dir" && exec taskset -c "$core" "$@" >"$dir/$name.out" 2>&1) &
    started=$!
    pids="$pids $started"
}

# One request must be answered before anything is measured.
await() { # NAME PORT
    tries=0
    until wrk -t1 -c1 -d1s "http://127.0.0.1:$2/" 2>/dev/null | grep -q 'requests in'; do
        tries=$((tries + 1))
        [ "$tries" -lt 10 ] || fail "$1 does not answer: $(cat "$dir/$1.out")"
        sleep 0.2
    done
}

cpu_ns() { # PID: CPU time of all its threads
    cat "/proc/$1"/task/*/schedstat | awk '{ sum += $1 } END { printf "%.0f\n", sum }'
}

start "$load_core" backend "$build/bench/bench_backend" "$b1" "$b2" "$b3"
await backend "$b1"
start "$proxy_core" loadbalancer "$build/loadbalancer"
loadbalancer_pid=$started
proxies=loadbalancer
if have nginx; then
    start "$proxy_core" nginx nginx -c "$dir/nginx.conf" -e "$dir/nginx.log"
    nginx_pid=$started
    proxies="$proxies nginx"
fi
if have haproxy; then
    start "$proxy_core" haproxy haproxy -db -f "$dir/haproxy.cfg"
    haproxy_pid=$started
    proxies="$proxies haproxy"
fi
for proxy in $proxies; do
    await "$proxy" "$(port_of "$proxy")"
done

pid_of() {
    case $1 in
    loadbalancer) echo "$loadbalancer_pid" ;;
    nginx) echo "$nginx_pid" ;;
    haproxy) echo "$haproxy_pid" ;;
    esac
}

load() { # PORT SECONDS
    timeout $(($2 + 30)) taskset -c "$load_core" wrk -t1 -c"$connections" -d"$2s" "http://127.0.0.1:$1/"
}

# One turn of a proxy: appends "ns per request, requests per second" to its results.
measure() { # PROXY
    pid=$(pid_of "$1") port=$(port_of "$1")
    load "$port" 1 >/dev/null
    before=$(cpu_ns "$pid")
    load "$port" "$seconds" >"$dir/wrk.out"
    after=$(cpu_ns "$pid")
    if grep -qE 'Socket errors|Non-2xx' "$dir/wrk.out"; then
        fail "$1 failed requests: $(cat "$dir/wrk.out")"
    fi
    awk -v cpu=$((after - before)) '/requests in/ { n = $1 } /^Requests\/sec/ { rps = $2 }
        END { printf "%.0f %.0f\n", cpu / n, rps }' "$dir/wrk.out" >>"$dir/$1.result"
}

round=1
while [ "$round" -le "$rounds" ]; do
    for proxy in $proxies; do
        measure "$proxy"
        echo "round $round  $proxy: $(tail -n1 "$dir/$proxy.result" | awk '{ printf "%.2f us/request, %d requests/s", $1 / 1000, $2 }')" >&2
    done
    round=$((round + 1))
done

# "MEDIAN MIN MAX" of a column of results.
summary() { # FILE COLUMN
    awk -v c="$2" '{ print $c }' "$1" | sort -n | awk '{ v[NR] = $1 }
        END { m = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2; print m, v[1], v[NR] }'
}

ours=$(summary "$dir/loadbalancer.result" 1 | cut -d' ' -f1)
echo "wrk -c$connections, three backends, 128-byte responses; $rounds rounds of ${seconds}s; median (min-max)"
printf '%-14s %-28s %-30s %s\n' proxy 'CPU us/request' requests/s 'CPU, ours = 1'
for proxy in $proxies; do
    { summary "$dir/$proxy.result" 1 && summary "$dir/$proxy.result" 2; } | tr '\n' ' ' | awk -v name="$proxy" -v ours="$ours" '{
        printf "%-14s %-28s %-30s %.2f\n", name, sprintf("%.2f (%.2f-%.2f)", $1 / 1000, $2 / 1000, $3 / 1000),
            sprintf("%d (%d-%d)", $4, $5, $6), $1 / ours }'
done
