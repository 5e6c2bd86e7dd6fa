// Thread limits on simulated machines. And pools run hard, for the thread sanitizer: loops from several callers, pauses
// that let the threads sleep, the end while they sleep, threads that go off duty, and the child of a fork.
#include "../pool.h"
#include "../clocks.h"

#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

using pocketbert::Pool;
using pocketbert::ThreadLimit;

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

// The share of its time that a limit of `most` threads gives to each number of them, in `seconds` of loops whose wall time
// per second of computing is slowness(threads, number of the loop). With `lost`, threads lose a third of the time.
template <class Slowness>
std::vector<double> shares(ThreadLimit& limit, int most, double& now, double seconds, bool lost,
                           const Slowness& slowness) {
    std::vector<double> shares(static_cast<std::size_t>(most) + 1);
    const double end = now + seconds;
    for (int loop = 0; now < end; ++loop) {
        const int threads = limit.threads();
        require(threads >= 1 && threads <= most, "a limit is not among the threads");
        const double computed = 5e-4, wall = computed * slowness(threads, loop);
        now += wall;
        shares[static_cast<std::size_t>(threads)] += wall / seconds;
        limit.record({wall, computed, lost ? wall / 3 : 0.0}, now);
    }
    return shares;
}

void check_limits() {
    for (const int most : {2, 5, 16}) {
        ThreadLimit limit(most);
        double now = 100;
        const auto all = static_cast<std::size_t>(most);
        const auto calm = [](int threads, int) { return 1.0 / threads; };
        require(shares(limit, most, now, 5, false, calm)[all] > 0.999, "a calm machine's processors are not all used");
        require(shares(limit, most, now, 5, true, calm)[all] > 0.999,
                "threads that lose time gave up though loops are fast");
        const auto uneven = [](int threads, int) { return 2.0 / (threads + 1); };  // one task too many
        require(shares(limit, most, now, 5, false, uneven)[all] > 0.999, "uneven loops were taken for late threads");
        const auto one_late = [](int threads, int loop) { return loop % 500 == 0 ? 2.0 : 1.0 / threads; };
        require(shares(limit, most, now, 5, false, one_late)[all] > 0.999, "a single late thread mattered");
        // One processor is taken: with all threads, loops take as long as with two threads fewer.
        const auto taken = [=](int threads, int) {
            return threads == most ? 1.0 / std::max(most - 2.0, 0.7) : 1.0 / threads;
        };
        require(shares(limit, most, now, 5, true, taken)[all - 1] > 0.9, "a thread is used that is of no use");
        shares(limit, most, now, 0.5, false, calm);
        require(limit.threads() == most, "threads do not come back");
        // Whatever is taken, more threads are faster.
        const auto shared = [](int threads, int) { return 1.6 / threads; };
        require(shares(limit, most, now, 5, true, shared)[all] > 0.9, "a thread is not used that is of use");
    }
    ThreadLimit limit(8);
    double now = 0;
    const auto three = [](int threads, int) { return threads > 3 ? 0.4 : 1.0 / threads; };
    require(shares(limit, 8, now, 5, true, three)[3] > 0.8, "the processors that are left are not found");
}

}  // namespace

int main() {
    check_limits();
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
    Pool crowded(2 * static_cast<int>(std::thread::hardware_concurrency()) + 1);  // so that threads go and come back
    for (int i = 0; i < 300; ++i)
        crowded.run(8, [](int, int) {
            const std::int64_t end = pocketbert::wall_nanoseconds() + 300'000;
            while (pocketbert::wall_nanoseconds() < end) {}
        });
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
