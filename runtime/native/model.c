/* model.c: open a component, describe it, move tensors in and out. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define PROMPTS_KEPT 2 /* with guidance, the conditional and the unconditional one */

uint8_t *fick_zeroed(uint64_t bytes) {
  void *memory = NULL;
  if (bytes > SIZE_MAX / 2 || posix_memalign(&memory, 64, bytes ? (size_t)bytes : 64) != 0) return NULL;
  return memset(memory, 0, (size_t)bytes);
}

uint64_t fick_key_bytes(const fick_plan *plan, fick_rate rate) {
  uint64_t total = 0;
  for (int32_t i = 0; i < plan->input_count; i++) {
    if (plan->inputs[i].tensor.rate == rate) total += plan->inputs[i].tensor.size_bytes;
  }
  return total;
}

void fick_key_copy(const fick_model *model, fick_rate rate, uint8_t *key) {
  for (int32_t i = 0; i < model->plan->input_count; i++) {
    const fick_slot *slot = &model->plan->inputs[i];
    if (slot->tensor.rate != rate) continue;
    memcpy(key, model->state + slot->offset_bytes, slot->tensor.size_bytes);
    key += slot->tensor.size_bytes;
  }
}

uint64_t fick_model_tables(const fick_model *model) {
  return fick_memo_bytes(&model->prompts) + fick_memo_bytes(&model->steps);
}

uint64_t fick_model_held(const fick_model *model) {
  const fick_plan *plan = model->plan;
  return plan->state_bytes + plan->kept_bytes * (uint64_t)model->branches + fick_model_tables(model);
}

uint64_t fick_model_beside(const fick_plan *plan) {
  uint64_t prompt = fick_key_bytes(plan, FICK_PROMPT) + plan->prompt.carried.size_bytes;
  return plan->state_bytes + plan->kept_bytes + (plan->prompt.call_count ? PROMPTS_KEPT * prompt : 0);
}

static fick_status allocate(fick_model *model, int32_t threads) {
  const fick_plan *plan = model->plan;
  uint64_t prompt_bytes = fick_key_bytes(plan, FICK_PROMPT), step_bytes = fick_key_bytes(plan, FICK_STEP);
  size_t calls = fick_total_calls(plan) + 1; /* none is none, and no failure */
  int kept = plan->prompt.call_count ? PROMPTS_KEPT : 0;
  model->state = fick_zeroed(plan->state_bytes);
  model->prompt_key = fick_zeroed(prompt_bytes);
  model->step_key = fick_zeroed(step_bytes);
  model->seconds = calloc(calls, sizeof *model->seconds);
  model->total_seconds = calloc(calls, sizeof *model->total_seconds);
  model->runs = calloc(calls, sizeof *model->runs);
  if (!fick_stream_plan(&model->stream, plan) || !model->state || !model->prompt_key || !model->step_key ||
      !model->seconds || !model->total_seconds || !model->runs ||
      !fick_memo_reserve(&model->prompts, prompt_bytes, plan->prompt.carried.size_bytes, kept)) {
    return fick_fail(FICK_ERROR_MEMORY, "there is no memory for the model's %llu bytes",
                     (unsigned long long)(plan->weights.size_bytes + plan->arena_bytes + plan->state_bytes));
  }
  fick_status status = fick_begin(model, 1);
  if (status != FICK_OK) return status;
  model->pool = fick_pool_create(threads);
  if (!model->pool) return fick_fail(FICK_ERROR_MEMORY, "there is no memory for the model's threads");
  return FICK_OK;
}

const fick_plan *fick_plan_of(const fick_program *program, const char *name) {
  if (!name) return program->components;
  for (int32_t i = 0; i < program->component_count; i++) {
    if (strcmp(program->components[i].name, name) == 0) return &program->components[i];
  }
  return NULL;
}

fick_status fick_model_open(fick_turns *turns, const fick_program *program, const fick_source *source,
                            const fick_plan *plan, int32_t threads, fick_model **model) {
  fick_model *opened = calloc(1, sizeof *opened);
  if (!opened) return fick_fail(FICK_ERROR_MEMORY, "there is no memory to open a model");
  opened->program = program;
  opened->plan = plan;
  opened->weights = source->contents.weights + plan->weights.offset_bytes;
  fick_turns_join(turns, opened);
  fick_status status = allocate(opened, threads);
  if (status == FICK_OK && program->backend) {
    status = program->backend->open(program, plan, &source->contents, opened->weights, &opened->device);
  }
  if (status != FICK_OK) {
    fick_close(opened);
    return status;
  }
  *model = opened;
  return FICK_OK;
}

const char *fick_device_name(const fick_model *model) {
  if (!model || !model->device) return "processor";
  return model->program->backend->name(model->device);
}

void fick_close(fick_model *model) {
  if (!model) return;
  if (model->device) model->program->backend->close(model->device);
  fick_pool_destroy(model->pool);
  fick_turns_leave(model);
  fick_memo_reserve(&model->prompts, 0, 0, 0);
  fick_memo_reserve(&model->steps, 0, 0, 0);
  free(model->stream.starts);
  free(model->state);
  free(model->kept);
  free(model->whole);
  free(model->prompt_key);
  free(model->step_key);
  free(model->seconds);
  free(model->total_seconds);
  free(model->runs);
  free(model);
}

int32_t fick_tensor_count(const fick_model *model, fick_direction direction) {
  if (!model) return 0;
  return direction == FICK_INPUT ? model->plan->input_count : model->plan->output_count;
}

fick_status fick_tensor_info(const fick_model *model, fick_direction direction, int32_t index, fick_tensor *info) {
  if (!model || !info || index < 0 || index >= fick_tensor_count(model, direction)) {
    return fick_fail(FICK_ERROR_ARGUMENT, "fick_tensor_info: there is no tensor %d", index);
  }
  *info = (direction == FICK_INPUT ? model->plan->inputs : model->plan->outputs)[index].tensor;
  return FICK_OK;
}

static fick_status find(const fick_slot *slots, int32_t count, const char *kind, const char *name, uint64_t bytes,
                        const fick_slot **found) {
  for (int32_t i = 0; i < count; i++) {
    if (strcmp(slots[i].tensor.name, name) != 0) continue;
    if (slots[i].tensor.size_bytes != bytes) {
      return fick_fail(FICK_ERROR_ARGUMENT, "%s %s has %llu bytes, not %llu", kind, name,
                       (unsigned long long)slots[i].tensor.size_bytes, (unsigned long long)bytes);
    }
    *found = &slots[i];
    return FICK_OK;
  }
  return fick_fail(FICK_ERROR_ARGUMENT, "the model has no %s %s", kind, name);
}

fick_status fick_set_input(fick_model *model, const char *name, const void *data, uint64_t size_bytes) {
  const fick_slot *slot;
  if (!model || !name || !data) return fick_fail(FICK_ERROR_ARGUMENT, "fick_set_input: an argument is NULL");
  fick_status status = find(model->plan->inputs, model->plan->input_count, "input", name, size_bytes, &slot);
  if (status == FICK_OK) memcpy(model->state + slot->offset_bytes, data, size_bytes);
  return status;
}

fick_status fick_get_output(const fick_model *model, const char *name, void *data, uint64_t size_bytes) {
  const fick_slot *slot;
  if (!model || !name || !data) return fick_fail(FICK_ERROR_ARGUMENT, "fick_get_output: an argument is NULL");
  fick_status status = find(model->plan->outputs, model->plan->output_count, "output", name, size_bytes, &slot);
  if (status == FICK_OK) memcpy(data, model->state + slot->offset_bytes, size_bytes);
  return status;
}
