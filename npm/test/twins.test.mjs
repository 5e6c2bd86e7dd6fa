// What is written in Python and here does the same, on made-up outputs: POCKETBERT_TWINS is a file of cases that
// `PYTHONPATH=tests python -m helpers.web_cases FILE` writes.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Core } from "../dist/core.js";
import { moduleAt } from "../dist/local.js";
import { Asker } from "../dist/tasks.js";
import { WordPiece } from "../dist/wordpiece.js";
import { difference } from "./cases.mjs";

const FILE = process.env.POCKETBERT_TWINS;
const skip = FILE ? false : "POCKETBERT_TWINS names no file of cases";
const WIDTH = 12;

/** [ids, width] numbers, as `output` of tests/helpers/web_cases.py makes them. */
function output(ids, places, width) {
  const data = new Float32Array(ids.length * width);
  ids.forEach((id, i) => {
    for (let column = 0; column < width; column++) {
      const number = BigInt(id * 3181 + places[i] * 1787 + column * 7481);
      data[i * width + column] = Number((number * number) % 9973n) / 1024 - 5;
    }
  });
  return { data, rows: ids.length, width };
}

/** A model that computes these. */
class MadeUp {
  constructor(description, words) {
    Object.assign(this, { description, words, maxTokens: 64 });
  }

  *batches(inputs) {
    yield inputs;
  }

  run(inputs) {
    return inputs.map((one) => this.#outputs(one));
  }

  #outputs({ ids: given, segments, rows }) {
    const { head, labels } = this.description;
    const ids = Array.from(given, (id, i) => id + 7 * segments[i]);
    const whole = [ids.reduce((sum, id, i) => sum + id * ((i % 7) + 1), 0)];
    if (head === "ForSequenceClassification") return { logits: output(whole, [0], labels.length) };
    if (head === "ForMultipleChoice") return { logits: output(whole, [0], 1) };
    const selected = rows ? [...rows] : [...ids.keys()];
    const tokens = (width) => output(selected.map((row) => ids[row]), selected, width);
    if (head === "ForTokenClassification") return { logits: tokens(labels.length) };
    if (head === "ForMaskedLM") return { logits: tokens(this.words) };
    if (head === "Model") return { last_hidden_state: tokens(WIDTH) };
    const both = tokens(2).data;
    const column = (number) => ({ data: both.filter((_, i) => i % 2 === number), rows: ids.length, width: 1 });
    return { start_logits: column(0), end_logits: column(1) };
  }
}

test("texts and outputs become what Python makes of them", { skip }, async () => {
  const { vocabulary, models, cases } = JSON.parse(readFileSync(FILE, "utf8"));
  const bytes = new TextEncoder().encode(vocabulary);
  const core = await Core.start(await moduleAt({}));
  const askers = new Map();
  for (const [name, description] of Object.entries(models)) {
    const pieces = new WordPiece(core, bytes, description.tokenizer);
    askers.set(name, new Asker(new MadeUp(description, pieces.words.length), pieces));
  }
  assert.ok(cases.length > 300);
  for (const { model, method, input, options, expected } of cases) {
    const [found] = (await askers.get(model).ask(method, [input], options)).results;
    assert.equal(difference(found, expected), null, JSON.stringify({ method, input, options }).slice(0, 300));
  }
});
