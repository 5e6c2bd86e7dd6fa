/** The thread of a worker: one model, which the other thread asks. */
import { failure, type Reply, type Request } from "./messages.js";
import { loadHere } from "./local.js";
import type { Asker } from "./tasks.js";

interface Port {
  postMessage(reply: Reply): void;
}

let asker: Asker | undefined;
const aborts = new Map<number, AbortController>();

async function handle(request: Request, port: Port): Promise<void> {
  const { id } = request;
  if (request.kind === "abort") {
    aborts.get(id)?.abort();
    return;
  }
  const controller = new AbortController();
  aborts.set(id, controller);
  const { signal } = controller;
  try {
    if (request.kind === "load") {
      const { where, cache, wasm } = request;
      const onProgress = (progress: { loaded: number; total: number }) => port.postMessage({ id, kind: "progress", progress });
      asker = await loadHere(where, { signal, onProgress, cache, wasm });
      const { description, program } = asker.model;
      const about = { kernels: program.kernels, memory: program.core.bytes };
      port.postMessage({ id, kind: "loaded", description, about });
    } else {
      const asked = await asker!.ask(request.task, request.inputs, request.options, signal);
      port.postMessage({ id, kind: "asked", asked });
    }
  } catch (error) {
    port.postMessage(failure(id, error));
  } finally {
    aborts.delete(id);
  }
}

if (typeof WorkerGlobalScope === "undefined") {
  const { parentPort } = await import("node:worker_threads");
  parentPort!.on("message", (request: Request) => void handle(request, parentPort!));
} else {
  self.onmessage = (event: MessageEvent<Request>) => void handle(event.data, self as unknown as Port);
}

declare const WorkerGlobalScope: unknown;
