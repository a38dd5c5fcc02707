/* run.c: the calls of a variant, and when which variant has to run. */
#define _GNU_SOURCE
#include <string.h>
#include <time.h>

#include "internal.h"

#define MOST_STEPS 100000

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* prompt, step, and the alternatives in order; NULL after the last. */
const fick_variant *fick_variant_at(const fick_plan *plan, int32_t index) {
  if (index < 2) return index ? &plan->step : &plan->prompt;
  return index - 2 < plan->alternative_count ? &plan->alternatives[index - 2] : NULL;
}

static uint32_t first_call(const fick_plan *plan, const fick_variant *variant) {
  uint32_t first = 0;
  for (int32_t i = 0; fick_variant_at(plan, i) != variant; i++) first += fick_variant_at(plan, i)->call_count;
  return first;
}

uint32_t fick_total_calls(const fick_plan *plan) { return first_call(plan, NULL); }

static fick_status run_on_processor(const fick_call *call, uint8_t *const spaces[]) {
  fick_argument arguments[FICK_MAX_OPERANDS], result = {0, 0, {NULL}};
  for (uint32_t j = 0; j < call->operand_count; j++) {
    const fick_operand *operand = &call->operands[j];
    arguments[j] = (fick_argument){FICK_OPAQUE_POINTER, 0, {spaces[operand->space] + operand->offset_bytes}};
  }
  if (call->kernel(NULL, arguments, (int32_t)call->operand_count, &result) == 0) return FICK_OK;
  return fick_fail(FICK_ERROR_KERNEL, "kernel %s failed at %s", call->kernel_name, call->node);
}

static fick_status run_variant(fick_model *model, const fick_variant *variant, int32_t branch) {
  const fick_backend *backend = model->program->backend;
  uint8_t *kept = model->kept + (backend ? 0 : (size_t)branch * model->plan->kept_bytes);
  uint8_t *spaces[] = {(uint8_t *)(uintptr_t)model->weights, model->turns->arena, model->state, kept};
  uint32_t first = first_call(model->plan, variant);
  double *seconds = model->seconds + first;
  fick_status status = FICK_OK;
  fick_pool_use(model->pool);
  fick_turns_take(model);
  if (backend) status = backend->begin(model->device, model->state, branch, model->branches);
  for (uint32_t i = 0; i < variant->call_count && status == FICK_OK; i++) {
    const fick_call *call = &variant->calls[i];
    if (model->progress && model->progress(i, variant->call_count, model->user) != 0) {
      atomic_store(&model->cancelled, 1);
    }
    if (atomic_load_explicit(&model->cancelled, memory_order_relaxed)) {
      status = fick_fail(FICK_ERROR_CANCELLED, "the run was cancelled before %s", call->node);
    } else if (backend) {
      status = backend->call(model->device, call);
    } else {
      fick_stream_before(&model->stream, model->turns->room_bytes, model->weights, call);
      double started = now();
      status = run_on_processor(call, spaces);
      seconds[i] = now() - started;
      if (status == FICK_OK && model->after) model->after(model, variant, i, spaces, model->after_user);
    }
  }
  if (backend) {
    /* What was started ends, whatever became of the rest. */
    fick_status ended = backend->end(model->device, status == FICK_OK ? variant : NULL, model->state, seconds);
    if (status == FICK_OK) status = ended;
  }
  for (uint32_t i = 0; i < variant->call_count && status == FICK_OK; i++) {
    model->total_seconds[first + i] += seconds[i];
    model->runs[first + i]++;
  }
  return status;
}

/* Bring what a variant carries into the state space for the inputs as they are: kept, from the table, or by
 * running it. */
static fick_status ensure(fick_model *model, const fick_variant *variant, fick_rate rate, fick_memo *memo,
                          uint8_t *key, int *valid) {
  uint64_t key_bytes = fick_key_bytes(model->plan, rate);
  uint8_t *carried = model->state + variant->carried.offset_bytes;
  if (!variant->call_count) return FICK_OK;
  if (*valid) {
    const uint8_t *at = key;
    int same = 1;
    for (int32_t i = 0; i < model->plan->input_count && same; i++) {
      const fick_slot *slot = &model->plan->inputs[i];
      if (slot->tensor.rate != rate) continue;
      same = memcmp(at, model->state + slot->offset_bytes, slot->tensor.size_bytes) == 0;
      at += slot->tensor.size_bytes;
    }
    if (same) return FICK_OK;
  }
  *valid = 0;
  fick_key_copy(model, rate, key);
  const uint8_t *kept = key_bytes == memo->key_bytes ? fick_memo_find(memo, key) : NULL;
  if (kept) {
    memcpy(carried, kept, variant->carried.size_bytes);
    const fick_backend *backend = model->program->backend;
    fick_status status = backend ? backend->changed(model->device, variant->carried, model->state) : FICK_OK;
    if (status != FICK_OK) return status;
  } else {
    fick_status status = run_variant(model, variant, 0);
    if (status != FICK_OK) return status;
    fick_memo_keep(memo, key, carried);
  }
  *valid = 1;
  return FICK_OK;
}

fick_status fick_run(fick_model *model) {
  if (!model) return fick_fail(FICK_ERROR_ARGUMENT, "fick_run: model is NULL");
  const fick_plan *plan = model->plan;
  const fick_variant *variant = model->chosen;
  int32_t branch = model->branch;
  model->chosen = plan->alternatives;
  model->branch = 0;
  atomic_store(&model->cancelled, 0);
  fick_status status = fick_kept_require(model, variant, branch);
  if (status == FICK_OK) {
    status = ensure(model, &plan->prompt, FICK_PROMPT, &model->prompts, model->prompt_key, &model->prompt_valid);
  }
  if (status == FICK_OK) {
    status = ensure(model, &plan->step, FICK_STEP, &model->steps, model->step_key, &model->step_valid);
  }
  if (status != FICK_OK) return status;
  fick_kept_mark(model, variant, branch, 0);
  status = run_variant(model, variant, branch);
  if (status == FICK_OK) fick_kept_mark(model, variant, branch, 1);
  return status;
}

fick_status fick_prepare_steps(fick_model *model, const void *values, uint64_t size_bytes, int32_t count) {
  if (!model || !values) return fick_fail(FICK_ERROR_ARGUMENT, "fick_prepare_steps: an argument is NULL");
  const fick_plan *plan = model->plan;
  uint64_t row = fick_key_bytes(plan, FICK_STEP);
  if (count < 1 || count > MOST_STEPS || size_bytes != row * (uint64_t)count) {
    return fick_fail(FICK_ERROR_ARGUMENT, "fick_prepare_steps: %d steps of %llu bytes are not %llu bytes", count,
                     (unsigned long long)row, (unsigned long long)size_bytes);
  }
  if (!plan->step.call_count) return FICK_OK;
  uint64_t table = (row + plan->step.carried.size_bytes) * (uint64_t)count;
  fick_status limited = fick_turns_room(model->turns, fick_memo_bytes(&model->steps), table);
  if (limited != FICK_OK) return limited;
  if (!fick_memo_reserve(&model->steps, row, plan->step.carried.size_bytes, count)) {
    return fick_fail(FICK_ERROR_MEMORY, "there is no memory for a table of %d steps", count);
  }
  atomic_store(&model->cancelled, 0);
  for (int32_t i = 0; i < count; i++) {
    const uint8_t *at = (const uint8_t *)values + row * (uint64_t)i;
    for (int32_t j = 0; j < plan->input_count; j++) {
      const fick_slot *slot = &plan->inputs[j];
      if (slot->tensor.rate != FICK_STEP) continue;
      memcpy(model->state + slot->offset_bytes, at, slot->tensor.size_bytes);
      at += slot->tensor.size_bytes;
    }
    /* A value that came before is in the table already. */
    model->step_valid = 0;
    fick_status status = ensure(model, &plan->step, FICK_STEP, &model->steps, model->step_key, &model->step_valid);
    if (status != FICK_OK) return status;
  }
  return FICK_OK;
}

void fick_set_progress(fick_model *model, fick_progress callback, void *user) {
  if (!model) return;
  model->progress = callback;
  model->user = user;
}

void fick_cancel(fick_model *model) {
  if (model) atomic_store(&model->cancelled, 1);
}

int32_t fick_call_count(const fick_model *model) { return model ? (int32_t)fick_total_calls(model->plan) : 0; }

fick_status fick_call_info(const fick_model *model, int32_t index, fick_call_profile *profile) {
  if (!model || !profile || index < 0 || index >= fick_call_count(model)) {
    return fick_fail(FICK_ERROR_ARGUMENT, "fick_call_info: there is no call %d", index);
  }
  uint32_t position = (uint32_t)index;
  int32_t which = 0;
  while (position >= fick_variant_at(model->plan, which)->call_count) {
    position -= fick_variant_at(model->plan, which++)->call_count;
  }
  const fick_variant *variant = fick_variant_at(model->plan, which);
  const fick_call *call = &variant->calls[position];
  *profile = (fick_call_profile){variant->name, call->node, call->kernel_name, model->seconds[index]};
  return FICK_OK;
}
