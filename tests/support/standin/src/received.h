/* A request's input tensors, as they came: checked against the configuration, readable by row. */
#ifndef STANDIN_RECEIVED_H
#define STANDIN_RECEIVED_H

#include "settings.h"

struct received_input {
  const char *name;
  TRITONSERVER_DataType type;
  const int64_t *shape;
  uint32_t dims_count;
  const char *bytes;
  uint64_t byte_size;
  char *joined; /* owns `bytes` where Triton's own were in parts, or not aligned */
};

struct received {
  const char *id; /* "" where the request has none */
  struct received_input *inputs;
  uint32_t count;
  int64_t batch; /* rows, known once checked */
};

/* Reads every input of `request`; names and bytes live as long as the request does. */
TRITONSERVER_Error *received_read(struct received *received, TRITONBACKEND_Request *request);
void received_free(struct received *received);

/* Types, shapes and sizes must be the configuration's, with one batch size throughout. */
TRITONSERVER_Error *received_check(struct received *received, const struct settings *settings);

/* The input of that name, or NULL. */
const struct received_input *received_find(const struct received *received, const char *name);

/* The elements that belong to one row, and how many they are. */
const char *received_row(const struct received *received, const struct received_input *input,
                         int64_t row, int64_t *count);

/* A whole number or truth value for one row, or `otherwise` where the input was left out. */
int64_t received_int(const struct received *received, const char *name, int64_t row,
                     int64_t otherwise);

#endif
