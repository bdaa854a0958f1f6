// Preloaded into a program, makes one call that changes files fail: the FAIL_AT-th write, fsync or rename below the
// folder FAIL_UNDER, with error number FAIL_WITH. Touches the file FAIL_TOLD when it does. With SLOW_UNDER, every fsync
// below that folder takes 0.1 s longer.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(const char* path) {
  static atomic_int calls;
  const char* under = getenv("FAIL_UNDER");
  if (under == NULL || strncmp(path, under, strlen(under)) != 0) return 0;
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

ssize_t write(int descriptor, const void* data, size_t bytes) {
  ssize_t (*original)(int, const void*, size_t) = dlsym(RTLD_NEXT, "write");
  return fails_at(descriptor) ? -1 : original(descriptor, data, bytes);
}

static void slow_down(int descriptor) {
  const char* under = getenv("SLOW_UNDER");
  char path[PATH_MAX + 1];
  if (under != NULL && strncmp(path_of(descriptor, path), under, strlen(under)) == 0) usleep(100000);
}

int fsync(int descriptor) {
  int (*original)(int) = dlsym(RTLD_NEXT, "fsync");
  slow_down(descriptor);
  return fails_at(descriptor) ? -1 : original(descriptor);
}

int rename(const char* from, const char* to) {
  int (*original)(const char*, const char*) = dlsym(RTLD_NEXT, "rename");
  return fails(from) ? -1 : original(from, to);
}
