/* start.c: where a loop starts that a picture is given to (Meng et al., arXiv 2108.01073; latent_diffusion.py). */
#include <stdlib.h>
#include <string.h>

#include "parts.h"

/* A latent of the picture as the autoencoder has it: one drawn from what it says of the mean and the deviation. */
static fick_status encode(fick_pipeline *p, const uint8_t *pixels, fick_noise *rng) {
  fick_model *encoder = p->models[FICK_PICTURES];
  const fick_slot *in = encoder->plan->inputs, *out = encoder->plan->outputs;
  size_t plane = (size_t)(p->image.shape[2] * p->image.shape[3]);
  for (size_t i = 0; i < 3 * plane; i++) p->pixels[i % 3 * plane + i / 3] = (float)pixels[i] / 127.5f - 1;
  TRY(fick_set_input(encoder, in->tensor.name, p->pixels, in->tensor.size_bytes));
  TRY(fick_run(encoder));
  TRY(fick_get_output(encoder, out[0].tensor.name, p->seen, out[0].tensor.size_bytes));
  TRY(fick_get_output(encoder, out[1].tensor.name, p->seen + p->elements, out[1].tensor.size_bytes));
  fick_noise_draw(rng, p->x, p->elements);
  for (size_t i = 0; i < p->elements; i++) p->x[i] = p->seen[i] + p->seen[p->elements + i] * p->x[i];
  return FICK_OK;
}

fick_status fick_pipeline_start(fick_pipeline *p, const fick_drawing *how, const fick_sampler *sampler, fick_noise *rng,
                                int32_t first) {
  if (!how->init) {
    fick_noise_draw(rng, p->x, p->elements);
    fick_sampler_initial(sampler, p->x);
    return FICK_OK;
  }
  TRY(encode(p, how->init, rng));
  float *noise = malloc(fick_noise_room(p->elements) * sizeof *noise);
  if (!noise) return fick_fail(FICK_ERROR_MEMORY, "there is no memory for a picture's noise");
  fick_noise_draw(rng, noise, p->elements);
  fick_sampler_noised(sampler, p->x, noise, first);
  free(noise);
  return FICK_OK;
}

fick_status fick_pipeline_first(const fick_pipeline *p, const fick_drawing *how, int32_t total, int32_t *first) {
  *first = 0;
  if (!how->init) return FICK_OK;
  if (!p->models[FICK_PICTURES]) {
    return fick_fail(FICK_ERROR_STATE, "the pipeline was opened to draw from noise alone; open it to take pictures");
  }
  *first = how->strength >= 0 && how->strength <= 1 ? total - (int32_t)(total * how->strength) : total;
  if (*first < total) return FICK_OK;
  return fick_fail(FICK_ERROR_ARGUMENT, "strength %g of %d steps leaves none to run; give more, up to 1", how->strength,
                   total);
}
