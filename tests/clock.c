/* Another time of day for every process that loads this by LD_PRELOAD: AHEAD seconds from now.

   The monotonic clock stays as it is. Debian's faketime does not manage that: it makes time.sleep
   fail or a wait for a lock never end. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/time.h>
#include <time.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*next)(clockid_t, struct timespec *);
    if (!next)
        next = NEXT(clock_gettime);
    int failed = next(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += AHEAD;
    return failed;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME_COARSE, &exact);
    if (now)
        *now = exact.tv_sec;
    return exact.tv_sec;
}

/* The kernel waits by its own clock. A condition that waits by the monotonic one names seconds
   since the machine's start, which are few. */
static struct timespec on_the_kernels_clock(const struct timespec *until)
{
    struct timespec moved = *until;
    if (moved.tv_sec > 1000000000)
        moved.tv_sec -= AHEAD;
    return moved;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until)
{
    struct timespec moved = on_the_kernels_clock(until);
    return NEXT(pthread_cond_timedwait)(condition, mutex, &moved);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until)
{
    struct timespec moved = on_the_kernels_clock(until);
    return NEXT(sem_timedwait)(semaphore, &moved);
}
