#include "program.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>

namespace pocketbert {
namespace {

constexpr int MAX_WIDTH = 1 << 24;
constexpr std::size_t MAX_BUFFERS = 1 << 16;
constexpr int MAX_DEPTH_S8 = 1 << 16;     // 127 · 255 · 2^16 < 2^31
constexpr int FEATURES_PER_OUTLIER = 32;  // at most one of so many is multiplied in fp32

// A copy with zeros behind it: a kernel reads whole panels, and a group may start anywhere.
Aligned<float> padded(const View<float>& values) {
    Aligned<float> copy(static_cast<std::size_t>(values.width) + PANEL);
    std::copy_n(values.data, values.width, copy.data());
    return copy;
}

}  // namespace

Program::Program(const Kernels& kernels, std::shared_ptr<Pool> pool) : kernels_(kernels) { start(std::move(pool)); }

Program::~Program() {
    if (!pool_->is_of_this_process()) abandon_parent_state();
}

void Program::start(std::shared_ptr<Pool> pool) {
    memory_.resize(buffers_.size());
    scratch_.resize(static_cast<std::size_t>(pool->threads()));
    mutex_ = std::make_unique<Mutex>();
    pool_ = std::move(pool);
}

// Never freed: a thread of the parent may have been at work there, and may have held the mutex.
void Program::abandon_parent_state() {
    new std::vector<Scratch>(std::move(scratch_));
    new std::vector<Aligned<float>>(std::move(memory_));
    mutex_.release();
}

void Program::reset_after_fork(std::shared_ptr<Pool> pool) {
    abandon_parent_state();
    start(std::move(pool));
}

// ── building ──

int Program::buffer(int width, bool local) {
    require(width > 0 && width <= MAX_WIDTH, "a buffer needs a width");
    require(buffers_.size() < MAX_BUFFERS, "too many buffers");
    memory_.resize(buffers_.size() + 1);
    buffers_.push_back({width, local, RowsOf::tokens, 0, {}, 0, false, false});
    is_laid_out_ = false;
    return static_cast<int>(buffers_.size()) - 1;
}

void Program::check(Columns c, bool reads, RowsOf rows) const {
    require(c.buffer >= 0 && c.buffer < static_cast<int>(buffers_.size()), "no such buffer");
    const Buffer& buffer = buffers_[static_cast<std::size_t>(c.buffer)];
    require(c.width > 0 && c.start >= 0 && c.start <= buffer.width - c.width, "columns are beyond their buffer");
    require(buffer.written.empty() || buffer.rows == rows, "rows of tokens and gathered rows cannot be mixed");
    if (!reads) return;
    const auto after = buffer.written.upper_bound(c.start);
    require(after != buffer.written.begin() && std::prev(after)->second >= c.start + c.width,
            "a buffer is read before it is written");
}

void Program::mark_written(Columns c) {
    Buffer& buffer = buffers_[static_cast<std::size_t>(c.buffer)];
    int first = c.start, last = c.start + c.width;
    for (auto at = buffer.written.begin(); at != buffer.written.end();) {
        if (at->first > last || at->second < first) {
            ++at;
            continue;
        }
        first = std::min(first, at->first);
        last = std::max(last, at->second);
        at = buffer.written.erase(at);
    }
    buffer.written[first] = last;
    buffer.rows = rows_of_;
}

void Program::end_rows() {
    for (Buffer& buffer : buffers_)
        if (buffer.local) buffer.written.clear();
}

// Whether two grouped products may run group by group, so that the values between them are still in the cache: no group
// of the second may write what a later group of the first reads, nor read what that writes.
bool Program::can_fuse(const Step& a, const Step& b) {
    const auto linear = [](const Step& s) { return s.kind == Step::linear || s.kind == Step::linear_s8; };
    return linear(a) && linear(b) && a.groups == b.groups && a.groups > 1 && same(a.target, b.source) &&
           (same(a.source, b.target) || !overlap(a.source, b.target)) &&
           (!a.has_residual || !overlap(a.residual, b.target)) && (!b.has_residual || !overlap(b.residual, a.target));
}

void Program::add_step(Step step) {
    if (stages_.empty() || stages_.back().kind != Stage::rows) {
        stages_.push_back({});
        stages_.back().kind = Stage::rows;
    }
    std::vector<Step>& steps = stages_.back().steps;
    step.fused_with_previous = !steps.empty() && !steps.back().fused_with_previous && can_fuse(steps.back(), step);
    steps.push_back(std::move(step));
    mark_written(steps.back().target);
    is_laid_out_ = false;
}

// How buffers lie in memory, once all steps are known.
void Program::lay_out() {
    struct Uses {
        int all = 0, between_fused_steps = 0, groups = 0;
        bool is_attended_to = false, needs_fp32 = false;
    };
    std::vector<Uses> uses(buffers_.size());
    const auto of = [&](Columns c) -> Uses& { return uses[static_cast<std::size_t>(c.buffer)]; };
    for (const Stage& stage : stages_) {
        for (const Step& step : stage.steps) {
            const bool is_linear = step.kind == Step::linear || step.kind == Step::linear_s8;
            ++of(step.source).all, ++of(step.target).all;
            of(step.source).needs_fp32 = true;
            if (!is_linear || step.has_residual || step.activation != Activation::none)
                of(step.target).needs_fp32 = true;
            if (step.has_residual) ++of(step.residual).all, of(step.residual).needs_fp32 = true;
            Uses& between = of(step.source);
            if (step.fused_with_previous && (between.groups == 0 || between.groups == step.groups) &&
                step.source.width == buffers_[static_cast<std::size_t>(step.source.buffer)].width) {
                between.groups = step.groups;
                between.between_fused_steps += 2;  // as the target of the step before, and here
            }
        }
        if (stage.kind == Stage::rows) continue;
        of(stage.target).needs_fp32 = true;
        if (stage.kind == Stage::gather) of(stage.query).needs_fp32 = true;
        else
            for (const Columns c : {stage.query, stage.key, stage.value})
                (stage.bfloat16 ? of(c).is_attended_to : of(c).needs_fp32) = true;
    }
    local_width_ = 0;
    for (std::size_t b = 0; b < buffers_.size(); ++b) {
        Buffer& buffer = buffers_[b];
        buffer.is_bf16 = !buffer.local && uses[b].is_attended_to && !uses[b].needs_fp32;
        buffer.holds_a_group = buffer.local && uses[b].groups && uses[b].between_fused_steps == uses[b].all;
        const int width = buffer.holds_a_group ? buffer.width / uses[b].groups : buffer.width;
        // An odd number of cache lines: rows with an even one fall into few sets of the first cache.
        const int per_line = buffer.is_bf16 ? 32 : 16;
        buffer.stride = (round_up(width, per_line) / per_line | 1) * per_line;
        buffer.offset = local_width_;
        if (buffer.local) local_width_ += static_cast<std::size_t>(buffer.stride);
    }
    is_laid_out_ = true;
}

void Program::lookup(Columns target, View<float> table, Index index, bool add, int uncounted) {
    Step step{};
    step.table = std::move(table);
    const int entries = step.table.rows, width = step.table.width;
    add_lookup(std::move(step), target, entries, width, index, add, uncounted);
}

void Program::lookup_s8(Columns target, View<std::int8_t> table, View<float> table_scales, Index index, bool add,
                        int uncounted) {
    require(table_scales.width == table.rows, "a table needs a scale for every row");
    Step step{};
    step.table_s8 = std::move(table);
    step.table_scales = std::move(table_scales);
    const int entries = step.table_s8.rows, width = step.table_s8.width;
    add_lookup(std::move(step), target, entries, width, index, add, uncounted);
}

void Program::add_lookup(Step step, Columns target, int entries, int width, Index index, bool add, int uncounted) {
    check(target, add);
    require(entries > 0 && width == target.width, "a table must be as wide as its target");
    require(rows_of_ == RowsOf::tokens, "a lookup cannot follow a gather");
    require(uncounted < 0 || (index == Index::position && (uncounted_ < 0 || uncounted_ == uncounted)),
            "one word is left out where positions are counted, and only there");
    if (uncounted >= 0) uncounted_ = uncounted;
    step.kind = Step::lookup;
    step.source = step.target = target;
    step.entries = entries;
    step.index = index;
    step.uncounted = uncounted;
    step.add = add;
    add_step(std::move(step));
}

template <class T>
Program::Step Program::check_linear(Columns source, Columns target, const View<T>& weight, const View<float>& bias,
                                    int groups, Activation activation, const Columns* residual,
                                    const View<float>& residual_scale) const {
    check(source, true);
    check(target, false);
    require(groups > 0 && source.width % groups == 0 && target.width % groups == 0, "groups must divide both widths");
    require(weight.rows == target.width && weight.width == source.width / groups,
            "a weight must have the shape of its step");
    require(!overlap(source, target), "a product cannot replace its source");
    require(bias.width == target.width, "a bias must be as wide as its target");
    require(!residual_scale.owner || (residual && residual_scale.width == target.width),
            "a scale must be as wide as its residual");
    Step step{};
    step.source = source;
    step.target = target;
    step.groups = groups;
    step.activation = activation;
    step.bias = padded(bias);
    if (residual) {
        check(*residual, true);
        require(residual->width == target.width, "a residual must be as wide as its target");
        require(!overlap(*residual, target) || residual->start == target.start,
                "a residual must be its target or not overlap it");
        step.has_residual = true;
        step.residual = *residual;
        if (residual_scale.owner) step.residual_scale = padded(residual_scale);
    }
    return step;
}

void Program::linear(Columns source, Columns target, View<float> weight, View<float> bias, int groups,
                     Activation activation, const Columns* residual, View<float> residual_scale) {
    Step step = check_linear(source, target, weight, bias, groups, activation, residual, residual_scale);
    step.kind = Step::linear;
    const int n = target.width / groups, k = weight.width;
    const std::size_t panel = static_cast<std::size_t>(round_up(n, PANEL)) * k;
    step.packed = weights_.take<float>(panel * groups);
    for (int g = 0; g < groups; ++g)
        pack_f32(weight.data + std::ptrdiff_t(g) * n * k, k, 1, n, k, step.packed + panel * g);
    add_step(std::move(step));
}

void Program::linear_s8(Columns source, Columns target, View<std::int8_t> weight, View<float> weight_scales,
                        View<float> bias, int groups, Activation activation, const Columns* residual,
                        View<float> residual_scale, View<float> outlier_weight) {
    Step step = check_linear(source, target, weight, bias, groups, activation, residual, residual_scale);
    step.kind = Step::linear_s8;
    require(weight_scales.width == target.width, "a weight needs a scale for every output channel");
    require(weight.width <= MAX_DEPTH_S8, "an int8 product sums too many numbers");
    const int n = target.width / groups, k = weight.width;
    if (outlier_weight.owner) {
        require(groups == 1, "outlier weights need a step of one group");
        require(outlier_weight.rows == weight.rows && outlier_weight.width == weight.width,
                "outlier weights must have the shape of the int8 weights");
        step.outliers = k / FEATURES_PER_OUTLIER;
        step.packed = weights_.take<float>(static_cast<std::size_t>(round_up(n, PANEL)) * k);
        pack_f32(outlier_weight.data, k, 1, n, k, step.packed);
        widest_outlier_step_ =
            std::max(widest_outlier_step_, static_cast<std::size_t>(round_up(std::max(n, k), PANEL)));
        most_outliers_ = std::max(most_outliers_, static_cast<std::size_t>(step.outliers));
    }
    const std::size_t packed = kernels_.packed_s8_bytes(n, k);
    step.packed_s8 = weights_.take<std::uint8_t>(packed * groups);
    for (int g = 0; g < groups; ++g)
        kernels_.pack_s8(weight.data + std::ptrdiff_t(g) * n * k, n, k, step.packed_s8 + packed * g);
    step.weight_scales = padded(weight_scales);
    quantized_bytes_ = std::max(quantized_bytes_, groups * kernels_.quantized_bytes(kernels_.row_block, k));
    most_groups_ = std::max(most_groups_, static_cast<std::size_t>(groups));
    add_step(std::move(step));
}

void Program::layer_norm(Columns source, Columns target, View<float> weight, View<float> bias, float eps) {
    check(source, true);
    check(target, false);
    require(source.width == target.width && weight.width == target.width && bias.width == target.width,
            "a norm must keep the width");
    require(!overlap(source, target) || source.start == target.start,
            "a norm must replace its source or not overlap it");
    require(eps >= 0.0f, "eps must not be negative");
    Step step{};
    step.kind = Step::layer_norm;
    step.source = source;
    step.target = target;
    step.packed = std::copy_n(weight.data, weight.width, weights_.take<float>(weight.width)) - weight.width;
    step.bias = padded(bias);
    step.eps = eps;
    add_step(std::move(step));
}

void Program::attention(Columns query, Columns key, Columns value, Columns target, int heads, bool bfloat16,
                        const View<float>& bias) {
    for (Columns c : {query, key, value}) check(c, true);
    check(target, false);
    require(rows_of_ == RowsOf::tokens, "attention cannot follow a gather");
    for (Columns c : {query, key, value, target}) {
        require(c.width == target.width, "attention must keep the width");
        require(!buffers_[static_cast<std::size_t>(c.buffer)].local, "attention cannot use a local buffer");
    }
    require(heads > 0 && target.width % heads == 0, "heads must divide the width");
    for (Columns c : {query, key, value}) require(!overlap(c, target), "attention cannot replace its source");
    require(!bias.data || (bias.rows == heads && bias.width % 2 == 1), "a bias has a row per head, of odd width");
    require(!bias.data || !bfloat16, "attention with a bias is in fp32");
    Stage stage{};
    stage.kind = Stage::attention;
    stage.query = query, stage.key = key, stage.value = value, stage.target = target, stage.heads = heads;
    stage.bfloat16 = bfloat16 && kernels_.bf16_attention;
    if (bias.data) {
        stage.bias_width = bias.width;
        stage.bias.resize(static_cast<std::size_t>(heads) * bias.width);
        std::copy_n(bias.data, stage.bias.size(), stage.bias.data());
    }
    stages_.push_back(std::move(stage));
    is_laid_out_ = false;
    mark_written(target);
    end_rows();
}

void Program::gather(Columns source, Columns target, bool selected) {
    const RowsOf gathered = selected ? RowsOf::selected : RowsOf::firsts;
    check(source, true, RowsOf::tokens);
    require(source.width == target.width && source.buffer != target.buffer,
            "a gather must keep the width and write to another buffer");
    check(target, false, gathered);
    require(!buffers_[static_cast<std::size_t>(source.buffer)].local &&
                !buffers_[static_cast<std::size_t>(target.buffer)].local,
            "a gather cannot use a local buffer");
    require(buffers_[static_cast<std::size_t>(target.buffer)].written.empty(),
            "rows of tokens and gathered rows cannot be mixed");
    Stage stage{};
    stage.kind = Stage::gather;
    stage.query = source, stage.target = target, stage.gathered = gathered;
    stages_.push_back(std::move(stage));
    rows_of_ = gathered, selects_ = selects_ || selected;
    mark_written(target);
    end_rows();
}

}  // namespace pocketbert
