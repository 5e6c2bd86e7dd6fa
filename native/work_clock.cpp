#include "work_clock.h"

#include <algorithm>

#include "clocks.h"

namespace pocketbert {
namespace {

// To ask for a thread's processor time is a system call, and takes half a microsecond: not in every short loop.
constexpr std::int64_t BETWEEN_CHECKS = 200'000;

}  // namespace

std::int64_t WorkClock::lost_since_check(std::int64_t now) {
    const std::int64_t processor = processor_nanoseconds();
    const std::int64_t lost = now - checked_ - (processor - processor_);
    checked_ = now, processor_ = processor;
    return std::max(lost, std::int64_t(0));
}

void WorkClock::begin() {
    begun_ = wall_nanoseconds();
    // What was lost before the tasks delayed nobody.
    if (begun_ - checked_ > BETWEEN_CHECKS || thread_ != std::this_thread::get_id()) lost_since_check(begun_);
    thread_ = std::this_thread::get_id();
}

void WorkClock::end() {
    const std::int64_t now = wall_nanoseconds();
    worked_.fetch_add(now - begun_, std::memory_order_relaxed);
    if (now - checked_ > BETWEEN_CHECKS) lost_.fetch_add(lost_since_check(now), std::memory_order_relaxed);
}

}  // namespace pocketbert
