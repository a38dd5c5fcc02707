/* noise.c: normal noise, the same numbers as torch draws on a CPU from the same seed (runtime/noise.py).
 *
 * A Mersenne Twister (Matsumoto and Nishimura, 1998), and Box and Muller's method (1958), sixteen numbers at a time:
 * the first eight give radii, the last eight angles.
 */
#include <math.h>

#include "parts.h"

enum { SIZE = 624, SHIFT = 397, BLOCK = 16 };

void fick_noise_seed(fick_noise *noise, uint64_t seed) {
  noise->state[0] = (uint32_t)seed;
  for (uint32_t i = 1; i < SIZE; i++) {
    uint32_t before = noise->state[i - 1];
    noise->state[i] = 1812433253u * (before ^ before >> 30) + i;
  }
  noise->next = SIZE;
}

static void refill(fick_noise *noise) {
  uint32_t *s = noise->state;
  for (int i = 0; i < SIZE; i++) {
    uint32_t joined = (s[i] & 0x80000000u) | (s[(i + 1) % SIZE] & 0x7fffffffu);
    s[i] = s[(i + SHIFT) % SIZE] ^ joined >> 1 ^ (joined & 1 ? 0x9908b0dfu : 0);
  }
  noise->next = 0;
}

static float uniform(fick_noise *noise) {
  if (noise->next == SIZE) refill(noise);
  uint32_t word = noise->state[noise->next++];
  word ^= word >> 11;
  word ^= word << 7 & 0x9d2c5680u;
  word ^= word << 15 & 0xefc60000u;
  word ^= word >> 18;
  return (float)(word & 0xffffff) * 0x1p-24f;
}

static void box_muller(float block[BLOCK]) {
  for (int i = 0; i < BLOCK / 2; i++) {
    float radius = sqrtf(-2.0f * (float)log(1.0 - (double)block[i]));
    float angle = (float)6.283185307179586 * block[i + BLOCK / 2];
    block[i] = radius * (float)cos((double)angle);
    block[i + BLOCK / 2] = radius * (float)sin((double)angle);
  }
}

size_t fick_noise_room(size_t count) { return count < BLOCK ? BLOCK : count; }

void fick_noise_draw(fick_noise *noise, float *values, size_t count) {
  size_t size = fick_noise_room(count), whole = size - size % BLOCK;
  for (size_t i = 0; i < size; i++) values[i] = uniform(noise);
  for (size_t i = 0; i < whole; i += BLOCK) box_muller(values + i);
  if (whole == size) return;
  for (size_t i = size - BLOCK; i < size; i++) values[i] = uniform(noise);
  box_muller(values + size - BLOCK);
}
