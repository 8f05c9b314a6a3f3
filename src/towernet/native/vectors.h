/* Sixteen numbers at a time, in the compiler's own vectors: it turns them into whatever the
 * processor has. */
#ifndef TOWERNET_VECTORS_H
#define TOWERNET_VECTORS_H

#include <stdint.h>
#include <string.h>
#ifdef __AVX512F__ /* for what the compiler does not find by itself */
#include <immintrin.h>
#endif

#define LANES 16
typedef float v16f __attribute__((vector_size(64)));
typedef int32_t v16i __attribute__((vector_size(64)));
typedef uint32_t v16u __attribute__((vector_size(64)));
typedef uint16_t v16h __attribute__((vector_size(32)));

typedef uint16_t bf16;
typedef uint16_t f16;

#define ALWAYS_INLINE static inline __attribute__((always_inline))

static inline v16f load_f32(const float *p)
{
    v16f v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void store_f32(float *p, v16f v)
{
    memcpy(p, &v, sizeof v);
}

static inline v16f load_bf16(const bf16 *p)
{
    v16h h;
    memcpy(&h, p, sizeof h);
#ifdef __AVX512F__
    return (v16f)((v16u)_mm512_cvtepu16_epi32((__m256i)h) << 16);
#else
    return (v16f)(__builtin_convertvector(h, v16u) << 16);
#endif
}

/* Round to nearest, ties to even, as torch does; what is not a number stays so. */
static inline void store_bf16(bf16 *p, v16f v)
{
#ifdef __AVX512BF16__
    __m256bh h = _mm512_cvtneps_pbh((__m512)v);
#else
    v16u u = (v16u)v;
    v16u rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    v16u is_nan = (v16u)(v != v);
    v16h h = __builtin_convertvector((rounded & ~is_nan) | (is_nan & 0x7fc0u), v16h);
#endif
    memcpy(p, &h, sizeof h);
}

#ifdef __AVX512F__
static inline v16f load_f16(const f16 *p)
{
    return (v16f)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

static inline void store_f16(f16 *p, v16f v)
{
    __m256i h = _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    memcpy(p, &h, sizeof h);
}
#else
/* Half precision by its bits: not every compiler knows the type. */
static inline v16f load_f16(const f16 *p)
{
    v16h h;
    memcpy(&h, p, sizeof h);
    v16u u = __builtin_convertvector(h, v16u);
    v16u sign = (u & 0x8000u) << 16;
    v16u bits = (u & 0x7fffu) << 13;
    v16u special = (v16u)(bits >= 0x0f800000u) & 0x7f800000u; /* infinite, or not a number */
    return (v16f)((v16u)((v16f)bits * 0x1p112f) | special | sign);
}

static inline void store_f16(f16 *p, v16f v)
{
    v16u u = (v16u)v, sign = u & 0x80000000u;
    u ^= sign;
    v16u is_nan = (v16u)(u > 0x7f800000u), is_small = (v16u)(u < 0x38800000u);
    v16u is_large = (v16u)(u >= 0x47800000u);
    v16u normal = (u - 0x38000000u + 0xfffu + ((u >> 13) & 1u)) >> 13;
    /* Added to 1/2, a number below 2^-14 is rounded at the last bit a half has there. */
    v16u small = (v16u)((v16f)u + 0.5f) - 0x3f000000u;
    v16u half = (small & is_small) | (normal & ~is_small);
    half = (half & ~is_large) | (0x7c00u & is_large);
    half = (half & ~is_nan) | (0x7e00u & is_nan);
    v16h h = __builtin_convertvector(half | (sign >> 16), v16h);
    memcpy(p, &h, sizeof h);
}
#endif

/* Two vectors side by side: one store fills a line of the cache. */
static inline void store2_f32(float *p, v16f first, v16f second)
{
    store_f32(p, first);
    store_f32(p + LANES, second);
}

static inline void store2_f16(f16 *p, v16f first, v16f second)
{
    store_f16(p, first);
    store_f16(p + LANES, second);
}

static inline void store2_bf16(bf16 *p, v16f first, v16f second)
{
#ifdef __AVX512BF16__
    __m512bh h = _mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
    memcpy(p, &h, sizeof h);
#else
    store_bf16(p, first);
    store_bf16(p + LANES, second);
#endif
}

static inline v16f choose(v16i mask, v16f yes, v16f no)
{
    return (v16f)((mask & (v16i)yes) | (~mask & (v16i)no));
}

static inline v16f broadcast(float value)
{
    return (v16f){0} + value;
}

#endif
