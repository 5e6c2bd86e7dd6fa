// Measures of benchmarks/web.py that are taken in Chromium and in Node; prints one line of JSON.
//
//     node web.mjs WORK PEERS ROUNDS [realtime]     WORK has sentiment-web, sentiment-onnx, squeezebert-web and site, which web.py makes
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { gzipSync } from "node:zlib";
import puppeteer from "../npm/node_modules/puppeteer-core/lib/esm/puppeteer/puppeteer-core.js";
import { Core } from "../npm/dist/core.js";
import { moduleAt } from "../npm/dist/local.js";
import { folderAt } from "../npm/dist/files.js";
import { Model, describe } from "../npm/dist/model.js";

const [work, peers, rounds] = [process.argv[2], process.argv[3], Number(process.argv[4])];
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".json": "application/json", ".wasm": "application/wasm" };
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-precise-memory-info"];
const SENTENCE = "The second half of this warm and clever film drags a little, but its last scene alone is worth the ticket.";
const ROOTS = {
  "/ours/": new URL("../npm/dist/", import.meta.url).pathname,
  "/transformers/": join(peers, "node_modules/@huggingface/transformers/dist"),
  "/ort/": join(peers, "node_modules/onnxruntime-web/dist"),
  "/models/sentiment-onnx/": join(work, "sentiment-onnx"),
  "/models/": work,
  "/site/": join(work, "site"),
};

const served = new Map(); // path → file
const server = createServer((request, response) => {
  const path = new URL(request.url, "http://x").pathname;
  if (path === "/empty.html") return response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><title>x</title>");
  const root = Object.keys(ROOTS).find((one) => path.startsWith(one));
  let file = root && join(ROOTS[root], path.slice(root.length));
  if (file && existsSync(file) && statSync(file).isDirectory()) file = join(file, "index.html");
  if (!file || !existsSync(file)) return response.writeHead(404).end();
  served.set(path, file);
  response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream" }).end(readFileSync(file));
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const origin = `http://127.0.0.1:${server.address().port}`;
const browser = await puppeteer.launch({
  executablePath: "/usr/bin/chromium", headless: true, args: FLAGS, userDataDir: mkdtempSync(join(tmpdir(), "pocketbert-")), protocolTimeout: 600000,
});

/** Bytes of code that were served since the last call, as they are and compressed. */
function code() {
  const files = [...new Set(served.values())].filter((file) => [".js", ".mjs", ".wasm"].includes(extname(file)));
  served.clear();
  const contents = files.map((file) => readFileSync(file));
  return {
    bytes: contents.reduce((sum, one) => sum + one.length, 0),
    gzip: contents.reduce((sum, one) => sum + gzipSync(one, { level: 9 }).length, 0),
  };
}

/** Real-time priority for processes, all their threads, if it was asked for. */
function hurry(processes) {
  if (process.argv[5] === "realtime") for (const id of processes) execFileSync("chrt", ["-a", "-f", "-p", "50", String(id)]);
}

async function newPage() {
  const page = await browser.newPage();
  const cdp = await browser.target().createCDPSession();
  const { processInfo } = await cdp.send("SystemInfo.getProcessInfo");
  hurry(processInfo.filter((one) => one.type === "renderer").map((one) => one.id));
  return page;
}

async function emptyPage() {
  const page = await newPage();
  await page.goto(`${origin}/empty.html`);
  return page;
}

const results = {};

// Memory: a page with the bundled model in its own thread, after a text as long as the model reads.
{
  const page = await emptyPage();
  const memory = await page.evaluate(async () => {
    const { load } = await import("/ours/index.js");
    globalThis.model = await load("/models/sentiment-web", { worker: false, onCut: () => {} });
    await model.classify("a film ".repeat(400));
    return model.about.memory;
  });
  const cdp = await page.createCDPSession();
  await cdp.send("HeapProfiler.collectGarbage");
  const { JSHeapUsedSize } = await page.metrics();
  results.code_ours = code();
  results.memory = { wasm: memory, heap: JSHeapUsedSize };
  await page.close();
}

// A sentence: both engines in one page, in turns.
{
  const page = await emptyPage();
  results.sentence = await page.evaluate(
    async (sentence, rounds) => {
      const { load } = await import("/ours/index.js");
      const model = await load("/models/sentiment-web", { worker: false });
      const { pipeline, env } = await import("/transformers/transformers.min.js");
      Object.assign(env, { allowRemoteModels: false, allowLocalModels: true, localModelPath: "/models/", useBrowserCache: false });
      Object.assign(env.backends.onnx.wasm, { numThreads: 1, wasmPaths: "/ort/", proxy: false });
      const peer = await pipeline("text-classification", "sentiment-onnx", { dtype: "q8", device: "wasm" });
      const ort = await import("/ort/ort.wasm.min.mjs");
      Object.assign(ort.env.wasm, { numThreads: 1, wasmPaths: "/ort/" });
      const session = await ort.InferenceSession.create("/models/sentiment-onnx/onnx/model_quantized.onnx", { executionProviders: ["wasm"] });
      const { data } = (await peer.tokenizer(sentence)).input_ids;
      const tensor = (values) => new ort.Tensor("int64", values, [1, values.length]);
      const feeds = { input_ids: tensor(data), attention_mask: tensor(data.map(() => 1n)), token_type_ids: tensor(data.map(() => 0n)) };
      const calls = {
        ours: () => model.classify(sentence), transformers: () => peer(sentence), onnxruntime: () => session.run(feeds),
      };
      const times = Object.fromEntries(Object.keys(calls).map((name) => [name, []]));
      const labels = [(await calls.ours()).label, (await calls.transformers())[0].label];
      for (let round = 0; round < rounds; round++) {
        for (const [name, call] of Object.entries(calls)) {
          for (let i = 0; i < (round ? 2 : 50); i++) await call(); // until the engine's best compiler has seen it
          const started = performance.now();
          for (let i = 0; i < 10; i++) await call();
          times[name].push((performance.now() - started) / 10);
        }
      }
      return { times, labels, tokens: data.length, kernels: model.about.kernels };
    },
    SENTENCE, rounds,
  );
  await page.close();
  served.clear();
}

// Bytes of code of the peer, alone in a page.
{
  const page = await emptyPage();
  await page.evaluate(async (sentence) => {
    const { pipeline, env } = await import("/transformers/transformers.min.js");
    Object.assign(env, { allowRemoteModels: false, allowLocalModels: true, localModelPath: "/models/", useBrowserCache: false });
    Object.assign(env.backends.onnx.wasm, { numThreads: 1, wasmPaths: "/ort/" });
    await (await pipeline("text-classification", "sentiment-onnx", { dtype: "q8", device: "wasm" }))(sentence);
  }, SENTENCE);
  results.code_transformers = code();
  await page.close();
  const alone = await emptyPage();
  await alone.evaluate(async () => {
    const ort = await import("/ort/ort.wasm.min.mjs");
    Object.assign(ort.env.wasm, { numThreads: 1, wasmPaths: "/ort/" });
    await ort.InferenceSession.create("/models/sentiment-onnx/onnx/model_quantized.onnx", { executionProviders: ["wasm"] });
  });
  results.code_onnxruntime = code();
  await alone.close();
}

// The page of the documentation, from its request to its first answer; the first visit fills the cache.
{
  results.first_answer = [];
  for (let visit = 0; visit <= rounds; visit++) {
    const page = await newPage();
    await page.goto(`${origin}/site/try/`);
    await page.waitForFunction(() => document.documentElement.dataset.answered, { timeout: 120000 });
    results.first_answer.push(Number(await page.evaluate(() => document.documentElement.dataset.firstAnswer)));
    await page.close();
  }
}
await browser.close();
server.close();

// SqueezeBERT, 1 × 128, in this thread of Node.
{
  const module = await moduleAt({});
  const folder = folderAt(join(work, "squeezebert-web"), {});
  const model = await Model.read(await Core.start(module), folder, await describe(folder), () => {});
  const input = { ids: Int32Array.from({ length: 128 }, (_, i) => 1000 + i), segments: new Int32Array(128) };
  for (let i = 0; i < 5; i++) model.run([input]);
  hurry([process.pid]);
  results.node = Array.from({ length: rounds }, () => {
    const started = performance.now();
    model.run([input]);
    return performance.now() - started;
  });
  results.node_memory = model.program.core.bytes;
  results.kernels = model.program.kernels;
  results.kernels_of_page = results.sentence.kernels;
  results.node_version = process.versions.node.split(".")[0];
}
console.log(JSON.stringify(results));
