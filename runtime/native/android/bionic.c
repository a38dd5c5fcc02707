/* bionic.c: what the library for Android has of its own.
 *
 * The other sources are compiled with another C library's headers. On 64-bit processors these agree with Android's in
 * all that is used here but the name behind errno; what they do not agree in on 32-bit Arm stands below. Variables of
 * threads go through __emutls_get_address, as with every compiler for Android before version 10, whose linker knows no
 * others.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
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

#ifdef __arm__
/* The headers are of a later Linux, of 64-bit times and sizes of files, and floats are handed over otherwise. */
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

HIDDEN void __clear_cache(void *start, void *end);
void __clear_cache(void *start, void *end) { syscall(0x0f0002, start, end, 0); /* __ARM_NR_cacheflush */ }

typedef struct {
  long seconds, nanoseconds;
} short_time;
int androids_clock(clockid_t clock, short_time *time) __asm__("clock_gettime");
HIDDEN int later_clock(clockid_t clock, struct timespec *time) __asm__("__clock_gettime64");
int later_clock(clockid_t clock, struct timespec *time) {
  short_time found;
  int status = androids_clock(clock, &found);
  *time = (struct timespec){.tv_sec = found.seconds, .tv_nsec = found.nanoseconds};
  return status;
}

/* The kernel's struct stat64, of 104 bytes, as far as anybody here asks. */
typedef struct {
  uint32_t before[4], mode, between[7];
  int64_t size;
  uint32_t after[12];
} androids_facts;
_Static_assert(sizeof(androids_facts) == 104 && offsetof(androids_facts, size) == 48, "the kernel's layout");
int androids_fstat(int file, androids_facts *facts) __asm__("fstat");
HIDDEN int later_fstat(int file, struct stat *facts) __asm__("__fstat_time64");
int later_fstat(int file, struct stat *facts) {
  androids_facts found;
  int status = androids_fstat(file, &found);
  *facts = (struct stat){.st_mode = found.mode, .st_size = found.size};
  return status;
}

void *mmap64(void *start, size_t bytes, int rights, int kind, int file, int64_t offset);
HIDDEN void *mmap(void *start, size_t bytes, int rights, int kind, int file, off_t offset) {
  return mmap64(start, bytes, rights, kind, file, offset);
}

#define SOFT __attribute__((pcs("aapcs")))
#define ONE(type, name) \
  SOFT type androids_##name(type) __asm__(#name); \
  HIDDEN type name(type x) { return androids_##name(x); }
#define TWO(type, name) \
  SOFT type androids_##name(type, type) __asm__(#name); \
  HIDDEN type name(type x, type y) { return androids_##name(x, y); }
FICK_SOFT_FLOATS(ONE, TWO)
SOFT double androids_strtod(const char *, char **) __asm__("strtod");
HIDDEN double strtod(const char *restrict text, char **restrict end) { return androids_strtod(text, end); }
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
