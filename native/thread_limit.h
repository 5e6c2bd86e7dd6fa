// How many threads of a pool are worth having. Fewer than there are where another process occupies a processor: a loop
// ends with its slowest thread.
#pragma once

namespace pocketbert {

// What a loop took, in seconds.
struct LoopTimes {
    double wall;
    double computed;  // by all threads together
    double lost;  // by all threads together: while they had tasks, and others their processors
};

// Decides by the effect. Threads that lose processor time are a reason to try one thread fewer, and some time later one
// more; whether loops are faster with it decides if that remains. What is compared is the time of loops per second of
// computing, so that they need not be alike.
class ThreadLimit {
public:
    explicit ThreadLimit(int most) : most_(most), threads_(most) {}

    int threads() const { return threads_; }  // for the next loop
    // To be called after each loop. `now` in seconds, from any beginning.
    void record(const LoopTimes& loop, double now);

private:
    class Pause {  // between two trials, twice as long after each that was in vain
    public:
        explicit Pause(double longest) : longest_(longest) {}
        void begin(double now);
        void forget() { length_ = SHORTEST, until_ = 0; }
        bool is_over(double now) const { return now >= until_; }

    private:
        static constexpr double SHORTEST = 0.05;
        const double longest_;
        double length_ = SHORTEST, until_ = 0;
    };
    void judge(double slowness, bool disturbed, double now);

    const int most_;
    int threads_;
    LoopTimes sum_{};  // since the last judgement
    enum class Trial { none, fewer, more } trial_ = Trial::none;
    double slowness_ = 0;  // before the trial
    int disturbed_ = 0;  // judgements in a row
    // A thread more costs little where it is of no use, one fewer up to half of the speed.
    Pause fewer_{1.6}, more_{0.4};
};

}  // namespace pocketbert
