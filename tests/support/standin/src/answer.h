/* The tokens one sequence will make, settled when its request arrives: the engine is a replay. */
#ifndef STANDIN_ANSWER_H
#define STANDIN_ANSWER_H

#include "script.h"
#include "settings.h"
#include "word_list.h"

enum ending { ENDED_LENGTH, ENDED_END_ID, ENDED_STOP_WORDS, ENDED_CANCELLED, ENDED_FAILED };

struct question {
  const int32_t *prompt;
  int64_t prompt_count;
  int64_t length;               /* request_output_len */
  int64_t end_id;               /* -1: none */
  struct word_list stop_words;  /* width 0: none */
  int64_t shorter;              /* how many tokens to leave off: tells sequences apart */
};

/* A stop word's ids are part of the tokens; end_id is not, as TensorRT-LLM has it (unless
 * standin_include_end_id). */
struct answer {
  int32_t *tokens;
  int64_t count;
  enum ending ending;
  bool closes_empty;   /* end_id came by itself: a stream ends with a response of no tokens */
  const char *failure; /* what the script says went wrong; borrowed */
};

/* Free answer.tokens. */
struct answer answer_make(const struct settings *settings, const struct script *scripts,
                          const struct question *question);

/* What is left of `count` tokens after leaving off `shorter`: at least one, if there was one. */
int64_t answer_shortened(int64_t count, int64_t shorter);

#endif
