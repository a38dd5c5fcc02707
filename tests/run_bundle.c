/* run_bundle.c: LIBRARY BUNDLE INPUTS OUTPUTS: one call of the main component, its tensors end to end in files. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "fick.h"

static const char *(*last_error)(void);

static int failed(const char *what) {
  fprintf(stderr, "%s: %s\n", what, last_error ? last_error() : dlerror());
  return 1;
}

int main(int count, char **arguments) {
  void *library = count == 5 ? dlopen(arguments[1], RTLD_NOW) : NULL;
  if (!library) return failed("dlopen");
  last_error = (const char *(*)(void))dlsym(library, "fick_last_error");
#define OF(name) __typeof__(&name) p_##name = (__typeof__(&name))dlsym(library, #name)
  OF(fick_open); OF(fick_close); OF(fick_tensor_count); OF(fick_tensor_info);
  OF(fick_set_input); OF(fick_get_output); OF(fick_run);
  fick_options options = {2, 0, 0, NULL};
  fick_model *model;
  fick_tensor tensor;
  FILE *inputs = fopen(arguments[3], "rb"), *outputs = fopen(arguments[4], "wb");
  if (!inputs || !outputs) return failed("fopen");
  if (p_fick_open(arguments[2], &options, &model) != FICK_OK) return failed("fick_open");
  for (int i = 0; i < p_fick_tensor_count(model, FICK_INPUT); i++) {
    p_fick_tensor_info(model, FICK_INPUT, i, &tensor);
    void *data = malloc(tensor.size_bytes + 1);
    if (!data || fread(data, 1, tensor.size_bytes, inputs) != tensor.size_bytes) return failed("inputs");
    if (p_fick_set_input(model, tensor.name, data, tensor.size_bytes) != FICK_OK) return failed("fick_set_input");
    free(data);
  }
  if (fgetc(inputs) != EOF) return failed("more inputs than the model has");
  if (p_fick_run(model) != FICK_OK) return failed("fick_run");
  for (int i = 0; i < p_fick_tensor_count(model, FICK_OUTPUT); i++) {
    p_fick_tensor_info(model, FICK_OUTPUT, i, &tensor);
    void *data = malloc(tensor.size_bytes + 1);
    if (!data || p_fick_get_output(model, tensor.name, data, tensor.size_bytes) != FICK_OK) {
      return failed("fick_get_output");
    }
    if (fwrite(data, 1, tensor.size_bytes, outputs) != tensor.size_bytes) return failed("outputs");
    free(data);
  }
  p_fick_close(model);
  return fclose(outputs) == 0 ? 0 : failed("fclose");
}
