/* An OpenCL library that says of its device what LIE has: a fact, a colon, and a number or a text. Where REFUSE is one
 * of the options that it is to build with, word for word, it does not. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void *real(const char *name) { return dlsym(dlopen("libOpenCL.so.1", RTLD_NOW), name); }

int32_t clGetDeviceInfo(void *device, uint32_t fact, size_t size, void *value, size_t *used) {
  int32_t (*ask)(void *, uint32_t, size_t, void *, size_t *);
  const char *lie = getenv("LIE");
  char *end = NULL;
  if (!lie || strtoul(lie, &end, 0) != fact) {
    *(void **)&ask = real("clGetDeviceInfo");
    return ask(device, fact, size, value, used);
  }
  uint64_t number = strtoull(end + 1, &end, 0);
  const char *text = strchr(lie, ':') + 1;
  const void *said = *end ? (const void *)text : &number;
  size_t length = *end ? strlen(text) + 1 : size;
  if (used) *used = length;
  if (!value) return 0;
  if (size < length) return -30;
  memcpy(value, said, length);
  return 0;
}

int32_t clBuildProgram(void *program, uint32_t count, void **devices, const char *options, void *done, void *user) {
  int32_t (*build)(void *, uint32_t, void **, const char *, void *, void *);
  const char *refused = getenv("REFUSE");
  if (refused && !strcmp(refused, options)) return -11;
  *(void **)&build = real("clBuildProgram");
  return build(program, count, devices, options, done, user);
}

/* Everything else is the real library's: what needs one name of it stays linked to it. */
int32_t clGetPlatformIDs(uint32_t count, void **platforms, uint32_t *found);
int32_t (*const needed)(uint32_t, void **, uint32_t *) = clGetPlatformIDs;
