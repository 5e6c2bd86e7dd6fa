/** Loading a model into this thread. */
import { Core } from "./core.js";
import { PocketBertError, checkAborted, messageOf } from "./errors.js";
import { ByteReader, folderAt, type Progress } from "./files.js";
import { Model, describe } from "./model.js";
import { Asker } from "./tasks.js";
import { WordPiece } from "./wordpiece.js";

export interface Loading {
  signal?: AbortSignal | undefined;
  /** Bytes that have arrived, of all that are needed. */
  onProgress?: ((progress: Progress) => void) | undefined;
  /** Whether files are kept in the browser's cache: true by default, where there is one. */
  cache?: boolean | undefined;
  /** The address of pocketbert.wasm, where it does not lie beside this package's other files. */
  wasm?: string | URL | undefined;
}

/** A module that makes a vector: engines without SIMD refuse it. */
const SIMD = Uint8Array.of(
  0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 10, 9, 1, 7, 0, 65, 0, 253, 15, 26, 11,
); // prettier-ignore

const compiled = new Map<string, Promise<WebAssembly.Module>>();

export async function loadHere(where: string | URL, loading: Loading): Promise<Asker> {
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
  const [model, pieces] = await Promise.all([Model.read(core, folder, description, onProgress), vocabulary()]);
  return new Asker(model, pieces);
}

/** The compiled core, once per address in this process. */
function moduleAt(loading: Loading): Promise<WebAssembly.Module> {
  const url = new URL(loading.wasm ?? "./pocketbert.wasm", import.meta.url);
  let module = compiled.get(url.href);
  if (!module) {
    module = compile(url);
    compiled.set(url.href, module);
    module.catch(() => compiled.delete(url.href)); // the next call tries again
  }
  return module;
}

async function compile(url: URL): Promise<WebAssembly.Module> {
  if (typeof WebAssembly === "undefined") {
    throw new PocketBertError("unsupported", "there is no WebAssembly here: it is missing, or switched off");
  }
  if (!WebAssembly.validate(SIMD)) {
    throw new PocketBertError(
      "unsupported",
      "WebAssembly has no SIMD here: it takes Chrome or Edge 95, Firefox 100, Safari 16.4, or Node 20",
    );
  }
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
