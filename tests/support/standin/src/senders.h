/* A small fixed pool of threads that gives every running generation its turns, in order.
 *
 * One queue, by due time, first in, first out: a generation that wants another turn goes behind
 * those that are due as early, so that all streams advance together, as in-flight batching has
 * them. With a pace, a turn waits until the pace's time has passed since the generation was
 * queued; in steps, until the next whole multiple of it, so that streams of one pace come at once.
 */
#ifndef STANDIN_SENDERS_H
#define STANDIN_SENDERS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct turn {
  struct turn *next;
  uint64_t pace_ns; /* 0: at once */
  uint64_t due_ns;
};

struct senders {
  pthread_t *threads;
  int64_t count;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  struct turn *first, *last;
  int64_t waiting;
  bool in_steps;
  bool closing;
  bool (*take)(struct turn *turn); /* true: it wants another one */
};

bool senders_start(struct senders *senders, int64_t count, bool in_steps,
                   bool (*take)(struct turn *turn));
void senders_add(struct senders *senders, struct turn *turn);

/* Gives what is queued its last turns at once, then joins the threads. */
void senders_stop(struct senders *senders);

uint64_t clock_ns(void);

#endif
