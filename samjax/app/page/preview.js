// The mask that a click would give, below a pointer that rests. Only the newest question counts.

import { ApiError, predict } from "./api.js";
import { draft } from "./draft.js";
import { everything } from "./everything.js";
import { app, emit } from "./state.js";

const REST = 60; // milliseconds without movement
const SIDE = 1024;

export const hover = { answer: null, at: null };
let timer = 0;
let asked = new AbortController();

const wanted = () => app.preview && app.tool === "point" && app.label === 1 && !everything.on && !draft.active
  && app.embedding.state === "ready" && !document.hidden;

/** The pointer is at a pixel, or has left (null). @param {import("./state.js").XY|null} at */
export function hoverAt(at) {
  if (hover.at && at && hover.at[0] === at[0] && hover.at[1] === at[1]) return; // its question goes on
  clearTimeout(timer);
  hover.at = at;
  if (!at || !wanted()) return clearHover();
  timer = setTimeout(() => ask(at), REST);
}

export function clearHover() {
  clearTimeout(timer);
  hover.at = null;
  asked.abort();
  if (!hover.answer) return;
  hover.answer = null;
  emit("hover");
}

async function ask([x, y]) {
  if (!wanted()) return;
  asked.abort();
  const { signal } = (asked = new AbortController());
  const question = { photo: app.photo.id, steps: [{ points: [[x, y, 1]] }], format: "polygons", max_side: SIDE, preview: true };
  try {
    const { answers } = (await predict(question, signal)).objects[0];
    if (signal.aborted || !wanted()) return;
    hover.answer = answers.reduce((best, answer) => (answer.iou > best.iou ? answer : best));
    emit("hover");
  } catch (error) {
    // A preview that fails is no loss: the click will say what is wrong.
    if (error.name !== "AbortError" && !(error instanceof ApiError)) throw error;
  }
}
