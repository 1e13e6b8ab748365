/* Errors and log lines with a format, on top of Triton's own. */
#include "errors.h"

#include <stdarg.h>
#include <stdio.h>

enum { LINE_BYTES = 2048 };

TRITONSERVER_Error *refuse(const char *format, ...) {
  char line[LINE_BYTES];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INVALID_ARG, line);
}

void log_line(TRITONSERVER_LogLevel level, const char *format, ...) {
  char line[LINE_BYTES];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  TRITONSERVER_Error *error = TRITONSERVER_LogMessage(level, "tensorrtllm_standin", 0, line);
  if (error != NULL) TRITONSERVER_ErrorDelete(error);
}

void ignore_but_log(TRITONSERVER_Error *error) {
  if (error == NULL) return;
  log_line(TRITONSERVER_LOG_ERROR, "stand-in: %s", TRITONSERVER_ErrorMessage(error));
  TRITONSERVER_ErrorDelete(error);
}
