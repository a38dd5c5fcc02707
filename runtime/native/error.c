/* error.c: one sentence per failure, per thread. */
#include <stdarg.h>
#include <stdio.h>

#include "internal.h"

static _Thread_local char last_error[512];

fick_status fick_fail(fick_status status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(last_error, sizeof last_error, format, arguments);
  va_end(arguments);
  return status;
}

const char *fick_last_error(void) { return last_error; }

uint32_t fick_abi_version(void) { return FICK_ABI_VERSION; }

void fick_kernel_raised(const char *kind, const char **parts, int32_t count) {
  char text[384];
  size_t used = 0;
  text[0] = 0;
  for (int32_t i = 0; i < count && used < sizeof text; i++) {
    if (!parts[i]) continue;
    int wrote = snprintf(text + used, sizeof text - used, "%s", parts[i]);
    if (wrote > 0) used += (size_t)wrote;
  }
  fick_fail(FICK_ERROR_KERNEL, "a kernel raised %s: %s", kind ? kind : "an error", text);
}
