// The object in progress: its steps so far, each with the answers to choose from. Every click is a step of its own, so
// undo goes back by one; what is not accepted yet is kept for a reload.

import { ask, FAILED } from "./answers.js";
import { ApiError, object as getObject } from "./api.js";
import { Attempt } from "./attempt.js";
import { along, around } from "./drawn.js";
import { announce, complain, say } from "./messages.js";
import { untilAnswered } from "./retry.js";
import { app, emit, stamp, subjectOf } from "./state.js";
import { keep, recall } from "./storage.js";

export { waitForEncoding } from "./answers.js";

/** @typedef {import("./state.js").Step} Step */

const LARGEST_KEPT = 400_000; // characters in localStorage

/** The one that clicks go to. */
export let draft = new Attempt();
/** @type {Attempt[]} accepted, but not answered */
let accepted = [];
/** @type {Map<string, Attempt>} by photo: an accepted one that is what is kept of that photo */
const keptAccepted = new Map();
let three = false;
/** @type {{answered: {clicked: number, seconds: any}|null}} the click whose mask is there, but not drawn yet */
export const timing = { answered: null };

/** The mask that is shown. */
export function shownAnswer(of = draft) {
  return of.answers?.[of.steps.at(-1)?.chosen ?? 0] ?? null;
}

/** @param {number} x @param {number} y a pixel of the photo @param {number} label */
export function addPoint(x, y, label) {
  if (!draft.active && !label) {
    say("Begin with a point on the object; background points take away from its mask.");
    return;
  }
  draft.waiting.push([x, y, label]);
  save();
  step((last, self) => {
    self.waiting.shift();
    return { ...prompts(last), points: [...(last?.points ?? []), [x, y, label]], ...continued(last, self) };
  });
}

/** @param {number[]} box */
export function addBox(box) {
  // A new box may be around something else than the mask so far: it asks anew, with the points that are there.
  step((last) => ({ ...(last?.points && { points: last.points }), box, multimask: three }));
}

/** @param {number[][]} outline */
export function addLasso(outline) {
  step((last, self) => ({ ...prompts(last), box: around(outline, self.photo), mask: { outlines: [outline] }, multimask: three }));
}

/** @param {{points: number[][], radius: number, erase?: boolean}} stroke */
export function addStroke(stroke) {
  if (stroke.erase && !draft.active) {
    say("There is no mask to erase from: paint or click on something first.");
    return;
  }
  step(async (last, self) => {
    const rle = last ? (await ask(self, self.steps, "rle")).answers[last.chosen ?? 0].rle : self.given;
    const mask = { ...(rle && { rle }), strokes: [stroke] };
    const points = along(stroke, self.photo).map(([x, y]) => [x, y, stroke.erase ? 0 : 1]);
    return { ...prompts(last), points: [...(last?.points ?? []), ...points], mask, multimask: three };
  });
}

const prompts = (last) => ({ ...(last?.points && { points: last.points }), ...(last?.box && { box: last.box }) });

/** How a point goes on from what was before it. */
function continued(last, { given }) {
  if (last) return { refine: true, multimask: three };
  if (given) return { mask: { rle: given }, multimask: three };
  return { multimask: true };
}

/** @param {(last: Step|undefined, self: Attempt) => Step|Promise<Step>} next */
function step(next) {
  const self = draft;
  const { signal } = self.running;
  const clicked = performance.now();
  self.pending += 1;
  self.queue = self.queue.then(async () => {
    if (signal.aborted) return;
    try {
      const steps = [...self.steps, await next(self.steps.at(-1), self)];
      if (signal.aborted) return;
      advance(self, steps);
      await answer(self, signal, clicked);
    } catch (error) {
      fail(self, error, signal);
    }
  }).finally(() => {
    if (!signal.aborted) self.pending -= 1;
    emit("draft");
  });
  emit("draft step");
}

/** @param {Attempt} self @param {Step[]} steps which take the place of those that were undone */
function advance(self, steps) {
  forgetUndone(self);
  self.states = [...self.states, steps];
  self.stamps = [...self.stamps, stamp()];
  self.at += 1;
  self.answers = null;
}

/** Gets the answers of the last step, and chooses the most confident if that step was not asked before. */
async function answer(self, signal, clicked = 0) {
  emit("draft");
  save(self);
  const { steps } = self;
  const { answers, seconds } = await ask(self, steps);
  if (signal.aborted || self.steps !== steps) return;
  const last = steps.at(-1);
  if (last.chosen === undefined) {
    const scores = answers.map((answer) => answer.iou);
    steps[steps.length - 1] = { ...last, chosen: scores.indexOf(Math.max(...scores)) };
  }
  [self.answers, self.failure] = [answers, ""];
  if (clicked && self === draft) timing.answered = { clicked, seconds };
  emit("draft");
  save(self);
  const { iou } = shownAnswer(self);
  announce(`Mask with a score of ${iou.toFixed(2)}${answers.length > 1 ? `, one of ${answers.length}` : ""}.`);
}

function fail(self, error, signal) {
  if (signal.aborted || error.name === "AbortError") return;
  self.waiting = [];
  self.failure = error instanceof ApiError ? error.message : String(error);
  if (self === draft) tellFailure();
}

function tellFailure() {
  complain(`${FAILED}: ${draft.failure}`, { topic: FAILED, action: draft.answers ? undefined : { label: "Try again", run: again } });
}

function again() {
  const self = draft;
  if (!self.steps.length || self.answers) return;
  const { signal } = self.running;
  self.queue = self.queue.then(() => answer(self, signal)).catch((error) => fail(self, error, signal)).finally(() => emit("draft"));
}

/** Leaves out whatever is under way. */
function interrupt() {
  draft.running.abort(new DOMException("superseded", "AbortError"));
  Object.assign(draft, { running: new AbortController(), queue: Promise.resolve(), waiting: [], pending: 0 });
}

/** @param {number} index */
export function choose(index) {
  const { steps } = draft;
  if (!draft.answers || index < 0 || index >= draft.answers.length) return;
  // The choice is part of the step: a refinement continues from it.
  draft.states[draft.at] = [...steps.slice(0, -1), { ...steps.at(-1), chosen: index }];
  forgetUndone();
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
  three = !three;
  const last = draft.steps.at(-1);
  if (last && (last.multimask ?? true) !== three) {
    const { chosen, ...same } = last;
    interrupt();
    advance(draft, [...draft.steps.slice(0, -1), { ...same, multimask: three }]);
    again();
    emit("step");
  }
  emit("draft");
}

/** When the newest click was made, or the next one that was undone; none: 0 and Infinity. */
export const lastStep = () => (draft.pending ? Infinity : draft.active ? draft.stamps[draft.at] : 0);
export const nextStep = () => draft.stamps[draft.at + 1] ?? Infinity;

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

/** Undone clicks are not to be done again. */
export function forgetUndone(self = draft) {
  self.states.length = self.stamps.length = self.at + 1;
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
export const taken = (self = draft) => ({
  target: self.target, class: self.class, given: self.given, states: [...self.states], stamps: [...self.stamps], at: self.at,
  waiting: [...self.waiting],
});

/** Begins anew. */
export function reset() {
  leave();
  save();
}

/** Brings back what `taken` or the storage has. */
export function restore(before) {
  interrupt();
  draft = new Attempt(before);
  if (draft.steps.length) again();
  for (const point of before.waiting ?? []) addPoint(...point);
  save();
  emit("draft");
}

/**
 * Goes on with an object that is saved: from its steps, or from its mask where it has none; false if the object in
 * progress is another one by the time that they are there.
 * @param {string} id @param {() => boolean} wanted
 */
export async function correct(id, wanted) {
  const { photo, running: { signal } } = draft;
  const full = await untilAnswered(() => getObject(photo.id, id), FAILED, signal).catch((error) => {
    if (!signal.aborted) throw error;
  });
  if (signal.aborted || draft.active || app.photo !== photo || !wanted()) return false;
  const steps = full.steps ?? [];
  restore({
    target: id, class: full.class, given: steps.length ? null : full.rle, states: [steps], at: 0,
  });
  return true;
}

/** Takes the object in progress as it is; later clicks are on the next one. */
export function freeze() {
  const self = draft;
  self.accepted = stamp();
  if (!self.pending && self.answers) self.failure = ""; // it was told, and accepted without
  accepted.push(self);
  keptAccepted.set(subjectOf(self.photo), self);
  draft = new Attempt();
  emit("draft step");
  return self;
}

/** Waits for the answer of one that was just accepted. @returns {Promise<boolean|null>} null: it is in progress again */
export async function answered(self) {
  const ticket = self.accepted;
  if (self.pending || !self.answers) {
    for (let before = null; before !== self.queue; ) await (before = self.queue);
  }
  if (self.accepted !== ticket) return null;
  accepted = accepted.filter((other) => other !== self);
  const subject = subjectOf(self.photo);
  const kept = keptAccepted.get(subject) === self;
  if (kept) keptAccepted.delete(subject);
  if (!self.answers || self.failure) return false; // a stroke that failed is not left out in silence
  if (kept) keep("draft", subject, null);
  return true;
}

/** The newest that is accepted on this photo and not answered. */
export const lastAccepted = () => accepted.findLast((self) => isOpen(self.photo));

const isOpen = (photo) => Boolean(app.photo) && subjectOf(photo) === subjectOf(app.photo);

/** Makes an accepted one the one in progress again; false if there is another one or another photo. @param {Attempt} self */
export function thaw(self) {
  if (draft.active || !isOpen(self.photo)) return false;
  accepted = accepted.filter((other) => other !== self);
  Object.assign(self, { accepted: 0, photo: app.photo });
  draft = self;
  save();
  if (self.failure) tellFailure();
  emit("draft");
  return true;
}

/** Resolves when no answer is awaited any more. */
export const settled = () => draft.queue;

function save(self = draft) {
  if (!self.photo) return;
  const subject = subjectOf(self.photo);
  const empty = !self.states.some((steps) => steps.length) && !self.target && !self.waiting.length;
  if (self === draft ? empty && keptAccepted.has(subject) : keptAccepted.get(subject) !== self) return;
  if (self === draft) keptAccepted.delete(subject);
  const kept = taken(self);
  if (!empty && JSON.stringify(kept).length > LARGEST_KEPT) [kept.states, kept.stamps, kept.at] = [[self.steps], [self.stamps[self.at]], 0];
  keep("draft", subject, empty ? null : kept);
}

/** Takes up what was in progress on the photo when the page was closed. */
export async function takeUp() {
  leave();
  const { photo } = draft;
  const before = await recall("draft", subjectOf(photo));
  if (app.photo !== photo || draft.active || keptAccepted.has(subjectOf(photo))) return;
  if (before?.states?.[before.at]) restore(before);
}

/** Another photo is shown; what is in progress stays kept with its own. */
export function leave() {
  interrupt();
  draft = new Attempt();
  emit("draft");
}
