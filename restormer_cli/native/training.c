/* Half a block as training needs it, with its gradients, over a rectangle of a map, in float32, row by row.

   Every half is   norm -> 1x1 product -> depth-wise 3x3 -> tail,   and the tail is one of

     SUMS   the sums over pixels of q kᵀ, q², k²                        (MDTA, section 3.1, first pass)
     MIX    x + M v                                                     (MDTA, second pass)
     GATE   x + W (GELU(gate) times value)                              (GDFN, section 3.2)

   The backward pass is handed x alone: it computes the widened rows again, three at a time, so that nothing wide is ever
   kept. Of the widened channels there are one or two parts of `hidden` each, padded to whole vectors. */

#include "rows.h"

enum { SUMS, MIX, GATE };

typedef struct {
    i64 height, width, channels, kind, heads;
    i64 hidden, inner; /* channels of a part, and how many of them are not padding */
    i64 centred;       /* whether the norm subtracts the mean */
    const factor *first, *second;           /* panels (wide, channels), (channels, inner) */
    const factor *first_back, *second_back; /* panels (channels, wide), (hidden, channels) */
    const float *first_bias, *taps, *taps_bias, *second_bias, *taps_back; /* taps are (9, wide); back: from the last */
} Half;

/* A batch of maps, each cut into `down` by `across` parts, of which a thread takes every `step`th from `start` on. */
typedef struct {
    i64 pictures, down, across, start, step;
    const float *x, *dy; /* dy: NULL on the way forward */
    float *out;          /* y or, on the way back, dx; for SUMS forward NULL */
    /* Of each picture: SUMS back: d qk in panels (i from j) and (j from i), 2 d qq, 2 d kk; MIX: instead of the half's. */
    const factor *of_q, *of_k, *second_own, *second_back_own;
    const float *twice_qq, *twice_kk;
    /* Of the thread, added to: gradients (wide, channels), (wide), (9, wide), (wide), (inner, channels). */
    float *first, *first_bias, *taps, *taps_bias, *second;
    /* Of each part, added to: for SUMS forward qk, (heads, d, d), and Σ q², Σ k²; for MIX back as `second`. */
    float *own, *qq, *kk;
    float *scratch;
} Batch;

/* One of these parts: a rectangle of a map, with what is its own. */
typedef struct {
    i64 top, bottom, left, right;
    const float *x, *dy;
    float *out;
    const factor *of_q, *of_k, *second_own, *second_back_own;
    const float *twice_qq, *twice_kk;
    float *first, *first_bias, *taps, *taps_bias, *second, *qq, *kk;
    float *scratch;
} Part;

INLINE i64 parts(const Half *b) { return b->kind == MIX ? 1 : 2; }
INLINE i64 tall(i64 rows) { return (rows + TILE - 1) / TILE * TILE; }

/* How matrices of sums are laid out: (tall(rows), whole(columns)). */
EXPORT i64 tall_rows(i64 rows) { return tall(rows); }

typedef struct {
    float *normed[3], *wide[3], *back[3]; /* back: gradients of the depth-wise convolution's result */
    float *mean[3], *scale[3];
    float *pre, *act, *deep, *narrow, *addend, *dy, *factors, *others;
} Room;

static i64 lay_out(const Half *b, const Part *p, Room *room) {
    const i64 width = p->right - p->left + 4, c = whole(b->channels), wide = parts(b) * b->hidden;
    const i64 spare = PANEL + LANES + TILE;
    float *at = p->scratch;
    i64 used = 0;
#define TAKE(name, floats) (room->name = at + used, used += whole((floats) + spare))
    for (int i = 0; i < 3; i++) {
        TAKE(normed[i], width * c);
        TAKE(wide[i], width * wide);
        TAKE(back[i], p->dy || p->of_q ? width * wide : 0);
        TAKE(mean[i], width);
        TAKE(scale[i], width);
    }
    TAKE(pre, width * wide);
    TAKE(act, width * b->hidden);
    TAKE(deep, width * wide);
    TAKE(narrow, width * c);
    TAKE(addend, width * b->hidden);
    TAKE(dy, width * c);
    TAKE(factors, room_floats(width + 1, most(wide, c)));
    TAKE(others, room_floats(width + 1, c));
#undef TAKE
    return used;
}

static i64 part_count(const Batch *g) { return g->pictures * g->down * g->across; }

#define PICK(pointer, number, floats) ((pointer) ? (pointer) + (number) * (floats) : 0)

static Part part_of(const Half *b, const Batch *g, i64 member) {
    const i64 c = b->channels, d = c / b->heads, map = b->height * b->width * c;
    const i64 picture = member / (g->down * g->across), row = member / g->across % g->down, column = member % g->across;
    const i64 own = b->kind == MIX ? tall(b->inner) * whole(c) : b->heads * tall(d) * whole(d);
    return (Part){
        .top = row * b->height / g->down,
        .bottom = (row + 1) * b->height / g->down,
        .left = column * b->width / g->across,
        .right = (column + 1) * b->width / g->across,
        .x = g->x + picture * map,
        .dy = PICK(g->dy, picture, map),
        .out = PICK(g->out, picture, map),
        .of_q = PICK(g->of_q, picture, b->heads * panels_size(d, d)),
        .of_k = PICK(g->of_k, picture, b->heads * panels_size(d, d)),
        .twice_qq = PICK(g->twice_qq, picture, whole(c)),
        .twice_kk = PICK(g->twice_kk, picture, whole(c)),
        .second_own = PICK(g->second_own, picture, panels_size(c, b->inner)),
        .second_back_own = PICK(g->second_back_own, picture, panels_size(b->hidden, c)),
        .first = g->first,
        .first_bias = g->first_bias,
        .taps = g->taps,
        .taps_bias = g->taps_bias,
        .second = g->own ? g->own + member * own : g->second,
        .qq = PICK(g->qq, member, b->hidden),
        .kk = PICK(g->kk, member, b->hidden),
        .scratch = g->scratch,
    };
}

/* Floats that a thread needs beside, for parts of any width. */
EXPORT i64 half_scratch_floats(const Half *b, const Batch *g) {
    Room room;
    Part widest = part_of(b, g, 0);
    widest.left = 0, widest.right = (b->width + g->across - 1) / g->across;
    return lay_out(b, &widest, &room);
}

/* Rows of pixels as factors of sums over pixels, `*stride` from one lane's pixels to the next: as they are or, rounded,
   in `room`, (pairs of pixels, channels, 2), where the last pixel alone has zeros beside. */
static const factor *over_pixels(const float *rows, i64 *stride, i64 pixels, i64 channels, float *room) {
#if defined(BF16)
    for (i64 p = 0; p < pixels; p += 2) {
        const float *first = rows + p * *stride, *second = first + *stride;
        float *to = room + p / 2 * channels;
        for (i64 c = 0; c < channels; c += LANES)
            store(to + c, (vec)(rounded(load(first + c)) | (p + 1 < pixels ? rounded(load(second + c)) << 16 : (mask){0})));
    }
    *stride = 2 * channels;
    return (const factor *)room;
#else
    (void)stride, (void)pixels, (void)channels, (void)room;
    return rows;
#endif
}

/* sums[i][j] += sum over pixels of a[pixel][i] b[pixel][j], for TILE rows i and `vectors` vectors of j. */
INLINE void outer_tile(const int vectors, const factor *a, i64 a_stride, const factor *b, i64 b_stride, i64 pixels,
                       float *sums, i64 width) {
    vec part[TILE][VECTORS];
    UNROLL for (int i = 0; i < TILE; i++) UNROLL for (int j = 0; j < vectors; j++)
        part[i][j] = load(sums + i * width + j * LANES);
    for (i64 p = 0; p < pixels; p += TERMS, a += a_stride, b += b_stride) {
        factors row[VECTORS];
        UNROLL for (int j = 0; j < vectors; j++) row[j] = load_factors(b + j * LANES * TERMS);
        UNROLL for (int i = 0; i < TILE; i++) {
            const factors value = broadcast(a + i * TERMS);
            UNROLL for (int j = 0; j < vectors; j++) part[i][j] = add_products(part[i][j], value, row[j]);
        }
    }
    UNROLL for (int i = 0; i < TILE; i++) UNROLL for (int j = 0; j < vectors; j++)
        store(sums + i * width + j * LANES, part[i][j]);
}

/* The same of all m rows and n columns; sums are (tall(m), whole(n)), and what is beyond is anything. */
static void outer(const Room *room, const float *rows, i64 a_stride, i64 m, const float *columns, i64 b_stride, i64 n,
                  i64 pixels, float *sums) {
    const i64 width = whole(n);
    const factor *a = over_pixels(rows, &a_stride, pixels, m, room->factors);
    const factor *b = over_pixels(columns, &b_stride, pixels, n, room->others);
    for (i64 j = 0; j < width;) {
        const int vectors = width - j >= PANEL ? VECTORS : 1;
        for (i64 i = 0; i < m; i += TILE) {
            const factor *top = a + i * TERMS, *left = b + j * TERMS;
            if (vectors == VECTORS) outer_tile(VECTORS, top, a_stride, left, b_stride, pixels, sums + i * width + j, width);
            else outer_tile(1, top, a_stride, left, b_stride, pixels, sums + i * width + j, width);
        }
        j += vectors * LANES;
    }
}

/* sums[channel] += sum over pixels. */
static void add_rows(const float *rows, i64 stride, i64 pixels, i64 channels, float *sums) {
    for (i64 c = 0; c < channels; c += LANES) {
        vec sum = load(sums + c);
        for (i64 p = 0; p < pixels; p++) sum += load(rows + p * stride + c);
        store(sums + c, sum);
    }
}

static void add_squares(const float *rows, i64 stride, i64 pixels, i64 channels, float *sums) {
    for (i64 c = 0; c < channels; c += LANES) {
        vec sum = load(sums + c);
        for (i64 p = 0; p < pixels; p++) {
            const vec value = load(rows + p * stride + c);
            sum += value * value;
        }
        store(sums + c, sum);
    }
}

/* Gradients of the taps: of each, the sum over pixels of the result's gradient times the pixel that it multiplied. */
static void add_taps(const float *back, i64 stride, const float *const rows[3], i64 pixels, i64 channels, float *taps) {
    for (i64 c = 0; c < channels; c += LANES) {
        vec sums[9];
        UNROLL for (int t = 0; t < 9; t++) sums[t] = load(taps + t * channels + c);
        for (i64 p = 0; p < pixels; p++) {
            const vec by = load(back + p * stride + c);
            UNROLL for (int y = 0; y < 3; y++) UNROLL for (int t = 0; t < 3; t++)
                sums[3 * y + t] += by * load(rows[y] + (p + t) * stride + c);
        }
        UNROLL for (int t = 0; t < 9; t++) store(taps + t * channels + c, sums[t]);
    }
}

/* exp(x) for x <= 0: 2^n times a polynomial of what is left of x, within ln 2 / 2 of 0 (relative error 2e-7). */
INLINE vec exponential(vec x) {
    x = -smaller(-x, all(87.0f));
    const vec whole_part = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds to an integer in the last bits */
    const vec n = whole_part - 12582912.0f;
    const vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    vec p = r * 1.3888889e-3f + 8.3333333e-3f;
    p = p * r + 4.1666667e-2f;
    p = p * r + 1.6666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return (vec)((mask)p + ((mask)whole_part << 23));
}

/* GELU(gate) times value, and its gradients from that of the product. */
static void gate_back(const float *pre, const float *deep, i64 pixels, i64 hidden, float *back, float *act) {
    for (i64 p = 0; p < pixels; p++)
        for (i64 c = 0; c < hidden; c += LANES) {
            const vec gate = load(pre + p * 2 * hidden + c), value = load(pre + p * 2 * hidden + hidden + c);
            const vec size = magnitude(gate), by = load(deep + p * hidden + c), half = error_function(size) * 0.5f;
            const vec on = gate * 0.5f + size * half; /* GELU, and the normal distribution that is its gradient's: */
            const vec below = (vec)((mask)half | ((mask)gate & INT32_MIN)) + 0.5f;
            const vec density = 0.39894228f * exponential(gate * gate * -0.5f);
            store(act + p * hidden + c, on * value);
            store(back + p * 2 * hidden + c, by * value * (below + gate * density));
            store(back + p * 2 * hidden + hidden + c, by * on);
        }
}

/* Norm without weight and bias, and what its gradient needs. */
static void normalise_kept(const Half *b, const float *x, i64 pixels, float *out, float *mean, float *scale) {
    normalise_rows(x, out, 0, pixels, b->channels, b->centred, mean, scale);
}

/* dx (+)= of the norm, from the gradient of its result; dy is the residual's, or NULL. */
static void normalise_back(const Half *b, const float *normed, const float *back, const float *mean, const float *scale,
                           const float *dy, i64 pixels, float *out) {
    const i64 c = b->channels, full = c / LANES * LANES;
    for (i64 p = 0; p < pixels; p++, normed += c, back += c, out += c) {
        vec sum = {0}, along = {0};
        float rest = 0, more = 0;
        for (i64 k = 0; k < full; k += LANES) {
            sum += load(back + k);
            along += load(back + k) * load(normed + k);
        }
        for (i64 k = full; k < c; k++) rest += back[k], more += back[k] * normed[k];
        const float straight = b->centred ? (across(sum) + rest) / c : 0, share = (across(along) + more) / c;
        const float shift = b->centred ? 0 : mean[p] * scale[p], by = scale[p];
        for (i64 k = 0; k < full; k += LANES) {
            vec value = (load(back + k) - straight - (load(normed + k) - shift) * share) * by;
            if (dy) value += load(dy + p * c + k);
            store(out + k, value);
        }
        for (i64 k = full; k < c; k++)
            out[k] = (back[k] - straight - (normed[k] - shift) * share) * by + (dy ? dy[p * c + k] : 0);
    }
}

/* A part's result: y, or sums. */
static void part_forward(const Half *b, const Part *p) {
    Room room;
    lay_out(b, p, &room);
    const i64 c = b->channels, wide = parts(b) * b->hidden, width = p->right - p->left, d = c / b->heads;
    const i64 from = most(p->left - 1, 0), to = least(p->right + 1, b->width);
    for (int i = 0; i < 3; i++) memset(room.wide[i], 0, (width + 2) * wide * sizeof(float));
    for (i64 row = p->top - 1; row <= p->bottom; row++) {
        float *line = room.wide[(row + 3) % 3];
        if (row < 0 || row >= b->height) {
            memset(line, 0, (width + 2) * wide * sizeof(float));
        } else {
            normalise_to_factors(p->x + (row * b->width + from) * c, (factor *)room.normed[0], to - from, c, b->centred);
            product_of_factors((factor *)room.normed[0], paired(c), b->first, b->first_bias, 0, 0,
                               line + (from - p->left + 1) * wide, wide, to - from, c, wide);
        }
        const i64 done = row - 1, at = (done * b->width + p->left) * c;
        if (done < p->top) continue;
        const float *const around[3] = {room.wide[(done + 2) % 3], room.wide[done % 3], line};
        if (b->kind == GATE) {
            factor *const act = (factor *)room.act;
            depthwise_gate(around, wide, b->taps, b->taps_bias, act, width, b->hidden);
            product_of_factors(act, b->hidden, b->second, b->second_bias, p->x + at, c, p->out + at, c, width, b->inner, c);
            continue;
        }
        const float *const act = room.pre;
        depthwise(around, wide, b->taps, b->taps_bias, room.pre, wide, width, wide);
        if (b->kind == MIX) {
            product(act, b->hidden, p->second_own, b->second_bias, p->x + at, c, p->out + at, c, width, b->inner, c,
                    room.factors);
            continue;
        }
        for (i64 head = 0; head < b->heads; head++)
            outer(&room, act + head * d, wide, d, act + b->hidden + head * d, wide, d, width, p->second + head * tall(d) * whole(d));
        add_squares(act, wide, width, b->hidden, p->qq);
        add_squares(act + b->hidden, wide, width, b->hidden, p->kk);
    }
}

/* Gradients of the depth-wise convolution's result, of `pixels` pixels whose result is `pre`: to `back`; for MIX and GATE
   what the second product took goes to `act`. */
static void tail_back(const Half *b, const Part *p, const Room *room, const float *dy, i64 pixels, float *back) {
    const i64 c = b->channels, d = c / b->heads, hidden = b->hidden;
    if (b->kind == MIX) {
        product(dy, c, p->second_back_own, 0, 0, 0, back, hidden, pixels, c, hidden, room->factors);
    } else if (b->kind == GATE) {
        product(dy, c, b->second_back, 0, 0, 0, room->deep, hidden, pixels, c, hidden, room->factors);
        gate_back(room->pre, room->deep, pixels, hidden, back, room->act);
    } else {
        for (int part = 0; part < 2; part++) {
            const float *own = room->pre + part * hidden, *other = room->pre + (1 - part) * hidden;
            const float *twice = part ? p->twice_kk : p->twice_qq;
            const factor *panels = part ? p->of_k : p->of_q;
            for (i64 x = 0; x < pixels; x++)
                for (i64 k = 0; k < hidden; k += LANES) {
                    const vec value = load(own + x * 2 * hidden + k) * load(twice + k);
                    store(room->addend + x * hidden + k, value);
                    if (k + LANES > c) store(back + (2 * x + part) * hidden + k, (vec){0}); /* padding */
                }
            for (i64 head = 0; head < b->heads; head++)
                product(other + head * d, 2 * hidden, panels + head * panels_size(d, d), 0, room->addend + head * d, hidden,
                        back + part * hidden + head * d, 2 * hidden, pixels, d, d, room->factors);
        }
    }
}

/* dx of a part, and what it adds to the gradients. */
static void part_backward(const Half *b, const Part *p) {
    Room room;
    lay_out(b, p, &room);
    const i64 c = b->channels, wide = parts(b) * b->hidden, width = p->right - p->left;
    const i64 from = most(p->left - 2, 0), to = least(p->right + 2, b->width), outer_left = p->left - 2;
    const i64 near = most(p->left - 1, 0), far = least(p->right + 1, b->width);
    for (int i = 0; i < 3; i++) {
        memset(room.wide[i], 0, (width + 4) * wide * sizeof(float));
        memset(room.back[i], 0, (width + 2) * wide * sizeof(float));
    }
    for (i64 row = p->top - 2; row <= p->bottom + 1; row++) {
        const i64 slot = (row + 6) % 3;
        if (row < 0 || row >= b->height) {
            memset(room.wide[slot], 0, (width + 4) * wide * sizeof(float));
        } else {
            float *normed = room.normed[slot] + (from - outer_left) * c;
            normalise_kept(b, p->x + (row * b->width + from) * c, to - from, normed, room.mean[slot] + from - outer_left,
                           room.scale[slot] + from - outer_left);
            product(normed, c, b->first, b->first_bias, 0, 0, room.wide[slot] + (from - outer_left) * wide, wide, to - from,
                    c, wide, room.factors);
        }
        const i64 middle = row - 1, place = (middle + 6) % 3;
        if (middle < p->top - 1) continue;
        if (middle < 0 || middle >= b->height) {
            memset(room.back[place], 0, (width + 2) * wide * sizeof(float));
        } else {
            const i64 shift = (near - 1 - outer_left) * wide, own = p->left - near;
            const float *const around[3] = {room.wide[(middle + 5) % 3] + shift, room.wide[place] + shift,
                                            room.wide[slot] + shift};
            const float *dy = room.dy; /* a copy, since vectors may read beyond the last pixel */
            if (p->dy) memcpy(room.dy, p->dy + (middle * b->width + near) * c, (far - near) * c * sizeof(float));
            float *back = room.back[place] + (near - p->left + 1) * wide;
            depthwise(around, wide, b->taps, b->taps_bias, room.pre, wide, far - near, wide);
            tail_back(b, p, &room, dy, far - near, back);
            if (middle >= p->top && middle < p->bottom) {
                const float *const under[3] = {around[0] + own * wide, around[1] + own * wide, around[2] + own * wide};
                add_taps(back + own * wide, wide, under, width, wide, p->taps);
                add_rows(back + own * wide, wide, width, wide, p->taps_bias);
                if (b->kind != SUMS)
                    outer(&room, (b->kind == GATE ? room.act : room.pre) + own * b->hidden, b->hidden, b->inner, dy + own * c, c, c,
                          width, p->second);
            }
        }
        const i64 done = row - 2, last = (done + 6) % 3;
        if (done < p->top) continue;
        const float *const around[3] = {room.back[(done + 5) % 3], room.back[last], room.back[place]};
        const float *normed = room.normed[last] + 2 * c;
        const i64 at = (done * b->width + p->left) * c;
        depthwise(around, wide, b->taps_back, 0, room.deep, wide, width, wide);
        outer(&room, room.deep, wide, wide, normed, c, c, width, p->first);
        add_rows(room.deep, wide, width, wide, p->first_bias);
        product(room.deep, wide, b->first_back, 0, 0, 0, room.narrow, c, width, wide, c, room.factors);
        normalise_back(b, normed, room.narrow, room.mean[last] + 2, room.scale[last] + 2, p->dy ? p->dy + at : 0, width,
                       p->out + at);
    }
}

/* Results of a thread's parts: y, or sums. Those must be zeros before. */
EXPORT void half_forward(const Half *b, const Batch *g) {
    for (i64 member = g->start; member < part_count(g); member += g->step) {
        const Part part = part_of(b, g, member);
        part_forward(b, &part);
    }
}

/* dx of a thread's parts, and their gradients. Those must be zeros before. */
EXPORT void half_backward(const Half *b, const Batch *g) {
    for (i64 member = g->start; member < part_count(g); member += g->step) {
        const Part part = part_of(b, g, member);
        part_backward(b, &part);
    }
}
