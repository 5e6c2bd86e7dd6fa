// How much arithmetic this machine can do at most: loops of nothing but multiply-adds in registers, on all threads.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "pool.h"

namespace pocketbert {

enum class Arithmetic { f32, bf16, s8 };

// Runs `rounds` of multiply-adds and returns how many operations that were; a multiplication and an addition are two.
using Loop = std::int64_t (*)(int rounds);

// The loop of a set of kernels, or null where it has no instruction for such numbers.
Loop find_loop(const Kernels& kernels, Arithmetic arithmetic);

// Operations a second of all threads of the pool together: the best of several tries, a tenth of a second in all.
double operations_a_second(Pool& pool, Loop loop);

#ifdef POCKETBERT_X86
std::int64_t avx512_f32(int rounds);
std::int64_t avx512_bf16(int rounds);
std::int64_t avx512_s8(int rounds);
std::int64_t avxvnni_s8(int rounds);
std::int64_t avx2_f32(int rounds);
std::int64_t avx2_s8(int rounds);
#endif
#ifdef POCKETBERT_NEON
std::int64_t neon_f32(int rounds);
std::int64_t neon_s8(int rounds);
#endif

}  // namespace pocketbert
