#include "peak_flops.h"

#include <algorithm>
#include <vector>

#include "clocks.h"

namespace pocketbert {

double operations_per_second(Pool& pool, const Kernels& kernels, PeakLoop loop) {
    // By the thread's own processor time: what others take of a busy machine is not the processor's speed.
    const auto seconds = [&](int rounds) {
        const KernelScope scope(kernels);
        const std::int64_t start = processor_nanoseconds();
        loop(rounds);
        return 1e-9 * static_cast<double>(processor_nanoseconds() - start);
    };
    int rounds = 1;
    while (rounds < (1 << 28) && std::min({seconds(rounds), seconds(rounds), seconds(rounds)}) < 1e-3) rounds *= 2;
    std::vector<double> taken(static_cast<std::size_t>(32 * pool.threads()));
    pool.run(static_cast<int>(taken.size()),
             [&](int task, int) { taken[static_cast<std::size_t>(task)] = seconds(rounds); });
    const auto median = taken.begin() + static_cast<std::ptrdiff_t>(taken.size() / 2);
    std::nth_element(taken.begin(), median, taken.end());
    const KernelScope scope(kernels);
    return pool.threads() * (static_cast<double>(loop(1)) * rounds / *median);
}

}  // namespace pocketbert
