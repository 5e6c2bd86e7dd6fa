/**
 * WordPiece as BERT has it: text to pieces of words.
 *
 * Characters are cleaned, folded and split one by one, so that each piece knows where it stands in the text. Sources:
 * google-research/bert tokenization.py; the library `tokenizers`, whose ids and offsets these are.
 */
import { PocketBertError } from "./errors.js";
import type { TokenizerOptions } from "./model.js";

/** Pieces of a text: their ids, where each starts and ends in it (in UTF-16), and the number of its word. */
export interface Pieces {
  ids: number[];
  starts: number[];
  ends: number[];
  words: number[];
}

interface Character {
  text: string;
  start: number;
  end: number;
}

const SPACE = /^\p{White_Space}$/u;
const DROPPED = /^[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Cn}\0\ufffd]$/u;
const MARK = /^\p{Mn}$/u;
const PUNCTUATION = /^[\p{P}$+<=>^`|~]$/u;

export class WordPiece {
  readonly #ids = new Map<string, number>();
  readonly #specials: RegExp | undefined;

  constructor(
    readonly words: readonly string[],
    readonly options: TokenizerOptions,
  ) {
    words.forEach((word, id) => this.#ids.set(word, id));
    const specials = options.special.map((id) => words[id]).sort((one, other) => other.length - one.length);
    if (specials.some((word) => word === undefined)) {
      throw new PocketBertError("model", "vocab.txt lacks a special token: it is of another model");
    }
    const escaped = specials.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    this.#specials = escaped.length ? new RegExp(escaped.join("|"), "gu") : undefined;
  }

  /** The id of a word of the vocabulary, if it is one. */
  id(word: string): number | undefined {
    return this.#ids.get(word);
  }

  pieces(text: string): Pieces {
    const found: Pieces = { ids: [], starts: [], ends: [], words: [] };
    let at = 0;
    let word = 0;
    for (const match of this.#specials ? text.matchAll(this.#specials) : []) {
      word = this.#plain(text, at, match.index, word, found);
      add(found, this.#ids.get(match[0])!, match.index, match.index + match[0].length, word++);
      at = match.index + match[0].length;
    }
    this.#plain(text, at, text.length, word, found);
    return found;
  }

  #plain(text: string, from: number, to: number, word: number, found: Pieces): number {
    let characters: Character[] = [];
    const flush = () => {
      if (characters.length) this.#word(characters, word++, found);
      characters = [];
    };
    for (let at = from; at < to; ) {
      const code = text.codePointAt(at)!;
      const character = String.fromCodePoint(code);
      const [start, end] = [at, at + character.length];
      at = end;
      for (const one of this.#normal(character, code)) {
        if (SPACE.test(one)) flush();
        else if (PUNCTUATION.test(one)) {
          flush();
          characters.push({ text: one, start, end });
          flush();
        } else characters.push({ text: one, start, end });
      }
    }
    flush();
    return word;
  }

  /** What becomes of a character: nothing, itself, or several. */
  *#normal(character: string, code: number): Generator<string> {
    const { options } = this;
    if (options.clean_text) {
      if (character === "\t" || character === "\n" || character === "\r" || SPACE.test(character)) {
        yield " ";
        return;
      }
      if (DROPPED.test(character)) return;
    }
    if (options.chinese && isIdeograph(code)) {
      yield " ";
      yield character;
      yield " ";
      return;
    }
    for (const part of options.strip_accents ? character.normalize("NFD") : character) {
      if (options.strip_accents && MARK.test(part)) continue;
      if (options.lower_case) yield* part.toLowerCase();
      else yield part;
    }
  }

  #word(characters: readonly Character[], word: number, found: Pieces): void {
    const { options } = this;
    const pieces: [number, number, number][] = [];
    let first = 0;
    while (first < characters.length && characters.length <= options.longest_word) {
      let last = characters.length;
      let id: number | undefined;
      for (; last > first; last--) {
        const text = characters.slice(first, last).reduce((joined, one) => joined + one.text, first ? options.prefix : "");
        if ((id = this.#ids.get(text)) !== undefined) break;
      }
      if (id === undefined) break;
      pieces.push([id, characters[first].start, characters[last - 1].end]);
      first = last;
    }
    if (first === characters.length) {
      for (const [id, start, end] of pieces) add(found, id, start, end, word);
    } else {
      add(found, options.unknown, characters[0].start, characters[characters.length - 1].end, word);
    }
  }
}

function add(found: Pieces, id: number, start: number, end: number, word: number): void {
  found.ids.push(id);
  found.starts.push(start);
  found.ends.push(end);
  found.words.push(word);
}

function isIdeograph(code: number): boolean {
  return (
    (code >= 0x4e00 && code <= 0x9fff) ||
    (code >= 0x3400 && code <= 0x4dbf) ||
    (code >= 0x20000 && code <= 0x2a6df) ||
    (code >= 0x2a700 && code <= 0x2b73f) ||
    (code >= 0x2b740 && code <= 0x2b81f) ||
    (code >= 0x2b920 && code <= 0x2ceaf) ||
    (code >= 0xf900 && code <= 0xfaff) ||
    (code >= 0x2f800 && code <= 0x2fa1f)
  );
}
