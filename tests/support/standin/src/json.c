/* A small JSON reader: enough for a Triton model configuration. */
#include "json.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 64 };

struct reader {
  const char *at, *end;
  int depth;
};

static struct json *read_value(struct reader *reader);

static void skip_spaces(struct reader *reader) {
  while (reader->at < reader->end && isspace((unsigned char)*reader->at)) reader->at++;
}

static bool accept(struct reader *reader, char wanted) {
  skip_spaces(reader);
  if (reader->at >= reader->end || *reader->at != wanted) return false;
  reader->at++;
  return true;
}

static bool accept_word(struct reader *reader, const char *word) {
  size_t length = strlen(word);
  if ((size_t)(reader->end - reader->at) < length) return false;
  if (memcmp(reader->at, word, length) != 0) return false;
  reader->at += length;
  return true;
}

static char *put_utf8(char *out, unsigned code) {
  if (code < 0x80) {
    *out++ = (char)code;
  } else if (code < 0x800) {
    *out++ = (char)(0xC0 | code >> 6);
    *out++ = (char)(0x80 | (code & 0x3F));
  } else {
    *out++ = (char)(0xE0 | code >> 12);
    *out++ = (char)(0x80 | (code >> 6 & 0x3F));
    *out++ = (char)(0x80 | (code & 0x3F));
  }
  return out;
}

/* One escape after its backslash; returns where to write next, NULL if it is malformed. */
static char *read_escape(struct reader *reader, char *out) {
  static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
  if (reader->at >= reader->end) return NULL;
  char name = *reader->at++;
  if (name == 'u') {
    if (reader->end - reader->at < 4) return NULL;
    char digits[5] = {0};
    memcpy(digits, reader->at, 4);
    reader->at += 4;
    return put_utf8(out, (unsigned)strtoul(digits, NULL, 16));
  }
  const char *found = strchr(names, name);
  if (found == NULL || name == '\0') return NULL;
  *out++ = values[found - names];
  return out;
}

/* The string at the reader, unescaped; NULL if there is none. It never grows by unescaping. */
static char *read_string(struct reader *reader) {
  if (!accept(reader, '"')) return NULL;
  char *text = malloc((size_t)(reader->end - reader->at) + 1), *out = text;
  while (out != NULL && reader->at < reader->end && *reader->at != '"') {
    char byte = *reader->at++;
    if (byte == '\\') {
      out = read_escape(reader, out);
    } else {
      *out++ = byte;
    }
  }
  if (out == NULL || reader->at >= reader->end) {
    free(text);
    return NULL;
  }
  reader->at++;
  *out = '\0';
  char *trimmed = realloc(text, (size_t)(out - text) + 1);
  return trimmed != NULL ? trimmed : text;
}

static bool read_members(struct reader *reader, struct json *parent, char closing) {
  struct json **tail = &parent->child;
  if (accept(reader, closing)) return true;
  do {
    char *key = NULL;
    if (parent->kind == JSON_OBJECT) {
      key = read_string(reader);
      if (key == NULL || !accept(reader, ':')) {
        free(key);
        return false;
      }
    }
    *tail = read_value(reader);
    if (*tail == NULL) {
      free(key);
      return false;
    }
    (*tail)->key = key;
    tail = &(*tail)->next;
  } while (accept(reader, ','));
  return accept(reader, closing);
}

static bool read_number(struct reader *reader, struct json *node) {
  const char *start = reader->at;
  while (reader->at < reader->end && strchr("+-.eE0123456789", *reader->at) != NULL &&
         *reader->at != '\0')
    reader->at++;
  node->kind = JSON_NUMBER;
  node->text = strndup(start, (size_t)(reader->at - start));
  return reader->at > start;
}

static bool fill_value(struct reader *reader, struct json *node) {
  skip_spaces(reader);
  if (reader->at >= reader->end) return false;
  switch (*reader->at) {
    case '{':
    case '[':
      node->kind = *reader->at == '{' ? JSON_OBJECT : JSON_ARRAY;
      reader->at++;
      return read_members(reader, node, node->kind == JSON_OBJECT ? '}' : ']');
    case '"':
      node->kind = JSON_STRING;
      return (node->text = read_string(reader)) != NULL;
    case 't':
    case 'f':
      node->kind = JSON_BOOL;
      node->truth = *reader->at == 't';
      return accept_word(reader, node->truth ? "true" : "false");
    case 'n':
      return accept_word(reader, "null");
    default:
      return read_number(reader, node);
  }
}

static struct json *read_value(struct reader *reader) {
  if (reader->depth >= DEEPEST) return NULL;
  struct json *node = calloc(1, sizeof *node);
  reader->depth++;
  bool good = fill_value(reader, node);
  reader->depth--;
  if (good) return node;
  json_free(node);
  return NULL;
}

struct json *json_parse(const char *text, size_t size) {
  struct reader reader = {text, text + size, 0};
  struct json *tree = read_value(&reader);
  skip_spaces(&reader);
  while (reader.at < reader.end && *reader.at == '\0') reader.at++;
  if (reader.at == reader.end) return tree;
  json_free(tree);
  return NULL;
}

void json_free(struct json *node) {
  while (node != NULL) {
    struct json *next = node->next;
    json_free(node->child);
    free(node->key);
    free(node->text);
    free(node);
    node = next;
  }
}

const struct json *json_get(const struct json *object, const char *key) {
  if (object == NULL || object->kind != JSON_OBJECT) return NULL;
  const struct json *member = object->child;
  while (member != NULL && strcmp(member->key, key) != 0) member = member->next;
  return member;
}

const char *json_text(const struct json *node, const char *otherwise) {
  return node != NULL && node->text != NULL ? node->text : otherwise;
}

int64_t json_int(const struct json *node, int64_t otherwise) {
  return node != NULL && node->text != NULL ? strtoll(node->text, NULL, 10) : otherwise;
}

bool json_bool(const struct json *node, bool otherwise) {
  return node != NULL && node->kind == JSON_BOOL ? node->truth : otherwise;
}
