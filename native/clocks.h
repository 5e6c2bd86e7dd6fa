// The clocks that measure work.
#pragma once

#include <cstdint>

namespace pocketbert {

std::int64_t wall_nanoseconds();
// Of the calling thread; where the system counts it too coarsely, the wall time, as if nothing was ever lost.
std::int64_t processor_nanoseconds();

}  // namespace pocketbert
