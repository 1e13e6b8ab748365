/* Which tokens the stand-in answers with. */
#include "script.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "errors.h"

/* Ids parted by spaces; *count is -1 if something else is among them. The caller frees them. */
static int32_t *read_ids(const char *text, int64_t *count) {
  int32_t *ids = malloc((strlen(text) / 2 + 1) * sizeof *ids);
  *count = 0;
  for (char *end = NULL;; text = end) {
    text += strspn(text, " \t\r\n");
    if (*text == '\0') return ids;
    long id = strtol(text, &end, 10);
    if (end == text) break;
    ids[(*count)++] = (int32_t)id;
  }
  *count = -1;
  return ids;
}

static struct script *read_line(char *line) {
  char *arrow = strstr(line, "->");
  if (arrow == NULL) return NULL;
  *arrow = '\0';
  struct script *script = calloc(1, sizeof *script);
  char *answer = arrow + 2, *failure = strchr(answer, '!');
  if (failure != NULL) {
    *failure++ = '\0';
    failure[strcspn(failure, "\r\n")] = '\0';
    script->failure = strdup(failure + strspn(failure, " "));
  }
  script->prompt = read_ids(line, &script->prompt_count);
  script->answer = read_ids(answer, &script->answer_count);
  if (script->prompt_count >= 0 && script->answer_count >= 0) return script;
  script_free(script);
  return NULL;
}

TRITONSERVER_Error *script_read(struct script **scripts, const char *path) {
  if (path == NULL) return NULL;
  FILE *file = fopen(path, "r");
  if (file == NULL) return refuse("cannot read the script %s", path);
  char *line = NULL;
  size_t room = 0;
  TRITONSERVER_Error *error = NULL;
  for (int number = 1; error == NULL && getline(&line, &room, file) >= 0; number++) {
    char first = line[strspn(line, " \t\r\n")];
    if (first == '\0' || first == '#') continue;
    *scripts = read_line(line);
    if (*scripts == NULL) {
      error = refuse("%s, line %d is not 'IDS -> IDS'", path, number);
    } else {
      scripts = &(*scripts)->next;
    }
  }
  free(line);
  fclose(file);
  return error;
}

void script_free(struct script *scripts) {
  while (scripts != NULL) {
    struct script *next = scripts->next;
    free(scripts->prompt);
    free(scripts->answer);
    free(scripts->failure);
    free(scripts);
    scripts = next;
  }
}

const struct script *script_for(const struct script *scripts, const int32_t *prompt,
                                int64_t count) {
  for (; scripts != NULL; scripts = scripts->next) {
    int64_t tail = scripts->prompt_count;
    if (tail <= count &&
        (tail == 0 || memcmp(prompt + count - tail, scripts->prompt, (size_t)tail * 4) == 0))
      return scripts;
  }
  return NULL;
}
