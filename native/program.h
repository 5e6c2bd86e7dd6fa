// A plan that is built step by step and run: see src/pocketbert/runtime/plan.py, whose steps these are. Knows no
// architecture. program.cpp builds and validates, execute.cpp runs.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <vector>

#include "arena.h"
#include "kernels/kernels.h"
#include "pool.h"

namespace pocketbert {

template <class T>
class Aligned {  // a vector whose memory starts on a cache line
public:
    Aligned() = default;
    explicit Aligned(std::size_t size) { resize(size); }
    void resize(std::size_t size) {  // the old values are lost
        size_ = 0;
        memory_ = {};  // first, so that old and new memory are not allocated together
        memory_.assign(size * sizeof(T) + 64, 0);
        size_ = size;
    }
    std::size_t size() const { return size_; }
    std::size_t bytes() const { return memory_.capacity(); }
    T* data() {
        const auto at = reinterpret_cast<std::uintptr_t>(memory_.data());
        return reinterpret_cast<T*>((at + 63) / 64 * 64);
    }
    const T* data() const { return const_cast<Aligned*>(this)->data(); }

private:
    std::vector<std::uint8_t> memory_;
    std::size_t size_ = 0;
};

struct Columns {
    int buffer, start, width;
};

inline bool overlap(Columns a, Columns b) {
    return a.buffer == b.buffer && a.start < b.start + b.width && b.start < a.start + a.width;
}

inline bool same(Columns a, Columns b) { return a.buffer == b.buffer && a.start == b.start && a.width == b.width; }

inline void require(bool holds, const char* rule) {
    if (!holds) throw std::invalid_argument(rule);
}

// A matrix or vector in memory of another owner, which `owner` keeps alive.
template <class T>
struct View {
    const T* data = nullptr;
    int rows = 0, width = 0;
    std::shared_ptr<void> owner;
};

enum class Index { word, next_word, previous_word, position, segment };

class Program {
public:
    Program(const Kernels& kernels, std::shared_ptr<Pool> pool);
    ~Program();
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;

    // ── building: every call is validated, and throws std::invalid_argument before it changes anything ──

    // A buffer of `width` columns. A local one lives within one row program and is never seen from outside.
    int buffer(int width, bool local);
    // With `uncounted` >= 0, the id of a word, positions count the other words from 1 on, and this word has position 0.
    void lookup(Columns target, View<float> table, Index index, bool add, int uncounted = -1);
    void lookup_s8(Columns target, View<std::int8_t> table, View<float> table_scales, Index index, bool add,
                   int uncounted = -1);
    void linear(Columns source, Columns target, View<float> weight, View<float> bias, int groups, Activation activation,
                const Columns* residual, View<float> residual_scale);
    void linear_s8(Columns source, Columns target, View<std::int8_t> weight, View<float> weight_scales,
                   View<float> bias, int groups, Activation activation, const Columns* residual,
                   View<float> residual_scale, View<float> outlier_weight);
    void layer_norm(Columns source, Columns target, View<float> weight, View<float> bias, float eps);
    // With `bfloat16`, in that precision if the kernels have it. `bias`, or nothing, is [heads, 2 * reach + 1]: what is
    // added to a score by the distance from the query to the key, -reach to reach, beyond these as at the nearer end.
    void attention(Columns query, Columns key, Columns value, Columns target, int heads, bool bfloat16,
                   const View<float>& bias = {});
    // From here on the rows are those that the caller selects, or the first of every sequence. `source` has all tokens.
    void gather(Columns source, Columns target, bool selected);

    // ── running ──

    enum class RowsOf { tokens, firsts, selected };  // every token, the first of each sequence, or selected ones

    // Sequence s is ids[starts[s]] to ids[starts[s + 1] - 1]; `selected_rows` are numbers of tokens, null selects all.
    // Calls from several threads take turns.
    void run(const std::int32_t* ids, const std::int32_t* segments, int tokens, const std::int32_t* starts,
             int sequences, const std::int32_t* selected_rows = nullptr, int selected_count = 0);
    // Which rows an output has: columns that are written and not local.
    RowsOf rows_of(Columns columns) const;
    // The rows of the last run, one per token or per gathered row, to be read before the next one.
    int rows(Columns columns) const { return count(rows_of(columns)); }
    void read(Columns columns, float* out) const;

    // The memory that runs keep for later ones: as much as the largest of them needed.
    std::size_t workspace_bytes() const;
    const char* kernels() const { return kernels_.name; }
    const std::shared_ptr<Pool>& pool() const { return pool_; }
    Mutex& mutex() { return *mutex_; }  // to be held while building, running and reading
    // For the child of a fork, which has other threads. What a run of the parent may have left half done is abandoned.
    void reset_after_fork(std::shared_ptr<Pool> pool);

private:
    struct Buffer {
        int width;
        bool local;
        RowsOf rows;
        std::size_t offset;  // of a local buffer in a thread's scratch, in columns; found by `lay_out`
        std::map<int, int> written;  // the columns that have values: first → beyond the last
        // As `lay_out` finds them:
        int stride;  // from row to row, in numbers
        bool is_bf16;  // what linear steps write and attention in bfloat16 alone reads
        bool holds_a_group;  // of a step, and the next group takes its place
    };
    struct Step {
        enum Kind { lookup, linear, linear_s8, layer_norm } kind;
        Columns source, target, residual;
        bool has_residual, add;
        Index index;
        View<float> table, table_scales;  // of a table in int8, the scales of its rows
        View<std::int8_t> table_s8;
        int entries;  // of the table
        int uncounted;  // the word without a position, or -1
        int groups;
        Activation activation;
        Aligned<float> bias, residual_scale, weight_scales;
        float* packed;  // in the arena, as is the next
        std::uint8_t* packed_s8;
        bool fused_with_previous;  // runs group by group together with the step before, whose target is its source
        int outliers;  // the most features of a row that are multiplied in fp32
        float eps;
    };
    struct Stage {
        enum Kind { rows, attention, gather } kind;
        std::vector<Step> steps;
        Columns query, key, value, target;
        RowsOf gathered;
        int heads;
        bool bfloat16;
        Aligned<float> bias;  // [heads, bias_width], of attention
        int bias_width;
    };
    struct Scratch {  // a thread's own memory
        Aligned<float> local, scores, packed, zeros, scales, biases, row, distances;
        Aligned<std::int8_t> q;
        Aligned<std::uint8_t> attention;
        Aligned<std::uint16_t> converted;  // queries, keys and values of a head
        Aligned<std::int32_t> sums, outliers, outlier_counts;
    };
    struct Batch {
        // Copies: another thread may change the caller's arrays after they were checked.
        std::vector<std::int32_t> ids, segments, starts;
        int tokens, sequences;
        std::vector<std::int32_t> selected_rows;  // numbers of tokens
        std::vector<std::int32_t> sequence_of;  // by token
        std::vector<std::int32_t> counted;  // by token: the position without uncounted words, if a step asks for it
    };

    void start(std::shared_ptr<Pool> pool);
    void abandon_parent_state();
    void check(Columns columns, bool reads, RowsOf rows) const;
    void check(Columns columns, bool reads) const { check(columns, reads, rows_of_); }
    void mark_written(Columns columns);
    void lay_out();
    void end_rows();
    static bool can_fuse(const Step& a, const Step& b);
    void add_step(Step step);
    void add_lookup(Step step, Columns target, int entries, int width, Index index, bool add, int uncounted);
    template <class T>
    Step check_linear(Columns source, Columns target, const View<T>& weight, const View<float>& bias, int groups,
                      Activation activation, const Columns* residual, const View<float>& residual_scale) const;
    float* at(Columns columns, int row, int first_row, Scratch& scratch);
    std::uint16_t* at_bf16(Columns columns, int row);
    void run_rows(const Stage& stage, const Batch& batch, int first, int last, Scratch& scratch);
    void run_lookup(const Step& step, const Batch& batch, int first, int last, Scratch& scratch);
    // Groups of the step: one of them, or all.
    struct Groups {
        int first, count;
    };
    void run_linear(const Step& step, Groups groups, int first, int last, Scratch& scratch);
    std::ptrdiff_t stride(Columns c) const { return buffers_[static_cast<std::size_t>(c.buffer)].stride; }
    // Where a group of so many columns begins in its buffer.
    std::ptrdiff_t shift(Columns c, int group, int width) const {
        return buffers_[static_cast<std::size_t>(c.buffer)].holds_a_group ? 0 : std::ptrdiff_t(group) * width;
    }
    struct Bf16Rows {
        const std::uint16_t* data;
        std::ptrdiff_t stride;
    };
    Bf16Rows in_bf16(Columns columns, int first, int length, std::uint16_t* memory);
    void quantize(const Step& step, Groups groups, int first, int last, Scratch& scratch);
    void run_attention(const Stage& stage, const Batch& batch, int sequence, int head, Scratch& scratch);
    void check_batch(const Batch& batch) const;
    void make_scratch(const Batch& batch);
    int count(RowsOf rows) const;

    const Kernels& kernels_;
    std::shared_ptr<Pool> pool_;
    std::unique_ptr<Mutex> mutex_;
    std::vector<Buffer> buffers_;
    std::vector<Stage> stages_;
    Arena weights_;
    std::size_t local_width_ = 0, quantized_bytes_ = 0, most_groups_ = 1, widest_outlier_step_ = 0, most_outliers_ = 0;
    int uncounted_ = -1;  // the word that all lookups of positions leave out
    RowsOf rows_of_ = RowsOf::tokens;  // the rows of the next step
    bool selects_ = false;  // a gather takes the rows that the caller selects
    bool is_laid_out_ = false;

    std::vector<Aligned<float>> memory_;  // by buffer
    std::vector<Scratch> scratch_;  // by thread
    int tokens_ = 0, sequences_ = 0, selected_ = 0;
};

}  // namespace pocketbert
