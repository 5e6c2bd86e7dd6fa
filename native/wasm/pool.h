// The pool where there are no threads but the caller's: as in pool.h, without anything to wait for.
#pragma once

#include <functional>
#include <mutex>

namespace pocketbert {

struct Mutex {
    void lock() {}
    void unlock() {}
};

inline int process_id() { return 0; }  // there is no fork

class Pool {
public:
    explicit Pool(int) {}
    bool is_of_this_process() const { return true; }
    int threads() const { return 1; }
    struct ActiveScope {
        explicit ActiveScope(Pool&) {}
    };
    void run(int tasks, const std::function<void(int task, int thread)>& body) {
        for (int task = 0; task < tasks; ++task) body(task, 0);
    }
};

}  // namespace pocketbert
