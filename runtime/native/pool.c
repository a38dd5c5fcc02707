/* pool.c: the threads that run a kernel's tasks.
 *
 * Kernels follow one another within microseconds, so a waiting thread spins for a while before it sleeps.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "internal.h"

#define SPINS 20000

typedef struct {
  void *sync_handle;
  int32_t num_task;
} parallel_environment;
typedef int (*parallel_lambda)(int task, parallel_environment *environment, void *closure);

struct fick_pool {
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  atomic_uint epoch;
  atomic_int pending, failed, sleeping, stop;
  parallel_lambda lambda;
  void *closure;
  int32_t threads;
  pthread_t *workers;
};

typedef struct {
  fick_pool *pool;
  int32_t index;
} worker_start;

static _Thread_local fick_pool *current;

static void pause_briefly(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  __asm__ volatile("yield");
#endif
}

static void run_task(fick_pool *pool, int32_t index) {
  parallel_environment environment = {NULL, pool->threads};
  if (pool->lambda(index, &environment, pool->closure) != 0) atomic_store(&pool->failed, 1);
}

static void wait_for_work(fick_pool *pool, unsigned seen) {
  for (int i = 0; i < SPINS; i++) {
    if (atomic_load_explicit(&pool->epoch, memory_order_acquire) != seen) return;
    pause_briefly();
  }
  pthread_mutex_lock(&pool->mutex);
  atomic_fetch_add(&pool->sleeping, 1);
  while (atomic_load(&pool->epoch) == seen) pthread_cond_wait(&pool->wake, &pool->mutex);
  atomic_fetch_sub(&pool->sleeping, 1);
  pthread_mutex_unlock(&pool->mutex);
}

static void *work(void *argument) {
  worker_start start = *(worker_start *)argument;
  free(argument);
  for (unsigned seen = 0;; seen++) {
    wait_for_work(start.pool, seen);
    if (atomic_load(&start.pool->stop)) return NULL;
    run_task(start.pool, start.index);
    atomic_fetch_sub_explicit(&start.pool->pending, 1, memory_order_release);
  }
}

static void announce(fick_pool *pool) {
  atomic_fetch_add(&pool->epoch, 1);
  if (atomic_load(&pool->sleeping)) {
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
  }
}

/* TVM's kernels call through this variable; the number of tasks is always that of the pool. */
static int launch(parallel_lambda lambda, void *closure, int tasks) {
  fick_pool *pool = current;
  (void)tasks;
  pool->lambda = lambda;
  pool->closure = closure;
  atomic_store(&pool->failed, 0);
  atomic_store(&pool->pending, pool->threads - 1);
  if (pool->threads > 1) announce(pool);
  run_task(pool, 0);
  for (int i = 0; atomic_load_explicit(&pool->pending, memory_order_acquire) > 0; i++) {
    if (i < SPINS) pause_briefly();
    else sched_yield();
  }
  return atomic_load(&pool->failed) ? -1 : 0;
}

/* Kernel objects define this weakly and empty: here is the definition that wins. */
extern int (*__TVMBackendParallelLaunch)(parallel_lambda, void *, int);
int (*__TVMBackendParallelLaunch)(parallel_lambda, void *, int) = launch;

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
  for (int32_t i = 1; i < threads; i++) {
    worker_start *start = malloc(sizeof *start);
    if (start) *start = (worker_start){pool, i};
    if (!start || pthread_create(&pool->workers[i], NULL, work, start) != 0) {
      free(start);
      break; /* run on the threads that there are */
    }
    pool->threads = i + 1;
  }
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
