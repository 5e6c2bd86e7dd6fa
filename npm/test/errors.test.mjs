// What goes wrong says why, and leaves the process and other models alive.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { Core, RefusedKernels } from "../dist/core.js";
import { PocketBertError, load } from "../dist/index.js";
import { Here } from "../dist/local.js";
import { at, difference, skip } from "./cases.mjs";

const MODEL = "ForSequenceClassification/out/web_fp32";
const PACKAGE = new URL("../dist/index.js", import.meta.url).href;

/** A copy of a model in which a file is changed. */
function changed(name, change) {
  const folder = mkdtempSync(join(tmpdir(), "pocketbert-"));
  cpSync(at(MODEL), folder, { recursive: true });
  writeFileSync(join(folder, name), change(readFileSync(join(folder, name))));
  return folder;
}

function describing(change) {
  return changed("model.json", (bytes) => JSON.stringify(change(JSON.parse(bytes))));
}

function refused(reason, message) {
  return (error) => {
    assert.ok(error instanceof PocketBertError, `${error}`);
    assert.equal(error.reason, reason);
    assert.match(error.message, message);
    return true;
  };
}

test("damaged and foreign files are refused", { skip }, async () => {
  const header = (length, text) => {
    const bytes = Buffer.alloc(8 + text.length);
    bytes.writeBigUInt64LE(BigInt(length));
    bytes.write(text, 8);
    return bytes;
  };
  const big = { x: { dtype: "F32", shape: [5e9 / 4], data_offsets: [0, 5e9] } };
  const cases = [
    [changed("model.safetensors", (bytes) => bytes.subarray(0, bytes.length - 9)), "model", /cut off: 9 bytes are missing/],
    [changed("model.safetensors", (bytes) => bytes.subarray(0, 5)), "model", /cut off/],
    [changed("model.safetensors", () => Buffer.from("<!doctype html><title>Not found</title>")), "model", /not a safetensors file/],
    [changed("model.safetensors", () => header(2, "[]")), "model", /lacks/],
    [changed("model.safetensors", () => header(3, "{]}")), "model", /not JSON/],
    [changed("model.safetensors", () => header(JSON.stringify(big).length, JSON.stringify(big))), "memory", /4\.7 GiB/],
    [changed("model.safetensors", (bytes) => Buffer.concat([bytes, bytes])), "model", /longer than it says/],
    [changed("model.safetensors", (bytes) => (bytes.writeUInt8(bytes.at(-50) ^ 1, bytes.length - 50), bytes)), "model", /checksum/],
    [changed("model.json", () => "<html>"), "model", /is not JSON/],
    [changed("model.json", () => '{"model_type": "bert"}'), "model", /export --format web|--format web/],
    [describing((model) => ({ ...model, version: 7 })), "model", /version 7 .* export it again/],
    [describing((model) => (model.plan.steps.pop(), model)), "model", /which no step needs/],
    [describing((model) => (model.plan.steps[0].index = "letter", model)), "model", /letter/],
    [describing((model) => (model.plan.steps[0].kind = "sort", model)), "model", /kind sort/],
    [describing((model) => (model.plan.buffers.pop(), model)), "model", /buffer/],
    [describing((model) => (model.plan.buffers[0].width = 3, model)), "model", /./],
    [describing((model) => (delete model.plan.steps, model)), "model", /damaged/],
    [changed("vocab.txt", (bytes) => bytes.subarray(0, 40)), "model", /cut off/],
    [join(tmpdir(), "no such folder"), "model", /has no model\.json.*--format web/],
  ];
  for (const [folder, reason, message] of cases) await assert.rejects(load(folder), refused(reason, message));
  assert.ok((await (await load(at(MODEL))).classify("the film")).label);
});

test("a cut connection, a missing file and a broken server are told apart", { skip }, async () => {
  const server = createServer((request, response) => {
    const [, how, name] = request.url.split("/");
    const bytes = readFileSync(join(at(MODEL), name));
    if (name === "model.safetensors" && how === "cut") {
      response.writeHead(200, { "content-length": bytes.length });
      response.write(bytes.subarray(0, bytes.length / 2), () => response.destroy());
    } else if (name === "model.safetensors" && how === "missing") response.writeHead(404).end();
    else if (name === "model.safetensors" && how === "broken") response.writeHead(503).end();
    else response.end(bytes);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  try {
    const root = `http://127.0.0.1:${port}`;
    await assert.rejects(load(`${root}/cut`), refused("network", /connection was cut while model\.safetensors/));
    await assert.rejects(load(`${root}/missing`), refused("model", /status 404/));
    await assert.rejects(load(`${root}/broken/`), refused("network", /status 503/));
    const steps = [];
    const model = await load(`${root}/whole`, { onProgress: (one) => steps.push(one) });
    assert.equal(steps.at(-1).loaded, steps.at(-1).total);
    assert.ok((await model.classify("the film")).label);
  } finally {
    server.closeAllConnections();
    server.close();
  }
  await assert.rejects(load(`http://127.0.0.1:${port}/whole`), refused("network", /cannot fetch/));
});

test("an aborted call ends, and the model goes on", { skip }, async () => {
  for (const worker of [false, true]) {
    const model = await load(at(MODEL), { worker, onCut: () => {} });
    const texts = Array.from({ length: 4000 }, (_, i) => `the film is ${i} times great `.repeat(8));
    const controller = new AbortController();
    const late = model.classify(texts, { signal: controller.signal });
    setTimeout(() => controller.abort(), 5);
    await assert.rejects(late, { name: "AbortError" });
    await assert.rejects(model.classify("the film", { signal: AbortSignal.abort() }), { name: "AbortError" });
    assert.ok((await model.classify("the film")).label);
    model.close();
    await assert.rejects(model.classify("the film"), refused("worker", /closed/));
  }
  await assert.rejects(load(at(MODEL), { signal: AbortSignal.abort() }), { name: "AbortError" });
  await assert.rejects(load(at(MODEL), { signal: AbortSignal.abort(), worker: true }), { name: "AbortError" });
});

test("a worker answers as this thread does, and tells its errors", { skip }, async () => {
  const [here, there] = await Promise.all([load(at(MODEL)), load(at(MODEL), { worker: true })]);
  assert.deepEqual(await there.classify(["the film", "dull"]), await here.classify(["the film", "dull"]));
  assert.equal(there.task, "classify");
  assert.deepEqual(there.labels, here.labels);
  assert.equal(there.about.kernels, here.about.kernels);
  await assert.rejects(there.tag("the film"), refused("model", /tag needs a model with the head ForTokenClassification/));
  await assert.rejects(there.classify("the film", { topK: () => 1 }), refused("input", /cannot be sent/));
  await assert.rejects(load(join(tmpdir(), "no such folder"), { worker: true }), refused("model", /has no model\.json/));
  there.close();
});

test("a stream of texts is answered one by one", { skip }, async () => {
  const model = await load(at(MODEL));
  async function* texts() {
    for (const one of ["the film", "is great", ""]) yield one;
  }
  const found = [];
  for await (const one of model.classify(texts(), { topK: 1 })) found.push(one);
  assert.deepEqual(found, await model.classify(["the film", "is great", ""], { topK: 1 }));
});

test("texts of a megabyte are read", { skip }, async () => {
  const cuts = [];
  const model = await load(at(MODEL), { onCut: (cut, of) => cuts.push([cut, of]) });
  for (const text of ["x".repeat(1 << 20), "the film ".repeat(1 << 17), " ".repeat(1 << 20), "\u0301".repeat(1 << 20), "東".repeat(1 << 20)]) {
    assert.ok((await model.classify(text)).label);
  }
  assert.deepEqual(cuts, [[1, 1], [1, 1]]);
  const whole = await model.classify("the film ".repeat(1 << 12), { windows: true });
  assert.ok(whole.score > 0);
  assert.equal(cuts.length, 2);
});

test("inputs that make no sense are refused", { skip }, async () => {
  const model = await load(at(MODEL));
  for (const [call, message] of [
    [() => model.classify(7), /number 7 is not a text/],
    [() => model.classify({ body: "x" }), /nor \{ text, textPair \}/],
    [() => model.classify("half \ud83c"), /half a surrogate pair, U\+d83c/],
    [() => model.classify(["fine", null]), /input 1: /],
    [() => model.classify("x", { topK: 0 }), /topK 0/],
    [() => model.classify("x", { function: "tanh" }), /must be one of none, sigmoid, softmax/],
    [() => model.classify("x", { minConfidence: 2 }), /from 0 to 1/],
    [() => model.classify("x", { minConfidence: 0.5, conformal: 0.9 }), /pass one of/],
    [() => model.classify("x", { minConfidence: 0.5, topK: 1 }), /leave them out/],
    [() => model.classify("x", { conformal: 0.3 }), /only for 0\.9/],
  ]) {
    await assert.rejects(call(), refused("input", message));
  }
});

test("two versions of the package run in one process", { skip }, async () => {
  const copy = mkdtempSync(join(tmpdir(), "pocketbert-"));
  cpSync(new URL("../dist", import.meta.url), join(copy, "dist"), { recursive: true });
  writeFileSync(join(copy, "package.json"), '{"type": "module"}');
  const other = await import(`file://${copy}/dist/index.js`);
  const [one, two] = await Promise.all([load(at(MODEL)), other.load(at(MODEL), { worker: true })]);
  assert.deepEqual(await one.classify("the film"), await two.classify("the film"));
  assert.notEqual(one.constructor, two.constructor);
  two.close();
  assert.ok((await one.classify("the film")).label);
});

/** What a new process prints that runs a script with these options of Node. */
function node(options, script) {
  const file = join(mkdtempSync(join(tmpdir(), "pocketbert-")), "script.mjs");
  writeFileSync(file, script);
  return execFileSync(process.execPath, [...options, file], { encoding: "utf8", stdio: "pipe" });
}

test("an engine without SIMD, and one that lets no worker start, say so", { skip }, () => {
  const attempt = (before, options) => `
    import { load } from ${JSON.stringify(PACKAGE)};
    ${before}
    try { await load(${JSON.stringify(at(MODEL))}, ${options}); } catch (error) { console.log(error.reason, error.message); }`;
  assert.match(node(["--no-enable-sse4-1"], attempt("", "{}")), process.arch === "x64" ? /^unsupported WebAssembly has no SIMD here/ : /^/);
  assert.match(node([], attempt("WebAssembly.validate = () => false;", "{}")), /^unsupported WebAssembly has no SIMD here/);
  assert.match(node([], attempt("delete globalThis.WebAssembly;", "{}")), /^unsupported there is no WebAssembly/);
  const permission = ["--permission", "--experimental-permission"].find((one) => process.allowedNodeEnvironmentFlags.has(one));
  const permissions = [permission, "--allow-fs-read=*"];
  assert.match(node(permissions, attempt("", "{ worker: true }")), /^worker no worker can be started: .*worker: false/);
});

test("too little memory is an error, after which shorter texts are still answered", { skip }, async () => {
  const whole = await load(at(MODEL));
  await whole.classify("the film");
  const pages = whole.about.memory / 65536 + 1;
  const script = (worker) => `
    import { load } from ${JSON.stringify(PACKAGE)};
    const model = await load(${JSON.stringify(at(MODEL))}, { worker: ${worker}, onCut: () => {} });
    for (const text of ["the film", "the film ".repeat(1 << 18), "the film"]) {
      try { console.log((await model.classify(text)).label !== null); } catch (error) { console.log(error.reason, error.message); }
    }
    model.close();`;
  for (const worker of [false, true]) {
    const found = node([`--wasm-max-mem-pages=${pages}`], script(worker));
    assert.match(found, /^true\nmemory there is (not enough memory|no memory for [\d,]+ bytes more)\ntrue\n$/);
    const none = node(["--wasm-max-mem-pages=5"], `
      import { load } from ${JSON.stringify(PACKAGE)};
      try { await load(${JSON.stringify(at(MODEL))}, { worker: ${worker} }); } catch (error) { console.log(error.reason); }`);
    assert.equal(none, "memory\n");
  }
});

test("a process ends though a model in a worker is open", { skip }, () => {
  const script = `
    import { load } from ${JSON.stringify(PACKAGE)};
    const model = await load(${JSON.stringify(at(MODEL))}, { worker: true });
    console.log((await model.classify("the film")).score > 0);`;
  assert.equal(node([], script), "true\n");
});

// The last of this file: from here on, this process takes the plain kernels.
test("what refused kernels computed is computed again by others", { skip }, async () => {
  const here = await Here.load(at(MODEL), {});
  const first = here.asker;
  const expected = await here.ask("classify", ["the film"], {});
  const { check } = Core.prototype;
  Core.prototype.check = function (name, ...values) {
    check.call(this, name, ...values);
    if (name === "pb_run" && this === first.model.program.core) throw new RefusedKernels("unsupported", "the sums are wrong");
  };
  try {
    const found = await Promise.all([1, 2].map(() => here.ask("classify", ["the film"], {})));
    assert.equal(difference(found, [expected, expected]), null);
  } finally {
    Core.prototype.check = check;
  }
  assert.notEqual(here.asker, first);
  assert.equal(here.about.kernels, "wasm");
  assert.equal((await load(at(MODEL))).about.kernels, "wasm");
});
