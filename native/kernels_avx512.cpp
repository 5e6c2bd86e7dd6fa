// AVX-512 with VNNI. A tile is up to 6 rows by a panel of 64 columns: 24 accumulators, which leaves 8 registers for the
// panel's four vectors and a broadcast.
#include <immintrin.h>

#include <algorithm>
#include <limits>

#include "kernels.h"
#include "rows.h"

namespace pocketbert {
namespace {

constexpr int ROWS = 6;
constexpr int LANES = 16;
constexpr int VECTORS = PANEL / LANES;

// GCC 12 moves every accumulator through memory around the intrinsic; as one instruction with a register operand it
// stays where it is, at 2.4 times the speed.
inline __attribute__((always_inline)) void dot(__m512i& sum, __m512i unsigned_bytes, __m512i signed_bytes) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(unsigned_bytes), "v"(signed_bytes));
}

#define INLINE inline __attribute__((always_inline))

// The least and the largest of two are the second where one of them is not a number: so is x kept here and below.

// e^x to 1 ulp or so: 2^n times a polynomial on [-ln2/2, ln2/2].
INLINE __m512 exp16(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-87.3f), _mm512_min_ps(_mm512_set1_ps(88.0f), x));
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(1.3981999507e-3f), r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(p, n);
}

INLINE __m512 divide(__m512 a, __m512 b) {  // a / b by a reciprocal and one Newton step
    __m512 y = _mm512_rcp14_ps(b);
    y = _mm512_mul_ps(y, _mm512_fnmadd_ps(b, y, _mm512_set1_ps(2.0f)));
    return _mm512_mul_ps(a, y);
}

// x Φ(x), Φ the normal distribution: to 2e-6. Φ(x) - 1/2 is odd, so x times a polynomial in x², here fitted on [0, 5] in
// the variable 2 x² / 25 - 1, in which the coefficients fall off and none of the sums cancels; beyond 5, Φ is constant.
INLINE __m512 gelu16(__m512 x) {
    constexpr float TERMS[] = {4.929692950e-4f, -1.514154137e-3f, 2.001860877e-3f, -2.915672259e-3f, 6.165429950e-3f,
                               -1.097323280e-2f, 1.649765670e-2f, -2.333673090e-2f, 3.142622858e-2f, -4.043294862e-2f,
                               5.152142048e-2f, -7.029665262e-2f, 1.413637847e-1f};
    const __m512 five = _mm512_set1_ps(5.0f);
    const __m512 a = _mm512_min_ps(five, _mm512_max_ps(_mm512_sub_ps(_mm512_setzero_ps(), five), x));
    const __m512 t = _mm512_fmsub_ps(_mm512_mul_ps(a, a), _mm512_set1_ps(0.08f), _mm512_set1_ps(1.0f));
    __m512 p = _mm512_set1_ps(TERMS[0]);
#pragma GCC unroll 12
    for (int i = 1; i < 13; ++i) p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(TERMS[i]));
    return _mm512_mul_ps(x, _mm512_fmadd_ps(a, p, _mm512_set1_ps(0.5f)));
}

INLINE __m512 sigmoid16(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f);
    return divide(one, _mm512_add_ps(one, exp16(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

INLINE __m512 tanh16(__m512 x) {
    const __m512 s = sigmoid16(_mm512_add_ps(x, x));
    return _mm512_sub_ps(_mm512_add_ps(s, s), _mm512_set1_ps(1.0f));
}

INLINE __m512 activate(__m512 x, Activation activation) {
    const __m512 half_x = _mm512_mul_ps(x, _mm512_set1_ps(0.5f));
    switch (activation) {
        case Activation::gelu: return gelu16(x);
        case Activation::gelu_tanh: {
            const __m512 cube = _mm512_mul_ps(_mm512_mul_ps(x, x), x);
            const __m512 inner = _mm512_fmadd_ps(cube, _mm512_set1_ps(0.044715f), x);
            return _mm512_fmadd_ps(half_x, tanh16(_mm512_mul_ps(inner, _mm512_set1_ps(0.79788456f))), half_x);
        }
        case Activation::relu: return _mm512_max_ps(_mm512_setzero_ps(), x);
        case Activation::relu6: return _mm512_min_ps(_mm512_set1_ps(6.0f), _mm512_max_ps(_mm512_setzero_ps(), x));
        case Activation::silu: return _mm512_mul_ps(x, sigmoid16(x));
        case Activation::tanh: return tanh16(x);
        case Activation::none: break;
    }
    return x;
}

INLINE __mmask16 lanes(int columns, int vector) {
    const int left = columns - vector * LANES;
    return left >= LANES ? __mmask16(0xFFFF) : left <= 0 ? __mmask16(0) : __mmask16((1u << left) - 1);
}

// With a constant activation, and without a mask where the panel is full, this is a straight run of instructions.
template <Activation A, bool Full>
INLINE void finish_rows(const float (*products)[PANEL], int m, int row, int first, int columns, const Epilogue& e,
                        float* out, std::ptrdiff_t out_stride) {
    for (int r = 0; r < m; ++r)
        for (int v = 0; v * LANES < (Full ? PANEL : columns); ++v) {
            const __mmask16 mask = Full ? __mmask16(0xFFFF) : lanes(columns, v);
            const int column = first + v * LANES;
            __m512 y = _mm512_add_ps(_mm512_load_ps(products[r] + v * LANES), _mm512_loadu_ps(e.bias + (row + r) * e.bias_stride + column));
            y = activate(y, A);
            if (e.residual) {
                const __m512 x = _mm512_maskz_loadu_ps(mask, e.residual + (row + r) * e.residual_stride + column);
                y = e.residual_scale ? _mm512_fmadd_ps(x, _mm512_loadu_ps(e.residual_scale + column), y)
                                     : _mm512_add_ps(y, x);
            }
            _mm512_mask_storeu_ps(out + r * out_stride + v * LANES, mask, y);
        }
}

template <Activation A>
void finish_as(const float (*products)[PANEL], int m, int row, int first, int columns, const Epilogue& e, float* out,
               std::ptrdiff_t out_stride) {
    if (columns == PANEL) finish_rows<A, true>(products, m, row, first, columns, e, out, out_stride);
    else finish_rows<A, false>(products, m, row, first, columns, e, out, out_stride);
}

void finish(const float (*products)[PANEL], int m, int row, int first, int columns, const Epilogue& e, float* out,
            std::ptrdiff_t out_stride) {
    switch (e.activation) {
        case Activation::none: return finish_as<Activation::none>(products, m, row, first, columns, e, out, out_stride);
        case Activation::gelu: return finish_as<Activation::gelu>(products, m, row, first, columns, e, out, out_stride);
        case Activation::gelu_tanh:
            return finish_as<Activation::gelu_tanh>(products, m, row, first, columns, e, out, out_stride);
        case Activation::relu: return finish_as<Activation::relu>(products, m, row, first, columns, e, out, out_stride);
        case Activation::relu6: return finish_as<Activation::relu6>(products, m, row, first, columns, e, out, out_stride);
        case Activation::silu: return finish_as<Activation::silu>(products, m, row, first, columns, e, out, out_stride);
        case Activation::tanh: return finish_as<Activation::tanh>(products, m, row, first, columns, e, out, out_stride);
    }
}

// Every loop over an array of accumulators is unrolled, so that the array is 24 registers and never memory: with one
// loop left, the compiler keeps all of it on the stack. They are stored once, at the end, for the epilogue to loop over.

template <int M, int V>
void tile_f32(const float* x, std::ptrdiff_t x_stride, const float* panel, int k, int row, int first, int columns,
              const Epilogue& e, float* out, std::ptrdiff_t out_stride) {
    __m512 sums[M][V];
#pragma GCC unroll 6
    for (int r = 0; r < M; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sums[r][v] = _mm512_setzero_ps();
    for (int i = 0; i < k; ++i, panel += PANEL) {
        __m512 w[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) w[v] = _mm512_loadu_ps(panel + v * LANES);
#pragma GCC unroll 6
        for (int r = 0; r < M; ++r) {
            const __m512 a = _mm512_set1_ps(x[r * x_stride + i]);
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) sums[r][v] = _mm512_fmadd_ps(a, w[v], sums[r][v]);
        }
    }
    alignas(64) float products[M][PANEL];
#pragma GCC unroll 6
    for (int r = 0; r < M; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) _mm512_store_ps(products[r] + v * LANES, sums[r][v]);
    finish(products, M, row, first, columns, e, out, out_stride);
}

template <int M>
void tile_s8(const std::int8_t* q, std::ptrdiff_t stride, const float* scales, const std::int32_t* sums_of_q,
             const std::uint8_t* panel, const float* weight_scales, int quads, int row, int first, int columns,
             const Epilogue& e, float* out, std::ptrdiff_t out_stride) {
    __m512i sums[M][VECTORS];
#pragma GCC unroll 6
    for (int r = 0; r < M; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) sums[r][v] = _mm512_set1_epi32(-128 * sums_of_q[r]);
    for (int i = 0; i < quads; ++i, panel += PANEL * 4) {
        __m512i w[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) w[v] = _mm512_loadu_si512(panel + v * 64);
#pragma GCC unroll 6
        for (int r = 0; r < M; ++r) {
            std::int32_t four;
            __builtin_memcpy(&four, q + r * stride + i * 4, 4);
            const __m512i a = _mm512_set1_epi32(four);
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) dot(sums[r][v], w[v], a);
        }
    }
    alignas(64) float products[M][PANEL];
#pragma GCC unroll 6
    for (int r = 0; r < M; ++r) {
        const __m512 scale = _mm512_set1_ps(scales[r]);
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) {
            const __m512 by = _mm512_mul_ps(scale, _mm512_loadu_ps(weight_scales + first + v * LANES));
            _mm512_store_ps(products[r] + v * LANES, _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][v]), by));
        }
    }
    finish(products, M, row, first, columns, e, out, out_stride);
}

template <int M>
struct Rows {  // the tile for M rows, found by recursion over the possible numbers
    template <int V, class... Args>
    static void f32(int m, Args&&... args) {
        if (m >= M) tile_f32<M, V>(args...);
        else if constexpr (M > 1) Rows<M - 1>::template f32<V>(m, args...);
    }
    template <class... Args>
    static void s8(int m, Args&&... args) {
        if (m >= M) tile_s8<M>(args...);
        else if constexpr (M > 1) Rows<M - 1>::s8(m, args...);
    }
};

template <int V>
void panel_f32(const float* x, std::ptrdiff_t x_stride, int m, const float* packed, int first, int columns, int k,
               const Epilogue& epilogue, float* out, std::ptrdiff_t out_stride) {
    for (int row = 0; row < m; row += ROWS)
        Rows<ROWS>::f32<V>(m - row, x + row * x_stride, x_stride, packed, k, row, first, columns, epilogue,
                           out + row * out_stride + first, out_stride);
}

void linear_f32(const float* x, std::ptrdiff_t x_stride, int m, const float* packed, int n, int k,
                const Epilogue& epilogue, float* out, std::ptrdiff_t out_stride) {
    for (int first = 0; first < n; first += PANEL, packed += std::ptrdiff_t(k) * PANEL) {
        const int columns = std::min(PANEL, n - first);
        const auto panel = columns > 3 * LANES ? panel_f32<4> : columns > 2 * LANES ? panel_f32<3>
                         : columns > LANES     ? panel_f32<2>
                                               : panel_f32<1>;  // a head of 32 needs no 64 columns
        panel(x, x_stride, m, packed, first, columns, k, epilogue, out, out_stride);
    }
}

void linear_s8(const std::int8_t* q, const float* scales, const std::int32_t* sums, int m, const std::uint8_t* packed,
               const float* weight_scales, int n, int k, const Epilogue& epilogue, float* out,
               std::ptrdiff_t out_stride) {
    const int padded = round_up(k, 4);
    for (int first = 0; first < n; first += PANEL, packed += std::ptrdiff_t(padded) * PANEL)
        for (int row = 0; row < m; row += ROWS)
            Rows<ROWS>::s8(m - row, q + std::ptrdiff_t(row) * padded, std::ptrdiff_t(padded), scales + row, sums + row,
                           packed, weight_scales, padded / 4, row, first, std::min(PANEL, n - first), epilogue,
                           out + row * out_stride + first, out_stride);
}

void quantize(const float* x, int k, std::int8_t* q, float* scale, std::int32_t* sum) {
    const int whole = k / LANES * LANES;
    // The largest as whole numbers, among which infinity comes after all floats, and NaN after infinity.
    const auto magnitude = [](__m512 y) { return _mm512_castps_si512(_mm512_abs_ps(y)); };
    __m512i largest = magnitude(_mm512_maskz_loadu_ps(lanes(k - whole, 0), x + whole));
    for (int i = 0; i < whole; i += LANES) largest = _mm512_max_epi32(largest, magnitude(_mm512_loadu_ps(x + i)));
    const std::int32_t bits = _mm512_reduce_max_epi32(largest);
    float most;
    __builtin_memcpy(&most, &bits, sizeof most);
    if (!(most <= std::numeric_limits<float>::max())) {
        std::fill_n(q, round_up(k, 4), std::int8_t(0));
        *scale = std::numeric_limits<float>::quiet_NaN();
        *sum = 0;
        return;
    }
    const __m512 inverse = _mm512_set1_ps(most > TINY ? 127.0f / most : 0.0f);
    *scale = most / 127.0f;
    __m512i total = _mm512_setzero_si512();
    for (int i = 0; i < whole; i += LANES) {
        const __m512i n = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), inverse));
        total = _mm512_add_epi32(total, n);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(q + i), _mm512_cvtepi32_epi8(n));
    }
    if (const int rest = round_up(k, 4) - whole) {
        const __m512i n = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(lanes(k - whole, 0), x + whole), inverse));
        total = _mm512_add_epi32(total, n);
        _mm_mask_storeu_epi8(q + whole, lanes(rest, 0), _mm512_cvtepi32_epi8(n));
    }
    *sum = _mm512_reduce_add_epi32(total);
}

// As in rows.h.
int find_outliers_16(const float* x, int k, int most, std::int32_t* which) {
    const auto magnitude = [&](int i) {
        return _mm512_castps_si512(_mm512_abs_ps(_mm512_maskz_loadu_ps(lanes(k - i, 0), x + i)));
    };
    __m512i largest = _mm512_setzero_si512();
    for (int i = 0; i < k; i += LANES) largest = _mm512_max_epi32(largest, magnitude(i));
    const std::int32_t top = _mm512_reduce_max_epi32(largest);
    float lowest;
    __builtin_memcpy(&lowest, &top, sizeof lowest);
    if (!(lowest > TINY && lowest <= std::numeric_limits<float>::max())) return 0;
    __m512i limit = largest;
    bool any = false;
    for (int j = 0; j < 40; ++j) {
        const __m512i half = _mm512_castps_si512(_mm512_set1_ps(lowest *= 0.5f));
        int count = 0;
        for (int i = 0; i < k && count <= most; i += LANES)
            count += __builtin_popcount(_mm512_cmpgt_epi32_mask(magnitude(i), half));
        if (count > most) break;
        limit = half;
        any = true;
    }
    int count = 0;
    const __m512i ascending = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    for (int i = 0; any && i < k; i += LANES)
        if (const __mmask16 above = _mm512_cmpgt_epi32_mask(magnitude(i), limit)) {
            _mm512_mask_compressstoreu_epi32(which + count, above, _mm512_add_epi32(ascending, _mm512_set1_epi32(i)));
            count += __builtin_popcount(above);
        }
    return count;
}

void layer_norm(const float* x, int k, const float* weight, const float* bias, float eps, float* out) {
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < k; i += LANES) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(lanes(k - i, 0), x + i));
    const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / static_cast<float>(k));
    __m512 squares = _mm512_setzero_ps();
    for (int i = 0; i < k; i += LANES) {
        const __mmask16 mask = lanes(k - i, 0);
        const __m512 d = _mm512_maskz_sub_ps(mask, _mm512_maskz_loadu_ps(mask, x + i), mean);
        squares = _mm512_fmadd_ps(d, d, squares);
    }
    const __m512 inverse =
        _mm512_set1_ps(1.0f / __builtin_sqrtf(_mm512_reduce_add_ps(squares) / static_cast<float>(k) + eps));
    for (int i = 0; i < k; i += LANES) {
        const __mmask16 mask = lanes(k - i, 0);
        const __m512 d = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), mean), inverse);
        const __m512 y = _mm512_fmadd_ps(d, _mm512_maskz_loadu_ps(mask, weight + i), _mm512_maskz_loadu_ps(mask, bias + i));
        _mm512_mask_storeu_ps(out + i, mask, y);
    }
}

void softmax(float* x, int k) {
    const __m512 lowest = _mm512_set1_ps(-3.0e38f);
    __m512 largest = lowest;
    for (int i = 0; i < k; i += LANES)
        largest = _mm512_max_ps(largest, _mm512_mask_loadu_ps(lowest, lanes(k - i, 0), x + i));
    const __m512 most = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < k; i += LANES) {
        const __mmask16 mask = lanes(k - i, 0);
        const __m512 y = _mm512_maskz_mov_ps(mask, exp16(_mm512_sub_ps(_mm512_maskz_loadu_ps(mask, x + i), most)));
        _mm512_mask_storeu_ps(x + i, mask, y);
        sum = _mm512_add_ps(sum, y);
    }
    const __m512 inverse = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(sum));
    for (int i = 0; i < k; i += LANES) {
        const __mmask16 mask = lanes(k - i, 0);
        _mm512_mask_storeu_ps(x + i, mask, _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), inverse));
    }
}

}  // namespace

const Kernels avx512vnni_kernels = {"avx512vnni", linear_f32, linear_s8, quantize, add_s8, find_outliers_16, add_outliers, layer_norm, softmax, nullptr};

}  // namespace pocketbert
