#!/bin/sh
# run.sh PROGRAM...: runs the end-to-end test programs, two at a time, each one's output whole; fails when one fails.
set -eu
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
# shellcheck disable=SC2016  # $1 and $2 are the inner shell's
printf '%s\n' "$@" | xargs -P "${LB_E2E_JOBS:-2}" -I{} sh -c '
    log="$2/$(basename "$1")"
    if "$1" >"$log" 2>&1; then status=ok; else status=FAILED; touch "$2/failed"; fi
    printf "== %s: %s\n" "$1" "$status" >>"$log"
    cat "$log"
' sh {} "$logs"
[ ! -e "$logs/failed" ]
