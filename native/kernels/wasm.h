// What SIMD128 of WebAssembly does, for simd_loops.h; avx2.h describes the names. Rounding adds a number from which on
// floats are whole: below 2^22 the sum is rounded to nearest, ties to even, and its bits hold the whole number.
#pragma once

#include <wasm_simd128.h>

#include "simd_loops.h"

namespace pocketbert {
namespace {

struct Wasm {
    // Vectors of their numbers, which + and * know, as v128_t are not.
    typedef float Floats __attribute__((vector_size(16)));
    using Ints = v128_t;
    using Bytes4 = v128_t;  // two 16-bit numbers of a row, in every lane
    static constexpr int LANES = 4, STRIP = 8;
    static constexpr int STEP = 2;
    static constexpr bool ROUNDS_LINES = false;
    static constexpr bool STORES_BF16 = false;
    static constexpr int ROWS_F32 = 4, ROWS_S8 = 4;  // 8 accumulators: engines need more registers than the loop

    static INLINE Floats set(float x) { return Floats{x, x, x, x}; }
    static INLINE Ints set_ints(std::int32_t x) { return wasm_i32x4_splat(x); }
    static INLINE Floats load(const float* p) { return Floats(wasm_v128_load(p)); }
    static INLINE Floats load_partial(const float* p, int left, Floats beyond) {
        for (int i = 0; i < left; ++i) beyond[i] = p[i];
        return beyond;
    }
    static INLINE void store(float* p, Floats x) { wasm_v128_store(p, v128_t(x)); }
    static INLINE void store_partial(float* p, Floats x, int left) {
        for (int i = 0; i < left; ++i) p[i] = x[i];
    }
    static INLINE Floats first(Floats x, int left) {
        return Floats(wasm_v128_and(v128_t(x), wasm_i32x4_lt(wasm_i32x4_const(0, 1, 2, 3), set_ints(left))));
    }

    static INLINE Floats fma(Floats a, Floats b, Floats c) { return a * b + c; }
    static INLINE Floats add_product(Floats sum, Floats a, Floats b) { return sum + a * b; }
    static INLINE Floats divide(Floats a, Floats b) { return a / b; }
    static INLINE Floats max(Floats limit, Floats x) { return Floats(wasm_f32x4_pmax(v128_t(x), v128_t(limit))); }
    static INLINE Floats min(Floats limit, Floats x) { return Floats(wasm_f32x4_pmin(v128_t(x), v128_t(limit))); }
    static INLINE Floats abs(Floats x) { return Floats(wasm_f32x4_abs(v128_t(x))); }
    static INLINE Floats with_sign_of(Floats x, Floats magnitude) {
        return Floats(wasm_v128_bitselect(v128_t(x), v128_t(magnitude), set_ints(INT32_MIN)));
    }
    static INLINE Floats round(Floats x) { return x + set(WHOLE) - set(WHOLE); }
    static INLINE Floats times_power_of_two(Floats x, Floats n) {  // the bits of WHOLE are shifted out
        return x * Floats(wasm_i32x4_shl(wasm_i32x4_add(v128_t(n + set(WHOLE)), set_ints(127)), 23));
    }
    static INLINE Floats gelu(Floats x) { return Math<Wasm>::gelu_by_polynomial(x); }
    static INLINE float sum(Floats x) { return (x[0] + x[2]) + (x[1] + x[3]); }
    static INLINE float largest(Floats x) {
        const Floats pairs = max(x, Floats(wasm_i32x4_shuffle(v128_t(x), v128_t(x), 2, 3, 0, 1)));
        return max(pairs, Floats(wasm_i32x4_shuffle(v128_t(pairs), v128_t(pairs), 1, 0, 3, 2)))[0];
    }

    static INLINE Ints magnitude(Floats x) { return v128_t(abs(x)); }
    static INLINE Ints larger(Ints a, Ints b) { return wasm_i32x4_max(a, b); }
    static INLINE Ints plus(Ints a, Ints b) { return wasm_i32x4_add(a, b); }
    static INLINE unsigned mask_of_larger(Ints a, Ints b) { return wasm_i32x4_bitmask(wasm_i32x4_gt(a, b)); }
    static INLINE Floats floats(Ints x) { return Floats(wasm_f32x4_convert_i32x4(x)); }
    static INLINE std::int32_t largest(Ints x) {
        const Ints pairs = larger(x, wasm_i32x4_shuffle(x, x, 2, 3, 0, 1));
        return wasm_i32x4_extract_lane(larger(pairs, wasm_i32x4_shuffle(pairs, pairs, 1, 0, 3, 2)), 0);
    }
    static INLINE std::int32_t sum(Ints x) {
        const Ints pairs = plus(x, wasm_i32x4_shuffle(x, x, 2, 3, 0, 1));
        return wasm_i32x4_extract_lane(plus(pairs, wasm_i32x4_shuffle(pairs, pairs, 1, 0, 3, 2)), 0);
    }

    static INLINE Ints rounded(Floats x) { return wasm_i32x4_sub(v128_t(x + set(WHOLE)), v128_t(set(WHOLE))); }

    // Products of bytes are those of 16-bit numbers, two at a time: [panel][k / 2][PANEL][2] signed bytes of weights, and
    // rows of 16-bit numbers.
    static constexpr const char* INT8_DOT = "i32x4.dot_i16x8_s";
    using Weights = v128_t;
    static INLINE Ints store_rounded(std::int8_t* q, Floats x, int left) {  // `left` is a multiple of 2
        const Ints n = rounded(x);
        const v128_t words = wasm_i16x8_narrow_i32x4(n, n);
        if (left >= LANES) wasm_v128_store64_lane(q, words, 0);
        else wasm_v128_store32_lane(q, words, 0);
        return n;
    }
    static INLINE Bytes4 load_bytes4(const std::int8_t* q) { return wasm_v128_load32_splat(q); }
    static INLINE Ints first_sums(std::int32_t) { return set_ints(0); }
    static INLINE Weights load_weights(const std::uint8_t* packed) { return wasm_i16x8_load8x8(packed); }
    static INLINE void dot(Ints& sums, Weights w, Bytes4 q) { sums = plus(sums, wasm_i32x4_dot_i16x8(w, q)); }
    // With the sum as a factor: an engine may compute a product of constants once for all.
    static INLINE void peak_dot(Ints& sums, Weights w, Bytes4) { dot(sums, w, sums); }

    static std::int64_t peak_f32(int rounds) {
        float factor = 0.5f;
        hide(factor);
        const Floats a = set(factor);
        return peak_loop(rounds, LANES, set(0.0f), [&](Floats& sum) { sum = fma(sum, a, a); });
    }

    static constexpr float WHOLE = 12582912.0f;  // 1.5 · 2^23
};

constexpr Kernels wasm_table(const char* name) {
    Kernels kernels = Loops<Wasm>::table(name);
    kernels.packed_s8_bytes = pair_panels_s8_bytes;
    kernels.pack_s8 = pack_pair_panels_s8;
    kernels.quantized_bytes = word_rows_bytes;
    kernels.peak_f32 = Wasm::peak_f32;
    return kernels;
}

}  // namespace
}  // namespace pocketbert
