/* fick_plan.h: what the compiler writes into a model's library and the core reads. Not part of the ABI. */
#ifndef FICK_PLAN_H
#define FICK_PLAN_H

#include "fick.h"

/* TVM's packed calling convention: an argument is a type index and eight bytes of payload. */
typedef struct {
  int32_t type_index;
  uint32_t padding;
  union {
    void *pointer;
    int64_t integer;
  } value;
} fick_argument;
#define FICK_OPAQUE_POINTER 4

typedef int32_t (*fick_kernel)(void *self, const fick_argument *arguments, int32_t count, fick_argument *result);

/* kept is what one step leaves for the next: a copy for each branch. */
typedef enum {
  FICK_SPACE_WEIGHTS = 0,
  FICK_SPACE_ARENA = 1,
  FICK_SPACE_STATE = 2,
  FICK_SPACE_KEPT = 3
} fick_space;

typedef struct {
  uint32_t space;
  uint64_t offset_bytes;
} fick_operand;

/* A kernel of a GPU: its name in the source, and the work-items along each axis, of all and of a group. */
typedef struct {
  const char *name;
  uint32_t items[3], group[3];
} fick_launch;

/* kernel is the code of a processor's, or NULL; launch the place in the program's launches. */
typedef struct {
  fick_kernel kernel;
  uint32_t launch;
  const fick_operand *operands;
  uint32_t operand_count;
  const char *kernel_name;
  const char *node;
} fick_call;

/* A run of bytes of the state space. */
typedef struct {
  uint64_t offset_bytes;
  uint64_t size_bytes;
} fick_region;

/* carried is what prompt and step fill for others. reads and leaves are places in the plan's kept values. */
typedef struct {
  const char *name;
  const fick_call *calls;
  uint32_t call_count;
  fick_region carried;
  const int32_t *reads, *leaves;
  int32_t read_count, leave_count;
} fick_variant;

typedef struct {
  fick_tensor tensor;
  uint64_t offset_bytes;
} fick_slot;

/* What the four channels of an image's texels are. */
typedef enum {
  FICK_TEXEL_FLOAT32 = 0,
  FICK_TEXEL_FLOAT16 = 1,
  FICK_TEXEL_UINT16 = 2,
  FICK_TEXEL_INT8 = 3,
  FICK_TEXEL_UINT8 = 4,
  FICK_TEXEL_UINT32 = 5
} fick_texel;

/* Weights that a GPU reads as an image: rows of so many texels of four channels, in strips side by side. */
typedef struct {
  uint64_t offset_bytes;
  uint32_t texel, width, rows, strip;
} fick_image;

#define FICK_MAX_OPERANDS 64

/* One component: a UNet, say, or a text encoder. Its weights are a run of the bundle's. */
typedef struct {
  const char *name;
  fick_region weights;
  uint64_t arena_bytes, state_bytes, kept_bytes;
  const fick_slot *inputs, *outputs;
  int32_t input_count, output_count;
  fick_variant prompt, step;        /* may have no calls */
  const fick_variant *alternatives; /* a run is one of them; the first is "full" */
  const char *const *kept_names;
  int32_t alternative_count, kept_count;
  const uint64_t *chunks; /* of a GPU: where in the weights each of its buffers begins */
  int32_t chunk_count;
  const fick_image *images; /* by their place in the weights, behind all that lies in buffers */
  int32_t image_count;
} fick_plan;

/* What runs kernels that are not a processor's. */
typedef struct fick_backend fick_backend;
extern const fick_backend fick_opencl;

/* All that a library runs. The first component is the main one. */
typedef struct fick_program fick_program;
struct fick_program {
  const char *program_id;
  const char *const *cpu_features; /* NULL at the end */
  uint64_t weights_bytes;
  const fick_plan *components;
  int32_t component_count;
  const fick_backend *backend; /* NULL: a processor */
  const fick_launch *launches;
  uint32_t launch_count;
  const fick_program *fallback; /* of the same components, where there is no such GPU; or NULL */
};

extern const fick_program fick_model_program;

/* What kernels call. TVM's code hands a loop to the first, and reports a refused argument to the second. */
typedef struct {
  void *sync_handle;
  int32_t num_task;
} fick_environment;
typedef int (*fick_task)(int task, fick_environment *environment, void *closure);
typedef struct {
  int (*launch)(fick_task task, void *closure, int tasks);
  void (*raise)(const char *kind, const char **parts, int32_t count);
} fick_hooks;

/* Of everything in this header: a library and a core that differ in it must not meet. */
#define FICK_PLAN_VERSION 2

/* For a program that has a core of its own, such as fick-run: from here on kernels call its hooks, and the core in
 * this library is not used. NULL for another version. */
FICK_API const fick_program *fick_attach(uint32_t plan_version, const fick_hooks *hooks);

#endif
