/* Turns a request's inputs into a generation: options, sequences and their answers. */
#ifndef STANDIN_QUESTION_H
#define STANDIN_QUESTION_H

#include "generation.h"

/* Fills `generation` from its `received`; errors name the input that is wrong. */
TRITONSERVER_Error *question_read(struct generation *generation);

#endif
