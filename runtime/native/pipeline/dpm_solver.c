/* dpm_solver.c: DPM-Solver++(2M), second-order multistep (Lu et al., arXiv 2211.01095, algorithm 2). */
#include <math.h>
#include <string.h>

#include "parts.h"

#define FEW_STEPS 15 /* below this many the last one is of first order, as diffusers does it */

/* As other samplers, except that the end of the range is not a step of its own. */
static fick_status spread(fick_sampler *s, int32_t count) {
  int64_t total = s->schedule.train_timesteps;
  if (strcmp(s->schedule.spacing, "trailing") == 0) return fick_schedule_timesteps(&s->schedule, count, s->timesteps);
  TRY(fick_schedule_timesteps(&s->schedule, count + 1, s->timesteps)); /* refuses an impossible count */
  if (strcmp(s->schedule.spacing, "linspace") != 0) return FICK_OK;
  for (int32_t i = 0; i < count; i++) {
    s->timesteps[i] = i ? rint((double)(total - 1) / (double)count * (double)(count - i)) : (double)(total - 1);
  }
  return FICK_OK;
}

static fick_status prepare(fick_sampler *s, fick_json spec, int32_t count) {
  char final[32] = "zero";
  int lower = 1;
  TRY(fick_option_text(spec, "final_sigmas_type", final, sizeof final));
  TRY(fick_option_flag(spec, "lower_order_final", &lower));
  TRY(fick_sampler_room(s, count));
  TRY(spread(s, count));
  s->schedule.clip = 0;
  for (int32_t i = 0; i < count; i++) {
    double abar = s->abar[(int64_t)s->timesteps[i]];
    s->sigmas[i] = sqrt((1 - abar) / abar);
  }
  int zero = strcmp(final, "zero") == 0;
  s->sigmas[count] = zero ? 0 : sqrt((1 - s->abar[0]) / s->abar[0]);
  s->first_order_last = zero || (lower && count < FEW_STEPS);
  return FICK_OK;
}

static void step(fick_sampler *s, const float *output, int32_t index, float *x, fick_noise *rng) {
  double sigma = s->sigmas[index], after = s->sigmas[index + 1];
  double alpha = 1 / sqrt(sigma * sigma + 1), alpha_after = 1 / sqrt(after * after + 1), decay = after / sigma,
         ratio = 0;
  (void)rng;
  if (index && s->looked_back && !(index + 1 == s->count && s->first_order_last)) {
    /* lambda = log(alpha / sigma_t) = -log(sigma) in terms of the noise level sigma */
    ratio = (log(sigma) - log(after)) / (2 * (log(s->sigmas[index - 1]) - log(sigma)));
  }
  s->looked_back = 1;
  for (size_t i = 0; i < s->elements; i++) {
    double clean = fick_schedule_clean(&s->schedule, output[i], x[i], alpha * alpha);
    double target = clean + (ratio != 0 ? ratio * (clean - s->history[i]) : 0);
    s->history[i] = clean;
    x[i] = (float)(decay * alpha_after / alpha * x[i] + alpha_after * (1 - decay) * target);
  }
}

const fick_sampler_kind fick_dpm_solver = {
    "dpm-solver++", {1000, 0, 0.0001, 0.02, 1, "linear", "epsilon", "linspace", FICK_EPSILON, 1, 0}, prepare, step, 0};
