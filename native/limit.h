// How much arithmetic this machine can do at most: loops of nothing but multiply-adds in registers, on all threads.
#pragma once

#include <cstdint>

#include "pool.h"

namespace pocketbert {

enum class Arithmetic { f32, bf16, s8 };

// Runs `rounds` of multiply-adds and returns how many operations that were; a multiplication and an addition are two.
using Loop = std::int64_t (*)(int rounds);

// The loop of a set of kernels, or null where it has none for such numbers or the processor lacks the instructions.
Loop find_loop(const char* kernels, Arithmetic arithmetic);

// Operations a second of all threads of the pool together: the best of several tries, a tenth of a second in all.
double operations_a_second(Pool& pool, Loop loop);

#if defined(__x86_64__) && defined(__GNUC__)
std::int64_t avx512_f32(int rounds);
std::int64_t avx512_bf16(int rounds);
std::int64_t avx512_s8(int rounds);
std::int64_t avx2_f32(int rounds);
std::int64_t avx2_s8(int rounds);
#endif
#if defined(__aarch64__) && defined(__GNUC__)
std::int64_t neon_f32(int rounds);
std::int64_t neon_s8(int rounds);
#endif

}  // namespace pocketbert
