#include "pool.h"

#ifdef _WIN32
#include <process.h>
#else
#include <unistd.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

#include <chrono>
#include <system_error>
#include <utility>

#include "clocks.h"

namespace pocketbert {
namespace {

// How long to spin before sleeping: about what it costs to be woken. Whoever spins for longer uses up its share of a
// processor that others want as well, and is the first to lose it. Workers spin for longer between the loops of a run.
constexpr auto SPIN = std::chrono::microseconds(60);
constexpr auto SPIN_BETWEEN_LOOPS = std::chrono::microseconds(240);

inline void pause() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__) && !defined(_MSC_VER)
    asm volatile("yield");
#endif
}

// Spins until `done()`, or for as long as `patience()` says; returns whether it is done. By the clock, for a pause takes
// ten times as long on some processors as on others.
template <class Done, class Patience>
bool spin(const Done& done, const Patience& patience) {
    const auto start = std::chrono::steady_clock::now();
    do {
        for (int i = 0; i < 32; ++i) {
            if (done()) return true;
            pause();
        }
    } while (std::chrono::steady_clock::now() - start < patience());
    return done();
}

constexpr std::uint64_t LOOP = std::uint64_t(1) << 32;  // of `open_`: one loop on

inline std::uint32_t loop_number(std::uint64_t open) { return static_cast<std::uint32_t>(open >> 32); }
inline std::uint32_t tasks_left(std::uint64_t open) { return static_cast<std::uint32_t>(open); }

}  // namespace

int process_id() {
#ifdef _WIN32
    return _getpid();
#else
    return getpid();
#endif
}

Pool::Pool(int threads) : clocks_(static_cast<std::size_t>(threads)), limit_(threads), on_duty_(threads) {
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
    }
    opened_.notify_all();
    recalled_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

void Pool::run(int tasks, const std::function<void(int, int)>& body) {
    if (tasks <= 0) return;
    const std::lock_guard<std::mutex> turn(turn_);
    if (workers_.empty() || tasks == 1) {
        for (int task = 0; task < tasks; ++task) body(task, 0);
        return;
    }
    const std::int64_t start = wall_nanoseconds();
    if (limit_.threads() > 1) {
        run_with_workers(tasks, body);
    } else {
        clocks_[0].begin();
        for (int task = 0; task < tasks; ++task) body(task, 0);
        clocks_[0].end();
    }
    record(wall_nanoseconds() - start);
}

void Pool::run_with_workers(int tasks, const std::function<void(int, int)>& body) {
    body_ = &body;
    tasks_ = tasks;
    unfinished_.store(tasks, std::memory_order_relaxed);  // seen by whoever sees the loop opened
    open_ = (open_.load(std::memory_order_relaxed) / LOOP + 1) * LOOP + static_cast<std::uint32_t>(tasks);
    if (sleeping_workers_ != 0) {
        { const std::lock_guard<std::mutex> lock(sleep_); }  // whoever is about to sleep does so first, and is woken
        opened_.notify_all();
    }
    take_tasks(0);
    wait_for_tasks();
}

void Pool::record(std::int64_t wall) {
    std::int64_t worked = 0, lost = 0;
    for (Clock& clock : clocks_) worked += clock.take_worked(), lost += clock.take_lost();
    constexpr double SECOND = 1e-9;
    const auto seconds = [](std::int64_t nanoseconds) { return SECOND * static_cast<double>(nanoseconds); };
    limit_.record({seconds(wall), seconds(worked - lost), seconds(lost)}, seconds(wall_nanoseconds()));
    if (limit_.threads() == on_duty_.load(std::memory_order_relaxed)) return;
    {
        const std::lock_guard<std::mutex> lock(sleep_);
        on_duty_ = limit_.threads();
    }
    recalled_.notify_all();
}

void Pool::take_tasks(int thread) {
    WorkClock& clock = clocks_[static_cast<std::size_t>(thread)];
    bool working = false;
    std::uint64_t open = open_.load(std::memory_order_acquire);
    while (tasks_left(open) != 0) {
        if (!open_.compare_exchange_weak(open, open - 1, std::memory_order_acquire)) continue;
        if (!std::exchange(working, true)) clock.begin();
        // Until this task is done its loop cannot end, so that `body_` and `tasks_` are of this loop.
        (*body_)(tasks_ - static_cast<int>(tasks_left(open)), thread);
        open = open_.load(std::memory_order_acquire);
        // The clock before the end of the loop, which the caller must not measure without this thread.
        if (tasks_left(open) == 0 && std::exchange(working, false)) clock.end();
        if (--unfinished_ == 0 && caller_sleeps_) {
            { const std::lock_guard<std::mutex> lock(sleep_); }
            finished_.notify_one();
        }
        open = open_.load(std::memory_order_acquire);
    }
    if (working) clock.end();
}

void Pool::wait_for_tasks() {
    const auto done = [&] { return unfinished_.load(std::memory_order_acquire) == 0; };
    if (spin(done, [] { return SPIN; })) return;
    std::unique_lock<std::mutex> lock(sleep_);
    caller_sleeps_ = true;
    finished_.wait(lock, [&] { return unfinished_ == 0; });
    caller_sleeps_ = false;
}

void Pool::work(int thread) {
    std::uint32_t seen = 0;
    const auto is_off_duty = [&] { return thread >= on_duty_.load(std::memory_order_relaxed); };
    const auto news = [&] {
        return stop_ || is_off_duty() || loop_number(open_.load(std::memory_order_acquire)) != seen;
    };
    const auto patience = [&] { return active_.load(std::memory_order_relaxed) != 0 ? SPIN_BETWEEN_LOOPS : SPIN; };
    for (;;) {
        if (is_off_duty()) {
            std::unique_lock<std::mutex> lock(sleep_);
            recalled_.wait(lock, [&] { return stop_ || !is_off_duty(); });
        } else if (!spin(news, patience)) {
            std::unique_lock<std::mutex> lock(sleep_);
            ++sleeping_workers_;
            opened_.wait(lock, [&] { return stop_ || is_off_duty() || loop_number(open_) != seen; });
            --sleeping_workers_;
        }
        if (stop_) return;
        if (is_off_duty()) continue;
        seen = loop_number(open_.load(std::memory_order_acquire));
        take_tasks(thread);
    }
}

}  // namespace pocketbert
