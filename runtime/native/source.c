/* source.c: a bundle's file, mapped. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

fick_status fick_source_map(const char *path, fick_source *source) {
  struct stat facts;
  *source = (fick_source){NULL, 0, {NULL, NULL, 0}};
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return fick_fail(FICK_ERROR_FILE, "cannot open %s: %s", path, strerror(errno));
  if (fstat(file, &facts) != 0 || !S_ISREG(facts.st_mode)) {
    close(file);
    return fick_fail(FICK_ERROR_FILE, "cannot read %s: it is not a regular file", path);
  }
  if (facts.st_size == 0) {
    close(file);
    return fick_fail(FICK_ERROR_FORMAT, "%s is empty; copy or compile it anew", path);
  }
  if ((uint64_t)facts.st_size > SIZE_MAX / 2) {
    close(file);
    return fick_fail(FICK_ERROR_MEMORY, "%s is larger than this processor can address", path);
  }
  void *mapped = mmap(NULL, (size_t)facts.st_size, PROT_READ, MAP_PRIVATE, file, 0);
  close(file);
  if (mapped == MAP_FAILED) return fick_fail(FICK_ERROR_MEMORY, "cannot map %s: %s", path, strerror(errno));
  *source = (fick_source){mapped, (uint64_t)facts.st_size, {NULL, NULL, 0}};
  return FICK_OK;
}

/* Of a file that is mapped to be read: what is asked for again comes back from the file. */
void fick_source_drop(const uint8_t *data, uint64_t size) {
  uintptr_t page = (uintptr_t)getpagesize();
  uintptr_t start = ((uintptr_t)data + page - 1) & ~(page - 1), end = ((uintptr_t)data + (uintptr_t)size) & ~(page - 1);
  if (end > start) madvise((void *)start, end - start, MADV_DONTNEED);
}

fick_status fick_source_check(fick_source *source, const fick_program *program, int verify) {
  return fick_bundle_read(source->data, source->bytes, verify, fick_source_drop, program, &source->contents);
}

void fick_source_close(fick_source *source) {
  if (source->data) munmap(source->data, (size_t)source->bytes);
  *source = (fick_source){NULL, 0, {NULL, NULL, 0}};
}
