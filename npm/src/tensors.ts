/** Tensors of a safetensors file, read one by one into the memory of the core. */
import type { Core, Tensor } from "./core.js";
import { PocketBertError } from "./errors.js";
import type { ByteReader } from "./files.js";

const LARGEST_HEADER = 1 << 24; // bytes
const BLOCK = 4096; // bytes of a checksum's sums

interface Entry {
  name: string;
  int8: boolean;
  rows: number;
  width: number;
  bytes: number;
}

/** A file of which the next tensors are read when one of them is asked for; each can be let go. */
export class TensorFile {
  readonly #waiting: Entry[];
  readonly #read = new Map<string, Tensor>();

  private constructor(
    readonly core: Core,
    readonly reader: ByteReader,
    entries: Entry[],
    readonly checksums: Record<string, string>,
  ) {
    this.#waiting = entries;
  }

  static async open(core: Core, reader: ByteReader): Promise<TensorFile> {
    const length = new DataView((await reader.bytes(8)).buffer).getBigUint64(0, true);
    const foreign = (why: string) =>
      new PocketBertError("model", `${reader.name} is damaged, or not a safetensors file: ${why}`);
    if (length > LARGEST_HEADER) throw foreign("its header would be too long");
    let header;
    try {
      header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(await reader.bytes(Number(length))));
    } catch (error) {
      if (error instanceof PocketBertError) throw error;
      throw foreign("its header is not JSON");
    }
    const metadata = header?.__metadata__ ?? {};
    let checksums = {};
    try {
      checksums = JSON.parse(metadata.checksums ?? "{}");
    } catch {
      throw foreign("its checksums are not JSON");
    }
    let end = 0;
    const places = Object.entries<any>(header ?? {}).filter(([name]) => name !== "__metadata__");
    places.sort(([, one], [, other]) => one?.data_offsets?.[0] - other?.data_offsets?.[0]);
    const entries = places.map(([name, entry]): Entry => {
      const shape = entry?.shape;
      const int8 = entry?.dtype === "I8";
      if (!int8 && entry?.dtype !== "F32") throw foreign(`${name} is of type ${entry?.dtype}`);
      const valid = Array.isArray(shape) && (shape.length === 1 || shape.length === 2) && shape.every(isCount);
      if (!valid) throw foreign(`${name} has the shape ${JSON.stringify(shape)}`);
      const [rows, width] = shape.length === 2 ? shape : [1, shape[0]];
      const bytes = rows * width * (int8 ? 1 : 4);
      const [first, last] = entry?.data_offsets ?? [];
      if (first !== end || last !== end + bytes) throw foreign(`${name} does not lie where it should`);
      end = last;
      return { name, int8, rows, width, bytes };
    });
    if (end > 2 ** 32 - 2 ** 26) {
      throw new PocketBertError("memory", `the model has ${(end / 2 ** 30).toFixed(1)} GiB, and WebAssembly addresses 4 GiB`);
    }
    return new TensorFile(core, reader, entries, checksums);
  }

  /** The tensor of this name; it stays in memory until `release`. */
  async get(name: string): Promise<Tensor> {
    let found = this.#read.get(name);
    while (!found) {
      const entry = this.#waiting.shift();
      if (!entry) throw new PocketBertError("model", `${this.reader.name} lacks ${name}: it is of another model`);
      const place = this.core.allocate(entry.bytes);
      await this.reader.read(entry.bytes, (bytes, at) => this.core.bytesAt(place + at, bytes.length).set(bytes));
      const expected = this.checksums[entry.name];
      if (expected !== undefined && checksum(this.core.bytesAt(place, entry.bytes)) !== expected) {
        throw new PocketBertError("model", `${this.reader.name} is damaged: ${entry.name} does not have its checksum`);
      }
      this.#read.set(entry.name, { place, rows: entry.rows, width: entry.width, int8: entry.int8 });
      found = this.#read.get(name);
    }
    return found;
  }

  release(name: string): void {
    const tensor = this.#read.get(name);
    if (tensor) this.core.free(tensor.place);
    this.#read.delete(name);
  }

  /** Raises an error unless all tensors were read, and nothing follows them. */
  async end(): Promise<void> {
    const [left] = this.#waiting;
    if (left) throw new PocketBertError("model", `${this.reader.name} has ${left.name}, which no step needs`);
    await this.reader.end();
  }
}

function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) > 0;
}

/** The CRC-32 of the sums of blocks of 4 KiB, as numbers of 64 bits, and of the rest; see checkpoints/checksums.py. */
export function checksum(bytes: Uint8Array): string {
  const blocks = Math.floor(bytes.length / BLOCK);
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, (blocks * BLOCK) / 4);
  const sums = new DataView(new ArrayBuffer(8 * blocks));
  for (let block = 0; block < blocks; block++) {
    let low = 0;
    let high = 0;
    const end = ((block + 1) * BLOCK) / 4;
    for (let i = (block * BLOCK) / 4; i < end; i += 2) {
      low += words[i];
      high += words[i + 1];
    }
    sums.setUint32(8 * block, low % 2 ** 32, true);
    sums.setUint32(8 * block + 4, (high + Math.floor(low / 2 ** 32)) % 2 ** 32, true);
  }
  const crc = crc32(bytes.subarray(blocks * BLOCK), crc32(new Uint8Array(sums.buffer), 0));
  return crc.toString(16).padStart(8, "0");
}

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

function crc32(bytes: Uint8Array, before: number): number {
  let crc = ~before;
  for (let i = 0; i < bytes.length; i++) crc = CRC[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}
