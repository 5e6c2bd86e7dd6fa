// The most multiply-adds that an instruction can do: a loop of it in registers.
#pragma once

#include <cstdint>

#include "simd_math.h"

namespace pocketbert {
namespace {

template <class T>
INLINE void hide(T& value) {  // from the compiler, which could otherwise multiply it itself, or take two sums for one
    __asm__ volatile("" : "+m"(value));
}

#ifdef __aarch64__
#define VECTOR_REGISTER "w"
#elif defined(__wasm__)
#define VECTOR_REGISTER "r"
#else
#define VECTOR_REGISTER "x"
#endif

template <class Vector>
INLINE void hide_vector(Vector& value) {  // the same without memory: nothing that depends on it can leave its loop
    __asm__ volatile("" : "+" VECTOR_REGISTER(value));
}

// Twelve independent sums hide the latency of the instruction; `add` adds so many products to one of them. Returns the
// number of operations, a multiplication and an addition each.
template <class Vector, class Add>
INLINE std::int64_t peak_loop(int rounds, int products, Vector zeros, const Add& add) {
    constexpr int SUMS = 12, STEPS = 2 * SUMS;
    Vector sums[SUMS];
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; ++i) {
        Vector first = zeros;
        hide(first);
        sums[i] = first;
    }
    for (int round = 0; round < rounds; ++round)
#pragma GCC unroll 24
        for (int i = 0; i < STEPS; ++i) add(sums[i % SUMS]);
#pragma GCC unroll 12
    for (int i = 0; i < SUMS; ++i) {
        const Vector sum = sums[i];
        __asm__ volatile("" : : "m"(sum));  // the compiler may not drop what nobody reads
    }
    return std::int64_t(2) * products * STEPS * rounds;
}

}  // namespace
}  // namespace pocketbert
