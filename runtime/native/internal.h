/* internal.h: what the files of the core share. */
#ifndef FICK_INTERNAL_H
#define FICK_INTERNAL_H

#include <stdatomic.h>
#include <stddef.h>

#include "fick_plan.h"

#define FICK_FORMAT_VERSION 1
#define SHA256_BYTES 32

/* error.c */
fick_status fick_fail(fick_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));
void fick_kernel_raised(const char *kind, const char **parts, int32_t count);

/* sha256.c: passed, if not NULL, gets what has been read. */
typedef void (*fick_passed)(const uint8_t *data, uint64_t size);
void fick_sha256(const uint8_t *data, uint64_t size, fick_passed passed, uint8_t digest[SHA256_BYTES]);

/* json.c: a cursor over a document that fick_json_valid has accepted. */
typedef struct {
  const char *at, *end;
} fick_json;
int fick_json_valid(const char *text, uint64_t size);
int fick_json_member(fick_json object, const char *key, fick_json *value);
int fick_json_string(fick_json value, char *buffer, size_t size);
int fick_json_integer(fick_json value, int64_t *number);
int fick_json_number(fick_json value, double *number);
/* The text of a string, escapes resolved, as UTF-8 without a zero at its end: its length, -1 if it is none or too
 * long. */
int64_t fick_json_text(fick_json value, char *buffer, size_t size);
/* The next of an object's or an array's values, 0 after the last. rest is the container at first; key may be NULL. */
int fick_json_next(fick_json *rest, fick_json *key, fick_json *value);
int fick_json_is(fick_json value, const char *word);

/* zip.c */
typedef struct {
  const char *name;
  uint32_t name_size;
  const uint8_t *data;
  uint64_t size;
  uint32_t checksum; /* CRC-32, as the directory has it */
} fick_entry;
typedef struct {
  fick_entry entries[16];
  int32_t count;
} fick_zip;
fick_status fick_zip_read(const uint8_t *data, uint64_t size, fick_zip *zip);
const fick_entry *fick_zip_find(const fick_zip *zip, const char *name);
int fick_zip_intact(const fick_entry *entry);

/* bundle.c: a manifest is of a bundle; an entry is as the manifest's entries say; all are, and fit a program. */
fick_status fick_bundle_manifest(const fick_zip *zip, fick_json *manifest);
fick_status fick_bundle_entry(const fick_entry *entry, fick_json entries, int verify, fick_passed passed);
typedef struct {
  const uint8_t *weights;
  const uint8_t *kernels; /* a GPU's, as source; or NULL */
  uint64_t kernels_bytes;
} fick_contents;
fick_status fick_bundle_read(const uint8_t *data, uint64_t size, int verify, fick_passed passed,
                             const fick_program *program, fick_contents *contents);

/* source.c: a bundle's file in memory. */
typedef struct {
  uint8_t *data;
  uint64_t bytes;
  fick_contents contents;
} fick_source;
fick_status fick_source_map(const char *path, fick_source *source);
fick_status fick_source_check(fick_source *source, const fick_program *program, int verify);
void fick_source_close(fick_source *source);
void fick_source_drop(const uint8_t *data, uint64_t size);

/* cpu.c: the first of the features that this processor lacks, or NULL. */
const char *fick_cpu_lacks(const char *const *features);

/* pool.c */
typedef struct fick_pool fick_pool;
fick_pool *fick_pool_create(int32_t threads);
void fick_pool_destroy(fick_pool *pool);
void fick_pool_use(fick_pool *pool);
int fick_pool_launch(fick_task lambda, void *closure, int tasks);

/* memo.c: results of a variant by the bytes of the inputs it depends on. */
typedef struct {
  uint8_t *bytes;
  uint64_t key_bytes, value_bytes;
  int32_t capacity, count, next;
} fick_memo;
int fick_memo_reserve(fick_memo *memo, uint64_t key_bytes, uint64_t value_bytes, int32_t capacity);
const uint8_t *fick_memo_find(const fick_memo *memo, const uint8_t *key);
void fick_memo_keep(fick_memo *memo, const uint8_t *key, const uint8_t *value);
uint64_t fick_memo_bytes(const fick_memo *memo);

/* cl_device.c: the arena, the kept values and a copy of weights and state are the device's. Between begin and end,
 * which take and give what the host reads and writes, calls run in order; seconds are theirs. */
typedef struct fick_device fick_device;
struct fick_backend {
  fick_status (*open)(const fick_program *program, const fick_plan *plan, const fick_contents *contents,
                      const uint8_t *weights, fick_device **device);
  void (*close)(fick_device *device);
  fick_status (*begin)(fick_device *device, const uint8_t *state, int32_t branch, int32_t branches);
  fick_status (*call)(fick_device *device, const fick_call *call);
  fick_status (*end)(fick_device *device, const fick_variant *variant, uint8_t *state, double *seconds);
  const char *(*name)(const fick_device *device);
  /* A run of bytes of the state has changed. */
  fick_status (*changed)(fick_device *device, fick_region region, const uint8_t *state);
};

/* stream.c: weights that are let go of behind the calls that have read them, where memory is short. */
typedef struct {
  uint64_t *starts; /* of tensors, rising; one more for the end */
  uint64_t count, resident_bytes;
} fick_stream;
int fick_stream_plan(fick_stream *stream, const fick_plan *plan);
uint64_t fick_stream_least(const fick_stream *stream, const fick_plan *plan);
/* room: for weights; 0 is room enough. */
void fick_stream_before(fick_stream *stream, uint64_t room, const uint8_t *weights, const fick_call *call);

/* turns.c: what components that never run at once share. */
typedef struct {
  fick_source own;           /* nothing where the file is another's */
  fick_model *first;         /* the others follow it */
  const fick_model *running; /* whose turn it is, or was */
  int32_t users;
  uint8_t *arena;
  uint64_t arena_bytes, weights_bytes;
  uint64_t least_bytes; /* of weights, with which all calls can run */
  uint64_t limit_bytes; /* 0: none */
  uint64_t room_bytes;  /* for weights where not all of them fit, 0 where they do */
} fick_turns;
/* Open the components that have a plan, not NULL, on a bundle that is mapped and checked. */
fick_status fick_turns_open(const fick_program *program, const fick_source *source, const fick_options *options,
                            const fick_plan *const *plans, int32_t count, fick_model **models);
void fick_turns_join(fick_turns *turns, fick_model *model);
void fick_turns_leave(fick_model *model);
void fick_turns_take(fick_model *model);
/* A component is about to hold `after` bytes in place of `before`: fails where the limit has no room for that. */
fick_status fick_turns_room(fick_turns *turns, uint64_t before, uint64_t after);

/* model.c, run.c, kept.c */
struct fick_model {
  const fick_program *program;
  const fick_plan *plan;
  fick_turns *turns;
  fick_model *next; /* of those that take turns */
  const uint8_t *weights;
  fick_stream stream;
  uint8_t *state;
  uint8_t *kept;  /* of each branch, kept_bytes */
  uint8_t *whole; /* of each branch, for each kept value: whether a run has left it since the picture began */
  int32_t branches;
  const fick_variant *chosen; /* of the next run, as is its branch */
  int32_t branch;
  fick_pool *pool;
  fick_device *device; /* of a program with a backend */
  fick_memo prompts, steps;
  uint8_t *prompt_key, *step_key; /* what the carried values were computed from; NULL key: nothing yet */
  int prompt_valid, step_valid;
  double *seconds, *total_seconds; /* of a call's last run, and of all */
  uint64_t *runs;
  fick_progress progress;
  void *user;
  /* NULL, or called after each kernel call. */
  void (*after)(fick_model *model, const fick_variant *variant, uint32_t call, uint8_t *const spaces[4], void *user);
  void *after_user;
  atomic_int cancelled;
};

fick_status fick_model_open(fick_turns *turns, const fick_program *program, const fick_source *source,
                            const fick_plan *plan, int32_t threads, fick_model **model);

/* Bytes beside the weights and the arena: of a model that was just opened, of one, and how many of these are tables. */
uint64_t fick_model_beside(const fick_plan *plan);
uint64_t fick_model_held(const fick_model *model);
uint64_t fick_model_tables(const fick_model *model);

/* A component's plan by name, NULL for the main one's. NULL if there is none. */
const fick_plan *fick_plan_of(const fick_program *program, const char *name);

const fick_variant *fick_variant_at(const fick_plan *plan, int32_t index);

/* Aligned memory of zeros, or NULL. */
uint8_t *fick_zeroed(uint64_t bytes);

/* Kernel calls of all variants. */
uint32_t fick_total_calls(const fick_plan *plan);

/* kept.c: what an alternative reads must be whole; what it is about to write no longer is; what it has written is. */
fick_status fick_kept_require(const fick_model *model, const fick_variant *variant, int32_t branch);
void fick_kept_mark(fick_model *model, const fick_variant *variant, int32_t branch, int whole);

uint64_t fick_key_bytes(const fick_plan *plan, fick_rate rate);
void fick_key_copy(const fick_model *model, fick_rate rate, uint8_t *key);

#endif
