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
  char name[128];
  char *extensions;               /* one after another, spaces between */
  uint8_t identity[SHA256_BYTES]; /* of the device, its driver and all that they say they can */
} fick_gpu;

/* cl_library.c: opens the library and its first GPU, or any other device where there is none. */
fick_status fick_gpu_open(fick_gpu *gpu);
void fick_gpu_close(fick_gpu *gpu);
/* A sentence for a failed call. */
fick_status fick_gpu_fail(const fick_gpu *gpu, const char *doing, int32_t code);
int fick_gpu_has(const fick_gpu *gpu, const char *extension);
/* A fact of the device in a number of so many bytes. */
uint64_t fick_gpu_number(const fick_gpu *gpu, uint32_t fact, size_t bytes);

/* cl_program.c: builds the source of all kernels, or finds what an earlier run built of it on this device. */
fick_status fick_gpu_build(fick_gpu *gpu, const char *source, uint64_t size, cl_program *program);

/* cl_memory.c: a buffer for `what`, and bytes into it. */
fick_status fick_gpu_buffer(const fick_gpu *gpu, uint64_t flags, uint64_t bytes, const char *what, cl_mem *buffer);
fick_status fick_gpu_write(const fick_gpu *gpu, cl_mem buffer, uint64_t at, uint64_t bytes, const uint8_t *data);

/* cl_memory.c: the weights of a plan, in buffers and images by the number of the chunk and of the image. The file's
 * pages are let go of behind what has been read. */
typedef struct {
  const fick_plan *plan;
  cl_mem *chunks, *images;
} fick_gpu_weights;
fick_status fick_gpu_load(const fick_gpu *gpu, const fick_plan *plan, const uint8_t *data, fick_gpu_weights *weights);
void fick_gpu_unload(const fick_gpu *gpu, fick_gpu_weights *weights);
/* What holds the weights from this byte on, and at which byte of it they begin. */
cl_mem fick_gpu_weight(const fick_gpu_weights *weights, uint64_t offset_bytes, uint32_t *at);

#endif
