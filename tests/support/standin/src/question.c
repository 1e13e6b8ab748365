/* Turns a request's inputs into a generation: options, sequences and their answers. */
#include "question.h"

#include <stdlib.h>

#include "errors.h"

static bool flag(const struct generation *generation, const char *name) {
  return received_int(&generation->received, name, 0, 0) != 0;
}

static void read_flags(struct generation *generation) {
  const struct settings *settings = &generation->model->settings;
  generation->streaming = flag(generation, "streaming");
  generation->log_probs = flag(generation, "return_log_probs");
  generation->context_logits = flag(generation, "return_context_logits");
  generation->generation_logits = flag(generation, "return_generation_logits");
  generation->count_input = flag(generation, "return_num_input_tokens");
  generation->count_output = flag(generation, "return_num_output_tokens");
  generation->perf_metrics = flag(generation, "return_perf_metrics");
  generation->kv_stats =
      generation->perf_metrics || flag(generation, "return_kv_cache_reuse_stats");
  bool exclude = received_int(&generation->received, "exclude_input_in_output", 0,
                              settings->exclude_input) != 0;
  generation->echo_input = !exclude && !generation->streaming;
}

static TRITONSERVER_Error *read_widths(struct generation *generation) {
  const struct settings *settings = &generation->model->settings;
  int64_t beams = received_int(&generation->received, "beam_width", 0, 1);
  int64_t returns = received_int(&generation->received, "num_return_sequences", 0, 1);
  if (beams < 1) return refuse("input 'beam_width' is %lld", (long long)beams);
  if (returns < 1) return refuse("input 'num_return_sequences' is %lld", (long long)returns);
  if (settings->max_beam_width > 0 && beams > settings->max_beam_width)
    return refuse("input 'beam_width' is %lld; max_beam_width is %lld", (long long)beams,
                  (long long)settings->max_beam_width);
  if (beams > 1 && returns > beams)
    return refuse("input 'num_return_sequences' is %lld; beam_width is %lld", (long long)returns,
                  (long long)beams);
  if (beams > 1 && generation->streaming)
    return refuse("input 'beam_width' is %lld; a stream has one beam", (long long)beams);
  bool some_beams = beams > 1 && received_find(&generation->received, "num_return_sequences");
  generation->beams = some_beams ? returns : beams;
  generation->return_count = beams > 1 ? 1 : returns;
  generation->sequence_count = generation->return_count * generation->received.batch;
  if (settings->decoupled) return NULL;
  if (generation->streaming) return refuse("input 'streaming' needs a decoupled model");
  if (generation->sequence_count > 1)
    return refuse("%lld sequences were asked for; more than one needs a decoupled model",
                  (long long)generation->sequence_count);
  return NULL;
}

static TRITONSERVER_Error *read_wanted(struct generation *generation) {
  uint32_t count = 0;
  RETURN_IF_ERROR(TRITONBACKEND_RequestOutputCount(generation->request, &count));
  for (uint32_t at = 0; at < count; at++) {
    const char *name = NULL;
    RETURN_IF_ERROR(TRITONBACKEND_RequestOutputName(generation->request, at, &name));
    enum output output = output_named(name);
    if (output < OUTPUT_COUNT)
      generation->wanted[output] = generation->model->outputs[output] != NULL;
  }
  if (!generation->wanted[OUTPUT_IDS]) return refuse("output 'output_ids' must be asked for");
  if (generation->model->settings.executor_era && !generation->wanted[SEQUENCE_LENGTH])
    return refuse("output 'sequence_length' must be asked for in this release");
  return NULL;
}

static TRITONSERVER_Error *read_words(const struct received *received, const char *name,
                                      int64_t row, struct word_list *list) {
  const struct received_input *input = received_find(received, name);
  if (input == NULL) return NULL;
  int64_t count = 0;
  list->ids = (const int32_t *)(const void *)received_row(received, input, row, &count);
  list->width = count / 2;
  return word_list_check(list, name);
}

static TRITONSERVER_Error *read_row(const struct received *received, int64_t row,
                                    struct question *question) {
  const struct received_input *ids = received_find(received, "input_ids");
  if (ids == NULL) return refuse("input 'input_ids' is missing");
  int64_t width = 0;
  question->prompt = (const int32_t *)(const void *)received_row(received, ids, row, &width);
  question->prompt_count = received_int(received, "input_lengths", row, width);
  if (question->prompt_count < 1 || question->prompt_count > width)
    return refuse("input 'input_lengths' is %lld in row %lld; input_ids has %lld",
                  (long long)question->prompt_count, (long long)row, (long long)width);
  question->length = received_int(received, "request_output_len", row, 0);
  if (question->length < 1)
    return refuse("input 'request_output_len' is %lld", (long long)question->length);
  question->end_id = received_int(received, "end_id", row, -1);
  struct word_list bad_words = {0};
  RETURN_IF_ERROR(read_words(received, "bad_words_list", row, &bad_words));
  return read_words(received, "stop_words_list", row, &question->stop_words);
}

static TRITONSERVER_Error *read_sequence(struct generation *generation, int64_t at) {
  struct sequence *sequence = &generation->sequences[at];
  struct question question = {.shorter = at % generation->return_count};
  sequence->row = at / generation->return_count;
  sequence->index = at % generation->return_count;
  RETURN_IF_ERROR(read_row(&generation->received, sequence->row, &question));
  sequence->prompt = question.prompt;
  sequence->prompt_count = question.prompt_count;
  sequence->stream_key =
      (uint64_t)received_int(&generation->received, "stream_key", sequence->row, 0);
  sequence->answer =
      answer_make(&generation->model->settings, generation->model->scripts, &question);
  return NULL;
}

TRITONSERVER_Error *question_read(struct generation *generation) {
  read_flags(generation);
  RETURN_IF_ERROR(read_widths(generation));
  RETURN_IF_ERROR(read_wanted(generation));
  generation->sequences =
      calloc((size_t)generation->sequence_count, sizeof *generation->sequences);
  for (int64_t at = 0; at < generation->sequence_count; at++)
    RETURN_IF_ERROR(read_sequence(generation, at));
  generation->open_count = generation->sequence_count;
  return NULL;
}
