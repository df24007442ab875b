#!/bin/sh
# clang-tidy over the files named, two at a time, with the short list of checks in .clang-tidy. Prints only findings.
set -eu
# shellcheck disable=SC2016  # $@ is the inner shell's
printf '%s\n' "$@" | xargs -P 2 -n 4 sh -c '
    out=$(clang-tidy --quiet "$@" -- -std=c17 -D_GNU_SOURCE -DLB_VERSION="\"x\"" -Iinclude 2>/dev/null) || { printf "%s\n" "$out"; exit 255; }
    case $out in *warning:* | *error:*) printf "%s\n" "$out"; exit 255 ;; esac
' sh
