// The models and cases that `PYTHONPATH=tests python -m helpers.web FOLDER` writes, from the folder in POCKETBERT_CASES.
import { readFileSync } from "node:fs";
import { join } from "node:path";

export const FOLDER = process.env.POCKETBERT_CASES;
export const skip = FOLDER ? false : "POCKETBERT_CASES names no folder of cases";

export function read(name) {
  return FOLDER ? JSON.parse(readFileSync(join(FOLDER, name), "utf8")) : [];
}

export function at(model) {
  return join(FOLDER, model);
}

/** Whether two results are the same, numbers to 1e-4; where they differ, the place and both values. */
export function difference(found, expected, place = "") {
  if (typeof expected === "number" && typeof found === "number") {
    const near = Number.isInteger(expected) && Number.isInteger(found) ? found === expected : Math.abs(found - expected) <= 1e-4 * Math.max(1, Math.abs(expected));
    return near ? null : `${place}: ${found} instead of ${expected}`;
  }
  if (typeof expected !== "object" || expected === null || typeof found !== "object" || found === null) {
    return Object.is(found, expected) ? null : `${place}: ${JSON.stringify(found)} instead of ${JSON.stringify(expected)}`;
  }
  const keys = Object.keys(expected);
  if (Object.keys(found).length !== keys.length) return `${place}: ${JSON.stringify(found)} instead of ${JSON.stringify(expected)}`;
  for (const key of keys) {
    const one = difference(found[key], expected[key], `${place}.${key}`);
    if (one) return one;
  }
  return null;
}
