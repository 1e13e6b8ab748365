/* Compares a model configuration with what a TensorRT-LLM release has. */
#include "contract.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"

enum { LINE_BYTES = 512, FIELD_BYTES = 128 };

struct check {
  const struct settings *settings;
  bool *input_seen, *output_seen;
  struct json known; /* parameters: an object whose members are the known keys */
};

/* `[1,-1]`, as the contract writes it. */
static void write_dims(char *text, size_t size, int count, const int64_t *dims) {
  size_t used = (size_t)snprintf(text, size, "[");
  for (int at = 0; at < count && used < size; at++)
    used += (size_t)snprintf(text + used, size - used, at ? ",%lld" : "%lld", (long long)dims[at]);
  if (used < size) snprintf(text + used, size - used, "]");
}

static bool one_of(const char *choices, const char *wanted) {
  size_t length = strlen(wanted);
  for (const char *at = choices; at != NULL; at = strchr(at, '|')) {
    if (*at == '|') at++;
    if (strncmp(at, wanted, length) == 0 && (at[length] == '\0' || at[length] == '|')) return true;
  }
  return false;
}

static TRITONSERVER_Error *differs(const char *kind, const char *name, const char *what,
                                   const char *found, const char *wanted) {
  return refuse("%s '%s' has %s %s; this release has %s", kind, name, what, found, wanted);
}

static TRITONSERVER_Error *compare(const char *kind, const struct tensor_spec *spec,
                                   char fields[][FIELD_BYTES]) {
  const char *type = fields[2], *dims = fields[3], *reshape = fields[4];
  char text[LINE_BYTES];
  if (!one_of(type, spec->type_name))
    return differs(kind, spec->name, "data_type", spec->type_name, type);
  write_dims(text, sizeof text, spec->dims_count, spec->dims);
  if (strcmp(text, dims) != 0) return differs(kind, spec->name, "dims", text, dims);
  write_dims(text, sizeof text, spec->reshape_count, spec->reshape);
  const char *found = spec->reshaped ? text : "-";
  if (strcmp(found, reshape) != 0) return differs(kind, spec->name, "reshape", found, reshape);
  const char *presence = spec->optional ? "optional" : "required";
  if (strcmp(presence, fields[5]) != 0)
    return differs(kind, spec->name, "presence", presence, fields[5]);
  const char *batch = spec->ragged ? "ragged" : "uniform";
  if (strcmp(batch, fields[6]) != 0) return differs(kind, spec->name, "batch", batch, fields[6]);
  return NULL;
}

static TRITONSERVER_Error *take_tensor(struct check *check, char fields[][FIELD_BYTES]) {
  bool is_input = strcmp(fields[0], "input") == 0;
  const struct tensor_list *list =
      is_input ? &check->settings->inputs : &check->settings->outputs;
  const struct tensor_spec *spec = tensor_find(list, fields[1]);
  if (spec == NULL)
    return refuse("%s '%s' is missing; this release has it", fields[0], fields[1]);
  (is_input ? check->input_seen : check->output_seen)[spec - list->items] = true;
  return compare(fields[0], spec, fields);
}

static void take_parameter(struct check *check, const char *key) {
  struct json *member = calloc(1, sizeof *member);
  member->key = strdup(key);
  member->next = check->known.child;
  check->known.child = member;
}

static TRITONSERVER_Error *take_line(struct check *check, char *line, int number) {
  char fields[7][FIELD_BYTES] = {{0}};
  line[strcspn(line, "#")] = '\0';
  int count = sscanf(line, "%127s %127s %127s %127s %127s %127s %127s", fields[0], fields[1],
                     fields[2], fields[3], fields[4], fields[5], fields[6]);
  if (count <= 0) return NULL;
  if (count == 2 && strcmp(fields[0], "parameter") == 0) {
    take_parameter(check, fields[1]);
    return NULL;
  }
  bool tensor = strcmp(fields[0], "input") == 0 || strcmp(fields[0], "output") == 0;
  if (count != 7 || !tensor)
    return refuse("%s, line %d is not a contract line", check->settings->contract_path, number);
  return take_tensor(check, fields);
}

static TRITONSERVER_Error *check_unseen(const char *kind, const struct tensor_list *list,
                                        const bool *seen) {
  for (int at = 0; at < list->count; at++)
    if (!seen[at])
      return refuse("%s '%s' is not one this release has", kind, list->items[at].name);
  return NULL;
}

static TRITONSERVER_Error *check_keys(const struct check *check) {
  const struct json *entry = json_get(check->settings->config, "parameters");
  for (entry = entry == NULL ? NULL : entry->child; entry != NULL; entry = entry->next) {
    bool own = strncmp(entry->key, "standin_", strlen("standin_")) == 0;
    if (!own && json_get(&check->known, entry->key) == NULL)
      return refuse("parameter '%s' is not one this release has", entry->key);
  }
  return NULL;
}

static TRITONSERVER_Error *check_file(struct check *check, FILE *file) {
  char line[LINE_BYTES];
  for (int number = 1; fgets(line, sizeof line, file) != NULL; number++)
    RETURN_IF_ERROR(take_line(check, line, number));
  RETURN_IF_ERROR(check_unseen("input", &check->settings->inputs, check->input_seen));
  RETURN_IF_ERROR(check_unseen("output", &check->settings->outputs, check->output_seen));
  return check_keys(check);
}

TRITONSERVER_Error *contract_check(const struct settings *settings) {
  if (settings->contract_path == NULL) return NULL;
  FILE *file = fopen(settings->contract_path, "r");
  if (file == NULL) return refuse("cannot read the contract %s", settings->contract_path);
  struct check check = {.settings = settings, .known = {.kind = JSON_OBJECT}};
  check.input_seen = calloc((size_t)settings->inputs.count + 1, sizeof(bool));
  check.output_seen = calloc((size_t)settings->outputs.count + 1, sizeof(bool));
  TRITONSERVER_Error *error = check_file(&check, file);
  fclose(file);
  free(check.input_seen);
  free(check.output_seen);
  json_free(check.known.child);
  return error;
}
