/** The thread of a worker: one model, which the other thread asks. */
import { failure, type Reply, type Request } from "./messages.js";
import { Here } from "./local.js";

interface Port {
  postMessage(reply: Reply): void;
}

let here: Here | undefined;
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
      here = await Here.load(where, { signal, onProgress, cache, wasm });
      port.postMessage({ id, kind: "loaded", description: here.description, about: here.about });
    } else {
      const asked = await here!.ask(request.task, request.inputs, request.options, signal);
      port.postMessage({ id, kind: "asked", asked, about: here!.about });
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
