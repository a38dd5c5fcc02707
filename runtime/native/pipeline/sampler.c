/* sampler.c: a sampler from its description (runtime/samplers/__init__.py), and what all have in common. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "parts.h"

enum { DEFAULT_STEPS = 20, SAMPLES_KEPT = 5 };

static const fick_sampler_kind *const kinds[] = {&fick_consistency, &fick_ddim,            &fick_ddpm, &fick_dpm_solver,
                                                 &fick_euler,       &fick_euler_ancestral, &fick_plms};

static const struct {
  const char *theirs, *ours;
} diffusers_classes[] = {
    {"DDIMScheduler", "ddim"},
    {"DDPMScheduler", "ddpm"},
    {"DPMSolverMultistepScheduler", "dpm-solver++"},
    {"EulerAncestralDiscreteScheduler", "euler-ancestral"},
    {"EulerDiscreteScheduler", "euler"},
    {"PNDMScheduler", "plms"},
};

static fick_status of_diffusers(fick_json *spec, char kind[32]) {
  char name[64] = "";
  fick_json config, value;
  if (!fick_option(*spec, "config", &config) || *config.at != '{') {
    return fick_fail(FICK_ERROR_ARGUMENT,
                     "a sampler of kind diffusers needs what a scheduler_config.json holds as config");
  }
  TRY(fick_option_text(config, "_class_name", name, sizeof name));
  for (size_t i = 0; i < sizeof diffusers_classes / sizeof *diffusers_classes; i++) {
    if (strcmp(diffusers_classes[i].theirs, name) != 0) continue;
    /* Runge-Kutta is what this class does by default, and what plms here does not. */
    if (strcmp(name, "PNDMScheduler") == 0 && !fick_json_member(config, "skip_prk_steps", &value)) {
      return fick_fail(FICK_ERROR_ARGUMENT, "skip_prk_steps of the sampler plms is false; supported is true");
    }
    strcpy(kind, diffusers_classes[i].ours);
    *spec = config;
    return FICK_OK;
  }
  return fick_fail(FICK_ERROR_ARGUMENT, "the scheduler %s is not known; name another sampler", name);
}

fick_status fick_sampler_create(fick_json spec, const char *name, int32_t steps, const fick_residual *residual,
                                size_t elements, fick_sampler **sampler) {
  char kind[32] = "";
  fick_json config;
  *sampler = NULL;
  if (steps < 0 || steps > 1000000) {
    return fick_fail(FICK_ERROR_ARGUMENT, "%d steps are not possible; give a whole number, 1 or more", steps);
  }
  if (name) {
    if (fick_option(spec, "config", &config) && *config.at == '{') spec = config;
    if (strlen(name) < sizeof kind) strcpy(kind, name);
  } else {
    TRY(fick_option_text(spec, "kind", kind, sizeof kind));
    if (strcmp(kind, "diffusers") == 0) TRY(of_diffusers(&spec, kind));
  }
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    if (strcmp(kinds[i]->name, kind) != 0) continue;
    TRY(fick_options_honoured(kind, spec));
    fick_sampler *made = calloc(1, sizeof *made);
    if (!made) return fick_fail(FICK_ERROR_MEMORY, "there is no memory for a sampler");
    *made = (fick_sampler){
        .kind = kinds[i], .schedule = kinds[i]->defaults, .residual = residual, .elements = elements};
    int consistency = kinds[i] == &fick_consistency;
    fick_status status = consistency ? FICK_OK : fick_schedule_read(spec, &made->schedule);
    if (status == FICK_OK) status = made->kind->prepare(made, spec, steps || consistency ? steps : DEFAULT_STEPS);
    for (int32_t j = 0; status == FICK_OK && j < made->count; j++) made->steps[j] = (float)made->timesteps[j];
    if (status == FICK_OK) *sampler = made;
    else fick_sampler_destroy(made);
    return status;
  }
  return fick_fail(FICK_ERROR_ARGUMENT,
                   "sampler %s is not known; the samplers are consistency, ddim, ddpm, dpm-solver++, euler, "
                   "euler-ancestral, plms", name ? name : *kind ? kind : "of the bundle");
}

/* All memory of a sampler, and the forward process, for so many calls. */
fick_status fick_sampler_room(fick_sampler *s, int64_t count) {
  if (count < 1 || count > 1000001) {
    return fick_fail(FICK_ERROR_ARGUMENT, "%lld steps are not possible; give 1 or more", (long long)count);
  }
  size_t calls = (size_t)count + 1;
  s->count = (int32_t)count;
  s->steps = calloc(calls, sizeof *s->steps);
  s->timesteps = calloc(calls, sizeof *s->timesteps);
  s->sigmas = calloc(calls, sizeof *s->sigmas);
  s->abar = calloc((size_t)s->schedule.train_timesteps, sizeof *s->abar);
  s->history = calloc(SAMPLES_KEPT * s->elements, sizeof *s->history);
  s->drawn = calloc(fick_noise_room(s->elements), sizeof *s->drawn);
  if (!s->steps || !s->timesteps || !s->sigmas || !s->abar || !s->history || !s->drawn) {
    return fick_fail(FICK_ERROR_MEMORY, "there is no memory for a loop of %lld steps", (long long)count);
  }
  return fick_schedule_alphas(&s->schedule, s->abar);
}

void fick_sampler_destroy(fick_sampler *s) {
  if (!s) return;
  free(s->steps);
  free(s->timesteps);
  free(s->sigmas);
  free(s->abar);
  free(s->history);
  free(s->drawn);
  free(s);
}

void fick_sampler_initial(const fick_sampler *s, float *x) {
  double scale = 1;
  if (s->kind == &fick_consistency) scale = s->sigmas[0];
  if (s->kind->by_sigma) {
    double top = 0;
    for (int32_t i = 0; i < s->count; i++) top = fmax(top, s->sigmas[i]);
    scale = strcmp(s->schedule.spacing, "leading") == 0 ? sqrt(top * top + 1) : top;
  }
  for (size_t i = 0; i < s->elements; i++) x[i] = (float)(x[i] * scale);
}

void fick_sampler_noised(const fick_sampler *s, float *clean, const float *noise, int32_t index) {
  double sigma = s->sigmas[index], kept = 1, added = sigma;
  if (s->kind == &fick_consistency) {
    added = sqrt(sigma * sigma - s->sigma_min * s->sigma_min);
  } else if (!s->kind->by_sigma) {
    double abar = s->kind == &fick_dpm_solver ? 1 / (sigma * sigma + 1) : s->abar[(int64_t)s->timesteps[index]];
    kept = sqrt(abar);
    added = sqrt(1 - abar);
  }
  for (size_t i = 0; i < s->elements; i++) clean[i] = (float)(kept * clean[i] + added * noise[i]);
}

void fick_sampler_scale_input(const fick_sampler *s, const float *x, int32_t index, float *seen) {
  double scale = s->kind->by_sigma ? sqrt(s->sigmas[index] * s->sigmas[index] + 1) : 1;
  for (size_t i = 0; i < s->elements; i++) seen[i] = (float)(x[i] / scale);
}

const float *fick_sampler_steps(const fick_sampler *s, int32_t *count) {
  *count = s->count;
  return s->steps;
}

void fick_sampler_step(fick_sampler *s, const float *output, int32_t index, float *x, fick_noise *rng) {
  s->kind->step(s, output, index, x, rng);
}
