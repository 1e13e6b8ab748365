/* Which tokens the stand-in answers with.
 *
 * A script file (parameter standin_tokens) has one answer a line, ids in decimal:
 *
 *   15043 3186 -> 29871 30970 30424     a prompt that ends with 15043 3186 gets these three ids
 *   -> 1 2 3 ! out of memory            any other prompt gets 1 2 3, then fails with this message
 *
 * The first line that fits is taken; `#` starts a comment line. After a script's last id the
 * model "samples" end_id. A prompt that no line fits, and every prompt without a file, is
 * echoed: its own ids, again and again, until the length asked for is reached.
 */
#ifndef STANDIN_SCRIPT_H
#define STANDIN_SCRIPT_H

#include <stdint.h>

#include "triton_backend_api.h"

struct script {
  int32_t *prompt, *answer;
  int64_t prompt_count, answer_count;
  char *failure; /* or NULL */
  struct script *next;
};

/* Reads `path`; NULL means no scripts. Errors name the line. */
TRITONSERVER_Error *script_read(struct script **scripts, const char *path);
void script_free(struct script *scripts);

/* The first script for this prompt, or NULL: echo it. */
const struct script *script_for(const struct script *scripts, const int32_t *prompt,
                                int64_t count);

#endif
