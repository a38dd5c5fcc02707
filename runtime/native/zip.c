/* zip.c: the directory of a zip file whose entries are all stored, with zip64 sizes where they are needed. */
#include <string.h>

#include "internal.h"

#define END_BYTES 22
#define END64_BYTES 56
#define LOCATOR_BYTES 20
#define CENTRAL_BYTES 46
#define LOCAL_BYTES 30

static uint64_t number(const uint8_t *at, int bytes) {
  uint64_t value = 0;
  for (int i = bytes - 1; i >= 0; i--) value = value << 8 | at[i];
  return value;
}

static fick_status bad(const char *what) {
  return fick_fail(FICK_ERROR_FORMAT, "the file is not a fick bundle: its %s is damaged; copy or compile it anew",
                   what);
}

typedef struct {
  uint64_t offset, size, count, limit;
} directory;

static fick_status find_directory(const uint8_t *data, uint64_t size, directory *found) {
  if (size < END_BYTES) return bad("end");
  uint64_t end = size - END_BYTES;
  if (memcmp(data + end, "PK\5\6", 4) != 0 || number(data + end + 20, 2) != 0) return bad("end");
  *found = (directory){number(data + end + 16, 4), number(data + end + 12, 4), number(data + end + 10, 2), end};
  if (found->offset == 0xffffffff || found->size == 0xffffffff || found->count == 0xffff) {
    if (end < LOCATOR_BYTES || memcmp(data + end - LOCATOR_BYTES, "PK\6\7", 4) != 0) return bad("zip64 locator");
    uint64_t end64 = number(data + end - LOCATOR_BYTES + 8, 8);
    if (end64 > end || end - end64 < END64_BYTES + LOCATOR_BYTES) return bad("zip64 locator");
    if (memcmp(data + end64, "PK\6\6", 4) != 0) return bad("zip64 end");
    *found = (directory){number(data + end64 + 48, 8), number(data + end64 + 40, 8), number(data + end64 + 32, 8),
                         end64};
  }
  if (found->offset > found->limit || found->size > found->limit - found->offset) return bad("directory");
  return FICK_OK;
}

/* The zip64 extra field holds, in this order, those of size, stored size and offset that read 0xffffffff. */
static int extended(const uint8_t *extra, uint64_t extra_size, uint64_t *fields[3]) {
  while (extra_size >= 4) {
    uint64_t id = number(extra, 2), length = number(extra + 2, 2);
    if (length > extra_size - 4) return 0;
    if (id == 1) {
      const uint8_t *at = extra + 4;
      for (int i = 0; i < 3; i++) {
        if (*fields[i] != 0xffffffff) continue;
        if ((uint64_t)(extra + 4 + length - at) < 8) return 0;
        *fields[i] = number(at, 8);
        at += 8;
      }
    }
    extra += 4 + length;
    extra_size -= 4 + length;
  }
  return 1;
}

fick_status fick_zip_read(const uint8_t *data, uint64_t size, fick_zip *zip) {
  directory found;
  fick_status status = find_directory(data, size, &found);
  if (status != FICK_OK) return status;
  const uint8_t *at = data + found.offset, *end = at + found.size;
  zip->count = 0;
  for (uint64_t i = 0; i < found.count; i++) {
    if ((uint64_t)(end - at) < CENTRAL_BYTES || memcmp(at, "PK\1\2", 4) != 0) return bad("directory");
    uint64_t name_size = number(at + 28, 2), extra_size = number(at + 30, 2), comment_size = number(at + 32, 2);
    uint64_t stored = number(at + 20, 4), plain = number(at + 24, 4), local = number(at + 42, 4);
    if ((uint64_t)(end - at) < CENTRAL_BYTES + name_size + extra_size + comment_size) return bad("directory");
    uint64_t *fields[3] = {&plain, &stored, &local};
    if (!extended(at + CENTRAL_BYTES + name_size, extra_size, fields)) return bad("directory");
    if (number(at + 10, 2) != 0 || (number(at + 8, 2) & 1) || stored != plain) return bad("compression");
    if (zip->count == (int32_t)(sizeof zip->entries / sizeof *zip->entries)) return bad("number of entries");
    if (local > found.offset || found.offset - local < LOCAL_BYTES) return bad("entry");
    const uint8_t *header = data + local;
    if (memcmp(header, "PK\3\4", 4) != 0 || number(header + 26, 2) != name_size) return bad("entry");
    uint64_t start = LOCAL_BYTES + name_size + number(header + 28, 2), room = found.offset - local;
    if (start > room || plain > room - start) return bad("entry");
    if (memcmp(header + LOCAL_BYTES, at + CENTRAL_BYTES, name_size) != 0) return bad("entry");
    zip->entries[zip->count++] =
        (fick_entry){(const char *)at + CENTRAL_BYTES, (uint32_t)name_size, header + start, plain,
                     (uint32_t)number(at + 16, 4)};
    at += CENTRAL_BYTES + name_size + extra_size + comment_size;
  }
  return at == end ? FICK_OK : bad("directory");
}

/* For the manifest alone, which has no SHA-256 of its own: a bit at a time is fast enough. */
int fick_zip_intact(const fick_entry *entry) {
  uint32_t checksum = 0xffffffff;
  for (uint64_t i = 0; i < entry->size; i++) {
    checksum ^= entry->data[i];
    for (int bit = 0; bit < 8; bit++) checksum = checksum >> 1 ^ (checksum & 1 ? 0xedb88320 : 0);
  }
  return ~checksum == entry->checksum;
}

const fick_entry *fick_zip_find(const fick_zip *zip, const char *name) {
  size_t size = strlen(name);
  for (int32_t i = 0; i < zip->count; i++) {
    if (zip->entries[i].name_size == size && memcmp(zip->entries[i].name, name, size) == 0) return &zip->entries[i];
  }
  return NULL;
}
