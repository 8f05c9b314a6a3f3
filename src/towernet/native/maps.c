/* What torch does in many passes over memory, done in one or two; channels_last, on the CPU.
 *
 * Feature maps are rows of C channels, C a multiple of 16; their numbers are bfloat16 or float32,
 * and all arithmetic is in float32; the sums of blocks of rows are put together in double. How the
 * rows are cut into blocks does not depend on the number of threads, so neither do the bits.
 * Nothing is allocated here: what is needed on the way comes in as `scratch`.
 *
 * Shapes: N images, H x W pixels, C channels, R = N*H*W rows; I x J = H/2 x W/2 pooled pixels.
 */
#include <math.h>
#include <stdint.h>

#include "vectors.h"

/* Rows of one block: about 64 KiB, which stays in the second-level cache between two passes. */
static int64_t rows_of_block(int64_t channels)
{
    int64_t rows = 32768 / channels;
    return rows < 16 ? 16 : rows;
}

int64_t num_blocks(int64_t rows, int64_t channels)
{
    int64_t block = rows_of_block(channels);
    return (rows + block - 1) / block;
}

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(function) JOIN(function, T_NAME)

#define T bf16
#define T_NAME bf16
#define LOAD load_bf16
#define STORE store_bf16
#include "maps.inc"
#undef T
#undef T_NAME
#undef LOAD
#undef STORE

#define T float
#define T_NAME f32
#define LOAD load_f32
#define STORE store_f32
#include "maps.inc"

/* Put the blocks' means and squared deviations together; Chan, Golub and LeVeque's update. */
static void join_moments(const float *partial, int64_t rows, int64_t channels, double *mean,
                         double *squares)
{
    int64_t block = rows_of_block(channels), blocks = num_blocks(rows, channels);
    for (int64_t c = 0; c < channels; c++)
        mean[c] = squares[c] = 0;
    double seen = 0;
    for (int64_t b = 0; b < blocks; b++) {
        double count = (double)((b + 1) * block <= rows ? block : rows - b * block);
        double share = count / (seen + count);
        const float *block_mean = partial + 2 * b * channels, *block_squares = block_mean + channels;
        for (int64_t c = 0; c < channels; c++) {
            double delta = block_mean[c] - mean[c];
            mean[c] += delta * share;
            squares[c] += block_squares[c] + delta * delta * seen * share;
        }
        seen += count;
    }
}

/* From the blocks' moments to batch norm's mean and 1/std, and the line that normalises.
 * partial: (blocks, 2, C) from norm_moments; line: (2, C) scale and shift; scratch: (2, C). */
void norm_finish(const float *partial, int64_t rows, int64_t channels, float epsilon,
                 float momentum, const float *weight, const float *bias, float *running_mean,
                 float *running_var, float *mean_out, float *inverse_std, float *line,
                 double *scratch)
{
    double *mean = scratch, *squares = scratch + channels;
    join_moments(partial, rows, channels, mean, squares);
    for (int64_t c = 0; c < channels; c++) {
        double variance = squares[c] / rows;
        double unbiased = squares[c] / (rows > 1 ? rows - 1 : 1);
        mean_out[c] = (float)mean[c];
        inverse_std[c] = (float)(1 / sqrt(variance + epsilon));
        line[c] = weight[c] * inverse_std[c];
        line[channels + c] = bias[c] - mean_out[c] * line[c];
        running_mean[c] += momentum * ((float)mean[c] - running_mean[c]);
        running_var[c] += momentum * ((float)unbiased - running_var[c]);
    }
}

/* Add up the blocks' two sums, for each channel.
 * partial: (blocks, 2, C); sums: (2, C); scratch: (2, C). */
void add_blocks(const float *partial, int64_t blocks, int64_t channels, float *sums,
                double *scratch)
{
    double *total = scratch;
    for (int64_t i = 0; i < 2 * channels; i++)
        total[i] = 0;
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t i = 0; i < 2 * channels; i++)
            total[i] += partial[2 * b * channels + i];
    for (int64_t i = 0; i < 2 * channels; i++)
        sums[i] = (float)total[i];
}
