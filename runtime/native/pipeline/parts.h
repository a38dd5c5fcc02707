/* parts.h: what the files of the pipeline share. */
#ifndef FICK_PARTS_H
#define FICK_PARTS_H

#include "../internal.h"
#include "fick_pipeline.h"

#define TRY(call)                            \
  do {                                       \
    fick_status tried = (call);              \
    if (tried != FICK_OK) return tried;      \
  } while (0)

/* loader.c: the bundle's library in memory, without the system's dynamic linker. */
typedef struct {
  uint8_t *image;
  size_t bytes;
} fick_library;
fick_status fick_library_load(const uint8_t *data, uint64_t size, fick_library *library, const fick_program **program);
void fick_library_unload(fick_library *library);

/* noise.c: the stream of normal numbers that runtime/noise.py and torch draw. */
typedef struct {
  uint32_t state[624];
  int32_t next;
} fick_noise;
void fick_noise_seed(fick_noise *noise, uint64_t seed);
/* values has room for fick_noise_room(count), of which the first count are meant. */
size_t fick_noise_room(size_t count);
void fick_noise_draw(fick_noise *noise, float *values, size_t count);

/* options.c: fields of a sampler's description. Absent or null: the default stays. */
int fick_option(fick_json spec, const char *name, fick_json *value);
fick_status fick_option_number(fick_json spec, const char *name, double *value);
fick_status fick_option_integer(fick_json spec, const char *name, int64_t *value);
fick_status fick_option_flag(fick_json spec, const char *name, int *value);
fick_status fick_option_text(fick_json spec, const char *name, char *value, size_t size);
fick_status fick_options_honoured(const char *kind, fick_json spec);

/* noise_schedule.c: the forward process. */
typedef enum { FICK_EPSILON, FICK_VELOCITY, FICK_CLEAN } fick_prediction;
typedef struct {
  int64_t train_timesteps, steps_offset;
  double beta_start, beta_end, clip_range;
  char beta_schedule[32], prediction_type[32], spacing[32];
  fick_prediction prediction;
  int alpha_one, clip;
} fick_noise_schedule;
/* What is in `schedule` are the defaults. */
fick_status fick_schedule_read(fick_json spec, fick_noise_schedule *schedule);
fick_status fick_schedule_alphas(const fick_noise_schedule *schedule, double *abar);
fick_status fick_schedule_timesteps(const fick_noise_schedule *schedule, int64_t count, double *timesteps);
double fick_schedule_clean(const fick_noise_schedule *schedule, double output, double x, double abar);
double fick_schedule_noise(const fick_noise_schedule *schedule, double output, double x, double abar);
void fick_schedule_slopes(const fick_noise_schedule *schedule, double clean, double abar, double *of_clean,
                          double *of_noise);

/* residual.c: what the model's output is off by, by timestep (runtime/samplers/residual.py). */
typedef struct {
  double *timesteps, *deviations;
  int32_t count;
} fick_residual;
fick_status fick_residual_read(fick_json described, double guidance, fick_residual *residual);
void fick_residual_free(fick_residual *residual);
double fick_residual_deviation(const fick_residual *residual, double timestep);
double fick_residual_left(double s, double sigma, double slope);

/* sampler.c and a file for each kind. */
typedef struct fick_sampler fick_sampler;
typedef struct {
  const char *name;
  fick_noise_schedule defaults;
  fick_status (*prepare)(fick_sampler *sampler, fick_json spec, int32_t steps);
  void (*step)(fick_sampler *sampler, const float *output, int32_t index, float *x, fick_noise *rng);
  int by_sigma; /* whether samples live at variance 1 + sigma^2 */
} fick_sampler_kind;
struct fick_sampler {
  const fick_sampler_kind *kind;
  fick_noise_schedule schedule;
  const fick_residual *residual;
  size_t elements;
  int32_t count;
  float *steps; /* the model's step input at each call */
  double *abar; /* of every training timestep */
  double *timesteps, *sigmas;
  double *history; /* five samples' worth, for those that look back */
  float *drawn;
  double eta, sigma_min, stride;
  int32_t looked_back;
  int first_order_last, large_variance;
};
extern const fick_sampler_kind fick_ddim, fick_ddpm, fick_euler, fick_euler_ancestral, fick_plms, fick_dpm_solver,
    fick_consistency;
/* spec is the bundle's description, an object; name, if not NULL, is another kind on the same noise schedule. */
fick_status fick_sampler_create(fick_json spec, const char *name, int32_t steps, const fick_residual *residual,
                                size_t elements, fick_sampler **sampler);
void fick_sampler_destroy(fick_sampler *sampler);
fick_status fick_sampler_room(fick_sampler *sampler, int64_t count);
void fick_sampler_initial(const fick_sampler *sampler, float *x);
/* A clean sample with as much noise as the model expects at a call. */
void fick_sampler_noised(const fick_sampler *sampler, float *clean, const float *noise, int32_t index);
const float *fick_sampler_steps(const fick_sampler *sampler, int32_t *count);
void fick_sampler_step(fick_sampler *sampler, const float *output, int32_t index, float *x, fick_noise *rng);
void fick_sampler_scale_input(const fick_sampler *sampler, const float *x, int32_t index, float *seen);

/* files.c */
fick_status fick_file_write(const char *path, const void *data, size_t size);

/* variants.c: which alternative runs at each call of a loop (runtime/schedule.py). NULL names are "full". */
fick_status fick_variants_order(fick_json schedules, const fick_plan *plan, int32_t calls, const char **order);

/* unicode.c: text as the tokenizer reads it. Code points in, code points out; room is that of `out`. */
typedef enum { FICK_OTHER = 0, FICK_LETTER = 1, FICK_NUMBER = 2, FICK_SPACE = 3 } fick_character;
fick_character fick_unicode_kind(uint32_t c);
int64_t fick_utf8_decode(const char *text, size_t size, uint32_t *out, size_t room); /* -1: not UTF-8, or no room */
size_t fick_utf8_encode(uint32_t c, char out[4]);
int64_t fick_unicode_normalise(const uint32_t *text, size_t size, uint32_t *out, size_t room);
int64_t fick_unicode_lower(const uint32_t *text, size_t size, uint32_t *out, size_t room);

/* tokenizer.c */
typedef struct fick_tokenizer fick_tokenizer;
fick_status fick_tokenizer_create(const fick_entry *vocabulary, const fick_entry *merges, fick_json facts,
                                  fick_tokenizer **tokenizer);
void fick_tokenizer_destroy(fick_tokenizer *tokenizer);
int32_t fick_tokenizer_length(const fick_tokenizer *tokenizer);
/* dropped: where in the prompt what did not fit begins, or its length. */
fick_status fick_tokenizer_encode(fick_tokenizer *tokenizer, const char *prompt, int64_t *ids, size_t *dropped);

/* pipeline.c */
enum { FICK_NETWORK, FICK_ENCODER, FICK_DECODER, FICK_PICTURES, FICK_PARTS };
struct fick_pipeline {
  fick_source source;
  fick_library library;
  fick_zip zip;
  fick_json manifest;
  const fick_program *program;
  fick_model *models[FICK_PARTS]; /* the encoders of texts and of pictures may be NULL */
  fick_tokenizer *tokenizer;
  fick_tensor sample, step, prompt, latent, image;
  size_t elements; /* of a latent */
  int64_t classes;
  fick_json class_names;
  uint8_t *prompt_value; /* the network's prompt input, once it is known */
  int prompted;
  int64_t *ids;
  char *dropped;
  float *x, *seen, *output, *pixels;
  fick_progress progress;
  void *user;
  atomic_int cancelled;
};

/* start.c: the first of a loop's calls to run, and the sample before it. */
fick_status fick_pipeline_first(const fick_pipeline *pipeline, const fick_drawing *how, int32_t total, int32_t *first);
fick_status fick_pipeline_start(fick_pipeline *pipeline, const fick_drawing *how, const fick_sampler *sampler,
                                fick_noise *rng, int32_t first);

/* inflate.c: whether data unpacks to just as many bytes. */
int fick_inflate(const uint8_t *data, size_t size, uint8_t *out, size_t room);

#endif
