/* One loaded model: its settings, scripts, log, senders and the generations that are running. */
#ifndef STANDIN_MODEL_H
#define STANDIN_MODEL_H

#include <pthread.h>

#include "journal.h"
#include "outputs.h"
#include "script.h"
#include "senders.h"
#include "settings.h"

struct generation;

struct model {
  struct settings settings;
  struct script *scripts;
  struct journal journal;
  struct senders senders;
  const struct tensor_spec *outputs[OUTPUT_COUNT]; /* NULL: this release has it not */
  pthread_mutex_t running_lock;
  struct generation *running;
};

/* Loads what `triton_model`'s configuration names; *model is NULL after an error. */
TRITONSERVER_Error *model_load(struct model **model, TRITONBACKEND_Model *triton_model);
void model_free(struct model *model);

#endif
