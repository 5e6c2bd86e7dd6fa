// A pool of threads for short parallel loops. A thread takes the next task that nobody has taken, and a loop ends with
// its last task: a thread that has lost its processor to another process holds up nothing but the task that it is in. If
// that is too much (thread_limit.h), threads go off duty for a while.
#pragma once

#ifdef __wasm__
#include "wasm/pool.h"  // of one thread
#else

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "thread_limit.h"
#include "work_clock.h"

namespace pocketbert {

using Mutex = std::mutex;

// The number of this process, on every system.
int process_id();

class Pool {
public:
    // `threads` counts the calling thread, which works too. There are fewer where the system gives no more.
    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    bool is_of_this_process() const { return process_ == process_id(); }  // a fork's child has none of its threads
    int threads() const { return static_cast<int>(workers_.size()) + 1; }

    // While one of these lives, threads that wait for the next loop spin for longer: a run is a row of loops, and a
    // thread that falls asleep between two of them is late for the second.
    class ActiveScope {
    public:
        explicit ActiveScope(Pool& pool) : pool_(pool) { ++pool_.active_; }
        ~ActiveScope() { --pool_.active_; }
        ActiveScope(const ActiveScope&) = delete;
        ActiveScope& operator=(const ActiveScope&) = delete;

    private:
        Pool& pool_;
    };

    // Calls body(task, thread) for every task in [0, tasks), each once, and returns when all are done. Calls from
    // several threads take turns. `body` must not throw.
    void run(int tasks, const std::function<void(int task, int thread)>& body);

private:
    struct alignas(64) Clock : WorkClock {};  // a cache line of its own

    void work(int thread);
    void run_with_workers(int tasks, const std::function<void(int, int)>& body);
    void take_tasks(int thread);
    void wait_for_tasks();
    void record(std::int64_t wall);

    const int process_ = process_id();
    std::vector<std::thread> workers_;
    std::mutex turn_;  // held by the caller whose loop is running

    // The number of the loop in the upper half, the tasks of it that nobody has taken in the lower one: together, so
    // that a late worker cannot take a task of a later loop for one of the loop that it saw.
    std::atomic<std::uint64_t> open_{0};
    std::atomic<int> unfinished_{0};  // tasks of the loop that are not done
    const std::function<void(int, int)>* body_ = nullptr;
    int tasks_ = 0;
    std::atomic<int> active_{0};
    std::vector<Clock> clocks_;  // by thread
    ThreadLimit limit_;
    std::atomic<int> on_duty_;  // threads below this number work, the others sleep

    // Sleeping, for both sides: whoever falls asleep announces it before looking a last time, and whoever has news
    // looks for sleepers after it. Both in the one order that all threads agree upon (`memory_order_seq_cst`, here
    // the default): so one of them sees the other.
    std::mutex sleep_;
    std::condition_variable opened_, finished_, recalled_;
    std::atomic<int> sleeping_workers_{0};  // of those on duty
    std::atomic<bool> caller_sleeps_{false};
    std::atomic<bool> stop_{false};
};

}  // namespace pocketbert

#endif
