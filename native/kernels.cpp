#include "kernels.h"

#include <algorithm>
#include <cstring>

namespace pocketbert {

namespace {

#ifdef POCKETBERT_AVX512
const Kernels* avx512bf16_kernels() {
    static const Kernels kernels = [] {
        Kernels with_bf16 = avx512vnni_kernels;
        with_bf16.name = "avx512bf16";
        with_bf16.bf16_attention = &avx512_bf16_attention;
        return with_bf16;
    }();
    return &kernels;
}
#endif

}  // namespace

const Kernels* find_kernels(const char* name) {
    const auto asked = [name](const Kernels* kernels) { return name == nullptr || std::strcmp(name, kernels->name) == 0; };
#ifdef POCKETBERT_AVX512
    const bool has_vnni = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512vnni");
    if (has_vnni && __builtin_cpu_supports("avx512bf16") && asked(avx512bf16_kernels())) return avx512bf16_kernels();
    if (has_vnni && asked(&avx512vnni_kernels)) return &avx512vnni_kernels;
#endif
    return asked(&portable_kernels) ? &portable_kernels : nullptr;
}

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
