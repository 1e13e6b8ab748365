/* The log a test reads: one JSON object a line, appended (parameter standin_log). */
#include "journal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"

TRITONSERVER_Error *journal_open(struct journal *journal, const char *path) {
  pthread_mutex_init(&journal->lock, NULL);
  if (path == NULL) return NULL;
  journal->file = fopen(path, "a");
  return journal->file == NULL ? refuse("cannot write the log %s", path) : NULL;
}

void journal_close(struct journal *journal) {
  if (journal->file != NULL) fclose(journal->file);
  pthread_mutex_destroy(&journal->lock);
}

static void put_text(FILE *out, const char *text, size_t size) {
  fputc('"', out);
  for (size_t at = 0; at < size; at++) {
    unsigned char byte = (unsigned char)text[at];
    if (byte == '"' || byte == '\\') {
      fprintf(out, "\\%c", byte);
    } else if (byte < 0x20) {
      fprintf(out, "\\u%04x", byte);
    } else {
      fputc(byte, out);
    }
  }
  fputc('"', out);
}

/* Python's json reads NaN and Infinity, and this log is for Python. */
static void put_real(FILE *out, double value) {
  if (isnan(value)) {
    fputs("NaN", out);
  } else if (isinf(value)) {
    fputs(value < 0 ? "-Infinity" : "Infinity", out);
  } else {
    fprintf(out, "%.9g", value);
  }
}

static double from_half(uint16_t bits) {
  int exponent = bits >> 10 & 31, fraction = bits & 1023;
  double size = exponent == 0    ? ldexp(fraction, -24)
                : exponent == 31 ? (fraction ? NAN : INFINITY)
                                 : ldexp(1024 + fraction, exponent - 25);
  return bits >> 15 ? -size : size;
}

static double from_bfloat(uint16_t bits) {
  uint32_t wide = (uint32_t)bits << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

static void put_real_at(FILE *out, TRITONSERVER_DataType type, const char *bytes) {
  float single = 0;
  double full = 0;
  uint16_t half = 0;
  memcpy(&half, bytes, sizeof half);
  if (type == TRITONSERVER_TYPE_FP32) memcpy(&single, bytes, sizeof single);
  if (type == TRITONSERVER_TYPE_FP64) memcpy(&full, bytes, sizeof full);
  put_real(out, type == TRITONSERVER_TYPE_FP32   ? single
                : type == TRITONSERVER_TYPE_FP64 ? full
                : type == TRITONSERVER_TYPE_FP16 ? from_half(half)
                                                 : from_bfloat(half));
}

static void put_element(FILE *out, TRITONSERVER_DataType type, const char *bytes) {
  uint64_t bits = 0;
  uint32_t size = TRITONSERVER_DataTypeByteSize(type), shift = 64 - 8 * size;
  switch (type) {
    case TRITONSERVER_TYPE_BOOL:
      fputs(*bytes ? "true" : "false", out);
      return;
    case TRITONSERVER_TYPE_FP16:
    case TRITONSERVER_TYPE_BF16:
    case TRITONSERVER_TYPE_FP32:
    case TRITONSERVER_TYPE_FP64:
      put_real_at(out, type, bytes);
      return;
    case TRITONSERVER_TYPE_UINT8:
    case TRITONSERVER_TYPE_UINT16:
    case TRITONSERVER_TYPE_UINT32:
    case TRITONSERVER_TYPE_UINT64:
      memcpy(&bits, bytes, size);
      fprintf(out, "%llu", (unsigned long long)bits);
      return;
    default:
      memcpy(&bits, bytes, size);
      fprintf(out, "%lld", (long long)((int64_t)(bits << shift) >> shift));
  }
}

/* BYTES: each element is its length in four bytes, then itself. */
static void put_strings(FILE *out, const struct received_input *input) {
  uint32_t size = 0;
  for (uint64_t at = 0; at + sizeof size <= input->byte_size; at += size) {
    memcpy(&size, input->bytes + at, sizeof size);
    if (at > 0) fputs(", ", out);
    at += sizeof size;
    if (size > input->byte_size - at) size = (uint32_t)(input->byte_size - at);
    put_text(out, input->bytes + at, size);
  }
}

static void put_values(FILE *out, const struct received_input *input) {
  uint32_t step = TRITONSERVER_DataTypeByteSize(input->type);
  if (step == 0) put_strings(out, input);
  for (uint64_t at = 0; step > 0 && at + step <= input->byte_size; at += step) {
    if (at > 0) fputs(", ", out);
    put_element(out, input->type, input->bytes + at);
  }
}

static void put_input(FILE *out, const struct received_input *input) {
  put_text(out, input->name, strlen(input->name));
  fprintf(out, ": {\"datatype\": \"%s\", \"shape\": [", TRITONSERVER_DataTypeString(input->type));
  for (uint32_t at = 0; at < input->dims_count; at++)
    fprintf(out, at ? ", %lld" : "%lld", (long long)input->shape[at]);
  fputs("], \"values\": [", out);
  put_values(out, input);
  fputs("]}", out);
}

static void put_outputs(FILE *out, TRITONBACKEND_Request *request) {
  uint32_t count = 0;
  ignore_but_log(TRITONBACKEND_RequestOutputCount(request, &count));
  for (uint32_t at = 0; at < count; at++) {
    const char *name = "";
    ignore_but_log(TRITONBACKEND_RequestOutputName(request, at, &name));
    if (at > 0) fputs(", ", out);
    put_text(out, name, strlen(name));
  }
}

void journal_request(struct journal *journal, TRITONBACKEND_Request *request,
                     const struct received *received) {
  FILE *out = journal->file;
  if (out == NULL) return;
  pthread_mutex_lock(&journal->lock);
  fputs("{\"event\": \"request\", \"id\": ", out);
  put_text(out, received->id, strlen(received->id));
  fputs(", \"outputs\": [", out);
  put_outputs(out, request);
  fputs("], \"inputs\": {", out);
  for (uint32_t at = 0; at < received->count; at++) {
    if (at > 0) fputs(", ", out);
    put_input(out, &received->inputs[at]);
  }
  fputs("}}\n", out);
  fflush(out);
  pthread_mutex_unlock(&journal->lock);
}

void journal_end(struct journal *journal, const char *id, const char *reason, int64_t tokens) {
  FILE *out = journal->file;
  if (out == NULL) return;
  pthread_mutex_lock(&journal->lock);
  fputs("{\"event\": \"end\", \"id\": ", out);
  put_text(out, id, strlen(id));
  fprintf(out, ", \"reason\": \"%s\", \"tokens\": %lld}\n", reason, (long long)tokens);
  fflush(out);
  pthread_mutex_unlock(&journal->lock);
}
