// Functions of one vector, written once for all instruction sets. NaN stays NaN.
#pragma once

#include "kernels.h"

#define INLINE inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#define INLINE_LAMBDA __attribute__((always_inline))

namespace pocketbert {
namespace {

// `Simd` names the vector types of an instruction set and what its instructions do with them; see avx2.h.
template <class Simd>
struct Math {
    using Floats = typename Simd::Floats;

    static INLINE Floats set(float x) { return Simd::set(x); }

    // e^x to 1 ulp or so: 2^n times a polynomial on [-ln2/2, ln2/2].
    static INLINE Floats exp(Floats x) {
        x = Simd::max(set(-87.3f), Simd::min(set(88.0f), x));
        const Floats n = Simd::round(x * set(1.44269504f));
        Floats r = Simd::fma(n, set(-0.693359375f), x);
        r = Simd::fma(n, set(2.12194440e-4f), r);
        Floats p = Simd::fma(set(1.3981999507e-3f), r, set(8.3334519073e-3f));
        p = Simd::fma(p, r, set(4.1665795894e-2f));
        p = Simd::fma(p, r, set(1.6666665459e-1f));
        p = Simd::fma(p, r, set(5.0000001201e-1f));
        return Simd::times_power_of_two(Simd::fma(p * r, r, r + set(1.0f)), n);
    }

    // The error function to 1.5e-7 (Abramowitz and Stegun, 7.1.26).
    static INLINE Floats erf(Floats x) {
        const Floats a = Simd::abs(x), one = set(1.0f);
        const Floats t = Simd::divide(one, Simd::fma(a, set(0.3275911f), one));
        Floats p = Simd::fma(set(1.061405429f), t, set(-1.453152027f));
        p = Simd::fma(p, t, set(1.421413741f));
        p = Simd::fma(p, t, set(-0.284496736f));
        p = Simd::fma(p, t, set(0.254829592f));
        return Simd::with_sign_of(x, one - p * t * exp(set(0.0f) - a * a));
    }

    static INLINE Floats sigmoid(Floats x) { return Simd::divide(set(1.0f), set(1.0f) + exp(set(0.0f) - x)); }

    static INLINE Floats tanh(Floats x) {
        const Floats s = sigmoid(x + x);
        return s + s - set(1.0f);
    }

    // GELU, x Φ(x) with Φ the normal distribution, in two ways; an instruction set takes the one that is faster there.

    static INLINE Floats gelu_by_erf(Floats x) {
        const Floats half = x * set(0.5f);
        return Simd::fma(half, erf(x * set(0.70710678f)), half);
    }

    // To 2e-6. Φ(x) - 1/2 is odd, so x times a polynomial in x², here fitted on [0, 5] in the variable 2 x² / 25 - 1, in
    // which the coefficients fall off and none of the sums cancels; beyond 5, Φ is constant.
    static INLINE Floats gelu_by_polynomial(Floats x) {
        constexpr float TERMS[] = {4.929692950e-4f, -1.514154137e-3f, 2.001860877e-3f, -2.915672259e-3f,
                                   6.165429950e-3f, -1.097323280e-2f, 1.649765670e-2f, -2.333673090e-2f,
                                   3.142622858e-2f, -4.043294862e-2f, 5.152142048e-2f, -7.029665262e-2f,
                                   1.413637847e-1f};
        const Floats a = Simd::min(set(5.0f), Simd::max(set(-5.0f), x));
        const Floats t = Simd::fma(a * a, set(0.08f), set(-1.0f));
        Floats p = set(TERMS[0]);
#pragma GCC unroll 12
        for (int i = 1; i < 13; ++i) p = Simd::fma(p, t, set(TERMS[i]));
        return x * Simd::fma(a, p, set(0.5f));
    }

    // With few operations that only multipliers do: beside tile registers, a processor has one of them left.
    static INLINE Floats gelu_to_int8(Floats x) {
        const Floats half = x * set(0.5f), magnitude = Simd::abs(half);
        const Floats a = Simd::min(set(GELU_TO_INT8_LIMIT), magnitude), square = a * a;
        Floats p = set(GELU_TO_INT8_TERMS[0]);
#pragma GCC unroll 6
        for (int i = 1; i < 7; ++i) p = Simd::fma(p, square, set(GELU_TO_INT8_TERMS[i]));
        return Simd::fma(magnitude, a * p, half);
    }

    static INLINE Floats gelu_by_tanh(Floats x) {
        const Floats half = x * set(0.5f), inner = Simd::fma(x * x * x, set(0.044715f), x);
        return Simd::fma(half, tanh(inner * set(0.79788456f)), half);
    }
};

}  // namespace
}  // namespace pocketbert
