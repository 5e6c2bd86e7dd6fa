// Operations on single rows in plain loops, which every set of kernels compiles for its own instruction set.
#pragma once

#include <algorithm>
#include <limits>

#include "kernels.h"

namespace pocketbert {
namespace {

// out += x · scale.
inline void add_s8(const std::int8_t* x, float scale, int k, float* out) {
    for (int i = 0; i < k; ++i) out[i] += static_cast<float>(x[i]) * scale;
}

// The outliers of a row, which an int8 step with outlier weights multiplies in fp32: the features above max |x| / 2^j, for
// the largest j up to 40 that leaves at most `max_count` of them. Writes their indices, ascending; returns their number.
inline int find_outliers(const float* x, int k, int max_count, std::int32_t* indices) {
    // As whole numbers, magnitudes have the same order, infinity after all floats and NaN after infinity; and the
    // compiler turns the loops into vectors.
    const auto magnitude = [](float value) {
        std::int32_t bits;
        __builtin_memcpy(&bits, &value, sizeof bits);
        return bits & 0x7FFFFFFF;
    };
    std::int32_t largest = 0;
    for (int i = 0; i < k; ++i) largest = std::max(largest, magnitude(x[i]));
    float lowest;
    __builtin_memcpy(&lowest, &largest, sizeof lowest);
    if (!(lowest > TINY && lowest <= std::numeric_limits<float>::max())) return 0;
    std::int32_t limit = largest;
    for (int j = 0; j < 40; ++j) {
        const std::int32_t half = magnitude(lowest *= 0.5f);
        int count = 0;
        for (int i = 0; i < k; ++i) count += magnitude(x[i]) > half;
        if (count > max_count) break;
        limit = half;
    }
    if (limit == largest) return 0;
    int count = 0;
    for (int i = 0; i < k && count < max_count; ++i)
        if (magnitude(x[i]) > limit) indices[count++] = i;
    return count;
}

// out = bias + sum over `indices` of x[i] * w[:, i], for n columns filled up to whole panels, from weights packed in fp32.
inline void add_outliers(const float* x, const std::int32_t* indices, int count, const float* packed, const float* bias,
                         int n, int k, float* out) {
    for (int first = 0; first < n; first += PANEL, packed += std::ptrdiff_t(k) * PANEL) {
        float sums[PANEL];
        for (int j = 0; j < PANEL; ++j) sums[j] = bias[first + j];
        for (int i = 0; i < count; ++i) {
            const float* column = packed + std::ptrdiff_t(indices[i]) * PANEL;
            for (int j = 0; j < PANEL; ++j) sums[j] += x[indices[i]] * column[j];
        }
        for (int j = 0; j < PANEL; ++j) out[first + j] = sums[j];
    }
}

}  // namespace
}  // namespace pocketbert
