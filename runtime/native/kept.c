/* kept.c: what runs leave for the next ones of a picture, and which alternative the next run is. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define MOST_BRANCHES 64

const char *fick_alternative(const fick_model *model, int32_t index) {
  int known = model && index >= 0 && index < model->plan->alternative_count;
  return known ? model->plan->alternatives[index].name : NULL;
}

fick_status fick_begin(fick_model *model, int32_t branches) {
  if (!model) return fick_fail(FICK_ERROR_ARGUMENT, "fick_begin: model is NULL");
  if (branches < 1 || branches > MOST_BRANCHES) {
    return fick_fail(FICK_ERROR_ARGUMENT, "fick_begin: %d branches; give 1 to %d", branches, MOST_BRANCHES);
  }
  const fick_plan *plan = model->plan;
  uint64_t marks = (uint64_t)branches * (uint64_t)plan->kept_count;
  if (branches != model->branches) {
    uint64_t bytes = (uint64_t)branches * plan->kept_bytes, before = (uint64_t)model->branches * plan->kept_bytes;
    fick_status status = fick_turns_room(model->turns, before, bytes);
    if (status != FICK_OK) return status;
    uint8_t *kept = fick_zeroed(model->program->backend ? 0 : bytes), *whole = fick_zeroed(marks);
    if (!kept || !whole) {
      free(kept);
      free(whole);
      return fick_fail(FICK_ERROR_MEMORY, "there is no memory for what steps leave in %d branches", branches);
    }
    free(model->kept);
    free(model->whole);
    model->kept = kept;
    model->whole = whole;
    model->branches = branches;
  }
  memset(model->whole, 0, marks);
  model->chosen = plan->alternatives;
  model->branch = 0;
  return FICK_OK;
}

fick_status fick_choose(fick_model *model, const char *alternative, int32_t branch) {
  if (!model || !alternative) return fick_fail(FICK_ERROR_ARGUMENT, "fick_choose: an argument is NULL");
  if (branch < 0 || branch >= model->branches) {
    return fick_fail(FICK_ERROR_ARGUMENT, "fick_choose: there is no branch %d; fick_begin made %d", branch,
                     model->branches);
  }
  for (int32_t i = 0; i < model->plan->alternative_count; i++) {
    if (strcmp(model->plan->alternatives[i].name, alternative) != 0) continue;
    model->chosen = &model->plan->alternatives[i];
    model->branch = branch;
    return FICK_OK;
  }
  return fick_fail(FICK_ERROR_ARGUMENT, "the model has no alternative %s", alternative);
}

fick_status fick_kept_require(const fick_model *model, const fick_variant *variant, int32_t branch) {
  const uint8_t *whole = model->whole + (size_t)branch * (size_t)model->plan->kept_count;
  for (int32_t i = 0; i < variant->read_count; i++) {
    if (whole[variant->reads[i]]) continue;
    return fick_fail(FICK_ERROR_STATE,
                     "variant %s reads %s, which no run has left since the picture began; run %s first",
                     variant->name, model->plan->kept_names[variant->reads[i]],
                     model->plan->alternatives[0].name);
  }
  return FICK_OK;
}

void fick_kept_mark(fick_model *model, const fick_variant *variant, int32_t branch, int whole) {
  uint8_t *marks = model->whole + (size_t)branch * (size_t)model->plan->kept_count;
  for (int32_t i = 0; i < variant->leave_count; i++) marks[variant->leaves[i]] = (uint8_t)whole;
}
