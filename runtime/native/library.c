/* library.c: the interface of the library inside a bundle, whose program is its own. */
#include "internal.h"

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
                             fick_model **model) {
  fick_source source;
  fick_status status = fick_source_map(path, &source);
  if (status == FICK_OK) status = fick_source_check(&source, program, !(options && options->skip_verification));
  if (status == FICK_OK) status = fick_model_open(program, &source, NULL, options, model);
  if (status == FICK_OK) (*model)->own = source;
  else fick_source_close(&source);
  return status;
}

fick_status fick_open(const char *path, const fick_options *options, fick_model **model) {
  const fick_program *program = &fick_model_program;
  if (!path || !model) return fick_fail(FICK_ERROR_ARGUMENT, "fick_open: path and model must not be NULL");
  *model = NULL;
  fick_status status = open_with(program, path, options, model);
  int lost = status == FICK_ERROR_DEVICE || (program->backend && status == FICK_ERROR_KERNEL);
  return lost && program->fallback ? open_with(program->fallback, path, options, model) : status;
}

fick_status fick_check(const void *data, uint64_t size_bytes) {
  fick_contents contents;
  if (!data) return fick_fail(FICK_ERROR_ARGUMENT, "fick_check: data is NULL");
  return fick_bundle_read(data, size_bytes, 1, NULL, &fick_model_program, &contents);
}
