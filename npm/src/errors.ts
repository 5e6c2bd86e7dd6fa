/** What went wrong, for code that tells errors apart. */
export type Reason =
  | "input" // an argument or a text makes no sense
  | "model" // the files are damaged, foreign, or of another version
  | "network" // a file could not be fetched, or the connection was cut
  | "memory" // there is not enough
  | "unsupported" // the engine lacks something, such as SIMD in WebAssembly
  | "worker"; // a worker could not be started, or has ended

/** Every error that this package raises, except that of an aborted call, which is the signal's reason. */
export class PocketBertError extends Error {
  override readonly name = "PocketBertError";

  constructor(
    readonly reason: Reason,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** The message of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Raises the reason of a signal that was aborted. */
export function checkAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw signal.reason;
}
