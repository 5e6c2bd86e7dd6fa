// Runs pools hard, for the thread sanitizer: loops from several callers, pauses that let the threads sleep, the end
// while they sleep, and the child of a fork.
#include "../pool.h"

#include <sys/wait.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

using pocketbert::Pool;

namespace {

void require(bool holds, const char* rule) {
    if (holds) return;
    std::fprintf(stderr, "%s\n", rule);
    std::exit(1);
}

void loop(Pool& pool, int tasks) {  // plain integers: a task that ran twice or late would be a race
    std::vector<int> done(static_cast<std::size_t>(tasks));
    pool.run(tasks, [&](int task, int thread) {
        require(thread >= 0 && thread < pool.threads(), "there is no such thread");
        done[static_cast<std::size_t>(task)] += task;
    });
    for (int task = 0; task < tasks; ++task)
        require(done[static_cast<std::size_t>(task)] == task, "a task ran not once");
}

}  // namespace

int main() {
    for (int threads = 1; threads <= 9; ++threads) {  // more than there are processors: some are always late
        Pool pool(threads);
        require(pool.threads() == threads && pool.is_of_this_process(), "a pool is not as it was asked for");
        std::vector<std::thread> callers;
        for (int caller = 0; caller < 3; ++caller)
            callers.emplace_back([&pool, caller] {
                for (int i = 0; i < 300; ++i) {
                    loop(pool, i % 17 * (caller + 1));
                    if (i % 50 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
                }
            });
        for (std::thread& caller : callers) caller.join();
    }
    for (int i = 0; i < 50; ++i) {
        Pool pool(3);
        if (i % 2) loop(pool, 4);
        if (i % 5 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    auto* const parents = new Pool(3);
    const pid_t child = fork();
    if (child == 0) _exit(parents->is_of_this_process() ? 1 : 0);
    int status = 0;
    waitpid(child, &status, 0);
    require(WIFEXITED(status) && WEXITSTATUS(status) == 0,
            "the child of a fork thinks that it has its parent's threads");
    delete parents;
    std::puts("the pool is sound");
}
