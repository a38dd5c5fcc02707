/* cl_device.c: a plan on a GPU. Kernels take each operand as a buffer and the byte of it where the operand begins. */
#define _GNU_SOURCE
#include <stdlib.h>

#include "cl_gpu.h"

#define FLUSH_EVERY 16 /* calls */
#define MOST_WAITING 64 /* in the queue: drivers of phones fail on long ones */

struct fick_device {
  fick_gpu gpu;
  const fick_program *program;
  const fick_plan *plan;
  cl_program built;
  cl_kernel *kernels; /* by the number of the launch */
  fick_gpu_weights weights;
  cl_mem arena, state, kept;
  int32_t branches;
  uint64_t kept_offset;
  cl_event *events; /* of the calls since begin */
  uint32_t called;
};

static void close_device(fick_device *device) {
  fick_cl *cl = &device->gpu.cl;
  if (device->gpu.queue) cl->clFinish(device->gpu.queue);
  for (uint32_t i = 0; device->kernels && i < device->program->launch_count; i++) {
    if (device->kernels[i]) cl->clReleaseKernel(device->kernels[i]);
  }
  fick_gpu_unload(&device->gpu, &device->weights);
  cl_mem own[] = {device->arena, device->state, device->kept};
  for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
    if (own[i]) cl->clReleaseMemObject(own[i]);
  }
  if (device->built) cl->clReleaseProgram(device->built);
  fick_gpu_close(&device->gpu);
  free(device->kernels);
  free(device->events);
  free(device);
}

/* What a kernel needs, against what the device has for it: a work-group in step, and its local memory. */
static fick_status check_kernel(const fick_gpu *gpu, const fick_launch *launch, cl_kernel kernel) {
  size_t items = (size_t)launch->group[0] * launch->group[1] * launch->group[2], most = 0;
  uint64_t local = 0, has = fick_gpu_number(gpu, CL_DEVICE_LOCAL_MEM_SIZE, sizeof has);
  gpu->cl.clGetKernelWorkGroupInfo(kernel, gpu->id, CL_KERNEL_WORK_GROUP_SIZE, sizeof most, &most, NULL);
  gpu->cl.clGetKernelWorkGroupInfo(kernel, gpu->id, CL_KERNEL_LOCAL_MEM_SIZE, sizeof local, &local, NULL);
  if (most && items > most) {
    return fick_fail(FICK_ERROR_KERNEL,
                     "kernel %s runs %zu work-items together and the GPU %s at most %zu of it; compile for a "
                     "target with smaller work-groups", launch->name, items, gpu->name, most);
  }
  if (has && local > has) {
    return fick_fail(FICK_ERROR_KERNEL,
                     "kernel %s shares %llu bytes in a work-group and the GPU %s has %llu; compile for a "
                     "target with less local memory",
                     launch->name, (unsigned long long)local, gpu->name, (unsigned long long)has);
  }
  return FICK_OK;
}

static fick_status find_kernels(fick_device *device) {
  fick_gpu *gpu = &device->gpu;
  for (uint32_t i = 0; i < device->program->launch_count; i++) {
    const fick_launch *launch = &device->program->launches[i];
    int32_t code;
    device->kernels[i] = gpu->cl.clCreateKernel(device->built, launch->name, &code);
    if (!device->kernels[i]) return fick_gpu_fail(gpu, launch->name, code);
    fick_status status = check_kernel(gpu, launch, device->kernels[i]);
    if (status != FICK_OK) return status;
  }
  return FICK_OK;
}

static fick_status open_device(const fick_program *program, const fick_plan *plan, const fick_contents *contents,
                               const uint8_t *weights, fick_device **opened) {
  fick_device *device = calloc(1, sizeof *device);
  if (!device) return fick_fail(FICK_ERROR_MEMORY, "there is no memory to open a GPU");
  device->program = program;
  device->plan = plan;
  device->kernels = calloc(program->launch_count + 1, sizeof *device->kernels);
  device->events = calloc(fick_total_calls(plan) + 1, sizeof *device->events);
  fick_status status = FICK_OK;
  if (!device->kernels || !device->events) {
    status = fick_fail(FICK_ERROR_MEMORY, "there is no memory to open a GPU");
  }
  if (status == FICK_OK) status = fick_gpu_open(&device->gpu);
  if (status == FICK_OK) {
    status = fick_gpu_build(&device->gpu, (const char *)contents->kernels, contents->kernels_bytes, &device->built);
  }
  if (status == FICK_OK) status = find_kernels(device);
  if (status == FICK_OK) status = fick_gpu_load(&device->gpu, plan, weights, &device->weights);
  if (status == FICK_OK) {
    status = fick_gpu_buffer(&device->gpu, CL_MEM_READ_WRITE, plan->arena_bytes, "values between kernels",
                             &device->arena);
  }
  if (status == FICK_OK) {
    status = fick_gpu_buffer(&device->gpu, CL_MEM_READ_WRITE, plan->state_bytes, "what outlives a run", &device->state);
  }
  if (status != FICK_OK) {
    close_device(device);
    return status;
  }
  *opened = device;
  return FICK_OK;
}

static fick_status begin(fick_device *device, const uint8_t *state, int32_t branch, int32_t branches) {
  const fick_plan *plan = device->plan;
  fick_status status = FICK_OK;
  if (branches != device->branches) {
    if (device->kept) device->gpu.cl.clReleaseMemObject(device->kept);
    device->kept = NULL;
    device->branches = 0;
    status = fick_gpu_buffer(&device->gpu, CL_MEM_READ_WRITE, plan->kept_bytes * (uint64_t)branches, "what steps leave",
                             &device->kept);
    if (status == FICK_OK) device->branches = branches;
  }
  device->kept_offset = plan->kept_bytes * (uint64_t)branch;
  device->called = 0;
  for (int32_t i = 0; i < plan->input_count && status == FICK_OK; i++) {
    const fick_slot *slot = &plan->inputs[i];
    status = fick_gpu_write(&device->gpu, device->state, slot->offset_bytes, slot->tensor.size_bytes,
                            state + slot->offset_bytes);
  }
  return status;
}

/* The buffer of an operand, and where in it the operand begins. */
static cl_mem place(const fick_device *device, const fick_operand *operand, uint32_t *at) {
  uint64_t offset = operand->offset_bytes;
  cl_mem buffer = device->arena;
  if (operand->space == FICK_SPACE_WEIGHTS) return fick_gpu_weight(&device->weights, offset, at);
  if (operand->space == FICK_SPACE_STATE) buffer = device->state;
  if (operand->space == FICK_SPACE_KEPT) {
    buffer = device->kept;
    offset += device->kept_offset;
  }
  *at = (uint32_t)offset;
  return buffer;
}

static fick_status call(fick_device *device, const fick_call *call) {
  fick_cl *cl = &device->gpu.cl;
  const fick_launch *launch = &device->program->launches[call->launch];
  cl_kernel kernel = device->kernels[call->launch];
  int32_t code = CL_SUCCESS;
  for (uint32_t i = 0; i < call->operand_count && code == CL_SUCCESS; i++) {
    uint32_t at;
    cl_mem buffer = place(device, &call->operands[i], &at);
    code = cl->clSetKernelArg(kernel, 2 * i, sizeof buffer, &buffer);
    if (code == CL_SUCCESS) code = cl->clSetKernelArg(kernel, 2 * i + 1, sizeof at, &at);
  }
  size_t items[3], group[3];
  for (int i = 0; i < 3; i++) {
    items[i] = launch->items[i];
    group[i] = launch->group[i];
  }
  uint32_t number = device->called;
  if (code == CL_SUCCESS && number >= MOST_WAITING) {
    code = cl->clWaitForEvents(1, &device->events[number - MOST_WAITING]);
  }
  if (code == CL_SUCCESS) {
    code = cl->clEnqueueNDRangeKernel(device->gpu.queue, kernel, 3, NULL, items, group, 0, NULL,
                                      &device->events[number]);
  }
  if (code != CL_SUCCESS) return fick_gpu_fail(&device->gpu, call->node, code);
  device->called = number + 1;
  if (device->called % FLUSH_EVERY == 0) cl->clFlush(device->gpu.queue);
  return FICK_OK;
}

static double seconds_of(const fick_cl *cl, cl_event event) {
  uint64_t start = 0, end = 0;
  cl->clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_START, sizeof start, &start, NULL);
  cl->clGetEventProfilingInfo(event, CL_PROFILING_COMMAND_END, sizeof end, &end, NULL);
  return end > start ? 1e-9 * (double)(end - start) : 0;
}

static fick_status read_state(fick_device *device, fick_region region, uint8_t *state) {
  if (!region.size_bytes) return FICK_OK;
  int32_t code = device->gpu.cl.clEnqueueReadBuffer(device->gpu.queue, device->state, CL_TRUE, region.offset_bytes,
                                                    region.size_bytes, state + region.offset_bytes, 0, NULL, NULL);
  return code == CL_SUCCESS ? FICK_OK : fick_gpu_fail(&device->gpu, "reading its memory", code);
}

/* Without a variant the run was broken off. */
static fick_status end(fick_device *device, const fick_variant *variant, uint8_t *state, double *seconds) {
  fick_cl *cl = &device->gpu.cl;
  const fick_plan *plan = device->plan;
  int32_t code = cl->clFinish(device->gpu.queue);
  for (uint32_t i = 0; i < device->called; i++) {
    seconds[i] = seconds_of(cl, device->events[i]);
    cl->clReleaseEvent(device->events[i]);
  }
  device->called = 0;
  if (code != CL_SUCCESS) return fick_gpu_fail(&device->gpu, "ending a run", code);
  if (!variant) return FICK_OK;
  fick_status status = read_state(device, variant->carried, state);
  int returns = variant != &plan->prompt && variant != &plan->step;
  for (int32_t i = 0; returns && i < plan->output_count && status == FICK_OK; i++) {
    const fick_slot *slot = &plan->outputs[i];
    status = read_state(device, (fick_region){slot->offset_bytes, slot->tensor.size_bytes}, state);
  }
  return status;
}

static fick_status changed(fick_device *device, fick_region region, const uint8_t *state) {
  return fick_gpu_write(&device->gpu, device->state, region.offset_bytes, region.size_bytes,
                        state + region.offset_bytes);
}

static const char *name(const fick_device *device) { return device->gpu.name; }

const fick_backend fick_opencl = {open_device, close_device, begin, call, end, name, changed};
