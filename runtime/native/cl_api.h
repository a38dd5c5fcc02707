/* cl_api.h: the part of OpenCL that cl_*.c call, by the names and numbers of its specification (Khronos, 1.2). The
 * library is opened when a model is, so that nothing here is linked. */
#ifndef FICK_CL_API_H
#define FICK_CL_API_H

#include <stddef.h>
#include <stdint.h>

typedef struct _cl_platform_id *cl_platform_id;
typedef struct _cl_device_id *cl_device_id;
typedef struct _cl_context *cl_context;
typedef struct _cl_command_queue *cl_command_queue;
typedef struct _cl_program *cl_program;
typedef struct _cl_kernel *cl_kernel;
typedef struct _cl_mem *cl_mem;
typedef struct _cl_event *cl_event;

typedef struct {
  uint32_t order, type;
} cl_image_format;

typedef struct {
  uint32_t type;
  size_t width, height, depth, array_size, row_pitch, slice_pitch;
  uint32_t mip_levels, samples;
  cl_mem buffer;
} cl_image_desc;

enum {
  CL_SUCCESS = 0,
  CL_DEVICE_NOT_FOUND = -1,
  CL_MEM_OBJECT_ALLOCATION_FAILURE = -4,
  CL_OUT_OF_RESOURCES = -5,
  CL_OUT_OF_HOST_MEMORY = -6,
};
enum { CL_FALSE = 0, CL_TRUE = 1 };
enum { CL_QUEUE_PROFILING_ENABLE = 1 << 1 };
enum { CL_MEM_READ_WRITE = 1 << 0, CL_MEM_READ_ONLY = 1 << 2 };
enum { CL_DEVICE_TYPE_GPU = 1 << 2 };
enum { CL_RGBA = 0x10B5, CL_MEM_OBJECT_IMAGE2D = 0x10F1 };
enum {
  CL_SIGNED_INT8 = 0x10D7,
  CL_UNSIGNED_INT8 = 0x10DA,
  CL_UNSIGNED_INT16 = 0x10DB,
  CL_UNSIGNED_INT32 = 0x10DC,
  CL_HALF_FLOAT = 0x10DD,
  CL_FLOAT = 0x10DE,
};
#define CL_DEVICE_TYPE_ALL 0xFFFFFFFFu
enum {
  CL_DEVICE_MAX_WORK_GROUP_SIZE = 0x1004,
  CL_DEVICE_MAX_MEM_ALLOC_SIZE = 0x1010,
  CL_DEVICE_IMAGE2D_MAX_WIDTH = 0x1011,
  CL_DEVICE_IMAGE2D_MAX_HEIGHT = 0x1012,
  CL_DEVICE_IMAGE_SUPPORT = 0x1016,
  CL_DEVICE_GLOBAL_MEM_SIZE = 0x101F,
  CL_DEVICE_LOCAL_MEM_SIZE = 0x1023,
  CL_DEVICE_NAME = 0x102B,
  CL_DRIVER_VERSION = 0x102D,
  CL_DEVICE_VERSION = 0x102F,
  CL_DEVICE_EXTENSIONS = 0x1030,
  CL_DEVICE_PLATFORM = 0x1031,
  CL_DEVICE_OPENCL_C_VERSION = 0x103D,
  CL_PLATFORM_VERSION = 0x0901,
  CL_PROGRAM_BINARY_SIZES = 0x1165,
  CL_PROGRAM_BINARIES = 0x1166,
  CL_PROGRAM_BUILD_LOG = 0x1183,
  CL_KERNEL_WORK_GROUP_SIZE = 0x11B0,
  CL_KERNEL_LOCAL_MEM_SIZE = 0x11B2,
  CL_PROFILING_COMMAND_START = 0x1282,
  CL_PROFILING_COMMAND_END = 0x1283,
};

/* FUNCTION(result, name, arguments) */
#define FICK_CL_FUNCTIONS(FUNCTION)                                                                                    \
  FUNCTION(int32_t, clGetPlatformIDs, (uint32_t, cl_platform_id *, uint32_t *))                                        \
  FUNCTION(int32_t, clGetPlatformInfo, (cl_platform_id, uint32_t, size_t, void *, size_t *))                           \
  FUNCTION(int32_t, clGetDeviceIDs, (cl_platform_id, uint64_t, uint32_t, cl_device_id *, uint32_t *))                  \
  FUNCTION(int32_t, clGetDeviceInfo, (cl_device_id, uint32_t, size_t, void *, size_t *))                               \
  FUNCTION(cl_context, clCreateContext,                                                                                \
           (const intptr_t *, uint32_t, const cl_device_id *, void *, void *, int32_t *))                              \
  FUNCTION(cl_command_queue, clCreateCommandQueue, (cl_context, cl_device_id, uint64_t, int32_t *))                    \
  FUNCTION(cl_program, clCreateProgramWithSource, (cl_context, uint32_t, const char **, const size_t *, int32_t *))    \
  FUNCTION(cl_program, clCreateProgramWithBinary,                                                                      \
           (cl_context, uint32_t, const cl_device_id *, const size_t *, const unsigned char **, int32_t *, int32_t *)) \
  FUNCTION(int32_t, clBuildProgram, (cl_program, uint32_t, const cl_device_id *, const char *, void *, void *))        \
  FUNCTION(int32_t, clGetProgramInfo, (cl_program, uint32_t, size_t, void *, size_t *))                                \
  FUNCTION(int32_t, clGetProgramBuildInfo, (cl_program, cl_device_id, uint32_t, size_t, void *, size_t *))             \
  FUNCTION(cl_kernel, clCreateKernel, (cl_program, const char *, int32_t *))                                           \
  FUNCTION(int32_t, clGetKernelWorkGroupInfo, (cl_kernel, cl_device_id, uint32_t, size_t, void *, size_t *))           \
  FUNCTION(int32_t, clSetKernelArg, (cl_kernel, uint32_t, size_t, const void *))                                       \
  FUNCTION(cl_mem, clCreateBuffer, (cl_context, uint64_t, size_t, void *, int32_t *))                                  \
  FUNCTION(cl_mem, clCreateImage,                                                                                      \
           (cl_context, uint64_t, const cl_image_format *, const cl_image_desc *, void *, int32_t *))                  \
  FUNCTION(int32_t, clEnqueueWriteImage,                                                                               \
           (cl_command_queue, cl_mem, uint32_t, const size_t *, const size_t *, size_t, size_t, const void *,          \
            uint32_t, const cl_event *, cl_event *))                                                                   \
  FUNCTION(int32_t, clEnqueueWriteBuffer,                                                                              \
           (cl_command_queue, cl_mem, uint32_t, size_t, size_t, const void *, uint32_t, const cl_event *, cl_event *)) \
  FUNCTION(int32_t, clEnqueueReadBuffer,                                                                               \
           (cl_command_queue, cl_mem, uint32_t, size_t, size_t, void *, uint32_t, const cl_event *, cl_event *))       \
  FUNCTION(int32_t, clEnqueueNDRangeKernel,                                                                            \
           (cl_command_queue, cl_kernel, uint32_t, const size_t *, const size_t *, const size_t *, uint32_t,           \
            const cl_event *, cl_event *))                                                                             \
  FUNCTION(int32_t, clFlush, (cl_command_queue))                                                                       \
  FUNCTION(int32_t, clFinish, (cl_command_queue))                                                                      \
  FUNCTION(int32_t, clWaitForEvents, (uint32_t, const cl_event *))                                                     \
  FUNCTION(int32_t, clGetEventProfilingInfo, (cl_event, uint32_t, size_t, void *, size_t *))                           \
  FUNCTION(int32_t, clReleaseEvent, (cl_event))                                                                        \
  FUNCTION(int32_t, clReleaseMemObject, (cl_mem))                                                                      \
  FUNCTION(int32_t, clReleaseKernel, (cl_kernel))                                                                      \
  FUNCTION(int32_t, clReleaseProgram, (cl_program))                                                                    \
  FUNCTION(int32_t, clReleaseCommandQueue, (cl_command_queue))                                                         \
  FUNCTION(int32_t, clReleaseContext, (cl_context))

typedef struct {
#define FICK_CL_MEMBER(result, name, arguments) result(*name) arguments;
  FICK_CL_FUNCTIONS(FICK_CL_MEMBER)
#undef FICK_CL_MEMBER
} fick_cl;

#endif
