// The page on which the bundled models can be tried: models/index.json lists them, each with the texts it begins with.
import { load } from "./pocketbert/index.js";

const at = (id) => document.getElementById(id);
const [form, text, question, result, cost, progress] = ["form", "text", "question", "result", "cost", "progress"].map(at);
const loaded = new Map(); // folder → promise of a model
let current; // the model that is shown
let running; // aborts the call whose result would be late
let first = true;

const SHOW = {
  classify: (labels) => table("Label", labels.map(({ label, score }) => [label, score])),
  fillMask: (found) => table("Word", (Array.isArray(found[0]) ? found[0] : found).map(({ word, score }) => [word, score])),
  tag: (found, input) => [...marked(found, input), ...(found.length ? [] : [paragraph("No entities were found.")])],
  answer: (found, input) => {
    const there = found.answer ? [{ entity: percent(found.score), ...found }] : [];
    return [...(there.length ? [] : [paragraph("There is no answer in this text.")]), ...marked(there, input.context)];
  },
};
const OPTIONS = { classify: { topK: 5 }, fillMask: { topK: 5 }, tag: {}, answer: { impossible: true } };

start();

async function start() {
  let models;
  try {
    const response = await fetch("models/index.json");
    if (!response.ok) throw new Error(`status ${response.status}`);
    models = await response.json();
  } catch (error) {
    fail(new Error(`this copy of the documentation has no models (${error.message}): scripts/docs says how to add them`));
    return;
  }
  for (const [number, model] of models.entries()) at("models").append(choice(model, number === 0));
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const field of [text, question]) field.addEventListener("input", ask);
  select(models[0]);
  if ("serviceWorker" in navigator) navigator.serviceWorker.register("offline.js").catch(() => {}); // then not offline
}

function choice(model, isFirst) {
  const [label, input] = [document.createElement("label"), document.createElement("input")];
  Object.assign(input, { type: "radio", name: "model", value: model.folder, checked: isFirst });
  input.addEventListener("change", () => select(model));
  label.append(input, model.title);
  return label;
}

function select(model) {
  current = model;
  at("question-field").hidden = model.method !== "answer";
  at("text-label").textContent = model.method === "answer" ? "Text that holds the answer" : model.hint;
  question.value = model.question ?? "";
  text.value = model.text;
  ask();
}

async function ask() {
  running?.abort();
  const call = (running = new AbortController());
  const model = current;
  const { method } = model;
  try {
    const ready = await modelAt(model);
    if (call.signal.aborted) return;
    const input = method === "answer" ? { question: question.value, context: text.value } : text.value;
    const started = performance.now();
    const found = await ready[method](input, { ...OPTIONS[method], signal: call.signal });
    const ended = performance.now();
    result.replaceChildren(...SHOW[method](found, input));
    cost.textContent = `${(ended - started).toFixed(1)} ms, ${ready.kind}, ${(ready.about.memory / 1e6).toFixed(0)} MB`;
    if (first) document.documentElement.dataset.firstAnswer = String(ended); // since the page was asked for
    document.documentElement.dataset.answered = String(Number(document.documentElement.dataset.answered ?? 0) + 1);
    first = false;
  } catch (error) {
    if (!call.signal.aborted) fail(error);
  }
}

function modelAt({ folder }) {
  if (!loaded.has(folder)) {
    progress.hidden = false;
    const onProgress = ({ loaded: bytes, total }) => (progress.value = bytes / total);
    const model = load(new URL(`models/${folder}`, document.baseURI), { onProgress, onCut: () => {} });
    loaded.set(folder, model);
    model.catch(() => loaded.delete(folder)).finally(() => (progress.hidden = true));
  }
  return loaded.get(folder);
}

function fail(error) {
  const shown = paragraph(error.message);
  shown.className = "error";
  result.replaceChildren(shown);
  cost.textContent = "";
}

// ── results ──

function table(heading, rows) {
  const made = document.createElement("table");
  const head = made.createTHead().insertRow();
  for (const name of [heading, "Score", ""]) {
    const cell = document.createElement(name ? "th" : "td");
    if (name) cell.scope = "col";
    cell.textContent = name;
    head.append(cell);
  }
  const body = made.createTBody();
  for (const [name, score] of rows) {
    const row = body.insertRow();
    const cell = document.createElement("th");
    cell.scope = "row";
    cell.textContent = name;
    row.append(cell);
    row.insertCell().textContent = percent(score);
    const bar = row.insertCell();
    bar.className = "bar";
    const drawn = Object.assign(document.createElement("progress"), { max: 1, value: score });
    drawn.setAttribute("aria-hidden", "true");
    bar.append(drawn);
  }
  return [made];
}

function marked(entities, input) {
  const shown = paragraph("");
  shown.className = "marked";
  let end = 0;
  for (const entity of entities) {
    const [mark, kind] = [document.createElement("mark"), document.createElement("small")];
    kind.textContent = entity.entity;
    mark.append(input.slice(entity.start, entity.end), kind);
    shown.append(input.slice(end, entity.start), mark);
    end = entity.end;
  }
  shown.append(input.slice(end));
  return [shown];
}

function paragraph(content) {
  return Object.assign(document.createElement("p"), { textContent: content });
}

function percent(score) {
  return `${(100 * score).toFixed(1)} %`;
}
