// The object in progress: its steps so far, each with the answers to choose from. Every click is a step of its own, so
// undo goes back by one; what is not accepted yet is kept for a reload.

import { ApiError, object as getObject, predict } from "./api.js";
import { outlineDetail } from "./camera.js";
import { along, around } from "./drawn.js";
import { announce, complain, say } from "./messages.js";
import { untilAnswered } from "./retry.js";
import { app, emit, subjectOf } from "./state.js";
import { keep, recall } from "./storage.js";

const LARGEST_KEPT = 400_000; // characters in localStorage
const FAILED = "The mask could not be computed";

/** @typedef {import("./state.js").Step} Step */

export const draft = {
  /** @type {string|null} the object that is corrected */
  target: null,
  /** @type {string|null} */
  class: null,
  /** @type {any} run lengths of a target that has no steps of its own */
  given: null,
  /** @type {Step[][]} after each click; the first is what it began with */
  states: [[]],
  at: 0,
  /** @type {any[]|null} of the last step; null until they are there */
  answers: null,
  /** @type {number[][]} points whose step waits for the answer before it */
  waiting: [],
  busy: false,
  three: false,
  get steps() {
    return this.states[this.at];
  },
  get active() {
    return this.steps.length > 0 || this.target !== null || this.waiting.length > 0;
  },
};

let queue = Promise.resolve();
let running = new AbortController();
/** @type {Map<string, any[]>} */
const known = new Map();
/** @type {() => Promise<void>} resolves when the photo is encoded */
let encoded = async () => {};
/** @type {{at: number, seconds: any}|null} when the click was that the next drawing answers */
export const timing = { clicked: 0, seconds: null };

export const waitForEncoding = (wait) => (encoded = wait);

/** The mask that is shown. */
export function shownAnswer() {
  return draft.answers?.[draft.steps.at(-1)?.chosen ?? 0] ?? null;
}

/** @param {number} x @param {number} y a pixel of the photo @param {number} label */
export function addPoint(x, y, label) {
  if (!draft.steps.length && !draft.given && !draft.waiting.length && !label) {
    say("Begin with a point on the object; background points take away from its mask.");
    return;
  }
  timing.clicked = performance.now();
  draft.waiting.push([x, y, label]);
  step((last) => {
    draft.waiting.shift();
    return { ...prompts(last), points: [...(last?.points ?? []), [x, y, label]], ...continued(last) };
  });
}

/** @param {number[]} box */
export function addBox(box) {
  timing.clicked = performance.now();
  // A new box may be around something else than the mask so far: it asks anew, with the points that are there.
  step((last) => ({ ...(last?.points && { points: last.points }), box, multimask: draft.three }));
}

/** @param {number[][]} outline */
export function addLasso(outline) {
  timing.clicked = performance.now();
  step((last) => ({ ...prompts(last), box: around(outline, app.photo), mask: { outlines: [outline] }, multimask: draft.three }));
}

/** @param {{points: number[][], radius: number, erase?: boolean}} stroke */
export function addStroke(stroke) {
  if (stroke.erase && !draft.active) {
    say("There is no mask to erase from: paint or click on something first.");
    return;
  }
  timing.clicked = performance.now();
  step(async (last) => {
    const rle = last ? (await ask(draft.steps, "rle"))[last.chosen ?? 0].rle : draft.given;
    const mask = { ...(rle && { rle }), strokes: [stroke] };
    const points = along(stroke, app.photo).map(([x, y]) => [x, y, stroke.erase ? 0 : 1]);
    return { ...prompts(last), points: [...(last?.points ?? []), ...points], mask, multimask: draft.three };
  });
}

const prompts = (last) => ({ ...(last?.points && { points: last.points }), ...(last?.box && { box: last.box }) });

/** How a point goes on from what was before it. */
function continued(last) {
  if (last) return { refine: true, multimask: draft.three };
  if (draft.given) return { mask: { rle: draft.given }, multimask: draft.three };
  return { multimask: true };
}

/** @param {(last: Step|undefined) => Step|Promise<Step>} next */
function step(next) {
  const signal = running.signal;
  draft.busy = true;
  queue = queue.then(async () => {
    if (signal.aborted) return;
    try {
      const steps = [...draft.steps, await next(draft.steps.at(-1))];
      if (signal.aborted) return;
      draft.states = [...draft.states.slice(0, draft.at + 1), steps];
      draft.at += 1;
      draft.answers = null;
      await answer(signal);
    } catch (error) {
      fail(error, signal);
    }
  }).finally(() => {
    if (signal === running.signal && draft.answers) draft.busy = false;
    emit("draft");
  });
  emit("draft");
}

/** Gets the answers of the last step, and chooses the most confident if that step was not asked before. */
async function answer(signal) {
  emit("draft");
  save();
  const steps = draft.steps;
  const answers = await ask(steps);
  if (signal.aborted || draft.steps !== steps) return;
  const last = steps.at(-1);
  if (last.chosen === undefined) {
    const scores = answers.map((answer) => answer.iou);
    steps[steps.length - 1] = { ...last, chosen: scores.indexOf(Math.max(...scores)) };
  }
  draft.answers = answers;
  draft.busy = false;
  emit("draft");
  save();
  const { iou } = shownAnswer();
  announce(`Mask with a score of ${iou.toFixed(2)}${answers.length > 1 ? `, one of ${answers.length}` : ""}.`);
}

/** @param {Step[]} steps @param {"polygons"|"rle"} format */
async function ask(steps, format = "polygons") {
  const detail = format === "polygons" ? outlineDetail() : {}; // of what is shown; what is saved is exact
  const key = JSON.stringify([app.photo.id, format, detail, steps.map((step, index) => (
    index === steps.length - 1 ? { ...step, chosen: 0 } : step))]); // the answers do not depend on which is chosen
  if (!known.has(key)) {
    const signal = running.signal;
    await encoded();
    const question = { photo: app.photo.id, steps, format, ...detail };
    const found = await untilAnswered(() => predict(question, signal), FAILED, signal);
    timing.seconds = found.seconds;
    if (known.size > 200) known.delete(known.keys().next().value);
    known.set(key, found.objects[0].answers);
  }
  return known.get(key);
}

function fail(error, signal) {
  if (signal.aborted || error.name === "AbortError") return;
  draft.busy = false;
  draft.waiting = [];
  const why = error instanceof ApiError ? error.message : String(error);
  complain(`${FAILED}: ${why}`, { topic: FAILED, action: draft.answers ? undefined : { label: "Try again", run: again } });
}

function again() {
  if (!draft.steps.length || draft.answers) return;
  const { signal } = running;
  draft.busy = true;
  queue = queue.then(() => answer(signal)).catch((error) => fail(error, signal)).finally(() => emit("draft"));
}

/** Leaves out whatever is under way. */
function interrupt() {
  running.abort(new DOMException("superseded", "AbortError"));
  running = new AbortController();
  queue = Promise.resolve();
  draft.waiting = [];
  draft.busy = false;
}

/** @param {number} index */
export function choose(index) {
  const { steps } = draft;
  if (!draft.answers || index < 0 || index >= draft.answers.length) return;
  // The choice is part of the step: a refinement continues from it.
  draft.states[draft.at] = [...steps.slice(0, -1), { ...steps.at(-1), chosen: index }];
  draft.states.length = draft.at + 1;
  emit("draft");
  save();
  announce(`Mask ${index + 1} of ${draft.answers.length}, score ${shownAnswer().iou.toFixed(2)}.`);
}

export function chooseNext(direction) {
  const count = draft.answers?.length ?? 0;
  if (count > 1) choose(((draft.steps.at(-1).chosen ?? 0) + direction + count) % count);
}

/** Asks for three masks, or for one again: in the last step and in those to come. */
export function toggleThree() {
  draft.three = !draft.three;
  const last = draft.steps.at(-1);
  if (last && (last.multimask ?? true) !== draft.three) {
    const { chosen, ...same } = last;
    interrupt();
    draft.states = [...draft.states.slice(0, draft.at + 1), [...draft.steps.slice(0, -1), { ...same, multimask: draft.three }]];
    draft.at += 1;
    draft.answers = null;
    again();
  }
  emit("draft");
}

/** One click back; false if there is none. */
export function undoStep() {
  if (!draft.at) return false;
  move(-1);
  return true;
}

export function redoStep() {
  if (draft.at + 1 >= draft.states.length) return false;
  move(1);
  return true;
}

function move(direction) {
  interrupt();
  draft.at += direction;
  draft.answers = null;
  save();
  if (draft.steps.length) again();
  emit("draft");
}

/** @returns what `restore` takes */
export const taken = () => ({
  target: draft.target, class: draft.class, given: draft.given, states: draft.states, at: draft.at,
});

/** Begins anew. */
export function reset() {
  interrupt();
  Object.assign(draft, { target: null, class: app.activeClass, given: null, states: [[]], at: 0, answers: null });
  save();
  emit("draft");
}

/** Brings back what `taken` or the storage has. */
export function restore(before) {
  interrupt();
  Object.assign(draft, { answers: null, target: null, given: null, class: null }, before);
  save();
  if (draft.steps.length) again();
  emit("draft");
}

/** Goes on with an object that is saved: from its steps, or from its mask where it has none. */
export async function correct(id) {
  const photo = app.photo.id;
  const full = await untilAnswered(() => getObject(photo, id), FAILED);
  if (app.photo?.id !== photo) return;
  const steps = full.steps ?? [];
  restore({
    target: id, class: full.class, given: steps.length ? null : full.rle, states: [steps], at: 0,
  });
}

/** Resolves when no answer is awaited any more. */
export const settled = () => queue;

function save() {
  if (!app.photo) return;
  const kept = taken();
  const empty = !draft.states.some((steps) => steps.length) && !draft.target;
  if (!empty && JSON.stringify(kept).length > LARGEST_KEPT) [kept.states, kept.at] = [[draft.steps], 0];
  keep("draft", subjectOf(app.photo), empty ? null : kept);
}

/** Takes up what was in progress on the photo when the page was closed. */
export async function takeUp() {
  const photo = app.photo;
  const before = await recall("draft", subjectOf(photo));
  if (app.photo !== photo) return;
  if (before?.states?.[before.at]) restore(before);
  else leave();
}

/** Another photo is shown; what is in progress stays kept with its own. */
export function leave() {
  interrupt();
  Object.assign(draft, { target: null, class: app.activeClass, given: null, states: [[]], at: 0, answers: null });
  emit("draft");
}
