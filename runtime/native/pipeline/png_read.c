/* png_read.c: PNG files (ISO/IEC 15948) of 8 bits a channel as colours, transparency over white. */
#include <stdlib.h>
#include <string.h>

#include "parts.h"

/* Bytes of a pixel by the number of its kind; 0: there is none. */
static const uint8_t channels_of[] = {1, 0, 3, 1, 2, 0, 4};
enum { PALETTE = 3 };

typedef struct {
  size_t width, height, channels;
  int kind;
  uint8_t palette[256][4];
  uint8_t *joined; /* of all IDAT chunks */
  size_t size;
} picture;

static uint32_t number(const uint8_t *at) {
  return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static fick_status unreadable(const char *path) {
  return fick_fail(FICK_ERROR_FORMAT, "%s is no PNG, or damaged; give another picture", path);
}

static fick_status read_header(const char *path, const uint8_t *data, size_t size, picture *p) {
  if (size < 33 || memcmp(data, "\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 16) != 0) return unreadable(path);
  p->width = number(data + 16);
  p->height = number(data + 20);
  p->kind = data[25];
  p->channels = p->kind < 7 ? channels_of[p->kind] : 0;
  if (!p->channels) return unreadable(path);
  if (data[24] == 8 && !data[28]) return FICK_OK;
  return fick_fail(FICK_ERROR_FORMAT, "%s has %s; save it as a plain PNG of 8 bits a channel", path,
                   data[28] ? "its rows interlaced" : "other than 8 bits a channel");
}

static int read_chunks(const uint8_t *data, size_t size, picture *p) {
  size_t colours = 0;
  for (size_t at = 8; size - at >= 12;) {
    size_t length = number(data + at);
    const uint8_t *kind = data + at + 4, *inside = data + at + 8;
    if (length > size - at - 12) return 0;
    if (memcmp(kind, "IEND", 4) == 0) return p->size && (p->kind != PALETTE || colours);
    if (memcmp(kind, "IDAT", 4) == 0) {
      memcpy(p->joined + p->size, inside, length);
      p->size += length;
    } else if (memcmp(kind, "PLTE", 4) == 0) {
      if (length % 3 || length > 768) return 0;
      colours = length / 3;
      for (size_t i = 0; i < colours; i++) {
        memcpy(p->palette[i], inside + 3 * i, 3);
        p->palette[i][3] = 255;
      }
    } else if (memcmp(kind, "tRNS", 4) == 0 && p->kind == PALETTE) {
      for (size_t i = 0; i < length && i < colours; i++) p->palette[i][3] = inside[i];
    }
    at += length + 12;
  }
  return 0;
}

/* Whichever of left, above and left above is nearest to left + above - left above. */
static int paeth(int left, int up, int corner) {
  int from_left = abs(up - corner), from_up = abs(left - corner), from_corner = abs(left + up - 2 * corner);
  if (from_left <= from_up && from_left <= from_corner) return left;
  return from_up <= from_corner ? up : corner;
}

static int unfilter(uint8_t *rows, const picture *p) {
  size_t row = p->width * p->channels;
  for (size_t y = 0; y < p->height; y++) {
    uint8_t *at = rows + y * (row + 1) + 1, kind = at[-1];
    if (kind > 4) return 0;
    for (size_t x = 0; x < row; x++) {
      int left = x < p->channels ? 0 : at[x - p->channels], up = y ? *(at + x - row - 1) : 0;
      int corner = x < p->channels || !y ? 0 : *(at + x - row - 1 - p->channels);
      int guess[] = {0, left, up, (left + up) / 2, paeth(left, up, corner)};
      at[x] = (uint8_t)(at[x] + guess[kind]);
    }
  }
  return 1;
}

static void colour(const picture *p, const uint8_t *from, uint8_t *out) {
  const uint8_t *pixel = p->kind == PALETTE ? p->palette[*from] : from;
  int grey = p->channels < 3 && p->kind != PALETTE;
  int alpha = p->kind == PALETTE ? pixel[3] : p->channels % 2 ? 255 : from[p->channels - 1];
  for (int i = 0; i < 3; i++) out[i] = (uint8_t)((pixel[grey ? 0 : i] * alpha + 255 * (255 - alpha) + 127) / 255);
}

static fick_status decode(const char *path, const fick_source *file, picture *p, uint8_t *rows, uint8_t *pixels) {
  size_t size = p->height * (p->width * p->channels + 1);
  if (!read_chunks(file->data, (size_t)file->bytes, p) || !fick_inflate(p->joined, p->size, rows, size) ||
      !unfilter(rows, p)) {
    return unreadable(path);
  }
  for (size_t y = 0; y < p->height; y++) {
    const uint8_t *row = rows + y * (p->width * p->channels + 1) + 1;
    for (size_t x = 0; x < p->width; x++) colour(p, row + x * p->channels, pixels + 3 * (y * p->width + x));
  }
  return FICK_OK;
}

fick_status fick_png_read(const char *path, uint8_t *pixels, int32_t width, int32_t height) {
  picture p = {0};
  fick_source file;
  if (!path || !pixels) return fick_fail(FICK_ERROR_ARGUMENT, "fick_png_read: an argument is NULL");
  TRY(fick_source_map(path, &file));
  fick_status status = read_header(path, file.data, (size_t)file.bytes, &p);
  if (status == FICK_OK && (p.width != (size_t)width || p.height != (size_t)height)) {
    status = fick_fail(FICK_ERROR_ARGUMENT,
                       "%s has %zu x %zu pixels and pictures of the bundle %d x %d; resize it",
                       path, p.width, p.height, width, height);
  }
  if (status == FICK_OK) {
    uint8_t *rows = malloc(p.height * (p.width * p.channels + 1));
    p.joined = malloc((size_t)file.bytes);
    status = rows && p.joined ? decode(path, &file, &p, rows, pixels)
                              : fick_fail(FICK_ERROR_MEMORY, "there is no memory for %s", path);
    free(rows);
    free(p.joined);
  }
  fick_source_close(&file);
  return status;
}
