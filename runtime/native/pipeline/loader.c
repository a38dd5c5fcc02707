/* loader.c: a bundle's library in memory, without the system's dynamic linker.
 *
 * A static program has no dynamic linker, and Android's takes no library that was linked for another C library. Kernels
 * ask for little: a copy of the image in memory, its relocations, and a handful of functions of libc and libm by name,
 * which are this program's own. The core that lies in the same library is not used, so what it alone asks for (threads,
 * files, thread-local memory) is left open. The library's entry point is fick_attach.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "parts.h"

#define MOST_BYTES (1u << 30)

#if defined(__x86_64__)
enum { MACHINE = EM_X86_64, RELATIVE = R_X86_64_RELATIVE, GLOBAL = R_X86_64_GLOB_DAT, JUMP = R_X86_64_JUMP_SLOT,
       ABSOLUTE = R_X86_64_64 };
static const int thread_local_kinds[] = {R_X86_64_DTPMOD64, R_X86_64_DTPOFF64, R_X86_64_TPOFF64, R_X86_64_TLSDESC};
#elif defined(__aarch64__)
enum { MACHINE = EM_AARCH64, RELATIVE = R_AARCH64_RELATIVE, GLOBAL = R_AARCH64_GLOB_DAT, JUMP = R_AARCH64_JUMP_SLOT,
       ABSOLUTE = R_AARCH64_ABS64 };
static const int thread_local_kinds[] = {1028, 1029, 1030, R_AARCH64_TLSDESC};
#elif defined(__arm__)
enum { MACHINE = EM_ARM, RELATIVE = R_ARM_RELATIVE, GLOBAL = R_ARM_GLOB_DAT, JUMP = R_ARM_JUMP_SLOT,
       ABSOLUTE = R_ARM_ABS32 };
static const int thread_local_kinds[] = {R_ARM_TLS_DTPMOD32, R_ARM_TLS_DTPOFF32, R_ARM_TLS_TPOFF32, R_ARM_TLS_DESC};
#endif

#if UINTPTR_MAX == UINT64_MAX
#define RELOCATION_KIND ELF64_R_TYPE
#define RELOCATION_SYMBOL ELF64_R_SYM
#else
#define RELOCATION_KIND ELF32_R_TYPE
#define RELOCATION_SYMBOL ELF32_R_SYM
#endif

typedef void (*function)(void);
#define EXPORT(name) {#name, (function)name}

static const struct {
  const char *name;
  function address;
} exported[] = {
    EXPORT(memcpy), EXPORT(memmove), EXPORT(memset), EXPORT(memcmp), EXPORT(expf),   EXPORT(exp),   EXPORT(exp2f),
    EXPORT(logf),   EXPORT(log),     EXPORT(log2f),  EXPORT(sinf),   EXPORT(sin),    EXPORT(cosf),  EXPORT(cos),
    EXPORT(tanf),   EXPORT(tanhf),   EXPORT(tanh),   EXPORT(erff),   EXPORT(erf),    EXPORT(powf),  EXPORT(pow),
    EXPORT(sqrtf),  EXPORT(fmaf),    EXPORT(floorf), EXPORT(ceilf),  EXPORT(truncf), EXPORT(roundf), EXPORT(rintf),
    EXPORT(nearbyintf), EXPORT(fmodf), EXPORT(fabsf), EXPORT(fmaxf), EXPORT(fminf),
};

static void not_there(void) {
  static const char said[] = "fick: the bundle's code calls a function that this runner lacks; update the runner\n";
  if (write(2, said, sizeof said - 1)) _exit(2);
  _exit(2);
}

typedef struct {
  uint8_t *base;
  size_t bytes;
  const ElfW(Sym) *symbols;
  const char *strings;
  size_t symbols_at, strings_at, strings_bytes;
} image;

static int holds(size_t whole, uint64_t at, uint64_t size) { return at <= whole && size <= whole - at; }

static fick_status bad(const char *what) {
  return fick_fail(FICK_ERROR_FORMAT, "the bundle's library is damaged (%s); compile it anew", what);
}

static fick_status copy_segments(const uint8_t *data, size_t size, const ElfW(Ehdr) *head, image *made) {
  const ElfW(Phdr) *segments = (const ElfW(Phdr) *)(const void *)(data + head->e_phoff);
  size_t page = (size_t)getpagesize();
  for (int i = 0; i < head->e_phnum; i++) {
    const ElfW(Phdr) *s = &segments[i];
    if (s->p_type != PT_LOAD) continue;
    if (!holds(size, s->p_offset, s->p_filesz) || s->p_filesz > s->p_memsz ||
        !holds(MOST_BYTES, s->p_vaddr, s->p_memsz)) {
      return bad("a segment lies outside of it");
    }
    if (s->p_align < page) {
      return fick_fail(FICK_ERROR_FORMAT, "the bundle's code is laid out for pages of %llu bytes and here they are %zu",
                       (unsigned long long)s->p_align, page);
    }
    if (s->p_vaddr + s->p_memsz > made->bytes) made->bytes = (size_t)(s->p_vaddr + s->p_memsz);
  }
  made->bytes = (made->bytes + page - 1) & ~(page - 1);
  if (!made->bytes) return bad("it has no segments");
  void *memory = mmap(NULL, made->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return fick_fail(FICK_ERROR_MEMORY, "there is no memory for the bundle's code");
  made->base = memory;
  for (int i = 0; i < head->e_phnum; i++) {
    const ElfW(Phdr) *s = &segments[i];
    if (s->p_type == PT_LOAD) memcpy(made->base + s->p_vaddr, data + s->p_offset, (size_t)s->p_filesz);
  }
  return FICK_OK;
}

static fick_status protect(const uint8_t *data, const ElfW(Ehdr) *head, const image *made) {
  const ElfW(Phdr) *segments = (const ElfW(Phdr) *)(const void *)(data + head->e_phoff);
  size_t page = (size_t)getpagesize();
  for (int i = 0; i < head->e_phnum; i++) {
    const ElfW(Phdr) *s = &segments[i];
    if (s->p_type != PT_LOAD || s->p_flags & PF_W) continue;
    size_t start = (size_t)s->p_vaddr & ~(page - 1), end = ((size_t)(s->p_vaddr + s->p_memsz) + page - 1) & ~(page - 1);
    int flags = PROT_READ | (s->p_flags & PF_X ? PROT_EXEC : 0);
    if (mprotect(made->base + start, end - start, flags) != 0) {
      return fick_fail(FICK_ERROR_MEMORY, "this system lets no program run code from memory (%s)", strerror(errno));
    }
  }
  __builtin___clear_cache((char *)made->base, (char *)made->base + made->bytes);
  return FICK_OK;
}

/* Of a symbol that something else has to bring: a function of ours, or nothing yet. */
static int resolve(const image *made, uint64_t index, uintptr_t *address) {
  if (!holds(made->bytes, made->symbols_at + index * sizeof(ElfW(Sym)), sizeof(ElfW(Sym)))) return 0;
  const ElfW(Sym) *symbol = &made->symbols[index];
  if (symbol->st_shndx != SHN_UNDEF) {
    *address = (uintptr_t)made->base + (uintptr_t)symbol->st_value;
    return symbol->st_value < made->bytes;
  }
  if (symbol->st_name >= made->strings_bytes) return 0;
  const char *name = made->strings + symbol->st_name;
  if (!memchr(name, 0, made->strings_bytes - symbol->st_name)) return 0;
  *address = symbol->st_info >> 4 == STB_WEAK ? 0 : (uintptr_t)not_there;
  for (size_t i = 0; i < sizeof exported / sizeof *exported; i++) {
    if (strcmp(exported[i].name, name) == 0) *address = (uintptr_t)exported[i].address;
  }
  return 1;
}

static fick_status relocate(const image *made, uint64_t at, uint64_t size, int explicit_addends) {
  size_t each = explicit_addends ? sizeof(ElfW(Rela)) : sizeof(ElfW(Rel));
  if (!holds(made->bytes, at, size)) return bad("its relocations lie outside of it");
  for (uint64_t i = 0; i + each <= size; i += each) {
    ElfW(Rela) one = {0, 0, 0};
    memcpy(&one, made->base + at + i, each);
    int kind = (int)RELOCATION_KIND(one.r_info), local = 0;
    if (!holds(made->bytes, one.r_offset, sizeof(uintptr_t))) return bad("a relocation lies outside of it");
    for (size_t j = 0; j < sizeof thread_local_kinds / sizeof *thread_local_kinds; j++) {
      local |= kind == thread_local_kinds[j];
    }
    if (local) continue;
    uintptr_t *place = (uintptr_t *)(void *)(made->base + one.r_offset), address = (uintptr_t)made->base;
    uintptr_t addend = explicit_addends ? (uintptr_t)one.r_addend : kind == JUMP || kind == GLOBAL ? 0 : *place;
    if (kind != RELATIVE && kind != GLOBAL && kind != JUMP && kind != ABSOLUTE) {
      return fick_fail(FICK_ERROR_FORMAT,
                       "the bundle's library has a relocation of kind %d, which is not known here", kind);
    }
    if (kind != RELATIVE && !resolve(made, RELOCATION_SYMBOL(one.r_info), &address)) {
      return bad("a symbol lies outside of it");
    }
    *place = address + addend;
  }
  return FICK_OK;
}

static fick_status link_image(const uint8_t *data, const ElfW(Ehdr) *head, image *made) {
  const ElfW(Phdr) *segments = (const ElfW(Phdr) *)(const void *)(data + head->e_phoff);
  uint64_t found[DT_NUM] = {0}, at = 0, size = 0;
  for (int i = 0; i < head->e_phnum; i++) {
    if (segments[i].p_type == PT_DYNAMIC) at = segments[i].p_vaddr, size = segments[i].p_memsz;
  }
  if (!size || !holds(made->bytes, at, size)) return bad("it has no dynamic section");
  for (uint64_t i = 0; i + sizeof(ElfW(Dyn)) <= size; i += sizeof(ElfW(Dyn))) {
    ElfW(Dyn) entry;
    memcpy(&entry, made->base + at + i, sizeof entry);
    if (entry.d_tag == DT_NULL) break;
    if (entry.d_tag > 0 && entry.d_tag < DT_NUM) found[entry.d_tag] = entry.d_un.d_val;
  }
  if (!holds(made->bytes, found[DT_STRTAB], found[DT_STRSZ]) || found[DT_SYMTAB] > made->bytes ||
      found[DT_SYMTAB] % sizeof(ElfW(Addr))) {
    return bad("its symbols lie outside of it");
  }
  made->symbols_at = (size_t)found[DT_SYMTAB];
  made->symbols = (const ElfW(Sym) *)(const void *)(made->base + found[DT_SYMTAB]);
  made->strings = (const char *)made->base + found[DT_STRTAB];
  made->strings_bytes = (size_t)found[DT_STRSZ];
  TRY(relocate(made, found[DT_RELA], found[DT_RELASZ], 1));
  TRY(relocate(made, found[DT_REL], found[DT_RELSZ], 0));
  return relocate(made, found[DT_JMPREL], found[DT_PLTRELSZ], found[DT_PLTREL] == DT_RELA);
}

fick_status fick_library_load(const uint8_t *data, uint64_t size, fick_library *library, const fick_program **program) {
  static const fick_hooks hooks = {fick_pool_launch, fick_kernel_raised};
  const ElfW(Ehdr) *head = (const ElfW(Ehdr) *)(const void *)data;
  image made = {NULL, 0, NULL, NULL, 0, 0, 0};
  if (size < sizeof *head || size > MOST_BYTES || memcmp(head->e_ident, ELFMAG, SELFMAG) != 0) {
    return bad("it is no ELF file");
  }
  if (head->e_machine != MACHINE || head->e_ident[EI_CLASS] != (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32)) {
    return fick_fail(FICK_ERROR_CPU, "the bundle's library is for another processor; compile it for this machine");
  }
  if (head->e_phentsize != sizeof(ElfW(Phdr)) || head->e_phoff % sizeof(ElfW(Addr)) ||
      !holds((size_t)size, head->e_phoff, (uint64_t)head->e_phnum * sizeof(ElfW(Phdr)))) {
    return bad("its segments lie outside of it");
  }
  fick_status status = copy_segments(data, (size_t)size, head, &made);
  if (status == FICK_OK) status = link_image(data, head, &made);
  if (status == FICK_OK && (!head->e_entry || head->e_entry >= made.bytes)) {
    status = fick_fail(FICK_ERROR_FORMAT, "the bundle was compiled by an older fick; compile it anew");
  }
  if (status == FICK_OK) status = protect(data, head, &made);
  if (status == FICK_OK) {
    union {
      const uint8_t *address;
      const fick_program *(*attach)(uint32_t, const fick_hooks *);
    } entry = {made.base + head->e_entry};
    *program = entry.attach(FICK_PLAN_VERSION, &hooks);
    if (!*program) {
      status = fick_fail(FICK_ERROR_VERSION,
                         "the bundle was compiled by another version of fick than this runner; update both");
    }
  }
  *library = (fick_library){made.base, made.bytes};
  if (status != FICK_OK) fick_library_unload(library);
  return status;
}

void fick_library_unload(fick_library *library) {
  if (library->image) munmap(library->image, library->bytes);
  *library = (fick_library){NULL, 0};
}
