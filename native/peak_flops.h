// The most operations per second that this machine can do: loops of nothing but multiply-adds in registers.
#pragma once

#include "kernels/kernels.h"
#include "pool.h"

namespace pocketbert {

// Operations per second of all threads of the pool together: from the median of many tasks, a twentieth of a second in
// all.
double operations_per_second(Pool& pool, const Kernels& kernels, PeakLoop loop);

}  // namespace pocketbert
