/* turns.c: components of a bundle that never run at once.
 *
 * They share an arena, in which no run leaves anything for the next, and a limit. Where that leaves less room than the
 * weights of all of them take, those of the others are let go of when one's turn comes, and where it leaves less than
 * that one's own, these are read as a stream (stream.c). A GPU has an arena and all weights of each of them for good.
 */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

static fick_status measure(fick_turns *turns, const fick_plan *plan, int on_gpu) {
  fick_stream stream = {NULL, 0, 0};
  if (!fick_stream_plan(&stream, plan)) return fick_fail(FICK_ERROR_MEMORY, "there is no memory to open a model");
  uint64_t least = fick_stream_least(&stream, plan), weights = plan->weights.size_bytes;
  free(stream.starts);
  turns->arena_bytes = on_gpu ? turns->arena_bytes + plan->arena_bytes : larger(turns->arena_bytes, plan->arena_bytes);
  turns->least_bytes = on_gpu ? turns->least_bytes + weights : larger(turns->least_bytes, least);
  turns->weights_bytes += weights;
  return FICK_OK;
}

static void let_go(const fick_turns *turns, const fick_model *kept) {
  for (fick_model *model = turns->first; model; model = model->next) {
    if (model == kept) continue;
    fick_source_drop(model->weights, model->plan->weights.size_bytes);
    model->stream.resident_bytes = 0;
  }
}

fick_status fick_turns_room(fick_turns *turns, uint64_t before, uint64_t after) {
  uint64_t rest = turns->arena_bytes, limit = turns->limit_bytes, room = 0;
  for (const fick_model *model = turns->first; model; model = model->next) rest += fick_model_held(model);
  rest -= before;
  rest = after > UINT64_MAX - rest ? UINT64_MAX : rest + after;
  if (limit && (rest > limit || turns->weights_bytes > limit - rest)) {
    if (rest > limit || turns->least_bytes > limit - rest) {
      uint64_t needed = turns->least_bytes > UINT64_MAX - rest ? UINT64_MAX : rest + turns->least_bytes;
      return fick_fail(FICK_ERROR_MEMORY,
                       "the bundle needs %llu bytes at least and the limit is %llu; raise the limit",
                       (unsigned long long)needed, (unsigned long long)limit);
    }
    room = limit - rest;
  }
  /* What was read while there was more room may be more than there is. */
  if (room != turns->room_bytes) let_go(turns, NULL);
  turns->room_bytes = room;
  return FICK_OK;
}

void fick_turns_take(fick_model *model) {
  fick_turns *turns = model->turns;
  if (turns->room_bytes && turns->running != model) let_go(turns, model);
  turns->running = model;
}

void fick_turns_join(fick_turns *turns, fick_model *model) {
  model->turns = turns;
  model->next = turns->first;
  turns->first = model;
  turns->users++;
}

static void release(fick_turns *turns) {
  if (--turns->users) return;
  fick_source_close(&turns->own);
  free(turns->arena);
  free(turns);
}

void fick_turns_leave(fick_model *model) {
  fick_turns *turns = model->turns;
  fick_model **at = &turns->first;
  while (*at != model) at = &(*at)->next;
  *at = model->next;
  if (turns->running == model) turns->running = NULL;
  release(turns);
}

static fick_status open_all(fick_turns *turns, const fick_program *program, const fick_source *source,
                            const fick_options *options, const fick_plan *const *plans, int32_t count,
                            fick_model **models) {
  uint64_t beside = 0;
  fick_status status = FICK_OK;
  for (int32_t i = 0; i < count && status == FICK_OK; i++) {
    if (!plans[i]) continue;
    status = measure(turns, plans[i], program->backend != NULL);
    beside += fick_model_beside(plans[i]);
  }
  if (status == FICK_OK) status = fick_turns_room(turns, 0, beside);
  if (status != FICK_OK) return status;
  turns->arena = fick_zeroed(program->backend ? 0 : turns->arena_bytes);
  if (!turns->arena) {
    return fick_fail(FICK_ERROR_MEMORY, "there is no memory for %llu bytes of activations",
                     (unsigned long long)turns->arena_bytes);
  }
  for (int32_t i = 0; i < count && status == FICK_OK; i++) {
    if (plans[i]) status = fick_model_open(turns, program, source, plans[i], options->threads, &models[i]);
  }
  return status == FICK_OK ? fick_turns_room(turns, 0, 0) : status;
}

fick_status fick_turns_open(const fick_program *program, const fick_source *source, const fick_options *options,
                            const fick_plan *const *plans, int32_t count, fick_model **models) {
  memset(models, 0, (size_t)count * sizeof *models);
  if (options->threads < 0 || options->threads > 1024) {
    return fick_fail(FICK_ERROR_ARGUMENT, "fick_open: %d threads; give 1 to 1024, or 0 for all", options->threads);
  }
  const char *lacking = fick_cpu_lacks(program->cpu_features);
  if (lacking) {
    return fick_fail(FICK_ERROR_CPU, "the bundle uses %s, which this processor lacks; compile it for this machine",
                     lacking);
  }
  fick_turns *turns = calloc(1, sizeof *turns);
  if (!turns) return fick_fail(FICK_ERROR_MEMORY, "there is no memory to open a model");
  turns->limit_bytes = options->memory_limit_bytes;
  turns->users = 1;
  fick_status status = open_all(turns, program, source, options, plans, count, models);
  for (int32_t i = 0; i < count && status != FICK_OK; i++) {
    fick_close(models[i]);
    models[i] = NULL;
  }
  release(turns);
  return status;
}

fick_status fick_memory_use(const fick_model *model, fick_memory *memory) {
  if (!model || !memory) return fick_fail(FICK_ERROR_ARGUMENT, "fick_memory_use: an argument is NULL");
  const fick_turns *turns = model->turns;
  uint64_t most = 0;
  *memory = (fick_memory){0, turns->arena_bytes, 0, 0};
  for (const fick_model *one = turns->first; one; one = one->next) {
    uint64_t weights = one->plan->weights.size_bytes, tables = fick_model_tables(one);
    memory->weights_bytes += weights;
    memory->state_bytes += fick_model_held(one) - tables;
    memory->table_bytes += tables;
    most = larger(most, weights);
  }
  if (turns->room_bytes) memory->weights_bytes = most < turns->room_bytes ? most : turns->room_bytes;
  return FICK_OK;
}
