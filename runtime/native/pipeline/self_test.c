/* self_test.c: every kernel call beside what the compiler's referee has for it.
 *
 * golden.json of the bundle holds, for components and their variants, a row for each call whose result is a value of
 * the program: [call, space, type, tolerance, offset, value, offset, value, ...]. Inputs are made here as there
 * (compiler/bundle/golden.py): noise, a timestep of 501, whole numbers that alternate between 0 and 1.
 */
#include <math.h>
#include <string.h>

#include "parts.h"

enum { TIMESTEP = 501 };

typedef struct {
  fick_json component;
  const fick_variant *variant;
  fick_json rows, row; /* those to come, and the next one */
  int64_t call;        /* that of `row`; -1 after the last */
  fick_self_test *result;
  int damaged;
} examination;

/* A float16 in the place of a float32 has an exponent that is too small by 112. */
static float half(uint32_t word) {
  union {
    uint32_t bits;
    float f;
  } value = {(word & 0x7FFF) << 13};
  value.f *= 0x1p112f;
  if ((word & 0x7C00) == 0x7C00) value.bits |= 0x7F800000; /* infinite, or no number */
  value.bits |= (word & 0x8000) << 16;
  return value.f;
}

/* Types as golden.py numbers them. */
static int read_number(const uint8_t *at, int64_t type, double *number) {
  union {
    float f;
    uint32_t bits;
    int64_t wide;
    int32_t narrow;
  } value = {0};
  switch (type) {
    case 0: memcpy(&value.f, at, 4); *number = value.f; return 1;
    case 1: memcpy(&value.wide, at, 8); *number = (double)value.wide; return 1;
    case 2: memcpy(&value.narrow, at, 4); *number = value.narrow; return 1;
    case 3: *number = *at; return 1;
    case 4: value.bits = (uint32_t)at[1] << 24 | (uint32_t)at[0] << 16; *number = value.f; return 1;
    case 5: *number = (int8_t)*at; return 1;
    case 6: *number = half((uint32_t)at[1] << 8 | at[0]); return 1;
    default: return 0;
  }
}

static void next_row(examination *e) {
  fick_json inside, value;
  e->call = -1;
  if (!fick_json_next(&e->rows, NULL, &e->row)) return;
  inside = e->row;
  if (!fick_json_next(&inside, NULL, &value) || !fick_json_integer(value, &e->call)) e->damaged = 1;
}

static int next_number(fick_json *row, double *number) {
  fick_json value;
  return fick_json_next(row, NULL, &value) && fick_json_number(value, number);
}

/* The first element that is off by more than the tolerance, if any. */
static int compare(examination *e, uint8_t *const spaces[4], const uint64_t sizes[4], double *found, double *wanted) {
  fick_json row = e->row;
  double call, space, type, tolerance, offset;
  if (!next_number(&row, &call) || !next_number(&row, &space) || !next_number(&row, &type) ||
      !next_number(&row, &tolerance) || space < 1 || space > 3) {
    return e->damaged = 1;
  }
  while (next_number(&row, &offset)) {
    /* Spaces end on lines of 64 bytes, so that an element that begins within one ends there. */
    int within = offset >= 0 && offset < (double)sizes[(int)space] && fmod(offset, 1) == 0;
    if (!within || !next_number(&row, wanted) ||
        !read_number(spaces[(int)space] + (size_t)offset, (int64_t)type, found)) {
      return e->damaged = 1;
    }
    if (!(fabs(*found - *wanted) <= tolerance)) return 1;
  }
  return 0;
}

static void examine(fick_model *model, const fick_variant *variant, uint32_t call, uint8_t *const spaces[4],
                    void *user) {
  examination *e = user;
  const fick_plan *plan = model->plan;
  uint64_t sizes[4] = {plan->weights.size_bytes, plan->arena_bytes, plan->state_bytes, plan->kept_bytes};
  double found = 0, wanted = 0;
  if (variant != e->variant || !call) {
    e->variant = variant;
    e->call = -1;
    if (fick_json_member(e->component, variant->name, &e->rows)) next_row(e);
  }
  for (; e->call == (int64_t)call && !e->damaged; next_row(e)) {
    e->result->checked++;
    if (!compare(e, spaces, sizes, &found, &wanted) || e->damaged) continue;
    if (!e->result->wrong++) {
      e->result->component = plan->name;
      e->result->variant = variant->name;
      e->result->node = variant->calls[call].node;
      e->result->found = found;
      e->result->wanted = wanted;
    }
  }
}

static void fill(fick_model *model) {
  for (int32_t i = 0; i < model->plan->input_count; i++) {
    const fick_slot *slot = &model->plan->inputs[i];
    uint8_t *at = model->state + slot->offset_bytes;
    int step = slot->tensor.rate == FICK_STEP;
    size_t item = slot->tensor.dtype == FICK_INT64 ? 8 : slot->tensor.dtype == FICK_BOOL ? 1 : 4;
    size_t count = (size_t)slot->tensor.size_bytes / item;
    fick_noise noise;
    fick_noise_seed(&noise, (uint64_t)i + 1);
    for (size_t j = 0; j < count; j++, at += item) {
      float block[16], number = TIMESTEP;
      int64_t whole = step ? TIMESTEP : (int64_t)(j % 2);
      /* Sixteen are drawn to keep one: nothing as long as an input is at hand. */
      if (!step && slot->tensor.dtype == FICK_FLOAT32) {
        fick_noise_draw(&noise, block, 16);
        number = block[0];
      }
      if (slot->tensor.dtype == FICK_FLOAT32) memcpy(at, &number, item);
      else memcpy(at, &whole, item); /* little-endian */
    }
  }
}

static fick_status examine_model(fick_model *model, examination *e) {
  fill(model);
  model->prompt_valid = model->step_valid = 0;
  model->prompts.count = model->prompts.next = model->steps.count = model->steps.next = 0;
  TRY(fick_begin(model, 1));
  model->after = examine;
  model->after_user = e;
  fick_status status = FICK_OK;
  for (int32_t i = 0; i < model->plan->alternative_count && status == FICK_OK; i++) {
    status = fick_choose(model, model->plan->alternatives[i].name, 0);
    if (status == FICK_OK) status = fick_run(model);
  }
  model->after = NULL;
  return status;
}

fick_status fick_pipeline_self_test(fick_pipeline *p, fick_self_test *result) {
  fick_json root, components;
  if (!p || !result) return fick_fail(FICK_ERROR_ARGUMENT, "fick_pipeline_self_test: an argument is NULL");
  *result = (fick_self_test){0, 0, NULL, NULL, NULL, 0, 0};
  const fick_entry *entry = fick_zip_find(&p->zip, "golden.json");
  if (!entry) {
    return fick_fail(FICK_ERROR_ARGUMENT,
                     "the bundle says nothing of what its kernels should give; compile it with --self-test");
  }
  root = (fick_json){(const char *)entry->data, (const char *)entry->data + entry->size};
  if (!fick_json_valid(root.at, entry->size) || !fick_json_member(root, "components", &components)) {
    return fick_fail(FICK_ERROR_FORMAT, "the bundle's golden.json is damaged; compile it anew");
  }
  for (int i = 0; i < FICK_PARTS; i++) {
    examination e = {.call = -1, .result = result};
    if (!p->models[i] || !fick_json_member(components, p->models[i]->plan->name, &e.component)) continue;
    TRY(examine_model(p->models[i], &e));
    if (e.damaged) {
      return fick_fail(FICK_ERROR_FORMAT, "the bundle's golden.json does not fit its code; compile it anew");
    }
  }
  return FICK_OK;
}
