/* cl_library.c: the driver's library, opened where there is one, and a device of it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cl_gpu.h"

#define MOST_PLATFORMS 8

/* Android has no libOpenCL of its own: vendors put theirs in these places. */
static const char *const places[] = {
    "libOpenCL.so.1",
    "libOpenCL.so",
    "/vendor/lib64/libOpenCL.so",
    "/system/vendor/lib64/libOpenCL.so",
    "/vendor/lib64/egl/libGLES_mali.so",
    "/system/vendor/lib64/egl/libGLES_mali.so",
};

static void *open_library(void) {
  const char *named = getenv("FICK_OPENCL");
  if (named) return dlopen(named, RTLD_NOW | RTLD_LOCAL);
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    void *library = dlopen(places[i], RTLD_NOW | RTLD_LOCAL);
    if (library) return library;
  }
  return NULL;
}

static fick_status find_functions(fick_gpu *gpu) {
  gpu->library = open_library();
  if (!gpu->library) {
    return fick_fail(FICK_ERROR_DEVICE,
                     "the bundle runs on a GPU and there is no OpenCL library here (libOpenCL.so); install the GPU's "
                     "driver, name its library as FICK_OPENCL, or compile for a processor");
  }
  const char *missing = NULL;
  /* POSIX has functions found as pointers to objects. */
#define FIND(result, name, arguments)                    \
  {                                                      \
    void *found = dlsym(gpu->library, #name);            \
    if (!found && !missing) missing = #name;             \
    memcpy(&gpu->cl.name, &found, sizeof gpu->cl.name);  \
  }
  FICK_CL_FUNCTIONS(FIND)
#undef FIND
  if (!missing) return FICK_OK;
  return fick_fail(FICK_ERROR_DEVICE, "the OpenCL library here has no %s; it is no OpenCL 1.2", missing);
}

static int find_device(fick_gpu *gpu, uint64_t kind) {
  cl_platform_id platforms[MOST_PLATFORMS];
  uint32_t count = 0;
  if (gpu->cl.clGetPlatformIDs(MOST_PLATFORMS, platforms, &count) != CL_SUCCESS) return 0;
  for (uint32_t i = 0; i < count && i < MOST_PLATFORMS; i++) {
    if (gpu->cl.clGetDeviceIDs(platforms[i], kind, 1, &gpu->id, NULL) == CL_SUCCESS) return 1;
  }
  return 0;
}

/* A text of the device, however long, or of its platform; to be freed. NULL: there is none, or no memory. */
static char *ask(const fick_gpu *gpu, uint32_t fact) {
  cl_platform_id platform = NULL;
  size_t size = 0;
  int of_platform = fact == CL_PLATFORM_VERSION;
  if (of_platform) gpu->cl.clGetDeviceInfo(gpu->id, CL_DEVICE_PLATFORM, sizeof platform, &platform, NULL);
  if (of_platform) gpu->cl.clGetPlatformInfo(platform, fact, 0, NULL, &size);
  else gpu->cl.clGetDeviceInfo(gpu->id, fact, 0, NULL, &size);
  char *text = calloc(1, size + 1);
  if (!text) return NULL;
  if (of_platform) gpu->cl.clGetPlatformInfo(platform, fact, size, text, NULL);
  else gpu->cl.clGetDeviceInfo(gpu->id, fact, size, text, NULL);
  return text;
}

/* Another driver, or one with another compiler inside, is another device to what was built for it. */
static fick_status identify(fick_gpu *gpu) {
  static const uint32_t facts[] = {CL_DEVICE_NAME, CL_DRIVER_VERSION, CL_DEVICE_VERSION, CL_PLATFORM_VERSION,
                                   CL_DEVICE_EXTENSIONS};
  uint8_t digests[sizeof facts / sizeof *facts][SHA256_BYTES];
  for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
    char *text = ask(gpu, facts[i]);
    if (!text) return fick_fail(FICK_ERROR_MEMORY, "there is no memory to open a GPU");
    fick_sha256((const uint8_t *)text, strlen(text), NULL, digests[i]);
    if (facts[i] == CL_DEVICE_NAME) snprintf(gpu->name, sizeof gpu->name, "%s", text);
    if (facts[i] == CL_DEVICE_EXTENSIONS) gpu->extensions = text;
    else free(text);
  }
  fick_sha256((const uint8_t *)digests, sizeof digests, NULL, gpu->identity);
  return FICK_OK;
}

int fick_gpu_has(const fick_gpu *gpu, const char *extension) {
  size_t length = strlen(extension);
  const char *at = gpu->extensions;
  while ((at = strstr(at, extension))) {
    if ((at == gpu->extensions || at[-1] == ' ') && (at[length] == ' ' || !at[length])) return 1;
    at += length;
  }
  return 0;
}

uint64_t fick_gpu_number(const fick_gpu *gpu, uint32_t fact, size_t bytes) {
  uint64_t number = 0; /* of fewer bytes, the first: all that have OpenCL are little-endian here */
  return gpu->cl.clGetDeviceInfo(gpu->id, fact, bytes, &number, NULL) == CL_SUCCESS ? number : 0;
}

fick_status fick_gpu_fail(const fick_gpu *gpu, const char *doing, int32_t code) {
  int memory = code == CL_MEM_OBJECT_ALLOCATION_FAILURE || code == CL_OUT_OF_RESOURCES || code == CL_OUT_OF_HOST_MEMORY;
  return fick_fail(memory ? FICK_ERROR_MEMORY : FICK_ERROR_DEVICE, "the GPU %s failed at %s (OpenCL says %d%s)",
                   gpu->name, doing, code, memory ? ": its memory is short" : "");
}

fick_status fick_gpu_open(fick_gpu *gpu) {
  int32_t code;
  fick_status status = find_functions(gpu);
  if (status != FICK_OK) return status;
  if (!find_device(gpu, CL_DEVICE_TYPE_GPU) && !find_device(gpu, CL_DEVICE_TYPE_ALL)) {
    return fick_fail(FICK_ERROR_DEVICE, "the OpenCL library here finds no device; install the GPU's driver, or compile "
                                        "for a processor");
  }
  status = identify(gpu);
  if (status != FICK_OK) return status;
  gpu->context = gpu->cl.clCreateContext(NULL, 1, &gpu->id, NULL, NULL, &code);
  if (!gpu->context) return fick_gpu_fail(gpu, "making a context", code);
  gpu->queue = gpu->cl.clCreateCommandQueue(gpu->context, gpu->id, CL_QUEUE_PROFILING_ENABLE, &code);
  return gpu->queue ? FICK_OK : fick_gpu_fail(gpu, "making a queue", code);
}

void fick_gpu_close(fick_gpu *gpu) {
  if (gpu->queue) gpu->cl.clReleaseCommandQueue(gpu->queue);
  if (gpu->context) gpu->cl.clReleaseContext(gpu->context);
  free(gpu->extensions);
  /* The library stays: drivers leave threads and handlers behind that would not survive it. */
}
