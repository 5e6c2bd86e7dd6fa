// Vectors of bfloat16 in attention, in plain C++: for emulated tiles on processors without AVX-512 BF16.
#pragma once

#include <cmath>
#include <cstring>

#include "kernels.h"
#include "tiles.h"

namespace pocketbert {
namespace {

struct PlainBf16 {
    static std::uint16_t rounded(float x) {  // to nearest, ties to even
        std::uint32_t bits;
        std::memcpy(&bits, &x, sizeof bits);
        if (std::isnan(x)) return 0x7FC0;
        return static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
    }
    static void store_number(void* line, int i, float x) { copy_number(line, i, rounded(x)); }

    static void copy_number(void* line, int i, std::uint16_t bits) {
        std::memcpy(static_cast<std::uint8_t*>(line) + 2 * i, &bits, sizeof bits);
    }

    static void store_pairs(const std::uint16_t* x, int left, void* out) {
        for (int i = 0; i < 2 * TILE; ++i) copy_number(out, i, i < left ? x[i] : std::uint16_t(0));
    }
    static void store_transposed(const std::uint16_t* x, std::ptrdiff_t stride, int rows, int left, std::uint8_t* out) {
        for (int i = 0; i < 2 * TILE; ++i)
            for (int row = 0; row < TILE; ++row)
                copy_number(out + i / 2 * TILE_BYTES, 2 * row + i % 2,
                            row < rows && i < left ? x[row * stride + i] : std::uint16_t(0));
    }
    static void store_two_rows(const std::uint16_t* x, std::ptrdiff_t stride, int rows, int left, std::uint8_t* first,
                               std::uint8_t* second) {
        for (int i = 0; i < 2 * TILE; ++i)
            for (int row = 0; row < 2; ++row)
                copy_number(i < TILE ? first : second, 2 * (i % TILE) + row,
                            row < rows && i < left ? x[row * stride + i] : std::uint16_t(0));
    }
    static float exponentials(const float* scores, std::ptrdiff_t score_step, int length, std::uint32_t* out,
                              std::ptrdiff_t step) {
        constexpr int GROUP = 2 * TILE;
        const auto score = [&](int i) {
            float value;  // sums of tiles are bytes to the compiler
            std::memcpy(&value, scores + i / GROUP * score_step + i % GROUP, sizeof value);
            return value;
        };
        float largest = score(0), sum = 0.0f;
        for (int i = 1; i < length; ++i) largest = std::max(largest, score(i));
        for (int i = 0; i < round_up(length, GROUP); ++i) {
            const float power = i < length ? std::exp(score(i) - largest) : 0.0f;
            sum += power;
            store_number(out + i / GROUP * step, i % GROUP, power);
        }
        return 1.0f / sum;
    }
    static void store_scaled(const float* x, float factor, int left, float* out) {
        for (int i = 0; i < std::min(left, 2 * TILE); ++i) {
            float value;
            std::memcpy(&value, x + i, sizeof value);
            out[i] = value * factor;
        }
    }
};

}  // namespace
}  // namespace pocketbert
