/* Loads the library as a file, as Python does, and runs every kind of step on each of its sets of kernels: results must be
 * close to those of the portable set. Prints the sets, the fastest first, and those that the system refuses, with reasons.
 *
 *     load LIBRARY */
#include <math.h>
#include <pocketbert.h>
#include <stdio.h>
#include <stdlib.h>
#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

enum { WIDTH = 96, WIDE = 4 * WIDTH, WORDS = 23, LONGEST = 60, TOKENS = 101, MOST = 32, NUMBERS = WIDE * WIDTH };

static const float FARTHEST = 0.01f; /* from the portable set, of the largest result: bytes may be rounded otherwise */

static void fail(const char* what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static void* symbol(const char* path, const char* name) {
    static void* library;
#ifdef _WIN32
    if (!library) library = (void*)LoadLibraryA(path);
    void* found = library ? (void*)GetProcAddress((HMODULE)library, name) : NULL;
    if (!found) fprintf(stderr, "%s: error %lu\n", path, (unsigned long)GetLastError());
#else
    if (!library) library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void* found = library ? dlsym(library, name) : NULL;
    if (!found) fprintf(stderr, "%s\n", dlerror());
#endif
    if (!found) exit(1);
    return found;
}

#define FUNCTIONS(DO) \
    DO(version)       \
    DO(message)       \
    DO(list_kernels)  \
    DO(create) DO(free) DO(add_buffer) DO(add_lookup) DO(add_linear) DO(add_layer_norm) DO(add_attention) DO(run)
#define DECLARE(name) __typeof__(pb_##name)* name;
#define LOAD(name) *(void**)&core.name = symbol(path, "pb_" #name);

static struct {
    FUNCTIONS(DECLARE)
} core;

static void load(const char* path) {
    FUNCTIONS(LOAD)
    if (core.version() != PB_VERSION) fail("the header is of another version than the library");
}

static void check(int32_t status) {
    if (status != PB_OK) fail(core.message());
}

/* ── a program of every kind of step ── */

static float floats[NUMBERS], scales[WIDE];
static int8_t bytes[NUMBERS];

static void draw(void) {
    uint32_t state = 1;
    for (int i = 0; i < NUMBERS; ++i) {
        state = state * 1664525u + 1013904223u;
        floats[i] = ((float)(state >> 8) / (1 << 24) - 0.5f) / 4, bytes[i] = (int8_t)((int)(state >> 24) % 255 - 127);
    }
    for (int i = 0; i < WIDE; ++i) scales[i] = 0.0004f + 0.000001f * (float)i;
}

static void add(pb_program* program, int int8, pb_columns source, pb_columns target, int32_t groups,
                const char* activation, const pb_columns* residual) {
    pb_linear step = {.source = source, .target = target, .residual = residual, .groups = groups};
    const int32_t width = source.width / groups;
    if (int8) {
        step.weight_s8 = (pb_bytes){bytes, target.width, width};
        step.scales = (pb_floats){scales, 1, target.width};
    } else {
        step.weight = (pb_floats){floats, target.width, width};
    }
    step.bias = (pb_floats){floats + 7, 1, target.width}, step.activation = activation;
    check(core.add_linear(program, &step));
}

static pb_program* build(const char* kernels) {
    const pb_columns x = {0, 0, WIDTH}, context = {1, 0, WIDTH}, wide = {2, 0, WIDE};
    const pb_lookup word = {.target = x, .table = {floats, WORDS, WIDTH}, .index = "word"};
    const pb_lookup position = {.target = x, .table = {floats + 99, LONGEST, WIDTH}, .index = "position", .add = 1};
    const pb_layer_norm norm = {x, x, {floats + 3, 1, WIDTH}, {floats + 5, 1, WIDTH}, 1e-5f};
    pb_program* program = NULL;
    int32_t number;
    check(core.create(kernels, 2, 0, &program));
    check(core.add_buffer(program, WIDTH, 0, &number)), check(core.add_buffer(program, WIDTH, 0, &number));
    check(core.add_buffer(program, WIDE, 1, &number));
    check(core.add_lookup(program, &word)), check(core.add_lookup(program, &position));
    for (int layer = 0; layer < 2; ++layer) {
        const pb_attention attention = {x, x, x, context, 3, layer == 0, {NULL, 0, 0}};
        check(core.add_layer_norm(program, &norm)), check(core.add_attention(program, &attention));
        add(program, 1, context, x, 1, "tanh", &x);
        add(program, layer == 0, x, wide, layer ? 4 : 1, "gelu", NULL);
        add(program, layer == 0, wide, x, layer ? 4 : 1, "tanh", &x);
    }
    return program;
}

static void run(const char* kernels, float* out) {
    int32_t ids[TOKENS], segments[TOKENS] = {0};
    const int32_t starts[] = {0, 1, 47, TOKENS};
    const pb_batch batch = {ids, segments, TOKENS, starts, 3, NULL, 0};
    const pb_output output = {{0, 0, WIDTH}, TOKENS, out};
    pb_program* program = build(kernels);
    for (int i = 0; i < TOKENS; ++i) ids[i] = i * 5 % WORDS;
    check(core.run(program, &batch, &output, 1));
    core.free(program);
}

int main(int count, char** arguments) {
    static float expected[TOKENS * WIDTH], found[TOKENS * WIDTH];
    pb_kernels sets[MOST];
    int32_t known = 0;
    if (count != 2) fail("which library?");
    load(arguments[1]);
    check(core.list_kernels(sets, MOST, &known));
    draw();
    run("portable", expected);
    for (int32_t set = 0; set < known; ++set) {
        if (sets[set].refusal) {
            printf("%s: refused, %s\n", sets[set].name, sets[set].refusal);
            continue;
        }
        float largest = 0.0f, distance = 0.0f;
        run(sets[set].name, found);
        for (int i = 0; i < TOKENS * WIDTH; ++i) {
            largest = fmaxf(largest, fabsf(expected[i])), distance = fmaxf(distance, fabsf(expected[i] - found[i]));
            if (!isfinite(found[i])) fail("a result is not finite");
        }
        printf("%s: %.2g of the largest result from portable\n", sets[set].name, distance / largest);
        if (!(distance <= FARTHEST * largest)) fail("results are wrong");
    }
    return 0;
}
