// Preloaded into a program, makes one call that changes files fail: the FAIL_AT-th write, fsync or rename below the
// folder FAIL_UNDER, with error number FAIL_WITH. Touches the file FAIL_TOLD when it does.
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

static int fails_at(int descriptor) {
  char link[64], path[PATH_MAX + 1] = "";
  snprintf(link, sizeof(link), "/proc/self/fd/%d", descriptor);
  return readlink(link, path, PATH_MAX) > 0 && fails(path);
}

ssize_t write(int descriptor, const void* data, size_t bytes) {
  ssize_t (*original)(int, const void*, size_t) = dlsym(RTLD_NEXT, "write");
  return fails_at(descriptor) ? -1 : original(descriptor, data, bytes);
}

int fsync(int descriptor) {
  int (*original)(int) = dlsym(RTLD_NEXT, "fsync");
  return fails_at(descriptor) ? -1 : original(descriptor);
}

int rename(const char* from, const char* to) {
  int (*original)(const char*, const char*) = dlsym(RTLD_NEXT, "rename");
  return fails(from) ? -1 : original(from, to);
}
