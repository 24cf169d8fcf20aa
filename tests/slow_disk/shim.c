/* Preloaded into a process (LD_PRELOAD): the disk below SLOW_DISK is slow for it.
 *
 * Owns the functions of the C library by which SQLite and edgerepl come to a disk: each write, each
 * sync and each opened file of Litestream's takes a moment longer. Fails nothing, and changes nothing
 * of what is written. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

/* A page to worn flash, a sync of it, and a file that no cache holds; in milliseconds. */
enum { WRITE = 8, SYNC = 50, OPEN = 150 };

static int is_below(const char *path) {
    const char *folder = getenv("SLOW_DISK");
    return folder && strncmp(path, folder, strlen(folder)) == 0;
}

static void rest(long milliseconds) {
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static void rest_for(int fd, long milliseconds) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length > 0) {
        path[length] = 0;
        if (is_below(path)) rest(milliseconds);
    }
}

static void rest_for_file(const char *path) {
    const char *end = strrchr(path, '.');
    if (end && strcmp(end, ".ltx") == 0 && is_below(path)) rest(OPEN);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *bytes, size_t count) {
    rest_for(fd, WRITE);
    return NEXT(write)(fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    rest_for(fd, WRITE);
    return NEXT(pwrite)(fd, bytes, count, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    rest_for(fd, WRITE);
    return NEXT(pwrite64)(fd, bytes, count, offset);
}

int fsync(int fd) {
    rest_for(fd, SYNC);
    return NEXT(fsync)(fd);
}

int fdatasync(int fd) {
    rest_for(fd, SYNC);
    return NEXT(fdatasync)(fd);
}

/* The mode is there or not: it is read and passed on as what it would be. */
#define OPENS(name)                                                                                \
    int name(const char *path, int flags, ...) {                                                   \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode_t mode = va_arg(rest, mode_t);                                                        \
        va_end(rest);                                                                              \
        rest_for_file(path);                                                                       \
        return NEXT(name)(path, flags, mode);                                                      \
    }

OPENS(open)
OPENS(open64)
