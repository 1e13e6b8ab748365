/* What the model configuration says: tensors, policy, and the stand-in's own parameters. */
#ifndef STANDIN_SETTINGS_H
#define STANDIN_SETTINGS_H

#include "json.h"
#include "triton_backend_api.h"

enum { MAX_DIMS = 8 };

struct tensor_spec {
  const char *name;      /* borrowed from the configuration */
  const char *type_name; /* TYPE_INT32, ...; borrowed */
  TRITONSERVER_DataType type;
  int dims_count;
  int64_t dims[MAX_DIMS];
  bool reshaped;
  int reshape_count;
  int64_t reshape[MAX_DIMS];
  bool optional, ragged;
};

struct tensor_list {
  struct tensor_spec *items;
  int count;
};

enum unasked { UNASKED_DUMMY, UNASKED_ABSENT };

struct settings {
  struct json *config;
  struct tensor_list inputs, outputs;
  bool decoupled;
  int64_t max_batch_size;
  int64_t max_beam_width; /* 0: not limited */
  bool exclude_input;
  bool executor_era; /* from 0.14, known by its sequence_index output */
  enum unasked unasked;
  char *contract_path, *tokens_path, *log_path; /* NULL where not set */
  int64_t end_after; /* tokens after which end_id comes; negative: never */
  int64_t senders, token_delay_us, tokens_per_response, vocab_size;
  bool include_end_id;
  bool in_steps, delay_from_id;
};

/* Reads and checks `model`'s configuration. On an error `settings` still wants settings_free. */
TRITONSERVER_Error *settings_read(struct settings *settings, TRITONBACKEND_Model *model);
void settings_free(struct settings *settings);

/* The tensor of that name, or NULL. */
const struct tensor_spec *tensor_find(const struct tensor_list *list, const char *name);

#endif
