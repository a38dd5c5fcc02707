/* bundle.c: check a bundle against its manifest and against the library that is to run it. */
#include <string.h>

#include "internal.h"

static int same_digest(const uint8_t digest[SHA256_BYTES], const char *hex) {
  static const char digits[] = "0123456789abcdef";
  for (int i = 0; i < SHA256_BYTES; i++) {
    if (hex[2 * i] != digits[digest[i] >> 4] || hex[2 * i + 1] != digits[digest[i] & 15]) return 0;
  }
  return hex[2 * SHA256_BYTES] == 0;
}

fick_status fick_bundle_entry(const fick_entry *entry, fick_json entries, int verify, fick_passed passed) {
  char name[128], wanted[2 * SHA256_BYTES + 1];
  fick_json facts, value;
  int64_t bytes;
  if (entry->name_size >= sizeof name || memchr(entry->name, 0, entry->name_size)) {
    return fick_fail(FICK_ERROR_FORMAT, "the bundle has an entry with a damaged name; copy or compile it anew");
  }
  memcpy(name, entry->name, entry->name_size);
  name[entry->name_size] = 0;
  if (!fick_json_member(entries, name, &facts) || !fick_json_member(facts, "bytes", &value) ||
      !fick_json_integer(value, &bytes) || !fick_json_member(facts, "sha256", &value) ||
      !fick_json_string(value, wanted, sizeof wanted) || strlen(wanted) != 2 * SHA256_BYTES) {
    return fick_fail(FICK_ERROR_FORMAT, "the bundle's manifest does not list entry %s; compile it anew", name);
  }
  if ((uint64_t)bytes != entry->size) {
    return fick_fail(FICK_ERROR_DAMAGED, "entry %s of the bundle has %llu bytes where its manifest says %lld", name,
                     (unsigned long long)entry->size, (long long)bytes);
  }
  if (verify) {
    uint8_t digest[SHA256_BYTES];
    fick_sha256(entry->data, entry->size, passed, digest);
    if (!same_digest(digest, wanted)) {
      return fick_fail(FICK_ERROR_DAMAGED, "entry %s of the bundle is damaged (its SHA-256 differs); copy it anew",
                       name);
    }
  }
  return FICK_OK;
}

/* A safetensors file: the size of a JSON header, the header, the data. */
static fick_status find_weights(const fick_zip *zip, const fick_program *program, fick_contents *contents) {
  const fick_entry *weights = fick_zip_find(zip, "weights.safetensors");
  uint64_t header = 0;
  if (!weights || weights->size < 8) {
    return fick_fail(FICK_ERROR_FORMAT, "the bundle has no weights.safetensors; compile it anew");
  }
  for (int i = 7; i >= 0; i--) header = header << 8 | weights->data[i];
  if (header > weights->size - 8 || weights->size - 8 - header != program->weights_bytes) {
    return fick_fail(FICK_ERROR_FORMAT, "the bundle's weights are not the %llu bytes that its code reads",
                     (unsigned long long)program->weights_bytes);
  }
  contents->weights = weights->data + 8 + header;
  if ((uintptr_t)contents->weights % 64 != 0) {
    return fick_fail(FICK_ERROR_FORMAT, "the bundle's weights are not aligned to 64 bytes; compile it anew");
  }
  return FICK_OK;
}

fick_status fick_bundle_manifest(const fick_zip *zip, fick_json *found) {
  fick_json root, value;
  char text[80];
  int64_t version;
  const fick_entry *manifest = fick_zip_find(zip, "manifest.json");
  if (manifest && !fick_zip_intact(manifest)) {
    return fick_fail(FICK_ERROR_DAMAGED,
                     "entry manifest.json of the bundle is damaged (its CRC differs); copy it anew");
  }
  if (!manifest || !fick_json_valid((const char *)manifest->data, manifest->size)) {
    return fick_fail(FICK_ERROR_FORMAT, "the file is not a fick bundle: manifest.json is missing or damaged");
  }
  root = (fick_json){(const char *)manifest->data, (const char *)manifest->data + manifest->size};
  if (!fick_json_member(root, "format", &value) || !fick_json_string(value, text, sizeof text) ||
      strcmp(text, "fick-bundle") != 0 || !fick_json_member(root, "format_version", &value) ||
      !fick_json_integer(value, &version) || !fick_json_member(root, "entries", &value)) {
    return fick_fail(FICK_ERROR_FORMAT, "the file is not a fick bundle: its manifest lacks format and entries");
  }
  if (version > FICK_FORMAT_VERSION) {
    return fick_fail(FICK_ERROR_VERSION,
                     "the bundle has format version %lld and this runtime reads up to %d; update fick",
                     (long long)version, FICK_FORMAT_VERSION);
  }
  *found = root;
  return FICK_OK;
}

fick_status fick_bundle_read(const uint8_t *data, uint64_t size, int verify, fick_passed passed,
                             const fick_program *program, fick_contents *contents) {
  fick_zip zip;
  fick_json root = {NULL, NULL}, entries = root, value;
  char text[80];
  fick_status status = fick_zip_read(data, size, &zip);
  if (status == FICK_OK) status = fick_bundle_manifest(&zip, &root);
  if (status != FICK_OK) return status;
  if (!fick_json_member(root, "program_id", &value) || !fick_json_string(value, text, sizeof text) ||
      strcmp(text, program->program_id) != 0) {
    return fick_fail(FICK_ERROR_FORMAT, "the bundle was compiled for another library than this one; load its own");
  }
  fick_json_member(root, "entries", &entries);
  for (int32_t i = 0; i < zip.count; i++) {
    if (zip.entries[i].data == (const uint8_t *)root.at) continue;
    status = fick_bundle_entry(&zip.entries[i], entries, verify, passed);
    if (status != FICK_OK) return status;
  }
  const fick_entry *source = fick_zip_find(&zip, "code/kernels.cl");
  if (program->backend && !source) {
    return fick_fail(FICK_ERROR_FORMAT, "the bundle has no code/kernels.cl; compile it anew");
  }
  contents->kernels = source ? source->data : NULL;
  contents->kernels_bytes = source ? source->size : 0;
  return find_weights(&zip, program, contents);
}
