/* The output tensors the stand-in can fill, by name. */
#include "outputs.h"

#include <string.h>

#include "errors.h"

static const struct {
  const char *name;
  TRITONSERVER_DataType type; /* INVALID: any, it is filled with zeros */
} OUTPUTS[OUTPUT_COUNT] = {
    [OUTPUT_IDS] = {"output_ids", TRITONSERVER_TYPE_INT32},
    [SEQUENCE_LENGTH] = {"sequence_length", TRITONSERVER_TYPE_INT32},
    [CUM_LOG_PROBS] = {"cum_log_probs", TRITONSERVER_TYPE_FP32},
    [OUTPUT_LOG_PROBS] = {"output_log_probs", TRITONSERVER_TYPE_FP32},
    [CONTEXT_LOGITS] = {"context_logits", TRITONSERVER_TYPE_INVALID},
    [GENERATION_LOGITS] = {"generation_logits", TRITONSERVER_TYPE_INVALID},
    [BATCH_INDEX] = {"batch_index", TRITONSERVER_TYPE_INT32},
    [SEQUENCE_INDEX] = {"sequence_index", TRITONSERVER_TYPE_INT32},
    [NUM_INPUT_TOKENS] = {"num_input_tokens", TRITONSERVER_TYPE_INT32},
    [NUM_OUTPUT_TOKENS] = {"num_output_tokens", TRITONSERVER_TYPE_INT32},
    [KV_CACHE_ALLOC_NEW_BLOCKS] = {"kv_cache_alloc_new_blocks", TRITONSERVER_TYPE_INVALID},
    [KV_CACHE_REUSED_BLOCKS] = {"kv_cache_reused_blocks", TRITONSERVER_TYPE_INVALID},
    [KV_CACHE_ALLOC_TOTAL_BLOCKS] = {"kv_cache_alloc_total_blocks", TRITONSERVER_TYPE_INVALID},
    [ARRIVAL_TIME_NS] = {"arrival_time_ns", TRITONSERVER_TYPE_INVALID},
    [FIRST_SCHEDULED_TIME_NS] = {"first_scheduled_time_ns", TRITONSERVER_TYPE_INVALID},
    [FIRST_TOKEN_TIME_NS] = {"first_token_time_ns", TRITONSERVER_TYPE_INVALID},
    [LAST_TOKEN_TIME_NS] = {"last_token_time_ns", TRITONSERVER_TYPE_INVALID},
    [ACCEPTANCE_RATE] = {"acceptance_rate", TRITONSERVER_TYPE_INVALID},
    [TOTAL_ACCEPTED_DRAFT_TOKENS] = {"total_accepted_draft_tokens", TRITONSERVER_TYPE_INVALID},
    [TOTAL_DRAFT_TOKENS] = {"total_draft_tokens", TRITONSERVER_TYPE_INVALID},
    [STREAM_KEY] = {"stream_key", TRITONSERVER_TYPE_UINT64},
    [STREAM_END] = {"stream_end", TRITONSERVER_TYPE_BOOL},
};

enum output output_named(const char *name) {
  enum output at = 0;
  while (at < OUTPUT_COUNT && strcmp(OUTPUTS[at].name, name) != 0) at++;
  return at;
}

TRITONSERVER_Error *outputs_find(const struct tensor_spec *found[OUTPUT_COUNT],
                                 const struct tensor_list *configured) {
  for (enum output at = 0; at < OUTPUT_COUNT; at++) {
    const struct tensor_spec *spec = tensor_find(configured, OUTPUTS[at].name);
    TRITONSERVER_DataType wanted = OUTPUTS[at].type;
    if (spec != NULL && wanted != TRITONSERVER_TYPE_INVALID && spec->type != wanted)
      return refuse("output '%s' has data_type %s; it must be TYPE_%s", spec->name,
                    spec->type_name, TRITONSERVER_DataTypeString(wanted));
    found[at] = spec;
  }
  if (found[OUTPUT_IDS] == NULL) return refuse("output 'output_ids' is missing");
  return NULL;
}
