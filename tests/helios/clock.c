/* The system's clock, moved by as many seconds as the file named by JUMPING_CLOCK says at that moment. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef int (*clock_function)(clockid_t, struct timespec *);

int clock_gettime(clockid_t clock, struct timespec *now) {
    static clock_function real;
    if (!real) real = (clock_function)dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (result == 0 && clock == CLOCK_REALTIME) {
        const char *path = getenv("JUMPING_CLOCK");
        FILE *file = path ? fopen(path, "re") : NULL;
        long long seconds = 0;
        if (file) {
            if (fscanf(file, "%lld", &seconds) != 1) seconds = 0;
            fclose(file);
        }
        now->tv_sec += seconds;
    }
    return result;
}
