/* Stop words in TensorRT-LLM's form: a [2, n] tensor of ids and of the words' end offsets. */
#ifndef STANDIN_WORD_LIST_H
#define STANDIN_WORD_LIST_H

#include "triton_backend_api.h"

struct word_list {
  const int32_t *ids;  /* n ids, then n offsets, both padded */
  int64_t width;       /* n */
};

/* An error naming `name` unless offsets rise, stay inside, and are -1 only at the end. */
TRITONSERVER_Error *word_list_check(const struct word_list *list, const char *name);

/* Whether `tokens` end with one of the words. */
bool word_list_ends(const struct word_list *list, const int32_t *tokens, int64_t count);

#endif
