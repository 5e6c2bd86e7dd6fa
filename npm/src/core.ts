/**
 * The native core, through its C interface: native/include/pocketbert.h, whose functions and structs these are.
 *
 * A module has its own memory, which never shrinks. Numbers are little-endian, pointers have 32 bits. Views of the memory
 * are made anew for every access, because a call that lets the memory grow detaches them.
 */
import { PocketBertError, messageOf } from "./errors.js";

const VERSION = 2; // PB_VERSION
const INVALID = 1;
const NO_MEMORY = 2;

/** The kernels of every engine; those of relaxed SIMD may be refused after a run. */
export const PLAIN_KERNELS = "wasm";

/** The kernels that made a result are found to compute wrong sums, after it was computed. */
export class RefusedKernels extends PocketBertError {}

/** Which rows an output has. */
export const TOKENS = 0;
export const SEQUENCES = 1;

/** Columns of a buffer, by the buffer's number. */
export interface Columns {
  readonly buffer: number;
  readonly start: number;
  readonly width: number;
}

/** A tensor in the memory of the module. */
export interface Tensor {
  readonly place: number;
  readonly rows: number;
  readonly width: number;
  readonly int8: boolean;
}

export interface Lookup {
  target: Columns;
  table: Tensor;
  scales?: Tensor | undefined;
  index: string;
  add: boolean;
  uncounted?: number | undefined;
}

export interface Linear {
  source: Columns;
  target: Columns;
  residual?: Columns | undefined;
  weight: Tensor;
  scales?: Tensor | undefined;
  outlierWeight?: Tensor | undefined;
  bias: Tensor;
  residualScale?: Tensor | undefined;
  groups: number;
  activation: string;
}

export interface LayerNorm {
  source: Columns;
  target: Columns;
  weight: Tensor;
  bias: Tensor;
  eps: number;
}

export interface Attention {
  query: Columns;
  key: Columns;
  value: Columns;
  target: Columns;
  heads: number;
  bfloat16: boolean;
  bias?: Tensor | undefined;
}

export interface Gather {
  source: Columns;
  target: Columns;
  selected: boolean;
}

/** Sequence s is ids[starts[s]] to ids[starts[s + 1] - 1]; `selected` are numbers of tokens. */
export interface Batch {
  ids: Int32Array;
  segments: Int32Array;
  starts: Int32Array;
  selected?: Int32Array | undefined;
}

interface Exports {
  memory: WebAssembly.Memory;
  _initialize?: () => void;
  malloc: (bytes: number) => number;
  free: (place: number) => void;
  [name: string]: unknown;
}

type Call = (...values: number[]) => number;

/** One instance of the module. */
export class Core {
  readonly #exports: Exports;

  private constructor(exports: Exports) {
    this.#exports = exports;
  }

  /** An instance of a compiled module; raises "unsupported" where it cannot run, "memory" where there is none for it. */
  static async start(module: WebAssembly.Module): Promise<Core> {
    let exports: Exports | undefined;
    const clock = (_: number, __: bigint, place: number): number => {
      if (exports) new DataView(exports.memory.buffer).setBigUint64(place, BigInt(Math.round(performance.now() * 1e6)), true);
      return 0;
    };
    const needed = WebAssembly.Module.imports(module).filter((one) => one.kind === "function");
    const imports: Record<string, Record<string, unknown>> = {};
    for (const { module: from, name } of needed) {
      (imports[from] ??= {})[name] = name === "clock_time_get" ? clock : () => 52; // "not there", to whatever else it asks for
    }
    try {
      const instance = await WebAssembly.instantiate(module, imports as WebAssembly.Imports);
      exports = instance.exports as unknown as Exports;
      exports._initialize?.();
    } catch (error) {
      const reason = error instanceof RangeError ? "memory" : "unsupported";
      throw new PocketBertError(reason, `the core cannot be started: ${messageOf(error)}`, { cause: error });
    }
    const core = new Core(exports);
    const version = core.call("pb_version");
    if (version !== VERSION) {
      throw new PocketBertError(
        "unsupported",
        `pocketbert.wasm is of another version of this package: version ${version} of the interface, where ${VERSION} is ` +
          "needed; install the package again, as a whole",
      );
    }
    return core;
  }

  /** Bytes of the module's memory. */
  get bytes(): number {
    return this.#exports.memory.buffer.byteLength;
  }

  call(name: string, ...values: number[]): number {
    return (this.#exports[name] as Call)(...values);
  }

  /** Calls a function that returns a status. */
  check(name: string, ...values: number[]): void {
    let status;
    try {
      status = this.call(name, ...values);
    } catch (error) {
      // The instance stopped where C++ could not go on.
      throw new PocketBertError("memory", `the core stopped in ${name}: ${messageOf(error)}; load the model again`, {
        cause: error,
      });
    }
    if (status === 0) return;
    const message = this.text(this.call("pb_message"));
    if (status === INVALID) throw new PocketBertError("model", message);
    if (status === NO_MEMORY) throw new PocketBertError("memory", message);
    throw new (name === "pb_run" ? RefusedKernels : PocketBertError)("unsupported", message);
  }

  /** So many bytes of the module's memory, at a multiple of 16. */
  allocate(bytes: number): number {
    const place = this.#exports.malloc(Math.max(bytes, 1));
    if (!place) {
      throw new PocketBertError("memory", `there is no memory for ${bytes.toLocaleString("en")} bytes more`);
    }
    return place >>> 0;
  }

  free(place: number): void {
    this.#exports.free(place);
  }

  bytesAt(place: number, length: number): Uint8Array {
    return new Uint8Array(this.#exports.memory.buffer, place, length);
  }

  intsAt(place: number, length: number): Int32Array {
    return new Int32Array(this.#exports.memory.buffer, place, length);
  }

  floatsAt(place: number, length: number): Float32Array {
    return new Float32Array(this.#exports.memory.buffer, place, length);
  }

  view(place: number, length: number): DataView {
    return new DataView(this.#exports.memory.buffer, place, length);
  }

  /** The string that C has at a place. */
  text(place: number): string {
    const bytes = new Uint8Array(this.#exports.memory.buffer, place);
    return new TextDecoder().decode(bytes.slice(0, bytes.indexOf(0)));
  }

  /** Runs `body` with memory that is free again afterwards. */
  borrow<T>(bytes: number, body: (place: number) => T): T {
    const place = this.allocate(bytes);
    try {
      return body(place);
    } finally {
      this.free(place);
    }
  }
}

/** Writes the fields of a struct one after the other, each at a multiple of its size. */
class Struct {
  readonly #view: DataView;
  #at = 0;

  constructor(core: Core, place: number, bytes: number) {
    core.bytesAt(place, bytes).fill(0);
    this.#view = core.view(place, bytes);
  }

  int(value: number): this {
    this.#view.setInt32(this.#at, value, true);
    this.#at += 4;
    return this;
  }

  float(value: number): this {
    this.#view.setFloat32(this.#at, value, true);
    this.#at += 4;
    return this;
  }

  long(value: number): this {
    this.#align();
    this.#view.setBigInt64(this.#at, BigInt(value), true);
    this.#at += 8;
    return this;
  }

  columns(value: Columns): this {
    return this.int(value.buffer).int(value.start).int(value.width);
  }

  tensor(value: Tensor | undefined): this {
    this.#align();
    return this.int(value?.place ?? 0).long(value?.rows ?? 0).long(value?.width ?? 0);
  }

  #align(): void {
    this.#at = (this.#at + 7) & ~7;
  }
}

const SIZES = { vocabulary: 36, added: 20, token: 12, lookup: 104, linear: 184, norm: 80, attention: 80, gather: 28, batch: 48, output: 32 };

/** Vocabulary and options of BERT's tokeniser. */
export interface Vocabulary {
  /** Tokens by id, in UTF-8, a zero byte behind each. */
  tokens: Uint8Array;
  unknown: string;
  prefix: string;
  longestWord: number;
  cleanText: boolean;
  chinese: boolean;
  stripAccents: boolean;
  lowerCase: boolean;
}

/** A token that is found in a text as it is. */
export interface AddedToken {
  content: string;
  id: number;
  normalized: boolean;
  takesLeft: boolean;
  takesRight: boolean;
}

/** BERT's tokeniser, which lives as long as its instance. */
export class Tokeniser {
  readonly #handle: number;

  constructor(
    readonly core: Core,
    vocabulary: Vocabulary,
  ) {
    const { tokens } = vocabulary;
    const unknown = new TextEncoder().encode(`${vocabulary.unknown}\0`);
    const prefix = new TextEncoder().encode(`${vocabulary.prefix}\0`);
    const head = SIZES.vocabulary + 4;
    this.#handle = core.borrow(head + tokens.length + unknown.length + prefix.length, (place) => {
      const at = place + head;
      core.bytesAt(at, tokens.length).set(tokens);
      core.bytesAt(at + tokens.length, unknown.length).set(unknown);
      core.bytesAt(at + tokens.length + unknown.length, prefix.length).set(prefix);
      new Struct(core, place, SIZES.vocabulary)
        .int(at)
        .int(tokens.length)
        .int(at + tokens.length)
        .int(at + tokens.length + unknown.length)
        .int(vocabulary.longestWord)
        .int(vocabulary.cleanText ? 1 : 0)
        .int(vocabulary.chinese ? 1 : 0)
        .int(vocabulary.stripAccents ? 1 : 0)
        .int(vocabulary.lowerCase ? 1 : 0);
      core.check("pb_create_wordpiece", place, place + SIZES.vocabulary);
      return core.view(place + SIZES.vocabulary, 4).getUint32(0, true);
    });
  }

  add(token: AddedToken): void {
    const content = new TextEncoder().encode(`${token.content}\0`);
    this.core.borrow(SIZES.added + content.length, (place) => {
      this.core.bytesAt(place + SIZES.added, content.length).set(content);
      new Struct(this.core, place, SIZES.added)
        .int(place + SIZES.added)
        .int(token.id)
        .int(token.normalized ? 1 : 0)
        .int(token.takesLeft ? 1 : 0)
        .int(token.takesRight ? 1 : 0);
      this.core.check("pb_add_token", this.#handle, place);
    });
  }

  /** The id of each token of a text, and where it starts and ends in UTF-16, one after the other. */
  tokens(text: string): Int32Array {
    const units = text.length + (text.length & 1); // an even number, behind which integers may lie
    for (let capacity = (text.length >> 1) + 16; ; ) {
      const found = this.core.borrow(4 + 2 * units + SIZES.token * capacity, (place) => {
        const written = new Uint16Array(this.core.bytesAt(place + 4, 2 * units).buffer, place + 4, text.length);
        for (let i = 0; i < text.length; i++) written[i] = text.charCodeAt(i);
        const at = place + 4 + 2 * units;
        this.core.check("pb_tokenize", this.#handle, place + 4, text.length, at, capacity, place);
        const count = this.core.view(place, 4).getInt32(0, true);
        if (count > capacity) {
          capacity = count;
          return null;
        }
        return this.core.intsAt(at, 3 * count).slice();
      });
      if (found) return found;
    }
  }
}

/** A program of the core: built step by step, then run on batches. It lives as long as its instance. */
export class Program {
  readonly core: Core;
  readonly #handle: number;
  readonly #strings = new Map<string, number>();

  /** Runs on the fastest kernels, or on those of this name. */
  constructor(core: Core, kernels?: string) {
    this.core = core;
    const name = kernels === undefined ? 0 : this.#string(kernels);
    this.#handle = core.borrow(4, (place) => {
      core.check("pb_create", name, 1, 0, place);
      return core.view(place, 4).getUint32(0, true);
    });
  }

  /** The name of the kernels that it runs on. */
  get kernels(): string {
    return this.core.borrow(16, (place) => {
      this.core.check("pb_describe", this.#handle, place);
      return this.core.text(this.core.view(place, 4).getUint32(0, true));
    });
  }

  buffer(width: number, local: boolean): number {
    return this.core.borrow(4, (place) => {
      this.core.check("pb_add_buffer", this.#handle, width, local ? 1 : 0, place);
      return this.core.view(place, 4).getInt32(0, true);
    });
  }

  lookup(step: Lookup): void {
    const index = this.#string(step.index);
    this.core.borrow(SIZES.lookup + 8, (place) => {
      const uncounted = step.uncounted === undefined ? 0 : place + SIZES.lookup;
      const { table, scales } = step;
      new Struct(this.core, place, SIZES.lookup)
        .columns(step.target)
        .tensor(table.int8 ? undefined : table)
        .tensor(table.int8 ? table : undefined)
        .tensor(scales)
        .int(index)
        .int(step.add ? 1 : 0)
        .int(uncounted);
      if (uncounted) this.core.view(uncounted, 4).setInt32(0, step.uncounted!, true);
      this.core.check("pb_add_lookup", this.#handle, place);
    });
  }

  linear(step: Linear): void {
    const activation = this.#string(step.activation);
    this.core.borrow(SIZES.linear + 16, (place) => {
      const residual = step.residual ? place + SIZES.linear : 0;
      const { weight } = step;
      new Struct(this.core, place, SIZES.linear)
        .columns(step.source)
        .columns(step.target)
        .int(residual)
        .tensor(weight.int8 ? undefined : weight)
        .tensor(weight.int8 ? weight : undefined)
        .tensor(step.scales)
        .tensor(step.outlierWeight)
        .tensor(step.bias)
        .tensor(step.residualScale)
        .int(step.groups)
        .int(activation);
      if (step.residual) new Struct(this.core, residual, 12).columns(step.residual);
      this.core.check("pb_add_linear", this.#handle, place);
    });
  }

  layerNorm(step: LayerNorm): void {
    this.core.borrow(SIZES.norm, (place) => {
      new Struct(this.core, place, SIZES.norm)
        .columns(step.source)
        .columns(step.target)
        .tensor(step.weight)
        .tensor(step.bias)
        .float(step.eps);
      this.core.check("pb_add_layer_norm", this.#handle, place);
    });
  }

  attention(step: Attention): void {
    this.core.borrow(SIZES.attention, (place) => {
      new Struct(this.core, place, SIZES.attention)
        .columns(step.query)
        .columns(step.key)
        .columns(step.value)
        .columns(step.target)
        .int(step.heads)
        .int(step.bfloat16 ? 1 : 0)
        .tensor(step.bias);
      this.core.check("pb_add_attention", this.#handle, place);
    });
  }

  gather(step: Gather): void {
    this.core.borrow(SIZES.gather, (place) => {
      new Struct(this.core, place, SIZES.gather).columns(step.source).columns(step.target).int(step.selected ? 1 : 0);
      this.core.check("pb_add_gather", this.#handle, place);
    });
  }

  /** Which rows an output of these columns has: `TOKENS`, `SEQUENCES`, or those that are selected. */
  rowsOf(columns: Columns): number {
    return this.core.borrow(16, (place) => {
      new Struct(this.core, place, 12).columns(columns);
      this.core.check("pb_rows_of", this.#handle, place, place + 12);
      return this.core.view(place + 12, 4).getInt32(0, true);
    });
  }

  /** The outputs of a batch, [rows, width] each; `rows` says how many rows each has. */
  run(batch: Batch, outputs: readonly { columns: Columns; rows: number }[]): Float32Array[] {
    const { core } = this;
    const parts = [batch.ids, batch.segments, batch.starts, batch.selected ?? new Int32Array()];
    const sizes = outputs.map((one) => one.rows * one.columns.width);
    const ints = parts.reduce((sum, part) => sum + part.length, 0);
    const floats = sizes.reduce((sum, size) => sum + size, 0);
    const head = SIZES.batch + SIZES.output * outputs.length;
    return core.borrow(head + 4 * (ints + floats), (place) => {
      let at = place + head;
      const places = parts.map((part) => {
        core.intsAt(at, part.length).set(part);
        at += 4 * part.length;
        return at - 4 * part.length;
      });
      new Struct(core, place, SIZES.batch)
        .int(places[0])
        .int(places[1])
        .long(batch.ids.length)
        .int(places[2])
        .long(batch.starts.length - 1)
        .int(batch.selected ? places[3] : 0)
        .long(parts[3].length);
      const results = outputs.map((output, i) => {
        new Struct(core, place + SIZES.batch + i * SIZES.output, SIZES.output)
          .columns(output.columns)
          .long(output.rows)
          .int(at);
        at += 4 * sizes[i];
        return at - 4 * sizes[i];
      });
      core.check("pb_run", this.#handle, place, place + SIZES.batch, outputs.length);
      return results.map((result, i) => core.floatsAt(result, sizes[i]).slice());
    });
  }

  /** A string for C, which stays: steps name few different ones. */
  #string(text: string): number {
    let place = this.#strings.get(text);
    if (place === undefined) {
      const bytes = new TextEncoder().encode(`${text}\0`);
      place = this.core.allocate(bytes.length);
      this.core.bytesAt(place, bytes.length).set(bytes);
      this.#strings.set(text, place);
    }
    return place;
  }
}
