/* plms.c: pseudo linear multistep sampling (Liu et al., arXiv 2202.09778, eq. 9, 11, 12), without Runge-Kutta.
 *
 * The second timestep is visited twice: its first, one-step guess is corrected as by Heun's rule.
 */
#include <math.h>
#include <string.h>

#include "parts.h"

enum { OUTPUTS = 4 };

/* Adams-Bashforth weights by order, newest output first. */
static const double weights[OUTPUTS][OUTPUTS] = {
    {1}, {3 / 2., -1 / 2.}, {23 / 12., -16 / 12., 5 / 12.}, {55 / 24., -59 / 24., 37 / 24., -9 / 24.}};

static fick_status prepare(fick_sampler *s, fick_json spec, int32_t count) {
  (void)spec;
  int32_t calls = count < 2 ? count : count + 1; /* with one step there is nothing to correct */
  TRY(fick_sampler_room(s, calls));
  TRY(fick_schedule_timesteps(&s->schedule, count, s->timesteps));
  s->stride = (double)(s->schedule.train_timesteps / count);
  s->schedule.clip = 0;
  for (int32_t i = calls - 1; i > 1; i--) s->timesteps[i] = s->timesteps[i - 1];
  return FICK_OK;
}

static double moved(const fick_sampler *s, double x, double timestep, double before, double output) {
  double last = s->schedule.alpha_one ? 1 : s->abar[0];
  timestep = fmin(timestep, (double)(s->schedule.train_timesteps - 1));
  double abar = s->abar[(int64_t)timestep], abar_before = before >= 0 ? s->abar[(int64_t)before] : last;
  double noise = fick_schedule_noise(&s->schedule, output, x, abar);
  double scale = abar * sqrt(1 - abar_before) + sqrt(abar * (1 - abar) * abar_before);
  return sqrt(abar_before / abar) * x - (abar_before - abar) / scale * noise;
}

static void step(fick_sampler *s, const float *output, int32_t index, float *x, fick_noise *rng) {
  size_t n = s->elements;
  double timestep = s->timesteps[index], before = timestep - s->stride, *start = s->history + OUTPUTS * n;
  (void)rng;
  if (index == 1 && !s->looked_back) return; /* a loop that starts here has nothing to correct */
  if (index == 1) {
    before = timestep;
    timestep += s->stride;
    for (size_t i = 0; i < n; i++) {
      x[i] = (float)moved(s, start[i], timestep, before, (double)(float)((output[i] + s->history[i]) / 2));
    }
    return;
  }
  s->looked_back = index ? (s->looked_back < OUTPUTS ? s->looked_back + 1 : OUTPUTS) : 1;
  memmove(s->history + n, s->history, (OUTPUTS - 1) * n * sizeof *s->history);
  for (size_t i = 0; i < n; i++) {
    double combined = 0;
    s->history[i] = output[i];
    if (!index) start[i] = x[i];
    for (int32_t j = 0; j < s->looked_back; j++) {
      combined += weights[s->looked_back - 1][j] * s->history[(size_t)j * n + i];
    }
    x[i] = (float)moved(s, x[i], timestep, before, (double)(float)combined);
  }
}

const fick_sampler_kind fick_plms = {
    "plms", {1000, 0, 0.0001, 0.02, 1, "linear", "epsilon", "leading", FICK_EPSILON, 0, 0}, prepare, step, 0};
