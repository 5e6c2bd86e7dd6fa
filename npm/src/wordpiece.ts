/** Texts to pieces of words, by the tokeniser of the core. */
import { Tokeniser, type Core } from "./core.js";
import { PocketBertError } from "./errors.js";
import type { TokenizerOptions } from "./model.js";

/** Pieces of a text: their ids, where each starts and ends in it (in UTF-16), and the number of its word. */
export interface Pieces {
  ids: number[];
  starts: number[];
  ends: number[];
  words: number[];
}

export class WordPiece {
  readonly #ids = new Map<string, number>();
  readonly #tokeniser: Tokeniser;
  /** The vocabulary, by id. */
  readonly words: readonly string[];

  /** @param vocabulary - one token per line, in UTF-8 */
  constructor(
    core: Core,
    vocabulary: Uint8Array,
    readonly options: TokenizerOptions,
  ) {
    this.words = new TextDecoder().decode(vocabulary).split("\n").slice(0, -1);
    this.words.forEach((word, id) => this.#ids.set(word, id));
    const { unknown, special, added } = options;
    if ([unknown, ...special, ...added.map((one) => one.id)].some((id) => this.words[id] === undefined)) {
      throw new PocketBertError("model", "vocab.txt lacks a token that the model names: it is of another model");
    }
    let end = 0; // of the vocabulary's own tokens: the added ones behind them are no pieces of words
    for (let word = 0; word < options.words; word++) end = vocabulary.indexOf(10, end) + 1;
    this.#tokeniser = new Tokeniser(core, {
      tokens: vocabulary.subarray(0, end).map((byte) => (byte === 10 ? 0 : byte)),
      unknown: this.words[unknown],
      prefix: options.prefix,
      longestWord: options.longest_word,
      cleanText: options.clean_text,
      chinese: options.chinese,
      stripAccents: options.strip_accents,
      lowerCase: options.lower_case,
    });
    for (const { id, normalized, takes_left: takesLeft, takes_right: takesRight } of added) {
      this.#tokeniser.add({ content: this.words[id], id, normalized, takesLeft, takesRight });
    }
  }

  /** The id of a word of the vocabulary, if it is one. */
  id(word: string): number | undefined {
    return this.#ids.get(word);
  }

  pieces(text: string): Pieces {
    const tokens = this.#tokeniser.tokens(text);
    const found: Pieces = { ids: [], starts: [], ends: [], words: [] };
    let word = -1;
    for (let i = 0; i < tokens.length; i += 3) {
      if (!this.words[tokens[i]].startsWith(this.options.prefix)) word++;
      found.ids.push(tokens[i]);
      found.starts.push(tokens[i + 1]);
      found.ends.push(tokens[i + 2]);
      found.words.push(word);
    }
    return found;
  }
}
