/* cl_library.c: the driver's library, opened where there is one, and a device of it. */
#define _GNU_SOURCE
#include <dlfcn.h>
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

static void ask(const fick_gpu *gpu, uint32_t fact, char *text, size_t size) {
  if (gpu->cl.clGetDeviceInfo(gpu->id, fact, size, text, NULL) != CL_SUCCESS) text[0] = 0;
  text[size - 1] = 0;
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
  ask(gpu, CL_DEVICE_NAME, gpu->name, sizeof gpu->name);
  ask(gpu, CL_DRIVER_VERSION, gpu->driver, sizeof gpu->driver);
  ask(gpu, CL_DEVICE_VERSION, gpu->version, sizeof gpu->version);
  gpu->context = gpu->cl.clCreateContext(NULL, 1, &gpu->id, NULL, NULL, &code);
  if (!gpu->context) return fick_gpu_fail(gpu, "making a context", code);
  gpu->queue = gpu->cl.clCreateCommandQueue(gpu->context, gpu->id, CL_QUEUE_PROFILING_ENABLE, &code);
  return gpu->queue ? FICK_OK : fick_gpu_fail(gpu, "making a queue", code);
}

void fick_gpu_close(fick_gpu *gpu) {
  if (gpu->queue) gpu->cl.clReleaseCommandQueue(gpu->queue);
  if (gpu->context) gpu->cl.clReleaseContext(gpu->context);
  /* The library stays: drivers leave threads and handlers behind that would not survive it. */
}
