/** A model in a worker: a Web Worker, or a thread of Node. */
import { PocketBertError, checkAborted, messageOf } from "./errors.js";
import type { Loading } from "./local.js";
import type { About, Reply, Request } from "./messages.js";
import type { Description } from "./model.js";
import type { Asked, TaskName } from "./tasks.js";

interface Thread {
  post(request: Request): void;
  end(): void;
  /** Whether the process goes on for this thread's sake. */
  hold(isNeeded: boolean): void;
}

interface Waiting {
  resolve: (reply: Reply) => void;
  reject: (error: unknown) => void;
  onProgress?: Loading["onProgress"];
}

export class Remote {
  readonly #waiting = new Map<number, Waiting>();
  #thread: Thread | undefined;
  #ended: PocketBertError | undefined;
  #next = 0;
  description!: Description;
  about!: About;

  static async load(where: string | URL, loading: Loading): Promise<Remote> {
    checkAborted(loading.signal);
    const remote = new Remote();
    remote.#thread = await start(
      (reply) => remote.#receive(reply),
      (why) => remote.#end(new PocketBertError("worker", why)),
    );
    try {
      const wasm = loading.wasm === undefined ? undefined : String(loading.wasm);
      const given = { kind: "load", where: absolute(where), cache: loading.cache, wasm } as const;
      const reply = await remote.#call(given, loading.signal, loading.onProgress);
      if (reply.kind === "loaded") ({ description: remote.description, about: remote.about } = reply);
      return remote;
    } catch (error) {
      remote.close();
      throw error;
    }
  }

  async ask(task: TaskName, inputs: readonly unknown[], options: unknown, signal?: AbortSignal): Promise<Asked> {
    const reply = await this.#call({ kind: "ask", task, inputs, options }, signal);
    const { asked, about } = reply as Extract<Reply, { kind: "asked" }>;
    this.about = about;
    return asked;
  }

  close(): void {
    this.#end(new PocketBertError("worker", "the model was closed"));
  }

  #call(
    request: Request extends infer Each ? (Each extends Request ? Omit<Each, "id"> : never) : never,
    signal: AbortSignal | undefined,
    onProgress?: Loading["onProgress"],
  ): Promise<Reply> {
    checkAborted(signal);
    if (this.#ended) return Promise.reject(this.#ended);
    const id = this.#next++;
    const abort = () => {
      this.#thread!.post({ id, kind: "abort" });
      this.#take(id)?.reject(signal!.reason);
    };
    return new Promise<Reply>((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, onProgress });
      this.#thread!.hold(true);
      signal?.addEventListener("abort", abort, { once: true });
      try {
        this.#thread!.post({ ...request, id } as Request);
      } catch (error) {
        this.#take(id);
        reject(new PocketBertError("input", `the call cannot be sent to the worker: ${messageOf(error)}`, { cause: error }));
      }
    }).finally(() => signal?.removeEventListener("abort", abort));
  }

  #receive(reply: Reply): void {
    if (reply.kind === "progress") return this.#waiting.get(reply.id)?.onProgress?.(reply.progress);
    const waiting = this.#take(reply.id);
    if (reply.kind !== "failed") waiting?.resolve(reply);
    else waiting?.reject(reply.reason === null ? new Error(reply.message) : new PocketBertError(reply.reason, reply.message));
  }

  #take(id: number): Waiting | undefined {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (!this.#waiting.size) this.#thread?.hold(false);
    return waiting;
  }

  #end(why: PocketBertError): void {
    if (this.#ended) return;
    this.#ended = why;
    this.#thread?.end();
    for (const { reject } of this.#waiting.values()) reject(why);
    this.#waiting.clear();
  }
}

const REMEDY = "worker: false runs the model in this thread";

async function start(receive: (reply: Reply) => void, ended: (why: string) => void): Promise<Thread> {
  const url = new URL("./worker.js", import.meta.url);
  try {
    if (typeof Worker === "undefined") {
      const threads = await import("node:worker_threads").catch(() => undefined);
      if (!threads) throw new Error("this place has none");
      const worker = new threads.Worker(url);
      worker.on("message", receive);
      worker.on("error", (error) => ended(`the worker has ended: ${error.message}`));
      worker.on("exit", () => ended("the worker has ended"));
      return {
        post: (request) => worker.postMessage(request),
        end: () => void worker.terminate(),
        hold: (isNeeded) => (isNeeded ? worker.ref() : worker.unref()),
      };
    }
    const worker = new Worker(url, { type: "module" });
    worker.onmessage = (event: MessageEvent<Reply>) => receive(event.data);
    worker.onmessageerror = () => ended("the worker sent what cannot be read");
    worker.onerror = (event) => {
      event.preventDefault();
      const why = event.message || `${url.href} was blocked, or is not there`;
      ended(`the worker cannot go on: ${why}; ${REMEDY}`);
    };
    return { post: (request) => worker.postMessage(request), end: () => worker.terminate(), hold: () => undefined };
  } catch (error) {
    throw new PocketBertError("worker", `no worker can be started: ${messageOf(error)}; ${REMEDY}`, { cause: error });
  }
}

/** An address that means the same in the worker, which stands elsewhere. */
function absolute(where: string | URL): string {
  if (typeof location === "undefined") return String(where);
  return URL.canParse(String(where), location.href) ? new URL(where, location.href).href : String(where);
}
