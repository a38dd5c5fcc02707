/* cpu.c: which instruction sets this processor and operating system offer, by the names that Linux uses. */
#define _GNU_SOURCE
#include <string.h>

#include "internal.h"

#if defined(__x86_64__)
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum { LEAF1_ECX, LEAF7_EBX, LEAF7_ECX, LEAF7_EDX, LEAF7_1_EAX, LEAF_EXTENDED_ECX, REGISTERS };
enum { NOTHING = 0, AVX_STATE = 0x6, AVX512_STATE = 0xe6, AMX_STATE = 0x60000 };

/* state: what the operating system must save for the feature to be usable. */
static const struct {
  const char *name;
  int reg, bit;
  uint64_t state;
} known[] = {
    {"sse4_1", LEAF1_ECX, 19, NOTHING},         {"sse4_2", LEAF1_ECX, 20, NOTHING},
    {"popcnt", LEAF1_ECX, 23, NOTHING},         {"movbe", LEAF1_ECX, 22, NOTHING},
    {"fma", LEAF1_ECX, 12, AVX_STATE},          {"avx", LEAF1_ECX, 28, AVX_STATE},
    {"f16c", LEAF1_ECX, 29, AVX_STATE},         {"bmi1", LEAF7_EBX, 3, NOTHING},
    {"avx2", LEAF7_EBX, 5, AVX_STATE},          {"bmi2", LEAF7_EBX, 8, NOTHING},
    {"avx512f", LEAF7_EBX, 16, AVX512_STATE},   {"avx512dq", LEAF7_EBX, 17, AVX512_STATE},
    {"avx512cd", LEAF7_EBX, 28, AVX512_STATE},  {"avx512bw", LEAF7_EBX, 30, AVX512_STATE},
    {"avx512vl", LEAF7_EBX, 31, AVX512_STATE},  {"avx512_vnni", LEAF7_ECX, 11, AVX512_STATE},
    {"amx_bf16", LEAF7_EDX, 22, AMX_STATE},     {"avx512_fp16", LEAF7_EDX, 23, AVX512_STATE},
    {"amx_tile", LEAF7_EDX, 24, AMX_STATE},     {"amx_int8", LEAF7_EDX, 25, AMX_STATE},
    {"avx_vnni", LEAF7_1_EAX, 4, AVX_STATE},    {"avx512_bf16", LEAF7_1_EAX, 5, AVX512_STATE},
    {"fma4", LEAF_EXTENDED_ECX, 16, AVX_STATE}, {"xop", LEAF_EXTENDED_ECX, 11, AVX_STATE},
};

static uint64_t saved_state(uint32_t leaf1_ecx) {
  uint32_t low, high;
  if (!(leaf1_ecx & 1u << 27)) return 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t)high << 32 | low;
}

/* Linux saves the registers of the matrix unit only for a process that has asked for it. */
static int permitted(const char *feature) {
#ifdef __linux__
  enum { ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
  if (strcmp(feature, "amx_tile") == 0) return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
#endif
  (void)feature;
  return 1;
}

static int has(const char *feature) {
  unsigned registers[REGISTERS] = {0}, unused;
  __get_cpuid(1, &unused, &unused, &registers[LEAF1_ECX], &unused);
  __get_cpuid_count(7, 0, &unused, &registers[LEAF7_EBX], &registers[LEAF7_ECX], &registers[LEAF7_EDX]);
  __get_cpuid_count(7, 1, &registers[LEAF7_1_EAX], &unused, &unused, &unused);
  __get_cpuid(0x80000001, &unused, &unused, &registers[LEAF_EXTENDED_ECX], &unused);
  uint64_t saved = saved_state(registers[LEAF1_ECX]);
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (strcmp(known[i].name, feature) == 0) {
      return registers[known[i].reg] >> known[i].bit & 1 && (saved & known[i].state) == known[i].state;
    }
  }
  return 0;
}

#elif defined(__aarch64__) || defined(__arm__)
#include <sys/auxv.h>

static const struct {
  const char *name;
  unsigned long auxiliary;
  int bit;
} known[] = {
#ifdef __arm__
    {"neon", AT_HWCAP, 12},    {"vfpv4", AT_HWCAP, 16},
#else
    {"asimd", AT_HWCAP, 1},    {"fphp", AT_HWCAP, 9}, {"asimdhp", AT_HWCAP, 10}, {"asimddp", AT_HWCAP, 20},
    {"i8mm", AT_HWCAP2, 13},   {"bf16", AT_HWCAP2, 14},
#endif
};

static int has(const char *feature) {
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (strcmp(known[i].name, feature) == 0) return getauxval(known[i].auxiliary) >> known[i].bit & 1;
  }
  return 0;
}
static int permitted(const char *feature) {
  (void)feature;
  return 1;
}
#else
#error "fick's core knows x86-64 and Arm"
#endif

const char *fick_cpu_lacks(const char *const *features) {
  for (; *features; features++) {
    if (!has(*features) || !permitted(*features)) return *features;
  }
  return NULL;
}
