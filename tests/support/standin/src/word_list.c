/* Stop words in TensorRT-LLM's form: a [2, n] tensor of ids and of the words' end offsets. */
#include "word_list.h"

#include <string.h>

#include "errors.h"

TRITONSERVER_Error *word_list_check(const struct word_list *list, const char *name) {
  const int32_t *offsets = list->ids + list->width;
  int64_t at = 0;
  for (int32_t before = 0; at < list->width && offsets[at] != -1; before = offsets[at++]) {
    if (offsets[at] > list->width)
      return refuse("input '%s' has an offset past its end: %d", name, offsets[at]);
    if (offsets[at] <= before)
      return refuse("input '%s' has offsets that do not rise: %d after %d", name, offsets[at],
                    before);
  }
  for (; at < list->width; at++)
    if (offsets[at] != -1) return refuse("input '%s' has an offset after a -1", name);
  return NULL;
}

bool word_list_ends(const struct word_list *list, const int32_t *tokens, int64_t count) {
  const int32_t *offsets = list->ids + list->width;
  int32_t start = 0;
  for (int64_t at = 0; at < list->width && offsets[at] != -1; start = offsets[at++]) {
    int64_t length = offsets[at] - start;
    if (length <= count &&
        memcmp(tokens + count - length, list->ids + start, (size_t)length * 4) == 0)
      return true;
  }
  return false;
}
