/* model.c: open a bundle, describe it, move tensors in and out. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

#define PROMPTS_KEPT 2 /* with guidance, the conditional and the unconditional one */

static fick_status map_file(const char *path, fick_model *model) {
  struct stat facts;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return fick_fail(FICK_ERROR_FILE, "cannot open %s: %s", path, strerror(errno));
  if (fstat(file, &facts) != 0 || !S_ISREG(facts.st_mode)) {
    close(file);
    return fick_fail(FICK_ERROR_FILE, "cannot read %s: it is not a regular file", path);
  }
  if (facts.st_size == 0) {
    close(file);
    return fick_fail(FICK_ERROR_FORMAT, "%s is empty; copy or compile it anew", path);
  }
  model->file_bytes = (uint64_t)facts.st_size;
  void *mapped = mmap(NULL, model->file_bytes, PROT_READ, MAP_PRIVATE, file, 0);
  close(file);
  if (mapped == MAP_FAILED) return fick_fail(FICK_ERROR_MEMORY, "cannot map %s: %s", path, strerror(errno));
  model->file = mapped;
  return FICK_OK;
}

uint8_t *fick_zeroed(uint64_t bytes) {
  void *memory = NULL;
  if (posix_memalign(&memory, 64, bytes ? bytes : 64) != 0) return NULL;
  return memset(memory, 0, bytes);
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

static uint64_t state_bytes(const fick_model *model) {
  return model->plan->state_bytes + model->plan->kept_bytes * (uint64_t)model->branches;
}

fick_status fick_within_limit(const fick_model *model, uint64_t more) {
  const fick_plan *plan = model->plan;
  uint64_t needed = plan->weights.size_bytes + plan->arena_bytes + state_bytes(model) + fick_memo_bytes(&model->prompts);
  needed = more > UINT64_MAX - needed ? UINT64_MAX : needed + more;
  if (!model->memory_limit_bytes || needed <= model->memory_limit_bytes) return FICK_OK;
  return fick_fail(FICK_ERROR_MEMORY, "the model needs %llu bytes and the limit is %llu",
                   (unsigned long long)needed, (unsigned long long)model->memory_limit_bytes);
}

static fick_status allocate(fick_model *model, const fick_options *options) {
  const fick_plan *plan = model->plan;
  uint64_t prompt_bytes = fick_key_bytes(plan, FICK_PROMPT), step_bytes = fick_key_bytes(plan, FICK_STEP);
  size_t calls = fick_total_calls(plan);
  int kept = plan->prompt.call_count ? PROMPTS_KEPT : 0;
  model->memory_limit_bytes = options->memory_limit_bytes;
  fick_status status = fick_within_limit(model, (prompt_bytes + plan->prompt.carried.size_bytes) * (uint64_t)kept);
  if (status != FICK_OK) return status;
  model->arena = fick_zeroed(model->program->backend ? 0 : plan->arena_bytes);
  model->state = fick_zeroed(plan->state_bytes);
  model->prompt_key = fick_zeroed(prompt_bytes);
  model->step_key = fick_zeroed(step_bytes);
  model->seconds = calloc(calls ? calls : 1, sizeof *model->seconds);
  if (!model->arena || !model->state || !model->prompt_key || !model->step_key || !model->seconds ||
      !fick_memo_reserve(&model->prompts, prompt_bytes, plan->prompt.carried.size_bytes, kept)) {
    return fick_fail(FICK_ERROR_MEMORY, "there is no memory for the model's %llu bytes",
                     (unsigned long long)(plan->weights.size_bytes + plan->arena_bytes + plan->state_bytes));
  }
  status = fick_begin(model, 1);
  if (status != FICK_OK) return status;
  model->pool = fick_pool_create(options->threads);
  if (!model->pool) return fick_fail(FICK_ERROR_MEMORY, "there is no memory for the model's threads");
  return FICK_OK;
}

const char *fick_component(int32_t index) {
  int known = index >= 0 && index < fick_model_program.component_count;
  return known ? fick_model_program.components[index].name : NULL;
}

static const fick_plan *find_component(const fick_program *program, const char *name) {
  if (!name) return program->components;
  for (int32_t i = 0; i < program->component_count; i++) {
    if (strcmp(program->components[i].name, name) == 0) return &program->components[i];
  }
  return NULL;
}

static fick_status open_with(const fick_program *program, const char *path, const fick_options *options,
                             fick_model **model) {
  fick_contents contents;
  const fick_plan *plan = find_component(program, options->component);
  if (!plan) return fick_fail(FICK_ERROR_ARGUMENT, "the bundle has no component %s", options->component);
  const char *lacking = fick_cpu_lacks(program->cpu_features);
  if (lacking) {
    return fick_fail(FICK_ERROR_CPU, "the bundle uses %s, which this processor lacks; compile it for this machine",
                     lacking);
  }
  fick_model *opened = calloc(1, sizeof *opened);
  if (!opened) return fick_fail(FICK_ERROR_MEMORY, "there is no memory to open %s", path);
  opened->program = program;
  opened->plan = plan;
  fick_status status = map_file(path, opened);
  if (status == FICK_OK) {
    status = fick_bundle_read(opened->file, opened->file_bytes, !options->skip_verification, program, &contents);
  }
  if (status == FICK_OK) {
    opened->weights = contents.weights + plan->weights.offset_bytes;
    status = allocate(opened, options);
  }
  if (status == FICK_OK && program->backend) {
    status = program->backend->open(program, plan, &contents, opened->weights, &opened->device);
  }
  if (status != FICK_OK) {
    fick_close(opened);
    return status;
  }
  *model = opened;
  return FICK_OK;
}

fick_status fick_open(const char *path, const fick_options *options, fick_model **model) {
  static const fick_options defaults = {0, 0, 0, NULL};
  const fick_program *program = &fick_model_program;
  if (!path || !model) return fick_fail(FICK_ERROR_ARGUMENT, "fick_open: path and model must not be NULL");
  *model = NULL;
  if (!options) options = &defaults;
  if (options->threads < 0 || options->threads > 1024) {
    return fick_fail(FICK_ERROR_ARGUMENT, "fick_open: %d threads; give 1 to 1024, or 0 for all", options->threads);
  }
  fick_status status = open_with(program, path, options, model);
  int lost = status == FICK_ERROR_DEVICE || (program->backend && status == FICK_ERROR_KERNEL);
  return lost && program->fallback ? open_with(program->fallback, path, options, model) : status;
}

const char *fick_device_name(const fick_model *model) {
  if (!model || !model->device) return "processor";
  return model->program->backend->name(model->device);
}

void fick_close(fick_model *model) {
  if (!model) return;
  if (model->device) model->program->backend->close(model->device);
  fick_pool_destroy(model->pool);
  if (model->file) munmap(model->file, model->file_bytes);
  fick_memo_reserve(&model->prompts, 0, 0, 0);
  fick_memo_reserve(&model->steps, 0, 0, 0);
  free(model->arena);
  free(model->state);
  free(model->kept);
  free(model->whole);
  free(model->prompt_key);
  free(model->step_key);
  free(model->seconds);
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

fick_status fick_memory_use(const fick_model *model, fick_memory *memory) {
  if (!model || !memory) return fick_fail(FICK_ERROR_ARGUMENT, "fick_memory_use: an argument is NULL");
  *memory = (fick_memory){model->plan->weights.size_bytes, model->plan->arena_bytes, state_bytes(model),
                          fick_memo_bytes(&model->prompts) + fick_memo_bytes(&model->steps)};
  return FICK_OK;
}
