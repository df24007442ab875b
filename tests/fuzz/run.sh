#!/bin/sh
# run.sh FOLDER SECONDS TARGET...: fuzzes each target for that long, two at a time, from its seeds and regressions. What
# crashes is left in the folder, to be minimised and kept under tests/fuzz/regressions/TARGET/.
set -eu
folder=$1
seconds=$2
shift 2
rm -f "$folder"/*.failed
# shellcheck disable=SC2016  # $1 to $3 are the inner shell's
printf '%s\n' "$@" | xargs -P 2 -I{} sh -c '
    t=$1 folder=$2 seconds=$3
    mkdir -p "$folder/$t.corpus" "tests/fuzz/corpus/$t" "tests/fuzz/regressions/$t"
    if "$folder/$t" -max_total_time="$seconds" -max_len=20000 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="$folder/$t-" "$folder/$t.corpus" "tests/fuzz/corpus/$t" "tests/fuzz/regressions/$t" \
        >"$folder/$t.log" 2>&1
    then
        echo "== fuzz $t, $seconds s: $(grep -E "stat::number_of_executed_units" "$folder/$t.log")"
    else
        touch "$folder/$t.failed"
        echo "== fuzz $t: FAILED"
        tail -60 "$folder/$t.log"
    fi
' sh {} "$folder" "$seconds"
for t in "$@"; do
    [ ! -e "$folder/$t.failed" ] || exit 1
done
