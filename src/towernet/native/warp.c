/* Augmentation of a batch of pictures: one warp, one linear map of the colours, normalised.
 *
 * Shapes: N pictures, S x S pixels stored, O x O pixels wanted, three colours each.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vectors.h"

static inline v16f floor_v(v16f x)
{
    v16f whole = __builtin_convertvector(__builtin_convertvector(x, v16i), v16f);
    return choose(whole > x, whole - 1.0f, whole);
}

/* To the nearest whole number, ties to even: adding 1.5 * 2^23 leaves no room for a fraction. */
static inline v16f round_v(v16f x)
{
    return (x + 12582912.0f) - 12582912.0f;
}

static inline v16f clip_v(v16f x, float low, float high)
{
    v16f zero = {0};
    return choose(x < low, zero + low, choose(x > high, zero + high, x));
}

/* Mirror positions at the outer edges of the picture, -0.5 and size - 0.5. */
static inline v16f reflect_v(v16f x, float size)
{
    v16f t = x + 0.5f;
    t = choose(t < 0, -t, t);
    v16f times = floor_v(t / size), rest = t - times * size;
    v16f is_odd = times - 2.0f * floor_v(times * 0.5f);
    return clip_v(choose(is_odd != 0, size - rest, rest) - 0.5f, 0, size - 1);
}

static inline v16i gather(const uint32_t *pixels, v16i index)
{
    v16i found;
    for (int k = 0; k < LANES; k++)
        found[k] = (int32_t)pixels[index[k]];
    return found;
}

static inline v16f colour(v16i pixel, int which)
{
    return __builtin_convertvector((pixel >> (8 * which)) & 255, v16f);
}

/* Warp one picture. pixels: S x S words 0x00BBGGRR; map: output to input positions, both in
 * [-1, 1] across the picture; out: (3, O, row) planes in [0, 255], row a multiple of 16. */
static void warp(const uint32_t *pixels, int size, const float *map, int out_size, int row,
                 int nearest, float *out)
{
    v16f lane;
    for (int k = 0; k < LANES; k++)
        lane[k] = (float)k;
    for (int i = 0; i < out_size; i++) {
        float v = (2.0f * i + 1) / out_size - 1;
        for (int j = 0; j < row; j += LANES) {
            v16f u = (2.0f * (lane + (float)j) + 1.0f) / (float)out_size - 1.0f;
            v16f x = ((u * map[0] + (v * map[1] + map[2]) + 1.0f) * (float)size - 1.0f) * 0.5f;
            v16f y = ((u * map[3] + (v * map[4] + map[5]) + 1.0f) * (float)size - 1.0f) * 0.5f;
            float *target = out + (int64_t)i * row + j;
            int64_t plane = (int64_t)out_size * row;
            if (nearest) {
                x = round_v(x), y = round_v(y);
                v16i inside = (x >= 0) & (x < (float)size) & (y >= 0) & (y < (float)size);
                v16i index = inside & (__builtin_convertvector(y, v16i) * size
                                       + __builtin_convertvector(x, v16i));
                v16i found = inside & gather(pixels, index);
                for (int c = 0; c < 3; c++) {
                    v16f value = colour(found, c);
                    memcpy(target + c * plane, &value, sizeof value);
                }
                continue;
            }
            x = reflect_v(x, (float)size), y = reflect_v(y, (float)size);
            v16f left = floor_v(x), top = floor_v(y);
            v16f right_share = x - left, bottom_share = y - top;
            v16i column = __builtin_convertvector(left, v16i);
            v16i index = __builtin_convertvector(top, v16i) * size + column;
            /* At the last column or row the neighbour has no share: take the pixel itself. */
            v16i right = index - (column < size - 1), down = (top < (float)(size - 1)) & size;
            v16i corner[4] = {gather(pixels, index), gather(pixels, right),
                              gather(pixels, index + down), gather(pixels, right + down)};
            for (int c = 0; c < 3; c++) {
                v16f upper = colour(corner[0], c), lower = colour(corner[2], c);
                upper += right_share * (colour(corner[1], c) - upper);
                lower += right_share * (colour(corner[3], c) - lower);
                v16f value = upper + bottom_share * (lower - upper);
                memcpy(target + c * plane, &value, sizeof value);
            }
        }
    }
}

/* The mean of a plane, in [0, 255]; the row's end beyond O is not part of the picture. */
static double mean_of(const float *plane, int out_size, int row)
{
    double total = 0;
    for (int i = 0; i < out_size; i++) {
        float sum = 0;
        for (int j = 0; j < out_size; j++)
            sum += plane[(int64_t)i * row + j];
        total += sum;
    }
    return total / ((double)out_size * out_size);
}

/* Augment a batch.
 * stored: (all, S, S, 3); rows: (N,) which of them; maps: (N, 2, 3); colours: (N, 3, 3) linear maps
 * of the colours; contrasts: (N,) factors about the picture's mean; clip: whether values then stay
 * in [0, 1]; mean, inverse_std: (3,) what is normalised by; out: (N, O, O, 3). Returns 0, or 1 where
 * there is no memory. */
int augment(const uint8_t *stored, const int64_t *rows, int64_t n, int64_t size,
             const float *maps, const float *colours, const float *contrasts, int64_t clip,
             int64_t nearest, const float *mean, const float *inverse_std, int64_t out_size,
             float *out, int64_t threads)
{
    int64_t row = (out_size + LANES - 1) / LANES * LANES, plane = out_size * row;
    int failed = 0;
    if (threads > n)
        threads = n;
#pragma omp parallel num_threads(threads)
    {
        uint32_t *pixels = malloc(size * size * sizeof *pixels);
        float *planes = malloc(3 * plane * sizeof *planes);
        if (!pixels || !planes) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t image = 0; image < n; image++) {
            if (failed)
                continue;
            const uint8_t *source = stored + rows[image] * size * size * 3;
            for (int64_t p = 0; p < size * size; p++)
                pixels[p] = source[3 * p] | source[3 * p + 1] << 8 | source[3 * p + 2] << 16;
            warp(pixels, size, maps + 6 * image, out_size, row, nearest, planes);
            /* All that follows is one line for each colour, but for the clipping. */
            const float *m = colours + 9 * image;
            double centre = 0, means[3];
            for (int c = 0; c < 3; c++)
                means[c] = mean_of(planes + c * plane, out_size, row) / 255;
            for (int c = 0; c < 3; c++)
                centre += (m[3 * c] * means[0] + m[3 * c + 1] * means[1] + m[3 * c + 2] * means[2]) / 3;
            float a[9], b = (float)centre * (1 - contrasts[image]);
            for (int k = 0; k < 9; k++)
                a[k] = m[k] * contrasts[image] / 255;
            for (int64_t i = 0; i < out_size; i++) {
                const float *red = planes + i * row, *green = red + plane, *blue = green + plane;
                float *target = out + (image * out_size + i) * out_size * 3;
                for (int64_t j = 0; j < out_size; j++)
                    for (int c = 0; c < 3; c++) {
                        float value = a[3 * c] * red[j] + a[3 * c + 1] * green[j]
                                      + a[3 * c + 2] * blue[j] + b;
                        if (clip)
                            value = value < 0 ? 0 : value > 1 ? 1 : value;
                        target[3 * j + c] = (value - mean[c]) * inverse_std[c];
                    }
            }
        }
        free(pixels);
        free(planes);
    }
    return failed;
}
