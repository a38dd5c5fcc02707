/* json.c: just enough JSON (RFC 8259) to read a manifest: validate once, then look members up. */
#include <string.h>

#include "internal.h"

#define DEEPEST 32

static void skip_space(fick_json *j) {
  while (j->at < j->end && (*j->at == ' ' || *j->at == '\n' || *j->at == '\t' || *j->at == '\r')) j->at++;
}

static int take(fick_json *j, char wanted) {
  skip_space(j);
  if (j->at >= j->end || *j->at != wanted) return 0;
  j->at++;
  return 1;
}

static int skip_string(fick_json *j) {
  if (!take(j, '"')) return 0;
  while (j->at < j->end) {
    unsigned char c = (unsigned char)*j->at++;
    if (c == '"') return 1;
    if (c < 0x20) return 0;
    if (c == '\\') {
      if (j->at >= j->end) return 0;
      char escape = *j->at++;
      if (escape == 'u') {
        for (int i = 0; i < 4; i++, j->at++) {
          if (j->at >= j->end || !strchr("0123456789abcdefABCDEF", *j->at) || !*j->at) return 0;
        }
      } else if (!escape || !strchr("\"\\/bfnrt", escape)) {
        return 0;
      }
    }
  }
  return 0;
}

static int skip_digits(fick_json *j) {
  const char *start = j->at;
  while (j->at < j->end && *j->at >= '0' && *j->at <= '9') j->at++;
  return j->at > start;
}

static int skip_number(fick_json *j) {
  if (j->at < j->end && *j->at == '-') j->at++;
  if (!skip_digits(j)) return 0;
  if (j->at < j->end && *j->at == '.') {
    j->at++;
    if (!skip_digits(j)) return 0;
  }
  if (j->at < j->end && (*j->at == 'e' || *j->at == 'E')) {
    j->at++;
    if (j->at < j->end && (*j->at == '+' || *j->at == '-')) j->at++;
    if (!skip_digits(j)) return 0;
  }
  return 1;
}

static int skip_word(fick_json *j, const char *word) {
  size_t size = strlen(word);
  if ((size_t)(j->end - j->at) < size || memcmp(j->at, word, size) != 0) return 0;
  j->at += size;
  return 1;
}

static int skip_value(fick_json *j, int depth) {
  skip_space(j);
  if (j->at >= j->end || depth > DEEPEST) return 0;
  char first = *j->at, close = first == '{' ? '}' : ']';
  if (first == '"') return skip_string(j);
  if (first != '{' && first != '[') {
    return skip_word(j, "true") || skip_word(j, "false") || skip_word(j, "null") || skip_number(j);
  }
  j->at++;
  if (take(j, close)) return 1;
  do {
    if (first == '{' && !(skip_string(j) && take(j, ':'))) return 0;
    if (!skip_value(j, depth + 1)) return 0;
  } while (take(j, ','));
  return take(j, close);
}

int fick_json_valid(const char *text, uint64_t size) {
  fick_json j = {text, text + size};
  if (!skip_value(&j, 0)) return 0;
  skip_space(&j);
  return j.at == j.end;
}

/* Keys are compared as written: the compiler escapes nothing in those that the core reads. */
int fick_json_member(fick_json object, const char *key, fick_json *value) {
  size_t size = strlen(key);
  if (!take(&object, '{') || take(&object, '}')) return 0;
  do {
    skip_space(&object);
    const char *start = object.at + 1;
    if (!skip_string(&object)) return 0;
    int found = (size_t)(object.at - 1 - start) == size && memcmp(start, key, size) == 0;
    if (!take(&object, ':')) return 0;
    skip_space(&object);
    value->at = object.at;
    if (!skip_value(&object, 0)) return 0;
    value->end = object.at;
    if (found) return 1;
  } while (take(&object, ','));
  return 0;
}

int fick_json_string(fick_json value, char *buffer, size_t size) {
  const char *start = value.at + 1;
  if (value.at >= value.end || *value.at != '"' || !skip_string(&value)) return 0;
  size_t length = (size_t)(value.at - 1 - start);
  if (length >= size || memchr(start, '\\', length)) return 0;
  memcpy(buffer, start, length);
  buffer[length] = 0;
  return 1;
}

int fick_json_integer(fick_json value, int64_t *number) {
  int64_t total = 0;
  if (value.at >= value.end || value.end - value.at > 18) return 0;
  for (; value.at < value.end; value.at++) {
    if (*value.at < '0' || *value.at > '9') return 0;
    total = total * 10 + (*value.at - '0');
  }
  *number = total;
  return 1;
}
