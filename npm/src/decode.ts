/** Outputs of a model to predictions: as src/pocketbert/decode.py, decisions.py and tags.py, whose results these are. */
import { PocketBertError } from "./errors.js";
import type { Tokens, Window } from "./features.js";
import type { Matrix } from "./model.js";

export interface Label {
  label: string;
  score: number;
}

/** A label, or none (`null`) where the model is not sure enough. */
export interface Decision {
  label: string | null;
  score: number;
}

/** An entity; `text.slice(start, end)` is its text. */
export interface Entity {
  /** The tag of a token, with the strategy "none"; otherwise the type of a group. */
  entity: string;
  score: number;
  word: string;
  start: number;
  end: number;
}

/** An answer; `context.slice(start, end)` is its text, which is empty for "no answer". */
export interface Answer {
  answer: string;
  score: number;
  start: number;
  end: number;
}

export interface Choice {
  choice: string;
  index: number;
  score: number;
}

export const AGGREGATIONS = ["none", "simple", "first", "average", "max"] as const;
export type Aggregation = (typeof AGGREGATIONS)[number];

export const POOLINGS = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"] as const;
export type Pooling = (typeof POOLINGS)[number];

export const FUNCTIONS = ["none", "sigmoid", "softmax"] as const;
export type ScoreFunction = (typeof FUNCTIONS)[number];

// ── probabilities ──

type Numbers = ArrayLike<number>;

/** Probabilities of logits of any size. */
export function softmax(logits: Numbers): Float64Array {
  let largest = -Infinity;
  for (let i = 0; i < logits.length; i++) largest = Math.max(largest, logits[i]);
  const powers = Float64Array.from(logits, (one) => Math.exp(one - largest));
  const sum = powers.reduce((all, one) => all + one, 0);
  return powers.map((one) => one / sum);
}

function sigmoid(logit: number): number {
  const small = Math.exp(-Math.abs(logit)); // at most 1
  return (logit >= 0 ? 1 : small) / (1 + small);
}

/** Indices of the `k` best scores, best first, the earlier one where two are equal. */
export function best(scores: Numbers, k: number = scores.length): number[] {
  const before = (one: number, other: number) => scores[other] - scores[one] || one - other;
  if (k * 8 >= scores.length) return Array.from({ length: scores.length }, (_, i) => i).sort(before).slice(0, Math.max(k, 0));
  const found: number[] = []; // a whole sort of a vocabulary is ten times the work
  for (let i = 0; i < scores.length; i++) {
    if (found.length === k && !(scores[i] > scores[found[k - 1]])) continue;
    let at = found.length;
    while (at > 0 && scores[i] > scores[found[at - 1]]) at--;
    found.splice(at, 0, i);
    if (found.length > k) found.pop();
  }
  return found;
}

// ── labels ──

/** Scores of the logits of one text, by the published rule of text classification unless a function is named. */
export function labelScores(logits: Numbers, problemType: string | null, named?: ScoreFunction): Float64Array {
  const several = problemType === "multi_label_classification" || logits.length === 1;
  const usual = problemType === "regression" ? "none" : several ? "sigmoid" : "softmax";
  const how = oneOf("function", named ?? usual, FUNCTIONS);
  if (how === "softmax") return softmax(logits);
  return Float64Array.from(logits, how === "sigmoid" ? sigmoid : (one) => one);
}

/** Labels with their scores, best first. */
export function labels(scores: Numbers, names: readonly string[], topK?: number): Label[] {
  return best(scores, topK).map((i) => ({ label: names[i], score: scores[i] }));
}

/** How probabilities become an answer; without numbers the best label is it. */
export interface Rule {
  /** Minimum confidence of an answer. */
  confidence?: number;
  /** Minimum confidence of a label in the set of an answer. */
  member?: number;
  /** A text has all labels that exceed theirs. */
  thresholds?: readonly (number | null)[];
}

export function decide(rule: Rule, scores: Numbers, names: readonly string[]): Decision | Label[] {
  const ranked = best(scores);
  const answer = (i: number): Label => ({ label: names[i], score: scores[i] });
  const { thresholds, member, confidence } = rule;
  if (thresholds) return ranked.filter((i) => scores[i] > (thresholds[i] ?? Infinity)).map(answer);
  // The best label always: a set without any would tell nothing.
  if (member !== undefined) return ranked.filter((i) => i === ranked[0] || scores[i] >= member).map(answer);
  const found = answer(ranked[0]);
  return confidence !== undefined && found.score < confidence ? { ...found, label: null } : found;
}

/** Choices with their shares, best first. */
export function choices(logits: Numbers, options: readonly string[]): Choice[] {
  const scores = softmax(logits);
  return best(scores).map((index) => ({ choice: options[index], index, score: scores[index] }));
}

/** The best words at a mask and their probabilities among the whole vocabulary, also if only some compete. */
export function fills(logits: Numbers, topK: number, targets?: readonly number[]): [number, number][] {
  const scores = softmax(logits);
  if (!targets) return best(scores, topK).map((i) => [i, scores[i]]);
  return best(targets.map((id) => scores[id]), topK).map((i) => [targets[i], scores[targets[i]]]);
}

// ── vectors ──

/** One vector from those of all tokens; the first `skip`, a prompt, count only for the weights of "weightedmean". */
export function pool(hidden: Matrix, how: readonly Pooling[], skip = 0): Float32Array {
  const { width } = hidden;
  const vector = new Float32Array(width * how.length);
  how.forEach((one, part) => vector.set(pooled(hidden, oneOf("pooling", one, POOLINGS), skip), part * width));
  return vector;
}

function pooled({ data, rows, width }: Matrix, how: Pooling, skip: number): Float64Array {
  const result = new Float64Array(width).fill(how === "max" ? -Infinity : 0);
  const [first, last] = how === "cls" ? [skip, skip + 1] : how === "lasttoken" ? [rows - 1, rows] : [skip, rows];
  let weights = 0;
  for (let row = first; row < last; row++) {
    const weight = how === "weightedmean" ? row + 1 : 1;
    weights += weight;
    for (let i = 0; i < width; i++) {
      const value = data[row * width + i];
      result[i] = how === "max" ? Math.max(result[i], value) : result[i] + weight * value;
    }
  }
  const divisor = how === "max" ? 1 : how === "mean_sqrt_len_tokens" ? Math.sqrt(weights) : weights;
  return result.map((one) => one / divisor);
}

/** The vector with length 1, or as it is if it is 0. */
export function unit(vector: Float32Array): Float32Array {
  const length = Math.sqrt(vector.reduce((sum, one) => sum + one * one, 0));
  return vector.map((one) => one / Math.max(length, 1e-12));
}

// ── entities ──

export interface EntityOptions {
  aggregation: Aggregation;
  ignored: readonly string[];
  /** The vocabulary's entry of each token. */
  names: readonly string[];
  labels: readonly string[];
  join: (names: string[]) => string;
}

/** Entities of one text from [tokens, labels] logits. */
export function entities(logits: Matrix, tokens: Tokens, options: EntityOptions): Entity[] {
  const how = oneOf("aggregation", options.aggregation, AGGREGATIONS);
  const { width } = logits;
  const shares = Array.from({ length: logits.rows }, (_, row) => softmax(logits.data.subarray(row * width, (row + 1) * width)));
  const inside = tokens.words.flatMap((word, i) => (word >= 0 ? [i] : []));
  const units = how === "none" || how === "simple" ? inside.map((i) => [i]) : byWord(inside, tokens.words);
  const decided = units.map((unit) => {
    const surest = unit.reduce((one, other) => (Math.max(...shares[other]) > Math.max(...shares[one]) ? other : one));
    const deciding = how === "average" ? unit : [how === "max" ? surest : unit[0]];
    const scores = mean(deciding.map((i) => shares[i]));
    const label = best(scores, 1)[0];
    return { unit, tag: options.labels[label], score: scores[label] };
  });
  const tags = decided.map((one) => one.tag);
  const groups: Run[] =
    how === "none"
      ? tags.map((tag, i) => ({ type: tag === OUTSIDE ? null : tag, start: i, end: i + 1 }))
      : runs(tags, areEntities(options.labels));
  const found: Entity[] = [];
  for (const { type, start, end } of groups) {
    const entity = type === null ? OUTSIDE : type || UNTYPED;
    if (options.ignored.includes(entity) && type !== OUTSIDE) continue; // a type may have that name
    const members = decided.slice(start, end);
    const run = members.flatMap((one) => one.unit);
    const names = run.map((i) => options.names[i]);
    found.push({
      entity,
      score: members.reduce((sum, one) => sum + one.score, 0) / members.length,
      word: how === "none" ? names[0] : options.join(names),
      start: tokens.starts[run[0]],
      end: tokens.ends[run[run.length - 1]],
    });
  }
  return found;
}

function byWord(inside: readonly number[], words: readonly number[]): number[][] {
  const found: number[][] = [];
  inside.forEach((i, at) => {
    if (at && words[i] === words[inside[at - 1]]) found[found.length - 1].push(i);
    else found.push([i]);
  });
  return found;
}

function mean(rows: readonly Float64Array[]): Float64Array {
  return rows[0].map((_, i) => rows.reduce((sum, row) => sum + row[i], 0) / rows.length);
}

// ── tags ──

const OUTSIDE = "O";
const UNTYPED = "_"; // the name of a type that is left out
const OPENS = "BSU";
const CLOSES = "ESLU";
const PREFIXES = "BIMESLU";

/** Neighbouring words that belong together; the type is null outside of all entities, "" where types are left out. */
interface Run {
  type: string | null;
  start: number;
  end: number;
}

const isPrefix = (letter: string) => letter.length === 1 && PREFIXES.includes(letter);

function areEntities(tags: readonly string[]): boolean {
  const marks = tags.filter((tag) => tag !== OUTSIDE);
  return marks.every((tag) => tag.length > 2 && isPrefix(tag[0]) && tag[1] === "-") || marks.every(isPrefix);
}

/** A run ends where the type changes, before B, S and U, and after E, L, S and U: that reads all schemes alike. */
function runs(tags: readonly string[], untyped: boolean): Run[] {
  const found: Run[] = [];
  let closed = true;
  tags.forEach((tag, i) => {
    let [prefix, type]: [string, string | null] = ["I", tag];
    if (tag === OUTSIDE) type = null;
    else if (untyped && isPrefix(tag)) [prefix, type] = [tag, ""];
    else if (tag[1] === "-" && isPrefix(tag[0])) [prefix, type] = [tag[0], tag.slice(2)];
    const last = found[found.length - 1];
    if (closed || OPENS.includes(prefix) || type !== last.type) found.push({ type, start: i, end: i + 1 });
    else last.end = i + 1;
    closed = CLOSES.includes(prefix);
  });
  return found;
}

// ── answers ──

interface Span {
  start: number;
  end: number;
  startLogit: number;
  endLogit: number;
  logit: number;
}

/** Logits of one window. */
export interface SpanLogits {
  start: Float32Array;
  end: Float32Array;
}

/** The best spans of a question over all its windows: each starts where its token has the most context. */
export function spans(windows: readonly Window[], logits: readonly SpanLogits[], count: number, longest: number): Span[] {
  const found: Span[] = [];
  windows.forEach((window, number) => {
    const { start, end } = logits[number];
    const size = window.starts.length;
    const width = Math.max(Math.min(longest, size), 1);
    const sums = new Float32Array(size * width).fill(-Infinity);
    for (let first = 0; first < size; first++) {
      if (!window.widest[first]) continue;
      for (let more = 0; more < width && first + more < size; more++) {
        sums[first * width + more] = start[window.context + first] + end[window.context + first + more];
      }
    }
    for (const i of best(sums, count)) {
      if (sums[i] === -Infinity) continue;
      const first = Math.floor(i / width);
      const last = first + (i % width);
      const [startLogit, endLogit] = [start[window.context + first], end[window.context + last]];
      const logit = startLogit + endLogit;
      found.push({ start: window.starts[first], end: window.ends[last], startLogit, endLogit, logit });
    }
  });
  return found.sort((one, other) => other.logit - one.logit).slice(0, count);
}

/** How well "no answer" fits: start and end at [CLS], the least over all windows of a question. */
export function nullLogit(logits: readonly SpanLogits[]): number {
  return Math.min(...logits.map((one) => Math.fround(one.start[0] + one.end[0])));
}

/** The answers of a question, best first; with the logit of "no answer" that one competes as well. */
export function answers(found: readonly Span[], context: string, nothing?: number, threshold = 0): Answer[] {
  const ranked: [number, number, Span | null][] = found.map((span) => [span.logit, span.logit, span]);
  if (nothing !== undefined) {
    ranked.push([nothing - threshold, nothing, null]);
    ranked.sort(([one], [other]) => other - one);
  }
  if (!ranked.length) return [{ answer: "", score: 0, start: 0, end: 0 }];
  const shares = softmax(ranked.map(([, logit]) => logit));
  return ranked.map(([, , span], i) => {
    const [start, end] = span ? [span.start, span.end] : [0, 0];
    return { answer: context.slice(start, end), score: shares[i], start, end };
  });
}

/** The value, if it is one of the choices. */
export function oneOf<T extends string>(name: string, value: T, choices: readonly T[]): T {
  if (!choices.includes(value)) {
    throw new PocketBertError("input", `${name} ${JSON.stringify(value)} must be one of ${choices.join(", ")}`);
  }
  return value;
}
