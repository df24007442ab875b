#!/bin/sh
# run.sh PROGRAM...: runs test programs, two at a time (or TEST_JOBS), each one's output whole; fails when one fails.
set -eu
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
# shellcheck disable=SC2016  # $1 and $2 are the inner shell's
printf '%s\n' "$@" | xargs -P "${TEST_JOBS:-2}" -I{} sh -c '
    log="$2/$(basename "$(dirname "$1")")-$(basename "$1")"
    begun=$(date +%s)
    if "$1" >"$log" 2>&1; then status=ok; else status=FAILED; touch "$2/failed"; fi
    printf "== %s: %s, %d s\n" "$1" "$status" "$(($(date +%s) - begun))" >>"$log"
    cat "$log"
' sh {} "$logs"
[ ! -e "$logs/failed" ]
