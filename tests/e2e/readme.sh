#!/usr/bin/env bash
# readme.sh [BUILD]: runs the README's own lines against what `make run` starts, and compares the answers with the README's.
#
# What is run: in fenced blocks marked `console`, each line that begins with "$ "; the lines behind it, up to the next one or the
# block's end, are what it must print. In those, ... matches anything within a line. The Russian README must show the same blocks.
# Besides: every key of the config and every reason of an error stands in both READMEs.
set -euo pipefail
export LC_ALL=C.UTF-8
unset LISTEN BACKEND_1 BACKEND_2 BACKEND_3 CLIENTS_FILE ADMIN_ALLOW http_proxy HTTP_PROXY all_proxy ALL_PROXY

repo=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "${1:-${LB_BUILD:?no folder given, and LB_BUILD not set}}" && pwd)
readmes=("$repo/README.md" "$repo/docs/README.ru.md")
ports=(8080 9001 9002 9003)
room=$(mktemp -d)
running=""
balancer=""
another=""
failures=0

fail() {
    echo "readme: $*" >&2
    failures=$((failures + 1))
}

# run.sh stops its children itself; should it not, they are ended one by one.
stop() {
    [ -n "$running" ] || return 0
    local children
    children=$(pgrep -P "$running" || true)
    kill -TERM "$running" 2>/dev/null || true
    for _ in $(seq 100); do
        kill -0 "$running" 2>/dev/null || break
        sleep 0.1
    done
    for p in $running $children $balancer; do
        kill -KILL "$p" 2>/dev/null || true
    done
    wait "$running" 2>/dev/null || true
    running=""
}
trap 'stop; [ -z "$another" ] || kill "$another" 2>/dev/null || true; rm -rf "$room"' EXIT
trap 'exit 1' INT TERM

is_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

blocks() { awk '/^```console$/ { on = 1; next } /^```/ { on = 0 } on' "$1"; }

# ---- what needs no process ----

check_reference() {
    local word
    while read -r word; do
        grep -q -F "| \`$word\` |" "$1" || fail "$1 has no row for the key $word"
    done < <(sed -n 's/^    {"\([^"]*\)",.*/\1/p' "$repo/src/config/schema.c")
    while read -r word; do
        grep -q -F "\`$word\`" "$1" || fail "$1 does not name the reason $word"
    done < <(sed -n 's/^    X([A-Z_]*, *[0-9]*, *"\([a-z_]\{1,\}\)",.*/\1/p' "$repo/include/base/err.h")
}

for f in "${readmes[@]}"; do
    check_reference "$f"
    blocks "$f" >"$room/$(basename "$f").blocks"
done
diff -u "$room/README.md.blocks" "$room/README.ru.md.blocks" >&2 || fail "the READMEs show different lines"

# ---- what make run starts ----

for p in "${ports[@]}"; do
    ! is_open "$p" || { fail "port $p is in use"; exit 1; }
done
cp "$repo/config.json" "$room/"
cd "$room"
"$repo/src/demo/run.sh" "$build" >"$room/log" 2>&1 &
running=$!
for p in "${ports[@]}"; do
    for _ in $(seq 50); do
        is_open "$p" && break
        sleep 0.1
    done
    is_open "$p" || { fail "nothing listens on port $p"; cat "$room/log" >&2; exit 1; }
done

# What it says of itself is said once it is so.
said() { grep -q -F "The load balancer listens on $1;" "$room/log"; }
for _ in $(seq 50); do
    said http://localhost:8080 && break
    sleep 0.1
done
said http://localhost:8080 || fail "make run does not say where the balancer listens"

# ---- the lines ----

# Does the text in $1 fit the README's in $2, line by line?
fits() {
    local -a have want
    local i pattern
    mapfile -t have <<<"$1"
    mapfile -t want <<<"$2"
    [ "${#have[@]}" -eq "${#want[@]}" ] || return 1
    for i in "${!want[@]}"; do
        pattern=$(printf '%s' "${want[i]}" | sed 's/[][\\*?]/\\&/g; s/\.\.\./*/g')
        # The pattern is to be one.
        # shellcheck disable=SC2053
        [[ ${have[i]} == $pattern ]] || return 1
    done
}

# With --max-time nothing hangs, with -sS no progress is drawn and failures are still told.
run_line() {
    (
        # shellcheck disable=SC2317  # called by the line
        curl() { command curl -sS --max-time 10 "$@"; }
        eval "$1"
    ) 2>&1 | tr -d '\r' | sed 's/[[:space:]]*$//'
}

check_line() {
    local have
    have=$(run_line "$1") || true
    fits "$have" "${2%$'\n'}" && return
    fail "a line answers other than the README says"
    printf '$ %s\n---- says\n%s---- answers\n%s\n\n' "$1" "$2" "$have" >&2
}

count=0
line=""
expected=""
while IFS= read -r text; do
    case $text in
    '$ '*)
        [ -z "$line" ] || check_line "$line" "$expected"
        line=${text#'$ '}
        expected=""
        count=$((count + 1))
        ;;
    *) expected+=$text$'\n' ;;
    esac
done <"$room/README.md.blocks"
[ -z "$line" ] || check_line "$line" "$expected"
[ "$count" -ge 10 ] || fail "only $count lines were found in the README"

# ---- the backend that the README has let fall ----

for _ in $(seq 100); do
    grep -q 'backend_down backend=backend-1 ' "$room/log" && break
    sleep 0.1
done
grep -q 'backend_down backend=backend-1 ' "$room/log" || fail "the log does not say that backend-1 is down"

# ---- another process in the balancer's place: the backends stay, and the end is everybody's ----

balancer=$(pgrep -P "$running" -f "^$build/loadbalancer ")
for round in 1 2; do
    kill -USR2 "$balancer"
    for _ in $(seq 100); do
        [ "$(grep -c ' upgrade pid=' "$room/log")" -eq "$round" ] && ! kill -0 "$balancer" 2>/dev/null && break
        sleep 0.1
    done
    balancer=$(sed -n 's/.* upgrade pid=\([0-9]*\) .*/\1/p' "$room/log" | sed -n "${round}p")
    [ -n "$balancer" ] || { fail "the balancer does not go over to another process"; break; }
done
status=$(curl -sS --max-time 10 -o /dev/null -w '%{http_code}' http://127.0.0.1:8080/ 2>&1) || true
[ "$status" = 200 ] || fail "behind an upgrade the answer is $status"

stop
for p in "${ports[@]}"; do
    ! is_open "$p" || fail "port $p is still open after the end"
done

# ---- somewhere else, and where another server has the port of a backend ----

LISTEN=127.0.0.1:8080 "$repo/src/demo/run.sh" "$build" >"$room/log" 2>&1 &
running=$!
for _ in $(seq 100); do
    said http://127.0.0.1:8080 && break
    sleep 0.1
done
said http://127.0.0.1:8080 || fail "make run does not say where the balancer listens after all"
stop
"$build/demo-backend" --listen 127.0.0.1:9002 --name another >/dev/null 2>&1 &
another=$!
until is_open 9002; do sleep 0.1; done
timeout 20 "$repo/src/demo/run.sh" "$build" >"$room/log" 2>&1 && fail "make run goes on without one of its backends"
grep -q "backend-2 cannot listen on port 9002" "$room/log" || fail "make run does not say whose port is taken"
kill "$another"
another=""

if [ "$failures" -gt 0 ]; then
    echo "---- the log" >&2
    tail -n 60 "$room/log" >&2
    exit 1
fi
echo "readme: $count lines answered as the README says, in $SECONDS s"
