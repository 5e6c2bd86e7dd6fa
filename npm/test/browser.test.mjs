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
      const model = await load("/try/models/sst2");
      event.source.postMessage(await model.classify("A warm film."));
    } catch (error) { event.source.postMessage({ error: error.message }); }
  });`;
const PAGES = {
  "/service.js": ["text/javascript", SERVICE_WORKER],
  "/empty.html": ["text/html", "<!doctype html><title>Empty</title>"],
  "/blocked.html": ["text/html", `<!doctype html><title>Blocked</title><meta http-equiv="Content-Security-Policy" content="worker-src 'none'">`],
};

/** A server of the site; it counts requests by path. */
async function serve() {
  const counts = {};
  const server = createServer((request, response) => {
    const path = new URL(request.url, "http://x").pathname;
    counts[path] = (counts[path] ?? 0) + 1;
    if (path in PAGES) return response.writeHead(200, { "content-type": PAGES[path][0] }).end(PAGES[path][1]);
    const file = join(SITE, path.endsWith("/") ? `${path}index.html` : path);
    if (!existsSync(file)) return response.writeHead(404).end();
    response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream" }).end(readFileSync(file));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const stop = () => (server.closeAllConnections(), new Promise((resolve) => server.close(resolve)));
  return { origin: `http://127.0.0.1:${server.address().port}`, counts, stop };
}

for (const [name, path] of Object.entries(BROWSERS)) {
  const skip = !SITE ? "POCKETBERT_SITE names no site" : !puppeteer ? "puppeteer-core is not installed" : existsSync(path) ? false : `${path} is not installed`;
  let browser, server;

  before(async () => {
    if (skip) return;
    server = await serve();
    const how = name === "firefox" ? { browser: name } : { userDataDir: mkdtempSync(join(tmpdir(), "pocketbert-")), args: flags };
    browser = await puppeteer.launch({ ...how, executablePath: path, headless: true });
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
    assert.match(await page.result(), /positive\s+9\d\.\d %/);
    assert.match(await page.$eval("#cost", (element) => element.innerText), /^\d+\.\d ms, SqueezeBertForSequenceClassification/);
    await page.focus("#text");
    await page.keyboard.down("Control");
    await page.keyboard.press("a");
    await page.keyboard.up("Control");
    await page.keyboard.type("Dull.");
    await page.waitForFunction(() => /^\s*Label\s+Score\s+negative/.test(document.querySelector("#result").innerText), { timeout: 60000 });
    await page.keyboard.down("Shift");
    await page.keyboard.press("Tab"); // to the choice of models, before it
    await page.keyboard.up("Shift");
    assert.equal(await page.evaluate(() => document.activeElement.name), "model");
    const radios = await page.$$eval("input[type=radio]", (all) => all.map((one) => one.parentElement.innerText));
    while ((await page.evaluate(() => document.activeElement.parentElement.innerText)) !== "Masked words") {
      await page.keyboard.press("ArrowRight");
    }
    await page.waitForFunction(() => /^\s*Word/.test(document.querySelector("#result").innerText), { timeout: 120000 });
    assert.ok(radios.includes("Sentiment"));
    assert.equal(await page.$eval("#result", (element) => element.getAttribute("aria-live")), "polite");
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
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.equal(overflow, 0, `${width} ${scheme}`);
      if (PICTURES) await page.screenshot({ path: join(PICTURES, `${name}-${width}-${scheme}.png`) });
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
          return (await (await load("/try/models/sst2", { worker })).classify("A warm film.")).label;
        } catch (error) {
          return `${error.reason}: ${error.message}`;
        }
      }, worker);
    assert.match(await attempt(undefined), /^worker: .*worker: false/);
    assert.equal(await attempt(false), "positive");
    await page.close();
  });

  test(`the page works without a network in ${name}`, { skip }, async () => {
    const page = await opened("/try/");
    await page.answered(1);
    await page.evaluate(async () => navigator.serviceWorker.ready);
    await page.reload(); // whatever the first visit fetched is kept by now
    await page.answered(1);
    assert.equal(server.counts["/try/models/sst2/model.safetensors"], 1, "the model is fetched once");
    await server.stop();
    await page.reload();
    await page.answered(1);
    assert.match(await page.result(), /positive/);
    await page.close();
  });
}
