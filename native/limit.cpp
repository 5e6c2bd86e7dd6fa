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

Loop find_loop(const Kernels& kernels, Arithmetic arithmetic) {
    const bool f32 = arithmetic == Arithmetic::f32, s8 = arithmetic == Arithmetic::s8;
    [[maybe_unused]] const auto is = [&](const char* name) { return std::strcmp(kernels.name, name) == 0; };
#ifdef POCKETBERT_X86
    if (is("avx512bf16") && arithmetic == Arithmetic::bf16) return avx512_bf16;
    if (is("avx512bf16") || is("avx512vnni")) return f32 ? avx512_f32 : s8 ? avx512_s8 : nullptr;
#ifdef POCKETBERT_AVXVNNI
    if (is("avxvnni") && s8) return avxvnni_s8;
#endif
    if (is("avxvnni") || is("avx2")) return f32 ? avx2_f32 : s8 ? avx2_s8 : nullptr;
#endif
#ifdef POCKETBERT_NEON
    if (is("neon")) return f32 ? neon_f32 : s8 ? neon_s8 : nullptr;
#endif
    return f32 ? portable_f32 : s8 ? portable_s8 : nullptr;
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
