/* cl_gpu.h: a GPU that was opened, as the files that know OpenCL share it. */
#ifndef FICK_CL_GPU_H
#define FICK_CL_GPU_H

#include "cl_api.h"
#include "internal.h"

typedef struct {
  fick_cl cl;
  void *library;
  cl_device_id id;
  cl_context context;
  cl_command_queue queue;
  char name[128], driver[128], version[128];
} fick_gpu;

/* cl_library.c: opens the library and its first GPU, or any other device where there is none. */
fick_status fick_gpu_open(fick_gpu *gpu);
void fick_gpu_close(fick_gpu *gpu);
/* A sentence for a failed call. */
fick_status fick_gpu_fail(const fick_gpu *gpu, const char *doing, int32_t code);

/* cl_program.c: builds the source of all kernels, or finds what an earlier run built of it on this device. */
fick_status fick_gpu_build(fick_gpu *gpu, const char *source, uint64_t size, cl_program *program);

#endif
