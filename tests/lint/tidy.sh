#!/bin/sh
# clang-tidy over the files named, two at a time, with the short list of checks in .clang-tidy. Prints only findings, all of them.
set -eu
# shellcheck disable=SC2016  # $@ is the inner shell's
found=$(printf '%s\n' "$@" | xargs -P 2 -n 8 sh -c '
    clang-tidy --quiet "$@" -- -std=c17 -D_GNU_SOURCE -DLB_VERSION="\"x\"" -Iinclude 2>/dev/null || true
' sh)
case $found in
*error:* | *warning:*) printf '%s\n' "$found" >&2; exit 1 ;;
esac
