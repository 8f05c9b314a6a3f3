/* Shuffle attention on the CPU: y = x·(1 + α·(σ(a·x + d) − 1)), with a line for each image and
 * channel, then perhaps a shuffle. α is the gain, 1 where there is none.
 *
 * Feature maps are (N, P, C), pixels of channels, or (N, C, P), planes; their numbers are bfloat16,
 * half or float32, and all arithmetic is in float32. An image's channels are cut into tiles whose
 * two passes over memory follow each other, so that the second finds it in the cache. A tile is
 * one thread's, whatever the number of threads, so the bits do not depend on it. Nothing is
 * allocated here: what is needed on the way comes in as `scratch`.
 *
 * Shapes: N images, P pixels, C channels, G groups, k = C / 2G channels in half a group.
 */
#include <math.h>
#include <stdint.h>

#include "vectors.h"

#define TILE 64
#define VECTORS (TILE / LANES)
#define IS_ROUGH(digits) ((digits) <= 11)
#define LOG2_E 1.44269504f
/* Pixels whose sums are made before they are joined to those of the others; and the tiles that take
 * turns at them. Small blocks of many tiles go through memory from end to end: faster than one tile
 * after the other, though that one would stay in the second-level cache between its passes. */
#define BLOCK 16
#define MOST_TILES 32
/* Numbers of a map below which a second thread costs more than it does. */
#define SMALL 32768

/* 2^x; what a result is rounded to has `digits` bits: that for a bfloat16 is wrong by less than
 * 2^-13 of itself, a half's by 2^-18. Infinite where a float cannot hold it, if it is rough. */
ALWAYS_INLINE v16f exp2_v(v16f x, int digits)
{
#ifdef __AVX512DQ__
    if (!IS_ROUGH(digits))
        x = (v16f)_mm512_min_ps((__m512)x, _mm512_set1_ps(126.0f));
    v16f r = (v16f)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
#else
    x = choose(x > 126.0f, broadcast(126.0f), choose(x < -126.0f, broadcast(-126.0f), x));
    v16f shifted = x - 0.5f + 0x1.8p23f; /* rounds; the last bits then hold a whole number */
    v16f r = x - (shifted - 0x1.8p23f);
#endif
    v16f p; /* of r in [0, 1] */
    if (digits <= 8) {
        p = r * 7.802454382e-02f + 2.260671705e-01f;
        p = p * r + 6.958335042e-01f;
        p = p * r + 9.999251962e-01f;
    } else if (digits <= 11) {
        p = r * 1.353416964e-02f + 5.201146379e-02f;
        p = p * r + 2.414427549e-01f;
        p = p * r + 6.930038333e-01f;
        p = p * r + 1.000002623e+00f;
    } else {
        p = r * 2.170225634e-04f + 1.243968843e-03f;
        p = p * r + 9.678840637e-03f;
        p = p * r + 5.548334122e-02f;
        p = p * r + 2.402298301e-01f;
        p = p * r + 6.931470037e-01f;
        p = p * r + 1.0f;
    }
#ifdef __AVX512DQ__
    return (v16f)_mm512_scalef_ps((__m512)p, (__m512)x); /* by 2 to the whole part of x */
#else
    return (v16f)((v16i)p + ((v16i)shifted << 23));
#endif
}

/* 1 / x for x from 1 to what exp2_v gives. A division takes as long as all the rest of a gate. */
ALWAYS_INLINE v16f reciprocal(v16f x, int digits)
{
#ifdef __AVX512F__
    v16f rough = (v16f)_mm512_rcp14_ps((__m512)x);
    return IS_ROUGH(digits) ? rough : rough + rough * (1.0f - x * rough);
#else
    (void)digits;
    return 1.0f / x;
#endif
}

/* σ(z), given −z/ln 2. Not a number in, some number out: who calls sees to it. */
ALWAYS_INLINE v16f sigmoid_v(v16f scaled, int digits)
{
    return reciprocal(1.0f + exp2_v(scaled, digits), digits);
}

/* The mask of a vector's first lanes. */
#define FIRST_LANES(lanes) \
    ((v16i){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} < (v16i){0} + (lanes))

/* Lanes of two vectors, by numbers from 0 to 31 that the compiler knows. */
#if defined(__clang__) || __GNUC__ >= 12
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICK(a, b, ...) __builtin_shuffle(a, b, (v16i){__VA_ARGS__})
#endif
#define ALL_LANES(f, k) f(0, k), f(1, k), f(2, k), f(3, k), f(4, k), f(5, k), f(6, k), f(7, k), \
    f(8, k), f(9, k), f(10, k), f(11, k), f(12, k), f(13, k), f(14, k), f(15, k)
#define INTERLEAVED_LOW(a, b) PICK(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define INTERLEAVED_HIGH(a, b) \
    PICK(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#define EVEN(a, b) PICK(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
#define ODD(a, b) PICK(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)

/* All sixteen, in halves. */
#define ROTATED_LANE(i, by) (((i) + (by)) % LANES)
static inline float sum_of(v16f v)
{
    v += PICK(v, v, ALL_LANES(ROTATED_LANE, 8));
    v += PICK(v, v, ALL_LANES(ROTATED_LANE, 4));
    v += PICK(v, v, ALL_LANES(ROTATED_LANE, 2));
    v += PICK(v, v, ALL_LANES(ROTATED_LANE, 1));
    return v[0];
}

/* A pair of vectors holds sixteen channels of channel halves and sixteen of spatial halves, which
 * take turns by k = 1, 2, 4, 8 or 16: one sigmoid serves the pair. The spatial ones, and back. */
#define SPATIAL_LANE(i, k) ((i) / (k) * 2 * (k) + (k) + (i) % (k))
#define MERGED_LANE(j, k) \
    ((j) % (2 * (k)) < (k) ? (j) % LANES : LANES + (j) / (2 * (k)) * (k) + (j) % (k))
#define MERGED_FIRST(j, k) MERGED_LANE(j, k)
#define MERGED_SECOND(j, k) MERGED_LANE((j) + LANES, k)
#define BY_K(case_) case_(1) case_(2) case_(4) case_(8)

ALWAYS_INLINE v16f spatial_lanes(v16f first, v16f second, int k)
{
    switch (k) {
#define CASE(k) case k: return PICK(first, second, ALL_LANES(SPATIAL_LANE, k));
    BY_K(CASE)
#undef CASE
    }
    return second;
}

/* Put spatial lanes among a vector's own of the channel halves. */
ALWAYS_INLINE v16f merged_first(v16f channel, v16f spatial, int k)
{
    switch (k) {
#define CASE(k) case k: return PICK(channel, spatial, ALL_LANES(MERGED_FIRST, k));
    BY_K(CASE)
#undef CASE
    }
    return channel;
}

ALWAYS_INLINE v16f merged_second(v16f channel, v16f spatial, int k)
{
    switch (k) {
#define CASE(k) case k: return PICK(channel, spatial, ALL_LANES(MERGED_SECOND, k));
    BY_K(CASE)
#undef CASE
    }
    return spatial;
}

/* Leave the spatial lanes of each pair in its first vector. */
static void to_pairs(v16f *v, int k)
{
    for (int j = 0; j < VECTORS && k; j += 2)
        v[j] = spatial_lanes(v[j], v[j + 1], k);
}

/* What is the same for all images. For each channel: the weight and the bias of its gate, where the
 * spatial half's two affine maps are one, and whether it is of that half. */
typedef struct {
    int64_t pixels, channels, k;
    int shuffles, paired; /* paired: k of the lanes, 0 where channels do not pair up so */
    float gain, epsilon;
    const float *weight, *bias, *spatial;
} Layer;

/* Where a channel goes. */
static int64_t shuffled_channel(const Layer *layer, int64_t channel)
{
    int64_t half = layer->channels / 2;
    return layer->shuffles ? channel % half * 2 + channel / half : channel;
}

static Layer layer_of(int64_t pixels, int64_t channels, int64_t groups, int64_t shuffles,
                      float epsilon, const float *gain, const float *line)
{
    int64_t k = channels / (2 * groups), half = channels / 2;
    Layer layer = {pixels, channels, k, shuffles != 0, 0, gain ? *gain : 1, epsilon,
                   line, line + channels, line + 2 * channels};
    if (k < LANES && LANES % (2 * k) == 0 && (shuffles ? half % 32 : channels % TILE) == 0)
        layer.paired = (int)k;
    if (k % LANES == 0 && (shuffles ? half % (2 * k) : channels % TILE) == 0)
        layer.paired = LANES;
    return layer;
}

/* The six vectors of k, in the order of `Layer`'s three of C. */
static void write_line(int64_t channels, int64_t groups, const float *channel_weight,
                       const float *channel_bias, const float *spatial_weight,
                       const float *spatial_bias, const float *norm_weight, const float *norm_bias,
                       float *line)
{
    int64_t k = channels / (2 * groups);
    float *weight = line, *bias = line + channels, *spatial = line + 2 * channels;
    for (int64_t first = 0; first < channels; first += 2 * k)
        for (int64_t i = 0; i < k; i++) {
            int64_t c = first + i, s = c + k;
            weight[c] = channel_weight[i];
            bias[c] = channel_bias[i];
            spatial[c] = 0;
            weight[s] = spatial_weight[i] * norm_weight[i];
            bias[s] = spatial_bias[i] + spatial_weight[i] * norm_bias[i];
            spatial[s] = 1;
        }
}

/* Where a tile's vectors start among the channels, and how many of their lanes are there. Those of
 * a pair follow each other; where channels are shuffled, the second two are of the second half, and
 * the output of all four is in one piece. */
typedef struct {
    int64_t at[VECTORS];
    int lanes[VECTORS];
} Tile;

static int64_t num_tiles(const Layer *layer)
{
    return (layer->channels + TILE - 1) / TILE;
}

/* How many tiles go together; where there are few images, those of one keep all threads busy. */
static int64_t tiles_together(const Layer *layer, int64_t n, int64_t threads)
{
    int64_t all = num_tiles(layer), tiles = all < MOST_TILES ? all : MOST_TILES;
    for (; tiles > 1; tiles = (tiles + 1) / 2) {
        int64_t parts = n * ((all + tiles - 1) / tiles);
        if (parts % threads == 0 || parts >= 4 * threads)
            break;
    }
    return tiles;
}

static Tile tile_of(const Layer *layer, int64_t number)
{
    Tile tile;
    int64_t half = layer->channels / 2, k = layer->k;
    for (int j = 0; j < VECTORS; j++) {
        int64_t in_half = layer->shuffles ? TILE / 2 * number + LANES * (j % 2) : 0;
        int64_t at = layer->shuffles ? in_half + j / 2 * half : TILE * number + LANES * j;
        int64_t end = layer->shuffles && j < 2 ? half : layer->channels;
        int64_t left = end - at;
        tile.lanes[j] = left >= LANES ? LANES : left > 0 ? (int)left : 0;
        if (layer->paired == LANES) {
            int64_t first = (at - LANES * (j % 2)) / 2; /* among the channels of channel halves */
            at = first / k * 2 * k + first % k + k * (j % 2);
        }
        tile.at[j] = at;
    }
    return tile;
}

/* A tile's numbers for each of its channels, in the order of its vectors. */
typedef float Numbers[TILE];

static void gather(const float *from, const Tile *tile, float *to)
{
    for (int j = 0; j < VECTORS; j++)
        if (tile->lanes[j] == LANES)
            memcpy(to + LANES * j, from + tile->at[j], LANES * sizeof *to);
        else
            for (int i = 0; i < LANES; i++)
                to[LANES * j + i] = i < tile->lanes[j] ? from[tile->at[j] + i] : 0;
}

static void scatter(const float *from, const Tile *tile, float *to)
{
    for (int j = 0; j < VECTORS; j++)
        if (tile->lanes[j] == LANES)
            memcpy(to + tile->at[j], from + LANES * j, LANES * sizeof *to);
        else
            memcpy(to + tile->at[j], from + LANES * j, tile->lanes[j] * sizeof *to);
}

/* What gates a tile: the spatial lanes' −a/ln 2, −d/ln 2 and gain, and the other lanes' gate. The
 * gain of a channel that holds something that is not a number is none either. */
typedef struct {
    v16f slope[VECTORS], offset[VECTORS], gain[VECTORS], constant[VECTORS], one_less_gain;
} Gates;

static v16f gain_of(const Layer *layer, v16f offset)
{
    return choose(offset != offset, offset, broadcast(layer->gain));
}

static Gates gates_of(const Layer *layer, const float *slope, const float *offset)
{
    Gates gates;
    gates.one_less_gain = broadcast(1 - layer->gain);
    for (int j = 0; j < VECTORS; j++) {
        v16f d = load_f32(offset + LANES * j), gain = gain_of(layer, d);
        gates.constant[j] = gates.one_less_gain + gain * sigmoid_v(-LOG2_E * d, 24);
        gates.gain[j] = gain;
        gates.slope[j] = -LOG2_E * load_f32(slope + LANES * j);
        gates.offset[j] = -LOG2_E * d;
    }
    to_pairs(gates.gain, layer->paired);
    to_pairs(gates.slope, layer->paired);
    to_pairs(gates.offset, layer->paired);
    return gates;
}

/* A tile's means and squared deviations of the pixels seen so far. */
typedef struct {
    v16f mean[VECTORS], squares[VECTORS];
} Moments;

/* From a tile's moments to its gates. kept: (4, C), for the backward: mean, 1/std, a, d. */
static Gates first_gates_of(const Layer *layer, const Tile *tile, const Moments *moments,
                            float *kept)
{
    Numbers mean, inverse_std, slope, offset, weight, bias, spatial;
    memcpy(mean, moments->mean, sizeof mean);
    memcpy(inverse_std, moments->squares, sizeof inverse_std);
    gather(layer->weight, tile, weight);
    gather(layer->bias, tile, bias);
    gather(layer->spatial, tile, spatial);
    for (int i = 0; i < TILE; i++) {
        inverse_std[i] = 1 / sqrtf(inverse_std[i] / (float)layer->pixels + layer->epsilon);
        slope[i] = spatial[i] != 0 ? weight[i] * inverse_std[i] : 0;
        offset[i] = bias[i] + (spatial[i] != 0 ? -slope[i] : weight[i]) * mean[i];
    }
    const float *numbers[4] = {mean, inverse_std, slope, offset};
    for (int i = 0; i < 4; i++)
        scatter(numbers[i], tile, kept + i * layer->channels);
    return gates_of(layer, slope, offset);
}

/* The gates again, and the pairs' means. */
static Gates kept_gates_of(const Layer *layer, const Tile *tile, const float *kept, v16f *means)
{
    Numbers mean, slope, offset;
    gather(kept, tile, mean);
    gather(kept + 2 * layer->channels, tile, slope);
    gather(kept + 3 * layer->channels, tile, offset);
    memcpy(means, mean, sizeof mean);
    to_pairs(means, layer->paired);
    return gates_of(layer, slope, offset);
}

/* Sums of a tile's gradient: see `sum_pixels`. */
typedef struct {
    v16f u[VECTORS], w[VECTORS], q[VECTORS], t[VECTORS];
} Sums;

/* What a tile's gradient is made of, beside its gates: see `gradient_pixels`. */
typedef struct {
    v16f a[VECTORS], b[VECTORS], e[VECTORS], constant[VECTORS];
} Slopes;

/* From the sums of a tile's gradient to what the gradient is made of. Hands on the sums of dz, of
 * dz times the normalised pixel, and u: (3, C). */
static Slopes slopes_of(const Layer *layer, const Tile *tile, const float *kept, Sums *all,
                        float *sums)
{
    int k = layer->paired;
    Numbers mean, inverse_std, slope, offset, weight, spatial, dz, product, u, a, b, e;
    gather(kept, tile, mean);
    gather(kept + layer->channels, tile, inverse_std);
    gather(kept + 2 * layer->channels, tile, slope);
    gather(kept + 3 * layer->channels, tile, offset);
    gather(layer->weight, tile, weight);
    gather(layer->spatial, tile, spatial);
    for (int j = 0; j < VECTORS && k; j += 2) {
        v16f sigma_0 = sigmoid_v(-LOG2_E * load_f32(offset + LANES * j), 24);
        v16f sigma_1 = sigmoid_v(-LOG2_E * load_f32(offset + LANES * (j + 1)), 24);
        v16f u_0 = all->t[j] * (sigma_0 - 1.0f), u_1 = all->t[j + 1] * (sigma_1 - 1.0f);
        v16f its_u = all->u[j], w = all->w[j], q = all->q[j];
        all->u[j] = merged_first(u_0, its_u, k);
        all->u[j + 1] = merged_second(u_1, its_u, k);
        all->w[j] = merged_first(u_0 * sigma_0, w, k);
        all->w[j + 1] = merged_second(u_1 * sigma_1, w, k);
        all->q[j] = merged_first(q, q, k); /* a channel half's is not read */
        all->q[j + 1] = merged_second(q, q, k);
    }
    memcpy(dz, all->w, sizeof dz);
    memcpy(product, all->q, sizeof product);
    memcpy(u, all->u, sizeof u);
    float per_pixel = 1 / (float)layer->pixels;
    for (int i = 0; i < TILE; i++) {
        float gain = offset[i] != offset[i] ? offset[i] : layer->gain;
        dz[i] *= -gain;
        product[i] *= -gain * inverse_std[i];
        a[i] = slope[i] * gain;
        b[i] = spatial[i] != 0 ? -slope[i] * inverse_std[i] * product[i] * per_pixel : 0;
        e[i] = spatial[i] != 0 ? -slope[i] * dz[i] * per_pixel - b[i] * mean[i]
                               : weight[i] * dz[i] * per_pixel;
    }
    scatter(dz, tile, sums);
    scatter(product, tile, sums + layer->channels);
    scatter(u, tile, sums + 2 * layer->channels);
    Slopes slopes;
    memcpy(slopes.a, a, sizeof slopes.a);
    memcpy(slopes.b, b, sizeof slopes.b);
    memcpy(slopes.e, e, sizeof slopes.e);
    memcpy(slopes.constant, e, sizeof slopes.constant);
    to_pairs(slopes.a, k);
    to_pairs(slopes.b, k);
    to_pairs(slopes.e, k);
    return slopes;
}

/* From the sums of all images' channels to the gradients of the six vectors of k, and of the gain.
 * sums: (N, 3, C); kept: (N, 4, C); totals: (6, k). */
static void add_up(const float *sums, const float *kept, int64_t n, int64_t channels,
                   int64_t groups, const float *spatial_weight, const float *norm_weight,
                   const float *norm_bias, float *gradients, double *totals)
{
    int64_t k = channels / (2 * groups);
    double of_gain = 0;
    memset(totals, 0, 6 * k * sizeof *totals);
    for (int64_t image = 0; image < n; image++) {
        const float *dz = sums + 3 * image * channels, *product = dz + channels;
        const float *u = dz + 2 * channels, *mean = kept + 4 * image * channels;
        for (int64_t first = 0; first < channels; first += 2 * k)
            for (int64_t i = 0; i < k; i++) {
                int64_t c = first + i, s = c + k;
                totals[i] += (double)dz[c] * mean[c];
                totals[k + i] += dz[c];
                totals[2 * k + i] += (double)norm_weight[i] * product[s]
                                     + (double)norm_bias[i] * dz[s];
                totals[3 * k + i] += dz[s];
                totals[4 * k + i] += (double)spatial_weight[i] * product[s];
                totals[5 * k + i] += (double)spatial_weight[i] * dz[s];
                of_gain += (double)u[c] + u[s];
            }
    }
    for (int64_t i = 0; i < 6 * k; i++)
        gradients[i] = (float)totals[i];
    gradients[6 * k] = (float)of_gain;
}

/* Call a function on pixels with what the compiler is to know: how channels pair up, and whether
 * they are shuffled. */
#define FOR_PAIRS(function, shuffles, ...) \
    switch (layer->paired) { \
    case 1: function(__VA_ARGS__, 1, shuffles); break; \
    case 2: function(__VA_ARGS__, 2, shuffles); break; \
    case 4: function(__VA_ARGS__, 4, shuffles); break; \
    case 8: function(__VA_ARGS__, 8, shuffles); break; \
    case LANES: function(__VA_ARGS__, LANES, shuffles); break; \
    default: function(__VA_ARGS__, 0, shuffles); \
    }
#define FOR_LAYER(function, ...) \
    if (layer->shuffles) { \
        FOR_PAIRS(function, 1, __VA_ARGS__) \
    } else { \
        FOR_PAIRS(function, 0, __VA_ARGS__) \
    }

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(function) JOIN(function, T_NAME)

#define T bf16
#define T_NAME bf16
#define LOAD load_bf16
#define STORE store_bf16
#define STORE_2 store2_bf16
#define DIGITS 8
#include "attention.inc"
#undef T
#undef T_NAME
#undef LOAD
#undef STORE
#undef STORE_2
#undef DIGITS

#define T f16
#define T_NAME f16
#define LOAD load_f16
#define STORE store_f16
#define STORE_2 store2_f16
#define DIGITS 11
#include "attention.inc"
#undef T
#undef T_NAME
#undef LOAD
#undef STORE
#undef STORE_2
#undef DIGITS

#define T float
#define T_NAME f32
#define LOAD load_f32
#define STORE store_f32
#define STORE_2 store2_f32
#define DIGITS 24
#include "attention.inc"
