/* pipeline.c: open a bundle that holds a whole pipeline, and take prompts. */
#include <stdlib.h>
#include <string.h>

#include "parts.h"

#if defined(__x86_64__)
#define ARCHITECTURE "x86_64"
#elif defined(__aarch64__)
#define ARCHITECTURE "aarch64"
#else
#define ARCHITECTURE "armv7l"
#endif

static fick_status damaged(const char *what) {
  return fick_fail(FICK_ERROR_FORMAT, "the bundle is damaged: its %s; copy or compile it anew", what);
}

/* Before any of its code is in memory. */
static fick_status check_target(fick_pipeline *p, const char *path) {
  fick_json target, value, entries = {NULL, NULL};
  char arch[32];
  const fick_entry *code = fick_zip_find(&p->zip, "code/libmodel.so");
  if (!fick_json_member(p->manifest, "target", &target) || !fick_json_member(target, "arch", &value) ||
      !fick_json_string(value, arch, sizeof arch)) {
    return damaged("manifest names no target");
  }
  if (strcmp(arch, ARCHITECTURE) != 0) {
    return fick_fail(FICK_ERROR_CPU, "%s is compiled for %s and this runner is for %s; compile it for this one", path,
                     arch, ARCHITECTURE);
  }
  fick_json_member(p->manifest, "entries", &entries);
  if (!code) return damaged("library is missing");
  TRY(fick_bundle_entry(code, entries, 1, NULL));
  TRY(fick_library_load(code->data, code->size, &p->library, &p->program));
  if (!p->program->backend) return FICK_OK;
  p->program = p->program->fallback;
  return p->program ? FICK_OK
                    : fick_fail(FICK_ERROR_DEVICE,
                                "%s is for a GPU and this runner has none; compile it with --fallback", path);
}

static int single(const fick_model *model, fick_rate rate, fick_tensor *found) {
  int count = 0;
  for (int32_t i = 0; i < model->plan->input_count; i++) {
    if (model->plan->inputs[i].tensor.rate != rate) continue;
    *found = model->plan->inputs[i].tensor;
    count++;
  }
  return count == 1;
}

static int64_t elements(const fick_tensor *tensor) {
  int64_t total = 1;
  for (int32_t i = 0; i < tensor->rank; i++) total *= tensor->shape[i];
  return total;
}

/* The tensors that the loop knows how to fill, by what they are. */
static fick_status find_tensors(fick_pipeline *p) {
  const fick_plan *network = p->models[FICK_NETWORK]->plan, *decoder = p->models[FICK_DECODER]->plan;
  int sound = single(p->models[FICK_NETWORK], FICK_SAMPLE, &p->sample) &&
              single(p->models[FICK_NETWORK], FICK_STEP, &p->step) &&
              single(p->models[FICK_NETWORK], FICK_PROMPT, &p->prompt) && network->output_count > 0 &&
              decoder->input_count == 1;
  sound = sound && decoder->output_count == 1;
  if (sound) {
    const fick_tensor *output = &network->outputs[0].tensor;
    p->latent = decoder->inputs[0].tensor;
    p->image = decoder->outputs[0].tensor;
    p->elements = (size_t)elements(&p->latent);
    sound = p->sample.dtype == FICK_FLOAT32 && p->sample.shape[0] == 2 && output->dtype == FICK_FLOAT32 &&
            elements(&p->sample) == 2 * (int64_t)p->elements && elements(output) >= 2 * (int64_t)p->elements &&
            output->shape[0] == 2 && p->image.dtype == FICK_FLOAT32 && p->image.rank == 4 && p->image.shape[0] == 1 &&
            p->image.shape[1] == 3 && p->latent.dtype == FICK_FLOAT32 &&
            (p->step.dtype == FICK_FLOAT32 || p->step.dtype == FICK_INT64);
  }
  if (sound && p->models[FICK_ENCODER]) {
    const fick_plan *encoder = p->models[FICK_ENCODER]->plan;
    sound = encoder->input_count == 1 && encoder->output_count >= 1 && encoder->inputs[0].tensor.dtype == FICK_INT64 &&
            elements(&encoder->inputs[0].tensor) == fick_tokenizer_length(p->tokenizer) &&
            2 * encoder->outputs[0].tensor.size_bytes == p->prompt.size_bytes;
  } else if (sound) {
    sound = p->prompt.dtype == FICK_INT64 && elements(&p->prompt) == 2;
  }
  if (sound && p->models[FICK_PICTURES]) {
    const fick_plan *encoder = p->models[FICK_PICTURES]->plan;
    sound = encoder->input_count == 1 && encoder->output_count == 2;
    for (int32_t i = 0; sound && i < 3; i++) {
      const fick_tensor *one = i ? &encoder->outputs[i - 1].tensor : &encoder->inputs[0].tensor;
      sound = one->dtype == FICK_FLOAT32 && one->size_bytes == (i ? p->latent : p->image).size_bytes;
    }
  }
  return sound ? FICK_OK
               : fick_fail(FICK_ERROR_FORMAT, "the bundle's components do not fit together as a pipeline does");
}

static fick_status allocate(fick_pipeline *p) {
  size_t output = (size_t)elements(&p->models[FICK_NETWORK]->plan->outputs[0].tensor);
  p->prompt_value = fick_zeroed(p->prompt.size_bytes);
  p->x = malloc(fick_noise_room(p->elements) * sizeof *p->x);
  p->seen = malloc(2 * p->elements * sizeof *p->seen);
  p->output = malloc(output * sizeof *p->output);
  p->pixels = malloc((size_t)p->image.size_bytes);
  p->dropped = calloc(1, 1);
  p->ids = p->tokenizer ? calloc((size_t)fick_tokenizer_length(p->tokenizer), sizeof *p->ids) : NULL;
  if (!p->prompt_value || !p->x || !p->seen || !p->output || !p->pixels || !p->dropped || (p->tokenizer && !p->ids)) {
    return fick_fail(FICK_ERROR_MEMORY, "there is no memory for a pipeline's pictures");
  }
  return FICK_OK;
}

static fick_status open_pipeline(fick_pipeline *p, const char *path, const fick_pipeline_options *options) {
  fick_json pipeline, facts, value;
  TRY(fick_source_map(path, &p->source));
  TRY(fick_zip_read(p->source.data, p->source.bytes, &p->zip));
  TRY(fick_bundle_manifest(&p->zip, &p->manifest));
  int whole = fick_json_member(p->manifest, "pipeline", &pipeline);
  int texts = whole && fick_json_member(pipeline, "tokenizer", &facts);
  if (!texts && !(whole && fick_json_member(pipeline, "classes", &facts))) {
    return fick_fail(FICK_ERROR_ARGUMENT, "%s holds a model alone and no pipeline from a prompt to a picture", path);
  }
  TRY(check_target(p, path));
  TRY(fick_source_check(&p->source, p->program, !options->skip_verification));
  const fick_plan *plans[FICK_PARTS] = {p->program->components, texts ? fick_plan_of(p->program, "text_encoder") : NULL,
                                        fick_plan_of(p->program, "vae_decoder"),
                                        options->takes_pictures ? fick_plan_of(p->program, "vae_encoder") : NULL};
  if (options->takes_pictures && !plans[FICK_PICTURES]) {
    return fick_fail(FICK_ERROR_ARGUMENT, "%s has no encoder of pictures; draw from noise", path);
  }
  if (!plans[FICK_DECODER] || (texts && !plans[FICK_ENCODER])) return damaged("code lacks a component of the pipeline");
  if (texts) {
    TRY(fick_tokenizer_create(fick_zip_find(&p->zip, "tokenizer/vocab.json"),
                              fick_zip_find(&p->zip, "tokenizer/merges.txt"), facts, &p->tokenizer));
  } else if (!fick_json_member(facts, "count", &value) || !fick_json_integer(value, &p->classes) ||
             !fick_json_member(facts, "names", &p->class_names)) {
    return damaged("manifest does not count its classes");
  }
  fick_options opening = {options->threads, 1, options->memory_limit_bytes, NULL};
  TRY(fick_turns_open(p->program, &p->source, &opening, plans, FICK_PARTS, p->models));
  TRY(find_tensors(p));
  return allocate(p);
}

fick_status fick_pipeline_create(const char *path, const fick_pipeline_options *options, fick_pipeline **pipeline) {
  static const fick_pipeline_options defaults = {0, 0, 0, 0};
  if (!path || !pipeline) {
    return fick_fail(FICK_ERROR_ARGUMENT, "fick_pipeline_create: path and pipeline must not be NULL");
  }
  *pipeline = NULL;
  fick_pipeline *made = calloc(1, sizeof *made);
  if (!made) return fick_fail(FICK_ERROR_MEMORY, "there is no memory to open %s", path);
  fick_status status = open_pipeline(made, path, options ? options : &defaults);
  if (status == FICK_OK) *pipeline = made;
  else fick_pipeline_destroy(made);
  return status;
}

void fick_pipeline_destroy(fick_pipeline *p) {
  if (!p) return;
  for (int i = 0; i < FICK_PARTS; i++) fick_close(p->models[i]);
  fick_tokenizer_destroy(p->tokenizer);
  fick_library_unload(&p->library);
  fick_source_close(&p->source);
  free(p->prompt_value);
  free(p->ids);
  free(p->dropped);
  free(p->x);
  free(p->seen);
  free(p->output);
  free(p->pixels);
  free(p);
}

fick_status fick_pipeline_size(const fick_pipeline *p, int32_t *width, int32_t *height) {
  if (!p || !width || !height) return fick_fail(FICK_ERROR_ARGUMENT, "fick_pipeline_size: an argument is NULL");
  *height = (int32_t)p->image.shape[2];
  *width = (int32_t)p->image.shape[3];
  return FICK_OK;
}

static fick_status encode(fick_pipeline *p, const char *prompt, uint8_t *value, size_t *dropped) {
  const fick_plan *encoder = p->models[FICK_ENCODER]->plan;
  const fick_tensor *in = &encoder->inputs[0].tensor, *out = &encoder->outputs[0].tensor;
  TRY(fick_tokenizer_encode(p->tokenizer, prompt, p->ids, dropped));
  TRY(fick_set_input(p->models[FICK_ENCODER], in->name, p->ids, in->size_bytes));
  TRY(fick_run(p->models[FICK_ENCODER]));
  return fick_get_output(p->models[FICK_ENCODER], out->name, value, out->size_bytes);
}

fick_status fick_pipeline_set_prompt(fick_pipeline *p, const char *prompt, const char *negative) {
  if (!p || !prompt) return fick_fail(FICK_ERROR_ARGUMENT, "fick_pipeline_set_prompt: an argument is NULL");
  if (!p->tokenizer) return fick_fail(FICK_ERROR_ARGUMENT, "the bundle draws classes; give the number of one");
  size_t half = (size_t)p->prompt.size_bytes / 2, at = 0;
  p->prompted = 0;
  TRY(encode(p, negative ? negative : "", p->prompt_value, &at));
  TRY(encode(p, prompt, p->prompt_value + half, &at));
  at += strspn(prompt + at, " \t\r\n");
  char *dropped = malloc(strlen(prompt + at) + 1);
  if (!dropped) return fick_fail(FICK_ERROR_MEMORY, "there is no memory for the prompt");
  free(p->dropped);
  p->dropped = strcpy(dropped, prompt + at);
  p->prompted = 1;
  return FICK_OK;
}

const char *fick_pipeline_dropped(const fick_pipeline *p) { return p ? p->dropped : ""; }

fick_status fick_pipeline_set_class(fick_pipeline *p, int64_t label) {
  if (!p) return fick_fail(FICK_ERROR_ARGUMENT, "fick_pipeline_set_class: pipeline is NULL");
  if (p->tokenizer) return fick_fail(FICK_ERROR_ARGUMENT, "the bundle draws prompts; give it one");
  if (label < 0 || label >= p->classes) {
    return fick_fail(FICK_ERROR_ARGUMENT, "there is no class %lld; they are 0 to %lld", (long long)label,
                     (long long)p->classes - 1);
  }
  /* The row after the last class stands for none (Ho and Salimans, arXiv 2207.12598). */
  int64_t both[2] = {p->classes, label};
  memcpy(p->prompt_value, both, sizeof both);
  p->prompted = 1;
  return FICK_OK;
}

fick_status fick_pipeline_class_of(const fick_pipeline *p, const char *name, int64_t *label) {
  fick_json rest, key, value;
  char known[256];
  if (!p || !name || !label) return fick_fail(FICK_ERROR_ARGUMENT, "fick_pipeline_class_of: an argument is NULL");
  if (p->tokenizer) return fick_fail(FICK_ERROR_ARGUMENT, "the bundle draws prompts; give it one");
  if (fick_json_integer((fick_json){name, name + strlen(name)}, label)) return FICK_OK;
  for (rest = p->class_names; fick_json_next(&rest, &key, &value);) {
    int64_t size = fick_json_text(key, known, sizeof known);
    if (size < 0 || (size_t)size != strlen(name) || memcmp(known, name, (size_t)size) != 0) continue;
    return fick_json_integer(value, label) ? FICK_OK : damaged("names of classes");
  }
  return fick_fail(FICK_ERROR_ARGUMENT, "there is no class called %s; give its number, 0 to %lld", name,
                   (long long)p->classes - 1);
}

void fick_pipeline_set_progress(fick_pipeline *p, fick_progress callback, void *user) {
  if (!p) return;
  p->progress = callback;
  p->user = user;
}

void fick_pipeline_cancel(fick_pipeline *p) {
  if (!p) return;
  atomic_store(&p->cancelled, 1);
  fick_cancel(p->models[FICK_NETWORK]);
}

fick_status fick_pipeline_memory(const fick_pipeline *p, fick_memory *memory) {
  if (!p || !memory) return fick_fail(FICK_ERROR_ARGUMENT, "fick_pipeline_memory: an argument is NULL");
  return fick_memory_use(p->models[FICK_NETWORK], memory);
}
