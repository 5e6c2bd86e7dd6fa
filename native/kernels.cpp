#include "kernels.h"

#include <algorithm>
#include <cstring>

namespace pocketbert {

const Kernels* find_kernels(const char* name) {
#ifdef POCKETBERT_AVX512
    const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                            __builtin_cpu_supports("avx512vnni");
    if (has_avx512 && (name == nullptr || std::strcmp(name, avx512vnni_kernels.name) == 0)) return &avx512vnni_kernels;
#endif
    if (name == nullptr || std::strcmp(name, portable_kernels.name) == 0) return &portable_kernels;
    return nullptr;
}

void pack_f32(const float* weight, std::ptrdiff_t stride_n, std::ptrdiff_t stride_k, int n, int k, float* packed) {
    for (int first = 0; first < n; first += PANEL) {
        const int columns = std::min(PANEL, n - first);
        for (int i = 0; i < k; ++i, packed += PANEL) {
            for (int j = 0; j < columns; ++j) packed[j] = weight[(first + j) * stride_n + i * stride_k];
            std::fill(packed + columns, packed + PANEL, 0.0f);
        }
    }
}

void pack_s8(const std::int8_t* weight, int n, int k, std::uint8_t* packed) {
    const int quads = round_up(k, 4) / 4;
    for (int first = 0; first < n; first += PANEL)
        for (int quad = 0; quad < quads; ++quad)
            for (int j = 0; j < PANEL; ++j)
                for (int i = quad * 4; i < quad * 4 + 4; ++i) {
                    const bool inside = first + j < n && i < k;
                    *packed++ = static_cast<std::uint8_t>(inside ? weight[std::ptrdiff_t(first + j) * k + i] + 128 : 128);
                }
}

}  // namespace pocketbert
