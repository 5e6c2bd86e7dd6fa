#include "kernels.h"

#include <algorithm>

#ifdef POCKETBERT_AVXVNNI
#include <cpuid.h>
#endif
#if defined(POCKETBERT_NEON) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace pocketbert {

namespace {

#ifdef POCKETBERT_X86
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

#ifdef POCKETBERT_AVXVNNI
bool has_avxvnni() {  // not every compiler's __builtin_cpu_supports knows its name
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}
#endif

#ifdef POCKETBERT_NEON
bool has_dot_product() {
#ifdef __linux__
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#else
    return true;  // every arm64 processor of Apple's has it
#endif
}
#endif

}  // namespace

std::vector<const Kernels*> available_kernels() {
    std::vector<const Kernels*> found;
#ifdef POCKETBERT_X86
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                            __builtin_cpu_supports("avx512vnni");
    if (has_avx512 && __builtin_cpu_supports("avx512bf16")) found.push_back(avx512bf16_kernels());
    if (has_avx512) found.push_back(&avx512vnni_kernels);
#ifdef POCKETBERT_AVXVNNI
    if (has_avx2 && has_avxvnni()) found.push_back(&avxvnni_kernels);
#endif
    if (has_avx2) found.push_back(&avx2_kernels);
#endif
#ifdef POCKETBERT_NEON
    if (has_dot_product()) found.push_back(&neon_kernels);
#endif
    found.push_back(&portable_kernels);
    return found;
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
