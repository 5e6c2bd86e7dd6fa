// The package answers as Python does.
import assert from "node:assert/strict";
import { test } from "node:test";
import { load } from "../dist/index.js";
import { Core } from "../dist/core.js";
import { folderAt } from "../dist/files.js";
import { Here, moduleAt } from "../dist/local.js";
import { Model, describe } from "../dist/model.js";
import { at, difference, read, skip } from "./cases.mjs";

const cases = read("cases.json");
const methods = [...new Set(cases.map((one) => one.method))];

for (const method of skip ? ["classify"] : methods) {
  test(`${method} gives Python's results`, { skip }, async () => {
    const own = cases.filter((one) => one.method === method);
    const model = await load(at(own[0].model), { onCut: () => {} });
    assert.equal(model.task, method);
    for (const { input, options, expected } of own) {
      const found = await model[method](input, options);
      assert.equal(difference(found, expected), null, JSON.stringify({ method, input, options }).slice(0, 300));
    }
    for (const options of new Set(own.map((one) => JSON.stringify(one.options)))) {
      const some = own.filter((one) => JSON.stringify(one.options) === options);
      const found = await model[method](some.map((one) => one.input), JSON.parse(options));
      assert.equal(difference(found, some.map((one) => one.expected)), null, `together, with ${options}`);
    }
  });
}

test("texts become Python's tokens", { skip }, async () => {
  const askers = new Map();
  for (const { model, text, textPair, ids, segments, cut } of read("tokens.json")) {
    if (!askers.has(model)) askers.set(model, (await Here.load(at(model), {})).asker);
    const input = textPair === null ? text : { text, textPair };
    const found = askers.get(model).encoder.text(input);
    const got = { ids: [...found.ids], segments: [...found.segments], cut: found.cut };
    assert.deepEqual(got, { ids, segments, cut }, JSON.stringify({ model, input }).slice(0, 300));
  }
});

test("plans of all families compute the native core's numbers", { skip }, async () => {
  const module = await moduleAt({});
  for (const { model, inputs, outputs, precision } of read("plans.json")) {
    const folder = folderAt(at(model), {});
    const loaded = await Model.read(await Core.start(module), folder, await describe(folder), () => {});
    const found = loaded.run(inputs.map(({ ids, segments }) => ({ ids: Int32Array.from(ids), segments: Int32Array.from(segments) })));
    const arrays = found.map((one) => Object.fromEntries(Object.entries(one).map(([name, { data }]) => [name, [...data]])));
    arrays.forEach((one, i) => {
      for (const [name, expected] of Object.entries(outputs[i])) {
        const scale = Math.max(1, ...expected.map(Math.abs));
        const off = Math.max(...expected.map((value, j) => Math.abs(value - one[name][j]))) / scale;
        assert.ok(off < 1e-4, `${model} in ${precision}: ${name} differ by ${off}`);
      }
    });
  }
});
