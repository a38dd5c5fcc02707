/* inflate.c: what deflate (RFC 1951) packed, in the wrapping of zlib (RFC 1950). */
#include <string.h>

#include "parts.h"

enum { MOST_BITS = 15, LENGTH_CODES = 19, LITERALS = 288, DISTANCES = 30, END = 256, WINDOW = 32768 };

typedef struct {
  const uint8_t *at, *end;
  uint32_t held;
  int bits, short_of; /* whether more was asked for than there is */
} packed;

/* How many codes there are of each length, and their symbols, shorter codes first: within a length codes count up. */
typedef struct {
  uint16_t counts[MOST_BITS + 1], symbols[LITERALS];
} code;

static uint32_t take(packed *p, int bits) {
  for (; p->bits < bits; p->bits += 8) {
    if (p->at == p->end) p->short_of = 1;
    else p->held |= (uint32_t)*p->at++ << p->bits;
  }
  uint32_t value = p->held & ((1u << bits) - 1);
  p->held >>= bits;
  p->bits -= bits;
  return value;
}

static int make_code(code *made, const uint8_t *lengths, int count) {
  uint16_t places[MOST_BITS + 2] = {0};
  int32_t free_codes = 1;
  memset(made, 0, sizeof *made);
  for (int i = 0; i < count; i++) made->counts[lengths[i]] += lengths[i] > 0;
  for (int length = 1; length <= MOST_BITS; length++) {
    free_codes = 2 * free_codes - made->counts[length];
    if (free_codes < 0) return 0;
    places[length + 1] = (uint16_t)(places[length] + made->counts[length]);
  }
  for (int i = 0; i < count; i++) {
    if (lengths[i]) made->symbols[places[lengths[i]]++] = (uint16_t)i;
  }
  return 1;
}

static int symbol_of(packed *p, const code *of) {
  int32_t number = 0, least = 0, before = 0;
  for (int length = 1; length <= MOST_BITS && !p->short_of; length++) {
    number = number << 1 | (int32_t)take(p, 1);
    if (number - least < of->counts[length]) return of->symbols[before + number - least];
    before += of->counts[length];
    least = (least + of->counts[length]) << 1;
  }
  return -1;
}

static int fixed_codes(code *literals, code *distances) {
  uint8_t lengths[LITERALS];
  for (int i = 0; i < LITERALS; i++) lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
  make_code(literals, lengths, LITERALS);
  memset(lengths, 5, DISTANCES);
  return make_code(distances, lengths, DISTANCES);
}

static int described_codes(packed *p, code *literals, code *distances) {
  static const uint8_t order[LENGTH_CODES] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
  uint8_t lengths[LITERALS + 32] = {0};
  int literal_count = 257 + (int)take(p, 5), distance_count = 1 + (int)take(p, 5), count = 4 + (int)take(p, 4);
  for (int i = 0; i < count; i++) lengths[order[i]] = (uint8_t)take(p, 3);
  if (literal_count > 286 || distance_count > DISTANCES || !make_code(literals, lengths, LENGTH_CODES)) return 0;
  memset(lengths, 0, sizeof lengths);
  for (int i = 0; i < literal_count + distance_count;) {
    int symbol = symbol_of(p, literals), times = 1;
    uint8_t length = (uint8_t)symbol;
    if (symbol < 0 || (symbol == 16 && !i)) return 0;
    if (symbol == 16) length = lengths[i - 1], times = 3 + (int)take(p, 2);
    if (symbol == 17) length = 0, times = 3 + (int)take(p, 3);
    if (symbol == 18) length = 0, times = 11 + (int)take(p, 7);
    if (i + times > literal_count + distance_count) return 0;
    while (times--) lengths[i++] = length;
  }
  return lengths[END] && make_code(literals, lengths, literal_count) &&
         make_code(distances, lengths + literal_count, distance_count);
}

#define DAMAGED SIZE_MAX

/* Where in `out` the block ends; DAMAGED if it does not. */
static size_t compressed(packed *p, const code *literals, const code *distances, uint8_t *out, size_t at, size_t room) {
  for (;;) {
    int symbol = symbol_of(p, literals);
    if (symbol < 0 || symbol > 285 || p->short_of) return DAMAGED;
    if (symbol == END) return at;
    if (symbol < END) {
      if (at == room) return DAMAGED;
      out[at++] = (uint8_t)symbol;
      continue;
    }
    /* Codes of a kind share their highest bits by fours for lengths, by twos for distances. */
    int of_length = symbol - 257, extra = of_length < 8 || of_length == 28 ? 0 : of_length / 4 - 1;
    size_t length = of_length == 28  ? 258
                    : of_length < 8 ? (size_t)of_length + 3
                                    : ((size_t)(4 + of_length % 4) << extra) + 3;
    length += take(p, extra);
    int of_distance = symbol_of(p, distances);
    if (of_distance < 0 || of_distance >= DISTANCES) return DAMAGED;
    extra = of_distance < 4 ? 0 : of_distance / 2 - 1;
    size_t back = of_distance < 4 ? (size_t)of_distance + 1 : ((size_t)(2 + of_distance % 2) << extra) + 1;
    back += take(p, extra);
    if (p->short_of || back > at || length > room - at) return DAMAGED;
    for (; length--; at++) out[at] = out[at - back];
  }
}

static size_t stored(packed *p, uint8_t *out, size_t at, size_t room) {
  p->held = 0;
  p->bits = 0; /* less than eight were held: blocks begin with three */
  if (p->end - p->at < 4) return DAMAGED;
  size_t size = (size_t)(p->at[0] | p->at[1] << 8), other = (size_t)(p->at[2] | p->at[3] << 8);
  if ((size ^ other) != 0xffff || (size_t)(p->end - p->at) - 4 < size || size > room - at) return DAMAGED;
  memcpy(out + at, p->at + 4, size);
  p->at += 4 + size;
  return at + size;
}

int fick_inflate(const uint8_t *data, size_t size, uint8_t *out, size_t room) {
  code literals, distances;
  packed p = {data + 2, data + size, 0, 0, 0};
  size_t at = 0, last = 0;
  if (size < 6 || (data[0] & 15) != 8 || (data[0] << 8 | data[1]) % 31 || data[1] & 32) return 0;
  while (!last) {
    last = take(&p, 1);
    uint32_t kind = take(&p, 2);
    if (p.short_of || kind == 3) return 0;
    if (kind == 0) at = stored(&p, out, at, room);
    else if (!(kind == 1 ? fixed_codes(&literals, &distances) : described_codes(&p, &literals, &distances))) return 0;
    else at = compressed(&p, &literals, &distances, out, at, room);
    if (at == DAMAGED) return 0;
  }
  uint32_t a = 1, b = 0;
  for (size_t i = 0; i < at; i++) {
    a = (a + out[i]) % 65521;
    b = (b + a) % 65521;
  }
  if (at != room || p.end - p.at < 4) return 0;
  return (b << 16 | a) == ((uint32_t)p.at[0] << 24 | (uint32_t)p.at[1] << 16 | (uint32_t)p.at[2] << 8 | p.at[3]);
}
