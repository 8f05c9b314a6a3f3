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

/* exp(x) to two units in the last place, for x in [-87, 88]; Cody and Waite, then a polynomial. */
static inline v16f exp_v(v16f x)
{
    x = choose(x < -87.0f, broadcast(-87.0f), choose(x > 88.0f, broadcast(88.0f), x));
    v16f scaled = x * 1.44269504f;
    v16i n = __builtin_convertvector(scaled + choose(scaled < 0, broadcast(-0.5f), broadcast(0.5f)),
                                     v16i);
    v16f k = __builtin_convertvector(n, v16f);
    v16f r = x - k * 0.693359375f + k * 2.12194440e-4f;
    v16f p = broadcast(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (v16f)((n + 127) << 23);
}

static inline v16f sigmoid_v(v16f z)
{
    v16f gate = 1.0f / (1.0f + exp_v(-z));
    return choose(z != z, z, gate);
}

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

/* Two vectors' numbers taking turns, and back. */
#if defined(__clang__) || __GNUC__ >= 12
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICK(a, b, ...) __builtin_shuffle(a, b, (v16i){__VA_ARGS__})
#endif
#define INTERLEAVED_LOW(a, b) PICK(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define INTERLEAVED_HIGH(a, b) \
    PICK(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#define EVEN(a, b) PICK(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
#define ODD(a, b) PICK(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)

/* From one image's means and squared deviations to its gates' lines; the latter become 1/std.
 * Channel c belongs to group c / 2k, and in it to the channel half or the spatial half. */
static void shuffle_gates(const float *parameters, int64_t pixels, int64_t channels, int64_t groups,
                          float epsilon, const float *mean, float *squares, float *slope,
                          float *offset)
{
    int64_t k = channels / (2 * groups);
    const float *channel_weight = parameters, *channel_bias = parameters + k;
    const float *spatial_weight = parameters + 2 * k, *spatial_bias = parameters + 3 * k;
    const float *norm_weight = parameters + 4 * k, *norm_bias = parameters + 5 * k;
    for (int64_t c = 0; c < channels; c++) {
        int64_t i = c % k;
        squares[c] = 1 / sqrtf(squares[c] / pixels + epsilon);
        if (c % (2 * k) < k) {
            slope[c] = 0;
            offset[c] = channel_weight[i] * mean[c] + channel_bias[i];
        } else {
            slope[c] = spatial_weight[i] * norm_weight[i] * squares[c];
            offset[c] = spatial_bias[i] + spatial_weight[i] * norm_bias[i] - slope[c] * mean[c];
        }
    }
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

/* The gradients of shuffle attention's parameters. sums: (N, 2, C) from its backward; kept:
 * (N, 4, C) from its forward; gradients: (6, k), in the parameters' order; scratch: (6, k). */
void shuffle_attention_parameters(const float *sums, const float *kept, int64_t n, int64_t channels,
                                  int64_t groups, const float *parameters, float *gradients,
                                  double *scratch)
{
    int64_t k = channels / (2 * groups);
    double *total = scratch;
    for (int64_t i = 0; i < 6 * k; i++)
        total[i] = 0;
    for (int64_t image = 0; image < n; image++)
        for (int64_t c = 0; c < channels; c++) {
            int64_t i = c % k;
            double sum = sums[2 * image * channels + c];
            double product = sums[(2 * image + 1) * channels + c];
            if (c % (2 * k) < k) {
                total[i] += sum * kept[4 * image * channels + c];
                total[k + i] += sum;
            } else {
                double weight = parameters[2 * k + i];
                total[2 * k + i] += parameters[4 * k + i] * product + parameters[5 * k + i] * sum;
                total[3 * k + i] += sum;
                total[4 * k + i] += weight * product;
                total[5 * k + i] += weight * sum;
            }
        }
    for (int64_t i = 0; i < 6 * k; i++)
        gradients[i] = (float)total[i];
}
