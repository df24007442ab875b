#!/bin/sh
# run.sh FOLDER SECONDS TARGET...: fuzzes each target for that long, from its seeds and regressions. What crashes is left in the folder,
# to be minimised and kept under tests/fuzz/regressions/TARGET/.
set -eu
folder=$1
seconds=$2
shift 2
for t in "$@"; do
    mkdir -p "$folder/$t.corpus" "tests/fuzz/corpus/$t" "tests/fuzz/regressions/$t"
    echo "== fuzz $t, $seconds s"
    "$folder/$t" -max_total_time="$seconds" -max_len=20000 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="$folder/$t-" "$folder/$t.corpus" "tests/fuzz/corpus/$t" "tests/fuzz/regressions/$t" \
        >"$folder/$t.log" 2>&1 || { tail -60 "$folder/$t.log"; exit 1; }
    grep -E 'stat::number_of_executed_units|DONE' "$folder/$t.log" | tail -2
done
