/* files.c: a file appears whole or not at all. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "parts.h"

fick_status fick_file_write(const char *path, const void *data, size_t size) {
  char partial[4096];
  int length = snprintf(partial, sizeof partial, "%s.XXXXXX", path), file = -1;
  errno = ENAMETOOLONG;
  if (length > 0 && (size_t)length < sizeof partial) file = mkstemp(partial);
  int sound = file >= 0;
  for (size_t done = 0; sound && done < size;) {
    ssize_t wrote = write(file, (const char *)data + done, size - done);
    if (wrote > 0) done += (size_t)wrote;
    else sound = wrote < 0 && errno == EINTR;
  }
  int reason = errno;
  if (file >= 0) {
    fchmod(file, 0644);
    if (close(file) != 0) sound = 0, reason = errno;
    if (sound && rename(partial, path) != 0) sound = 0, reason = errno;
    if (!sound) unlink(partial);
  }
  if (sound) return FICK_OK;
  return fick_fail(FICK_ERROR_FILE, "cannot write %s: %s; give another place", path, strerror(reason));
}
