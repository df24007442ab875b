#!/bin/sh
# layers.sh BUILD: checks the rules of the house that a compiler does not.
#  - an include points down or sideways inside its folder, never up, and siblings do not see each other
#  - every header compiles alone
#  - cJSON and http-parser are each included by one file
#  - system calls are made by the five files that may (looked up in the objects' undefined symbols)
set -eu
build=$1
bad=0
complain() { echo "layers: $*" >&2; bad=1; }

# What each layer may include, itself apart.
may_include() {
    case $1 in
    base) echo "" ;;
    event | http) echo "base" ;;
    net) echo "base event" ;;
    config) echo "base event http net" ;;
    limit | upstream) echo "base event http net config" ;;
    proxy) echo "base event http net config limit upstream" ;;
    admin) echo "base event http net config limit upstream proxy" ;;
    demo) echo "base event http net" ;;
    top) echo "base event http net config limit upstream proxy admin" ;;
    *) echo "layers: unknown layer $1" >&2; exit 1 ;;
    esac
}

for f in $(find src include -name '*.[ch]' | sort); do
    case $f in
    */*/*.[ch]) layer=$(echo "$f" | cut -d/ -f2) ;;
    *) layer=top ;;
    esac
    # shellcheck disable=SC2013  # the words are names of folders
    for to in $(sed -n 's/^#include "\([a-z0-9_]*\)\/.*/\1/p' "$f" | sort -u); do
        [ "$to" = "$layer" ] && continue
        case " $(may_include "$layer") " in
        *" $to "*) ;;
        *) complain "$f includes $to/, which is not below $layer" ;;
        esac
    done
done

for h in $(find include -name '*.h' | sort); do
    ${CC:-gcc} -std=c17 -D_GNU_SOURCE -Wall -Wextra -Werror -Iinclude -fsyntax-only -x c "$h" || complain "$h does not compile alone"
done

only() { # HEADER FILE
    # shellcheck disable=SC2013  # the words are names of files of ours
    for f in $(grep -rl "#include <.*$1>" src include | sort); do
        [ "$f" = "$2" ] || complain "$f includes $1: only $2 may"
    done
}
only 'cJSON.h' src/base/json.c
only 'http_parser.h' src/http/parse.c

calls='socket|bind|listen|accept|accept4|connect|recv|recvfrom|recvmsg|send|sendto|sendmsg|shutdown|setsockopt|getsockopt|getsockname|getpeername|ioctl|splice|tee|pipe|pipe2|poll|ppoll|select|epoll_create1|epoll_ctl|epoll_wait|epoll_pwait|timerfd_create|timerfd_settime|eventfd|signalfd|open|open64|openat|creat|close|read|write|readv|writev|pread|pwrite|pread64|pwrite64|fsync|fdatasync|ftruncate|ftruncate64|sync_file_range|rename|unlink|stat|stat64|fstat|fstat64|lstat|chmod|fchmod|fchmodat|flock|fcntl|fcntl64|mmap|mmap64|munmap|msync|sigaction|sysconf|clock_gettime|gettimeofday|time|getrandom|getentropy|rand|random|nanosleep|usleep|sleep|getaddrinfo|getrlimit|getrlimit64|setrlimit|setrlimit64|getpid|kill|fork|vfork|_exit|execve|posix_spawn|waitpid|readlink|socketpair|getpeername|fopen|fopen64|system|popen'
for o in $(find "$build/obj" -name '*.o' -not -path '*/e2e/*' -not -path '*/demo/*' -not -path '*/sim/*' -not -name 'sim-daemon.o' | sort); do
    case ${o#"$build"/obj/} in
    net/sock.o | event/loop.o | base/file.o | base/clock.o | base/process.o) continue ;;
    event/signals.o) allowed='signalfd|read|close' ;; # the signalfd is its whole purpose
    *) allowed='' ;;
    esac
    # readelf, for nm shows the symbols of LTO where an object has both.
    for s in $(readelf -sW "$o" | awk '$7 == "UND" { print $8 }' | sed 's/^__\(.*\)_chk$/\1/' | grep -E -x "$calls" | sort -u); do
        [ -n "$allowed" ] && echo "$s" | grep -E -q -x "$allowed" && continue
        complain "$o calls $s(): only net/sock.c, event/loop.c, base/file.c, base/clock.c and base/process.c make system calls"
    done
done
exit $bad
