/* One request on its way: its sequences, what of them was sent, and how it ends. */
#include "generation.h"

#include <stdlib.h>
#include <string.h>

#include "errors.h"
#include "question.h"
#include "response.h"

static void join_running(struct generation *generation) {
  struct model *model = generation->model;
  pthread_mutex_lock(&model->running_lock);
  generation->after = model->running;
  if (generation->after != NULL) generation->after->before = generation;
  model->running = generation;
  pthread_mutex_unlock(&model->running_lock);
}

static void leave_running(struct generation *generation) {
  struct model *model = generation->model;
  pthread_mutex_lock(&model->running_lock);
  if (generation->before != NULL) generation->before->after = generation->after;
  if (generation->after != NULL) generation->after->before = generation->before;
  if (model->running == generation) model->running = generation->after;
  pthread_mutex_unlock(&model->running_lock);
}

static void free_generation(struct generation *generation) {
  for (int64_t at = 0; generation->sequences != NULL && at < generation->sequence_count; at++)
    free(generation->sequences[at].answer.tokens);
  free(generation->sequences);
  free(generation);
}

static const char *ending_name(enum ending ending) {
  static const char *const names[] = {"length", "end_id", "stop_words", "cancelled", "failed"};
  return names[ending];
}

/* After the last response: statistics, log, and everything given back to Triton. */
static void retire(struct generation *generation) {
  uint64_t start = generation->started_ns, end = clock_ns();
  int64_t tokens = 0;
  for (int64_t at = 0; at < generation->sequence_count; at++)
    tokens += generation->sequences[at].made;
  leave_running(generation);
  journal_end(&generation->model->journal, generation->received.id,
              ending_name(generation->ending), tokens);
  ignore_but_log(TRITONBACKEND_ModelInstanceReportStatistics(
      generation->instance, generation->request, generation->ending != ENDED_FAILED, start, start,
      end, end));
  ignore_but_log(TRITONBACKEND_ModelInstanceReportBatchStatistics(generation->instance, 1, start,
                                                                  start, end, end));
  received_free(&generation->received);
  TRITONBACKEND_ResponseFactory *factory = generation->factory;
  TRITONBACKEND_Request *request = generation->request;
  free_generation(generation);
  ignore_but_log(TRITONBACKEND_RequestRelease(request, TRITONSERVER_REQUEST_RELEASE_ALL));
  ignore_but_log(TRITONBACKEND_ResponseFactoryDelete(factory));
}

static void finish_sequence(struct generation *generation, struct sequence *sequence,
                            int64_t from) {
  response_send(generation, sequence, from, true, generation->open_count == 1);
  sequence->finished = true;
  generation->open_count--;
  generation->ending = sequence->answer.ending;
}

static void fail(struct generation *generation, const char *why) {
  response_fail(generation->request, TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INTERNAL, why));
  generation->ending = ENDED_FAILED;
  generation->open_count = 0;
}

/* One step of one sequence: its next tokens; sent at once in a stream, else when all are made. */
static void advance(struct generation *generation, struct sequence *sequence) {
  const struct settings *settings = &generation->model->settings;
  const struct answer *answer = &sequence->answer;
  int64_t from = sequence->made, left = answer->count - from;
  int64_t step = settings->tokens_per_response;
  if (!generation->streaming && generation->turn.pace_ns == 0) step = left;
  sequence->made += step < left ? step : left;
  bool all_made = sequence->made == answer->count;
  if (!generation->streaming) {
    if (all_made && answer->failure != NULL) fail(generation, answer->failure);
    if (all_made && answer->failure == NULL) finish_sequence(generation, sequence, 0);
    return;
  }
  bool one_more = answer->closes_empty || answer->failure != NULL;
  if (left == 0 && answer->failure != NULL) {
    fail(generation, answer->failure);
  } else if (all_made && (left == 0 || !one_more)) {
    finish_sequence(generation, sequence, from);
  } else {
    response_send(generation, sequence, from, false, false);
  }
}

static bool is_stopped(struct generation *generation) {
  bool cancelled = false;
  if (atomic_load(&generation->stopped)) return true;
  ignore_but_log(TRITONBACKEND_ResponseFactoryIsCancelled(generation->factory, &cancelled));
  return cancelled;
}

/* Each open sequence ends with what it has: in a stream, a response of no tokens. */
static void finish_early(struct generation *generation) {
  for (int64_t at = 0; at < generation->sequence_count; at++) {
    struct sequence *sequence = &generation->sequences[at];
    if (!sequence->finished)
      finish_sequence(generation, sequence, generation->streaming ? sequence->made : 0);
  }
  generation->ending = ENDED_CANCELLED;
}

bool generation_turn(struct turn *turn) {
  struct generation *generation = (struct generation *)(void *)turn;
  if (is_stopped(generation)) finish_early(generation);
  for (int64_t at = 0; generation->open_count > 0 && at < generation->sequence_count; at++)
    if (!generation->sequences[at].finished) advance(generation, &generation->sequences[at]);
  if (generation->open_count > 0) return true;
  retire(generation);
  return false;
}

/* Microseconds a token takes: the model's, or what follows the '@' of the request's id. */
static int64_t token_delay_us(const struct generation *generation) {
  const struct settings *settings = &generation->model->settings;
  const char *at = settings->delay_from_id ? strrchr(generation->received.id, '@') : NULL;
  int64_t delay = at == NULL ? settings->token_delay_us : strtoll(at + 1, NULL, 10);
  return delay < 0 ? 0 : delay;
}

TRITONSERVER_Error *generation_start(struct model *model, TRITONBACKEND_ModelInstance *instance,
                                     TRITONBACKEND_Request *request, struct received *received) {
  struct generation *generation = calloc(1, sizeof *generation);
  generation->model = model;
  generation->instance = instance;
  generation->request = request;
  generation->received = *received;
  generation->started_ns = clock_ns();
  TRITONSERVER_Error *error = question_read(generation);
  if (error == NULL) error = TRITONBACKEND_ResponseFactoryNew(&generation->factory, request);
  if (error != NULL) {
    free_generation(generation);
    return error;
  }
  generation->turn.pace_ns = (uint64_t)(token_delay_us(generation) *
                                        model->settings.tokens_per_response * 1000);
  join_running(generation);
  senders_add(&model->senders, &generation->turn);
  return NULL;
}

void generation_stop(struct model *model, const char *id) {
  pthread_mutex_lock(&model->running_lock);
  for (struct generation *at = model->running; at != NULL; at = at->after)
    if (strcmp(at->received.id, id) == 0) atomic_store(&at->stopped, true);
  pthread_mutex_unlock(&model->running_lock);
}

void generation_stop_all(struct model *model) {
  pthread_mutex_lock(&model->running_lock);
  for (struct generation *at = model->running; at != NULL; at = at->after)
    atomic_store(&at->stopped, true);
  pthread_mutex_unlock(&model->running_lock);
}
