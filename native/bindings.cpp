// The Python side: arrays in, arrays out. Types, shapes and layouts of arrays are validated here, their meaning in Program.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <stdexcept>
#include <thread>

#include "kernel_times.h"
#include "peak_flops.h"
#include "program.h"

namespace nb = nanobind;
using namespace pocketbert;

namespace {

template <class T>
using Matrix = nb::ndarray<const T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class T>
using Vector = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using BufferColumns = std::tuple<int, int, int>;  // buffer, start, width

int narrow(std::size_t n) {
    if (n > static_cast<std::size_t>(std::numeric_limits<int>::max() / 8))
        throw std::invalid_argument("an array is too large");
    return static_cast<int>(n);
}

Columns columns(const BufferColumns& c) { return {std::get<0>(c), std::get<1>(c), std::get<2>(c)}; }

template <class T, class Array>
View<T> view_of(const Array& array, int rows, int width) {
    if (reinterpret_cast<std::uintptr_t>(array.data()) % alignof(T) == 0)
        return {array.data(), rows, width, std::make_shared<Array>(array)};
    const auto copy = std::make_shared<std::vector<T>>(array.size());  // a file may have numbers at odd addresses
    std::memcpy(copy->data(), array.data(), array.size() * sizeof(T));
    return {copy->data(), rows, width, copy};
}

template <class T>
View<T> view(const Matrix<T>& array) {
    return view_of<T>(array, narrow(array.shape(0)), narrow(array.shape(1)));
}

template <class T>
View<T> view(const Vector<T>& array) {
    return view_of<T>(array, 1, narrow(array.shape(0)));
}

template <class Array>
View<float> view(const std::optional<Array>& array) {
    return array ? view(*array) : View<float>{};
}

Activation activation(const std::string& name) {
    static const std::map<std::string, Activation> known = {
        {"", Activation::none},
        {"gelu", Activation::gelu},
        {"gelu_to_int8", Activation::gelu_to_int8},
        {"gelu_new", Activation::gelu_tanh},
        {"gelu_fast", Activation::gelu_tanh},
        {"gelu_pytorch_tanh", Activation::gelu_tanh},
        {"relu", Activation::relu},
        {"relu6", Activation::relu6},
        {"silu", Activation::silu},
        {"swish", Activation::silu},
        {"tanh", Activation::tanh},
    };
    const auto entry = known.find(name);
    if (entry == known.end()) throw std::invalid_argument("unknown activation: " + name);
    return entry->second;
}

Index index(const std::string& name) {
    static const std::map<std::string, Index> known = {
        {"word", Index::word},         {"next word", Index::next_word}, {"previous word", Index::previous_word},
        {"position", Index::position}, {"segment", Index::segment},
    };
    const auto entry = known.find(name);
    if (entry == known.end()) throw std::invalid_argument("unknown index: " + name);
    return entry->second;
}

// One pool per number of threads, shared by all programs. The child of a fork has no threads, so it gets new pools; the
// old ones, whose threads exist in the parent only, are never destroyed.
std::shared_ptr<Pool> shared_pool(int threads) {
    static std::map<std::pair<int, int>, std::shared_ptr<Pool>>& pools =
        *new std::map<std::pair<int, int>, std::shared_ptr<Pool>>;
    if (threads < 1 || threads > 1024) throw std::invalid_argument("threads must be from 1 to 1024");
    std::shared_ptr<Pool>& pool = pools[{process_id(), threads}];
    if (!pool) pool = std::make_shared<Pool>(threads);
    return pool;
}

// An array that must have the type and layout of the parameter: nothing is converted silently.
auto unconverted(const char* name) { return nb::arg(name).noconvert(); }

// The mutex that a call must hold. The GIL is held here, so that no two threads of a forked child reset the program.
std::mutex& mutex_of(Program& program) {
    if (!program.pool()->is_of_this_process()) program.reset_after_fork(shared_pool(program.pool()->threads()));
    return program.mutex();
}

// A method that adds to the program; it waits until the program is not running.
template <class... Arguments>
auto building(void (*add)(Program&, Arguments...)) {
    return [add](Program& program, Arguments... arguments) {
        const std::lock_guard<std::mutex> turn(mutex_of(program));
        add(program, std::move(arguments)...);
    };
}

const Kernels& named_kernels(const std::string& name) {
    if (const Kernels* const kernels = find_kernels(name)) return *kernels;
    std::string names;
    for (const Kernels* kernels : available_kernels()) names += std::string(names.empty() ? "" : ", ") + kernels->name;
    throw std::invalid_argument("no kernels " + name + " on this processor, which has " + names);
}

std::unique_ptr<Program> make_program(int threads, const std::optional<std::string>& name) {
    const Kernels& kernels = name ? named_kernels(*name) : *available_kernels().front();
    return std::make_unique<Program>(kernels, shared_pool(threads));
}

std::unique_ptr<Program> make_timed_program(const std::string& kernels) {
    return std::make_unique<Program>(timed(named_kernels(kernels)), shared_pool(1));
}

// Releases the GIL, until Python exits: then Python ends a daemon thread that acquires the GIL, and with it the whole
// process, as C++ cannot be left so. Therefore the exit waits for the threads that run, and later ones keep the GIL, which
// guards the counters here.
class WithoutGil {
public:
    WithoutGil() {
        if (closing) return;
        if (process != process_id()) running = 0;  // the threads of a fork's parent
        process = process_id();
        ++running;
        release_.emplace();
    }
    ~WithoutGil() {
        if (!release_) return;
        release_.reset();
        --running;
    }
    WithoutGil(const WithoutGil&) = delete;
    WithoutGil& operator=(const WithoutGil&) = delete;

    static void close() {
        closing = true;
        while (running > 0 && process == process_id()) {
            const nb::gil_scoped_release release;
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
    }

private:
    inline static bool closing = false;
    inline static int running = 0;
    inline static int process = 0;
    std::optional<nb::gil_scoped_release> release_;
};

nb::list run(Program& program, const Vector<std::int32_t>& ids, const Vector<std::int32_t>& segments,
             const Vector<std::int32_t>& starts, const std::vector<BufferColumns>& outputs,
             const std::optional<Vector<std::int32_t>>& selected_rows) {
    if (segments.shape(0) != ids.shape(0)) throw std::invalid_argument("every token needs a segment");
    if (starts.shape(0) < 1) throw std::invalid_argument("starts must have one entry more than there are sequences");
    std::vector<std::unique_ptr<float[]>> data;
    std::vector<std::pair<std::size_t, std::size_t>> shapes;
    {
        const auto token_ids = view(ids), segment_ids = view(segments), begins = view(starts);
        const auto rows = selected_rows ? view(*selected_rows) : View<std::int32_t>{};
        std::mutex& mutex = mutex_of(program);
        const WithoutGil release;
        const std::lock_guard<std::mutex> turn(mutex);
        program.run(token_ids.data, segment_ids.data, token_ids.width, begins.data, begins.width - 1, rows.data,
                    rows.width);
        for (const BufferColumns& output : outputs) {
            const Columns c = columns(output);
            const auto count = static_cast<std::size_t>(program.rows(c));
            shapes.emplace_back(count, static_cast<std::size_t>(c.width));
            data.emplace_back(new float[count * shapes.back().second + 1]);
            program.read(c, data.back().get());
        }
    }
    nb::list arrays;
    for (std::size_t i = 0; i < data.size(); ++i) {
        nb::capsule owner(data[i].get(), [](void* p) noexcept { delete[] static_cast<float*>(p); });
        float* const values = data[i].release();
        const std::size_t shape[] = {shapes[i].first, shapes[i].second};
        arrays.append(nb::ndarray<nb::numpy, float>(values, 2, shape, owner));
    }
    return arrays;
}

PeakLoop peak_loop(const Kernels& kernels, const std::string& arithmetic) {
    if (arithmetic == "fp32") return kernels.peak_f32;
    if (arithmetic == "bf16") return kernels.peak_bf16;
    if (arithmetic == "int8") return kernels.peak_s8;
    throw std::invalid_argument("unknown arithmetic: " + arithmetic);
}

std::optional<double> peak_flops(const std::string& arithmetic, int threads, const std::string& name) {
    const Kernels& kernels = named_kernels(name);
    const PeakLoop loop = peak_loop(kernels, arithmetic);
    const std::shared_ptr<Pool> pool = shared_pool(threads);
    if (!loop) return std::nullopt;
    const WithoutGil release;
    return operations_per_second(*pool, kernels, loop);
}

}  // namespace

NB_MODULE(_core, m) {
    m.doc() = "Runs plans natively; see pocketbert.runtime.engine.";
    nb::set_leak_warnings(false);  // a daemon thread may keep a program until the end
    nb::module_::import_("atexit").attr("register")(nb::cpp_function(&WithoutGil::close));
    nb::class_<Kernels>(m, "Capabilities")
        .def_prop_ro("bf16_attention", [](const Kernels& k) { return k.bf16_attention != nullptr; })
        .def_prop_ro("int8_dot", [](const Kernels& k) { return k.int8_dot; })
        .def_prop_ro("tolerance", [](const Kernels& k) { return k.tolerance; })
        .def_prop_ro("attention_tolerance",
                     [](const Kernels& k) { return k.bf16_attention ? k.bf16_attention->tolerance : k.tolerance; });
    m.def("capabilities", &named_kernels, nb::arg("kernels"), nb::rv_policy::reference);
    m.def("peak_flops", &peak_flops, nb::arg("arithmetic"), nb::arg("threads"), nb::arg("kernels"));
    m.def("timed_program", &make_timed_program, nb::arg("kernels"));
    m.def("take_kernel_times", &take_kernel_times);
    m.def("available_kernels", [] {
        std::vector<std::string> names;
        for (const Kernels* kernels : available_kernels()) names.emplace_back(kernels->name);
        return names;
    });
    m.def("refused_kernels", [] {
        std::vector<std::pair<std::string, std::string>> refused;
        for (const Refusal& each : refused_kernels()) refused.emplace_back(each.kernels, each.reason);
        return refused;
    });
    nb::class_<Program>(m, "Program")
        .def(nb::new_(&make_program), nb::arg("threads"), nb::arg("kernels") = nb::none())
        .def_prop_ro("kernels", &Program::kernels)
        .def_prop_ro("workspace_bytes",
                     [](Program& p) {
                         const std::lock_guard<std::mutex> turn(mutex_of(p));
                         return p.workspace_bytes();
                     })
        .def(
            "buffer",
            [](Program& p, int width, bool local) {
                const std::lock_guard<std::mutex> turn(mutex_of(p));
                return p.buffer(width, local);
            },
            nb::arg("width"), nb::arg("local"))
        .def("lookup",
             building(+[](Program& p, BufferColumns target, Matrix<float> table, const std::string& which, bool add,
                          std::optional<int> uncounted) {
                 p.lookup(columns(target), view(table), index(which), add, uncounted.value_or(-1));
             }),
             nb::arg("target"), unconverted("table"), nb::arg("index"), nb::arg("add"),
             nb::arg("uncounted") = nb::none())
        .def("lookup_s8",
             building(+[](Program& p, BufferColumns target, Matrix<std::int8_t> table, Vector<float> scales,
                          const std::string& which, bool add, std::optional<int> uncounted) {
                 p.lookup_s8(columns(target), view(table), view(scales), index(which), add, uncounted.value_or(-1));
             }),
             nb::arg("target"), unconverted("table"), unconverted("table_scales"), nb::arg("index"), nb::arg("add"),
             nb::arg("uncounted") = nb::none())
        .def("linear",
             building(+[](Program& p, BufferColumns source, BufferColumns target, Matrix<float> weight,
                          Vector<float> bias, int groups, const std::string& act, std::optional<BufferColumns> residual,
                          std::optional<Vector<float>> scale) {
                 const Columns r = residual ? columns(*residual) : Columns{};
                 p.linear(columns(source), columns(target), view(weight), view(bias), groups, activation(act),
                          residual ? &r : nullptr, view(scale));
             }),
             nb::arg("source"), nb::arg("target"), unconverted("weight"), unconverted("bias"), nb::arg("groups"),
             nb::arg("activation"), nb::arg("residual").none(), unconverted("residual_scale").none())
        .def("linear_s8",
             building(+[](Program& p, BufferColumns source, BufferColumns target, Matrix<std::int8_t> weight,
                          Vector<float> scales, Vector<float> bias, int groups, const std::string& act,
                          std::optional<BufferColumns> residual, std::optional<Vector<float>> scale,
                          std::optional<Matrix<float>> outlier_weight) {
                 const Columns r = residual ? columns(*residual) : Columns{};
                 p.linear_s8(columns(source), columns(target), view(weight), view(scales), view(bias), groups,
                             activation(act), residual ? &r : nullptr, view(scale), view(outlier_weight));
             }),
             nb::arg("source"), nb::arg("target"), unconverted("weight"), unconverted("weight_scales"),
             unconverted("bias"), nb::arg("groups"), nb::arg("activation"), nb::arg("residual").none(),
             unconverted("residual_scale").none(), unconverted("outlier_weight").none())
        .def("layer_norm",
             building(
                 +[](Program& p, BufferColumns source, BufferColumns target, Vector<float> weight, Vector<float> bias,
                     float eps) { p.layer_norm(columns(source), columns(target), view(weight), view(bias), eps); }),
             nb::arg("source"), nb::arg("target"), unconverted("weight"), unconverted("bias"), nb::arg("eps"))
        .def("attention",
             building(+[](Program& p, BufferColumns query, BufferColumns key, BufferColumns value, BufferColumns target,
                          int heads, bool bfloat16, std::optional<Matrix<float>> bias) {
                 p.attention(columns(query), columns(key), columns(value), columns(target), heads, bfloat16,
                             view(bias));
             }),
             nb::arg("query"), nb::arg("key"), nb::arg("value"), nb::arg("target"), nb::arg("heads"),
             nb::arg("bfloat16"), unconverted("bias") = nb::none())
        .def("gather", building(+[](Program& p, BufferColumns source, BufferColumns target, bool selected) {
                 p.gather(columns(source), columns(target), selected);
             }),
             nb::arg("source"), nb::arg("target"), nb::arg("selected"))
        .def("run", &run, unconverted("ids"), unconverted("segments"), unconverted("starts"), nb::arg("outputs"),
             unconverted("selected_rows") = nb::none());
}
