/* profile.c: how long each kernel call took, as JSON. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parts.h"

static void quoted(FILE *file, const char *text) {
  fputc('"', file);
  for (; *text; text++) {
    if ((unsigned char)*text < 0x20) fprintf(file, "\\u%04x", *text);
    else fprintf(file, *text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
  }
  fputc('"', file);
}

static void calls_of(FILE *file, const fick_model *model, const char **before) {
  const fick_variant *variant;
  uint32_t at = 0;
  for (int32_t i = 0; (variant = fick_variant_at(model->plan, i)); i++) {
    for (uint32_t j = 0; j < variant->call_count; j++, at++) {
      if (!model->runs[at]) continue;
      const char *const fields[] = {"component", model->plan->name, "variant", variant->name,
                                    "node", variant->calls[j].node, "kernel", variant->calls[j].kernel_name};
      fprintf(file, "%s  {", *before);
      for (int k = 0; k < 8; k++) {
        quoted(file, fields[k]);
        fputs(k % 2 ? ", " : ": ", file);
      }
      fprintf(file, "\"runs\": %llu, \"seconds\": %.9g}", (unsigned long long)model->runs[at],
              model->total_seconds[at]);
      *before = ",\n";
    }
  }
}

fick_status fick_pipeline_write_profile(const fick_pipeline *p, const char *path) {
  char *text = NULL;
  size_t size = 0;
  if (!p || !path) return fick_fail(FICK_ERROR_ARGUMENT, "fick_pipeline_write_profile: an argument is NULL");
  FILE *file = open_memstream(&text, &size);
  if (!file) return fick_fail(FICK_ERROR_MEMORY, "there is no memory for the profile");
  const char *before = "{\"calls\": [\n";
  for (int i = 0; i < FICK_PARTS; i++) {
    if (p->models[i]) calls_of(file, p->models[i], &before);
  }
  fputs(*before == '{' ? "{\"calls\": []}\n" : "\n]}\n", file);
  int sound = !ferror(file);
  sound = fclose(file) == 0 && sound;
  fick_status status = FICK_OK;
  if (sound) status = fick_file_write(path, text, size);
  else status = fick_fail(FICK_ERROR_MEMORY, "there is no memory for the profile");
  free(text);
  return status;
}
