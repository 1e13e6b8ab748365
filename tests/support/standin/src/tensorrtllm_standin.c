/* A stand-in for NVIDIA's `tensorrtllm` backend, for tests and benchmarks: no model, no GPU.
 *
 * It loads under that backend's name, checks what it is given as the real one would (and more
 * strictly), and replays scripted tokens in the real one's tensors. These are the entry points
 * that Triton calls; the rest is a file a noun: settings and contract at load, received, question
 * and answer when a request comes, generation, senders and response while it runs.
 *
 * Left out, on purpose: sampling, bad words, minimum lengths, embedding bias, LoRA, prompt
 * tables, draft tokens and guided decoding are read and logged, never acted on.
 */
#include <stdlib.h>

#include "errors.h"
#include "generation.h"
#include "response.h"

TRITONSERVER_Error *TRITONBACKEND_Initialize(TRITONBACKEND_Backend *backend) {
  (void)backend;
  uint32_t major = 0, minor = 0;
  RETURN_IF_ERROR(TRITONBACKEND_ApiVersion(&major, &minor));
  if (major != TRITONBACKEND_API_VERSION_MAJOR)
    return refuse("the stand-in was written for backend API %d; this server has %u.%u",
                  TRITONBACKEND_API_VERSION_MAJOR, major, minor);
  log_line(TRITONSERVER_LOG_WARN,
           "this 'tensorrtllm' backend is a STAND-IN for tests: there is no TensorRT-LLM behind "
           "it, and its tokens are scripted");
  return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInitialize(TRITONBACKEND_Model *triton_model) {
  struct model *model = NULL;
  const char *name = "";
  RETURN_IF_ERROR(TRITONBACKEND_ModelName(triton_model, &name));
  RETURN_IF_ERROR(model_load(&model, triton_model));
  log_line(TRITONSERVER_LOG_WARN, "model '%s' is answered by the stand-in, not by TensorRT-LLM",
           name);
  return TRITONBACKEND_ModelSetState(triton_model, model);
}

TRITONSERVER_Error *TRITONBACKEND_ModelFinalize(TRITONBACKEND_Model *triton_model) {
  void *model = NULL;
  RETURN_IF_ERROR(TRITONBACKEND_ModelState(triton_model, &model));
  if (model != NULL) model_free(model);
  return NULL;
}

/* A stop request: ends the running request of the same id, and answers with nothing. */
static TRITONSERVER_Error *stop(struct model *model, TRITONBACKEND_Request *request,
                                struct received *received) {
  if (*received->id == '\0') return refuse("input 'stop' needs the id of the request to stop");
  generation_stop(model, received->id);
  response_empty(request);
  received_free(received);
  return TRITONBACKEND_RequestRelease(request, TRITONSERVER_REQUEST_RELEASE_ALL);
}

static TRITONSERVER_Error *accept(struct model *model, TRITONBACKEND_ModelInstance *instance,
                                  TRITONBACKEND_Request *request, struct received *received) {
  RETURN_IF_ERROR(received_read(received, request));
  journal_request(&model->journal, request, received);
  RETURN_IF_ERROR(received_check(received, &model->settings));
  if (received_int(received, "stop", 0, 0) != 0) return stop(model, request, received);
  return generation_start(model, instance, request, received);
}

static void reject(TRITONBACKEND_ModelInstance *instance, TRITONBACKEND_Request *request,
                   TRITONSERVER_Error *error) {
  response_fail(request, error);
  ignore_but_log(
      TRITONBACKEND_ModelInstanceReportStatistics(instance, request, false, 0, 0, 0, 0));
  ignore_but_log(TRITONBACKEND_RequestRelease(request, TRITONSERVER_REQUEST_RELEASE_ALL));
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance *instance,
                                                       TRITONBACKEND_Request **requests,
                                                       uint32_t request_count) {
  TRITONBACKEND_Model *triton_model = NULL;
  void *model = NULL;
  RETURN_IF_ERROR(TRITONBACKEND_ModelInstanceModel(instance, &triton_model));
  RETURN_IF_ERROR(TRITONBACKEND_ModelState(triton_model, &model));
  for (uint32_t at = 0; at < request_count; at++) {
    struct received received = {0};
    TRITONSERVER_Error *error = accept(model, instance, requests[at], &received);
    if (error == NULL) continue;
    received_free(&received);
    reject(instance, requests[at], error);
  }
  return NULL;
}
