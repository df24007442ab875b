#!/bin/sh
# run.sh BUILD: the simulation of failure and recovery that `make run` shows. Three backends fall and recover in turn behind the balancer;
# Ctrl-C (or SIGTERM) stops all of them.
set -eu
build=$1
pids=""
balancer=""
status=0

# Waits for the balancer's end. One that has taken over after SIGUSR2 is no child of this shell; a zombie has no exe.
await() {
    if [ "$balancer" = "$child" ]; then
        wait "$balancer" || status=$?
    else
        while [ -e "/proc/$balancer/exe" ]; do sleep 0.2; done
    fi
}

# After its end: has another process taken over? It runs the same program in the same folder. Should that one have been
# followed by a next one while it was looked for, the second look finds it.
follow() {
    for _ in 1 2; do
        for p in /proc/[0-9]*; do
            # shellcheck disable=SC3013  # dash has it, too
            if [ "$p/exe" -ef "$build/loadbalancer" ] && [ "$p/cwd" -ef . ]; then
                balancer=${p#/proc/}
                return 0
            fi
        done
    done
    return 1
}

stop() {
    trap '' INT TERM
    # The balancer first, so that it drains while its backends still answer.
    if [ -n "$balancer" ]; then
        kill -TERM "$balancer" 2>/dev/null || ! follow || kill -TERM "$balancer" 2>/dev/null || true
        await
    fi
    for p in $pids; do kill -TERM "$p" 2>/dev/null || true; done
    wait
}
trap 'stop; exit 0' INT TERM

# Where a process listens, as clients call it: ADDRESS:PORT (localhost for any address) or unix:PATH; nothing where it
# does not. Its own sockets are asked for, for another process may be the one that answers on a port.
address_of() { # PID
    inodes=" "
    for fd in "/proc/$1/fd/"*; do
        link=$(readlink "$fd") || continue
        case $link in socket:*) link=${link#*[}; inodes="$inodes${link%]} " ;; esac
    done
    awk -v inodes="$inodes" '
        function number(hex,  i, n) {
            for (i = 1; i <= length(hex); i++) n = 16 * n + index("0123456789ABCDEF", substr(hex, i, 1)) - 1
            return n
        }
        function host(hex,  v4, w, i, text) { # each word has its bytes in the order of the machine
            if (hex ~ /^0+$/) return "localhost"
            v4 = length(hex) == 8
            for (w = 1; w < length(hex); w += 8)
                for (i = 6; i >= 0; i -= 2) {
                    text = text (v4 ? number(substr(hex, i + 1, 2)) : substr(hex, w + i, 2))
                    if (v4 && i > 0) text = text "."
                    if (!v4 && (i == 4 || (i == 0 && w < 25))) text = text ":"
                }
            return v4 ? text : "[" text "]"
        }
        FILENAME ~ /tcp/ && $4 == "0A" && index(inodes, " " $10 " ") { split($2, a, ":"); print host(a[1]) ":" number(a[2]); exit }
        FILENAME ~ /unix/ && $4 == "00010000" && index(inodes, " " $7 " ") { print "unix:" $8; exit }
    ' "/proc/$1/net/tcp" "/proc/$1/net/tcp6" "/proc/$1/net/unix"
}

# Waits until a process listens, and leaves where in $address. False when it has ended before.
wait_for() { # PID
    until address=$(address_of "$1" 2>/dev/null) && [ -n "$address" ]; do
        kill -0 "$1" 2>/dev/null || return 1
        sleep 0.1
    done
}

backend() { # NUMBER OUTAGE_OFFSET
    "$build/demo-backend" --listen "127.0.0.1:900$1" --name "backend-$1" --delay 5ms \
        --outage-every 60s --outage-for 10s --outage-offset "$2" --outage-mode refuse &
    pids="$pids $!"
}
backend 1 15s
backend 2 35s
backend 3 55s

# A backend that is not there yet at the first check would be down until it has passed two.
n=0
for p in $pids; do
    n=$((n + 1))
    wait_for "$p" || {
        echo "backend-$n cannot listen on port 900$n" >&2
        stop
        exit 1
    }
done
"$build/loadbalancer" -c config.json &
child=$!
balancer=$child

show() { # ADDRESS
    curl=curl url=$1
    case $1 in unix:*) curl="curl --unix-socket ${1#unix:}" url=localhost ;; esac
    cat <<TEXT

  The load balancer listens on $([ "$curl" = curl ] && echo "http://")$1; three backends fall and recover in turn behind it. Try, in another terminal:

    $curl $url/
    $curl -d '{"client_id":"user1","capacity":10,"rate_per_sec":1}' $url/clients/register
    $curl -i -H 'X-Client-ID: user1' $url/
    $curl $url/clients/list
    curl -d '{"mode":"refuse","for":"10s"}' localhost:9001/_outage

  Ctrl-C stops everything.

TEXT
}
# If it has ended, its own words say why.
! wait_for "$balancer" || show "$address"
await
while [ "$status" -eq 0 ] && follow; do await; done
balancer=""
stop
exit "$status"
