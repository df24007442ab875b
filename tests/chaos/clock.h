/* Time, in microseconds. */
#ifndef CHAOS_CLOCK_H
#define CHAOS_CLOCK_H

#include <stdint.h>
#include <time.h>

#define MS 1000u
#define S  1000000u

static inline uint64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * S + (uint64_t)t.tv_nsec / 1000u;
}

static inline void rest_us(unsigned us)
{
    nanosleep(&(struct timespec){.tv_sec = us / S, .tv_nsec = (long)(us % S) * 1000}, NULL);
}

#endif
