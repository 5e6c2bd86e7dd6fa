/** A model in memory: what its folder says, and its program. */
import { Core, Program, SEQUENCES, TOKENS, type Columns, type Tensor } from "./core.js";
import { PocketBertError } from "./errors.js";
import { ByteReader, type Folder, type Identity, type Progress } from "./files.js";
import { TensorFile } from "./tensors.js";

const FORMAT = "pocketbert web";
const VERSION = 1;
const TOKENS_PER_RUN = 512; // as many as the longest text has, so that a run needs no more memory than one text

/** `model.json`; see src/pocketbert/exporters/web in PocketBERT's source. */
export interface Description {
  format: string;
  version: number;
  written_by: string;
  precision: string;
  files: Record<string, Identity>;
  head: string;
  model: string;
  labels: string[];
  problem_type: string | null;
  thresholds: (number | null)[] | null;
  calibration: Record<string, Record<string, number>> | null;
  sentences: Sentences | null;
  tokenizer: TokenizerOptions;
  plan: Plan;
}

/** How the vectors of an encoder are meant to be made. */
export interface Sentences {
  pooling: string[];
  include_prompt: boolean;
  normalize: boolean;
  prompts: Record<string, string>;
  default_prompt: string | null;
  dimensions: number | null;
  similarity: string | null;
}

export interface TokenizerOptions {
  lower_case: boolean;
  strip_accents: boolean;
  chinese: boolean;
  clean_text: boolean;
  prefix: string;
  longest_word: number;
  cls: number;
  sep: number;
  pad: number;
  mask: number;
  unknown: number;
  words: number;
  special: number[];
  added: { id: number; normalized: boolean; takes_left: boolean; takes_right: boolean }[];
  max_length: number;
  truncation_side: string;
}

interface Place {
  buffer: string;
  start: number;
  width: number;
}

type Step = { kind: string; target: Place } & Record<string, any>;

interface Plan {
  max_tokens: number;
  buffers: { name: string; width: number; local: boolean }[];
  steps: Step[];
  outputs: ({ name: string; scalar: boolean } & Place)[];
}

/** One input of a model: tokens without padding, and those whose outputs are needed (all, where none are named). */
export interface Features {
  ids: Int32Array;
  segments: Int32Array;
  rows?: Int32Array;
}

/** An output of one input: [rows, width] of a matrix, or one row. */
export interface Matrix {
  data: Float32Array;
  rows: number;
  width: number;
}

export type Outputs = Record<string, Matrix>;

/** Reads `model.json`. */
export async function describe(folder: Folder): Promise<Description> {
  const text = await folder.text("model.json");
  let found: Description;
  try {
    found = JSON.parse(text) as Description;
  } catch {
    throw new PocketBertError("model", `model.json of ${folder.where} is not JSON: it is damaged, or another file`);
  }
  if (found?.format !== FORMAT) {
    const advice = "export a model with `pocketbert export MODEL FOLDER --format web`, and load FOLDER/web";
    throw new PocketBertError("model", `model.json of ${folder.where} is not of a model for the web: ${advice}`);
  }
  if (found.version !== VERSION) {
    throw new PocketBertError(
      "model",
      `the model of ${folder.where} has version ${found.version} of the format, and this package reads ${VERSION}: ` +
        "export it again with the PocketBERT of the same version as this package",
    );
  }
  return found;
}

/** A program and the places of its outputs. */
export class Model {
  readonly #outputs: { name: string; columns: Columns; rowsOf: number }[];

  private constructor(
    readonly description: Description,
    readonly program: Program,
    numbers: Map<string, number>,
  ) {
    this.#outputs = description.plan.outputs.map((one) => {
      const columns = placed(numbers, one);
      return { name: one.name, columns, rowsOf: program.rowsOf(columns) };
    });
  }

  /** Reads the tensors of a folder, and builds the program while they arrive. */
  static async read(
    core: Core,
    folder: Folder,
    description: Description,
    onProgress: (progress: Progress) => void,
    kernels?: string,
  ): Promise<Model> {
    const name = "model.safetensors";
    const identity = description.files[name];
    const progress = { loaded: 0, total: identity.bytes };
    const pieces = await folder.open(name, identity);
    const reader = new ByteReader(`${name} of ${folder.where}`, pieces, (bytes) => {
      progress.loaded += bytes;
      onProgress({ ...progress });
    });
    try {
      const program = new Program(core, kernels);
      const tensors = await TensorFile.open(core, reader);
      const numbers = await build(program, description.plan, tensors);
      await tensors.end();
      return new Model(description, program, numbers);
    } catch (error) {
      await pieces.return?.();
      if (error instanceof TypeError || error instanceof RangeError) {
        throw new PocketBertError("model", `the model of ${folder.where} is damaged: ${error.message}`, { cause: error });
      }
      throw error;
    }
  }

  get maxTokens(): number {
    return this.description.plan.max_tokens;
  }

  /** Whether the caller can select the tokens whose outputs are computed. */
  get #selects(): boolean {
    return this.#outputs.some((one) => one.rowsOf !== TOKENS && one.rowsOf !== SEQUENCES);
  }

  /** Consecutive inputs that run together. */
  *batches(inputs: readonly Features[]): Generator<Features[]> {
    let batch: Features[] = [];
    let tokens = 0;
    for (const input of inputs) {
      if (batch.length && tokens + input.ids.length > TOKENS_PER_RUN) {
        yield batch;
        batch = [];
        tokens = 0;
      }
      batch.push(input);
      tokens += input.ids.length;
    }
    if (batch.length) yield batch;
  }

  /** The outputs of each input, by name. */
  run(inputs: readonly Features[]): Outputs[] {
    const starts = new Int32Array(inputs.length + 1);
    inputs.forEach((input, i) => (starts[i + 1] = starts[i] + input.ids.length));
    const ids = new Int32Array(starts[inputs.length]);
    const segments = new Int32Array(ids.length);
    const selected: number[] = [];
    const counts = inputs.map((input, i) => {
      ids.set(input.ids, starts[i]);
      segments.set(input.segments, starts[i]);
      const rows = input.rows ?? Array.from(input.ids.keys());
      for (const row of rows) selected.push(starts[i] + row);
      return rows.length;
    });
    const rowsOf = (kind: number) => (kind === TOKENS ? ids.length : kind === SEQUENCES ? inputs.length : selected.length);
    const arrays = this.program.run(
      { ids, segments, starts, selected: this.#selects ? Int32Array.from(selected) : undefined },
      this.#outputs.map((one) => ({ columns: one.columns, rows: rowsOf(one.rowsOf) })),
    );
    const results = inputs.map((): Outputs => ({}));
    this.#outputs.forEach(({ name, columns: { width }, rowsOf: kind }, i) => {
      const array = arrays[i];
      requireFinite(array, name);
      let at = 0;
      inputs.forEach((input, number) => {
        const rows = kind === TOKENS ? input.ids.length : kind === SEQUENCES ? 1 : counts[number];
        results[number][name] = { data: array.subarray(at * width, (at + rows) * width), rows, width };
        at += rows;
      });
    });
    return results;
  }
}

function requireFinite(values: Float32Array, name: string): void {
  if (!values.every(Number.isFinite)) {
    throw new PocketBertError(
      "model",
      `the model computed ${name} that are not finite numbers: its weights are damaged, or its training diverged`,
    );
  }
}

function placed(numbers: Map<string, number>, place: Place): Columns {
  const buffer = numbers.get(place.buffer);
  if (buffer === undefined) throw new PocketBertError("model", `a step of the plan names the buffer ${place.buffer}, which is none`);
  return { buffer, start: place.start, width: place.width };
}

/** Adds all buffers and steps to a program; the numbers of the buffers by name. */
async function build(program: Program, plan: Plan, tensors: TensorFile): Promise<Map<string, number>> {
  const numbers = new Map(plan.buffers.map((one) => [one.name, program.buffer(one.width, one.local)]));
  const uses = new Map<string, number>();
  for (const step of plan.steps) for (const name of tensorsOf(step)) uses.set(name, (uses.get(name) ?? 0) + 1);
  for (const step of plan.steps) {
    const at = (key: string) => placed(numbers, step[key]);
    const ifAny = async (key: string): Promise<Tensor | undefined> =>
      step[key] === undefined ? undefined : tensors.get(step[key] as string);
    const target = at("target");
    if (step.kind === "lookup") {
      const [table, scales] = [await tensors.get(step.table), await ifAny("scales")];
      program.lookup({ target, table, scales, index: step.index, add: !!step.add, uncounted: step.uncounted });
    } else if (step.kind === "linear") {
      program.linear({
        source: at("source"),
        target,
        residual: step.residual && at("residual"),
        weight: await tensors.get(step.weight),
        scales: await ifAny("scales"),
        outlierWeight: await ifAny("outlier_weight"),
        bias: await tensors.get(step.bias),
        residualScale: await ifAny("residual_scale"),
        groups: step.groups ?? 1,
        activation: step.activation ?? "",
      });
    } else if (step.kind === "layer norm") {
      const [weight, bias] = [await tensors.get(step.weight), await tensors.get(step.bias)];
      program.layerNorm({ source: at("source"), target, weight, bias, eps: step.eps });
    } else if (step.kind === "attention") {
      const [query, key, value] = [at("query"), at("key"), at("value")];
      program.attention({ query, key, value, target, heads: step.heads, bfloat16: !!step.bfloat16, bias: await ifAny("bias") });
    } else if (step.kind === "gather") {
      program.gather({ source: at("source"), target, selected: !!step.selected });
    } else {
      throw new PocketBertError("model", `the plan has a step of the kind ${step.kind}, which this package does not know`);
    }
    for (const name of tensorsOf(step)) {
      const left = uses.get(name)! - 1;
      uses.set(name, left);
      // The core has packed a copy of its own, but of tables, which it reads where they are.
      if (left === 0 && !isTable(plan, name)) tensors.release(name);
    }
  }
  return numbers;
}

const TENSORS = ["table", "scales", "weight", "outlier_weight", "bias", "residual_scale"];

function tensorsOf(step: Step): string[] {
  return TENSORS.flatMap((key) => (step[key] === undefined ? [] : [step[key] as string]));
}

function isTable(plan: Plan, name: string): boolean {
  return plan.steps.some((step) => step.kind === "lookup" && (step.table === name || step.scales === name));
}
