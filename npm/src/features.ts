/** Texts to inputs of a model, and texts of any length to windows: as src/pocketbert/features.py and windows.py. */
import { PocketBertError } from "./errors.js";
import type { Features, Matrix } from "./model.js";
import type { Pieces, WordPiece } from "./wordpiece.js";

const LONG = 64; // characters per token of a limit: far more than so many tokens usually have

/** A text, or two. */
export interface TextPair {
  text: string;
  textPair?: string;
}

/** One input, and whether the end of a text was cut off. */
export interface Encoded extends Features {
  cut: boolean;
}

/** A text for token classification: where each token stands, and its word (-1 for special tokens). */
export interface Tokens extends Encoded {
  starts: number[];
  ends: number[];
  words: number[];
}

/** One window of an input that is too long; the tokens `first` to `last` of it are decided by this window. */
export interface Part {
  features: Features;
  first: number;
  last: number;
  /** How many of them belong to the text. */
  share: number;
}

/** A question with a part of its context. */
export interface Window extends Features {
  /** The first token of the part. */
  context: number;
  /** Where the tokens of the part start and end in the context. */
  starts: number[];
  ends: number[];
  /** Whether no other window shows more around the token. */
  widest: boolean[];
}

/** Makes the inputs of one model. */
export class Encoder {
  constructor(
    readonly pieces: WordPiece,
    readonly maxLength: number,
  ) {}

  /** A text or a pair as one input, cut to the model's length, of a pair the longer text first. */
  text(input: string | TextPair): Encoded {
    const [first, second] = textsOf(input);
    const room = this.maxLength - (second === undefined ? 2 : 3);
    const one = this.#pieces(first, room);
    if (second === undefined) {
      const kept = this.#cut(one.ids, room);
      return { ...this.#framed(kept), cut: kept.length < one.ids.length };
    }
    const other = this.#pieces(second, room);
    const [left, right] = shares(one.ids.length, other.ids.length, room);
    return {
      ...this.#framed(this.#cut(one.ids, left), this.#cut(other.ids, right)),
      cut: left < one.ids.length || right < other.ids.length,
    };
  }

  /** A text or a pair as windows; of a pair the longer text is divided. `repeated` tokens are in every window. */
  windows(input: string | TextPair, repeated = 0): Part[] {
    const [first, second] = textsOf(input);
    const texts = [this.#whole(first).ids, ...(second === undefined ? [] : [this.#whole(second).ids])];
    let whole = this.#framed(texts[0], texts[1]);
    if (whole.ids.length <= this.maxLength) return [alone(whole)];
    const divided = texts.length === 1 || texts[0].length > texts[1].length ? 0 : 1;
    const half = Math.floor((this.maxLength - (texts.length === 1 ? 2 : 3)) / 2);
    if (texts.length === 2) {
      texts[1 - divided] = texts[1 - divided].slice(0, half);
      whole = this.#framed(texts[0], texts[1]);
    }
    const start = divided === 0 ? 1 : 2 + texts[0].length;
    return divide(whole, start + repeated, start + texts[divided].length, this.maxLength);
  }

  /** A whole text for token classification, and its windows. */
  tokens(text: string): [Tokens, Part[]] {
    const found = withMarks(text, this.#whole(checked(text)));
    const whole = {
      ...this.#framed(found.ids),
      cut: false,
      starts: [0, ...found.starts, 0],
      ends: [0, ...found.ends, 0],
      words: [-1, ...found.words, -1],
    };
    if (whole.ids.length <= this.maxLength) return [whole, [alone(whole)]];
    return [whole, divide(whole, 1, whole.ids.length - 1, this.maxLength)];
  }

  /** A question over a context of any length, as windows that start `stride` tokens after each other. */
  question(question: string, context: string, given: QuestionOptions): Window[] {
    const length = Math.min(given.maxLength ?? 384, this.maxLength);
    const stride = given.stride ?? Math.min(128, Math.max(1, Math.floor(length / 3)));
    const longest = given.maxQuestionLength ?? Math.min(64, Math.max(1, Math.floor(length / 6)));
    const left = length - longest - 3;
    if (longest < 1 || !(stride >= 1 && stride <= left)) {
      throw new PocketBertError(
        "input",
        `${length} tokens less a question of ${longest} and 3 special tokens leave ${left} for the context: no room for ` +
          `stride ${stride}; lower stride or maxQuestionLength`,
      );
    }
    const asked = this.#whole(checked(question).trim()).ids.slice(0, longest);
    const { ids, starts, ends } = withMarks(context, this.#whole(checked(context)));
    const room = length - asked.length - 3;
    const parts: [number, number][] = [];
    for (let start = 0; start < Math.max(ids.length - room, 0) + stride; start += stride) {
      parts.push([start, Math.min(start + room, ids.length)]);
    }
    // How much of the text is seen around each token at best, as the original BERT counts it; and in which window.
    const best = new Float64Array(ids.length).fill(-Infinity);
    const widest = new Int32Array(ids.length);
    parts.forEach(([start, end], number) => {
      for (let i = start; i < end; i++) {
        const around = Math.min(i - start, end - 1 - i) + 0.01 * (end - start);
        if (around > best[i]) [best[i], widest[i]] = [around, number];
      }
    });
    return parts.map(([start, end], number) => ({
      ...this.#framed(asked, ids.slice(start, end)),
      context: 2 + asked.length,
      starts: starts.slice(start, end),
      ends: ends.slice(start, end),
      widest: Array.from(widest.subarray(start, end), (one) => one === number),
    }));
  }

  /** The pieces of a text, all of them. */
  #whole(text: string): Pieces {
    return this.pieces.pieces(text);
  }

  /** The pieces of a text without most of what will be cut off: of a whole book, all of them would take a while. */
  #pieces(text: string, room: number): Pieces {
    const left = this.pieces.options.truncation_side === "left";
    for (let size = LONG * room; size < text.length; size *= 2) {
      let part;
      if (left) {
        const start = text.length - size;
        const space = text.indexOf(" ", start);
        part = text.slice(space >= 0 && space < start + size / 2 ? space : start);
      } else {
        const space = text.lastIndexOf(" ", size - 1);
        part = text.slice(0, space >= Math.floor(size / 2) ? space + 1 : size);
      }
      // Without a space there, the part may be cut inside a word, which has at most 100 tokens.
      const found = this.pieces.pieces(part);
      if (found.ids.length > room + 100) return found;
    }
    return this.pieces.pieces(text);
  }

  #cut(ids: number[], length: number): number[] {
    if (ids.length <= length) return ids;
    return this.pieces.options.truncation_side === "left" ? ids.slice(ids.length - length) : ids.slice(0, length);
  }

  /** [CLS] first [SEP], or [CLS] first [SEP] second [SEP]. */
  #framed(first: readonly number[], second?: readonly number[]): Features {
    const { cls, sep } = this.pieces.options;
    const ids = [cls, ...first, sep, ...(second ? [...second, sep] : [])];
    const segments = new Int32Array(ids.length).fill(1, 2 + first.length);
    return { ids: Int32Array.from(ids), segments };
  }
}

export interface QuestionOptions {
  /** Tokens per window: 384 by default. */
  maxLength?: number;
  /** Tokens between the starts of two windows. */
  stride?: number;
  /** Tokens of a question; more are dropped. */
  maxQuestionLength?: number;
}

const MARKS = /\p{M}*/uy;

/** The pieces of a text, each with the combining marks that follow it, which a tokeniser may have dropped. */
function withMarks(text: string, pieces: Pieces): Pieces {
  if (!/\p{M}/u.test(text)) return pieces;
  const { starts, ends } = pieces;
  const longer = ends.map((end, i) => {
    MARKS.lastIndex = end;
    MARKS.exec(text);
    return end > starts[i] ? Math.min(Math.max(end, MARKS.lastIndex), starts[i + 1] ?? text.length) : end;
  });
  return { ...pieces, ends: longer };
}

function alone(whole: Features): Part {
  return { features: whole, first: 0, last: whole.ids.length, share: 1 };
}

/** Windows of an input in which all tokens but `start` to `end` are in every one; see windows.py. */
function divide(whole: Features, start: number, end: number, length: number): Part[] {
  const size = whole.ids.length;
  const room = length - size + end - start;
  if (room < 1) {
    throw new PocketBertError(
      "input",
      `the ${length} tokens of a window leave no room for the text beside the tokens of every window`,
    );
  }
  const overlap = Math.floor(room / 4);
  const last = end - room;
  const starts: number[] = [];
  for (let at = start; at < last; at += room - overlap) starts.push(at);
  starts.push(last);
  // All windows are equally long: up to the middle of what two show, a token is farther from the edges of the earlier.
  const turns = starts.slice(1).map((later, i) => Math.floor((starts[i] + later + room - 1) / 2) + 1);
  const bounds = [start, ...turns, end];
  return starts.map((at, number) => {
    const shown = (all: Int32Array) => Int32Array.from([...all.slice(0, start), ...all.slice(at, at + room), ...all.slice(end)]);
    const shift = at - start;
    const [from, to] = [bounds[number], bounds[number + 1]];
    return {
      features: { ids: shown(whole.ids), segments: shown(whole.segments) },
      first: (number ? from : 0) - shift,
      last: (at < last ? to : size) - shift,
      share: to - from,
    };
  });
}

/** The output of an input that may have been divided, [tokens, width], from those of its windows. */
export function merged(parts: readonly Part[], outputs: readonly Matrix[]): Matrix {
  if (parts.length === 1) return outputs[0];
  const { width } = outputs[0];
  const rows = parts.reduce((sum, part) => sum + part.last - part.first, 0);
  const data = new Float32Array(rows * width);
  let at = 0;
  parts.forEach((part, i) => {
    const own = outputs[i].data.subarray(part.first * width, part.last * width);
    data.set(own, at);
    at += own.length;
  });
  return { data, rows, width };
}

/** The mean of one vector per window, weighted by the tokens of the text that each of them decides. */
export function weightedMean(parts: readonly Part[], vectors: readonly Float32Array[]): Float32Array {
  if (parts.length === 1) return vectors[0];
  const total = parts.reduce((sum, part) => sum + part.share, 0);
  return vectors[0].map((_, i) => parts.reduce((sum, part, window) => sum + part.share * vectors[window][i], 0) / total);
}

/** Tokens that remain of two texts: the longer is cut first, then both to a half each. */
function shares(first: number, second: number, room: number): [number, number] {
  if (first + second <= room) return [first, second];
  let [short, long] = first > second ? [second, first] : [first, second];
  long = short > room ? short : Math.max(short, room - short);
  if (short + long > room) {
    short = Math.floor(room / 2);
    long = short + (room % 2);
  }
  return first > second ? [Math.min(long, first), Math.min(short, second)] : [Math.min(short, first), Math.min(long, second)];
}

function textsOf(input: string | TextPair): [string, string | undefined] {
  if (typeof input === "string") return [checked(input), undefined];
  const isPair = typeof input === "object" && input !== null && "text" in input;
  if (!isPair) throw new PocketBertError("input", `${describeValue(input)} is not a text, nor { text, textPair }`);
  return [checked(input.text), input.textPair === undefined ? undefined : checked(input.textPair)];
}

/** A text that can be read; half a surrogate pair is none. */
export function checked(text: unknown): string {
  if (typeof text !== "string") throw new PocketBertError("input", `${describeValue(text)} is not a text`);
  const broken = /[\ud800-\udfff]/u.exec(text);
  if (broken) {
    const code = broken[0].charCodeAt(0).toString(16);
    throw new PocketBertError("input", `the text has half a surrogate pair, U+${code}: it was cut, or decoded wrongly`);
  }
  return text;
}

function describeValue(value: unknown): string {
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  return `${typeof value} ${text.slice(0, 60)}`;
}
