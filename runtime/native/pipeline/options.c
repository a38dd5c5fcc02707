/* options.c: reading a sampler's description; what cannot be honoured is refused (runtime/samplers/options.py). */
#include <string.h>

#include "parts.h"

int fick_option(fick_json spec, const char *name, fick_json *value) {
  return fick_json_member(spec, name, value) && !fick_json_is(*value, "null");
}

static fick_status unlike(const char *name, fick_json value, const char *like) {
  return fick_fail(FICK_ERROR_ARGUMENT, "%s of the sampler is %.*s; it must be like %s", name,
                   (int)(value.end - value.at < 64 ? value.end - value.at : 64), value.at, like);
}

fick_status fick_option_number(fick_json spec, const char *name, double *value) {
  fick_json given;
  if (!fick_option(spec, name, &given) || fick_json_number(given, value)) return FICK_OK;
  return unlike(name, given, "0.5");
}

fick_status fick_option_integer(fick_json spec, const char *name, int64_t *value) {
  fick_json given;
  double number;
  if (!fick_option(spec, name, &given)) return FICK_OK;
  int whole = !memchr(given.at, '.', (size_t)(given.end - given.at)) && fick_json_number(given, &number);
  if (!whole || number != (double)(int64_t)number || number > 1e9 || number < -1e9) return unlike(name, given, "1000");
  *value = (int64_t)number;
  return FICK_OK;
}

fick_status fick_option_flag(fick_json spec, const char *name, int *value) {
  fick_json given;
  if (!fick_option(spec, name, &given)) return FICK_OK;
  *value = fick_json_is(given, "true");
  return *value || fick_json_is(given, "false") ? FICK_OK : unlike(name, given, "true");
}

fick_status fick_option_text(fick_json spec, const char *name, char *value, size_t size) {
  fick_json given;
  if (!fick_option(spec, name, &given) || fick_json_string(given, value, size)) return FICK_OK;
  return unlike(name, given, "a word");
}

#define OFF "false\nnull"
#define PIXELS {"trained_betas", "null"}, {"thresholding", OFF}, {"rescale_betas_zero_snr", OFF}
#define SPACINGS {"use_karras_sigmas", OFF}, {"use_exponential_sigmas", OFF}, {"use_beta_sigmas", OFF}

/* Options of diffusers' schedulers that change the result, by sampler, with the values that are honoured, one a
 * line. */
static const struct {
  const char *kind;
  struct {
    const char *name, *values;
  } options[20];
} honoured[] = {
    {"ddim", {PIXELS}},
    {"ddpm", {PIXELS, {"variance_type", "\"fixed_small\"\n\"fixed_large\""}}},
    {"dpm-solver++",
     {PIXELS, SPACINGS, {"algorithm_type", "\"dpmsolver++\""}, {"solver_order", "2"}, {"solver_type", "\"midpoint\""},
      {"final_sigmas_type", "\"zero\"\n\"sigma_min\""}, {"euler_at_final", OFF}, {"use_lu_lambdas", OFF},
      {"use_flow_sigmas", OFF}, {"lambda_min_clipped", "null"}, {"variance_type", "null"}}},
    {"euler",
     {PIXELS, SPACINGS, {"final_sigmas_type", "\"zero\""}, {"interpolation_type", "\"linear\""},
      {"timestep_type", "\"discrete\""}}},
    {"euler-ancestral", {{"trained_betas", "null"}, {"rescale_betas_zero_snr", OFF}}},
    {"plms", {{"trained_betas", "null"}, {"skip_prk_steps", "true"}}},
};

static int is_one_of(fick_json value, const char *values) {
  size_t size = (size_t)(value.end - value.at);
  for (const char *at = values; at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL) {
    if (strcspn(at, "\n") == size && memcmp(at, value.at, size) == 0) return 1;
  }
  return 0;
}

fick_status fick_options_honoured(const char *kind, fick_json spec) {
  for (size_t i = 0; i < sizeof honoured / sizeof *honoured; i++) {
    for (int j = 0; strcmp(honoured[i].kind, kind) == 0 && j < 20 && honoured[i].options[j].name; j++) {
      const char *name = honoured[i].options[j].name;
      fick_json value;
      if (!fick_json_member(spec, name, &value) || is_one_of(value, honoured[i].options[j].values)) continue;
      return fick_fail(FICK_ERROR_ARGUMENT, "%s of the sampler %s is %.*s, which it does not do", name, kind,
                       (int)(value.end - value.at < 64 ? value.end - value.at : 64), value.at);
    }
  }
  return FICK_OK;
}
