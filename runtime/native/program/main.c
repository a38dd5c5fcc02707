/* main.c: fick-run, a prompt to a PNG with nothing else on the device. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "fick_pipeline.h"

static const char usage[] =
    "fick-run BUNDLE.fick --prompt TEXT -o OUT.png\n"
    "  --prompt TEXT        what to draw; --negative TEXT: what not to draw\n"
    "  --class-label N|NAME what to draw, for a class-to-image bundle\n"
    "  --steps N            calls of the network (default 20)\n"
    "  --guidance X         how closely to follow the prompt (default 5)\n"
    "  --seed N             the same seed, the same picture (default 0)\n"
    "  --sampler NAME       consistency, ddim, ddpm, dpm-solver++, euler, euler-ancestral, plms (default the "
    "bundle's)\n"
    "  --init FILE.png      a picture to start from; --strength X: how much of it may go, 0 to 1 (default 0.8)\n"
    "  --threads N          0 takes all (default 0)\n"
    "  --memory-limit SIZE  such as 300MB: weights that do not fit are read again at every step\n"
    "  --no-verify          do not hash the weights first\n"
    "  --profile FILE.json  seconds of every kernel call\n"
    "  --self-test          compare every kernel call with what the bundle says of it\n"
    "  --quiet              no progress\n"
    "Example: fick-run emoji.fick --prompt 'cat with heart eyes' --steps 20 --seed 7 -o cat.png\n";

typedef struct {
  const char *bundle, *output, *prompt, *negative, *profile, *class_label, *init;
  fick_pipeline_options opening;
  fick_drawing drawing;
  int self_test, quiet;
} request;

static fick_pipeline *running;

static void interrupt(int number) {
  (void)number;
  fick_pipeline_cancel(running);
}

static int stop(const char *format, const char *what, const char *value) {
  fputs("fick-run: ", stderr);
  fprintf(stderr, format, what, value);
  fputc('\n', stderr);
  return 2;
}

static int failed(void) { return stop("%s", fick_last_error(), ""); }

static int whole(const char *option, const char *text, long long least, long long most, long long *value) {
  char *end;
  errno = 0;
  *value = strtoll(text, &end, 10);
  if (end != text && !*end && !errno && *value >= least && *value <= most) return 0;
  return stop("%s %s is no whole number of its range; see fick-run --help", option, text);
}

static int real(const char *option, const char *text, double *value) {
  char *end;
  *value = strtod(text, &end);
  return end == text || *end ? stop("%s %s is no number", option, text) : 0;
}

static int bytes_of(const char *option, const char *text, uint64_t *bytes) {
  static const struct {
    const char *unit;
    double bytes;
  } units[] = {{"", 1}, {"B", 1}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"KiB", 1024.}, {"MiB", 1048576.},
               {"GiB", 1073741824.}};
  char *end;
  double number = strtod(text, &end);
  for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
    if (end == text || strcasecmp(end, units[i].unit) != 0 || !(number * units[i].bytes >= 1) || number > 1e15) {
      continue;
    }
    *bytes = (uint64_t)(number * units[i].bytes);
    return 0;
  }
  return stop("%s %s is no size; give one such as 300MB", option, text);
}

static int read_value(request *r, const char *option, const char *value) {
  long long number = 0;
  double fraction = 0;
  if (strcmp(option, "-o") == 0 || strcmp(option, "--output") == 0) r->output = value;
  else if (strcmp(option, "--prompt") == 0) r->prompt = value;
  else if (strcmp(option, "--negative") == 0) r->negative = value;
  else if (strcmp(option, "--class-label") == 0) r->class_label = value;
  else if (strcmp(option, "--sampler") == 0) r->drawing.sampler = value;
  else if (strcmp(option, "--profile") == 0) r->profile = value;
  else if (strcmp(option, "--memory-limit") == 0) return bytes_of(option, value, &r->opening.memory_limit_bytes);
  else if (strcmp(option, "--init") == 0) {
    r->init = value;
    r->opening.takes_pictures = 1;
  } else if (strcmp(option, "--guidance") == 0) {
    if (real(option, value, &fraction)) return 2;
    r->drawing.guidance = (float)fraction;
  } else if (strcmp(option, "--strength") == 0) {
    return real(option, value, &r->drawing.strength);
  } else if (strcmp(option, "--steps") == 0) {
    if (whole(option, value, 1, 1000000, &number)) return 2;
    r->drawing.steps = (int32_t)number;
  } else if (strcmp(option, "--seed") == 0) {
    if (whole(option, value, 0, INT64_MAX, &number)) return 2;
    r->drawing.seed = (uint64_t)number;
  } else if (strcmp(option, "--threads") == 0) {
    if (whole(option, value, 0, 1024, &number)) return 2;
    r->opening.threads = (int32_t)number;
  } else {
    return stop("there is no option %s; see fick-run --help", option, "");
  }
  return 0;
}

/* Before minutes of work, not after them. */
static int writable(const char *path) {
  char folder[4096];
  const char *slash = strrchr(path, '/');
  size_t size = slash ? (size_t)(slash - path) + 1 : 0;
  if (size + 2 > sizeof folder) return stop("cannot write %s: the name is too long", path, "");
  memcpy(folder, size ? path : "./", size ? size : 2);
  folder[size ? size : 2] = 0;
  return access(folder, W_OK | X_OK) == 0 ? 0 : stop("cannot write %s: %s", path, strerror(errno));
}

static int read_arguments(int count, char **arguments, request *r) {
  for (int i = 1; i < count; i++) {
    const char *one = arguments[i];
    if (strcmp(one, "--self-test") == 0) r->self_test = 1;
    else if (strcmp(one, "--quiet") == 0) r->quiet = 1;
    else if (strcmp(one, "--no-verify") == 0) r->opening.skip_verification = 1;
    else if (*one != '-' && !r->bundle) r->bundle = one;
    else if (*one != '-') return stop("%s is one argument too many; see fick-run --help", one, "");
    else if (i + 1 == count) return stop("%s needs a value, or is no option; see fick-run --help", one, "");
    else if (read_value(r, one, arguments[++i])) return 2;
  }
  if (!r->bundle) return stop("name a bundle; see fick-run --help", "", "");
  if (r->self_test) return 0;
  if (!r->output) return stop("say where the picture goes, with -o FILE.png", "", "");
  if (!r->prompt && !r->class_label) return stop("say what to draw, with --prompt or --class-label", "", "");
  return writable(r->output) || (r->profile && writable(r->profile)) ? 2 : 0;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* On a terminal one line that changes, elsewhere a line a step. */
static int32_t show(uint64_t done, uint64_t total, void *user) {
  const double *started = user;
  double passed = now() - *started, left = done ? passed / (double)done * (double)(total - done) : 0;
  int line = isatty(2);
  fprintf(stderr, "%sstep %llu of %llu, %.1f s left%s", line ? "\r" : "", (unsigned long long)done,
          (unsigned long long)total, left, line && done < total ? "  " : "\n");
  return 0;
}

/* The most that was in memory at once. What getrusage says includes the process that this one was forked from. */
static double working_set_bytes(void) {
  char line[256];
  unsigned long long kilobytes = 0;
  FILE *file = fopen("/proc/self/status", "r");
  while (file && fgets(line, sizeof line, file)) {
    if (sscanf(line, "VmHWM: %llu", &kilobytes) == 1) break;
  }
  if (file) fclose(file);
  return (double)kilobytes * 1024;
}

static int test(fick_pipeline *pipeline) {
  fick_self_test result;
  if (fick_pipeline_self_test(pipeline, &result) != FICK_OK) return failed();
  if (!result.wrong) {
    printf("%d kernel calls give what they should\n", result.checked);
    return 0;
  }
  fprintf(stderr, "fick-run: %d of %d kernel calls are wrong; the first is %s of %s, variant %s: %g where %g "
                  "is right\n",
          result.wrong, result.checked, result.node, result.component, result.variant, result.found, result.wanted);
  return 1;
}

static int draw(fick_pipeline *pipeline, const request *r) {
  int32_t width = 0, height = 0;
  int64_t label = 0;
  double started = now();
  if (r->class_label) {
    if (fick_pipeline_class_of(pipeline, r->class_label, &label) != FICK_OK) return failed();
    if (fick_pipeline_set_class(pipeline, label) != FICK_OK) return failed();
  } else if (fick_pipeline_set_prompt(pipeline, r->prompt, r->negative) != FICK_OK) {
    return failed();
  }
  if (*fick_pipeline_dropped(pipeline)) {
    stop("the prompt is longer than the text encoder reads; this fell off: %s", fick_pipeline_dropped(pipeline), "");
  }
  fick_pipeline_size(pipeline, &width, &height);
  uint64_t size = 3u * (uint64_t)width * (uint64_t)height;
  uint8_t *pixels = malloc(2 * (size_t)size), *init = pixels + size;
  if (!pixels) return stop("there is no memory for the picture", "", "");
  if (!r->quiet) fick_pipeline_set_progress(pipeline, show, &started);
  fick_drawing drawing = r->drawing;
  fick_status status = r->init ? fick_png_read(r->init, init, width, height) : FICK_OK;
  if (r->init) drawing.init = init;
  if (status == FICK_OK) status = fick_pipeline_draw(pipeline, &drawing, pixels, size);
  if (status == FICK_OK) status = fick_png_write(r->output, pixels, width, height);
  if (status == FICK_OK && r->profile) status = fick_pipeline_write_profile(pipeline, r->profile);
  free(pixels);
  if (status != FICK_OK) return failed();
  fick_memory memory;
  if (r->quiet || fick_pipeline_memory(pipeline, &memory) != FICK_OK) return 0;
  fprintf(stderr, "%s: %d x %d, %.2f s; weights %.1f MB, activations %.1f MB, state and tables %.1f MB; "
                  "working set %.1f MB\n",
          r->output, width, height, now() - started, (double)memory.weights_bytes / 1e6,
          (double)memory.arena_bytes / 1e6,
          (double)(memory.state_bytes + memory.table_bytes) / 1e6, working_set_bytes() / 1e6);
  return 0;
}

int main(int count, char **arguments) {
  request r = {.drawing = {0, 5.0f, NULL, 0, NULL, 0.8}};
  for (int i = 1; i < count; i++) {
    if (strcmp(arguments[i], "--help") == 0 || strcmp(arguments[i], "-h") == 0) return fputs(usage, stdout) < 0;
  }
  int wrong = read_arguments(count, arguments, &r);
  if (wrong) return wrong;
  if (fick_pipeline_create(r.bundle, &r.opening, &running) != FICK_OK) return failed();
  signal(SIGINT, interrupt);
  signal(SIGTERM, interrupt);
  wrong = r.self_test ? test(running) : draw(running, &r);
  fick_pipeline_destroy(running);
  return wrong;
}
