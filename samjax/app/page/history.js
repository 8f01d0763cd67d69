// Undo and redo of clicks on the object in progress and of changes that are saved, in the order in which they were done.

import { draft, forgetUndone, lastAccepted, lastStep, nextStep, redoStep, reset, restore, taken, thaw, undoStep } from "./draft.js";
import { announce } from "./messages.js";
import { app, emit, on, stamp } from "./state.js";
import { submit } from "./work.js";

/**
 * @typedef {{what: string, undo: () => void, redo: () => void, changes?: any[], draft?: any}} Entry changes: those that
 *   undo and redo make; draft: what undo brings back in progress
 */
/** @type {Map<string, {done: (Entry & {at: number})[], undone: (Entry & {at: number, clicks?: boolean})[]}>} by photo */
const stacks = new Map();

// A new click is instead of whatever was undone.
on("step", () => (stack().undone.length = 0, emit("history")));

export function stack(photo = app.photo) {
  const id = photo?.id ?? "";
  if (!stacks.has(id)) stacks.set(id, { done: [], undone: [] });
  return stacks.get(id);
}

/**
 * Remembers what was done.
 * @param {Entry} entry @param {import("./state.js").Photo} [photo]
 * @param {number} [at] when it was done, if that was not just now
 */
export function remember(entry, photo = app.photo, at) {
  const { done, undone } = stack(photo);
  const before = at === undefined ? done.length : done.findLastIndex((other) => other.at < at) + 1;
  done.splice(before, 0, { ...entry, at: at ?? stamp() });
  if (done.length > 200) done.shift();
  if (at === undefined) {
    undone.length = 0;
    forgetUndone();
  }
  emit("history");
}

/**
 * Makes a change that can be undone.
 * @param {string} what in words, e.g. "Object deleted" @param {any} change @param {any} opposite
 * @param {any} [again] the change once more, if that is another one
 */
export function perform(what, change, opposite, again = change, photo = app.photo, at = undefined) {
  submit(change, photo);
  remember({ what, changes: [opposite, again], undo: () => submit(opposite), redo: () => submit(again) }, photo, at);
}

/** Changes fields of objects. @param {string} what @param {import("./state.js").SegmentedObject[]} objects */
export function changeFields(what, objects, fields) {
  const names = Object.keys(fields);
  const before = (object) => ({ id: object.id, ...Object.fromEntries(names.map((name) => [name, object[name]])) });
  perform(what, { kind: "change", changes: objects.map(({ id }) => ({ id, ...fields })) },
    { kind: "change", changes: objects.map(before) });
}

/** A class has another name, also in what undo and redo bring back. @param {string} before @param {string} name */
export function renameInHistory(before, name) {
  for (const { done, undone } of stacks.values()) {
    for (const { changes = [], draft } of [...done, ...undone]) {
      for (const change of changes) {
        change.changes = change.changes?.map((fields) => (fields.class === before ? { ...fields, class: name } : fields));
      }
      if (draft?.class === before) draft.class = name;
    }
  }
}

export function undo() {
  const { done, undone } = stack();
  const newest = done.at(-1)?.at ?? 0;
  if (draft.active && lastStep() > newest) return undoClick(undone);
  const accepted = lastAccepted();
  if (accepted && accepted.accepted > newest && thaw(accepted)) return announce("The mask is in progress again.");
  const entry = done.pop();
  if (!entry) return announce("There is nothing to undo.");
  if (!draft.active && nextStep() < Infinity) {
    const clicks = taken(); // undone before, so redone after
    undone.push({ what: "Click", at: nextStep(), clicks: true, draft: clicks, undo() {}, redo: () => (restore(clicks), redoStep()) });
    reset();
  }
  undone.push(entry);
  entry.undo();
  announce(`Undone: ${entry.what}.`);
  emit("history");
}

function undoClick(undone) {
  if (undoStep()) return announce("Click undone.");
  const before = taken();
  undone.push({ what: before.target ? "Correction" : "Click", at: before.stamps[0], clicks: true, draft: before, undo() {},
    redo: () => restore(before) });
  reset();
  announce(before.target ? "Back before the correction." : "Click undone.");
  emit("history");
}

export function redo() {
  const { done, undone } = stack();
  const entry = undone.at(-1);
  if (nextStep() < (entry?.at ?? Infinity)) {
    redoStep();
    return announce("Click redone.");
  }
  if (!entry) return announce("There is nothing to redo.");
  undone.pop();
  if (!entry.clicks) done.push(entry);
  entry.redo();
  announce(`Redone: ${entry.what}.`);
  emit("history");
}

/** Gives up what is in progress, in a way that undo brings back. */
export function cancelDraft() {
  forgetUndone();
  const before = taken();
  reset();
  rememberCancelled(before);
}

/** @param {any} before what was in progress @param {import("./state.js").Photo} [photo] */
export function rememberCancelled(before, photo = app.photo) {
  remember({ what: "Mask cancelled", draft: before, undo: () => restore(before), redo: reset }, photo);
}
