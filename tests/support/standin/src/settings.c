/* What the model configuration says: tensors, policy, and the stand-in's own parameters. */
#include "settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"

static const struct json *parameters_of(const struct settings *settings) {
  return json_get(settings->config, "parameters");
}

/* A parameter's value, or NULL; an empty value counts as not set, as TensorRT-LLM has it. */
static const char *parameter(const struct settings *settings, const char *key) {
  const struct json *entry = json_get(parameters_of(settings), key);
  const char *value = json_text(json_get(entry, "string_value"), "");
  return *value == '\0' ? NULL : value;
}

static TRITONSERVER_Error *read_int(const struct settings *settings, const char *key,
                                    int64_t least, int64_t *value) {
  const char *text = parameter(settings, key);
  if (text == NULL) return NULL;
  char *end = NULL;
  int64_t number = strtoll(text, &end, 10);
  if (*end != '\0' || number < least)
    return refuse("parameter '%s' is '%s'; it must be a whole number of at least %lld", key, text,
                  (long long)least);
  *value = number;
  return NULL;
}

static TRITONSERVER_Error *read_bool(const struct settings *settings, const char *key,
                                     bool *value) {
  const char *text = parameter(settings, key);
  if (text == NULL) return NULL;
  bool yes = !strcmp(text, "true") || !strcmp(text, "True") || !strcmp(text, "1");
  bool no = !strcmp(text, "false") || !strcmp(text, "False") || !strcmp(text, "0");
  if (!yes && !no) return refuse("parameter '%s' is '%s'; it must be true or false", key, text);
  *value = yes;
  return NULL;
}

/* A path; a relative one is taken from the model's folder. */
static char *read_path(const struct settings *settings, const char *key, const char *folder) {
  const char *text = parameter(settings, key);
  if (text == NULL) return NULL;
  if (*text == '/') return strdup(text);
  size_t size = strlen(folder) + strlen(text) + 2;
  char *path = malloc(size);
  snprintf(path, size, "%s/%s", folder, text);
  return path;
}

static TRITONSERVER_Error *read_unasked(struct settings *settings) {
  settings->unasked = settings->executor_era ? UNASKED_ABSENT : UNASKED_DUMMY;
  const char *text = parameter(settings, "standin_unasked_outputs");
  if (text == NULL) return NULL;
  if (strcmp(text, "dummy") != 0 && strcmp(text, "absent") != 0)
    return refuse("parameter 'standin_unasked_outputs' is '%s'; it must be dummy or absent", text);
  settings->unasked = *text == 'd' ? UNASKED_DUMMY : UNASKED_ABSENT;
  return NULL;
}

static TRITONSERVER_Error *check_parameters(const struct settings *settings) {
  static const char *const known[] = {
      "standin_contract",     "standin_tokens",         "standin_log",
      "standin_end_after",    "standin_senders",        "standin_token_delay_us",
      "standin_vocab_size",   "standin_include_end_id", "standin_tokens_per_response",
      "standin_unasked_outputs", "standin_steps",        "standin_delay_from_id"};
  const struct json *entry = parameters_of(settings);
  for (entry = entry == NULL ? NULL : entry->child; entry != NULL; entry = entry->next) {
    const char *value = json_text(json_get(entry, "string_value"), "");
    if (strstr(value, "${") != NULL)
      return refuse("parameter '%s' still holds a placeholder: '%s'", entry->key, value);
    if (strncmp(entry->key, "standin_", strlen("standin_")) != 0) continue;
    size_t at = 0, count = sizeof known / sizeof *known;
    while (at < count && strcmp(known[at], entry->key) != 0) at++;
    if (at == count) return refuse("parameter '%s' is not one the stand-in has", entry->key);
  }
  return NULL;
}

static TRITONSERVER_Error *read_parameters(struct settings *settings, const char *folder) {
  RETURN_IF_ERROR(check_parameters(settings));
  settings->end_after = -1;
  settings->senders = 1;
  settings->tokens_per_response = 1;
  settings->vocab_size = 8;
  RETURN_IF_ERROR(read_int(settings, "standin_end_after", 0, &settings->end_after));
  RETURN_IF_ERROR(read_int(settings, "standin_senders", 1, &settings->senders));
  RETURN_IF_ERROR(read_int(settings, "standin_token_delay_us", 0, &settings->token_delay_us));
  RETURN_IF_ERROR(
      read_int(settings, "standin_tokens_per_response", 1, &settings->tokens_per_response));
  RETURN_IF_ERROR(read_int(settings, "standin_vocab_size", 1, &settings->vocab_size));
  RETURN_IF_ERROR(read_int(settings, "max_beam_width", 1, &settings->max_beam_width));
  RETURN_IF_ERROR(read_bool(settings, "standin_include_end_id", &settings->include_end_id));
  RETURN_IF_ERROR(read_bool(settings, "standin_steps", &settings->in_steps));
  RETURN_IF_ERROR(read_bool(settings, "standin_delay_from_id", &settings->delay_from_id));
  RETURN_IF_ERROR(read_bool(settings, "exclude_input_in_output", &settings->exclude_input));
  settings->contract_path = read_path(settings, "standin_contract", folder);
  settings->tokens_path = read_path(settings, "standin_tokens", folder);
  settings->log_path = read_path(settings, "standin_log", folder);
  return read_unasked(settings);
}

static TRITONSERVER_Error *read_dims(const struct json *array, const char *name, int *count,
                                     int64_t *dims) {
  *count = 0;
  const struct json *item = array == NULL ? NULL : array->child;
  for (; item != NULL; item = item->next) {
    if (*count == MAX_DIMS) return refuse("tensor '%s' has more than %d dims", name, MAX_DIMS);
    dims[(*count)++] = json_int(item, 0);
  }
  return NULL;
}

static TRITONSERVER_Error *read_tensor(const struct json *entry, struct tensor_spec *spec) {
  spec->name = json_text(json_get(entry, "name"), "");
  spec->type_name = json_text(json_get(entry, "data_type"), "");
  const char *bare = strncmp(spec->type_name, "TYPE_", 5) ? "" : spec->type_name + 5;
  spec->type = TRITONSERVER_StringToDataType(strcmp(bare, "STRING") ? bare : "BYTES");
  if (spec->type == TRITONSERVER_TYPE_INVALID)
    return refuse("tensor '%s' has no usable data_type: '%s'", spec->name, spec->type_name);
  RETURN_IF_ERROR(
      read_dims(json_get(entry, "dims"), spec->name, &spec->dims_count, spec->dims));
  const struct json *reshape = json_get(entry, "reshape");
  spec->reshaped = reshape != NULL && reshape->kind == JSON_OBJECT;
  spec->optional = json_bool(json_get(entry, "optional"), false);
  spec->ragged = json_bool(json_get(entry, "allow_ragged_batch"), false);
  return read_dims(json_get(reshape, "shape"), spec->name, &spec->reshape_count, spec->reshape);
}

static TRITONSERVER_Error *read_tensors(const struct json *array, struct tensor_list *list) {
  int count = 0;
  const struct json *entry = array == NULL ? NULL : array->child;
  for (const struct json *each = entry; each != NULL; each = each->next) count++;
  list->items = calloc((size_t)count + 1, sizeof *list->items);
  for (; entry != NULL; entry = entry->next)
    RETURN_IF_ERROR(read_tensor(entry, &list->items[list->count++]));
  return NULL;
}

static TRITONSERVER_Error *read_config(TRITONBACKEND_Model *model, struct json **config) {
  TRITONSERVER_Message *message = NULL;
  const char *text = NULL;
  size_t size = 0;
  RETURN_IF_ERROR(TRITONBACKEND_ModelConfig(model, 1, &message));
  TRITONSERVER_Error *error = TRITONSERVER_MessageSerializeToJson(message, &text, &size);
  if (error == NULL && (*config = json_parse(text, size)) == NULL)
    error = refuse("the model configuration is not readable JSON");
  ignore_but_log(TRITONSERVER_MessageDelete(message));
  return error;
}

TRITONSERVER_Error *settings_read(struct settings *settings, TRITONBACKEND_Model *model) {
  TRITONBACKEND_ArtifactType kind;
  const char *folder = NULL;
  RETURN_IF_ERROR(read_config(model, &settings->config));
  RETURN_IF_ERROR(TRITONBACKEND_ModelRepository(model, &kind, &folder));
  RETURN_IF_ERROR(read_tensors(json_get(settings->config, "input"), &settings->inputs));
  RETURN_IF_ERROR(read_tensors(json_get(settings->config, "output"), &settings->outputs));
  const struct json *policy = json_get(settings->config, "model_transaction_policy");
  settings->decoupled = json_bool(json_get(policy, "decoupled"), false);
  settings->max_batch_size = json_int(json_get(settings->config, "max_batch_size"), 0);
  settings->executor_era = tensor_find(&settings->outputs, "sequence_index") != NULL;
  if (settings->max_batch_size < 1)
    return refuse("max_batch_size is %lld; the tensorrtllm backend needs at least 1",
                  (long long)settings->max_batch_size);
  return read_parameters(settings, folder);
}

void settings_free(struct settings *settings) {
  json_free(settings->config);
  free(settings->inputs.items);
  free(settings->outputs.items);
  free(settings->contract_path);
  free(settings->tokens_path);
  free(settings->log_path);
}

const struct tensor_spec *tensor_find(const struct tensor_list *list, const char *name) {
  for (int at = 0; at < list->count; at++)
    if (strcmp(list->items[at].name, name) == 0) return &list->items[at];
  return NULL;
}
