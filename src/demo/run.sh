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

backend() { # NUMBER OUTAGE_OFFSET
    "$build/demo-backend" --listen "127.0.0.1:900$1" --name "backend-$1" --delay 5ms \
        --outage-every 60s --outage-for 10s --outage-offset "$2" --outage-mode refuse &
    pids="$pids $!"
}
backend 1 15s
backend 2 35s
backend 3 55s

# A backend that is not there yet at the first check would be down until it has passed two.
for n in 1 2 3; do
    curl -s -o /dev/null --retry 50 --retry-connrefused --retry-delay 0 --retry-max-time 5 "http://127.0.0.1:900$n/health" || {
        echo "backend-$n does not answer on port 900$n" >&2
        stop
        exit 1
    }
done
"$build/loadbalancer" -c config.json &
child=$!
balancer=$child

cat <<'TEXT'

  The load balancer listens on http://localhost:8080; three backends fall and recover in turn behind it. Try, in another terminal:

    curl localhost:8080/
    curl -d '{"client_id":"user1","capacity":10,"rate_per_sec":1}' localhost:8080/clients/register
    curl -i -H 'X-Client-ID: user1' localhost:8080/
    curl localhost:8080/clients/list
    curl -d '{"mode":"refuse","for":"10s"}' localhost:9001/_outage

  Ctrl-C stops everything.

TEXT
await
while [ "$status" -eq 0 ] && follow; do await; done
balancer=""
stop
exit "$status"
