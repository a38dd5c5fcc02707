/* euler.c: Euler's method on the probability-flow equation (Karras et al., arXiv 2206.00364, algorithm 1), and with
 * noise: beyond the next level t, to t^2 / s, and back up (Ho et al., arXiv 2006.11239, eq. 7, for variance 1 + s^2).
 */
#include <math.h>
#include <string.h>

#include "parts.h"

static fick_status prepare(fick_sampler *s, fick_json spec, int32_t count) {
  int64_t total = s->schedule.train_timesteps;
  (void)spec;
  TRY(fick_sampler_room(s, count));
  TRY(fick_schedule_timesteps(&s->schedule, count, s->timesteps)); /* refuses an impossible count */
  s->schedule.clip = 0;
  for (int32_t i = 0; i < count; i++) {
    if (strcmp(s->schedule.spacing, "linspace") == 0) {
      int32_t back = count - 1 - i;
      s->timesteps[i] = count > 1 && !i ? (double)(total - 1)
                        : count > 1     ? (double)(total - 1) / (double)(count - 1) * (double)back
                                        : 0;
    }
    /* Levels lie on straight lines between those of whole timesteps. */
    int64_t low = (int64_t)s->timesteps[i], high = low + 1 < total ? low + 1 : low;
    double left = sqrt((1 - s->abar[low]) / s->abar[low]), right = sqrt((1 - s->abar[high]) / s->abar[high]);
    s->sigmas[i] = (right - left) * (s->timesteps[i] - (double)low) + left;
  }
  s->sigmas[count] = 0;
  return FICK_OK;
}

/* Along the flow from level sigma to `after`. */
static double towards(const fick_sampler *s, double after, double output, double x, double sigma) {
  double abar = 1 / (sigma * sigma + 1);
  double clean = fick_schedule_clean(&s->schedule, output, x * sqrt(abar), abar);
  return x + (x - clean) / sigma * (after - sigma);
}

static void step(fick_sampler *s, const float *output, int32_t index, float *x, fick_noise *rng) {
  (void)rng;
  for (size_t i = 0; i < s->elements; i++) {
    x[i] = (float)towards(s, s->sigmas[index + 1], output[i], x[i], s->sigmas[index]);
  }
}

static void ancestral(fick_sampler *s, const float *output, int32_t index, float *x, fick_noise *rng) {
  double sigma = s->sigmas[index], after = s->sigmas[index + 1], below = after * after / sigma, slope, unused;
  fick_schedule_slopes(&s->schedule, 0, 1 / (sigma * sigma + 1), &slope, &unused);
  double off = fick_residual_deviation(s->residual, (double)s->steps[index]);
  double added = fick_residual_left(off, sqrt(after * after - below * below), slope * (sigma - below) / sigma);
  fick_noise_draw(rng, s->drawn, s->elements);
  for (size_t i = 0; i < s->elements; i++) {
    x[i] = (float)(towards(s, below, output[i], x[i], sigma) + added * s->drawn[i]);
  }
}

#define DEFAULTS {1000, 0, 0.0001, 0.02, 1, "linear", "epsilon", "linspace", FICK_EPSILON, 1, 0}
const fick_sampler_kind fick_euler = {"euler", DEFAULTS, prepare, step, 1};
const fick_sampler_kind fick_euler_ancestral = {"euler-ancestral", DEFAULTS, prepare, ancestral, 1};
