// Undo and redo: first of clicks on the object in progress, then of changes that are saved, by their opposite.

import { draft, redoStep, reset, restore, undoStep } from "./draft.js";
import { announce } from "./messages.js";
import { app, emit } from "./state.js";
import { submit } from "./work.js";

/** @typedef {{what: string, undo: () => void, redo: () => void}} Entry */
/** @type {Map<string, {done: Entry[], undone: Entry[]}>} by photo */
const stacks = new Map();

export function stack() {
  const photo = app.photo?.id ?? "";
  if (!stacks.has(photo)) stacks.set(photo, { done: [], undone: [] });
  return stacks.get(photo);
}

/** Remembers what was done. @param {Entry} entry */
export function remember(entry) {
  const { done } = stack();
  stacks.set(app.photo.id, { done: [...done.slice(-199), entry], undone: [] });
  emit("history");
}

/**
 * Makes a change that can be undone.
 * @param {string} what in words, e.g. "Object deleted" @param {any} change @param {any} opposite
 * @param {any} [again] the change once more, if that is another one
 */
export function perform(what, change, opposite, again = change) {
  submit(change);
  remember({ what, undo: () => submit(opposite), redo: () => submit(again) });
}

/** Changes fields of objects. @param {string} what @param {import("./state.js").SegmentedObject[]} objects */
export function changeFields(what, objects, fields) {
  const names = Object.keys(fields);
  const before = (object) => ({ id: object.id, ...Object.fromEntries(names.map((name) => [name, object[name]])) });
  perform(what, { kind: "change", changes: objects.map(({ id }) => ({ id, ...fields })) },
    { kind: "change", changes: objects.map(before) });
}

export function undo() {
  if (undoStep()) return announce("Click undone.");
  if (draft.active) {
    reset();
    return announce("Back before the correction.");
  }
  const { done, undone } = stack();
  const entry = done.pop();
  if (!entry) return announce("There is nothing to undo.");
  undone.push(entry);
  entry.undo();
  announce(`Undone: ${entry.what}.`);
  emit("history");
}

export function redo() {
  if (redoStep()) return announce("Click redone.");
  const { done, undone } = stack();
  const entry = undone.pop();
  if (!entry) return announce("There is nothing to redo.");
  done.push(entry);
  entry.redo();
  announce(`Redone: ${entry.what}.`);
  emit("history");
}

/** Gives up what is in progress, in a way that undo brings back. */
export function cancelDraft(before) {
  reset();
  remember({ what: "Mask cancelled", undo: () => restore(before), redo: reset });
}
