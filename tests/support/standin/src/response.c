/* Builds and sends one response of one sequence. */
#include "response.h"

#include <string.h>

#include "errors.h"

struct building {
  TRITONBACKEND_Response *response;
  const struct generation *generation;
  const struct sequence *sequence;
  int64_t from; /* first token of this response */
  bool last_of_sequence;
};

static bool wanted(const struct building *building, enum output output) {
  return building->generation->wanted[output];
}

/* A new output tensor, zeroed. */
static TRITONSERVER_Error *add(const struct building *building, enum output output,
                               const int64_t *shape, uint32_t dims, void **data) {
  const struct tensor_spec *spec = building->generation->model->outputs[output];
  uint64_t size = TRITONSERVER_DataTypeByteSize(spec->type);
  for (uint32_t at = 0; at < dims; at++) size *= (uint64_t)shape[at];
  TRITONBACKEND_Output *tensor = NULL;
  TRITONSERVER_MemoryType kind = TRITONSERVER_MEMORY_CPU;
  int64_t device = 0;
  RETURN_IF_ERROR(TRITONBACKEND_ResponseOutput(building->response, &tensor, spec->name,
                                               spec->type, shape, dims));
  RETURN_IF_ERROR(TRITONBACKEND_OutputBuffer(tensor, data, size, &kind, &device));
  if (kind == TRITONSERVER_MEMORY_GPU) return refuse("output '%s' is in GPU memory", spec->name);
  if (size > 0) memset(*data, 0, size);
  return NULL;
}

/* [1, 1], or [1] where the configuration reshapes it to a scalar. */
static TRITONSERVER_Error *add_one(const struct building *building, enum output output,
                                   const void *value, size_t size) {
  static const int64_t shape[] = {1, 1};
  const struct tensor_spec *spec = building->generation->model->outputs[output];
  void *data = NULL;
  uint32_t dims = spec->reshaped ? 1 + (uint32_t)spec->reshape_count : 2;
  RETURN_IF_ERROR(add(building, output, shape, dims < 2 ? 1 : 2, &data));
  if (value != NULL) memcpy(data, value, size);
  return NULL;
}

static TRITONSERVER_Error *add_int(const struct building *building, enum output output,
                                   int64_t value) {
  int32_t narrow = (int32_t)value;
  return add_one(building, output, &narrow, sizeof narrow);
}

/* How many tokens beam `beam` has in this response, without an echoed prompt. */
static int64_t beam_tokens(const struct building *building, int64_t beam) {
  return answer_shortened(building->sequence->made - building->from, beam);
}

static TRITONSERVER_Error *add_ids(const struct building *building) {
  const struct generation *generation = building->generation;
  const struct sequence *sequence = building->sequence;
  int64_t echoed = generation->echo_input ? sequence->prompt_count : 0;
  int64_t width = echoed + beam_tokens(building, 0);
  int64_t ids_shape[] = {1, generation->beams, width};
  void *data = NULL, *lengths = NULL;
  RETURN_IF_ERROR(add(building, OUTPUT_IDS, ids_shape, 3, &data));
  if (wanted(building, SEQUENCE_LENGTH))
    RETURN_IF_ERROR(add(building, SEQUENCE_LENGTH, ids_shape, 2, &lengths));
  for (int64_t beam = 0; beam < generation->beams; beam++) {
    int32_t *row = (int32_t *)data + beam * width;
    int64_t count = beam_tokens(building, beam);
    if (echoed > 0) memcpy(row, sequence->prompt, (size_t)echoed * sizeof *row);
    if (count > 0)
      memcpy(row + echoed, sequence->answer.tokens + building->from, (size_t)count * sizeof *row);
    for (int64_t at = echoed + count; at < width; at++) row[at] = -1;
    if (lengths != NULL) ((int32_t *)lengths)[beam] = (int32_t)(echoed + count);
  }
  return NULL;
}

/* Token k of a generation has log probability -(k + 1) / 1024: exact, and all different. */
static float log_prob(int64_t token) { return -(float)(token + 1) / 1024.0F; }

static TRITONSERVER_Error *add_log_probs(const struct building *building) {
  const struct generation *generation = building->generation;
  int64_t width = beam_tokens(building, 0);
  int64_t shape[] = {1, generation->beams, width};
  void *each = NULL, *sums = NULL;
  if (wanted(building, OUTPUT_LOG_PROBS))
    RETURN_IF_ERROR(add(building, OUTPUT_LOG_PROBS, shape, 3, &each));
  if (wanted(building, CUM_LOG_PROBS))
    RETURN_IF_ERROR(add(building, CUM_LOG_PROBS, shape, 2, &sums));
  for (int64_t beam = 0; beam < generation->beams; beam++) {
    int64_t end = building->from + beam_tokens(building, beam);
    if (each != NULL)
      for (int64_t at = 0; at < width; at++)
        ((float *)each)[beam * width + at] =
            building->from + at < end ? log_prob(building->from + at) : -1.0F;
    if (sums != NULL) ((float *)sums)[beam] = -(float)(end * (end + 1) / 2) / 1024.0F;
  }
  return NULL;
}

/* Before 0.14 an output nobody asked for came as a single zero. */
static TRITONSERVER_Error *add_dummies(const struct building *building) {
  static const struct {
    enum output output;
    uint32_t dims;
  } dummies[] = {{CUM_LOG_PROBS, 2}, {OUTPUT_LOG_PROBS, 3}, {CONTEXT_LOGITS, 3},
                 {GENERATION_LOGITS, 4}};
  static const int64_t shape[] = {1, 1, 1, 1};
  const struct generation *generation = building->generation;
  const bool asked[] = {generation->log_probs, generation->log_probs, generation->context_logits,
                        generation->generation_logits};
  for (size_t at = 0; at < sizeof dummies / sizeof *dummies; at++) {
    void *data = NULL;
    if (!asked[at] && wanted(building, dummies[at].output))
      RETURN_IF_ERROR(add(building, dummies[at].output, shape, dummies[at].dims, &data));
  }
  return NULL;
}

static TRITONSERVER_Error *add_logits(const struct building *building) {
  const struct generation *generation = building->generation;
  int64_t vocabulary = generation->model->settings.vocab_size;
  int64_t context[] = {1, building->sequence->prompt_count, vocabulary};
  int64_t made[] = {1, generation->beams, beam_tokens(building, 0), vocabulary};
  void *data = NULL;
  if (generation->context_logits && wanted(building, CONTEXT_LOGITS))
    RETURN_IF_ERROR(add(building, CONTEXT_LOGITS, context, 3, &data));
  if (generation->generation_logits && wanted(building, GENERATION_LOGITS))
    RETURN_IF_ERROR(add(building, GENERATION_LOGITS, made, 4, &data));
  return NULL;
}

static TRITONSERVER_Error *add_places(const struct building *building) {
  const struct generation *generation = building->generation;
  const struct sequence *sequence = building->sequence;
  bool always = generation->model->settings.unasked == UNASKED_DUMMY;
  if (wanted(building, BATCH_INDEX) && (always || generation->received.batch > 1))
    RETURN_IF_ERROR(add_int(building, BATCH_INDEX, sequence->row));
  if (wanted(building, SEQUENCE_INDEX) && (always || generation->return_count > 1))
    RETURN_IF_ERROR(add_int(building, SEQUENCE_INDEX, sequence->index));
  if (wanted(building, STREAM_KEY))
    RETURN_IF_ERROR(
        add_one(building, STREAM_KEY, &sequence->stream_key, sizeof sequence->stream_key));
  char end = building->last_of_sequence;
  if (wanted(building, STREAM_END)) RETURN_IF_ERROR(add_one(building, STREAM_END, &end, 1));
  return NULL;
}

static TRITONSERVER_Error *add_counts(const struct building *building) {
  const struct generation *generation = building->generation;
  int64_t echoed = generation->echo_input ? building->sequence->prompt_count : 0, made = 0;
  for (int64_t beam = 0; beam < generation->beams; beam++)
    made += echoed + beam_tokens(building, beam);
  if (generation->count_input && wanted(building, NUM_INPUT_TOKENS))
    RETURN_IF_ERROR(add_int(building, NUM_INPUT_TOKENS, building->sequence->prompt_count));
  if (generation->count_output && wanted(building, NUM_OUTPUT_TOKENS))
    RETURN_IF_ERROR(add_int(building, NUM_OUTPUT_TOKENS, made));
  for (enum output at = KV_CACHE_ALLOC_NEW_BLOCKS; at <= TOTAL_DRAFT_TOKENS; at++) {
    bool asked = at <= KV_CACHE_ALLOC_TOTAL_BLOCKS ? generation->kv_stats
                                                   : generation->perf_metrics;
    if (asked && wanted(building, at)) RETURN_IF_ERROR(add_one(building, at, NULL, 0));
  }
  return NULL;
}

static TRITONSERVER_Error *fill(const struct building *building) {
  RETURN_IF_ERROR(add_ids(building));
  RETURN_IF_ERROR(add_places(building));
  if (building->generation->log_probs) RETURN_IF_ERROR(add_log_probs(building));
  RETURN_IF_ERROR(add_logits(building));
  if (building->generation->model->settings.unasked == UNASKED_DUMMY)
    RETURN_IF_ERROR(add_dummies(building));
  return add_counts(building);
}

void response_send(const struct generation *generation, const struct sequence *sequence,
                   int64_t from, bool last_of_sequence, bool last_of_request) {
  uint32_t flags = last_of_request ? TRITONSERVER_RESPONSE_COMPLETE_FINAL : 0;
  struct building building = {NULL, generation, sequence, from, last_of_sequence};
  TRITONSERVER_Error *error =
      TRITONBACKEND_ResponseNewFromFactory(&building.response, generation->factory);
  if (error != NULL) {
    ignore_but_log(error);
    ignore_but_log(TRITONBACKEND_ResponseFactorySendFlags(generation->factory, flags));
    return;
  }
  error = fill(&building);
  ignore_but_log(TRITONBACKEND_ResponseSend(building.response, flags, error));
  ignore_but_log(error);
}

void response_fail(TRITONBACKEND_Request *request, TRITONSERVER_Error *error) {
  TRITONBACKEND_Response *response = NULL;
  TRITONSERVER_Error *failed = TRITONBACKEND_ResponseNew(&response, request);
  if (failed == NULL)
    failed = TRITONBACKEND_ResponseSend(response, TRITONSERVER_RESPONSE_COMPLETE_FINAL, error);
  ignore_but_log(failed);
  TRITONSERVER_ErrorDelete(error);
}

void response_empty(TRITONBACKEND_Request *request) {
  TRITONBACKEND_Response *response = NULL;
  TRITONSERVER_Error *failed = TRITONBACKEND_ResponseNew(&response, request);
  if (failed == NULL)
    failed = TRITONBACKEND_ResponseSend(response, TRITONSERVER_RESPONSE_COMPLETE_FINAL, NULL);
  ignore_but_log(failed);
}
