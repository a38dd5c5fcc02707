/* ddpm.c: ancestral sampling (Ho et al., arXiv 2006.11239, eq. 6 and 7), on all or some of the timesteps. */
#include <math.h>
#include <string.h>

#include "parts.h"

#define LEAST_VARIANCE 1e-20

static fick_status prepare(fick_sampler *s, fick_json spec, int32_t count) {
  char variance[32] = "fixed_small";
  TRY(fick_option_text(spec, "variance_type", variance, sizeof variance));
  s->large_variance = strcmp(variance, "fixed_large") == 0;
  TRY(fick_sampler_room(s, count));
  return fick_schedule_timesteps(&s->schedule, count, s->timesteps);
}

static void step(fick_sampler *s, const float *output, int32_t index, float *x, fick_noise *rng) {
  int64_t timestep = (int64_t)s->timesteps[index];
  double abar = s->abar[timestep], abar_before = 1;
  if (index + 1 < s->count) abar_before = s->abar[(int64_t)s->timesteps[index + 1]];
  double alpha = abar / abar_before, of_clean = sqrt(abar_before) * (1 - alpha) / (1 - abar);
  double of_x = sqrt(alpha) * (1 - abar_before) / (1 - abar);
  double variance = s->large_variance ? 1 - alpha : (1 - abar_before) / (1 - abar) * (1 - alpha);
  double deviation = sqrt(fmax(variance, LEAST_VARIANCE)), off = fick_residual_deviation(s->residual, (double)timestep);
  if (timestep) fick_noise_draw(rng, s->drawn, s->elements);
  for (size_t i = 0; i < s->elements; i++) {
    double clean = fick_schedule_clean(&s->schedule, output[i], x[i], abar), slope, unused;
    double result = of_clean * clean + of_x * x[i];
    if (timestep) {
      fick_schedule_slopes(&s->schedule, clean, abar, &slope, &unused);
      result += fick_residual_left(off, deviation, of_clean * slope) * s->drawn[i];
    }
    x[i] = (float)result;
  }
}

const fick_sampler_kind fick_ddpm = {
    "ddpm", {1000, 0, 0.0001, 0.02, 1, "linear", "epsilon", "leading", FICK_EPSILON, 1, 1}, prepare, step, 0};
