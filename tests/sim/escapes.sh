#!/bin/sh
# escapes.sh OBJECT: fails when the daemon's object, as the simulation links it, calls anything that could reach the real
# world: every symbol that it does not define must be the simulated kernel's, a library's, or a pure function of libc's.
# And when it keeps state where a new start would find it: every writable section must be one of those that process.c
# puts back, be written by the loader alone, or be the sanitizers' own.
set -eu
pure='__errno_location|__fdelt_chk|__memcpy_chk|__snprintf_chk|__sprintf_chk|__stack_chk_fail|__strcpy_chk|__strncpy_chk|__vsnprintf_chk|_GLOBAL_OFFSET_TABLE_|bcmp|__divti3|__udivti3|frexp|gai_strerror|getopt_long|gmtime_r|in6addr_any|inet_ntop|inet_pton|ldexp|memchr|memcmp|memcpy|memmem|memmove|mempcpy|memset|optarg|optind|qsort|sigaddset|sigemptyset|sigfillset|snprintf|stderr|stpcpy|stdout|strchr|strcmp|strcpy|strcspn|strerror|strerrordesc_np|strlen|strncmp|strnlen|strrchr|strtod|timegm|vsnprintf|__memset_chk'
symbols=$(nm -u "$1")
escaped=$(echo "$symbols" | sed -n 's/^ *[Uw] *//p' |
    grep -E -v -x "sim_.*|cJSON_.*|http_parser_.*|__(asan|ubsan|sanitizer|gcov|start|stop)_.*|$pure" || true)
[ -z "$escaped" ] || {
    echo "escapes.sh: the daemon calls what is not simulated (see tests/sim/syscalls.map):" >&2
    echo "$escaped" >&2
    exit 1
}
# Name, type, address, offset, size, entry size, flags: those with a W that are not empty.
sections=$(readelf -SW "$1")
kept=$(echo "$sections" | sed -n 's/^ *\[ *[0-9]*\] *//p' | awk 'NF == 10 && $7 ~ /W/ && $5 !~ /^0*$/ { print $1 }' |
    grep -E -v -x 'daemon_(data|data_rel|bss)|\.data\.rel\.ro(\.local)?|\.(init|fini)_array(\.[0-9]+)?|asan_.*' || true)
[ -z "$kept" ] || {
    echo "escapes.sh: sections of the daemon that no start puts back (see reset_globals() in tests/sim/process.c):" >&2
    echo "$kept" >&2
    exit 1
}
