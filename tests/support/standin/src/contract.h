/* Compares a model configuration with what a TensorRT-LLM release has.
 *
 * The contract is a text file, one fact a line, fields parted by spaces, `#` starts a comment:
 *
 *   parameter gpt_model_path
 *   input input_lengths TYPE_INT32 [1] [] required uniform
 *   input stop_words_list TYPE_INT32 [2,-1] - optional ragged
 *   output context_logits TYPE_FP32|TYPE_FP16 [-1,-1] - required uniform
 *
 * that is: kind, name, type (one of several, parted by `|`), dims, reshape (`-`: none), whether
 * the input may be left out, whether it may be ragged.
 */
#ifndef STANDIN_CONTRACT_H
#define STANDIN_CONTRACT_H

#include "settings.h"

/* An error naming the first tensor or parameter that is missing, unknown or different. */
TRITONSERVER_Error *contract_check(const struct settings *settings);

#endif
