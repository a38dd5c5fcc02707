/* png.c: PNG files (ISO/IEC 15948) of 8-bit colours.
 *
 * Rows are filtered by their left or upper neighbour, whichever leaves less, and compressed by deflate (RFC 1951) with
 * its fixed codes: matches of the bytes three or more back, found through a table of the last place of three bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "parts.h"

#define MOST_SIDE 65535
#define WINDOW 32768
#define HASHES 32768

typedef struct {
  uint8_t *bytes;
  size_t size;
  uint32_t held;
  int bits;
} packer;

static void put_bits(packer *p, uint32_t value, int count) {
  p->held |= value << p->bits;
  for (p->bits += count; p->bits >= 8; p->bits -= 8, p->held >>= 8) p->bytes[p->size++] = (uint8_t)p->held;
}

/* Codes stand with their highest bit first. */
static void put_code(packer *p, uint32_t code, int count) {
  uint32_t turned = 0;
  for (int i = 0; i < count; i++) turned |= (code >> i & 1) << (count - 1 - i);
  put_bits(p, turned, count);
}

static void put_symbol(packer *p, uint32_t symbol) {
  if (symbol < 144) put_code(p, 0x30 + symbol, 8);
  else if (symbol < 256) put_code(p, 0x190 + symbol - 144, 9);
  else if (symbol < 280) put_code(p, symbol - 256, 7);
  else put_code(p, 0xc0 + symbol - 280, 8);
}

static void put_match(packer *p, uint32_t length, uint32_t distance) {
  static const uint16_t lengths[] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                     31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
  uint32_t symbol = 28, place = 29;
  while (lengths[symbol] > length) symbol--;
  put_symbol(p, 257 + symbol);
  put_bits(p, length - lengths[symbol], symbol < 8 || symbol == 28 ? 0 : (int)(symbol - 4) / 4);
  /* Distances from 1: two codes for each number of extra bits. */
  uint32_t base;
  do {
    base = place < 4 ? place + 1 : (2 + (place & 1)) * (1u << (place / 2 - 1)) + 1;
  } while (base > distance && place--);
  put_code(p, place, 5);
  put_bits(p, distance - base, place < 4 ? 0 : (int)place / 2 - 1);
}

static size_t same(const uint8_t *a, const uint8_t *b, size_t most) {
  size_t length = 0;
  while (length < most && a[length] == b[length]) length++;
  return length;
}

/* `last` has room for HASHES places. */
static void deflate(packer *p, const uint8_t *data, size_t size, size_t *last) {
  for (size_t i = 0; i < HASHES; i++) last[i] = SIZE_MAX;
  put_bits(p, 3, 3); /* the last block, fixed codes */
  for (size_t at = 0; at < size;) {
    size_t length = 0, from = SIZE_MAX;
    if (size - at >= 3) {
      uint32_t hash = ((uint32_t)data[at] << 16 | (uint32_t)data[at + 1] << 8 | data[at + 2]) * 2654435761u >> 17;
      from = last[hash];
      last[hash] = at;
      if (from != SIZE_MAX && at - from <= WINDOW) {
        length = same(data + from, data + at, size - at < 258 ? size - at : 258);
      }
    }
    if (length >= 3) put_match(p, (uint32_t)length, (uint32_t)(at - from));
    else put_symbol(p, data[at]);
    at += length >= 3 ? length : 1;
  }
  put_symbol(p, 256);
  put_bits(p, 0, 7);
}

static uint32_t adler(const uint8_t *data, size_t size) {
  uint32_t a = 1, b = 0;
  for (size_t i = 0; i < size; i++) {
    a = (a + data[i]) % 65521;
    b = (b + a) % 65521;
  }
  return b << 16 | a;
}

static void big_endian(uint8_t *at, uint32_t number) {
  for (int i = 0; i < 4; i++) at[i] = (uint8_t)(number >> (24 - 8 * i));
}

/* A chunk in place: its data stands at at + 8. */
static size_t close_chunk(uint8_t *at, const char kind[4], size_t size) {
  big_endian(at, (uint32_t)size);
  memcpy(at + 4, kind, 4);
  uint32_t checksum = 0xffffffff;
  for (size_t i = 4; i < size + 8; i++) {
    checksum ^= at[i];
    for (int bit = 0; bit < 8; bit++) checksum = checksum >> 1 ^ (checksum & 1 ? 0xedb88320 : 0);
  }
  big_endian(at + 8 + size, ~checksum);
  return size + 12;
}

/* Each row after its filter: 1, less the pixel to the left, or 2, less the pixel above. */
static void filter(const uint8_t *pixels, size_t row, size_t height, uint8_t *out) {
  for (size_t y = 0; y < height; y++, pixels += row, out += row + 1) {
    uint64_t left = 0, up = 0;
    for (int pass = 0; pass < 2; pass++) {
      int upper = up < left;
      for (size_t x = 0; x < row; x++) {
        uint8_t beside = (uint8_t)(pixels[x] - (x < 3 ? 0 : pixels[x - 3]));
        uint8_t below = (uint8_t)(pixels[x] - (y ? *(pixels + x - row) : 0));
        if (!pass) left += (uint64_t)abs((int8_t)beside), up += (uint64_t)abs((int8_t)below);
        else out[x + 1] = upper ? below : beside;
      }
      out[0] = upper ? 2 : 1;
    }
  }
}

static size_t encode(const uint8_t *pixels, size_t width, size_t height, uint8_t *rows, uint8_t *out, size_t *last) {
  size_t row = 3 * width, size = height * (row + 1);
  memcpy(out, "\x89PNG\r\n\x1a\n", 8);
  uint8_t *at = out + 8;
  big_endian(at + 8, (uint32_t)width);
  big_endian(at + 12, (uint32_t)height);
  memcpy(at + 16, "\x08\x02\0\0\0", 5);
  at += close_chunk(at, "IHDR", 13);
  filter(pixels, row, height, rows);
  packer p = {at + 8, 2, 0, 0};
  memcpy(p.bytes, "\x78\x01", 2);
  deflate(&p, rows, size, last);
  big_endian(p.bytes + p.size, adler(rows, size));
  at += close_chunk(at, "IDAT", p.size + 4);
  return (size_t)(at + close_chunk(at, "IEND", 0) - out);
}

fick_status fick_png_write(const char *path, const uint8_t *pixels, int32_t width, int32_t height) {
  if (!path || !pixels || width < 1 || height < 1 || width > MOST_SIDE || height > MOST_SIDE) {
    return fick_fail(FICK_ERROR_ARGUMENT, "fick_png_write: %d x %d pixels cannot be written", width, height);
  }
  size_t size = (size_t)height * (3 * (size_t)width + 1);
  /* A byte takes nine bits at most, and three that are found again 31. */
  uint8_t *rows = malloc(size), *out = malloc(size + size / 2 + 128);
  size_t *last = malloc(HASHES * sizeof *last);
  fick_status status = FICK_OK;
  if (rows && out && last) {
    status = fick_file_write(path, out, encode(pixels, (size_t)width, (size_t)height, rows, out, last));
  }
  else status = fick_fail(FICK_ERROR_MEMORY, "there is no memory for a picture of %d x %d", width, height);
  free(rows);
  free(out);
  free(last);
  return status;
}
