/* pool.c: the threads that run a kernel's tasks.
 *
 * Kernels follow one another within microseconds, so a waiting thread spins for a while before it sleeps. A launch is
 * cut into more tasks than there are threads, and each thread takes the next one when it is free: a core that is
 * slower, or that another process has, then does less, and a thread that is not running is waited for only if it
 * holds a task.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "internal.h"

#define SPINS 20000
#define TASKS_A_THREAD 4
#define STACK_BYTES (4 << 20) /* kernels keep tiles there, and musl's threads have little */

struct fick_pool {
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  /* The launch in the high half, its next task in the low. A thread that takes a task does so by exchanging the whole,
   * which fails if the launch it knew is over: so what it read of the launch before was of that launch. */
  _Atomic uint64_t ticket;
  _Atomic(fick_task) lambda;
  _Atomic(void *) closure;
  atomic_int tasks, finished, failed, sleeping, stop;
  int32_t threads;
  pthread_t *workers;
};

static _Thread_local fick_pool *current;

static void pause_briefly(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  __asm__ volatile("yield");
#endif
}

static uint32_t launch_of(uint64_t ticket) { return (uint32_t)(ticket >> 32); }

static void run_tasks(fick_pool *pool, uint32_t launch) {
  uint64_t ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
  while (launch_of(ticket) == launch) {
    fick_task lambda = atomic_load_explicit(&pool->lambda, memory_order_relaxed);
    void *closure = atomic_load_explicit(&pool->closure, memory_order_relaxed);
    fick_environment environment = {NULL, atomic_load_explicit(&pool->tasks, memory_order_relaxed)};
    int32_t task = (int32_t)(uint32_t)ticket;
    if (task >= environment.num_task) return;
    if (!atomic_compare_exchange_weak_explicit(&pool->ticket, &ticket, ticket + 1, memory_order_acq_rel,
                                               memory_order_acquire)) {
      continue;
    }
    if (lambda(task, &environment, closure) != 0) atomic_store(&pool->failed, 1);
    atomic_fetch_add_explicit(&pool->finished, 1, memory_order_release);
    ticket++;
  }
}

static uint32_t wait_for_launch(fick_pool *pool, uint32_t seen) {
  uint32_t launch;
  for (int i = 0; i < SPINS; i++) {
    launch = launch_of(atomic_load_explicit(&pool->ticket, memory_order_acquire));
    if (launch != seen) return launch;
    pause_briefly();
  }
  pthread_mutex_lock(&pool->mutex);
  atomic_fetch_add(&pool->sleeping, 1);
  while ((launch = launch_of(atomic_load(&pool->ticket))) == seen) pthread_cond_wait(&pool->wake, &pool->mutex);
  atomic_fetch_sub(&pool->sleeping, 1);
  pthread_mutex_unlock(&pool->mutex);
  return launch;
}

static void *work(void *argument) {
  fick_pool *pool = argument;
  for (uint32_t seen = 0;;) {
    seen = wait_for_launch(pool, seen);
    if (atomic_load(&pool->stop)) return NULL;
    run_tasks(pool, seen);
  }
}

/* A new ticket: from here on its tasks may be taken. */
static uint32_t announce(fick_pool *pool) {
  uint32_t launch = launch_of(atomic_load(&pool->ticket)) + 1;
  atomic_store(&pool->ticket, (uint64_t)launch << 32);
  if (atomic_load(&pool->sleeping)) {
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
  }
  return launch;
}

/* The number of tasks is the pool's to choose. */
int fick_pool_launch(fick_task lambda, void *closure, int tasks) {
  fick_pool *pool = current;
  (void)tasks;
  int32_t count = pool->threads > 1 ? TASKS_A_THREAD * pool->threads : 1;
  atomic_store_explicit(&pool->lambda, lambda, memory_order_relaxed);
  atomic_store_explicit(&pool->closure, closure, memory_order_relaxed);
  atomic_store_explicit(&pool->tasks, count, memory_order_relaxed);
  atomic_store_explicit(&pool->finished, 0, memory_order_relaxed);
  atomic_store_explicit(&pool->failed, 0, memory_order_relaxed);
  run_tasks(pool, announce(pool));
  for (int i = 0; atomic_load_explicit(&pool->finished, memory_order_acquire) < count; i++) {
    if (i < SPINS) pause_briefly();
    else sched_yield();
  }
  return atomic_load(&pool->failed) ? -1 : 0;
}

void fick_pool_use(fick_pool *pool) { current = pool; }

fick_pool *fick_pool_create(int32_t threads) {
  if (threads <= 0) {
    cpu_set_t allowed;
    threads = sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
  }
  fick_pool *pool = calloc(1, sizeof *pool);
  if (!pool) return NULL;
  pool->workers = calloc((size_t)threads, sizeof *pool->workers);
  if (!pool->workers) {
    free(pool);
    return NULL;
  }
  pthread_mutex_init(&pool->mutex, NULL);
  pthread_cond_init(&pool->wake, NULL);
  pool->threads = 1;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  for (int32_t i = 1; i < threads; i++) {
    if (pthread_create(&pool->workers[i], &attributes, work, pool) != 0) break; /* run on the threads that there are */
    pool->threads = i + 1;
  }
  pthread_attr_destroy(&attributes);
  return pool;
}

void fick_pool_destroy(fick_pool *pool) {
  if (!pool) return;
  atomic_store(&pool->stop, 1);
  announce(pool);
  for (int32_t i = 1; i < pool->threads; i++) pthread_join(pool->workers[i], NULL);
  pthread_mutex_destroy(&pool->mutex);
  pthread_cond_destroy(&pool->wake);
  free(pool->workers);
  free(pool);
}
