/* The output tensors the stand-in can fill, by name. */
#ifndef STANDIN_OUTPUTS_H
#define STANDIN_OUTPUTS_H

#include "settings.h"

enum output {
  OUTPUT_IDS,
  SEQUENCE_LENGTH,
  CUM_LOG_PROBS,
  OUTPUT_LOG_PROBS,
  CONTEXT_LOGITS,
  GENERATION_LOGITS,
  BATCH_INDEX,
  SEQUENCE_INDEX,
  NUM_INPUT_TOKENS,
  NUM_OUTPUT_TOKENS,
  KV_CACHE_ALLOC_NEW_BLOCKS, /* from here: measurements, always 0 */
  KV_CACHE_REUSED_BLOCKS,
  KV_CACHE_ALLOC_TOTAL_BLOCKS,
  ARRIVAL_TIME_NS,
  FIRST_SCHEDULED_TIME_NS,
  FIRST_TOKEN_TIME_NS,
  LAST_TOKEN_TIME_NS,
  ACCEPTANCE_RATE,
  TOTAL_ACCEPTED_DRAFT_TOKENS,
  TOTAL_DRAFT_TOKENS,
  STREAM_KEY, /* Trellis' own, of its Python engines */
  STREAM_END,
  OUTPUT_COUNT
};

/* Fills `found` from the configuration; an error if one has a type the stand-in cannot fill. */
TRITONSERVER_Error *outputs_find(const struct tensor_spec *found[OUTPUT_COUNT],
                                 const struct tensor_list *configured);

/* OUTPUT_COUNT if the name is not one of these. */
enum output output_named(const char *name);

#endif
