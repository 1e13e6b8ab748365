/* Builds and sends one response of one sequence. */
#ifndef STANDIN_RESPONSE_H
#define STANDIN_RESPONSE_H

#include "generation.h"

/* Tokens [from, sequence->made), with everything else the release sends along. */
void response_send(const struct generation *generation, const struct sequence *sequence,
                   int64_t from, bool last_of_sequence, bool last_of_request);

/* An error as the request's last response; `error` is deleted. */
void response_fail(TRITONBACKEND_Request *request, TRITONSERVER_Error *error);

/* A last response without tensors: the answer to a stop request. */
void response_empty(TRITONBACKEND_Request *request);

#endif
