/* residual.c: how far the output of a rounding model is off, and how much less noise is added for it
 * (runtime/samplers/residual.py, eq. 3 and 4).
 */
#include <math.h>
#include <stdlib.h>

#include "parts.h"

#define MOST_ROWS 100000

static int numbers(fick_json list, double *values, int32_t most) {
  fick_json value;
  int32_t count = 0;
  while (fick_json_next(&list, NULL, &value)) {
    if (count == most || !fick_json_number(value, &values[count]) || !isfinite(values[count])) return -1;
    count++;
  }
  return count;
}

/* The variance that one timestep's covariance gives, weighed by the guidance. */
static int variance(fick_json matrix, double guidance, double *found) {
  double weights[2] = {1 - guidance, guidance}, row[2];
  fick_json line;
  int rows = 0, wide = 0;
  *found = 0;
  while (fick_json_next(&matrix, NULL, &line)) {
    int count = numbers(line, row, 2);
    if (count < 1 || rows == 2 || (rows && count != wide)) return 0;
    wide = count;
    if (wide == 1) weights[0] = 1;
    for (int i = 0; i < wide; i++) *found += weights[rows] * weights[i] * row[i];
    rows++;
  }
  return rows && rows == wide;
}

fick_status fick_residual_read(fick_json described, double guidance, fick_residual *residual) {
  fick_json timesteps, covariance, matrix;
  *residual = (fick_residual){NULL, NULL, 0};
  int sound = fick_json_member(described, "timesteps", &timesteps) &&
              fick_json_member(described, "covariance", &covariance);
  residual->timesteps = calloc(MOST_ROWS, sizeof(double));
  residual->deviations = calloc(MOST_ROWS, sizeof(double));
  if (!residual->timesteps || !residual->deviations) {
    fick_residual_free(residual);
    return fick_fail(FICK_ERROR_MEMORY, "there is no memory for the bundle's table of residuals");
  }
  int32_t count = sound ? numbers(timesteps, residual->timesteps, MOST_ROWS) : -1;
  for (; sound && residual->count < count && fick_json_next(&covariance, NULL, &matrix); residual->count++) {
    double found;
    sound = variance(matrix, guidance, &found);
    residual->deviations[residual->count] = sound ? sqrt(fmax(found, 0)) : 0;
  }
  if (sound && count > 0 && residual->count == count && !fick_json_next(&covariance, NULL, &matrix)) return FICK_OK;
  fick_residual_free(residual);
  return fick_fail(FICK_ERROR_FORMAT, "the bundle's table of residuals is damaged; compile it anew");
}

void fick_residual_free(fick_residual *residual) {
  free(residual->timesteps);
  free(residual->deviations);
  *residual = (fick_residual){NULL, NULL, 0};
}

/* Of two that are as near, the lower one. */
double fick_residual_deviation(const fick_residual *residual, double timestep) {
  int32_t best = -1;
  for (int32_t i = 0; residual && i < residual->count; i++) {
    double nearer = best < 0 ? -1
                             : fabs(residual->timesteps[i] - timestep) -
                                   fabs(residual->timesteps[best] - timestep);
    if (nearer < 0 || (nearer == 0 && residual->timesteps[i] < residual->timesteps[best])) best = i;
  }
  return best < 0 ? 0 : residual->deviations[best];
}

double fick_residual_left(double s, double sigma, double slope) {
  return s > 0 ? sqrt(fmax(sigma * sigma - slope * s * slope * s, 0)) : sigma;
}
