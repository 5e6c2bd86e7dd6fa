// The Python side: arrays in, arrays out; every array's type, shape and layout is checked here, its sense in Program.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
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

#include "executor.h"
#include "limit.h"

namespace nb = nanobind;
using namespace pocketbert;

namespace {

template <class T>
using Matrix = nb::ndarray<const T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class T>
using Vector = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Place = std::tuple<int, int, int>;  // buffer, start, width

int narrow(std::size_t n) {
    if (n > static_cast<std::size_t>(std::numeric_limits<int>::max() / 8)) throw std::invalid_argument("an array is too large");
    return static_cast<int>(n);
}

Columns columns(const Place& place) { return {std::get<0>(place), std::get<1>(place), std::get<2>(place)}; }

template <class T, class Array>
View<T> view_of(const Array& array, int rows, int width) {
    if (reinterpret_cast<std::uintptr_t>(array.data()) % alignof(T) == 0)
        return {array.data(), rows, width, std::make_shared<Array>(array)};
    const auto copy = std::make_shared<std::vector<T>>(array.size());  // a file may hold numbers at odd addresses
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
        {"", Activation::none}, {"gelu", Activation::gelu}, {"gelu_new", Activation::gelu_tanh},
        {"gelu_fast", Activation::gelu_tanh}, {"gelu_pytorch_tanh", Activation::gelu_tanh}, {"relu", Activation::relu},
        {"relu6", Activation::relu6}, {"silu", Activation::silu}, {"swish", Activation::silu}, {"tanh", Activation::tanh},
    };
    const auto found = known.find(name);
    if (found == known.end()) throw std::invalid_argument("unknown activation: " + name);
    return found->second;
}

Index index(const std::string& name) {
    static const std::map<std::string, Index> known = {
        {"word", Index::word}, {"next word", Index::next_word}, {"previous word", Index::previous_word},
        {"position", Index::position}, {"segment", Index::segment},
    };
    const auto found = known.find(name);
    if (found == known.end()) throw std::invalid_argument("unknown index: " + name);
    return found->second;
}

// One pool a number of threads, shared by all programs. The child of a fork has no threads, so it gets new pools; the
// old ones, whose threads stayed behind, are never destroyed.
std::shared_ptr<Pool> shared_pool(int threads) {
    static std::map<std::pair<int, int>, std::shared_ptr<Pool>>& pools =
        *new std::map<std::pair<int, int>, std::shared_ptr<Pool>>;
    if (threads < 1 || threads > 1024) throw std::invalid_argument("threads must be from 1 to 1024");
    std::shared_ptr<Pool>& pool = pools[{process_id(), threads}];
    if (!pool) pool = std::make_shared<Pool>(threads);
    return pool;
}

// An array that must be of the type and layout asked for: nothing is converted behind anybody's back.
auto exact(const char* name) { return nb::arg(name).noconvert(); }

// What a call must hold. The GIL is held here, so that no two threads of a forked child start the program anew.
std::mutex& mutex_of(Program& program) {
    if (!program.pool()->is_of_this_process()) program.start_anew(shared_pool(program.pool()->threads()));
    return program.mutex();
}

// A method that adds to the program; it waits until nobody runs it.
template <class... Arguments>
auto building(void (*add)(Program&, Arguments...)) {
    return [add](Program& program, Arguments... arguments) {
        const std::lock_guard<std::mutex> turn(mutex_of(program));
        add(program, std::move(arguments)...);
    };
}

std::unique_ptr<Program> make(int threads, const std::optional<std::string>& kernels) {
    std::string names;
    for (const Kernels* found : available_kernels()) {
        if (!kernels || *kernels == found->name) return std::make_unique<Program>(*found, shared_pool(threads));
        names += std::string(names.empty() ? "" : ", ") + found->name;
    }
    throw std::invalid_argument("there are no kernels " + *kernels + " here, but " + names);
}

// Lets other threads have the GIL, until Python exits: it ends a daemon thread that asks for the GIL then, and with it
// the whole process, as C++ cannot be left so. Therefore the exit waits for those that run, and later ones keep the GIL,
// which guards what is counted here.
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
             const Vector<std::int32_t>& starts, const std::vector<Place>& outputs,
             const std::optional<Vector<std::int32_t>>& asked) {
    if (segments.shape(0) != ids.shape(0)) throw std::invalid_argument("there is a segment for every token");
    if (starts.shape(0) < 1) throw std::invalid_argument("starts has an entry more than there are sequences");
    std::vector<std::unique_ptr<float[]>> data;
    std::vector<std::pair<std::size_t, std::size_t>> shapes;
    {
        const auto words = view(ids), kinds = view(segments), begins = view(starts);
        const auto rows = asked ? view(*asked) : View<std::int32_t>{};
        std::mutex& mutex = mutex_of(program);
        const WithoutGil release;
        const std::lock_guard<std::mutex> turn(mutex);
        program.run(words.data, kinds.data, words.width, begins.data, begins.width - 1, rows.data, rows.width);
        for (const Place& place : outputs) {
            const Columns c = columns(place);
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

std::optional<double> limit(const std::string& arithmetic, int threads, const std::string& kernels) {
    static const std::map<std::string, Arithmetic> known = {
        {"fp32", Arithmetic::f32}, {"bf16", Arithmetic::bf16}, {"int8", Arithmetic::s8}};
    const auto found = known.find(arithmetic);
    if (found == known.end()) throw std::invalid_argument("unknown arithmetic: " + arithmetic);
    Loop loop = nullptr;
    for (const Kernels* one : available_kernels())
        if (kernels == one->name) loop = find_loop(*one, found->second);
    if (!loop) return std::nullopt;
    const std::shared_ptr<Pool> pool = shared_pool(threads);
    const WithoutGil release;
    return operations_a_second(*pool, loop);
}

}  // namespace

NB_MODULE(_core, m) {
    m.doc() = "Runs plans natively; see pocketbert.runtime.engine.";
    nb::set_leak_warnings(false);  // a daemon thread may hold a program to the end
    nb::module_::import_("atexit").attr("register")(nb::cpp_function(&WithoutGil::close));
    m.def("limit", &limit, nb::arg("arithmetic"), nb::arg("threads"), nb::arg("kernels"));
    m.def("available_kernels", [] {
        std::vector<std::string> names;
        for (const Kernels* kernels : available_kernels()) names.emplace_back(kernels->name);
        return names;
    });
    nb::class_<Program>(m, "Program")
        .def(nb::new_(&make), nb::arg("threads"), nb::arg("kernels") = nb::none())
        .def_prop_ro("kernels", &Program::kernels)
        .def_prop_ro("workspace_bytes", [](Program& p) {
            const std::lock_guard<std::mutex> turn(mutex_of(p));
            return p.workspace_bytes();
        })
        .def("buffer", [](Program& p, int width, bool local) {
            const std::lock_guard<std::mutex> turn(mutex_of(p));
            return p.buffer(width, local);
        }, nb::arg("width"), nb::arg("local"))
        .def("lookup", building(+[](Program& p, Place target, Matrix<float> table, const std::string& which, bool add) {
            p.lookup(columns(target), view(table), index(which), add);
        }), nb::arg("target"), exact("table"), nb::arg("index"), nb::arg("add"))
        .def("lookup_s8", building(+[](Program& p, Place target, Matrix<std::int8_t> table, Vector<float> scales,
                             const std::string& which, bool add) {
            p.lookup_s8(columns(target), view(table), view(scales), index(which), add);
        }), nb::arg("target"), exact("table"), exact("table_scales"), nb::arg("index"), nb::arg("add"))
        .def("linear", building(+[](Program& p, Place source, Place target, Matrix<float> weight, Vector<float> bias, int groups,
                          const std::string& act, std::optional<Place> residual, std::optional<Vector<float>> scale) {
            const Columns r = residual ? columns(*residual) : Columns{};
            p.linear(columns(source), columns(target), view(weight), view(bias), groups, activation(act),
                     residual ? &r : nullptr, view(scale));
        }), nb::arg("source"), nb::arg("target"), exact("weight"), exact("bias"), nb::arg("groups"),
           nb::arg("activation"), nb::arg("residual").none(), exact("residual_scale").none())
        .def("linear_s8", building(+[](Program& p, Place source, Place target, Matrix<std::int8_t> weight, Vector<float> scales,
                             Vector<float> bias, int groups, const std::string& act, std::optional<Place> residual,
                             std::optional<Vector<float>> scale, std::optional<Matrix<float>> exact) {
            const Columns r = residual ? columns(*residual) : Columns{};
            p.linear_s8(columns(source), columns(target), view(weight), view(scales), view(bias), groups,
                        activation(act), residual ? &r : nullptr, view(scale), view(exact));
        }), nb::arg("source"), nb::arg("target"), exact("weight"), exact("weight_scales"), exact("bias"),
           nb::arg("groups"), nb::arg("activation"), nb::arg("residual").none(), exact("residual_scale").none(),
           exact("exact").none())
        .def("layer_norm", building(+[](Program& p, Place source, Place target, Vector<float> weight, Vector<float> bias, float eps) {
            p.layer_norm(columns(source), columns(target), view(weight), view(bias), eps);
        }), nb::arg("source"), nb::arg("target"), exact("weight"), exact("bias"), nb::arg("eps"))
        .def("attention", building(+[](Program& p, Place query, Place key, Place value, Place target, int heads, bool bfloat16) {
            p.attention(columns(query), columns(key), columns(value), columns(target), heads, bfloat16);
        }))
        .def("pick", building(+[](Program& p, Place source, Place target, bool asked) {
            p.pick(columns(source), columns(target), asked);
        }), nb::arg("source"), nb::arg("target"), nb::arg("asked"))
        .def("run", &run, exact("ids"), exact("segments"), exact("starts"), nb::arg("outputs"),
             exact("asked") = nb::none());
}
