/* Makes calls of the C library fail: `FAULT_CALLS` (open,write,...), `FAULT_ERRNO`, `FAULT_PATH` (a part of the path),
   `FAULT_AFTER` (so many such calls succeed first), `FAULT_TRUNCATE` (a file to cut off instead of failing). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int left = -1;

static int fails(const char *call, const char *path) {
    const char *calls = getenv("FAULT_CALLS"), *part = getenv("FAULT_PATH"), *after = getenv("FAULT_AFTER");
    char wanted[64];
    if (!calls || !part || !path || !strstr(path, part)) return 0;
    snprintf(wanted, sizeof wanted, ",%s,", call);
    if (!strstr(calls, wanted)) return 0;
    if (left < 0) left = after ? atoi(after) : 0;
    if (left > 0) { left--; return 0; }
    errno = atoi(getenv("FAULT_ERRNO"));
    return 1;
}

static int fails_on(const char *call, int number) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", number);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails(call, path);
}

#define NEXT(type, name, ...) type (*next)(__VA_ARGS__) = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)
#define OPEN(name)                                                        \
    int name(const char *path, int flags, ...) {                          \
        NEXT(int, #name, const char *, int, ...);                         \
        va_list rest;                                                     \
        va_start(rest, flags);                                            \
        mode_t mode = va_arg(rest, mode_t);                               \
        va_end(rest);                                                     \
        if (fails((flags & O_ACCMODE) == O_RDONLY ? "open for reading" : "open", path)) return -1; \
        return next(path, flags, mode);                                   \
    }
OPEN(open)
OPEN(open64)

#define OF_PATH(name)                                   \
    int name(const char *path, mode_t mode) {           \
        NEXT(int, #name, const char *, mode_t);         \
        return fails(#name, path) ? -1 : next(path, mode); \
    }
OF_PATH(mkdir)
OF_PATH(chmod)

int rename(const char *from, const char *to) {
    NEXT(int, "rename", const char *, const char *);
    return fails("rename", to) ? -1 : next(from, to);
}
int unlink(const char *path) {
    NEXT(int, "unlink", const char *);
    return fails("unlink", path) ? -1 : next(path);
}
int fsync(int number) {
    NEXT(int, "fsync", int);
    return fails_on("fsync", number) ? -1 : next(number);
}
int flock(int number, int operation) {
    NEXT(int, "flock", int, int);
    return fails_on("flock", number) ? -1 : next(number, operation);
}
ssize_t write(int number, const void *bytes, size_t count) {
    NEXT(ssize_t, "write", int, const void *, size_t);
    return fails_on("write", number) ? -1 : next(number, bytes, count);
}
ssize_t read(int number, void *bytes, size_t count) {
    NEXT(ssize_t, "read", int, void *, size_t);
    return fails_on("read", number) ? -1 : next(number, bytes, count);
}
