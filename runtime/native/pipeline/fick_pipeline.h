/* fick_pipeline.h: pictures from a bundle that holds a whole pipeline.
 *
 * fick.h runs one model, with the core inside the bundle's library. This is the rest of it in C: tokens, the denoising
 * loop with guidance and a sampler, the decoder, PNG. It brings a core of its own and maps the bundle's code itself, so
 * a program linked with it needs nothing of the system's dynamic linker. fick-run is such a program.
 *
 * Functions that can fail return a fick_status, and fick_last_error() of fick.h has one sentence about it. A pipeline
 * is used from one thread at a time, except fick_pipeline_cancel. Memory is allocated when a pipeline is created and
 * before the first step of a picture, never within a step.
 */
#ifndef FICK_PIPELINE_H
#define FICK_PIPELINE_H

#include "fick.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fick_pipeline fick_pipeline;

typedef struct {
  int32_t threads;             /* 0: as many as the process may use */
  int32_t skip_verification;   /* 1: trust the bundle's weights and save hashing them */
  uint64_t memory_limit_bytes; /* 0: none. Weights that do not fit are let go of behind the calls that read them */
  int32_t takes_pictures;      /* 1: drawings may start from a picture, which takes one component more */
} fick_pipeline_options;

typedef struct {
  int32_t steps;       /* 0: the sampler's own number */
  float guidance;      /* how closely to follow the prompt; 1: not more than the model by itself */
  const char *sampler; /* consistency, ddim, ddpm, dpm-solver++, euler, euler-ancestral, plms; NULL: the bundle's own */
  uint64_t seed;       /* the same seed, the same picture */
  const uint8_t *init; /* a picture to start from, laid out as those drawn; NULL: noise */
  double strength;     /* how much of it may go, up to 1 */
} fick_drawing;

/* What a run of the self-test found. Names are valid as long as the pipeline is. */
typedef struct {
  int32_t checked, wrong;                 /* kernel calls */
  const char *component, *variant, *node; /* of the first wrong one; NULL if none is */
  double found, wanted;
} fick_self_test;

FICK_API fick_status fick_pipeline_create(const char *path, const fick_pipeline_options *options,
                                          fick_pipeline **pipeline);
FICK_API void fick_pipeline_destroy(fick_pipeline *pipeline);

/* Width and height of the pictures; a row is 3 * width bytes, red, green, blue. */
FICK_API fick_status fick_pipeline_size(const fick_pipeline *pipeline, int32_t *width, int32_t *height);

/* What to draw, and what not to (NULL: nothing in particular), in UTF-8, for a text-to-image bundle. */
FICK_API fick_status fick_pipeline_set_prompt(fick_pipeline *pipeline, const char *prompt, const char *negative);
/* The end of the last prompt that did not fit into the text encoder, "" if all of it did. */
FICK_API const char *fick_pipeline_dropped(const fick_pipeline *pipeline);
/* What to draw, for a class-to-image bundle. */
FICK_API fick_status fick_pipeline_set_class(fick_pipeline *pipeline, int64_t label);
/* The number of a class by its name, or by its number in figures. */
FICK_API fick_status fick_pipeline_class_of(const fick_pipeline *pipeline, const char *name, int64_t *label);

/* Called with (steps done, steps in all) before each step and after the last. Anything but 0 cancels. */
FICK_API void fick_pipeline_set_progress(fick_pipeline *pipeline, fick_progress callback, void *user);
/* Stop the picture in progress, from any thread. */
FICK_API void fick_pipeline_cancel(fick_pipeline *pipeline);

/* A picture: size_bytes are 3 * width * height. */
FICK_API fick_status fick_pipeline_draw(fick_pipeline *pipeline, const fick_drawing *drawing, uint8_t *pixels,
                                        uint64_t size_bytes);

/* What all components occupy; the weights are those that stay in memory where the limit has them let go of. */
FICK_API fick_status fick_pipeline_memory(const fick_pipeline *pipeline, fick_memory *memory);

/* Compare every kernel call with what the bundle says of it. Fails where the bundle says nothing. */
FICK_API fick_status fick_pipeline_self_test(fick_pipeline *pipeline, fick_self_test *result);

/* Seconds of every kernel call since the pipeline was created, as JSON. */
FICK_API fick_status fick_pipeline_write_profile(const fick_pipeline *pipeline, const char *path);

/* A PNG file, whole or not at all. */
FICK_API fick_status fick_png_write(const char *path, const uint8_t *pixels, int32_t width, int32_t height);
/* A PNG file of these sizes; transparency becomes white. */
FICK_API fick_status fick_png_read(const char *path, uint8_t *pixels, int32_t width, int32_t height);

#ifdef __cplusplus
}
#endif
#endif
