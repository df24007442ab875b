#!/bin/sh
# compare.sh BUILD: the cases of the conformance suite against the load balancer, nginx and HAProxy (docs/conformance.md).
# Prints a row for each case that one of them fails (COMPARE_ALL=1: for every case), then the totals.
set -eu

build=$(cd "$1" && pwd)
dir=$(mktemp -d "${TMPDIR:-/tmp}/loadbalancer-compare-XXXXXX")
pid=""

finish() {
    trap - EXIT INT TERM
    [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT TERM

base=$((10000 + $$ % 20000))
origin=$((base + 1)) port=$((base + 2))

# All have one origin and no retries, stream in both directions, and keep connections on both sides.
cat >"$dir/config.json" <<CONFIG
{ "listen": "127.0.0.1:$port", "backends": [ { "address": "127.0.0.1:$origin" } ],
  "health_check": null, "passive_check": null, "retry": { "attempts": 0 },
  "rate_limit": { "default": { "capacity": 1000000, "rate_per_sec": 1000000 } }, "log": { "access": false } }
CONFIG
cat >"$dir/nginx.conf" <<CONFIG
daemon off; master_process off; worker_processes 1; pid $dir/nginx.pid; error_log $dir/nginx.log;
events { worker_connections 1024; }
http {
    access_log off; keepalive_requests 1000000; client_max_body_size 0; large_client_header_buffers 4 16k;
    client_body_temp_path $dir/n1; proxy_temp_path $dir/n2; fastcgi_temp_path $dir/n3; uwsgi_temp_path $dir/n4; scgi_temp_path $dir/n5;
    upstream origin { server 127.0.0.1:$origin max_fails=0; keepalive 16; keepalive_requests 1000000; }
    server {
        listen 127.0.0.1:$port;
        location / {
            proxy_pass http://origin; proxy_http_version 1.1; proxy_next_upstream off;
            proxy_buffering off; proxy_request_buffering off; proxy_buffer_size 16k; proxy_buffers 8 16k;
            proxy_set_header Connection ""; proxy_set_header Host \$http_host; proxy_pass_header Server; proxy_pass_header Date;
            proxy_set_header X-Forwarded-For \$remote_addr; proxy_set_header X-Forwarded-Host \$http_host;
            proxy_set_header X-Forwarded-Proto \$scheme; proxy_set_header X-Request-ID \$request_id;
        }
    }
}
CONFIG
cat >"$dir/haproxy.cfg" <<CONFIG
global
    nbthread 1
    maxconn 1024
defaults
    mode http
    option forwardfor
    http-reuse always
    retries 0
    timeout connect 2s
    timeout client 60s
    timeout server 30s
    timeout http-request 10s
frontend front
    bind 127.0.0.1:$port
    default_backend origin
backend origin
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    server origin 127.0.0.1:$origin
CONFIG

program_of() { # nginx|haproxy
    for folder in /usr/sbin /usr/bin; do
        if [ -x "$folder/$1" ]; then
            echo "$folder/$1"
            return
        fi
    done
    echo "compare: $1 is not installed (apt install $1)" >&2
    exit 1
}

# Starts a proxy, runs all cases against it, and ends it.
column() { # NAME COMMAND...
    name=$1
    shift
    (cd "$dir" && exec "$@" >"$dir/$name.out" 2>&1) &
    pid=$!
    COMPARE_ORIGIN_PORT=$origin COMPARE_PROXY_PORT=$port "$build/e2e/compare" >"$dir/$name" || {
        cat "$dir/$name.out" >&2
        exit 1
    }
    kill "$pid"
    wait "$pid" 2>/dev/null || true
    pid=""
}

nginx=$(program_of nginx)
haproxy=$(program_of haproxy)
column ours "$build/loadbalancer" -c "$dir/config.json"
column nginx "$nginx" -c "$dir/nginx.conf"
column haproxy "$haproxy" -f "$dir/haproxy.cfg"

# Columns: name, section, then mark and sight of each.
paste "$dir/ours" "$dir/nginx" "$dir/haproxy" | awk -F '\t' -v all="${COMPARE_ALL:-}" '
    function cell(at) {
        marks[at, $at]++
        return $at == "pass" ? "pass" : "FAIL " $(at + 1)
    }
    function total(name, at) {
        passed = marks[at, "pass"] + 0; through = marks[at, "FAIL (let through)"] + 0; otherwise = marks[at, "FAIL (refused otherwise)"] + 0
        printf "%-14s %5d %16d %18d %12d\n", name, passed, through, otherwise, NR - passed - through - otherwise
    }
    BEGIN { printf "%-44s %-34s %-36s %-52s %s\n", "case", "section", "loadbalancer", "nginx", "HAProxy" }
    {
        row = sprintf("%-44s %-34s %-36s %-52s %s", $1, $2, cell(3), cell(7), cell(11))
        if (all || $3 != "pass" || $7 != "pass" || $11 != "pass")
            print row
    }
    END {
        printf "\n%-14s %5s %16s %18s %12s   of %d cases\n", "", "pass", "let through", "refused otherwise", "else differs", NR
        total("loadbalancer", 3); total("nginx", 7); total("HAProxy", 11)
    }'
echo "$("$build/loadbalancer" --version); $("$nginx" -v 2>&1); $("$haproxy" -v | head -n 1)"
