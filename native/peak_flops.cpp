#include "peak_flops.h"

#include <algorithm>
#include <chrono>

namespace pocketbert {
namespace {

template <class Body>
double seconds(const Body& body) {
    const auto start = std::chrono::steady_clock::now();
    body();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    return elapsed.count();
}

}  // namespace

double operations_per_second(Pool& pool, const Kernels& kernels, PeakLoop loop) {
    const auto run = [&](int rounds) {
        const KernelScope scope(kernels);
        return loop(rounds);
    };
    int rounds = 1;
    const auto once = [&] { return seconds([&] { run(rounds); }); };
    while (rounds < (1 << 28) && std::min({once(), once(), once()}) < 1e-3) rounds *= 2;
    const int tasks = 8 * pool.threads();  // so that a thread that comes late does less
    const double operations = static_cast<double>(tasks) * static_cast<double>(run(1)) * rounds;
    double best = 0;
    for (int tries = 0; tries < 12; ++tries)
        best = std::max(best, operations / seconds([&] { pool.run(tasks, [&](int, int) { run(rounds); }); }));
    return best;
}

}  // namespace pocketbert
