/** Loading a model into this thread. */
import { Core, PLAIN_KERNELS, RefusedKernels } from "./core.js";
import { PocketBertError, checkAborted, messageOf } from "./errors.js";
import { ByteReader, folderAt, type Progress } from "./files.js";
import type { About } from "./messages.js";
import { Model, describe, type Description } from "./model.js";
import { Asker, type Asked } from "./tasks.js";
import { WordPiece } from "./wordpiece.js";

export interface Loading {
  signal?: AbortSignal | undefined;
  /** Bytes that have arrived, of all that are needed. */
  onProgress?: ((progress: Progress) => void) | undefined;
  /** Whether files are kept in the browser's cache: true by default, where there is one. */
  cache?: boolean | undefined;
  /** The address of pocketbert.wasm, or of pocketbert-relaxed.wasm, where they do not lie beside this package's other files. */
  wasm?: string | URL | undefined;
}

/** A module that makes a vector: engines without SIMD refuse it. */
const SIMD = Uint8Array.of(
  0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 10, 9, 1, 7, 0, 65, 0, 253, 15, 26, 11,
); // prettier-ignore

/** One that multiplies three of them: engines without relaxed SIMD refuse it. */
const RELAXED_SIMD = Uint8Array.of(
  0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0,
  10, 20, 1, 18, 0, 65, 0, 253, 15, 65, 0, 253, 15, 65, 0, 253, 15, 253, 147, 2, 26, 11,
); // prettier-ignore

const compiled = new Map<string, Promise<WebAssembly.Module>>();
let kernels: string | undefined; // the fastest that an engine has, until it is found to compute them wrong

/** A model in this thread. It is loaded again, on other kernels, where those that it runs on turn out to be wrong. */
export class Here {
  #reloading: Promise<void> | undefined;

  private constructor(
    readonly read: () => Promise<Asker>,
    public asker: Asker,
  ) {}

  static async load(where: string | URL, loading: Loading): Promise<Here> {
    const { cache, wasm } = loading;
    return new Here(() => read(where, { cache, wasm }), await read(where, loading));
  }

  get description(): Description {
    return this.asker.model.description;
  }

  get about(): About {
    const { program } = this.asker.model;
    return { kernels: program.kernels, memory: program.core.bytes };
  }

  async ask(...call: Parameters<Asker["ask"]>): Promise<Asked> {
    const { asker } = this;
    try {
      return await asker.ask(...call);
    } catch (error) {
      if (!(error instanceof RefusedKernels)) throw error;
      if (this.asker === asker) await (this.#reloading ??= this.#reload());
      return this.asker.ask(...call);
    }
  }

  async #reload(): Promise<void> {
    kernels = PLAIN_KERNELS;
    try {
      this.asker = await this.read();
    } finally {
      this.#reloading = undefined;
    }
  }
}

async function read(where: string | URL, loading: Loading): Promise<Asker> {
  const { signal, onProgress = () => undefined } = loading;
  checkAborted(signal);
  const folder = folderAt(where, loading);
  const [module, description] = await Promise.all([moduleAt(loading), describe(folder)]);
  checkAborted(signal);
  const core = await Core.start(module);
  const name = "vocab.txt";
  const vocabulary = async () => {
    const reader = new ByteReader(`${name} of ${folder.where}`, await folder.open(name, description.files[name]), () => undefined);
    const bytes = await reader.bytes(description.files[name].bytes);
    await reader.end();
    return new WordPiece(core, bytes, description.tokenizer);
  };
  const [model, pieces] = await Promise.all([Model.read(core, folder, description, onProgress, kernels), vocabulary()]);
  return new Asker(model, pieces);
}

/** The compiled core, once per address in this process. */
export async function moduleAt(loading: Loading): Promise<WebAssembly.Module> {
  if (typeof WebAssembly === "undefined") {
    throw new PocketBertError("unsupported", "there is no WebAssembly here: it is missing, or switched off");
  }
  if (!WebAssembly.validate(SIMD)) {
    throw new PocketBertError(
      "unsupported",
      "WebAssembly has no SIMD here: it takes Chrome or Edge 95, Firefox 100, Safari 16.4, or Node 20",
    );
  }
  const own = WebAssembly.validate(RELAXED_SIMD)
    ? new URL("./pocketbert-relaxed.wasm", import.meta.url)
    : new URL("./pocketbert.wasm", import.meta.url);
  const url = loading.wasm === undefined ? own : new URL(loading.wasm, import.meta.url);
  let module = compiled.get(url.href);
  if (!module) {
    module = compile(url);
    compiled.set(url.href, module);
    module.catch(() => compiled.delete(url.href)); // the next call tries again
  }
  return module;
}

async function compile(url: URL): Promise<WebAssembly.Module> {
  let bytes;
  try {
    if (url.protocol === "file:") {
      const { readFile } = await import("node:fs/promises");
      bytes = await readFile(url);
    } else {
      const response = await fetch(url);
      if (!response.ok) throw new Error(`status ${response.status}`);
      bytes = await response.arrayBuffer();
    }
  } catch (error) {
    throw new PocketBertError("network", `cannot fetch the core from ${url.href}: ${messageOf(error)}`, { cause: error });
  }
  try {
    return await WebAssembly.compile(bytes);
  } catch (error) {
    throw new PocketBertError("unsupported", `${url.href} cannot be compiled: ${messageOf(error)}`, { cause: error });
  }
}
