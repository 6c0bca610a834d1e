/* The inner loops of simd.py: filter, add, rectify and average blocks of a waveform.
 *
 * A vector holds a sample of the outputs of 4, 8 or 16 filters, or pairs of them: up to
 * 32 filters share a transform, whose 512 KiB stay in a core's cache.
 *
 * A transform of 4096 points works in place, in two passes over a matrix of 64 × 64,
 * with a spare column, as a pitch of a power of two would use few sets of the cache.
 * The input is frequency 64·row + column, the output time row + 64·column. The forward
 * transform is the inverse one with real and imaginary parts swapped.
 */
#include <stdint.h>
#include <string.h>

#define N 4096
#define SIDE 64
#define PITCH (SIDE + 1)
#ifndef LANES
#define LANES 16 /* floats in a vector of the target processor */
#endif

#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef int8_t bytes __attribute__((vector_size(LANES)));
typedef struct { vec re, im; } cvec;
typedef struct { float re, im; } complex_t;

#define ROOT_HALF 0.70710678118654752440f

INLINE cvec add(cvec a, cvec b) { return (cvec){a.re + b.re, a.im + b.im}; }
INLINE cvec sub(cvec a, cvec b) { return (cvec){a.re - b.re, a.im - b.im}; }
INLINE cvec times_i(cvec a) { return (cvec){-a.im, a.re}; }
INLINE cvec times(cvec a, complex_t w)
{
    return (cvec){a.re * w.re - a.im * w.im, a.re * w.im + a.im * w.re};
}
INLINE vec rectify(vec a) { return (vec)((ivec)a & ~(a <= 0)); } /* NaN stays NaN */

/* Inverse transforms of 4 and 8 points. */
INLINE void dft4(cvec *a, cvec *b, cvec *c, cvec *d)
{
    cvec s = add(*a, *c), t = sub(*a, *c), u = add(*b, *d), v = times_i(sub(*b, *d));
    *a = add(s, u), *b = add(t, v), *c = sub(s, u), *d = sub(t, v);
}

INLINE void dft8(cvec x[8])
{
    cvec s0 = add(x[0], x[4]), s1 = add(x[1], x[5]);
    cvec s2 = add(x[2], x[6]), s3 = add(x[3], x[7]);
    cvec d0 = sub(x[0], x[4]), d1 = sub(x[1], x[5]);
    cvec d2 = times_i(sub(x[2], x[6])), d3 = sub(x[3], x[7]);
    d1 = (cvec){(d1.re - d1.im) * ROOT_HALF, (d1.re + d1.im) * ROOT_HALF};
    d3 = (cvec){(-d3.re - d3.im) * ROOT_HALF, (d3.re - d3.im) * ROOT_HALF};
    dft4(&s0, &s1, &s2, &s3);
    dft4(&d0, &d1, &d2, &d3);
    x[0] = s0, x[2] = s1, x[4] = s2, x[6] = s3;
    x[1] = d0, x[3] = d1, x[5] = d2, x[7] = d3;
}

/* 64 points, `stride` apart, in place; `roots` holds e^(2πi k / 4096). Multiplies
 * output m by root turn · m. */
INLINE void dft64(cvec *data, int stride, const complex_t *roots, int turn)
{
    cvec scratch[SIDE], x[8];
    for (int j = 0; j < 8; j++) {
        for (int i = 0; i < 8; i++) x[i] = data[(8 * i + j) * stride];
        dft8(x);
        for (int m = 0; m < 8; m++) scratch[8 * m + j] = times(x[m], roots[64 * m * j]);
    }
    for (int m = 0; m < 8; m++) {
        for (int j = 0; j < 8; j++) x[j] = scratch[8 * m + j];
        dft8(x);
        for (int k = 0; k < 8; k++)
            data[(m + 8 * k) * stride] =
                turn ? times(x[k], roots[turn * (m + 8 * k)]) : x[k];
    }
}

INLINE void inverse_transform(cvec *work, const complex_t *roots)
{
    for (int column = 0; column < SIDE; column++)
        dft64(work + column, PITCH, roots, column);
    for (int row = 0; row < SIDE; row++)
        dft64(work + row * PITCH, 1, roots, 0);
}

INLINE cvec *at_time(cvec *work, int t) { return work + t % SIDE * PITCH + t / SIDE; }

/* A block of outputs of a group of filters: the inverse transform of spectrum ×
 * responses (+ offsets), both in column-major order. */
INLINE void filter_block(const complex_t *spectrum, const cvec *responses,
                         const cvec *offsets, const complex_t *roots, cvec *work)
{
    for (int column = 0; column < SIDE; column++)
        for (int row = 0; row < SIDE; row++)
            work[row * PITCH + column] =
                times(responses[SIDE * column + row], spectrum[SIDE * column + row]);
    if (offsets) work[0] = add(work[0], *offsets);
    inverse_transform(work, roots);
}

/* Frame f of n_frames averages the outputs starts[f] … ends[f] − 1 of n_outputs. */
typedef struct {
    int32_t n_outputs, n_frames;
    const int32_t *starts, *ends;
} windows_t;

INLINE int first_frame(const windows_t *w, int t)
{
    int f = (int64_t)t * w->n_frames / w->n_outputs;
    while (f > 0 && w->ends[f - 1] > t) f--;
    return f;
}

/* Adds ReLU(y + level) at the block's times u … u_end − 1 to the sums of their frames;
 * time u of the block is output t of the clip. */
INLINE void pool(cvec *work, int u, int u_end, int t, cvec level, const windows_t *w,
                 cvec *sums)
{
    if (t < 0) u -= t, t = 0;
    if (t + u_end - u > w->n_outputs) u_end = u + w->n_outputs - t;
    if (u >= u_end) return;
    int to_u = u - t, t_end = u_end - to_u;
    for (int f = first_frame(w, t); f < w->n_frames && w->starts[f] < t_end; f++) {
        int from = w->starts[f] < t ? t : w->starts[f];
        int to = w->ends[f] > t_end ? t_end : w->ends[f];
        cvec even = {{0}, {0}}, odd = {{0}, {0}};
        for (; from + 1 < to; from += 2) {
            cvec y = add(*at_time(work, from + to_u), level);
            cvec z = add(*at_time(work, from + 1 + to_u), level);
            even.re += rectify(y.re), even.im += rectify(y.im);
            odd.re += rectify(z.re), odd.im += rectify(z.im);
        }
        if (from < to) {
            cvec y = add(*at_time(work, from + to_u), level);
            even.re += rectify(y.re), even.im += rectify(y.im);
        }
        sums[f] = add(sums[f], add(even, odd));
    }
}

/* Averages [n_filters, n_frames] from the sums, multiplied by a scale. */
INLINE void write_maps(const cvec *sums, float scale, const windows_t *w, int n_filters,
                       float *maps)
{
    for (int f = 0; f < w->n_frames; f++) {
        const float *sum = (const float *)(sums + f);
        float factor = scale / (w->ends[f] - w->starts[f]);
        for (int k = 0; k < n_filters; k++)
            maps[(int64_t)k * w->n_frames + f] = factor * sum[k];
    }
}

/* Maps of a clip for a group of filters and, unless `masks` is null, one bit per
 * activation, [block][time / 8][lane]. A block has `hop` outputs, a multiple of 8. */
void filter_and_pool(
    const complex_t *spectra, const cvec *responses, const cvec *offsets,
    const complex_t *roots, const windows_t *windows, int hop, int n_filters,
    cvec *work, cvec *sums, float *maps, bytes *masks)
{
    const cvec none = {{0}, {0}};
    memset(sums, 0, windows->n_frames * sizeof(cvec));
    for (int t = 0; t < windows->n_outputs; t += hop, spectra += N) {
        filter_block(spectra, responses, offsets, roots, work);
        pool(work, 0, hop, t, none, windows, sums);
        for (int u = 0; masks && u < hop; u += 8, masks += 2) {
            ivec re = {0}, im = {0};
            for (int bit = 0; bit < 8; bit++) {
                const cvec *y = at_time(work, u + bit);
                re |= (y->re > 0) & (1 << bit), im |= (y->im > 0) & (1 << bit);
            }
            masks[0] = __builtin_convertvector(re, bytes);
            masks[1] = __builtin_convertvector(im, bytes);
        }
    }
    write_maps(sums, 1, windows, n_filters, maps);
}

/* Transforms the masked gradient of each block of a clip, adds its product with
 * conj(spectrum) to `grads` [4096], column-major, and its sum to `grad_offsets`. */
void filter_and_pool_backward(
    const complex_t *spectra, const float *grad_maps, const bytes *masks,
    const complex_t *roots, const windows_t *windows, int hop, int n_filters,
    cvec *work, cvec *frame_grads, cvec *grads, cvec *grad_offsets)
{
    const int32_t *starts = windows->starts, *ends = windows->ends;
    const int n_frames = windows->n_frames;
    memset(frame_grads, 0, n_frames * sizeof(cvec));
    for (int f = 0; f < n_frames; f++)
        for (int k = 0; k < n_filters; k++)
            ((float *)(frame_grads + f))[k] =
                grad_maps[(int64_t)k * n_frames + f] / (ends[f] - starts[f]);
    for (int t = 0, first = 0, past = 0; t < windows->n_outputs; spectra += N) {
        memset(work, 0, SIDE * PITCH * sizeof(cvec));
        for (int u = 0; u < hop && t < windows->n_outputs; u++, t++) {
            while (ends[first] <= t) first++;
            while (past < n_frames && starts[past] <= t) past++;
            cvec grad = frame_grads[first];
            for (int f = first + 1; f < past; f++) grad = add(grad, frame_grads[f]);
            int bit = 1 << u % 8;
            ivec re = __builtin_convertvector(masks[u / 8 * 2], ivec) & bit;
            ivec im = __builtin_convertvector(masks[u / 8 * 2 + 1], ivec) & bit;
            /* Real and imaginary parts are swapped, for a forward transform. */
            work[u / SIDE * PITCH + u % SIDE] = (cvec){
                (vec)((ivec)grad.im & (im != 0)), (vec)((ivec)grad.re & (re != 0))};
        }
        masks += hop / 8 * 2;
        inverse_transform(work, roots);
        grad_offsets->re += work[0].im, grad_offsets->im += work[0].re;
        for (int row = 0; row < SIDE; row++)
            for (int column = 0; column < SIDE; column++) {
                cvec grad = work[row * PITCH + column];
                complex_t x = spectra[SIDE * row + column];
                cvec *sum = grads + SIDE * row + column;
                sum->re += x.re * grad.im + x.im * grad.re;
                sum->im += x.re * grad.re - x.im * grad.im;
            }
    }
}

/* The clips of a song: clip c consists of pieces c * hop … c * hop + span − 1. */
typedef struct {
    int32_t n_pieces, n_clips, span, hop;
    int32_t samples; /* in a piece */
    int32_t reach;   /* samples of a piece's output that fall into the next one */
    int32_t skip;    /* samples of a clip's output before the first that is pooled */
    const float *means, *clip_means, *clip_scales;
} song_t;

/* Output in the reach of a piece: its own, that of the piece before (`other`), if any,
 * and the step between their means. */
INLINE void add_reach(cvec *to, cvec *from, cvec *other, const cvec *fading,
                      float step, int reach)
{
    for (int u = 0; u < reach; u++) {
        cvec e = fading[u], y = *at_time(from, u);
        if (other) y = add(y, *at_time(other, u));
        *at_time(to, u) = (cvec){y.re + step * e.re, y.im + step * e.im};
    }
}

/* Maps of a song's clips for a group of filters: `total` holds the sums of their taps,
 * `fading` the output of a constant 1 after its end. A piece, without its mean and
 * delayed by the reach, is filtered once, and pooled while in cache for every clip that
 * contains it, with the clip's mean and scale. */
void filter_song(
    const complex_t *spectra, const cvec *responses, const cvec *offsets,
    const cvec *total, const cvec *fading, const complex_t *roots,
    const windows_t *windows, const song_t *song, int n_filters, int64_t floats_a_clip,
    cvec *buffers, cvec *sums, float *maps)
{
    const int n_active = (song->span + song->hop - 1) / song->hop, reach = song->reach;
    cvec *work = buffers, *edge = work + SIDE * PITCH;
    cvec *tail = edge + SIDE * PITCH, *next = tail + SIDE * PITCH;
    for (int p = 0; p < song->n_pieces; p++, spectra += N) {
        filter_block(spectra, responses, 0, roots, work);
        for (int u = 0; u < reach; u++)
            *at_time(next, u) = *at_time(work, song->samples + u);
        int newest = p / song->hop < song->n_clips ? p / song->hop : song->n_clips - 1;
        int oldest = p < song->span ? 0 : (p - song->span) / song->hop + 1;
        for (int c = newest; c >= oldest; c--) {
            int nth = p - c * song->hop, t = nth * song->samples - song->skip;
            float step = song->means[p] - song->clip_means[c];
            float inverse = 1 / song->clip_scales[c];
            cvec offset = {offsets->re * inverse, offsets->im * inverse};
            cvec level = {offset.re + step * total->re, offset.im + step * total->im};
            cvec *of_clip = sums + (int64_t)(c % n_active) * windows->n_frames;
            int from = 0;
            if (nth == 0) {
                memset(of_clip, 0, windows->n_frames * sizeof(cvec));
                add_reach(edge, work, 0, fading, -step, reach);
                pool(edge, 0, reach, t, level, windows, of_clip);
                from = reach;
            }
            /* The newest clip comes first: older ones include the piece before, too. */
            if (c == newest && p)
                add_reach(work, work, tail, fading, song->means[p - 1] - song->means[p],
                          reach);
            pool(work, from, song->samples, t + from, level, windows, of_clip);
            if (nth == song->span - 1) {
                add_reach(edge, next, 0, fading, step, reach);
                pool(edge, 0, reach, t + song->samples, offset, windows, of_clip);
                write_maps(of_clip, song->clip_scales[c], windows, n_filters,
                           maps + c * floats_a_clip);
            }
        }
        cvec *swap = tail;
        tail = next, next = swap;
    }
}
