// The time that a thread spends in tasks, and how much of it something else had its processor.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

namespace pocketbert {

class WorkClock {
public:
    void begin();  // by the thread that works, around its tasks of a loop
    void end();

    // Nanoseconds since the last call, which other threads may make.
    std::int64_t take_worked() { return worked_.exchange(0, std::memory_order_relaxed); }
    std::int64_t take_lost() { return lost_.exchange(0, std::memory_order_relaxed); }

private:
    std::int64_t lost_since_check(std::int64_t now);

    std::thread::id thread_;
    std::int64_t begun_ = 0, checked_ = 0,
                 processor_ = 0;  // the latter: the thread's processor time when it was checked
    std::atomic<std::int64_t> worked_{0}, lost_{0};
};

}  // namespace pocketbert
