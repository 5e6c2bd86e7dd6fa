/* The C interface used from C: reads a program and a batch from standard input, runs it, and prints the rows of the outputs.
 *
 *     program KERNELS THREADS             columns are BUFFER START WIDTH, or "-" for none
 *     buffer WIDTH LOCAL                  matrices are ROWS WIDTH and their numbers, or "-" for none
 *     lookup TARGET TABLE INDEX ADD
 *     linear SOURCE TARGET WEIGHT BIAS GROUPS ACTIVATION RESIDUAL RESIDUAL_SCALE
 *     linear_s8 SOURCE TARGET WEIGHT SCALES BIAS GROUPS ACTIVATION RESIDUAL RESIDUAL_SCALE
 *     layer_norm SOURCE TARGET WEIGHT BIAS EPS
 *     attention QUERY KEY VALUE TARGET HEADS BFLOAT16
 *     gather SOURCE TARGET SELECTED
 *     run IDS SEGMENTS STARTS SELECTED    matrices of one row
 *     output COLUMNS                      before the run, any number of them
 *
 * What is refused ends it with the reason. It tries first that nothing comes of null pointers but refusals. */
#include <pocketbert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_OUTPUTS = 8 };

static void* kept[64]; /* tables, which must live as long as the program */
static int kept_count;

static void fail(const char* what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static void check(int32_t status) {
    if (status != PB_OK) fail(pb_message());
}

static const char* word(void) {
    static char text[64];
    if (scanf("%63s", text) != 1) fail("a word is missing");
    return text;
}

static int32_t number(void) { return (int32_t)atol(word()); }

static int32_t columns(pb_columns* c) { /* whether there are any */
    const char* first = word();
    if (strcmp(first, "-") == 0) return 0;
    c->buffer = (int32_t)atol(first), c->start = number(), c->width = number();
    return 1;
}

static size_t shape(int64_t* rows, int64_t* width) {
    const char* first = word();
    if (strcmp(first, "-") == 0) return *rows = *width = 0;
    *rows = atol(first), *width = number();
    return (size_t)(*rows * *width) + 1; /* so that an empty one has an address */
}

static void* keep(void* memory) {
    if (!memory || kept_count == sizeof kept / sizeof *kept) fail("too much");
    return kept[kept_count++] = memory;
}

static pb_floats floats(void) {
    pb_floats array = {NULL, 0, 0};
    const size_t size = shape(&array.rows, &array.width);
    float* values = size ? keep(calloc(size, sizeof *values)) : NULL;
    for (size_t i = 0; i + 1 < size; ++i) values[i] = strtof(word(), NULL);
    array.data = values;
    return array;
}

static pb_bytes bytes(void) {
    pb_bytes array = {NULL, 0, 0};
    const size_t size = shape(&array.rows, &array.width);
    int8_t* values = size ? keep(calloc(size, sizeof *values)) : NULL;
    for (size_t i = 0; i + 1 < size; ++i) values[i] = (int8_t)number();
    array.data = values;
    return array;
}

static const int32_t* integers(int64_t* count) {
    int64_t rows;
    const size_t size = shape(&rows, count);
    int32_t* values = size ? keep(calloc(size, sizeof *values)) : NULL;
    for (size_t i = 0; i + 1 < size; ++i) values[i] = number();
    return values;
}

static const char* name(void) { /* as a string of its own: word() has one place for all */
    const char* text = word();
    char* copy = keep(malloc(strlen(text) + 1));
    return strcpy(copy, text);
}

static void add_linear(pb_program* program, int int8) {
    pb_linear step = {.weight = {NULL, 0, 0}};
    pb_columns residual;
    columns(&step.source), columns(&step.target);
    if (int8) step.weight_s8 = bytes(), step.scales = floats();
    else step.weight = floats();
    step.bias = floats(), step.groups = number();
    step.activation = name();
    if (strcmp(step.activation, "-") == 0) step.activation = NULL;
    if (columns(&residual)) step.residual = &residual;
    step.residual_scale = floats();
    check(pb_add_linear(program, &step));
}

static void run(pb_program* program, const pb_columns* wanted, int32_t count) {
    pb_batch batch = {NULL, NULL, 0, NULL, 0, NULL, 0};
    pb_output outputs[MOST_OUTPUTS];
    int64_t segments;
    batch.ids = integers(&batch.tokens), batch.segments = integers(&segments);
    batch.starts = integers(&batch.sequences), --batch.sequences;
    batch.selected = integers(&batch.selected_count);
    if (segments != batch.tokens) fail("every token needs a segment");
    for (int32_t i = 0; i < count; ++i) {
        int32_t rows;
        check(pb_rows_of(program, &wanted[i], &rows));
        outputs[i].columns = wanted[i];
        outputs[i].rows = rows == PB_SEQUENCES                    ? batch.sequences
                          : rows == PB_SELECTED && batch.selected ? batch.selected_count
                                                                  : batch.tokens;
        outputs[i].data = keep(calloc((size_t)(outputs[i].rows * wanted[i].width) + 1, sizeof(float)));
    }
    check(pb_run(program, &batch, outputs, count));
    for (int32_t i = 0; i < count; ++i)
        for (int64_t row = 0; row < outputs[i].rows; ++row) {
            for (int32_t c = 0; c < wanted[i].width; ++c) printf("%a ", outputs[i].data[row * wanted[i].width + c]);
            printf("\n");
        }
}

static void refuse(int32_t status) {
    if (status != PB_INVALID || !*pb_message()) fail("a null pointer is not refused");
}

static void try_null_pointers(void) {
    pb_program* program;
    const pb_columns place = {0, 0, 1};
    int32_t number;
    check(pb_create(NULL, 1, 0, &program));
    refuse(pb_create(NULL, 1, 0, NULL)), refuse(pb_find_kernels(NULL, NULL)), refuse(pb_list_kernels(NULL, 1, &number));
    refuse(pb_measure_peak("portable", NULL, 1, NULL)), refuse(pb_describe(program, NULL));
    refuse(pb_add_buffer(program, 1, 0, NULL)), refuse(pb_add_buffer(NULL, 1, 0, &number));
    refuse(pb_add_lookup(program, NULL)), refuse(pb_add_linear(program, NULL)),
        refuse(pb_add_layer_norm(program, NULL));
    refuse(pb_add_attention(program, NULL)), refuse(pb_add_gather(program, NULL));
    refuse(pb_rows_of(program, NULL, &number)), refuse(pb_rows_of(program, &place, NULL));
    refuse(pb_run(program, NULL, NULL, 0)), refuse(pb_run(NULL, NULL, NULL, 0)),
        refuse(pb_take_times(NULL, 1, &number));
    pb_free(program), pb_free(NULL);
}

static void try_null_pointers_beside_programs(void) {
    pb_vocabulary vocabulary = {"[UNK]", 6, "[UNK]", "##", 100, 1, 1, 1, 1};
    pb_wordpiece* wordpiece = NULL;
    pb_token token;
    int32_t count;
    pb_kernels first;
    const pb_training* training = NULL;
    check(pb_create_wordpiece(&vocabulary, &wordpiece));
    refuse(pb_create_wordpiece(NULL, &wordpiece)), refuse(pb_create_wordpiece(&vocabulary, NULL));
    vocabulary.tokens = NULL, refuse(pb_create_wordpiece(&vocabulary, &wordpiece));
    refuse(pb_add_token(wordpiece, NULL)), refuse(pb_tokenize(NULL, NULL, 0, NULL, 0, &count));
    refuse(pb_tokenize(wordpiece, NULL, 1, &token, 1, &count)),
        refuse(pb_tokenize(wordpiece, NULL, 0, NULL, 1, &count));
    refuse(pb_tokenize(wordpiece, NULL, 0, &token, 1, NULL));
    check(pb_tokenize(wordpiece, NULL, 0, NULL, 0, &count));
    pb_free_wordpiece(wordpiece), pb_free_wordpiece(NULL);

    check(pb_list_kernels(&first, 1, &count));
    refuse(pb_find_training(NULL, &training)), refuse(pb_find_training(first.name, NULL));
    if (pb_find_training(first.name, &training) != PB_OK) return; /* it has none */
    const pb_team team = {training, NULL, 1}, nobody = {NULL, NULL, 1};
    const pb_norm_pass norm = {.rows = 1, .width = 1};
    const pb_activation_pass activation = {.rows = 1, .width = 1};
    const pb_attention_pass attention = {.examples = 1, .heads = 1, .depth = 1, .stride = 1, .group_heads = 1};
    const pb_difference_pass difference = {.rows = 1, .width = 1};
    const pb_adamw_pass adamw = {.count = 1};
    double sum;
#define REFUSE(name, pass)                                                      \
    refuse(pb_train_##name(NULL, &pass)), refuse(pb_train_##name(&team, NULL)), \
        refuse(pb_train_##name(&nobody, &pass)), refuse(pb_train_##name(&team, &pass))
    REFUSE(norm, norm), REFUSE(norm_gradient, norm);
    REFUSE(activation, activation), REFUSE(activation_gradient, activation);
    REFUSE(attention, attention), REFUSE(attention_gradient, attention);
    REFUSE(difference, difference), REFUSE(adamw, adamw);
    refuse(pb_train_square_sum(&team, &adamw, &sum)), refuse(pb_train_square_sum(&team, NULL, &sum));
}

int main(void) {
    pb_program* program = NULL;
    pb_columns wanted[MOST_OUTPUTS];
    int32_t count = 0;
    char command[64];
    if (pb_version() != PB_VERSION) fail("the header is of another version than the library");
    try_null_pointers();
    try_null_pointers_beside_programs();
    while (scanf("%63s", command) == 1) {
        if (strcmp(command, "program") == 0) {
            const char* kernels = name();
            check(pb_create(kernels, number(), 0, &program));
        } else if (strcmp(command, "buffer") == 0) {
            int32_t added;
            const int32_t width = number();
            check(pb_add_buffer(program, width, number(), &added));
        } else if (strcmp(command, "lookup") == 0) {
            pb_lookup step = {.table = {NULL, 0, 0}};
            columns(&step.target), step.table = floats();
            step.index = name(), step.add = number();
            check(pb_add_lookup(program, &step));
        } else if (strcmp(command, "linear") == 0 || strcmp(command, "linear_s8") == 0) {
            add_linear(program, command[6] != '\0');
        } else if (strcmp(command, "layer_norm") == 0) {
            pb_layer_norm step;
            columns(&step.source), columns(&step.target);
            step.weight = floats(), step.bias = floats(), step.eps = strtof(word(), NULL);
            check(pb_add_layer_norm(program, &step));
        } else if (strcmp(command, "attention") == 0) {
            pb_attention step = {.bias = {NULL, 0, 0}};
            columns(&step.query), columns(&step.key), columns(&step.value), columns(&step.target);
            step.heads = number(), step.bfloat16 = number();
            check(pb_add_attention(program, &step));
        } else if (strcmp(command, "gather") == 0) {
            pb_gather step;
            columns(&step.source), columns(&step.target);
            step.selected = number();
            check(pb_add_gather(program, &step));
        } else if (strcmp(command, "output") == 0 && count < MOST_OUTPUTS) {
            columns(&wanted[count++]);
        } else if (strcmp(command, "run") == 0) {
            run(program, wanted, count);
        } else {
            fail(command);
        }
    }
    pb_free(program);
    while (kept_count > 0) free(kept[--kept_count]);
    return 0;
}
