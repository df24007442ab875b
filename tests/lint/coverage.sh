#!/bin/sh
# coverage.sh BUILD PERCENT: the line coverage of src/, from what the tests of a COVERAGE=1 build ran; fails below PERCENT.
set -eu
build=$1
least=$2
lcov --quiet --capture --directory "$build/obj" --base-directory . --no-external --output-file "$build/all.info" 2>/dev/null
lcov --quiet --extract "$build/all.info" "$PWD/src/*" --output-file "$build/src.info"
lcov --list "$build/src.info" | sed -n '/^\[/p;/\.c/p;/Total/p'
percent=$(lcov --summary "$build/src.info" 2>&1 | sed -n 's/.*lines\.*: \([0-9.]*\)%.*/\1/p')
echo "line coverage of src/: $percent %"
awk -v p="$percent" -v l="$least" 'BEGIN { exit !(p + 0 >= l) }' || { echo "below $least %" >&2; exit 1; }
