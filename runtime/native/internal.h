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

/* sha256.c */
void fick_sha256(const uint8_t *data, uint64_t size, uint8_t digest[SHA256_BYTES]);

/* json.c: a cursor over a document that fick_json_valid has accepted. */
typedef struct {
  const char *at, *end;
} fick_json;
int fick_json_valid(const char *text, uint64_t size);
int fick_json_member(fick_json object, const char *key, fick_json *value);
int fick_json_string(fick_json value, char *buffer, size_t size);
int fick_json_integer(fick_json value, int64_t *number);

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

/* bundle.c */
typedef struct {
  const uint8_t *weights;
  const uint8_t *source; /* of a GPU's kernels, or NULL */
  uint64_t source_bytes;
} fick_contents;
fick_status fick_bundle_read(const uint8_t *data, uint64_t size, int verify, const fick_program *program,
                             fick_contents *contents);

/* cpu.c: the first of the features that this processor lacks, or NULL. */
const char *fick_cpu_lacks(const char *const *features);

/* pool.c */
typedef struct fick_pool fick_pool;
fick_pool *fick_pool_create(int32_t threads);
void fick_pool_destroy(fick_pool *pool);
void fick_pool_use(fick_pool *pool);

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

/* opencl.c: the arena, the kept values and a copy of weights and state are the device's. Between begin and end, which
 * take and give what the host reads and writes, calls run in order; seconds are theirs. */
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

/* model.c, run.c, kept.c */
struct fick_model {
  const fick_program *program;
  const fick_plan *plan;
  uint8_t *file;
  uint64_t file_bytes, memory_limit_bytes;
  const uint8_t *weights;
  uint8_t *arena, *state;
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
  double *seconds;
  fick_progress progress;
  void *user;
  atomic_int cancelled;
};

/* Fails where `more` bytes beside what the model occupies exceed its limit. */
fick_status fick_within_limit(const fick_model *model, uint64_t more);

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
