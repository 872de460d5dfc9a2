/* Products, norms, depth-wise convolutions and GELU of rows of pixels, in float32: what the kernels are made of.

   Rows are (pixels, channels). A product reads a row of pixels and panels of weights: TILE pixels by PANEL outputs are
   summed up in registers. Vectors are those of GCC and Clang, so one text serves AVX2, AVX-512 and NEON.

   With BF16 defined, what products multiply is rounded to bfloat16, two numbers to a lane, and summed up in float32:
   half the instructions where the processor has one for it. All else, and every map, stays float32. */

#ifndef ROWS_H
#define ROWS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(BF16) && defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
enum { LANES = 16, VECTORS = 2, TILE = 12 };
#elif defined(__AVX__)
enum { LANES = 8, VECTORS = 2, TILE = 6 };
#elif defined(__aarch64__)
enum { LANES = 4, VECTORS = 4, TILE = 6 };
#else
enum { LANES = 4, VECTORS = 2, TILE = 4 };
#endif
enum { FEW = 3 /* outputs, for which panels are not worth while */ };
enum { PANEL = LANES * VECTORS, TALL = 12 /* pixels of a tile of one vector */, STRETCH = 6 /* of a depth-wise one */ };

typedef int64_t i64;
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float quad __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t mask __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))
#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT
#endif
#define UNROLL _Pragma("GCC unroll 16")

INLINE vec load(const float *from) { return *(const vec *)from; }
INLINE void store(float *to, vec value) { *(vec *)to = value; }
/* A difference, since 0 + value is an addition to compilers that heed -0, before each broadcast: half of the speed. */
INLINE vec all(float value) { return value - (vec){0}; }
/* By bits, since GCC makes a loop over the elements into one comparison after the other; a NaN in `a` comes out as `b`. */
INLINE vec smaller(vec a, vec b) {
    const mask less = a < b;
    return (vec)((less & (mask)a) | (~less & (mask)b));
}
INLINE vec magnitude(vec a) { return (vec)((mask)a & 0x7fffffff); }
INLINE i64 least(i64 a, i64 b) { return a < b ? a : b; }
INLINE i64 most(i64 a, i64 b) { return a > b ? a : b; }
INLINE i64 whole(i64 count) { return (count + LANES - 1) / LANES * LANES; }

/* ---- what products multiply ---- */

#if defined(BF16)
enum { TERMS = 2 /* of a sum, in a lane */ };
typedef uint16_t factor;
typedef mask factors __attribute__((aligned(2)));
typedef int32_t pair __attribute__((aligned(2), may_alias));

INLINE factors load_factors(const factor *from) { return *(const factors *)from; }
INLINE factors broadcast(const factor *from) { return *(const pair *)from - (factors){0}; }
#if defined(__AVX512BF16__)
INLINE vec add_products(vec sum, factors a, factors b) {
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
}
#else /* the same, slowly: for tests */
INLINE vec add_products(vec sum, factors a, factors b) {
    const mask high = (mask){0} - 0x10000;
    sum += (vec)(a & high) * (vec)(b & high);
    return sum + (vec)(a << 16) * (vec)(b << 16);
}
#endif
/* To the nearest, of two equally near ones to the even, in the lower half of each lane; NaN stays NaN. */
INLINE mask rounded(vec value) {
#if defined(__AVX512BF16__)
    return (mask)_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)value));
#else
    const mask bits = (mask)value, none = (mask)(value != value), usual = bits + 0x7fff + (bits >> 16 & 1);
    return ((usual & ~none) | ((bits | 0x400000) & none)) >> 16 & 0xffff;
#endif
}
INLINE factor factor_of(float value) { return (factor)rounded(all(value))[0]; }
INLINE void store_factors(factor *to, vec value) {
#if defined(__AVX512BF16__)
    _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh((__m512)value));
#else
    const mask each = rounded(value);
    UNROLL for (int i = 0; i < LANES; i++) to[i] = (factor)each[i];
#endif
}
#else
enum { TERMS = 1 };
typedef float factor;
typedef vec factors;

INLINE factors load_factors(const factor *from) { return load(from); }
INLINE factors broadcast(const factor *from) { return all(*from); }
INLINE vec add_products(vec sum, factors a, factors b) { return sum + a * b; }
INLINE factor factor_of(float value) { return value; }
INLINE void store_factors(factor *to, vec value) { store(to, value); }
#endif

/* Numbers up to whole lanes of factors; floats as large as so many factors, and where factors may be the floats: 0. */
INLINE i64 paired(i64 count) { return (count + TERMS - 1) / TERMS * TERMS; }
INLINE i64 factor_floats(i64 pixels, i64 channels) { return pixels * paired(channels) / TERMS; }
INLINE i64 room_floats(i64 pixels, i64 channels) { return TERMS == 1 ? 0 : factor_floats(pixels, channels); }
INLINE i64 panels_size(i64 outputs, i64 inputs) { return whole(outputs) * paired(inputs); }

/* Rows of pixels, `stride` apart, to factors, `to_stride` apart; a last channel that has none beside it in its lane gets
   a zero. */
static void to_factors(const float *rows, i64 stride, i64 pixels, i64 channels, factor *to, i64 to_stride) {
#if defined(BF16)
    for (i64 p = 0; p < pixels; p++, rows += stride, to += to_stride) {
        i64 c = 0;
#if defined(__AVX512BF16__)
        for (; c + LANES <= channels; c += LANES) store_factors(to + c, load(rows + c));
        if (c < paired(channels)) {
            const __m512 rest = _mm512_maskz_loadu_ps((1u << (channels - c)) - 1, rows + c);
            const __mmask16 places = (1u << (paired(channels) - c)) - 1;
            _mm256_mask_storeu_epi16(to + c, places, (__m256i)_mm512_cvtneps_pbh(rest));
        }
#else
        for (; c < channels; c++) to[c] = factor_of(rows[c]);
        if (c < paired(channels)) to[c] = 0;
#endif
    }
#else
    if (stride == channels && to_stride == channels) memcpy(to, rows, pixels * channels * sizeof(float));
    else for (i64 p = 0; p < pixels; p++) memcpy(to + p * to_stride, rows + p * stride, channels * sizeof(float));
#endif
}

/* Rows of pixels as factors, `*stride` apart: as they are or, rounded, in `room`. */
INLINE const factor *as_factors(const float *rows, i64 *stride, i64 pixels, i64 channels, float *room) {
    if (TERMS == 1) return (const factor *)rows;
    to_factors(rows, *stride, pixels, channels, (factor *)room, paired(channels));
    *stride = paired(channels);
    return (const factor *)room;
}

/* ---- products ---- */

/* The first `count` of a vector's numbers, plus as many others, to their place. */
INLINE void put(vec value, const float *add, float *to, i64 count) {
    if (count >= LANES) {
        if (add) value += load(add);
        store(to, value);
        return;
    }
    float few[LANES] = {0};
    if (add) memcpy(few, add, count * sizeof(float));
    store(few, value + load(few));
    memcpy(to, few, count * sizeof(float));
}

/* `tile` pixels by `vectors` vectors of outputs: sum over `lines` and k of x[line][pixel][k] weight[line][k][output],
   + bias, + addend. */
INLINE void product_tile(const int tile, const int vectors, int lines, const factor *const *x, i64 at, i64 x_stride,
                         const factor *weight, const float *bias, const float *addend, i64 addend_stride, float *out,
                         i64 out_stride, i64 inputs, i64 outputs) {
    vec sums[TALL][VECTORS];
    UNROLL for (int i = 0; i < tile; i++) UNROLL for (int j = 0; j < vectors; j++)
        sums[i][j] = bias ? load(bias + j * LANES) : (vec){0};
    for (int line = 0; line < lines; line++) {
        const factor *from = x[line] + at * x_stride;
        for (i64 k = 0; k < inputs; k += TERMS, weight += vectors * LANES * TERMS) {
            factors row[VECTORS];
            UNROLL for (int j = 0; j < vectors; j++) row[j] = load_factors(weight + j * LANES * TERMS);
            UNROLL for (int i = 0; i < tile; i++) {
                const factors value = broadcast(from + i * x_stride + k);
                UNROLL for (int j = 0; j < vectors; j++) sums[i][j] = add_products(sums[i][j], value, row[j]);
            }
        }
    }
    UNROLL for (int i = 0; i < tile; i++) UNROLL for (int j = 0; j < vectors; j++) {
        const float *add = addend ? addend + (at + i) * addend_stride + j * LANES : 0;
        put(sums[i][j], add, out + (at + i) * out_stride + j * LANES, outputs - j * LANES);
    }
}

/* All pixels by one panel, of VECTORS vectors or of one; as many tiles of the best height as there are, and the rest. */
INLINE void product_panel(const int vectors, int lines, const factor *const *x, i64 x_stride, const factor *weight,
                          const float *bias, const float *addend, i64 addend_stride, float *out, i64 out_stride,
                          i64 pixels, i64 inputs, i64 outputs) {
    const int tile = vectors == 1 ? TALL : TILE;
    i64 at = 0;
#define DO(count)                                                                                                      \
    product_tile(count, vectors, lines, x, at, x_stride, weight, bias, addend, addend_stride, out, out_stride, inputs, \
                 outputs)
    for (; at + tile <= pixels; at += tile) DO(tile);
    if (tile >= 8 && pixels - at >= 8) { DO(8); at += 8; } /* with two vectors AVX2 has too few registers */
    if (pixels - at >= 6) { DO(6); at += 6; }
    switch (pixels - at) {
    case 1: DO(1); break;
    case 2: DO(2); break;
    case 3: DO(3); break;
    case 4: DO(4); break;
    case 5: DO(5); break;
    default: break;
    }
#undef DO
}

/* (lines of) pixels and their inputs by panels of weights -> (pixels, outputs). Whole panels lie one after the other,
   (lines, inputs, PANEL); what is left lies in panels of one vector. Inputs: `paired`; of two, a lane has both. */
static void products(int lines, const factor *const *x, i64 x_stride, const factor *weight, const float *bias,
                     const float *addend, i64 addend_stride, float *out, i64 out_stride, i64 pixels, i64 inputs,
                     i64 outputs) {
    i64 first = 0;
    for (; outputs - first >= PANEL; first += PANEL)
        product_panel(VECTORS, lines, x, x_stride, weight + first * lines * inputs, bias ? bias + first : 0,
                      addend ? addend + first : 0, addend_stride, out + first, out_stride, pixels, inputs,
                      outputs - first);
    for (; first < outputs; first += LANES)
        product_panel(1, lines, x, x_stride, weight + first * lines * inputs, bias ? bias + first : 0,
                      addend ? addend + first : 0, addend_stride, out + first, out_stride, pixels, inputs,
                      outputs - first);
}

/* A 1x1 convolution of rows of factors that lie `paired(inputs)` or more apart. */
static void product_of_factors(const factor *x, i64 x_stride, const factor *weight, const float *bias, const float *addend,
                               i64 addend_stride, float *out, i64 out_stride, i64 pixels, i64 inputs, i64 outputs) {
    products(1, &x, x_stride, weight, bias, addend, addend_stride, out, out_stride, pixels, paired(inputs), outputs);
}

/* The same of rows of floats. `room`: see room_floats. */
static void product(const float *x, i64 x_stride, const factor *weight, const float *bias, const float *addend,
                    i64 addend_stride, float *out, i64 out_stride, i64 pixels, i64 inputs, i64 outputs, float *room) {
    const factor *const from = as_factors(x, &x_stride, pixels, inputs, room);
    product_of_factors(from, x_stride, weight, bias, addend, addend_stride, out, out_stride, pixels, inputs, outputs);
}

/* A 3x3 convolution: of each of the three rows, three neighbouring pixels lie one after the other. */
static void product3(const factor *const rows[3], const factor *weight, const float *bias, const float *addend,
                     i64 addend_stride, float *out, i64 out_stride, i64 pixels, i64 inputs, i64 outputs) {
    products(3, rows, inputs, weight, bias, addend, addend_stride, out, out_stride, pixels, 3 * inputs, outputs);
}

/* ---- pointwise ---- */

/* The sum of a vector's numbers. */
INLINE float across(vec a) {
    quad sum = {0}, part;
    UNROLL for (int i = 0; i < LANES; i += 4) {
        memcpy(&part, (const char *)&a + i * sizeof(float), sizeof part);
        sum += part;
    }
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

/* Of a 3x3 convolution with few outputs, which would leave most of a panel empty, `tile` pixels: vectors go along the
   inputs, three pixels' of a row one after the other. Weights are (outputs, 3, run), zeros behind the inputs. */
INLINE void few_tile(const int tile, const int outputs, const factor *const rows[3], i64 at, i64 inputs,
                     const factor *weight, i64 run, const float *bias, const float *addend, i64 addend_stride,
                     float *out, i64 out_stride) {
    vec sums[4][FEW];
    UNROLL for (int i = 0; i < tile; i++) UNROLL for (int j = 0; j < outputs; j++) sums[i][j] = (vec){0};
    for (int y = 0; y < 3; y++, weight += run) {
        const factor *from = rows[y] + at * inputs;
        for (i64 k = 0; k < run; k += LANES * TERMS) {
            factors row[FEW];
            UNROLL for (int j = 0; j < outputs; j++) row[j] = load_factors(weight + 3 * j * run + k);
            UNROLL for (int i = 0; i < tile; i++) {
                const factors values = load_factors(from + i * inputs + k);
                UNROLL for (int j = 0; j < outputs; j++) sums[i][j] = add_products(sums[i][j], values, row[j]);
            }
        }
    }
    UNROLL for (int i = 0; i < tile; i++) UNROLL for (int j = 0; j < outputs; j++)
        out[(at + i) * out_stride + j] = across(sums[i][j]) + (bias ? bias[j] : 0) +
                                         (addend ? addend[(at + i) * addend_stride + j] : 0);
}

static void few3(const factor *const rows[3], const factor *weight, const float *bias, const float *addend,
                 i64 addend_stride, float *out, i64 out_stride, i64 pixels, i64 inputs, i64 outputs) {
    const i64 run = (3 * inputs + LANES * TERMS - 1) / (LANES * TERMS) * (LANES * TERMS);
#define DO(count)                                                                                                      \
    for (i64 at = 0; at < pixels;)                                                                                     \
        if (pixels - at >= 4) {                                                                                        \
            few_tile(4, count, rows, at, inputs, weight, run, bias, addend, addend_stride, out, out_stride);           \
            at += 4;                                                                                                   \
        } else {                                                                                                       \
            few_tile(1, count, rows, at, inputs, weight, run, bias, addend, addend_stride, out, out_stride);           \
            at += 1;                                                                                                   \
        }
    switch (outputs) {
    case 1: DO(1) break;
    case 2: DO(2) break;
    default: DO(3) break;
    }
#undef DO
}

/* Layer normalisation of `tile` pixels, each by itself, to floats or to factors; `means` and 1 / deviation, `scales`,
   where they are kept. */
INLINE void normalise_tile(const int tile, const float *x, float *out, factor *rounded, i64 channels, int centred,
                           float *means, float *scales) {
    const i64 full = channels / LANES * LANES, stride = rounded ? paired(channels) : channels;
    vec wide[4];
    float rest[4], mean[4], scale[4];
    UNROLL for (int i = 0; i < tile; i++) wide[i] = (vec){0}, rest[i] = 0;
    for (i64 c = 0; c < full; c += LANES) UNROLL for (int i = 0; i < tile; i++) wide[i] += load(x + i * channels + c);
    for (i64 c = full; c < channels; c++) UNROLL for (int i = 0; i < tile; i++) rest[i] += x[i * channels + c];
    UNROLL for (int i = 0; i < tile; i++) {
        mean[i] = (across(wide[i]) + rest[i]) / channels;
        wide[i] = (vec){0}, rest[i] = 0;
    }
    for (i64 c = 0; c < full; c += LANES) UNROLL for (int i = 0; i < tile; i++) {
        const vec away = load(x + i * channels + c) - all(mean[i]);
        wide[i] += away * away;
    }
    for (i64 c = full; c < channels; c++) UNROLL for (int i = 0; i < tile; i++) {
        const float away = x[i * channels + c] - mean[i];
        rest[i] += away * away;
    }
    UNROLL for (int i = 0; i < tile; i++) {
        scale[i] = 1 / sqrtf((across(wide[i]) + rest[i]) / channels + 1e-5f);
        if (means) means[i] = mean[i], scales[i] = scale[i];
        if (!centred) mean[i] = 0;
    }
    for (i64 c = 0; c < full; c += LANES) UNROLL for (int i = 0; i < tile; i++) {
        const vec value = (load(x + i * channels + c) - all(mean[i])) * all(scale[i]);
        if (rounded) store_factors(rounded + i * stride + c, value);
        else store(out + i * stride + c, value);
    }
    for (i64 c = full; c < channels; c++) UNROLL for (int i = 0; i < tile; i++) {
        const float value = (x[i * channels + c] - mean[i]) * scale[i];
        if (rounded) rounded[i * stride + c] = factor_of(value);
        else out[i * stride + c] = value;
    }
    if (rounded && stride > channels) UNROLL for (int i = 0; i < tile; i++) rounded[i * stride + channels] = 0;
}

/* Layer normalisation of each pixel without weight and bias; `centred` is 0 for the bias-free norm. Four pixels at a
   time, since one waits for its own sums. */
INLINE void normalise_rows(const float *x, float *out, factor *rounded, i64 pixels, i64 channels, int centred,
                           float *means, float *scales) {
    const i64 stride = rounded ? paired(channels) : channels;
    for (i64 p = 0, tile; p < pixels; p += tile, x += tile * channels) {
        tile = pixels - p >= 4 ? 4 : 1;
        float *const to = rounded ? 0 : out + p * stride;
        factor *const factors_to = rounded ? rounded + p * stride : 0;
        float *const mean = means ? means + p : 0, *const scale = means ? scales + p : 0;
        if (tile == 4) normalise_tile(4, x, to, factors_to, channels, centred, mean, scale);
        else normalise_tile(1, x, to, factors_to, channels, centred, mean, scale);
    }
}
static void normalise_to_factors(const float *x, factor *out, i64 pixels, i64 channels, int centred) {
    normalise_rows(x, 0, out, pixels, channels, centred, 0, 0);
}

/* erf(size / sqrt 2) of a size >= 0: a quotient of polynomials in its square, fitted by us for sizes up to 5.4 (largest
   error 1e-8, and 4e-7 as computed in float32); beyond, erf is 1 to float32's last bit but one. */
INLINE vec error_function(vec size) {
    const vec t = smaller(size, all(5.4f)), s = t * t;
    vec p = s * 4.677626463944762e-08f + 1.271963628823869e-05f;
    p = p * s + 3.285980492364615e-04f;
    p = p * s + 9.301424957811832e-03f;
    p = p * s + 6.674011051654816e-02f;
    p = p * s + 7.97884464263916e-01f;
    vec q = s * 1.2166170790806063e-06f + 7.239267870318145e-05f;
    q = q * s + 1.8588531529530883e-03f;
    q = q * s + 2.8377428650856018e-02f;
    q = q * s + 2.503124177455902e-01f;
    q = q * s + 1.0f;
    return t * p / q;
}

/* GELU: x/2 (1 + erf(x / sqrt 2)), and erf is odd. */
INLINE vec gelu(vec x) {
    const vec size = magnitude(x);
    return x * 0.5f + size * 0.5f * error_function(size);
}

/* The depth-wise 3x3 convolution of STRETCH pixels, or one, at LANES channels: `rows` point at the pixel left of the first. */
INLINE void depthwise_tile(const int pixels, const float *const rows[3], i64 stride, const float *weight, i64 channels,
                           const float *bias, vec *out) {
    UNROLL for (int i = 0; i < pixels; i++) out[i] = bias ? load(bias) : (vec){0};
    UNROLL for (int y = 0; y < 3; y++) {
        vec taps[3];
        UNROLL for (int t = 0; t < 3; t++) taps[t] = load(weight + (3 * y + t) * channels);
        UNROLL for (int i = 0; i < pixels + 2; i++) {
            const vec value = load(rows[y] + i * stride);
            UNROLL for (int t = 0; t < 3; t++)
                if (i - t >= 0 && i - t < pixels) out[i - t] += value * taps[t];
        }
    }
}

/* Of a row; `channels` is a multiple of LANES, and a tap's weights are as far from the next one's as pixels. */
static void depthwise(const float *const rows[3], i64 stride, const float *weight, const float *bias, float *out,
                      i64 out_stride, i64 pixels, i64 channels) {
    i64 p = 0;
#define DO(count)                                                                                                      \
    for (; p + count <= pixels; p += count)                                                                            \
        for (i64 c = 0; c < channels; c += LANES) {                                                                    \
            const i64 at = p * stride + c;                                                                             \
            const float *const from[3] = {rows[0] + at, rows[1] + at, rows[2] + at};                                   \
            vec sums[count];                                                                                           \
            depthwise_tile(count, from, stride, weight + c, stride, bias ? bias + c : 0, sums);                        \
            UNROLL for (int i = 0; i < count; i++) store(out + (p + i) * out_stride + c, sums[i]);                     \
        }
    DO(STRETCH)
    DO(1)
#undef DO
}

/* The same of gate and value, `hidden` channels each, and GELU(gate) times value: (pixels, 2 hidden) -> (pixels, hidden),
   factors. */
static void depthwise_gate(const float *const rows[3], i64 stride, const float *weight, const float *bias, factor *out,
                           i64 pixels, i64 hidden) {
    i64 p = 0;
#define DO(count)                                                                                                      \
    for (; p + count <= pixels; p += count)                                                                            \
        for (i64 c = 0; c < hidden; c += LANES) {                                                                      \
            const i64 at = p * stride + c, other = at + hidden;                                                        \
            const float *const gate_from[3] = {rows[0] + at, rows[1] + at, rows[2] + at};                              \
            const float *const value_from[3] = {rows[0] + other, rows[1] + other, rows[2] + other};                    \
            const float *const gate_bias = bias ? bias + c : 0, *const value_bias = bias ? bias + hidden + c : 0;      \
            vec gates[count], values[count];                                                                           \
            depthwise_tile(count, gate_from, stride, weight + c, 2 * hidden, gate_bias, gates);                        \
            UNROLL for (int i = 0; i < count; i++) gates[i] = gelu(gates[i]);                                          \
            depthwise_tile(count, value_from, stride, weight + hidden + c, 2 * hidden, value_bias, values);            \
            UNROLL for (int i = 0; i < count; i++) store_factors(out + (p + i) * hidden + c, gates[i] * values[i]);    \
        }
    DO(STRETCH)
    DO(1)
#undef DO
}

#endif
