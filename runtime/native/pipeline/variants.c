/* variants.c: which alternative of a model runs at which call of a loop (runtime/schedule.py). */
#include <math.h>
#include <string.h>

#include "parts.h"

static const char *named(const fick_plan *plan, fick_json value) {
  char name[256];
  if (!fick_json_string(value, name, sizeof name)) return NULL;
  for (int32_t i = 0; i < plan->alternative_count; i++) {
    if (strcmp(plan->alternatives[i].name, name) == 0) return plan->alternatives[i].name;
  }
  return NULL;
}

static fick_status damaged(const fick_plan *plan) {
  return fick_fail(FICK_ERROR_FORMAT, "the bundle's schedules of %s do not fit its code; copy or compile it anew",
                   plan->name);
}

/* How many calls a schedule is for; 0 if it is none. */
static int32_t length_of(const fick_plan *plan, fick_json key, fick_json run) {
  char text[16];
  fick_json value;
  int64_t calls = 0, count = 0;
  if (!fick_json_string(key, text, sizeof text)) return 0;
  if (!fick_json_integer((fick_json){text, text + strlen(text)}, &calls) || calls < 1 || calls > INT32_MAX / 2) {
    return 0;
  }
  while (fick_json_next(&run, NULL, &value)) {
    if (!named(plan, value)) return 0;
    count++;
  }
  return count == calls ? (int32_t)calls : 0;
}

/* How much of the state an alternative leaves: 2 for "full", 1 for another one that leaves all of it. */
static int leaves(const fick_plan *plan, const char *name) {
  for (int32_t i = 0; i < plan->alternative_count; i++) {
    const fick_variant *one = &plan->alternatives[i];
    if (one->name == name) return i ? plan->kept_count && one->leave_count == plan->kept_count : 2;
  }
  return 0;
}

/* Of a call's part of the loop, the alternative of the step that leaves most, of such the first one's. */
static const char *of_part(const fick_plan *plan, fick_json run, int64_t first, int64_t end) {
  const char *found = NULL;
  fick_json value;
  for (int64_t i = 0; i < end && fick_json_next(&run, NULL, &value); i++) {
    if (i < first) continue;
    const char *name = named(plan, value);
    if (!found || leaves(plan, name) > leaves(plan, found)) found = name;
  }
  return found ? found : plan->alternatives[0].name;
}

fick_status fick_variants_order(fick_json schedules, const fick_plan *plan, int32_t calls, const char **order) {
  fick_json rest = schedules, key, run, nearest = {NULL, NULL};
  int32_t known = 0;
  if (!plan->alternative_count) return damaged(plan);
  while (fick_json_next(&rest, &key, &run)) {
    int32_t length = length_of(plan, key, run);
    if (!length) return damaged(plan);
    double off = fabs(log((double)length / calls)), best = known ? fabs(log((double)known / calls)) : INFINITY;
    if (off < best || (off == best && length > known)) {
      known = length;
      nearest = run;
    }
  }
  for (int64_t i = 0; i < calls; i++) {
    order[i] = plan->alternatives[0].name;
    if (known && i) order[i] = of_part(plan, nearest, i * known / calls, ((i + 1) * known + calls - 1) / calls);
  }
  return FICK_OK;
}
