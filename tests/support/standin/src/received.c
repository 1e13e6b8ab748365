/* A request's input tensors, as they came: checked against the configuration, readable by row. */
#include "received.h"

#include <stdlib.h>
#include <string.h>

#include "errors.h"

enum { ALIGNMENT = 8 };

static TRITONSERVER_Error *read_bytes(TRITONBACKEND_Input *input, uint32_t buffers,
                                      struct received_input *into) {
  uint64_t filled = 0;
  for (uint32_t at = 0; at < buffers; at++) {
    const void *part = NULL;
    uint64_t size = 0;
    TRITONSERVER_MemoryType kind = TRITONSERVER_MEMORY_CPU;
    int64_t device = 0;
    RETURN_IF_ERROR(TRITONBACKEND_InputBuffer(input, at, &part, &size, &kind, &device));
    if (kind == TRITONSERVER_MEMORY_GPU) return refuse("input '%s' is in GPU memory", into->name);
    if (filled + size > into->byte_size) return refuse("input '%s' overruns its size", into->name);
    bool usable = buffers == 1 && (uintptr_t)part % ALIGNMENT == 0;
    if (usable) into->bytes = part;
    if (!usable && into->joined == NULL) into->bytes = into->joined = malloc(into->byte_size + 1);
    if (!usable) memcpy(into->joined + filled, part, size);
    filled += size;
  }
  if (filled != into->byte_size) return refuse("input '%s' is cut short", into->name);
  return NULL;
}

TRITONSERVER_Error *received_read(struct received *received, TRITONBACKEND_Request *request) {
  uint32_t count = 0, buffers = 0;
  RETURN_IF_ERROR(TRITONBACKEND_RequestId(request, &received->id));
  if (received->id == NULL) received->id = "";
  RETURN_IF_ERROR(TRITONBACKEND_RequestInputCount(request, &count));
  received->inputs = calloc(count + 1, sizeof *received->inputs);
  for (uint32_t at = 0; at < count; at++) {
    struct received_input *into = &received->inputs[at];
    TRITONBACKEND_Input *input = NULL;
    RETURN_IF_ERROR(TRITONBACKEND_RequestInputByIndex(request, at, &input));
    RETURN_IF_ERROR(TRITONBACKEND_InputProperties(input, &into->name, &into->type, &into->shape,
                                                  &into->dims_count, &into->byte_size, &buffers));
    received->count++;
    RETURN_IF_ERROR(read_bytes(input, buffers, into));
  }
  return NULL;
}

void received_free(struct received *received) {
  for (uint32_t at = 0; at < received->count; at++) free(received->inputs[at].joined);
  free(received->inputs);
  *received = (struct received){0};
}

static TRITONSERVER_Error *check_shape(const struct received_input *input,
                                       const struct tensor_spec *spec, int64_t batch) {
  int count = spec->reshaped ? spec->reshape_count : spec->dims_count;
  const int64_t *dims = spec->reshaped ? spec->reshape : spec->dims;
  if (input->dims_count != (uint32_t)count + 1)
    return refuse("input '%s' has %u dims; it must have %d with the batch's", input->name,
                  input->dims_count, count + 1);
  if (input->shape[0] != batch)
    return refuse("input '%s' has batch size %lld where the others have %lld", input->name,
                  (long long)input->shape[0], (long long)batch);
  for (int at = 0; at < count; at++)
    if (dims[at] >= 0 && input->shape[at + 1] != dims[at])
      return refuse("input '%s' has %lld in dim %d; it must have %lld", input->name,
                    (long long)input->shape[at + 1], at + 1, (long long)dims[at]);
  return NULL;
}

static int64_t element_count(const struct received_input *input) {
  int64_t count = 1;
  for (uint32_t at = 0; at < input->dims_count; at++) count *= input->shape[at];
  return count;
}

static TRITONSERVER_Error *check_input(const struct received_input *input,
                                       const struct settings *settings, int64_t batch) {
  const struct tensor_spec *spec = tensor_find(&settings->inputs, input->name);
  if (spec == NULL) return refuse("input '%s' is not in the configuration", input->name);
  if (input->type != spec->type)
    return refuse("input '%s' is %s; it must be %s", input->name,
                  TRITONSERVER_DataTypeString(input->type),
                  TRITONSERVER_DataTypeString(spec->type));
  RETURN_IF_ERROR(check_shape(input, spec, batch));
  uint64_t size = (uint64_t)element_count(input) * TRITONSERVER_DataTypeByteSize(input->type);
  if (input->type != TRITONSERVER_TYPE_BYTES && input->byte_size != size)
    return refuse("input '%s' has %llu bytes; its shape needs %llu", input->name,
                  (unsigned long long)input->byte_size, (unsigned long long)size);
  return NULL;
}

TRITONSERVER_Error *received_check(struct received *received, const struct settings *settings) {
  const struct received_input *ids = received_find(received, "input_ids");
  if (ids == NULL) ids = received->inputs; /* a stop request may come without */
  bool any = received->count > 0 && ids->dims_count > 0;
  received->batch = any ? ids->shape[0] : 0;
  if (received->batch < 1) return refuse("the request has no rows");
  for (uint32_t at = 0; at < received->count; at++)
    RETURN_IF_ERROR(check_input(&received->inputs[at], settings, received->batch));
  return NULL;
}

const struct received_input *received_find(const struct received *received, const char *name) {
  for (uint32_t at = 0; at < received->count; at++)
    if (strcmp(received->inputs[at].name, name) == 0) return &received->inputs[at];
  return NULL;
}

const char *received_row(const struct received *received, const struct received_input *input,
                         int64_t row, int64_t *count) {
  *count = element_count(input) / received->batch;
  return input->bytes + row * *count * TRITONSERVER_DataTypeByteSize(input->type);
}

int64_t received_int(const struct received *received, const char *name, int64_t row,
                     int64_t otherwise) {
  const struct received_input *input = received_find(received, name);
  if (input == NULL) return otherwise;
  int64_t count = 0;
  const char *bytes = received_row(received, input, row, &count);
  if (count < 1) return otherwise;
  if (input->type == TRITONSERVER_TYPE_BOOL) return *bytes != 0;
  int32_t narrow = 0;
  uint32_t natural = 0;
  int64_t wide = 0;
  memcpy(&narrow, bytes, sizeof narrow);
  memcpy(&natural, bytes, sizeof natural);
  if (input->type == TRITONSERVER_TYPE_INT32) return narrow;
  if (input->type == TRITONSERVER_TYPE_UINT32) return natural;
  memcpy(&wide, bytes, sizeof wide);
  return wide;
}
