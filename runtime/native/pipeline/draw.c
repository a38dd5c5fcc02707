/* draw.c: the denoising loop over a guided network, and the decoder (runtime/latent_diffusion.py). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "parts.h"

/* What a loop needs beside what the pipeline has. */
typedef struct {
  fick_residual residual;
  fick_sampler *sampler;
  const char **order;
  uint8_t *steps; /* the network's step input at each call */
  int32_t first;  /* of the calls to run */
} loop;

/* A member of what the manifest says of the network; nothing where it says nothing. */
static int said_of_network(const fick_pipeline *p, const char *name, fick_json *value) {
  fick_json components, facts;
  return fick_json_member(p->manifest, "components", &components) &&
         fick_json_member(components, p->program->components[0].name, &facts) && fick_json_member(facts, name, value);
}

static fick_status fill_steps(const fick_pipeline *p, loop *l) {
  size_t item = p->step.dtype == FICK_INT64 ? 8 : 4, count = (size_t)p->step.size_bytes / item;
  for (int32_t i = 0; i < l->sampler->count; i++) {
    for (size_t j = 0; j < count; j++) {
      float given = l->sampler->steps[i];
      int64_t whole = (int64_t)rintf(given);
      if (item == 8 && (float)whole != given) {
        return fick_fail(FICK_ERROR_ARGUMENT,
                         "the model takes whole steps and the sampler gives %g; choose another", given);
      }
      if (item == 8) memcpy(l->steps + ((size_t)i * count + j) * item, &whole, item);
      else memcpy(l->steps + ((size_t)i * count + j) * item, &given, item);
    }
  }
  return FICK_OK;
}

static fick_status prepare(fick_pipeline *p, const fick_drawing *how, loop *l) {
  fick_json spec = {"{}", NULL}, value = {NULL, NULL};
  spec.end = spec.at + 2;
  if (fick_json_member(p->manifest, "sampler", &value) && *value.at == '{') spec = value;
  if (said_of_network(p, "residual", &value)) TRY(fick_residual_read(value, how->guidance, &l->residual));
  TRY(fick_sampler_create(spec, how->sampler, how->steps, &l->residual, p->elements, &l->sampler));
  size_t calls = (size_t)l->sampler->count;
  l->order = malloc(calls * sizeof *l->order);
  l->steps = malloc(calls * (size_t)p->step.size_bytes);
  TRY(fick_pipeline_first(p, how, l->sampler->count, &l->first));
  if (!l->order || !l->steps) return fick_fail(FICK_ERROR_MEMORY, "there is no memory for a loop of %zu calls", calls);
  if (!said_of_network(p, "schedules", &value)) value = (fick_json){NULL, NULL};
  TRY(fick_variants_order(value, p->models[FICK_NETWORK]->plan, l->sampler->count, l->order));
  l->order[l->first] = l->order[0]; /* which is whole, and leaves what others read */
  TRY(fill_steps(p, l));
  uint64_t skipped = (uint64_t)l->first * p->step.size_bytes;
  TRY(fick_prepare_steps(p->models[FICK_NETWORK], l->steps + skipped, calls * p->step.size_bytes - skipped,
                         l->sampler->count - l->first));
  return fick_begin(p->models[FICK_NETWORK], 1);
}

/* Guidance (Ho and Salimans, arXiv 2207.12598, eq. 6) of both halves of the output, into the first. Channels after
 * those of the sample are a variance that no sampler here asks for.
 */
static fick_status predict(fick_pipeline *p, const loop *l, int32_t index, float guidance) {
  fick_model *network = p->models[FICK_NETWORK];
  const fick_tensor *output = &network->plan->outputs[0].tensor;
  size_t half = (size_t)output->size_bytes / sizeof(float) / 2;
  fick_sampler_scale_input(l->sampler, p->x, index, p->seen);
  memcpy(p->seen + p->elements, p->seen, p->elements * sizeof *p->seen);
  TRY(fick_set_input(network, p->sample.name, p->seen, p->sample.size_bytes));
  TRY(fick_set_input(network, p->step.name, l->steps + (size_t)index * p->step.size_bytes, p->step.size_bytes));
  TRY(fick_set_input(network, p->prompt.name, p->prompt_value, p->prompt.size_bytes));
  TRY(fick_choose(network, l->order[index], 0));
  TRY(fick_run(network));
  TRY(fick_get_output(network, output->name, p->output, output->size_bytes));
  for (size_t i = 0; i < p->elements; i++) p->output[i] += guidance * (p->output[half + i] - p->output[i]);
  return FICK_OK;
}

static int stopped(fick_pipeline *p, int32_t done, int32_t total) {
  if (p->progress && p->progress((uint64_t)done, (uint64_t)total, p->user) != 0) atomic_store(&p->cancelled, 1);
  return atomic_load(&p->cancelled);
}

static fick_status decode(fick_pipeline *p, uint8_t *pixels) {
  fick_model *decoder = p->models[FICK_DECODER];
  TRY(fick_set_input(decoder, p->latent.name, p->x, p->latent.size_bytes));
  TRY(fick_run(decoder));
  TRY(fick_get_output(decoder, p->image.name, p->pixels, p->image.size_bytes));
  size_t plane = (size_t)(p->image.shape[2] * p->image.shape[3]);
  for (size_t i = 0; i < 3 * plane; i++) {
    float value = fminf(fmaxf(p->pixels[i % 3 * plane + i / 3], -1), 1);
    pixels[i] = (uint8_t)rintf((value + 1) * 127.5f);
  }
  return FICK_OK;
}

static fick_status denoise(fick_pipeline *p, const fick_drawing *how, loop *l) {
  fick_noise rng;
  fick_noise_seed(&rng, how->seed);
  TRY(fick_pipeline_start(p, how, l->sampler, &rng, l->first));
  int32_t total = l->sampler->count - l->first;
  for (int32_t i = 0; i < total; i++) {
    if (stopped(p, i, total)) return fick_fail(FICK_ERROR_CANCELLED, "the picture was cancelled");
    TRY(predict(p, l, l->first + i, how->guidance));
    fick_sampler_step(l->sampler, p->output, l->first + i, p->x, &rng);
  }
  stopped(p, total, total);
  return FICK_OK;
}

fick_status fick_pipeline_draw(fick_pipeline *p, const fick_drawing *how, uint8_t *pixels, uint64_t size_bytes) {
  if (!p || !how || !pixels) return fick_fail(FICK_ERROR_ARGUMENT, "fick_pipeline_draw: an argument is NULL");
  if (size_bytes != 3u * (uint64_t)(p->image.shape[2] * p->image.shape[3])) {
    return fick_fail(FICK_ERROR_ARGUMENT, "fick_pipeline_draw: %llu bytes are not those of a picture",
                     (unsigned long long)size_bytes);
  }
  if (!p->prompted) {
    return fick_fail(FICK_ERROR_STATE, "the pipeline does not know what to draw; give it a prompt or a class");
  }
  if (!isfinite(how->guidance)) return fick_fail(FICK_ERROR_ARGUMENT, "guidance must be a number");
  loop l = {{NULL, NULL, 0}, NULL, NULL, NULL, 0};
  atomic_store(&p->cancelled, 0);
  fick_status status = prepare(p, how, &l);
  if (status == FICK_OK) status = denoise(p, how, &l);
  if (status == FICK_OK) status = decode(p, pixels);
  fick_sampler_destroy(l.sampler);
  fick_residual_free(&l.residual);
  free(l.order);
  free(l.steps);
  return status;
}
