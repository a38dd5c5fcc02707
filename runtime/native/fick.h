/* fick.h: run a compiled diffusion model.
 *
 * A bundle (NAME.fick) is one file; the library that runs it is inside it, under code/. The library needs libc,
 * libm and threads, nothing else. Every function that can fail returns a fick_status; fick_last_error() then
 * holds one sentence about it. No function aborts on a bad argument or a damaged file.
 *
 * A model is used from one thread at a time, except fick_cancel, which any thread may call. It does not survive fork():
 * its threads stay with the parent. Weights are mapped from the file: a file that is cut short while it is open ends
 * the process with SIGBUS, so replace bundles by renaming.
 */
#ifndef FICK_H
#define FICK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FICK_API __attribute__((visibility("default")))
#define FICK_ABI_VERSION 3
#define FICK_MAX_RANK 8

typedef enum {
  FICK_OK = 0,
  FICK_ERROR_ARGUMENT = 1,  /* a null pointer, an unknown name, a wrong size */
  FICK_ERROR_FILE = 2,      /* the file cannot be read */
  FICK_ERROR_FORMAT = 3,    /* the file is not a bundle of this library */
  FICK_ERROR_VERSION = 4,   /* the bundle is of a newer format */
  FICK_ERROR_DAMAGED = 5,   /* a checksum does not match */
  FICK_ERROR_CPU = 6,       /* this processor lacks an instruction set that the kernels use */
  FICK_ERROR_MEMORY = 7,    /* not enough memory, or more than the limit given */
  FICK_ERROR_CANCELLED = 8, /* the progress callback or fick_cancel stopped the run */
  FICK_ERROR_KERNEL = 9,    /* a kernel refused its arguments */
  FICK_ERROR_STATE = 10,    /* the run reads what no run has left since fick_begin */
  FICK_ERROR_DEVICE = 11    /* the GPU's library is missing, or the GPU failed */
} fick_status;

typedef enum { FICK_INPUT = 0, FICK_OUTPUT = 1 } fick_direction;
typedef enum { FICK_FLOAT32 = 0, FICK_INT64 = 1, FICK_INT32 = 2, FICK_BOOL = 3 } fick_dtype;

/* How often an input changes: per prompt, per denoising step, or per call. */
typedef enum { FICK_PROMPT = 0, FICK_STEP = 1, FICK_SAMPLE = 2 } fick_rate;

typedef struct fick_model fick_model;

typedef struct {
  int32_t threads;             /* 0: as many as the process may use */
  int32_t skip_verification;   /* 1: trust the weights and save hashing them */
  uint64_t memory_limit_bytes; /* 0: no limit. Weights that do not fit are read again as they are needed */
  const char *component;       /* NULL: the main one */
} fick_options;

/* Row-major and dense. */
typedef struct {
  const char *name;
  fick_dtype dtype;
  fick_rate rate;
  int32_t rank;
  int64_t shape[FICK_MAX_RANK];
  uint64_t size_bytes;
} fick_tensor;

typedef struct {
  const char *variant;
  const char *node;
  const char *kernel;
  double seconds; /* of the variant's last run */
} fick_call_profile;

/* Of a model and of those that take turns with it. */
typedef struct {
  uint64_t weights_bytes; /* mapped from the file, shared between processes; under a limit, the most at a time */
  uint64_t arena_bytes;
  uint64_t state_bytes; /* what runs leave for the next included, for every branch */
  uint64_t table_bytes; /* kept results of prompts and steps */
} fick_memory;

/* Called before each kernel with how many kernels of this part of a run are done: a run has up to three parts, for
 * what follows from the prompt, from the step, and for the rest. Anything but 0 cancels the run. */
typedef int32_t (*fick_progress)(uint64_t done, uint64_t total, void *user);

FICK_API uint32_t fick_abi_version(void);

/* The last failure on this thread, "" if there was none. Valid until the next failure. */
FICK_API const char *fick_last_error(void);

/* The bundle's components by name, the main one first: a UNet, and what turns prompts into its inputs and its
 * output into pictures. NULL after the last. */
FICK_API const char *fick_component(int32_t index);

/* Open a component of the bundle at path. options may be NULL. On success *model is to be closed with fick_close. */
FICK_API fick_status fick_open(const char *path, const fick_options *options, fick_model **model);
FICK_API void fick_close(fick_model *model);

/* Open components of the bundle at path that take turns: they share an arena, and the limit is for all of them together,
 * so that one's weights may leave before the next one's come. components are names, NULL for the main one; models has
 * room for as many, and each is closed by itself. They are used from one thread at a time, except by fick_cancel. */
FICK_API fick_status fick_open_together(const char *path, const fick_options *options, const char *const *components,
                                        int32_t count, fick_model **models);

/* What the model runs on: "processor", or a GPU by its driver's name. A bundle for a GPU that has code for a processor,
 * too, runs there where it finds no such GPU; fick_last_error says why. */
FICK_API const char *fick_device_name(const fick_model *model);

FICK_API int32_t fick_tensor_count(const fick_model *model, fick_direction direction);
FICK_API fick_status fick_tensor_info(const fick_model *model, fick_direction direction, int32_t index,
                                      fick_tensor *info);

/* Copy size_bytes of data in or out. The size must be the tensor's. */
FICK_API fick_status fick_set_input(fick_model *model, const char *name, const void *data, uint64_t size_bytes);
FICK_API fick_status fick_get_output(const fick_model *model, const char *name, void *data, uint64_t size_bytes);

/* One call of the model. Work that depends on the prompt alone or on the step alone is done only when those
 * inputs changed and their result is not in a table. */
FICK_API fick_status fick_run(fick_model *model);

/* A model may have alternatives: runs of less work, in place of the main one, that read what runs before them have
 * left. Names, the main one, "full", first; NULL after the last. Which one suits which step of a loop, the bundle's
 * manifest says: components, NAME, schedules. */
FICK_API const char *fick_alternative(const fick_model *model, int32_t index);

/* A new picture: forget what runs have left. A loop that calls the model more than once a step, as guidance does, has
 * a branch for each of these calls, 1 to 64, each with a copy of its own. A model that was just opened has one. */
FICK_API fick_status fick_begin(fick_model *model, int32_t branches);

/* Have the next run, and it alone, be an alternative, on what was left in a branch, counted from 0. Without this a run
 * is "full" in branch 0. "full" can always run. Another alternative fails with FICK_ERROR_STATE where it reads what no
 * run has left in that branch since fick_begin, or what a run that failed or was cancelled had begun to write. */
FICK_API fick_status fick_choose(fick_model *model, const char *alternative, int32_t branch);

/* Fill the table of step-only work for `count` coming steps. values holds, for each step, the bytes of all
 * inputs of rate FICK_STEP in order. Runs at those values then only copy their row. */
FICK_API fick_status fick_prepare_steps(fick_model *model, const void *values, uint64_t size_bytes, int32_t count);

FICK_API void fick_set_progress(fick_model *model, fick_progress callback, void *user);
/* Stop the run in progress before its next kernel. A run that is in its last kernel, or over, is not affected. */
FICK_API void fick_cancel(fick_model *model);

FICK_API int32_t fick_call_count(const fick_model *model);
FICK_API fick_status fick_call_info(const fick_model *model, int32_t index, fick_call_profile *profile);
FICK_API fick_status fick_memory_use(const fick_model *model, fick_memory *memory);

/* Check a bundle held in memory without opening it: the reader by itself, for tests and tools. */
FICK_API fick_status fick_check(const void *data, uint64_t size_bytes);

#ifdef __cplusplus
}
#endif
#endif
