#!/bin/sh
# mutants.sh BUILD SEEDS [NAME...]: does the simulation bite? Plants each bug of mutants/ (or those named, with or
# without their number) in a private copy of the sources and of BUILD, and runs seeds 1 to SEEDS of the simulation until
# one finds it; the unmutated simulation must have no finding at that seed. Fails with 1 when a mutant survives, with 2
# when one does not apply or build, or the simulation breaks.
set -eu

die() { echo "mutants: $*" >&2; exit 2; }

[ $# -ge 2 ] || die "usage: mutants.sh BUILD SEEDS [NAME...]"
case $2 in '' | *[!0-9]* | 0*) die "SEEDS must be a number from 1 on, not '$2'" ;; esac
[ -d "$1" ] || die "there is no folder $1"
build=$(cd "$1" && pwd)
seeds=$2
shift 2
root=$(cd "$(dirname "$0")/../.." && pwd)
mutants=$root/tests/sim/mutants

# The patch of that name.
find_patch() {
    for p in "$mutants/$1.patch" "$mutants/"[0-9]*[0-9]-"$1.patch"; do
        if [ -f "$p" ]; then echo "$p"; return; fi
    done
    die "there is no mutant $1"
}

if [ $# -gt 0 ]; then
    patches=
    for name; do
        p=$(find_patch "$name") || exit
        patches="$patches${patches:+
}$p"
    done
else
    patches=$(find "$mutants" -name '[0-9]*.patch' | sort -V)
    [ -n "$patches" ] || die "there are no mutants in $mutants"
fi

# The copy is made once. cp -a keeps the times, so that make compiles only what a patch changes.
work=$(mktemp -d)
child=
clean_up() {
    [ -z "$child" ] || kill "$child" 2>/dev/null || :
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$root"
cp -a src include tests Makefile "$build" "$work"
folder=$(basename "$build")
cd "$work"
out=$work/output

# In the background, so that a signal does not wait for it.
run() {
    "$@" >"$out" 2>&1 &
    child=$!
    status=0
    wait "$child" || status=$?
    child=
}

build_sim() { run "${MAKE:-make}" BUILD="$folder" "$folder/sim"; }

# Stops here; the output says why.
broken() {
    tail -n 40 "$out" >&2
    die "$1"
}

build_sim
[ "$status" -eq 0 ] || broken "the simulation does not build, without any mutant"
cp "$folder/sim" clean

caught=0
total=0
printf '%-42s %-8s %6s  %s\n' mutant result seeds "found by"
IFS='
'
for patch in $patches; do
    name=$(basename "$patch" .patch)
    patch -p1 -F0 --forward --batch --no-backup-if-mismatch <"$patch" >"$out" 2>&1 || broken "$name does not apply"
    build_sim
    [ "$status" -eq 0 ] || broken "$name does not build"
    run "./$folder/sim" --seeds "1-$seeds" --first
    case $status in
    0) result=SURVIVED by='-' seed=$seeds ;;
    1)
        result=caught
        seed=$(sed -n 's/^seed \([0-9]*\): .*/\1/p' "$out" | sort -n | head -n 1)
        by=$(sed -n "s/^seed $seed: \\([^:]*\\): .*/\\1/p" "$out")
        ;;
    *) broken "$name: the simulation ended with status $status" ;;
    esac
    if [ "$result" = caught ]; then
        run ./clean --seed "$seed"
        [ "$status" -eq 0 ] || broken "$name: the unmutated simulation has a finding at seed $seed, too"
    fi
    printf '%-42s %-8s %6s  %s\n' "$name" "$result" "$seed" "$by"
    total=$((total + 1))
    [ "$result" = SURVIVED ] || caught=$((caught + 1))
    # What is taken back is newer than its object, and so is compiled again.
    patch -p1 --reverse --batch --no-backup-if-mismatch <"$patch" >"$out" 2>&1 || broken "$name cannot be taken back"
done
echo "mutants: $caught of $total caught"
[ "$caught" -eq "$total" ]
