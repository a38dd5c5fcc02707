/* Android's libc.so (LIBC) and libm.so (LIBM) of 32-bit Arm, as far as libfick.so asks: this system's own, with floats
 * in integer registers and sizes of files as Android has them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>

#define SOFT __attribute__((pcs("aapcs")))

static void *own(const char *library, const char *name) { return dlsym(dlopen(library, RTLD_LAZY), name); }

#ifdef LIBC
int *__errno_location(void);
int *__errno(void) { return __errno_location(); }

/* Of the same layout as Android's. */
int fstat(int file, void *facts) {
  int (*found)(int, void *) = (int (*)(int, void *))own("libc.so.6", "fstat64");
  return found(file, facts);
}

SOFT double strtod(const char *text, char **end) {
  double (*found)(const char *, char **) = (double (*)(const char *, char **))own("libc.so.6", "strtod");
  return found(text, end);
}
#endif

#ifdef LIBM
#define ONE(type, name) \
  SOFT type name(type x) { return ((type (*)(type))own("libm.so.6", #name))(x); }
#define TWO(type, name) \
  SOFT type name(type x, type y) { return ((type (*)(type, type))own("libm.so.6", #name))(x, y); }
ONE(float, erff) ONE(float, nearbyintf) ONE(float, rintf) ONE(float, tanhf) TWO(float, powf)
ONE(double, erf) ONE(double, rint) ONE(double, tanh) TWO(double, pow)
#endif
