/** What this package's two threads say to each other. */
import type { Progress } from "./files.js";
import type { Description } from "./model.js";
import type { Asked, TaskName } from "./tasks.js";
import { PocketBertError, messageOf, type Reason } from "./errors.js";

export type Request =
  | { id: number; kind: "load"; where: string; cache: boolean | undefined; wasm: string | undefined }
  | { id: number; kind: "ask"; task: TaskName; inputs: readonly unknown[]; options: unknown }
  | { id: number; kind: "abort" };

export type Reply =
  | { id: number; kind: "progress"; progress: Progress }
  | { id: number; kind: "loaded"; description: Description; about: About }
  | { id: number; kind: "asked"; asked: Asked; about: About }
  | { id: number; kind: "failed"; reason: Reason | null; message: string };

/** What a loaded model runs on. */
export interface About {
  kernels: string;
  /** Bytes of the memory of WebAssembly. */
  memory: number;
}

export function failure(id: number, error: unknown): Reply {
  const reason = error instanceof PocketBertError ? error.reason : null;
  return { id, kind: "failed", reason, message: messageOf(error) };
}
