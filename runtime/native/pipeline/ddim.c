/* ddim.c: denoising diffusion implicit models (Song et al., arXiv 2010.02502, eq. 12 and 16). */
#include <math.h>

#include "parts.h"

static fick_status prepare(fick_sampler *s, fick_json spec, int32_t count) {
  TRY(fick_option_number(spec, "eta", &s->eta));
  if (!(s->eta >= 0 && s->eta <= 1)) {
    return fick_fail(FICK_ERROR_ARGUMENT, "eta of the sampler is %g; it must be within 0 and 1", s->eta);
  }
  TRY(fick_sampler_room(s, count));
  s->stride = (double)(s->schedule.train_timesteps / count);
  return fick_schedule_timesteps(&s->schedule, count, s->timesteps);
}

static void step(fick_sampler *s, const float *output, int32_t index, float *x, fick_noise *rng) {
  double before = s->timesteps[index] - s->stride, last = s->schedule.alpha_one ? 1 : s->abar[0];
  double abar = s->abar[(int64_t)s->timesteps[index]], abar_before = before >= 0 ? s->abar[(int64_t)before] : last;
  double variance = (1 - abar_before) / (1 - abar) * (1 - abar / abar_before);
  double deviation = s->eta * sqrt(fmax(variance, 0));
  double of_noise = sqrt(fmax(1 - abar_before - deviation * deviation, 0)), kept = sqrt(abar_before);
  double off = fick_residual_deviation(s->residual, s->timesteps[index]), of_clean, slope;
  if (s->eta > 0) fick_noise_draw(rng, s->drawn, s->elements);
  for (size_t i = 0; i < s->elements; i++) {
    double clean = fick_schedule_clean(&s->schedule, output[i], x[i], abar);
    double result = kept * clean + of_noise * fick_schedule_noise(&s->schedule, output[i], x[i], abar);
    if (s->eta > 0) {
      fick_schedule_slopes(&s->schedule, clean, abar, &of_clean, &slope);
      result += fick_residual_left(off, deviation, kept * of_clean + of_noise * slope) * s->drawn[i];
    }
    x[i] = (float)result;
  }
}

const fick_sampler_kind fick_ddim = {
    "ddim", {1000, 0, 0.0001, 0.02, 1, "linear", "epsilon", "leading", FICK_EPSILON, 1, 1}, prepare, step, 0};
