/* Sixteen numbers at a time, in the compiler's own vectors: it turns them into whatever the
 * processor has. */
#ifndef TOWERNET_VECTORS_H
#define TOWERNET_VECTORS_H

#include <stdint.h>
#include <string.h>

#define LANES 16
typedef float v16f __attribute__((vector_size(64)));
typedef int32_t v16i __attribute__((vector_size(64)));
typedef uint32_t v16u __attribute__((vector_size(64)));
typedef uint16_t v16h __attribute__((vector_size(32)));

typedef uint16_t bf16;

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
    return (v16f)(__builtin_convertvector(h, v16u) << 16);
}

/* Round to nearest, ties to even, as torch does; what is not a number stays so. */
static inline void store_bf16(bf16 *p, v16f v)
{
    v16u u = (v16u)v;
    v16u rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    v16u is_nan = (v16u)(v != v);
    v16h h = __builtin_convertvector((rounded & ~is_nan) | (is_nan & 0x7fc0u), v16h);
    memcpy(p, &h, sizeof h);
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
