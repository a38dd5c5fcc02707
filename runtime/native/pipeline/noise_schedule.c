/* noise_schedule.c: constants of the forward process, in the conventions of published checkpoints
 * (runtime/samplers/noise_schedule.py).
 *
 * x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise (Ho et al., arXiv 2006.11239, eq. 4).
 */
#include <math.h>
#include <string.h>

#include "parts.h"

#define MOST_TIMESTEPS 100000
#define PI 3.141592653589793

fick_status fick_schedule_read(fick_json spec, fick_noise_schedule *s) {
  static const char *const predictions[] = {"epsilon", "v_prediction", "sample"};
  TRY(fick_option_integer(spec, "num_train_timesteps", &s->train_timesteps));
  TRY(fick_option_number(spec, "beta_start", &s->beta_start));
  TRY(fick_option_number(spec, "beta_end", &s->beta_end));
  TRY(fick_option_text(spec, "beta_schedule", s->beta_schedule, sizeof s->beta_schedule));
  TRY(fick_option_text(spec, "prediction_type", s->prediction_type, sizeof s->prediction_type));
  TRY(fick_option_text(spec, "timestep_spacing", s->spacing, sizeof s->spacing));
  TRY(fick_option_integer(spec, "steps_offset", &s->steps_offset));
  TRY(fick_option_flag(spec, "set_alpha_to_one", &s->alpha_one));
  TRY(fick_option_flag(spec, "clip_sample", &s->clip));
  TRY(fick_option_number(spec, "clip_sample_range", &s->clip_range));
  if (s->train_timesteps < 1 || s->train_timesteps > MOST_TIMESTEPS) {
    return fick_fail(FICK_ERROR_ARGUMENT, "%lld training timesteps are not 1 to %d", (long long)s->train_timesteps,
                     MOST_TIMESTEPS);
  }
  if (!(s->clip_range > 0) || !isfinite(s->clip_range)) {
    return fick_fail(FICK_ERROR_ARGUMENT, "clip_sample_range is %g; it must be a positive number", s->clip_range);
  }
  int known = 0;
  for (int i = 0; i < 3; i++) {
    if (strcmp(predictions[i], s->prediction_type) != 0) continue;
    s->prediction = (fick_prediction)i;
    known = 1;
  }
  if (!known) {
    return fick_fail(FICK_ERROR_ARGUMENT, "prediction type %s is none of epsilon, v_prediction, sample",
                     s->prediction_type);
  }
  if (strcmp(s->spacing, "leading") != 0 && strcmp(s->spacing, "trailing") != 0 &&
      strcmp(s->spacing, "linspace") != 0) {
    return fick_fail(FICK_ERROR_ARGUMENT, "timestep spacing %s is none of leading, trailing, linspace", s->spacing);
  }
  if (!(0 < s->beta_start && s->beta_start <= s->beta_end && s->beta_end < 1)) {
    return fick_fail(FICK_ERROR_ARGUMENT, "betas from %g to %g do not rise within 0 and 1", s->beta_start, s->beta_end);
  }
  return FICK_OK;
}

static double spaced(double start, double stop, int64_t count, int64_t index) {
  if (count > 1 && index == count - 1) return stop;
  return start + (count > 1 ? (stop - start) / (double)(count - 1) * (double)index : 0);
}

static double cosine(int64_t index, int64_t count) {
  double root = cos(((double)index / (double)count + 0.008) / 1.008 * PI / 2);
  return root * root;
}

/* In float32 steps, as the tables that published models were trained on. */
fick_status fick_schedule_alphas(const fick_noise_schedule *s, double *abar) {
  int64_t count = s->train_timesteps;
  float product = 1;
  for (int64_t i = 0; i < count; i++) {
    double beta;
    if (strcmp(s->beta_schedule, "linear") == 0) {
      beta = spaced(s->beta_start, s->beta_end, count, i);
    } else if (strcmp(s->beta_schedule, "scaled_linear") == 0) {
      double root = (double)(float)spaced(sqrt(s->beta_start), sqrt(s->beta_end), count, i);
      beta = root * root;
    } else if (strcmp(s->beta_schedule, "squaredcos_cap_v2") == 0) {
      /* Nichol and Dhariwal, arXiv 2102.09672, eq. 17 */
      beta = fmin(1 - cosine(i + 1, count) / cosine(i, count), 0.999);
    } else {
      return fick_fail(FICK_ERROR_ARGUMENT, "beta schedule %s is none of linear, scaled_linear, squaredcos_cap_v2",
                       s->beta_schedule);
    }
    product *= 1.0f - (float)beta;
    abar[i] = (double)product;
  }
  return FICK_OK;
}

fick_status fick_schedule_timesteps(const fick_noise_schedule *s, int64_t count, double *timesteps) {
  int64_t total = s->train_timesteps;
  if (count < 1 || count > total) {
    return fick_fail(FICK_ERROR_ARGUMENT, "%lld steps are not possible; give 1 to %lld", (long long)count,
                     (long long)total);
  }
  for (int64_t i = 0; i < count; i++) {
    if (strcmp(s->spacing, "linspace") == 0) {
      timesteps[i] = rint(spaced(0, (double)(total - 1), count, count - 1 - i));
    } else if (strcmp(s->spacing, "leading") == 0) {
      timesteps[i] = (double)((count - 1 - i) * (total / count) + s->steps_offset);
    } else {
      timesteps[i] = rint((double)total - (double)i * ((double)total / (double)count)) - 1;
    }
  }
  if (timesteps[0] >= (double)total || timesteps[count - 1] < 0) {
    return fick_fail(FICK_ERROR_ARGUMENT, "%lld steps at an offset of %lld leave the %lld timesteps trained on",
                     (long long)count, (long long)s->steps_offset, (long long)total);
  }
  return FICK_OK;
}

double fick_schedule_clean(const fick_noise_schedule *s, double output, double x, double abar) {
  double clean = output;
  if (s->prediction == FICK_EPSILON) clean = (x - sqrt(1 - abar) * output) / sqrt(abar);
  /* Salimans and Ho, arXiv 2202.00512, appendix D */
  if (s->prediction == FICK_VELOCITY) clean = sqrt(abar) * x - sqrt(1 - abar) * output;
  return s->clip ? fmin(fmax(clean, -s->clip_range), s->clip_range) : clean;
}

double fick_schedule_noise(const fick_noise_schedule *s, double output, double x, double abar) {
  if (s->prediction == FICK_EPSILON) return output;
  if (s->prediction == FICK_VELOCITY) return sqrt(abar) * output + sqrt(1 - abar) * x;
  return (x - sqrt(abar) * output) / sqrt(1 - abar);
}

void fick_schedule_slopes(const fick_noise_schedule *s, double clean, double abar, double *of_clean, double *of_noise) {
  double kept = sqrt(abar), lost = sqrt(1 - abar);
  *of_clean = s->prediction == FICK_EPSILON ? -lost / kept : s->prediction == FICK_VELOCITY ? -lost : 1;
  *of_noise = s->prediction == FICK_EPSILON ? 1 : s->prediction == FICK_VELOCITY ? kept : -kept / lost;
  if (s->clip && !(fabs(clean) < s->clip_range)) *of_clean = 0;
}
