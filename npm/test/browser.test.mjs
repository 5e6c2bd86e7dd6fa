// The page try/ of the documentation, and the package in pages and service workers, in real Chromium and Firefox.
//
// POCKETBERT_SITE is a site with try/, to which scripts/try_page has added package and models. POCKETBERT_PICTURES, a
// folder, gets pictures of the page.
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { after, before, test } from "node:test";

const SITE = process.env.POCKETBERT_SITE;
const PICTURES = process.env.POCKETBERT_PICTURES;
const BROWSERS = { chromium: "/usr/bin/chromium", firefox: "/usr/bin/firefox-esr" };
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".json": "application/json", ".wasm": "application/wasm" };
const puppeteer = await import("puppeteer-core").then((module) => module.default, () => null);
const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

const SERVICE_WORKER = `
  import { load } from "/try/pocketbert/index.js";
  self.addEventListener("install", () => self.skipWaiting());
  self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
  self.addEventListener("message", async (event) => {
    try {
      const model = await load("/try/models/sentiment");
      event.source.postMessage(await model.classify("A warm film."));
    } catch (error) { event.source.postMessage({ error: error.message }); }
  });`;
const PAGES = {
  "/service.js": ["text/javascript", SERVICE_WORKER],
  "/empty.html": ["text/html", "<!doctype html><title>Empty</title>"],
  "/blocked.html": ["text/html", `<!doctype html><title>Blocked</title><meta http-equiv="Content-Security-Policy" content="worker-src 'none'">`],
};

/** What is wrong with the weights at /bad/HOW/…, whose other files are those of the model. */
const BAD = {
  cut: (response, bytes) => {
    response.writeHead(200, { "content-length": bytes.length });
    response.write(bytes.subarray(0, bytes.length / 2), () => response.destroy());
  },
  truncated: (response, bytes) => response.end(bytes.subarray(0, bytes.length - 9)),
  foreign: (response) => response.end("<!doctype html><title>Not found</title>"),
  flipped: (response, bytes) => (bytes.writeUInt8(bytes.at(-50) ^ 1, bytes.length - 50), response.end(bytes)),
  missing: (response) => response.writeHead(404).end(),
  broken: (response) => response.writeHead(503).end(),
};

/** A server of the site; it counts requests by path. */
async function serve() {
  const counts = {};
  const server = createServer((request, response) => {
    const path = new URL(request.url, "http://x").pathname;
    counts[path] = (counts[path] ?? 0) + 1;
    if (path in PAGES) return response.writeHead(200, { "content-type": PAGES[path][0] }).end(PAGES[path][1]);
    const [, bad, how, name] = path.split("/");
    if (bad === "bad" && name === "model.safetensors") return BAD[how](response, readFileSync(join(SITE, "try/models/sentiment", name)));
    if (bad === "bad") return response.end(readFileSync(join(SITE, "try/models/sentiment", name)));
    // At /other/ there are the same files, which are other modules to the browser.
    const file = join(SITE, bad === "other" ? path.replace("/other", "/try") : path.endsWith("/") ? `${path}index.html` : path);
    if (!existsSync(file)) return response.writeHead(404).end();
    response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream" }).end(readFileSync(file));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const stop = () => (server.closeAllConnections(), new Promise((resolve) => server.close(resolve)));
  return { origin: `http://127.0.0.1:${server.address().port}`, counts, stop };
}

function skipOf(name) {
  if (!SITE) return "POCKETBERT_SITE names no site";
  if (!puppeteer) return "puppeteer-core is not installed";
  return existsSync(BROWSERS[name]) ? false : `${BROWSERS[name]} is not installed`;
}

function launch(name, more = []) {
  const how = name === "firefox" ? { browser: name } : { userDataDir: mkdtempSync(join(tmpdir(), "pocketbert-")), args: [...flags, ...more] };
  return puppeteer.launch({ ...how, executablePath: BROWSERS[name], headless: true });
}

for (const name of Object.keys(BROWSERS)) {
  const skip = skipOf(name);
  let browser, server;

  before(async () => {
    if (skip) return;
    server = await serve();
    browser = await launch(name);
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
  });

  const opened = async (where) => {
    const page = await browser.newPage();
    page.errors = [];
    page.on("pageerror", (error) => page.errors.push(error.message));
    page.requested = [];
    page.on("request", (request) => page.requested.push(request.url()));
    await page.goto(`${server.origin}${where}`);
    page.answered = (count) =>
      page.waitForFunction((least) => Number(document.documentElement.dataset.answered) >= least, { timeout: 120000 }, count);
    page.result = () => page.$eval("#result", (element) => element.innerText);
    return page;
  };

  test(`the page answers in ${name}, by keyboard alone`, { skip }, async () => {
    const page = await opened("/try/");
    await page.answered(1);
    assert.match(await page.result(), /^\s*Label\s+Score\s+positive\s+\d\d\.\d %\s+(neutral|negative)\s+\d+\.\d %\s+(neutral|negative)\s/);
    assert.match(await page.$eval("#cost", (element) => element.innerText), /^\d+\.\d ms, SqueezeBertForSequenceClassification, \d\d MB$/);
    const retype = async (text) => {
      await page.focus("#text");
      await page.keyboard.down("Control");
      await page.keyboard.press("a");
      await page.keyboard.up("Control");
      await page.keyboard.type(text);
    };
    await retype("Dull and far too long.");
    await page.waitForFunction(() => /^\s*Label\s+Score\s+negative/.test(document.querySelector("#result").innerText), { timeout: 60000 });
    await page.keyboard.down("Shift");
    await page.keyboard.press("Tab"); // to the choice of models, before it
    await page.keyboard.up("Shift");
    assert.equal(await page.evaluate(() => document.activeElement.name), "model");
    const titles = await page.$$eval("input[type=radio]", (all) => all.map((one) => one.parentElement.innerText));
    assert.deepEqual(titles.slice(0, 2), ["Sentiment", "Entities"]);
    await page.keyboard.press("ArrowRight");
    await page.waitForFunction(() => document.querySelectorAll("#result mark").length > 1, { timeout: 120000 });
    const marks = () => page.$$eval("#result mark", (all) => all.map((one) => [one.firstChild.data, one.lastChild.innerText]));
    assert.deepEqual((await marks())[0], ["Marie Curie", "PER"]);
    await retype("Nothing here has a name.");
    await page.waitForFunction(() => document.querySelector("#result").innerText.includes("No entities"), { timeout: 60000 });
    await page.keyboard.down("Shift");
    await page.keyboard.press("Tab");
    await page.keyboard.up("Shift");
    while ((await page.evaluate(() => document.activeElement.parentElement.innerText)) !== titles.at(-1)) {
      await page.keyboard.press("ArrowRight");
    }
    await page.waitForFunction(() => /^\s*Word/.test(document.querySelector("#result").innerText), { timeout: 120000 });
    const roles = await page.$eval("#result", (element) => [element.getAttribute("role"), element.getAttribute("aria-live")]);
    assert.deepEqual(roles, ["status", "polite"]);
    const unnamed = await page.$$eval("input, textarea", (all) => all.filter((one) => !one.labels.length).length);
    assert.equal(unnamed, 0);
    assert.deepEqual(page.errors, []);
    assert.deepEqual(page.requested.filter((url) => !url.startsWith(`${server.origin}/`) && !url.startsWith("data:")), []);
    await page.close();
  });

  test(`the page fits narrow windows and both schemes in ${name}`, { skip }, async () => {
    for (const [width, scheme] of [[1000, "light"], [1000, "dark"], [320, "light"], [320, "dark"]]) {
      const page = await opened("/empty.html");
      await page.setViewport({ width, height: 800 });
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]).catch(() => {}); // Firefox has none
      await page.goto(`${server.origin}/try/`);
      await page.answered(1);
      for (const [number, radio] of (await page.$$("input[type=radio]")).entries()) {
        if (number) await radio.evaluate((one) => one.click());
        await page.answered(number + 1);
        const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        assert.equal(overflow, 0, `${width} ${scheme} ${number}`);
        if (PICTURES) await page.screenshot({ path: join(PICTURES, `${name}-${width}-${scheme}-${number}.png`) });
      }
      await page.close();
    }
  });

  test(`the package runs in a service worker in ${name}`, { skip }, async () => {
    const page = await opened("/empty.html");
    const found = await page.evaluate(async () => {
      await navigator.serviceWorker.register("/service.js", { type: "module" });
      const { active } = await navigator.serviceWorker.ready;
      const answer = new Promise((resolve) => (navigator.serviceWorker.onmessage = (event) => resolve(event.data)));
      navigator.serviceWorker.startMessages();
      active.postMessage("ask");
      return answer;
    });
    assert.equal(found.label, "positive", JSON.stringify(found));
    await page.evaluate(async () => (await navigator.serviceWorker.getRegistration("/service.js")).unregister());
    await page.close();
  });

  test(`a blocked worker says so in ${name}`, { skip }, async () => {
    const page = await opened("/blocked.html");
    const attempt = (worker) =>
      page.evaluate(async (worker) => {
        const { load } = await import("/try/pocketbert/index.js");
        try {
          return (await (await load("/try/models/sentiment", { worker })).classify("A warm film.")).label;
        } catch (error) {
          return `${error.reason}: ${error.message}`;
        }
      }, worker);
    assert.match(await attempt(undefined), /^worker: .*worker: false/);
    assert.equal(await attempt(false), "positive");
    await page.close();
  });

  test(`bad input is an error with a reason in ${name}, and the page goes on`, { skip }, async () => {
    const page = await opened("/empty.html");
    const found = await page.evaluate(async (kinds) => {
      const { load } = await import("/try/pocketbert/index.js");
      const reason = (attempt) => attempt().then(() => "none", (error) => `${error.name}: ${error.reason}`);
      const found = {};
      for (const kind of kinds) found[kind] = await reason(() => load(`/bad/${kind}`));
      const model = await load("/try/models/sentiment", { onCut: () => {} });
      const other = await (await import("/other/pocketbert/index.js")).load("/try/models/sentiment");
      found.versions = model.constructor !== other.constructor && (await other.classify("A warm film.")).label;
      other.close();
      for (const text of ["x".repeat(1 << 20), "a warm film ".repeat(90000), "東".repeat(1 << 20)]) {
        found.labels = (found.labels ?? 0) + ((await model.classify(text)).label ? 1 : 0);
      }
      const controller = new AbortController();
      const late = reason(() => model.classify(Array(4000).fill("a warm film"), { signal: controller.signal }));
      setTimeout(() => controller.abort(), 20);
      found.aborted = await late;
      found.after = (await model.classify("A warm film.")).label;
      model.close();
      found.closed = await reason(() => model.classify("A warm film."));
      return found;
    }, Object.keys(BAD));
    assert.deepEqual(found, {
      cut: "PocketBertError: network", truncated: "PocketBertError: model", foreign: "PocketBertError: model",
      flipped: "PocketBertError: model", missing: "PocketBertError: model", broken: "PocketBertError: network",
      versions: "positive", labels: 3, aborted: "AbortError: undefined", after: "positive", closed: "PocketBertError: worker",
    });
    for (const kind of Object.keys(BAD)) assert.equal(server.counts[`/bad/${kind}/model.safetensors`], 1, `${kind} is not tried again`);
    const reported = /^Failed to read data from the ReadableStream/; // by Firefox, of what a cache was to keep
    assert.deepEqual(page.errors.filter((error) => !reported.test(error)), []);
    await page.close();
  });

  test(`the page works without a network in ${name}`, { skip }, async () => {
    const page = await opened("/try/");
    await page.answered(1);
    await page.evaluate(async () => navigator.serviceWorker.ready);
    await page.reload(); // whatever the first visit fetched is kept by now
    await page.answered(1);
    assert.equal(server.counts["/try/models/sentiment/model.safetensors"], 1, "the model is fetched once");
    await server.stop();
    await page.reload();
    await page.answered(1);
    assert.match(await page.result(), /positive/);
    await page.close();
  });
}

test("a browser without SIMD, and one with too little memory, say so on the page", { skip: skipOf("chromium") }, async () => {
  const server = await serve();
  for (const [flag, message] of [["--no-enable-sse4-1", /WebAssembly has no SIMD here/], ["--wasm-max-mem-pages=300", /not enough memory/]]) {
    const browser = await launch("chromium", [`--js-flags=${flag}`]);
    const page = await browser.newPage();
    await page.goto(`${server.origin}/try/`);
    await page.waitForSelector("#result .error", { timeout: 60000 });
    assert.match(await page.$eval("#result .error", (element) => element.innerText), message);
    assert.ok(await page.$eval("#text", (element) => !element.disabled));
    await browser.close();
  }
  await server.stop();
});
