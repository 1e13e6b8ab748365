/* One loaded model: its settings, scripts, log, senders and the generations that are running. */
#include "model.h"

#include <stdlib.h>

#include "contract.h"
#include "errors.h"
#include "generation.h"

static TRITONSERVER_Error *load(struct model *model, TRITONBACKEND_Model *triton_model) {
  struct settings *settings = &model->settings;
  pthread_mutex_init(&model->running_lock, NULL);
  RETURN_IF_ERROR(settings_read(settings, triton_model));
  RETURN_IF_ERROR(contract_check(settings));
  RETURN_IF_ERROR(outputs_find(model->outputs, &settings->outputs));
  RETURN_IF_ERROR(script_read(&model->scripts, settings->tokens_path));
  RETURN_IF_ERROR(journal_open(&model->journal, settings->log_path));
  if (!senders_start(&model->senders, settings->senders, settings->in_steps, generation_turn))
    return refuse("could not start %lld sender threads", (long long)settings->senders);
  return NULL;
}

TRITONSERVER_Error *model_load(struct model **model, TRITONBACKEND_Model *triton_model) {
  *model = calloc(1, sizeof **model);
  TRITONSERVER_Error *error = load(*model, triton_model);
  if (error == NULL) return NULL;
  model_free(*model);
  *model = NULL;
  return error;
}

void model_free(struct model *model) {
  generation_stop_all(model);
  senders_stop(&model->senders);
  journal_close(&model->journal);
  script_free(model->scripts);
  settings_free(&model->settings);
  pthread_mutex_destroy(&model->running_lock);
  free(model);
}
