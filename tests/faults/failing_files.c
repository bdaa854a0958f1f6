// Preloaded into a program, makes one call that changes files fail: the FAIL_AT-th write, fsync or rename below the
// folder FAIL_UNDER, with error number FAIL_WITH. Touches the file FAIL_TOLD when it does. With SLOW_UNDER, every fsync
// below that folder takes 0.1 s longer. With FULL_UNDER, there is room for FULL_AFTER bytes below that folder.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

// Whether a path is below the folder that an environment variable names.
static int is_below(const char* variable, const char* path) {
  const char* folder = getenv(variable);
  return folder != NULL && strncmp(path, folder, strlen(folder)) == 0;
}

static int fails(const char* path) {
  static atomic_int calls;
  if (!is_below("FAIL_UNDER", path)) return 0;
  if (atomic_fetch_add(&calls, 1) + 1 != atoi(getenv("FAIL_AT"))) return 0;
  close(open(getenv("FAIL_TOLD"), O_WRONLY | O_CREAT, 0666));
  errno = atoi(getenv("FAIL_WITH"));
  return 1;
}

// Of an open file, PATH_MAX + 1 characters; "" if there is none.
static const char* path_of(int descriptor, char* path) {
  char link[64];
  snprintf(link, sizeof(link), "/proc/self/fd/%d", descriptor);
  const ssize_t length = readlink(link, path, PATH_MAX);
  path[length > 0 ? length : 0] = 0;
  return path;
}

static int fails_at(int descriptor) {
  char path[PATH_MAX + 1];
  return fails(path_of(descriptor, path));
}

static int stands_below(const char* variable, int descriptor) {
  char path[PATH_MAX + 1];
  return getenv(variable) != NULL && is_below(variable, path_of(descriptor, path));
}

static atomic_long bytes_taken;  // below FULL_UNDER
static long bytes_left(void) { return atol(getenv("FULL_AFTER")) - bytes_taken; }

ssize_t write(int descriptor, const void* data, size_t bytes) {
  ssize_t (*original)(int, const void*, size_t) = dlsym(RTLD_NEXT, "write");
  if (fails_at(descriptor)) return -1;
  if (!stands_below("FULL_UNDER", descriptor)) return original(descriptor, data, bytes);
  if ((long)bytes > bytes_left()) {
    errno = ENOSPC;
    return -1;
  }
  bytes_taken += (long)bytes;
  return original(descriptor, data, bytes);
}

int statvfs(const char* path, struct statvfs* space) {
  int (*original)(const char*, struct statvfs*) = dlsym(RTLD_NEXT, "statvfs");
  const int status = original(path, space);
  if (status == 0 && is_below("FULL_UNDER", path))
    space->f_bfree = space->f_bavail = (fsblkcnt_t)bytes_left() / space->f_frsize;
  return status;
}

int fsync(int descriptor) {
  int (*original)(int) = dlsym(RTLD_NEXT, "fsync");
  if (stands_below("SLOW_UNDER", descriptor)) usleep(100000);
  return fails_at(descriptor) ? -1 : original(descriptor);
}

int rename(const char* from, const char* to) {
  int (*original)(const char*, const char*) = dlsym(RTLD_NEXT, "rename");
  return fails(from) ? -1 : original(from, to);
}
