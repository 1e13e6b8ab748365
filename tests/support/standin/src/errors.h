/* Errors and log lines with a format, on top of Triton's own. */
#ifndef STANDIN_ERRORS_H
#define STANDIN_ERRORS_H

#include "triton_backend_api.h"

#define RETURN_IF_ERROR(call)                \
  do {                                       \
    TRITONSERVER_Error *error_ = (call);     \
    if (error_ != NULL) return error_;       \
  } while (0)

/* A new INVALID_ARG error; the caller owns it. */
TRITONSERVER_Error *refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));

void log_line(TRITONSERVER_LogLevel level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* For calls whose failure nobody can be told of: logs it and forgets it. */
void ignore_but_log(TRITONSERVER_Error *error);

#endif
