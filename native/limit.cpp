#include "limit.h"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace pocketbert {
namespace {

// Without a loop in assembly: what the compiler makes of the same. Sums that depend on their last value cannot be
// folded, so floats need no memory; bytes come from short arrays, one of which changes.
std::int64_t portable_f32(int rounds) {
    constexpr int SUMS = 64;
    volatile float unknown = 0.5f;
    const float a = unknown;
    float sums[SUMS];
    for (int i = 0; i < SUMS; ++i) sums[i] = static_cast<float>(i);
    for (int round = 0; round < rounds; ++round)
        for (int i = 0; i < SUMS; ++i) sums[i] = sums[i] * a + a;
    for (const float sum : sums) unknown = sum;
    return std::int64_t(2) * SUMS * rounds;
}

std::int64_t portable_s8(int rounds) {
    constexpr int BYTES = 1024;
    std::int8_t a[BYTES], b[BYTES];
    for (int i = 0; i < BYTES; ++i) a[i] = b[i] = static_cast<std::int8_t>(i);
    [[maybe_unused]] volatile std::int32_t seen = 0;
    for (int round = 0; round < rounds; ++round) {
        std::int32_t sum = 0;
        for (int i = 0; i < BYTES; ++i) sum += std::int32_t(a[i]) * std::int32_t(b[i]);
        a[round % BYTES] = static_cast<std::int8_t>(sum);
        seen = sum;
    }
    return std::int64_t(2) * BYTES * rounds;
}

template <class Body>
double seconds(const Body& body) {
    const auto start = std::chrono::steady_clock::now();
    body();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    return taken.count();
}

}  // namespace

Loop find_loop(const char* kernels, Arithmetic arithmetic) {
    const auto is = [&](const char* name) { return std::strcmp(kernels, name) == 0; };
    if (is("portable")) {
        if (arithmetic == Arithmetic::f32) return portable_f32;
        if (arithmetic == Arithmetic::s8) return portable_s8;
    }
#if defined(__x86_64__) && defined(__GNUC__)
    if (is("avx512vnni") && __builtin_cpu_supports("avx512f")) {
        if (arithmetic == Arithmetic::f32) return avx512_f32;
        if (arithmetic == Arithmetic::s8 && __builtin_cpu_supports("avx512vnni")) return avx512_s8;
        if (arithmetic == Arithmetic::bf16 && __builtin_cpu_supports("avx512bf16")) return avx512_bf16;
    }
    if (is("avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        if (arithmetic == Arithmetic::f32) return avx2_f32;
        if (arithmetic == Arithmetic::s8) return avx2_s8;
    }
#endif
#if defined(__aarch64__) && defined(__GNUC__)
    if (is("neon")) {
        if (arithmetic == Arithmetic::f32) return neon_f32;
        if (arithmetic == Arithmetic::s8) return neon_s8;
    }
#endif
    return nullptr;
}

double operations_a_second(Pool& pool, Loop loop) {
    int rounds = 1;
    const auto once = [&] { return seconds([&] { loop(rounds); }); };
    while (rounds < (1 << 28) && std::min({once(), once(), once()}) < 1e-3) rounds *= 2;
    const int tasks = 8 * pool.threads();  // so that a thread that comes late does less
    const double operations = static_cast<double>(tasks) * static_cast<double>(loop(1)) * rounds;
    double best = 0;
    for (int tries = 0; tries < 12; ++tries)
        best = std::max(best, operations / seconds([&] { pool.run(tasks, [&](int, int) { loop(rounds); }); }));
    return best;
}

}  // namespace pocketbert
