/** The files of a model: from the network, from a cache, from a disk. */
import { PocketBertError, checkAborted, messageOf } from "./errors.js";

/** Bytes that have arrived, of all files together. */
export interface Progress {
  loaded: number;
  total: number;
}

export interface Access {
  signal?: AbortSignal | undefined;
  /** Whether files are kept in the browser's cache, where there is one. */
  cache?: boolean | undefined;
}

/** What is known of a file before it is read. */
export interface Identity {
  bytes: number;
  sha256: string;
}

const CACHE = "pocketbert-1"; // another version of the folder would have another cache

/** A folder of files, on a server or on a disk. */
export interface Folder {
  readonly where: string;
  /** The content of a small file; of one that may be cached where the network fails, the cached one then. */
  text(name: string): Promise<string>;
  /** The content of a file, piece by piece. */
  open(name: string, identity: Identity): Promise<AsyncIterator<Uint8Array>>;
}

/** The folder at a URL, or on a disk where there is one. */
export function folderAt(where: string | URL, access: Access): Folder {
  const text = String(where);
  const isUrl = where instanceof URL || /^[a-z][a-z0-9+.-]+:/i.test(text);
  const hasDisk = typeof process !== "undefined" && !!process.versions?.node;
  if (hasDisk && (text.startsWith("file:") || !isUrl)) return new DiskFolder(text, access);
  const base = typeof location === "undefined" ? undefined : location.href;
  try {
    return new WebFolder(new URL(text.endsWith("/") ? text : `${text}/`, base), access);
  } catch {
    throw new PocketBertError("input", `${text} is not the address of a folder`);
  }
}

class DiskFolder implements Folder {
  constructor(
    readonly where: string,
    readonly access: Access,
  ) {}

  async text(name: string): Promise<string> {
    const { readFile } = await import("node:fs/promises");
    try {
      return await readFile(await this.#path(name), { encoding: "utf8", ...signalOf(this.access) });
    } catch (error) {
      throw this.#failed(name, error);
    }
  }

  async open(name: string): Promise<AsyncIterator<Uint8Array>> {
    const { createReadStream } = await import("node:fs");
    const stream = createReadStream(await this.#path(name), { highWaterMark: 1 << 18, ...signalOf(this.access) });
    const pieces = stream[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
    return {
      next: () => pieces.next().catch((error: unknown) => Promise.reject(this.#failed(name, error))),
      return: () => pieces.return!(),
    };
  }

  async #path(name: string): Promise<string> {
    const [{ join }, { fileURLToPath }] = await Promise.all([import("node:path"), import("node:url")]);
    return join(this.where.startsWith("file:") ? fileURLToPath(this.where) : this.where, name);
  }

  #failed(name: string, error: unknown): unknown {
    checkAborted(this.access.signal);
    const missing = (error as { code?: string }).code === "ENOENT";
    const advice = "is it a folder that `pocketbert export --format web` wrote?";
    return new PocketBertError(
      "model",
      missing ? `${this.where} has no ${name}: ${advice}` : `cannot read ${name} in ${this.where}: ${messageOf(error)}`,
      { cause: error },
    );
  }
}

class WebFolder implements Folder {
  constructor(
    readonly url: URL,
    readonly access: Access,
  ) {}

  get where(): string {
    return this.url.href;
  }

  async text(name: string): Promise<string> {
    const url = new URL(name, this.url);
    const cache = await this.#cache();
    try {
      const response = await this.#fetch(url, "no-cache");
      await cache?.put(url, response.clone()).catch(() => undefined); // a full disk takes nothing but speed
      return await response.text();
    } catch (error) {
      const cached = error instanceof PocketBertError && error.reason === "network" && (await cache?.match(url));
      if (cached) return cached.text();
      throw this.#cut(error, name);
    }
  }

  async open(name: string, identity: Identity): Promise<AsyncIterator<Uint8Array>> {
    const url = new URL(name, this.url);
    const cache = await this.#cache();
    if (!cache) return this.#pieces(await this.#fetch(url, "default"), name);
    const key = new URL(url);
    key.searchParams.set("sha256", identity.sha256);
    const cached = await cache.match(key);
    if (cached) return this.#pieces(cached, name, () => cache.delete(key));
    const ended = new AbortController(); // ends the download for both readers
    const signal = this.access.signal;
    signal?.addEventListener("abort", () => ended.abort(signal.reason), { once: true });
    const response = await this.#fetch(url, "no-cache", ended.signal); // an older one may be in the browser's own cache
    for (const old of await cache.keys(url, { ignoreSearch: true })) await cache.delete(old);
    if (!response.body) return this.#pieces(response, name);
    const [ours, kept] = response.body.tee(); // what the cache has not written yet waits in memory
    const headers = { "content-type": "application/octet-stream" };
    const written = cache.put(key, new Response(kept, { headers })).catch(() => undefined);
    return this.#pieces(new Response(ours), name, async () => {
      ended.abort();
      await written;
      await cache.delete(key);
    });
  }

  async #cache(): Promise<Cache | undefined> {
    if (this.access.cache === false || typeof caches === "undefined" || !/^https?:$/.test(this.url.protocol)) {
      return undefined;
    }
    return caches.open(CACHE).catch(() => undefined); // a private window may have none
  }

  async #fetch(url: URL, cache: RequestCache, signal = this.access.signal): Promise<Response> {
    let response;
    try {
      response = await fetch(url, signal ? { cache, signal } : { cache });
    } catch (error) {
      checkAborted(this.access.signal);
      throw new PocketBertError("network", `cannot fetch ${url.href}: ${messageOf(error)}`, { cause: error });
    }
    if (!response.ok) {
      const advice = response.status === 404 ? "; is it a folder that `pocketbert export --format web` wrote?" : "";
      const reason = response.status >= 500 ? "network" : "model";
      throw new PocketBertError(reason, `cannot fetch ${url.href}: status ${response.status}${advice}`);
    }
    return response;
  }

  #pieces(response: Response, name: string, forget: () => unknown = () => undefined): AsyncIterator<Uint8Array> {
    const reader = response.body!.getReader();
    return {
      next: async () => {
        try {
          const { done, value } = await reader.read();
          return done ? { done: true, value: undefined } : { done: false, value };
        } catch (error) {
          await forget();
          throw this.#cut(error, name);
        }
      },
      return: async () => {
        await forget(); // the reader stopped before the end: the file is none of ours
        await reader.cancel().catch(() => undefined);
        return { done: true, value: undefined };
      },
    };
  }

  #cut(error: unknown, name: string): unknown {
    checkAborted(this.access.signal);
    if (error instanceof PocketBertError) return error;
    return new PocketBertError("network", `the connection was cut while ${name} was fetched: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function signalOf(access: Access): { signal?: AbortSignal } {
  return access.signal ? { signal: access.signal } : {};
}

/** Reads so many bytes at a time from pieces of any size. */
export class ByteReader {
  #rest: Uint8Array = new Uint8Array();

  constructor(
    readonly name: string,
    readonly pieces: AsyncIterator<Uint8Array>,
    readonly arrived: (bytes: number) => void,
  ) {}

  /** Hands the next `length` bytes to `take`, with the place of each piece among them. */
  async read(length: number, take: (bytes: Uint8Array, at: number) => void): Promise<void> {
    for (let at = 0; at < length; ) {
      if (!this.#rest.length && !(await this.#more())) {
        throw new PocketBertError("model", `${this.name} is cut off: ${length - at} bytes are missing; fetch it again`);
      }
      const piece = this.#rest.subarray(0, length - at);
      take(piece, at);
      this.#rest = this.#rest.subarray(piece.length);
      at += piece.length;
    }
  }

  async bytes(length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    await this.read(length, (piece, at) => bytes.set(piece, at));
    return bytes;
  }

  /** Raises an error unless nothing follows. */
  async end(): Promise<void> {
    if (this.#rest.length || (await this.#more())) {
      throw new PocketBertError("model", `${this.name} is longer than it says: it is of another model, or damaged`);
    }
  }

  async #more(): Promise<boolean> {
    for (;;) {
      const { done, value } = await this.pieces.next();
      if (done) return false;
      if (value.length) {
        this.#rest = value;
        this.arrived(value.length);
        return true;
      }
    }
  }
}
