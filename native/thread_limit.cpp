#include "thread_limit.h"

#include <algorithm>

namespace pocketbert {
namespace {

constexpr double WINDOW = 0.01;  // loops of so many seconds are judged together: some time slices of the scheduler
constexpr double LEAST_LOSS = 0.1;  // per second of loops; less is no reason for a trial
constexpr double LEAST_GAIN = 0.05;  // of a thread that is worth having

}  // namespace

void ThreadLimit::Pause::begin(double now) {
    until_ = now + length_;
    length_ = std::min(2 * length_, longest_);
}

void ThreadLimit::record(const LoopTimes& loop, double now) {
    sum_.wall += loop.wall, sum_.computed += loop.computed, sum_.lost += loop.lost;
    if (sum_.wall < WINDOW) return;
    const LoopTimes sum = sum_;
    sum_ = {};
    if (sum.computed > 0) judge(sum.wall / sum.computed, sum.lost > LEAST_LOSS * sum.wall, now);
}

void ThreadLimit::judge(double slowness, bool disturbed, double now) {
    const Trial trial = trial_;
    trial_ = Trial::none;
    disturbed_ = disturbed || slowness > 1 - LEAST_GAIN ? disturbed_ + 1 : 0;
    if (trial == Trial::fewer && slowness > slowness_ * (1 + LEAST_GAIN)) {
        ++threads_;
        fewer_.begin(now);
    } else if (trial == Trial::fewer) {
        more_.begin(now);
    } else if (trial == Trial::more && slowness > slowness_ * (1 - LEAST_GAIN)) {
        --threads_;
        more_.begin(now);
    } else if (trial == Trial::more) {
        more_.forget();
    } else if (disturbed_ > 1 && threads_ > 1 && slowness * (threads_ - 1) > 1 - LEAST_GAIN && fewer_.is_over(now)) {
        slowness_ = slowness;
        trial_ = Trial::fewer;
        --threads_;
    } else if (threads_ < most_ && more_.is_over(now)) {
        slowness_ = slowness;
        trial_ = Trial::more;
        ++threads_;
    } else if (disturbed_ == 0 && fewer_.is_over(now)) {
        fewer_.forget();
    }
}

}  // namespace pocketbert
