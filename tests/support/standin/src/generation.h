/* One request on its way: its sequences, what of them was sent, and how it ends.
 *
 * A request of B rows with n return sequences runs as B x n sequences that advance together; each
 * has its last response, and the request's final flag goes out with the last of those.
 */
#ifndef STANDIN_GENERATION_H
#define STANDIN_GENERATION_H

#include <stdatomic.h>

#include "answer.h"
#include "model.h"
#include "received.h"

struct sequence {
  int64_t row, index; /* in the batch, among its return sequences */
  const int32_t *prompt;
  int64_t prompt_count;
  uint64_t stream_key;
  struct answer answer;
  int64_t made; /* tokens so far; in a stream all of them are sent */
  bool finished;
};

struct generation {
  struct turn turn; /* first, so that a turn is a generation */
  struct model *model;
  TRITONBACKEND_ModelInstance *instance;
  TRITONBACKEND_Request *request;
  TRITONBACKEND_ResponseFactory *factory;
  struct received received;
  uint64_t started_ns;

  bool streaming, echo_input;
  bool log_probs, context_logits, generation_logits;
  bool count_input, count_output, kv_stats, perf_metrics;
  bool wanted[OUTPUT_COUNT];
  int64_t beams, return_count;
  struct sequence *sequences;
  int64_t sequence_count, open_count;

  atomic_bool stopped;
  enum ending ending;
  struct generation *before, *after; /* among those running */
};

/* Starts answering `request`; takes over it and `received`, unless it returns an error. */
TRITONSERVER_Error *generation_start(struct model *model, TRITONBACKEND_ModelInstance *instance,
                                     TRITONBACKEND_Request *request, struct received *received);

/* What the senders call: one engine step. False once the request is answered and freed. */
bool generation_turn(struct turn *turn);

/* Makes every running request with this id end at its next step. */
void generation_stop(struct model *model, const char *id);
void generation_stop_all(struct model *model);

#endif
