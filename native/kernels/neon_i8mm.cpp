// NEON with products of matrices of bytes, of which most processors since ARMv8.6 have also those of bfloat16.
#include "neon_i8mm.h"

constexpr pocketbert::Kernels pocketbert::neoni8mm_kernels = I8mm::table("neoni8mm");
