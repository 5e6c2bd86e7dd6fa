// Fuzzes the passes of a training step: shapes and arrays of every pass, whose bits must not depend on the threads.
#pragma once

#include <algorithm>
#include <thread>

#include "fuzz.h"

class TrainingCase {
public:
    explicit TrainingCase(Input in) : in_(in) {}

    void play() {
        std::vector<const pb_training*> sets;
        pb_kernels kernels[32];
        std::int32_t count = 0;
        require(pb_list_kernels(kernels, 32, &count) == PB_OK, "kernels are not listed");
        for (std::int32_t i = 0; i < count; ++i)
            if (const pb_training* found = nullptr; pb_find_training(kernels[i].name, &found) == PB_OK)
                sets.push_back(found);
        if (sets.empty()) return;  // on this processor
        team_.training = in_.byte() < 2 ? nullptr : sets[in_.byte() % sets.size()];
        team_.threads = in_.number(2, 4), team_.run = in_.one_in(4) ? nullptr : in_threads;
        while (!in_.is_empty()) {
            switch (in_.byte() % 5) {
                case 0: norm(); break;
                case 1: activation(); break;
                case 2: attention(); break;
                case 3: difference(); break;
                default: adamw();
            }
        }
    }

private:
    // As a team of OpenMP calls it.
    static void in_threads(void (*work)(void*), void* data, unsigned threads, unsigned) {
        std::vector<std::thread> others;
        for (unsigned i = 1; i < threads; ++i) others.emplace_back(work, data);
        work(data);
        for (std::thread& each : others) each.join();
    }

    // The call, in one thread and then in several: the same bits in all arrays.
    template <class Pass>
    void compare(std::int32_t (*call)(const pb_team*, const Pass*), const Pass& pass, Arrays& arrays) {
        const Arrays::Contents before = arrays.contents();
        if (!took(call(&team_, &pass))) {
            require(arrays.contents() == before, "a call that is refused writes");
            return;
        }
        const Arrays::Contents of_several = arrays.contents();
        arrays.restore(before);
        pb_team alone = team_;
        alone.threads = 1, alone.run = nullptr;
        require(call(&alone, &pass) == PB_OK, "a pass is refused the second time");
        require(arrays.contents() == of_several, "bits depend on the threads");
        ++runs;
    }

    bool is_there() { return in_.byte() >= 2; }
    // Of an array that must be there, rarely null.
    template <class T>
    T* needed(Arrays& arrays, std::int64_t count) {
        return is_there() ? arrays.of<T>(static_cast<std::size_t>(std::max<std::int64_t>(count, 0))) : nullptr;
    }
    template <class T>
    T* perhaps(Arrays& arrays, std::int64_t count) {
        return in_.one_in(2) ? needed<T>(arrays, count) : nullptr;
    }
    // Of floats or of bfloat16.
    void* numbers(Arrays& arrays, bool wide, std::int64_t count) {
        return wide ? static_cast<void*>(needed<float>(arrays, count)) : needed<std::uint16_t>(arrays, count);
    }

    // Rows and columns, of which the product is small, or refused.
    std::int64_t size(std::int64_t& rows, std::int32_t& width) {
        width = in_.number(1, 130), rows = in_.byte() < 3 ? huge() : in_.between(0, 70);
        if (width > 1000 && rows >= 0) rows = std::numeric_limits<std::int64_t>::max();
        return rows < 0 || rows > 1000 || width < 0 ? 0 : rows * width;
    }
    std::int64_t huge() {
        return in_.one_in(2) ? std::numeric_limits<std::int64_t>::max() : std::numeric_limits<std::int64_t>::min();
    }
    std::int32_t dropped() {
        return in_.one_in(2) ? 0 : in_.one_in(16) ? in_.number(65536, 70000) : in_.between(1, 65535);
    }

    void norm() {
        Arrays a;
        pb_norm_pass p{};
        const std::int64_t all = size(p.rows, p.width), rows = all ? p.rows : 0, width = all ? p.width : 1000;
        p.centres = in_.one_in(2), p.dropped = dropped(), p.eps = 1e-6f, p.seed = in_.byte();
        p.wide = in_.one_in(2);
        p.x = needed<std::uint16_t>(a, all), p.bias = perhaps<float>(a, width);
        p.residual = in_.one_in(2) ? numbers(a, p.wide, all) : nullptr;
        p.weight = needed<float>(a, width), p.shift = needed<float>(a, width);
        p.out = numbers(a, p.wide, all);
        p.sum = needed<std::uint16_t>(a, all), p.stats = perhaps<float>(a, 2 * rows);
        p.grad_out = numbers(a, p.wide, all), p.grad_x = needed<std::uint16_t>(a, all);
        p.grad_residual = in_.one_in(2) ? numbers(a, p.wide, all) : nullptr;
        p.grad_weight = needed<float>(a, width), p.grad_shift = needed<float>(a, width);
        p.grad_bias = perhaps<float>(a, width);
        compare(in_.one_in(2) ? pb_train_norm : pb_train_norm_gradient, p, a);
    }

    void activation() {
        Arrays a;
        pb_activation_pass p{};
        const std::int64_t all = size(p.rows, p.width), width = all ? p.width : 1000;
        p.is_gelu = in_.one_in(2);
        p.x = needed<std::uint16_t>(a, all), p.bias = needed<float>(a, width), p.out = needed<std::uint16_t>(a, all);
        p.grad_out = needed<std::uint16_t>(a, all), p.grad_x = needed<std::uint16_t>(a, all);
        p.grad_bias = needed<float>(a, width);
        compare(in_.one_in(2) ? pb_train_activation : pb_train_activation_gradient, p, a);
    }

    void attention() {
        Arrays a;
        pb_attention_pass p{};
        std::vector<std::int32_t> starts{0}, keys;
        for (unsigned examples = in_.byte() % 4; examples > 0; --examples) {
            const std::int32_t length = in_.between(1, 70);
            starts.push_back(starts.back() + length), keys.push_back(in_.one_in(2) ? length : in_.between(1, length));
        }
        const std::int64_t rows = starts.back();
        p.heads = in_.between(1, 4), p.depth = in_.between(1, 70), p.dropped = dropped(), p.seed = in_.byte();
        p.group_heads = in_.one_in(2) ? p.heads : in_.number(1, p.heads);
        const std::int64_t of_group = std::int64_t(std::max(1, std::min(p.group_heads, p.heads))) * p.depth;
        const std::int64_t groups = std::int64_t(p.heads) * p.depth / of_group;
        p.group_stride = of_group + in_.between(0, 20);
        const std::int64_t used = (groups - 1) * p.group_stride + of_group;  // of a row
        p.stride = std::max(used, p.group_stride) + in_.between(0, 20);
        // The last row ends with the last head: queries, keys and values may be columns of one array.
        const std::int64_t in = rows ? (rows - 1) * p.stride + used : 0, out = rows * p.heads * p.depth;
        for (std::vector<std::int32_t>* each : {&starts, &keys})  // what is refused
            if (!each->empty() && in_.byte() < 5)
                (*each)[in_.byte() % each->size()] = in_.one_in(2) ? -1 : std::numeric_limits<std::int32_t>::max();
        if (const unsigned byte = in_.byte(); byte < 8) (byte % 2 ? p.stride : p.group_stride) = huge();
        else if (byte < 16) p.stride = p.group_stride = huge();
        if (in_.byte() < 3) p.depth = in_.one_in(2) ? 0 : std::numeric_limits<std::int32_t>::max();
        if (in_.byte() < 3) p.heads = in_.one_in(2) ? 0 : std::numeric_limits<std::int32_t>::max();
        p.examples = in_.byte() < 3 ? -1 : static_cast<std::int64_t>(keys.size());
        starts.shrink_to_fit(), keys.shrink_to_fit(), keys.reserve(1);
        p.starts = is_there() ? starts.data() : nullptr, p.keys = is_there() ? keys.data() : nullptr;
        p.query = needed<std::uint16_t>(a, in), p.key = needed<std::uint16_t>(a, in),
        p.value = needed<std::uint16_t>(a, in);
        p.out = needed<std::uint16_t>(a, out), p.scales = needed<float>(a, rows * std::max(0, std::min(p.heads, 4)));
        p.grad_out = needed<std::uint16_t>(a, out), p.grad_query = needed<std::uint16_t>(a, in);
        p.grad_key = needed<std::uint16_t>(a, in), p.grad_value = needed<std::uint16_t>(a, in);
        compare(in_.one_in(2) ? pb_train_attention : pb_train_attention_gradient, p, a);
    }

    void difference() {
        Arrays a;
        pb_difference_pass p{};
        const std::int64_t all = size(p.rows, p.width);
        p.eps = 1e-6f, p.wide = in_.one_in(2);
        p.own = numbers(a, p.wide, all), p.other = needed<float>(a, all);
        p.gradient = in_.one_in(2) ? numbers(a, p.wide, all) : nullptr;
        p.loss = needed<double>(a, 1);
        compare(pb_train_difference, p, a);
    }

    void adamw() {
        Arrays a;
        std::vector<std::int64_t> sizes;
        std::vector<float*> gradients, weights, means, squares;
        std::vector<std::uint16_t*> copies;
        for (unsigned tensors = in_.byte() % 4; tensors > 0; --tensors) {
            const std::int64_t count = in_.byte() < 3  ? -1
                                       : in_.one_in(8) ? in_.between(0, 40000)
                                                       : in_.between(0, 100);
            sizes.push_back(count);
            for (std::vector<float*>* each : {&gradients, &weights, &means, &squares})
                each->push_back(needed<float>(a, count));
            copies.push_back(perhaps<std::uint16_t>(a, count));
        }
        pb_adamw_pass p{};
        p.count = in_.byte() < 3 ? -1 : static_cast<std::int32_t>(sizes.size());
        p.sizes = sizes.data(), p.gradients = gradients.data(), p.weights = weights.data(), p.means = means.data();
        p.squares = squares.data(), p.copies = in_.one_in(2) ? copies.data() : nullptr;
        p.rate = 1e-3, p.decay = 0.01, p.beta1 = 0.9, p.beta2 = 0.999, p.eps = 1e-8, p.correction1 = 0.1;
        p.correction2 = 0.01, p.scale = 0.5;
        compare(pb_train_adamw, p, a);
        double sum = 0.0, of_one = 0.0;
        pb_team alone = team_;
        alone.threads = 1;
        if (!took(pb_train_square_sum(&team_, &p, in_.byte() < 2 ? nullptr : &sum)) || sum == 0.0) return;
        require(pb_train_square_sum(&alone, &p, &of_one) == PB_OK && std::memcmp(&sum, &of_one, sizeof sum) == 0,
                "a sum depends on the threads");
    }

    Input in_;
    pb_team team_{};
};
