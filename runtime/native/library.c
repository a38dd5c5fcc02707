/* library.c: the interface of the library inside a bundle, whose program is its own. */
#include <string.h>

#include "internal.h"

#define MOST_TOGETHER 16

static fick_hooks used = {fick_pool_launch, fick_kernel_raised};

/* TVM's kernels call through this variable. Their objects define it weakly and empty: this definition wins. */
extern int (*__TVMBackendParallelLaunch)(fick_task task, void *closure, int tasks);
int (*__TVMBackendParallelLaunch)(fick_task task, void *closure, int tasks) = fick_pool_launch;

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count);
void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
  used.raise(kind, parts, count);
}

const fick_program *fick_attach(uint32_t plan_version, const fick_hooks *hooks) {
  if (plan_version != FICK_PLAN_VERSION) return 0;
  used = *hooks;
  __TVMBackendParallelLaunch = hooks->launch;
  return &fick_model_program;
}

const char *fick_component(int32_t index) {
  int known = index >= 0 && index < fick_model_program.component_count;
  return known ? fick_model_program.components[index].name : NULL;
}

static fick_status open_with(const fick_program *program, const char *path, const fick_options *options,
                             const char *const *components, int32_t count, fick_model **models) {
  const fick_plan *plans[MOST_TOGETHER];
  fick_source source;
  fick_status status = fick_source_map(path, &source);
  if (status == FICK_OK) status = fick_source_check(&source, program, !options->skip_verification);
  for (int32_t i = 0; i < count && status == FICK_OK; i++) {
    plans[i] = fick_plan_of(program, components[i]);
    if (!plans[i]) status = fick_fail(FICK_ERROR_ARGUMENT, "the bundle has no component %s", components[i]);
  }
  if (status == FICK_OK) status = fick_turns_open(program, &source, options, plans, count, models);
  if (status == FICK_OK) models[0]->turns->own = source;
  else fick_source_close(&source);
  return status;
}

fick_status fick_open_together(const char *path, const fick_options *options, const char *const *components,
                               int32_t count, fick_model **models) {
  static const fick_options defaults = {0, 0, 0, NULL};
  const fick_program *program = &fick_model_program;
  if (!path || !components || !models || count < 1 || count > MOST_TOGETHER) {
    return fick_fail(FICK_ERROR_ARGUMENT, "fick_open_together: give a path and the names of 1 to %d components",
                     MOST_TOGETHER);
  }
  if (!options) options = &defaults;
  memset(models, 0, (size_t)count * sizeof *models);
  fick_status status = open_with(program, path, options, components, count, models);
  int lost = status == FICK_ERROR_DEVICE || (program->backend && status == FICK_ERROR_KERNEL);
  return lost && program->fallback ? open_with(program->fallback, path, options, components, count, models) : status;
}

fick_status fick_open(const char *path, const fick_options *options, fick_model **model) {
  if (!path || !model) return fick_fail(FICK_ERROR_ARGUMENT, "fick_open: path and model must not be NULL");
  const char *component = options ? options->component : NULL;
  return fick_open_together(path, options, &component, 1, model);
}

fick_status fick_check(const void *data, uint64_t size_bytes) {
  fick_contents contents;
  if (!data) return fick_fail(FICK_ERROR_ARGUMENT, "fick_check: data is NULL");
  return fick_bundle_read(data, size_bytes, 1, NULL, &fick_model_program, &contents);
}
