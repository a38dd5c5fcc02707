/* tokenizer.c: CLIP's tokenizer, byte-pair encoding of lower-case words (runtime/tokenizer.py).
 *
 * A word is one run of bytes, and its pieces are spans of it; the pair of two pieces is looked up as its line in
 * merges.txt, "first second". So nothing is copied.
 */
#include <stdlib.h>
#include <string.h>

#include "parts.h"

#define MOST_PROMPT_BYTES 16384
#define END_OF_WORD "</w>"

typedef struct {
  const char *key;
  uint32_t size;
  int32_t value;
} slot;
typedef struct {
  slot *slots;
  size_t room; /* a power of two; at most half of it is used */
} table;

struct fick_tokenizer {
  table numbers, ranks;
  char *names;
  int32_t length, start, end, padding;
  uint32_t letters[256]; /* a printable letter for every byte */
};

#define SEED 2166136261u
static uint32_t hashed(uint32_t hash, const char *text, size_t size) {
  for (size_t i = 0; i < size; i++) hash = (hash ^ (uint8_t)text[i]) * 16777619u;
  return hash;
}

static int reserve(table *t, size_t count) {
  for (t->room = 16; t->room < 2 * count + 2; t->room *= 2) continue;
  t->slots = calloc(t->room, sizeof *t->slots);
  return t->slots != NULL;
}

/* A key that comes again has its last value, as in Python. */
static void put(table *t, const char *key, size_t size, int32_t value) {
  size_t at = hashed(SEED, key, size) & (t->room - 1);
  for (; t->slots[at].key; at = (at + 1) & (t->room - 1)) {
    if (t->slots[at].size == size && memcmp(t->slots[at].key, key, size) == 0) break;
  }
  t->slots[at] = (slot){key, (uint32_t)size, value};
}

static int32_t number_of(const table *t, const char *key, size_t size, int32_t none) {
  size_t at = hashed(SEED, key, size) & (t->room - 1);
  for (; t->slots[at].key; at = (at + 1) & (t->room - 1)) {
    if (t->slots[at].size == size && memcmp(t->slots[at].key, key, size) == 0) return t->slots[at].value;
  }
  return none;
}

/* The rank of a piece of `first` bytes and the one of `second` bytes after it. */
static int32_t rank_of(const table *t, const char *key, size_t first, size_t second) {
  uint32_t hash = hashed(hashed(hashed(SEED, key, first), " ", 1), key + first, second);
  for (size_t at = hash & (t->room - 1); t->slots[at].key; at = (at + 1) & (t->room - 1)) {
    const slot *s = &t->slots[at];
    if (s->size == first + 1 + second && s->key[first] == ' ' && memcmp(s->key, key, first) == 0 &&
        memcmp(s->key + first + 1, key + first, second) == 0) {
      return s->value;
    }
  }
  return INT32_MAX;
}

static void name_bytes(uint32_t letters[256]) {
  uint32_t other = 256;
  for (uint32_t byte = 0; byte < 256; byte++) {
    int prints = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    letters[byte] = prints ? byte : other++;
  }
}

static int read_vocabulary(fick_tokenizer *t, const fick_entry *entry) {
  fick_json rest = {(const char *)entry->data, (const char *)entry->data + entry->size}, each, key, value;
  size_t count = 0, used = 0;
  int64_t number;
  if (!fick_json_valid(rest.at, entry->size) || *rest.at != '{') return 0;
  for (each = rest; fick_json_next(&each, &key, &value);) count++;
  t->names = malloc(entry->size ? entry->size : 1);
  if (!t->names || !reserve(&t->numbers, count)) return 0;
  while (fick_json_next(&rest, &key, &value)) {
    int64_t size = fick_json_text(key, t->names + used, entry->size - used);
    if (size < 0 || !fick_json_integer(value, &number) || number > INT32_MAX) return 0;
    put(&t->numbers, t->names + used, (size_t)size, (int32_t)number);
    used += (size_t)size;
  }
  return 1;
}

static int read_merges(fick_tokenizer *t, const fick_entry *entry) {
  const char *text = (const char *)entry->data, *end = text + entry->size;
  size_t lines = 1;
  int32_t rank = 0;
  uint32_t *points = malloc((entry->size + 1) * sizeof *points);
  int readable = points && fick_utf8_decode(text, entry->size, points, entry->size) >= 0;
  free(points);
  for (uint64_t i = 0; i < entry->size; i++) lines += text[i] == '\n';
  if (!readable || lines >= INT32_MAX || !reserve(&t->ranks, lines)) return 0;
  while (text < end) {
    const char *stop = memchr(text, '\n', (size_t)(end - text));
    if (!stop) stop = end;
    put(&t->ranks, text, (size_t)(stop - text), rank++);
    text = stop + 1;
  }
  return 1;
}

fick_status fick_tokenizer_create(const fick_entry *vocabulary, const fick_entry *merges, fick_json facts,
                                  fick_tokenizer **tokenizer) {
  static const char *const names[] = {"tokens", "start", "end", "padding"};
  fick_tokenizer *made = calloc(1, sizeof *made);
  if (!made) return fick_fail(FICK_ERROR_MEMORY, "there is no memory for the tokenizer");
  int32_t *numbers[] = {&made->length, &made->start, &made->end, &made->padding};
  int sound = vocabulary && merges;
  for (int i = 0; sound && i < 4; i++) {
    fick_json value;
    int64_t number = 0;
    sound = fick_json_member(facts, names[i], &value) && fick_json_integer(value, &number) && number <= 1 << 24;
    *numbers[i] = (int32_t)number;
  }
  name_bytes(made->letters);
  if (sound && made->length >= 2 && read_vocabulary(made, vocabulary) && read_merges(made, merges)) {
    *tokenizer = made;
    return FICK_OK;
  }
  fick_tokenizer_destroy(made);
  return fick_fail(FICK_ERROR_FORMAT, "the bundle's tokenizer is damaged; compile it anew");
}

void fick_tokenizer_destroy(fick_tokenizer *tokenizer) {
  if (!tokenizer) return;
  free(tokenizer->numbers.slots);
  free(tokenizer->ranks.slots);
  free(tokenizer->names);
  free(tokenizer);
}

int32_t fick_tokenizer_length(const fick_tokenizer *tokenizer) { return tokenizer->length; }

/* Room for a word: its letters, and where its pieces begin. */
typedef struct {
  char *text;
  uint32_t *starts;
  size_t pieces;
} word;

static void spell(const fick_tokenizer *t, const uint32_t *points, size_t count, word *w) {
  size_t at = 0;
  w->pieces = 0;
  for (size_t i = 0; i < count; i++) {
    char bytes[4];
    size_t size = fick_utf8_encode(points[i], bytes);
    for (size_t j = 0; j < size; j++) {
      w->starts[w->pieces++] = (uint32_t)at;
      at += fick_utf8_encode(t->letters[(uint8_t)bytes[j]], w->text + at);
    }
  }
  memcpy(w->text + at, END_OF_WORD, strlen(END_OF_WORD));
  w->starts[w->pieces] = (uint32_t)(at + strlen(END_OF_WORD));
}

static int32_t rank_at(const fick_tokenizer *t, const word *w, size_t i) {
  const uint32_t *s = w->starts + i;
  return rank_of(&t->ranks, w->text + s[0], s[1] - s[0], s[2] - s[1]);
}

/* All pairs of the lowest rank, from the left, until none has a rank. Pairs do not overlap. */
static void merge(const fick_tokenizer *t, word *w) {
  while (w->pieces > 1) {
    int32_t best = INT32_MAX;
    for (size_t i = 0; i + 1 < w->pieces; i++) {
      int32_t rank = rank_at(t, w, i);
      if (rank < best) best = rank;
    }
    if (best == INT32_MAX) return;
    size_t kept = 0;
    for (size_t i = 0; i < w->pieces;) {
      int joins = i + 1 < w->pieces && rank_at(t, w, i) == best;
      w->starts[kept++] = w->starts[i];
      i += joins ? 2 : 1;
    }
    w->starts[kept] = w->starts[w->pieces];
    w->pieces = kept;
  }
}

static size_t contraction(const uint32_t *text, size_t count) {
  static const char *const known[] = {"'re", "'ve", "'ll", "'s", "'t", "'m", "'d"};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    size_t size = strlen(known[i]), same = 0;
    while (same < size && same < count && text[same] == (uint8_t)known[i][same]) same++;
    if (same == size) return size;
  }
  return 0;
}

/* How many characters the word at the beginning of a text has; none for a space. */
static size_t word_length(const uint32_t *text, size_t count) {
  size_t size = contraction(text, count);
  fick_character kind = fick_unicode_kind(text[0]);
  if (size || kind == FICK_SPACE) return size;
  for (size = 1; kind != FICK_NUMBER && size < count && fick_unicode_kind(text[size]) == kind;) size++;
  return size;
}

static size_t byte_of(const char *prompt, size_t character) {
  size_t at = 0;
  for (; prompt[at] && character; at++) character -= ((uint8_t)prompt[at + 1] >> 6) != 2;
  return at;
}

static size_t tokens_of(const fick_tokenizer *t, const uint32_t *text, size_t count, word *w, int64_t *ids, size_t room,
                        size_t *overflow) {
  size_t used = 0;
  *overflow = count;
  for (size_t place = 0; place < count;) {
    size_t length = word_length(text + place, count - place);
    if (length) {
      spell(t, text + place, length, w);
      merge(t, w);
      size_t fits = w->pieces < room - used ? w->pieces : room - used;
      for (size_t i = 0; i < fits; i++) {
        size_t size = w->starts[i + 1] - w->starts[i];
        ids[used++] = number_of(&t->numbers, w->text + w->starts[i], size, t->end);
      }
      if (fits < w->pieces) {
        *overflow = place;
        return used;
      }
    }
    place += length ? length : 1;
  }
  return used;
}

fick_status fick_tokenizer_encode(fick_tokenizer *t, const char *prompt, int64_t *ids, size_t *dropped) {
  size_t size = strlen(prompt), room = 8 * size + 8, overflow;
  if (size > MOST_PROMPT_BYTES) {
    return fick_fail(FICK_ERROR_ARGUMENT, "the prompt has %zu bytes and may have %d; shorten it", size,
                     MOST_PROMPT_BYTES);
  }
  uint32_t *first = malloc(room * sizeof *first), *second = malloc(room * sizeof *second);
  word w = {malloc(2 * 4 * room + 8), malloc((4 * room + 2) * sizeof *w.starts), 0};
  fick_status status = FICK_OK;
  if (!first || !second || !w.text || !w.starts) {
    status = fick_fail(FICK_ERROR_MEMORY, "there is no memory for the prompt");
  } else {
    int64_t count = fick_utf8_decode(prompt, size, first, room), whole = count;
    if (count >= 0) count = fick_unicode_normalise(first, (size_t)count, second, room);
    if (count >= 0) count = fick_unicode_lower(second, (size_t)count, first, room);
    if (count < 0) {
      status = fick_fail(FICK_ERROR_ARGUMENT, "the prompt is not UTF-8; give it in that encoding");
    } else {
      size_t used = tokens_of(t, first, (size_t)count, &w, ids + 1, (size_t)t->length - 2, &overflow);
      ids[0] = t->start;
      ids[used + 1] = t->end;
      for (size_t i = used + 2; i < (size_t)t->length; i++) ids[i] = t->padding;
      if (overflow == (size_t)count) *dropped = size;
      else *dropped = byte_of(prompt, overflow < (size_t)whole ? overflow : (size_t)whole - 1);
    }
  }
  free(first);
  free(second);
  free(w.text);
  free(w.starts);
  return status;
}
