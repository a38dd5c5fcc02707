/* consistency.c: multistep sampling of a consistency model (Song et al., arXiv 2303.01469, algorithm 1). */
#include <math.h>

#include "parts.h"

#define MOST_LEVELS 100000

static int rising_or_low(const fick_sampler *s) {
  for (int32_t i = 0; i < s->count; i++) {
    if (!isfinite(s->sigmas[i]) || !(s->sigmas[i] >= s->sigma_min)) return 1;
    if (i && !(s->sigmas[i] < s->sigmas[i - 1])) return 1;
  }
  return !(s->sigma_min >= 0);
}

static fick_status prepare(fick_sampler *s, fick_json spec, int32_t count) {
  fick_json list, rest, value;
  int32_t given = 0;
  double first = 80;
  s->sigma_min = 0.002;
  TRY(fick_option_number(spec, "sigma_min", &s->sigma_min));
  int listed = fick_option(spec, "sigmas", &list);
  for (rest = list; listed && fick_json_next(&rest, NULL, &value); given++) {
    double level;
    if (!fick_json_number(value, &level) || given == MOST_LEVELS) {
      return fick_fail(FICK_ERROR_ARGUMENT, "sigmas of the sampler must be a list of noise levels");
    }
    if (!given) first = level;
  }
  int32_t calls = count ? count : given ? given : 1;
  TRY(fick_sampler_room(s, calls));
  if (given == calls) {
    rest = list;
    for (int32_t i = 0; fick_json_next(&rest, NULL, &value); i++) fick_json_number(value, &s->sigmas[i]);
  } else {
    /* From the first level down by equal factors, ending well above the least. */
    double ratio = count ? pow(first / fmax(s->sigma_min, first / 200), 1 / (double)calls) : 1;
    for (int32_t i = 0; i < calls; i++) s->sigmas[i] = first / pow(ratio, i);
  }
  if (rising_or_low(s)) {
    return fick_fail(FICK_ERROR_ARGUMENT, "the sampler's noise levels are not a falling list that ends above %g",
                     s->sigma_min);
  }
  for (int32_t i = 0; i < calls; i++) s->timesteps[i] = s->sigmas[i];
  return FICK_OK;
}

static void step(fick_sampler *s, const float *output, int32_t index, float *x, fick_noise *rng) {
  double added = 0;
  if (index + 1 < s->count) {
    added = sqrt(s->sigmas[index + 1] * s->sigmas[index + 1] - s->sigma_min * s->sigma_min);
    added = fick_residual_left(fick_residual_deviation(s->residual, (double)s->steps[index]), added, 1);
    fick_noise_draw(rng, s->drawn, s->elements);
  }
  for (size_t i = 0; i < s->elements; i++) x[i] = (float)(output[i] + (index + 1 < s->count ? added * s->drawn[i] : 0));
}

const fick_sampler_kind fick_consistency = {
    "consistency", {1000, 0, 0.0001, 0.02, 1, "linear", "epsilon", "leading", FICK_EPSILON, 1, 0}, prepare, step, 0};
