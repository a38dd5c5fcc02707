/* cl_program.c: kernels from their source, and what the driver made of it kept for the next run. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cl_gpu.h"

#define LONGEST_PATH 4096

static const char options[] = "-cl-std=CL1.2";

/* Before each kernel in the source. */
static const char mark[] = "\n// kernel ";

/* The file that a build of this source on this device is kept in, or nothing where there is no place to keep any. */
static int kept_path(const fick_gpu *gpu, const char *source, uint64_t size, char path[LONGEST_PATH]) {
  const char *cache = getenv("FICK_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  struct {
    uint8_t source[SHA256_BYTES];
    char facts[3 * sizeof gpu->name + sizeof options];
  } key;
  uint8_t digest[SHA256_BYTES];
  char folder[LONGEST_PATH - 96];
  int wrote = cache ? snprintf(folder, sizeof folder, "%s/opencl", cache)
              : xdg ? snprintf(folder, sizeof folder, "%s/fick/opencl", xdg)
              : home ? snprintf(folder, sizeof folder, "%s/.cache/fick/opencl", home) : -1;
  if (wrote < 0 || (size_t)wrote >= sizeof folder) return 0;
  for (char *at = strchr(folder + 1, '/'); at; at = strchr(at + 1, '/')) {
    *at = 0;
    mkdir(folder, 0755);
    *at = '/';
  }
  mkdir(folder, 0755);
  memset(&key, 0, sizeof key);
  fick_sha256((const uint8_t *)source, size, NULL, key.source);
  snprintf(key.facts, sizeof key.facts, "%s|%s|%s|%s", gpu->name, gpu->driver, gpu->version, options);
  fick_sha256((const uint8_t *)&key, sizeof key, NULL, digest);
  int at = snprintf(path, LONGEST_PATH, "%s/", folder);
  for (int i = 0; i < 16; i++) at += snprintf(path + at, 3, "%02x", digest[i]);
  memcpy(path + at, ".bin", 5);
  return 1;
}

/* The binary in a file that begins with the binary's SHA-256: a driver need not survive a damaged one. */
static uint8_t *read_kept(const char *path, size_t *size) {
  struct stat facts;
  uint8_t digest[SHA256_BYTES];
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return NULL;
  uint8_t *bytes = NULL;
  if (fstat(file, &facts) == 0 && facts.st_size > SHA256_BYTES && facts.st_size < 1 << 30) {
    size_t have = 0, wanted = (size_t)facts.st_size;
    bytes = malloc(wanted);
    while (bytes && have < wanted) {
      ssize_t got = read(file, bytes + have, wanted - have);
      if (got <= 0) break;
      have += (size_t)got;
    }
    *size = wanted - SHA256_BYTES;
    if (bytes && have == wanted) fick_sha256(bytes + SHA256_BYTES, *size, NULL, digest);
    if (bytes && (have != wanted || memcmp(bytes, digest, SHA256_BYTES) != 0)) {
      free(bytes);
      bytes = NULL;
    }
  }
  close(file);
  return bytes;
}

static cl_program from_kept(fick_gpu *gpu, const char *path) {
  size_t size = 0;
  int32_t loaded, code;
  uint8_t *bytes = read_kept(path, &size);
  if (!bytes) return NULL;
  const unsigned char *binary = bytes + SHA256_BYTES;
  cl_program program = gpu->cl.clCreateProgramWithBinary(gpu->context, 1, &gpu->id, &size, &binary, &loaded, &code);
  free(bytes);
  if (!program) return NULL;
  if (gpu->cl.clBuildProgram(program, 1, &gpu->id, options, NULL, NULL) == CL_SUCCESS) return program;
  gpu->cl.clReleaseProgram(program);
  return NULL;
}

/* What cannot be kept is built again next time. */
static void keep(fick_gpu *gpu, cl_program program, const char *path) {
  char partial[LONGEST_PATH + 16];
  size_t size = 0;
  if (gpu->cl.clGetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof size, &size, NULL) != CL_SUCCESS || !size) return;
  uint8_t *bytes = malloc(SHA256_BYTES + size);
  if (!bytes) return;
  unsigned char *binary = bytes + SHA256_BYTES;
  snprintf(partial, sizeof partial, "%s.%ld", path, (long)getpid());
  if (gpu->cl.clGetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof binary, &binary, NULL) == CL_SUCCESS) {
    int file = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    fick_sha256(binary, size, NULL, bytes);
    if (file >= 0) {
      ssize_t wrote = write(file, bytes, SHA256_BYTES + size);
      int whole = close(file) == 0 && wrote == (ssize_t)(SHA256_BYTES + size);
      if (!whole || rename(partial, path) != 0) unlink(partial);
    }
  }
  free(bytes);
}

static cl_program compile(fick_gpu *gpu, uint32_t count, const char **texts, const size_t *sizes, int32_t *code) {
  cl_program program = gpu->cl.clCreateProgramWithSource(gpu->context, count, texts, sizes, code);
  if (!program) return NULL;
  *code = gpu->cl.clBuildProgram(program, 1, &gpu->id, options, NULL, NULL);
  return program;
}

/* The first line of a log that says anything. */
static void first_line(fick_gpu *gpu, cl_program program, char *line, size_t size) {
  size_t length = 0;
  line[0] = 0;
  gpu->cl.clGetProgramBuildInfo(program, gpu->id, CL_PROGRAM_BUILD_LOG, 0, NULL, &length);
  char *log = length ? calloc(1, length + 1) : NULL;
  if (!log) return;
  gpu->cl.clGetProgramBuildInfo(program, gpu->id, CL_PROGRAM_BUILD_LOG, length, log, NULL);
  const char *start = strstr(log, "error");
  while (start && start > log && start[-1] != '\n') start--;
  if (!start) start = log + strspn(log, " \n\r\t");
  snprintf(line, size, "%.*s", (int)strcspn(start, "\n"), start);
  free(log);
}

/* Which kernel does not build: each by itself, until one fails. */
static fick_status name_culprit(fick_gpu *gpu, const char *source, uint64_t size, int32_t whole) {
  const char *end = source + size, *at = memmem(source, size, mark, sizeof mark - 1);
  size_t head = at ? (size_t)(at - source) : (size_t)size;
  while (at) {
    const char *name = at + sizeof mark - 1, *next = memmem(name, (size_t)(end - name), mark, sizeof mark - 1);
    const char *texts[] = {source, at};
    size_t sizes[] = {head, (size_t)((next ? next : end) - at)};
    char line[256];
    int32_t code;
    cl_program program = compile(gpu, 2, texts, sizes, &code);
    if (program) first_line(gpu, program, line, sizeof line);
    if (program) gpu->cl.clReleaseProgram(program);
    if (code != CL_SUCCESS) {
      return fick_fail(FICK_ERROR_KERNEL, "the GPU %s does not build kernel %.*s: %s", gpu->name,
                       (int)strcspn(name, "\n"), name, program ? line : "no memory");
    }
    at = next;
  }
  return fick_gpu_fail(gpu, "building all kernels together", whole);
}

fick_status fick_gpu_build(fick_gpu *gpu, const char *source, uint64_t size, cl_program *program) {
  char path[LONGEST_PATH];
  int32_t code;
  size_t length = (size_t)size;
  int known = kept_path(gpu, source, size, path);
  *program = known ? from_kept(gpu, path) : NULL;
  if (*program) return FICK_OK;
  *program = compile(gpu, 1, &source, &length, &code);
  if (!*program) return fick_gpu_fail(gpu, "reading the kernels", code);
  if (code != CL_SUCCESS) return name_culprit(gpu, source, size, code);
  if (known) keep(gpu, *program, path);
  return FICK_OK;
}
