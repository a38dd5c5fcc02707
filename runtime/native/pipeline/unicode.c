/* unicode.c: UTF-8, canonical composition (Unicode Standard Annex 15), lower case and kinds of characters.
 *
 * The tables are those of the Python that built this file (compiler/runner/unicode.py).
 */
#include <string.h>

#include "parts.h"
#include "unicode_tables.h"

#define ARRAY_LENGTH(array) (sizeof(array) / sizeof *(array))

/* Of rising rows that begin with a code point, the last that is not above c; -1 if none. */
static int64_t row_of(const void *table, size_t count, size_t row_bytes, uint32_t c) {
  size_t low = 0, high = count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    uint32_t first;
    memcpy(&first, (const uint8_t *)table + middle * row_bytes, sizeof first);
    if (first <= c) low = middle + 1;
    else high = middle;
  }
  return (int64_t)low - 1;
}

/* The number that a table of {first, last, number} has for c, 0 if none. */
static uint32_t in_ranges(const uint32_t (*table)[3], size_t count, uint32_t c) {
  int64_t row = row_of(table, count, sizeof *table, c);
  return row >= 0 && c <= table[row][1] ? table[row][2] : 0;
}

fick_character fick_unicode_kind(uint32_t c) { return (fick_character)in_ranges(kinds, ARRAY_LENGTH(kinds), c); }

int64_t fick_utf8_decode(const char *text, size_t size, uint32_t *out, size_t room) {
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  size_t count = 0;
  for (size_t at = 0; at < size; count++) {
    uint8_t first = (uint8_t)text[at++];
    int length = first < 0x80 ? 1 : first >> 5 == 6 ? 2 : first >> 4 == 14 ? 3 : first >> 3 == 30 ? 4 : 0;
    uint32_t c = length == 1 ? first : first & (0x7fu >> length);
    if (!length || count == room || size - at < (size_t)length - 1) return -1;
    for (int i = 1; i < length; i++) {
      uint8_t next = (uint8_t)text[at++];
      if (next >> 6 != 2) return -1;
      c = c << 6 | (next & 0x3f);
    }
    if (c < least[length] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return -1;
    out[count] = c;
  }
  return (int64_t)count;
}

size_t fick_utf8_encode(uint32_t c, char out[4]) {
  static const uint8_t marks[] = {0, 0, 0xc0, 0xe0, 0xf0};
  size_t size = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  for (size_t i = size - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3f));
  out[0] = (char)(marks[size] | c);
  return size;
}

enum { SYLLABLES = 0xac00, LEADING = 0x1100, VOWELS = 0x1161, TRAILING = 0x11a7 };
enum { LEADS = 19, VOWEL_COUNT = 21, TRAILS = 28 };

static uint32_t class_of(uint32_t c) { return in_ranges(classes, ARRAY_LENGTH(classes), c); }

static size_t decomposed(uint32_t c, uint32_t out[MOST_PARTS]) {
  if (c >= SYLLABLES && c < SYLLABLES + LEADS * VOWEL_COUNT * TRAILS) {
    uint32_t index = c - SYLLABLES;
    out[0] = LEADING + index / (VOWEL_COUNT * TRAILS);
    out[1] = VOWELS + index / TRAILS % VOWEL_COUNT;
    out[2] = TRAILING + index % TRAILS;
    return index % TRAILS ? 3 : 2;
  }
  int64_t row = row_of(decompositions, ARRAY_LENGTH(decompositions), sizeof *decompositions, c);
  if (row < 0 || decompositions[row][0] != c) {
    out[0] = c;
    return 1;
  }
  memcpy(out, parts + decompositions[row][1], decompositions[row][2] * sizeof *out);
  return decompositions[row][2];
}

static uint32_t composed(uint32_t a, uint32_t b) {
  if (a >= LEADING && a < LEADING + LEADS && b >= VOWELS && b < VOWELS + VOWEL_COUNT) {
    return SYLLABLES + ((a - LEADING) * VOWEL_COUNT + b - VOWELS) * TRAILS;
  }
  if (a >= SYLLABLES && a < SYLLABLES + LEADS * VOWEL_COUNT * TRAILS && (a - SYLLABLES) % TRAILS == 0 && b > TRAILING &&
      b < TRAILING + TRAILS) {
    return a + b - TRAILING;
  }
  size_t low = 0, high = ARRAY_LENGTH(compositions);
  while (low < high) {
    size_t middle = (low + high) / 2;
    const uint32_t *row = compositions[middle];
    if (row[0] == a && row[1] == b) return row[2];
    if (row[0] < a || (row[0] == a && row[1] < b)) low = middle + 1;
    else high = middle;
  }
  return 0;
}

int64_t fick_unicode_normalise(const uint32_t *text, size_t size, uint32_t *out, size_t room) {
  size_t count = 0, made = 0;
  for (size_t i = 0; i < size; i++) {
    uint32_t pieces[MOST_PARTS];
    size_t length = decomposed(text[i], pieces);
    if (room - count < length) return -1;
    for (size_t j = 0; j < length; j++) {
      /* In the order of classes, as they come within one. */
      uint32_t its = class_of(pieces[j]);
      size_t place = count++;
      for (; its && place > 0 && class_of(out[place - 1]) > its; place--) out[place] = out[place - 1];
      out[place] = pieces[j];
    }
  }
  int64_t starter = -1;
  uint32_t before = 0;
  for (size_t i = 0; i < count; i++) {
    uint32_t c = out[i], its = class_of(c), joined = 0;
    if (starter >= 0 && (before < its || starter == (int64_t)made - 1)) joined = composed(out[starter], c);
    if (joined) {
      out[starter] = joined;
      continue;
    }
    before = its;
    if (!its) starter = (int64_t)made;
    out[made++] = c;
  }
  return (int64_t)made;
}

/* Whether a sigma at `at` ends a word: something with a case stands before it, and nothing such after it. */
static int ends_word(const uint32_t *text, size_t size, size_t at) {
  size_t before = at, after = at + 1;
  while (before > 0 && in_ranges(cases, ARRAY_LENGTH(cases), text[before - 1]) == CASE_IGNORED) before--;
  if (!before || in_ranges(cases, ARRAY_LENGTH(cases), text[before - 1]) != CASED) return 0;
  while (after < size && in_ranges(cases, ARRAY_LENGTH(cases), text[after]) == CASE_IGNORED) after++;
  return after == size || in_ranges(cases, ARRAY_LENGTH(cases), text[after]) != CASED;
}

int64_t fick_unicode_lower(const uint32_t *text, size_t size, uint32_t *out, size_t room) {
  size_t count = 0;
  for (size_t i = 0; i < size; i++) {
    uint32_t c = text[i];
    int64_t row = row_of(lowered, ARRAY_LENGTH(lowered), sizeof *lowered, c);
    if (room - count < 2) return -1;
    if (c == 0x3a3) {
      out[count++] = ends_word(text, size, i) ? 0x3c2 : 0x3c3;
    } else if (c == 0x130) {
      out[count++] = 'i';
      out[count++] = 0x307;
    } else if (row >= 0 && c <= lowered[row][1] && (c - lowered[row][0]) % lowered[row][2] == 0) {
      out[count++] = c + lowered[row][3];
    } else {
      out[count++] = c;
    }
  }
  return (int64_t)count;
}
