#!/bin/sh
# escapes.sh OBJECT: fails when the daemon's object, as the simulation links it, calls anything that could reach the real
# world: every symbol that it does not define must be the simulated kernel's, a library's, or a pure function of libc's.
set -eu
pure='__errno_location|__fdelt_chk|__memcpy_chk|__snprintf_chk|__sprintf_chk|__stack_chk_fail|__strcpy_chk|__strncpy_chk|__vsnprintf_chk|_GLOBAL_OFFSET_TABLE_|bcmp|__udivti3|frexp|gai_strerror|getopt_long|gmtime_r|in6addr_any|inet_ntop|inet_pton|ldexp|memchr|memcmp|memcpy|memmem|memmove|mempcpy|memset|optarg|optind|qsort|sigaddset|sigemptyset|sigfillset|snprintf|stderr|stpcpy|stdout|strchr|strcmp|strcpy|strerror|strerrordesc_np|strlen|strncmp|strnlen|strrchr|strtod|timegm|vsnprintf'
escaped=$(nm -u "$1" | sed -n 's/^ *[Uw] *//p' |
    grep -E -v -x "sim_.*|cJSON_.*|http_parser_.*|__(asan|ubsan|sanitizer|gcov|start|stop)_.*|$pure" || true)
[ -z "$escaped" ] || {
    echo "escapes.sh: the daemon calls what is not simulated (see tests/sim/syscalls.map):" >&2
    echo "$escaped" >&2
    exit 1
}
