/**
 * Small BERTs in browsers, Node and Deno: labels, entities, answers, words and vectors of texts.
 *
 *     import { load } from "pocketbert";
 *
 *     const model = await load("/models/sentiment");
 *     await model.classify("A warm and clever film, and far too short."); // { label: "positive", score: 0.99 }
 *
 * A folder of a model is what `pocketbert export MODEL FOLDER --format web` writes as FOLDER/web.
 */
import type { Answer, Choice, Decision, Entity, Label } from "./decode.js";
import { PocketBertError } from "./errors.js";
import type { TextPair } from "./features.js";
import { Here, type Loading } from "./local.js";
import type { About } from "./messages.js";
import type { Description } from "./model.js";
import { Remote } from "./remote.js";
import type {
  AnswerOptions, Asked, Choices, ClassifyOptions, EmbedOptions, Fill, FillOptions, Question, TagOptions, TaskName,
} from "./tasks.js"; // prettier-ignore

export { AGGREGATIONS, FUNCTIONS, POOLINGS } from "./decode.js";
export type { Aggregation, Answer, Choice, Decision, Entity, Label, Pooling, ScoreFunction } from "./decode.js";
export { PocketBertError, type Reason } from "./errors.js";
export type { TextPair } from "./features.js";
export type { Progress } from "./files.js";
export type {
  AnswerOptions, Choices, ClassifyOptions, EmbedOptions, Fill, FillOptions, Question, TagOptions,
} from "./tasks.js"; // prettier-ignore

export interface LoadOptions extends Loading {
  /** Whether the model runs in a worker, so that this thread is never busy with it: true by default in a page. */
  worker?: boolean | undefined;
  /** Is told of texts whose ends were ignored, being longer than the model reads; the console is, by default. */
  onCut?: ((cut: number, of: number) => void) | undefined;
}

export interface CallOptions {
  signal?: AbortSignal;
}

/** One input, a list, or a stream of any length: the results come in the same form. */
interface Method<Input, Options, Result> {
  (input: Input, options?: Options & CallOptions): Promise<Result>;
  (inputs: readonly Input[], options?: Options & CallOptions): Promise<Result[]>;
  (inputs: AsyncIterable<Input>, options?: Options & CallOptions): AsyncGenerator<Result, void, undefined>;
}

interface Backend {
  readonly description: Description;
  readonly about: About;
  ask(task: TaskName, inputs: readonly unknown[], options: unknown, signal?: AbortSignal): Promise<Asked>;
  close(): void;
}

/**
 * Loads the model of a folder, given by its address or, in Node and Deno, its path.
 *
 * @throws {PocketBertError} with a reason; or the signal's reason, if it is aborted.
 */
export async function load(where: string | URL, options: LoadOptions = {}): Promise<PocketBert> {
  const worker = options.worker ?? typeof document !== "undefined";
  return new PocketBert(worker ? await Remote.load(where, options) : await loadAsBackend(where, options), options);
}

async function loadAsBackend(where: string | URL, options: Loading): Promise<Backend> {
  let here: Here | undefined = await Here.load(where, options);
  const { description } = here;
  let { about } = here;
  return {
    description,
    get about() {
      return (about = here?.about ?? about);
    },
    ask(...call) {
      if (!here) throw new PocketBertError("worker", "the model was closed");
      return here.ask(...call);
    },
    close: () => (here = undefined),
  };
}

/** A loaded model. It answers one task, that of its head; the methods of others raise an error that says so. */
export class PocketBert {
  readonly #backend: Backend;
  readonly #onCut: (cut: number, of: number) => void;
  #told = false;

  /** The label of a text or of a pair; of a model with thresholds, or with `topK` or `conformal`, a list of labels. */
  readonly classify: Method<string | TextPair, ClassifyOptions, Decision | Label[]> = this.#method("classify");
  /** The entities of a text of any length. */
  readonly tag: Method<string, TagOptions, Entity[]> = this.#method("tag");
  /** The answer to a question in a context of any length; a list of answers with `topK` over 1. */
  readonly answer: Method<Question, AnswerOptions, Answer | Answer[]> = this.#method("answer");
  /** Words for the mask of a text; a list of these for each mask, of a text with several. */
  readonly fillMask: Method<string, FillOptions, Fill[] | Fill[][]> = this.#method("fillMask");
  /** The vector of a text. */
  readonly embed: Method<string, EmbedOptions, Float32Array> = this.#method("embed");
  /** The choices for a prompt, best first. */
  readonly choose: Method<Choices, object, Choice[]> = this.#method("choose");

  /** Use `load`. */
  constructor(backend: Backend, options: LoadOptions) {
    this.#backend = backend;
    this.#onCut = options.onCut ?? ((cut, of) => this.#tell(cut, of));
  }

  /** The names of the labels or tags. */
  get labels(): readonly string[] {
    return this.#backend.description.labels;
  }

  /** The method that this model has. */
  get task(): TaskName | null {
    return TASK_OF[this.#backend.description.head] ?? null;
  }

  /** The kind of model, such as "SqueezeBertForSequenceClassification". */
  get kind(): string {
    return this.#backend.description.model;
  }

  /** The kernels that it runs on, and the bytes of its memory. */
  get about(): About {
    return this.#backend.about;
  }

  /** Ends the worker, and lets the memory go. Calls after that, and those that are not finished, raise an error. */
  close(): void {
    this.#backend.close();
  }

  #method(task: TaskName): any {
    return (given: unknown, { signal, ...options }: CallOptions = {}) => {
      if (isStream(given)) return this.#stream(task, given, options, signal);
      const isList = Array.isArray(given);
      return this.#ask(task, isList ? given : [given], options, signal).then((results) => (isList ? results : results[0]));
    };
  }

  async #ask(task: TaskName, inputs: readonly unknown[], options: unknown, signal?: AbortSignal): Promise<unknown[]> {
    const { results, cut } = await this.#backend.ask(task, inputs, options, signal);
    if (cut) this.#onCut(cut, inputs.length);
    return results;
  }

  async *#stream(task: TaskName, inputs: AsyncIterable<unknown>, options: unknown, signal?: AbortSignal): AsyncGenerator<unknown> {
    for await (const input of inputs) yield (await this.#ask(task, [input], options, signal))[0];
  }

  #tell(cut: number, of: number): void {
    if (this.#told) return;
    this.#told = true;
    const which = of === 1 ? "a text is" : `${cut} of ${of} texts are`;
    console.warn(`pocketbert: ${which} longer than the model reads, and the rest was ignored; \`windows: true\` reads whole texts`);
  }
}

const TASK_OF: Record<string, TaskName> = {
  ForSequenceClassification: "classify",
  ForTokenClassification: "tag",
  ForQuestionAnswering: "answer",
  ForMaskedLM: "fillMask",
  ForPreTraining: "fillMask",
  Model: "embed",
  ForMultipleChoice: "choose",
};

function isStream(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === "object" && value !== null && Symbol.asyncIterator in value;
}
