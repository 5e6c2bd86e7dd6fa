#include <algorithm>

#include "kernels.h"

namespace pocketbert {

void pack_f32(const float* weight, std::ptrdiff_t stride_n, std::ptrdiff_t stride_k, int n, int k, float* packed) {
    for (int first = 0; first < n; first += PANEL) {
        const int columns = std::min(PANEL, n - first);
        if (columns < PANEL) std::fill_n(packed, std::ptrdiff_t(k) * PANEL, 0.0f);
        const float* from = weight + first * stride_n;
        // Whichever way the source is contiguous, it is read along that way.
        if (stride_n == 1)
            for (int i = 0; i < k; ++i) std::copy_n(from + i * stride_k, columns, packed + std::ptrdiff_t(i) * PANEL);
        else
            for (int j = 0; j < columns; ++j)
                for (int i = 0; i < k; ++i) packed[std::ptrdiff_t(i) * PANEL + j] = from[j * stride_n + i * stride_k];
        packed += std::ptrdiff_t(k) * PANEL;
    }
}

namespace {

std::size_t padded_size(int rows, int k, int step) {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(round_up(k, step));
}

// [panel][k / step][PANEL][step], with `offset` added; 0 beyond the end.
void pack_steps(const std::int8_t* weight, int n, int k, int step, int offset, std::uint8_t* packed) {
    for (int first = 0; first < n; first += PANEL)
        for (int from = 0; from < k; from += step)
            for (int j = 0; j < PANEL; ++j)
                for (int i = from; i < from + step; ++i) {
                    const bool inside = first + j < n && i < k;
                    *packed++ =
                        static_cast<std::uint8_t>((inside ? weight[std::ptrdiff_t(first + j) * k + i] : 0) + offset);
                }
}

}  // namespace

std::size_t panels_s8_bytes(int n, int k) { return padded_size(round_up(n, PANEL), k, 4); }
std::size_t dense_rows_bytes(int rows, int k) { return padded_size(rows, k, 4); }
void pack_panels_s8(const std::int8_t* weight, int n, int k, std::uint8_t* packed) {
    pack_steps(weight, n, k, 4, 128, packed);
}

std::size_t pair_panels_s8_bytes(int n, int k) { return padded_size(round_up(n, PANEL), k, 2); }
std::size_t word_rows_bytes(int rows, int k) { return 2 * padded_size(rows, k, 2); }
void pack_pair_panels_s8(const std::int8_t* weight, int n, int k, std::uint8_t* packed) {
    pack_steps(weight, n, k, 2, 0, packed);
}

}  // namespace pocketbert
