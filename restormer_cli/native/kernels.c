/* The two passes of a transformer block over a rectangle of a feature map, in float32, row by row.

   Maps are (height, width, channels), row-major. A pass goes down the rows of its rectangle and keeps three rows of the
   widened channels, so that nothing wide ever leaves the processor's cache:

     gather   norm, 1x1 product to q, k, v, depth-wise 3x3; v is stored, q and k go into the sums     (MDTA, section 3.1)
     apply    x + M v, norm, 1x1 product, depth-wise 3x3, GELU and gate, 1x1 product, in place         (GDFN, section 3.2)

   Norms' weights and biases have been multiplied into the products that follow them (engine/native/blocks.py), which also
   lays out the weights. */

#include "rows.h"

/* What Python asks first: how weights are to be laid out. */
EXPORT int lanes(void) { return LANES; }

/* Whether bf16 is multiplied by one instruction. */
EXPORT int has_pairs(void) {
#if defined(BF16) && defined(__AVX512BF16__)
    return 1;
#else
    return 0;
#endif
}

/* `count` matrices of weights in the order of `products`; an output or input is so many numbers on from the one before.
   What fills the last panel, and a last input's lane, is zeros. */
EXPORT void lay_panels(const float *weight, i64 count, i64 step, i64 outputs, i64 output_step, i64 inputs, i64 input_step,
                       factor *to) {
    for (; count > 0; count--, weight += step)
        for (i64 first = 0, lanes; first < outputs; first += lanes) {
            lanes = outputs - first >= PANEL ? PANEL : LANES;
            for (i64 k = 0; k < inputs; k += TERMS)
                for (i64 i = first; i < first + lanes; i++)
                    for (i64 term = k; term < k + TERMS; term++) {
                        const int there = i < outputs && term < inputs;
                        *to++ = there ? factor_of(weight[i * output_step + term * input_step]) : 0;
                    }
        }
}

/* sums[i][j] += sum over pixels of q[pixel][i] k[pixel][j], for `tile` rows i and `vectors` vectors of j. */
INLINE void outer_tile(const int tile, const int vectors, const float *q, const float *k, i64 stride, i64 pixels,
                       double *sums, i64 width, i64 rows, i64 columns) {
    vec part[TILE][VECTORS];
    UNROLL for (int i = 0; i < tile; i++) UNROLL for (int j = 0; j < vectors; j++) part[i][j] = (vec){0};
    for (i64 p = 0; p < pixels; p++) {
        vec row[VECTORS];
        UNROLL for (int j = 0; j < vectors; j++) row[j] = load(k + p * stride + j * LANES);
        UNROLL for (int i = 0; i < tile; i++) {
            const vec value = all(q[p * stride + i]);
            UNROLL for (int j = 0; j < vectors; j++) part[i][j] += value * row[j];
        }
    }
    for (int i = 0; i < least(tile, rows); i++)
        for (int j = 0; j < vectors; j++)
            for (i64 c = 0; c < least(LANES, columns - j * LANES); c++)
                sums[i * width + j * LANES + c] += part[i][j][c];
}

/* ---- a block ---- */

typedef struct {
    i64 height, width, channels, heads, hidden; /* hidden: of gate or value by itself, a multiple of LANES */
    i64 inner;                                  /* of those, how many are not padding */
    i64 centred1, centred2;                     /* whether a norm subtracts the mean */
    i64 cell_rows, cell_columns;                /* of TLC's cells; 1 and 1 without */
    const i64 *row_borders, *column_borders;    /* where the cells begin, and the end */
    float *x, *v;                                   /* v: NULL where it is computed again in the second pass */
    const factor *qkv, *v_only, *mix, *widen, *narrow; /* panels; mix: of every cell's M, one after the other */
    const float *qkv_bias, *v_only_bias, *mix_bias, *widen_bias, *narrow_bias;
    const float *qkv_taps, *qkv_taps_bias, *v_taps, *v_taps_bias, *widen_taps, *widen_taps_bias; /* (9, channels) */
} Block;

typedef struct {
    i64 top, bottom, left, right; /* its rows and columns */
    float *halo;                      /* what lay around it before the second pass: see save_halo */
    i64 cell_top, cell_left, cells_across; /* of the cells that it touches: the first, and how many in a row */
    double *qk, *qq, *kk; /* their sums: (cells, heads, d, d), (cells, channels) twice */
    float *scratch;
} Piece;

static i64 halo_reach(const Block *b) { return b->v ? 1 : 2; }

/* Where the halo keeps the pixel (row, column) of the map, which lies outside of the piece. Above and below are rows of
   the piece's width and the reach on both sides; then come the columns to the left and to the right. */
static float *halo_at(const Block *b, const Piece *p, i64 row, i64 column) {
    const i64 reach = halo_reach(b), height = p->bottom - p->top, width = p->right - p->left + 2 * reach;
    const i64 x = column - p->left + reach, y = row - p->top + reach;
    i64 pixel;
    if (y < reach) pixel = y * width + x;
    else if (y >= reach + height) pixel = (y - height) * width + x;
    else if (x < reach) pixel = 2 * reach * width + (y - reach) * reach + x;
    else pixel = 2 * reach * width + (height + y - reach) * reach + (x - (width - reach));
    return p->halo + pixel * b->channels;
}

/* Keep the pixels around the piece, before anything changes them. */
EXPORT void save_halo(const Block *b, const Piece *p) {
    const i64 reach = halo_reach(b), c = b->channels;
    const i64 left = most(p->left - reach, 0), right = least(p->right + reach, b->width);
    for (i64 y = most(p->top - reach, 0); y < least(p->bottom + reach, b->height); y++) {
        const float *row = b->x + y * b->width * c;
        if (y < p->top || y >= p->bottom) {
            memcpy(halo_at(b, p, y, left), row + left * c, (right - left) * c * sizeof(float));
            continue;
        }
        if (left < p->left) memcpy(halo_at(b, p, y, left), row + left * c, (p->left - left) * c * sizeof(float));
        if (p->right < right)
            memcpy(halo_at(b, p, y, p->right), row + p->right * c, (right - p->right) * c * sizeof(float));
    }
}

/* Pixels [left, right) of a row of x as they were before the second pass. */
static void read_row(const Block *b, const Piece *p, i64 row, i64 left, i64 right, float *out) {
    const i64 c = b->channels;
    const float *x = b->x + row * b->width * c;
    if (row < p->top || row >= p->bottom) {
        memcpy(out, halo_at(b, p, row, left), (right - left) * c * sizeof(float));
        return;
    }
    if (left < p->left) memcpy(out, halo_at(b, p, row, left), (p->left - left) * c * sizeof(float));
    const i64 from = most(left, p->left), to = least(right, p->right);
    memcpy(out + (from - left) * c, x + from * c, (to - from) * c * sizeof(float));
    if (right > p->right)
        memcpy(out + (p->right - left) * c, halo_at(b, p, row, p->right), (right - p->right) * c * sizeof(float));
}

/* Room for the rows of a piece, in floats; what is beyond a row may be read as part of a vector. */
typedef struct {
    float *wide[3], *convolved, *mixed[2], *recalled[3], *v, *x, *factors;
    factor *normed, *gated;
} Rows;

static i64 lay_out(const Block *b, const Piece *p, Rows *rows) {
    const i64 width = p->right - p->left + 4, c = whole(b->channels), spare = PANEL + LANES;
    const i64 three = whole(3 * b->channels), widest = most(three, 2 * b->hidden);
    float *at = p->scratch;
    i64 used = 0;
#define TAKE(name, floats) (rows->name = (void *)(at + used), used += whole((floats) + spare))
    TAKE(normed, factor_floats(width, c));
    TAKE(gated, factor_floats(width, b->hidden));
    TAKE(x, width * c);
    TAKE(v, width * c);
    for (int i = 0; i < 3; i++) TAKE(wide[i], width * widest);
    for (int i = 0; i < 3; i++) TAKE(recalled[i], b->v ? 0 : width * c);
    for (int i = 0; i < 2; i++) TAKE(mixed[i], width * c);
    TAKE(convolved, width * three);
    TAKE(factors, room_floats(width, c));
#undef TAKE
    return used;
}

EXPORT i64 scratch_floats(const Block *b, const Piece *p) {
    Rows rows;
    return lay_out(b, p, &rows);
}

/* A row of q and k into the sums of the cells that it crosses. */
static void add_to_sums(const Block *b, const Piece *p, const float *qkv, i64 stride, i64 row) {
    const i64 c = b->channels, d = c / b->heads;
    i64 cell_row = 0;
    while (b->row_borders[cell_row + 1] <= row) cell_row++;
    for (i64 column = 0; column < b->cell_columns; column++) {
        const i64 from = most(b->column_borders[column], p->left), to = least(b->column_borders[column + 1], p->right);
        if (from >= to) continue;
        const i64 cell = (cell_row - p->cell_top) * p->cells_across + column - p->cell_left;
        const float *q = qkv + (from - p->left) * stride, *k = q + c;
        for (i64 head = 0; head < b->heads; head++)
            for (i64 i = 0; i < d; i += TILE)
                for (i64 j = 0; j < d;) {
                    double *sums = p->qk + ((cell * b->heads + head) * d + i) * d + j;
                    const float *left = q + head * d + i, *right = k + head * d + j;
                    if (d - j > LANES) {
                        outer_tile(TILE, VECTORS, left, right, stride, to - from, sums, d, d - i, d - j);
                        j += PANEL;
                    } else {
                        outer_tile(TILE, 1, left, right, stride, to - from, sums, d, d - i, d - j);
                        j += LANES;
                    }
                }
        for (i64 i = 0; i < c; i += LANES) {
            vec qq = {0}, kk = {0};
            for (i64 x = 0; x < to - from; x++) {
                const vec a = load(q + x * stride + i), e = load(k + x * stride + i);
                qq += a * a;
                kk += e * e;
            }
            for (i64 l = 0; l < least(LANES, c - i); l++) {
                p->qq[cell * c + i + l] += qq[l];
                p->kk[cell * c + i + l] += kk[l];
            }
        }
    }
}

/* The first pass: v, and the sums of q and k, which must be zeros before. Returns nothing; x is only read. */
EXPORT void gather(const Block *b, const Piece *p) {
    Rows rows;
    lay_out(b, p, &rows);
    const i64 c = b->channels, three = 3 * c, stride = whole(three), width = p->right - p->left;
    const int apart = 2 * c % PANEL == 0; /* v is whole vectors: what is not kept need not be computed */
    const i64 left = most(p->left - 1, 0), right = least(p->right + 1, b->width);
    for (int i = 0; i < 3; i++) memset(rows.wide[i], 0, (width + 2) * stride * sizeof(float));
    for (i64 row = p->top - 1; row <= p->bottom; row++) {
        float *wide = rows.wide[(row + 3) % 3];
        if (row < 0 || row >= b->height) {
            memset(wide, 0, (width + 2) * stride * sizeof(float));
        } else {
            normalise_to_factors(b->x + (row * b->width + left) * c, rows.normed, right - left, c, b->centred1);
            product_of_factors(rows.normed, paired(c), b->qkv, b->qkv_bias, 0, 0, wide + (left - p->left + 1) * stride,
                               stride, right - left, c, apart && !b->v ? 2 * c : three);
        }
        const i64 done = row - 1;
        if (done < p->top) continue;
        const float *const around[3] = {rows.wide[(done + 2) % 3], rows.wide[done % 3], wide};
        float *v = b->v ? b->v + (done * b->width + p->left) * c : 0;
        depthwise(around, stride, b->qkv_taps, b->qkv_taps_bias, rows.convolved, stride, width, apart ? 2 * c : stride);
        if (b->v && apart) {
            const float *const from[3] = {around[0] + 2 * c, around[1] + 2 * c, around[2] + 2 * c};
            depthwise(from, stride, b->qkv_taps + 2 * c, b->qkv_taps_bias ? b->qkv_taps_bias + 2 * c : 0, v, c, width, c);
        } else if (b->v) {
            for (i64 x = 0; x < width; x++) memcpy(v + x * c, rows.convolved + x * stride + 2 * c, c * sizeof(float));
        }
        add_to_sums(b, p, rows.convolved, stride, done);
    }
}

/* v of a row once more, columns [left, right), where it was not kept: from x as it was. */
static const float *recall(const Block *b, const Piece *p, Rows *rows, i64 row, i64 left, i64 right) {
    const i64 c = b->channels, stride = whole(c), outer = p->left - 2;
    const i64 from = most(outer, 0), to = least(p->right + 2, b->width);
    for (i64 next = row == most(p->top - 1, 0) ? row - 1 : row + 1; next <= row + 1; next++) {
        float *wide = rows->recalled[(next + 3) % 3];
        memset(wide, 0, (p->right - p->left + 4) * stride * sizeof(float));
        if (next < 0 || next >= b->height) continue;
        read_row(b, p, next, from, to, rows->x);
        normalise_to_factors(rows->x, rows->normed, to - from, c, b->centred1);
        product_of_factors(rows->normed, paired(c), b->v_only, b->v_only_bias, 0, 0, wide + (from - outer) * stride,
                           stride, to - from, c, c);
    }
    const i64 shift = (left - 1 - outer) * stride;
    const float *const around[3] = {rows->recalled[(row + 2) % 3] + shift, rows->recalled[row % 3] + shift,
                                    rows->recalled[(row + 1) % 3] + shift};
    depthwise(around, stride, b->v_taps, b->v_taps_bias, rows->v, stride, right - left, stride);
    return rows->v;
}

/* The second pass: x becomes x + M v, then that plus its feed-forward network. */
EXPORT void apply(const Block *b, const Piece *p) {
    Rows rows;
    lay_out(b, p, &rows);
    const i64 c = b->channels, stride = 2 * b->hidden, width = p->right - p->left;
    const i64 left = most(p->left - 1, 0), right = least(p->right + 1, b->width), inner = p->left - left;
    const i64 cell_size = panels_size(c, c);
    i64 cell_row = 0;
    for (int i = 0; i < 3; i++) memset(rows.wide[i], 0, (width + 2) * stride * sizeof(float));
    for (i64 row = p->top - 1; row <= p->bottom; row++) {
        float *wide = rows.wide[(row + 3) % 3], *mixed = rows.mixed[row & 1];
        if (row < 0 || row >= b->height) {
            memset(wide, 0, (width + 2) * stride * sizeof(float));
        } else {
            i64 v_stride = c;
            const float *v;
            if (b->v) v = b->v + (row * b->width + left) * c;
            else v = recall(b, p, &rows, row, left, right), v_stride = whole(c);
            read_row(b, p, row, left, right, rows.x);
            while (b->row_borders[cell_row + 1] <= row) cell_row++;
            for (i64 column = 0; column < b->cell_columns; column++) {
                const i64 from = most(b->column_borders[column], left), to = least(b->column_borders[column + 1], right);
                if (from >= to) continue;
                const i64 at = from - left, cell = cell_row * b->cell_columns + column;
                product(v + at * v_stride, v_stride, b->mix + cell * cell_size, b->mix_bias, rows.x + at * c, c,
                        mixed + at * c, c, to - from, c, c, rows.factors);
            }
            normalise_to_factors(mixed, rows.normed, right - left, c, b->centred2);
            product_of_factors(rows.normed, paired(c), b->widen, b->widen_bias, 0, 0,
                               wide + (left - p->left + 1) * stride, stride, right - left, c, stride);
        }
        const i64 done = row - 1;
        if (done < p->top) continue;
        const float *const around[3] = {rows.wide[(done + 2) % 3], rows.wide[done % 3], wide};
        depthwise_gate(around, stride, b->widen_taps, b->widen_taps_bias, rows.gated, width, b->hidden);
        product_of_factors(rows.gated, b->hidden, b->narrow, b->narrow_bias, rows.mixed[done & 1] + inner * c, c,
                           b->x + (done * b->width + p->left) * c, c, width, b->inner, c);
    }
}

/* ---- the dense 3x3 convolutions between the levels ---- */

enum { PLAIN, DOWN, UP, UP_REDUCED };

typedef struct {
    i64 height, width, inputs, outputs, kind; /* of x; outputs: of the result, for UP in one of its pixels */
    const float *x, *beside;                  /* beside: the back half of the inputs, if it is a map of its own */
    const factor *weight;                     /* for UP four convolutions, of the pixels (0,0), (0,1), (1,0), (1,1) */
    const float *bias;
    float *out;
    i64 out_row, out_pixel;                   /* floats from one to the next */
    const float *addend;                      /* PLAIN: laid out as the result; NULL for none */
    const factor *reduce;
    const float *reduce_bias;                 /* UP_REDUCED: the product of what is in `out` before */
} Convolution;

typedef struct {
    factor *rows[3];
    float *result, *before, *factors;
} ConvRoom;

static i64 conv_layout(const Convolution *b, const Piece *p, ConvRoom *room) {
    const i64 width = p->right - p->left, spare = PANEL + LANES, n = 2 * width * b->outputs;
    i64 used = 0;
#define TAKE(name, type, floats) (room->name = (type *)(p->scratch + used), used += whole((floats) + spare))
    for (int i = 0; i < 3; i++) TAKE(rows[i], factor, factor_floats(width + 2, b->inputs));
    TAKE(result, float, n);
    TAKE(before, float, n);
    TAKE(factors, float, room_floats(2 * width, b->outputs));
#undef TAKE
    return used;
}

EXPORT i64 conv_scratch_floats(const Convolution *b, const Piece *p) {
    ConvRoom room;
    return conv_layout(b, p, &room);
}

/* Whether a convolution's weights are to be laid out as those of few outputs, not in panels. */
EXPORT int has_few(i64 kind, i64 outputs) { return kind == PLAIN && outputs <= FEW; }

/* A piece of x, and zeros beyond the map, -> its place in the result. For DOWN it begins and ends at even pixels. */
EXPORT void convolve(const Convolution *b, const Piece *p) {
    ConvRoom room;
    conv_layout(b, p, &room);
    const i64 c = paired(b->inputs), own = b->beside ? b->inputs / 2 : b->inputs, n = b->outputs;
    const i64 width = p->right - p->left;
    const i64 part = panels_size(n, 9 * c), left = most(p->left - 1, 0), right = least(p->right + 1, b->width);
    const i64 line_size = ((width + 2) * c + LANES * TERMS) * sizeof(factor); /* vectors may go beyond the last pixel */
    for (int i = 0; i < 3; i++) memset(room.rows[i], 0, line_size);
    for (i64 next = p->top - 1; next <= p->bottom; next++) {
        factor *line = room.rows[(next + 3) % 3];
        if (next < 0 || next >= b->height) {
            memset(line, 0, line_size);
        } else {
            const i64 from = (next * b->width + left) * own;
            factor *const to = line + (left - p->left + 1) * c;
            to_factors(b->x + from, own, right - left, own, to, c);
            if (b->beside) to_factors(b->beside + from, own, right - left, own, to + own, c);
        }
        const i64 row = next - 1;
        if (row < p->top) continue;
        const factor *const around[3] = {room.rows[(row + 2) % 3], room.rows[row % 3], line};
        if (b->kind == PLAIN) {
            const i64 at = row * b->out_row + p->left * b->out_pixel;
            const float *addend = b->addend ? b->addend + at : 0;
            if (n <= FEW) few3(around, b->weight, b->bias, addend, b->out_pixel, b->out + at, b->out_pixel, width, c, n);
            else product3(around, b->weight, b->bias, addend, b->out_pixel, b->out + at, b->out_pixel, width, c, n);
        } else if (b->kind == DOWN) { /* pixel-unshuffle: channel k of pixel (y, x) becomes channel 4k + 2 (y % 2) + x % 2 */
            product3(around, b->weight, b->bias, 0, 0, room.result, n, width, c, n);
            float *out = b->out + row / 2 * b->out_row + p->left / 2 * b->out_pixel + 2 * (row & 1);
            for (i64 x = 0; x < width; x += 2, out += b->out_pixel) {
                const float *const even = room.result + x * n, *const odd = even + n;
                for (i64 k = 0; k < n; k++) out[4 * k] = even[k], out[4 * k + 1] = odd[k];
            }
        } else { /* pixel-shuffle: four convolutions, one for each pixel that a pixel becomes */
            for (int y = 0; y < 2; y++) {
                float *out = b->out + (2 * row + y) * b->out_row + 2 * p->left * b->out_pixel;
                float *to = b->kind == UP ? out : room.result;
                const i64 step = b->kind == UP ? b->out_pixel : n;
                for (int x = 0; x < 2; x++)
                    product3(around, b->weight + (2 * y + x) * part, b->bias ? b->bias + (2 * y + x) * whole(n) : 0, 0, 0,
                             to + x * step, 2 * step, width, c, n);
                if (b->kind == UP) continue;
                if (TERMS == 1) memcpy(room.before, out, 2 * width * n * sizeof(float)); /* factors are copies */
                product(TERMS == 1 ? room.before : out, n, b->reduce, b->reduce_bias, room.result, n, out, n, 2 * width, n, n, room.factors);
            }
        }
    }
}
