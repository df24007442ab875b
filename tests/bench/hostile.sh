#!/bin/bash
# hostile.sh BUILD [FILE]: how long others wait beside hostile peers (tests/bench/bench_hostile.c says what those do):
# the load balancer, and what is installed of nginx and HAProxy. Prints each figure as it comes, then the report; with
# FILE, writes it there.
#
# The proxy under test and the decoy have core 0; the load, the backends and the peers share core 1, the peers with a
# lower priority. The decoy is a second balancer with backends of the same sort: the same storm against it says
# what is the machine's, for then nothing of it reaches the proxy under test. What is compared takes turns:
# HOSTILE_ROUNDS rounds (default 3) of HOSTILE_SECONDS each (default 10). HOSTILE_CORES="PROXY LOAD" chooses other cores,
# HOSTILE_PROXIES="ours nginx" and HOSTILE_KINDS="slow all" some only. Where others use the machine, HOSTILE_REALTIME=1
# (root) puts all of this before them (SCHED_FIFO).
set -eu
. "$(dirname "$0")/common.sh"

build=$(cd "$1" && pwd)
file=${2:-}
rounds=${HOSTILE_ROUNDS:-3}
seconds=${HOSTILE_SECONDS:-10}
cores=${HOSTILE_CORES:-0 1}
proxy_core=${cores% *}
load_core=${cores#* }
kinds=${HOSTILE_KINDS:-slow readers vanish reset gone all}
everything=slow,readers,vanish,reset,gone
rate=1000
fresh_rate=100
peers_second="nice -n 10"
[ -z "${HOSTILE_REALTIME:-}" ] || first="chrt --fifo 20" peers_second="chrt --fifo 10"

busy=$(cut -d' ' -f1 /proc/loadavg)
begin hostile
need_two_cores

proxies=ours
have nginx && proxies="$proxies nginx"
have haproxy && proxies="$proxies haproxy"
proxies=${HOSTILE_PROXIES:-$proxies}

# ---- configurations ----

base=$((10000 + $$ % 200 * 100))
port_of() { # NAME
    case $1 in
    ours) echo $((base + 1)) ;;
    nginx) echo $((base + 2)) ;;
    haproxy) echo $((base + 3)) ;;
    decoy) echo $((base + 4)) ;;
    esac
}
b1=$((base + 21)) b2=$((base + 22)) b3=$((base + 23))

for name in ours decoy; do
    cat >"$dir/$name.json" <<CONFIG
{ "listen": "127.0.0.1:$(port_of $name)",
  "backends": [ { "address": "127.0.0.1:$b1" }, { "address": "127.0.0.1:$b2" }, { "address": "127.0.0.1:$b3" } ],
  "rate_limit": { "clients_file": "$dir/$name-clients.json", "default": { "capacity": 1000000000, "rate_per_sec": 1000000000 } },
  "log": { "file": "$dir/$name.log", "access": false } }
CONFIG
done

# The others get our default time-outs.
cat >"$dir/nginx.conf" <<CONFIG
daemon off; master_process off; worker_processes 1; pid $dir/nginx.pid; error_log $dir/nginx.log;
worker_rlimit_nofile 19000;
events { worker_connections 16000; }
http {
    access_log off; keepalive_requests 1000000000; keepalive_timeout 60s; client_header_timeout 10s; send_timeout 30s;
    client_body_temp_path $dir/n1; proxy_temp_path $dir/n2; fastcgi_temp_path $dir/n3; uwsgi_temp_path $dir/n4; scgi_temp_path $dir/n5;
    upstream backends {
        server 127.0.0.1:$b1; server 127.0.0.1:$b2; server 127.0.0.1:$b3;
        keepalive 256; keepalive_requests 1000000000;
    }
    server {
        listen 127.0.0.1:$(port_of nginx) backlog=4096;
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
    maxconn 7000
defaults
    mode http
    option forwardfor
    option splice-auto
    http-reuse always
    timeout connect 2s
    timeout http-request 10s
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

# ---- running ----

stop() { # NAME
    kill "$(cat "$dir/$1.id")"
    wait "$(cat "$dir/$1.id")" 2>/dev/null || true
    pids=$(echo " $pids " | sed "s/ $(cat "$dir/$1.id") / /")
}

load() { # NAME OUTPUT OPTIONS...
    to=$1 out=$2
    shift 2
    # shellcheck disable=SC2086
    timeout 120 $first taskset -c "$load_core" "$build/bench/bench_load" "$@" "$(port_of "$to")" >"$dir/$out" 2>&1
}

start_proxy() { # NAME
    case $1 in
    nginx) start "$proxy_core" nginx nginx -c "$dir/nginx.conf" -e "$dir/nginx.log" ;;
    haproxy) start "$proxy_core" haproxy haproxy -db -f "$dir/haproxy.cfg" ;;
    *) start "$proxy_core" "$1" "$build/loadbalancer" -c "$dir/$1.json" ;;
    esac
    await 50 load "$1" start.load -n 10 || fail "$1 does not answer: $(cat "$dir/$1.out")"
}

# Ours fails none; of the others it is counted, unless there is nothing to count.
failed() { # PROXY WHAT LOAD
    if [ "$1" = ours ] || ! grep -q '^requests' "$dir/$3.load"; then
        fail "$1 failed requests beside $2: $(cat "$dir/$3.load")"
    fi
}

# One turn of a proxy: requests on kept connections, and some on new ones. Adds "p50, p99, p99 on new connections, CPU
# in hundredths of a core, requests failed" to its results.
measure() { # PROXY WHAT
    load "$1" fresh.load -c 16 -d "$seconds" -r $fresh_rate -s -C &
    beside=$!
    load "$1" kept.load -c 32 -d "$seconds" -r $rate -s -p "$(cat "$dir/$1.id")" || failed "$1" "$2" kept
    wait "$beside" || failed "$1" "$2" fresh
    echo "$(awk '{ print $8, $10 }' "$dir/kept.load") $(awk '{ print $10 }' "$dir/fresh.load")" \
        "$(awk '{ printf "%.1f", $16 * $2 / $4 / 10000 }' "$dir/kept.load")" \
        "$(awk '{ sum += $6 } END { print sum }' "$dir/kept.load" "$dir/fresh.load")" >>"$dir/results/$1/$2"
    echo "$1 $2: $(tail -n1 "$dir/results/$1/$2")" >&2
}

# Beside peers of that kind, which are at the proxy itself, or at the decoy.
measure_beside() { # PROXY KIND TARGET
    which=$2
    [ "$which" = all ] && which=$everything
    : >"$dir/peers.out"
    # shellcheck disable=SC2086
    start "$load_core" peers $peers_second "$build/bench/bench_hostile" "$which" "$(port_of "$3")"
    await 300 grep -q '^ready' "$dir/peers.out" || fail "the peers are not ready: $(cat "$dir/peers.out")"
    if [ "$3" = decoy ]; then what=$2-decoy; else what=$2; fi
    measure "$1" "$what"
    stop peers
    sed 1d "$dir/peers.out" >"$dir/peers.done"
    sed 's/^/    /' "$dir/peers.done" >&2
}

start "$load_core" backend "$build/bench/bench_backend" $b1 $b2 $b3
start_proxy decoy
for proxy in $proxies; do
    mkdir -p "$dir/results/$proxy"
    start_proxy "$proxy"
    load "$proxy" warm.load -c 64 -n 20000
done
for _ in $(seq "$rounds"); do
    for proxy in $proxies; do
        measure "$proxy" alone
        for kind in $kinds; do
            measure_beside "$proxy" "$kind" decoy
            measure_beside "$proxy" "$kind" "$proxy"
        done
    done
done

# ---- the report ----

median() { # FILE COLUMN
    awk -v c="$2" '{ print $c }' "$1" | sort -n | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'
}

ratio() { # ONE OTHER
    awk "BEGIN { printf \"%.2f\", $1 / $2 }"
}

words_of() { # KIND
    case $1 in
    slow) echo "2,000 slow heads" ;;
    readers) echo "200 slow readers of 1 MiB" ;;
    vanish) echo "500/s connect and close" ;;
    reset) echo "500/s connect and reset" ;;
    gone) echo "1,000 gone peers, 100/s more" ;;
    all) echo "all of them" ;;
    esac
}

row() { # NAME KIND
    r=$dir/results/$1
    at=$(median "$r/$2" 2) decoy=$(median "$r/$2-decoy" 2)
    fresh=$(median "$r/$2" 3) fresh_decoy=$(median "$r/$2-decoy" 3)
    echo "| $(words_of "$2") | $(median "$r/$2" 1) | $at | $(ratio "$at" "$(median "$r/alone" 2)") | $decoy | **$(ratio "$at" "$decoy")** | $fresh | **$(ratio "$fresh" "$fresh_decoy")** | $(median "$r/$2" 4) % |"
}

report() {
    cat <<TEXT
# Beside hostile peers

How long others wait while peers are slow, or come only to vanish. \`make hostile\` measures it and writes this file.

$rate requests a second on 32 kept connections, due whether earlier ones were answered or not, and $fresh_rate a second with a connection each: latency counts from when a request was due. The proxy has one core; the load, three backends and the peers share another, the peers with a lower priority. What they do is of bounded rate, for a storm that takes the load's core measures that core:

- **slow heads**: 2,000 connections that send a byte of a head a second, and come anew when they are closed (\`client_header\`, 10 s). They come from 40 addresses, because one may have a tenth of all connections.
- **slow readers**: 200 that ask for 1 MiB and take 4 KiB of it a second.
- **connect and close, connect and reset**: 500 a second each; before any byte, in the middle of a head, and resets behind a whole request for 64 KiB, too.
- **gone**: peers whose socket ends without FIN or reset, as when a machine is switched off (what is sent to them later is answered by a reset, as no other machine is there): 1,000, and 100 a second more, as many as end by the time-out.

The same storm is also put against a **decoy**, a second balancer on the proxy's core with the same backends. Then nothing of it reaches the proxy under test, and how long the others wait is the machine's doing; what the proxy adds is the ratio between the two. Latencies are in microseconds, each the median of $rounds rounds of $seconds s, in turns. Load of the machine before: $busy.
TEXT
    [ -z "${HOSTILE_REALTIME:-}" ] || echo "All of this was put before whatever else ran there (\`SCHED_FIFO\`)."
    for proxy in $proxies; do
        r=$dir/results/$proxy
        cat <<TEXT

## $proxy

Alone: p50 $(median "$r/alone" 1), p99 $(median "$r/alone" 2); p99 on new connections $(median "$r/alone" 3); $(median "$r/alone" 4) % of a core.

| beside | p50 | p99 | to alone | p99 with the decoy | to that | p99 on new connections | to the decoy's | CPU |
|---|---|---|---|---|---|---|---|---|
TEXT
        for kind in $kinds; do
            row "$proxy" "$kind"
        done
        cat "$r"/* | awk '{ sum += $5 } END { if (sum > 0) print "\n" sum " requests failed." }'
    done
}

if [ -n "$file" ]; then
    report >"$file"
else
    report
fi
