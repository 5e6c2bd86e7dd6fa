/** What a model can be asked: for each task, how an input becomes features and outputs a result. */
import * as decode from "./decode.js";
import { PocketBertError, checkAborted } from "./errors.js";
import { Encoder, checked, merged, weightedMean, type Part, type QuestionOptions, type TextPair } from "./features.js";
import type { Features, Matrix, Model, Outputs } from "./model.js";
import { WordPiece } from "./wordpiece.js";

export interface ClassifyOptions {
  /** So many labels, best first. */
  topK?: number;
  /** What makes scores of logits, where it is not what the model's kind of problem asks for. */
  function?: decode.ScoreFunction;
  /** Texts that are longer than the model's input are read whole, in windows; otherwise their ends are ignored. */
  windows?: boolean;
  /** With less confidence there is no answer: the label null. */
  minConfidence?: number;
  /** Fraction of texts to answer, as measured on held-out examples; the label of less confident texts is null. */
  answerShare?: number;
  /** A list of labels among which the right one is with such a probability. */
  conformal?: number;
}

export interface TagOptions {
  /** How tokens become entities: "simple" by default, "none" for single tokens. */
  aggregation?: decode.Aggregation;
  /** Types or tags that are left out: "O" by default. */
  ignored?: readonly string[];
}

export interface AnswerOptions extends QuestionOptions {
  topK?: number;
  /** Whether "no answer" competes, as the empty answer. */
  impossible?: boolean;
  /** By how much "no answer" must beat the best one. */
  nullThreshold?: number;
  /** Tokens of an answer: 30 by default. */
  maxAnswerLength?: number;
  /** Whether answers begin and end with a word: true by default. */
  alignToWords?: boolean;
}

export interface FillOptions {
  topK?: number;
  /** The words to choose among, each a single token of the vocabulary. */
  targets?: readonly string[];
}

export interface EmbedOptions {
  /** What the model declares, by default; or how vectors of tokens become one. */
  pooling?: "declared" | decode.Pooling;
  /** Whether the vector gets length 1, where the model does not declare it. */
  normalize?: boolean;
  /** Is put before each text. */
  prompt?: string;
  /** The name of a prompt that the model declares. */
  promptName?: string;
  /** How many numbers of a vector are kept. */
  dimensions?: number;
  /** As for classification. */
  windows?: boolean;
}

export interface Question {
  question: string;
  context: string;
}

export interface Choices {
  prompt: string;
  choices: readonly string[];
}

/** A word for a mask; `text` is the input with it. */
export interface Fill {
  word: string;
  token: number;
  score: number;
  text: string;
}

interface Job<State> {
  features: readonly Features[];
  state: State;
  cut?: boolean;
}

interface Task<Input, Options, Result, State = any> {
  heads: readonly string[];
  encode(asker: Asker, input: Input, options: Options): Job<State>;
  read(asker: Asker, input: Input, options: Options, outputs: readonly Outputs[], state: State): Result;
}

/** A model that is asked, in this thread. */
export class Asker {
  readonly encoder: Encoder;

  constructor(
    readonly model: Model,
    readonly pieces: WordPiece,
  ) {
    const { tokenizer } = model.description;
    this.encoder = new Encoder(this.pieces, Math.min(tokenizer.max_length, model.maxTokens));
  }

  /** The results of inputs, and how many of them were cut. Other work of the thread gets its turn between runs. */
  async ask(name: TaskName, inputs: readonly any[], options: any, signal?: AbortSignal): Promise<Asked> {
    const task: Task<any, any, any> = TASKS[name];
    const { head, model } = this.model.description;
    if (!task.heads.includes(head)) {
      throw new PocketBertError("model", `${name} needs a model with the head ${task.heads.join(" or ")}; this is a ${model}`);
    }
    checkAborted(signal);
    const results: unknown[] = [];
    let cut = 0;
    let waiting: { input: unknown; job: Job<any> }[] = [];
    const flush = async () => {
      const outputs: Outputs[] = [];
      for (const batch of this.model.batches(waiting.flatMap(({ job }) => job.features))) {
        if (outputs.length || results.length) await turn();
        checkAborted(signal);
        outputs.push(...this.model.run(batch));
      }
      let at = 0;
      for (const { input, job } of waiting) {
        const own = outputs.slice(at, (at += job.features.length));
        results.push(task.read(this, input, options, own, job.state));
      }
      waiting = [];
    };
    for (const [position, input] of inputs.entries()) {
      try {
        waiting.push({ input, job: task.encode(this, input, options) });
      } catch (error) {
        if (!(error instanceof PocketBertError) || inputs.length === 1) throw error;
        throw new PocketBertError(error.reason, `input ${position}: ${error.message}`, { cause: error });
      }
      if (waiting[waiting.length - 1].job.cut) cut++;
      if (waiting.reduce((sum, one) => sum + one.job.features.length, 0) >= 16) await flush();
    }
    await flush();
    return { results, cut };
  }
}

export interface Asked {
  results: unknown[];
  cut: number;
}

/** Lets other work of this thread run, such as an event that aborts. */
function turn(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

function matrix(output: Outputs, name: string): Matrix {
  const found = output[name];
  if (!found) throw new PocketBertError("model", `the model has no output ${name}, only ${Object.keys(output).join(", ")}`);
  return found;
}

// ── tasks ──

const classify: Task<string | TextPair, ClassifyOptions, decode.Decision | decode.Label[], Part[] | null> = {
  heads: ["ForSequenceClassification"],

  encode({ encoder }, input, options) {
    if (options.windows) {
      const parts = encoder.windows(input);
      return { features: parts.map((part) => part.features), state: parts };
    }
    const one = encoder.text(input);
    return { features: [one], state: null, cut: one.cut };
  },

  read({ model: { description } }, _, options, outputs, parts) {
    const rows = outputs.map((output) => matrix(output, "logits").data);
    const scores = decode.labelScores(parts ? weightedMean(parts, rows) : rows[0], description.problem_type, options.function);
    const { topK } = options;
    requireCount("topK", topK);
    const rule = ruleOf(description, options);
    if (rule) return decode.decide(rule, scores, description.labels);
    const found = decode.labels(scores, description.labels, topK ?? 1);
    return topK === undefined ? found[0] : found;
  },
};

function ruleOf(description: Model["description"], options: ClassifyOptions): decode.Rule | undefined {
  const { minConfidence, answerShare, conformal } = options;
  const asked = Object.entries({ minConfidence, answerShare, conformal }).filter(([, value]) => value !== undefined);
  const ranked = options.topK !== undefined || options.function !== undefined;
  if (!asked.length) return description.thresholds && !ranked ? { thresholds: description.thresholds } : undefined;
  if (asked.length > 1) throw new PocketBertError("input", `pass one of ${asked.map(([name]) => name).join(", ")}`);
  if (ranked) throw new PocketBertError("input", "topK and function cannot be combined with a decision: leave them out");
  const [[name, value]] = asked as [string, number][];
  if (!(value >= 0 && value <= 1)) throw new PocketBertError("input", `${name} ${value} must be a number from 0 to 1`);
  const single = !["regression", "multi_label_classification"].includes(description.problem_type ?? "");
  if (description.labels.length < 2 || !single) {
    throw new PocketBertError("input", `${name} is for models with exactly one label per text, which this one is not`);
  }
  if (name === "minConfidence") return { confidence: value };
  const levels = description.calibration?.[name === "conformal" ? "conformal" : "answer_share"];
  const level = Object.keys(levels ?? {}).find((one) => Number(one) === value);
  if (level === undefined) {
    const known = Object.keys(levels ?? {}).join(", ");
    const why = known ? `states none for ${value}, only for ${known}` : "states none: finetune writes them with --calibrate";
    throw new PocketBertError("input", `${name} needs a threshold, and the model ${why}`);
  }
  return name === "answerShare" ? { confidence: levels![level] } : { member: levels![level] };
}

const tag: Task<string, TagOptions, decode.Entity[], ReturnType<Encoder["tokens"]>> = {
  heads: ["ForTokenClassification"],

  encode({ encoder }, text) {
    const [whole, parts] = encoder.tokens(text);
    return { features: parts.map((part) => part.features), state: [whole, parts] };
  },

  read({ model, pieces }, text, options, outputs, [whole, parts]) {
    const { words, options: tokenizer } = pieces;
    return decode.entities(merged(parts, outputs.map((one) => matrix(one, "logits"))), whole, {
      aggregation: options.aggregation ?? "simple",
      ignored: options.ignored ?? ["O"],
      labels: model.description.labels,
      join: (names) => joined(names, tokenizer.prefix),
      // An unknown word is shown as it is in the text.
      names: Array.from(whole.ids, (id, i) =>
        id === tokenizer.unknown ? text.slice(whole.starts[i], whole.ends[i]) : words[id],
      ),
    });
  },
};

const answer: Task<Question, AnswerOptions, decode.Answer | decode.Answer[], ReturnType<Encoder["question"]>> = {
  heads: ["ForQuestionAnswering"],

  encode({ encoder }, { question, context }, options) {
    const windows = encoder.question(question, context, options);
    return { features: windows, state: windows };
  },

  read({ pieces }, { context }, options, outputs, windows) {
    const { topK = 1, maxAnswerLength = 30 } = options;
    requireCount("topK", topK);
    requireCount("maxAnswerLength", maxAnswerLength);
    const logits = outputs.map((one) => ({ start: matrix(one, "start_logits").data, end: matrix(one, "end_logits").data }));
    const spans = decode.spans(windows, logits, Math.max(20, topK), maxAnswerLength);
    const nothing = options.impossible ? decode.nullLogit(logits) : undefined;
    let found = decode.answers(spans, context, nothing, options.nullThreshold);
    if (options.alignToWords ?? true) found = aligned(found, context, pieces);
    return topK === 1 ? found[0] : found.slice(0, topK);
  },
};

/** Answers that begin and end with a word of the tokenizer, those of the same place as one. */
function aligned(answers: readonly decode.Answer[], context: string, pieces: WordPiece): decode.Answer[] {
  const found = new Map<string, decode.Answer>();
  for (const one of answers) {
    const [start, end] = wordsAround(context, one.start, one.end, pieces);
    const known = found.get(`${start} ${end}`);
    if (known) known.score += one.score;
    else found.set(`${start} ${end}`, { answer: context.slice(start, end), score: one.score, start, end });
  }
  const ranked = [...found.values()].sort((one, other) => other.score - one.score);
  // The empty answer is first, or not, by its threshold.
  const first = ranked.find((one) => !one.answer === !answers[0].answer)!;
  return [first, ...ranked.filter((one) => one !== first)];
}

const SPACES = [" ", "\n", "\t", "\r"];

/** Where the words begin and end of which the characters `start` to `end` are parts. */
function wordsAround(context: string, start: number, end: number, pieces: WordPiece): [number, number] {
  if (start === end) return [start, end];
  const first = start ? Math.max(...SPACES.map((space) => context.lastIndexOf(space, start - 1))) + 1 : 0;
  const stops = SPACES.map((space) => context.indexOf(space, end)).filter((place) => place >= 0);
  const found = pieces.pieces(context.slice(first, stops.length ? Math.min(...stops) : context.length));
  const wordAt = (place: number): [number, number] | undefined => {
    const token = found.ids.findIndex((_, i) => found.starts[i] <= place && place < found.ends[i]);
    if (token < 0) return undefined;
    const own = found.ids.flatMap((_, i) => (found.words[i] === found.words[token] ? [i] : []));
    return [first + found.starts[own[0]], first + found.ends[own[own.length - 1]]];
  };
  return [wordAt(start - first)?.[0] ?? start, wordAt(end - 1 - first)?.[1] ?? end];
}

const fillMask: Task<string, FillOptions, Fill[] | Fill[][], Int32Array> = {
  heads: ["ForMaskedLM", "ForPreTraining"],

  encode({ encoder, pieces }, text) {
    const one = encoder.text(checked(text));
    const { mask } = pieces.options;
    const rows = Int32Array.from([...one.ids.keys()].filter((i) => one.ids[i] === mask));
    if (!rows.length) {
      const where = `in the first ${encoder.maxLength} tokens of ${JSON.stringify(text.slice(0, 60))}`;
      throw new PocketBertError("input", `no ${pieces.words[mask]} ${where}`);
    }
    return { features: [{ ...one, rows }], state: one.ids, cut: one.cut };
  },

  read({ pieces }, _, options, [output], ids) {
    const { topK = 5, targets } = options;
    requireCount("topK", topK);
    const candidates = targets && targetsOf(targets, pieces);
    const { data, rows, width } = matrix(output, "logits");
    const { mask, special, prefix } = pieces.options;
    const places = [...ids.keys()].filter((i) => ids[i] === mask);
    const filled = places.map((place, row) =>
      decode.fills(data.subarray(row * width, (row + 1) * width), topK, candidates).map(([token, score]): Fill => {
        const all = [...ids];
        all[place] = token;
        // Other gaps would go with the special tokens, so these stay if there are any.
        const shown = rows === 1 ? all.filter((id) => !special.includes(id)) : all;
        const text = (some: readonly number[]) => joined(some.map((id) => pieces.words[id]), prefix);
        return { word: text([token]), token, score, text: text(shown) };
      }),
    );
    return filled.length === 1 ? filled[0] : filled;
  },
};

function targetsOf(targets: readonly string[], pieces: WordPiece): number[] {
  if (!targets.length) throw new PocketBertError("input", "targets must hold at least one word");
  const ids = targets.map((target) => {
    const known = pieces.id(target);
    if (known !== undefined) return known;
    const found = pieces.pieces(checked(target)).ids;
    if (found.length !== 1) {
      const parts = found.map((id) => pieces.words[id]).join(" ");
      throw new PocketBertError("input", `the target ${JSON.stringify(target)} is not one token of the vocabulary but ${parts}`);
    }
    return found[0];
  });
  return [...new Set(ids)];
}

const embed: Task<string, EmbedOptions, Float32Array, { parts: Part[]; skip: number }> = {
  heads: ["Model"],

  encode({ encoder, model }, text, options) {
    const prompt = promptOf(model, options);
    const skip = prompt ? encoder.text(prompt).ids.length - 1 : 0;
    const input = prompt + checked(text);
    if (options.windows) {
      const parts = encoder.windows(input, Math.max(0, skip - 1));
      return { features: parts.map((part) => part.features), state: { parts, skip } };
    }
    const one = encoder.text(input);
    const parts = [{ features: one, first: 0, last: one.ids.length, share: 1 }];
    return { features: [one], state: { parts, skip }, cut: one.cut };
  },

  read({ model }, _, options, outputs, { parts, skip }) {
    const declared = model.description.sentences!;
    const isDeclared = (options.pooling ?? "declared") === "declared";
    const how = isDeclared ? (declared.pooling as decode.Pooling[]) : [options.pooling as decode.Pooling];
    const shape = (vector: Float32Array) => (isDeclared && declared.normalize ? decode.unit(vector) : vector);
    const vectors = outputs.map((one) => {
      const skipped = isDeclared && !declared.include_prompt ? skip : 0;
      return shape(decode.pool(matrix(one, "last_hidden_state"), how, skipped));
    });
    let vector = weightedMean(parts, vectors);
    if (parts.length > 1) vector = shape(vector);
    const { dimensions } = options;
    requireCount("dimensions", dimensions);
    if (dimensions !== undefined && dimensions > vector.length) {
      throw new PocketBertError("input", `dimensions ${dimensions} exceeds the ${vector.length} dimensions of the model's vectors`);
    }
    const kept = vector.slice(0, dimensions ?? (isDeclared ? (declared.dimensions ?? undefined) : undefined));
    return options.normalize ? decode.unit(kept) : kept;
  },
};

function promptOf(model: Model, options: EmbedOptions): string {
  const declared = model.description.sentences!;
  const { prompt, promptName } = options;
  if (prompt !== undefined && promptName !== undefined) throw new PocketBertError("input", "pass prompt or promptName, not both");
  if (prompt !== undefined) return checked(prompt);
  const name = promptName ?? ((options.pooling ?? "declared") === "declared" ? declared.default_prompt : null);
  if (name === null) return "";
  const found = declared.prompts[name];
  if (found === undefined) {
    const known = Object.keys(declared.prompts).join(", ") || "none";
    throw new PocketBertError("input", `promptName ${JSON.stringify(name)} is not declared by the model; its prompts: ${known}`);
  }
  return found;
}

const choose: Task<Choices, Record<string, never>, decode.Choice[], null> = {
  heads: ["ForMultipleChoice"],

  encode({ encoder }, { prompt, choices }) {
    if (!Array.isArray(choices) || !choices.length) throw new PocketBertError("input", "choices must be a list of texts");
    const features = choices.map((choice) => encoder.text({ text: prompt, textPair: choice }));
    return { features, state: null, cut: features.some((one) => one.cut) };
  },

  read(_, { choices }, __, outputs) {
    return decode.choices(outputs.map((one) => matrix(one, "logits").data[0]), choices);
  },
};

export const TASKS = { classify, tag, answer, fillMask, embed, choose };
export type TaskName = keyof typeof TASKS;

function requireCount(name: string, value: number | undefined): void {
  if (value !== undefined && !(Number.isInteger(value) && value >= 1)) {
    throw new PocketBertError("input", `${name} ${value} must be a whole number of at least 1`);
  }
}

const TIGHT: readonly [string, string][] = [
  [" .", "."], [" ?", "?"], [" !", "!"], [" ,", ","], [" ' ", "'"], [" n't", "n't"], [" 'm", "'m"],
  [" do not", " don't"], [" 's", "'s"], [" 've", "'ve"], [" 're", "'re"],
]; // prettier-ignore

/** Vocabulary entries as text: as the WordPiece decoder of `tokenizers` joins them. */
function joined(names: readonly string[], prefix: string): string {
  const parts = names.map((name, i) => {
    if (!i) return name;
    const part = name.startsWith(prefix) ? name.slice(prefix.length) : ` ${name}`;
    return TIGHT.reduce((text, [loose, tight]) => text.replaceAll(loose, tight), part);
  });
  return parts.join("");
}
