/* stream.c: weights that are let go of behind the calls that have read them.
 *
 * A plan says where in the weights each operand begins, and so, the next one being where it ends, how much a call
 * reads. Where there is less room than a component's weights take, what was read is let go of before a call that would
 * exceed the room; the next step reads it from the file, or from what the system kept of it, again.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

static int by_size(const void *a, const void *b) {
  uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
  return (left > right) - (left < right);
}

int fick_stream_plan(fick_stream *stream, const fick_plan *plan) {
  uint64_t count = 0;
  const fick_variant *variant;
  for (int pass = 0; pass < 2; pass++) {
    count = 0;
    for (int32_t i = 0; (variant = fick_variant_at(plan, i)); i++) {
      for (uint32_t j = 0; j < variant->call_count; j++) {
        const fick_call *call = &variant->calls[j];
        for (uint32_t k = 0; k < call->operand_count; k++) {
          if (call->operands[k].space != FICK_SPACE_WEIGHTS) continue;
          if (pass) stream->starts[count] = call->operands[k].offset_bytes;
          count++;
        }
      }
    }
    if (!pass && !(stream->starts = malloc((size_t)(count + 1) * sizeof *stream->starts))) return 0;
  }
  qsort(stream->starts, (size_t)count, sizeof *stream->starts, by_size);
  stream->count = 0;
  for (uint64_t i = 0; i < count; i++) {
    if (!i || stream->starts[i] != stream->starts[i - 1]) stream->starts[stream->count++] = stream->starts[i];
  }
  stream->starts[stream->count] = plan->weights.size_bytes;
  return 1;
}

/* With a page more at each end, which it may bring in beside itself. */
static uint64_t extent(const fick_stream *stream, uint64_t start) {
  const uint64_t *found = bsearch(&start, stream->starts, (size_t)stream->count, sizeof start, by_size);
  return found ? found[1] - found[0] + 2 * (uint64_t)getpagesize() : 0;
}

static uint64_t read_by(const fick_stream *stream, const fick_call *call) {
  uint64_t total = 0;
  for (uint32_t k = 0; k < call->operand_count; k++) {
    if (call->operands[k].space == FICK_SPACE_WEIGHTS) total += extent(stream, call->operands[k].offset_bytes);
  }
  return total;
}

uint64_t fick_stream_least(const fick_stream *stream, const fick_plan *plan) {
  uint64_t least = 0;
  const fick_variant *variant;
  for (int32_t i = 0; (variant = fick_variant_at(plan, i)); i++) {
    for (uint32_t j = 0; j < variant->call_count; j++) {
      uint64_t bytes = read_by(stream, &variant->calls[j]);
      if (bytes > least) least = bytes;
    }
  }
  return least < plan->weights.size_bytes ? least : plan->weights.size_bytes;
}

void fick_stream_before(fick_stream *stream, uint64_t room, const uint8_t *weights, const fick_call *call) {
  uint64_t all = stream->starts[stream->count];
  if (!room || all <= room) return;
  uint64_t coming = read_by(stream, call);
  if (stream->resident_bytes + coming > room) {
    fick_source_drop(weights, all);
    stream->resident_bytes = 0;
  }
  stream->resident_bytes += coming;
}
