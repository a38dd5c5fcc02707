/* json.c: just enough JSON (RFC 8259) to read a manifest: validate once, then look members up. */
#include <stdlib.h>
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

int fick_json_number(fick_json value, double *number) {
  char text[64], *stop;
  size_t size = (size_t)(value.end - value.at);
  if (value.at >= value.end || size >= sizeof text) return 0;
  if (*value.at != '-' && !(*value.at >= '0' && *value.at <= '9')) return 0;
  memcpy(text, value.at, size);
  text[size] = 0;
  *number = strtod(text, &stop);
  return *stop == 0;
}

int fick_json_is(fick_json value, const char *word) {
  size_t size = (size_t)(value.end - value.at);
  return size == strlen(word) && memcmp(value.at, word, size) == 0;
}

int fick_json_next(fick_json *rest, fick_json *key, fick_json *value) {
  fick_json none;
  if (rest->at >= rest->end) return 0;
  int first = *rest->at == '{' || *rest->at == '[', object = 0;
  if (!first && *rest->at != ',') return 0;
  /* What encloses the values is told from how they stand: a value of an object has a key before it. */
  rest->at++;
  skip_space(rest);
  if (rest->at >= rest->end || *rest->at == '}' || *rest->at == ']') return 0;
  if (!key) key = &none;
  key->at = rest->at;
  if (!skip_value(rest, 0)) return 0;
  key->end = rest->at;
  object = take(rest, ':');
  if (object) skip_space(rest);
  value->at = object ? rest->at : key->at;
  if (object && !skip_value(rest, 0)) return 0;
  value->end = rest->at;
  skip_space(rest);
  return 1;
}

static int hexadecimal(const char *at, uint32_t *number) {
  *number = 0;
  for (int i = 0; i < 4; i++) {
    char c = at[i];
    uint32_t digit = c >= '0' && c <= '9' ? (uint32_t)(c - '0') : (uint32_t)((c | 32) - 'a' + 10);
    if (digit > 15) return 0;
    *number = *number << 4 | digit;
  }
  return 1;
}

static size_t utf8(uint32_t c, char out[4]) {
  static const uint8_t marks[] = {0, 0, 0xc0, 0xe0, 0xf0};
  size_t size = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  for (size_t i = size - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3f));
  out[0] = (char)(marks[size] | c);
  return size;
}

int64_t fick_json_text(fick_json value, char *buffer, size_t size) {
  static const char escapes[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
  size_t length = 0;
  if (value.end - value.at < 2 || *value.at != '"') return -1;
  for (const char *at = value.at + 1, *end = value.end - 1; at < end;) {
    char piece[4];
    size_t count = 1;
    piece[0] = *at++;
    if (piece[0] == '\\') {
      const char *known = at < end ? strchr(escapes, *at) : NULL;
      uint32_t code, low;
      if (known && *known) {
        piece[0] = meant[known - escapes];
        at++;
      } else {
        if (end - at < 5 || *at != 'u' || !hexadecimal(at + 1, &code)) return -1;
        at += 5;
        if (code >> 10 == 0x36 && end - at >= 6 && at[0] == '\\' && at[1] == 'u' && hexadecimal(at + 2, &low) &&
            low >> 10 == 0x37) {
          code = 0x10000 + ((code & 0x3ff) << 10 | (low & 0x3ff));
          at += 6;
        }
        count = utf8(code, piece);
      }
    }
    if (length + count > size) return -1;
    memcpy(buffer + length, piece, count);
    length += count;
  }
  return (int64_t)length;
}
