/* cl_memory.c: what a GPU keeps: buffers, and weights in buffers or images. */
#include <stdlib.h>

#include "cl_gpu.h"

#define PIECE_BYTES (32u << 20) /* written at once: so much of the file is in memory beside the GPU's copy */

fick_status fick_gpu_buffer(const fick_gpu *gpu, uint64_t flags, uint64_t bytes, const char *what, cl_mem *buffer) {
  uint64_t most = fick_gpu_number(gpu, CL_DEVICE_MAX_MEM_ALLOC_SIZE, sizeof most);
  int32_t code;
  if (bytes > most) {
    return fick_fail(FICK_ERROR_MEMORY,
                     "%s take %llu bytes and a buffer of the GPU %s holds %llu; compile for a target with "
                     "smaller buffers", what, (unsigned long long)bytes, gpu->name, (unsigned long long)most);
  }
  *buffer = gpu->cl.clCreateBuffer(gpu->context, flags, bytes ? bytes : 64, NULL, &code);
  return *buffer ? FICK_OK : fick_gpu_fail(gpu, "making a buffer", code);
}

fick_status fick_gpu_write(const fick_gpu *gpu, cl_mem buffer, uint64_t at, uint64_t bytes, const uint8_t *data) {
  if (!bytes) return FICK_OK;
  int32_t code = gpu->cl.clEnqueueWriteBuffer(gpu->queue, buffer, CL_TRUE, at, bytes, data, 0, NULL, NULL);
  return code == CL_SUCCESS ? FICK_OK : fick_gpu_fail(gpu, "writing to its memory", code);
}

/* Where in the weights a chunk ends. */
static uint64_t chunk_end(const fick_plan *plan, int32_t chunk) {
  if (chunk + 1 < plan->chunk_count) return plan->chunks[chunk + 1];
  return plan->image_count ? plan->images[0].offset_bytes : plan->weights.size_bytes;
}

static fick_status load_chunk(const fick_gpu *gpu, const fick_plan *plan, int32_t chunk, const uint8_t *data,
                              cl_mem *buffer) {
  uint64_t first = plan->chunks[chunk], bytes = chunk_end(plan, chunk) - first;
  fick_status status = fick_gpu_buffer(gpu, CL_MEM_READ_ONLY, bytes, "weights", buffer);
  for (uint64_t at = 0; at < bytes && status == FICK_OK; at += PIECE_BYTES) {
    uint64_t piece = bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES;
    status = fick_gpu_write(gpu, *buffer, at, piece, data + first + at);
    fick_source_drop(data + first + at, piece);
  }
  return status;
}

static const struct {
  uint32_t type, bytes;
} texels[] = {{CL_FLOAT, 4},        {CL_HALF_FLOAT, 2},    {CL_UNSIGNED_INT16, 2},
              {CL_SIGNED_INT8, 1}, {CL_UNSIGNED_INT8, 1}, {CL_UNSIGNED_INT32, 4}};

static fick_status check_image(const fick_gpu *gpu, size_t width, size_t height) {
  uint64_t widest = fick_gpu_number(gpu, CL_DEVICE_IMAGE2D_MAX_WIDTH, sizeof(size_t));
  uint64_t highest = fick_gpu_number(gpu, CL_DEVICE_IMAGE2D_MAX_HEIGHT, sizeof(size_t));
  if (!fick_gpu_number(gpu, CL_DEVICE_IMAGE_SUPPORT, sizeof(uint32_t))) {
    return fick_fail(FICK_ERROR_DEVICE,
                     "the kernels read weights as images and the GPU %s has none; compile for a target "
                     "without images", gpu->name);
  }
  if (width <= widest && height <= highest) return FICK_OK;
  return fick_fail(FICK_ERROR_MEMORY,
                   "weights are an image of %zu by %zu texels and one of the GPU %s has at most %llu by %llu; "
                   "compile for a target with smaller images",
                   width, height, gpu->name, (unsigned long long)widest, (unsigned long long)highest);
}

/* A strip of rows after another, side by side. */
static fick_status load_image(const fick_gpu *gpu, const fick_image *image, const uint8_t *data, cl_mem *made) {
  size_t strips = (image->rows + (size_t)image->strip - 1) / image->strip;
  size_t height = image->rows < image->strip ? image->rows : image->strip;
  size_t row_bytes = (size_t)image->width * 4 * texels[image->texel].bytes;
  cl_image_format format = {CL_RGBA, texels[image->texel].type};
  cl_image_desc shape = {.type = CL_MEM_OBJECT_IMAGE2D, .width = image->width * strips, .height = height};
  fick_status status = check_image(gpu, shape.width, shape.height);
  if (status != FICK_OK) return status;
  int32_t code;
  *made = gpu->cl.clCreateImage(gpu->context, CL_MEM_READ_ONLY, &format, &shape, NULL, &code);
  if (!*made) return fick_gpu_fail(gpu, "making an image", code);
  data += image->offset_bytes;
  for (size_t strip = 0; strip < strips; strip++) {
    size_t first = strip * image->strip, rows = image->rows - first < height ? image->rows - first : height;
    size_t origin[] = {strip * image->width, 0, 0}, region[] = {image->width, rows, 1};
    const uint8_t *from = data + first * row_bytes;
    code = gpu->cl.clEnqueueWriteImage(gpu->queue, *made, CL_TRUE, origin, region, row_bytes, 0, from, 0, NULL, NULL);
    if (code != CL_SUCCESS) return fick_gpu_fail(gpu, "writing an image", code);
    fick_source_drop(from, rows * row_bytes);
  }
  return FICK_OK;
}

fick_status fick_gpu_load(const fick_gpu *gpu, const fick_plan *plan, const uint8_t *data, fick_gpu_weights *weights) {
  uint64_t has = fick_gpu_number(gpu, CL_DEVICE_GLOBAL_MEM_SIZE, sizeof has);
  uint64_t wants = plan->weights.size_bytes + plan->arena_bytes + plan->state_bytes + plan->kept_bytes;
  if (has && wants > has) {
    return fick_fail(FICK_ERROR_MEMORY,
                     "the model takes %llu bytes and the GPU %s has %llu; compile it with --precision float16 "
                     "or a recipe with fewer bits",
                     (unsigned long long)wants, gpu->name, (unsigned long long)has);
  }
  weights->plan = plan;
  weights->chunks = calloc((size_t)plan->chunk_count + 1, sizeof *weights->chunks);
  weights->images = calloc((size_t)plan->image_count + 1, sizeof *weights->images);
  if (!weights->chunks || !weights->images) return fick_fail(FICK_ERROR_MEMORY, "there is no memory to open a GPU");
  fick_status status = FICK_OK;
  for (int32_t i = 0; i < plan->chunk_count && status == FICK_OK; i++) {
    status = load_chunk(gpu, plan, i, data, &weights->chunks[i]);
  }
  for (int32_t i = 0; i < plan->image_count && status == FICK_OK; i++) {
    status = load_image(gpu, &plan->images[i], data, &weights->images[i]);
  }
  return status;
}

void fick_gpu_unload(const fick_gpu *gpu, fick_gpu_weights *weights) {
  for (int32_t i = 0; weights->chunks && i < weights->plan->chunk_count; i++) {
    if (weights->chunks[i]) gpu->cl.clReleaseMemObject(weights->chunks[i]);
  }
  for (int32_t i = 0; weights->images && i < weights->plan->image_count; i++) {
    if (weights->images[i]) gpu->cl.clReleaseMemObject(weights->images[i]);
  }
  free(weights->chunks);
  free(weights->images);
}

cl_mem fick_gpu_weight(const fick_gpu_weights *weights, uint64_t offset_bytes, uint32_t *at) {
  const fick_plan *plan = weights->plan;
  int32_t low = 0, high = plan->image_count;
  while (low < high) {
    int32_t middle = low + (high - low) / 2;
    if (plan->images[middle].offset_bytes < offset_bytes) low = middle + 1;
    else high = middle;
  }
  *at = 0;
  if (low < plan->image_count && plan->images[low].offset_bytes == offset_bytes) return weights->images[low];
  int32_t chunk = plan->chunk_count - 1;
  while (chunk > 0 && plan->chunks[chunk] > offset_bytes) chunk--;
  *at = (uint32_t)(offset_bytes - plan->chunks[chunk]);
  return weights->chunks[chunk];
}
