/* Counts the file operations of a process below one folder, and makes the n-th one fail or kill it.

   Preloaded into a real process (LD_PRELOAD), so that all writing code is intercepted where
   it calls the system: Python, Arrow and others. Nothing happens until faults_arm is called.
   Built with: cc -shared -fPIC -O2 -o libinterpose.so interpose.c */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, FAIL_ONCE, FAIL_EVER };

static char watched[PATH_MAX];
static long seen, target;
static int action, log_descriptor = -1;

void faults_arm(const char *folder, long nth, int what, int log_to) {
    seen = 0;
    target = nth;
    action = what;
    log_descriptor = log_to;
    strncpy(watched, folder, sizeof watched - 1);
}

/* Whether this operation must fail; does not return if it kills the process. */
static int meets(const char *operation, const char *path, int uses_disk) {
    if (!watched[0] || strncmp(path, watched, strlen(watched)) != 0) return 0;
    long number = __sync_add_and_fetch(&seen, 1);
    if (log_descriptor >= 0) {
        char line[PATH_MAX + 64];
        int length = snprintf(line, sizeof line, "%ld %s %s\n", number, operation, path);
        syscall(SYS_write, log_descriptor, line, length);
    }
    if (action == KILL && number == target) kill(getpid(), SIGKILL);
    if (action == FAIL_ONCE) return number == target;
    return action == FAIL_EVER && number >= target && uses_disk;
}

static const char *path_of(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    return path;
}

static const char *path_at(int folder, const char *name, char *path) {
    if (name[0] == '/' || folder == AT_FDCWD) return name;
    path_of(folder, path);
    size_t length = strlen(path);
    snprintf(path + length, PATH_MAX - length, "/%s", name);
    return path;
}

#define FAIL(number) do { errno = (number); return -1; } while (0)

#define OPEN_AT(name)                                                                   \
    int name(int folder, const char *file, int flags, ...) {                            \
        char path[PATH_MAX];                                                            \
        va_list arguments;                                                              \
        va_start(arguments, flags);                                                     \
        mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(arguments, mode_t) : 0; \
        va_end(arguments);                                                              \
        if ((flags & O_CREAT) && meets("create", path_at(folder, file, path), 1)) FAIL(ENOSPC); \
        return (int)syscall(SYS_openat, folder, file, flags, mode);                     \
    }
#define OPEN(name)                                                                      \
    int name(const char *file, int flags, ...) {                                        \
        va_list arguments;                                                              \
        va_start(arguments, flags);                                                     \
        mode_t mode = (flags & (O_CREAT | __O_TMPFILE)) ? va_arg(arguments, mode_t) : 0; \
        va_end(arguments);                                                              \
        if ((flags & O_CREAT) && meets("create", file, 1)) FAIL(ENOSPC);                \
        return (int)syscall(SYS_openat, AT_FDCWD, file, flags, mode);                   \
    }
OPEN_AT(openat)
OPEN_AT(openat64)
OPEN(open)
OPEN(open64)

ssize_t write(int descriptor, const void *bytes, size_t count) {
    char path[PATH_MAX];
    if (watched[0] && meets("write", path_of(descriptor, path), 1)) FAIL(ENOSPC);
    return syscall(SYS_write, descriptor, bytes, count);
}

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    char path[PATH_MAX];
    if (watched[0] && meets("write", path_of(descriptor, path), 1)) FAIL(ENOSPC);
    return syscall(SYS_writev, descriptor, parts, count);
}

int fsync(int descriptor) {
    char path[PATH_MAX];
    if (watched[0] && meets("fsync", path_of(descriptor, path), 0)) FAIL(EIO);
    return (int)syscall(SYS_fsync, descriptor);
}

int rename(const char *from, const char *to) {
    if (meets("rename", to, 0)) FAIL(EIO);
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    char path[PATH_MAX];
    if (meets("rename", path_at(to_folder, to, path), 0)) FAIL(EIO);
    return (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, 0);
}

int link(const char *from, const char *to) {
    if (meets("link", to, 1)) FAIL(EIO);
    return (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    char path[PATH_MAX];
    if (meets("link", path_at(to_folder, to, path), 1)) FAIL(EIO);
    return (int)syscall(SYS_linkat, from_folder, from, to_folder, to, flags);
}

int unlink(const char *file) {
    if (meets("unlink", file, 0)) FAIL(EIO);
    return (int)syscall(SYS_unlinkat, AT_FDCWD, file, 0);
}

int unlinkat(int folder, const char *file, int flags) {
    char path[PATH_MAX];
    if (meets("unlink", path_at(folder, file, path), 0)) FAIL(EIO);
    return (int)syscall(SYS_unlinkat, folder, file, flags);
}

int rmdir(const char *folder) {
    if (meets("rmdir", folder, 0)) FAIL(EIO);
    return (int)syscall(SYS_unlinkat, AT_FDCWD, folder, AT_REMOVEDIR);
}

int mkdir(const char *folder, mode_t mode) {
    if (meets("mkdir", folder, 1)) FAIL(ENOSPC);
    return (int)syscall(SYS_mkdirat, AT_FDCWD, folder, mode);
}
