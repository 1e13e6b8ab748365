/* A small JSON reader: enough for a Triton model configuration.
 *
 * Text becomes a tree of nodes; the children of an array or object are a linked list. Numbers
 * keep their text (Triton writes some 64-bit ones as strings). No writer, no Unicode checks.
 */
#ifndef STANDIN_JSON_H
#define STANDIN_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum json_kind { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json {
  enum json_kind kind;
  bool truth;
  char *key;          /* inside an object, else NULL */
  char *text;         /* of a string or number, else NULL */
  struct json *child; /* first of an array or object */
  struct json *next;  /* sibling */
};

/* The tree, or NULL if `text` is not one JSON value. Free it with json_free. */
struct json *json_parse(const char *text, size_t size);
void json_free(struct json *node);

/* All of these take NULL and answer as for a missing value. */
const struct json *json_get(const struct json *object, const char *key);
const char *json_text(const struct json *node, const char *otherwise);
int64_t json_int(const struct json *node, int64_t otherwise);
bool json_bool(const struct json *node, bool otherwise);

#endif
