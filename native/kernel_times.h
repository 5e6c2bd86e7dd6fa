// Where a pass spends its time: kernels that also measure themselves.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/kernels.h"

namespace pocketbert {

// The same functions as `kernels`, each of which adds its time to a sum of its own. There is one set per process: the next
// call changes what all earlier results run. Only one thread may run them at a time.
const Kernels& timed(const Kernels& kernels);

// Seconds by function since the last call, less what measuring costs.
std::vector<std::pair<const char*, double>> take_kernel_times();

}  // namespace pocketbert
