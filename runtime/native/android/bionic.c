/* bionic.c: what the library for Android has of its own.
 *
 * The other sources are compiled with another C library's headers, which agree with Android's on 64-bit processors in
 * all that is used here but the name behind errno. Variables of threads go through __emutls_get_address, as with every
 * compiler for Android before version 10, whose linker knows no others.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define HIDDEN __attribute__((visibility("hidden")))

int *__errno(void);
HIDDEN int *__errno_location(void);
int *__errno_location(void) { return __errno(); }

#ifdef __aarch64__
/* There is code where there was none: Arm Architecture Reference Manual, B2.7.4. */
HIDDEN void __clear_cache(void *start, void *end);
void __clear_cache(void *start, void *end) {
  uint64_t lines;
  __asm__("mrs %0, ctr_el0" : "=r"(lines));
  uintptr_t data = (uintptr_t)4 << (lines >> 16 & 15), code = (uintptr_t)4 << (lines & 15);
  for (uintptr_t at = (uintptr_t)start & ~(data - 1); at < (uintptr_t)end; at += data) {
    __asm__ volatile("dc cvau, %0" ::"r"(at) : "memory");
  }
  __asm__ volatile("dsb ish" ::: "memory");
  for (uintptr_t at = (uintptr_t)start & ~(code - 1); at < (uintptr_t)end; at += code) {
    __asm__ volatile("ic ivau, %0" ::"r"(at) : "memory");
  }
  __asm__ volatile("dsb ish\n\tisb" ::: "memory");
}
#endif

/* As the compiler lays it out. */
typedef struct {
  size_t bytes, alignment;
  atomic_uintptr_t key; /* and one; 0: nobody has asked yet */
  const void *initial;  /* NULL: zeros */
} variable;

static pthread_key_t key_of(variable *one) {
  uintptr_t known = atomic_load(&one->key);
  pthread_key_t made;
  if (known) return (pthread_key_t)(known - 1);
  if (pthread_key_create(&made, free) != 0) abort();
  if (atomic_compare_exchange_strong(&one->key, &known, (uintptr_t)made + 1)) return made;
  pthread_key_delete(made); /* another thread was first */
  return (pthread_key_t)(known - 1);
}

HIDDEN void *__emutls_get_address(variable *one);
void *__emutls_get_address(variable *one) {
  pthread_key_t key = key_of(one);
  void *own = pthread_getspecific(key);
  if (own) return own;
  size_t alignment = one->alignment > sizeof(void *) ? one->alignment : sizeof(void *);
  if (posix_memalign(&own, alignment, one->bytes) != 0 || pthread_setspecific(key, own) != 0) abort();
  return one->initial ? memcpy(own, one->initial, one->bytes) : memset(own, 0, one->bytes);
}
