// What buttons and keys do, each by its name.

import { actualSize, camera, fit, reveal, toPhoto, zoomBy } from "./camera.js";
import { cancelDraft, changeFields, perform, remember, rememberCancelled } from "./history.js";
import { answered, chooseNext, correct, draft, freeze, reset, shownAnswer, taken, thaw } from "./draft.js";
import { acceptFound, everything, hoverNext, startEverything, stopEverything } from "./everything.js";
import { focusPhoto } from "./dom.js";
import { announce, complain, dismiss, say } from "./messages.js";
import { clearHover } from "./preview.js";
import { app, emit, nameOf } from "./state.js";
import { setting } from "./storage.js";
import { abandonShape, labelOf, select, tool } from "./tools.js";
import { findObject, newId, submit, tracked, work } from "./work.js";

/** @param {string} name */
export function useTool(name) {
  if (name === "everything" && everything.on) return leaveEverything();
  abandonShape();
  clearHover();
  tool().hover(null);
  if (app.tool === "everything") stopEverything();
  app.tool = name;
  app.hovered = null;
  if (name === "everything" && app.photo) startEverything();
  emit("tool hover");
}

export function leaveEverything() {
  stopEverything();
  if (app.tool === "everything") app.tool = "point";
  emit("tool");
}

/**
 * Saves the mask in progress as an object as soon as it is there, or keeps the mask of everything-mode below the pointer.
 * Clicks that come before the answer are on the next object.
 */
export async function accept() {
  if (tool().close?.()) return;
  if (!draft.active) return everything.on ? acceptFound([everything.hovered]) : undefined;
  if (draft.target && !draft.steps.length && !draft.pending) return acceptClass();
  if (!draft.steps.length && !draft.pending) return;
  const self = freeze();
  const { accepted, photo } = self;
  const saved = await tracked(answered(self));
  if (saved === null) return;
  if (!saved) {
    if (thaw(self)) return;
    rememberCancelled(taken(self), photo);
    return complain(`The mask on ${photo.name} is not saved: ${self.failure} Undo brings it back.`, { topic: "accept" });
  }
  const answer = shownAnswer(self);
  const { target, steps } = self;
  const shown = { polygons: answer.polygons, area: answer.area, box: answer.box, score: answer.iou,
    source: "prompts", clicks: clicks(steps) };
  const found = target ? findObject(target, photo) : undefined;
  const old = found?.deleted ? undefined : found; // deleted in another tab: what was corrected is a new object
  if (old && !self.given) replaceSteps(self, accepted, old, shown);
  else addObject(self, accepted, shown, old);
}

/** A correction without a click, of a mask that has no steps of its own: only its class may have changed. */
function acceptClass() {
  const object = findObject(draft.target);
  const name = draft.class;
  reset();
  if (!object || object.class === name) return announce("Nothing was changed.");
  changeFields("Class changed", [object], { class: name });
  announce(name ? `Class ${name}.` : "No class.");
}

const clicks = (steps) => steps.at(-1).points?.length ?? 0;

/** @param {any} [old] what the new object is a correction of, if that had no steps of its own */
function addObject({ photo, steps, class: name }, at, shown, old) {
  const id = newId();
  const body = { id, steps, class: name, ...(old && { name: old.name, colour: old.colour }) };
  const swap = (deleted) => ({
    kind: "change", changes: [{ id, deleted }, ...(old ? [{ id: old.id, deleted: !deleted }] : [])],
  });
  submit({ kind: "add", objects: [{ body, shown }] }, photo);
  if (old) submit({ kind: "change", changes: [{ id: old.id, deleted: true }] }, photo);
  remember({ what: "Object saved", undo: () => submit(swap(true)), redo: () => submit(swap(false)) }, photo, at);
  if (photo !== app.photo) return announce(`The object on ${photo.name} is saved.`);
  select(app.tool === "select" || old ? id : null);
  announce(`Object ${work.objects.filter((object) => !object.deleted).length} saved${name ? ` as ${name}` : ""}.`);
}

function replaceSteps({ photo, states: [before], steps, class: name }, at, old, shown) {
  if (JSON.stringify(before) === JSON.stringify(steps) && old.class === name) return;
  const { polygons, area, box, score, source, clicks } = old;
  const change = (steps, name, shown) => ({ kind: "change", changes: [{ id: old.id, steps, class: name, shown }] });
  perform("Object corrected", change(steps, name, shown),
    change(before, old.class, { polygons, area, box, score, source, clicks }), undefined, photo, at);
  announce("The corrected object is saved.");
}

/** Gives up the innermost thing that is going on. */
export function cancel() {
  if (abandonShape()) return announce("Drawing discarded.");
  if (draft.active) {
    cancelDraft();
    return announce("Mask cancelled. Undo brings it back.");
  }
  if (everything.on) return leaveEverything();
  if (app.selected) return select(null);
  dismiss();
}

const selected = () => {
  const object = app.selected && findObject(app.selected);
  return object && !object.deleted ? object : null;
};

const selectFirst = () => say("Select an object first.", { topic: "select" });

export async function correctSelected() {
  const object = selected();
  if (!object) return selectFirst();
  if (object.unsaved) return say("This object is still being saved; correct it in a moment.", { topic: "correct" });
  if (draft.active) cancelDraft();
  if (everything.on) leaveEverything();
  if (app.tool === "select" || app.tool === "pan") useTool("point");
  try {
    if (!(await correct(object.id, () => app.selected === object.id && !everything.on))) return;
    document.body.classList.add("folded"); // on a phone the photo has the room now
    focusPhoto();
    announce("Correct the object with further clicks, then press Enter.");
  } catch (error) {
    complain(`The object cannot be corrected: ${error.message}`, { topic: "correct" });
  }
}

export function deleteObject(object = selected()) {
  if (!object) return selectFirst();
  const name = nameOf(object);
  const open = work.objects.filter((other) => !other.deleted);
  const next = open[open.indexOf(object) + 1] ?? open[open.indexOf(object) - 1] ?? null;
  changeFields("Object deleted", [object], { deleted: true });
  if (draft.target === object.id) reset();
  if (app.selected === object.id) select(next?.id ?? null);
  announce(`${name} deleted. Undo brings it back.`);
}

export function hideObject(object = selected()) {
  if (!object) return selectFirst();
  changeFields(object.hidden ? "Object shown" : "Object hidden", [object], { hidden: !object.hidden });
  announce(object.hidden ? "Shown." : "Hidden.");
}

/** Sets the class of the object that is in progress or selected, and of those to come. @param {string|null} name */
export function useClass(name) {
  if (draft.active) draft.class = name;
  else if (selected()) {
    if (selected().class !== name) changeFields("Class changed", [selected()], { class: name });
    announce(name ? `Class ${name}.` : "No class.");
    return;
  }
  app.activeClass = name;
  if (!draft.active) draft.class = name;
  announce(name ? `New objects are of class ${name}.` : "New objects have no class.");
  emit("classes draft");
}

/** @param {number} key 1 to 9, or 0 for none */
export function useClassKey(key) {
  if (key === 0) useClass(null);
  else if (app.classes[key - 1]) useClass(app.classes[key - 1].name);
  else say(`There is no class ${key}.`, { topic: "class" });
}

export function selectNext(direction) {
  if (everything.on) return hoverNext(direction);
  const open = work.objects.filter((object) => !object.deleted);
  if (!open.length) return announce("There are no objects.");
  const at = open.findIndex((object) => object.id === app.selected);
  const object = open[at < 0 ? (direction > 0 ? 0 : open.length - 1) : (at + direction + open.length) % open.length];
  select(object.id);
  announce(`${nameOf(object)} selected.`);
}

export function flipLabel() {
  app.label = 1 - app.label;
  clearHover();
  announce(app.label ? "Clicks mark the object." : "Clicks mark the background.");
  emit("tool");
}

export function resizeBrush(factor) {
  const least = factor > 1 ? app.brush.radius + 1 : app.brush.radius - 1;
  app.brush.radius = Math.round(Math.min(1000, Math.max(1, factor > 1 ? Math.max(least, app.brush.radius * factor)
    : Math.min(least, app.brush.radius * factor))));
  emit("tool shape");
}

export function toggleErase() {
  app.brush.erase = !app.brush.erase;
  announce(app.brush.erase ? "The brush erases." : "The brush adds.");
  emit("tool shape");
}

export function togglePreview() {
  app.preview = !app.preview;
  setting("preview", app.preview ? "on" : "off");
  clearHover();
  announce(app.preview ? "Preview on." : "Preview off.");
  emit("tool");
}

export function hideAll() {
  app.hideAll = !app.hideAll;
  announce(app.hideAll ? "All objects are hidden from view." : "Objects are shown.");
  emit("work");
}

/** Moves the keyboard's crosshair. @param {number} dx @param {number} dy @param {"fine"|"normal"|"far"} pace */
export function moveCrosshair(dx, dy, pace) {
  if (!app.photo) return;
  const far = { fine: 1, normal: Math.max(1, 10 / camera.scale), far: Math.max(1, 60 / camera.scale) }[pace];
  const { width, height } = app.photo;
  const from = app.cursor ?? toPhoto(camera.width / 2, camera.height / 2).map(Math.floor);
  const bound = (value, size) => Math.min(Math.max(Math.round(value), 0), size - 1);
  // The first key only shows it.
  app.cursor = app.cursor ? [bound(from[0] + dx * far, width), bound(from[1] + dy * far, height)]
    : [bound(from[0], width), bound(from[1], height)];
  reveal(...app.cursor);
  tool().hover(app.cursor);
  emit("cursor pointer");
}

/** Clicks at the crosshair. @param {boolean} other beside the object */
export function clickCrosshair(other) {
  if (!app.cursor) return moveCrosshair(0, 0, "fine");
  tool().tap(app.cursor, labelOf(other), true);
}

export const zoomIn = () => zoomBy(1.25, ...zoomCentre());
export const zoomOut = () => zoomBy(1 / 1.25, ...zoomCentre());
const zoomCentre = () => app.cursor
  ? [(app.cursor[0] + 0.5 - camera.x) * camera.scale, (app.cursor[1] + 0.5 - camera.y) * camera.scale] : [];
export { actualSize, fit };
export const nextMask = () => chooseNext(1);
export const previousMask = () => chooseNext(-1);
