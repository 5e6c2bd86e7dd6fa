// A pool of threads for short parallel loops: its threads wait for the next loop spinning, and after a while asleep.
#pragma once

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace pocketbert {

class Pool {
public:
    // `threads` counts the calling thread, which works too. There are fewer where the system gives no more.
    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    bool is_of_this_process() const { return process_ == getpid(); }  // the child of a fork has none of its threads
    int threads() const { return static_cast<int>(workers_.size()) + 1; }

    // While one of these lives, threads that wait for the next loop spin on for longer: a run is a row of loops, and a
    // thread that falls asleep between two of them is late for the second.
    class Awake {
    public:
        explicit Awake(Pool& pool) : pool_(pool) { ++pool_.awake_; }
        ~Awake() { --pool_.awake_; }
        Awake(const Awake&) = delete;
        Awake& operator=(const Awake&) = delete;

    private:
        Pool& pool_;
    };

    // Calls body(task, thread) for every task in [0, tasks), each once, and returns when all are done. Calls from
    // several threads take turns. `body` must not throw.
    void run(int tasks, const std::function<void(int task, int thread)>& body);

private:
    void work(int thread);
    void take(int thread);

    const pid_t process_ = getpid();
    std::vector<std::thread> workers_;
    std::mutex turn_;  // held by the caller whose loop is running

    std::mutex sleep_;
    std::condition_variable wake_;
    std::atomic<unsigned> loop_{0};  // counts loops; a change is the signal to start
    std::atomic<bool> stop_{false};
    std::atomic<int> awake_{0};

    const std::function<void(int, int)>* body_ = nullptr;
    int tasks_ = 0;
    std::atomic<int> next_{0};
    std::atomic<int> busy_{0};  // workers that have not finished the loop
};

}  // namespace pocketbert
