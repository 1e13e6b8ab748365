/* The tokens one sequence will make, settled when its request arrives: the engine is a replay. */
#include "answer.h"

#include <stdlib.h>

int64_t answer_shortened(int64_t count, int64_t shorter) {
  if (count == 0) return 0;
  return count > shorter ? count - shorter : 1;
}

/* Fills tokens until something ends them; answer->ending says what. */
static void replay(struct answer *answer, const struct question *question,
                   const struct script *script, int64_t available) {
  for (answer->count = 0; answer->count < question->length;) {
    int64_t at = answer->count;
    int32_t token = 0;
    bool ended = at == available;
    if (!ended) {
      token = script != NULL ? script->answer[at] : question->prompt[at % question->prompt_count];
      ended = question->end_id >= 0 && token == question->end_id;
    }
    if (ended) {
      answer->ending = ENDED_END_ID;
      return;
    }
    answer->tokens[answer->count++] = token;
    if (word_list_ends(&question->stop_words, answer->tokens, answer->count)) {
      answer->ending = ENDED_STOP_WORDS;
      return;
    }
  }
}

static void close_with_end_id(struct answer *answer, const struct settings *settings,
                              const struct question *question) {
  answer->closes_empty = true;
  if (!settings->include_end_id || question->end_id < 0) return;
  answer->tokens[answer->count++] = (int32_t)question->end_id;
  answer->closes_empty = false;
}

struct answer answer_make(const struct settings *settings, const struct script *scripts,
                          const struct question *question) {
  const struct script *script = script_for(scripts, question->prompt, question->prompt_count);
  int64_t available = script != NULL ? script->answer_count : -1;
  bool cut = settings->end_after >= 0 && (available < 0 || settings->end_after < available);
  if (cut) available = settings->end_after;
  struct answer answer = {.ending = ENDED_LENGTH};
  int64_t room = available >= 0 && available < question->length ? available : question->length;
  answer.tokens = malloc((size_t)(room + 1) * sizeof *answer.tokens);
  replay(&answer, question, script, available);
  if (answer.ending == ENDED_END_ID && script != NULL && !cut && answer.count == available &&
      script->failure != NULL) {
    answer.ending = ENDED_FAILED;
    answer.failure = script->failure;
  }
  if (question->shorter > 0 && answer.count > 1) {
    answer.count = answer_shortened(answer.count, question->shorter);
    answer.ending = ENDED_END_ID;
    answer.failure = NULL;
  }
  if (answer.ending == ENDED_END_ID) close_with_end_id(&answer, settings, question);
  return answer;
}
