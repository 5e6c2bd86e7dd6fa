#include "pool.h"

#include <system_error>

namespace pocketbert {
namespace {

constexpr int SPINS = 4000;              // some tens of microseconds
constexpr int SPINS_AWAKE = 50 * SPINS;  // some milliseconds, should a neighbour have taken the other processor

inline void pause() {
#if defined(__x86_64__) || defined(_M_X64)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

Pool::Pool(int threads) {
    workers_.reserve(static_cast<std::size_t>(threads));
    try {
        for (int thread = 1; thread < threads; ++thread) workers_.emplace_back([this, thread] { work(thread); });
    } catch (const std::system_error&) {  // no more are to be had
    }
}

Pool::~Pool() {
    {
        const std::lock_guard<std::mutex> lock(sleep_);
        stop_ = true;
        ++loop_;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

void Pool::run(int tasks, const std::function<void(int, int)>& body) {
    if (tasks <= 0) return;
    const std::lock_guard<std::mutex> turn(turn_);
    if (workers_.empty() || tasks == 1) {
        for (int task = 0; task < tasks; ++task) body(task, 0);
        return;
    }
    body_ = &body;
    tasks_ = tasks;
    next_ = 0;
    busy_ = static_cast<int>(workers_.size());
    {
        const std::lock_guard<std::mutex> lock(sleep_);  // so that no worker misses it between looking and sleeping
        ++loop_;
    }
    wake_.notify_all();
    take(0);
    while (busy_.load(std::memory_order_acquire) != 0) pause();
}

void Pool::take(int thread) {
    for (int task = next_++; task < tasks_; task = next_++) (*body_)(task, thread);
}

void Pool::work(int thread) {
    unsigned seen = 0;
    for (;;) {
        for (int spins = 0; loop_.load(std::memory_order_acquire) == seen; ++spins) {
            if (spins < SPINS || (spins < SPINS_AWAKE && awake_.load(std::memory_order_relaxed) != 0)) {
                pause();
                continue;
            }
            std::unique_lock<std::mutex> lock(sleep_);
            wake_.wait(lock, [&] { return loop_.load() != seen; });
        }
        ++seen;
        if (stop_) return;
        take(thread);
        busy_.fetch_sub(1, std::memory_order_release);
    }
}

}  // namespace pocketbert
