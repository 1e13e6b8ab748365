/* The log a test reads: one JSON object a line, appended (parameter standin_log).
 *
 *   {"event": "request", "id": "7", "outputs": ["output_ids"], "inputs": {"input_ids":
 *     {"datatype": "INT32", "shape": [1, 3], "values": [1, 2, 3]}, ...}}
 *   {"event": "end", "id": "7", "reason": "length", "tokens": 12}
 *
 * Values are flat, whatever the shape. Reasons: length, end_id, stop_words, cancelled, failed.
 */
#ifndef STANDIN_JOURNAL_H
#define STANDIN_JOURNAL_H

#include <pthread.h>
#include <stdio.h>

#include "received.h"

struct journal {
  FILE *file; /* NULL: no log is kept */
  pthread_mutex_t lock;
};

TRITONSERVER_Error *journal_open(struct journal *journal, const char *path);
void journal_close(struct journal *journal);

void journal_request(struct journal *journal, TRITONBACKEND_Request *request,
                     const struct received *received);
void journal_end(struct journal *journal, const char *id, const char *reason, int64_t tokens);

#endif
