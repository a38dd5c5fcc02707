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

/* Ways to build, of which a device takes the first that succeeds. Its compiler may know less than the device says:
 * without extensions all kernels give the same. */
#define MOST_WAYS 3
static const char with_dot_products[] = "-cl-std=CL3.0", standard[] = "-cl-std=CL1.2";
static const char plain[] = "-cl-std=CL1.2 -DFICK_PLAIN";
static const char *const extensions[] = {"cl_khr_integer_dot_product", "cl_arm_integer_dot_product_int8",
                                         "cl_khr_fp16"};

static int ways_for(const fick_gpu *gpu, const char *ways[MOST_WAYS]) {
  int count = 0, some = 0;
  for (size_t i = 0; i < sizeof extensions / sizeof *extensions; i++) some |= fick_gpu_has(gpu, extensions[i]);
  if (fick_gpu_has(gpu, extensions[0])) ways[count++] = with_dot_products;
  ways[count++] = standard;
  if (some) ways[count++] = plain;
  return count;
}

/* Before each kernel in the source. */
static const char mark[] = "\n// kernel ";

/* The file that a build of this source on this device is kept in, or nothing where there is no place to keep any. */
static int kept_path(const fick_gpu *gpu, const uint8_t source[SHA256_BYTES], const char *way,
                     char path[LONGEST_PATH]) {
  const char *cache = getenv("FICK_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  struct {
    uint8_t source[SHA256_BYTES], device[SHA256_BYTES];
    char way[sizeof plain];
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
  memcpy(key.source, source, SHA256_BYTES);
  memcpy(key.device, gpu->identity, SHA256_BYTES);
  snprintf(key.way, sizeof key.way, "%s", way);
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

static cl_program from_kept(fick_gpu *gpu, const char *path, const char *way) {
  size_t size = 0;
  int32_t loaded, code;
  uint8_t *bytes = read_kept(path, &size);
  if (!bytes) return NULL;
  const unsigned char *binary = bytes + SHA256_BYTES;
  cl_program program = gpu->cl.clCreateProgramWithBinary(gpu->context, 1, &gpu->id, &size, &binary, &loaded, &code);
  free(bytes);
  if (!program) return NULL;
  if (gpu->cl.clBuildProgram(program, 1, &gpu->id, way, NULL, NULL) == CL_SUCCESS) return program;
  gpu->cl.clReleaseProgram(program);
  return NULL;
}

/* What cannot be kept is built again next time. */
static void keep(fick_gpu *gpu, cl_program program, const char *path) {
  char partial[LONGEST_PATH + 16];
  size_t size = 0;
  if (gpu->cl.clGetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof size, &size, NULL) != CL_SUCCESS || !size) {
    return;
  }
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

static cl_program compile(fick_gpu *gpu, const char *way, uint32_t count, const char **texts, const size_t *sizes,
                          int32_t *code) {
  cl_program program = gpu->cl.clCreateProgramWithSource(gpu->context, count, texts, sizes, code);
  if (!program) return NULL;
  *code = gpu->cl.clBuildProgram(program, 1, &gpu->id, way, NULL, NULL);
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
static fick_status name_culprit(fick_gpu *gpu, const char *way, const char *source, uint64_t size, int32_t whole) {
  const char *end = source + size, *at = memmem(source, size, mark, sizeof mark - 1);
  size_t head = at ? (size_t)(at - source) : (size_t)size;
  while (at) {
    const char *name = at + sizeof mark - 1, *next = memmem(name, (size_t)(end - name), mark, sizeof mark - 1);
    const char *texts[] = {source, at};
    size_t sizes[] = {head, (size_t)((next ? next : end) - at)};
    char line[256];
    int32_t code;
    cl_program program = compile(gpu, way, 2, texts, sizes, &code);
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
  const char *ways[MOST_WAYS];
  char path[LONGEST_PATH];
  uint8_t digest[SHA256_BYTES];
  int32_t code = CL_SUCCESS;
  size_t length = (size_t)size;
  int count = ways_for(gpu, ways);
  fick_sha256((const uint8_t *)source, size, NULL, digest);
  for (int i = 0; i < count; i++) {
    *program = kept_path(gpu, digest, ways[i], path) ? from_kept(gpu, path, ways[i]) : NULL;
    if (*program) return FICK_OK;
  }
  for (int i = 0; i < count; i++) {
    *program = compile(gpu, ways[i], 1, &source, &length, &code);
    if (!*program) return fick_gpu_fail(gpu, "reading the kernels", code);
    if (code == CL_SUCCESS) {
      if (kept_path(gpu, digest, ways[i], path)) keep(gpu, *program, path);
      return FICK_OK;
    }
    gpu->cl.clReleaseProgram(*program);
    *program = NULL;
  }
  return name_culprit(gpu, ways[count - 1], source, size, code);
}
