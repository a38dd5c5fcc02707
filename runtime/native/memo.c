/* memo.c: a small table from the bytes of some inputs to the result computed from them. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static uint64_t row_bytes(const fick_memo *memo) { return memo->key_bytes + memo->value_bytes; }

int fick_memo_reserve(fick_memo *memo, uint64_t key_bytes, uint64_t value_bytes, int32_t capacity) {
  /* First, so that two tables are never held at once. */
  free(memo->bytes);
  *memo = (fick_memo){NULL, key_bytes, value_bytes, capacity, 0, 0};
  if (!capacity || !row_bytes(memo)) return 1;
  if (row_bytes(memo) > SIZE_MAX / (uint64_t)capacity) return 0;
  memo->bytes = malloc(row_bytes(memo) * (uint64_t)capacity);
  return memo->bytes != NULL;
}

const uint8_t *fick_memo_find(const fick_memo *memo, const uint8_t *key) {
  for (int32_t i = 0; i < memo->count; i++) {
    const uint8_t *row = memo->bytes + row_bytes(memo) * (uint64_t)i;
    if (memcmp(row, key, memo->key_bytes) == 0) return row + memo->key_bytes;
  }
  return NULL;
}

/* When the table is full, the oldest row makes room. */
void fick_memo_keep(fick_memo *memo, const uint8_t *key, const uint8_t *value) {
  if (!memo->bytes) return;
  uint8_t *row = memo->bytes + row_bytes(memo) * (uint64_t)memo->next;
  memcpy(row, key, memo->key_bytes);
  memcpy(row + memo->key_bytes, value, memo->value_bytes);
  if (memo->count < memo->capacity) memo->count++;
  memo->next = (memo->next + 1) % memo->capacity;
}

uint64_t fick_memo_bytes(const fick_memo *memo) {
  return memo->bytes ? row_bytes(memo) * (uint64_t)memo->capacity : 0;
}
