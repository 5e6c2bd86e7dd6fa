#include "clocks.h"

#include <chrono>
#include <ctime>

namespace pocketbert {

std::int64_t wall_nanoseconds() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

std::int64_t processor_nanoseconds() {
#if defined(CLOCK_THREAD_CPUTIME_ID) && !defined(_WIN32)  // where it advances by 16 milliseconds
    timespec time;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) == 0)
        return std::int64_t(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
#endif
    return wall_nanoseconds();
}

}  // namespace pocketbert
