/* A small fixed pool of threads that gives every running generation its turns, in order. */
#include "senders.h"

#include <stdlib.h>
#include <time.h>

static const uint64_t SECOND_NS = 1000000000;

uint64_t clock_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

static uint64_t due_ns(const struct senders *senders, uint64_t pace_ns) {
  uint64_t now = clock_ns();
  if (pace_ns == 0 || !senders->in_steps) return now + pace_ns;
  return (now / pace_ns + 1) * pace_ns;
}

/* Holding the lock. Where all paces are the same, a turn's place is the end. */
static void append(struct senders *senders, struct turn *turn) {
  turn->due_ns = due_ns(senders, turn->pace_ns);
  struct turn **place = &senders->first;
  if (senders->last != NULL && senders->last->due_ns <= turn->due_ns)
    place = &senders->last->next;
  while (*place != NULL && (*place)->due_ns <= turn->due_ns) place = &(*place)->next;
  turn->next = *place;
  *place = turn;
  if (turn->next == NULL) senders->last = turn;
}

/* Holding the lock: waits until the first turn is due, it is not first any more, or closing. */
static void wait_for_work(struct senders *senders) {
  senders->waiting++;
  if (senders->first == NULL) {
    pthread_cond_wait(&senders->wake, &senders->lock);
  } else {
    uint64_t due = senders->first->due_ns;
    struct timespec until = {(time_t)(due / SECOND_NS), (long)(due % SECOND_NS)};
    pthread_cond_timedwait(&senders->wake, &senders->lock, &until);
  }
  senders->waiting--;
}

/* Holding the lock. NULL: closing, and nothing is left. */
static struct turn *next_turn(struct senders *senders) {
  for (;;) {
    struct turn *turn = senders->first;
    if (senders->closing && turn == NULL) return NULL;
    bool due = turn != NULL && (senders->closing || turn->due_ns <= clock_ns());
    if (due) {
      senders->first = turn->next;
      if (senders->first == NULL) senders->last = NULL;
      if (senders->first != NULL && senders->waiting > 0) pthread_cond_signal(&senders->wake);
      return turn;
    }
    wait_for_work(senders);
  }
}

static void *work(void *argument) {
  struct senders *senders = argument;
  pthread_mutex_lock(&senders->lock);
  for (struct turn *turn; (turn = next_turn(senders)) != NULL;) {
    pthread_mutex_unlock(&senders->lock);
    bool again = senders->take(turn);
    pthread_mutex_lock(&senders->lock);
    if (again) append(senders, turn);
  }
  pthread_mutex_unlock(&senders->lock);
  return NULL;
}

bool senders_start(struct senders *senders, int64_t count, bool in_steps,
                   bool (*take)(struct turn *turn)) {
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_mutex_init(&senders->lock, NULL);
  pthread_cond_init(&senders->wake, &attributes);
  pthread_condattr_destroy(&attributes);
  senders->in_steps = in_steps;
  senders->take = take;
  senders->threads = calloc((size_t)count, sizeof *senders->threads);
  while (senders->count < count) {
    if (pthread_create(&senders->threads[senders->count], NULL, work, senders) != 0) return false;
    senders->count++;
  }
  return true;
}

void senders_add(struct senders *senders, struct turn *turn) {
  pthread_mutex_lock(&senders->lock);
  append(senders, turn);
  if (senders->waiting > 0) pthread_cond_signal(&senders->wake);
  pthread_mutex_unlock(&senders->lock);
}

void senders_stop(struct senders *senders) {
  if (senders->take == NULL) return; /* never started */
  pthread_mutex_lock(&senders->lock);
  senders->closing = true;
  pthread_cond_broadcast(&senders->wake);
  pthread_mutex_unlock(&senders->lock);
  for (int64_t at = 0; at < senders->count; at++) pthread_join(senders->threads[at], NULL);
  pthread_cond_destroy(&senders->wake);
  pthread_mutex_destroy(&senders->lock);
  free(senders->threads);
}
