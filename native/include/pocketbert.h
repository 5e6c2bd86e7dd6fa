/* The C interface of PocketBERT's native core: programs, which are built step by step and run on batches of token ids.
 *
 * A program computes rows of floats. It has buffers of so many columns, and steps that read and write columns of buffers;
 * steps run in the order in which they were added. A buffer has a row for every token of a batch, the sequences laid end to
 * end. Steps are those of src/pocketbert/runtime/plan.py; native/tests/interface.c is a complete example.
 *
 * Results. A function that can fail returns PB_OK or another status. Then nothing has changed, nothing was written through
 * its pointers, and pb_message() says why. No exception leaves a function, and whatever it is given is refused or
 * right, as long as its pointers lead to as much memory as they claim.
 *
 * Texts become token ids by a tokeniser, which is independent of programs.
 *
 * Ownership. Steps copy what they are given, except tables of lookups, which stay where they are: their memory must live,
 * unchanged, as long as the program. Strings that are returned live as long as the library, messages until the thread's
 * next call that fails. Arrays may start at any address.
 *
 * Threads. Every function may be called from any thread at any time, with two exceptions: nothing may use a program or a
 * tokeniser while or after it is freed, and a timed program runs in one thread at a time. Calls for the same program take turns. Programs
 * with the same number of threads share them. In the child of a fork, programs of the parent go on working.
 */
#ifndef POCKETBERT_H
#define POCKETBERT_H

#include <stdint.h>

#if !defined(_WIN32)
#define PB_API __attribute__((visibility("default")))
#elif defined(PB_BUILDS_LIBRARY)
#define PB_API __declspec(dllexport)
#else
#define PB_API __declspec(dllimport)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header. It changes with every struct, parameter or meaning, so both sides must have the same. */
#define PB_VERSION 2

PB_API int32_t pb_version(void); /* PB_VERSION of the library */

/* ── results ── */

enum {
    PB_OK = 0,
    PB_INVALID = 1,   /* an argument makes no sense, or not for this program */
    PB_NO_MEMORY = 2, /* there is not enough */
    PB_FAILED = 3     /* anything else; a mistake of the library's or the system's */
};

/* What was wrong with the last call that failed in this thread, in UTF-8, cut after 1000 bytes; "" if none has. */
PB_API const char* pb_message(void);

/* ── kernels ── */

/* A set of kernels: the inner loops of programs for one instruction set. Tolerances are relative to the largest value of a
 * result: how far it may be from that of plain C++, and attention in bfloat16 from exact sums. */
typedef struct pb_kernels {
    const char* name;
    const char* refusal;  /* NULL, or why the system does not let them run, which is all that is told then */
    const char* int8_dot; /* the instruction that multiplies bytes */
    int32_t bf16_attention; /* whether they have attention in bfloat16 */
    float tolerance, attention_tolerance;
} pb_kernels;

/* The sets for this processor, the fastest first, and behind them those that the system refuses. Fills in as many of `sets`
 * as `capacity` allows, and sets `count` to how many there are. */
PB_API int32_t pb_list_kernels(pb_kernels* sets, int32_t capacity, int32_t* count);

/* The set of this name; PB_INVALID if it cannot run here. Unlike a list, it asks the system for nothing that other sets
 * need. */
PB_API int32_t pb_find_kernels(const char* name, pb_kernels* set);

/* Operations per second of a loop of multiply-adds in registers, a multiplication and an addition being two. `arithmetic`
 * is "fp32", "bf16" or "int8"; `rate` becomes 0 where the kernels have no instruction for it. */
PB_API int32_t pb_measure_peak(const char* kernels, const char* arithmetic, int32_t threads, double* rate);

/* ── building a program ── */

typedef struct pb_program pb_program;

/* `kernels` NULL chooses the fastest; `threads`, 1 to 1024, counts the caller's. A timed program has one thread, and its
 * kernels measure themselves for pb_take_times(); there is one set of clocks, and what the last timed program uses. */
PB_API int32_t pb_create(const char* kernels, int32_t threads, int32_t timed, pb_program** program);
PB_API void pb_free(pb_program* program); /* or NULL */

typedef struct pb_description {
    const char* kernels;
    int32_t threads;         /* fewer than were asked for where the system gives no more */
    int64_t workspace_bytes; /* what runs keep for later ones: as much as the largest of them needed */
} pb_description;

PB_API int32_t pb_describe(pb_program* program, pb_description* description);

/* Adds a buffer of `width` columns; `number` becomes its number, counted from 0. A local one lives from one attention or
 * gather to the next, and cannot be an output. */
PB_API int32_t pb_add_buffer(pb_program* program, int32_t width, int32_t local, int32_t* number);

typedef struct pb_columns {
    int32_t buffer, start, width;
} pb_columns;

/* A matrix of `rows` rows laid end to end, or a vector, which has one. `data` NULL is none. */
typedef struct pb_floats {
    const float* data;
    int64_t rows, width;
} pb_floats;

typedef struct pb_bytes {
    const int8_t* data;
    int64_t rows, width;
} pb_bytes;

/* target = table[index], or target + table[index]. Of a table in int8, `scales` [rows] multiply the rows. */
typedef struct pb_lookup {
    pb_columns target;
    pb_floats table;   /* [rows, target.width], or none */
    pb_bytes table_s8; /* then this is there */
    pb_floats scales;
    const char* index; /* "word", "next word", "previous word", "position" or "segment"; zeros beyond a sequence */
    int32_t add;
    const int32_t* uncounted; /* with "position": the id of a word that has position 0, others count from 1; or NULL */
} pb_lookup;

PB_API int32_t pb_add_lookup(pb_program* program, const pb_lookup* step);

/* target = activation(source · weightᵀ + bias) + residual · residual_scale. In int8, rows of the source are rounded by a
 * scale of their own. With an outlier weight, at most one feature of 32, those that would ruin that scale, are multiplied by
 * it in fp32. With groups, group i of the source gives group i of the target. */
typedef struct pb_linear {
    pb_columns source, target;
    const pb_columns* residual; /* or NULL */
    pb_floats weight; /* [target.width, source.width / groups], or none */
    pb_bytes weight_s8; /* then this is there, */
    pb_floats scales; /* [target.width], */
    pb_floats outlier_weight; /* and perhaps this, of the same shape */
    pb_floats bias; /* [target.width] */
    pb_floats residual_scale; /* [target.width], or none for ones */
    int32_t groups;
    /* NULL or "" for none, "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "relu6", "silu", "swish", "tanh";
     * "gelu_to_int8" is GELU to 2e-4, for what is rounded to int8 next. */
    const char* activation;
} pb_linear;

PB_API int32_t pb_add_linear(pb_program* program, const pb_linear* step);

/* target = (source - mean) / sqrt(variance + eps) · weight + bias, of every row. */
typedef struct pb_layer_norm {
    pb_columns source, target;
    pb_floats weight, bias; /* [target.width] */
    float eps;
} pb_layer_norm;

PB_API int32_t pb_add_layer_norm(pb_program* program, const pb_layer_norm* step);

/* Attention within each sequence. The columns are divided among the heads; whoever adds it has scaled the queries. */
typedef struct pb_attention {
    pb_columns query, key, value, target;
    int32_t heads;
    int32_t bfloat16; /* in that precision, if the kernels have it */
    pb_floats bias; /* [heads, 2 * reach + 1], added to scores by the distance from query to key; or none */
} pb_attention;

PB_API int32_t pb_add_attention(pb_program* program, const pb_attention* step);

/* From here on rows are those that the caller of a run selects, or the first of every sequence. */
typedef struct pb_gather {
    pb_columns source, target;
    int32_t selected;
} pb_gather;

PB_API int32_t pb_add_gather(pb_program* program, const pb_gather* step);

/* ── running it ── */

/* Sequence s is ids[starts[s]] to ids[starts[s + 1] - 1]. */
typedef struct pb_batch {
    const int32_t *ids, *segments; /* [tokens] */
    int64_t tokens;
    const int32_t* starts; /* [sequences + 1] */
    int64_t sequences;
    const int32_t* selected; /* [selected_count] numbers of tokens; or NULL, which selects all */
    int64_t selected_count;
} pb_batch;

enum { PB_TOKENS = 0, PB_SEQUENCES = 1, PB_SELECTED = 2 };

/* Which rows an output of these columns has: one per token, sequence or selected token. Later steps do not change it. */
PB_API int32_t pb_rows_of(pb_program* program, const pb_columns* columns, int32_t* rows_of);

typedef struct pb_output {
    pb_columns columns;
    int64_t rows; /* as many as the batch has of those that pb_rows_of() tells */
    float* data; /* [rows, columns.width] are written */
} pb_output;

PB_API int32_t pb_run(pb_program* program, const pb_batch* batch, const pb_output* outputs, int32_t output_count);

/* ── BERT's tokeniser ── */

typedef struct pb_wordpiece pb_wordpiece;

/* Strings are in UTF-8. What the normaliser does, and in which order, are the four steps at the end. */
typedef struct pb_vocabulary {
    const char* tokens; /* a zero byte behind each; the first has the id 0, and an empty one is none */
    int32_t bytes; /* of all tokens, with their zero bytes */
    const char* unknown; /* the token for words that the vocabulary cannot express, "[UNK]" */
    const char* prefix; /* of tokens within a word, "##" */
    int32_t longest_word; /* characters, 100; longer ones are unknown */
    int32_t clean_text, handle_chinese_chars, strip_accents, lowercase; /* or not */
} pb_vocabulary;

PB_API int32_t pb_create_wordpiece(const pb_vocabulary* vocabulary, pb_wordpiece** wordpiece);
PB_API void pb_free_wordpiece(pb_wordpiece* wordpiece); /* or NULL */

/* A token that is found in a text as it is, such as "[SEP]". Of those that start at the same place, the longest. */
typedef struct pb_added_token {
    const char* content;
    int32_t id;
    int32_t normalized; /* found in the text after it was normalised, as the content is */
    int32_t takes_left, takes_right; /* the whitespace beside it */
} pb_added_token;

/* Nothing else may use the tokeniser meanwhile. */
PB_API int32_t pb_add_token(pb_wordpiece* wordpiece, const pb_added_token* token);

/* `start` and `end` are counted in units of the text: two for a character beyond U+FFFF. */
typedef struct pb_token {
    int32_t id, start, end;
} pb_token;

/* The tokens of a text in UTF-16, without those that a model wants around it. Fills in as many as `capacity` allows, and sets
 * `count` to how many there are, perhaps more than units: a syllable of Hangul may be three. Half a character is U+FFFD. */
PB_API int32_t pb_tokenize(const pb_wordpiece* wordpiece, const uint16_t* text, int32_t length, pb_token* tokens,
                           int32_t capacity, int32_t* count);

/* ── times ── */

/* What a kind of kernel took since the last call of pb_take_times(), in timed programs. */
typedef struct pb_time {
    const char* name;
    double seconds;
} pb_time;

/* Fills in as many as `capacity` allows, and sets `count` to how many there are; then all clocks are 0. */
PB_API int32_t pb_take_times(pb_time* times, int32_t capacity, int32_t* count);

/* ── training ── */

/* The parts of a training step in bfloat16 that are not products of weights, each in one pass over its rows, forward and
 * back; sums are fp32 and do not depend on the number of threads. Arrays of rows are contiguous, numbers of 16 bits are
 * bfloat16, and results overlap nothing else. Dropout leaves out `dropped` of 65536 numbers, as functions of `seed`, so that
 * the same values repeat it in the derivative, and multiplies the others accordingly. */

typedef struct pb_training pb_training;

/* The passes of the kernels of this name, which live as long as the library; PB_INVALID where they have none. */
PB_API int32_t pb_find_training(const char* kernels, const pb_training** training);

/* Who computes. `run` calls its first argument with its second in so many threads at once, as GOMP_parallel of an OpenMP
 * library does, so that threads are shared with whoever has it; NULL is the caller alone. */
typedef struct pb_team {
    const pb_training* training;
    void (*run)(void (*work)(void*), void* data, unsigned threads, unsigned flags);
    int32_t threads; /* 1 to 1024 */
} pb_team;

/* out = norm(dropout(x + bias) + residual), and its derivative: with `centres` a layer norm, (sum - mean) / deviation ·
 * weight + shift, and else sum · weight + shift. */
typedef struct pb_norm_pass {
    int64_t rows;
    int32_t width, centres, dropped;
    float eps;
    uint64_t seed;
    int32_t wide; /* whether residual, out and their gradients are floats, and not bfloat16 */
    const uint16_t* x; /* [rows, width] */
    const float* bias; /* [width], or NULL */
    const void* residual; /* [rows, width], or NULL */
    const float *weight, *shift; /* [width] */
    void* out; /* [rows, width] */
    uint16_t* sum; /* [rows, width], for the derivative: what the norm reads, */
    float* stats; /* [rows, 2], and with `centres` each row's mean and 1 / deviation */
    /* Of the derivative alone: */
    const void* grad_out; /* [rows, width] */
    uint16_t* grad_x; /* [rows, width] */
    void* grad_residual; /* [rows, width], or NULL */
    float *grad_weight, *grad_shift; /* [width] */
    float* grad_bias; /* [width], or NULL */
} pb_norm_pass;

PB_API int32_t pb_train_norm(const pb_team* team, const pb_norm_pass* pass);
PB_API int32_t pb_train_norm_gradient(const pb_team* team, const pb_norm_pass* pass);

/* out = activation(x + bias), and its derivative: GELU or ReLU. */
typedef struct pb_activation_pass {
    int64_t rows;
    int32_t width, is_gelu;
    const uint16_t* x; /* [rows, width] */
    const float* bias; /* [width] */
    uint16_t* out; /* [rows, width] */
    /* Of the derivative alone: */
    const uint16_t* grad_out; /* [rows, width] */
    uint16_t* grad_x; /* [rows, width] */
    float* grad_bias; /* [width] */
} pb_activation_pass;

PB_API int32_t pb_train_activation(const pb_team* team, const pb_activation_pass* pass);
PB_API int32_t pb_train_activation_gradient(const pb_team* team, const pb_activation_pass* pass);

/* Attention within examples, and its derivative, with dropout on the probabilities. Of an example's rows, which are
 * queries, the first ones are keys. Queries, keys and values, and their gradients, have rows of `stride` numbers, in which
 * heads lie by groups, `group_stride` numbers from one to the next: all three may be columns of one array. */
typedef struct pb_attention_pass {
    int64_t examples;
    const int32_t* starts; /* [examples + 1] where each example starts among the rows, from 0, and their number */
    const int32_t* keys; /* [examples] how many keys, from 1 to the rows of the example */
    int32_t heads, depth, dropped;
    uint64_t seed;
    int64_t stride, group_stride;
    int32_t group_heads; /* of a group, a divisor of `heads` */
    const uint16_t *query, *key, *value;
    uint16_t* out; /* [rows, heads * depth] */
    float* scales; /* [rows, heads], for the derivative: the logarithm of the sum of the powers, to base 2 */
    /* Of the derivative alone: */
    const uint16_t* grad_out; /* [rows, heads * depth] */
    uint16_t *grad_query, *grad_key, *grad_value;
} pb_attention_pass;

PB_API int32_t pb_train_attention(const pb_team* team, const pb_attention_pass* pass);
PB_API int32_t pb_train_attention_gradient(const pb_team* team, const pb_attention_pass* pass);

/* The squared difference of two rows, each normalised as a layer norm does it without weights, summed over all numbers and
 * divided by the width, and its derivative with respect to the first. */
typedef struct pb_difference_pass {
    int64_t rows;
    int32_t width;
    float eps;
    int32_t wide; /* whether `own` and its gradient are floats, and not bfloat16 */
    const void* own; /* [rows, width] */
    const float* other; /* [rows, width] */
    void* gradient; /* [rows, width], or NULL */
    double* loss; /* one number */
} pb_difference_pass;

PB_API int32_t pb_train_difference(const pb_team* team, const pb_difference_pass* pass);

/* A step of AdamW: m = beta1 · m + (1 - beta1) · g, v = beta2 · v + (1 - beta2) · g², weight = weight · (1 - rate · decay) -
 * rate · (m / correction1) / (sqrt(v / correction2) + eps), where g is the gradient times `scale`. */
typedef struct pb_adamw_pass {
    int32_t count; /* of tensors */
    const int64_t* sizes; /* [count] */
    const float* const* gradients; /* [count], each of `size` numbers, as the following */
    float *const *weights, *const *means, *const *squares;
    uint16_t* const* copies; /* [count], each NULL or where the new weights go in bfloat16 as well; or NULL */
    double rate, decay, beta1, beta2, eps, correction1, correction2, scale;
} pb_adamw_pass;

PB_API int32_t pb_train_adamw(const pb_team* team, const pb_adamw_pass* pass);

/* `sum` becomes the sum of the squares of the gradients, of which nothing else of the pass is read. */
PB_API int32_t pb_train_square_sum(const pb_team* team, const pb_adamw_pass* pass, double* sum);

#ifdef __cplusplus
}
#endif

#endif
