/* soft_floats.h: read before every source of the library for Android on 32-bit Arm.
 *
 * Android hands floats over in integer registers there; fick and the kernels in bundles, as Linux does, in those of the
 * floating-point unit. So what Android has that takes or gives floats goes by a name of its own, under which bionic.c
 * leads there. All other functions of libm come from the compiler's library, which does as fick does.
 */
#ifndef FICK_SOFT_FLOATS_H
#define FICK_SOFT_FLOATS_H

#define FICK_SOFT_FLOATS(ONE, TWO) \
  ONE(float, erff) ONE(float, nearbyintf) ONE(float, rintf) ONE(float, tanhf) TWO(float, powf) \
  ONE(double, erf) ONE(double, rint) ONE(double, tanh) TWO(double, pow)

#define FICK_ONE(type, name) type name(type) __asm__("fick_" #name);
#define FICK_TWO(type, name) type name(type, type) __asm__("fick_" #name);
FICK_SOFT_FLOATS(FICK_ONE, FICK_TWO)
double strtod(const char *restrict, char **restrict) __asm__("fick_strtod");

#endif
